"""What a set-up will do, decided before anything is written."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path

from autoresearch.campaign.configure import Configured, configure
from autoresearch.campaign.detect import Finding
from autoresearch.campaign.entry import Project
from autoresearch.campaign.importing import Adopted, adopt, read_import
from autoresearch.campaign.memo import check_markers, memo_files, read_memo
from autoresearch.campaign.memory import Memory, remember
from autoresearch.campaign.opened import BRANCH_PREFIX
from autoresearch.campaign.preflight import (
    WorkTree,
    check_edit_is_committed,
    check_repository,
    check_tag,
    check_work_tree,
    free_tag,
    todays_tag,
)
from autoresearch.campaign.starter import STARTERS, check_room, starter_files
from autoresearch.campaign.wishes import Wishes
from autoresearch.config import CONFIG_FILE, Config, read_config_text
from autoresearch.errors import RefusedError, UsageError
from autoresearch.ledger import Ledger
from autoresearch.repo import Repo


@dataclass(frozen=True, kw_only=True)
class Request:
    """What ``setup_campaign.py`` is asked for."""

    project: Path
    wishes: Wishes = field(default_factory=Wishes)
    tag: str | None = None
    starter: str | None = None
    prepare: bool = False  # make the data where it is missing
    import_file: Path | None = None
    agents_md: bool = False
    dry_run: bool = False
    team: str = ""  # the session whose agents work side by side, each on a campaign of its own


@dataclass(kw_only=True)
class SetUp:
    """What was set up, or with ``dry_run`` would be."""

    tag: str
    branch: str
    base_commit: str
    config: Config
    findings: list[Finding]
    notes: list[str]
    done: list[str] = field(default_factory=list)  # what was written, in sentences
    memory: Memory | None = None  # what earlier campaigns tried; None where the project is not copied yet
    dry_run: bool = False


@dataclass(kw_only=True)
class Plan:
    """All that is decided before anything is written."""

    tag: str
    head_branch: str | None
    head_commit: str
    adopted_tip: str | None  # of the branch of an imported run; None: the branch is new
    made: Configured
    project: Project
    work_tree: WorkTree
    adopted: Adopted | None
    starter: list[str]

    @property
    def branch(self) -> str:
        return f"{BRANCH_PREFIX}{self.tag}"


def make_plan(repo: Repo, ledger: Ledger, request: Request, today: date) -> Plan:
    """Look at everything, refuse what cannot be; nothing is written."""
    head, commit = check_repository(repo, ledger)
    adopts, tag = _tag(repo, ledger, request, head.branch, today)
    starter = list(starter_files(request.starter)) if request.starter else []
    work_tree = check_work_tree(repo, commit, ours=starter)
    own_config = repo.project / CONFIG_FILE
    project = Project(
        folder=repo.project,
        files=sorted({*repo.files(commit), *starter}),
        ignored=repo.ignored(),
        untracked=work_tree.untracked,
    )
    earlier = None if request.import_file is None else read_import(_found(request.import_file, repo.project))
    wishes = request.wishes if earlier is None else _with_metric(request.wishes, earlier.metric)
    made = configure(project, wishes, existing=config_text(own_config))
    check_edit_is_committed(work_tree, made.config)
    adopted = None
    if earlier is not None and request.import_file is not None:
        if made.config.metric.name != earlier.metric:
            raise UsageError(
                f"{request.import_file.name} holds {earlier.metric}, and the campaign is about "
                f"{made.config.metric.name}.",
                hint=f"Set the same metric: --metric {earlier.metric}",
                code="import_other_metric",
            )
        adopted = adopt(earlier, repo, tag, commit, request.import_file.name)
        made.notes += _about_import(adopted, commit)
    memos = memo_files(repo.project, project.files, agents_md=request.agents_md)
    for memo in memos:  # malformed markers are an error before anything is written
        check_markers(read_memo(repo.project / memo.path), memo.path)
    return Plan(
        tag=tag, head_branch=head.branch, head_commit=commit, adopted_tip=commit if adopts else None,
        made=made, project=project, work_tree=work_tree, adopted=adopted, starter=starter,
    )  # fmt: skip


def _tag(repo: Repo, ledger: Ledger, request: Request, branch: str | None, today: date) -> tuple[bool, str]:
    """(whether the checked-out branch of an earlier run is taken over, the campaign's tag)."""
    if request.import_file is not None:
        here = (branch or "").removeprefix(BRANCH_PREFIX) if (branch or "").startswith(BRANCH_PREFIX) else None
        wanted = request.tag or here
        if wanted is not None and ledger.campaign(wanted) is None and repo.branches(f"{BRANCH_PREFIX}{wanted}"):
            if wanted != here:
                raise RefusedError(
                    f"The branch {BRANCH_PREFIX}{wanted} of the run to import is not checked out.",
                    hint=f"git switch {BRANCH_PREFIX}{wanted}, then run the command again",
                    code="import_other_branch",
                )
            return True, wanted
    if request.tag is None:
        return False, free_tag(repo, ledger, today)
    check_tag(request.tag, repo, ledger, today)
    return False, request.tag


def _found(path: Path, project: Path) -> Path:
    """``path`` as given, or within the project where the caller stands elsewhere."""
    return path if path.expanduser().exists() else project / path


def _with_metric(wishes: Wishes, metric: str) -> Wishes:
    return wishes if wishes.metric is not None else Wishes(**{**asdict(wishes), "metric": metric})


def config_text(path: Path) -> str | None:
    if not path.exists():
        return None
    return read_config_text(path)


def _about_import(adopted: Adopted, head: str) -> list[str]:
    notes = [
        f"{len(adopted.experiments)} earlier experiments are adopted as epoch 1. Their numbers are of single "
        "runs, so epoch 2 begins with a fresh baseline of the code as it is now."
    ]
    if adopted.unknown:
        notes.append(f"{adopted.unknown} of their commits are not in this repository; the rows stay, with a note.")
    if adopted.beyond:
        notes.append(f"{adopted.beyond} kept commits are not on this branch.")
    if adopted.incumbent is not None and adopted.incumbent.commit != head:
        notes.append(
            f"HEAD is not at the last kept commit {adopted.incumbent.commit[:7]}; what came after it is part "
            "of the new baseline."
        )
    return notes


def preview(repo: Repo, ledger: Ledger, plan: Plan) -> SetUp:
    """What a set-up would do."""
    notes = list(plan.made.notes)
    data = plan.made.data
    if data.missing:
        how = f"; first run: {data.prepare}" if data.prepare else ""
        notes.append(f"the data is not there: {', '.join(data.missing)}{how}")
    return SetUp(
        tag=plan.tag, branch=plan.branch, base_commit=plan.head_commit, config=plan.made.config,
        findings=plan.made.findings, notes=notes, dry_run=True, memory=remember(ledger, repo, plan.tag),
        done=[f"would make branch {plan.branch} on {plan.head_commit[:7]} in {repo.root}"],
    )  # fmt: skip


def preview_starter(request: Request, today: date) -> SetUp:
    """What a set-up would do with a starter that is not copied yet."""
    assert request.starter is not None
    check_room(request.starter, request.project)
    files = list(starter_files(request.starter))
    folder = STARTERS / request.starter
    existing = config_text(folder / CONFIG_FILE)
    made = configure(Project(folder=folder, files=files), request.wishes, existing=existing)
    tag = request.tag or todays_tag(today)
    return SetUp(
        tag=tag, branch=f"{BRANCH_PREFIX}{tag}", base_commit="", config=made.config,
        findings=made.findings, notes=made.notes, dry_run=True,
        done=[f"would copy {', '.join(files)} into {request.project.resolve()}"],
    )  # fmt: skip
