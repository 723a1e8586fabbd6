"""Make git agree with the ledger: what a decision asks for, done in steps that may be repeated.

A decision is first written to the ledger together with ``Campaign.pending``, which says what git has
still to do. ``settle`` does it and clears the field. Killed anywhere in between, the next command
settles again and arrives at the same state.
"""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.errors import NeedsHumanError
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment
from autoresearch.merge import merge_texts
from autoresearch.plain import metric_text

SAVED = "autoresearch: work saved before a revert"  # the message of commits that no branch ever sees


def plan_move(oc: OpenCampaign, *, source: str, target: str, discarded: dict[int, str], keep: int | None) -> None:
    """Write down, within the caller's transaction, that the branch has to go from ``source`` to ``target``."""
    oc.campaign.pending = {
        "source": source,
        "target": target,
        "discarded": {str(number): commit for number, commit in discarded.items()},
        "keep": keep,
    }
    oc.ledger.update_campaign(oc.campaign, "pending")


def settle(oc: OpenCampaign) -> list[str]:
    """Carry out a pending move; returns what there is to tell. Nothing pending: nothing done."""
    plan = oc.campaign.pending
    if not plan:
        return []
    told = []
    for number, commit in plan["discarded"].items():
        oc.repo.set_ref(oc.ref("discarded", number), commit)
    if plan["source"] != plan["target"]:
        told = _move_back(oc, plan["source"], plan["target"])
    if plan["keep"] is not None:
        kept = oc.ledger.experiment(oc.tag, plan["keep"])
        if kept is not None:
            oc.repo.annotate(kept.commit, note_text(oc, kept))
    oc.campaign.pending = {}
    oc.ledger.update_campaign(oc.campaign, "pending")
    return told


def _move_back(oc: OpenCampaign, source: str, target: str) -> list[str]:
    """Branch and edited files from a decided experiment's commit to the incumbent's; may be repeated."""
    told, way = [], [source, target]
    tip = oc.repo.commit_of(f"refs/heads/{oc.branch}")
    if tip is not None and tip not in way:
        if oc.repo.is_ancestor(source, tip):
            # The agent committed on top while the trial ran; its files are merged below, its commit stays at a ref.
            oc.repo.set_ref(oc.ref("saved", tip[:12]), tip)
        elif oc.repo.is_ancestor(tip, source) or oc.repo.is_ancestor(tip, target):
            told = [f"branch {oc.branch} had been reset to {tip[:7]}; it is at {target[:7]}"]
            way = [source, tip, target]  # a hard reset has gone the first part already
        else:
            raise _diverged(oc, tip, target)
    here = oc.repo.head().branch == oc.branch
    if here:
        for old, new in pairwise(way):
            told += return_files(oc, old, new)
    if tip != target:
        oc.repo.set_branch(oc.branch, target, tip, "back to the incumbent")
    if here:
        for old, new in pairwise(way):
            oc.repo.unstage(differing_paths(oc, old, new))
    return told


def move_to_experiment(oc: OpenCampaign, experiment: Experiment) -> None:
    """Put the branch on the commit of the open ``experiment``, then note at a ref that it is there; may be repeated.

    So the ref tells a submission that was killed before it moved the branch from a branch that was reset.
    """
    tip = oc.repo.commit_of(f"refs/heads/{oc.branch}")
    # A baseline may lie behind a tip at which the agent has committed its first idea already.
    if tip is None or not oc.repo.is_ancestor(experiment.commit, tip):
        oc.repo.set_branch(oc.branch, experiment.commit, tip, f"experiment {experiment.number}")
    if oc.repo.head().branch == oc.branch:
        before = {experiment.parent, tip or experiment.parent}
        oc.repo.unstage([path for old in before for path in oc.repo.changed_paths(old, experiment.commit)])
    hold_at_ref(oc, experiment)


def hold_at_ref(oc: OpenCampaign, experiment: Experiment) -> None:
    """Keep the commit of the experiment's attempt from being pruned, whatever becomes of branches."""
    oc.repo.set_ref(_attempt_ref(oc, experiment, experiment.attempt), experiment.commit)


def _attempt_ref(oc: OpenCampaign, experiment: Experiment, attempt: int) -> str:
    return oc.ref("experiments", f"{experiment.number}.{attempt}")


def differing_paths(oc: OpenCampaign, old: str, new: str) -> list[str]:
    """Files within ``edit`` that differ between two commits."""
    paths = set(oc.repo.changed_paths(old, new))
    return sorted(path for path in paths if may_edit(path, oc.config))


def return_files(oc: OpenCampaign, source: str, target: str) -> list[str]:
    """Bring the edited files in the work tree from ``source`` back to ``target``.

    A file that has been edited since ``source`` holds the agent's next idea: the difference between
    the two commits is taken out of it by a three-way merge. Where that conflicts, the file as it was
    is saved at a ref and the target's version put in its place.
    """
    told: list[str] = []
    plain, conflicts = [], []
    paths = differing_paths(oc, source, target)
    olds, news = oc.repo.texts(source, paths), oc.repo.texts(target, paths)
    for path in paths:
        mine, old, new = _read(oc.repo.project / path), olds.get(path), news.get(path)
        if mine not in (None, old, new):
            mine = _as_stored(oc, source, path)
        if mine == new:
            continue
        if mine == old or mine is None:
            plain.append(path)
            continue
        merged = None if old is None or new is None else merge_texts(mine, old, new)
        if merged is None:
            conflicts.append(path)
        elif merged != mine:
            oc.repo.restore(oc.repo.commit_texts(source, {path: merged}, SAVED), [path])
            told.append(f"{path} keeps your newer edit, on the code of {target[:7]}")
    if conflicts:
        ref = save_work(oc, source, conflicts)
        told.append(f"your newer edit of {', '.join(conflicts)} is saved: git restore --source={ref} -- {conflicts[0]}")
    if plain or conflicts:
        oc.repo.restore(target, [*plain, *conflicts])
    return told


def save_work(oc: OpenCampaign, parent: str, paths: list[str]) -> str:
    """Keep ``paths`` as they lie in the work tree as a commit at a ref of its own; returns the ref."""
    commit = oc.repo.commit_paths(parent, paths, SAVED)
    ref = oc.ref("saved", commit[:12])
    oc.repo.set_ref(ref, commit)
    return ref


def note_text(oc: OpenCampaign, experiment: Experiment) -> str:
    """The numbers of a kept experiment, as its git note carries them: YAML-like lines, one JSON line of evidence."""
    metric = oc.config.metric
    value = "none" if experiment.metric is None else metric_text(experiment.metric)
    lines = [
        f"campaign: {oc.tag}",
        f"experiment: {experiment.number}",
        f"status: {experiment.status}",
        f"{metric.name}: {value} ({metric.direction} is better)",
        f"verdict: {experiment.verdict or 'baseline'}",
        f"reason: {experiment.reason}",
        f"lines: +{experiment.lines_added} -{experiment.lines_deleted}",
        f"evidence: {json.dumps(experiment.judgement, ensure_ascii=False)}",
    ]
    return "\n".join(lines)


def check_tip(oc: OpenCampaign) -> list[str]:
    """Repair a branch that was moved behind our back; returns what was repaired.

    Moved back (``git reset --hard``): it returns to the recorded commit, which no reset can lose.
    Moved on (the agent committed itself): left for run_experiment.py. Anything else needs a human.
    """
    ahead = [each for each in oc.ledger.open_experiments(oc.tag) if each.is_ahead]
    oc.repo.hold_refs({_attempt_ref(oc, each, each.attempt): each.commit for each in ahead})
    expected = recorded_tip(oc)
    if told := _finish_submission(oc):
        return told
    tip = oc.repo.commit_of(f"refs/heads/{oc.branch}")
    if tip == expected:
        return []
    if tip is None:
        oc.repo.set_branch(oc.branch, expected, None, "the branch had been deleted")
        return [f"branch {oc.branch} was missing; it is back at {expected[:7]}"]
    if oc.repo.is_ancestor(expected, tip):
        return []
    if not oc.repo.is_ancestor(tip, expected):
        raise _diverged(oc, tip, expected)
    if oc.repo.head().branch == oc.branch:
        told = return_files(oc, tip, expected)
        oc.repo.set_branch(oc.branch, expected, tip, "the branch had been reset")
        oc.repo.unstage(differing_paths(oc, tip, expected))
    else:
        told = []
        oc.repo.set_branch(oc.branch, expected, tip, "the branch had been reset")
    return [f"branch {oc.branch} had been reset to {tip[:7]}; it is back at {expected[:7]}", *told]


def _finish_submission(oc: OpenCampaign) -> list[str]:
    """Move the branch to the open experiment if the command that recorded it was killed before it did."""
    experiment = experiment_on_branch(oc)
    if experiment is None or oc.repo.commit_of(_attempt_ref(oc, experiment, experiment.attempt)):
        return []
    tip = oc.repo.commit_of(f"refs/heads/{oc.branch}")
    starts = (f"{experiment.commit}^", _attempt_ref(oc, experiment, experiment.attempt - 1))
    if tip not in (experiment.commit, *map(oc.repo.commit_of, starts)):
        return []  # not where the command had left it
    move_to_experiment(oc, experiment)
    if tip == experiment.commit:
        return []
    return [f"the submission of experiment {experiment.number} was interrupted; {oc.branch} is at its commit now"]


def _diverged(oc: OpenCampaign, tip: str, expected: str) -> NeedsHumanError:
    return NeedsHumanError(
        f"Branch {oc.branch} is at {tip[:7]}, which neither leads to nor comes from {expected[:7]}, "
        f"the commit that the ledger records.",
        hint=f"git branch mine {tip[:7]} && git switch {oc.branch} && git reset --keep {expected[:7]}",
        code="diverged_branch",
    )


def recorded_tip(oc: OpenCampaign) -> str:
    """The commit at which the campaign's branch has to stand: that of the experiment on it, else the incumbent's."""
    experiment = experiment_on_branch(oc)
    return incumbent_commit(oc) if experiment is None else experiment.commit


def experiment_on_branch(oc: OpenCampaign) -> Experiment | None:
    """The open experiment whose commit the branch stands on; others are ahead, and lie at refs."""
    return next((each for each in oc.ledger.open_experiments(oc.tag) if not each.is_ahead), None)


def incumbent_commit(oc: OpenCampaign) -> str:
    """The commit of the incumbent of this epoch, or the base while nothing has been kept."""
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or incumbent.epoch != oc.campaign.epoch:
        return oc.campaign.base_commit
    return incumbent.commit


def _as_stored(oc: OpenCampaign, parent: str, path: str) -> str | None:
    """The file as git would store it, whose line ends may be others than those in the work tree."""
    return oc.repo.text(oc.repo.commit_paths(parent, [path], SAVED), path)


def _read(path: Path) -> str | None:
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        return None
