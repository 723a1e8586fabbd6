from __future__ import annotations

import itertools
import random
import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from tests.campaign_kinds import KINDS, read_small
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder
from tests.simulated_campaign import simulate

from autoresearch.errors import UsageError
from autoresearch.report import fonts
from autoresearch.report.labels import Label, Placed, place_labels
from autoresearch.report.plot import draw_progress, plot_progress
from autoresearch.report.series import Series, read_series, retests
from autoresearch.report.window import metric_window

MAGIC = {"png": b"\x89PNG", "svg": b"<?xml", "pdf": b"%PDF"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plot") / "project"
    simulate(folder, runs=110, open_one=True)
    return folder


@pytest.fixture(scope="module")
def series(project: Path) -> Series:
    return read_series(project, detailed=0)[0]


def drawn(figure: Figure) -> dict[str, list[tuple[float, float]]]:
    """The points of each named group of markers."""
    return {
        str(group.get_label()): [(float(x), float(y)) for x, y in np.asarray(group.get_offsets())]
        for group in figure.axes[0].collections
    }


@pytest.mark.parametrize("suffix", MAGIC)
def test_the_name_of_the_file_decides_the_format(series: Series, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"progress.{suffix}"
    plot_progress(series, path)
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert [file.name for file in tmp_path.iterdir()] == [path.name], "no half-written file stays"


@pytest.mark.parametrize("name", ["progress.gif", "progress", "nowhere/progress.png", "folder.png"])
def test_a_name_that_cannot_be_written_is_refused(series: Series, tmp_path: Path, name: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(UsageError):
        plot_progress(series, tmp_path / name)


def test_a_failed_drawing_leaves_the_old_file(series: Series, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "progress.png"
    path.write_bytes(b"old")

    def fail(self: Figure, target: Path, **_: object) -> None:
        Path(target).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Figure, "savefig", fail)
    with pytest.raises(OSError, match="No space"):
        plot_progress(series, path)
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["progress.png"]


def test_every_experiment_is_drawn_at_its_metric(series: Series) -> None:
    figure = draw_progress(series)
    groups, window = drawn(figure), metric_window(series)
    expected: dict[str, list[tuple[float, float]]] = {"kept": [], "kept, later undone": [], "discarded": []}
    beyond = 0
    for each in series.experiments:
        if each.metric is None:
            continue
        name = "kept, later undone" if each.undone else {"keep": "kept", "discard": "discarded"}[each.status]
        if window.shows(each.metric):
            expected[name].append((each.number, each.metric))
        else:
            beyond += 1
    for name, points in expected.items():
        assert groups[name] == points
    crashed = [each.number for each in series.experiments if each.status == "crash"]
    assert [x for x, _ in groups["crashed"]] == crashed
    assert len(groups["best, re-tested"]) == len(retests(series))
    triangles = sum(len(points) for name, points in groups.items() if name.startswith("_child"))
    assert beyond > 0
    assert triangles >= beyond


def test_the_band_is_the_keep_rules(series: Series) -> None:
    axes = draw_progress(series).axes[0]
    (line,) = [line for line in axes.lines if line.get_label() == "best so far, 95 % band"]
    credit = series.summary.credit
    assert credit is not None
    assert np.asarray(line.get_ydata()).tolist() == [*(each.level for each in series.levels), credit.level]
    (band,) = [group for group in axes.collections if isinstance(group, PolyCollection)]
    heights = {round(float(y), 9) for y in np.asarray(band.get_paths()[0].vertices)[:, 1]}
    assert round(credit.level - 1.96 * credit.se, 9) in heights
    assert round(credit.level + 1.96 * credit.se, 9) in heights
    assert f"± {1.96 * credit.se:.2g} (95 %)" in axes.figure.texts[0].get_text()


def test_labels_name_what_was_kept_and_lie_on_nothing(series: Series) -> None:
    figure = draw_progress(series)
    axes = figure.axes[0]
    labels = [text for text in axes.texts if text.get_text()]
    kept = [each for each in series.experiments if each.kept or each.undone]
    assert len(labels) >= 0.7 * len(kept)
    boxes = [text.get_window_extent() for text in labels]
    assert not any(one.overlaps(other) for one, other in itertools.combinations(boxes, 2))
    frame = axes.get_window_extent()
    assert all(frame.x0 <= box.x0 and box.x1 <= frame.x1 for box in boxes)
    assert {text.get_text().split(" ")[0] for text in labels} <= {"baseline"} | {f"#{each.number}" for each in kept}


def test_no_two_labels_overlap_whatever_they_stand_beside() -> None:
    rng = random.Random(3)
    labels = [
        Label(text=str(at), x=rng.uniform(0, 900), y=rng.uniform(0, 400), width=rng.uniform(60, 300), height=14)
        for at in range(80)
    ]
    points = [(label.x, label.y) for label in labels]
    placed = place_labels(labels, points, (0, 0, 900, 400), 1.0, better_is_up=True)
    assert len(placed) > 8

    def apart(one: Placed, other: Placed) -> bool:
        a, b = one.box, other.box
        return a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]

    assert all(apart(one, other) for one, other in itertools.combinations(placed, 2))
    assert all(each.box[0] >= 0 and each.box[2] <= 900 and each.box[1] >= 0 and each.box[3] <= 400 for each in placed)


@pytest.mark.parametrize("diverged", [1, 6])
@pytest.mark.parametrize("direction", ["lower", "higher"])
def test_runs_that_went_astray_do_not_flatten_the_rest(tmp_path: Path, direction: str, diverged: int) -> None:
    sign = -1 if direction == "lower" else 1

    def fill(builder: LedgerBuilder) -> None:
        builder.baseline([1.0, 1.001, 0.999])
        for at in range(diverged):
            builder.idea(f"diverged nearly {at}", [1.0 - sign * 500.0])
        for at in range(12):
            builder.idea(f"idea {at}", [1.0 - sign * 0.001 * at])
        builder.idea("good", [1.0 + sign * 0.02] * 6)

    series = read_small(tmp_path / "project", fill, direction)
    window = metric_window(series)
    assert window.high - window.low < 0.2
    assert all(window.shows(each.metric) for each in series.experiments if each.kept and each.metric is not None)
    assert any(name.startswith("beyond") for name in drawn(draw_progress(series)))


@pytest.mark.parametrize("direction", ["lower", "higher"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_campaign_of_any_kind_has_a_chart(tmp_path: Path, kind: str, direction: str) -> None:
    series = read_small(tmp_path / "project", KINDS[kind], direction)
    plot_progress(series, tmp_path / "progress.png")
    assert (tmp_path / "progress.png").stat().st_size > 5_000
    figure = draw_progress(series)
    low, high = figure.axes[0].get_ylim()
    assert low < high
    for each in series.experiments:
        if each.kept and each.metric is not None and each.epoch == series.summary.epoch:
            assert low < each.metric < high


def test_the_counts_above_the_chart_add_up(series: Series) -> None:
    texts = [text.get_text() for text in draw_progress(series).texts]
    (told,) = (text for text in texts if " experiments in " in text)
    counts = series.summary.experiments
    assert counts.undone > 0
    assert f" kept (1 baseline), {counts.discarded} discarded ({counts.undone} undone), " in told
    numbers = [int(found) for found in re.findall(r"(\d+) (?:kept|discarded|crashed|open)\b", told)]
    assert sum(numbers) == counts.run == len(series.experiments)


@pytest.mark.parametrize("count", [10, 1_000])
def test_the_chart_suits_the_number_of_experiments(tmp_path: Path, count: int) -> None:
    def fill(builder: LedgerBuilder) -> None:
        rng = random.Random(1)
        level = 1.0
        with builder.ledger.transaction():
            builder.baseline([level, 1.001, 0.999])
            for at in range(count - 1):
                mean = level - rng.gauss(-0.001, 0.002)
                if builder.idea(f"idea {at}", [rng.gauss(mean, 0.001) for _ in range(3)]).status == "keep":
                    level = mean

    series = read_small(tmp_path / "project", fill)
    sizes = {
        str(group.get_label()): float(group.get_sizes()[0])
        for group in draw_progress(series).axes[0].collections
        if hasattr(group, "get_sizes") and len(group.get_sizes())
    }
    assert sizes["kept"] > sizes["discarded"]
    assert sizes["discarded"] < 10 if count == 1_000 else sizes["discarded"] > 50


def test_a_character_that_no_font_has_is_left_out_in_silence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(fonts, "_candidates", lambda: iter(()))
    glyphs = fonts.Glyphs("自主研究 learning rate")
    assert glyphs.families == [fonts.BASE]
    assert glyphs.covered("自主研究 learning rate") == "… learning rate"
    series = read_small(tmp_path / "project", lambda builder: builder.baseline([1.0, 1.1], description="自主研究"))
    plot_progress(series, tmp_path / "progress.png")
    assert [str(warning.message) for warning in recwarn if "Glyph" in str(warning.message)] == []


def test_a_font_with_the_characters_is_found_where_there_is_one() -> None:
    glyphs = fonts.Glyphs("自主研究 word")
    if len(glyphs.families) == 1:
        pytest.skip("no font on this machine has Chinese characters")
    assert glyphs.covered("自主研究 word") == "自主研究 word"


def test_summarize_draws_and_says_so_and_nothing_else(project: Path, tmp_path: Path, run_script: RunScript) -> None:
    done = run_script("summarize", "--plot", tmp_path / "progress.png", cwd=project)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1] == f"wrote {tmp_path / 'progress.png'}"
    assert (tmp_path / "progress.png").read_bytes().startswith(MAGIC["png"])
    refused = run_script("summarize", "--plot", tmp_path / "progress.txt", cwd=project)
    assert refused.returncode == 2
    assert ".png or .svg or .pdf" in refused.stderr
    compared = run_script("summarize", "--all-tags", "--plot", tmp_path / "all.png", cwd=project)
    assert compared.returncode == 2
    assert "--html" in compared.stderr
