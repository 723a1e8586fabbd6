"""The figures of a campaign: what every report, chart and page is made from. Plain numbers, JSON-able.

Every gain is counted so that positive is better, whatever the metric's direction. Gains, the baseline,
the incumbent and the record are those of the current epoch, since a new epoch may measure something else;
experiments, trials and times are those of the whole campaign. Commits are full SHAs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from autoresearch.ledger import Event
from autoresearch.report.format import plural


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

    def told(self) -> str:
        """As in ``10 kept (1 baseline), 91 discarded (2 undone), 7 crashed, 1 open``, which add up to all."""
        baselines = f" ({plural(self.baselines, 'baseline')})" if self.baselines else ""
        parts = [
            f"{self.kept} kept{baselines}",
            f"{self.discarded} discarded" + (f" ({self.undone} undone)" if self.undone else ""),
            f"{self.crashed} crashed" if self.crashed else "",
            f"{self.open} open" if self.open else "",
        ]
        return ", ".join(filter(None, parts))


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
    status: str  # keep | discard | crash; "open" before the decision
    incumbent: int | None  # the experiment it was compared with
    commit: str
    parent: str  # the commit it was made on
    family: str
    description: str
    verdict: str
    metric: float | None
    gain: float | None
    gain_low: float | None
    gain_high: float | None
    z: float | None
    z_needed: float | None  # what would have kept it after these trials
    trials: int
    lines_added: int
    lines_deleted: int
    constraint: str  # the constraint it broke, with its numbers; "" if none
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
    """Ended trials of one outcome and the seconds they ran; ``gpu_s``: times the GPUs that each one held."""

    outcome: str
    trials: int
    wall_s: float
    gpu_s: float


@dataclass(frozen=True, kw_only=True)
class Throughput:
    """How well the night was used. ``busy_s``: seconds of ``elapsed_s`` in which at least one trial ran."""

    trials: int  # ended ones, those of claims and re-tests too
    trial_s: float  # their sum
    gpu_s: float  # of those on GPUs; trials on the CPU count as none
    busy_s: float
    busy_share: float | None  # the rest is the agent's thinking and nobody's


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
class Stack:
    """The keeps that stand, each measured on top of those before it; so every pair of them was tried together."""

    keeps: int
    pairs: int
    gains_sum: float  # of what each one gained when it was kept


@dataclass(frozen=True, kw_only=True)
class Ablation:
    """A kept change and what it adds to the best, from the last ``compare.py --ablate``, on fresh seeds.

    ``interaction`` is that less its gain when it was kept: below zero, changes kept after it do part of its work.
    """

    number: int
    description: str
    gain_when_kept: float | None
    gain: float
    gain_low: float | None
    gain_high: float | None
    seeds: int
    interaction: float | None


@dataclass(frozen=True, kw_only=True)
class Retried:
    """One idea, in the same words, measured against several incumbents."""

    description: str
    tries: list[Judged]


@dataclass(frozen=True, kw_only=True)
class Fruitless:
    """An idea that was tried several times, numbers in its wording aside, and never kept."""

    idea: str  # as it was worded last
    tries: int
    crashed: int
    numbers: list[int]
    best_gain: float | None


@dataclass(frozen=True, kw_only=True)
class SweptValue:
    """A value of a swept parameter; ``metric`` is the mean over the points that had it, None if all failed."""

    value: str
    points: int
    metric: float | None
    kept: int


@dataclass(frozen=True, kw_only=True)
class SweptAxis:
    """A swept parameter with its values, the best first; ``effect``: what the best is better than the worst by."""

    name: str
    values: list[SweptValue]
    effect: float | None


@dataclass(frozen=True, kw_only=True)
class Discoveries:
    """What the campaign has found out. Gains and losses are those whose 95 % interval excludes zero."""

    gains: list[Judged]  # the surest large ones first: by the end of the interval that is nearer to zero
    losses: list[Judged]
    stack: Stack
    ablations: list[Ablation]  # the smallest contribution first
    retried: list[Retried]
    sweeps: list[SweptAxis]
    fruitless: list[Fruitless]
    hopeless: list[Family]  # families that were tried often and gave neither a keep nor a near miss


@dataclass(frozen=True, kw_only=True)
class Note:
    """What the agent noted down with an experiment."""

    number: int
    status: str
    text: str


@dataclass(frozen=True, kw_only=True)
class OpenExperiment:
    """An experiment that is not decided yet."""

    number: int
    commit: str
    description: str
    state: str
    verdict: str
    reason: str
    created_at: str
    values: dict[int, float]  # seed -> metric, so far
    running_seeds: list[int]
    incumbent: int | None  # the experiment it is built on and compared with
    standing: str  # what it is at, or waits for


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
    elapsed_s: float  # of the loop, without comparisons after its end
    experiments_per_h: float | None  # decided ones over the time elapsed
    throughput: Throughput
    experiments: Counts
    baseline: Measured | None
    incumbent: Measured | None
    credit: Credit | None
    noise: Noise | None
    # The last comparison of the best with the baseline on fresh seeds, else of any two commits:
    # a, b, arms, seeds, word, reason, gain, gain_low, gain_high.
    claim: dict[str, Any] | None
    record: Record | None
    kept: list[Judged]  # with those taken back, without baselines
    near_misses: list[Judged]  # inconclusive discards that looked better, the best z first
    inconclusive: int  # all discards without a verdict
    constraint_limited: list[Judged]  # looked better, refused by a constraint; the best z first
    discoveries: Discoveries
    failures: list[Failure]
    time_by_outcome: list[OutcomeTime]
    families: list[Family]
    validation_looks: int  # completed trials: each one has looked at the validation set once
    retests: int
    retest_due: bool  # the keep rule wants the incumbent run again, and it does not run yet
    misses_in_a_row: int  # discards and crashes since the last keep
    min_seeds: int  # trials that a keep takes at least
    max_seeds: int  # trials that an experiment may take
    open_experiment: OpenExperiment | None  # of several the first
    open_experiments: list[OpenExperiment]  # by number
    trials_under_way: list[dict[str, Any]]  # as ``campaign.under_way`` describes them, re-tests too
    event_counts: dict[str, int]
    events: list[Event]  # the last ones, oldest first
    notes: list[Note]  # the agent's last ones, oldest first
    noted: int  # experiments with a note
    insights: str  # the beginning of the project's insights.md, "" if there is none; data, never an instruction
