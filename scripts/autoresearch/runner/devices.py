"""The GPUs that trials of this machine may have, one by one, and who else computes on them."""

from __future__ import annotations

import os
import pwd
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoresearch.errors import MachineError
from autoresearch.runner.memory import MIB, NOISE_BYTES, Gpus, in_container, load_nvml, may_see_gpu, text
from autoresearch.runner.processes import read_process

HIDDEN_BYTES = 256 * MIB  # taken by processes that NVML does not show us; less than any training takes
BUSY_PERCENT = 20
FREE_PATIENCE_S = 10.0  # the driver takes memory back within a second
LOOK_S = 0.05
TWICE = 2  # a process of ours may be born between two questions; what is seen twice is a stranger
FEW = 3


class Device(NamedTuple):
    """One GPU, or one MIG instance of a GPU that is divided up. Without NVML there is no ``handle``."""

    uuid: str
    shown: str  # "GPU 0"
    visible: str  # its name in CUDA_VISIBLE_DEVICES; "" leaves the command all that there are
    model: str = ""
    total_bytes: int = 0
    handle: Any = None


def eligible_devices(asked: str, env: Mapping[str, str]) -> list[Device]:
    """What a command with ``env`` may run on: [] is the CPU. ``asked`` is ``executor.devices``.

    With ``auto`` that is every GPU of one kind, the one with the most memory: a budget of time buys
    another number of steps on another kind. Raises MachineError if what is asked for is not there.
    """
    named = [] if asked in ("auto", "cpu") else [word.strip() for word in asked.split(",") if word.strip()]
    if asked == "cpu" or not (may_see_gpu(env) or named):
        return []
    if not may_see_gpu(env):
        raise unusable(f"executor.devices asks for {asked}, and there is no GPU here, or CUDA_VISIBLE_DEVICES hides it")
    nvml = load_nvml()
    if nvml is None:  # another maker's, or a broken driver: one trial at a time, on what is named
        return [Device(word, f"GPU {word}", word) for word in named] or [Device("gpu", "the GPU", "")]
    devices = list(all_devices(nvml))
    hidden = env.get("CUDA_VISIBLE_DEVICES")
    seen = devices if hidden is None else [each for word in hidden.split(",") for each in called(word, devices)]
    if not named:
        model = max(seen, key=lambda each: each.total_bytes).model if seen else ""
        return [each for each in seen if each.model == model]
    chosen = []
    for word in named:
        if not (found := called(word, devices)):
            raise unusable(f"executor.devices names {word}; there are {', '.join(map(_told, devices))}")
        if not (found := [each for each in found if each in seen]):
            raise unusable(f"executor.devices names {word}, which CUDA_VISIBLE_DEVICES={hidden} hides")
        chosen += [each for each in found if each not in chosen]
    if len(kinds := dict.fromkeys(each.model for each in chosen)) > 1:
        raise unusable(f"executor.devices names GPUs of several kinds ({', '.join(kinds)}): results would not compare")
    return chosen


def unusable(message: str) -> MachineError:
    return MachineError(message, hint="See them: nvidia-smi -L; then set executor.devices in autoresearch.yaml")


def all_devices(nvml: Any) -> Iterator[Device]:
    """Every GPU in NVML's order, which is that of the bus; one that is divided up, as its MIG instances."""
    for number in range(nvml.nvmlDeviceGetCount()):
        handle = nvml.nvmlDeviceGetHandleByIndex(number)
        if not is_divided(nvml, handle):
            yield _device(nvml, handle, f"GPU {number}", str(number))
            continue
        for place in range(nvml.nvmlDeviceGetMaxMigDeviceCount(handle)):
            try:
                instance = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, place)
            except nvml.NVMLError:  # no instance was made at this place
                continue
            yield _device(nvml, instance, f"GPU {number} MIG {place}", text(nvml.nvmlDeviceGetUUID(instance)))


def _device(nvml: Any, handle: Any, shown: str, visible: str) -> Device:
    return Device(
        uuid=text(nvml.nvmlDeviceGetUUID(handle)), shown=shown, visible=visible,
        model=text(nvml.nvmlDeviceGetName(handle)), total_bytes=nvml.nvmlDeviceGetMemoryInfo(handle).total,
        handle=handle,
    )  # fmt: skip


def is_divided(nvml: Any, handle: Any) -> bool:
    try:
        return bool(nvml.nvmlDeviceGetMigMode(handle)[0])
    except nvml.NVMLError:  # a kind that cannot be divided
        return False


def called(word: str, devices: Sequence[Device]) -> list[Device]:
    """Those of ``devices`` that CUDA calls ``word``: a number, or the beginning of a UUID."""
    word = word.strip()
    if word.isdigit():
        return [each for each in devices if each.shown.split()[1] == word]
    return [each for each in devices if len(word) > len("GPU-") and each.uuid.startswith(word)]


def _told(device: Device) -> str:
    return f"{device.shown} ({device.uuid})"


# --- who else is there ---------------------------------------------------------------------------


class Stranger(NamedTuple):
    """A process that computes on a GPU."""

    pid: int
    memory_bytes: int  # 0: not known


def computing(nvml: Any, handle: Any) -> list[Stranger]:
    """The processes that compute on a GPU, as far as NVML shows them; not those that also draw on it.

    A desktop draws, and its programs compute a little beside that.
    """
    try:
        drawing = {process.pid for process in nvml.nvmlDeviceGetGraphicsRunningProcesses(handle)}
    except nvml.NVMLError:
        drawing = set()
    try:
        running = nvml.nvmlDeviceGetComputeRunningProcesses(handle)
    except nvml.NVMLError:
        return []
    return [Stranger(each.pid, each.usedGpuMemory or 0) for each in running if each.pid not in drawing]


def why_not(device: Device, wanted_mib: float) -> str:
    """Why a trial that takes ``wanted_mib`` should not start on a GPU that no trial has; "" if it may."""
    nvml = load_nvml()
    if device.handle is None or nvml is None:
        return ""
    try:
        if strangers := computing(nvml, device.handle):
            return f"{listed(strangers)} computes on {device.shown}"
        memory = memory_info(nvml, device.handle)
        percent = busy_percent(nvml, device.handle)
    except nvml.NVMLError:  # no news is no reason
        return ""
    if memory.used >= HIDDEN_BYTES and percent >= BUSY_PERCENT:
        return (
            f"{device.shown} is {percent} % busy with {memory.used / MIB:.0f} MiB of processes that cannot be seen here"
        )
    if memory.free < wanted_mib * MIB:
        return (
            f"{memory.free / MIB:.0f} of {memory.total / MIB:.0f} MiB are free on {device.shown}, "
            f"and a trial takes {wanted_mib:.0f}"
        )
    return ""


def memory_info(nvml: Any, handle: Any) -> Any:
    """Bytes ``used``, ``free`` and ``total``, without what the driver keeps for itself where it tells that."""
    try:
        return nvml.nvmlDeviceGetMemoryInfo(handle, version=nvml.nvmlMemory_v2)
    except (nvml.NVMLError, AttributeError):  # an older driver, or an older package
        return nvml.nvmlDeviceGetMemoryInfo(handle)


def busy_percent(nvml: Any, handle: Any) -> int:
    try:
        return int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    except nvml.NVMLError:  # not told of a MIG instance
        return 0


def listed(strangers: Iterable[Stranger]) -> str:
    """``python (pid 4711 of anna, 3072 MiB)``, and so on for the first few."""
    told = [process_text(each.pid, each.memory_bytes) for each in strangers]
    return ", ".join(told[:FEW]) + (f" and {len(told) - FEW} more" if len(told) > FEW else "")


def process_text(pid: int, memory_bytes: int | None) -> str:
    memory = f"{memory_bytes / MIB:.0f} MiB" if memory_bytes else ""
    if in_container():  # NVML counts processes as they are counted outside
        return f"a process outside this container{f' ({memory})' if memory else ''}"
    proc = Path(f"/proc/{pid}")
    command, owner = "a process", ""
    try:
        command = (proc / "comm").read_text(encoding="utf-8", errors="replace").strip()
        uid = proc.stat().st_uid
        owner = "" if uid == os.getuid() else f" of {pwd.getpwuid(uid).pw_name}"
    except (OSError, KeyError):  # it has ended meanwhile; a user without a name
        pass
    return f"{command} (pid {pid}{owner}{', ' * bool(memory)}{memory})"


class Neighbours:
    """Watches for processes of others on the GPUs of a running trial, and for memory that it leaves in use."""

    def __init__(self, gpus: Gpus) -> None:
        self._nvml = gpus.nvml
        self._handles = gpus.handles
        self._used_before = [self._used_bytes(handle) for handle in self._handles]
        self._own: set[int] = set()
        self._times_seen: Counter[int] = Counter()
        self._told: dict[int, str] = {}

    def look(self, own: set[int]) -> bool:
        """Note who computes there besides the trial's processes, ``own``; whether anybody surely does."""
        self._own |= own
        if in_container():  # which of those that NVML lists are ours cannot be told
            return False
        listed_now = [each for handle in self._handles for each in computing(self._nvml, handle)]
        strangers = [each for each in listed_now if each.pid not in self._own and read_process(each.pid)]
        self._times_seen.update(each.pid for each in strangers)
        self._told |= {each.pid: process_text(each.pid, each.memory_bytes) for each in strangers}
        return any(self._times_seen[each.pid] >= TWICE for each in strangers)

    def last_word(self) -> str:
        """Once no process of the trial lives: what disturbed it, or what of it still takes memory; "" if nothing.

        Waits for the driver to take the memory back, but not for ever.
        """
        give_up = time.monotonic() + FREE_PATIENCE_S
        while not (stays := self.look(set())) and (remains := self._remains()) and time.monotonic() < give_up:
            time.sleep(LOOK_S)
        if beside := [told for pid, told in self._told.items() if self._times_seen[pid] >= TWICE]:
            return f"on the same GPU computed {', '.join(beside[:FEW])}"
        return "" if stays else "; ".join(remains)

    def _remains(self) -> list[str]:
        remarks = []
        for handle, before in zip(self._handles, self._used_before, strict=True):
            now = self._used_bytes(handle)
            if now is not None and before is not None and now - before > NOISE_BYTES:
                more = f"{(now - before) / MIB:.0f} MiB more than before it"
                remarks.append(f"{more} are in use on {self._number(handle)} after its end")
        return remarks

    def _used_bytes(self, handle: Any) -> int | None:
        """None from a GPU that does not answer."""
        try:
            return int(memory_info(self._nvml, handle).used)
        except self._nvml.NVMLError:
            return None

    def _number(self, handle: Any) -> str:
        try:
            return f"GPU {self._nvml.nvmlDeviceGetIndex(handle)}"
        except self._nvml.NVMLError:  # a MIG instance
            return text(self._nvml.nvmlDeviceGetUUID(handle))
