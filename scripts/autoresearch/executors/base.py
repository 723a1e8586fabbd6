"""What every engine can do with trials, and the result of a trial whose runner left none."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol

import autoresearch.runner
from autoresearch.trial import LIVE_FILE, LOG_FILE, STARTED_FILE, Outcome, TrialResult, TrialSpec

RUNNER = Path(autoresearch.runner.__file__).with_name("__main__.py")

# How an engine finds a trial again: JSON-able, with at least "engine", "id" (the engine's own name for
# it), "trial_id" and "directory".
Handle = dict[str, Any]


class State(StrEnum):
    """What an engine knows of a trial. How it ended, only ``result.json`` says."""

    QUEUED = "queued"
    RUNNING = "running"
    GONE = "gone"


class Executor(Protocol):
    """One engine. A trial's directory is its identity: unique, and never used twice."""

    def submit(self, spec: TrialSpec) -> Handle:
        """Write the spec and have the engine run it; returns at once. Killed half-way: see ``find``."""

    def poll(self, handles: Sequence[Handle]) -> dict[str, State]:
        """The state of each by its trial id, with at most one question to the engine for all of them.

        What an engine said a moment ago may be answer enough: ask as often as you like.
        ``GONE`` with a result is an ended trial; without one, ``conclude`` it.
        """

    def cancel(self, handle: Handle) -> None:
        """End the trial; afterwards it has a result and no process. Harmless if it has ended."""

    def find(self, trial_id: str, directory: Path) -> Handle | None:
        """The handle of a submitted trial whose submitter died before noting it; None if it is gone."""

    def conclude(self, trial_id: str, directory: Path) -> TrialResult:
        """The result of a trial that is not to run any longer: its own, or else ``interrupted``, written now.

        Whatever of it still runs is ended first.
        """


def process_mark(directory: Path) -> str:
    """A word for the trial in ``directory`` that tells a curious process nothing about where that is."""
    return hashlib.sha256(os.fsencode(directory)).hexdigest()[:16]


def conclude_as_interrupted(trial_id: str, directory: Path, *, reason: str, processes_killed: int = 0) -> TrialResult:
    """Write an ``interrupted`` result from what the runner left, unless there is one; returns what stands."""
    started, live = read_json(directory / STARTED_FILE), read_json(directory / LIVE_FILE)
    try:
        log = (directory / LOG_FILE).read_bytes()
    except FileNotFoundError:
        log = b""
    result = TrialResult(
        trial_id=trial_id,
        outcome=Outcome.INTERRUPTED,
        cause="gone",
        reason=reason,
        ended_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        duration_s=live.get("elapsed_s", 0.0),
        log_sha256=hashlib.sha256(log).hexdigest() if log else "",
        log_bytes=len(log),
        processes_killed=processes_killed,
        **{name: started[name] for name in ("started_at", "host", "device", "driver", "attempt") if name in started},
    )
    directory.mkdir(parents=True, exist_ok=True)
    result.write_first_wins(directory)
    return TrialResult.read(directory) or result


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; empty if there is none, or only half of one."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}
