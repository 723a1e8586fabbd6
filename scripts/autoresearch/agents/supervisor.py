"""Watch one client through the night: look, decide, act, again; whatever happens, until the night ends.

The process belongs to nobody's terminal. What it knows lies in the night's folder, so that a new
supervisor goes on where a killed one stopped.
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from autoresearch.agents.client import Client
from autoresearch.agents.closing import Closing, log_traceback
from autoresearch.agents.delivery import deliver
from autoresearch.agents.morning import Report
from autoresearch.agents.night import Night, NightFolder
from autoresearch.agents.notices import send_notice
from autoresearch.agents.outlook import Outlook, look_at, tend
from autoresearch.agents.policy import Act, Action, Look, Pace, Policy, Sight, Spent
from autoresearch.agents.screen import Screen
from autoresearch.agents.sight import see
from autoresearch.agents.sources import ClientFacts
from autoresearch.agents.task import nudge_text, resume_text
from autoresearch.agents.terminal import SilentError
from autoresearch.errors import AgentError, AutoresearchError

UNHEARD_TOLD = 3  # lines in a row that did not arrive, after which the human hears of it
FAILED_STEPS = 40  # in a row, before the supervisor gives up: after half an hour, with the pauses between them
FAILED_PAUSE_S = 60.0  # the longest
TEND_EVERY_S = 5.0


@dataclass(frozen=True)
class End:
    """Why a night ends, and whether the running trial ends with it."""

    reason: str
    at_once: bool = False


@dataclass
class Supervisor:
    """One night's loop. ``night`` is its own; everybody else reads the file."""

    folder: NightFolder
    night: Night
    client: Client
    policy: Policy = field(init=False)
    report: Report = field(init=False)
    failed_steps: int = 0
    decided: int = 0
    resumed: bool = False  # the client has taken up its earlier conversation
    unheard: int = 0  # lines in a row that did not arrive
    tended_at: float = 0.0
    step: str = ""  # the next step, as the ledger told it last

    def __post_init__(self) -> None:
        self.report = Report(self.folder, self.night.options)
        pace = Pace.from_dict(self.client.profile.pace)
        self.policy = Policy(caps=self.night.options.caps, pace=pace, jitter=random.random())

    @property
    def project(self) -> Path:
        return Path(self.night.options.project)

    def run(self) -> None:
        """Until the night ends. Must hold the folder's lock."""
        night, memory = self.night, self.night.memory
        memory.forget_clock()
        night.supervisor = os.getpid()
        before = clock()
        try:
            self.begin()
        except Exception as error:  # noqa: BLE001 - whatever it is, the user is told and nothing is left running
            if not isinstance(error, AutoresearchError):
                log_traceback(self.folder.log)
            self.end(f"the client could not be started: {error}", at_once=True)
            return
        while True:
            now = clock()
            memory.elapsed_s += now - before
            before = now
            try:
                ended = self.turn(now)
                self.failed_steps = 0
            except Exception as error:  # noqa: BLE001 - a night outlives a bug of ours
                log_traceback(self.folder.log)
                self.failed_steps += 1
                self.folder.tell("error", f"the supervisor met {type(error).__name__}: {error}")
                gives_up = self.failed_steps > FAILED_STEPS
                ended = End(f"the supervisor cannot go on: {error}; see {self.folder.log}") if gives_up else None
            if ended is not None:
                self.end(ended.reason, at_once=ended.at_once)
                return
            self.save()
            time.sleep(min(self.policy.pace.poll_s * 2**self.failed_steps, FAILED_PAUSE_S))

    def begin(self) -> None:
        """Start the client, or find the one that a killed supervisor has left at work."""
        night = self.night
        outlook = look_at(self.project, night.options.tag)
        if night.memory.rows is None:
            night.memory.decided_before, night.memory.trial_s_before = outlook.decided, outlook.trial_s
        if self.client.adopt():
            self.folder.tell("repaired", "a new supervisor watches the client that was there")
            night.state = "working" if night.memory.has_worked else night.state
            return
        self.start_client(fresh=night.memory.all_restarts == 0)

    def turn(self, now: float) -> End | None:
        """One look and one step; the end, when it is due."""
        night = self.night
        if not self.project.is_dir():
            return End(f"its folder has gone: {self.project}", at_once=True)
        if not self.folder.path.is_dir():  # with it, whoever says --stop would no longer be heard
            return End(f"its record has gone: {self.folder.path}", at_once=True)
        wishes = self.folder.take()
        if stops := [wish for wish in wishes if "stop" in wish]:
            return End("stopped by the user", at_once=any(wish.get("now") for wish in stops))
        night.steering += [str(wish["send"]) for wish in wishes if "send" in wish]
        wall = datetime.now().astimezone()
        screen = None
        try:
            screen = self.client.terminal.look()
            facts = self.client.facts()
            sight = see(self.client.profile, screen, facts, wall)
            self.note_facts(facts)
        except SilentError as error:  # the client works on, perhaps: it is neither ended nor started anew
            sight = Sight(state="silent", detail=error.message)
        outlook = look_at(self.project, night.options.tag)
        if night.memory.note_progress(outlook.rows) and outlook.decided != self.decided:
            self.folder.tell("progress", f"{outlook.decided} experiments decided, {outlook.kept} kept")
            self.report.rewrite()
        self.decided = outlook.decided
        if sight.state != "busy":
            self.tend(outlook, now)
        if night.steering and self.steer(sight):
            return None
        was = night.memory.state
        look = Look(sight=sight, outlook=outlook, now=now, wall=wall)
        action = self.policy.decide(night.memory, look, self.spent(outlook))
        self.note_state(was, sight, action)
        return self.act(action, screen)

    # ---- what a look tells

    def note_facts(self, facts: ClientFacts) -> None:
        night = self.night
        night.client = self.client.terminal.pid() or 0
        night.conversation = facts.session_id or night.conversation
        if facts.transcript and facts.tokens:
            night.tokens[facts.transcript] = facts.tokens
        if facts.session_id and facts.cost_usd is not None:
            night.cost_usd[facts.session_id] = facts.cost_usd

    def note_state(self, was: str, sight: Sight, action: Action) -> None:
        """Turn what is seen into the night's own state, and tell of changes."""
        memory, night = self.night.memory, self.night
        if sight.state != was and memory.state == sight.state:
            self.folder.tell(sight.state, sight.dialog or sight.detail if sight.state != "busy" else "")
        if memory.wait_from is not None:
            night.state = "waiting"
        elif sight.state == "busy":
            night.state, night.reason, night.waiting_until = "working", "", ""
        elif action.act is Act.HANDOVER:
            night.state, night.reason = "handover", action.reason

    def spent(self, outlook: Outlook) -> Spent:
        memory = self.night.memory
        return Spent(
            experiments=outlook.decided - memory.decided_before,
            gpu_h=(outlook.trial_s - memory.trial_s_before) / 3600,
            tokens=sum(self.night.tokens.values()),
            cost_usd=sum(self.night.cost_usd.values()),
        )

    def tend(self, outlook: Outlook, now: float) -> None:
        """Keep the device at work while the client is not: take results in, start what is due."""
        if outlook.waits_for_us and now - self.tended_at >= TEND_EVERY_S:
            self.tended_at = now
            self.step = tend(self.project, self.night.options.tag)

    def steer(self, sight: Sight) -> bool:
        """Hand on what the user sent, as soon as the client can take it."""
        takes = sight.state == "ready" or (sight.state == "busy" and self.client.profile.queues)
        if not takes or self.night.memory.wait_from is not None:
            return False
        text = self.night.steering[0]
        if not self.say(text):
            return False
        del self.night.steering[0]
        self.folder.tell("send", text)
        return True

    # ---- what a decision does

    def act(self, action: Action, screen: Screen | None) -> End | None:
        """Carry ``action`` out."""
        tell, night = self.folder.tell, self.night
        match action.act:
            case Act.WAIT:
                if action.reason:
                    tell("backoff", action.reason)
            case Act.ANSWER:
                tell("dialog", f"{action.reason}: {' '.join(action.keys)}")
                self.client.terminal.press(*action.keys)
            case Act.GIVE_TASK:
                tell("task", "typed")
                text = resume_text() if self.resumed else f"Read {self.folder.task} and follow it."
                night.memory.task_given = self.say(text)
            case Act.NUDGE:
                step = tend(self.project, night.options.tag) or self.step
                tell("nudge", action.reason)
                self.say(nudge_text(step, action.reason))
            case Act.CLOSE_LIMIT:
                night.waiting_until = "" if action.until is None else action.until.isoformat(timespec="seconds")
                told = f"{action.reason}; goes on at {night.waiting_until}"
                tell("limit", told)
                self.client.terminal.press(*action.keys)
                send_notice(night.options, "limit", "waits for a usage limit", told)
            case Act.INTERRUPT:
                tell("error", action.reason)
                self.client.interrupt()
            case Act.RESTART:
                self.restart(action)
            case Act.HANDOVER:
                self.hand_over(action.reason, screen)
            case Act.END:
                if action.reason.startswith(("stuck", "usage limit")):
                    send_notice(night.options, "stuck", "has stopped", action.reason)
                return End(action.reason)
        return None

    def say(self, text: str) -> bool:
        """Type one line and send it; False if it did not arrive."""
        arrived = deliver(self.client.terminal, self.client.profile, text)
        self.unheard = 0 if arrived else self.unheard + 1
        if not arrived:
            self.folder.tell("error", "a line did not reach the client's input box")
        if self.unheard == UNHEARD_TOLD:
            self.night.state, self.night.reason = "handover", "the client takes nothing that is typed"
            self.hand_over(self.night.reason, self.client.terminal.look())
        return arrived

    def hand_over(self, reason: str, screen: Screen | None) -> None:
        """Tell the human what only a human can do."""
        self.folder.tell("handover", f"{reason}; screen: {self.save_screen(screen)}")
        send_notice(self.night.options, "handover", "needs you", f"{reason}\n{attach_line(self.night)}")

    def restart(self, action: Action) -> None:
        self.folder.tell("exit", action.reason)
        if action.fresh:
            self.night.conversation = ""
        self.start_client(fresh=action.fresh)

    def start_client(self, *, fresh: bool) -> None:
        """Start the client anew, with its conversation unless ``fresh``; what the last one left is ended."""
        night, memory = self.night, self.night.memory
        ended = self.client.end_leftovers()
        if ended:
            self.folder.tell("orphan", f"ended {ended} processes that the client had left")
        resumes = self.resumed = not fresh and (bool(night.conversation) or memory.has_worked)
        task = resume_text() if resumes else self.folder.task.read_bytes().decode("utf-8")
        memory.task_given = self.client.start(task, resumes=resumes, conversation=night.conversation)
        how = "with its conversation" if resumes else "with a new conversation"
        self.folder.tell("restart" if memory.all_restarts else "started", f"{self.client.profile.name} {how}")
        if memory.task_given:
            self.folder.tell("task", "given as an argument")

    def save_screen(self, screen: Screen | None, name: str = "") -> Path:
        """Keep a screen that a human should look at."""
        path = self.folder.screen(name or f"{datetime.now(UTC):%Y%m%dT%H%M%S}")
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.write_text("\n".join(screen.lines if screen else []) + "\n", encoding="utf-8")
        return path

    def save(self) -> None:
        with contextlib.suppress(OSError):  # a full disk: the night goes on, its record is a little old
            self.folder.write(self.night)

    def end(self, reason: str, *, at_once: bool) -> None:
        """Close the night: client, trial, session, summary, notice."""
        self.night.state, self.night.reason = "ending", reason
        self.folder.tell("stop", reason)
        self.save()
        with contextlib.suppress(AgentError):
            self.save_screen(self.client.terminal.look(), "end")
        closing = Closing(self.folder, self.night, self.client, self.policy.pace, self.report)
        reason = "; ".join([reason, *closing.close(at_once=at_once)])
        self.night.state, self.night.reason = "ended", reason
        self.night.ended_at = datetime.now(UTC).isoformat(timespec="seconds")
        self.night.waiting_until = ""
        self.folder.tell("ended", reason)
        self.save()
        headline = self.folder.summary.read_text(encoding="utf-8")[:3000] if self.folder.summary.exists() else ""
        send_notice(self.night.options, "finished", f"has ended: {reason}", headline)


def attach_line(night: Night) -> str:
    socket = f"-L {night.options.socket} " if night.options.socket else ""
    window = f":{night.options.window}" if night.options.team else ""
    return f"tmux {socket}attach -t {night.options.session}{window}"


def clock() -> float:
    """Seconds since the machine's start, suspended ones included; no clock setting moves it."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
