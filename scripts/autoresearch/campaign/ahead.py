"""Work ahead: submit an experiment beside those that are open, without moving the branch.

Its commit lies only at a ref. The edit that it was made from leaves the work tree, so that the next idea
starts from the branch again.
"""

from __future__ import annotations

from collections.abc import Mapping

from autoresearch.campaign.decide import next_to_log, would_be_kept
from autoresearch.campaign.edit_check import check_sources
from autoresearch.campaign.memory import resemblances
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.progress import bring_forward
from autoresearch.campaign.rebase import texts_with
from autoresearch.campaign.run import (
    Request,
    Submission,
    check_data,
    check_environment,
    check_head,
    check_request,
    edited_paths,
    no_description,
    refuse_tried,
    request_options,
    unchanged_own_files,
)
from autoresearch.campaign.settle import hold_at_ref, plan_move, recorded_tip, settle
from autoresearch.campaign.status import has_room
from autoresearch.campaign.transplant import ConflictError, transplant
from autoresearch.errors import RefusedError
from autoresearch.guard import check_paths
from autoresearch.ledger import Experiment, State
from autoresearch.output import one_line

BASES = ("incumbent", "candidate")


def submit_ahead(oc: OpenCampaign, request: Request, base: str, *, dry_run: bool = False) -> Submission:
    """Guard, commit and queue what lies in the work tree, on ``base``: the incumbent, or the open candidate.

    ``RefusedError`` where a guard says no, where the edit does not fit the base, or where enough is open
    already: then nothing has changed.
    """
    if oc.config.isolation == "inplace":
        raise RefusedError(
            "With `isolation: inplace` trials run in the work tree itself, so nothing can run beside it.",
            hint="Wait: python scripts/status.py --wait 540, then run this without --ahead.",
            code="inplace",
        )
    progress = bring_forward(oc)
    check_head(oc)
    check_request(oc, request)
    _check_room(oc, progress.opened)
    parent = _base(oc, base, progress.opened)
    tip = _tip(oc)
    changes = oc.repo.changes(tip)
    notes = [*progress.repaired, *check_paths(changes, oc.config, tolerated=unchanged_own_files(oc), base=tip)]
    if not request.description:
        raise no_description()
    paths = edited_paths(oc, changes)
    message = f"experiment: {one_line(request.description)}"
    edit = oc.repo.commit_paths(tip, paths, message)
    commit = oc.repo.commit_entries(parent.commit, _entries(oc, paths, tip, edit, parent), message)
    experiment, found = _checked(oc, request, parent, commit, paths, on=base)
    notes += found
    if dry_run:
        return Submission(experiment=experiment, progress=None, notes=notes)
    with oc.ledger.transaction():
        oc.ledger.add_experiment(experiment)
        plan_move(oc, source=edit, target=tip, discarded={}, keep=None)
    hold_at_ref(oc, experiment)
    notes += settle(oc)
    return _started(oc, experiment, notes)


def submit_constants(oc: OpenCampaign, request: Request, constants: Mapping[str, Mapping[str, str]]) -> Submission:
    """As ``submit_ahead``, of the incumbent with other ``constants`` (``{path: {name: literal}}``).

    The work tree is not looked at.
    """
    progress = bring_forward(oc)
    check_head(oc)
    check_request(oc, request)
    parent = _base(oc, "incumbent", progress.opened)
    texts = texts_with(oc, parent.commit, constants)
    commit = oc.repo.commit_texts(parent.commit, texts, f"experiment: {one_line(request.description)}")
    experiment, notes = _checked(oc, request, parent, commit, list(texts), on="incumbent")
    experiment.options["ahead"]["constants"] = constants
    oc.ledger.add_experiment(experiment)
    hold_at_ref(oc, experiment)
    return _started(oc, experiment, [*progress.repaired, *notes])


def _checked(
    oc: OpenCampaign, request: Request, parent: Experiment, commit: str, paths: list[str], *, on: str
) -> tuple[Experiment, list[str]]:
    """The experiment that tries ``commit`` beside its ``parent``, once the guards have seen it; not recorded yet."""
    options = {**request_options(request, parent), "ahead": {"on": on}}
    notes = check_sources(oc, paths, parent=parent.commit, commit=commit, options=options, beside=parent)
    tree = oc.repo.tree_of(commit)
    refuse_tried(oc, tree, options)
    experiment = Experiment(
        tag=oc.tag, number=oc.ledger.next_number(oc.tag), epoch=oc.campaign.epoch, description=request.description,
        family=request.family, commit=commit, parent=parent.commit, tree=tree, incumbent=parent.number, options=options,
    )  # fmt: skip
    experiment.lines_added, experiment.lines_deleted = oc.repo.line_counts(parent.commit, commit)
    notes += resemblances(oc.ledger, oc.repo, experiment)
    notes += check_data(oc)
    return experiment, notes


def _started(oc: OpenCampaign, experiment: Experiment, notes: list[str]) -> Submission:
    progress = bring_forward(oc)
    notes += check_environment(oc, experiment)
    recorded = oc.ledger.experiment(oc.tag, experiment.number)
    assert recorded is not None, "an experiment is never deleted"
    return Submission(experiment=recorded, progress=progress, notes=notes)


def _check_room(oc: OpenCampaign, opened: list[Experiment]) -> None:
    if has_room(oc, opened):
        return
    wait = "python scripts/status.py --wait 540"
    raise RefusedError(
        f"{len(opened)} experiments are open already ({', '.join(str(each.number) for each in opened)}).",
        hint=wait if next_to_log(opened) is None else "python scripts/log_result.py",
        code="enough_ahead",
    )


def _base(oc: OpenCampaign, base: str, opened: list[Experiment]) -> Experiment:
    """The experiment whose code the new one changes."""
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or not oc.is_measured:
        is_begun = oc.ledger.baseline(oc.tag, oc.campaign.epoch) is not None
        raise RefusedError(
            "The baseline is not measured yet; there is nothing to be ahead of.",
            hint="python scripts/status.py" if is_begun else 'python scripts/run_experiment.py -d "baseline"',
            code="no_baseline",
        )
    if base == "incumbent":
        return incumbent
    if not opened:
        raise RefusedError(
            "No experiment is open, so there is no candidate to build on.",
            hint="--ahead alone builds on the incumbent.",
            code="no_candidate",
        )
    candidate = opened[0]
    if candidate.state is State.JUDGED and not would_be_kept(candidate):
        raise RefusedError(
            f"Experiment {candidate.number} has its verdict ({candidate.verdict}); nothing can be built on it.",
            hint="Log it: python scripts/log_result.py; --ahead alone builds on the incumbent.",
            code="no_candidate",
        )
    return candidate


def _tip(oc: OpenCampaign) -> str:
    """Where the branch stands; commits of the agent's own on it could not be taken off again unseen."""
    tip, head = recorded_tip(oc), oc.repo.head().commit
    if head != tip:
        raise RefusedError(
            f"HEAD is at {(head or 'nothing')[:7]}, {oc.branch} belongs at {tip[:7]}: --ahead takes uncommitted edits.",
            hint=f"git reset --soft {tip[:7]}",
            code="head_not_recorded",
        )
    return tip


def _entries(oc: OpenCampaign, paths: list[str], tip: str, edit: str, parent: Experiment) -> dict[str, str | None]:
    try:
        return transplant(oc.repo, paths, old=tip, new=edit, onto=parent.commit)
    except ConflictError as conflict:
        raise RefusedError(
            f"The edit of {conflict.path} is made on {tip[:7]}, which your files come from, and does not fit "
            f"experiment {parent.number}: both change the same lines.",
            hint=f"See what that has there: git show {parent.commit[:7]}:{oc.repo.prefix}{conflict.path}",
            code="conflict",
        ) from None
