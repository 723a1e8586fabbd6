"""What the ledger holds: campaigns, experiments, trials and events, as plain records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from autoresearch.trial import Outcome, TrialResult


class State(StrEnum):
    """How far an experiment has come."""

    RUNNING = "running"  # trials under way or still to be started
    JUDGED = "judged"  # a verdict stands, log_result.py is next
    DECIDED = "decided"


class Status(StrEnum):
    """The three words of results.tsv."""

    KEEP = "keep"
    DISCARD = "discard"
    CRASH = "crash"


class Purpose(StrEnum):
    """Why a trial was run."""

    BASELINE = "baseline"
    SCREEN = "screen"
    CONFIRM = "confirm"
    RETEST = "retest"
    CLAIM = "claim"
    TEST = "test"  # of test_command, once, at a claim


# The trials that a decision rests on; re-tests inform the keep rule, claims and tests only the reader.
DECIDING = (Purpose.BASELINE, Purpose.SCREEN, Purpose.CONFIRM)


@dataclass(kw_only=True)
class Campaign:
    """Everything under one tag. Changed only through ``Ledger.update_campaign``."""

    tag: str
    branch: str
    base_commit: str  # of the current epoch
    project: str  # the worktree's project folder that the campaign was set up in
    epoch: int = 1
    created_at: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    setup: dict[str, Any] = field(default_factory=dict)  # what set-up found: the user's own files, data fingerprints
    claim: dict[str, Any] = field(
        default_factory=dict
    )  # the last comparison on fresh seeds: plan, then word and reason; those before it under "past"
    environment: dict[str, Any] = field(default_factory=dict)  # fingerprint taken at the baseline
    rule: dict[str, Any] | None = None  # the keep rule's state after the last decision or re-test
    view_sha256: str = ""  # of results.tsv as last written, to notice a hand edit
    pending: dict[str, Any] = field(default_factory=dict)  # git moves decided on but not yet made


@dataclass(kw_only=True)
class Experiment:
    """One idea: one commit, one description, one decision."""

    tag: str
    number: int
    epoch: int
    description: str
    commit: str
    parent: str  # the incumbent's commit it was made on
    tree: str
    incumbent: int | None  # the experiment number it is compared with; None for a baseline
    family: str = ""
    state: State = State.RUNNING
    status: Status | None = None
    verdict: str = ""
    judgement: dict[str, Any] = field(default_factory=dict)
    attempt: int = 1
    options: dict[str, Any] = field(default_factory=dict)  # seeds, prune, simplification, arguments, environment, ahead
    lines_added: int = 0
    lines_deleted: int = 0
    metric: float | None = None  # mean over its completed trials
    peak_mem_mib: float | None = None
    reason: str = ""  # why it was decided so, for readers
    undone: str = ""  # why a keep was taken back; empty if it was not
    note: str = ""
    rule: dict[str, Any] | None = None  # the keep rule's state right after the decision
    created_at: str = ""
    decided_at: str = ""

    @property
    def is_baseline(self) -> bool:
        return self.incumbent is None

    @property
    def is_ahead(self) -> bool:
        """Whether it was submitted off the branch, beside others: only a keep brings it there."""
        return bool(self.options.get("ahead"))

    @property
    def shown_description(self) -> str:
        """The description as results.tsv prints it."""
        return shown_description(self.description, self.undone)


@dataclass(kw_only=True)
class Trial:
    """One execution at one seed; ``result`` is None until it has been taken into the ledger."""

    id: str
    tag: str
    number: int
    attempt: int
    seed: int
    purpose: Purpose
    commit: str
    command: str
    directory: str
    created_at: str = ""
    handle: dict[str, Any] = field(default_factory=dict)
    environment: str = ""  # hash of the environment fingerprint it ran under
    result: TrialResult | None = None

    @property
    def metric(self) -> float | None:
        return None if self.result is None else self.result.metric


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """What results.tsv shows of a decided experiment."""

    commit: str
    metric: float | None
    peak_mem_mib: float | None
    status: str
    description: str


@dataclass(frozen=True, kw_only=True)
class Idea:
    """What an experiment tried, without what came of it: enough to see whether a new one is like it."""

    tag: str
    number: int
    epoch: int
    description: str
    commit: str
    parent: str
    tree: str
    lines_added: int
    lines_deleted: int


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something worth telling that is neither a trial nor a decision."""

    at: str
    kind: str
    text: str


def shown_description(description: str, undone: str) -> str:
    return f"{description} (undone: {undone})" if undone else description


def now() -> str:
    """UTC, ISO 8601, to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def completed(trials: Sequence[Trial]) -> dict[int, float]:
    """``{seed: metric}`` of the trials that completed, in the order they were started."""
    return {
        trial.seed: trial.result.metric
        for trial in trials
        if trial.result is not None and trial.result.outcome is Outcome.COMPLETED and trial.result.metric is not None
    }
