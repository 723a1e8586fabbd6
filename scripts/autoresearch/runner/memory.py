"""How much memory a process tree takes: on NVIDIA GPUs, or in RAM."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Self

MIB = 2**20
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
NOISE_BYTES = 16 * MIB  # far below what a CUDA context alone takes
FIRST_PID_NAMESPACE = 0xEFFFFFFC  # the kernel's own number for the one that it boots with
# NVIDIA's driver, the same under WSL, AMD's: without one of them there is nothing to ask.
GPU_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"), Path("/dev/kfd"))
NO_GPU = {"", "-1", "NoDevFiles"}  # values of CUDA_VISIBLE_DEVICES


def resident_mib(pids: Iterable[int]) -> float:
    """The RAM of ``pids`` together; what they share counts for each."""
    pages = 0
    for pid in pids:
        try:
            pages += int(Path(f"/proc/{pid}/statm").read_bytes().split()[1])
        except (OSError, IndexError):  # ended meanwhile
            continue
    return pages * PAGE_BYTES / MIB


def out_of_memory_kills() -> int:
    """How many processes the kernel has killed for want of memory since boot, on the whole machine."""
    try:
        lines = Path("/proc/vmstat").read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("oom_kill ")), 0)


class GpuLoad(NamedTuple):
    """How busy a GPU is, and its memory in use, whoever uses it; ``number`` is what nvidia-smi calls it."""

    number: int
    name: str
    percent: int
    used_mib: float
    total_mib: float


class Gpus:
    """The NVIDIA GPUs that a command may use, seen through NVML."""

    def __init__(self, nvml: Any, handles: list[Any]) -> None:
        self.nvml = nvml
        self.handles = handles
        names = Counter(text(nvml.nvmlDeviceGetName(handle)) for handle in handles)
        self.device = ", ".join(name if count == 1 else f"{count} x {name}" for name, count in names.items())
        self.driver = text(nvml.nvmlSystemGetDriverVersion())
        self._idle_bytes: dict[int, int] = {}  # by place in handles: the least in use since the start

    @classmethod
    def visible(cls, env: Mapping[str, str]) -> Self | None:
        """The GPUs that a command with ``env`` sees; None if none, or if NVML or its package is missing."""
        if not may_see_gpu(env):
            return None
        chosen = env.get("CUDA_VISIBLE_DEVICES")
        if (nvml := load_nvml()) is None:
            return None
        try:
            count = nvml.nvmlDeviceGetCount()
            names = map(str, range(count)) if chosen is None else map(str.strip, chosen.split(","))
            handles = [nvml_handle(nvml, name) for name in names]
            return cls(nvml, handles) if handles else None
        except Exception:  # noqa: BLE001 - a broken driver costs the figures, not the trial
            return None

    def used_mib(self, pids: set[int]) -> float | None:
        """What ``pids`` take on the GPU where they take most; None if they use none."""
        used = 0
        for index, handle in enumerate(self.handles):
            with contextlib.suppress(self.nvml.NVMLError):
                running = self.nvml.nvmlDeviceGetComputeRunningProcesses(handle)
                own = sum(process.usedGpuMemory or 0 for process in running if process.pid in pids)
                used = max(used, own or self._used_on_top(index))
        return used / MIB if used else None

    def load(self) -> list[GpuLoad]:
        """The GPUs as they are now; one that does not answer is left out."""
        found = []
        for handle in self.handles:
            with contextlib.suppress(self.nvml.NVMLError):
                memory = self.nvml.nvmlDeviceGetMemoryInfo(handle)
                load = GpuLoad(
                    number=self.nvml.nvmlDeviceGetIndex(handle),
                    name=text(self.nvml.nvmlDeviceGetName(handle)),
                    percent=self.nvml.nvmlDeviceGetUtilizationRates(handle).gpu,
                    used_mib=memory.used / MIB,
                    total_mib=memory.total / MIB,
                )
                found.append(load)
        return found

    def _used_on_top(self, index: int) -> int:
        """What is in use on a GPU beyond the least that ever was; only for containers, else 0.

        In there NVML shows no processes, or calls them by their numbers outside. The least, because at
        the start the driver may not have taken back yet what the trial before this one had.
        """
        if not in_container():
            return 0
        now = self.nvml.nvmlDeviceGetMemoryInfo(self.handles[index]).used
        idle = self._idle_bytes[index] = min(now, self._idle_bytes.get(index, now))
        return int(now - idle) if now - idle > NOISE_BYTES else 0


@functools.cache
def load_nvml() -> Any:
    """NVML, ready to be asked; None if it or its package is missing."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception:  # noqa: BLE001 - a broken driver raises what it likes
        return None
    return nvml


@functools.cache
def in_container() -> bool:
    """Whether this process has another number outside than here."""
    return Path("/proc/self/ns/pid").stat().st_ino != FIRST_PID_NAMESPACE


def may_see_gpu(env: Mapping[str, str]) -> bool:
    hidden = env.get("CUDA_VISIBLE_DEVICES", "all").strip() in NO_GPU
    return not hidden and any(node.exists() for node in GPU_NODES)


def device_name(gpus: Gpus | None, env: Mapping[str, str]) -> str:
    """What a command with ``env`` computes on, as a person would call it."""
    if gpus:
        return gpus.device
    return "unknown GPU" if may_see_gpu(env) else "cpu"


def nvml_handle(nvml: Any, name: str) -> Any:
    """The GPU that CUDA_VISIBLE_DEVICES calls ``name``: an index or a UUID."""
    return nvml.nvmlDeviceGetHandleByIndex(int(name)) if name.isdigit() else nvml.nvmlDeviceGetHandleByUUID(name)


def text(value: str | bytes) -> str:
    """NVML's words; older versions of its package return bytes."""
    return value.decode() if isinstance(value, bytes) else value
