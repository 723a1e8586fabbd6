"""What a person does with a night: start it, look at it, steer it, stop it."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from autoresearch.agents.checks import require
from autoresearch.agents.leftovers import leftovers
from autoresearch.agents.morning import Report
from autoresearch.agents.night import EVENT_WIDTH, Night, NightFolder, Options, nights
from autoresearch.agents.policy import FINISHED, Pace
from autoresearch.agents.profile import Profile, load_profile
from autoresearch.agents.supervisor import attach_line
from autoresearch.agents.task import task_text
from autoresearch.agents.terminal import Terminal
from autoresearch.campaign.opened import find_campaign, home_of, open_ledger
from autoresearch.errors import AgentError, AutoresearchError, NoCampaignError, RefusedError, UsageError
from autoresearch.ledger.records import now as timestamp
from autoresearch.output import EXIT_INTERRUPTED, fenced, one_line
from autoresearch.repo import Repo
from autoresearch.runner.processes import read_process

MAIN = Path(__file__).with_name("__main__.py")
POLL_S = 0.2
START_PATIENCE_S = 180.0
SEND_PATIENCE_S = 60.0
LAST_MOMENTS_S = 2.0  # of a supervisor that has let the lock go
TAIL_LINES = 20


class GoesOnError(AutoresearchError):
    """A person or a signal ended the command; what it waited for goes on without it."""

    exit_code = EXIT_INTERRUPTED
    default_code = "interrupted"


def start(options: Options) -> tuple[NightFolder, Night]:
    """Start a night and wait until its agent is at work.

    Sets the campaign up where there is none of this tag. Afterwards ``night/`` in the campaign's state
    folder holds the record, and a supervisor of its own watches. ``MachineError`` for what is missing
    on this machine, ``AgentError`` if the agent does not come to work.
    """
    options = replace(options, project=str(_home(options)))
    folder = NightFolder.of(Repo(Path(options.project)).state_dir, options.tag)
    _refuse_remains(folder)
    night = Night(options=options, mark=secrets.token_hex(8), started_at=_now())
    return _begin(folder, night, adopts=False)


def resume(folder: NightFolder, night: Night, caps: dict[str, Any]) -> tuple[NightFolder, Night]:
    """Go on with a night after its supervisor, tmux or the machine went down, or after it was stopped.

    The conversation goes on where the client can; ``caps`` are those that change. What was used before
    counts on, unless the night had ended.
    """
    memory = night.memory
    memory.nudges = memory.restarts = memory.failures = 0
    memory.freshened, memory.told = False, ""
    memory.all_restarts += 1  # so that the client is told that it was started again
    if night.state == "ended":
        memory.elapsed_s, memory.rows, night.tokens, night.cost_usd = 0.0, None, {}, {}
        night.started_at = _now()
    options = replace(night.options, caps=replace(night.options.caps, **caps))
    night = replace(night, options=options, state="starting", reason="", ended_at="", waiting_until="")
    return _begin(folder, night, adopts=_terminal(night).exists())


def _terminal(night: Night) -> Terminal:
    return Terminal(night.options.session, socket=night.options.socket or None)


def _begin(folder: NightFolder, night: Night, *, adopts: bool) -> tuple[NightFolder, Night]:
    options = night.options
    profile = load_profile(options.agent)
    Pace.from_dict(profile.pace)
    _refuse_wishes(options, profile)
    _refuse_other_nights(folder, options)
    require(options, profile, adopts=adopts)
    _set_up_on_the_way(options)
    folder.make()
    folder.take()  # wishes that no supervisor was there to hear
    folder.task.write_text(task_text(options), encoding="utf-8", newline="")
    folder.write(night)
    folder.tell("night", f"campaign {options.tag}: {profile.title}, {options.permissions}")
    supervisor = _spawn(folder)
    with _going_on(options, "is being started"):
        return folder, _wait_for_work(folder, profile, supervisor)


def _now() -> str:
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
def _going_on(options: Options, what: str) -> Iterator[None]:
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
    if night is None or folder.is_watched() or not (_terminal(night).exists() or leftovers(night.mark)):
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


def _spawn(folder: NightFolder) -> subprocess.Popen[bytes]:
    """Start the supervisor, in a session of its own, as nobody's child once we have ended."""
    with folder.log.open("ab") as log:
        return subprocess.Popen(
            [sys.executable, str(MAIN), str(folder.path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


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
            if night.reason == FINISHED:
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


def find_night(project: Path, session: str | None, tag: str | None) -> tuple[NightFolder, Night]:
    """The night of this session or tag; of several, the one of this worktree, of these the one that runs or is newest.

    ``NoCampaignError`` if there is none.
    """
    repo = Repo(project)
    found = [(folder, night) for folder in nights(repo.state_dir) if (night := folder.read()) is not None]
    if session is not None:
        found = [(folder, night) for folder, night in found if night.options.session == session]
    if tag is not None:
        found = [(folder, night) for folder, night in found if night.options.tag == tag]
    if not found:
        raise NoCampaignError(
            "There is no night"
            + (f" of session {session!r}" if session is not None else "")
            + (f" of campaign {tag!r}" if tag is not None else "")
            + f" in {project}.",
            hint=f"python scripts/launch_tmux.py --session {session or tag or 'apr5'}",
            code="no_night",
        )

    def order(each: tuple[NightFolder, Night]) -> tuple[bool, bool, str]:
        folder, night = each
        return Path(night.options.project).is_relative_to(repo.root), folder.is_watched(), night.started_at

    return max(found, key=order)


def stop(folder: NightFolder, night: Night, *, at_once: bool, wait_s: float) -> Night:
    """Ask the supervisor to end the night and wait for it; without one, end it from here."""
    if not folder.is_watched():
        return close_without_supervisor(folder, night, at_once=at_once)
    try:
        folder.post({"stop": True, "now": at_once})
    except OSError:  # a full disk takes no letter: the supervisor's work is done from here
        os.kill(night.supervisor, signal.SIGKILL)
    deadline = time.monotonic() + wait_s
    with _going_on(night.options, "ends after the running trial"):
        while folder.is_watched() and time.monotonic() < deadline:
            time.sleep(POLL_S)
    night = folder.read() or night
    if night.state != "ended" and not folder.is_watched():  # its supervisor was killed over it
        return close_without_supervisor(folder, night, at_once=at_once)
    give_up = time.monotonic() + LAST_MOMENTS_S
    while read_process(night.supervisor) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    return night


def close_without_supervisor(folder: NightFolder, night: Night, *, at_once: bool) -> Night:
    """End what a killed supervisor has left: client, leftovers, trial, session."""
    from autoresearch.agents.client import Client
    from autoresearch.agents.closing import Closing

    with folder.watch():
        night = folder.read() or night  # another command may just have done it
        if night.state == "ended" and not _terminal(night).exists():
            return night
        client = Client(folder, night, dict(os.environ))
        pace = Pace.from_dict(client.profile.pace)
        Closing(folder, night, client, pace, Report(folder, night.options)).close(at_once=at_once)
        night.state, night.reason = "ended", "stopped by the user, without a supervisor"
        night.ended_at = _now()
        folder.tell("ended", night.reason)
        with contextlib.suppress(OSError):  # all has ended, though a full disk keeps it from being written down
            folder.write(night)
    return night


def send(folder: NightFolder, night: Night, text: str) -> bool:
    """Steer the agent; True once the line was typed, False if it waits for a moment that suits the client."""
    if not (profile := load_profile(night.options.agent)).listens:
        raise UsageError(f"{profile.title} cannot be told anything.", hint="python scripts/launch_tmux.py --stop")
    if not folder.is_watched():
        raise AgentError(
            f"Nobody watches the night of campaign {night.options.tag}.",
            hint=f"python scripts/launch_tmux.py --session {night.options.session} --resume",
            code="not_running",
        )
    posted, told = timestamp(), one_line(text, EVENT_WIDTH)
    folder.post({"send": text})
    deadline = time.monotonic() + SEND_PATIENCE_S
    while time.monotonic() < deadline and folder.is_watched():
        if any(event["at"] >= posted and (event["kind"], event["text"]) == ("send", told) for event in folder.events()):
            return True
        time.sleep(POLL_S)
    return False


def describe(folder: NightFolder, night: Night) -> dict[str, Any]:
    """A night for readers and programs."""
    memory, options = night.memory, night.options
    watched = folder.is_watched()
    return {
        "tag": options.tag, "session": options.session, "agent": options.agent, "permissions": options.permissions,
        "state": night.state if watched or night.state == "ended" else "unwatched", "reason": night.reason,
        "since": night.started_at, "ended": night.ended_at, "elapsed_s": round(memory.elapsed_s, 1),
        "waiting_until": night.waiting_until, "nudges": memory.all_nudges, "restarts": memory.all_restarts,
        "tokens": sum(night.tokens.values()), "cost_usd": round(sum(night.cost_usd.values()), 4),
        "supervisor": night.supervisor if watched else None, "client": (night.client or None) if watched else None,
        "attach": attach_line(night), "folder": str(folder.path),
        "report": str(folder.page) if folder.page.exists() else "", "last_events": folder.events(10),
    }  # fmt: skip


def last_screen(folder: NightFolder, night: Night, lines: int = TAIL_LINES) -> str:
    """The end of the agent's screen as data, after the night of the last one; "" if there is none."""
    screen = _terminal(night).look()
    if screen is not None:
        return fenced("\n".join(screen.lines), lines=lines)
    with contextlib.suppress(OSError):
        kept = folder.screen().read_text(encoding="utf-8")
        return fenced(kept, lines=lines) if kept.strip() else ""
    return ""
