"""The progress chart in characters: what stands where, for campaigns of every kind and size."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len
from tests.conftest import ROOT, RunScript
from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.ledger import Ledger, Status
from autoresearch.report.series import Series, read_series
from autoresearch.report.terminal_chart import CRASHED, render_chart, tick_labels

COMMITS = [hashlib.sha1(str(number).encode()).hexdigest() for number in range(5)]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    project = tmp_path / "project"
    make_repository(project)
    return project


@pytest.fixture
def ledger(project: Path) -> Iterator[Ledger]:
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        yield ledger


def series(project: Path) -> Series:
    (found,) = read_series(project, detailed=0)
    return found


def chart_rows(text: str) -> list[str]:
    """What stands inside the frame, from the top."""
    rows = [re.search("[┤│](.*)│$", row) for row in text.splitlines()]
    return [row[1] for row in rows if row]


def places(text: str, symbol: str) -> list[tuple[int, int]]:
    """(column, row from the top) of each ``symbol``, from the left."""
    rows = chart_rows(text)
    return sorted((x, y) for y, row in enumerate(rows) for x, char in enumerate(row) if char == symbol)


def little(ledger: Ledger, direction: str = "lower", scale: float = 1.0) -> None:
    """Baseline, keep, miss, crash, a keep taken back, keep, and one that runs."""
    sign = 1 if direction == "lower" else -1

    def values(*levels: float) -> list[float]:
        return [scale * (2 + sign * (level - 1)) for level in levels]

    builder = LedgerBuilder(ledger, COMMITS, direction=direction)
    builder.baseline(values(1.000, 1.001, 0.999))
    builder.idea("better", values(0.95, 0.951), status=Status.KEEP)
    builder.idea("worse", values(1.02), status=Status.DISCARD)
    builder.crash("too wide", cause="oom_gpu")
    lucky = builder.idea("lucky", values(0.93, 0.931), status=Status.KEEP)
    builder.undo(lucky.number, "no gain")
    builder.idea("best", values(0.90, 0.901), status=Status.KEEP)
    builder.trial(builder.open("runs"), 1)


@pytest.mark.parametrize("scale", [1.0, 1e-9, 1e9])
@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_marks_stand_where_the_ledgers_numbers_are(project: Path, ledger: Ledger, direction: str, scale: float) -> None:
    little(ledger, direction, scale)
    text = render_chart(series(project), width=80, height=20, colour=False)
    assert text.startswith(f"Campaign apr5: val_bpb, {direction} is better\n")
    kept, discarded, taken_back, crashed = (places(text, symbol) for symbol in ("●", "·", "○", CRASHED.symbol))
    assert list(map(len, (kept, discarded, taken_back, crashed))) == [3, 1, 1, 1]
    columns = [kept[0], kept[1], discarded[0], crashed[0], taken_back[0], kept[2]]
    assert columns == sorted(columns), "experiments stand in the order of their numbers"
    rows = len(chart_rows(text))
    down = 1 if direction == "lower" else -1
    heights = [down * row for _, row in (discarded[0], kept[0], kept[1], taken_back[0], kept[2])]
    assert heights == sorted(heights), "better is further down where lower is better"
    assert len(set(heights)) == 5
    assert crashed[0][1] == (0 if direction == "lower" else rows - 1), "a crash stands on the worse edge"

    metrics = [row.metric for row in ledger.experiments("apr5") if row.status is Status.KEEP]
    top, bottom = (float(re.findall(r"^ *(\S+)┤", text, re.MULTILINE)[at]) for at in (0, -1))
    for (_, row), metric in zip(kept, metrics, strict=True):
        assert metric is not None
        shown = top + (bottom - top) * row / (rows - 1)
        assert shown == pytest.approx(metric, abs=1.5 * abs(bottom - top) / rows)
    assert text.rstrip().endswith("○ taken back  ● kept  ━ best, as credited")


@pytest.mark.parametrize(("width", "height"), [(40, 10), (60, 20), (120, 24), (200, 40)])
def test_chart_has_the_size_that_was_asked_for(project: Path, ledger: Ledger, width: int, height: int) -> None:
    little(ledger)
    lines = render_chart(series(project), width=width, height=height, colour=False).splitlines()
    assert max(map(cell_len, lines)) == width
    assert height + 2 <= len(lines) <= height + 4
    assert re.search(r"^ +0 .* [56]$", "\n".join(lines), re.MULTILINE), "the numbers of the experiments stand below"


def test_best_is_the_credited_level_and_no_record(project: Path, ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.0, 1.02, 0.98])
    builder.idea("lucky", [0.955], status=Status.KEEP)
    for at in range(20):
        builder.idea(f"miss {at}", [1.05], status=Status.DISCARD)
    assert builder.rule is not None
    kept = ledger.experiment("apr5", 1)
    assert kept is not None
    assert kept.metric is not None
    assert builder.rule.incumbent_level > kept.metric + 0.005
    text = render_chart(series(project), width=100, height=40, colour=False)
    (_, mark), line = places(text, "●")[-1], places(text, "▄") + places(text, "▀")
    assert max(line)[1] < mark, "where lower is better, the credited level lies above the kept metric"


def test_run_that_went_astray_does_not_flatten_the_chart(project: Path, ledger: Ledger) -> None:
    little(ledger)
    open_experiment = ledger.open_experiment("apr5")
    assert open_experiment is not None
    open_experiment.status, open_experiment.metric = Status.DISCARD, 1e6
    ledger.update_experiment(open_experiment, "status", "metric")
    text = render_chart(series(project), width=80, height=20, colour=False)
    assert "1 beyond the scale, at its edge" in text
    rows = {row for _, row in places(text, "●")}
    assert len(rows) == 3
    assert max(rows) - min(rows) > 4


def test_campaigns_with_nothing_to_draw(project: Path, ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    assert render_chart(series(project)).endswith("Nothing has been measured yet.\n")
    builder.crash("baseline", cause="oom_gpu")
    assert render_chart(series(project)).endswith("Nothing has been measured yet; 1 experiment crashed.\n")
    builder.baseline([1.0, 1.0, 1.0])
    assert len(places(render_chart(series(project), colour=False), "●")) == 1


def test_each_epoch_has_its_own_line(project: Path, ledger: Ledger) -> None:
    builder = LedgerBuilder(ledger, COMMITS)
    builder.baseline([1.0, 1.01, 0.99])
    builder.idea("better", [0.9, 0.9], status=Status.KEEP)
    builder.new_epoch()
    builder.baseline([1.05, 1.06, 1.04])
    builder.idea("better again", [1.0, 1.0], status=Status.KEEP)
    assert len(places(render_chart(series(project), colour=False), "●")) == 4


@pytest.mark.parametrize("experiments", [100, 1000])
def test_chart_of_a_long_campaign_keeps_its_size(project: Path, ledger: Ledger, experiments: int) -> None:
    rng, builder = random.Random(1), LedgerBuilder(ledger, COMMITS)
    with ledger.transaction():
        builder.baseline([1.0, 1.002, 0.998])
        for at in range(experiments):
            if rng.random() < 0.1:
                builder.crash(f"idea {at}")
            else:
                builder.idea(f"idea {at}", [rng.gauss(1 - at / experiments / 4, 0.01)])
    lines = render_chart(series(project), width=100, height=30, colour=False).splitlines()
    assert len(lines) <= 34
    assert max(map(cell_len, lines)) == 100


def test_tick_labels_have_the_digits_that_tell_them_apart() -> None:
    assert tick_labels([0.9979, 0.9981, 0.9983]) == ["0.9979", "0.9981", "0.9983"]
    assert tick_labels([1.0, 2.0]) == ["1", "2"]
    assert tick_labels([1e-9, 1.5e-9]) == ["1e-09", "1.5e-09"]
    assert len(tick_labels([1.0, 1.0])) == 2


# ---- the flag


def test_script_draws_the_chart_instead_of_the_text(project: Path, ledger: Ledger, run_script: RunScript) -> None:
    little(ledger)
    done = run_script("summarize", "--chart", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == render_chart(series(project), width=120, height=24, colour=False)
    data = json.loads(run_script("summarize", "--chart", "--json", cwd=project).stdout)["data"]
    assert data["experiments"]["kept"] == 3
    every = run_script("summarize", "--chart", "--all-tags", cwd=project)
    assert every.stdout == done.stdout


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_chart_is_coloured_on_a_terminal_unless_no_color_is_set(
    project: Path, ledger: Ledger, no_color: str, coloured: bool
) -> None:
    little(ledger)
    controller, terminal = pty.openpty()
    command = [sys.executable, str(ROOT / "scripts" / "summarize.py"), "--chart"]
    environment = {**os.environ, "TERM": "xterm-256color", "NO_COLOR": no_color, "COLUMNS": "100", "LINES": "30"}
    with subprocess.Popen(command, cwd=project, stdin=terminal, stdout=terminal, env=environment) as process:
        os.close(terminal)
        shown = b""
        while True:
            try:
                shown += os.read(controller, 65536)
            except OSError:  # Linux's end of file on a terminal
                break
    os.close(controller)
    assert process.returncode == 0
    assert "●".encode() in shown
    assert (b"\x1b[" in shown) is coloured
