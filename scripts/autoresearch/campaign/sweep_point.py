"""One point of a sweep: written into the incumbent's files, run as an experiment, decided."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import shlex
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from autoresearch.campaign.ahead import submit_constants
from autoresearch.campaign.decide import log_result
from autoresearch.campaign.opened import OpenCampaign, open_campaign
from autoresearch.campaign.points import SWEEP, Axis, Kind, Point, describe, locate
from autoresearch.campaign.progress import bring_forward, wait_for_trial
from autoresearch.campaign.rebase import texts_with
from autoresearch.campaign.run import Request, edited_paths, submit
from autoresearch.campaign.settle import incumbent_commit, recorded_tip
from autoresearch.campaign.trials import experiment_arguments, experiment_environment
from autoresearch.errors import AutoresearchError, RefusedError, StillRunningError
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment, State, completed
from autoresearch.trial import write_json

FAMILY = "sweep"
INTERRUPTED = "the sweep was interrupted"
EDIT_FILE = "sweep-edit.json"  # what a sweep wrote into the work tree, to know it again after a kill


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

    @classmethod
    def of(cls, values: dict[str, str], description: str, experiment: Experiment, *, skipped: str = "") -> PointResult:
        """What ``experiment`` says of a point."""
        return cls(
            values=values, description=description, number=experiment.number, status=str(experiment.status or ""),
            metric=experiment.metric, verdict=experiment.verdict, skipped=skipped,
        )  # fmt: skip


class Listener(Protocol):
    """Who hears how a sweep goes; ``tick`` is called many times a second while a trial runs."""

    def begin(self, description: str) -> None: ...

    def tell(self, point: PointResult) -> None: ...

    def tick(self) -> None: ...


def try_point(
    project: Path, tag: str, axes: Sequence[Axis], point: Point, listener: Listener, *, by: str = SWEEP
) -> PointResult:
    """Run one point to its decision, unless it was tried or is what the incumbent has.

    Its experiment is described as ``by``'s, see ``describe``.
    """
    begun = begin_point(project, tag, axes, point, listener, by=by)
    if isinstance(begun, PointResult):
        return begun
    decided = decide_one_of(project, tag, [begun], listener)
    return PointResult.of(values_of(axes, point), describe(axes, point, by), decided)


def begin_point(
    project: Path, tag: str, axes: Sequence[Axis], point: Point, listener: Listener, *, by: str = SWEEP
) -> PointResult | int:
    """Submit one point; the number of its experiment, or why it has none.

    Where several trials may run at once it is submitted ahead, and more points may be open beside it.
    """
    description, values = describe(axes, point, by), values_of(axes, point)
    with open_campaign(project, tag) as oc:
        bring_forward(oc)
        texts = _texts(oc, axes, point)
        arguments, environment = _options(axes, point, Kind.ARG), _options(axes, point, Kind.ENV)
        seeds = None
        before = _earlier(oc, axes, point, description)
        if before is not None and INTERRUPTED not in before.reason:
            return PointResult.of(values, description, before, skipped="tried already")
        if before is not None:
            seeds = min(len(completed(oc.ledger.trials(tag, before.number))) + 1, oc.config.keep.max_seeds)
        incumbent = oc.ledger.incumbent(tag)
        assert incumbent is not None, "the baseline is measured"
        if _is_incumbent(oc, incumbent, texts, arguments, environment):
            return PointResult.of(values, description, incumbent, skipped="the incumbent's own values")
        listener.begin(description)
        request = Request(
            description=description, family=FAMILY, seeds=seeds, arguments=arguments, environment=environment
        )
        try:
            return _submit(oc, request, _constants(oc, axes, point))
        except RefusedError as error:
            if error.code in ("no_change", "tried_already"):
                return PointResult(values=values, description=description, skipped=error.message)
            raise


def _submit(oc: OpenCampaign, request: Request, constants: Mapping[str, Mapping[str, str]]) -> int:
    if oc.config.executor.parallel > 1:
        return submit_constants(oc, request, constants).experiment.number
    _write(oc, texts_with(oc, incumbent_commit(oc), constants))
    try:
        return submit(oc, request).experiment.number
    except AutoresearchError:
        oc.repo.restore(recorded_tip(oc), list(constants))  # the incumbent, unless the point is on record already
        raise


def decide_next(project: Path, tag: str, listener: Listener) -> Experiment:
    """Wait until one of the open experiments can be decided, and decide it."""
    wait_for_trial(project, tag, math.inf, on_tick=listener.tick)
    with open_campaign(project, tag) as oc:
        bring_forward(oc)
        return log_result(oc, "auto").experiment


def decide_one_of(project: Path, tag: str, numbers: Collection[int], listener: Listener) -> Experiment:
    """Wait until one of the experiments ``numbers`` is decided.

    Meanwhile an agent may have submitted another ahead, which is decided in its turn, or logged one of these itself.
    """
    while True:
        with open_campaign(project, tag) as oc:
            ours = [experiment for number in numbers if (experiment := oc.ledger.experiment(tag, number))]
        if decided := [experiment for experiment in ours if experiment.state is State.DECIDED]:
            return decided[0]
        with contextlib.suppress(StillRunningError):  # another command has logged what was to be decided
            decide_next(project, tag, listener)


# ---- what a point is in files, arguments and environment


def values_of(axes: Sequence[Axis], point: Point) -> dict[str, str]:
    """``{label: value}``."""
    return {axis.label: value for axis, value in zip(axes, point, strict=True)}


def _options(axes: Sequence[Axis], point: Point, kind: Kind) -> dict[str, str]:
    return {axis.name: value for axis, value in zip(axes, point, strict=True) if axis.kind is kind}


def edited_sources(oc: OpenCampaign, commit: str) -> dict[str, str]:
    """The Python files within ``edit`` in ``commit``, text by path."""
    paths = [path for path in oc.repo.files(commit) if path.endswith(".py") and may_edit(path, oc.config)]
    return oc.repo.texts(commit, paths)


def homes_of(oc: OpenCampaign, axes: Sequence[Axis]) -> dict[str, str]:
    """``{constant: its file}`` in the incumbent's code; ``UsageError`` where there is none, or no such value."""
    swept = [axis for axis in axes if axis.kind is Kind.SET]
    sources = edited_sources(oc, incumbent_commit(oc)) if swept else {}
    return {axis.name: locate(axis, sources) for axis in swept}


def _texts(oc: OpenCampaign, axes: Sequence[Axis], point: Point) -> dict[str, str]:
    """The files of the incumbent that define swept constants, with the point's values in them."""
    return texts_with(oc, incumbent_commit(oc), _constants(oc, axes, point))


def _constants(oc: OpenCampaign, axes: Sequence[Axis], point: Point) -> dict[str, dict[str, str]]:
    """The point's values of swept constants by the file that defines them in the incumbent."""
    homes, values = homes_of(oc, axes), _options(axes, point, Kind.SET)
    files = sorted(set(homes.values()))
    return {path: {name: values[name] for name in values if homes[name] == path} for path in files}


def _earlier(oc: OpenCampaign, axes: Sequence[Axis], point: Point, description: str) -> Experiment | None:
    """The last decided experiment of this epoch that was this point on today's incumbent."""
    for experiment in reversed(oc.ledger.experiments(oc.tag)):
        if experiment.epoch != oc.campaign.epoch or experiment.description != description:
            continue
        if experiment.state is State.DECIDED and is_point(oc, experiment, axes, point):
            return experiment
    return None


def is_point(oc: OpenCampaign, experiment: Experiment, axes: Sequence[Axis], point: Point) -> bool:
    """Whether ``experiment`` is today's incumbent with the point's values, and nothing else."""
    incumbent = oc.ledger.incumbent(oc.tag)
    assert incumbent is not None, "the baseline is measured"
    for kind, settings in ((Kind.ARG, experiment_arguments), (Kind.ENV, experiment_environment)):
        if settings(experiment) != {**settings(incumbent), **_options(axes, point, kind)}:
            return False
    texts = _texts(oc, axes, point)
    others = set(oc.repo.changed_paths(incumbent.commit, experiment.commit)) - set(texts)
    return not others and oc.repo.texts(experiment.commit, texts) == texts


def _is_incumbent(
    oc: OpenCampaign,
    incumbent: Experiment,
    texts: Mapping[str, str],
    arguments: Mapping[str, str],
    environment: Mapping[str, str],
) -> bool:
    return (
        oc.repo.texts(incumbent.commit, texts) == texts
        and arguments.items() <= experiment_arguments(incumbent).items()
        and environment.items() <= experiment_environment(incumbent).items()
    )


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


def refuse_foreign(oc: OpenCampaign) -> None:
    """Refuse where the user's or an agent's work is under way: their edit, their open experiment."""
    for experiment in oc.ledger.open_experiments(oc.tag):
        if experiment.family != FAMILY and not experiment.is_baseline:
            raise RefusedError(
                f"Experiment {experiment.number} ({experiment.description}) is open.",
                hint="python scripts/status.py --wait 540, then python scripts/log_result.py",
                code="not_logged",
            )
    refuse_edits(oc, recorded_tip(oc))


def _edited(oc: OpenCampaign, commit: str) -> list[str]:
    return [change.path for change in oc.repo.changes(commit) if may_edit(change.path, oc.config)]


def refuse_edits(oc: OpenCampaign, commit: str) -> None:
    """Refuse edits that no sweep made."""
    paths = _edited(oc, commit)
    foreign = sorted(set(paths) - _own_edits(oc, paths))
    if foreign:
        raise RefusedError(
            f"{', '.join(foreign)} has edits that are not the incumbent's; a sweep would mix with them.",
            hint='Run them first: python scripts/run_experiment.py -d "the idea" '
            f"(or drop them: {_how_to_drop(oc, commit, foreign)})",
            code="uncommitted_edits",
        )


def _how_to_drop(oc: OpenCampaign, commit: str, foreign: Sequence[str]) -> str:
    changes = [change for change in oc.repo.changes(commit) if change.path in foreign]
    known = edited_paths(oc, [change for change in changes if change.tracked])
    new = [change.path for change in changes if not change.tracked]
    ways = [f"git restore --source={commit[:7]} --staged --worktree -- {shlex.join(known)}"] if known else []
    return "; ".join([*ways, *([f"move {', '.join(new)} away"] if new else [])])


def clear_work_tree(oc: OpenCampaign) -> None:
    """Take back what a sweep wrote and did not submit."""
    commit = incumbent_commit(oc)
    own = _own_edits(oc, _edited(oc, commit))
    if own:
        oc.repo.restore(commit, sorted(own))
