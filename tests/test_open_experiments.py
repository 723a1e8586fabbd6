"""What is open, where that is much at once: every experiment has its line, in each of the three places."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.ahead_bench import PREPARE, TRAIN, ahead, await_rest, driver_pid
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder
from tests.loop_bench import CONFIG, Loop, make_measured_loop
from tests.test_status_watch import Window, start, window  # noqa: F401 - a fixture
from tests.test_summary import COMMITS, ledger, section  # noqa: F401 - a fixture
from tests.trial_bench import eventually

from autoresearch.ledger import Ledger, Purpose
from autoresearch.report.open_text import OpenRow, open_lines, open_rows, trial_state
from autoresearch.report.summary import summarise
from autoresearch.report.text import render
from autoresearch.trial import RESULT_FILE, STARTED_FILE

AT_ONCE = 8
PATIENT = CONFIG.replace("budget_s: 10", "budget_s: 120")
EIGHT = f"executor: {{parallel: {AT_ONCE}, cpus_per_trial: 0.1}}\n"
LOSSES = [round(9.3 - at / 100, 4) for at in range(AT_ONCE)]
LONG = "and a description that is longer than what any terminal of eighty columns has room for"
STEPS = TRAIN.replace(
    "prepare.hold()", 'print(f"step 00040 (40.0%) | loss: {10 - WIDTH / 100:.4f}", flush=True)\nprepare.hold()'
)


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Iterator[Loop]:
    """Eight trials at once, each of which has printed how far it is, and a ninth experiment that waits."""
    files = {"prepare.py": PREPARE, "train.py": STEPS}
    loop = make_measured_loop(
        tmp_path / "project", run_script, files=files, config=CONFIG.replace("budget_s: 10", "budget_s: 120") + EIGHT
    )
    with loop.holding():
        for width in range(70, 70 + AT_ONCE + 1):
            ahead(loop, f"width {width} {LONG}", WIDTH=width)
        eventually(lambda: [trial["loss"] for trial in loop.look()["trials"]] == LOSSES)
        yield loop
    await_rest(loop)


def has_all(lines: list[str]) -> None:
    """Each running experiment with seed, seconds, share, loss and description, and the one that waits, on a line."""
    for at in range(AT_ONCE):
        (line,) = (line for line in lines if f" width {70 + at} " in f"{line} ")
        assert line.split()[0] == str(at + 1)
        assert " running seed 1, " in line
        assert f" of 120 s, 40 %, loss {LOSSES[at]:.4g} " in line
    (line,) = (line for line in lines if line.split()[:1] == [str(AT_ONCE + 1)])
    assert "waits for a slot" in line
    assert max(map(len, lines)) <= 80


def test_every_open_experiment_has_its_line(loop: Loop, window: Window) -> None:  # noqa: F811
    state = loop.look()
    assert [each["standing"] for each in state["opened"]] == [*["running"] * AT_ONCE, "waits for a slot"]
    assert [each["description"][:8] for each in state["trials"]] == [f"width {70 + at}" for at in range(AT_ONCE)]
    text = loop.run("status", cwd=loop.folder).stdout
    lines = text[text.index("open experiments, on experiment 0:") :].splitlines()[1 : AT_ONCE + 2]
    has_all(lines)

    summary = loop.call("summarize")
    assert summary["open_experiment"] == summary["open_experiments"][0]
    assert [each["number"] for each in summary["open_experiments"]] == list(range(1, AT_ONCE + 2))
    assert [each["seed"] for each in summary["trials_under_way"]] == [1] * AT_ONCE

    start(window, loop.folder, size=(80, 24))
    window.shows(f"width {70 + AT_ONCE - 1}", "waits for a slot", "last decisions", "Ctrl-C ends this view")
    shown = window.lines()
    first = next(at for at, line in enumerate(shown) if set(line) == {"─"}) + 1
    has_all(shown[first : first + AT_ONCE + 1])


def test_misses_beside_each_other_are_all_to_be_logged(loop: Loop) -> None:
    os.kill(driver_pid(loop), signal.SIGKILL)
    for folder in [Path(trial.directory) for trial in loop.trials() if trial.result is None][:2]:
        os.kill(json.loads((folder / STARTED_FILE).read_text())["session"], signal.SIGKILL)
        eventually((folder / RESULT_FILE).exists)
    state = loop.look()
    assert [each["standing"] for each in state["opened"]][:3] == ["to be logged", "to be logged", "running"]
    text = loop.run("status", cwd=loop.folder).stdout
    assert text.count(" failed, to be logged ") == 2


# ---- a line


def running(**other: Any) -> dict[str, Any]:
    trial = {
        "number": 4, "seed": 2, "purpose": "confirm", "waits_for": "", "elapsed_s": 41.2, "budget_s": 300.0,
        "fraction": 0.137, "loss": 3.21459, "ended": False, "description": "warm up longer",
    }  # fmt: skip
    return trial | other


def opened(number: int, **other: Any) -> dict[str, Any]:
    found = {"number": number, "description": "an idea", "incumbent": 3, "standing": "running", "verdict": ""}
    return found | {"seeds": {}} | other


@pytest.mark.parametrize(
    ("trial", "seeds", "expected"),
    [
        ({}, {}, "running seed 2, 41 of 300 s, 14 %, loss 3.215"),
        ({}, {1: 0.9932}, "running seed 2, 41 of 300 s, 14 %, seed 1: 0.993200"),
        ({"fraction": None, "loss": None}, {}, "running seed 2, 41 of 300 s"),
        ({"waits_for": "GPU 0 is in use"}, {}, "queued: seed 2, GPU 0 is in use"),
        ({"ended": True}, {}, "seed 2 has ended, to be taken in"),
    ],
)
def test_line_says_how_far_a_trial_is(trial: dict[str, Any], seeds: dict[int, float], expected: str) -> None:
    assert trial_state(running(**trial), seeds) == expected


def test_lines_say_what_waits_and_what_a_trial_of_another_experiment_is() -> None:
    rows = open_rows(
        [
            opened(4),
            opened(5, standing="to be logged", verdict="worse", seeds={1: 1.0}),
            opened(6, standing="waits for a slot", seeds={1: 0.99}),
            opened(7, standing="waits for a slot", incumbent=4),
        ],
        [running(), running(number=3, seed=9, purpose="retest", description="what stands")],
    )
    assert [(row.number, row.state) for row in rows] == [
        (4, "running seed 2, 41 of 300 s, 14 %, loss 3.215"),
        (5, "worse, to be logged"),
        (6, "waits for a slot, seed 1: 0.990000"),
        (7, "on 4: waits for a slot"),
        (3, "retest: running seed 9, 41 of 300 s, 14 %, loss 3.215"),
    ]
    assert rows[-1].description == "what stands"


@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_lines_fit_and_leave_room_for_the_description(width: int) -> None:
    rows = [OpenRow(9, "queued: seed 1, " + "a long reason " * 9, "idea " * 60), OpenRow(10, "waits", "another\nidea")]
    lines = open_lines(rows, width)
    assert max(map(len, lines)) <= width
    assert lines[0].startswith(" 9 queued: ")
    assert "idea"[: width // 20] in lines[0]
    assert "\n" not in lines[1]


# ---- in the summary


@pytest.mark.parametrize("width", [40, 80, 120])
def test_summary_lists_what_is_open(ledger: Ledger, width: int) -> None:  # noqa: F811
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.00, 1.01, 0.99])
    for at in range(20):
        builder.trial(builder.open(f"idea {at}"), 1)
    assert builder.rule is not None
    incumbent = ledger.incumbent("apr5")
    assert incumbent is not None
    builder.trial(incumbent, 7, Purpose.RETEST)
    summary = summarise(ledger, builder.campaign)
    assert [each.number for each in summary.open_experiments] == list(range(1, 21))
    assert summary.open_experiment == summary.open_experiments[0]
    assert Counter(trial["purpose"] for trial in summary.trials_under_way) == {"screen": 20, "retest": 1}
    lines = section(render(summary, width=width, colour=False), "Open experiments, on experiment 0", below=1)
    assert [line.split()[0] for line in lines] == [*map(str, range(1, 13)), "…"]
    assert lines[-1] == "… and 9 more"
    assert max(map(len, lines)) <= width


@pytest.mark.parametrize(
    ("opens", "title", "numbers"),
    [(False, "Trials under way", ["0"]), (True, "Open experiments, on experiment 0", ["1", "0"])],
)
def test_summary_tells_of_a_retest_that_runs_alone(
    ledger: Ledger,  # noqa: F811
    opens: bool,
    title: str,
    numbers: list[str],
) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.trial(builder.baseline([1.00, 1.01, 0.99]), 7, Purpose.RETEST)
    if opens:
        builder.open("an idea that waits")
    lines = section(render(summarise(ledger, builder.campaign), width=80, colour=False), title, below=1)
    assert [line.split()[0] for line in lines] == numbers
    assert lines[-1].split(",")[0] == "0 retest: running seed 7"
