"""What a running trial shows to whoever looks: memory, progress and loss, in live.json."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from pathlib import Path

from autoresearch.runner.devices import Neighbours
from autoresearch.runner.memory import Gpus, resident_mib
from autoresearch.runner.tree import ProcessTree
from autoresearch.runner.watch import Watch
from autoresearch.trial import LIVE_FILE

FIRST_SAMPLE_S = 0.1
SAMPLE_INTERVAL_S = 0.5
SAMPLING_SHARE = 50  # where looking takes long, at most one part in this many of the time is spent on it
LIVE_INTERVAL_S = 1.0
MEMORY_KEY = "peak_vram_mb"  # a watched value of this name is the command's own account of its peak, in MiB


class Gauge:
    """Samples the memory of a tree and keeps its peaks; rewrites ``live.json`` at most once a second."""

    def __init__(self, directory: Path, tree: ProcessTree, watch: Watch, gpus: Gpus | None) -> None:
        self._path = directory / LIVE_FILE
        self._tree = tree
        self._watch = watch
        self._gpus = gpus
        self._neighbours = Neighbours(gpus) if gpus else None
        self._started = time.monotonic()
        self._live_due = self._started + LIVE_INTERVAL_S
        self._gpu_peak_mib: float | None = None
        self._ram_peak_mib = 0.0
        self._cost_s = 0.0  # of the last sample
        self.due = self._started + FIRST_SAMPLE_S

    def sample_if_due(self) -> None:
        now = time.monotonic()
        if now < self.due:
            return
        memory_mib = self._sample()
        if now >= self._live_due:
            self._live_due = now + LIVE_INTERVAL_S
            self._show(memory_mib, now - self._started)
        # The lower of two: one slow look, such as the first of all, is no reason to look away for long.
        cost_s, self._cost_s = min(self._cost_s, time.monotonic() - now), time.monotonic() - now
        self.due = now + max(SAMPLE_INTERVAL_S, SAMPLING_SHARE * cost_s)

    def peak(self, watched: dict[str, float]) -> tuple[float | None, str]:
        """The peak in MiB and its source: the command's own figure, else the GPU's, else that of RAM."""
        if MEMORY_KEY in watched:
            return watched[MEMORY_KEY], "log"
        if self._gpu_peak_mib is not None:
            return round(self._gpu_peak_mib, 1), "nvml"
        # What has ended between two samples is known to the kernel, at least process by process.
        ram_mib = max(self._ram_peak_mib, self._tree.peak_rss_mib)
        return (round(ram_mib, 1), "rss") if ram_mib else (None, "")

    def disturbance(self) -> str:
        """After the end of the tree: who else computed on its GPUs, or what of it still takes memory there."""
        return self._neighbours.last_word() if self._neighbours else ""

    def _sample(self) -> float:
        pids = self._tree.members()
        if self._neighbours:
            self._neighbours.look(pids)
        ram_mib = resident_mib(pids)
        self._ram_peak_mib = max(self._ram_peak_mib, ram_mib)
        gpu_mib = self._gpus.used_mib(pids) if self._gpus else None
        if gpu_mib is None:
            return ram_mib
        self._gpu_peak_mib = max(self._gpu_peak_mib or 0.0, gpu_mib)
        return gpu_mib

    def _show(self, memory_mib: float, elapsed_s: float) -> None:
        self._watch.advance(elapsed_s)
        live = {
            "fraction": round(self._watch.fraction, 5),
            "loss": self._watch.loss,
            "elapsed_s": round(elapsed_s, 3),
            "memory_mib": round(memory_mib, 1),
            "updated_at": datetime.now(UTC).isoformat(),
        }
        # Not worth a wait for the disk, nor an end if that is full: the log will tell.
        temporary = self._path.with_name(f".{self._path.name}")
        with contextlib.suppress(OSError):
            temporary.write_text(json.dumps(live), encoding="utf-8")
            temporary.replace(self._path)
