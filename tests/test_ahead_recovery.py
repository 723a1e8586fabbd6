"""Kills at any moment while experiments are open ahead: the next commands have everything back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from tests.ahead_bench import ahead, await_judged, await_rest, driver_pid, experiment, make_ahead_loop
from tests.conftest import RunScript
from tests.loop_bench import TAG, Loop
from tests.test_recovery import NOTES, Killer, check, length_s
from tests.trial_bench import eventually

from autoresearch.campaign.driver import is_driven
from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Experiment
from autoresearch.repo import Repo

# Read before the fixtures clear the environment: how many rounds of kills, and the seed of their moments.
KILLS = int(os.environ.get("AUTORESEARCH_KILLS", "8"))
KILL_SEED = os.environ.get("AUTORESEARCH_KILL_SEED", "1")


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    loop = make_ahead_loop(tmp_path / "project", run_script)
    loop.write({"notes.txt": NOTES})
    return loop


def opened(loop: Loop) -> list[Experiment]:
    with open_ledger(loop.folder) as (_, ledger):
        return ledger.open_experiments(TAG)


def check_ahead(loop: Loop) -> None:
    """What must hold after any command while experiments are open ahead."""
    here = [each for each in opened(loop) if not each.is_ahead]
    assert loop.tip() == (here[0].commit if here else loop.incumbent())
    for each in opened(loop):
        assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/experiments/{each.number}.{each.attempt}") == each.commit
    assert loop.git("diff", "--cached", "--name-only") == ""
    seeds = [(trial.number, trial.attempt, trial.seed) for trial in loop.trials() if trial.metric is not None]
    assert len(seeds) == len(set(seeds)), "no attempt is run twice at one seed"
    assert loop.text("notes.txt") == NOTES


def drain(loop: Loop) -> None:
    """Log all that is open."""
    for _ in range(30):
        state = loop.look()
        if not state["opened"]:
            return
        if "log_result.py" in state["next"]["command"]:
            loop.log()
        elif "run_experiment.py" in state["next"]["command"]:
            loop.log("--status", "crash")
        else:
            loop.look("--wait", 30)
    raise AssertionError("it does not come to an end")


@pytest.mark.slow
@pytest.mark.timeout(120 + 30 * KILLS)
def test_nothing_is_lost_by_kills_at_random_moments_while_work_is_ahead(loop: Loop) -> None:
    killer = Killer(loop, KILL_SEED)
    loop.edit(WIDTH=65)
    ahead_s = length_s(loop, "run_experiment", "-d", "timed", "--ahead")
    await_judged(loop, 1)
    log_s = length_s(loop, "log_result")
    for number in range(KILLS):
        victim = ("run", "log", "driver", "runner")[number % 4]
        place = f"round {number}: {victim}"
        width = 70 + 3 * number if number % 2 else 60 - 3 * number
        with loop.holding():
            loop.edit(WIDTH=width)
            loop.call("run_experiment", "-d", f"{place}, before", "--ahead", expect=10)
            loop.edit(WIDTH=width + 1)
            if victim == "run":
                killer.command(ahead_s, "run_experiment", "-d", place, "--ahead")
            else:
                loop.call("run_experiment", "-d", place, "--ahead", expect=10)
            if victim == "driver":
                os.kill(driver_pid(loop), signal.SIGKILL)
                killer.killed += 1
            if victim == "runner":
                os.kill(int(eventually(killer._runner_pid)), signal.SIGKILL)
                killer.killed += 1
        if victim == "log":
            await_judged(loop, opened(loop)[0].number)
            killer.command(log_s, "log_result")
        loop.look()
        check_ahead(loop)
        loop.git("checkout", "-q", "--", "train.py")  # the edit of a submission that was killed early
        drain(loop)
        await_rest(loop)
        check(loop)
    assert killer.killed > KILLS / 2


def test_submission_that_is_killed_before_its_ref_is_completed(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """The edit leaves the work tree once, and the commit is held, by whatever command comes next."""
    from autoresearch.campaign import ahead as module

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with loop.holding():
        with monkeypatch.context() as patch:
            patch.setattr(module, "hold_at_ref", killed)
            loop.edit(WIDTH=80)
            with pytest.raises((KeyboardInterrupt, SystemExit, AssertionError)):
                loop.call("run_experiment", "-d", "wider", "--ahead", expect=10)
        assert "WIDTH = 80" in loop.text()
        loop.look()
        check_ahead(loop)
        assert ("WIDTH = 64" in loop.text(), experiment(loop, 1).description) == (True, "wider")
    drain(loop)
    assert "WIDTH = 80" in loop.text()
    await_rest(loop)
    check(loop)


def test_hard_reset_and_clean_lose_nothing_that_is_ahead(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "faster", LR=8)
        ahead(loop, "wider", WIDTH=80)
        for command in ("reset -q --hard", "clean -q -fdx -e notes.txt", "reflog expire --expire=now --all",
                        "gc -q --prune=now"):  # fmt: skip
            loop.git(*command.split())
        check_ahead(loop)
    drain(loop)
    assert [row[3] for row in loop.rows] == ["keep"] * 3
    await_rest(loop)
    check(loop)


def test_refs_that_stand_are_left_alone_and_others_are_put_right(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever became of them, and also where the command that mends them is killed between two."""
    set_ref = Repo.set_ref
    written: list[str] = []

    def killed_after_one(repo: Repo, ref: str, commit: str) -> None:
        set_ref(repo, ref, commit)
        written.append(ref)
        raise KeyboardInterrupt

    with loop.holding():
        ahead(loop, "wider", WIDTH=80)
        ahead(loop, "narrower", WIDTH=60)
        with monkeypatch.context() as patch:
            patch.setenv("GIT_TRACE", str(tmp_path / "trace"))
            loop.look()
        trace = (tmp_path / "trace").read_text()
        assert ("for-each-ref" in trace, "update-ref" in trace) == (True, False)

        os.kill(driver_pid(loop), signal.SIGKILL)  # it would mend them first
        eventually(lambda: not is_driven(loop.state_dir / TAG))
        gone, moved = (f"refs/autoresearch/{TAG}/experiments/{number}.1" for number in (1, 2))
        loop.git("update-ref", "-d", gone)
        loop.git("update-ref", moved, "HEAD")
        with monkeypatch.context() as patch:
            patch.setattr(Repo, "set_ref", killed_after_one)
            with pytest.raises((KeyboardInterrupt, SystemExit, AssertionError)):
                loop.look()
        assert len(written) == 1
        loop.look()
        check_ahead(loop)
    drain(loop)
    await_rest(loop)
