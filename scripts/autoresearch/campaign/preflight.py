"""What is asked before a campaign is set up: a free tag, a quiet repository, whose files are whose."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from string import ascii_lowercase

from autoresearch.campaign.memo import MEMO_FILES, PARTIAL_SUFFIX, read_memo, without_block
from autoresearch.campaign.opened import BRANCH_PREFIX, RESULTS_FILE, TAG_PATTERN
from autoresearch.campaign.run import file_mark
from autoresearch.config import CONFIG_FILE, Config
from autoresearch.errors import NoCampaignError, RefusedError, UsageError
from autoresearch.first_commit import first_commit_hint
from autoresearch.guard import in_scope
from autoresearch.guard.scope import DEPENDENCIES, DOCUMENTS
from autoresearch.ledger import Ledger
from autoresearch.repo import Change, Head, Repo

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
NAMED_AT_MOST = 8
# What our own commands, the agent's habits and Python leave in the project: no experiment's business.
EXCLUDED = (
    *(RESULTS_FILE, f"{RESULTS_FILE}.before-*", f".{RESULTS_FILE}.*", f".*{PARTIAL_SUFFIX}"),
    *("run.log", "insights.md", "autoresearch-task.md", "progress.png", "report.html", "__pycache__/"),
)


def todays_tag(today: date) -> str:
    """``apr5``, whatever the language of the machine."""
    return f"{MONTHS[today.month - 1]}{today.day}"


def is_taken(tag: str, repo: Repo, ledger: Ledger) -> bool:
    """Whether a campaign or a branch has the tag already, here or on a remote as last fetched."""
    branch = f"{BRANCH_PREFIX}{tag}"
    return (
        ledger.campaign(tag) is not None
        or bool(repo.branches(branch))
        or any(repo.commit_of(f"refs/remotes/{remote}/{branch}") for remote in repo.remotes())
    )


def free_tag(repo: Repo, ledger: Ledger, today: date) -> str:
    """Today's tag, with b, c, … z, zb, … behind it where it is taken."""
    stem = todays_tag(today)
    while True:
        for letter in ("", *ascii_lowercase[1:]):
            if not is_taken(f"{stem}{letter}", repo, ledger):
                return f"{stem}{letter}"
        stem = f"{stem}z"


def check_tag(tag: str, repo: Repo, ledger: Ledger, today: date) -> None:
    """Refuse a tag that no branch can carry or that is taken."""
    if not TAG_PATTERN.fullmatch(tag) or not repo.is_valid_branch(f"{BRANCH_PREFIX}{tag}"):
        raise UsageError(
            f"--tag {tag!r} is no tag; expected up to 64 letters, digits, dots, dashes and underscores.",
            hint=f"For example: --tag {free_tag(repo, ledger, today)}",
            code="invalid_tag",
        )
    if is_taken(tag, repo, ledger):
        what = "a campaign" if ledger.campaign(tag) is not None else f"a branch {BRANCH_PREFIX}{tag}"
        raise RefusedError(
            f"There is {what} of the tag {tag!r} already.",
            hint=f"python scripts/setup_campaign.py --tag {free_tag(repo, ledger, today)}",
            code="tag_taken",
        )


def check_repository(repo: Repo, ledger: Ledger) -> tuple[Head, str]:
    """HEAD and its commit; refuses where no campaign can begin."""
    head = repo.head()
    if head.commit is None:
        raise NoCampaignError(
            f"{repo.root} has no commit yet, and a campaign begins at one.",
            hint=first_commit_hint(repo.root),
            code="no_commit",
        )
    operation = repo.operation_in_progress()
    if operation:
        end = "git bisect reset" if operation == "bisect" else f"git {operation} --abort"
        raise RefusedError(
            f"A {operation} is under way in {repo.root}.",
            hint=f"Finish it, or: {end}",
            code="operation_in_progress",
        )
    if repo.commit_of(f"refs/heads/{BRANCH_PREFIX.rstrip('/')}"):
        raise RefusedError(
            f"A branch named {BRANCH_PREFIX.rstrip('/')} leaves no room for branches below {BRANCH_PREFIX}.",
            hint="git branch -m autoresearch autoresearch-old",
            code="branch_in_the_way",
        )
    for campaign in ledger.campaigns():
        experiment = ledger.open_experiment(campaign.tag) if campaign.branch == head.branch else None
        if experiment is not None:
            raise RefusedError(
                f"Experiment {experiment.number} of the checked-out campaign {campaign.tag} is not decided.",
                hint="python scripts/status.py --wait 540, then python scripts/log_result.py",
                code="open_experiment",
            )
    return head, head.commit


@dataclass(frozen=True, kw_only=True)
class WorkTree:
    """What lies in the work tree beside the commit."""

    own: list[str]  # the user's untracked files and edited documents: left alone
    untracked: list[str]


def check_work_tree(repo: Repo, commit: str, *, ours: Sequence[str] = (), but: Sequence[str] = ()) -> WorkTree:
    """Refuse uncommitted changes of code; those of ``ours``, ``but`` not these, are none of the user's."""
    beside = [change for change in repo.changes(commit) if change.path != CONFIG_FILE]
    changes = [change for change in beside if in_scope(change.path, but) or not in_scope(change.path, ours)]
    staged = any(change.path == RESULTS_FILE and change.tracked for change in changes)
    if staged or RESULTS_FILE in repo.files(commit):
        raise RefusedError(
            f"git tracks {RESULTS_FILE}, which has to be a view of the ledger that no commit holds.",
            hint=f'git rm --cached {RESULTS_FILE} && git commit -m "untrack {RESULTS_FILE}"',
            code="results_tracked",
        )
    tracked = [change for change in changes if change.tracked]
    refused = [change for change in tracked if not _may_stay(change, repo, commit)]
    if refused:
        names = ", ".join(change.path for change in refused[:NAMED_AT_MOST])
        more = f" and {len(refused) - NAMED_AT_MOST} more" if len(refused) > NAMED_AT_MOST else ""
        raise RefusedError(
            f"Uncommitted changes would be in no trial: {names}{more}.",
            hint='Keep them: git commit -am "work in progress"; or set them aside: git stash',
            code="uncommitted_changes",
        )
    untracked = [change.path for change in changes if not change.tracked]
    return WorkTree(own=[*untracked, *(change.path for change in tracked)], untracked=untracked)


def _may_stay(change: Change, repo: Repo, commit: str) -> bool:
    if change.submodule or change.kind not in ("modified", "added", "deleted"):
        return False
    if change.path in MEMO_FILES:
        # An interrupted set-up has written its block; anything else of the user's would end up in our commit.
        committed = repo.text(commit, change.path) or ""
        return without_block(read_memo(repo.project / change.path)) == without_block(committed)
    return DOCUMENTS.fullmatch(change.path) is not None and not DEPENDENCIES.fullmatch(change.path)


def check_edit_is_committed(work_tree: WorkTree, config: Config) -> None:
    """An untracked file within ``edit`` would become part of the first experiment, and go with it."""
    loose = [path for path in work_tree.untracked if in_scope(path, config.edit) and not _is_excluded(path)]
    if loose:
        raise RefusedError(
            f"Not committed, and within `edit`: {', '.join(loose[:NAMED_AT_MOST])}.",
            hint=f"git add {shlex.quote(loose[0])} && git commit -m start; or move it out of the folder",
            code="edit_not_committed",
        )


def own_files(work_tree: WorkTree, config: Config, project: Path) -> dict[str, str]:
    """Marks of the user's own files, by which later commands know that they are untouched."""
    own = [path for path in work_tree.own if not _is_excluded(path) and not in_scope(path, config.link)]
    return {path: file_mark(project / path) for path in own}


def _is_excluded(path: str) -> bool:
    parts = PurePosixPath(path).parts
    name = parts[-1]
    return "__pycache__" in parts or path in MEMO_FILES or any(fnmatch(name, line) for line in EXCLUDED)
