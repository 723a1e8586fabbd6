"""What the supervisor does next, decided from what it sees: pure, without a clock, a terminal or a disk of its own.

Two times are handed in. ``now`` counts seconds since the machine's start, suspended ones too, so that a
clock set forwards or backwards changes no pause; ``wall`` is the civil time, which only a client's own
words about its limit ("resets 8:11am (UTC)") are measured against.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self

from autoresearch.agents.outlook import Outlook
from autoresearch.errors import UsageError

LASTING = ("auth", "billing", "model")  # what no waiting cures: only a human can mend it, so it is told at once
FAILURES_TOLD = 4  # API errors in a row after which the human hears of them
DIALOG_ATTEMPTS = 3
DIALOG_SETTLE_S = 0.5  # a dialog is answered when it has been there for two looks, so never half drawn
REDRAW_S = 3.0  # that a client gets to take an answered dialog away
FINISHED = "the loop has finished"
STUCK = "stuck: nudges and a new conversation brought no new row in the ledger"


@dataclass(frozen=True, kw_only=True)
class Caps:
    """Where a night ends by itself; None is no limit."""

    hours: float | None = None
    max_experiments: int | None = None
    max_gpu_hours: float | None = None
    max_tokens: int | None = None
    max_cost: float | None = None  # USD
    max_nudges: int = 10  # in a row, without a new row in the ledger


@dataclass(frozen=True, kw_only=True)
class Pace:
    """The supervisor's patience, in seconds. A profile's ``pace`` overrides single values."""

    poll_s: float = 1.0
    start_s: float = 120.0  # a client may take until its prompt or its first dialog stands
    settle_s: float = 5.0  # at the prompt before the turn counts as over
    nudge_after_s: float = 20.0  # at the prompt before the first nudge; doubles with each one that changes nothing
    nudge_most_s: float = 900.0
    backoff_s: float = 30.0  # after the client's first API error; doubles
    backoff_most_s: float = 900.0
    limit_jitter_s: float = 60.0  # after the reset of a usage limit
    limit_unknown_s: float = 900.0  # where the reset is not told
    limit_most_s: float = 8 * 24 * 3600.0  # a weekly limit
    hang_s: float = 2700.0  # busy, nothing new on the screen and no trial running
    restart_after_s: float = 2.0  # doubles
    restarts: int = 5  # in a row without progress; the last two with a fresh conversation
    dialog_patience_s: float = 10.0  # before an unknown screen is handed to the human
    stop_patience_s: float = 30.0

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        known = {each.name for each in fields(cls)}
        for key, value in data.items():
            if key not in known or isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise UsageError(
                    f"pace.{key} is {value!r}; expected a number of seconds, 0 or more, for one of: "
                    f"{', '.join(sorted(known))}.",
                    hint="Mend the profile's pace.",
                    code="profile",
                )
        values: dict[str, Any] = {key: int(value) if key == "restarts" else float(value) for key, value in data.items()}
        return cls(**values)


@dataclass(frozen=True, kw_only=True)
class Sight:
    """What the supervisor sees of the client at one look."""

    state: str  # starting | dialog | ready | busy | limit | error | exited | unknown | finished | silent
    dialog: str = ""
    keys: tuple[str, ...] = ()
    ending: str = ""  # how the last turn ended, if not well: overloaded, auth, …
    detail: str = ""
    reset: datetime | None = None  # of a usage limit
    typed: bool = False  # something stands in the input box
    menu: bool = False  # the limit's menu is open and eats what is typed
    print_of_screen: str = ""  # a digest: the same one means that nothing moved


class Act(StrEnum):
    """What the supervisor can do."""

    WAIT = "wait"
    ANSWER = "answer"  # press ``keys``
    GIVE_TASK = "give_task"
    NUDGE = "nudge"
    CLOSE_LIMIT = "close_limit"  # press ``keys`` and wait until ``until``
    INTERRUPT = "interrupt"
    RESTART = "restart"
    HANDOVER = "handover"  # tell the human, and go on looking
    END = "end"


@dataclass(frozen=True, kw_only=True)
class Action:
    """One step, with the reason that goes into the record."""

    act: Act
    reason: str = ""
    keys: tuple[str, ...] = ()
    fresh: bool = False  # a restart without the old conversation
    until: datetime | None = None


@dataclass(kw_only=True)
class Memory:
    """What the policy remembers from look to look. Times count as ``now`` does; None is "not yet"."""

    elapsed_s: float = 0.0  # of the whole night, restarts of the supervisor included
    rows: int | None = None
    decided_before: int = 0  # when the night began
    trial_s_before: float = 0.0
    task_given: bool = False
    has_worked: bool = False  # the client was busy once: it can be started
    has_progressed: bool = False  # since the start or the last --resume
    state: str = ""
    since: float | None = None  # that this state lasts
    nudges: int = 0  # since the last progress
    all_nudges: int = 0
    restarts: int = 0  # since the last progress
    all_restarts: int = 0
    freshened: bool = False  # a new conversation was tried since the last progress
    failures: int = 0  # turns in a row that ended in an API error
    limits: int = 0  # usage limits in a row
    interrupts: int = 0  # of a client that hangs
    answered: str = ""  # the dialog answered last, how often, and when
    attempts: int = 0
    answered_at: float = 0.0
    told: str = ""  # what the human was told last, so that it is told once
    wait_from: float | None = None  # a pause that is on: its start, its length, and what for
    wait_s: float = 0.0
    wait_for: str = ""
    wake_at: str = ""  # civil time of a limit's reset, ISO 8601
    moved_at: float | None = None  # when the screen last changed
    print_of_screen: str = ""

    def forget_clock(self) -> None:
        """After a restart of the supervisor or the machine: ``now`` has begun anew."""
        self.since = self.wait_from = self.moved_at = None
        self.answered_at = 0.0

    def note_progress(self, rows: int) -> bool:
        """Take the ledger's rows in; True if there are new ones, which makes all counting start again."""
        before, self.rows = self.rows, rows
        if before is None or rows <= before:
            return False
        self.has_progressed = True
        self.nudges = self.restarts = self.failures = self.limits = 0
        self.freshened = False
        self.told = ""
        return True


@dataclass(frozen=True, kw_only=True)
class Spent:
    """What the night has used so far."""

    experiments: int = 0
    gpu_h: float = 0.0
    tokens: int = 0
    cost_usd: float = 0.0


def cap_reached(caps: Caps, spent: Spent, elapsed_s: float) -> str:
    """The first cap that is reached, in words; "" if none is."""
    reached = (
        (caps.hours is not None and elapsed_s >= caps.hours * 3600, f"{caps.hours} hours are over"),
        (
            caps.max_experiments is not None and spent.experiments >= caps.max_experiments,
            f"{spent.experiments} experiments are decided",
        ),
        (caps.max_gpu_hours is not None and spent.gpu_h >= caps.max_gpu_hours, f"{spent.gpu_h:.2f} GPU-hours are used"),
        (caps.max_tokens is not None and spent.tokens >= caps.max_tokens, f"{spent.tokens} tokens are used"),
        (caps.max_cost is not None and spent.cost_usd >= caps.max_cost, f"{spent.cost_usd:.2f} USD are spent"),
    )
    return next((text for is_reached, text in reached if is_reached), "")


@dataclass(frozen=True, kw_only=True)
class Look:
    """Everything that one decision is made from."""

    sight: Sight
    outlook: Outlook
    now: float
    wall: datetime


@dataclass(frozen=True, kw_only=True)
class Policy:
    """The rules of a night. ``decide`` changes the memory and nothing else."""

    caps: Caps
    pace: Pace
    jitter: float = 0.5  # 0 to 1, drawn once, so that many nights do not all wake at one moment

    def decide(self, memory: Memory, look: Look, spent: Spent) -> Action:
        """The next step."""
        sight, now = look.sight, look.now
        if sight.state != memory.state or memory.since is None:
            memory.state, memory.since = sight.state, now
            memory.answered = ""
        if sight.print_of_screen != memory.print_of_screen or memory.moved_at is None:
            memory.print_of_screen, memory.moved_at = sight.print_of_screen, now
        if cap := cap_reached(self.caps, spent, memory.elapsed_s):
            return Action(act=Act.END, reason=cap)
        match sight.state:
            case "finished":
                return Action(act=Act.END, reason=FINISHED)
            case "exited":
                return self._restart(memory, now, sight.detail or "the client has ended")
            case "dialog" if sight.keys:
                return self._answer(memory, look)
            case "dialog" | "unknown" | "silent":
                return self._hand_over(memory, look, self.pace.dialog_patience_s)
            case "starting":
                return self._hand_over(memory, look, self.pace.start_s)
            case "limit":
                return self._limit(memory, look)
            case "busy":
                return self._busy(memory, look)
            case "ready" | "error":
                return self._prompt(memory, look)
        raise AssertionError(f"no rule for state {sight.state!r}")

    def _answer(self, memory: Memory, look: Look) -> Action:
        assert memory.moved_at is not None
        if look.now - memory.moved_at < DIALOG_SETTLE_S:
            return _WAIT
        if memory.answered != look.sight.dialog:
            memory.answered, memory.attempts = look.sight.dialog, 0
        elif memory.attempts and look.now - memory.answered_at < REDRAW_S:
            return _WAIT
        if memory.attempts >= DIALOG_ATTEMPTS:
            return self._tell_human(memory, f"the dialog {look.sight.dialog!r} does not go away")
        memory.attempts += 1
        memory.answered_at = look.now
        return Action(act=Act.ANSWER, keys=look.sight.keys, reason=look.sight.dialog)

    def _hand_over(self, memory: Memory, look: Look, patience_s: float) -> Action:
        if _lasted_s(memory, look) < patience_s:
            return _WAIT
        what = {
            "dialog": f"the client asks something ({look.sight.dialog})",
            "silent": "the client cannot be seen",
        }.get(look.sight.state, "the screen is not known")
        return self._tell_human(memory, f"{what}: {look.sight.detail}" if look.sight.detail else what)

    def _tell_human(self, memory: Memory, reason: str) -> Action:
        if memory.told == reason:
            return _WAIT
        memory.told = reason
        return Action(act=Act.HANDOVER, reason=reason)

    def _limit(self, memory: Memory, look: Look) -> Action:
        """Close the menu, wait for the reset, go on."""
        sight, now = look.sight, look.now
        if memory.wait_for == "limit" and memory.wait_from is not None:
            if sight.menu and now - memory.answered_at >= REDRAW_S:
                memory.answered_at = now
                return Action(act=Act.ANSWER, keys=sight.keys, reason="usage limit menu")
            return _WAIT if sight.menu else self._wake(memory, look)
        if _lasted_s(memory, look) < self.pace.settle_s and not sight.menu:
            return _WAIT  # the words of the limit before, a moment after going on
        memory.limits += 1
        wait_s = self.pace.limit_unknown_s * 2 ** min(memory.limits - 1, 4)
        until = look.wall + timedelta(seconds=wait_s)
        noted = memory.wake_at if memory.wait_for == "limit" else ""
        if noted:  # by a supervisor before this one, which was ended: by now "resets 3am" would mean tomorrow
            until = max(datetime.fromisoformat(noted), look.wall)
        elif sight.reset is not None:
            jitter_s = self.pace.limit_jitter_s * (0.5 + self.jitter)
            until = max(sight.reset, look.wall) + timedelta(seconds=jitter_s)
        wait_s = (until - look.wall).total_seconds()
        left_s = None if self.caps.hours is None else self.caps.hours * 3600 - memory.elapsed_s
        if wait_s > self.pace.limit_most_s or (left_s is not None and wait_s > left_s):
            return Action(act=Act.END, reason=f"usage limit until {until:%b %d %H:%M %Z}, after the night's end")
        memory.wait_from, memory.wait_s, memory.wait_for = now, wait_s, "limit"
        memory.wake_at = until.isoformat() if noted or sight.reset is not None else ""
        memory.answered_at = now
        return Action(act=Act.CLOSE_LIMIT, keys=sight.keys, until=until, reason=sight.detail or "usage limit")

    def _wake(self, memory: Memory, look: Look) -> Action:
        """Go on after a pause, once it is over by either clock; that is no nudge of an idle agent."""
        assert memory.wait_from is not None
        over = look.now - memory.wait_from >= memory.wait_s
        if memory.wake_at:
            over |= look.wall >= datetime.fromisoformat(memory.wake_at)
        if not over or look.outlook.trial_runs:
            return _WAIT
        reason = "the usage limit is over" if memory.wait_for == "limit" else "another try after an API error"
        _end_pause(memory)
        memory.since = look.now
        return Action(act=Act.NUDGE, reason=reason)

    def _busy(self, memory: Memory, look: Look) -> Action:
        memory.task_given = memory.has_worked = True
        _end_pause(memory)  # a human has set it going, or the client has by itself
        assert memory.moved_at is not None
        if look.outlook.trial_runs or look.now - memory.moved_at < self.pace.hang_s:
            return _WAIT
        memory.moved_at = look.now
        memory.interrupts += 1
        reason = f"busy for {self.pace.hang_s:g} s without any sign of life"
        if memory.interrupts > 1:
            return self._restart(memory, look.now, reason)
        return Action(act=Act.INTERRUPT, reason=reason)

    def _prompt(self, memory: Memory, look: Look) -> Action:
        """At the prompt: nothing while a trial runs, else whatever brings the agent back to work."""
        memory.interrupts = 0
        lasted_s = _lasted_s(memory, look)
        if lasted_s < self.pace.settle_s:
            return _WAIT
        if memory.wait_from is not None:
            return self._wake(memory, look)
        if not memory.task_given:
            memory.task_given = True
            memory.since = look.now
            return Action(act=Act.GIVE_TASK)
        if look.sight.state == "error":
            return self._error(memory, look)
        assert memory.moved_at is not None
        if look.sight.typed and look.now - memory.moved_at < self.pace.nudge_after_s:
            return _WAIT  # somebody is typing; who has gone to bed over it is not waited for
        if look.outlook.trial_runs:
            memory.since = look.now
            return _WAIT
        if lasted_s < min(self.pace.nudge_after_s * 2**memory.nudges, self.pace.nudge_most_s):
            return _WAIT
        return self._nudge(memory, look.now)

    def _error(self, memory: Memory, look: Look) -> Action:
        sight = look.sight
        if sight.ending == "context":
            return self._restart(memory, look.now, "the conversation has become too long", fresh=True)
        memory.failures += 1
        lasting = sight.ending in LASTING
        first_s = self.pace.backoff_most_s if lasting else self.pace.backoff_s
        memory.wait_from, memory.wait_for, memory.wake_at = look.now, "error", ""
        memory.wait_s = min(first_s * 2 ** min(memory.failures - 1, 20), self.pace.backoff_most_s)
        reason = f"{sight.ending}: {sight.detail}".strip(": ")
        if lasting or memory.failures == FAILURES_TOLD:
            told = self._tell_human(memory, f"the client's API refuses: {reason}")
            if told.act is Act.HANDOVER:
                return told
        return Action(act=Act.WAIT, reason=f"API error, next try in {memory.wait_s:g} s: {reason}")

    def _nudge(self, memory: Memory, now: float) -> Action:
        if memory.nudges >= self.caps.max_nudges:
            if memory.freshened:
                return Action(act=Act.END, reason=STUCK)
            memory.nudges = self.caps.max_nudges // 2
            return self._restart(memory, now, f"{self.caps.max_nudges} nudges without progress", fresh=True)
        memory.nudges += 1
        memory.all_nudges += 1
        memory.since = now
        return Action(act=Act.NUDGE, reason="at the prompt with nothing running")

    def _restart(self, memory: Memory, now: float, reason: str, *, fresh: bool = False) -> Action:
        if memory.restarts >= self.pace.restarts or (memory.restarts and not memory.has_worked):
            return Action(act=Act.END, reason=f"{reason}; {memory.restarts + 1} starts without any progress")
        assert memory.since is not None
        gap_s = min(self.pace.restart_after_s * 2**memory.restarts, self.pace.backoff_most_s)
        if memory.state == "exited" and now - memory.since < gap_s:
            return _WAIT
        fresh = fresh or memory.restarts >= self.pace.restarts - 2
        memory.restarts += 1
        memory.all_restarts += 1
        memory.freshened |= fresh
        memory.task_given = False
        memory.state, memory.since, memory.answered = "", None, ""
        if memory.wait_for != "limit":
            _end_pause(memory)
        return Action(act=Act.RESTART, reason=reason, fresh=fresh)


def _lasted_s(memory: Memory, look: Look) -> float:
    """How long the client has been in its present state."""
    assert memory.since is not None
    return look.now - memory.since


def _end_pause(memory: Memory) -> None:
    memory.wait_from, memory.wait_s, memory.wait_for, memory.wake_at = None, 0.0, "", ""


_WAIT = Action(act=Act.WAIT)
