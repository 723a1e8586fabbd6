"""Bring a campaign forward: repair what a kill left, take results in, start the next trial."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.campaign.decide import book_baseline, next_to_log, start_retest, take_back
from autoresearch.campaign.judging import NextTrial, Verdict, book_numbers, judge
from autoresearch.campaign.memo import render_memo
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.rebase import awaited, end_useless_trials, follow_incumbent
from autoresearch.campaign.settle import check_tip, plan_move, recorded_tip, settle
from autoresearch.campaign.trials import collect_trials, launch_trial, remove_checkouts
from autoresearch.ledger import Experiment, Purpose, State, Trial
from autoresearch.plain import metric_text
from autoresearch.results import write_results
from autoresearch.trial import RESULT_FILE, Outcome
from autoresearch.verdict.keep_rule import KeepRule

POLL_S = 0.02  # how often a waiting command looks for a result file
LIVENESS_S = 2.0  # how often it asks whether the runner still lives


@dataclass(kw_only=True)
class Progress:
    """Where the campaign stands after it has been brought forward."""

    trials: list[Trial] = field(default_factory=list)  # under way
    opened: list[Experiment] = field(default_factory=list)  # not decided yet, by number
    repaired: list[str] = field(default_factory=list)

    @property
    def running(self) -> Trial | None:
        """The trial under way that was started first."""
        return next(iter(self.trials), None)

    @property
    def experiment(self) -> Experiment | None:
        """The open experiment; of several the first."""
        return next(iter(self.opened), None)


def bring_forward(oc: OpenCampaign, *, start: bool = True) -> Progress:
    """Repair, collect, judge and start whatever comes next; returns without waiting for a trial.

    Without ``start`` no trial is started: an experiment that needs another one stays open.
    """
    repaired = repair(oc)
    while True:
        repaired += collect(oc)
        follow_incumbent(oc)
        if end_useless_trials(oc):
            continue
        if not _advance(oc, start=start):
            break
    repaired += refresh(oc)
    return Progress(trials=oc.ledger.open_trials(oc.tag), opened=oc.ledger.open_experiments(oc.tag), repaired=repaired)


def _advance(oc: OpenCampaign, *, start: bool) -> bool:
    """Judge the first open experiment whose trials have ended, or start its next trial where one may start.

    By number: what confirms an experiment comes before what screens the next. Whether anything was done.
    """
    opened, trials = oc.ledger.open_experiments(oc.tag), oc.ledger.open_trials(oc.tag)
    may_start = start and len(trials) < oc.config.executor.parallel
    for experiment in opened:
        if experiment.state is not State.RUNNING or (step := judge(oc, experiment)) is None:
            continue
        if awaited(experiment, opened) and not (isinstance(step, NextTrial) and step.purpose is Purpose.SCREEN):
            continue
        if isinstance(step, Verdict):
            _store(oc, experiment, step, start=start)
            return True
        if may_start:
            if not (experiment.is_ahead and step.purpose is Purpose.SCREEN and start_retest(oc, again=False)):
                launch_trial(oc, experiment, step.seed, step.purpose)
            return True
    return may_start and bool(opened) and start_retest(oc, again=False)


def _store(oc: OpenCampaign, experiment: Experiment, verdict: Verdict, *, start: bool) -> None:
    experiment.verdict, experiment.judgement = verdict.word, verdict.judgement
    experiment.reason, experiment.state = verdict.reason, State.JUDGED
    book_numbers(oc, experiment)
    oc.ledger.update_experiment(experiment, "verdict", "judgement", "reason", "state", "metric", "peak_mem_mib")
    remove_checkouts(oc)
    if experiment.is_baseline and verdict.suggestion == "keep":
        book_baseline(oc, experiment)
        if start:
            start_retest(oc)  # one straying seed of the baseline is looked at again at once


def repair(oc: OpenCampaign) -> list[str]:
    """Finish what an interrupted command left half done; returns what was repaired, in sentences."""
    told = settle(oc)
    told += check_tip(oc)
    told += refresh(oc)
    for text in told:
        oc.tell("repair", text)
    return told


def refresh(oc: OpenCampaign) -> list[str]:
    """Make results.tsv equal the ledger."""
    told = write_results(oc.results_path, oc.ledger, oc.campaign, oc.folder / "hand-edits")
    return [told] if told else []


def collect(oc: OpenCampaign) -> list[str]:
    """Take ended trials in; a re-test of the incumbent goes straight into the keep rule.

    Where that shows the incumbent to be an empty keep, the branch goes back. Returns what there is to tell.
    """
    with oc.ledger.transaction():
        for trial in collect_trials(oc):
            if trial.purpose is Purpose.RETEST:
                _book_retest(oc, trial)
    if not oc.campaign.pending:
        return []
    told = settle(oc)
    render_memo(oc)
    return told + refresh(oc)


def _book_retest(oc: OpenCampaign, trial: Trial) -> None:
    assert trial.result is not None
    if trial.result.outcome is not Outcome.COMPLETED or trial.result.metric is None or oc.campaign.rule is None:
        oc.tell("retest", f"the re-test of experiment {trial.number} did not complete: {trial.result.reason}")
        return
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or trial.number != incumbent.number:
        oc.tell("retest", f"the re-test of experiment {trial.number} came too late: it is no longer the incumbent")
        return
    rule = KeepRule.from_json(oc.campaign.rule)
    before = rule.incumbent_level
    empty = rule.add_incumbent_run(trial.result.metric)
    oc.campaign.rule = rule.to_json()
    oc.ledger.update_campaign(oc.campaign, "rule")
    oc.tell(
        "retest",
        f"experiment {trial.number} re-tested at seed {trial.seed}: {metric_text(trial.result.metric)}; "
        f"its level moves from {metric_text(before)} to {metric_text(rule.incumbent_level)}",
    )
    if empty and not incumbent.is_baseline:
        source = recorded_tip(oc)
        take_back(oc, incumbent, f"its re-test at seed {trial.seed} showed no gain")
        target = recorded_tip(oc)  # an open experiment is built on the keep: the branch moves when it is decided
        plan_move(oc, source=source, target=target, discarded={incumbent.number: incumbent.commit}, keep=None)


def wait_for_trial(
    project: Path,
    tag: str | None,
    wait_s: float,
    *,
    number: int | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Progress:
    """Bring the campaign forward until an experiment can be logged, nothing runs, or ``wait_s`` seconds are over.

    Holds no lock while it waits. With ``number`` only that experiment's verdict ends it early.
    """
    deadline = time.monotonic() + wait_s
    while True:
        with open_campaign(project, tag) as oc:
            progress = bring_forward(oc)
        if not progress.trials or _has_come(progress.opened, number):
            return progress
        results = [Path(trial.directory) / RESULT_FILE for trial in progress.trials]
        look_again = time.monotonic() + LIVENESS_S
        while not any(result.exists() for result in results):
            now = time.monotonic()
            if now >= deadline:
                return progress
            if now >= look_again:
                break
            if on_tick is not None:
                on_tick()
            time.sleep(min(POLL_S, max(0.0, deadline - now)))


def _has_come(opened: Sequence[Experiment], number: int | None) -> bool:
    """Whether what is waited for is there: the verdict of experiment ``number``, or any that can be logged."""
    if number is None:
        return next_to_log(opened) is not None
    return not any(each.number == number and each.state is State.RUNNING for each in opened)
