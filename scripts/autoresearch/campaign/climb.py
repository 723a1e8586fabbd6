"""The sweep that needs neither ideas nor a space: ``proposals`` on a campaign, resumed from its ledger alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from pathlib import Path

from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.points import SWEEP, Axis, Kind, described
from autoresearch.campaign.progress import bring_forward
from autoresearch.campaign.proposals import (
    Attempt,
    Key,
    Number,
    Outcome,
    Tunable,
    key_of,
    numbers,
    propose,
    tunables,
    written,
)
from autoresearch.campaign.settle import incumbent_commit
from autoresearch.campaign.sweep_point import INTERRUPTED, Listener, PointResult, edited_sources, try_point
from autoresearch.errors import RefusedError
from autoresearch.ledger import Experiment, State, Status

AUTO = "auto"  # how the descriptions of its experiments begin
# The guard's refusals that speak of the constant: it is left alone from then on.
_ABOUT_THE_EDIT = {"seed_only", "seed_ignored", "rebinding", "metric_line"}


def tuned(oc: OpenCampaign) -> list[Tunable]:
    """The constants that a climb would change; ``RefusedError`` if there is none."""
    found = tunables(edited_sources(oc, incumbent_commit(oc)))
    if not found:
        raise RefusedError(
            f"No top-level number in {', '.join(oc.config.edit)} looks like one to tune.",
            hint="Name what to vary: python scripts/sweep.py --set NAME=1,2 (or --arg, --env)",
            code="nothing_to_tune",
        )
    return found


def earlier_points(oc: OpenCampaign) -> list[PointResult]:
    """What climbs of this epoch have measured, in order."""
    found = []
    for experiment in oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch):
        changes = described(experiment.description, AUTO)
        if changes is not None and _counts(experiment):
            found.append(
                PointResult.of(dict(changes), experiment.description, experiment, skipped="tried already")
            )  # fmt: skip
    return found


def climb(project: Path, tag: str, listener: Listener) -> Iterator[PointResult]:
    """Try one proposal after the other, each on the incumbent that the one before left; ends when none is left."""
    left_alone: set[str] = set()
    refused: defaultdict[int, set[Key]] = defaultdict(set)  # by incumbent
    while True:
        with open_campaign(project, tag) as oc:
            bring_forward(oc)  # a re-test may have taken the incumbent back
            incumbent = oc.ledger.incumbent(tag)
            assert incumbent is not None, "the baseline is measured"
            found = [one for one in tunables(edited_sources(oc, incumbent.commit)) if one.name not in left_alone]
            proposal = propose(found, list(_attempts(oc)), incumbent.number, refused[incumbent.number])
        if proposal is None:
            return
        axes = [Axis(kind=Kind.SET, name=one.name, values=(written(one, value),)) for one, value in proposal]
        point = tuple(axis.values[0] for axis in axes)
        try:
            result = try_point(project, tag, axes, point, listener, by=AUTO)
        except RefusedError as error:
            if error.code not in _ABOUT_THE_EDIT:
                raise
            left_alone |= {one.name for one, _ in proposal}
            continue
        if result.skipped:  # by an agent, or on an earlier incumbent with the same files
            refused[incumbent.number].add(key_of((one.name, value) for one, value in proposal))
        else:
            yield result


def _attempts(oc: OpenCampaign) -> Iterator[Attempt]:
    """Every decided experiment of this epoch that a sweep made of constants, a given one included."""
    experiments = oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch)
    commits = {experiment.number: experiment.commit for experiment in experiments}
    known: dict[int, dict[str, Number]] = {}  # the constants of each incumbent that something was tried on
    for experiment in experiments:
        changes = described(experiment.description, AUTO) or described(experiment.description, SWEEP)
        on = experiment.incumbent
        if changes is None or on not in commits or not _counts(experiment):
            continue
        if on not in known:
            known[on] = _constants(oc, commits[on])
        values = _numbers(dict(changes))
        if values and values.keys() <= known[on].keys():
            yield Attempt(
                number=experiment.number, on=on, before=known[on], values=values, outcome=_outcome(experiment)
            )  # fmt: skip


def _constants(oc: OpenCampaign, commit: str) -> dict[str, Number]:
    return {one.name: one.value for one in numbers(edited_sources(oc, commit))}


def _numbers(changes: Mapping[str, str]) -> dict[str, Number]:
    """The values as numbers; {} if one is none."""
    stated = numbers({"": "\n".join(f"{name} = {text}" for name, text in changes.items())})
    values = {one.name: one.value for one in stated}
    return values if values.keys() == changes.keys() else {}


def _counts(experiment: Experiment) -> bool:
    return experiment.state is State.DECIDED and INTERRUPTED not in experiment.reason


def _outcome(experiment: Experiment) -> Outcome:
    gain = float(experiment.judgement.get("gain") or 0.0)
    match experiment.status, experiment.verdict:
        case Status.KEEP, _:
            return Outcome.KEPT
        case Status.CRASH, _:
            return Outcome.CRASHED
        case _, "worse":
            return Outcome.WORSE
        case _, "equivalent" if gain == 0:
            return Outcome.NO_EFFECT
    return Outcome.PROMISING if gain > 0 and not experiment.undone else Outcome.OPEN
