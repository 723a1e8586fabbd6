"""What trials run on: GPUs and who else uses them, CPU cores, a cluster; the clock."""

from __future__ import annotations

import importlib
import os
import zoneinfo
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoresearch.agents.check import MIB, Check, failed, passed, refused, warning
from autoresearch.agents.leftovers import is_of_trial
from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError
from autoresearch.executors import executor_for
from autoresearch.executors.cluster import ClusterExecutor
from autoresearch.runner.devices import process_text
from autoresearch.runner.memory import GPU_NODES, text

FOREIGN_MIB = 512  # what a desktop takes is nobody's training
BUSY_PERCENT = 20
EARLIEST = datetime(2025, 1, 1, tzinfo=UTC)
CLOCK_SLACK_S = 120.0
FEW = 3


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """One GPU as NVML sees it now. ``foreign`` are processes that are no trials of ours."""

    index: int
    name: str
    total_mib: float
    used_mib: float
    busy_percent: int
    ours: int
    foreign: tuple[str, ...]

    @property
    def is_free(self) -> bool:
        return not self.foreign and (
            self.ours > 0 or (self.used_mib < FOREIGN_MIB and self.busy_percent < BUSY_PERCENT)
        )


def check_device(settings: ExecutorSettings) -> Iterator[Check]:
    """What a campaign's ``executor`` asks for: the GPUs and cores of this machine, or a cluster that answers."""
    executor = executor_for(settings)
    if isinstance(executor, ClusterExecutor):
        yield _check_controller(executor)
    else:
        yield _check_gpus(settings.devices)
        yield _check_cores()


def _check_controller(executor: ClusterExecutor) -> Check:
    try:
        jobs = executor.jobs()
    except MachineError as error:
        return refused("cluster", error)
    return passed("cluster", f"{executor.engine} answers and remembers {len(jobs)} jobs")


def _check_gpus(devices: str) -> Check:
    name = "gpu"
    wanted = [] if devices in ("auto", "cpu") else [word.strip() for word in devices.split(",")]
    if devices == "cpu":
        return passed(name, "none is asked for (executor.devices: cpu)")
    if not any(node.exists() for node in GPU_NODES):
        if wanted:
            return failed(name, f"there is none, and the settings ask for {devices}", "executor: {devices: auto}")
        return passed(name, "there is none; trials run on the CPU")
    try:
        driver, gpus = read_gpus()
    except Exception as error:  # noqa: BLE001 - whatever NVML raises, the driver is what is broken
        return warning(name, f"the driver cannot be asked: {error}", "nvidia-smi")
    chosen = [gpu for gpu in gpus if not wanted or str(gpu.index) in wanted]
    if absent := set(wanted) - {str(gpu.index) for gpu in gpus} - {word for word in wanted if not word.isdigit()}:
        return failed(name, f"there is no GPU {', '.join(sorted(absent))} among {len(gpus)}", "nvidia-smi -L")
    told = "; ".join(map(_told, chosen)) + f"; driver {driver}"
    if any(not gpu.is_free for gpu in chosen):
        return warning(name, told, "Wait for the others, or choose: executor: {devices: '0'}; see: nvidia-smi")
    return passed(name, told)


def read_gpus() -> tuple[str, list[Gpu]]:
    """(the driver's version, every GPU); raises NVML's own errors."""
    nvml = importlib.import_module("pynvml")
    nvml.nvmlInit()
    try:
        gpus = [_read(nvml, index) for index in range(nvml.nvmlDeviceGetCount())]
        return text(nvml.nvmlSystemGetDriverVersion()), gpus
    finally:
        nvml.nvmlShutdown()


def _read(nvml: Any, index: int) -> Gpu:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    try:
        busy = nvml.nvmlDeviceGetUtilizationRates(handle).gpu
    except nvml.NVMLError:  # not told where a GPU is divided up
        busy = 0
    processes = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    ours = [process for process in processes if is_of_trial(process.pid)]
    foreign = [process_text(process.pid, process.usedGpuMemory) for process in processes if process not in ours]
    return Gpu(
        index=index, name=text(nvml.nvmlDeviceGetName(handle)), total_mib=memory.total / MIB,
        used_mib=memory.used / MIB, busy_percent=busy, ours=len(ours), foreign=tuple(foreign),
    )  # fmt: skip


def _told(gpu: Gpu) -> str:
    state = "free" if gpu.is_free else "busy"
    if gpu.ours:
        state = "runs a trial"
    others = f", used by {', '.join(gpu.foreign[:FEW])}" if gpu.foreign else ""
    if len(gpu.foreign) > FEW:
        others += f" and {len(gpu.foreign) - FEW} more"
    return (
        f"{gpu.index} {gpu.name} {state}: {gpu.used_mib:.0f} of {gpu.total_mib:.0f} MiB, {gpu.busy_percent} %{others}"
    )


def _check_cores() -> Check:
    cores = len(os.sched_getaffinity(0))
    load = os.getloadavg()[0]
    told = f"{cores} cores, load {load:.1f}"
    if load > 1.5 * cores:
        return warning("cpu", f"{told}: other work slows trials down", "See who it is: top")
    return passed("cpu", told)


def check_clock(latest: datetime | None) -> Check:
    """The clock against what the ledger and git have recorded at ``latest``; the time zone against its table."""
    name = "clock"
    now = datetime.now(UTC)
    told = f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"
    if now < EARLIEST:
        return failed(name, f"it is {told} by the clock, which cannot be", "Set it: timedatectl set-ntp true")
    if latest is not None and (latest - now).total_seconds() > CLOCK_SLACK_S:
        return warning(
            name, f"it is {told} by the clock, and something was recorded at {latest:%Y-%m-%d %H:%M} UTC",
            "Set it: timedatectl set-ntp true",
        )  # fmt: skip
    zone = os.environ.get("TZ", "").removeprefix(":")
    if zone and not _is_zone(zone):
        return warning(name, f"TZ={zone} is no known time zone, so it counts as UTC", "export TZ=Europe/Berlin")
    return passed(name, told)


def _is_zone(zone: str) -> bool:
    if Path(zone).is_file() or any(char.isdigit() for char in zone):  # a file, or a rule such as CET-1CEST
        return True
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError):
        return False
    return True
