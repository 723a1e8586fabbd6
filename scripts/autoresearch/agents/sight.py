"""What the supervisor sees of the client: its screen and its own words, made into one."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from datetime import datetime

from autoresearch.agents.policy import Sight
from autoresearch.agents.profile import Profile
from autoresearch.agents.reset import reset_time
from autoresearch.agents.screen import Screen, Seen, classify
from autoresearch.agents.sources import ClientFacts
from autoresearch.output import one_line

QUOTED = 60  # characters of an ending that tell whether the model wrote it
_MOVING = re.compile(r"[\d⠀-⣿·✢✳✶✻✽*]+")  # spinners and clocks: a client that hangs may still turn them
_RULES = re.compile(r"[─━╌]{3,}")


def see(profile: Profile, screen: Screen | None, facts: ClientFacts, wall: datetime) -> Sight:
    """What the client's own words and its screen say together.

    Dialogs and limits are known from the screen alone. Between "busy" and "at the prompt" the client's
    own record is right where it keeps one, since its screen may show old text.
    """
    if screen is None:
        return Sight(state="exited", detail="its tmux session is gone")
    seen = classify(profile, screen)
    if _is_of_the_answer(seen, facts):
        seen = replace(seen, state="ready", ending="", reset="")
    moving = _MOVING.sub("", "\n".join(screen.lines))
    sight = Sight(
        state=_state(profile, screen, seen, facts),
        dialog=seen.dialog,
        keys=seen.keys,
        ending=seen.ending or (facts.failure if facts.ended == "StopFailure" else ""),
        detail=one_line(_RULES.sub("", seen.detail or _last_line(screen)), 200),
        reset=_reset(seen, facts, wall),
        typed=bool(seen.box.strip()),
        menu=bool(seen.keys),
        print_of_screen=hashlib.sha256(moving.encode()).hexdigest()[:16],
    )
    if sight.state in ("ready", "error") and sight.ending:
        return replace(sight, state="limit" if sight.ending == "limit" else "error")
    return sight


def _is_of_the_answer(seen: Seen, facts: ClientFacts) -> bool:
    """Whether the words that look like a failed turn are the model's own, in a turn that ended well.

    An agent may quote a limit, or begin with "API Error", and the screen shows it as the client would.
    """
    if seen.keys or not seen.ending or facts.ended != "Stop":
        return False
    words = " ".join(seen.detail.lstrip("●⎿ ").split())[:QUOTED]
    return bool(words) and words in " ".join(facts.last_message.split())


def _state(profile: Profile, screen: Screen, seen: Seen, facts: ClientFacts) -> str:
    if seen.state == "exited":
        return "finished" if profile.finishes and screen.exit_status == "0" else "exited"
    if seen.state == "limit" or (seen.state == "dialog" and seen.keys):
        return seen.state
    if facts.state in ("busy", "shell"):
        return "busy"
    if facts.state == "waiting":
        return "dialog"
    if facts.state == "idle" and seen.state in ("busy", "unknown"):
        return "ready"
    return seen.state


def _reset(seen: Seen, facts: ClientFacts, wall: datetime) -> datetime | None:
    """When the limit is over, as the client's own record has it, else as its screen says."""
    if facts.resets_at is not None:
        return datetime.fromtimestamp(facts.resets_at, wall.tzinfo)
    return reset_time(seen.reset, wall) if seen.reset else None


def _last_line(screen: Screen) -> str:
    return next((line.strip() for line in reversed(screen.lines) if line.strip()), "")
