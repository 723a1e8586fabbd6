"""What charts are drawn from: every experiment, trial and belief of a campaign in numbers, as of one moment.

Times are seconds since the campaign's first experiment. Learning curves and diffs are large, so only those
of the experiments that a reader is most likely to open are read: the kept ones, then the newest.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from autoresearch.campaign.opened import find_campaign, home_of, open_ledger
from autoresearch.ledger import DECIDING, Campaign, Ledger, Status, now
from autoresearch.repo import Repo
from autoresearch.report.figures import Summary
from autoresearch.report.summary import read_insights, summarise
from autoresearch.trial import Outcome

LEVELS = 2_000  # points of the running best: more than any screen has columns
DETAILED = 400  # experiments with their curves and diffs

Select = Callable[..., list[Any]]
Curve = Sequence[tuple[float, float]]  # (fraction of the run, training loss)


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialPoint:
    """One trial. ``outcome`` is None while it runs; ``curve`` is empty unless the experiment is detailed."""

    number: int
    attempt: int
    seed: int
    purpose: str
    outcome: str | None
    cause: str
    reason: str
    metric: float | None
    start_s: float
    duration_s: float
    peak_mem_mib: float | None
    watched: dict[str, float]
    curve: Curve = ()

    @property
    def completed(self) -> bool:
        return self.outcome == Outcome.COMPLETED and self.metric is not None


@dataclass(frozen=True, kw_only=True, slots=True)
class ExperimentPoint:
    """One experiment. ``gain`` is over the incumbent of its time, positive is better; None where unknown."""

    number: int
    epoch: int
    commit: str
    parent: str
    incumbent: int | None  # None for a baseline
    family: str
    status: str  # keep | discard | crash | open
    verdict: str
    undone: str  # why a keep was taken back; "" if it was not
    description: str
    note: str
    reason: str
    metric: float | None
    gain: float | None
    gain_low: float | None  # of its 95 % interval
    gain_high: float | None
    z: float | None
    attempt: int
    lines_added: int
    lines_deleted: int
    peak_mem_mib: float | None
    start_s: float
    decided_s: float | None
    trials: tuple[TrialPoint, ...] = field(default=())
    diff: str = ""  # against the parent; empty unless it was kept once and is detailed

    @property
    def is_baseline(self) -> bool:
        return self.incumbent is None

    @property
    def kept(self) -> bool:
        """Whether it stands."""
        return self.status == Status.KEEP


@dataclass(frozen=True, kw_only=True, slots=True)
class Level:
    """What the keep rule believed of the incumbent right after experiment ``number`` was decided."""

    number: int
    epoch: int
    level: float
    se: float


@dataclass(frozen=True, kw_only=True)
class Series:
    """A campaign as charts need it, with the summary of the same moment."""

    summary: Summary
    read_at: str  # UTC, ISO 8601
    limit_s: float  # a trial is killed this long after its start
    experiments: list[ExperimentPoint]
    levels: list[Level]

    @property
    def sign(self) -> int:
        """1 where higher is better, -1 where lower is."""
        return 1 if self.summary.direction == "higher" else -1

    def trials(self) -> Iterator[TrialPoint]:
        for experiment in self.experiments:
            yield from experiment.trials


@dataclass(frozen=True, kw_only=True)
class Retest:
    """A later run of a kept experiment; ``after`` is the experiment that had been decided last by then."""

    number: int
    seed: int
    metric: float
    after: int


def read_series(
    project: Path, *, tag: str | None = None, all_tags: bool = False, detailed: int = DETAILED
) -> list[Series]:
    """The campaign that ``open_campaign`` would find, or all of the repository, the newest last.

    ``detailed`` is for how many experiments of each curves and diffs are read. No lock is taken and nothing
    is written, so a campaign may run meanwhile. ``NoCampaignError`` if there is none.
    """
    with open_ledger(project) as (repo, ledger):
        found = find_campaign(repo, ledger, tag)
        campaigns = ledger.campaigns() if all_tags else [found]
        return [_series(home_of(repo, campaign), ledger, campaign, detailed) for campaign in campaigns]


def _series(repo: Repo, ledger: Ledger, campaign: Campaign, detailed: int) -> Series:
    tag = campaign.tag
    with ledger.snapshot() as select:
        read_at = now()
        summary = summarise(ledger, campaign, insights=read_insights(repo.project))
        start = None if summary.started_at is None else datetime.fromisoformat(summary.started_at)
        rows = select(f"SELECT {_EXPERIMENT} FROM experiment WHERE tag = ? ORDER BY number", tag)  # noqa: S608
        chosen = _worth_opening(rows, detailed)
        trials = _trials(select, tag, start, chosen)
        levels = _levels(select, tag, len(rows))
    shown = [row for row in rows if row["number"] in chosen and _once_kept(row)]
    diffs = repo.diffs([(row["commit_sha"], row["parent_sha"]) for row in shown])
    diff_of = {row["number"]: diffs.get(row["commit_sha"], "") for row in shown}
    experiments = [_experiment(row, start, trials[row["number"]], diff_of.get(row["number"], "")) for row in rows]
    config = campaign.config
    limit_s = config.get("budget_s", 0.0) * config.get("timeout_factor", 1.0) + config.get("startup_s", 0.0)
    return Series(summary=summary, read_at=read_at, limit_s=limit_s, experiments=experiments, levels=levels)


_EXPERIMENT = (
    "number, epoch, commit_sha, parent_sha, incumbent, family, status, verdict, undone, description, note, reason, "
    "metric, judgement, attempt, lines_added, lines_deleted, peak_mem_mib, created_at, decided_at"
)
# SQLite reads a few values out of a result much faster than Python parses it with its curve.
_TRIAL = (
    "id, number, attempt, seed, purpose, outcome, cause, metric, created_at, duration_s, "
    "json_extract(result, '$.reason', '$.peak_mem_mib', '$.watched') AS measured"
)


def _worth_opening(rows: Sequence[Any], limit: int) -> set[int]:
    """The numbers of ``limit`` experiments: those kept once first, then the newest."""
    ranked = sorted(((_once_kept(row), row["number"]) for row in rows), reverse=True)
    return {number for _, number in ranked[:limit]}


def _once_kept(row: Any) -> bool:
    return row["status"] == Status.KEEP or bool(row["undone"])


def _trials(select: Select, tag: str, start: datetime | None, detailed: set[int]) -> dict[int, list[TrialPoint]]:
    curves: dict[str, Curve] = {}
    if detailed:
        marks = ", ".join("?" * len(detailed))
        where = f"tag = ? AND number IN ({marks}) AND result IS NOT NULL"
        found = select(f"SELECT id, json_extract(result, '$.curve') AS curve FROM trial WHERE {where}", tag, *detailed)  # noqa: S608
        curves = {row["id"]: [(at, loss) for at, loss in json.loads(row["curve"])] for row in found}
    by_number: dict[int, list[TrialPoint]] = defaultdict(list)
    for row in select(f"SELECT {_TRIAL} FROM trial WHERE tag = ? ORDER BY created_at, id", tag):  # noqa: S608
        reason, peak_mem_mib, watched = json.loads(row["measured"] or '["", null, {}]')
        by_number[row["number"]].append(
            TrialPoint(
                number=row["number"],
                attempt=row["attempt"],
                seed=row["seed"],
                purpose=row["purpose"],
                outcome=row["outcome"],
                cause=row["cause"] or "",
                reason=reason,
                metric=row["metric"],
                start_s=_seconds(row["created_at"], start),
                duration_s=row["duration_s"] or 0.0,
                peak_mem_mib=peak_mem_mib,
                watched=watched,
                curve=curves.get(row["id"], ()),
            )
        )
    return by_number


def _levels(select: Select, tag: str, experiments: int) -> list[Level]:
    """The belief after each decision; of a long campaign after every keep and evenly between."""
    from autoresearch.verdict import KeepRule

    step = max(experiments // LEVELS, 1)
    rows = select(
        "SELECT number, epoch, rule FROM experiment WHERE tag = ? AND rule IS NOT NULL "
        "AND (status = 'keep' OR undone != '' OR number % ? = 0) ORDER BY number",
        tag,
        step,
    )
    levels = []
    for row in rows:
        rule = KeepRule.from_json(json.loads(row["rule"]))
        levels.append(Level(number=row["number"], epoch=row["epoch"], level=rule.incumbent_level, se=rule.incumbent_se))
    return levels


def _experiment(row: Any, start: datetime | None, trials: Sequence[TrialPoint], diff: str) -> ExperimentPoint:
    judgement = json.loads(row["judgement"])
    return ExperimentPoint(
        number=row["number"],
        epoch=row["epoch"],
        commit=row["commit_sha"],
        parent=row["parent_sha"],
        incumbent=row["incumbent"],
        family=row["family"],
        status=row["status"] or "open",
        verdict=row["verdict"],
        undone=row["undone"],
        description=row["description"],
        note=row["note"],
        reason=row["reason"],
        metric=row["metric"],
        gain=judgement.get("gain"),
        gain_low=judgement.get("gain_low"),
        gain_high=judgement.get("gain_high"),
        z=judgement.get("z"),
        attempt=row["attempt"],
        lines_added=row["lines_added"],
        lines_deleted=row["lines_deleted"],
        peak_mem_mib=row["peak_mem_mib"],
        start_s=_seconds(row["created_at"], start),
        decided_s=_seconds(row["decided_at"], start) if row["decided_at"] else None,
        trials=tuple(trials),
        diff=diff,
    )


def _seconds(moment: str, start: datetime | None) -> float:
    assert start is not None, "a campaign with rows has a first experiment"
    return round((datetime.fromisoformat(moment) - start).total_seconds(), 3)


# ---- what follows from the points


def retests(series: Series) -> list[Retest]:
    """The completed re-tests in the order they ran."""
    decided = sorted((each.decided_s, each.number) for each in series.experiments if each.decided_s is not None)
    found = sorted(
        (trial for trial in series.trials() if trial.purpose == "retest" and trial.completed),
        key=lambda trial: trial.start_s,
    )
    result, at, after = [], 0, 0
    for trial in found:
        while at < len(decided) and decided[at][0] <= trial.start_s:
            after = decided[at][1]
            at += 1
        assert trial.metric is not None, "it completed"
        result.append(Retest(number=trial.number, seed=trial.seed, metric=trial.metric, after=max(after, trial.number)))
    return result


def records(series: Series) -> list[tuple[int, float]]:
    """``(number, metric)`` of each single run that beat all before it in this epoch: luck included."""
    best: list[tuple[int, float]] = []
    for experiment in series.experiments:
        if experiment.epoch != series.summary.epoch:
            continue
        values = [
            trial.metric
            for trial in experiment.trials
            if trial.metric is not None and trial.completed and trial.purpose in DECIDING
        ]
        if not values:
            continue
        value = max(values, key=lambda metric: series.sign * metric)
        if not best or series.sign * (value - best[-1][1]) > 0:
            best.append((experiment.number, value))
    return best
