"""What happened and what comes next, from the ledger and git alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.campaign.decide import last_push, next_to_log
from autoresearch.campaign.judging import measured, so_far
from autoresearch.campaign.memory import Family, Lesson, Memory, near_misses, remember
from autoresearch.campaign.notices import STUCK_AFTER
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.others import Other, others
from autoresearch.campaign.progress import Progress
from autoresearch.campaign.under_way import describe_trials, standing
from autoresearch.executors.base import read_json
from autoresearch.ledger import DECIDING, Experiment, Purpose, State, Trial, completed
from autoresearch.trial import LIVE_FILE, LOG_FILE, WAITS_FOR
from autoresearch.verdict.keep_rule import KeepRule

OPEN_BESIDE_RUNNING = 2  # experiments that may wait, or wait to be logged, beside as many as may run at once
OTHER_FAMILY_AFTER = 16
RADICAL_AFTER = 24
TAIL_BYTES = 8192


@dataclass(frozen=True, kw_only=True)
class Next:
    """The next step: why, and the command to type ("" where the agent has to think first)."""

    text: str
    command: str


@dataclass(frozen=True, kw_only=True)
class Status:
    """The state of a campaign. Metrics in their own unit, times in seconds."""

    tag: str
    branch: str
    project: str
    epoch: int
    state: str  # no_baseline | running | judged | failed | idle
    metric: str
    direction: str
    budget_s: float
    counts: dict[str, int]
    misses_in_a_row: int
    baseline: dict[str, Any] | None
    incumbent: dict[str, Any] | None
    noise: dict[str, Any] | None
    experiment: dict[str, Any] | None  # the open one; of several the one to be logged, else the first
    running: dict[str, Any] | None  # its trial, or a re-test of the incumbent
    opened: list[dict[str, Any]]  # every open experiment, with its "standing" and the metric of its "seeds" so far
    trials: list[dict[str, Any]]  # every trial under way, with the "description" of its experiment
    history: list[dict[str, Any]]
    near_misses: list[Lesson]  # worth a second look; only after STUCK_AFTER misses in a row
    memory: Memory
    others: list[Other]  # the campaigns of the other agents of the session
    events: list[str]
    repaired: list[str]
    warnings: list[str]
    next: Next
    log_tail: str = field(default="", repr=False)


def status(oc: OpenCampaign, progress: Progress, *, history: int = 20) -> Status:
    """Describe the campaign as ``progress`` left it; ``history`` is the number of last experiments."""
    experiment = next_to_log(progress.opened) or progress.experiment
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is not None and incumbent.epoch != oc.campaign.epoch:
        incumbent = None
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    rule = None if oc.campaign.rule is None else KeepRule.from_json(oc.campaign.rule)
    misses = oc.ledger.misses_in_a_row(oc.tag)
    memory = remember(oc.ledger, oc.repo, oc.tag)
    trials = describe_trials(oc.ledger, oc.tag, progress.opened, progress.trials, oc.config.budget_s)
    disturbed = _disturbed(oc, experiment)
    warnings = [text for text in (last_push(oc), _wrong_branch(oc), _deterministic(oc, rule), disturbed) if text]
    return Status(
        tag=oc.tag,
        branch=oc.branch,
        project=str(oc.repo.project),
        epoch=oc.campaign.epoch,
        state=_state(experiment, incumbent),
        metric=oc.config.metric.name,
        direction=oc.config.metric.direction,
        budget_s=oc.config.budget_s,
        counts=oc.ledger.counts(oc.tag),
        misses_in_a_row=misses,
        baseline=None if baseline is None else describe(oc, baseline),
        incumbent=None if incumbent is None else describe(oc, incumbent),
        noise=None if rule is None else noise(rule),
        experiment=None if experiment is None else describe(oc, experiment),
        running=next(iter(trials), None),
        opened=[_describe_open(oc, each, progress) for each in progress.opened],
        trials=trials,
        history=[
            describe(oc, each, trials=False)
            for each in (oc.ledger.experiments(oc.tag, last=history) if history else [])
        ],
        near_misses=near_misses(oc.ledger, oc.campaign) if misses >= STUCK_AFTER else [],
        memory=memory,
        others=others(oc.ledger, oc.campaign),
        events=[f"{event.at} {event.kind}: {event.text}" for event in oc.ledger.events(oc.tag, last=5)],
        repaired=progress.repaired,
        warnings=warnings,
        next=next_step(oc, experiment, progress, incumbent, misses, families=memory.families),
        log_tail=failed_log_tail(oc, experiment),
    )


def _state(experiment: Experiment | None, incumbent: Experiment | None) -> str:
    if experiment is None:
        return "no_baseline" if incumbent is None else "idle"
    if experiment.state is State.RUNNING:
        return "running"
    return "failed" if experiment.verdict == "failed" else "judged"


def _wrong_branch(oc: OpenCampaign) -> str:
    branch = oc.repo.head().branch
    if branch == oc.branch:
        return ""
    return f"HEAD is on {branch or 'no branch'}; go back with: git switch {oc.branch}"


def _deterministic(oc: OpenCampaign, rule: KeepRule | None) -> str:
    if rule is None or not rule.deterministic:
        return ""
    return (
        "all seeds of the baseline gave the same number: the training is deterministic or ignores its seed. "
        f'In {oc.config.edit[0]}, seed from the runner: seed = int(os.environ.get("AUTORESEARCH_SEED", "1"))'
    )


def _disturbed(oc: OpenCampaign, experiment: Experiment | None) -> str:
    """What disturbed the open experiment's trials: its numbers stand, and may be worth another run."""
    trials = [] if experiment is None else oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    told = [f"seed {each.seed}: {each.result.disturbed}" for each in trials if each.result and each.result.disturbed]
    return f"a trial was disturbed ({'; '.join(told)})" if told else ""


def noise(rule: KeepRule) -> dict[str, Any]:
    """What the keep rule has learned: the spread of one run, and how much a seed carries over to a changed code."""
    return {
        "sigma": rule.sigma,
        "sigma_df": rule.sigma_df,
        "rho": rule.rho,
        "incumbent_level": rule.incumbent_level,
        "incumbent_se": rule.incumbent_se,
        "credited_gain": rule.credited_gain,
        "deterministic": rule.deterministic,
        "boldness": rule.boldness,
    }


def describe(oc: OpenCampaign, experiment: Experiment, *, trials: bool = True) -> dict[str, Any]:
    """One experiment for readers; with ``trials`` also what each of its trials gave."""
    shown: dict[str, Any] = {
        "number": experiment.number,
        "commit": experiment.commit[:7],
        "description": experiment.shown_description,
        "family": experiment.family,
        "state": experiment.state.value,
        "status": None if experiment.status is None else experiment.status.value,
        "verdict": experiment.verdict,
        "reason": experiment.reason,
        "so_far": so_far(oc, experiment),
        "metric": experiment.metric,
        "attempt": experiment.attempt,
        "incumbent": experiment.incumbent,
        "rebased_from": (experiment.options.get("ahead") or {}).get("rebased_from"),
        "lines_added": experiment.lines_added,
        "lines_deleted": experiment.lines_deleted,
        "judgement": experiment.judgement,
    }
    if trials:
        rows = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
        shown["trials"] = [_describe_trial(trial) for trial in rows]
        shown["seeds"] = completed([trial for trial in rows if trial.purpose in (*DECIDING, Purpose.RETEST)])
    return shown


def _describe_open(oc: OpenCampaign, experiment: Experiment, progress: Progress) -> dict[str, Any]:
    return {
        **describe(oc, experiment, trials=False),
        "seeds": measured(oc.ledger, experiment),
        "standing": standing(experiment, progress.opened, progress.trials),
    }


def _describe_trial(trial: Trial) -> dict[str, Any]:
    result = trial.result
    return {
        "id": trial.id,
        "seed": trial.seed,
        "purpose": trial.purpose.value,
        "outcome": None if result is None else result.outcome.value,
        "cause": "" if result is None else result.cause,
        "reason": "" if result is None else result.reason,
        "disturbed": "" if result is None else result.disturbed,
        "metric": trial.metric,
        "watched": {} if result is None else result.watched,
        "duration_s": None if result is None else result.duration_s,
        "peak_mem_mib": None if result is None else result.peak_mem_mib,
        "log": str(Path(trial.directory) / LOG_FILE),
    }


def failed_log_tail(oc: OpenCampaign, experiment: Experiment | None) -> str:
    """The end of the log of a failed open experiment's last trial; "" else."""
    if experiment is None or experiment.verdict != "failed" or experiment.state is not State.JUDGED:
        return ""
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    if not trials:
        return ""
    try:
        with (Path(trials[-1].directory) / LOG_FILE).open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - TAIL_BYTES))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return ""


def next_step(
    oc: OpenCampaign,
    experiment: Experiment | None,
    progress: Progress,
    incumbent: Experiment | None,
    misses: int,
    *,
    families: Sequence[Family],
) -> Next:
    """What to do now, derived from the state alone."""
    if experiment is not None and next_to_log(progress.opened) is None:
        return _wait(oc, experiment, progress)
    if experiment is not None and experiment.verdict == "failed" and not experiment.is_ahead:
        what = "the baseline" if experiment.is_baseline else f"experiment {experiment.number}"
        return Next(
            text=f"{what} failed: mend an easy mistake and run again (same experiment), or give it up with "
            "python scripts/log_result.py --status crash",
            command="python scripts/run_experiment.py",
        )
    if experiment is not None:
        return Next(
            text=f"experiment {experiment.number} has its verdict: log it", command="python scripts/log_result.py"
        )
    if oc.repo.head().branch != oc.branch:
        return Next(text="return to the campaign's branch", command=f"git switch {oc.branch}")
    if incumbent is None:
        return Next(text="measure the unmodified code first", command='python scripts/run_experiment.py -d "baseline"')
    edit = ", ".join(oc.config.edit[:3])
    text = f"have one idea, edit {edit}, and run it"
    if misses >= STUCK_AFTER:
        text = f"{misses} misses in a row: {_way_out(misses, families)}; edit {edit}, and run it"
    return Next(text=text, command='python scripts/run_experiment.py -d "the idea in a sentence"')


def _wait(oc: OpenCampaign, experiment: Experiment, progress: Progress) -> Next:
    """Nothing can be logged; ``experiment`` is the first open one."""
    wait_s = min(540, max(1, math.ceil(oc.config.limit_s)))
    running = progress.running
    waits = running is not None and read_json(Path(running.directory) / LIVE_FILE).get(WAITS_FOR)
    text = "a trial waits for its slot on this machine; wait for it" if waits else "a trial is running; wait for it"
    if not experiment.is_baseline and has_room(oc, progress.opened):
        text += ", or submit the next idea meanwhile (run_experiment.py --ahead)"
    return Next(text=text, command=f"python scripts/status.py --wait {wait_s}")


def has_room(oc: OpenCampaign, opened: Sequence[Experiment]) -> bool:
    """Whether one more experiment may be submitted ahead."""
    beside = oc.config.isolation != "inplace"
    return beside and len(opened) < oc.config.executor.parallel + OPEN_BESIDE_RUNNING


def _way_out(misses: int, families: Sequence[Family]) -> str:
    """What to do after so many misses; references/when-stuck.md says how."""
    if misses < OTHER_FAMILY_AFTER:
        return "re-read the code and the history, then combine near misses or finish what was half tried"
    if misses < RADICAL_AFTER:
        most = ", ".join(family.name for family in families[:2] if family.name)
        return "leave the family" + (f" ({most} was tried most)" if most else "") + " and try another kind of idea"
    return "try something radical: take a large part out, or build it another way"
