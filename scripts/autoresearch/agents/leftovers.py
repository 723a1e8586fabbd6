"""What a client leaves behind when it is killed: its commands go on, daemons of theirs too.

Whatever a client starts inherits a mark in its environment, so it is found again after its parents
have ended, in a session of its own, or under another name. Trials are no leftovers: they are the
night's work, and end by themselves with a result. A campaign's driver, which starts the next trial while work
is ahead, is one: with it the night would go on.

Not found is a process that cleared its environment and whose ancestors have ended.
"""

from __future__ import annotations

import os
import time
from signal import SIGTERM

from autoresearch.runner.orphans import MARK as TRIAL_MARK
from autoresearch.runner.processes import (
    PROC,
    ancestors,
    command_line,
    descendants,
    environment_holds,
    freeze_and_kill,
    pids,
    read_process,
    send,
)

NIGHT_MARK = "AUTORESEARCH_NIGHT"
PATIENCE_S = 5.0
KILL_PATIENCE_S = 10.0
POLL_INTERVAL_S = 0.05
# By the end of its path: an agent may call the scripts of a copy of the bundle.
RUNNER = "/autoresearch/runner/__main__.py"


def end_leftovers(mark: str, *, patience_s: float = PATIENCE_S) -> int:
    """End every process that was started with ``NIGHT_MARK=mark`` in its environment, and what these started.

    They are asked first and killed after ``patience_s``. Trials and their runners go on, and so do
    this process and its ancestors. Returns how many were ended; 0 when called again.
    """
    if not mark:
        raise ValueError("an empty mark is nobody's")
    ended = leftovers(mark)
    send(ended, SIGTERM)
    give_up = time.monotonic() + patience_s
    while leftovers(mark) and time.monotonic() < give_up:
        time.sleep(POLL_INTERVAL_S)
    give_up = time.monotonic() + KILL_PATIENCE_S  # one that is stuck in the kernel outlives SIGKILL
    while (found := freeze_and_kill(lambda: leftovers(mark))) and time.monotonic() < give_up:
        ended |= found
        time.sleep(POLL_INTERVAL_S)
    return len(ended)


def leftovers(mark: str) -> set[int]:
    """The living processes of the night ``mark``, without trials."""
    marked = {pid for pid in pids() if environment_holds(pid, f"{NIGHT_MARK}={mark}")}
    found = (marked | descendants(marked)) - spared()
    return {pid for pid in found if read_process(pid)}  # a trial's child that has ended is not known to be a trial's


def spared() -> set[int]:
    """Trials with their runners, and this process with its ancestors."""
    runners = {pid for pid in pids() if any(word.endswith(RUNNER) for word in command_line(pid))}
    trials = {pid for pid in pids() if is_of_trial(pid)}
    return runners | trials | descendants(runners | trials) | {os.getpid(), *ancestors(os.getpid())}


def is_of_trial(pid: int) -> bool:
    try:
        return f"\0{TRIAL_MARK}=".encode() in b"\0" + (PROC / str(pid) / "environ").read_bytes()
    except OSError:  # ended meanwhile, or another user's
        return False
