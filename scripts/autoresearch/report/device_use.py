"""What a running trial does with the machine: GPUs through NVML, else processor and memory of its processes."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.runner.memory import Gpus
from autoresearch.runner.processes import is_alive
from autoresearch.trial import SPEC_FILE, STARTED_FILE

if TYPE_CHECKING:
    import psutil

GPUS_SHOWN = 2
MIB_PER_GIB = 1024


class DeviceUse:
    """One trial's use of the device since the reading before."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._gpus: Gpus | None = None
        self._looked_for_gpus = False
        self._known: dict[int, psutil.Process] = {}  # psutil keeps in them how much they had used the last time

    def read(self) -> tuple[str, ...]:
        """A line for each GPU, or one for the processor; () unless the trial runs on this machine."""
        try:
            runner = json.loads((self._directory / STARTED_FILE).read_text(encoding="utf-8"))
            if not is_alive(runner["pid"], runner["birth_mark"]):
                return ()
            if not self._looked_for_gpus:
                environment = json.loads((self._directory / SPEC_FILE).read_text(encoding="utf-8"))["env"]
                self._gpus, self._looked_for_gpus = Gpus.visible(environment | runner.get("granted", {})), True
        except (OSError, ValueError, KeyError):  # not written yet, or deleted meanwhile
            return ()
        return self._processor(runner["pid"]) if self._gpus is None else _lines(self._gpus)

    def _processor(self, runner: int) -> tuple[str, ...]:
        """What the processes below the runner use together."""
        import psutil

        first = not self._known
        percent, resident_mib = 0.0, 0.0
        used: dict[int, psutil.Process] = {}
        try:
            living = psutil.Process(runner).children(recursive=True)
        except psutil.Error:
            living = []
        for process in living:
            known = self._known.get(process.pid, process)
            try:
                percent += known.cpu_percent(None)  # 0 the first time: it takes two looks
                resident_mib += known.memory_info().rss / 2**20
            except psutil.Error:  # ended meanwhile
                continue
            used[process.pid] = known
        self._known = used
        if not used:
            return ()
        load = "" if first else f"{percent:.0f} of {100 * (os.cpu_count() or 1)} %, "
        return (f"CPU: {load}{resident_mib / MIB_PER_GIB:.2f} GiB",)


def _lines(gpus: Gpus) -> tuple[str, ...]:
    return tuple(
        f"GPU {load.number}: {load.percent} %, {load.used_mib / MIB_PER_GIB:.1f} of "
        f"{load.total_mib / MIB_PER_GIB:.1f} GiB, {load.name}"
        for load in gpus.load()[:GPUS_SHOWN]
    )
