"""The marks of the progress chart: every experiment, the running best with its band, re-tests, crashes.

Colours are told apart by people who see few of them, and every status has a marker of its own, so that the
chart survives a photocopier too.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from typing import TYPE_CHECKING, Any

from autoresearch.report.format import NORMAL_95
from autoresearch.report.series import ExperimentPoint, Series, records, retests
from autoresearch.report.window import Window

if TYPE_CHECKING:
    from matplotlib.axes import Axes

GREEN, BLUE, RED, GREY, PURPLE = "#1a7f37", "#0969da", "#cf222e", "#9aa4ae", "#8250df"


def draw_belief(axes: Axes, series: Series, window: Window) -> None:
    """The running best as the keep rule credits it, with its 95 % band; each epoch's by itself."""
    label: str | None = "best so far, 95 % band"
    for x, y, se in _beliefs(series):
        low = [level - NORMAL_95 * error for level, error in zip(y, se, strict=True)]
        high = [level + NORMAL_95 * error for level, error in zip(y, se, strict=True)]
        axes.fill_between(x, low, high, step="post", color=GREEN, alpha=0.16, linewidth=0, zorder=1.5)
        axes.step(x, y, where="post", color=GREEN, linewidth=1.8, label=label, zorder=2.5)
        label = None  # one line of the legend is enough
        if window.shows(y[-1]):
            axes.plot([x[-1]], [y[-1]], marker="o", markersize=4, color=GREEN, zorder=4)


def _beliefs(series: Series) -> Iterator[tuple[list[float], list[float], list[float]]]:
    """Numbers of experiments, levels and their errors, for each epoch."""
    for epoch, group in groupby(series.levels, key=lambda each: each.epoch):
        levels = list(group)
        x, y = [float(each.number) for each in levels], [each.level for each in levels]
        se = [each.se for each in levels]
        credit = series.summary.credit
        if epoch == series.summary.epoch and credit is not None:  # re-tests after the last decision count too
            x, y, se = [*x, series.experiments[-1].number + 0.5], [*y, credit.level], [*se, credit.se]
        yield x, y, se


def draw_records(axes: Axes, series: Series, window: Window) -> None:
    """The best single run so far: what luck alone improves too, shown for the difference."""
    found = [(at, metric) for at, metric in records(series) if window.shows(metric)]
    if len(found) < 2:
        return
    x = [*(at for at, _ in found), series.experiments[-1].number]
    y = [*(metric for _, metric in found), found[-1][1]]
    axes.step(
        x,
        y,
        where="post",
        color=PURPLE,
        linewidth=1,
        linestyle=(0, (1, 1.6)),
        label="best single run, luck included",
        zorder=2,
    )


def draw_experiments(axes: Axes, series: Series, window: Window) -> None:
    area = marker_area(len(series.experiments))
    groups: dict[str, list[ExperimentPoint]] = {"kept": [], "undone": [], "discarded": [], "open": []}
    for each in series.experiments:
        if each.metric is not None:
            groups[_group(each)].append(each)
    styles: dict[str, dict[str, Any]] = {
        "discarded": {"color": GREY, "alpha": 0.75, "linewidths": 0, "zorder": 2, "s": area},
        "undone": {"facecolors": "white", "edgecolors": GREEN, "linewidths": 1.3, "zorder": 3.2, "s": 1.6 * area},
        "kept": {"color": GREEN, "edgecolors": "white", "linewidths": 0.8, "zorder": 3.5, "s": 2.2 * area},
        "open": {"facecolors": "white", "edgecolors": BLUE, "linewidths": 1.5, "zorder": 3.5, "s": 2 * area},
    }
    names = {"undone": "kept, later undone"}
    for name, style in styles.items():
        inside = [each for each in groups[name] if window.shows(measured(each))]
        if groups[name]:
            axes.scatter(
                [each.number for each in inside],
                [measured(each) for each in inside],
                label=names.get(name, name),
                **style,
            )
    _draw_beyond(axes, series, window, area)
    _draw_crashes(axes, series, area)


def _draw_crashes(axes: Axes, series: Series, area: float) -> None:
    """Crosses along the edge of the misses: a crash has no metric."""
    crashed = [each.number for each in series.experiments if each.status == "crash"]
    if crashed:
        edge = 0.012 if series.sign > 0 else 0.988
        axes.scatter(
            crashed, [edge] * len(crashed), transform=axes.get_xaxis_transform(), marker="x", color=RED, s=1.1 * area,
            linewidths=1.1, alpha=0.85, label="crashed", zorder=3, clip_on=False,
        )  # fmt: skip


def _draw_beyond(axes: Axes, series: Series, window: Window, area: float) -> None:
    """Triangles at the edge for metrics that the window does not show."""
    beyond = [each for each in series.experiments if each.metric is not None and not window.shows(each.metric)]
    for marker, edge, group in (
        ("^", window.high, [each for each in beyond if measured(each) > window.high]),
        ("v", window.low, [each for each in beyond if measured(each) < window.low]),
    ):
        if group:
            inset = 0.028 * (window.high - window.low) * (-1 if marker == "^" else 1)
            colours = [GREEN if each.kept else GREY for each in group]
            axes.scatter(
                [each.number for each in group],
                [edge + inset] * len(group),
                marker=marker,
                s=0.9 * area,
                c=colours,
                alpha=0.7,
                linewidths=0,
                zorder=2,
            )
    if beyond:
        axes.scatter([], [], marker="^" if series.sign < 0 else "v", color=GREY, s=area, label="beyond the edge")


def draw_retests(axes: Axes, series: Series, window: Window) -> None:
    found = retests(series)
    area = marker_area(len(series.experiments))
    if found:
        axes.scatter(
            [each.after + 0.5 for each in found], [window.clip(each.metric) for each in found],
            marker="D", s=0.8 * area, facecolors="white", edgecolors=BLUE, linewidths=1.1, zorder=3.4,
            label="best, re-tested",
        )  # fmt: skip


def marker_area(experiments: int) -> float:
    """Square points: 10 experiments get big dots, 1,000 small ones."""
    return max(min(60.0, 2600.0 / max(experiments, 1)), 7.0)


def _group(each: ExperimentPoint) -> str:
    if each.undone:
        return "undone"
    return {"keep": "kept", "open": "open"}.get(each.status, "discarded")


def measured(each: ExperimentPoint) -> float:
    assert each.metric is not None, "only measured experiments are drawn"
    return each.metric
