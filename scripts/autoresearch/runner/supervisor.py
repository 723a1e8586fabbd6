"""Runs a command as its parent, reader and reaper, and ends it when there is a reason to."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import time
from pathlib import Path

from autoresearch.runner.endings import Ending, disk_failed
from autoresearch.runner.gauge import Gauge
from autoresearch.runner.log import CappedLog
from autoresearch.runner.tree import ProcessTree
from autoresearch.runner.watch import Watch
from autoresearch.trial import Outcome, TrialSpec

PIPE_BYTES = 2**20  # the most that Linux grants everybody; fewer wake-ups when output floods
LAST_READS = 16  # the pipe holds at most PIPE_BYTES, so a few reads empty it once nobody writes
SETTLE_S = 0.25  # what a command leaves behind may end by itself within this time, as worker processes do
STOP_LAG_S = 0.25  # an engine may signal the command first and the runner only a moment later
KILL_ROUND_S = 0.02
UNKILLABLE_S = 30.0  # a process stuck in the kernel can outlive SIGKILL; waiting longer helps nobody


class Supervisor:
    """Runs the commands of one trial, one after the other: ``start`` and ``wait``, then the next.

    One loop waits for output, for the end of a child and for signals to this process, and each
    wakes it at once. Takes over the signal handlers and the children of this process.
    """

    def __init__(self, spec: TrialSpec, log: CappedLog, tree: ProcessTree, gauge: Gauge) -> None:
        self._spec = spec
        self.log = log
        self.tree = tree
        self._gauge = gauge
        self._watch: Watch | None = None
        self._started = self._last_output = 0.0
        self._stopped_by: signal.Signals | None = None
        self._selector = selectors.DefaultSelector()
        self._output = -1
        self._wakeup = self._catch_signals()

    def start(self, command: str, watch: Watch | None) -> None:
        """Start ``command``, whose output ``watch`` is to follow; raises OSError if the system refuses."""
        self._watch = watch
        self._output, writer = os.pipe()
        os.set_blocking(self._output, False)
        with contextlib.suppress(OSError):  # a user may have only so many pages in pipes; fewer will do
            fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._selector.register(self._output, selectors.EVENT_READ)
        self._started = self._last_output = time.monotonic()
        try:
            self.tree.start(command, Path(self._spec.cwd), self._spec.env, writer)
        finally:
            os.close(writer)

    def wait(self, limit_s: float) -> Ending | None:
        """Wait until the command ends, or end it; nothing of it lives afterwards, whatever it did.

        Returns the reason if it had to be ended, None if it ended by itself, with the exit code in
        the tree.
        """
        ending = None
        while self.tree.returncode is None and ending is None:
            self._gauge.sample_if_due()
            self._pump(min(self._deadline(limit_s), self._gauge.due) - time.monotonic())
            self.tree.reap()
            ending = self._reason_to_end(limit_s)
        if ending is None:
            self._outlives(SETTLE_S)
        self.end_all(self._spec.grace_s)
        self._read_rest()
        return self._last_word(ending)

    def end_all(self, grace_s: float) -> None:
        """Ask everything to end, and after ``grace_s`` kill it, again and again until nothing lives."""
        if not self.tree.reap():
            return
        self.tree.terminate()
        if not self._outlives(grace_s):
            return
        give_up = time.monotonic() + UNKILLABLE_S
        self.tree.kill()
        while self._outlives(KILL_ROUND_S) and time.monotonic() < give_up:
            self.tree.kill()

    # --- reasons ---------------------------------------------------------------------------------

    def _deadline(self, limit_s: float) -> float:
        """When there will be a reason to end the command if nothing happens until then."""
        limit = self._started + limit_s
        return min(limit, self._last_output + self._spec.stall_s) if self._spec.stall_s else limit

    def _reason_to_end(self, limit_s: float) -> Ending | None:
        now = time.monotonic()
        if self.tree.returncode is not None:
            return None
        if self._stopped_by:
            return self._interrupted()
        if self.log.failure:
            return disk_failed(self.log.failure)
        if self._watch and self._watch.ending:
            return self._watch.ending
        if now >= self._started + limit_s:
            return Ending(Outcome.TIMED_OUT, "timeout", f"killed after {limit_s:g} s (limit)")
        if self._spec.stall_s and now >= self._last_output + self._spec.stall_s:
            return Ending(Outcome.CRASHED, "stall", f"killed after {self._spec.stall_s:g} s without output")
        return None

    def _last_word(self, ending: Ending | None) -> Ending | None:
        """What came to light only after the command had ended by itself."""
        if ending:
            return ending
        if self.tree.returncode != 0 and self._is_stopped_within(STOP_LAG_S):
            return self._interrupted()
        if self.log.failure:
            return disk_failed(self.log.failure)
        if self._watch:
            self._watch.close(time.monotonic() - self._started)
            if self._watch.ending and self._watch.ending.outcome is Outcome.DIVERGED:
                return self._watch.ending
        return None

    def _is_stopped_within(self, seconds: float) -> bool:
        end = time.monotonic() + seconds
        while not self._stopped_by and time.monotonic() < end:
            self._pump(end - time.monotonic())
        return self._stopped_by is not None

    def _interrupted(self) -> Ending:
        name = self._stopped_by.name if self._stopped_by else ""
        return Ending(Outcome.INTERRUPTED, "signal", f"stopped by {name}")

    # --- the loop --------------------------------------------------------------------------------

    def _catch_signals(self) -> int:
        """Have every signal wake the loop; returns the descriptor that becomes readable then."""
        wakeup, writer = os.pipe()
        for end in (wakeup, writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        # Caught and not ignored: what is ignored here would be ignored by the command as well.
        for number in (signal.SIGCHLD, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._selector.register(wakeup, selectors.EVENT_READ)
        return wakeup

    def _stop(self, number: int, _frame: object) -> None:
        self._stopped_by = signal.Signals(number)

    def _pump(self, timeout_s: float) -> None:
        """Wait for whatever happens first, and take it in."""
        for key, _ in self._selector.select(max(0.0, timeout_s)):
            if key.fd == self._wakeup:
                os.read(self._wakeup, 4096)
            else:
                self._read()

    def _outlives(self, seconds: float) -> bool:
        """Go on for ``seconds``, or until nothing lives; returns whether anything does."""
        end = time.monotonic() + seconds
        while self.tree.reap():
            if time.monotonic() >= end:
                return True
            self._pump(end - time.monotonic())
        return False

    def _read(self) -> bool:
        """Take in what the pipe holds; False if that is nothing."""
        try:
            data = os.read(self._output, PIPE_BYTES)
        except BlockingIOError:
            return False
        if not data:
            self._close_output()
            return False
        self.log.write(data)
        self._last_output = time.monotonic()
        if self._watch:
            self._watch.feed(data, self._last_output - self._started)
        return True

    def _read_rest(self) -> None:
        for _ in range(LAST_READS):
            if self._output < 0 or not self._read():
                break
        if self._output >= 0:
            self._close_output()

    def _close_output(self) -> None:
        self._selector.unregister(self._output)
        os.close(self._output)
        self._output = -1
