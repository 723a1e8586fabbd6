"""What the metric's axis of a chart shows, so that one run that went astray does not flatten all the others."""

from __future__ import annotations

from dataclasses import dataclass

from autoresearch.report.format import NORMAL_95
from autoresearch.report.series import Series


@dataclass(frozen=True, kw_only=True)
class Window:
    """The part of the metric's axis that is shown; what lies beyond is drawn at its edge."""

    low: float
    high: float

    def clip(self, value: float) -> float:
        return min(max(value, self.low), self.high)

    def shows(self, value: float) -> bool:
        return self.low <= value <= self.high


def metric_window(series: Series) -> Window:
    """What the metric's axis shows: the way from the baseline to the best, and as much of the misses as fits.

    One run that went astray must not flatten all the others, so the worse side ends where most misses do,
    and not further from the baseline than the whole way is long.
    """
    sign, current = series.sign, series.summary.epoch
    values = [sign * each.metric for each in series.experiments if each.metric is not None and each.epoch == current]
    believed = [
        sign * each.level + side * NORMAL_95 * each.se
        for each in series.levels
        if each.epoch == current
        for side in (-1, 1)
    ]
    if not values:  # a new epoch has begun, and its baseline is still being measured
        values = [sign * each.metric for each in series.experiments if each.metric is not None]
    standing = [
        sign * each.metric
        for each in series.experiments
        if each.metric is not None and each.epoch == current and each.kept
    ]
    way = standing or values
    path = [*way, *believed] if standing else way
    best, start = max(path), min(path)
    ordered = sorted(values)
    usual = ordered[len(ordered) // 5]  # a fifth of the experiments lies beyond
    spread = max(best - start, (ordered[-1] - ordered[len(ordered) // 2]), 0.0)
    low = min(start, max(min(ordered), min(usual, start - 0.15 * spread), start - 1.0 * spread))
    high = max(best, min(ordered[-1], best + 0.5 * (best - low)))
    room = (high - low) or abs(high) * 0.01 or 1.0
    low, high = low - 0.06 * room, high + 0.22 * room  # labels go where nothing can be: beyond the best
    return Window(low=low, high=high) if sign > 0 else Window(low=-high, high=-low)
