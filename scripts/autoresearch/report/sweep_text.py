"""A sweep for readers: progress while it runs, its table at the end."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, Self

from autoresearch.output import one_line, say
from autoresearch.report.format import NOTHING, number

if TYPE_CHECKING:
    from autoresearch.campaign.sweep import Sweep
    from autoresearch.campaign.sweep_point import PointResult

TABLE_WIDTH = 60


class Watcher:
    """Tells stderr how far a sweep is: a bar on a terminal, a line for each point elsewhere."""

    def __init__(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._total, self._done, self._measured_s, self._measured = total, 0, 0.0, 0
        self._started = time.monotonic()
        self._bar = Progress(
            BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}", markup=False),
            console=Console(stderr=True), disable=not sys.stderr.isatty(),
        )  # fmt: skip
        self._task = self._bar.add_task("", total=total)
        self._doing = ""

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def begin(self, description: str) -> None:
        self._started, self._doing = time.monotonic(), one_line(description, TABLE_WIDTH)
        self._say(f"running {self._doing}")

    def tick(self) -> None:
        if not self._bar.disable:
            self._bar.update(self._task, description=f"{self._doing}{self._left()}")

    def tell(self, point: PointResult) -> None:
        self._done += 1
        if not point.skipped:
            self._measured_s += time.monotonic() - self._started
            self._measured += 1
        self._bar.update(self._task, completed=self._done)
        of_all = "" if self._total is None else f"/{self._total}"
        self._say(f"[{self._done}{of_all}] {_outcome(point)}{self._left()}")

    def _left(self) -> str:
        """The time that the points left will take, at the mean of those measured."""
        points = 0 if self._total is None else self._total - self._done
        if not self._measured or not points:
            return ""
        seconds = points * self._measured_s / self._measured
        return f"; about {seconds:.0f} s left" if seconds < 100 else f"; about {seconds / 60:.0f} min left"

    def _say(self, text: str) -> None:
        if self._bar.disable:
            say(text)
        else:
            self._bar.console.print(text, markup=False, highlight=False)


def _outcome(point: PointResult) -> str:
    metric = "no metric" if point.metric is None else number(point.metric)
    description = one_line(point.description, TABLE_WIDTH)
    if point.skipped:
        known = f" (experiment {point.number}: {metric})" if point.number is not None else ""
        return f"{description} skipped: {point.skipped}{known}"
    return f"{description} → {point.status}, {metric}"


def render_sweep(sweep: Sweep) -> str:
    """One line for each point, then the incumbent."""
    width = min(TABLE_WIDTH, max([len(point.description) for point in sweep.points], default=5))
    lines = [f"{'#':>4}  {'point':<{width}}  {'status':<8} {'metric':>10}  verdict"]
    for point in sweep.points:
        which = NOTHING if point.number is None else str(point.number)
        note = f"{point.verdict} (skipped: {point.skipped})" if point.skipped else point.verdict
        lines.append(
            f"{which:>4}  {one_line(point.description, width):<{width}}  "
            f"{point.status or '-':<8} {number(point.metric):>10}  {note}".rstrip()
        )
    best = sweep.incumbent
    if best is not None and best.metric is not None:
        lines.append(f"incumbent: experiment {best.number} ({best.description}), {number(best.metric)}")
    return "\n".join(lines)
