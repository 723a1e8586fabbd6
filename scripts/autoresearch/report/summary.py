"""Read a campaign's figures from the ledger, as of one moment, without a lock and without writing."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from autoresearch.campaign.opened import find_campaign, open_ledger
from autoresearch.ledger import DECIDING, Campaign, Event, Ledger, Purpose, State, Status
from autoresearch.report.figures import (
    Counts,
    Credit,
    Failure,
    Family,
    Judged,
    Measured,
    Noise,
    OpenExperiment,
    OutcomeTime,
    Record,
    Summary,
)
from autoresearch.trial import Outcome

NEAR_MISSES = 20  # a long campaign has thousands of inconclusive ideas
EVENTS = 20
UNTROUBLED = (Outcome.COMPLETED, Outcome.PRUNED)  # a pruned trial worked, it was only not worth finishing


class _Experiment(NamedTuple):
    """Columns of the ledger's table; the keep rule's state of every decision is too much to read here."""

    number: int
    epoch: int
    commit_sha: str
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
    created_at: str
    decided_at: str

    @property
    def is_baseline(self) -> bool:
        return self.incumbent is None

    @property
    def word(self) -> str:
        return self.status or "open"


class _Trial(NamedTuple):
    number: int
    attempt: int
    seed: int
    purpose: str
    outcome: str | None
    cause: str | None
    metric: float | None
    duration_s: float | None
    created_at: str

    @property
    def value(self) -> float | None:
        """The metric, if the trial completed."""
        return self.metric if self.outcome == Outcome.COMPLETED else None

    @property
    def seconds(self) -> float:
        return self.duration_s or 0.0


_Trials = Mapping[int, Sequence[_Trial]]  # by experiment number


def read_summaries(project: Path, *, tag: str | None = None, all_tags: bool = False) -> list[Summary]:
    """The campaign that ``open_campaign`` would find, or all of the repository, the newest last.

    Also while a campaign runs: no lock is taken. ``NoCampaignError`` if there is none.
    """
    with open_ledger(project) as (repo, ledger):
        found = find_campaign(repo, ledger, tag)
        return [summarise(ledger, campaign) for campaign in (ledger.campaigns() if all_tags else [found])]


def summarise(ledger: Ledger, campaign: Campaign) -> Summary:
    """All numbers of ``campaign`` as of one moment."""
    with ledger.snapshot() as select:
        tag = campaign.tag
        campaign = ledger.campaign(tag) or campaign  # as of the same moment as its rows
        columns = ", ".join(_Experiment._fields)
        found = select(f"SELECT {columns} FROM experiment WHERE tag = ? ORDER BY number", tag)  # noqa: S608
        experiments = [_Experiment(*row) for row in found]
        columns = ", ".join(_Trial._fields)
        found = select(f"SELECT {columns} FROM trial WHERE tag = ? ORDER BY created_at, id", tag)  # noqa: S608
        trials = [_Trial(*row) for row in found]
        kinds = select("SELECT kind, COUNT(*) FROM event WHERE tag = ? GROUP BY kind ORDER BY kind", tag)
        events = ledger.events(tag, last=EVENTS)
    return _summary(campaign, experiments, trials, dict(map(tuple, kinds)), events)


def _summary(
    campaign: Campaign,
    experiments: Sequence[_Experiment],
    trials: Sequence[_Trial],
    event_counts: dict[str, int],
    events: list[Event],
) -> Summary:
    direction = campaign.config["metric"]["direction"]
    by_number: dict[int, list[_Trial]] = defaultdict(list)
    for trial in trials:
        by_number[trial.number].append(trial)
    current = [experiment for experiment in experiments if experiment.epoch == campaign.epoch]
    baselines = [experiment for experiment in current if experiment.is_baseline]
    standing = [experiment for experiment in current if experiment.status == Status.KEEP]
    baseline = _measured(baselines[-1], by_number) if baselines else None
    inconclusive = [
        _judged(each, by_number)
        for each in current
        if each.status == Status.DISCARD and each.verdict == "inconclusive" and not each.undone
    ]
    promising = sorted((each for each in inconclusive if _z(each) > 0), key=_z, reverse=True)
    credit, noise = _belief(campaign)
    counts = _counts(experiments)
    started_at, last_at, elapsed_s = _span(experiments, trials)
    decided = counts.run - counts.open
    undecided = [experiment for experiment in experiments if experiment.state != State.DECIDED]
    return Summary(
        tag=campaign.tag,
        branch=campaign.branch,
        metric=campaign.config["metric"]["name"],
        direction=direction,
        epoch=campaign.epoch,
        started_at=started_at,
        last_at=last_at,
        elapsed_s=elapsed_s,
        experiments_per_h=decided * 3600 / elapsed_s if elapsed_s > 0 else None,
        experiments=counts,
        baseline=baseline,
        incumbent=_measured(standing[-1], by_number) if standing else None,
        credit=credit,
        noise=noise,
        claim=dict(campaign.claim) if "word" in campaign.claim else None,
        record=_record(current, by_number, None if baseline is None else baseline.metric, direction),
        kept=[
            _judged(each, by_number)
            for each in experiments
            if (each.status == Status.KEEP or each.undone) and not each.is_baseline
        ],
        near_misses=promising[:NEAR_MISSES],
        inconclusive=len(inconclusive),
        failures=_failures(experiments, trials),
        time_by_outcome=_time_by_outcome(trials),
        families=_families(experiments, by_number),
        validation_looks=sum(trial.outcome == Outcome.COMPLETED and trial.purpose != Purpose.TEST for trial in trials),
        retests=sum(trial.purpose == Purpose.RETEST for trial in trials),
        open_experiment=_open_experiment(undecided[-1], by_number) if undecided else None,
        event_counts=event_counts,
        events=events,
    )


def _counts(experiments: Sequence[_Experiment]) -> Counts:
    words = Counter(experiment.word for experiment in experiments)
    return Counts(
        run=len(experiments),
        kept=words[Status.KEEP],
        discarded=words[Status.DISCARD],
        crashed=words[Status.CRASH],
        open=words["open"],
        baselines=sum(each.is_baseline and each.status == Status.KEEP for each in experiments),
        undone=sum(bool(each.undone) for each in experiments),
    )


def _span(experiments: Sequence[_Experiment], trials: Sequence[_Trial]) -> tuple[str | None, str | None, float]:
    """From the first experiment's start to the last decision, trial or start, and the seconds between."""
    if not experiments:
        return None, None, 0.0
    first = min(experiment.created_at for experiment in experiments)
    moments = [moment for each in experiments for moment in (each.created_at, each.decided_at) if moment]
    ends = [datetime.fromisoformat(trial.created_at) + timedelta(seconds=trial.seconds) for trial in trials]
    last = max([datetime.fromisoformat(max(moments)), *ends])
    elapsed_s = (last - datetime.fromisoformat(first)).total_seconds()
    return first, last.isoformat(timespec="milliseconds").replace("+00:00", "Z"), elapsed_s


def _own_trials(experiment: _Experiment, trials: _Trials) -> list[_Trial]:
    """The trials of its last attempt that its decision rests on."""
    return [
        trial
        for trial in trials.get(experiment.number, ())
        if trial.attempt == experiment.attempt and trial.purpose in DECIDING
    ]


def _values(trials: Iterable[_Trial]) -> dict[int, float]:
    return {trial.seed: trial.value for trial in trials if trial.value is not None}


def _measured(experiment: _Experiment, trials: _Trials) -> Measured:
    values = _values(_own_trials(experiment, trials))
    retests = (trial for trial in trials.get(experiment.number, ()) if trial.purpose == Purpose.RETEST)
    return Measured(
        number=experiment.number,
        commit=experiment.commit_sha,
        description=experiment.description,
        metric=fmean(values.values()) if experiment.metric is None and values else experiment.metric,
        values=values,
        sd=stdev(values.values()) if len(values) > 1 else None,
        retests=_values(retests),
    )


def _belief(campaign: Campaign) -> tuple[Credit | None, Noise | None]:
    """What the stored keep rule says of the incumbent and of the noise; None before it has a baseline."""
    if campaign.rule is None:
        return None, None
    from autoresearch.verdict import KeepRule

    rule = KeepRule.from_json(campaign.rule)
    return (
        Credit(level=rule.incumbent_level, se=rule.incumbent_se, gain=rule.credited_gain),
        Noise(sigma=rule.sigma, df=rule.sigma_df, rho=rule.rho, deterministic=rule.deterministic),
    )


def _record(
    experiments: Sequence[_Experiment], trials: _Trials, baseline: float | None, direction: str
) -> Record | None:
    runs = [
        (trial.value, trial.seed, experiment)
        for experiment in experiments
        for trial in trials.get(experiment.number, ())
        if trial.value is not None and trial.purpose in DECIDING
    ]
    if not runs:
        return None
    sign = 1 if direction == "higher" else -1
    metric, seed, experiment = max(runs, key=lambda run: sign * run[0])
    return Record(
        metric=metric,
        gain=None if baseline is None else sign * (metric - baseline),
        number=experiment.number,
        seed=seed,
        status=experiment.word,
    )


def _judged(experiment: _Experiment, trials: _Trials) -> Judged:
    judgement: dict[str, Any] = json.loads(experiment.judgement)
    return Judged(
        number=experiment.number,
        epoch=experiment.epoch,
        commit=experiment.commit_sha,
        family=experiment.family,
        description=experiment.description,
        verdict=experiment.verdict,
        metric=experiment.metric,
        gain=judgement.get("gain"),
        gain_low=judgement.get("gain_low"),
        gain_high=judgement.get("gain_high"),
        z=judgement.get("z"),
        trials=sum(trial.purpose in DECIDING for trial in trials.get(experiment.number, ())),
        lines_added=experiment.lines_added,
        lines_deleted=experiment.lines_deleted,
        undone=experiment.undone,
    )


def _z(judged: Judged) -> float:
    return judged.z or 0.0


def _failures(experiments: Sequence[_Experiment], trials: Sequence[_Trial]) -> list[Failure]:
    reasons = {experiment.number: experiment.reason for experiment in experiments}
    groups: dict[tuple[str, str], list[_Trial]] = defaultdict(list)
    for trial in trials:
        if trial.outcome is not None and trial.outcome not in UNTROUBLED:
            groups[trial.outcome, trial.cause or ""].append(trial)
    failures = [
        Failure(
            outcome=outcome,
            cause=cause,
            trials=len(group),
            experiments=len({trial.number for trial in group}),
            wall_s=sum(trial.seconds for trial in group),
            last_number=group[-1].number,
            last_reason=reasons[group[-1].number],
        )
        for (outcome, cause), group in groups.items()
    ]
    return sorted(failures, key=lambda failure: (-failure.trials, failure.outcome, failure.cause))


def _time_by_outcome(trials: Sequence[_Trial]) -> list[OutcomeTime]:
    groups: dict[str, list[float]] = defaultdict(list)
    for trial in trials:
        if trial.outcome is not None:
            groups[trial.outcome].append(trial.seconds)
    return [
        OutcomeTime(outcome=outcome.value, trials=len(groups[outcome]), wall_s=sum(groups[outcome]))
        for outcome in Outcome
        if outcome in groups
    ]


def _families(experiments: Sequence[_Experiment], trials: _Trials) -> list[Family]:
    groups: dict[str, list[_Experiment]] = defaultdict(list)
    for experiment in experiments:
        if not experiment.is_baseline:
            groups[experiment.family].append(experiment)
    families = [_family(name, group, trials) for name, group in groups.items()]
    return sorted(families, key=lambda family: (-family.kept, -family.experiments, family.family))


def _family(name: str, experiments: Sequence[_Experiment], trials: _Trials) -> Family:
    words = Counter(experiment.word for experiment in experiments)
    decided = len(experiments) - words["open"]
    kept = (each for each in experiments if each.status == Status.KEEP)
    gains = [gain for gain in (json.loads(each.judgement).get("gain") for each in kept) if gain is not None]
    own = [trial for each in experiments for trial in trials.get(each.number, ())]
    return Family(
        family=name,
        experiments=len(experiments),
        kept=words[Status.KEEP],
        discarded=words[Status.DISCARD],
        crashed=words[Status.CRASH],
        open=words["open"],
        success_rate=words[Status.KEEP] / decided if decided else None,
        best_gain=max(gains, default=None),
        trials=len(own),
        wall_s=sum(trial.seconds for trial in own),
    )


def _open_experiment(experiment: _Experiment, trials: _Trials) -> OpenExperiment:
    own = _own_trials(experiment, trials)
    return OpenExperiment(
        number=experiment.number,
        commit=experiment.commit_sha,
        description=experiment.description,
        state=experiment.state,
        verdict=experiment.verdict,
        reason=experiment.reason,
        created_at=experiment.created_at,
        values=_values(own),
        running_seeds=[trial.seed for trial in own if trial.outcome is None],
    )
