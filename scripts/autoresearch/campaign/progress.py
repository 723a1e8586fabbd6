"""Bring a campaign forward: repair what a kill left, take results in, start the next trial."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import fmean

from autoresearch.campaign.decide import book_baseline, start_retest, take_back
from autoresearch.campaign.judging import NextTrial, judge
from autoresearch.campaign.memo import render_memo
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.settle import check_tip, plan_move, recorded_tip, settle
from autoresearch.campaign.trials import collect_trials, launch_trial, remove_checkout
from autoresearch.ledger import Experiment, Purpose, State, Trial, completed
from autoresearch.results import write_results
from autoresearch.trial import RESULT_FILE, Outcome
from autoresearch.verdict.keep_rule import KeepRule

POLL_S = 0.02  # how often a waiting command looks for a result file
LIVENESS_S = 2.0  # how often it asks whether the runner still lives


@dataclass(kw_only=True)
class Progress:
    """Where the campaign stands after it has been brought forward."""

    running: Trial | None = None
    experiment: Experiment | None = None  # the open one, if any
    repaired: list[str] = field(default_factory=list)


def bring_forward(oc: OpenCampaign, *, start: bool = True) -> Progress:
    """Repair, collect, judge and start whatever comes next; returns without waiting for a trial.

    Without ``start`` no trial is started: an experiment that needs another one stays open.
    """
    repaired = repair(oc)
    while True:
        repaired += collect(oc)
        running = oc.ledger.open_trials(oc.tag)
        experiment = oc.ledger.open_experiment(oc.tag)
        if running:
            return Progress(running=running[0], experiment=experiment, repaired=repaired)
        if experiment is None or experiment.state is not State.RUNNING:
            break
        step = judge(oc, experiment)
        if isinstance(step, NextTrial):
            if not start:
                break
            launch_trial(oc, experiment, step.seed, step.purpose)
            continue
        experiment.verdict, experiment.judgement = step.word, step.judgement
        experiment.reason, experiment.state = step.reason, State.JUDGED
        _book_numbers(oc, experiment)
        oc.ledger.update_experiment(experiment, "verdict", "judgement", "reason", "state", "metric", "peak_mem_mib")
        remove_checkout(oc)
        if experiment.is_baseline and step.suggestion == "keep":
            book_baseline(oc, experiment)
            if start:
                start_retest(oc)  # one straying seed of the baseline is looked at again at once
            repaired += refresh(oc)
            break
    running = oc.ledger.open_trials(oc.tag)
    return Progress(
        running=running[0] if running else None, experiment=oc.ledger.open_experiment(oc.tag), repaired=repaired
    )


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
    rule = KeepRule.from_json(oc.campaign.rule)
    before = rule.incumbent_level
    empty = rule.add_incumbent_run(trial.result.metric)
    oc.campaign.rule = rule.to_json()
    oc.ledger.update_campaign(oc.campaign, "rule")
    oc.tell(
        "retest",
        f"experiment {trial.number} re-tested at seed {trial.seed}: {trial.result.metric:.6f}; "
        f"its level moves from {before:.6f} to {rule.incumbent_level:.6f}",
    )
    incumbent = oc.ledger.incumbent(oc.tag)
    if empty and incumbent is not None and not incumbent.is_baseline:
        source = recorded_tip(oc)
        take_back(oc, incumbent, f"its re-test at seed {trial.seed} showed no gain")
        target = recorded_tip(oc)  # an open experiment is built on the keep: the branch moves when it is decided
        assert source is not None and target is not None, "a campaign with an incumbent has a tip"
        plan_move(oc, source=source, target=target, discarded={incumbent.number: incumbent.commit}, keep=None)


def _book_numbers(oc: OpenCampaign, experiment: Experiment) -> None:
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    runs = completed(trials)
    memory = [trial.result.peak_mem_mib for trial in trials if trial.result and trial.result.peak_mem_mib is not None]
    failed = experiment.verdict == "failed"
    experiment.metric = fmean(runs.values()) if runs and not failed else None
    experiment.peak_mem_mib = max(memory) if memory and not failed else None


def wait_for_trial(
    project: Path,
    tag: str | None,
    wait_s: float,
    *,
    number: int | None = None,
    on_tick: Callable[[], None] | None = None,
) -> Progress:
    """Bring the campaign forward until nothing runs or ``wait_s`` seconds are over; holds no lock while it waits.

    With ``number`` it also ends when that experiment needs no more trials, whatever else runs.
    """
    deadline = time.monotonic() + wait_s
    while True:
        with open_campaign(project, tag) as oc:
            progress = bring_forward(oc)
        trial = progress.running
        waiting_for = progress.experiment
        if trial is None or (number is not None and (waiting_for is None or waiting_for.state is not State.RUNNING)):
            return progress
        result = Path(trial.directory) / RESULT_FILE
        look_again = time.monotonic() + LIVENESS_S
        while not result.exists():
            now = time.monotonic()
            if now >= deadline:
                return progress
            if now >= look_again:
                break
            if on_tick is not None:
                on_tick()
            time.sleep(min(POLL_S, max(0.0, deadline - now)))
