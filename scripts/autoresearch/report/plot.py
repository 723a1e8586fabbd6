"""The progress chart as a picture: every experiment, what was kept, and how sure the best is."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.output import one_line
from autoresearch.report.fonts import Glyphs
from autoresearch.report.format import duration, margin, number, plural, signed
from autoresearch.report.labels import Label, place_labels
from autoresearch.report.marks import draw_belief, draw_experiments, draw_records, draw_retests, measured
from autoresearch.report.series import ExperimentPoint, Series, retests
from autoresearch.report.target import check_target, replaced
from autoresearch.report.window import Window, metric_window

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = ("png", "svg", "pdf")
SIZE_IN = (12.0, 6.75)
DPI = 150
LABEL_CHARS = 44
LABEL_SIZE = 8.5  # points
BASELINE_LABEL = "baseline"

INK, FAINT, GRID = "#1f2328", "#6e7781", "#e7e9ec"


def plot_progress(series: Series, path: Path) -> None:
    """Draw the campaign's progress into ``path``, atomically; its suffix is the format, one of ``FORMATS``."""
    suffix = check_target(path, FORMATS, "--plot")
    with _matplotlib_by_itself():
        figure = draw_progress(series)
        with replaced(path) as temporary:
            figure.savefig(temporary, format=suffix, dpi=DPI)


@contextmanager
def _matplotlib_by_itself() -> Iterator[None]:
    """Matplotlib without the user's style file, and silent: stderr is for our own words."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)
    import matplotlib as mpl

    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(
            {
                "font.size": 10,
                "text.color": INK,
                "axes.labelcolor": INK,
                "axes.edgecolor": FAINT,
                "xtick.color": FAINT,
                "ytick.color": FAINT,
                "text.parse_math": False,  # a description may hold dollar signs
                "svg.hashsalt": "autoresearch",
            }
        )
        yield


def draw_progress(series: Series) -> Figure:
    """The chart as a figure that belongs to no window."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=SIZE_IN, layout=None, facecolor="white")
    axes = figure.add_axes((0.075, 0.13, 0.905, 0.72))
    glyphs = Glyphs(
        f"{series.summary.tag} {series.summary.metric} " + "".join(each.description for each in _kept(series))
    )
    _use_fonts(glyphs)
    _dress(axes, series, glyphs)
    _head(figure, series, glyphs)
    if all(each.metric is None for each in series.experiments):
        _say_nothing_measured(axes, series)
        return figure
    window = metric_window(series)
    axes.set_ylim(window.low, window.high)
    axes.set_xlim(*_span(series))
    _draw_epochs(axes, series)
    draw_belief(axes, series, window)
    draw_records(axes, series, window)
    draw_experiments(axes, series, window)
    draw_retests(axes, series, window)
    _legend(figure, axes)
    _label_kept(figure, axes, series, window, glyphs)
    return figure


def _use_fonts(glyphs: Glyphs) -> None:
    import matplotlib as mpl

    mpl.rcParams["font.family"] = glyphs.families


# ---- the axes


def _span(series: Series) -> tuple[float, float]:
    last = series.experiments[-1].number
    return -0.5 - 0.012 * last, last + 0.5 + max(0.03 * last, 0.5)


def _dress(axes: Axes, series: Series, glyphs: Glyphs) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GRID)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=9)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=10, integer=True))
    axes.set_xlabel("experiment", fontsize=10)
    better = "higher" if series.sign > 0 else "lower"
    axes.set_ylabel(glyphs.covered(f"{one_line(series.summary.metric, 40)} ({better} is better)"), fontsize=10)


def _head(figure: Figure, series: Series, glyphs: Glyphs) -> None:
    """Title and subtitle: the figures of the summary."""
    summary = series.summary
    title = f"{summary.tag}: {one_line(summary.metric, 40)}"
    if summary.credit is not None and summary.baseline is not None:
        title += (
            f" {number(summary.baseline.metric)} → {number(summary.credit.level)} ± {margin(summary.credit.se)} (95 %)"
        )
    counts = summary.experiments
    parts = [f"{plural(counts.run, 'experiment')} in {duration(summary.elapsed_s)}", counts.told()]
    if summary.noise is not None and summary.noise.df and not summary.noise.deterministic:
        parts.append(f"one run varies by σ = {summary.noise.sigma:.2g}")
    figure.text(0.075, 0.945, glyphs.covered(title), fontsize=16, fontweight="bold", va="center")
    figure.text(0.075, 0.895, ", ".join(parts), fontsize=10.5, color=FAINT, va="center")


def _say_nothing_measured(axes: Axes, series: Series) -> None:
    axes.set_yticks([])
    axes.set_xticks([])
    crashed = series.summary.experiments.crashed
    text = "No experiment has been run yet." if not series.experiments else "No experiment has given a metric yet."
    if crashed:
        text += f" {crashed} crashed."
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", fontsize=14, color=FAINT)


def _draw_epochs(axes: Axes, series: Series) -> None:
    for epoch, group in groupby(series.experiments, key=lambda each: each.epoch):
        first = next(group).number
        if epoch > 1:
            axes.axvline(first - 0.5, color=FAINT, linewidth=1, linestyle=(0, (1, 2)))
            top = axes.get_xaxis_transform()  # numbers of experiments across, shares of the height upwards
            axes.text(first - 0.3, 0.985, f"epoch {epoch}", transform=top, color=FAINT, fontsize=8, va="top")


def _legend(figure: Figure, axes: Axes) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(
        handles, names, loc="lower left", bbox_to_anchor=(0.068, 0.0), ncols=9, frameon=False, fontsize=8.5,
        handletextpad=0.3, columnspacing=1.2, labelcolor=FAINT,
    )  # fmt: skip


# ---- labels


def _label_kept(figure: Figure, axes: Axes, series: Series, window: Window, glyphs: Glyphs) -> None:
    """Write what was kept beside its marker, the largest gains first, as long as there is room."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white", alpha=0.8)]
    frame = axes.get_window_extent()
    # Of thousands of markers many share a pixel.
    points = {(float(x), float(y)) for x, y in axes.transData.transform(_obstacles(series, window)).round()}
    to_data = axes.transData.inverted().transform
    for placed in place_labels(
        _labels(axes, series, window, glyphs), list(points), (frame.x0, frame.y0, frame.x1, frame.y1), figure.dpi / 72,
        better_is_up=series.sign > 0,
    ):  # fmt: skip
        line = to_data([(placed.label.x, placed.label.y), placed.anchor])
        axes.plot(line[:, 0], line[:, 1], color=FAINT, linewidth=0.6, alpha=0.7, zorder=2.2)
        x, y = to_data((placed.left, placed.middle))
        axes.text(
            x, y, placed.label.text, fontsize=LABEL_SIZE, va="center", ha="left", zorder=5, path_effects=halo,
            color=FAINT if placed.label.faint else INK,
        )  # fmt: skip


def _labels(axes: Axes, series: Series, window: Window, glyphs: Glyphs) -> Iterator[Label]:
    """The labels with their sizes in pixels, in the order of what they are worth."""
    kept = [each for each in _kept(series) if window.shows(measured(each))]
    for each in sorted(kept, key=lambda each: (not each.is_baseline, -(each.gain or 0.0))):
        text = _label_text(each, glyphs)
        artist = axes.text(0, 0, text, fontsize=LABEL_SIZE)
        box = artist.get_window_extent()
        artist.remove()
        x, y = axes.transData.transform((each.number, measured(each)))
        size = {"width": float(box.width), "height": float(box.height)}
        yield Label(text=text, x=float(x), y=float(y), **size, faint=bool(each.undone))


def _obstacles(series: Series, window: Window) -> list[tuple[float, float]]:
    """What labels should not hide: the markers, and the line of the best wherever an experiment stands."""
    markers = [
        (float(each.number), window.clip(measured(each))) for each in series.experiments if each.metric is not None
    ]
    steps = [(level.number + share, level.level) for level in series.levels for share in (0.0, 0.33, 0.67)]
    risers = [
        (after.number, before.level + (after.level - before.level) * share)
        for before, after in pairwise(series.levels)
        for share in (0.1, 0.3, 0.5, 0.7, 0.9)
    ]
    again = [(each.after + 0.5, window.clip(each.metric)) for each in retests(series)]
    return [*markers, *again, *steps, *risers]


def _label_text(each: ExperimentPoint, glyphs: Glyphs) -> str:
    text = BASELINE_LABEL if each.is_baseline else one_line(each.description, LABEL_CHARS)
    if each.gain is not None and not each.is_baseline:
        text += f" ({signed(each.gain)})"
    return glyphs.covered(f"#{each.number} {text}" if not each.is_baseline else text)


def _kept(series: Series) -> list[ExperimentPoint]:
    """What the chart labels: the keeps, also those taken back."""
    return [each for each in series.experiments if (each.kept or each.undone) and each.metric is not None]
