"""Set a campaign up: look, check, and only then write, in an order that a second run can complete.

The ledger's row is the journal. Before it, nothing is written but files whose content a second run
writes again; after it, ``finish`` makes branch, HEAD, exclude list, results.tsv and memo equal the
row, each step repeatable, and marks the row complete.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

from autoresearch.campaign.configure import with_wishes
from autoresearch.campaign.detect import Finding
from autoresearch.campaign.entry import SETUP, Project
from autoresearch.campaign.memo import memo_files, read_memo, render_block, replace_text, with_block, write_tracked
from autoresearch.campaign.memory import remember
from autoresearch.campaign.needs import Data, is_missing
from autoresearch.campaign.opened import RESULTS_FILE, lock
from autoresearch.campaign.preflight import EXCLUDED, own_files
from autoresearch.campaign.setup_plan import (
    Plan,
    Request,
    SetUp,
    config_text,
    make_plan,
    preview,
    preview_starter,
)
from autoresearch.campaign.starter import plant
from autoresearch.campaign.trials import path_without_script_environment
from autoresearch.campaign.wishes import Wishes
from autoresearch.config import CONFIG_FILE, Config
from autoresearch.errors import MachineError, NeedsHumanError, RefusedError, StillRunningError
from autoresearch.guard import fingerprint_data, in_scope
from autoresearch.ledger import Campaign, Ledger
from autoresearch.repo import Repo
from autoresearch.results import render_results, write_results


def set_up(request: Request, today: date) -> SetUp:
    """Begin a campaign in ``request.project``; with ``dry_run`` write nothing at all.

    A set-up that was killed is completed, under the tag and config it had.
    """
    request.wishes.check()
    if request.starter is not None:
        if request.dry_run:
            return preview_starter(request, today)
        plant(request.starter, request.project)
    repo = Repo(request.project)
    if request.dry_run:
        with Ledger(repo.state_dir) as ledger:
            return preview(repo, ledger, make_plan(repo, ledger, request, today))
    with _only_set_up(repo):
        with Ledger(repo.state_dir) as ledger:
            campaign = _interrupted(repo, ledger, request)
            plan = None if campaign is not None else make_plan(repo, ledger, request, today)
        data = {} if plan is None else _fingerprint(plan.made.data, repo.project, prepare=request.prepare)
        with Ledger(repo.state_dir, create=True) as ledger:
            if plan is not None:
                campaign = _record(plan, repo, ledger, data, request)
            assert campaign is not None
            return finish(repo, ledger, campaign)


@contextmanager
def _only_set_up(repo: Repo) -> Iterator[None]:
    """Keep a second set-up out; the folder's name is none that a tag can have."""
    try:
        with lock(repo.state_dir / ".setup", wait_s=0.0):
            yield
    except StillRunningError as error:
        if error.code != "locked":
            raise
        raise StillRunningError(
            f"Another set-up is under way in {repo.root}.", hint="python scripts/status.py", code="locked"
        ) from None


def _fingerprint(data: Data, project: Path, *, prepare: bool) -> dict[str, Any]:
    """The fingerprint of the data; where it is missing it is made, or ``MachineError`` says how."""
    missing = data.missing
    if missing and data.prepare and prepare:
        _run(data.prepare, project)
        missing = tuple(path for path in data.paths if is_missing(path, project))
    if missing:
        put = "Put it there, or name the right place: --data DIR ('' for none)"
        raise MachineError(
            f"The data is not there: {', '.join(missing)}.",
            hint=_typed(data.prepare, project) if data.prepare else put,
            code="data_missing",
        )
    return fingerprint_data(data.paths, project)


def _typed(command: str, folder: Path) -> str:
    """``command`` as a person types it to run it in ``folder``."""
    return command if folder == Path.cwd() else f"cd {shlex.quote(str(folder))} && {command}"


def _run(command: str, folder: Path) -> None:
    """Run the project's own ``command`` to its end; its output is for the person who waits."""
    env = {**os.environ, "PATH": path_without_script_environment(os.environ.get("PATH", os.defpath))}
    try:
        code = subprocess.run(
            shlex.split(command),
            cwd=folder,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            check=False,
        ).returncode
    except FileNotFoundError as error:
        raise MachineError(f"{error.filename} is not on the PATH.", hint=_typed(command, folder)) from None
    if code:
        raise MachineError(
            f"{command} ended with exit code {code}; it has said above why.",
            hint=f"Mend it, then see it succeed: {_typed(command, folder)}",
            code="prepare_failed",
        )


def _record(plan: Plan, repo: Repo, ledger: Ledger, data: dict[str, Any], request: Request) -> Campaign:
    """Make the base commit and write the campaign's row; from here on a second run completes the set-up."""
    config = plan.made.config
    campaign = Campaign(
        tag=plan.tag, branch=plan.branch, base_commit="", project=str(repo.project),
        epoch=2 if plan.adopted else 1, config=config.to_dict(), setup={"team": request.team},
    )  # fmt: skip
    paths = [CONFIG_FILE, *plan.starter]
    if config_text(repo.project / CONFIG_FILE) != plan.made.text:
        replace_text(repo.project / CONFIG_FILE, plan.made.text)
    memos = memo_files(repo.project, plan.project.files, agents_md=request.agents_md)
    paths += write_tracked(campaign, config, repo.project, memos)
    commit = repo.commit_paths(plan.head_commit, paths, f"autoresearch: set up campaign {plan.tag}")
    same = repo.root_tree(commit) == repo.root_tree(plan.head_commit)
    campaign.base_commit = plan.head_commit if same else commit
    campaign.setup |= {
        "complete": False,
        "from_branch": plan.head_branch,
        "from_commit": plan.head_commit,
        "adopted_tip": plan.adopted_tip,
        "agents_md": request.agents_md,
        "own_files": own_files(plan.work_tree, config, repo.project),
        "data": data,
        "findings": [asdict(finding) for finding in plan.made.findings],
        "notes": plan.made.notes,
    }
    _set_leftovers_aside(repo, plan.tag)
    with ledger.transaction():
        ledger.add_campaign(campaign)
        for experiment in plan.adopted.experiments if plan.adopted else ():
            ledger.add_experiment(experiment)
        ledger.add_event(campaign.tag, "setup", f"campaign {campaign.tag} at {campaign.base_commit[:7]}")
    return campaign


def _set_leftovers_aside(repo: Repo, tag: str) -> None:
    """Trials of a campaign that the ledger has lost must not be taken for those of this one."""
    folder = repo.state_dir / tag
    if folder.exists():
        folder.rename(_free_name(repo.state_dir / f".{tag}.lost"))


def _free_name(path: Path) -> Path:
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_name(f"{path.name}.{number}")
    return free


def _interrupted(repo: Repo, ledger: Ledger, request: Request) -> Campaign | None:
    """A campaign whose set-up was killed here, if this is the same command again."""
    for campaign in ledger.campaigns():
        if campaign.setup.get("complete", True) or campaign.project != str(repo.project):
            continue
        if request.tag in (None, campaign.tag):
            _same_wishes(campaign, repo, request.wishes)
            return campaign
    return None


def _same_wishes(campaign: Campaign, repo: Repo, wishes: Wishes) -> None:
    text = repo.text(campaign.base_commit, CONFIG_FILE) or ""
    project = Project(folder=repo.project, files=repo.files(campaign.base_commit))
    if with_wishes(text, project, wishes)[1] != Config.from_dict(campaign.config):
        raise RefusedError(
            f"The set-up of {campaign.tag} was interrupted after it had recorded other settings.",
            hint=f"Complete it: {SETUP} --tag {campaign.tag}; then change them: {SETUP} --reconfigure",
            code="interrupted_setup",
        )


def finish(repo: Repo, ledger: Ledger, campaign: Campaign) -> SetUp:
    """Make everything outside the ledger equal the campaign's row; may be repeated."""
    setup = campaign.setup
    config = Config.from_dict(campaign.config)
    written = _check_out(repo, campaign)
    done = [f"branch {campaign.branch} is checked out at {campaign.base_commit[:7]}"]
    if written:
        done.append(f"its first commit adds {', '.join(written)}")
    tracked = repo.files(campaign.base_commit)
    memos = memo_files(repo.project, tracked, agents_md=setup["agents_md"])
    repo.exclude([*EXCLUDED, *_excluded(repo, config, [memo.path for memo in memos if not memo.tracked])])
    done.append("in .git/info/exclude: results.tsv and what else the loop writes")
    done += _results(repo, ledger, campaign)
    for memo in memos:
        if not memo.tracked:
            path = repo.project / memo.path
            block = render_block(campaign, config, repo.project, tracked=False)
            replace_text(path, with_block(read_memo(path), block, memo.path))
        where = "committed" if memo.tracked else "not committed"
        done.append(f"{memo.path} tells agents about the campaign, between markers; {where}")
    campaign.setup = {**setup, "complete": True}
    ledger.update_campaign(campaign, "setup")
    return SetUp(
        tag=campaign.tag, branch=campaign.branch, base_commit=campaign.base_commit, config=config,
        findings=[Finding(**finding) for finding in setup["findings"]], notes=list(setup["notes"]), done=done,
        memory=remember(ledger, repo, campaign.tag),
    )  # fmt: skip


def _check_out(repo: Repo, campaign: Campaign) -> list[str]:
    """Branch and HEAD at the base commit, the work tree as it is; returns the paths that the commit adds."""
    setup, base = campaign.setup, campaign.base_commit
    started_at: str = setup["from_commit"]
    written = repo.changed_paths(started_at, base)
    tip = repo.commit_of(f"refs/heads/{campaign.branch}")
    if tip is None or not repo.is_ancestor(base, tip):
        repo.set_branch(campaign.branch, base, setup["adopted_tip"], "set up")
        tip = base
    head = repo.head()
    if head.commit not in (started_at, tip):
        where = setup["from_branch"] or f"--detach {started_at[:7]}"
        raise NeedsHumanError(
            f"The set-up of {campaign.tag} was interrupted, and HEAD has moved since from {started_at[:7]}.",
            hint=f"git switch {where}, then run the command again",
            code="head_moved",
        )
    if tip == base:
        repo.attach(campaign.branch, written)
    return written


def _excluded(repo: Repo, config: Config, memos: Sequence[str]) -> list[str]:
    """Exclude lines for memos, and for links that git does not ignore."""
    ignored = repo.ignored()
    links = [link for link in config.link if not in_scope(link, ignored) and (repo.project / link).exists()]
    return [f"/{repo.prefix}{path}" for path in (*memos, *links)]


def _results(repo: Repo, ledger: Ledger, campaign: Campaign) -> list[str]:
    """Write results.tsv; one that is not ours is copied aside first."""
    path = repo.project / RESULTS_FILE
    done = [f"{RESULTS_FILE} is a view of the ledger"]
    if path.exists():
        found = path.read_bytes()
        digest = hashlib.sha256(found).hexdigest()
        ours = {known.view_sha256.removeprefix("!") for known in ledger.campaigns()}
        view = render_results(campaign.config["metric"]["name"], ledger.result_rows(campaign.tag))
        if digest not in ours and found != view.encode():
            done.append(f"the {RESULTS_FILE} that was there is kept as {_keep_aside(path, found, campaign.tag)}")
    write_results(path, ledger, campaign, repo.state_dir / campaign.tag / "hand-edits")
    return done


def _keep_aside(path: Path, content: bytes, tag: str) -> str:
    target = path.with_name(f"{path.name}.before-{tag}")
    if target.exists() and target.read_bytes() == content:  # an interrupted set-up got this far
        return target.name
    target = _free_name(target)
    partial = target.with_name(f"{target.name}.partial")
    partial.write_bytes(content)
    partial.replace(target)
    return target.name
