"""Several trials of one campaign at once: checkouts of their own, the order of decisions, sweeps, re-tests."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from tests.ahead_bench import PREPARE, TRAIN, ahead, await_judged, await_rest, experiment, make_ahead_loop
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, TAG, Loop, make_loop, make_measured_loop
from tests.noise_bench import CONFIG as NOISY
from tests.noise_bench import comment_with_luck, make_noisy_loop, next_seeds, project
from tests.test_recovery import start
from tests.trial_bench import eventually

from autoresearch.campaign import driver
from autoresearch.campaign.sweep_point import decide_one_of
from autoresearch.config import Config
from autoresearch.errors import UsageError
from autoresearch.ledger import Purpose
from autoresearch.report.sweep_text import Watcher
from autoresearch.trial import SPEC_FILE, TrialSpec

THREE = "executor: {parallel: 3, cpus_per_trial: 0.25}\n"
# Nobody leaves before so many have come.
MEETING = """
MEET = os.environ.get("TOY_MEETING", "")


def meet(name, number):
    give_up = time.monotonic() + 30
    if MEET:
        open(os.path.join(MEET, name), "w").close()
        while len(os.listdir(MEET)) < number:
            assert time.monotonic() < give_up, "they do not run at once"
            time.sleep(0.01)
"""


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    return make_ahead_loop(tmp_path / "project", run_script, config=CONFIG + THREE)


def under_way(loop: Loop) -> list[Path]:
    """The folders of the trials that have been submitted and not been taken in."""
    return [Path(trial.directory) for trial in loop.trials() if trial.result is None and trial.handle]


def places(loop: Loop) -> list[str]:
    """The checkouts of the trials under way."""
    return [Path(TrialSpec.read(folder / SPEC_FILE).cwd).name for folder in under_way(loop)]


def test_each_of_the_trials_at_once_has_a_checkout_of_its_own(loop: Loop) -> None:
    with loop.holding():
        for width in (70, 71, 72, 73):
            ahead(loop, f"width {width}", WIDTH=width)
        assert places(loop) == ["0", "1", "2"]
        assert [each["standing"] for each in loop.look()["opened"]] == [*["running"] * 3, "waits for a slot"]
        checkouts = loop.state_dir / TAG / "checkouts"
        eventually(lambda: len(loop.look()["trials"]) == 3)
        texts = [(checkouts / name / "train.py").read_text() for name in "012"]
        assert [f"WIDTH = {width}" in text for width, text in zip((70, 71, 72), texts, strict=True)] == [True] * 3
    await_judged(loop, 4)
    await_rest(loop)
    assert list(checkouts.iterdir()) == []


def test_misses_are_logged_as_they_come_and_a_keep_waits_its_turn(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "faster", LR=8)
        gate = os.environ.pop("TOY_GATE")
        loop.submit("narrower", "--ahead", "--wait", 30, WIDTH=60)
        loop.submit("wider", "--ahead", "--wait", 30, WIDTH=80)
        assert [experiment(loop, number).verdict for number in (2, 3)] == ["worse", "better"]
        assert loop.log()["experiment"]["number"] == 2
        assert loop.look()["opened"][1]["standing"] == "better, kept once experiment 1 is decided"
        error = loop.log(expect=10)
        assert error["message"] == "Experiment 1 is not decided; experiment 3 can be kept only after it."
        os.environ["TOY_GATE"] = gate
    await_judged(loop, 1)
    assert loop.log()["experiment"]["number"] == 1
    assert await_judged(loop, 3).incumbent == 1
    assert loop.log()["experiment"]["status"] == "keep"
    assert loop.tip() == loop.incumbent() == experiment(loop, 3).commit


def test_trials_at_once_need_checkouts() -> None:
    data = {"command": "x", "metric": {"name": "m"}, "isolation": "inplace", "executor": {"parallel": 2}}
    with pytest.raises(UsageError, match=r"executor\.parallel is 2; expected 1 with"):
        Config.from_dict(data)
    with pytest.raises(UsageError, match=r"executor\.parallel is 0; expected a whole number from 1"):
        Config.from_dict({**data, "executor": {"parallel": 0}})
    assert Config.from_dict(Config.from_dict({**data, "isolation": "worktree"}).to_dict()).executor.parallel == 2


def test_sweep_keeps_several_points_in_flight(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = TRAIN.replace("prepare.hold()", 'prepare.meet(f"{LR}.{WIDTH}", 3)')
    files = {"prepare.py": PREPARE + MEETING, "train.py": train}
    loop = make_measured_loop(tmp_path / "project", run_script, files=files, config=CONFIG + THREE)
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("TOY_MEETING", str(tmp_path / "meeting"))
    done = loop.call("sweep", "--set", "WIDTH=60,64,68,72")
    points = {point["values"]["WIDTH"]: (point["status"], bool(point["skipped"])) for point in done["points"]}
    assert points == {"60": ("discard", False), "64": ("keep", True), "68": ("keep", False), "72": ("keep", False)}
    assert experiment(loop, 3).attempt == 2, "the second winner was run anew on the first"
    assert loop.tip() == loop.incumbent() == experiment(loop, 3).commit
    assert "WIDTH = 72" in loop.text()
    assert loop.git("status", "--porcelain") == ""


def make_meeting_loop(tmp_path: Path, run_script: RunScript, name: str, config: str) -> Loop:
    """A project whose trials, where TOY_MEETING is set, each wait for two others; ``name`` tells them apart."""
    train = TRAIN.replace("import prepare\n", "import os\n\nimport prepare\n")
    train = train.replace("prepare.hold()", f"prepare.hold()\nprepare.meet({name}, 3)")
    return make_loop(
        tmp_path / "project", run_script, files={"prepare.py": PREPARE + MEETING, "train.py": train}, config=config
    )


THREE_SEEDS = CONFIG.replace("baseline_seeds: 2, max_seeds: 2", "baseline_seeds: 3, max_seeds: 3") + THREE
SEED_NAME = 'os.environ["AUTORESEARCH_SEED"]'


def test_seeds_of_the_baseline_run_at_once(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop = make_meeting_loop(tmp_path, run_script, SEED_NAME, THREE_SEEDS)
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("TOY_MEETING", str(tmp_path / "meeting"))
    with loop.holding():
        loop.submit("baseline", "--wait", 0, expect=10)
        eventually(lambda: len(loop.look()["trials"]) == 3)
        assert [trial["seed"] for trial in loop.look()["trials"]] == [1, 2, 3]
        assert loop.look()["next"]["text"] == "a trial is running; wait for it"
        text = loop.run("status", cwd=loop.folder).stdout
        assert all(f"seed {seed}" in text for seed in (1, 2, 3)), text
    assert loop.look("--wait", 60)["state"] == "idle"
    assert [(trial.seed, trial.purpose) for trial in loop.trials()] == [(n, Purpose.BASELINE) for n in (1, 2, 3)]
    assert experiment(loop, 0).reason == "baseline at 3 seeds: 0.997900, 0.997900, 0.997900"


def test_baseline_whose_trials_are_all_killed_at_once_is_no_failure(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_meeting_loop(tmp_path, run_script, SEED_NAME, THREE_SEEDS)
    with loop.holding():
        loop.submit("baseline", "--wait", 0, expect=10)
        eventually(lambda: len(loop.look()["trials"]) == 3)
        for trial in loop.trials():
            os.kill(int(trial.handle["id"]), signal.SIGKILL)
        eventually(lambda: len(loop.look()["trials"]) == 3 and len(loop.trials()) == 6)
    assert loop.look("--wait", 60)["state"] == "idle"
    assert Counter(trial.seed for trial in loop.trials()) == {1: 2, 2: 2, 3: 2}


def test_baseline_that_fails_at_all_seeds_at_once_is_one_failure(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_meeting_loop(tmp_path, run_script, "1 / 0", THREE_SEEDS)
    state = loop.submit("baseline")
    assert (state["state"], state["experiment"]["verdict"]) == ("failed", "failed")
    assert loop.look()["trials"] == []
    assert loop.log("--status", "crash")["experiment"]["status"] == "crash"


def test_trials_of_a_claim_run_at_once(tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = make_meeting_loop(tmp_path, run_script, f"str(LR) + {SEED_NAME}", CONFIG + THREE)
    loop.baseline()
    assert loop.experiment("faster", LR=8) == "keep"
    (tmp_path / "meeting").mkdir()
    monkeypatch.setenv("TOY_MEETING", str(tmp_path / "meeting"))
    found = loop.call("compare", "baseline", "best", "--seeds", 5)
    assert found["claim"]["gain"] == pytest.approx(0.0047)
    claims = [trial for trial in loop.trials() if trial.purpose is Purpose.CLAIM]
    assert [trial.number for trial in claims] == [0, 1, 1, 0, 0, 1, 1, 0, 0, 1], "drift would hit both alike"
    assert [trial.seed for trial in claims] == [seed for seed in found["seeds"] for _ in range(2)]


def test_claim_that_was_killed_takes_up_all_trials_in_flight(loop: Loop) -> None:
    assert loop.experiment("faster", LR=8) == "keep"
    with loop.holding():
        process = start(loop, "compare", "baseline", "best", "--seeds", "5", "--json")
        eventually(lambda: len(under_way(loop)) == 3)
        process.kill()
        process.communicate(timeout=60)
    found = loop.call("compare", "baseline", "best", "--seeds", 5)
    claims = [(trial.number, trial.seed) for trial in loop.trials() if trial.purpose is Purpose.CLAIM]
    assert len(claims) == len(set(claims)) == 10
    assert len(found["seeds"]) == 5


def test_claim_that_nothing_can_come_of_ends_its_trials_in_flight(loop: Loop) -> None:
    loop.write({"train.py": loop.text().replace("import prepare\n", "import prepare\n\nraise OSError\n")})
    loop.submit("crashes")
    loop.log("--status", "crash")
    with loop.holding():
        refused = loop.call("compare", "baseline", "1", "--seeds", 5, expect=2)
        assert refused["code"] == "too_few_pairs"
        assert (under_way(loop), loop.look()["trials"]) == ([], [])
        assert not loop.processes()
    assert loop.experiment("faster", LR=8) == "keep"


def test_due_retest_comes_before_the_next_screen(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = '    while os.path.exists(os.environ.get("TOY_GATE", "")):\n        time.sleep(0.01)\n'
    prepare = project()["prepare.py"].replace(
        "def evaluate(constants, source):\n", f"def evaluate(constants, source):\n{wait}"
    )
    prepare = prepare.replace("import random\n", "import random\nimport time\n")
    config = NOISY + "keep: {retest_every: 1}\n"
    loop = make_noisy_loop(tmp_path / "project", run_script, config=config, files={"prepare.py": prepare})
    monkeypatch.setattr(driver, "keep_driving", lambda _: None)  # then each step is a command's
    with loop.holding():
        for low, high in ((0.7, 1.0), (1.0, 1.4), (1.4, 2.0)):  # three comments that are not the same one
            comment_with_luck(loop, low, high, next_seeds(loop, 1))
            loop.submit(f"miss {low}", "--ahead", expect=10)
    loop.await_trial()
    with loop.holding():
        loop.look("--wait", 30)
        assert loop.log()["retest_started"] is False, "the second idea's trial runs"
    loop.look("--wait", 30)
    order = [(trial.number, trial.purpose) for trial in loop.trials() if trial.purpose is not Purpose.BASELINE]
    assert order == [(1, Purpose.SCREEN), (2, Purpose.SCREEN), (0, Purpose.RETEST)]
    while loop.look("--wait", 30)["opened"]:
        loop.log()
    seeds = [(trial.number, trial.seed) for trial in loop.trials()]
    assert len(seeds) == len(set(seeds))


def test_sweep_that_is_interrupted_leaves_none_of_its_points_open(loop: Loop) -> None:
    with loop.holding():
        process = start(loop, "sweep", "--set", "WIDTH=60,68,72", "--json")
        eventually(lambda: len(under_way(loop)) == 3)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        assert process.returncode == 130
        assert not loop.processes()
    assert loop.look()["opened"] == []
    assert loop.tip() == loop.incumbent() == experiment(loop, 0).commit
    done = loop.call("sweep", "--set", "WIDTH=60,68,72")
    assert [point["skipped"] for point in done["points"]] == ["", "", ""]
    assert "WIDTH = 72" in loop.text()


def test_sweep_that_is_killed_goes_on_with_the_points_in_flight(loop: Loop) -> None:
    with loop.holding():
        process = start(loop, "sweep", "--set", "WIDTH=60,68,72", "--json")
        eventually(lambda: len(under_way(loop)) == 3)
        process.kill()
        process.communicate(timeout=60)
    loop.call("sweep", "--set", "WIDTH=60,68,72")
    assert [row[3] for row in loop.rows] == ["keep", "discard", "keep", "keep"]
    assert loop.tip() == loop.incumbent() == experiment(loop, 3).commit


def test_sweep_goes_on_beside_an_agent_who_submits_ahead(loop: Loop) -> None:
    with loop.holding():
        process = start(loop, "sweep", "--set", "WIDTH=60,61,62,63", "--json")
        eventually(lambda: len(under_way(loop)) == 3)
        ahead(loop, "faster", LR=8)
    answer = json.loads(process.communicate(timeout=60)[0])
    assert [(point["values"]["WIDTH"], point["status"]) for point in answer["data"]["points"]] == [
        (str(width), "discard") for width in (60, 61, 62, 63)
    ]
    assert {row[4]: row[3] for row in loop.rows}["faster"] == "keep"
    assert loop.tip() == loop.incumbent()


def test_sweep_takes_a_point_that_another_command_has_logged(loop: Loop) -> None:
    with loop.holding():
        ahead(loop, "first", WIDTH=60)
        ahead(loop, "second", WIDTH=61)
    await_judged(loop, 2)
    for _ in range(2):
        loop.log()
    with Watcher(2) as listener:
        assert decide_one_of(loop.folder, TAG, [1], listener).number == 1
