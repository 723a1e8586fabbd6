"""The progress chart in characters, for a terminal over ssh: the running best, and every experiment."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from autoresearch.report.format import number, plural
from autoresearch.report.page import page_width, print_page
from autoresearch.report.series import ExperimentPoint, Series
from autoresearch.report.window import Window, metric_window

LEAST_HEIGHT, PIPED_HEIGHT, MOST_HEIGHT = 10, 24, 40
TICKS = 5  # on the metric's axis
COLUMNS_PER_TICK = 14  # on the other


class Mark(NamedTuple):
    """How one kind of experiment is drawn: told apart by form, so that it also works without colour."""

    symbol: str
    colour: int | str  # of the terminal's first eight, or "default"
    name: str

    @property
    def style(self) -> str:
        """The colour as rich names it."""
        return self.colour if isinstance(self.colour, str) else f"color({self.colour})"


KEPT = Mark("●", 2, "kept")
UNDONE = Mark("○", 3, "taken back")
DISCARDED = Mark("·", "default", "discarded")
OPEN = Mark("?", 5, "open")
CRASHED = Mark("×", 1, "crashed")
BEST = Mark("━", 6, "best, as credited")


def render_chart(
    series: Series, *, width: int | None = None, height: int | None = None, colour: bool | None = None
) -> str:
    """The chart; its size and whether it is coloured are as the terminal has it, unless they are given."""
    terminal = sys.stdout.isatty()
    width = page_width(width)
    if height is None:
        height = shutil.get_terminal_size().lines - 3 if terminal else PIPED_HEIGHT
    height = min(max(height, LEAST_HEIGHT), MOST_HEIGHT)
    if colour is None:
        colour = terminal and not os.environ.get("NO_COLOR")
    measured = [each for each in series.experiments if each.metric is not None]
    crashed = [each for each in series.experiments if each.status == "crash"]
    summary = series.summary
    title = f"Campaign {summary.tag}: {summary.metric}, {summary.direction} is better"
    if not measured:
        told = f"; {plural(len(crashed), 'experiment')} crashed" if crashed else ""
        return f"{title}\nNothing has been measured yet{told}.\n"
    window = _tight(metric_window(series), series)
    groups = _groups(series)
    figure = _figure(series, window, (width, height), groups)
    chart = figure.build().string(colorless=not colour)
    beyond = sum(not window.shows(each.metric) for each in measured if each.metric is not None)
    legend = _legend([mark for mark, points in groups if points], beyond, width, colour=colour)
    return f"{title}\n{_trimmed(chart)}\n{legend}"


def _tight(window: Window, series: Series) -> Window:
    """``window`` without the room that the picture leaves for labels beyond the best: here are none."""
    values = [each.metric for each in series.experiments if each.metric is not None and window.shows(each.metric)]
    if not values:
        return window
    room = 0.03 * (window.high - window.low)
    if series.sign > 0:
        return Window(low=window.low, high=min(window.high, max(values) + room))
    return Window(low=max(window.low, min(values) - room), high=window.high)


def _groups(series: Series) -> list[tuple[Mark, list[ExperimentPoint]]]:
    """The experiments by how they are drawn, what matters most last and so on top."""
    measured = [each for each in series.experiments if each.metric is not None]
    return [
        (DISCARDED, [each for each in measured if each.status == "discard" and not each.undone]),
        (BEST, []),
        (CRASHED, [each for each in series.experiments if each.status == "crash"]),
        (OPEN, [each for each in measured if each.status == "open"]),
        (UNDONE, [each for each in measured if each.undone]),
        (KEPT, [each for each in measured if each.kept]),
    ]


def _figure(
    series: Series, window: Window, size: tuple[int, int], groups: Sequence[tuple[Mark, list[ExperimentPoint]]]
) -> Any:
    """The figure of plotext, which has only one."""
    import plotext

    plotext.terminal.limit(False, False)  # the size is ours to choose, also where stdout is no terminal
    figure = plotext.figure
    figure.clear()
    figure.theme("colorless")  # the terminal's own colours, dark or light, for all but our marks
    figure.plot_size(*size)
    last = series.experiments[-1].number
    _scale(figure, window, last, size[0])
    worst = window.high if series.sign < 0 else window.low  # where crashes stand: they have no metric
    for mark, points in groups:
        marker = plotext.marker(mark.symbol, mark.colour)
        if mark is BEST:
            for xs, ys in _steps(series, window, last):
                line = figure.signal(xs, ys, marker=plotext.marker("hd", mark.colour))
                line.lines()
                figure.draw(line)
        elif points:
            ys = [worst if each.metric is None else window.clip(each.metric) for each in points]
            figure.draw(figure.signal([each.number for each in points], ys, marker=marker))
    return figure


def _scale(figure: Any, window: Window, last: int, width: int) -> None:
    vertical, horizontal = figure.ruler("y"), figure.ruler("x")
    vertical.lim(window.low, window.high)
    places = [window.low + (window.high - window.low) * at / (TICKS - 1) for at in range(TICKS)]
    vertical.ticks(places, tick_labels(places))
    horizontal.lim(-0.5, last + 0.5)
    step = next(step for step in _round_steps() if last / step <= max(width // COLUMNS_PER_TICK, 2))
    numbers = range(0, last + 1, step)
    horizontal.ticks(numbers, [str(each) for each in numbers])


def _round_steps() -> Iterator[int]:
    """1, 2, 5, 10, 20, 50, …"""
    return (factor * 10**power for power in itertools.count() for factor in (1, 2, 5))


def _steps(series: Series, window: Window, last: int) -> list[tuple[list[float], list[float]]]:
    """The credited level over the experiments as stairs, for each epoch a flight of its own."""
    flights = []
    for epoch in dict.fromkeys(each.epoch for each in series.levels):
        levels = [each for each in series.levels if each.epoch == epoch]
        later = [each.number for each in series.levels if each.epoch > epoch]
        xs: list[float] = []
        ys: list[float] = []
        for each in levels:
            if ys:
                xs.append(each.number)
                ys.append(ys[-1])
            xs.append(each.number)
            ys.append(window.clip(each.level))
        xs.append(min(later, default=last))
        ys.append(ys[-1])
        flights.append((xs, ys))
    return flights


def tick_labels(values: Sequence[float]) -> list[str]:
    """The values with as few digits as tell them apart, but at least three."""
    for digits in range(3, 12):
        labels = [f"{value:.{digits}g}" for value in values]
        if len(set(labels)) == len(labels):
            return labels
    return [number(value) for value in values]


def _legend(marks: Sequence[Mark], beyond: int, width: int, *, colour: bool) -> str:
    from rich.cells import cell_len
    from rich.text import Text

    parts = [Text.assemble((mark.symbol, mark.style), f" {mark.name}") for mark in (*marks, BEST)]
    if beyond:
        parts.append(Text(f"{beyond} beyond the scale, at its edge"))
    lines = [parts[0]]
    for part in parts[1:]:  # a mark and its name stay on one line
        if cell_len(lines[-1].plain) + 2 + cell_len(part.plain) <= width:
            lines[-1] = Text("  ").join([lines[-1], part])
        else:
            lines.append(part)
    return print_page(lines, width, colour)


def _trimmed(chart: str) -> str:
    return "\n".join(text.rstrip() for text in chart.splitlines())
