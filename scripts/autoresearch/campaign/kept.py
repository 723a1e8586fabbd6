"""What a campaign has kept, as steps from the commit it began on to the incumbent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.guard import may_edit
from autoresearch.ledger import DECIDING, Experiment, Status, completed
from autoresearch.output import one_line


@dataclass(frozen=True, kw_only=True)
class Part:
    """One kept experiment, or what came with a baseline, with the numbers it was kept on.

    ``number`` is None for what is no experiment: a starter's files, edits by hand before a new epoch.
    """

    number: int | None
    description: str
    original: str  # the commit on the campaign's branch
    files: tuple[str, ...]
    metric: float | None = None
    gain: float | None = None  # over the incumbent of its time; positive is better
    gain_low: float | None = None
    gain_high: float | None = None
    z: float | None = None
    against: int | None = None
    seeds: int = 0
    trials: int = 0
    lines_added: int = 0
    lines_deleted: int = 0
    simplification: bool = False
    note: str = ""
    commit: str = ""  # on the new branch; "" if it is not on it
    left_out: str = ""  # why it is not

    @property
    def name(self) -> str:
        """What messages call it."""
        short = one_line(self.description, 60)
        return short if self.number is None else f"Experiment {self.number} ({short})"


@dataclass(frozen=True, kw_only=True)
class Step:
    """From ``before`` to ``after``, two commits of the campaign, in ``paths``."""

    part: Part
    before: str
    after: str
    paths: tuple[str, ...]
    at: datetime  # when it was decided
    includes: tuple[int, ...] = ()  # experiments that were taken back, but that this one was built on


def confirmed(part: Part) -> str:
    """Why ``part`` does not count as confirmed; "" if it does, or if it is no experiment.

    Confirmed is a gain whose 95 % interval, as judged when it was kept, lies above zero.
    """
    if part.number is None:
        return ""
    if part.gain_low is None:
        return "no interval is on record"
    if part.gain_low <= 0:
        what = "a simplification without a gain of its own" if part.simplification else "its gain may be none"
        return f"{what}: the 95 % interval is {part.gain_low:+.3g} to {part.gain_high or 0.0:+.3g}"
    return ""


def starting_commit(oc: OpenCampaign) -> str:
    """The user's commit that the campaign began on, before anything of ours was added.

    For an adopted campaign that is the baseline of the earlier run, where the repository still has it.
    """
    began: str = oc.campaign.setup.get("from_commit") or oc.campaign.base_commit
    first = oc.ledger.experiment(oc.tag, 0)
    if first is None or not first.judgement.get("imported"):
        return began
    commit = oc.repo.commit_of(first.commit)
    return commit if commit is not None and oc.repo.is_ancestor(commit, began) else began


def steps(oc: OpenCampaign, start: str, *, bookkeeping: Sequence[str]) -> list[Step]:
    """What was kept and not taken back, in order; files under ``bookkeeping`` are in no step."""
    standing = [each for each in oc.ledger.experiments(oc.tag, status=Status.KEEP) if oc.repo.commit_of(each.commit)]
    tip = standing[-1].commit if standing else start
    found: list[Step] = []
    before = start
    for position, each in enumerate(standing):
        if not oc.repo.is_ancestor(each.commit, tip) or oc.repo.is_ancestor(each.commit, start):
            continue
        # With the first baseline comes what a starter brought; later ones bring what a person did meanwhile.
        own = set() if each.is_baseline else set(oc.repo.changed_paths(each.parent, each.commit))
        paths = tuple(
            path
            for path in oc.repo.changed_paths(before, each.commit)
            if path not in bookkeeping and (position == 0 or path in own or may_edit(path, oc.config))
        )
        if paths or not each.is_baseline:
            found.append(_step(oc, each, before, paths))
        before = each.commit
    return found


def _step(oc: OpenCampaign, experiment: Experiment, before: str, paths: tuple[str, ...]) -> Step:
    part = _baseline_part(experiment, paths) if experiment.is_baseline else _part(oc, experiment, paths)
    undone = [
        each.number
        for each in oc.ledger.experiments(oc.tag, status=Status.DISCARD)
        if each.undone and oc.repo.is_ancestor(each.commit, experiment.commit)
        and not oc.repo.is_ancestor(each.commit, before)
    ]  # fmt: skip
    at = datetime.fromisoformat(experiment.decided_at or experiment.created_at)
    return Step(part=part, before=before, after=experiment.commit, paths=paths, at=at, includes=tuple(undone))


def _baseline_part(experiment: Experiment, paths: tuple[str, ...]) -> Part:
    first = experiment.number == 0
    return Part(
        number=None, original=experiment.commit, files=paths, metric=experiment.metric,
        description="Start: the files of the baseline" if first else f"Edits by hand before epoch {experiment.epoch}",
    )  # fmt: skip


def _part(oc: OpenCampaign, experiment: Experiment, paths: tuple[str, ...]) -> Part:
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    deciding = [trial for trial in trials if trial.purpose in DECIDING]
    evidence = experiment.judgement
    return Part(
        number=experiment.number, description=experiment.description, original=experiment.commit, files=paths,
        metric=experiment.metric, against=experiment.incumbent, seeds=len(completed(deciding)), trials=len(deciding),
        lines_added=experiment.lines_added, lines_deleted=experiment.lines_deleted,
        simplification=experiment.verdict == "equivalent", note=experiment.note,
        gain=evidence.get("gain"), gain_low=evidence.get("gain_low"), gain_high=evidence.get("gain_high"),
        z=evidence.get("z"),
    )  # fmt: skip
