"""The scripted loop: every point of a sweep is an experiment like any other, made on the incumbent."""

from __future__ import annotations

import math
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from autoresearch.campaign.climb import climb, earlier_points, tuned
from autoresearch.campaign.decide import log_result
from autoresearch.campaign.judging import book_numbers
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.points import Axis, Point, describe, grid, parse_description, random_points
from autoresearch.campaign.progress import bring_forward, refresh, repair, wait_for_trial
from autoresearch.campaign.rebase import follow_incumbent
from autoresearch.campaign.run import Request, check_head, submit
from autoresearch.campaign.settle import incumbent_commit
from autoresearch.campaign.sweep_point import (
    FAMILY,
    INTERRUPTED,
    Listener,
    PointResult,
    begin_point,
    clear_work_tree,
    decide_next,
    decide_one_of,
    homes_of,
    is_point,
    refuse_edits,
    refuse_foreign,
    values_of,
)
from autoresearch.campaign.tpe import Tpe
from autoresearch.campaign.trials import cancel_trials
from autoresearch.errors import RefusedError
from autoresearch.ledger import Experiment, State, completed

DRAWS_PER_POINT = 20  # a sampler that only repeats itself has nothing left to say


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to sweep. ``max_trials`` counts points, those of an earlier, killed run included; None: no end.

    The sampler ``auto`` has no axes: it finds the constants to change itself, and needs no end.
    """

    axes: Sequence[Axis]
    sampler: str  # grid | random | tpe | auto
    max_trials: int | None
    seed: int


@dataclass(kw_only=True)
class Sweep:
    """The points so far, in order, and the incumbent at the end. ``tuned`` names what ``auto`` changes."""

    points: list[PointResult] = field(default_factory=list)
    incumbent: Experiment | None = None
    tuned: list[str] = field(default_factory=list)


def run_sweep(project: Path, tag: str | None, plan: Plan, listener: Listener) -> Sweep:
    """Measure the baseline if there is none, then every point; interrupted, it leaves a clean campaign.

    ``UsageError`` and ``RefusedError`` before anything is changed.
    """
    sweep = Sweep()
    with open_campaign(project, tag) as oc:
        tag = oc.tag
        homes_of(oc, plan.axes)
        if plan.sampler == "auto":
            sweep.tuned = [one.name for one in tuned(oc)]
        check_head(oc)
        refuse_foreign(oc)
    try:
        _finish(project, tag, listener)
        with open_campaign(project, tag) as oc:
            refuse_edits(oc, incumbent_commit(oc))
            clear_work_tree(oc)
        _measure_baseline(project, tag, listener)
        results = _climb if plan.sampler == "auto" else _visit
        for result in results(project, tag, plan, listener):
            sweep.points.append(result)
            listener.tell(result)
        wait_for_trial(project, tag, math.inf, on_tick=listener.tick)  # a re-test of the incumbent may be under way
    except KeyboardInterrupt:
        _leave_clean(project, tag)
        raise
    with open_campaign(project, tag) as oc:
        sweep.incumbent = oc.ledger.incumbent(tag)
    return sweep


def _measure_baseline(project: Path, tag: str, listener: Listener) -> None:
    with open_campaign(project, tag) as oc:
        incumbent = oc.ledger.incumbent(tag)
        if incumbent is not None and incumbent.epoch == oc.campaign.epoch:
            return
        listener.begin("baseline")
        number = submit(oc, Request(description="baseline")).experiment.number
    wait_for_trial(project, tag, math.inf, number=number, on_tick=listener.tick)
    _require_baseline(project, tag)


def _climb(project: Path, tag: str, plan: Plan, listener: Listener) -> Iterator[PointResult]:
    with open_campaign(project, tag) as oc:
        earlier = earlier_points(oc)
    yield from earlier
    left = None if plan.max_trials is None else max(0, plan.max_trials - len(earlier))
    yield from islice(climb(project, tag, listener), left)


def _visit(project: Path, tag: str, plan: Plan, listener: Listener) -> Iterator[PointResult]:
    """The points of a given space."""
    assert plan.max_trials is not None, "only a climb has no end"
    metrics: dict[Point, float | None] = {}
    flying: dict[int, Point] = {}  # by experiment
    tpe = None
    with open_campaign(project, tag) as oc:
        at_once = oc.config.executor.parallel
    if plan.sampler == "tpe":
        with open_campaign(project, tag) as oc:
            earlier = _history(oc, plan.axes)
            tpe = Tpe(plan.axes, seed=plan.seed + len(earlier), direction=oc.config.metric.direction)
        for point, experiment in list(earlier.items())[: plan.max_trials]:
            metrics[point] = experiment.metric
            tpe.tell(point, experiment.metric)
            values, description = values_of(plan.axes, point), describe(plan.axes, point)
            yield PointResult.of(values, description, experiment, skipped="tried already")

    def know(point: Point, metric: float | None) -> None:
        metrics[point] = metric
        if tpe is not None:
            tpe.tell(point, metric)

    def land() -> PointResult:
        """The next point of those under way that is decided."""
        experiment = decide_one_of(project, tag, flying, listener)
        point = flying.pop(experiment.number)
        know(point, experiment.metric)
        return PointResult.of(values_of(plan.axes, point), describe(plan.axes, point), experiment)

    for point in islice(_points(plan, tpe), DRAWS_PER_POINT * plan.max_trials):
        if len(metrics) + len(flying) >= plan.max_trials:
            break
        if point in metrics:  # told again, or the sampler would ask for it for ever
            know(point, metrics[point])
            continue
        if point not in flying.values():
            begun = begin_point(project, tag, plan.axes, point, listener)
            if isinstance(begun, PointResult):
                know(point, begun.metric)
                yield begun
                continue
            flying[begun] = point
            if len(flying) < at_once:
                continue
        yield land()
    while flying:
        yield land()


def _points(plan: Plan, tpe: Tpe | None) -> Iterator[Point]:
    if plan.sampler == "grid":
        yield from grid(plan.axes)
    elif tpe is None:
        yield from random_points(plan.axes, plan.seed)
    else:
        while True:
            yield tpe.ask()


def _history(oc: OpenCampaign, axes: Sequence[Axis]) -> dict[Point, Experiment]:
    """The points that the ledger holds of a sweep over these axes, in order."""
    found: dict[Point, Experiment] = {}
    for experiment in oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch):
        point = parse_description(axes, experiment.description) if experiment.family == FAMILY else None
        if point is None or experiment.state is not State.DECIDED or INTERRUPTED in experiment.reason:
            continue
        if is_point(oc, experiment, axes, point):
            found[point] = experiment
    return found


# ---- what another sweep left, and what this one leaves


def _finish(project: Path, tag: str, listener: Listener) -> None:
    """Bring what a killed sweep left open to its decision."""
    while True:
        with open_campaign(project, tag) as oc:
            experiment = bring_forward(oc).experiment
        if experiment is None:
            return
        if experiment.is_baseline:
            wait_for_trial(project, tag, math.inf, number=experiment.number, on_tick=listener.tick)
            _require_baseline(project, tag)
        else:
            decide_next(project, tag, listener)


def _require_baseline(project: Path, tag: str) -> None:
    with open_campaign(project, tag) as oc:
        experiment = oc.ledger.open_experiment(tag)
        if experiment is not None:
            raise RefusedError(
                f"The baseline failed: {experiment.reason}.",
                hint="Mend it, then: python scripts/run_experiment.py",
                code="baseline_failed",
            )


def _leave_clean(project: Path, tag: str) -> None:
    """End what runs, decide what is open, put the incumbent's files back; a second Ctrl-C waits for it.

    An unfinished baseline stays open, with nothing running: the next command measures on.
    """
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_campaign(project, tag) as oc:
            repair(oc)
            cancel_trials(oc)
            while opened := [each for each in oc.ledger.open_experiments(tag) if not each.is_baseline]:
                for experiment in opened:
                    if experiment.state is State.RUNNING:
                        _call_off(oc, experiment)
                log_result(oc, "auto", retest=False)
                follow_incumbent(oc)
            if oc.ledger.open_experiment(tag) is None:
                clear_work_tree(oc)
            refresh(oc)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _call_off(oc: OpenCampaign, experiment: Experiment) -> None:
    """Judge an experiment whose trials were ended: inconclusive, so that it may be tried again."""
    runs = completed(oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt))
    experiment.state, experiment.verdict, experiment.reason = State.JUDGED, "inconclusive", INTERRUPTED
    experiment.judgement = {"decision": "discard" if runs else "crash"}
    book_numbers(oc, experiment)
    oc.ledger.update_experiment(experiment, "state", "verdict", "reason", "judgement", "metric", "peak_mem_mib")
