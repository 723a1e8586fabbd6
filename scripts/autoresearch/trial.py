"""What a trial is asked to do and what came of it: the two records a runner shares with the rest.

A trial directory holds, under the names below and nowhere else::

    spec.json     written before the runner starts; never changed
    started.json  written by the runner when the command has been started
    log.txt       stdout and stderr of the command, capped in size
    live.json     rewritten while the trial runs: progress, last loss, memory; before that: what it waits for
    result.json   written once, atomically; the first writer wins; its existence means "ended"
    runner.err    what the runner itself said, empty unless it failed
"""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

SPEC_FILE = "spec.json"
STARTED_FILE = "started.json"
LOG_FILE = "log.txt"
LIVE_FILE = "live.json"
RESULT_FILE = "result.json"
RUNNER_ERR_FILE = "runner.err"
WAITS_FOR = "waits_for"  # the key of live.json that says, before the start, what the trial waits for


class Outcome(StrEnum):
    """How one trial ended."""

    COMPLETED = "completed"
    CRASHED = "crashed"
    TIMED_OUT = "timed_out"
    DIVERGED = "diverged"
    PRUNED = "pruned"
    INTERRUPTED = "interrupted"
    INVALID = "invalid"


@dataclass(frozen=True, kw_only=True)
class Slot:
    """What of this machine a trial has to itself; its runner waits until no other trial uses it."""

    devices: str = "auto"  # auto | cpu | numbers or UUIDs of GPUs, "0,1", among which ``gpus`` are chosen
    gpus: int = 1
    cpus: float = 0.0  # cores, or a share of one; 0: all of them without a GPU, none beside one
    patience_s: float = 600.0  # how long to wait for processes that are no trials to leave a GPU


@dataclass(frozen=True, kw_only=True)
class TrialSpec:
    """One trial, complete: the runner needs nothing else and writes only into ``directory``.

    Times are in seconds, memory in MiB, paths absolute.
    """

    trial_id: str
    directory: str
    command: str  # the user's shell line, {seed} already filled in
    cwd: str
    env: dict[str, str]  # the whole environment of the command, nothing is inherited
    engine_names: str = ""  # but these: a pattern of variables that the engine sets on the machine of the trial
    slot: Slot | None = None  # None where the engine gives out devices
    gpu_mib: float = 0.0  # that must be free on its GPU before it starts
    seed: int
    budget_s: float
    limit_s: float  # the tree is killed this long after its start
    metric: str
    metric_pattern: str  # regular expression, one group: the value
    watch: dict[str, str] = field(default_factory=dict)  # name -> pattern, as for the metric
    progress_pattern: str = ""  # named groups: percent, loss; "" means the built-in one
    evaluate_command: str = ""  # run after a clean end; then its output alone holds the metric
    evaluate_limit_s: float = 0.0
    stall_s: float = 0.0  # no output for this long ends the trial; 0 = never
    log_cap_bytes: int = 64 * 2**20
    grace_s: float = 5.0  # between SIGTERM and SIGKILL
    # Early kill: (fraction of the run, highest loss still worth going on for), ascending fractions.
    prune_above: tuple[tuple[float, float], ...] = ()
    diverged_above: float = 0.0  # a training loss above this ends the trial; 0 = only NaN and infinity

    def write(self) -> Path:
        """Create ``directory`` and write ``spec.json`` into it, atomically."""
        directory = Path(self.directory)
        directory.mkdir(parents=True, exist_ok=True)
        path = directory / SPEC_FILE
        write_json(path, dataclasses.asdict(self))
        return path

    @classmethod
    def read(cls, path: Path) -> Self:
        data = json.loads(path.read_text(encoding="utf-8"))
        data["prune_above"] = tuple((float(at), float(loss)) for at, loss in data["prune_above"])
        data["slot"] = Slot(**data["slot"]) if data.get("slot") else None
        return cls(**data)


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """What came of a trial. ``metric`` is None unless the outcome is ``completed``."""

    trial_id: str
    outcome: Outcome
    reason: str = ""  # one line, in words: "killed after 600 s (limit)", "out of memory on the GPU"
    cause: str = ""  # a word to group by: oom_gpu, oom_host, nan, timeout, stall, no_metric, two_metrics, exit, ...
    metric: float | None = None
    watched: dict[str, float] = field(default_factory=dict)
    exit_code: int | None = None
    signal: int | None = None
    started_at: str = ""  # UTC, ISO 8601
    ended_at: str = ""
    duration_s: float = 0.0
    peak_mem_mib: float | None = None
    peak_mem_source: str = ""  # log | nvml | rss
    log_sha256: str = ""
    log_bytes: int = 0
    log_truncated: bool = False
    curve: tuple[tuple[float, float], ...] = ()  # (fraction of the run 0..1, training loss), thinned to <= 256
    host: str = ""
    device: str = ""  # "NVIDIA H100 80GB HBM3" or "cpu"
    driver: str = ""
    attempt: int = 0
    processes_killed: int = 0
    disturbed: str = ""  # who else computed on its GPU, or what of it is still in use there; in words

    def write_first_wins(self, directory: Path) -> bool:
        """Write ``result.json`` unless one is there already; True if this call wrote it."""
        return write_json(directory / RESULT_FILE, dataclasses.asdict(self), first_wins=True)

    @classmethod
    def read(cls, directory: Path) -> Self | None:
        """The result in ``directory``, or None while there is none."""
        try:
            return cls.from_json((directory / RESULT_FILE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), ensure_ascii=False, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        data = json.loads(text)
        data["outcome"] = Outcome(data["outcome"])
        data["curve"] = tuple((float(at), float(loss)) for at, loss in data["curve"])
        return cls(**data)


def write_json(path: Path, data: Any, *, first_wins: bool = False) -> bool:
    """Write ``data`` durably under ``path``; a reader sees the old file or the new one, never half.

    With ``first_wins`` an existing file stays as it is. Returns whether ``path`` now holds ``data``.
    """
    temporary = path.with_name(f".{path.name}.{os.urandom(8).hex()}")  # importing tempfile takes longer than the rest
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            json.dump(data, file, ensure_ascii=False, allow_nan=False)
            file.flush()
            os.fsync(file.fileno())
        if not first_wins:
            temporary.replace(path)
            return True
        try:
            path.hardlink_to(temporary)
        except FileExistsError:
            return False
        return True
    finally:
        temporary.unlink(missing_ok=True)
