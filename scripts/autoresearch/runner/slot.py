"""A trial's slot on this machine: wait until its GPUs or cores are free of other trials, then keep the others off."""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from autoresearch.errors import MachineError
from autoresearch.runner.devices import Device, eligible_devices, unusable, why_not
from autoresearch.runner.endings import Ending, crashed, one_line, signal_name
from autoresearch.runner.leases import Entry, Lease, Obstacles, Want, leases_folder
from autoresearch.runner.orphans import MARK
from autoresearch.runner.ownership import OwnSpec
from autoresearch.trial import LIVE_FILE, WAITS_FOR, Outcome, Slot, TrialSpec

STOPPING = (signal.SIGTERM, signal.SIGINT)
POLL_S = 0.02
# When to look for what no change of the leases tells: a killed runner, a process that has left a GPU.
LOOK_AGAIN_S, NOT_FIRST_LOOK_AGAIN_S = 0.5, 5.0
SHOW_INTERVAL_S = 1.0
FEW = 3
CORE = "core "  # and its number: what a core is called in leases


class NoSlotError(Exception):
    """The trial will not start; ``ending`` is why."""

    def __init__(self, ending: Ending) -> None:
        super().__init__(ending.reason)
        self.ending = ending


@contextlib.contextmanager
def slot_of(spec: TrialSpec, own: OwnSpec) -> Iterator[dict[str, str]]:
    """Hold what ``spec.slot`` asks for; gives the environment variables that tell the command of it.

    Waits for other trials without end, and for processes that are no trials within the slot's patience.
    ``live.json`` says meanwhile what for. Cores are given by confining this process to them. A trial that
    runs trials shares its slot with them. Raises NoSlotError, and DisownedError once ``own`` is gone.
    """
    if spec.slot is None or MARK in os.environ:
        yield {}
        return
    try:
        devices = eligible_devices(spec.slot.devices, spec.env)
        wants = wanted(spec.slot, devices)
        lease = Lease(leases_folder(), trial=spec.trial_id, mark=spec.env.get(MARK, ""), wants=wants)
    except MachineError as error:
        raise NoSlotError(crashed("device", error.message)) from error
    except OSError as error:
        raise NoSlotError(crashed("device", f"no lease can be taken: {error}")) from error
    with lease:
        holds = Waiting(spec, spec.slot, devices, lease, own).wait()
        cores = {int(name.removeprefix(CORE)) for name in holds if name.startswith(CORE)}
        if spec.slot.cpus:
            os.sched_setaffinity(0, cores)
        yield visible_environment(spec.slot, [each for each in devices if each.uuid in holds])


def wanted(slot: Slot, devices: Sequence[Device]) -> list[Want]:
    """What a trial in ``slot`` leases: GPUs among ``devices``, cores, or both.

    Raises MachineError if there are too few.
    """
    wants = []
    cores = [f"{CORE}{number}" for number in sorted(os.sched_getaffinity(0))]
    if devices:
        count = slot.gpus if devices[0].visible else 1
        if count > len(devices):
            raise unusable(f"executor.gpus_per_trial is {count}, and there are {len(devices)} that a trial may have")
        wants.append(Want(tuple(each.uuid for each in devices), count))
    if slot.cpus > len(cores):
        raise MachineError(f"executor.cpus_per_trial is {slot.cpus:g}, and there are {len(cores)} cores")
    if slot.cpus or not devices:
        count = math.floor(slot.cpus or len(cores))
        wants.append(Want(tuple(cores), count) if count else Want(tuple(cores), 1, slot.cpus))
    return wants


def visible_environment(slot: Slot, devices: Sequence[Device]) -> dict[str, str]:
    if not devices:
        return {"CUDA_VISIBLE_DEVICES": ""} if slot.devices == "cpu" else {}
    names = [each.visible for each in devices if each.visible]
    # CUDA counts the fastest first, unless it is told to count as NVML does.
    return {"CUDA_VISIBLE_DEVICES": ",".join(names), "CUDA_DEVICE_ORDER": "PCI_BUS_ID"} if names else {}


class Waiting:
    """The time until a trial has what it wants."""

    def __init__(self, spec: TrialSpec, slot: Slot, devices: Sequence[Device], lease: Lease, own: OwnSpec) -> None:
        self._spec, self._slot, self._lease, self._own = spec, slot, lease, own
        self._devices = {each.uuid: each for each in devices}
        self._live = Path(spec.directory) / LIVE_FILE
        self._show_due = 0.0

    def wait(self) -> dict[str, float]:
        """``{name of a GPU or core: share}`` once they are leased; raises NoSlotError or DisownedError."""
        signal.pthread_sigmask(signal.SIG_BLOCK, STOPPING)
        try:
            holds = self._wait()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPING)
        self._own.check()
        self._live.unlink(missing_ok=True)
        return holds

    def _wait(self) -> dict[str, float]:
        hopeless_since: float | None = None
        while isinstance(found := self._lease.take(self._hindrance), Obstacles):
            self._own.check()
            now, text = time.monotonic(), self._told(found)
            # As long as a trial has what is wanted, its end may be all that is needed.
            hopeful = any(each.holds for each in found.runners)
            hopeless_since = None if hopeful else hopeless_since or now
            if hopeless_since is not None and now - hopeless_since >= self._slot.patience_s:
                reason = f"{text}; waited {self._slot.patience_s:g} s for that to end"
                raise NoSlotError(Ending(Outcome.INTERRUPTED, "device_busy", one_line(reason)))
            self._show(text, now)
            self._sleep(text)
        return found

    def _sleep(self, text: str) -> None:
        """Until another look may find something else; raises NoSlotError at a signal to stop."""
        look_again = time.monotonic() + (LOOK_AGAIN_S if self._lease.is_first else NOT_FIRST_LOOK_AGAIN_S)
        while time.monotonic() < look_again and not self._lease.may_find_more():
            if stopped := signal.sigtimedwait(STOPPING, POLL_S):
                reason = f"stopped by {signal_name(stopped.si_signo)} while it waited: {text}"
                raise NoSlotError(Ending(Outcome.INTERRUPTED, "signal", one_line(reason)))

    def _hindrance(self, name: str) -> str:
        device = self._devices.get(name)
        return why_not(device, self._spec.gpu_mib) if device else ""

    def _told(self, obstacles: Obstacles) -> str:
        """What stands in the trial's way, in one line."""
        parts = [self._told_runner(each) for each in obstacles.runners[:FEW]]
        if len(obstacles.runners) > FEW:
            parts.append(f"{len(obstacles.runners) - FEW} more trials")
        return "; ".join([*obstacles.hindrances.values(), *parts]) or "its turn"

    def _told_runner(self, entry: Entry) -> str:
        who = f"trial {entry.trial} (pid {entry.pid})"
        if not entry.holds:
            return f"{who} came first"
        gpus = [self._devices[name].shown for name in entry.holds if name in self._devices]
        return f"{who} has {', '.join(gpus) or 'the CPU'}"

    def _show(self, text: str, now: float) -> None:
        if now < self._show_due:
            return
        self._show_due = now + SHOW_INTERVAL_S
        live = {WAITS_FOR: one_line(text), "elapsed_s": 0.0, "updated_at": datetime.now(UTC).isoformat()}
        temporary = self._live.with_name(f".{self._live.name}")
        with contextlib.suppress(OSError):  # as the gauge's: not worth an end
            temporary.write_text(json.dumps(live), encoding="utf-8")
            temporary.replace(self._live)
