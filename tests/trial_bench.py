"""Trials for the tests of the runner and of the executors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import autoresearch.runner
from autoresearch.runner.processes import environment_holds, pids, send
from autoresearch.trial import LOG_FILE, TrialResult, TrialSpec

RUNNER = Path(autoresearch.runner.__file__).with_name("__main__.py")
DEADLINE_S = 30.0
LONG = "sleep 300"
METRIC = "echo val_bpb: 0.5"


def python(code: str) -> str:
    """A shell command that becomes a Python process."""
    return f"exec {sys.executable} -IS -c '{code}'"


def eventually(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``; fails after a deadline."""
    started = time.monotonic()
    while not (value := condition()):
        waited = time.monotonic() - started
        assert waited < DEADLINE_S, "it did not come to pass"
        time.sleep(min(0.01 + waited / 20, 0.1))  # many conditions are dear: what takes long is asked for less often
    return value


def trial_spec(command: str, directory: Path, **settings: Any) -> TrialSpec:
    """A trial that runs in the folder above ``directory``; ``settings`` are fields of its spec."""
    values: dict[str, Any] = {
        "trial_id": "t1",
        "directory": str(directory),
        "command": command,
        "cwd": str(directory.parent),
        "env": {"PATH": os.environ["PATH"]},
        "seed": 1,
        "budget_s": 10.0,
        "limit_s": DEADLINE_S,
        "grace_s": DEADLINE_S,
        "metric": "val_bpb",
        "metric_pattern": r"^val_bpb:\s*(\S+)",
    }
    return TrialSpec(**values | settings)


def log_of(directory: Path) -> str:
    """What the trial has printed so far."""
    path = directory / LOG_FILE
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def living(mark: str) -> set[int]:
    """The processes that have ``mark`` (``NAME=value``) in their environment."""
    return {pid for pid in pids() if environment_holds(pid, mark)}


class Bench:
    """Runs the runner as a program, and knows what lives of its trials."""

    def __init__(self, folder: Path) -> None:
        self.directory = folder / "trial"
        self.mark = f"TEST_MARK={folder}"
        self.runners: list[subprocess.Popen[str]] = []

    @property
    def log(self) -> str:
        return log_of(self.directory)

    def living(self) -> set[int]:
        return living(self.mark)

    def start(self, command: str, **settings: Any) -> subprocess.Popen[str]:
        name, _, value = self.mark.partition("=")
        settings = {"env": {"PATH": os.environ["PATH"], name: value}, **settings}
        path = trial_spec(command, self.directory, **settings).write()
        argv = [sys.executable, "-I", str(RUNNER), str(path)]
        with RUNNER.open() as not_for_the_command:
            runner = subprocess.Popen(argv, cwd="/", stdin=not_for_the_command, stderr=subprocess.PIPE, text=True)
        self.runners.append(runner)
        return runner

    def start_ready(self, command: str, **settings: Any) -> subprocess.Popen[str]:
        """Start ``command``, which prints ``ready``, and wait until it has."""
        runner = self.start(command, **settings)
        eventually(lambda: "ready" in self.log)
        return runner

    def end(self, runner: subprocess.Popen[str]) -> TrialResult:
        """Wait for the result; the runner has nothing to complain about, and nothing survives it."""
        _, errors = runner.communicate(timeout=2 * DEADLINE_S)
        assert (runner.returncode, errors) == (0, "")
        assert self.living() == set()
        result = TrialResult.read(self.directory)
        assert result
        return result

    def run(self, command: str, **settings: Any) -> TrialResult:
        return self.end(self.start(command, **settings))

    def close(self) -> None:
        for runner in self.runners:
            runner.kill()
            runner.wait()
            if runner.stderr:
                runner.stderr.close()
        send(self.living(), signal.SIGKILL)
