"""Go back to the incumbent, or to an earlier kept experiment; moves only files within ``edit``."""

from __future__ import annotations

from dataclasses import dataclass, field

from autoresearch.campaign.memo import render_memo
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.progress import bring_forward
from autoresearch.campaign.run import check_head, edited_paths
from autoresearch.campaign.settle import experiment_on_branch, incumbent_commit, plan_move, save_work, settle
from autoresearch.errors import NeedsHumanError, NoCampaignError, RefusedError, StillRunningError
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment, State, Status
from autoresearch.results import outdate_results


@dataclass(frozen=True, kw_only=True)
class Reverted:
    """What a revert did, or with a dry run would do."""

    commit: str
    changed: bool
    restored: list[str]  # files brought back
    taken_back: list[Experiment] = field(default_factory=list)  # keeps that are discards now
    saved: str = ""  # the ref that holds the files as they were
    told: list[str] = field(default_factory=list)


def revert(oc: OpenCampaign, to: int | None = None, *, dry_run: bool = False) -> Reverted:
    """Restore the edited files to the incumbent (or to kept experiment ``to``); a second call changes nothing.

    Uncommitted edits are saved at a ref first. Untracked files and files outside ``edit`` are not
    touched. With ``to``, the keeps after it become discards and the keep rule goes back to its state then.
    """
    progress = bring_forward(oc)
    check_head(oc)
    here = experiment_on_branch(oc) if to is None else progress.experiment
    if here is not None:
        number = here.number
        if here.state is State.RUNNING:
            raise StillRunningError(
                f"Experiment {number} is still running; its commit must stay where it is.",
                hint="python scripts/status.py --wait 540",
            )
        raise RefusedError(
            f"Experiment {number} has its verdict and is not logged yet; logging it reverts by itself.",
            hint="python scripts/log_result.py",
            code="not_logged",
        )
    taken_back = [] if to is None else _keeps_after(oc, to)
    if to is not None and progress.running is not None:
        raise StillRunningError(
            f"A re-test of experiment {progress.running.number} is running.", hint="python scripts/status.py --wait 540"
        )
    tip = incumbent_commit(oc)
    head = oc.repo.head().commit
    if head != tip:
        raise NeedsHumanError(
            f"HEAD is at {(head or 'nothing')[:7]}, not at the recorded experiment {tip[:7]}.",
            hint='Try what was committed: python scripts/run_experiment.py -d "…"; or drop it: '
            f"git reset --keep {tip[:7]}",
            code="head_not_recorded",
        )
    dirty = edited_paths(oc, [change for change in oc.repo.changes(tip) if change.tracked])
    target = _target(oc, to)
    moved = sorted({*dirty, *(path for path in oc.repo.changed_paths(tip, target) if may_edit(path, oc.config))})
    if dry_run or not (moved or taken_back):
        return Reverted(commit=target, changed=False, restored=moved, taken_back=taken_back)
    saved = ""
    if dirty:
        saved = save_work(oc, tip, dirty)
        oc.repo.restore(tip, dirty)
    told = _take_back(oc, to, taken_back, tip, target) if to is not None and taken_back else []
    return Reverted(commit=target, changed=True, restored=moved, taken_back=taken_back, saved=saved, told=told)


def _target(oc: OpenCampaign, to: int | None) -> str:
    if to is None:
        return incumbent_commit(oc)
    experiment = oc.ledger.experiment(oc.tag, to)
    assert experiment is not None
    return experiment.commit


def _keeps_after(oc: OpenCampaign, to: int) -> list[Experiment]:
    """The keeps that going back to experiment ``to`` takes back; ``to`` must be kept itself."""
    experiment = oc.ledger.experiment(oc.tag, to)
    if experiment is None:
        raise NoCampaignError(
            f"There is no experiment {to} in campaign {oc.tag}.", hint="python scripts/status.py --history 50",
            code="no_experiment",
        )  # fmt: skip
    if experiment.status is not Status.KEEP or experiment.epoch != oc.campaign.epoch:
        kept = [str(kept.number) for kept in oc.ledger.experiments(oc.tag, status=Status.KEEP, epoch=oc.campaign.epoch)]
        raise RefusedError(
            f"Experiment {to} is not on the branch (status {experiment.status}, epoch {experiment.epoch}).",
            hint=f"Kept ones are {', '.join(kept)}. To try {to} again: "
            f"git restore --source={experiment.commit[:7]} -- {oc.config.edit[0]}",
            code="not_kept",
        )
    later = oc.ledger.experiments(oc.tag, status=Status.KEEP, epoch=oc.campaign.epoch)
    return [kept for kept in later if kept.number > to]


def _take_back(oc: OpenCampaign, to: int, keeps: list[Experiment], tip: str, target: str) -> list[str]:
    experiment = oc.ledger.experiment(oc.tag, to)
    assert experiment is not None
    with oc.ledger.transaction():
        for kept in keeps:
            kept.status, kept.undone = Status.DISCARD, f"reverted to experiment {to}"
            oc.ledger.update_experiment(kept, "status", "undone")
        oc.campaign.rule = experiment.rule
        oc.ledger.update_campaign(oc.campaign, "rule")
        outdate_results(oc.ledger, oc.campaign)
        plan_move(
            oc, source=tip, target=target, discarded={kept.number: kept.commit for kept in keeps}, keep=None
        )  # fmt: skip
    oc.tell("revert", f"back to experiment {to}; taken back: {', '.join(str(kept.number) for kept in keeps)}")
    told = settle(oc)
    render_memo(oc)
    return told
