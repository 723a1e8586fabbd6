"""How many trials of sleepers 16 CPU slots finish in the time of one, and what each costs its runner in CPU time."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from autoresearch.executors import LocalExecutor
from autoresearch.executors.base import RUNNER, Handle
from autoresearch.runner.leases import FOLDER_NAME
from autoresearch.trial import Outcome, Slot, TrialResult, TrialSpec

SLOTS = 16
TARGET_RATIO = 15.5
TARGET_CPU_S = 0.050
PATIENCE_S = 300.0
POLL_S = 0.01


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip())
    parser.add_argument("--seconds", type=float, default=15.0, help="that one trial sleeps (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=4, help="trials of each slot (default: %(default)s)")
    arguments = parser.parse_args()
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="slots-") as name:
        folder = Path(name)
        os.environ[FOLDER_NAME] = str(folder / "leases")  # other campaigns on this machine do not count
        one = throughput(folder / "one", slot=Slot(devices="cpu"), trials=arguments.rounds, seconds=arguments.seconds)
        many = throughput(
            folder / "many",
            slot=Slot(devices="cpu", cpus=share_of(cores)),
            trials=arguments.rounds * SLOTS,
            seconds=arguments.seconds,
        )
        return report(one, many, *runner_cpu_s(folder / "cpu"), cores)


def share_of(cores: int) -> float:
    """What each of ``SLOTS`` trials gets of a machine's cores: whole ones, or else a share of one."""
    return float(cores // SLOTS) if cores >= SLOTS else cores / SLOTS


def sleeper(folder: Path, number: int, seconds: float) -> TrialSpec:
    return TrialSpec(
        trial_id=f"t{number}", directory=str(folder / str(number)), command=f"sleep {seconds}; echo val_bpb: 0.5",
        cwd=str(folder), env={"PATH": os.environ["PATH"]}, seed=number, budget_s=seconds, limit_s=PATIENCE_S,
        metric="val_bpb", metric_pattern=r"^val_bpb:\s*(\S+)",
    )  # fmt: skip


def throughput(folder: Path, *, slot: Slot, trials: int, seconds: float) -> float:
    """Trials a second, all submitted at once."""
    folder.mkdir(parents=True)
    executor = LocalExecutor(slot)
    started = time.perf_counter()
    wait_for([executor.submit(sleeper(folder, number, seconds)) for number in range(trials)])
    return trials / (time.perf_counter() - started)


def wait_for(handles: Sequence[Handle]) -> None:
    """Until every one has completed."""
    give_up = time.monotonic() + PATIENCE_S
    for handle in handles:
        while (result := TrialResult.read(Path(handle["directory"]))) is None and time.monotonic() < give_up:
            time.sleep(POLL_S)
        assert result is not None, f"{handle['trial_id']} did not end"
        assert result.outcome is Outcome.COMPLETED, result


def runner_cpu_s(folder: Path, trials: int = 15) -> tuple[float, float]:
    """CPU seconds of a runner for a command that does nothing, and those of them that its slot takes: medians."""
    folder.mkdir()
    pairs = []
    for number in range(trials):
        specs = (sleeper(folder, 2 * number, 0.0), sleeper(folder, 2 * number + 1, 0.0))
        pairs.append((cpu_s(specs[0]), cpu_s(replace(specs[1], slot=Slot(devices="cpu")))))
    return statistics.median(slot for _, slot in pairs), statistics.median(slot - bare for bare, slot in pairs)


def cpu_s(spec: TrialSpec) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, "-I", str(RUNNER), str(spec.write())], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(one: float, many: float, runner_s: float, slot_s: float, cores: int) -> int:
    """Print the figures; 1 if a target is missed."""
    ratio = many / one
    print(f"{cores} cores; one slot {one:.3f} trials/s, {SLOTS} slots {many:.3f} trials/s")
    print(f"ratio {ratio:.2f} (target {TARGET_RATIO})")
    print(f"a runner takes {1000 * runner_s:.0f} ms of CPU, {1000 * slot_s:.1f} ms of them for its slot", end="")
    print(f" (target {1000 * TARGET_CPU_S:.0f} ms)")
    return int(ratio < TARGET_RATIO or slot_s > TARGET_CPU_S)


if __name__ == "__main__":
    raise SystemExit(main())
