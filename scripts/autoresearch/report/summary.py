"""Read a campaign's figures from the ledger, as of one moment, without a lock and without writing."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from autoresearch.campaign.opened import find_campaign, home_of, open_ledger
from autoresearch.campaign.under_way import describe_trials, standing
from autoresearch.ledger import DECIDING, Campaign, Event, Ledger, Purpose, State, Status
from autoresearch.report.discoveries import discoveries
from autoresearch.report.figures import (
    Counts,
    Credit,
    Family,
    Judged,
    Measured,
    Noise,
    Note,
    OpenExperiment,
    Record,
    Summary,
)
from autoresearch.report.rows import (
    EXPERIMENT_COLUMNS,
    TRIAL_COLUMNS,
    ExperimentRow,
    TrialRow,
    Trials,
    judged,
    own_trials,
    values_by_seed,
)
from autoresearch.report.usage import failures, span, throughput, time_by_outcome
from autoresearch.trial import Outcome

NEAR_MISSES = 20  # a long campaign has thousands of inconclusive ideas
EVENTS = 20
NOTES = 20
INSIGHTS_FILE = "insights.md"  # where an agent may write down what it believes it has learned
INSIGHTS_BYTES = 16 * 2**10


def read_summaries(project: Path, *, tag: str | None = None, all_tags: bool = False) -> list[Summary]:
    """The campaign that ``open_campaign`` would find, or all of the repository, the newest last.

    Also while a campaign runs: no lock is taken. ``NoCampaignError`` if there is none.
    """
    with open_ledger(project) as (repo, ledger):
        found = find_campaign(repo, ledger, tag)
        return [
            summarise(ledger, campaign, insights=read_insights(home_of(repo, campaign).project))
            for campaign in (ledger.campaigns() if all_tags else [found])
        ]


def read_insights(project: Path) -> str:
    """The beginning of the project's insights.md; "" if there is none that can be read."""
    path = project / INSIGHTS_FILE
    try:
        if not path.is_file():  # a pipe of that name would be waited for
            return ""
        with path.open("rb") as file:
            return file.read(INSIGHTS_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""


class _Moment(NamedTuple):
    """What the ledger held at one moment."""

    campaign: Campaign
    experiments: list[ExperimentRow]
    trials: list[TrialRow]
    events: list[Event]
    event_counts: dict[str, int]
    misses_in_a_row: int
    standings: dict[int, str]  # of the open experiments
    trials_under_way: list[dict[str, Any]]


def summarise(ledger: Ledger, campaign: Campaign, *, insights: str = "") -> Summary:
    """All numbers of ``campaign`` as of one moment."""
    tag = campaign.tag
    with ledger.snapshot() as select:
        found = select(f"SELECT {EXPERIMENT_COLUMNS} FROM experiment WHERE tag = ? ORDER BY number", tag)  # noqa: S608
        experiments = [ExperimentRow(*row) for row in found]
        found = select(f"SELECT {TRIAL_COLUMNS} FROM trial WHERE tag = ? ORDER BY created_at, id", tag)  # noqa: S608
        trials = [TrialRow(*row) for row in found]
        opened, under_way = ledger.open_experiments(tag), ledger.open_trials(tag)
        kinds = select("SELECT kind, COUNT(*) FROM event WHERE tag = ? GROUP BY kind ORDER BY kind", tag)
        moment = _Moment(
            campaign=ledger.campaign(tag) or campaign,
            experiments=experiments,
            trials=trials,
            events=ledger.events(tag, last=EVENTS),
            event_counts=dict(map(tuple, kinds)),
            misses_in_a_row=ledger.misses_in_a_row(tag),
            standings={each.number: standing(each, opened, under_way) for each in opened},
            trials_under_way=describe_trials(ledger, tag, opened, under_way, campaign.config["budget_s"]),
        )
    return _summary(moment, insights)


def _summary(moment: _Moment, insights: str) -> Summary:
    campaign, experiments, trials = moment.campaign, moment.experiments, moment.trials
    direction = campaign.config["metric"]["direction"]
    by_number: dict[int, list[TrialRow]] = defaultdict(list)
    for trial in trials:
        by_number[trial.number].append(trial)
    current = [experiment for experiment in experiments if experiment.epoch == campaign.epoch]
    baselines = [experiment for experiment in current if experiment.is_baseline]
    standing = [experiment for experiment in current if experiment.status == Status.KEEP]
    baseline = _measured(baselines[-1], by_number) if baselines else None
    incumbent = _measured(standing[-1], by_number) if standing else None
    ideas = [judged(each, by_number) for each in current if each.status is not None and not each.is_baseline]
    discards = [each for each in ideas if each.status == Status.DISCARD and not each.undone]
    inconclusive = [each for each in discards if each.verdict == "inconclusive" and not each.constraint]
    families = _families(experiments, by_number)
    credit, noise, retest_due = _belief(campaign)
    retest_runs = any(trial.purpose == Purpose.RETEST and trial.outcome is None for trial in trials)
    counts = _counts(experiments)
    started_at, last_at, elapsed_s = span(experiments, trials)
    decided = counts.run - counts.open
    undecided = [
        _open_experiment(each, by_number, moment.standings.get(each.number, ""))
        for each in experiments
        if each.state != State.DECIDED
    ]
    notes = [Note(number=each.number, status=each.word, text=each.note) for each in experiments if each.note.strip()]
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
        throughput=throughput(trials, started_at, elapsed_s),
        experiments=counts,
        baseline=baseline,
        incumbent=incumbent,
        credit=credit,
        noise=noise,
        claim=_claim(campaign, baseline, incumbent),
        record=_record(current, by_number, None if baseline is None else baseline.metric, direction),
        kept=[
            judged(each, by_number)
            for each in experiments
            if (each.status == Status.KEEP or each.undone) and not each.is_baseline
        ],
        near_misses=_promising(inconclusive)[:NEAR_MISSES],
        inconclusive=len(inconclusive),
        constraint_limited=_promising([each for each in discards if each.constraint])[:NEAR_MISSES],
        discoveries=discoveries(ideas, trials, families, _ablation_plan(campaign, incumbent), direction),
        failures=failures(experiments, trials),
        time_by_outcome=time_by_outcome(trials),
        families=families,
        validation_looks=sum(trial.outcome == Outcome.COMPLETED and trial.purpose != Purpose.TEST for trial in trials),
        retests=sum(trial.purpose == Purpose.RETEST for trial in trials),
        retest_due=retest_due and not retest_runs,
        misses_in_a_row=moment.misses_in_a_row,
        min_seeds=campaign.config["keep"].get("min_seeds", 1),  # a campaign may be older than the setting
        max_seeds=campaign.config["keep"]["max_seeds"],
        open_experiment=next(iter(undecided), None),
        open_experiments=undecided,
        trials_under_way=moment.trials_under_way,
        event_counts=moment.event_counts,
        events=moment.events,
        notes=notes[-NOTES:],
        noted=len(notes),
        insights=insights,
    )


def _promising(discards: Sequence[Judged]) -> list[Judged]:
    """Those that looked better than the incumbent, the best z first."""
    return sorted((each for each in discards if (each.z or 0.0) > 0), key=lambda each: -(each.z or 0.0))


def _counts(experiments: Sequence[ExperimentRow]) -> Counts:
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


def _measured(experiment: ExperimentRow, trials: Trials) -> Measured:
    values = values_by_seed(own_trials(experiment, trials))
    retests = (trial for trial in trials.get(experiment.number, ()) if trial.purpose == Purpose.RETEST)
    return Measured(
        number=experiment.number,
        commit=experiment.commit_sha,
        description=experiment.description,
        metric=fmean(values.values()) if experiment.metric is None and values else experiment.metric,
        values=values,
        sd=stdev(values.values()) if len(values) > 1 else None,
        retests=values_by_seed(retests),
    )


def _belief(campaign: Campaign) -> tuple[Credit | None, Noise | None, bool]:
    """What the stored keep rule says of the incumbent and of the noise, and whether it wants a re-test."""
    if campaign.rule is None:
        return None, None, False
    from autoresearch.verdict import KeepRule

    rule = KeepRule.from_json(campaign.rule)
    return (
        Credit(level=rule.incumbent_level, se=rule.incumbent_se, gain=rule.credited_gain),
        Noise(sigma=rule.sigma, df=rule.sigma_df, rho=rule.rho, deterministic=rule.deterministic),
        rule.retest_due,
    )


def _claim(campaign: Campaign, baseline: Measured | None, incumbent: Measured | None) -> dict[str, Any] | None:
    """The last comparison of the best with the baseline; without one, the last of any two commits."""
    claims = _claims(campaign)
    ends = [None if each is None else each.commit for each in (baseline, incumbent)]
    of_the_best = [claim for claim in claims if claim["arms"][:2] == ends]
    return next(reversed(of_the_best or claims), None)


def _ablation_plan(campaign: Campaign, incumbent: Measured | None) -> dict[str, Any]:
    """The last comparison that also ran the best without each kept change; {} if there was none."""
    ablations = [claim for claim in _claims(campaign) if len(claim["arms"]) > 2]
    of_the_best = [claim for claim in ablations if incumbent is not None and claim["arms"][1] == incumbent.commit]
    return next(reversed(of_the_best), {})


def _claims(campaign: Campaign) -> list[dict[str, Any]]:
    """The comparisons on fresh seeds that were finished, the last one last."""
    last = {key: value for key, value in campaign.claim.items() if key != "past"}
    return [claim for claim in (*campaign.claim.get("past", []), last) if "word" in claim]


def _record(
    experiments: Sequence[ExperimentRow], trials: Trials, baseline: float | None, direction: str
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


def _families(experiments: Sequence[ExperimentRow], trials: Trials) -> list[Family]:
    groups: dict[str, list[ExperimentRow]] = defaultdict(list)
    for experiment in experiments:
        if not experiment.is_baseline:
            groups[experiment.family].append(experiment)
    families = [_family(name, group, trials) for name, group in groups.items()]
    return sorted(families, key=lambda family: (-family.kept, -family.experiments, family.family))


def _family(name: str, experiments: Sequence[ExperimentRow], trials: Trials) -> Family:
    words = Counter(experiment.word for experiment in experiments)
    decided = len(experiments) - words["open"]
    kept = (each for each in experiments if each.status == Status.KEEP)
    gains = [gain for gain in (each.evidence.get("gain") for each in kept) if gain is not None]
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


def _open_experiment(experiment: ExperimentRow, trials: Trials, standing_now: str) -> OpenExperiment:
    own = own_trials(experiment, trials)
    return OpenExperiment(
        number=experiment.number,
        commit=experiment.commit_sha,
        description=experiment.description,
        state=experiment.state,
        verdict=experiment.verdict,
        reason=experiment.reason,
        created_at=experiment.created_at,
        values=values_by_seed(own),
        running_seeds=[trial.seed for trial in own if trial.outcome is None],
        incumbent=experiment.incumbent,
        standing=standing_now,
    )
