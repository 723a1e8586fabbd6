"""Submit an experiment: guard, commit, start its first trial."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from autoresearch.campaign.edit_check import check_sources
from autoresearch.campaign.judging import MAX_INTERRUPTIONS, measured
from autoresearch.campaign.memory import resemblances
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.progress import Progress, bring_forward
from autoresearch.campaign.settle import incumbent_commit, move_to_experiment
from autoresearch.campaign.trials import (
    experiment_arguments,
    experiment_environment,
    training_python,
    trial_environment,
)
from autoresearch.errors import AutoresearchError, NeedsHumanError, RefusedError, StillRunningError, UsageError
from autoresearch.guard import (
    check_paths,
    data_drift,
    environment_drift,
    environment_fingerprint,
    fingerprint_data,
    may_edit,
)
from autoresearch.ledger import Experiment, State
from autoresearch.output import one_line
from autoresearch.repo import Change

FAMILY_LENGTH = 40
DESCRIPTION_LENGTH = 4000
_ENDED_BY_MACHINE = ("oom_host", "interrupted", "disk", "cwd", "killed", "signal", "device", "device_busy")


@dataclass(frozen=True, kw_only=True)
class Request:
    """What the agent asks for."""

    description: str = ""
    family: str = ""
    seeds: int | None = None  # at least this many trials before a decision
    prune: bool = True
    simplification: bool = False
    arguments: Mapping[str, str] = field(default_factory=dict)  # added to the command
    environment: Mapping[str, str] = field(default_factory=dict)  # added to the environment
    adopted: str = ""  # what it is taken over from, TAG/NUMBER


@dataclass(frozen=True, kw_only=True)
class Submission:
    """What was submitted, or with ``dry_run`` would be. ``notes`` are sentences worth reading."""

    experiment: Experiment
    progress: Progress | None
    notes: list[str]


def submit(oc: OpenCampaign, request: Request, *, dry_run: bool = False) -> Submission:
    """Guard, commit and start what lies in the work tree; the first experiment of an epoch is its baseline.

    Returns as soon as the first trial runs. ``StillRunningError`` while another experiment's trial
    runs, ``RefusedError`` where a guard says no: then nothing has changed.
    """
    progress = bring_forward(oc)
    with _telling(progress.repaired):
        return _submit(oc, request, progress, dry_run=dry_run)


@contextmanager
def _telling(repaired: Sequence[str]) -> Iterator[None]:
    """Let an error tell what the command has just repaired: it may be why.

    A re-test that takes a keep back may have moved an edit of the same lines to a ref, and then there is none to try.
    """
    try:
        yield
    except AutoresearchError as error:
        if repaired:
            error.message = f"{error.message} Just before: {'; '.join(repaired)}."
        raise


def _submit(oc: OpenCampaign, request: Request, progress: Progress, *, dry_run: bool) -> Submission:
    open_experiment = progress.experiment
    if open_experiment is not None and open_experiment.state is State.RUNNING:
        raise StillRunningError(
            f"Experiment {open_experiment.number} ({one_line(open_experiment.description, 60)}) is still running.",
            hint="Wait: python scripts/status.py --wait 540; or try this beside it: add --ahead to the command.",
        )
    if open_experiment is not None and (open_experiment.verdict != "failed" or open_experiment.is_ahead):
        raise RefusedError(
            f"Experiment {open_experiment.number} has its verdict ({open_experiment.verdict}) and waits to be logged.",
            hint="python scripts/log_result.py",
            code="not_logged",
        )
    check_head(oc)
    check_request(oc, request)
    notes = list(progress.repaired)
    if open_experiment is not None or oc.ledger.baseline(oc.tag, oc.campaign.epoch) is not None:
        experiment, edit_notes = _prepare_edit(oc, request, open_experiment, measured=oc.is_measured)
        notes += edit_notes
    else:
        experiment, edit_notes = _prepare_baseline(oc, request)
        notes += edit_notes
    notes += check_data(oc)
    if dry_run:
        return Submission(experiment=experiment, progress=None, notes=notes)
    _record(oc, experiment, again=open_experiment is not None)
    progress = bring_forward(oc)
    notes += check_environment(oc, experiment)
    return Submission(
        experiment=oc.ledger.experiment(oc.tag, experiment.number) or experiment, progress=progress, notes=notes
    )


def check_head(oc: OpenCampaign) -> None:
    """HEAD must be the campaign's branch and no merge or rebase under way."""
    head = oc.repo.head()
    if head.branch != oc.branch:
        where = f"on branch {head.branch}" if head.branch else "detached"
        raise NeedsHumanError(
            f"HEAD is {where}; campaign {oc.tag} works on {oc.branch}.",
            hint=f"git switch {oc.branch}",
            code="wrong_branch",
        )
    operation = oc.repo.operation_in_progress()
    if operation:
        raise NeedsHumanError(
            f"A {operation} is under way in {oc.repo.root}.",
            hint=f"git {operation} --abort" if operation != "bisect" else "git bisect reset",
            code="operation_in_progress",
        )


def check_request(oc: OpenCampaign, request: Request) -> None:
    """Refuse what no experiment can be asked for."""
    if request.seeds is not None and not 1 <= request.seeds <= oc.config.keep.max_seeds:
        raise UsageError(
            f"--seeds is {request.seeds}; expected 1 to {oc.config.keep.max_seeds} (keep.max_seeds).",
            hint="Leave --seeds out: the keep rule asks for as many as it needs.",
        )
    if len(request.family) > FAMILY_LENGTH:
        raise UsageError(
            f"--family has {len(request.family)} characters; expected one or two words, at most {FAMILY_LENGTH}.",
            hint="For example: --family optimizer",
        )
    if len(request.description) > DESCRIPTION_LENGTH:
        raise UsageError(
            f"the description has {len(request.description)} characters; expected at most {DESCRIPTION_LENGTH}.",
            hint="Say the idea in a sentence; put the rest into log_result.py --note.",
        )


def _prepare_baseline(oc: OpenCampaign, request: Request) -> tuple[Experiment, list[str]]:
    """The unmodified code of the epoch's base commit as experiment; edits in the work tree wait for the next one."""
    base = oc.campaign.base_commit
    notes = []
    waiting = [change.path for change in oc.repo.changes(base) if may_edit(change.path, oc.config)]
    if waiting:
        notes.append(
            f"the baseline is the unmodified code; your edit of {', '.join(waiting[:3])} waits: run the command again"
        )
    epoch = oc.campaign.epoch
    default = "baseline" if epoch == 1 else f"baseline of epoch {epoch}"
    description = request.description if request.description and not waiting else default
    options = {**request_options(request, None), **oc.campaign.setup.get("inherited", {})}
    experiment = Experiment(
        tag=oc.tag, number=oc.ledger.next_number(oc.tag), epoch=epoch, description=description, family="baseline",
        commit=base, parent=base, tree=oc.repo.tree_of(base), incumbent=None, options=options,
    )  # fmt: skip
    return experiment, notes


def _prepare_edit(
    oc: OpenCampaign, request: Request, open_experiment: Experiment | None, *, measured: bool
) -> tuple[Experiment, list[str]]:
    """The edit in the work tree as experiment: guarded and committed, on no branch yet."""
    incumbent = oc.ledger.incumbent(oc.tag) if measured else None
    parent = incumbent_commit(oc)
    changes = oc.repo.changes(parent)
    notes = check_paths(changes, oc.config, tolerated=unchanged_own_files(oc), base=parent)
    paths = edited_paths(oc, changes)
    options = request_options(request, open_experiment or incumbent)
    if open_experiment is not None:
        options = _as_first_attempt(options, open_experiment.options)
    if measured:
        notes += check_sources(oc, paths, parent=parent, commit=None, options=options, beside=incumbent)
    description = request.description or _default_description(oc, parent, open_experiment)
    commit = _commit(oc, parent, changes, description)
    tree = oc.repo.tree_of(commit)
    if open_experiment is not None:
        _refuse_same_again(oc, open_experiment, tree)
        experiment = open_experiment
        experiment.attempt += 1
        experiment.description, experiment.commit, experiment.tree = description, commit, tree
        experiment.family = request.family or experiment.family
        experiment.options = options
        experiment.state, experiment.verdict, experiment.judgement, experiment.reason = State.RUNNING, "", {}, ""
    else:
        if measured:
            refuse_tried(oc, tree, options)
        experiment = Experiment(
            tag=oc.tag, number=oc.ledger.next_number(oc.tag), epoch=oc.campaign.epoch, description=description,
            family=request.family, commit=commit, parent=parent, tree=tree,
            incumbent=None if incumbent is None else incumbent.number, options=options,
        )  # fmt: skip
    experiment.lines_added, experiment.lines_deleted = oc.repo.line_counts(parent, commit)
    if measured and open_experiment is None:
        notes += resemblances(oc.ledger, oc.repo, experiment)
    return experiment, notes


def edited_paths(oc: OpenCampaign, changes: Sequence[Change]) -> list[str]:
    """The files within ``edit`` that ``changes`` touch, those renamed away included."""
    edited = [change for change in changes if may_edit(change.path, oc.config)]
    return sorted({path for change in edited for path in (change.path, change.old_path) if path})


def request_options(request: Request, base: Experiment | None) -> dict[str, Any]:
    """What the ledger keeps of a request; arguments and environment of the ``base`` are inherited."""
    arguments = {} if base is None else experiment_arguments(base)
    environment = {} if base is None else experiment_environment(base)
    return {
        "seeds": request.seeds,
        "prune": request.prune,
        "simplification": request.simplification,
        "arguments": {**arguments, **request.arguments},
        "environment": {**environment, **request.environment},
        **({"adopted": request.adopted} if request.adopted else {}),
    }


def _as_first_attempt(options: dict[str, Any], first: dict[str, Any]) -> dict[str, Any]:
    """The ``options`` of a second attempt, with what was asked for at the ``first``: it is the same experiment."""
    return {
        **first,
        **options,
        "seeds": options["seeds"] or first.get("seeds"),
        "prune": options["prune"] and first.get("prune", True),
        "simplification": options["simplification"] or bool(first.get("simplification")),
    }


def _default_description(oc: OpenCampaign, parent: str, open_experiment: Experiment | None) -> str:
    if open_experiment is not None:
        return open_experiment.description
    head = oc.repo.head().commit
    if head is not None and head != parent:
        return oc.repo.subject(head).removeprefix("experiment: ")
    raise no_description()


def no_description() -> UsageError:
    return UsageError(
        "the experiment has no description; expected one sentence on the idea.",
        hint='python scripts/run_experiment.py -d "double the learning rate"',
        code="no_description",
    )


def _commit(oc: OpenCampaign, parent: str, changes: Sequence[Change], description: str) -> str:
    """The commit to try: the agent's own if it committed everything itself, else one made on the incumbent.

    What the agent has committed of other files and taken back in the work tree is taken back in the commit too.
    """
    head = oc.repo.head().commit
    assert head is not None, "the campaign's branch has commits"
    open_experiment = oc.ledger.open_experiment(oc.tag)
    recorded = {parent} if open_experiment is None else {parent, open_experiment.commit}
    on = parent if head in recorded else head
    differing = {path for change in changes for path in (change.path, change.old_path)}
    taken_back = {path for path in oc.repo.changed_paths(parent, on) if path not in differing}
    committed = on == head != parent and not taken_back
    if committed and not any(may_edit(change.path, oc.config) for change in oc.repo.changes(head)):
        return head
    paths = sorted({*edited_paths(oc, changes), *taken_back})
    return oc.repo.commit_paths(on, paths, f"experiment: {one_line(description)}")


def _refuse_same_again(oc: OpenCampaign, experiment: Experiment, tree: str) -> None:
    """A second attempt needs a change, unless the machine ended the first."""
    if tree != experiment.tree:
        return
    trials = oc.ledger.trials(oc.tag, experiment.number, attempt=experiment.attempt)
    causes = {trial.result.cause for trial in trials if trial.result is not None}
    if experiment.is_baseline or causes & set(_ENDED_BY_MACHINE):
        return
    raise RefusedError(
        f"Experiment {experiment.number} failed ({experiment.reason}) and nothing has changed since.",
        hint="Mend the code and run again, or give it up: python scripts/log_result.py --status crash",
        code="no_change",
    )


def refuse_tried(oc: OpenCampaign, tree: str, options: dict[str, Any]) -> None:
    """The same files, arguments and environment were tried before: say which experiment and how the last one ended."""
    same = [
        each
        for each in oc.ledger.experiments_with_tree(oc.tag, tree, epoch=oc.campaign.epoch)
        if all(options[key] == (each.options.get(key) or {}) for key in ("arguments", "environment"))
    ]
    if not same:
        return
    earlier = same[-1]
    if earlier.status is None:
        raise RefusedError(
            f"These files are being tried: experiment {earlier.number} ({one_line(earlier.description, 80)}) is open.",
            hint="python scripts/status.py",
            code="tried_already",
        )
    runs = measured(oc.ledger, earlier)
    if earlier.verdict == "inconclusive" and (options["seeds"] or 0) > len(runs):
        return
    declared = options["simplification"] and not earlier.options.get("simplification")
    if declared and earlier.verdict == "equivalent" and len(runs) < oc.config.keep.min_seeds:
        return
    if earlier.reason.startswith(f"interrupted {MAX_INTERRUPTIONS}"):
        return
    again, most = "Try something else.", oc.config.keep.max_seeds
    if earlier.verdict == "inconclusive" and len(runs) < most:
        closer = f'python scripts/run_experiment.py -d "a closer look" --seeds {min(len(runs) + 2, most)}'
        again = f"To look closer at it: {closer}"
    raise RefusedError(
        f"These files were tried already: experiment {earlier.number} ({one_line(earlier.description, 80)}), "
        f"{earlier.status}, {earlier.verdict or 'baseline'}.",
        hint=again,
        code="tried_already",
    )


def _record(oc: OpenCampaign, experiment: Experiment, *, again: bool) -> None:
    """Ledger first, then the refs: a kill in between leaves a record from which the branch is repaired."""
    if again:
        oc.ledger.update_experiment(
            experiment, "attempt", "description", "commit", "tree", "family", "options", "state", "verdict",
            "judgement", "reason", "lines_added", "lines_deleted",
        )  # fmt: skip
    else:
        oc.ledger.add_experiment(experiment)
    move_to_experiment(oc, experiment)


def unchanged_own_files(oc: OpenCampaign) -> set[str]:
    """The user's files recorded at set-up that still have the content they had then."""
    own: dict[str, str] = oc.campaign.setup.get("own_files") or {}
    return {path for path, mark in own.items() if file_mark(oc.repo.project / path) == mark}


def file_mark(path: Path) -> str:
    """A mark of a file's content: its sha256, or size and time where it is large; "" if it is gone."""
    try:
        stat = path.stat()
        if stat.st_size > 10 * 2**20:
            return f"{stat.st_size}:{stat.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def check_data(oc: OpenCampaign) -> list[str]:
    """Compare the data with its fingerprint; changed data is refused, since results would not compare."""
    if not oc.config.data:
        return []
    before = oc.campaign.setup.get("data") or {}
    after = fingerprint_data(oc.config.data, oc.repo.project, previous=before)
    drift = data_drift(before, after) if before else []
    if drift:
        raise RefusedError(
            f"The data has changed since set-up: {'; '.join(drift[:3])}.",
            hint="Put it back, or start a new epoch on the new data: python scripts/setup_campaign.py --reconfigure",
            code="data_changed",
        )
    return []


def check_environment(oc: OpenCampaign, experiment: Experiment) -> list[str]:
    """Fingerprint the machine and the training's packages: kept at the baseline, drift reported after it.

    Called while the trial runs, so its half second costs the loop nothing.
    """
    if oc.config.executor.kind != "local":
        return []
    env = trial_environment(oc, experiment, 1, "")
    current = environment_fingerprint(training_python(oc.config, oc.repo.project), cwd=oc.repo.project, env=env)
    before = oc.campaign.environment
    if not before:
        oc.campaign.environment = current
        oc.ledger.update_campaign(oc.campaign, "environment")
        return []
    drift = environment_drift(before, current)
    if drift and drift != (before.get("told_drift") or []):
        oc.campaign.environment = {**before, "told_drift": drift}
        oc.ledger.update_campaign(oc.campaign, "environment")
        text = f"the environment differs from the baseline's: {'; '.join(drift[:5])}"
        oc.tell("drift", text)
        return [text]
    return []
