"""Whether slots, memory figures, kills and the flag for other people's programs hold on a real NVIDIA GPU.

    PYTHONPATH=scripts python benchmarks/gpu_checks.py

Needs torch with CUDA and nvidia-ml-py, and a GPU that nobody else uses. Takes about two minutes.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from autoresearch.executors import LocalExecutor, State
from autoresearch.executors.base import Handle
from autoresearch.runner.devices import Device, computing, eligible_devices, memory_info
from autoresearch.runner.leases import FOLDER_NAME
from autoresearch.runner.memory import MIB, in_container, load_nvml
from autoresearch.trial import LIVE_FILE, LOG_FILE, WAITS_FOR, Outcome, Slot, TrialResult, TrialSpec

PATIENCE_S = 120.0
POLL_S = 0.02
CONTEXT_MIB = 1500.0  # NVML counts CUDA's own context and kernels, torch does not
FREE_MIB = 64.0

# Allocates argv[1] MiB, says ready, multiplies matrices for argv[2] seconds, says what torch has reserved.
PROGRAM = """\
import sys, time
import torch
block = torch.empty(int(sys.argv[1]) * 2**20, dtype=torch.uint8, device="cuda")
matrix = torch.randn(4096, 4096, device="cuda")
print("ready", flush=True)
end = time.monotonic() + float(sys.argv[2])
while time.monotonic() < end:
    for _ in range(20):
        matrix = torch.nn.functional.normalize(matrix @ matrix)
    torch.cuda.synchronize()
print(f"reserved_mib: {torch.cuda.max_memory_reserved() / 2**20:.1f}")
print("val_bpb: 0.5")
"""


class Bench:
    """A folder with the program, and trials of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM, encoding="utf-8")
        self.trials = 0
        nvml, devices = load_nvml(), eligible_devices("auto", os.environ)
        if nvml is None or not devices or devices[0].handle is None:
            raise SystemExit("no GPU that NVML can be asked about; nvidia-ml-py is needed")
        self.nvml: Any = nvml
        self.devices: list[Device] = devices
        self.idle_mib = self.used_mib()

    def line(self, mib: int, seconds: float) -> str:
        return f"{sys.executable} {self.program} {mib} {seconds}"

    def spec(self, command: str) -> TrialSpec:
        self.trials += 1
        return TrialSpec(
            trial_id=f"t{self.trials}", directory=str(self.folder / f"t{self.trials}"), command=command,
            cwd=str(self.folder), env=dict(os.environ), seed=1, budget_s=60.0, limit_s=PATIENCE_S, metric="val_bpb",
            metric_pattern=r"^val_bpb:\s*(\S+)", watch={"reserved_mib": r"^reserved_mib:\s*(\S+)"},
        )  # fmt: skip

    def submit(self, command: str, **slot: Any) -> Handle:
        return LocalExecutor(Slot(**slot)).submit(self.spec(command))

    def used_mib(self) -> float:
        """On the first GPU, whoever uses it."""
        return float(memory_info(self.nvml, self.devices[0].handle).used) / MIB

    @contextlib.contextmanager
    def foreign(self, mib: int = 2000) -> Iterator[None]:
        """Another person's program at work on the first GPU."""
        env = {**os.environ, "CUDA_VISIBLE_DEVICES": self.devices[0].visible, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
        argv = [sys.executable, str(self.program), str(mib), "600"]
        with subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, text=True) as process:
            try:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n", "the foreign program did not start"
                time.sleep(1.5)  # until NVML's mean over the last second shows it
                yield
            finally:
                process.kill()
        until(lambda: self.used_mib() < self.idle_mib + FREE_MIB)


def until(condition: Callable[[], Any]) -> Any:
    """The first true value of ``condition``."""
    give_up = time.monotonic() + PATIENCE_S
    while not (value := condition()):
        assert time.monotonic() < give_up, "it did not come to pass"
        time.sleep(POLL_S)
    return value


def state(handle: Handle) -> State:
    return LocalExecutor().poll([handle])[handle["trial_id"]]


def waits_for(handle: Handle) -> str:
    try:
        return str(json.loads((Path(handle["directory"]) / LIVE_FILE).read_text()).get(WAITS_FOR, ""))
    except FileNotFoundError:
        return ""


def computes(handle: Handle) -> bool:
    log = Path(handle["directory"]) / LOG_FILE
    return log.exists() and "ready" in log.read_text()


def result_of(handle: Handle) -> TrialResult:
    result = until(lambda: TrialResult.read(Path(handle["directory"])))
    assert isinstance(result, TrialResult)
    return result


# --- the checks: each returns what it measured, and fails by an assertion --------------------------


def slots(bench: Bench) -> str:
    """As many trials at once as there are GPUs, each on its own; one more waits, and its time does not run."""
    count = len(bench.devices)
    running = [bench.submit(f"echo on $CUDA_VISIBLE_DEVICES; {bench.line(500, 8)}") for _ in range(count)]
    for handle in running:
        until(partial(computes, handle))
    more = bench.submit(bench.line(500, 1))
    until(lambda: state(more) is State.QUEUED)
    told = waits_for(more)
    results = [result_of(handle) for handle in (*running, more)]
    assert all(each.outcome is Outcome.COMPLETED for each in results), results
    assert not any(each.disturbed for each in results), results
    logs = [(Path(handle["directory"]) / LOG_FILE).read_text() for handle in running]
    used = {re.findall(r"^on (\S+)$", log, re.MULTILINE)[0] for log in logs}
    assert len(used) == count
    return f"{count} at once; the next waited for: {told}"


def memory(bench: Bench) -> str:
    """NVML's peak of a trial is torch's own figure and a CUDA context."""
    result = result_of(bench.submit(bench.line(6000, 4)))
    assert (result.outcome, result.peak_mem_source) == (Outcome.COMPLETED, "nvml"), result
    assert result.peak_mem_mib is not None
    beyond = result.peak_mem_mib - result.watched["reserved_mib"]
    assert 0 < beyond < CONTEXT_MIB, result
    return f"NVML {result.peak_mem_mib:.0f} MiB, torch {result.watched['reserved_mib']:.0f} MiB"


def kill(bench: Bench) -> str:
    """After a trial is cancelled, with a process of it that has detached itself, the memory is free again."""
    handle = bench.submit(f"(setsid {bench.line(3000, 300)} > detached.txt &); {bench.line(5000, 300)}")
    detached = bench.folder / "detached.txt"
    until(lambda: computes(handle) and "ready" in detached.read_text())
    held = bench.used_mib()
    assert held - bench.idle_mib > 8000, held
    started = time.monotonic()
    LocalExecutor().cancel(handle)
    took_s = time.monotonic() - started
    result = result_of(handle)
    left = bench.used_mib() - bench.idle_mib
    assert result.disturbed == "", result
    assert left < FREE_MIB, left
    return f"{held:.0f} MiB held; {took_s:.2f} s after the cancel {left:.0f} MiB are left"


def killed_runner(bench: Bench) -> str:
    """What a runner that is killed leaves on the GPU is ended before the next trial starts there."""
    one = bench.devices[0].visible
    handle = bench.submit(f"setsid {bench.line(4000, 300)}", devices=one)
    until(lambda: computes(handle))
    following = bench.submit(bench.line(500, 1), devices=one)
    until(lambda: state(following) is State.QUEUED)
    os.kill(int(handle["id"]), signal.SIGKILL)
    started = time.monotonic()
    result = result_of(following)
    waited_s = time.monotonic() - started - result.duration_s
    assert (result.outcome, result.disturbed) == (Outcome.COMPLETED, ""), result
    assert LocalExecutor().conclude(handle["trial_id"], Path(handle["directory"])).cause == "gone"
    return f"the next one started about {waited_s:.2f} s after the kill"


def foreign_before(bench: Bench) -> str:
    """A GPU on which somebody computes is waited for, then refused; once it is free, it is used."""
    with bench.foreign():
        refused = bench.submit(bench.line(500, 1), devices=bench.devices[0].visible, patience_s=3.0)
        result = result_of(refused)
        assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "device_busy"), result
        waiting = bench.submit(bench.line(500, 1), devices=bench.devices[0].visible)
        until(lambda: state(waiting) is State.QUEUED)
    clean = result_of(waiting)
    assert (clean.outcome, clean.disturbed) == (Outcome.COMPLETED, ""), clean
    return result.reason


def foreign_beside(bench: Bench) -> str:
    """Somebody who comes while a trial runs, and stays, is flagged in its result."""
    handle = bench.submit(bench.line(500, 12), devices=bench.devices[0].visible)
    until(lambda: computes(handle))
    with bench.foreign():
        result = result_of(handle)
    assert result.outcome is Outcome.COMPLETED, result
    assert result.disturbed, result
    return result.disturbed


CHECKS = (slots, memory, kill, killed_runner, foreign_before, foreign_beside)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip(), formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", choices=[check.__name__ for check in CHECKS], help="run this one alone")
    only = parser.parse_args().only
    failed = 0
    with tempfile.TemporaryDirectory(prefix="gpu-checks-") as name:
        os.environ[FOLDER_NAME] = f"{name}/leases"
        bench = Bench(Path(name))
        listed = len(computing(bench.nvml, bench.devices[0].handle))
        print(f"{len(bench.devices)} x {bench.devices[0].model}, {bench.idle_mib:.0f} MiB used while idle,", end=" ")
        print(f"{listed} processes listed; in a container: {in_container()}")
        for check in CHECKS:
            if only in (None, check.__name__):
                failed += not passes(check, bench)
    return int(failed > 0)


def passes(check: Callable[[Bench], str], bench: Bench) -> bool:
    """Run ``check`` and print what came of it."""
    started = time.monotonic()
    try:
        told, word = check(bench), "ok"
    except AssertionError as error:
        told, word = str(error) or "an assertion", "FAILED"
    print(f"{word:<7}{check.__name__:<16}{time.monotonic() - started:>6.1f} s  {told}", flush=True)
    if word == "FAILED":
        for number in range(1, bench.trials + 1):  # so that the next check finds the machine free
            LocalExecutor().conclude(f"t{number}", bench.folder / f"t{number}")
    return word == "ok"


if __name__ == "__main__":
    raise SystemExit(main())
