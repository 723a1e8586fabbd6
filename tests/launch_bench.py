"""A project in a world of its own, and a launcher that starts small clients with habits in real tmux."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from tests.client_bench import SOCKET, World, make_world
from tests.conftest import ROOT
from tests.night_bench import LAUNCHER, TAG, make_project
from tests.trial_bench import eventually

from autoresearch.agents.night import NightFolder

FAKE = ROOT / "tests" / "fake_client.py"
PACE = {
    "poll_s": 0.1, "settle_s": 0.2, "nudge_after_s": 60, "restart_after_s": 0.1,
    "dialog_patience_s": 0.5, "stop_patience_s": 1,
}  # fmt: skip


@dataclass(frozen=True)
class Bench:
    """A project in a world of its own, and a client with a habit."""

    world: World
    project: Path

    def profile(self, habit: str, *, task: str = "paste", **pace: float) -> str:
        """The file of a profile whose client has this habit."""
        (self.world.folder / habit).mkdir(exist_ok=True)
        data = {
            "name": "fake",
            "title": "Fake client",
            "command": [sys.executable, str(FAKE), str(self.world.folder / habit), habit],
            "task": task,
            "queues": True,
            "interrupt": ["C-c"],
            "leave": "/exit",
            "screen": {
                "input": r"^> ?([^\n]*)$",
                "placeholder": '^Try "',
                "states": [{"state": "busy", "where": "below", "match": "working"}],
            },
            "pace": {**PACE, **pace},
        }
        path = self.world.folder / f"{habit}.yaml"
        path.write_text(yaml.safe_dump(data), encoding="utf-8")
        return str(path)

    def popen(self, *arguments: str, cwd: Path | None = None, gate: str = "") -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, str(LAUNCHER), *arguments],
            env=self.world.environment(TOY_GATE=gate), cwd=cwd or self.project, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def call(self, *arguments: str, expect: int = 0, cwd: Path | None = None, gate: str = "") -> str:
        """What the launcher says: its text, or its error."""
        process = self.popen(*arguments, cwd=cwd, gate=gate)
        out, errors = process.communicate(timeout=60)
        assert process.returncode == expect, out + errors
        assert "Traceback" not in errors
        return errors if expect else out

    def start(self, habit: str = "obeys", *arguments: str, expect: int = 0) -> str:
        return self.call(
            "--session", TAG, "--socket", SOCKET, "--agent", self.profile(habit), *arguments, expect=expect
        )

    def heard(self, habit: str = "obeys") -> list[str]:
        """What the client was told."""
        path = self.world.folder / habit / "heard.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    @property
    def folder(self) -> NightFolder:
        return NightFolder(self.project / ".git" / "autoresearch" / TAG / "night")

    def record(self) -> Any:
        return self.folder.read()

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.folder.events(1000)]

    @contextlib.contextmanager
    def tmux_stopped(self) -> Iterator[None]:
        """The tmux server hangs."""
        server = int(self.world.tmux("display-message", "-p", "#{pid}"))
        os.kill(server, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(server, signal.SIGCONT)

    def kill_supervisor(self) -> None:
        os.kill(self.record().supervisor, signal.SIGKILL)
        eventually(lambda: not self.folder.is_watched())


@pytest.fixture
def bench() -> Iterator[Bench]:
    with make_world() as world:
        yield Bench(world, make_project(world))
