"""The scripted loop: every point of a sweep is an experiment like any other, made on the incumbent."""

from __future__ import annotations

import hashlib
import json
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from autoresearch.campaign.decide import log_result
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.points import (
    Axis,
    Kind,
    Point,
    Tpe,
    describe,
    grid,
    locate,
    parse_description,
    random_points,
    replace,
)
from autoresearch.campaign.progress import bring_forward, refresh, repair, wait_for_trial
from autoresearch.campaign.run import Request, check_head, submit
from autoresearch.campaign.settle import incumbent_commit
from autoresearch.campaign.trials import cancel_trials, experiment_arguments, experiment_environment
from autoresearch.errors import AutoresearchError, RefusedError
from autoresearch.guard import in_scope
from autoresearch.ledger import Experiment, State, completed
from autoresearch.trial import write_json

FAMILY = "sweep"
INTERRUPTED = "the sweep was interrupted"
EDIT_FILE = "sweep-edit.json"  # what a sweep wrote into the work tree, to know it again after a kill
DRAWS_PER_POINT = 20  # a sampler that only repeats itself has nothing left to say


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to sweep. ``max_trials`` counts points, those of an earlier, killed run included."""

    axes: Sequence[Axis]
    sampler: str  # grid | random | tpe
    max_trials: int
    seed: int


@dataclass(frozen=True, kw_only=True)
class PointResult:
    """What became of a point. ``skipped`` says why it was not run now; "" if it was."""

    values: dict[str, str]
    description: str
    number: int | None = None
    status: str = ""
    metric: float | None = None
    verdict: str = ""
    skipped: str = ""


@dataclass(kw_only=True)
class Sweep:
    """The points so far, in order, and the incumbent at the end."""

    points: list[PointResult] = field(default_factory=list)
    incumbent: Experiment | None = None


class Listener(Protocol):
    """Who hears how a sweep goes; ``tick`` is called many times a second while a trial runs."""

    def begin(self, description: str) -> None: ...

    def tell(self, point: PointResult) -> None: ...

    def tick(self) -> None: ...


def run_sweep(project: Path, tag: str | None, plan: Plan, listener: Listener) -> Sweep:
    """Measure the baseline if there is none, then every point; interrupted, it leaves a clean campaign.

    ``UsageError`` and ``RefusedError`` before anything is changed.
    """
    with open_campaign(project, tag) as oc:
        tag = oc.tag
        _locate(oc, plan.axes)
        check_head(oc)
        _refuse_foreign(oc)
    try:
        _finish(project, tag, listener)
        with open_campaign(project, tag) as oc:
            _refuse_edits(oc, incumbent_commit(oc))
            _clear_work_tree(oc)
        return _run(project, tag, plan, listener)
    except KeyboardInterrupt:
        _leave_clean(project, tag)
        raise


def _run(project: Path, tag: str, plan: Plan, listener: Listener) -> Sweep:
    with open_campaign(project, tag) as oc:
        incumbent = oc.ledger.incumbent(tag)
        if incumbent is None or incumbent.epoch != oc.campaign.epoch:
            listener.begin("baseline")
            number = submit(oc, Request(description="baseline")).experiment.number
        else:
            number = None
    if number is not None:
        wait_for_trial(project, tag, math.inf, number=number, on_tick=listener.tick)
        _require_baseline(project, tag)
    sweep = Sweep()
    with open_campaign(project, tag) as oc:
        tpe = None
        if plan.sampler == "tpe":
            earlier = _history(oc, plan.axes)
            tpe = Tpe(plan.axes, seed=plan.seed + len(earlier), direction=oc.config.metric.direction)
            for point, experiment in list(earlier.items())[: plan.max_trials]:
                sweep.points.append(_result(plan.axes, point, experiment, skipped="tried already"))
                tpe.tell(point, experiment.metric)
                listener.tell(sweep.points[-1])
    seen = {tuple(result.values.values()) for result in sweep.points}
    draws = 0
    for point in _points(plan, tpe):
        if len(sweep.points) >= plan.max_trials or draws >= DRAWS_PER_POINT * plan.max_trials:
            break
        draws += 1
        if point in seen:
            if tpe is not None:  # or it would ask for the same point for ever
                tpe.tell(point, next(p.metric for p in sweep.points if tuple(p.values.values()) == point))
            continue
        seen.add(point)
        result = _try(project, tag, plan.axes, point, listener)
        if tpe is not None:
            tpe.tell(point, result.metric)
        sweep.points.append(result)
        listener.tell(result)
    wait_for_trial(project, tag, math.inf, on_tick=listener.tick)  # a re-test of the incumbent may be under way
    with open_campaign(project, tag) as oc:
        sweep.incumbent = oc.ledger.incumbent(tag)
    return sweep


def _points(plan: Plan, tpe: Tpe | None) -> Iterator[Point]:
    if plan.sampler == "grid":
        yield from grid(plan.axes)
    elif tpe is None:
        yield from random_points(plan.axes, plan.seed)
    else:
        while True:
            yield tpe.ask()


def _try(project: Path, tag: str, axes: Sequence[Axis], point: Point, listener: Listener) -> PointResult:
    """Run one point to its decision, unless it was tried or is what the incumbent has."""
    description = describe(axes, point)
    with open_campaign(project, tag) as oc:
        bring_forward(oc)
        texts = _texts(oc, axes, point)
        arguments, environment = _options(axes, point, Kind.ARG), _options(axes, point, Kind.ENV)
        seeds = None
        before = _earlier(oc, axes, point)
        if before is not None and INTERRUPTED not in before.reason:
            return _result(axes, point, before, skipped="tried already")
        if before is not None:
            seeds = min(len(completed(oc.ledger.trials(tag, before.number))) + 1, oc.config.keep.max_seeds)
        incumbent = oc.ledger.incumbent(tag)
        assert incumbent is not None, "the baseline is measured"
        if _is_incumbent(oc, incumbent, texts, arguments, environment):
            return _result(axes, point, incumbent, skipped="the incumbent's own values")
        listener.begin(description)
        request = Request(
            description=description, family=FAMILY, seeds=seeds, arguments=arguments, environment=environment
        )
        _write(oc, texts)
        try:
            number = submit(oc, request).experiment.number
        except AutoresearchError as error:
            oc.repo.restore(incumbent_commit(oc), list(texts))
            if isinstance(error, RefusedError) and error.code in ("no_change", "tried_already"):
                return PointResult(values=_values(axes, point), description=description, skipped=error.message)
            raise
    wait_for_trial(project, tag, math.inf, number=number, on_tick=listener.tick)
    with open_campaign(project, tag) as oc:
        bring_forward(oc)
        log_result(oc, "auto")
        decided = oc.ledger.experiment(tag, number)
        assert decided is not None, "an experiment is never deleted"
        return _result(axes, point, decided)


def _values(axes: Sequence[Axis], point: Point) -> dict[str, str]:
    return {axis.label: value for axis, value in zip(axes, point, strict=True)}


def _result(axes: Sequence[Axis], point: Point, experiment: Experiment, *, skipped: str = "") -> PointResult:
    return PointResult(
        values=_values(axes, point), description=describe(axes, point), number=experiment.number,
        status=str(experiment.status or ""), metric=experiment.metric, verdict=experiment.verdict, skipped=skipped,
    )  # fmt: skip


# ---- what a point is in files, arguments and environment


def _options(axes: Sequence[Axis], point: Point, kind: Kind) -> dict[str, str]:
    return {axis.name: value for axis, value in zip(axes, point, strict=True) if axis.kind is kind}


def _locate(oc: OpenCampaign, axes: Sequence[Axis]) -> dict[str, str]:
    """``{constant: its file}`` in the incumbent's code."""
    swept = [axis for axis in axes if axis.kind is Kind.SET]
    if not swept:
        return {}
    commit = incumbent_commit(oc)
    paths = [path for path in oc.repo.files(commit) if path.endswith(".py") and in_scope(path, oc.config.edit)]
    sources = {path: oc.repo.text(commit, path) or "" for path in paths}
    return {axis.name: locate(axis, sources) for axis in swept}


def _texts(oc: OpenCampaign, axes: Sequence[Axis], point: Point) -> dict[str, str]:
    """The files of the incumbent that define swept constants, with the point's values in them."""
    homes, values = _locate(oc, axes), _options(axes, point, Kind.SET)
    commit = incumbent_commit(oc)
    return {
        path: replace(oc.repo.text(commit, path) or "", {name: values[name] for name in values if homes[name] == path})
        for path in sorted(set(homes.values()))
    }


def _earlier(oc: OpenCampaign, axes: Sequence[Axis], point: Point) -> Experiment | None:
    """The last decided experiment of this epoch that was this point on today's incumbent."""
    description = describe(axes, point)
    for experiment in reversed(oc.ledger.experiments(oc.tag)):
        if experiment.epoch != oc.campaign.epoch or experiment.description != description:
            continue
        if experiment.state is State.DECIDED and _is_point(oc, experiment, axes, point):
            return experiment
    return None


def _is_point(oc: OpenCampaign, experiment: Experiment, axes: Sequence[Axis], point: Point) -> bool:
    texts = _texts(oc, axes, point)
    others = set(oc.repo.changed_paths(incumbent_commit(oc), experiment.commit)) - set(texts)
    return not others and all(oc.repo.text(experiment.commit, path) == text for path, text in texts.items())


def _is_incumbent(
    oc: OpenCampaign,
    incumbent: Experiment,
    texts: Mapping[str, str],
    arguments: Mapping[str, str],
    environment: Mapping[str, str],
) -> bool:
    return (
        all(oc.repo.text(incumbent.commit, path) == text for path, text in texts.items())
        and arguments.items() <= experiment_arguments(incumbent).items()
        and environment.items() <= experiment_environment(incumbent).items()
    )


def _history(oc: OpenCampaign, axes: Sequence[Axis]) -> dict[Point, Experiment]:
    """The points that the ledger holds of a sweep over these axes, in order."""
    found: dict[Point, Experiment] = {}
    for experiment in oc.ledger.experiments(oc.tag, epoch=oc.campaign.epoch):
        point = parse_description(axes, experiment.description) if experiment.family == FAMILY else None
        if point is None or experiment.state is not State.DECIDED or INTERRUPTED in experiment.reason:
            continue
        if _is_point(oc, experiment, axes, point):
            found[point] = experiment
    return found


# ---- the work tree


def _mark(text: bytes) -> str:
    return hashlib.sha256(text).hexdigest()


def _write(oc: OpenCampaign, texts: Mapping[str, str]) -> None:
    """Put a point's files into the work tree, having first noted what they are."""
    data = {path: text.encode("utf-8", "surrogateescape") for path, text in texts.items()}
    write_json(oc.folder / EDIT_FILE, {path: _mark(text) for path, text in data.items()})
    for path, text in data.items():
        (oc.repo.project / path).write_bytes(text)


def _own_edits(oc: OpenCampaign, paths: Sequence[str]) -> set[str]:
    """Those of ``paths`` that lie in the work tree as a sweep wrote them."""
    try:
        marks = json.loads((oc.folder / EDIT_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return set()
    files = {path: oc.repo.project / path for path in paths}
    return {path for path, file in files.items() if file.is_file() and marks.get(path) == _mark(file.read_bytes())}


def _refuse_foreign(oc: OpenCampaign) -> None:
    """Refuse where the user's or an agent's work is under way: their edit, their open experiment."""
    experiment = oc.ledger.open_experiment(oc.tag)
    if experiment is not None and experiment.family != FAMILY and not experiment.is_baseline:
        raise RefusedError(
            f"Experiment {experiment.number} ({experiment.description}) is open.",
            hint="python scripts/status.py --wait 540, then python scripts/log_result.py",
            code="not_logged",
        )
    _refuse_edits(oc, incumbent_commit(oc) if experiment is None else experiment.commit)


def _edited(oc: OpenCampaign, commit: str) -> list[str]:
    return [change.path for change in oc.repo.changes(commit) if in_scope(change.path, oc.config.edit)]


def _refuse_edits(oc: OpenCampaign, commit: str) -> None:
    """Refuse edits that no sweep made."""
    paths = _edited(oc, commit)
    foreign = sorted(set(paths) - _own_edits(oc, paths))
    if foreign:
        raise RefusedError(
            f"{', '.join(foreign)} has edits that are not the incumbent's; a sweep would mix with them.",
            hint='Run them first: python scripts/run_experiment.py -d "the idea" '
            f"(or drop them: git restore -- {' '.join(foreign)})",
            code="uncommitted_edits",
        )


def _clear_work_tree(oc: OpenCampaign) -> None:
    """Take back what a sweep wrote and did not submit."""
    commit = incumbent_commit(oc)
    own = _own_edits(oc, _edited(oc, commit))
    if own:
        oc.repo.restore(commit, sorted(own))


# ---- what another sweep left, and what this one leaves


def _finish(project: Path, tag: str, listener: Listener) -> None:
    """Bring an open experiment of a killed sweep to its decision."""
    with open_campaign(project, tag) as oc:
        experiment = bring_forward(oc).experiment
    if experiment is None:
        return
    wait_for_trial(project, tag, math.inf, number=experiment.number, on_tick=listener.tick)
    if experiment.is_baseline:
        _require_baseline(project, tag)
        return
    with open_campaign(project, tag) as oc:
        bring_forward(oc)
        log_result(oc, "auto")


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
    """End what runs, decide the open experiment, put the incumbent's files back; a second Ctrl-C waits for it.

    An unfinished baseline stays open, with nothing running: the next command measures on.
    """
    handlers = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        with open_campaign(project, tag) as oc:
            repair(oc)
            cancel_trials(oc)
            experiment = oc.ledger.open_experiment(tag)
            if experiment is None:
                _clear_work_tree(oc)
            elif not experiment.is_baseline:
                if experiment.state is State.RUNNING:
                    _call_off(oc, experiment)
                log_result(oc, "auto")
                cancel_trials(oc)  # a re-test that became due with the decision
            refresh(oc)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _call_off(oc: OpenCampaign, experiment: Experiment) -> None:
    """Judge an experiment whose trials were ended: inconclusive, so that it may be tried again."""
    runs = completed(oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt))
    experiment.state, experiment.verdict, experiment.reason = State.JUDGED, "inconclusive", INTERRUPTED
    experiment.judgement = {"decision": "discard" if runs else "crash"}
    oc.ledger.update_experiment(experiment, "state", "verdict", "reason", "judgement")
