"""Work ahead: ideas submitted while another is tried, re-based when it is kept, and never assumed to add up."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.ahead_bench import ahead, await_judged, await_rest, driver_pid, experiment, make_ahead_loop
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, TAG, Loop, make_loop
from tests.noise_bench import rule
from tests.trial_bench import eventually

from autoresearch.agents.leftovers import NIGHT_MARK, end_leftovers
from autoresearch.campaign.driver import is_driven
from autoresearch.ledger import State
from autoresearch.trial import Outcome


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    return make_ahead_loop(tmp_path / "project", run_script)


def code(loop: Loop, commit: str) -> tuple[str, str]:
    """LR and WIDTH in a commit."""
    lines = loop.git("show", f"{commit}:train.py").splitlines()
    return tuple(line.split(" = ")[1] for line in lines if line.startswith(("LR", "WIDTH")))  # type: ignore[return-value]


def attempts(loop: Loop, number: int) -> list[int]:
    return [trial.attempt for trial in loop.trials() if trial.number == number]


def test_submission_leaves_branch_and_files_where_they_are(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        tip, text = loop.tip(), loop.text()
        answer = ahead(loop, "wider", WIDTH=80)
        assert (answer["experiment"]["number"], answer["state"]) == (2, "running")
        assert (loop.tip(), loop.text()) == (tip, text)
        assert loop.git("status", "--porcelain") == ""
        second = experiment(loop, 2)
        assert (second.parent, code(loop, second.commit)) == (experiment(loop, 0).commit, ("4", "80"))
        assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/experiments/2.1") == second.commit
        assert [each["standing"] for each in loop.look()["opened"]] == ["running", "waits for a slot"]
    assert await_judged(loop, 2).verdict == "better", "the driver started it without any command"
    await_rest(loop)


def test_second_of_two_winners_is_rebased_and_confirmed_anew(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        ahead(loop, "wider", WIDTH=80)
    await_judged(loop, 2)
    await_rest(loop)
    assert loop.log()["experiment"]["number"] == 1
    second = await_judged(loop, 2)
    assert (second.attempt, second.parent, second.incumbent) == (2, loop.tip(), 1)
    assert code(loop, second.commit) == ("8", "80")
    assert set(attempts(loop, 2)) == {1, 2}
    assert "experiment 2, attempt 2, moved from experiment 0 to 1: wider" in loop.run("status", cwd=loop.folder).stdout
    assert set(second.judgement["runs"].values()) == {0.9916}
    assert loop.log()["experiment"]["status"] == "keep"
    assert (code(loop, loop.tip()), "WIDTH = 80" in loop.text()) == (("8", "80"), True)
    assert [row[3] for row in loop.rows] == ["keep"] * 3
    assert "experiment 2, made on experiment 0, is now on experiment 1" in "\n".join(loop.look()["events"])


def test_loser_stays_judged_beside_what_it_was_compared_with(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        ahead(loop, "narrower", WIDTH=60)
    await_judged(loop, 2)
    assert [loop.log()["experiment"]["status"] for _ in range(2)] == ["keep", "discard"]
    assert set(attempts(loop, 2)) == {1}
    assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/discarded/2") == experiment(loop, 2).commit
    assert (rule(loop).ideas, rule(loop).misses) == (2, 0), "it is no miss beside the new incumbent"


def test_conflict_with_what_was_kept_is_a_discard_that_says_so(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "faster", LR=8)
        loop.write({"train.py": loop.text().replace("LR = 4\n", "LR = 8  # as well\n")})
        loop.call("run_experiment", "-d", "also faster", "--ahead", expect=10)
    await_judged(loop, 2)
    assert loop.log()["experiment"]["status"] == "keep"
    state = loop.look()
    assert "train.py was changed at the same lines by experiment 1" in state["experiment"]["reason"]
    assert loop.log()["experiment"]["status"] == "discard"
    assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/discarded/2") == experiment(loop, 2).commit


def test_edit_that_does_not_fit_its_base_is_refused_and_changes_nothing(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        loop.edit(LR=2)
        text, tip = loop.text(), loop.tip()
        assert ahead(loop, "on top", expect=4)["code"] == "conflict"
        assert (loop.text(), loop.tip(), len(loop.look()["opened"])) == (text, tip, 1)
    loop.await_trial()


# ---- on the candidate


def test_candidate_that_is_kept_carries_what_is_built_on_it(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        ahead(loop, "and wider", "candidate", WIDTH=80)
        second = experiment(loop, 2)
        assert (second.parent, second.incumbent, code(loop, second.commit)) == (loop.tip(), 1, ("8", "80"))
    await_judged(loop, 1)
    await_rest(loop)
    standing = [each["standing"] for each in loop.look()["opened"]]
    assert standing == ["to be logged", "waits for experiment 1, which it is built on"]
    assert len(attempts(loop, 2)) == 1, "it was screened meanwhile"
    loop.log()
    assert loop.look("--wait", 30)["experiment"]["verdict"] == "better"
    assert (loop.log()["experiment"]["status"], attempts(loop, 2)) == ("keep", [1])


def test_candidate_that_is_discarded_is_taken_out_of_what_is_built_on_it(loop: Loop) -> None:
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10, LR=2)
        ahead(loop, "wider", "candidate", WIDTH=80)
    await_judged(loop, 1)
    await_rest(loop)
    assert loop.log()["experiment"]["status"] == "discard"
    second = await_judged(loop, 2)
    assert (second.attempt, second.parent, second.incumbent) == (2, experiment(loop, 0).commit, 0)
    assert code(loop, second.commit) == ("4", "80")
    assert loop.log()["experiment"]["status"] == "keep"


def test_trial_on_code_that_was_discarded_is_ended_at_once(loop: Loop) -> None:
    loop.submit("faster", LR=8)
    with loop.holding():
        ahead(loop, "and wider", "candidate", WIDTH=80)
        loop.log("--status", "discard")
        first, *_ = [trial for trial in loop.trials() if trial.number == 2]
        assert first.result is not None
        assert first.result.outcome is Outcome.INTERRUPTED
        assert attempts(loop, 2) == [1, 2]
    assert await_judged(loop, 2).verdict == "better"


def test_candidate_without_which_the_change_makes_no_sense_takes_it_along(loop: Loop) -> None:
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10, LR=2)
        loop.write({"train.py": loop.text().replace("LR = 2\n", "LR = 2  # slow\n")})
        loop.call("run_experiment", "-d", "slower still", "--ahead", "candidate", expect=10)
    await_judged(loop, 1)
    loop.log()
    second = await_judged(loop, 2)
    assert (second.verdict, second.judgement["decision"]) == ("inconclusive", "discard")
    assert "it changes lines of train.py that experiment 1 had changed, which was not kept" in second.reason
    assert loop.log()["experiment"]["status"] == "discard"


# ---- what is refused


def test_without_a_measured_baseline_there_is_nothing_to_be_ahead_of(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script)
    assert ahead(loop, "faster", expect=4, LR=8)["code"] == "no_baseline"


def test_work_tree_that_trials_run_in_has_nothing_beside_it(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_ahead_loop(tmp_path / "project", run_script, config=f"{CONFIG}isolation: inplace\n")
    assert ahead(loop, "faster", expect=4, LR=8)["code"] == "inplace"


def test_alone_it_starts_at_once_and_a_keep_brings_it_onto_the_branch(loop: Loop) -> None:
    before = loop.tip()
    with loop.holding():
        ahead(loop, "faster", LR=8)
    assert "LR = 4" in loop.text()
    await_judged(loop, 1)
    assert loop.tip() == before
    loop.write({"train.py": loop.text().replace("WIDTH = 64", "WIDTH = 72")})
    told = loop.log()["told"]
    assert "keeps your newer edit" in " ".join(told)
    assert loop.tip() == experiment(loop, 1).commit
    assert "LR = 8" in loop.text()
    assert "WIDTH = 72" in loop.text()


def test_refusals_are_clear(loop: Loop) -> None:
    assert ahead(loop, "nothing", expect=4)["code"] == "no_change"
    assert loop.submit("", "--ahead", expect=2, WIDTH=80)["code"] == "no_description"
    assert ahead(loop, "on what?", "candidate", expect=4)["code"] == "no_candidate"
    with loop.holding():
        for width in (80, 81, 82):
            ahead(loop, f"width {width}", WIDTH=width)
        assert ahead(loop, "once more", expect=4, WIDTH=82)["code"] == "enough_ahead"
        loop.git("checkout", "-q", "--", "train.py")
        assert loop.submit("plain", expect=10, WIDTH=83)["hint"].endswith("add --ahead to the command.")
        loop.git("checkout", "-q", "--", "train.py")
    await_judged(loop, 3)
    loop.log()
    assert ahead(loop, "again", expect=4, WIDTH=80)["code"] in ("no_change", "tried_already")


def test_other_commands_say_what_is_open_and_lose_nothing(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "wider", WIDTH=80)
        for command in (("revert", "--to", 0), ("setup_campaign", "--reconfigure"), ("compare", "baseline", "best")):
            error = loop.call(*command, expect=10 if command[0] == "revert" else 4)
            assert "Experiment 1 is" in error["message"]
            assert "status.py" in error["hint"]
        loop.edit(LR=2)
        assert loop.call("revert")["restored"] == ["train.py"]
        assert loop.git("status", "--porcelain") == ""
    assert await_judged(loop, 1).verdict == "better"


def test_failed_experiment_ahead_is_logged_as_a_crash(loop: Loop) -> None:
    loop.write({"train.py": loop.text().replace("prepare.hold()", "prepare.hold()\nraise SystemExit(3)")})
    with loop.holding():  # it still runs when the command ends
        loop.call("run_experiment", "-d", "broken", "--ahead", expect=10)
    await_judged(loop, 1)
    assert loop.look()["next"]["command"].endswith(f"scripts/log_result.py --project {loop.folder}")
    assert loop.log()["experiment"]["status"] == "crash"


# ---- the driver


def test_driver_that_is_killed_is_missed_only_until_the_next_command(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        ahead(loop, "wider", WIDTH=80)
        os.kill(driver_pid(loop), signal.SIGKILL)
        eventually(lambda: not is_driven(loop.state_dir / TAG))
    loop.await_trial()
    assert experiment(loop, 1).state is State.RUNNING
    loop.look()
    assert await_judged(loop, 2).verdict == "better"


def test_end_of_a_night_ends_the_driver_and_not_the_trial(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NIGHT_MARK, "night-of-this-test")
    with loop.holding():
        ahead(loop, "wider", WIDTH=80)
        driver_pid(loop)
        assert "a driver starts what comes next in apr5" in str(loop.call("doctor"))
        assert end_leftovers("night-of-this-test") == 1
        assert not is_driven(loop.state_dir / TAG)
        assert loop.processes()
    loop.await_trial()


def test_driver_ends_when_the_project_vanishes(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "wider", WIDTH=80)
        driver_pid(loop)
        moved = loop.folder.rename(loop.folder.with_name("elsewhere"))
        eventually(lambda: not is_driven(moved / ".git" / "autoresearch" / TAG))
