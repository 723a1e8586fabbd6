"""Decide the open experiment: status, row, keep rule, and what git has to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from autoresearch.campaign.judging import rule_settings
from autoresearch.campaign.memo import render_memo
from autoresearch.campaign.notices import tell_decision
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.settle import incumbent_commit, plan_move, recorded_tip, settle
from autoresearch.campaign.trials import launch_trial, remove_checkouts
from autoresearch.errors import NoCampaignError, RefusedError, StillRunningError
from autoresearch.ledger import DECIDING, Experiment, Purpose, State, Status, completed, now
from autoresearch.output import one_line
from autoresearch.results import outdate_results
from autoresearch.verdict.keep_rule import KeepRule


@dataclass(frozen=True, kw_only=True)
class Decision:
    """What was decided. ``changed`` is False when there was nothing left to decide."""

    experiment: Experiment
    changed: bool
    incumbent: Experiment | None
    undone: Experiment | None = None
    retest_started: bool = False
    told: list[str] = field(default_factory=list)


def log_result(
    oc: OpenCampaign, status: str, *, note: str = "", simplification: bool = False, retest: bool = True
) -> Decision:
    """Decide the experiment that is next (see ``next_to_log``) as ``status`` (auto | keep | discard | crash).

    Afterwards the ledger holds the decision, results.tsv its row, and the branch stands on the
    incumbent; a re-test that is due runs, unless ``retest`` is False. A second call decides nothing
    and answers with the last decision. ``StillRunningError`` while no experiment can be decided,
    ``RefusedError`` where the evidence does not allow ``status``.
    """
    opened = oc.ledger.open_experiments(oc.tag)
    if not opened:
        return _already_decided(oc, status, note)
    experiment = next_to_log(opened)
    if experiment is None:
        raise _nothing_to_decide(opened)
    decided = choose_status(experiment, status, simplification=simplification)
    if decided is Status.KEEP and experiment.number != opened[0].number:
        raise _nothing_to_decide([*opened[:1], experiment])
    if decided is Status.KEEP and experiment.is_ahead and experiment.parent != incumbent_commit(oc):
        raise StillRunningError(
            f"Experiment {experiment.number} was tried on what is no longer the incumbent.",
            hint="python scripts/status.py --wait 540",
        )
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    runs = completed([trial for trial in trials if trial.purpose in DECIDING])
    undone: Experiment | None = None
    source = recorded_tip(oc)
    with oc.ledger.transaction():
        experiment.status, experiment.state, experiment.decided_at = decided, State.DECIDED, now()
        experiment.note = note or experiment.note
        if decided is Status.DISCARD and experiment.judgement.get("decision") == "keep":
            experiment.reason = f"{experiment.reason}; discarded by choice"
        if oc.campaign.rule is not None and runs and not experiment.is_baseline and decided is not Status.CRASH:
            undone = _book(oc, experiment, runs, kept=decided is Status.KEEP)
        oc.ledger.update_experiment(
            experiment, "status", "state", "decided_at", "note", "reason", "rule", "metric", "peak_mem_mib"
        )
        outdate_results(oc.ledger, oc.campaign)
        discarded = {} if decided is Status.KEEP else {experiment.number: experiment.commit}
        if undone is not None:
            discarded[undone.number] = undone.commit
        plan_move(
            oc, source=source, target=recorded_tip(oc), discarded=discarded,
            keep=experiment.number if decided is Status.KEEP else None,
        )  # fmt: skip
    told = settle(oc)
    remove_checkouts(oc)
    if decided is Status.KEEP or undone is not None:
        render_memo(oc)
    if decided is Status.KEEP or undone is not None or last_push(oc):
        told += push(oc)
    tell_decision(oc, experiment)
    return Decision(
        experiment=experiment, changed=True, incumbent=oc.ledger.incumbent(oc.tag), undone=undone,
        retest_started=retest and start_retest(oc), told=told,
    )  # fmt: skip


def next_to_log(opened: Sequence[Experiment]) -> Experiment | None:
    """The first of the open experiments that can be decided now.

    Keeps are decided by number, so that each incumbent is built on those before it; a miss need not wait.
    """
    for experiment in opened:
        if experiment.state is State.JUDGED and (experiment is opened[0] or not would_be_kept(experiment)):
            return experiment
    return None


def would_be_kept(experiment: Experiment) -> bool:
    """Whether ``--status auto`` keeps a judged experiment."""
    return choose_status(experiment, "auto", simplification=False) is Status.KEEP


def _nothing_to_decide(opened: Sequence[Experiment]) -> StillRunningError:
    first, *later = opened
    better = next((each for each in later if each.state is State.JUDGED), None)
    text = f"Experiment {first.number} is still running; there is nothing to decide yet."
    if better is not None:
        text = f"Experiment {first.number} is not decided; experiment {better.number} can be kept only after it."
    return StillRunningError(text, hint="python scripts/status.py --wait 540")


def choose_status(experiment: Experiment, wish: str, *, simplification: bool) -> Status:
    """The status that ``wish`` amounts to; ``RefusedError`` where the evidence does not allow it."""
    verdict = experiment.verdict
    decision = str(experiment.judgement.get("decision"))
    automatic = Status(decision) if decision in tuple(Status) else Status.DISCARD
    shorter = experiment.lines_deleted > experiment.lines_added
    declared = bool(experiment.options.get("simplification"))
    simpler = (simplification or declared) and verdict == "equivalent" and "constraint" not in experiment.judgement
    if simpler and shorter and not declared and wish in ("auto", "keep"):
        _check_trials(experiment)
    if simpler and not shorter:  # the rule only knows the numbers
        automatic = Status.DISCARD
    if wish == "auto":
        return Status.KEEP if simpler and shorter else automatic
    if wish == automatic:
        return automatic
    if wish == "crash":
        raise RefusedError(
            f"Experiment {experiment.number} did not crash: its verdict is {verdict} ({experiment.reason}).",
            hint="python scripts/log_result.py --status discard",
            code="status_against_verdict",
        )
    if wish == "discard":
        if verdict == "failed":
            raise RefusedError(
                f"Experiment {experiment.number} gave no metric ({experiment.reason}): that is a crash.",
                hint="python scripts/log_result.py --status crash",
                code="status_against_verdict",
            )
        return Status.DISCARD
    if simpler and shorter:
        return Status.KEEP
    why = f"its verdict is {verdict}: {experiment.reason}"
    if simpler:
        why = (
            f"it adds {experiment.lines_added} lines and deletes {experiment.lines_deleted}; "
            "a simplification deletes more"
        )
    raise RefusedError(
        f"Experiment {experiment.number} cannot be kept: {why}.",
        hint="python scripts/log_result.py --status auto",
        code="keep_against_verdict",
    )


def _check_trials(experiment: Experiment) -> None:
    """Refuse a simplification that nobody declared before it ran, if it has fewer trials than a keep takes."""
    trials, least = (int(str(experiment.judgement.get(key, 1))) for key in ("n_trials", "min_trials"))
    if trials < least:
        raise RefusedError(
            f"Experiment {experiment.number} cannot be kept after {trials} of the {least} trials that a keep takes "
            "(keep.min_seeds).",
            hint="python scripts/log_result.py --status discard, then make the edit again and declare it: "
            f'python scripts/run_experiment.py -d "{one_line(experiment.description, 80)}" --simplification',
            code="too_few_trials",
        )


def _book(oc: OpenCampaign, experiment: Experiment, runs: dict[int, float], *, kept: bool) -> Experiment | None:
    """Tell the keep rule; returns the earlier keep that it now takes back, if it does."""
    assert oc.campaign.rule is not None
    rule = KeepRule.from_json(oc.campaign.rule)
    simplification = experiment.verdict == "equivalent"  # if kept; no other reason keeps what is equivalent
    earlier = oc.ledger.incumbent(oc.tag)
    undo = False
    if kept or earlier is None or experiment.incumbent == earlier.number:
        undo = rule.close(runs, kept=kept, simplification=simplification)
    else:
        rule.close_elsewhere(runs)
    oc.campaign.rule = experiment.rule = rule.to_json()
    oc.ledger.update_campaign(oc.campaign, "rule")
    if not undo or earlier is None or earlier.is_baseline:
        return None
    take_back(oc, earlier, f"experiments after it showed no gain, as of experiment {experiment.number}")
    return earlier


def take_back(oc: OpenCampaign, kept: Experiment, reason: str) -> None:
    """Make an empty keep a discard, within the caller's transaction; the branch is the caller's to move."""
    kept.status, kept.undone = Status.DISCARD, reason
    oc.ledger.update_experiment(kept, "status", "undone")
    outdate_results(oc.ledger, oc.campaign)
    oc.tell("undo", f"experiment {kept.number} ({kept.description}) is taken back: {reason}")


def book_baseline(oc: OpenCampaign, experiment: Experiment) -> None:
    """Keep the measured baseline and start the keep rule on it."""
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    rule = KeepRule.start(completed(trials), rule_settings(oc.config))
    with oc.ledger.transaction():
        oc.campaign.rule = experiment.rule = rule.to_json()
        experiment.status, experiment.state, experiment.decided_at = Status.KEEP, State.DECIDED, now()
        oc.ledger.update_experiment(experiment, "status", "state", "decided_at", "rule")
        oc.ledger.update_campaign(oc.campaign, "rule")
        outdate_results(oc.ledger, oc.campaign)
        plan_move(oc, source=experiment.commit, target=experiment.commit, discarded={}, keep=experiment.number)
    settle(oc)
    render_memo(oc)


def start_retest(oc: OpenCampaign, *, again: bool = True) -> bool:
    """Start a due re-test of the incumbent, if a trial may start; it runs while the agent thinks of the next idea.

    Without ``again`` one that was tried and did not complete is not repeated.
    """
    incumbent = oc.ledger.incumbent(oc.tag)
    under_way = oc.ledger.open_trials(oc.tag)
    if oc.campaign.rule is None or incumbent is None or len(under_way) >= oc.config.executor.parallel:
        return False
    rule = KeepRule.from_json(oc.campaign.rule)
    if not rule.retest_due or any(trial.purpose is Purpose.RETEST for trial in under_way):
        return False
    tried = {trial.seed for trial in oc.ledger.trials(oc.tag, incumbent.number) if trial.purpose is Purpose.RETEST}
    if not again and rule.retest_seed() in tried:
        return False
    launch_trial(oc, incumbent, rule.retest_seed(), Purpose.RETEST)
    return True


def push(oc: OpenCampaign) -> list[str]:
    """Push the branch and its notes in the background, if the config says so; never waits, never fails the loop."""
    if not oc.config.push:
        return []
    if oc.config.remote not in oc.repo.remotes():
        return [f"not pushed: there is no remote {oc.config.remote!r}"]
    refs = [f"+refs/heads/{oc.branch}:refs/heads/{oc.branch}", "+refs/notes/autoresearch:refs/notes/autoresearch"]
    oc.repo.push_in_background(oc.config.remote, refs, oc.folder / "push.log")
    return []


def last_push(oc: OpenCampaign) -> str:
    """How the last push ended: "" (none, or well), or a sentence with the last line of its output."""
    try:
        lines = (oc.folder / "push.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
    except FileNotFoundError:
        return ""
    if not lines or lines[-1] == "exit 0" or not lines[-1].startswith("exit "):
        return ""
    return f"the last push failed: {lines[-2] if len(lines) > 1 else lines[-1]}"


def _already_decided(oc: OpenCampaign, status: str, note: str) -> Decision:
    last = oc.ledger.experiments(oc.tag, last=1)
    if not last:
        raise NoCampaignError(
            f"Campaign {oc.tag} has no experiment yet.",
            hint='python scripts/run_experiment.py -d "baseline"',
            code="no_experiment",
        )
    experiment = last[-1]
    if status not in ("auto", str(experiment.status)):
        raise RefusedError(
            f"Experiment {experiment.number} is already logged as {experiment.status}; no experiment is open.",
            hint="python scripts/status.py",
            code="already_decided",
        )
    told = []
    if note and note != experiment.note:
        experiment.note = note
        oc.ledger.update_experiment(experiment, "note")
        told.append(f"this is now the note of experiment {experiment.number}, which was decided before")
    return Decision(experiment=experiment, changed=False, incumbent=oc.ledger.incumbent(oc.tag), told=told)
