"""What a person does with nights that are there: find them, steer them, stop them, look at them."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoresearch.agents.begin import Watched, going_on, terminal_of, timestamp
from autoresearch.agents.morning import Report
from autoresearch.agents.night import EVENT_WIDTH, Night, NightFolder, nights
from autoresearch.agents.policy import Pace
from autoresearch.agents.profile import load_profile
from autoresearch.agents.supervisor import attach_line
from autoresearch.agents.terminal import SilentError
from autoresearch.errors import AgentError, NoCampaignError, UsageError
from autoresearch.ledger.records import now
from autoresearch.output import fenced, one_line
from autoresearch.repo import Repo
from autoresearch.runner.processes import read_process

POLL_S = 0.2
SEND_PATIENCE_S = 60.0
LAST_MOMENTS_S = 2.0  # of a supervisor that has let the lock go
TAIL_LINES = 20


def find_nights(project: Path, session: str | None, tag: str | None) -> list[Watched]:
    """The night of this session or tag; of several, the one of this worktree, of these the one that runs or is newest.

    Without a ``tag`` its whole team comes with it. ``NoCampaignError`` if there is none.
    """
    repo = Repo(project)
    every = [(folder, night) for folder in nights(repo.state_dir) if (night := folder.read()) is not None]
    found = every
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

    def order(each: Watched) -> tuple[bool, bool, str]:
        folder, night = each
        return Path(night.options.project).is_relative_to(repo.root), folder.is_watched(), night.started_at

    first = max(found, key=order)
    team = first[1].options.team if tag is None else ()
    own = {night.options.tag: (folder, night) for folder, night in every if night.options.team == team}
    return [own[each] for each in team if each in own] if team else [first]


def to_resume(found: Sequence[Watched]) -> Sequence[Watched]:
    """Those that were cut off; where none was, those that have ended; where none has, all."""
    down = [(folder, night) for folder, night in found if not folder.is_watched()]
    cut_off = [(folder, night) for folder, night in down if night.state != "ended"]
    return cut_off or down or found


def stop(found: Sequence[Watched], *, at_once: bool, wait_s: float) -> list[Watched]:
    """Ask the supervisor to end the nights and wait for it; without one, end them from here."""
    asked = [(folder, night) for folder, night in found if folder.is_watched()]
    for folder, night in asked:
        _ask_to_stop(folder, night, at_once=at_once, everybody=len(asked) >= len(night.options.team))
    deadline = time.monotonic() + wait_s
    with going_on(found[0][1].options, "ends after the running trial"):
        while any(folder.is_watched() for folder, _ in asked) and time.monotonic() < deadline:
            time.sleep(POLL_S)
    ended = []
    for folder, night in found:
        now_is = folder.read() or night
        if (folder, night) not in asked or (now_is.state != "ended" and not folder.is_watched()):
            now_is = close_without_supervisor(folder, now_is, at_once=at_once)  # it was killed, perhaps over this
        ended.append((folder, now_is))
    _await_supervisors({night.supervisor for folder, night in asked if not _others_watched(folder, night)})
    return ended


def _ask_to_stop(folder: NightFolder, night: Night, *, at_once: bool, everybody: bool) -> None:
    try:
        folder.post({"stop": True, "now": at_once})
    except OSError as error:  # a full disk takes no letter: the supervisor's work is done from here
        if _others_watched(folder, night) and not everybody:
            raise AgentError(
                f"{night.options.tag} cannot be told: {error}; and its supervisor watches others, too.",
                hint="Make room on the disk, or end them all: python scripts/launch_tmux.py --stop",
                code="not_told",
            ) from error
        os.kill(night.supervisor, signal.SIGKILL)


def _others_watched(folder: NightFolder, night: Night) -> bool:
    """Whether the supervisor has other agents to watch."""
    others = (NightFolder.of(folder.path.parent.parent, tag) for tag in night.options.team)
    return any(other.is_watched() for other in others)


def _await_supervisors(pids: set[int]) -> None:
    give_up = time.monotonic() + LAST_MOMENTS_S
    while any(read_process(pid) for pid in pids) and time.monotonic() < give_up:
        time.sleep(POLL_S)


def close_without_supervisor(folder: NightFolder, night: Night, *, at_once: bool) -> Night:
    """End what a killed supervisor has left: client, leftovers, trial, session."""
    from autoresearch.agents.client import Client
    from autoresearch.agents.closing import Closing

    with folder.watch():
        night = folder.read() or night  # another command may just have done it
        if night.state == "ended" and not terminal_of(night).has_window():
            return night
        client = Client(folder, night, dict(os.environ))
        pace = Pace.from_dict(client.profile.pace)
        troubles = Closing(folder, night, client, pace, Report(folder, night.options)).close(at_once=at_once)
        night.state, night.reason = "ended", "; ".join(["stopped by the user, without a supervisor", *troubles])
        night.ended_at = timestamp()
        folder.tell("ended", night.reason)
        with contextlib.suppress(OSError):  # all has ended, though a full disk keeps it from being written down
            folder.write(night)
    return night


def send(found: Sequence[Watched], text: str) -> dict[str, bool]:
    """Steer the agents; by tag, True once the line was typed, False if it waits for a moment that suits the client.

    Of several agents those are meant that are watched.
    """
    for _, night in found:
        if not (profile := load_profile(night.options.agent)).listens:
            raise UsageError(f"{profile.title} cannot be told anything.", hint="python scripts/launch_tmux.py --stop")
    watched = [(folder, night) for folder, night in found if folder.is_watched()]
    if not watched:
        options = found[0][1].options
        raise AgentError(
            f"Nobody watches the night of campaign {options.tag}.",
            hint=f"python scripts/launch_tmux.py --session {options.session} --resume",
            code="not_running",
        )
    posted, told = now(), one_line(text, EVENT_WIDTH)
    for folder, _ in watched:
        folder.post({"send": text})
    delivered = {night.options.tag: False for _, night in watched}
    deadline = time.monotonic() + SEND_PATIENCE_S
    while time.monotonic() < deadline:
        for folder, night in watched:
            delivered[night.options.tag] = any(
                event["at"] >= posted and (event["kind"], event["text"]) == ("send", told) for event in folder.events()
            )
        if all(delivered[night.options.tag] or not folder.is_watched() for folder, night in watched):
            break
        time.sleep(POLL_S)
    return delivered


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
    try:
        screen = terminal_of(night).look()
    except SilentError as error:
        return f"{error.message}\n  → {error.hint}"
    if screen is not None:
        return fenced("\n".join(screen.lines), lines=lines)
    with contextlib.suppress(OSError):
        kept = folder.screen().read_text(encoding="utf-8")
        return fenced(kept, lines=lines) if kept.strip() else ""
    return ""
