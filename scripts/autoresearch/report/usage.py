"""Where the time went: trials by outcome and cause, GPU-hours, and how busy the device was."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta

from autoresearch.ledger import DECIDING, Purpose
from autoresearch.report.figures import Failure, OutcomeTime, Throughput
from autoresearch.report.rows import ExperimentRow, TrialRow
from autoresearch.trial import Outcome

UNTROUBLED = (Outcome.COMPLETED, Outcome.PRUNED)  # a pruned trial worked, it was only not worth finishing
LOOP = (*DECIDING, Purpose.RETEST)
_SEVERAL = re.compile(r"(\d+) x ")


def span(experiments: Sequence[ExperimentRow], trials: Sequence[TrialRow]) -> tuple[str | None, str | None, float]:
    """The first experiment's start, the last decision, trial or start, and the seconds that the loop took.

    A comparison on fresh seeds after all that is no part of the loop: it often runs on the next day.
    """
    if not experiments:
        return None, None, 0.0
    first = min(experiment.created_at for experiment in experiments)
    moments = [moment for each in experiments for moment in (each.created_at, each.decided_at) if moment]
    ends = [(trial.purpose, _start(trial) + timedelta(seconds=trial.seconds)) for trial in trials]
    loop_ended = max([datetime.fromisoformat(max(moments)), *(end for purpose, end in ends if purpose in LOOP)])
    last = max([loop_ended, *(end for _, end in ends)])
    elapsed_s = (loop_ended - datetime.fromisoformat(first)).total_seconds()
    return first, last.isoformat(timespec="milliseconds").replace("+00:00", "Z"), elapsed_s


def throughput(trials: Sequence[TrialRow], started_at: str | None, elapsed_s: float) -> Throughput:
    ended = [trial for trial in trials if trial.outcome is not None]
    until = None if started_at is None else datetime.fromisoformat(started_at) + timedelta(seconds=elapsed_s)
    busy_s = _covered_s([trial for trial in ended if until is None or _start(trial) < until])
    return Throughput(
        trials=len(ended),
        trial_s=sum(trial.seconds for trial in ended),
        gpu_s=sum(_gpu_s(trial) for trial in ended),
        busy_s=busy_s,
        busy_share=min(busy_s / elapsed_s, 1.0) if elapsed_s > 0 else None,
    )


def time_by_outcome(trials: Sequence[TrialRow]) -> list[OutcomeTime]:
    groups: dict[str, list[TrialRow]] = defaultdict(list)
    for trial in trials:
        if trial.outcome is not None:
            groups[trial.outcome].append(trial)
    return [
        OutcomeTime(
            outcome=outcome.value,
            trials=len(groups[outcome]),
            wall_s=sum(trial.seconds for trial in groups[outcome]),
            gpu_s=sum(_gpu_s(trial) for trial in groups[outcome]),
        )
        for outcome in Outcome
        if outcome in groups
    ]


def failures(experiments: Sequence[ExperimentRow], trials: Sequence[TrialRow]) -> list[Failure]:
    """The trials that failed, by outcome and cause, the most frequent first."""
    reasons = {experiment.number: experiment.reason for experiment in experiments}
    groups: dict[tuple[str, str], list[TrialRow]] = defaultdict(list)
    for trial in trials:
        if trial.outcome is not None and trial.outcome not in UNTROUBLED:
            groups[trial.outcome, trial.cause or ""].append(trial)
    found = [
        Failure(
            outcome=outcome,
            cause=cause,
            trials=len(group),
            experiments=len({trial.number for trial in group}),
            wall_s=sum(trial.seconds for trial in group),
            last_number=group[-1].number,
            last_reason=reasons[group[-1].number],
        )
        for (outcome, cause), group in groups.items()
    ]
    return sorted(found, key=lambda failure: (-failure.trials, failure.outcome, failure.cause))


def gpu_count(device: str) -> int:
    """How many GPUs a trial's ``device`` names (``NVIDIA H100, 2 x NVIDIA A100`` are three); 0 for the CPU."""
    if device in ("", "cpu"):
        return 0
    several = [_SEVERAL.match(part) for part in device.split(", ")]
    return sum(int(found[1]) if found else 1 for found in several)


def _start(trial: TrialRow) -> datetime:
    return datetime.fromisoformat(trial.created_at)


def _gpu_s(trial: TrialRow) -> float:
    return trial.seconds * gpu_count(trial.device or "")


def _covered_s(trials: Sequence[TrialRow]) -> float:
    """The seconds in which at least one of the trials ran; ``trials`` are in the order of their starts."""
    covered_s = reached_s = 0.0
    for trial in trials:
        start_s = _start(trial).timestamp()
        end_s = start_s + trial.seconds
        covered_s += max(0.0, end_s - max(start_s, reached_s))
        reached_s = max(reached_s, end_s)
    return covered_s
