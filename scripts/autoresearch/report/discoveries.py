"""What a campaign has found out beyond its keeps: sure effects, interactions, sweeps, and what never helps."""

from __future__ import annotations

import re
import shlex
from collections import defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from autoresearch.ledger import Purpose, Status
from autoresearch.report.figures import (
    Ablation,
    Discoveries,
    Family,
    Fruitless,
    Judged,
    Retried,
    Stack,
    SweptAxis,
    SweptValue,
)
from autoresearch.report.rows import TrialRow

EFFECTS = 10  # of each sign, and of each list below: a long campaign has hundreds
OFTEN = 3  # tries without success from which on "it never helps" may be said
SWEEP = "sweep: "  # how ``sweep.py`` begins its descriptions
_NUMBER = re.compile(r"\d+(?:\.\d+)?(?:e[-+]?\d+)?", re.IGNORECASE)


def discoveries(
    ideas: Sequence[Judged],
    trials: Sequence[TrialRow],
    families: Sequence[Family],
    claim: Mapping[str, Any],
    direction: str,
) -> Discoveries:
    """Discoveries of one epoch, whose decided ``ideas`` are in the order of their numbers."""
    sure_gains = [each for each in ideas if each.gain_low is not None and each.gain_low > 0]
    sure_losses = [each for each in ideas if each.gain_high is not None and each.gain_high < 0]
    standing = [each for each in ideas if each.status == Status.KEEP]
    promising = {each.family for each in ideas if _looked_better(each)}
    return Discoveries(
        gains=sorted(sure_gains, key=lambda each: -(each.gain_low or 0.0))[:EFFECTS],
        losses=sorted(sure_losses, key=lambda each: each.gain_high or 0.0)[:EFFECTS],
        stack=Stack(
            keeps=len(standing),
            pairs=len(standing) * (len(standing) - 1) // 2,
            gains_sum=sum(each.gain or 0.0 for each in standing),
        ),
        ablations=_ablations(standing, trials, claim, direction),
        retried=_retried(ideas),
        sweeps=_sweeps(ideas, direction),
        fruitless=_fruitless(ideas),
        hopeless=[each for each in families if each.discarded + each.crashed >= OFTEN and each.family not in promising][
            :EFFECTS
        ],
    )


def _looked_better(idea: Judged) -> bool:
    return idea.status == Status.DISCARD and idea.verdict == "inconclusive" and (idea.z or 0.0) > 0


def _ablations(
    standing: Sequence[Judged], trials: Sequence[TrialRow], claim: Mapping[str, Any], direction: str
) -> list[Ablation]:
    """What each kept change adds to the best: the claim's trials of the best against those without the change.

    The trials of the code without a change are filed with the change's experiment, under another commit.
    """
    arms, seeds = claim.get("arms", []), set(claim.get("seeds", []))
    if len(arms) <= 2:
        return []
    runs: dict[str, dict[int, float]] = defaultdict(dict)
    filed: dict[str, int] = {}
    for trial in trials:
        if trial.purpose == Purpose.CLAIM and trial.seed in seeds and trial.value is not None:
            runs[trial.commit_sha][trial.seed] = trial.value
            filed[trial.commit_sha] = trial.number
    kept = {each.number: each for each in standing}
    found = [
        _ablation(kept[filed[commit]], runs[arms[1]], runs[commit], direction)
        for commit in arms[2:]
        if filed.get(commit) in kept and runs[commit].keys() & runs[arms[1]].keys()
    ]
    return sorted(found, key=lambda each: each.gain)


def _ablation(kept: Judged, best: Mapping[int, float], without: Mapping[int, float], direction: str) -> Ablation:
    from autoresearch.verdict.claim import compare_arms

    found = compare_arms(without, best, direction, exploratory=True)
    return Ablation(
        number=kept.number,
        description=kept.description,
        gain_when_kept=kept.gain,
        gain=found.gain,
        gain_low=found.gain_low,
        gain_high=found.gain_high,
        seeds=found.n,
        interaction=None if kept.gain is None else found.gain - kept.gain,
    )


def _retried(ideas: Sequence[Judged]) -> list[Retried]:
    """Ideas with a gain over at least two incumbents, the last tried last."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in ideas:
        if each.gain is not None:
            groups[" ".join(each.description.lower().split())].append(each)
    again = [group for group in groups.values() if len({each.incumbent for each in group}) > 1]
    again.sort(key=lambda group: group[-1].number)
    return [Retried(description=group[-1].description, tries=group) for group in again[-EFFECTS:]]


def _fruitless(ideas: Sequence[Judged]) -> list[Fruitless]:
    """Ideas that lost every time, the most tried first; points of a sweep are another list's."""
    groups: dict[str, list[Judged]] = defaultdict(list)
    for each in ideas:
        if not each.description.startswith(SWEEP):
            groups[_NUMBER.sub("#", " ".join(each.description.lower().split()))].append(each)
    lost = [
        group
        for wording, group in groups.items()
        if wording and len(group) >= OFTEN and not any(each.status == Status.KEEP or each.undone for each in group)
    ]
    lost.sort(key=lambda group: (-len(group), group[0].number))
    return [
        Fruitless(
            idea=group[-1].description,
            tries=len(group),
            crashed=sum(each.status == Status.CRASH for each in group),
            numbers=[each.number for each in group],
            best_gain=max((each.gain for each in group if each.gain is not None), default=None),
        )
        for group in lost[:EFFECTS]
    ]


def _sweeps(ideas: Sequence[Judged], direction: str) -> list[SweptAxis]:
    """The effect of every swept parameter, the largest first; where several were swept at once, on average."""
    points: dict[str, dict[str, list[Judged]]] = defaultdict(lambda: defaultdict(list))
    for each in ideas:
        for name, value in _swept(each.description):
            points[name][value].append(each)
    axes = [_axis(name, by_value, direction) for name, by_value in points.items()]
    return sorted(axes, key=lambda axis: (-(axis.effect or 0.0), axis.name))[:EFFECTS]


def _swept(description: str) -> list[tuple[str, str]]:
    """The parameters and values of a sweep's point as its description names them; [] for another idea."""
    if not description.startswith(SWEEP):
        return []
    try:
        words = shlex.split(description.removeprefix(SWEEP))
    except ValueError:  # a description of the user's own that only begins like a sweep's
        return []
    pairs = [word.partition("=") for word in words]
    return [(name, value) for name, equals, value in pairs if name and equals]


def _axis(name: str, by_value: Mapping[str, Sequence[Judged]], direction: str) -> SweptAxis:
    values = [
        SweptValue(
            value=value,
            points=len(group),
            metric=fmean(metrics) if (metrics := [each.metric for each in group if each.metric is not None]) else None,
            kept=sum(each.status == Status.KEEP for each in group),
        )
        for value, group in by_value.items()
    ]
    sign = 1 if direction == "lower" else -1
    values.sort(key=lambda each: float("inf") if each.metric is None else sign * each.metric)
    means = [each.metric for each in values if each.metric is not None]
    return SweptAxis(name=name, values=values, effect=abs(means[-1] - means[0]) if len(means) > 1 else None)
