"""What every engine shows, whatever it is: each ``test_executor_<engine>.py`` takes in all of these tests.

It gives them a fixture ``engine``.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.trial_bench import LONG, METRIC, eventually, living, log_of, trial_spec

from autoresearch.executors import Executor, Handle, State
from autoresearch.executors.base import conclude_as_interrupted
from autoresearch.trial import STARTED_FILE, Outcome, TrialResult, TrialSpec

__all__ = [
    "small_disk",
    "test_cancel_in_the_queue_is_an_interrupted_trial_that_never_starts",
    "test_cancel_lets_the_runner_end_its_tree_and_is_harmless_afterwards",
    "test_full_shared_disk_is_a_trial_with_that_reason",
    "test_lost_trial_is_concluded_once_the_full_disk_has_room_again",
    "test_many_are_asked_about_at_once_and_what_finds_no_slot_waits",
    "test_of_two_attempts_that_overlap_the_first_result_stands",
    "test_the_budget_is_the_runners_in_seconds",
    "test_the_command_gets_its_own_environment_and_none_of_the_submitters_secrets",
    "test_trial_is_found_whose_submitter_noted_nothing",
    "test_trial_runs_and_is_gone_when_it_has_a_result",
    "test_trial_that_was_never_submitted_is_concluded_too",
]


@dataclass(frozen=True)
class Engine:
    """One engine under test: ``executor`` waits for nothing longer than a test should."""

    executor: Executor
    slots: int  # trials that run at the same time

    def state(self, handle: Handle) -> State:
        return self.executor.poll([handle])[handle["trial_id"]]

    def submit_ready(self, spec: TrialSpec) -> Handle:
        """Submit a command that prints ``ready``, and wait until it has."""
        handle = self.executor.submit(spec)
        eventually(lambda: "ready" in log_of(Path(spec.directory)))
        return handle


def result_of(handle: Handle) -> TrialResult:
    directory = Path(handle["directory"])
    result = eventually(lambda: TrialResult.read(directory))
    assert isinstance(result, TrialResult)
    return result


def marked(folder: Path) -> tuple[dict[str, str], str]:
    """An environment by which ``living`` knows the processes of a trial, and the mark."""
    return {"PATH": os.environ["PATH"], "CONFORMANCE": str(folder)}, f"CONFORMANCE={folder}"


def held(folder: Path) -> tuple[Path, str]:
    """A file, and a command that lasts as long as it exists, however slow the machine is."""
    gate = folder / "gate"
    gate.touch()
    return gate, f"while [ -e {gate} ]; do sleep 0.05; done"


# ---- a trial's life


def test_trial_runs_and_is_gone_when_it_has_a_result(engine: Engine, tmp_path: Path) -> None:
    gate, command = held(tmp_path)
    handle = engine.submit_ready(trial_spec(f"echo ready; {command}; {METRIC}", tmp_path / "t"))
    assert json.loads(json.dumps(handle)) == handle
    assert handle.keys() >= {"engine", "id", "trial_id", "directory"}
    assert engine.state(handle) is State.RUNNING
    gate.unlink()
    result = result_of(handle)
    assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    eventually(lambda: engine.state(handle) is State.GONE)
    assert engine.executor.conclude("t1", tmp_path / "t") == result


def test_the_command_gets_its_own_environment_and_none_of_the_submitters_secrets(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    command = f"echo key [$ANTHROPIC_API_KEY] mine [$MINE] from [$PWD]; {METRIC}"
    env = {"PATH": os.environ["PATH"], "MINE": "a b,c"}
    assert result_of(engine.executor.submit(trial_spec(command, tmp_path / "t", env=env))).metric == 0.5
    assert f"key [] mine [a b,c] from [{tmp_path}]" in log_of(tmp_path / "t")


def test_many_are_asked_about_at_once_and_what_finds_no_slot_waits(engine: Engine, tmp_path: Path) -> None:
    number = engine.slots + 1
    gate, command = held(tmp_path)
    specs = [trial_spec(f"{command}; {METRIC}", tmp_path / f"t{n}", trial_id=f"t{n}") for n in range(number)]
    handles = [engine.executor.submit(spec) for spec in specs]
    eventually(lambda: sorted(engine.executor.poll(handles).values()) == ["queued"] + ["running"] * engine.slots)
    assert engine.executor.poll(handles).keys() == {spec.trial_id for spec in specs}
    gate.unlink()
    assert [result_of(handle).outcome for handle in handles] == [Outcome.COMPLETED] * number
    assert engine.executor.poll([]) == {}


def test_the_budget_is_the_runners_in_seconds(engine: Engine, tmp_path: Path) -> None:
    env, mark = marked(tmp_path)
    spec = trial_spec(f"(setsid {LONG} &); {LONG}", tmp_path / "t", env=env, limit_s=1.0, grace_s=1.0)
    result = result_of(engine.executor.submit(spec))
    assert result.outcome is Outcome.TIMED_OUT
    assert 1 <= result.duration_s < 10
    eventually(lambda: not living(mark))


# ---- its end


def test_cancel_lets_the_runner_end_its_tree_and_is_harmless_afterwards(engine: Engine, tmp_path: Path) -> None:
    env, mark = marked(tmp_path)
    command = f"(trap '' TERM; setsid {LONG}) & echo ready; trap 'echo last words' TERM; wait; wait"
    handle = engine.submit_ready(trial_spec(command, tmp_path / "t", env=env, grace_s=1.0))
    engine.executor.cancel(handle)
    result = TrialResult.read(tmp_path / "t")
    assert result
    assert (result.outcome, result.reason) == (Outcome.INTERRUPTED, "stopped by SIGTERM")
    assert "last words" in log_of(tmp_path / "t")
    eventually(lambda: not living(mark))
    engine.executor.cancel(handle)
    assert TrialResult.read(tmp_path / "t") == result


def test_cancel_in_the_queue_is_an_interrupted_trial_that_never_starts(engine: Engine, tmp_path: Path) -> None:
    specs = [trial_spec(f"echo ready; {LONG}", tmp_path / f"t{n}", trial_id=f"t{n}") for n in range(engine.slots)]
    holders = [engine.submit_ready(spec) for spec in specs]
    waiting = engine.executor.submit(trial_spec(METRIC, tmp_path / "waits", trial_id="waits"))
    eventually(lambda: engine.state(waiting) is State.QUEUED)
    began = time.monotonic()
    engine.executor.cancel(waiting)
    assert time.monotonic() - began < 10
    result = TrialResult.read(tmp_path / "waits")
    assert result
    assert result.outcome is Outcome.INTERRUPTED
    for handle in holders:
        engine.executor.cancel(handle)
    eventually(lambda: engine.state(waiting) is State.GONE)
    assert not (tmp_path / "waits" / STARTED_FILE).exists()


def test_trial_is_found_whose_submitter_noted_nothing(engine: Engine, tmp_path: Path) -> None:
    env, mark = marked(tmp_path)
    assert engine.executor.find("t1", tmp_path / "t") is None
    handle = engine.submit_ready(trial_spec(f"echo ready; {LONG}", tmp_path / "t", env=env, grace_s=1.0))
    assert engine.executor.find("t1", tmp_path / "t") == handle
    assert engine.executor.find("t1", tmp_path / "other") is None
    assert engine.executor.conclude("t1", tmp_path / "t").outcome is Outcome.INTERRUPTED
    eventually(lambda: not living(mark))
    eventually(lambda: engine.executor.find("t1", tmp_path / "t") is None)


def test_trial_that_was_never_submitted_is_concluded_too(engine: Engine, tmp_path: Path) -> None:
    result = engine.executor.conclude("t1", tmp_path / "t")
    assert (result.outcome, result.processes_killed, result.started_at) == (Outcome.INTERRUPTED, 0, "")
    assert TrialResult.read(tmp_path / "t") == result


# ---- faults


def test_of_two_attempts_that_overlap_the_first_result_stands(engine: Engine, tmp_path: Path) -> None:
    """An engine has taken a trial for lost that still runs, and the trial comes to its end."""
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    handle = engine.submit_ready(trial_spec(f"echo ready; read -r line < {fifo}; {METRIC}", tmp_path / "t"))
    taken = conclude_as_interrupted("t1", tmp_path / "t", reason="the node was taken for dead")
    fifo.write_text("go on\n")
    eventually(lambda: engine.state(handle) is State.GONE)
    assert "val_bpb: 0.5" in log_of(tmp_path / "t")
    assert TrialResult.read(tmp_path / "t") == engine.executor.conclude("t1", tmp_path / "t") == taken


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own with room for 2 MB; needs the right to mount one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    mounted = subprocess.run(command, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"a full disk needs the right to mount one: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_full_shared_disk_is_a_trial_with_that_reason(engine: Engine, small_disk: Path) -> None:
    result = result_of(engine.executor.submit(trial_spec("yes", small_disk / "t", grace_s=1.0)))
    assert (result.outcome, result.cause) == (Outcome.CRASHED, "disk")


def test_lost_trial_is_concluded_once_the_full_disk_has_room_again(engine: Engine, small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    (small_disk / "t").mkdir()
    with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(2**16))
    with pytest.raises(OSError, match="No space left"):
        engine.executor.conclude("t1", small_disk / "t")
    assert TrialResult.read(small_disk / "t") is None
    ballast.unlink()
    assert engine.executor.conclude("t1", small_disk / "t").outcome is Outcome.INTERRUPTED
