"""The project and its campaign: what a set-up or the next experiment would meet here. Nothing is changed."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from itertools import takewhile
from pathlib import Path

from autoresearch.agents.check import GIB, MIB, Check, failed, passed, refused, size, warning
from autoresearch.agents.leftovers import RUNNER
from autoresearch.campaign.driver import is_driven
from autoresearch.campaign.needs import is_missing
from autoresearch.campaign.opened import OpenCampaign, find_campaign, home_of
from autoresearch.campaign.setup_plan import Plan, Request, make_plan
from autoresearch.campaign.trials import training_python, trial_environment
from autoresearch.config import Config
from autoresearch.errors import AutoresearchError, NoCampaignError
from autoresearch.executors import State, executor_for
from autoresearch.first_commit import first_commit_hint
from autoresearch.guard import data_drift, environment_drift, environment_fingerprint, fingerprint_data
from autoresearch.ledger import Campaign, Ledger, Trial
from autoresearch.repo import Repo
from autoresearch.runner.processes import command_line, pids
from autoresearch.trial import RESULT_FILE

MEASURED_TRIALS = 20  # the last ones tell what a trial takes
NIGHT_TRIALS = 200
LOW_BYTES = 1 * GIB
TOO_LOW_BYTES = 50 * MIB  # for git, the ledger and a log
LOW_INODES = 1000
NAMED_AT_MOST = 3
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"
PYTHONS = re.compile(r"python[\d.]*|pypy[\d.]*|uv|torchrun|accelerate")


def check_repository(repo: Repo) -> Check:
    """A repository with a commit, and nothing under way in it."""
    name, head = "project", repo.head()
    if head.commit is None:
        text = f"{repo.root} has no commit yet, and a campaign begins at one"
        return failed(name, text, first_commit_hint(repo.root))
    operation = repo.operation_in_progress()
    if operation:
        end = "git bisect reset" if operation == "bisect" else f"git {operation} --abort"
        return failed(name, f"a {operation} is under way in {repo.root}", f"Finish it, or: {end}")
    where = f"branch {head.branch}" if head.branch else "HEAD is detached"
    return passed(name, f"{repo.project}, {where}, at {head.commit[:7]}")


def opened(repo: Repo, ledger: Ledger, tag: str | None = None) -> OpenCampaign | None:
    """The campaign as a command would find it, without its lock: only to look; None if there is none."""
    try:
        campaign = find_campaign(repo, ledger, tag)
    except NoCampaignError:
        if tag is None:
            return None
        raise
    config = Config.from_dict(campaign.config, source=f"the config of campaign {campaign.tag}")
    return OpenCampaign(repo=home_of(repo, campaign), ledger=ledger, campaign=campaign, config=config)


def check_set_up(repo: Repo, ledger: Ledger) -> Iterator[Check]:
    """What a set-up would find where there is no campaign."""
    try:
        plan = make_plan(repo, ledger, Request(project=repo.project), date.today())  # noqa: DTZ011 - the user's day
    except AutoresearchError as error:
        yield refused("campaign", error)
        return
    config = plan.made.config
    yield Check(
        name="campaign", ok=True,
        text=f"none yet; set-up would run `{config.command}` for {config.budget_s:g} s, "
        f"for {'less' if config.metric.lower_is_better else 'more'} {config.metric.name}",
        hint="python scripts/setup_campaign.py",
    )  # fmt: skip
    yield _check_planned_data(plan)
    yield from check_bytecode(config.command)


def _check_planned_data(plan: Plan) -> Check:
    data = plan.made.data
    if data.missing:
        hint = data.prepare or "Put it there, or name the right place: python scripts/setup_campaign.py --data DIR"
        return failed("data", f"not there: {', '.join(data.missing)}", hint)
    return passed("data", ", ".join(data.paths) or "none is named in the code")


def check_campaign(oc: OpenCampaign) -> Iterator[Check]:
    """The campaign that is there: its branch, data, environment."""
    yield _check_state(oc)
    yield _check_branch(oc)
    yield _check_data(oc)
    yield _check_environment(oc)
    yield from check_bytecode(oc.config.command)


def _check_state(oc: OpenCampaign) -> Check:
    if not oc.campaign.setup.get("complete", True):
        return warning(
            "campaign", f"the set-up of {oc.tag} was interrupted", f"python scripts/setup_campaign.py --tag {oc.tag}"
        )
    counts = oc.ledger.counts(oc.tag)
    told = ", ".join(f"{count} {status}" for status, count in sorted(counts.items()) if count) or "no experiment yet"
    return passed("campaign", f"{oc.tag}: {told}")


def _check_branch(oc: OpenCampaign) -> Check:
    head = oc.repo.head()
    if head.branch == oc.branch:
        return passed("branch", f"{oc.branch} is checked out")
    where = f"on {head.branch}" if head.branch else "detached"
    return failed("branch", f"HEAD is {where}; campaign {oc.tag} works on {oc.branch}", f"git switch {oc.branch}")


def _check_data(oc: OpenCampaign) -> Check:
    paths, name = oc.config.data, "data"
    if not paths:
        return passed(name, "none is named in the settings")
    if missing := [path for path in paths if is_missing(path, oc.repo.project)]:
        return failed(name, f"not there: {', '.join(missing)}", "Make it again as it was made at set-up.")
    before = oc.campaign.setup.get("data") or {}
    drift = data_drift(before, fingerprint_data(paths, oc.repo.project, previous=before)) if before else []
    if drift:
        return failed(
            name, f"changed since set-up: {'; '.join(drift[:NAMED_AT_MOST])}",
            "Put it back, or begin anew with it: python scripts/setup_campaign.py --reconfigure",
        )  # fmt: skip
    return passed(name, f"{', '.join(paths)}, as at set-up" if before else ", ".join(paths))


def _check_environment(oc: OpenCampaign) -> Check:
    """The training's interpreter, packages and machine against those of the baseline."""
    name, before = "environment", oc.campaign.environment
    experiments = oc.ledger.experiments(oc.tag, last=1)
    if not before or not experiments:
        return passed(name, "recorded with the baseline, to compare with later")
    env = trial_environment(oc, experiments[0], 1, "")
    now = environment_fingerprint(training_python(oc.config, oc.repo.project), cwd=oc.repo.project, env=env)
    drift = environment_drift(before, now)
    if drift:
        more = f" and {len(drift) - NAMED_AT_MOST} more" if len(drift) > NAMED_AT_MOST else ""
        return warning(
            name, f"differs from the baseline's: {'; '.join(drift[:NAMED_AT_MOST])}{more}",
            "Bring it back, or measure a new baseline: python scripts/setup_campaign.py --reconfigure",
        )  # fmt: skip
    return passed(name, "as at the baseline")


def check_bytecode(command: str) -> Iterator[Check]:
    """A warning where each trial of a Python ``command`` would compile its modules anew; nothing else."""
    words = shlex.split(command)
    assigned = dict(word.split("=", 1) for word in takewhile(lambda word: "=" in word, words))
    program = next((word for word in words if "=" not in word), "")
    value = assigned.get(NO_BYTECODE, os.environ.get(NO_BYTECODE, ""))
    if not value or not PYTHONS.fullmatch(Path(program).name):
        return
    hint = f"unset {NO_BYTECODE}"
    if NO_BYTECODE in assigned:
        without = re.sub(rf"(?<!\S){NO_BYTECODE}=\S*\s+", "", command)
        hint = f"python scripts/setup_campaign.py --reconfigure --command {shlex.quote(without)}"
    yield warning(
        "bytecode",
        f"{NO_BYTECODE}={value} reaches the trials: each compiles anew whatever is installed without .pyc files, "
        "6 to 8 s at each start where that is torch",
        hint,
    )


# ---- the disk


def check_disk(repo: Repo, campaign: Campaign | None) -> Check:
    """Room for git, the ledger and a night of trials, by what the last ones took."""
    name, place = "disk", repo.state_dir if repo.state_dir.exists() else repo.common_dir
    if not os.access(place, os.W_OK):
        return failed(name, f"{place} cannot be written", f"Mend its rights: ls -ld {shlex.quote(str(place))}")
    free = shutil.disk_usage(place).free
    stat = os.statvfs(place)
    if stat.f_files and stat.f_favail < LOW_INODES:
        return failed(name, f"room for only {stat.f_favail} more files in {place}", f"df -i {shlex.quote(str(place))}")
    folder = None if campaign is None else repo.state_dir / campaign.tag / "trials"
    taken = [] if folder is None else _taken_by_trials(folder)
    each = sum(taken) / len(taken) if taken else 0.0
    told = f"{size(free)} free"
    if taken:
        told += f"; a trial takes {size(each)}"
    hint = f"df -h {shlex.quote(str(place))}"
    if free < max(TOO_LOW_BYTES, 2 * each):
        return failed(name, told, hint)
    if free < NIGHT_TRIALS * each:
        return warning(name, f"{told}, so it is full after {free / each:.0f}", hint)
    if free < LOW_BYTES:
        return warning(name, told, hint)
    return passed(name, told)


def _taken_by_trials(folder: Path) -> list[int]:
    """Bytes on the disk of the last trials that were started."""
    trials = sorted((path for path in folder.glob("*") if path.is_dir()), key=lambda path: path.stat().st_mtime)
    return [_taken_by(path) for path in trials[-MEASURED_TRIALS:]]


def _taken_by(folder: Path) -> int:
    return sum(512 * path.lstat().st_blocks for path in folder.rglob("*"))


# ---- what others left


def check_leftovers(repo: Repo, ledger: Ledger) -> Check:
    """Trials that run, that have died, and runners that no ledger knows any more."""
    name = "trials"
    waiting = {campaign.tag: ledger.open_trials(campaign.tag) for campaign in ledger.campaigns()}
    known = {trial.directory for trials in waiting.values() for trial in trials}
    lost = " ".join(str(pid) for pid, folder in _runners(repo.state_dir) if folder not in known)
    if lost:
        return warning(name, f"no campaign knows the trials of the runners {lost}", f"kill {lost}")
    states = {
        trial.id: _is_running(campaign, trial)
        for campaign in ledger.campaigns()
        for trial in _without_result(waiting[campaign.tag])
    }
    dead = [trial for trial, runs in states.items() if not runs]
    if dead:
        return warning(
            name, f"{', '.join(dead[:NAMED_AT_MOST])} ended without a result; the next command takes that in",
            "python scripts/status.py",
        )  # fmt: skip
    driven = [tag for tag in waiting if is_driven(repo.state_dir / tag)]
    ahead = f"; a driver starts what comes next in {', '.join(driven)}" if driven else ""
    text = f"{', '.join(states)} is running" if states else "none is running, none was left behind"
    return passed(name, text + ahead)


def _without_result(trials: Sequence[Trial]) -> list[Trial]:
    return [trial for trial in trials if not (Path(trial.directory) / RESULT_FILE).exists()]


def _is_running(campaign: Campaign, trial: Trial) -> bool:
    if not trial.handle:  # the command that was to start it has been killed, or is at it
        return False
    executor = executor_for(Config.from_dict(campaign.config).executor)
    return executor.poll([trial.handle])[trial.id] is not State.GONE or not _without_result([trial])


def _runners(state_dir: Path) -> Iterator[tuple[int, str]]:
    """(pid, the trial's folder) of each runner of a trial in this repository."""
    for pid in pids():
        words = command_line(pid)
        if any(word.endswith(RUNNER) for word in words) and Path(words[-1]).is_relative_to(state_dir):
            yield pid, str(Path(words[-1]).parent)


def latest_record(ledger: Ledger) -> datetime | None:
    """The newest time that the ledger tells."""
    tags = [campaign.tag for campaign in ledger.campaigns()]
    times = [event.at for tag in tags for event in ledger.events(tag, last=1)]
    times += [each.decided_at or each.created_at for tag in tags for each in ledger.experiments(tag, last=1)]
    return max((datetime.fromisoformat(each) for each in times if each), default=None)
