"""What engines with a controller share: it is asked seldom, and a job that is gone gets time to leave its result.

The project, the state folder and this bundle must lie on a disk that the nodes share, under the same
paths. The controller says only queued, running or gone: how a trial ended is in the file that the runner
leaves, which costs nothing to look at.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from autoresearch.errors import MachineError
from autoresearch.executors.base import Handle, State, conclude_as_interrupted, process_mark, read_json
from autoresearch.runner.leases import leases_folder
from autoresearch.trial import STARTED_FILE, TrialResult, TrialSpec, write_json

GONE_FILE = "gone"  # in the trial's directory; its time: the first answer that did not know the job any more
# A result file may be seen late on a network disk, and a node's last words take their time.
LOST_AFTER_S = 60.0
# One controller serves all users of a cluster; what polls it each second is soon switched off by its admins.
ASK_EVERY_S = 10.0
CANCEL_PATIENCE_S = 45.0  # Slurm's KillWait is 30 s by default
LOOK_AGAIN_S = 0.2


@dataclass(frozen=True, kw_only=True)
class News:
    """What the controller last said, and when it was asked, in seconds since the epoch."""

    asked_at: float
    answered_at: float
    jobs: Mapping[str, State] | None  # by the engine's own names; None: it did not answer

    @classmethod
    def read(cls, path: Path) -> News | None:
        data = read_json(path)
        try:
            jobs = data["jobs"] and {str(job): State(state) for job, state in data["jobs"].items()}
            return cls(asked_at=float(data["asked_at"]), answered_at=float(data["answered_at"]), jobs=jobs)
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def write(self, path: Path) -> None:
        write_json(path, {"asked_at": self.asked_at, "answered_at": self.answered_at, "jobs": self.jobs})


class ClusterExecutor(ABC):
    """Each trial is a job of its own, never requeued: one that is lost is run again under a new name."""

    engine: ClassVar[str]

    def __init__(self, *, lost_after_s: float = LOST_AFTER_S, ask_every_s: float = ASK_EVERY_S) -> None:
        self.lost_after_s = lost_after_s
        self.ask_every_s = ask_every_s

    @abstractmethod
    def submit(self, spec: TrialSpec) -> Handle: ...

    @abstractmethod
    def find(self, trial_id: str, directory: Path) -> Handle | None: ...

    @property
    @abstractmethod
    def controller(self) -> str:
        """Which one is asked: executors of the same share its answers."""

    @abstractmethod
    def jobs(self) -> dict[str, State]:
        """All jobs that the controller remembers, by its own names, with one question; MachineError if it is away."""

    @abstractmethod
    def stop(self, job: str) -> None:
        """Have the controller end a job; harmless if it has ended."""

    @abstractmethod
    def why_gone(self, directory: Path) -> str:
        """What may be known about a job that left no result, in one line."""

    def poll(self, handles: Sequence[Handle]) -> dict[str, State]:
        news = self.news() if handles else None
        return {each["trial_id"]: self._state(each, news) for each in handles}

    def news(self) -> News | None:
        """What the controller said last; it is asked again when that was ``ask_every_s`` ago.

        All processes of a user on this machine share its answers, whatever campaign they work on, and one
        of them asks at a time. None while the first answer is on its way to another one.
        """
        path = news_file(self.engine, self.controller)
        try:
            lock = path.with_suffix(".lock").open("a")
        except OSError:  # nothing can be kept here, so nothing can be shared
            return self._ask()
        with lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return News.read(path)
            last = News.read(path)
            if last and 0 <= time.time() - last.answered_at < self.ask_every_s:
                return last
            news = self._ask()
            with contextlib.suppress(OSError):  # a full disk: the answer serves this process alone
                news.write(path)
            return news

    def _ask(self) -> News:
        asked_at, jobs = time.time(), None
        with contextlib.suppress(MachineError):
            jobs = self.jobs()
        return News(asked_at=asked_at, answered_at=time.time(), jobs=jobs)

    def _state(self, handle: Handle, news: News | None) -> State:
        if news is None or news.jobs is None:
            return State.RUNNING  # no news from the controller is no news of the job
        directory = Path(handle["directory"])
        state = news.jobs.get(handle["id"], State.GONE)
        if state is not State.GONE:
            (directory / GONE_FILE).unlink(missing_ok=True)
            return state
        if TrialResult.read(directory) is not None:
            return State.GONE
        # The answer may be older than the job, and the result on its way: only a later answer settles it.
        since = first_gone(directory, news.asked_at)
        return State.GONE if news.asked_at - since >= self.lost_after_s else State.RUNNING

    def cancel(self, handle: Handle) -> None:
        directory = Path(handle["directory"])
        self.stop(handle["id"])
        give_up = time.monotonic() + CANCEL_PATIENCE_S
        ask_at = time.monotonic()
        while TrialResult.read(directory) is None and time.monotonic() < give_up:
            if time.monotonic() >= ask_at and not (directory / STARTED_FILE).exists():
                if self.jobs().get(handle["id"], State.GONE) is not State.RUNNING:
                    # There is no runner that could write a result. Where a job has to leave the queue before
                    # it can be stopped, its runner will find the one that is written now, and end.
                    break
                ask_at = time.monotonic() + self.ask_every_s
            time.sleep(LOOK_AGAIN_S)
        self._conclude(handle["trial_id"], directory, "cancelled")

    def conclude(self, trial_id: str, directory: Path) -> TrialResult:
        if result := TrialResult.read(directory):
            return result
        if handle := self.find(trial_id, directory):
            self.cancel(handle)
        return self._conclude(trial_id, directory, f"the job is gone without a result: {self.why_gone(directory)}")

    def _conclude(self, trial_id: str, directory: Path, reason: str) -> TrialResult:
        (directory / GONE_FILE).unlink(missing_ok=True)
        return conclude_as_interrupted(trial_id, directory, reason=reason)

    def handle(self, trial_id: str, directory: Path, job: str) -> Handle:
        return {"engine": self.engine, "id": job, "trial_id": trial_id, "directory": str(directory)}


def job_name(directory: Path) -> str:
    """One for each trial, so that a job whose number nobody noted can be found again."""
    return f"autoresearch-{process_mark(directory)}"


def news_file(engine: str, controller: str) -> Path:
    """Where this machine keeps the last answer of a controller; nobody else can write there."""
    folder = leases_folder() / "controllers"
    with contextlib.suppress(OSError):
        folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{engine}-{hashlib.sha256(controller.encode()).hexdigest()[:16]}.json"


def first_gone(directory: Path, asked_at: float) -> float:
    """When the first of the answers that did not know the trial's job was asked for: ``asked_at``, or before."""
    mark = directory / GONE_FILE
    with contextlib.suppress(OSError):  # there already, or a full disk: then it stays undecided
        directory.mkdir(parents=True, exist_ok=True)
        mark.touch(exist_ok=False)
        os.utime(mark, (asked_at, asked_at))
    try:
        return mark.stat().st_mtime
    except FileNotFoundError:
        return asked_at
