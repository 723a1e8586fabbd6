"""What Claude Code tells of itself beside its screen: state, end of the turn, tokens, cost, reset of a limit.

Its screen is for people; these files are exact. Read are ``sessions/<pid>.json`` of its config folder
(undocumented, seen with 2.1.197), the log and the status file that ``settings.py`` asks for, and the
transcript named in the log. Any of them may be missing, stale or half written: then its part is empty.
"""

from __future__ import annotations

import functools
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from autoresearch.agents.profile import Profile
from autoresearch.agents.settings import STATUS_FILE
from autoresearch.runner.processes import read_process

STATES = ("idle", "busy", "waiting", "shell")
LOG_TAIL_BYTES = 2**20  # the last turn's events; a prompt and an answer lie in them
USED_UP_PERCENT = 100
# The client's words for an API error, in those of a profile's `endings`. Others can mean several things.
FAILURES = {
    "authentication_failed": "auth",
    "billing_error": "billing",
    "max_output_tokens": "cut",
    "model_not_found": "model",
    "oauth_org_not_allowed": "auth",
    "overloaded": "overloaded",
    "rate_limit": "rate_limited",  # or a used-up plan, as its text tells
}
USAGE = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")


@dataclass(frozen=True, kw_only=True)
class ClientFacts:
    """What is known now; "" and None where it isn't.

    ``state`` is ``shell`` at the prompt while a command of the client runs in the background, and
    ``waiting`` in a dialog. ``ended`` is how the last turn ended and ``at`` when, in seconds since 1970;
    both are empty again once a new turn began. ``failure`` is a kind of a profile's ``endings``.
    ``tokens`` and ``cost_usd`` are of the whole conversation, over restarts of the client; ``tokens``
    counts all that was sent, read from the cache, written to it and generated, of subagents too.
    ``resets_at`` is when a limit that is used up ends, told to subscribers only.
    """

    state: str = ""
    session_id: str = ""
    ended: str = ""  # Stop | StopFailure | ""
    last_message: str = ""
    failure: str = ""
    at: float = 0.0
    tokens: int = 0
    cost_usd: float | None = None
    resets_at: float | None = None
    transcript: str = ""


def read_facts(profile: Profile, env: Mapping[str, str], *, pid: int | None, hooks: Path, since: int) -> ClientFacts:
    """The facts of the client ``pid``, which was started with ``env`` when the log ``hooks`` had ``since`` bytes.

    Not by the times in it: a clock that is set back would hide what comes after.
    """
    facts = ClientFacts()
    if "claude_sessions" in profile.sources and pid is not None:
        session = read_session(env, pid)
        state = session.get("status", "")
        facts = replace(facts, state=state if state in STATES else "", session_id=session.get("sessionId", ""))
    if "claude_hooks" in profile.sources:
        facts = with_events(facts, profile, hooks, since)
        facts = with_status(facts, hooks.with_name(STATUS_FILE))
    return facts


def config_folder(env: Mapping[str, str]) -> Path:
    return Path(env.get("CLAUDE_CONFIG_DIR") or Path(env.get("HOME", "~")).expanduser() / ".claude")


def read_session(env: Mapping[str, str], pid: int) -> dict[str, Any]:
    """The client's record of the living process ``pid``; empty before its first prompt.

    The record of a client that was killed stays as it was, and its pid may belong to another
    process by now; so the start of the process must be the recorded one.
    """
    process = read_process(pid)
    if process is None:
        return {}
    session = read_object(config_folder(env) / "sessions" / f"{pid}.json")
    return session if str(session.get("procStart", process.started)) == str(process.started) else {}


# --- the log of hooks ------------------------------------------------------------------------------


def with_events(facts: ClientFacts, profile: Profile, log: Path, since: int) -> ClientFacts:
    """``facts`` with what the latest event tells, if it is of this client; later ones make earlier ones void."""
    events = list(read_events(log, since))
    if not events:
        return facts
    at, event = events[-1]
    transcript = event.get("transcript_path", "")
    facts = replace(
        facts,
        session_id=event.get("session_id", facts.session_id),
        transcript=transcript,
        tokens=token_meter(Path(transcript)).read() if transcript else 0,
    )
    ended = event.get("hook_event_name")
    if ended not in ("Stop", "StopFailure"):
        return facts
    message = event.get("last_assistant_message") or ""
    failure = failure_kind(profile, event.get("error", ""), message) if ended == "StopFailure" else ""
    return replace(facts, ended=ended, at=at, last_message=message, failure=failure)


def log_size(log: Path) -> int:
    """Its bytes; 0 if there is none yet."""
    return log.stat().st_size if log.exists() else 0


def read_events(log: Path, since: int) -> Iterator[tuple[float, dict[str, Any]]]:
    """The latest events from byte ``since`` of ``log`` on, with their times; what isn't whole is left out."""
    for line in tail(log, LOG_TAIL_BYTES, since):
        entry = parse_object(line)
        at, event = entry.get("at"), entry.get("event")
        if isinstance(at, int | float) and isinstance(event, dict):
            yield at, event


def failure_kind(profile: Profile, error: str, message: str) -> str:
    """By the client's word for it where that is clear, else by the profile's patterns, as if it stood on the screen."""
    shown = (f"● {message}", f"  ⎿ {message}")  # as the client's own words, and as the answer to a line
    kinds = (each.kind for each in profile.endings if any(each.pattern.search(text) for text in shown))
    kind = next(kinds, "server_error")
    return kind if kind == "limit" else FAILURES.get(error, kind)


# --- the status line -------------------------------------------------------------------------------


def with_status(facts: ClientFacts, path: Path) -> ClientFacts:
    """``facts`` with the cost and limits that the status line was told, if it is of this conversation."""
    status = read_object(path)
    if not facts.session_id or status.get("session_id") != facts.session_id:
        return facts
    cost = section(status, "cost").get("total_cost_usd")
    return replace(
        facts,
        cost_usd=float(cost) if isinstance(cost, int | float) else None,
        resets_at=reset_of_limits(section(status, "rate_limits"), time.time()),
    )


def reset_of_limits(limits: Mapping[str, Any], now: float) -> float | None:
    """When the last of the limits ends that are used up at ``now``; None if none is."""
    resets = [
        window["resets_at"]
        for window in (section(limits, name) for name in limits)
        if window.get("used_percentage", 0) >= USED_UP_PERCENT and window.get("resets_at", 0) > now
    ]
    return max(resets, default=None)


# --- tokens ----------------------------------------------------------------------------------------


class TokenMeter:
    """Adds up the tokens in a transcript as it grows; the file is never read twice.

    A message has a line for each of its blocks, all with the usage of the whole; it counts once.
    Subagents have transcripts of their own in a folder beside it.
    """

    def __init__(self, transcript: Path) -> None:
        self._transcript = transcript
        self._read_bytes: dict[Path, int] = {}
        self._tokens: dict[str, int] = {}  # by message

    def read(self) -> int:
        below = self._transcript.with_suffix("")
        for path in (self._transcript, *sorted(below.glob("subagents/**/*.jsonl"))):
            self._read_on(path)
        return sum(self._tokens.values())

    def _read_on(self, path: Path) -> None:
        start = self._read_bytes.get(path, 0)
        try:
            with path.open("rb") as file:
                file.seek(start)
                new = file.read()
        except OSError:
            return
        whole = new.rfind(b"\n") + 1  # the last line may still be being written
        self._read_bytes[path] = start + whole
        for line in new[:whole].splitlines():
            if b'"usage"' in line:
                self._count(parse_object(line))

    def _count(self, entry: Mapping[str, Any]) -> None:
        message = section(entry, "message")
        usage = section(message, "usage")
        key = str(message.get("id") or entry.get("uuid"))
        numbers = [usage.get(name) for name in USAGE]
        tokens = sum(number for number in numbers if isinstance(number, int))
        self._tokens[key] = max(tokens, self._tokens.get(key, 0))


@functools.cache
def token_meter(transcript: Path) -> TokenMeter:
    """The one meter of a transcript: a night looks every second, and the file grows to many megabytes."""
    return TokenMeter(transcript)


# --- files that others write -----------------------------------------------------------------------


def tail(path: Path, size: int, since: int) -> list[bytes]:
    """The lines in the last ``size`` bytes of ``path``, from byte ``since`` on; the first may be torn.

    None if there is no such file.
    """
    try:
        with path.open("rb") as file:
            file.seek(max(since, file.seek(0, os.SEEK_END) - size))
            return file.read(size).splitlines()
    except OSError:
        return []


def read_object(path: Path) -> dict[str, Any]:
    try:
        return parse_object(path.read_bytes())
    except OSError:
        return {}


def parse_object(text: bytes) -> dict[str, Any]:
    """The JSON object in ``text``; empty if it is none."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def section(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    below = value.get(key)
    return below if isinstance(below, dict) else {}
