"""How a campaign's time was spent: devices at work, the agent between two experiments."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from autoresearch.report.series import Series, TrialPoint
from autoresearch.trial import Outcome

UNTROUBLED = (Outcome.COMPLETED, Outcome.PRUNED)


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Seconds in bins of equal length: trials by how they ended, and the agent between two experiments."""

    bin_s: float
    completed: list[float]
    pruned: list[float]
    failed: list[float]
    running: list[float]
    thinking: list[float]


def timeline(series: Series, bins: int = 96) -> Timeline:
    """How the campaign's time was spent; a bin of several devices may hold more seconds than it lasts."""
    bin_s = max(series.summary.elapsed_s / bins, 1e-3)
    spent: dict[str, list[float]] = {
        kind: [0.0] * bins for kind in ("completed", "pruned", "failed", "running", "thinking")
    }
    for trial in series.trials():
        end_s = series.summary.elapsed_s if trial.outcome is None else trial.start_s + trial.duration_s
        _spread(spent[_kind(trial)], trial.start_s, end_s, bin_s)
    for before, after in pairwise(series.experiments):
        if before.decided_s is not None:
            _spread(spent["thinking"], before.decided_s, after.start_s, bin_s)
    return Timeline(bin_s=bin_s, **spent)


def _kind(trial: TrialPoint) -> str:
    if trial.outcome is None:
        return "running"
    return trial.outcome if trial.outcome in UNTROUBLED else "failed"


def _spread(bins: list[float], start_s: float, end_s: float, bin_s: float) -> None:
    """Add the seconds from ``start_s`` to ``end_s`` to the bins that they fall into."""
    at = max(int(start_s / bin_s), 0)
    while start_s < end_s and at < len(bins):
        border_s = (at + 1) * bin_s
        bins[at] += min(end_s, border_s) - start_s
        start_s = max(start_s, border_s)
        at += 1
