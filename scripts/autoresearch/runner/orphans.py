"""What a trial leaves behind when its runner is killed, known by a mark in its environment."""

from __future__ import annotations

import os
import time

from autoresearch.runner.processes import ancestors, descendants, environment_holds, freeze_and_kill, pids

MARK = "AUTORESEARCH_PROCESS_MARK"  # an environment variable that tells a trial's processes from all others
KILL_PATIENCE_S = 10.0
KILL_ROUND_S = 0.02


def end_orphans(mark: str) -> int:
    """Kill the processes that were started with ``MARK=mark``, and what descends from them; returns how many.

    Not found is one that cleared its environment and whose parent is gone.
    """
    entry = f"{MARK}={mark}"
    spared = {os.getpid(), *ancestors(os.getpid())}  # in case a trial runs trials

    def orphans() -> set[int]:
        marked = {pid for pid in pids() if environment_holds(pid, entry)}
        return (marked | descendants(marked)) - spared

    killed: set[int] = set()
    give_up = time.monotonic() + KILL_PATIENCE_S
    while (found := freeze_and_kill(orphans)) and time.monotonic() < give_up:
        killed |= found
        time.sleep(KILL_ROUND_S)
    return len(killed)
