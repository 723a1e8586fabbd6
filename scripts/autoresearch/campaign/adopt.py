"""Adopt what another campaign has kept: its change, merged into these files and measured anew on this base.

Gains do not travel: what helped there may not help here, where other changes stand already. So an adopted
idea is an experiment like any other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from autoresearch.campaign.memory import campaigns_of
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.progress import bring_forward
from autoresearch.campaign.run import Request, Submission, check_head, submit
from autoresearch.campaign.settle import incumbent_commit, recorded_tip
from autoresearch.campaign.transplant import ConflictError, transplant
from autoresearch.campaign.trials import own_settings
from autoresearch.errors import RefusedError, UsageError
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment, Status
from autoresearch.output import one_line

REFERENCE = re.compile(r"(?P<tag>[^/\s]+)/(?P<number>\d{1,9})")
NAMED_AT_MOST = 5


def adopt(oc: OpenCampaign, reference: str, request: Request, *, dry_run: bool = False) -> Submission:
    """Submit experiment ``reference`` (``TAG/NUMBER``) of another campaign as an experiment of this one.

    Its own change is merged into the incumbent's files as a cherry-pick would, and what it added to the
    command and the environment is added here. Raises ``RefusedError`` where that cannot be; then, and with
    ``dry_run``, the work tree is as before.
    """
    progress = bring_forward(oc)
    check_head(oc)
    if progress.experiment is not None:
        raise RefusedError(
            f"Experiment {progress.experiment.number} is not decided yet; an adopted one needs the files to itself.",
            hint="python scripts/status.py",
            code="open_experiment",
        )
    if not oc.is_measured:
        raise RefusedError(
            "The baseline is not measured yet, so nothing can be compared with it.",
            hint='python scripts/run_experiment.py -d "baseline"',
            code="no_baseline",
        )
    theirs = _find(oc, reference)
    onto = incumbent_commit(oc)
    _refuse_edits(oc, onto)
    entries = _merge(oc, theirs, onto, reference)
    own = own_settings(theirs, None if theirs.incumbent is None else oc.ledger.experiment(theirs.tag, theirs.incumbent))
    if not entries and not any(own.values()):
        raise RefusedError(
            f"All that {reference} changed is in the files already.", hint="python scripts/status.py", code="no_change"
        )
    request = replace(
        request,
        description=request.description or f"adopt {reference}: {one_line(theirs.description, 200)}",
        family=request.family or theirs.family,
        arguments={**own["arguments"], **request.arguments},
        environment={**own["environment"], **request.environment},
        adopted=reference,
    )
    merged = oc.repo.commit_entries(onto, entries, f"adopt {reference}") if entries else onto
    is_submitted = False
    try:
        oc.repo.restore(merged, list(entries))
        submission = submit(oc, request, dry_run=dry_run)
        is_submitted = not dry_run
    finally:
        if not is_submitted:  # unless it is on record already, and only its trial could not be started
            oc.repo.restore(recorded_tip(oc), list(entries))
    return submission


def _find(oc: OpenCampaign, reference: str) -> Experiment:
    """The kept experiment that ``reference`` names."""
    match = REFERENCE.fullmatch(reference)
    if match is None:
        raise UsageError(
            f"--adopt is {reference!r}; expected a campaign's tag and a number, such as apr5-gpu1/7.",
            hint="python scripts/status.py names what others have kept",
        )
    tags = [campaign.tag for campaign in campaigns_of(oc.ledger, oc.repo) if campaign.tag != oc.tag]
    found = oc.ledger.experiment(match["tag"], int(match["number"])) if match["tag"] in tags else None
    if found is None:
        known = ", ".join(tags[-10:]) or "none"
        raise UsageError(
            f"There is no experiment {reference} of another campaign of this project.",
            hint=f"Other campaigns: {known}; what they tried: python scripts/status.py --memory",
            code="unknown_experiment",
        )
    if found.status is not Status.KEEP or found.is_baseline:
        state = "a baseline" if found.is_baseline else str(found.status or "not decided yet")
        raise RefusedError(
            f"{reference} was not kept there ({state}); only what has been measured to be better is adopted.",
            hint="Make the edit yourself if you want to try it: "
            f"git show {found.commit[:7]}, then python scripts/run_experiment.py -d ...",
            code="not_kept",
        )
    return found


def _refuse_edits(oc: OpenCampaign, onto: str) -> None:
    changes = [change for change in oc.repo.changes(onto) if may_edit(change.path, oc.config)]
    edited = [change.path for change in changes]
    if edited:
        is_new = any(not change.tracked for change in changes)
        raise RefusedError(
            f"There is an edit that has not been run: {', '.join(edited[:NAMED_AT_MOST])}.",
            hint="Run it first, or drop it: python scripts/revert.py"
            + ("; that leaves new files, so move them away" if is_new else ""),
            code="edited",
        )


def _merge(oc: OpenCampaign, theirs: Experiment, onto: str, reference: str) -> Mapping[str, str | None]:
    """The entries that the files of ``onto`` get."""
    changed = oc.repo.changed_paths(theirs.parent, theirs.commit)
    if outside := [path for path in changed if not may_edit(path, oc.config)]:
        raise RefusedError(
            f"{reference} changes what this campaign protects: {', '.join(outside[:NAMED_AT_MOST])}.",
            hint=f"See it: git diff {theirs.parent[:7]} {theirs.commit[:7]}",
            code="protected",
        )
    entries: dict[str, str | None] = {}
    conflicts = []
    for path in changed:
        try:
            entries |= transplant(oc.repo, [path], old=theirs.parent, new=theirs.commit, onto=onto)
        except ConflictError:
            conflicts.append(path)
    if conflicts:
        raise RefusedError(
            f"{reference} does not fit the files as they are here; both have changed the same lines of "
            f"{', '.join(conflicts[:NAMED_AT_MOST])}. Nothing was changed.",
            hint=f"Make the edit by hand and run it: git diff {theirs.parent[:7]} {theirs.commit[:7]}",
            code="conflict",
        )
    here = oc.repo.entries(onto, changed)
    return {path: entry for path, entry in entries.items() if entry != here.get(path)}
