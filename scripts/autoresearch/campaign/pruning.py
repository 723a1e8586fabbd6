"""Early kill, fed from the ledger: up to which training loss a new trial is worth finishing."""

from __future__ import annotations

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.ledger import DECIDING, Experiment, Purpose, Trial
from autoresearch.trial import Outcome
from autoresearch.verdict.curves import Curve, FinishedTrial, diverged_above, prune_bounds

SCHEDULE_FAMILY = "schedule"  # a longer warm-up or a later decay trails until late and wins in the end
LOOK_BACK = 60  # experiments to learn from; older ones stood beside another incumbent


def prune_limits(oc: OpenCampaign, experiment: Experiment, seed: int) -> tuple[tuple[tuple[float, float], ...], float]:
    """``(prune_above, diverged_above)`` for a trial of ``experiment`` at ``seed``; ``((), 0.0)`` prunes nothing."""
    if not oc.config.prune or not experiment.options.get("prune", True) or experiment.family == SCHEDULE_FAMILY:
        return (), 0.0
    incumbent = _curves(oc, experiment.incumbent)
    if seed not in incumbent:
        return (), 0.0
    finished: list[FinishedTrial] = []
    known: dict[int, dict[int, tuple[Curve, float | None]]] = {}
    for earlier in oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch, last=LOOK_BACK):
        if earlier.incumbent is None or earlier.family == SCHEDULE_FAMILY:
            continue
        beside = known.setdefault(earlier.incumbent, _curves(oc, earlier.incumbent))
        for at, (curve, metric) in _curves(oc, earlier.number, pruned=True).items():
            if at in beside:
                reference = beside[at][1]
                excess = None if metric is None or reference is None else (metric - reference) * _sign(oc)
                finished.append(FinishedTrial(curve=curve, incumbent_curve=beside[at][0], excess=excess))
    return prune_bounds(incumbent[seed][0], finished), diverged_above(curve for curve, _ in incumbent.values())


def _sign(oc: OpenCampaign) -> float:
    return 1.0 if oc.config.metric.lower_is_better else -1.0


def _curves(oc: OpenCampaign, number: int | None, *, pruned: bool = False) -> dict[int, tuple[Curve, float | None]]:
    """Learning curve and metric of an experiment's completed (and ``pruned``) trials by seed, of its last attempt."""
    if number is None:
        return {}
    trials = oc.ledger.trials(oc.tag, number)
    last = max((trial.attempt for trial in trials), default=1)  # an earlier one may have stood on other code
    return {
        trial.seed: (trial.result.curve, trial.metric)
        for trial in trials
        if trial.attempt == last and trial.result is not None and trial.result.curve and _counts(trial, pruned)
    }


def _counts(trial: Trial, pruned: bool) -> bool:
    assert trial.result is not None
    if trial.purpose not in (*DECIDING, Purpose.RETEST):  # a claim may have run other code
        return False
    return trial.result.outcome is Outcome.COMPLETED or (pruned and trial.result.outcome is Outcome.PRUNED)
