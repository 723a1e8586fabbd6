"""What a person does with a night: start it, look at it, steer it, stop it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from autoresearch.agents.checks import require
from autoresearch.agents.night import Night, NightFolder, Options, nights
from autoresearch.agents.policy import FINISHED, Pace
from autoresearch.agents.profile import Profile, load_profile
from autoresearch.agents.supervisor import attach_line
from autoresearch.agents.task import task_text
from autoresearch.agents.terminal import Terminal
from autoresearch.campaign.opened import find_campaign, open_ledger
from autoresearch.errors import AgentError, NoCampaignError, RefusedError, UsageError
from autoresearch.output import fenced
from autoresearch.repo import Repo

MAIN = Path(__file__).with_name("__main__.py")
POLL_S = 0.2
START_PATIENCE_S = 180.0
SUPERVISOR_PATIENCE_S = 20.0
SEND_PATIENCE_S = 60.0
TAIL_LINES = 20


def start(options: Options) -> Night:
    """Start a night and wait until its agent is at work.

    Sets the campaign up where there is none of this tag. Afterwards ``night/`` in the campaign's state
    folder holds the record, and a supervisor of its own watches. ``MachineError`` for what is missing
    on this machine, ``AgentError`` with the client's last screen if it does not come to work.
    """
    folder = NightFolder.of(Repo(Path(options.project)).state_dir, options.tag)
    night = Night(options=options, mark=secrets.token_hex(8), started_at=_now())
    return _begin(folder, night)


def resume(folder: NightFolder, night: Night, caps: dict[str, Any]) -> Night:
    """Go on with a night after its supervisor, tmux or the machine went down, or after it was stopped.

    The conversation goes on where the client can; ``caps`` are those that change. What was used before
    counts on, unless the night had ended.
    """
    memory = night.memory
    memory.nudges = memory.restarts = memory.failures = 0
    memory.freshened = False
    memory.all_restarts += 1  # so that the client is told that it was started again
    if night.state == "ended":
        memory.elapsed_s, memory.rows, night.tokens, night.cost_usd = 0.0, None, {}, {}
        night.started_at = _now()
    options = replace(night.options, caps=replace(night.options.caps, **caps))
    return _begin(folder, replace(night, options=options, state="starting", reason="", ended_at="", waiting_until=""))


def _begin(folder: NightFolder, night: Night) -> Night:
    options = night.options
    profile = load_profile(options.agent)
    if options.permissions == "allowlist" and not profile.obeys_allowlist:
        raise UsageError(
            f"{profile.title} cannot be held to a list of what it may do, so --permissions allowlist is not for it.",
            hint="Take Claude Code, --agent claude, or --permissions bypass on a machine that may come to harm.",
            code="no_allowlist",
        )
    _refuse_other_nights(folder, options)
    require(options, profile)
    _set_up_on_the_way(options)
    folder.make()
    folder.take()  # wishes that no supervisor was there to hear
    folder.task.write_text(task_text(options), encoding="utf-8", newline="")
    folder.write(night)
    folder.tell("night", f"campaign {options.tag}: {profile.title}, {options.permissions}")
    _spawn(folder)
    return _wait_for_work(folder, profile)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


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


def _spawn(folder: NightFolder) -> None:
    """Start the supervisor, in a session of its own, as nobody's child once we have ended."""
    with folder.log.open("ab") as log:
        subprocess.Popen(
            [sys.executable, str(MAIN), str(folder.path)],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, cwd="/",
        )  # fmt: skip


def _wait_for_work(folder: NightFolder, profile: Profile) -> Night:
    began = time.monotonic()
    while True:
        waited_s = time.monotonic() - began
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
        if waited_s > START_PATIENCE_S or (waited_s > SUPERVISOR_PATIENCE_S and not folder.is_watched()):
            raise AgentError(
                f"{profile.title} is not at work after {waited_s:.0f} s (state: {night.state}).",
                hint=f"Look into {folder.log}, or: {attach_line(night)}",
                code="not_at_work",
            )
        time.sleep(POLL_S)


def find_night(project: Path, session: str | None, tag: str | None) -> tuple[NightFolder, Night]:
    """The night of this session or tag, else the one that runs, else the newest; ``NoCampaignError`` if none."""
    found = [(folder, night) for folder in nights(Repo(project).state_dir) if (night := folder.read()) is not None]
    if session is not None:
        found = [(folder, night) for folder, night in found if night.options.session == session]
    if tag is not None:
        found = [(folder, night) for folder, night in found if night.options.tag == tag]
    if not found:
        raise NoCampaignError(
            "There is no night" + (f" of session {session!r}" if session else "") + f" in {project}.",
            hint="python scripts/launch_tmux.py --session apr5",
            code="no_night",
        )
    running = [(folder, night) for folder, night in found if folder.is_watched()]
    return max(running or found, key=lambda each: each[1].started_at)


def stop(folder: NightFolder, night: Night, *, at_once: bool, wait_s: float) -> Night:
    """Ask the supervisor to end the night and wait for it; without one, end it from here."""
    if not folder.is_watched():
        return close_without_supervisor(folder, night, at_once=at_once)
    folder.post({"stop": True, "now": at_once})
    deadline = time.monotonic() + wait_s
    while folder.is_watched() and time.monotonic() < deadline:
        time.sleep(POLL_S)
    return folder.read() or night


def close_without_supervisor(folder: NightFolder, night: Night, *, at_once: bool) -> Night:
    """End what a killed supervisor has left: client, leftovers, trial, session."""
    if night.state == "ended" and not Terminal(night.options.session, socket=night.options.socket or None).exists():
        return night
    from autoresearch.agents.client import Client
    from autoresearch.agents.closing import Closing

    with folder.watch():
        client = Client(folder, night, dict(os.environ))
        Closing(folder, night, client, Pace.from_dict(client.profile.pace)).close(at_once=at_once)
        night.state, night.reason = "ended", "stopped by the user, without a supervisor"
        night.ended_at = _now()
        folder.tell("ended", night.reason)
        folder.write(night)
    return night


def send(folder: NightFolder, night: Night, text: str) -> bool:
    """Steer the agent; True once the line was typed, False if it waits for a moment that suits the client."""
    if not folder.is_watched():
        raise AgentError(
            f"Nobody watches the night of campaign {night.options.tag}.",
            hint=f"python scripts/launch_tmux.py --session {night.options.session} --resume",
            code="not_running",
        )
    letter = folder.post({"send": text})
    deadline = time.monotonic() + SEND_PATIENCE_S
    while time.monotonic() < deadline:
        if not letter.exists() and any(event["kind"] == "send" and event["text"] for event in folder.events(5)):
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
        "supervisor": night.supervisor if watched else None, "client": night.client or None,
        "attach": attach_line(night), "folder": str(folder.path), "last_events": folder.events(10),
    }  # fmt: skip


def last_screen(night: Night, lines: int = TAIL_LINES) -> str:
    """The end of the agent's screen as data; "" if there is none."""
    screen = Terminal(night.options.session, socket=night.options.socket or None).look()
    return "" if screen is None else fenced("\n".join(screen.lines), lines=lines)
