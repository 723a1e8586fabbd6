"""The figures of a campaign: what every report, chart and page is made from. Plain numbers, JSON-able.

Every gain is counted so that positive is better, whatever the metric's direction. Gains, the baseline,
the incumbent and the record are those of the current epoch, since a new epoch may measure something else;
experiments, trials and times are those of the whole campaign. Commits are full SHAs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoresearch.ledger import Event


@dataclass(frozen=True, kw_only=True)
class Counts:
    """Experiments by status: ``run`` is the sum of ``kept``, ``discarded``, ``crashed`` and ``open``.

    The words are those of results.tsv, so ``baselines`` are among the kept, ``undone`` among the discarded.
    """

    run: int
    kept: int
    discarded: int
    crashed: int
    open: int
    baselines: int
    undone: int


@dataclass(frozen=True, kw_only=True)
class Measured:
    """The baseline or the incumbent. ``metric`` is the mean of ``values``, or was imported without them."""

    number: int
    commit: str
    description: str
    metric: float | None
    values: dict[int, float]  # seed -> metric, the trials that the decision rests on
    sd: float | None  # of the values; None for fewer than two
    retests: dict[int, float]  # seed -> metric, run later; known to the keep rule, not in the mean


@dataclass(frozen=True, kw_only=True)
class Credit:
    """What the keep rule believes: the incumbent's level, its standard error, its gain over the baseline."""

    level: float
    se: float
    gain: float


@dataclass(frozen=True, kw_only=True)
class Noise:
    """``sigma``: standard deviation of one run, on ``df`` degrees of freedom; ``rho``: seed correlation."""

    sigma: float
    df: int
    rho: float
    deterministic: bool


@dataclass(frozen=True, kw_only=True)
class Record:
    """The best single completed trial and its gain over the baseline's mean: what luck alone improves too."""

    metric: float
    gain: float | None
    number: int
    seed: int
    status: str  # of its experiment; "open" before the decision


@dataclass(frozen=True, kw_only=True)
class Judged:
    """An experiment with the evidence it was decided on; None where its decision knew no such number.

    ``gain`` is over the incumbent of that time, ``gain_low`` to ``gain_high`` its 95 % interval, ``trials``
    all that it took, failed and repeated ones included, re-tests not.
    """

    number: int
    epoch: int
    commit: str
    family: str
    description: str
    verdict: str
    metric: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    z: float | None
    trials: int
    lines_added: int
    lines_deleted: int
    undone: str  # why the keep was taken back; "" if it stands


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Trials that failed in the same way, with the last one's experiment and reason."""

    outcome: str
    cause: str
    trials: int
    experiments: int
    wall_s: float
    last_number: int
    last_reason: str


@dataclass(frozen=True, kw_only=True)
class OutcomeTime:
    """Ended trials of one outcome and the seconds they ran."""

    outcome: str
    trials: int
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class Family:
    """Ideas of one family ("" for those without), baselines left out."""

    family: str
    experiments: int
    kept: int
    discarded: int
    crashed: int
    open: int
    success_rate: float | None  # kept of the decided ones
    best_gain: float | None  # of the kept ones
    trials: int
    wall_s: float


@dataclass(frozen=True, kw_only=True)
class OpenExperiment:
    """The experiment that is not decided yet."""

    number: int
    commit: str
    description: str
    state: str
    verdict: str
    reason: str
    created_at: str
    values: dict[int, float]  # seed -> metric, so far
    running_seeds: list[int]


@dataclass(frozen=True, kw_only=True)
class Summary:
    """Everything a report says about a campaign. Times are UTC, ISO 8601; None where there is nothing yet."""

    tag: str
    branch: str
    metric: str
    direction: str  # lower | higher
    epoch: int
    started_at: str | None  # the first experiment
    last_at: str | None  # the last thing that happened to an experiment or a trial
    elapsed_s: float
    experiments_per_h: float | None  # decided ones over the time elapsed
    experiments: Counts
    baseline: Measured | None
    incumbent: Measured | None
    credit: Credit | None
    noise: Noise | None
    claim: dict[str, Any] | None  # the last comparison on fresh seeds: a, b, word, reason, gain and its interval
    record: Record | None
    kept: list[Judged]  # with those taken back, without baselines
    near_misses: list[Judged]  # inconclusive discards that looked better, the best z first
    inconclusive: int  # all discards without a verdict
    failures: list[Failure]
    time_by_outcome: list[OutcomeTime]
    families: list[Family]
    validation_looks: int  # completed trials: each one has looked at the validation set once
    retests: int
    open_experiment: OpenExperiment | None
    event_counts: dict[str, int]
    events: list[Event]  # the last ones, oldest first
