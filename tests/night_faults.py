"""One compressed night in which everything goes wrong that a night may bring, one thing after the other.

Each fault strikes at a known moment, between two experiments or in the middle of one. A fault is over
when the agent uses a tool again; before the next one an experiment must come through.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from tests.client_bench import World, answer_claude, claude_subscribed
from tests.loop_bench import CONFIG
from tests.night_bench import PATIENCE_S, TAG, Night, make_night, make_project, profile
from tests.scripted_agent import Idea, Researcher
from tests.scripted_model import ScriptedModel, Turn, break_off, cut, limit, refuse, say, use
from tests.trial_bench import living

from autoresearch.agents.leftovers import NIGHT_MARK
from autoresearch.executors.base import process_mark
from autoresearch.notify.limits import LIMITS_FILE
from autoresearch.runner.orphans import MARK
from autoresearch.runner.processes import read_process

# A second here stands for half a minute of a real night.
PACE = {
    "poll_s": 0.2, "settle_s": 1, "nudge_after_s": 3, "nudge_most_s": 4, "backoff_s": 1, "backoff_most_s": 4,
    "limit_jitter_s": 1, "hang_s": 20, "restart_after_s": 0.5, "dialog_patience_s": 2, "stop_patience_s": 10,
}  # fmt: skip
LOST_S = 120.0  # a client that says nothing for so long is what a killed one looks like to the model
# The learning rates go down, and with them the toy's val_bpb; every third idea is a worse one.
IDEAS = tuple(
    Idea(f"learning rate {rate}", "LR", rate)
    for rate in (rate if index % 3 != 2 else 200 + index for index, rate in enumerate(range(95, 35, -1)))
)


@dataclass(frozen=True)
class Fault:
    """What goes wrong. ``strike`` makes it happen."""

    name: str
    strike: Callable[[FaultyNight], Struck]
    met_by: tuple[str, ...] = ()  # events that the supervisor must have told, each as often as it stands here
    notice: bool = False  # a human must have been told


class Struck(NamedTuple):
    """The moment of a fault (``time.monotonic()``), and how many turns the model had given by then.

    Whoever is at work again before ``until`` has not waited.
    """

    at: float
    turns: int
    until: float = 0.0


@dataclass(frozen=True)
class Recovery:
    """How the night came through one fault."""

    fault: str
    seconds: float
    met_by: tuple[str, ...]


class FaultyNight:
    """A running night, and the hands that break it."""

    def __init__(self, night: Night, agent: Researcher) -> None:
        self.night = night
        self.model = night.model
        self.agent = agent

    def meet(self, fault: Fault) -> Recovery:
        """Let the fault strike and wait until the agent is at work again and an experiment has come through."""
        self.forget_notices()
        events, notices = len(self.night.events()), len(self.night.notices())
        struck = fault.strike(self)
        again = self.night.until(lambda: self.model.find_turn(lambda turn: turn.calls, after=struck.turns))
        assert again.at >= struck.until, f"{fault.name}: at work again too early\n{self.night.story()}"
        rows = len(self.night.rows())
        self.night.until_rows(rows + 1)
        self.agent.stamina = PATIENT
        kinds = Counter(event["kind"] for event in self.night.events()[events:])
        missing = Counter(fault.met_by) - kinds
        assert not missing, f"{fault.name}: no event {set(missing)}\n{self.night.story()}"
        if fault.notice:
            self.night.until(lambda: len(self.night.notices()) > notices)
        return Recovery(fault.name, again.at - struck.at, tuple(kind for kind in kinds if kind not in USUAL))

    def forget_notices(self) -> None:
        """In a night that isn't compressed the last notice is long ago, so the next one would not be held back."""
        (self.night.folder.parent / LIMITS_FILE).unlink(missing_ok=True)

    def finish(self) -> None:
        """Stop the night: no row lost, none twice, nothing left running."""
        ended = self.night.stop()
        assert ended["state"] == "ended"
        self.night.world.assert_empty()
        rows = [(row[-2], row[-1]) for row in self.night.rows()]
        assert rows == expected_rows(len(rows)), "an experiment was lost, or run twice"

    # --- the hands -----------------------------------------------------------------------------

    def give(self, *turns: Turn) -> Struck:
        """Have the model answer so."""
        asked = len(self.model.asked)
        self.model.add(*turns)
        request = self.model.wait_for_turn(lambda turn: turn is turns[-1], after=asked, patience_s=PATIENCE_S)
        return Struck(request.at, self.model.asked.index(request) + 1)

    def kill_client(self) -> Struck:
        return self.end_client(lambda pid: os.kill(pid, signal.SIGKILL))

    def kill_tmux(self) -> Struck:
        return self.end_client(lambda pid: self.night.world.tmux("kill-server"))

    def end_client(self, kill: Callable[[int], object]) -> Struck:
        pid, at = self.night.client(), time.monotonic()
        kill(pid)
        self.night.until(lambda: read_process(pid) is None)
        return Struck(at, len(self.model.asked))

    def kill_while_busy(self) -> Struck:
        self.give(say("This never arrives.", delay_s=LOST_S))
        return self.kill_client()

    def kill_while_trial_runs(self) -> Struck:
        """The trial outlives the client, and is not run twice."""
        with self.holding():
            running = self.night.until(self.trials)
            struck = self.kill_client()
            self.night.until(self.night.client)
            assert self.trials() == running, "the trial was started anew, or ended with its client"
        return struck

    def kill_all(self) -> Struck:
        """What a power cut leaves: no supervisor, no tmux, no client. A person says --resume."""
        os.kill(self.night.record()["supervisor"], signal.SIGKILL)
        struck = self.kill_tmux()
        self.night.until(lambda: not living(f"{NIGHT_MARK}={self.night.record()['mark']}"))
        self.night.call("--resume")
        return struck

    def reach_limit(self) -> Struck:
        """A usage limit until the next full minute: that is how exactly clients tell the time."""
        now = datetime.now().astimezone()
        reset = (now + timedelta(seconds=65)).replace(second=0, microsecond=0)
        until = time.monotonic() + (reset - now).total_seconds()
        return self.give(limit(reset))._replace(until=until)

    def open_menu(self) -> Struck:
        """A person opens a menu that no profile knows, goes, and comes back when told."""
        self.give(say("I pause."))
        self.night.until(lambda: self.night.kinds()[-1] == "ready")
        self.press("/model", "Enter")
        self.night.until(lambda: self.night.kinds()[-1] == "handover", patience_s=20)
        shown = self.night.world.screen()
        time.sleep(2 * PACE["dialog_patience_s"])
        assert self.night.world.screen() == shown, "somebody pressed a key in a dialog that is not known"
        self.press("Escape")
        return Struck(time.monotonic(), len(self.model.asked))

    def press(self, *keys: str) -> None:
        self.night.world.tmux("send-keys", "-t", f"={TAG}:agent", *keys)

    def only_talk(self) -> Struck:
        return self.give(*[say(f"I think about it, {number}.") for number in range(3)])

    def stop_every_turn(self) -> Struck:
        """The agent asks whether to go on after every few tools."""
        self.agent.stamina = 4
        request = self.model.wait_for_turn(lambda turn: not turn.calls, after=len(self.model.asked))
        return Struck(request.at, self.model.asked.index(request) + 1)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Trials that start in this block do not end before it does."""
        gate = gate_of(self.night.world)
        gate.touch()
        try:
            yield
        finally:
            gate.unlink()

    def trials(self) -> frozenset[str]:
        """The folders of the trials whose processes live."""
        folders = (self.night.folder.parent / "trials").glob("*")
        return frozenset(folder.name for folder in folders if living(f"{MARK}={process_mark(folder)}"))


PATIENT = Researcher.stamina
USUAL = ("ready", "busy", "progress", "task", "send")
ASK = use(
    "AskUserQuestion",
    questions=[{
        "question": "Which optimizer?", "header": "Optimizer", "multiSelect": False,
        "options": [{"label": "Adam", "description": "adaptive"}, {"label": "SGD", "description": "plain"}],
    }],
)  # fmt: skip
EVERY_FAULT = (
    Fault("429 rate limit", lambda night: night.give(refuse(429), refuse(429)), ("error", "backoff", "nudge")),
    Fault("529 overloaded", lambda night: night.give(refuse(529), refuse(529)), ("error", "backoff", "nudge")),
    Fault("500 server error", lambda night: night.give(refuse(500), refuse(500)), ("error", "backoff", "nudge")),
    Fault("401 key refused", lambda night: night.give(refuse(401), refuse(401)), ("handover",), notice=True),
    Fault("error in the stream", lambda night: night.give(break_off("I was about")), ("error", "backoff", "nudge")),
    Fault("stream cut", lambda night: night.give(cut("I was about")), ("nudge",)),
    Fault("AskUserQuestion", lambda night: night.give(ASK)),
    Fault("plan mode", lambda night: night.give(use("EnterPlanMode"), use("ExitPlanMode", plan="Train."))),
    Fault("client killed while busy", FaultyNight.kill_while_busy, ("exit", "restart")),
    Fault("client killed while a trial runs", FaultyNight.kill_while_trial_runs, ("exit", "restart")),
    Fault("tmux server killed", FaultyNight.kill_tmux, ("exit", "restart")),
    Fault("power cut", FaultyNight.kill_all, ("restart",)),
    Fault("unknown dialog", FaultyNight.open_menu, ("handover",), notice=True),
    Fault("only talks", FaultyNight.only_talk, ("nudge", "nudge", "nudge")),
    Fault("stops every turn", FaultyNight.stop_every_turn, ("nudge", "nudge")),
    Fault("usage limit", FaultyNight.reach_limit, ("limit",), notice=True),
)


def gate_of(world: World) -> Path:
    return world.folder / "gate"


@contextlib.contextmanager
def faulty_night(world: World) -> Iterator[FaultyNight]:
    """A night with Claude Code at work on the toy project, notifications on, the baseline measured."""
    agent = Researcher(project=world.folder / "project", ideas=IDEAS)
    with ScriptedModel(agent) as model:
        channel = model.url.replace("http://", "json://") + "/notices"
        project = make_project(world, config=f'{CONFIG}notify: ["{channel}"]\n')
        answer_claude(world, project)
        environment = {**claude_subscribed(model), "TOY_GATE": str(gate_of(world))}
        night = make_night(world, model, environment, project=project)
        night.launch("--agent", str(profile(world, "claude", PACE)))
        night.until_rows(1)
        yield FaultyNight(night, agent)


def expected_rows(count: int) -> list[tuple[str, str]]:
    """Status and description of the first ``count`` rows of a night that nothing had disturbed."""
    best, rows = 0.9979, [("keep", "baseline")]
    for idea in IDEAS[: count - 1]:
        value = 0.9 + idea.value / 1000
        rows.append(("keep" if value < best else "discard", idea.description))
        best = min(best, value)
    return rows


def table(recoveries: list[Recovery]) -> str:
    """For a person: each fault, the time until work went on, and what the supervisor did."""
    width = max(len(recovery.fault) for recovery in recoveries)
    lines = [f"{'fault':<{width}}  at work again  by"]
    lines += [f"{each.fault:<{width}}  {each.seconds:11.1f} s  {', '.join(each.met_by) or '-'}" for each in recoveries]
    return "\n".join(lines)
