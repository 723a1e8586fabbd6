"""A night on a toy project with a real client and a scripted model, driven through ``launch_tmux.py``."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.client_bench import SOCKET, World
from tests.conftest import ROOT
from tests.loop_bench import CONFIG, PROJECT
from tests.scripted_agent import Idea
from tests.scripted_model import ScriptedModel

TAG = "apr5"
LAUNCHER = ROOT / "scripts" / "launch_tmux.py"
PATIENCE_S = 120.0
LOOK_S = 0.05

FIVE_IDEAS = (
    Idea("twice the learning rate", "LR", 8),
    Idea("half the learning rate", "LR", 2),
    Idea("twice the width", "WIDTH", 128),
    Idea("a large learning rate", "LR", 32),
    Idea("a larger learning rate", "LR", 48),
)
# What the toy evaluator is known to make of them.
FIVE_ROWS = [
    ["0.997900", "44.0", "keep", "baseline"],
    ["0.993200", "44.2", "keep", "twice the learning rate"],
    ["1.005000", "44.0", "discard", "half the learning rate"],
    ["0.000000", "0.0", "crash", "twice the width"],
    ["0.932000", "44.0", "keep", "a large learning rate"],
    ["0.948000", "44.0", "discard", "a larger learning rate"],
]


def make_project(world: World, *, config: str = CONFIG) -> Path:
    """The toy project in a repository of its own, with settings and without a campaign."""
    project = world.folder / "project"
    project.mkdir()
    for name, text in {**PROJECT, "autoresearch.yaml": config}.items():
        (project / name).write_text(text, encoding="utf-8")
    for command in ("init -q -b main", "add .", "commit -q -m Start"):
        subprocess.run(["git", *command.split()], cwd=project, env=world.environment(), check=True)
    return project


@dataclass(kw_only=True)
class Night:
    """One night. ``environment`` is what its client needs beyond a user's shell."""

    world: World
    project: Path
    model: ScriptedModel
    environment: dict[str, str] = field(default_factory=dict)
    tag: str = TAG
    window: str = "agent"
    record_folder: Path | None = None  # where the repository lies, if the project is a further work tree of it

    def call(self, *arguments: str, expect: int = 0, patience_s: float = PATIENCE_S) -> dict[str, Any]:
        """Run the launcher; the ``data`` of its answer, or the ``error``."""
        done = subprocess.run(
            [sys.executable, str(LAUNCHER), *arguments, "--project", str(self.project), "--json"],
            env=self.world.environment(**self.environment),
            cwd=self.world.folder,
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
            timeout=patience_s,
        )
        assert done.returncode == expect, f"{done.stdout}\n{done.stderr}\n{self.story()}"
        answer = json.loads(done.stdout)
        return dict(answer["data"] if expect == 0 else answer["error"])

    def launch(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        """Start the night, as root too."""
        return self.call("--session", TAG, "--socket", SOCKET, "--sandboxed", *arguments, expect=expect)

    def status(self) -> dict[str, Any]:
        return dict(self.call("--status")["night"])

    def stop(self, *arguments: str) -> dict[str, Any]:
        return dict(self.call("--stop", *arguments)["night"])

    @property
    def folder(self) -> Path:
        return (self.record_folder or self.project) / ".git" / "autoresearch" / self.tag / "night"

    def record(self) -> dict[str, Any]:
        """The night's record as its supervisor wrote it last."""
        return dict(json.loads((self.folder / "night.json").read_text(encoding="utf-8")))

    def events(self) -> list[dict[str, str]]:
        """All that the supervisor has told."""
        path = self.folder / "events.jsonl"
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []

    def kinds(self) -> list[str]:
        return [event["kind"] for event in self.events()]

    def answered(self) -> list[str]:
        """The names of the dialogs that were answered."""
        names = [event["text"].partition(":")[0] for event in self.events() if event["kind"] == "dialog"]
        return list(dict.fromkeys(names))

    def rows(self) -> list[list[str]]:
        """The rows of results.tsv without their commits; none before there is a campaign."""
        path = self.project / "results.tsv"
        lines = path.read_text(encoding="utf-8").splitlines()[1:] if path.exists() else []
        return [line.split("\t")[1:] for line in lines]

    def client(self) -> int:
        """The process of the agent's window; 0 if there is none."""
        return int(self.world.tmux("display-message", "-p", "-t", f"={TAG}:{self.window}", "#{pane_pid}") or 0)

    def notices(self) -> list[dict[str, Any]]:
        """The notifications that reached the model's server, which the project names as a channel."""
        return [request.body for request in self.model.requests if request.path.startswith("/notices")]

    def until(self, condition: Callable[[], Any], *, patience_s: float = PATIENCE_S) -> Any:
        """The first true value of ``condition``; fails with the night's story if none comes."""
        deadline = time.monotonic() + patience_s
        while not (value := condition()):
            assert time.monotonic() < deadline, f"it did not come to pass\n{self.story()}"
            time.sleep(LOOK_S)
        return value

    def until_rows(self, count: int, *, patience_s: float = PATIENCE_S) -> None:
        """Wait until the view of the ledger has ``count`` rows."""
        self.until(lambda: len(self.rows()) >= count, patience_s=patience_s)

    def story(self) -> str:
        """What a failure needs to be understood."""
        log = self.folder / "supervisor.log"
        return "\n".join([
            *(f"{event['at']} {event['kind']} {event['text']}" for event in self.events()[-40:]),
            "--- results", *("\t".join(row) for row in self.rows()),
            "--- supervisor.log", log.read_text(encoding="utf-8")[-3000:] if log.exists() else "",
            "--- screen", self.world.screen(),
            "--- last turn", str(self.model.given[-1:]),
            "--- processes", *self.world.commands(),
        ])  # fmt: skip


def make_night(
    world: World, model: ScriptedModel, environment: dict[str, str], *, project: Path | None = None
) -> Night:
    return Night(world=world, project=project or make_project(world), model=model, environment=environment)


def profile(world: World, base: str, pace: dict[str, float], extra: Sequence[str] = ()) -> Path:
    """A user's own profile file: ``base`` at another pace."""
    path = world.folder / "hasty.yaml"
    lines = [f"extends: {base}", "pace:", *(f"  {key}: {value:g}" for key, value in pace.items()), *extra]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
