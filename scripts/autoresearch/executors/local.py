"""Trials as detached processes of this machine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from signal import SIGKILL, SIGTERM

import autoresearch.runner
from autoresearch.errors import MachineError
from autoresearch.executors.base import Handle, State, conclude_as_interrupted, process_mark, read_json
from autoresearch.runner.processes import (
    ancestors,
    birth_mark,
    command_line,
    descendants,
    environment_holds,
    freeze_and_kill,
    is_alive,
    pids,
    send,
)
from autoresearch.trial import RUNNER_ERR_FILE, SPEC_FILE, TrialResult, TrialSpec

RUNNER = Path(autoresearch.runner.__file__).with_name("__main__.py")
MARK = "AUTORESEARCH_PROCESS_MARK"  # an environment variable that tells a trial's processes from all others
START_PATIENCE_S = 120.0  # a cold interpreter on a network disk
KILL_PATIENCE_S = 10.0
POLL_INTERVAL_S = 0.02


class LocalExecutor:
    """Starts a runner for each trial. It is nobody's child and in a session of its own.

    So it survives the end of whoever started it, of their terminal and of their process group, and
    is not reached by a client that kills everything below a command that took too long.
    """

    def submit(self, spec: TrialSpec) -> Handle:
        if not sys.platform.startswith("linux"):
            raise MachineError(f"trials can run on Linux only; this is {sys.platform}")
        directory = Path(spec.directory)
        path = replace(spec, env={**spec.env, MARK: process_mark(directory)}).write()
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
        return {each["trial_id"]: State.RUNNING if runs(each) else State.GONE for each in handles}

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
            processes_killed=kill_orphans(directory),
        )


def local_handle(trial_id: str, directory: Path, pid: int, mark: str) -> Handle:
    return {
        "engine": "local",
        "id": str(pid),
        "birth_mark": mark,
        "trial_id": trial_id,
        "directory": str(directory),
    }


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


def kill_orphans(directory: Path) -> int:
    """Kill the processes that the trial in ``directory`` left when its runner died; returns how many.

    They are known by their environment, or by descending from one so known. Not found is one that
    cleared its environment and whose parent is gone.
    """
    entry = f"{MARK}={process_mark(directory)}"
    spared = {os.getpid(), *ancestors(os.getpid())}  # in case a trial runs trials

    def orphans() -> set[int]:
        marked = {pid for pid in pids() if environment_holds(pid, entry)}
        return (marked | descendants(marked)) - spared

    killed: set[int] = set()
    give_up = time.monotonic() + KILL_PATIENCE_S
    while (found := freeze_and_kill(orphans)) and time.monotonic() < give_up:
        killed |= found
        time.sleep(POLL_INTERVAL_S)
    return len(killed)
