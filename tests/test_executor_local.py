"""The local executor: trials that outlive whoever started them, and an end to what is left of them."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.executor_conformance import *  # noqa: F403 - what every engine shows
from tests.executor_conformance import Engine
from tests.trial_bench import DEADLINE_S, LONG, eventually, living, log_of, trial_spec

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError, UsageError
from autoresearch.executors import Handle, LocalExecutor, State, executor_for, local
from autoresearch.executors.base import process_mark
from autoresearch.runner.orphans import MARK
from autoresearch.runner.processes import ancestors, birth_mark, command_line, pids, send
from autoresearch.trial import STARTED_FILE, Outcome, Slot, TrialResult, TrialSpec

SCRIPTS = Path(local.__file__).parents[2]
EXECUTOR = LocalExecutor(Slot(devices="cpu", cpus=0.1))  # some of these trials run at the same time
WAITING = "mkfifo fifo; echo ready; read -r line < fifo; echo val_bpb: 0.5"

SUBMIT_AND_WAIT = f"""
import json, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, {str(SCRIPTS)!r})
from pathlib import Path
from autoresearch.executors import LocalExecutor
from autoresearch.trial import TrialSpec
handle = LocalExecutor().submit(TrialSpec.read(Path(sys.argv[1])))
Path(sys.argv[2]).write_text(json.dumps(handle))
time.sleep(300)
"""


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[Callable[..., TrialSpec]]:
    """``spec(command, name="trial", **settings)``: specs whose processes are ended after the test."""
    directories = []

    def make(command: str, name: str = "trial", **settings: Any) -> TrialSpec:
        directories.append(tmp_path / name)
        return trial_spec(command, tmp_path / name, **settings)

    yield make
    for directory in directories:
        EXECUTOR.conclude("t1", directory)
        assert not living(mark_of(directory))


@pytest.fixture
def engine() -> Engine:
    return Engine(LocalExecutor(Slot(devices="cpu")), slots=1)  # a trial without a GPU has all cores


def mark_of(directory: Path) -> str:
    return f"{MARK}={process_mark(directory)}"


def state(handle: Handle) -> State:
    return EXECUTOR.poll([handle])["t1"]


def submit_ready(spec: TrialSpec) -> Handle:
    """Submit a command that prints ``ready``, and wait until it has."""
    handle = EXECUTOR.submit(spec)
    eventually(lambda: "ready" in log_of(Path(spec.directory)))
    return handle


def completes(handle: Handle) -> bool:
    """Let a trial that waits at ``WAITING`` go on; whether it completes."""
    directory = Path(handle["directory"])
    fifo = os.open(directory.parent / "fifo", os.O_RDWR)  # for writing alone it would wait for a reader
    try:
        os.write(fifo, b"go on\n")
        result = eventually(lambda: TrialResult.read(directory) or state(handle) is State.GONE)
    finally:
        os.close(fifo)
    return isinstance(result, TrialResult) and result.outcome is Outcome.COMPLETED


# --- a trial's life ----------------------------------------------------------------------------


def test_command_gets_the_given_environment_and_a_mark(spec: Callable[..., TrialSpec]) -> None:
    trial = spec("tr '\\0' '\\n' < /proc/$$/environ; echo ready")
    submit_ready(trial)
    mark = mark_of(Path(trial.directory))
    given = [f"PATH={os.environ['PATH']}", "CUDA_VISIBLE_DEVICES=", mark]
    assert sorted(log_of(Path(trial.directory)).splitlines()) == sorted([*given, "ready"])


def test_runner_that_cannot_start_is_an_error(
    spec: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(local, "RUNNER", tmp_path / "missing.py")
    with pytest.raises(MachineError, match=r"missing\.py"):
        EXECUTOR.submit(spec(LONG))


# --- a trial outlives its submitter ------------------------------------------------------------


def launch(trial: TrialSpec, **how: Any) -> tuple[subprocess.Popen[bytes], Handle]:
    """Submit ``trial`` from a process of its own, which then waits."""
    noted = Path(trial.cwd) / "handle.json"
    path = Path(trial.cwd) / "to-submit.json"
    trial.write().rename(path)
    argv = [sys.executable, "-c", SUBMIT_AND_WAIT, str(path), str(noted)]
    launcher = subprocess.Popen(argv, start_new_session=True, **how)
    eventually(lambda: noted.exists() and noted.read_text())
    eventually(lambda: "ready" in log_of(Path(trial.directory)))
    return launcher, json.loads(noted.read_text())


def test_trial_survives_the_end_of_its_submitters_group(spec: Callable[..., TrialSpec]) -> None:
    launcher, handle = launch(spec(WAITING))
    assert launcher.pid not in ancestors(int(handle["id"])), "a client may kill all that descends from a command"
    os.killpg(launcher.pid, signal.SIGKILL)
    assert launcher.wait() == -signal.SIGKILL
    assert completes(handle)


def test_trial_survives_the_end_of_its_submitters_terminal(spec: Callable[..., TrialSpec]) -> None:
    terminal, side = pty.openpty()

    def take_terminal() -> None:
        fcntl.ioctl(side, termios.TIOCSCTTY, 0)

    launcher, handle = launch(spec(WAITING), stdin=side, stdout=side, stderr=side, preexec_fn=take_terminal)
    os.close(side)
    os.close(terminal)
    assert launcher.wait(DEADLINE_S) == -signal.SIGHUP
    assert completes(handle)


# --- its end -----------------------------------------------------------------------------------


def test_cancel_kills_a_runner_that_does_not_answer(
    spec: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "KILL_PATIENCE_S", 0.3)
    trial = spec(f"(setsid {LONG} &); echo ready; {LONG}", grace_s=0.0)
    handle = submit_ready(trial)
    os.kill(int(handle["id"]), signal.SIGSTOP)
    EXECUTOR.cancel(handle)
    result = TrialResult.read(Path(trial.directory))
    assert result
    assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "gone")
    assert (state(handle), living(mark_of(Path(trial.directory)))) == (State.GONE, set())


def test_trial_whose_runner_was_killed_is_concluded_as_interrupted(spec: Callable[..., TrialSpec]) -> None:
    unmarked = ["sleep", f"300.{os.getpid()}"]
    daemon = f"{LONG} & env -i {' '.join(unmarked)} & wait"
    trial = spec(f"(setsid sh -c '{daemon}' > /dev/null &); echo ready; {LONG}")
    directory = Path(trial.directory)
    handle = submit_ready(trial)
    eventually(lambda: any(command_line(pid) == unmarked for pid in pids()))
    started = json.loads((directory / STARTED_FILE).read_text())
    os.kill(int(handle["id"]), signal.SIGKILL)
    eventually(lambda: state(handle) is State.GONE)
    assert TrialResult.read(directory) is None
    assert living(mark_of(directory)), "the daemon is what this test is about"

    result = EXECUTOR.conclude("t1", directory)
    assert (result.outcome, result.cause, result.metric) == (Outcome.INTERRUPTED, "gone", None)
    assert result.processes_killed >= 3
    assert living(mark_of(directory)) == set()
    assert not any(command_line(pid) == unmarked for pid in pids())
    assert (result.started_at, result.host) == (started["started_at"], started["host"])
    assert result.log_bytes == len(log_of(Path(trial.directory)))
    assert EXECUTOR.conclude("t1", directory) == TrialResult.read(directory) == result


def test_orphans_of_a_trial_of_the_same_name_elsewhere_are_spared(spec: Callable[..., TrialSpec]) -> None:
    ours, theirs = spec(f"echo ready; {LONG}", "ours"), spec(f"echo ready; {LONG}", "theirs")
    submit_ready(ours)
    their_handle = submit_ready(theirs)
    assert EXECUTOR.conclude("t1", Path(ours.directory)).reason == "stopped by SIGTERM"
    assert living(mark_of(Path(ours.directory))) == set()
    assert living(mark_of(Path(theirs.directory)))
    assert state(their_handle) is State.RUNNING


def test_process_that_got_the_number_of_a_dead_runner_is_not_taken_for_it(
    spec: Callable[..., TrialSpec],
) -> None:
    handle = EXECUTOR.submit(spec("true"))
    eventually(lambda: state(handle) is State.GONE)
    stranger = subprocess.Popen(["sleep", "300"])
    try:
        recycled = handle | {"id": str(stranger.pid)}
        assert state(recycled) is State.GONE
        EXECUTOR.cancel(recycled)
        assert stranger.poll() is None
        assert state(handle | {"id": str(stranger.pid), "birth_mark": birth_mark(stranger.pid)}) is State.RUNNING
    finally:
        send([stranger.pid], signal.SIGKILL)
        stranger.wait()


def test_executor_is_chosen_by_the_settings() -> None:
    assert isinstance(executor_for(ExecutorSettings(kind="local")), LocalExecutor)
    with pytest.raises(UsageError, match="abacus"):
        executor_for(ExecutorSettings(kind="abacus"))
