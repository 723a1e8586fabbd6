"""The ledger's rows as a report reads them: only the columns that it needs, since a campaign may have 10,000."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from autoresearch.ledger import DECIDING
from autoresearch.report.figures import Judged
from autoresearch.trial import Outcome


class ExperimentRow(NamedTuple):
    """Columns of the ledger's table; the keep rule's state of every decision is too much to read here."""

    number: int
    epoch: int
    commit_sha: str
    parent_sha: str
    incumbent: int | None
    description: str
    family: str
    state: str
    status: str | None
    verdict: str
    judgement: str
    attempt: int
    metric: float | None
    lines_added: int
    lines_deleted: int
    reason: str
    undone: str
    note: str
    created_at: str
    decided_at: str

    @property
    def is_baseline(self) -> bool:
        return self.incumbent is None

    @property
    def word(self) -> str:
        return self.status or "open"

    @property
    def evidence(self) -> dict[str, Any]:
        """The numbers it was judged on; without them for a baseline and for what gave none."""
        found: dict[str, Any] = json.loads(self.judgement)
        return found


class TrialRow(NamedTuple):
    """Columns of the ledger's table and, out of the result, what the trial ran on."""

    number: int
    attempt: int
    seed: int
    purpose: str
    commit_sha: str
    outcome: str | None
    cause: str | None
    metric: float | None
    duration_s: float | None
    created_at: str
    device: str | None

    @property
    def value(self) -> float | None:
        """The metric, if the trial completed."""
        return self.metric if self.outcome == Outcome.COMPLETED else None

    @property
    def seconds(self) -> float:
        return self.duration_s or 0.0


EXPERIMENT_COLUMNS = ", ".join(ExperimentRow._fields)
TRIAL_COLUMNS = ", ".join([*TrialRow._fields[:-1], "json_extract(result, '$.device')"])

Trials = Mapping[int, Sequence[TrialRow]]  # by experiment number


def own_trials(experiment: ExperimentRow, trials: Trials) -> list[TrialRow]:
    """The trials of its last attempt that its decision rests on."""
    return [
        trial
        for trial in trials.get(experiment.number, ())
        if trial.attempt == experiment.attempt and trial.purpose in DECIDING
    ]


def values_by_seed(trials: Iterable[TrialRow]) -> dict[int, float]:
    return {trial.seed: trial.value for trial in trials if trial.value is not None}


def judged(experiment: ExperimentRow, trials: Trials) -> Judged:
    evidence = experiment.evidence
    return Judged(
        number=experiment.number,
        epoch=experiment.epoch,
        status=experiment.word,
        incumbent=experiment.incumbent,
        commit=experiment.commit_sha,
        parent=experiment.parent_sha,
        family=experiment.family,
        description=experiment.description,
        verdict=experiment.verdict,
        metric=experiment.metric,
        gain=evidence.get("gain"),
        gain_low=evidence.get("gain_low"),
        gain_high=evidence.get("gain_high"),
        z=evidence.get("z"),
        z_needed=evidence.get("z_needed"),
        trials=sum(trial.purpose in DECIDING for trial in trials.get(experiment.number, ())),
        lines_added=experiment.lines_added,
        lines_deleted=experiment.lines_deleted,
        constraint=evidence.get("constraint", ""),
        undone=experiment.undone,
    )
