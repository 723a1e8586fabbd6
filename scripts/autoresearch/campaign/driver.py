"""A small process that starts what comes next while no command does: so no trial waits for the agent.

There is at most one for a campaign, and only while experiments are open ahead and a trial runs; it ends by
itself when nothing runs. It holds nothing while it waits. Killed, it is missed only until the next command.
"""

from __future__ import annotations

import fcntl
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autoresearch.campaign.opened import OpenCampaign, open_campaign, open_ledger
from autoresearch.campaign.progress import LIVENESS_S, POLL_S, bring_forward
from autoresearch.errors import AutoresearchError, StillRunningError
from autoresearch.executors import Executor, State, executor_for
from autoresearch.ledger import Ledger, Trial
from autoresearch.trial import RESULT_FILE

MAIN = Path(__file__).with_name("__main__.py")
LOCK_FILE, LOG_FILE = "driver.lock", "driver.log"
LOCK_PATIENCE_S = 1.0  # a command that asks whether there is a driver takes the lock for a moment
START_PATIENCE_S = 120.0  # a cold interpreter on a network disk
# As shares of the time waited: how late a result may be seen where no runner's end can be watched, and how long
# to go without a look at runners and ledger.
POLL_SHARE, LONGEST_POLL_S = 0.005, 1.0
LOOK_SHARE = 0.05


def keep_driving(oc: OpenCampaign) -> None:
    """Start a driver if there is work for one and none at it; for the end of a command."""
    ahead = any(each.is_ahead for each in oc.ledger.open_experiments(oc.tag))
    if not ahead or not oc.ledger.open_trials(oc.tag) or is_driven(oc.folder):
        return
    with (oc.folder / LOG_FILE).open("ab") as log:
        subprocess.run(
            [sys.executable, str(MAIN), str(oc.repo.project), oc.tag],
            cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, check=True,
            timeout=START_PATIENCE_S,
        )  # fmt: skip


def is_driven(folder: Path) -> bool:
    """Whether a driver lives for the campaign whose ``folder`` it is."""
    if not (folder / LOCK_FILE).exists():
        return False
    with _claim(folder, patience_s=0.0) as claimed:
        return claimed is None


@contextmanager
def _claim(folder: Path, *, patience_s: float) -> Iterator[int | None]:
    """The descriptor of the lock that a driver holds while it lives; None if another has it."""
    descriptor = os.open(folder / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        give_up = time.monotonic() + patience_s
        claimed: int | None = None
        while claimed is None:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                claimed = descriptor
            except BlockingIOError:
                if time.monotonic() >= give_up:
                    break
                time.sleep(POLL_S)
        yield claimed
    finally:
        os.close(descriptor)


def drive(project: Path, tag: str) -> None:
    """Bring the campaign forward whenever a trial has ended, until none runs."""
    with open_ledger(project) as (repo, ledger), _claim(repo.state_dir / tag, patience_s=LOCK_PATIENCE_S) as claimed:
        if claimed is None:
            return
        os.ftruncate(claimed, 0)
        os.write(claimed, f"{os.getpid()}\n".encode())  # for a human who asks what this is
        seen: set[str] = set()
        while project.is_dir():
            try:
                with open_campaign(project, tag) as oc:
                    trials, executor = bring_forward(oc).trials, executor_for(oc.config.executor)
                    if not trials:
                        # Before the campaign's lock: a command that starts a trial next sees that we are gone.
                        fcntl.flock(claimed, fcntl.LOCK_UN)
                        break
            except StillRunningError:  # a command has held the lock for long
                continue
            except AutoresearchError as error:  # the next command meets it too, and tells the agent
                sys.stderr.write(f"{error.message}\n")
                break
            seen |= {trial.id for trial in trials}
            _wait(project, tag, trials, executor, ledger)
        _tell_cost(len(seen))


def _wait(project: Path, tag: str, trials: Sequence[Trial], executor: Executor, ledger: Ledger) -> None:
    """Return once one of ``trials`` has ended, other trials are under way, or the project is gone."""
    results = [Path(trial.directory) / RESULT_FILE for trial in trials]
    began = looked = time.monotonic()
    with _ends_of_runners(trials) as ends:
        while not any(result.exists() for result in results):
            now = time.monotonic()
            if now - looked >= max(LIVENESS_S, LOOK_SHARE * (now - began)):
                looked = now
                states = executor.poll([trial.handle for trial in trials if trial.handle])
                known = {trial.id for trial in trials} == {trial.id for trial in ledger.open_trials(tag)}
                if State.GONE in states.values() or not known or not project.is_dir():
                    return
            if ends is None:
                time.sleep(min(max(POLL_S, POLL_SHARE * (now - began)), LONGEST_POLL_S))
            elif ends.poll(1000 * LIVENESS_S):
                return


@contextmanager
def _ends_of_runners(trials: Sequence[Trial]) -> Iterator[select.poll | None]:
    """What tells at once that a runner on this machine has ended; None where they cannot all be watched so."""
    with ExitStack() as stack:
        ends = select.poll()
        for trial in trials:
            if (descriptor := _runner(trial)) is None:
                yield None
                return
            stack.callback(os.close, descriptor)
            ends.register(descriptor, select.POLLIN)
        yield ends


def _runner(trial: Trial) -> int | None:
    """A descriptor of the runner's process; None if it is not on this machine, or cannot be had."""
    if trial.handle.get("engine") != "local":
        return None
    try:
        return os.pidfd_open(int(trial.handle["id"]))
    except OSError:  # it has ended already, or the kernel has no such descriptors
        return None


def _tell_cost(trials: int) -> None:
    """What a driver has cost, for its log."""
    own, children = resource.getrusage(resource.RUSAGE_SELF), resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {
        "trials": trials,
        "own_cpu_s": round(own.ru_utime + own.ru_stime, 3),
        "children_cpu_s": round(children.ru_utime + children.ru_stime, 3),  # git, and runners until they are detached
    }
    sys.stderr.write(f"{json.dumps(cost)}\n")
