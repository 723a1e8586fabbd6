"""The command of a trial and everything it starts, however far that detaches itself."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path

from autoresearch.runner.processes import descendants, freeze, freeze_and_kill, send

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36


class ProcessTree:
    """The descendants of this process, which becomes their reaper: one that loses its parent stays below us.

    So the tree is empty exactly when this process has no child left. Only one tree per process, and
    nothing else in it may start processes.
    """

    def __init__(self) -> None:
        prctl()(PR_SET_CHILD_SUBREAPER, 1)
        self.pid = 0
        self.returncode: int | None = None  # of the command; negative: the signal that ended it
        self.signalled: set[int] = set()  # every process that had to be told to end
        self.peak_rss_mib = 0.0  # of the largest single process among those that have ended

    def start(self, command: str, cwd: Path, env: Mapping[str, str], output: int) -> None:
        """Start the shell line ``command`` in a new session, with both its outputs going to ``output``.

        The shell, or what it has become, dies with this process; what it started does not.
        Raises OSError if it cannot be started.
        """
        popen = subprocess.Popen(
            ["/bin/sh", "-c", command],
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=die_with_parent(os.getpid()),  # noqa: PLW1509 - there are no threads here
        )
        self.pid, self.returncode = popen.pid, None
        popen.returncode = 0  # collected by reap(), which sees all children alike

    def reap(self) -> bool:
        """Collect whatever has ended; True while anything of the tree lives."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if pid == 0:
                return True
            self.peak_rss_mib = max(self.peak_rss_mib, usage.ru_maxrss / 1024)
            if pid == self.pid:
                self.returncode = os.waitstatus_to_exitcode(status)

    def members(self) -> set[int]:
        return descendants([os.getpid()])

    def terminate(self) -> None:
        """Ask every living process to end.

        All are stopped meanwhile, so that none is missed because it is just being born. What they start
        afterwards is part of their ending.
        """
        members = freeze(self.members)
        self.signalled |= members
        send(members, signal.SIGTERM)
        send(members, signal.SIGCONT)

    def kill(self) -> None:
        """One attempt to kill everything; repeat until ``reap`` says that nothing lives."""
        self.signalled |= freeze_and_kill(self.members)


@functools.cache
def prctl() -> Callable[[int, int], int]:
    function: Callable[[int, int], int] = ctypes.CDLL(None, use_errno=True).prctl
    return function


def die_with_parent(parent: int, number: signal.Signals = signal.SIGKILL) -> Callable[[], None]:
    """What a child does between fork and exec so that it gets the signal ``number`` when ``parent`` ends."""
    call = prctl()

    def prepare() -> None:
        call(PR_SET_PDEATHSIG, number)
        if os.getppid() != parent:  # killed before the line above
            os._exit(1)

    return prepare
