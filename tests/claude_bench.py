"""A real Claude Code in a terminal of ours, with the settings that the launcher writes for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.client_bench import SOCKET, World, answer_claude, claude_subscribed, find_client
from tests.scripted_model import Request, ScriptedModel, Turn, say
from tests.trial_bench import eventually

from autoresearch.agents.profile import load_profile
from autoresearch.agents.settings import HOOKS_FILE, LOOP_SCRIPTS, write_settings
from autoresearch.agents.sources import ClientFacts, log_size, read_facts
from autoresearch.agents.terminal import Terminal

PRINTS_ITS_NAME = "import sys\nprint('RAN', *sys.argv[1:])\n"
POLL_INTERVAL_S = 0.05
PATIENCE_S = 200.0  # a hundred tool calls on a busy machine


class ClaudeBench:
    """One client of one scripted model, in a project with a train.py that may be edited.

    The bundle is a small one of its own: its scripts only say that they ran.
    """

    def __init__(self, world: World, model: ScriptedModel) -> None:
        self.world, self.model = world, model
        self.profile = load_profile("claude")
        self.project = world.folder / "project"
        self.scripts = world.folder / "bundle" / "scripts"
        self.night = world.folder / "state"
        self.hooks = self.night / HOOKS_FILE
        for folder in (self.project, self.scripts, self.night):
            folder.mkdir(parents=True)
        for name in (*LOOP_SCRIPTS, "setup_campaign", "doctor", "launch_tmux"):
            (self.scripts / f"{name}.py").write_text(PRINTS_ITS_NAME, encoding="utf-8")
        for name in ("train.py", "prepare.py"):
            (self.project / name).write_text("a = 1\n", encoding="utf-8")
        answer_claude(world, self.project)
        self.env = world.environment(
            **claude_subscribed(model), **self.profile.environment, IS_SANDBOX="1", SHELL="/bin/bash"
        )
        self.terminal = Terminal("night", socket=SOCKET)
        self.hooks_before = 0
        self.turns = 0

    def start(self, *, permissions: str = "bypass", conversation: str = "", python: Path | None = None) -> None:
        """Start the client, and wait until it is at its prompt."""
        settings = write_settings(
            self.profile, self.night, permissions=permissions, scripts=self.scripts,
            python=python or Path("/usr/bin/python3"), project=self.project, edit=("train.py", "models/*.py"),
        )  # fmt: skip
        argv = self.profile.argv(
            permissions=permissions, scripts=self.scripts, project=self.project, settings=settings,
            conversation=conversation,
        )  # fmt: skip
        self.hooks_before = log_size(self.hooks)
        if self.terminal.exists():
            self.terminal.respawn(argv, env=self.env, cwd=self.project)
        else:
            self.terminal.start(argv, env=self.env, cwd=self.project)
        self.until(lambda facts: facts.state == "idle")

    def facts(self) -> ClientFacts:
        return read_facts(self.profile, self.env, pid=self.terminal.pid(), hooks=self.hooks, since=self.hooks_before)

    def ask(self, *turns: Turn, text: str = "go on") -> None:
        """Have the model answer ``text`` with ``turns``, and don't wait for the end of that."""
        self.model.add(*turns)
        assert self.terminal.type_line(text)
        eventually(lambda: any(text in line for line in self._lines()[-6:]))
        assert self.terminal.enter()

    def do(self, *turns: Turn) -> Request:
        """Have the model take ``turns``; the request by which it heard what came of the last one."""
        self.turns += 1
        last = f"That is all of turn {self.turns}."
        self.ask(*turns, say(last))
        self.until(lambda facts: facts.last_message == last and facts.state == "idle")
        return self.model.asked[-1]

    def until(self, wanted: Callable[[ClientFacts], object]) -> ClientFacts:
        """The client's facts once they are as ``wanted``; fails with what there is instead."""
        deadline = time.monotonic() + PATIENCE_S
        while not wanted(facts := self.facts()):
            assert time.monotonic() < deadline, "\n".join(["it came to this:", str(facts), *self._lines()])
            time.sleep(POLL_INTERVAL_S)
        return facts

    def _lines(self) -> list[str]:
        screen = self.terminal.look()
        return list(screen.lines) if screen else []

    def close(self) -> None:
        self.terminal.kill()


@pytest.fixture
def claude(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClaudeBench]:
    find_client("claude")
    monkeypatch.setenv("TMUX_TMPDIR", world.environment()["TMUX_TMPDIR"])
    with ScriptedModel() as model:
        bench = ClaudeBench(world, model)
        yield bench
        bench.close()
        world.assert_empty()
