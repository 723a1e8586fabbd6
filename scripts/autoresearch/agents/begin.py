"""The beginning of a night, or of several in one session: checked, set up, recorded, supervised, and at work."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from autoresearch.agents.checks import require
from autoresearch.agents.leftovers import leftovers
from autoresearch.agents.night import Night, NightFolder, Options, alone, nights
from autoresearch.agents.policy import FINISHED, Pace
from autoresearch.agents.profile import Profile, load_profile
from autoresearch.agents.supervisor import attach_line
from autoresearch.agents.task import task_text
from autoresearch.agents.team import Member, join, recover_worktree
from autoresearch.agents.terminal import Terminal
from autoresearch.campaign.opened import find_campaign, home_of, open_ledger
from autoresearch.errors import AgentError, AutoresearchError, NoCampaignError, RefusedError, UsageError
from autoresearch.output import EXIT_INTERRUPTED, one_line
from autoresearch.repo import Repo

MAIN = Path(__file__).with_name("__main__.py")
POLL_S = 0.2
START_PATIENCE_S = 180.0

Watched = tuple[NightFolder, Night]


class GoesOnError(AutoresearchError):
    """A person or a signal ended the command; what it waited for goes on without it."""

    exit_code = EXIT_INTERRUPTED
    default_code = "interrupted"


def start(options: Options) -> list[Watched]:
    """Start a night and wait until its agent is at work.

    Sets the campaign up where there is none of this tag. Afterwards ``night/`` in the campaign's state
    folder holds the record, and a supervisor of its own watches. ``MachineError`` for what is missing
    on this machine, ``AgentError`` if the agent does not come to work.
    """
    options = replace(options, project=str(_home(options)))
    repo = Repo(Path(options.project))
    folder = NightFolder.of(repo.state_dir, options.tag)
    with _one_after_the_other(repo):
        _refuse_remains(folder)
        _check([(folder, options)], adopts=False)
        _set_up_on_the_way(options)
        return _begin([(folder, _new_night(options))])


def start_team(options: Options, team: Sequence[Member]) -> list[Watched]:
    """Start a night for each of ``team`` in one session, and wait until all agents are at work; else as ``start``.

    One supervisor watches them all. ``options`` are what is common to them.
    """
    repo = Repo(Path(options.project))
    folders = [NightFolder.of(repo.state_dir, member.tag) for member in team]
    with _one_after_the_other(repo):
        for folder in folders:
            _refuse_remains(folder)
        _check([(folder, options) for folder in folders], adopts=False)
        each = join(options, team, date.today())  # noqa: DTZ011 - the user's day
        for own in each:
            _set_up_on_the_way(own)
        return _begin([(folder, _new_night(own)) for folder, own in zip(folders, each, strict=True)])


def resume(project: Path, found: Sequence[Watched], caps: dict[str, Any]) -> list[Watched]:
    """Go on with nights after their supervisor, tmux or the machine went down, or after they were stopped.

    The conversation goes on where the client can; ``caps`` are those that change. What was used before
    counts on, unless the night had ended. ``project`` is where the command was given.
    """
    repo = Repo(project)
    with _one_after_the_other(repo):
        for _, night in found:
            if night.options.team:
                recover_worktree(repo, night.options.tag)
        again = [(folder, _night_again(night, caps)) for folder, night in found]
        adopts = any(terminal_of(night).exists() for _, night in again)
        _check([(folder, night.options) for folder, night in again], adopts=adopts)
        for _, night in again:
            _set_up_on_the_way(night.options)
        return _begin(again)


def _one_after_the_other(repo: Repo) -> contextlib.AbstractContextManager[None]:
    """Of two launchers the second looks at what is there once the first has its agents at work."""
    return alone(os.open(repo.common_dir, os.O_RDONLY | os.O_CLOEXEC))  # a folder: nothing has to be written


def terminal_of(night: Night) -> Terminal:
    options = night.options
    return Terminal(options.session, socket=options.socket or None, window=options.window)


def _new_night(options: Options) -> Night:
    return Night(options=options, mark=secrets.token_hex(8), started_at=timestamp())


def _night_again(night: Night, caps: dict[str, Any]) -> Night:
    memory = night.memory
    memory.nudges = memory.restarts = memory.failures = 0
    memory.freshened, memory.told, memory.has_progressed = False, "", False
    memory.all_restarts += 1  # so that the client is told that it was started again
    if night.state == "ended":
        memory.elapsed_s, memory.rows, night.tokens, night.cost_usd = 0.0, None, {}, {}
        night.started_at = timestamp()
    options = replace(night.options, caps=replace(night.options.caps, **caps))
    return replace(night, options=options, state="starting", reason="", ended_at="", waiting_until="")


def _check(each: Sequence[tuple[NightFolder, Options]], *, adopts: bool) -> None:
    """Refuse what cannot go well, before anything is set up."""
    options = each[0][1]
    profile = load_profile(options.agent)
    Pace.from_dict(profile.pace)
    _refuse_wishes(options, profile)
    for folder, own in each:
        _refuse_other_nights(folder, own)
    require(options, profile, adopts=adopts)


def _begin(found: Sequence[Watched]) -> list[Watched]:
    """Record the nights, start their supervisor and wait for their agents."""
    for folder, night in found:
        options = night.options
        folder.make()
        folder.take()  # wishes that no supervisor was there to hear
        folder.task.write_text(task_text(options), encoding="utf-8", newline="")
        folder.write(night)
        folder.tell("night", f"campaign {options.tag}: {load_profile(options.agent).title}, {options.permissions}")
    supervisor = _spawn([folder for folder, _ in found])
    with going_on(found[0][1].options, "is being started"):
        return _wait_for_all(found, supervisor)


def timestamp() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _home(options: Options) -> Path:
    """The campaign's own folder, if it is set up: the command may come from a sub-folder or another worktree."""
    here = Path(options.project)
    with contextlib.suppress(NoCampaignError), open_ledger(here) as (repo, ledger):
        return home_of(repo, find_campaign(repo, ledger, options.tag)).project
    return here


def _refuse_wishes(options: Options, profile: Profile) -> None:
    """What this client cannot do."""
    if options.permissions == "allowlist" and not profile.obeys_allowlist:
        raise UsageError(
            f"{profile.title} cannot be held to a list of what it may do, so --permissions allowlist is not for it.",
            hint="Take Claude Code, --agent claude, or --permissions bypass on a machine that may come to harm.",
            code="no_allowlist",
        )
    unheard = {"--goal": options.goal and not profile.listens, "--task": options.task and not profile.listens}
    unheard["--model"] = options.model and not profile.args.model
    if flags := [flag for flag, is_unheard in unheard.items() if is_unheard]:
        raise UsageError(
            f"{profile.title} takes no {flags[0]}.", hint=f"Leave {flags[0]} out, or choose another --agent."
        )


@contextlib.contextmanager
def going_on(options: Options, what: str) -> Iterator[None]:
    """Say what goes on if this command is interrupted while it only waits."""
    try:
        yield
    except KeyboardInterrupt:
        raise GoesOnError(
            f"Interrupted; the night of campaign {options.tag} {what} all the same.",
            hint=f"python scripts/launch_tmux.py --session {options.session} --status, or --stop --now",
        ) from None


def _refuse_other_nights(folder: NightFolder, options: Options) -> None:
    """Two agents in one working tree would edit the same files."""
    for other in nights(folder.path.parent.parent):
        if not other.is_watched():
            continue
        night = other.read()
        if night is not None and (other == folder or night.options.project == options.project):
            raise AgentError(
                f"A night runs in {options.project} already: campaign {night.options.tag}, "
                f"tmux session {night.options.session}.",
                hint=f"python scripts/launch_tmux.py --session {night.options.session} --status",
                code="already_running",
            )


def _refuse_remains(folder: NightFolder) -> None:
    """A new night would forget what one without a supervisor has left running."""
    night = folder.read()
    if night is None or folder.is_watched() or not (terminal_of(night).has_window() or leftovers(night.mark)):
        return
    command = f"python scripts/launch_tmux.py --session {night.options.session}"
    raise AgentError(
        f"The last night of campaign {night.options.tag} still runs, without a supervisor.",
        hint=f"Go on with it: {command} --resume; or end it: {command} --stop",
        code="unwatched",
    )


def _set_up_on_the_way(options: Options) -> None:
    """A campaign of this tag: the one that is there, or a new one with what can be detected."""
    from autoresearch.campaign.setup import set_up
    from autoresearch.campaign.setup_plan import Request

    project = Path(options.project)
    try:
        with open_ledger(project) as (repo, ledger):
            campaign = find_campaign(repo, ledger, options.tag)
            if not campaign.setup.get("complete", True):
                raise NoCampaignError("The set-up was interrupted.")
            branch = repo.head().branch or "no branch"
            if branch != campaign.branch:
                raise RefusedError(
                    f"HEAD is on {branch}; campaign {campaign.tag} works on {campaign.branch}.",
                    hint=f"git switch {campaign.branch}",
                    code="wrong_branch",
                )
            return
    except NoCampaignError:
        pass
    set_up(Request(project=project, tag=options.tag, agents_md=True), date.today())  # noqa: DTZ011 - the user's day


def _spawn(folders: Sequence[NightFolder]) -> subprocess.Popen[bytes]:
    """Start the supervisor of all, in a session of its own, as nobody's child once we have ended."""
    with folders[0].log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(MAIN), *(str(folder.path) for folder in folders)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


def _wait_for_all(found: Sequence[Watched], supervisor: subprocess.Popen[bytes]) -> list[Watched]:
    """The nights once their agents are at work. One that does not come keeps nobody from hearing of the others."""
    begun: list[Watched] = []
    failed: list[tuple[str, AgentError]] = []
    for folder, night in found:
        try:
            begun.append((folder, _wait_for_work(folder, load_profile(night.options.agent), supervisor)))
        except AgentError as error:
            failed.append((night.options.tag, error))
    if failed:
        first = failed[0][1]
        if len(found) == 1:
            raise first
        told = " ".join(f"{tag}: {error.message}" for tag, error in failed)
        raise AgentError(f"{len(begun)} of {len(found)} agents are at work. {told}", hint=first.hint, code=first.code)
    return begun


def _wait_for_work(folder: NightFolder, profile: Profile, supervisor: subprocess.Popen[bytes]) -> Night:
    began = time.monotonic()
    while True:
        waited_s = time.monotonic() - began
        has_ended = supervisor.poll() is not None
        night = folder.read()
        assert night is not None, "it was written before the supervisor was started"
        if night.state in ("working", "waiting"):
            return night
        if night.state == "ended":
            if night.reason == FINISHED or night.memory.has_progressed:  # short nights end before we look
                return night
            raise AgentError(
                f"The night ended before {profile.title} came to work: {night.reason}.",
                hint="python scripts/launch_tmux.py --logs",
                code="not_at_work",
            )
        if night.state == "handover":
            raise AgentError(
                f"{profile.title} needs you: {night.reason}. The night goes on as soon as that is answered.",
                hint=attach_line(night),
                code="handover",
            )
        if has_ended:
            raise AgentError(
                f"The supervisor has ended with exit code {supervisor.returncode}: {_last_line(folder.log)}",
                hint=f"See {folder.log}; then python scripts/launch_tmux.py --session {night.options.session} --resume",
                code="not_at_work",
            )
        if waited_s > START_PATIENCE_S:
            raise AgentError(
                f"{profile.title} is not at work after {waited_s:.0f} s (state: {night.state}).",
                hint=f"Look at it: {attach_line(night)}",
                code="not_at_work",
            )
        time.sleep(POLL_S)


def _last_line(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return one_line(lines[-1], 300) if lines else "it said nothing"
