"""What the trials of the open experiment say, and which trial comes next."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import dataclass
from itertools import count
from statistics import fmean

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.trials import failed
from autoresearch.config import Config
from autoresearch.ledger import DECIDING, Experiment, Ledger, Purpose, State, Trial, completed
from autoresearch.plain import metric_text
from autoresearch.trial import Outcome
from autoresearch.verdict.keep_rule import KeepRule, RuleSettings

MAX_INTERRUPTIONS = 3  # at one seed; then something on this machine ends trials, and a human should look


@dataclass(frozen=True, kw_only=True)
class NextTrial:
    """The experiment needs one more trial before it can be judged."""

    seed: int
    purpose: Purpose


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The experiment can be decided. ``suggestion`` is the status that ``--status auto`` takes."""

    word: str  # better | worse | inconclusive | equivalent | failed
    suggestion: str  # keep | discard | crash
    reason: str
    judgement: dict[str, object]


def rule_settings(config: Config) -> RuleSettings:
    """The keep rule's settings out of the config."""
    return RuleSettings(
        boldness=config.keep.boldness,
        baseline_seeds=config.keep.baseline_seeds,
        min_seeds=config.keep.min_seeds,
        max_seeds=config.keep.max_seeds,
        retest_every=config.keep.retest_every,
        direction=config.metric.direction,
    )


def judge(oc: OpenCampaign, experiment: Experiment) -> NextTrial | Verdict | None:
    """Look at the ended trials of the experiment's current attempt; None: those under way have to end first.

    A candidate's next trial depends on those before it; the seeds of a baseline need not wait for each other.
    """
    trials = [
        trial
        for trial in oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
        if trial.purpose in DECIDING
    ]
    under_way = any(trial.result is None for trial in trials)
    if under_way and not experiment.is_baseline:
        return None
    interrupted = [trial for trial in trials if trial.result and trial.result.outcome is Outcome.INTERRUPTED]
    often = max(Counter(trial.seed for trial in interrupted).values(), default=0)  # one reboot ends several at once
    if often >= MAX_INTERRUPTIONS:
        if under_way:
            return None
        reason = f"interrupted {often} times; the last time: {_reason(interrupted[-1])}"
        return Verdict(word="failed", suggestion="crash", reason=reason, judgement={"decision": "crash"})
    if experiment.is_baseline:
        return _judge_baseline(oc, trials)
    return _judge_candidate(oc, experiment, trials)


def _judge_baseline(oc: OpenCampaign, trials: Sequence[Trial]) -> NextTrial | Verdict | None:
    runs, under_way = completed(trials), any(trial.result is None for trial in trials)
    failures = [trial for trial in trials if trial.result and failed(trial.result)]
    # One bad seed must not end a campaign, but code that fails more often than it runs is no baseline.
    if len(failures) > len(runs):
        return None if under_way else _failed(failures[-1])
    tried = {trial.seed for trial in trials if not trial.result or trial.result.outcome is not Outcome.INTERRUPTED}
    for seed in range(1, oc.config.keep.baseline_seeds + 1):
        if seed not in tried:
            return NextTrial(seed=seed, purpose=Purpose.BASELINE)
    if under_way:
        return None
    values = ", ".join(map(metric_text, runs.values()))
    reason = f"baseline at {len(runs)} seed{'s' * (len(runs) != 1)}: {values}"
    return Verdict(word="", suggestion="keep", reason=reason, judgement={"decision": "keep"})


def _judge_candidate(oc: OpenCampaign, experiment: Experiment, trials: Sequence[Trial]) -> NextTrial | Verdict:
    assert oc.campaign.rule is not None, "a candidate is compared with a measured baseline"
    rule = KeepRule.from_json(oc.campaign.rule)
    runs = completed(trials)
    ended = [trial for trial in trials if trial.result is not None]
    bad = [trial for trial in ended if trial.result and failed(trial.result)]
    if bad:
        return _failed(bad[-1])
    pruned = [trial for trial in ended if trial.result and trial.result.outcome is Outcome.PRUNED]
    if pruned:
        return Verdict(
            word="worse", suggestion="discard", reason=_reason(pruned[-1]), judgement={"decision": "discard"}
        )
    if not runs:
        return NextTrial(seed=rule.next_seed(0), purpose=Purpose.SCREEN)
    broken = broken_constraint(oc, ended)
    simplification = bool(experiment.options.get("simplification"))
    last = len(runs) >= oc.config.keep.max_seeds
    judgement = rule.judge(runs, simplification=simplification, last=last)
    evidence: dict[str, object] = {**dataclasses.asdict(judgement), "runs": {str(s): v for s, v in runs.items()}}
    if broken:
        return Verdict(
            word=judgement.verdict, suggestion="discard", reason=broken,
            judgement={**evidence, "decision": "discard", "constraint": broken},
        )  # fmt: skip
    wanted = int(experiment.options.get("seeds") or 1)
    if judgement.decision == "run" or len(runs) < min(wanted, oc.config.keep.max_seeds):
        return NextTrial(seed=_untried_seed(rule, runs), purpose=Purpose.CONFIRM)
    return Verdict(word=judgement.verdict, suggestion=judgement.decision, reason=judgement.reason, judgement=evidence)


def measured(ledger: Ledger, experiment: Experiment) -> dict[int, float]:
    """``{seed: metric}`` of the trials that the decision will rest on, in the order they were started."""
    trials = ledger.trials(experiment.tag, experiment.number, attempt=experiment.attempt)
    return completed([trial for trial in trials if trial.purpose in DECIDING])


def so_far(oc: OpenCampaign, experiment: Experiment) -> str:
    """Why an open candidate runs once more: what its completed trials say; "" before the first, and once judged."""
    if experiment.state is not State.RUNNING or experiment.is_baseline or oc.campaign.rule is None:
        return ""
    runs = measured(oc.ledger, experiment)
    if not runs:
        return ""
    simplification = bool(experiment.options.get("simplification"))
    return KeepRule.from_json(oc.campaign.rule).judge(runs, simplification=simplification).reason


def _untried_seed(rule: KeepRule, tried: Container[int]) -> int:
    """The rule's next seed that the candidate has not run at: a re-test may have put a new one before those it has."""
    return next(seed for done in count() if (seed := rule.next_seed(done)) not in tried)


def broken_constraint(oc: OpenCampaign, trials: Sequence[Trial]) -> str:
    """The first constraint that the trials' mean breaks, in words with its numbers; "" if none."""
    if not oc.config.constraints:
        return ""
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    # Filed with it may also be runs of other code: earlier attempts, and commits that a comparison named.
    of_baseline = [] if baseline is None else oc.ledger.trials(oc.tag, baseline.number, attempt=baseline.attempt)
    baseline_trials = [trial for trial in of_baseline if trial.purpose in DECIDING]
    for constraint in oc.config.constraints:
        value = _mean_of(constraint.name, oc.config, trials)
        reference = _mean_of(constraint.name, oc.config, baseline_trials)
        if value is not None and not constraint.allows(value, reference):
            limit = constraint.limit(reference)
            return f"breaks the constraint {constraint.text}: {constraint.name} is {value:g}, the limit {limit:g}"
    return ""


def _mean_of(name: str, config: Config, trials: Sequence[Trial]) -> float | None:
    values = []
    for trial in trials:
        if trial.result is not None and trial.result.outcome is Outcome.COMPLETED:
            value = trial.result.metric if name == config.metric.name else trial.result.watched.get(name)
            if value is not None:
                values.append(value)
    return fmean(values) if values else None


def book_numbers(oc: OpenCampaign, experiment: Experiment) -> None:
    """Set the metric and the memory that the experiment's current attempt came to; stores nothing."""
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    runs = completed(trials)
    memory = [trial.result.peak_mem_mib for trial in trials if trial.result and trial.result.peak_mem_mib is not None]
    failed = experiment.verdict == "failed"
    experiment.metric = fmean(runs.values()) if runs and not failed else None
    experiment.peak_mem_mib = max(memory) if memory and not failed else None


def _failed(trial: Trial) -> Verdict:
    return Verdict(word="failed", suggestion="crash", reason=_reason(trial), judgement={"decision": "crash"})


def _reason(trial: Trial) -> str:
    assert trial.result is not None
    return f"seed {trial.seed} {trial.result.outcome.value.replace('_', ' ')}: {trial.result.reason}"
