"""One trial from its spec to its result: run the command, then read what it printed."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from autoresearch.runner.endings import DIAGNOSED_CHARACTERS, Ending, crash, crashed, disk_failed
from autoresearch.runner.gauge import Gauge
from autoresearch.runner.log import CappedLog
from autoresearch.runner.memory import Gpus, device_name, out_of_memory_kills
from autoresearch.runner.metrics import compile_pattern, log_text, read_metric, read_watched
from autoresearch.runner.ownership import OwnSpec
from autoresearch.runner.processes import birth_mark
from autoresearch.runner.slot import NoSlotError, slot_of
from autoresearch.runner.supervisor import Supervisor
from autoresearch.runner.tree import ProcessTree
from autoresearch.runner.watch import Watch
from autoresearch.trial import LOG_FILE, STARTED_FILE, TrialResult, TrialSpec, write_json


def run_trial(spec: TrialSpec, own: OwnSpec) -> TrialResult:
    """Wait for the devices of ``spec`` and run it to its end; afterwards none of its processes lives.

    Leaves ``started.json``, ``log.txt`` and ``live.json`` in the spec's directory; the result is
    returned, not written. For the main thread of a process of its own, because it takes over the
    signal handlers and the children. Raises re.error or ValueError for an unusable pattern, and
    DisownedError if ``own`` is no longer there when its slot is free: then nothing has been written.
    """
    spec = with_engine(spec)
    compile_pattern(spec.metric_pattern)  # an unusable one is told before the trial waits for its slot
    try:
        with slot_of(spec, own) as granted:
            return run_in_slot(replace(spec, env={**spec.env, **granted}), granted)
    except NoSlotError as refusal:
        outcome, cause, reason = refusal.ending
        return TrialResult(
            trial_id=spec.trial_id, outcome=outcome, cause=cause, reason=reason, ended_at=utc_now(),
            host=os.uname().nodename,
        )  # fmt: skip


def run_in_slot(spec: TrialSpec, granted: Mapping[str, str]) -> TrialResult:
    """Run ``spec`` now. ``granted`` are those of its environment variables that say which devices it has."""
    metric_pattern = compile_pattern(spec.metric_pattern)
    watched_patterns = {name: compile_pattern(pattern) for name, pattern in spec.watch.items()}
    watch = Watch(spec)
    gpus = Gpus.visible(spec.env)
    tree = ProcessTree()
    gauge = Gauge(Path(spec.directory), tree, watch, gpus)
    log = CappedLog(Path(spec.directory) / LOG_FILE, spec.log_cap_bytes)
    supervisor = Supervisor(spec, log, tree, gauge)
    origin: dict[str, Any] = {
        "host": os.uname().nodename,
        "device": device_name(gpus, spec.env),
        "driver": gpus.driver if gpus else "",
        "attempt": int(os.environ.get("SLURM_RESTART_COUNT", "0")),
        "started_at": utc_now(),
    }
    started, oom_kills_before = time.monotonic(), out_of_memory_kills()
    try:
        ending = run_commands(spec, supervisor, watch, {**origin, "granted": granted})
    finally:
        supervisor.end_all(grace_s=0)
    duration_s, ended_at = time.monotonic() - started, utc_now()

    finished = log.finish()
    everything = log_text(finished.everything)
    text = log_text(finished.section) if log.section else everything
    watched = read_watched(watched_patterns, everything)
    code, metric = tree.returncode, None
    if ending is None and log.failure:
        ending = disk_failed(log.failure)
    if ending is None and code:
        oom_kills = out_of_memory_kills() - oom_kills_before
        ending = crash(text[-DIAGNOSED_CHARACTERS:], code, out_of_memory_kills=oom_kills)
    if ending is None:
        metric, ending = read_metric(spec.metric, metric_pattern, text)
    peak_mib, peak_source = gauge.peak(watched)
    return TrialResult(
        trial_id=spec.trial_id,
        outcome=ending.outcome,
        reason=f"{log.section}: {ending.reason}" if log.section and ending.reason else ending.reason,
        cause=ending.cause,
        metric=metric,
        watched=watched,
        exit_code=code if code is not None and code >= 0 else None,
        signal=-code if code is not None and code < 0 else None,
        ended_at=ended_at,
        duration_s=round(duration_s, 3),
        peak_mem_mib=peak_mib,
        peak_mem_source=peak_source,
        log_sha256=finished.sha256,
        log_bytes=len(finished.everything),
        log_truncated=bool(log.dropped_bytes),
        curve=watch.curve,
        processes_killed=len(tree.signalled),
        disturbed=gauge.disturbance(),
        **origin,
    )


def with_engine(spec: TrialSpec) -> TrialSpec:
    """``spec`` with what the engine has set on this machine, such as its GPUs, in place of the submitter's own."""
    if not spec.engine_names:
        return spec
    names = re.compile(spec.engine_names)
    given = {name: value for name, value in os.environ.items() if names.fullmatch(name)}
    return replace(spec, env={name: value for name, value in spec.env.items() if not names.fullmatch(name)} | given)


def run_commands(spec: TrialSpec, supervisor: Supervisor, watch: Watch, origin: Mapping[str, Any]) -> Ending | None:
    """Run the command and, if that ends well, the evaluation; None if the last one run ended by itself."""
    if not Path(spec.cwd).is_dir():
        return crashed("cwd", f"there is no folder {spec.cwd}")
    if failed := start(supervisor, spec.command, watch):
        return failed
    identity = {"trial_id": spec.trial_id, "pid": os.getpid(), "birth_mark": birth_mark(os.getpid())}
    try:
        write_json(Path(spec.directory) / STARTED_FILE, {**identity, "session": supervisor.tree.pid, **origin})
    except OSError as error:
        return disk_failed(error)
    ending = supervisor.wait(spec.limit_s)
    if ending or supervisor.tree.returncode or not spec.evaluate_command:
        return ending
    supervisor.log.begin_section("evaluation")
    return start(supervisor, spec.evaluate_command, None) or supervisor.wait(spec.evaluate_limit_s or spec.limit_s)


def start(supervisor: Supervisor, command: str, watch: Watch | None) -> Ending | None:
    """Start ``command``; the ending that it makes if the system refuses."""
    try:
        supervisor.start(command, watch)
    except OSError as error:
        return crashed("start", f"the command could not be started: {error.strerror}")
    return None


def utc_now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
