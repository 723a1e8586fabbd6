"""Trials as detached processes of this machine."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError
from autoresearch.executors.base import RUNNER, Handle, State, conclude_as_interrupted, process_mark, read_json
from autoresearch.executors.settings import refuse, unknown_setting
from autoresearch.runner.orphans import MARK, end_orphans
from autoresearch.runner.processes import birth_mark, command_line, is_alive, pids, send
from autoresearch.trial import LIVE_FILE, RUNNER_ERR_FILE, SPEC_FILE, WAITS_FOR, Slot, TrialResult, TrialSpec

SETTINGS = ("gpus_per_trial", "cpus_per_trial", "wait_for_gpu_s")
LEAST_CPUS = 0.01
START_PATIENCE_S = 120.0  # a cold interpreter on a network disk
KILL_PATIENCE_S = 10.0
POLL_INTERVAL_S = 0.02


class LocalExecutor:
    """Starts a runner for each trial, which waits for the trial's slot and then runs it.

    The runner is nobody's child and in a session of its own. So it survives the end of whoever
    started it, of their terminal and of their process group, and is not reached by a client that
    kills everything below a command that took too long.
    """

    def __init__(self, slot: Slot | None = None) -> None:
        self.slot = slot or Slot()

    def submit(self, spec: TrialSpec) -> Handle:
        if not sys.platform.startswith("linux"):
            raise MachineError(f"trials can run on Linux only; this is {sys.platform}")
        directory = Path(spec.directory)
        path = replace(spec, slot=self.slot, env={**spec.env, MARK: process_mark(directory)}).write()
        with (directory / RUNNER_ERR_FILE).open("ab") as errors:
            launched = subprocess.run(
                [sys.executable, "-I", str(RUNNER), "--detach", str(path)],
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                start_new_session=True,
                check=False,
                timeout=START_PATIENCE_S,
            )
        if not launched.stdout:
            said = (directory / RUNNER_ERR_FILE).read_text(encoding="utf-8", errors="replace").strip()
            raise MachineError(
                f"the runner did not start: {said[-500:] or f'exit code {launched.returncode}'}",
                hint=f"look at {directory / RUNNER_ERR_FILE}",
            )
        runner = json.loads(launched.stdout)
        return local_handle(spec.trial_id, directory, runner["pid"], runner["birth_mark"])

    def poll(self, handles: Sequence[Handle]) -> dict[str, State]:
        return {each["trial_id"]: state_of(each) for each in handles}

    def cancel(self, handle: Handle) -> None:
        stop_runner(handle)
        self.conclude(handle["trial_id"], Path(handle["directory"]))

    def find(self, trial_id: str, directory: Path) -> Handle | None:
        command = [str(RUNNER), "--detach", str(directory / SPEC_FILE)]
        for pid in pids():
            if command_line(pid)[-len(command) :] == command and (mark := birth_mark(pid)):
                return local_handle(trial_id, directory, pid, mark)
        return None

    def conclude(self, trial_id: str, directory: Path) -> TrialResult:
        if result := TrialResult.read(directory):
            return result
        if running := self.find(trial_id, directory):
            stop_runner(running)
        return conclude_as_interrupted(
            trial_id,
            directory,
            reason="the runner ended without a result: killed, or the machine went down",
            processes_killed=end_orphans(process_mark(directory)),
        )


def slot_from_settings(settings: ExecutorSettings) -> Slot:
    """What ``executor`` asks for beside ``kind: local``; raises UsageError naming key, value and expectation."""
    options = dict(settings.options)

    def number(key: str, default: float, expected: str, *, at_least: float, whole: bool) -> float:
        value = options.pop(key, default)
        is_number = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
        if not is_number or not at_least <= value < math.inf:
            refuse(f"executor.{key} is {value!r}; expected {expected}.", SETTINGS)
        return float(value)

    slot = Slot(
        devices=settings.devices,
        gpus=int(number("gpus_per_trial", 1, "a whole number, 1 or more", at_least=1, whole=True)),
        cpus=number("cpus_per_trial", 0.0, f"a number of cores, {LEAST_CPUS:g} or more", at_least=0, whole=False),
        patience_s=number("wait_for_gpu_s", Slot.patience_s, "seconds, 0 or more", at_least=0, whole=False),
    )
    if 0 < slot.cpus < LEAST_CPUS or (slot.cpus > 1 and not slot.cpus.is_integer()):
        refuse(
            f"executor.cpus_per_trial is {slot.cpus:g}; expected whole cores, or a share of one such as 0.5.", SETTINGS
        )
    for key in options:
        refuse(unknown_setting("local", key, SETTINGS), SETTINGS)
    return slot


def local_handle(trial_id: str, directory: Path, pid: int, mark: str) -> Handle:
    return {
        "engine": "local",
        "id": str(pid),
        "birth_mark": mark,
        "trial_id": trial_id,
        "directory": str(directory),
    }


def state_of(handle: Handle) -> State:
    if not runs(handle):
        return State.GONE
    return State.QUEUED if read_json(Path(handle["directory"]) / LIVE_FILE).get(WAITS_FOR) else State.RUNNING


def runs(handle: Handle) -> bool:
    return is_alive(int(handle["id"]), handle["birth_mark"])


def stop_runner(handle: Handle) -> None:
    """Have the runner end its trial; kill it if it does not come to its end."""
    grace_s = read_json(Path(handle["directory"]) / SPEC_FILE).get("grace_s", 0.0)
    for number, patience_s in ((SIGTERM, grace_s + KILL_PATIENCE_S), (SIGKILL, KILL_PATIENCE_S)):
        give_up = time.monotonic() + patience_s
        if runs(handle):
            send([int(handle["id"])], number)
        while runs(handle) and time.monotonic() < give_up:
            time.sleep(POLL_INTERVAL_S)
