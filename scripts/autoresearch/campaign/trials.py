"""Trials of a campaign: prepare a clean checkout, start the runner, take the result into the ledger."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.pruning import prune_limits
from autoresearch.config import Config, default_pattern
from autoresearch.executors import State, executor_for
from autoresearch.executors.base import read_json
from autoresearch.guard import may_edit
from autoresearch.ledger import Experiment, Purpose, Trial, completed
from autoresearch.trial import SPEC_FILE, Outcome, TrialResult, TrialSpec

# What belongs to the agent's client, to git or to our own commands is no business of training code.
_NOT_FOR_TRIALS = re.compile(
    r"(ANTHROPIC|CLAUDE|CODEX|GEMINI|OPENCODE|GIT|TMUX|AUTORESEARCH)(_|$)|CLAUDECODE|VIRTUAL_ENV_PROMPT"
)
PEAK_MEMORY = "peak_vram_mb"  # what karpathy's train.py prints; MiB in spite of its name
# How an engine that has several kinds of devices is told which one, by `executor.kind`.
_PINNED_BY = {"slurm": "executor.gres or executor.constraint", "ray": "executor.accelerator_type"}
_DEVICE_DEPENDENT = (Outcome.COMPLETED, Outcome.PRUNED, Outcome.TIMED_OUT)
_EVALUATE_LIMIT_FACTOR = 1.0  # an evaluation may take as long as the trial's own limit


def experiment_arguments(experiment: Experiment) -> dict[str, str]:
    """Command arguments that the experiment adds or inherits from the incumbent, ``{name: value}``."""
    return dict(experiment.options.get("arguments") or {})


def experiment_environment(experiment: Experiment) -> dict[str, str]:
    """Environment variables that the experiment adds or inherits from the incumbent."""
    return dict(experiment.options.get("environment") or {})


def own_settings(experiment: Experiment, base: Experiment | None) -> dict[str, dict[str, str]]:
    """The ``arguments`` and the ``environment`` that it adds itself, beside what it inherits from its ``base``."""
    own = {}
    for key, of in (("arguments", experiment_arguments), ("environment", experiment_environment)):
        inherited = {} if base is None else of(base)
        own[key] = {name: value for name, value in of(experiment).items() if inherited.get(name) != value}
    return own


def trial_command(template: str, seed: int, arguments: Mapping[str, str]) -> str:
    """The shell line of a trial: ``{seed}`` filled in, arguments appended, each quoted.

    ``--name=value`` in the template is replaced by an argument of that name, so that an option is not given twice.
    """
    command = template.replace("{seed}", str(seed))
    for name, value in arguments.items():
        flag = name if name.startswith("-") else f"--{name}"
        given = re.compile(rf"(?<!\S){re.escape(flag)}(=|\s+)(\"[^\"]*\"|'[^']*'|[^\s'\"]+)")
        quoted = shlex.quote(value)
        if found := given.search(command):
            command = f"{command[: found.start()]}{flag}{found[1]}{quoted}{command[found.end() :]}"
        else:
            joint = "" if "=" in flag else f" {quoted}"
            command = f"{command} {flag}{joint}"
    return command


def trial_environment(oc: OpenCampaign, experiment: Experiment, seed: int, trial_id: str) -> dict[str, str]:
    """The whole environment of a trial: the caller's, less what is not the training's, plus ours."""
    env = {name: value for name, value in os.environ.items() if not _NOT_FOR_TRIALS.match(name)}
    env["PATH"] = path_without_script_environment(env.get("PATH", os.defpath))
    if Path(env.get("VIRTUAL_ENV", "/")) == Path(sys.prefix) and _is_script_environment():
        del env["VIRTUAL_ENV"]
    virtual = oc.repo.project / ".venv"
    if virtual.is_dir():
        # A checkout costs milliseconds only if uv reuses the project's environment and leaves it alone.
        env |= {"UV_PROJECT_ENVIRONMENT": str(virtual), "UV_NO_SYNC": "1"}
    env |= experiment_environment(experiment)
    budget = f"{oc.config.budget_s:g}"
    env |= {
        "AUTORESEARCH_SEED": str(seed),
        "AUTORESEARCH_BUDGET_S": budget,
        "AUTORESEARCH_TRIAL": trial_id,
        "TIME_BUDGET": budget,
        "PYTHONHASHSEED": str(seed % 2**32),
        "PYTHONUNBUFFERED": "1",  # the runner watches the log while it grows
    }
    return env


def _is_script_environment() -> bool:
    """Whether this process runs in the throw-away environment that ``uv run --script`` made for it."""
    return any(part.startswith(("environments-v", "archive-v")) for part in Path(sys.prefix).parts)


def path_without_script_environment(path: str) -> str:
    """``path`` without our own throw-away environment: the project's ``python`` is the user's, not ours."""
    if not _is_script_environment():
        return path
    ours = {str(Path(sys.prefix) / "bin"), str(Path(sys.prefix) / "Scripts")}
    return os.pathsep.join(part for part in path.split(os.pathsep) if part not in ours)


def launch_trial(
    oc: OpenCampaign, experiment: Experiment, seed: int, purpose: Purpose, *, command: str | None = None
) -> Trial:
    """Start one trial of ``experiment`` at ``seed`` and record it; returns at once.

    ``command`` is run instead of the config's. Only trials that screen or confirm are ever pruned.

    The ledger row is written before the runner starts and the handle after, so a kill in between
    leaves a row without a handle, which ``collect_trials`` finds again by its id.
    """
    taken = {trial.id for trial in oc.ledger.trials(oc.tag, experiment.number)}
    stem = trial_id = f"{oc.tag}.{experiment.number}.{experiment.attempt}.seed{seed}"
    repeat = 1
    while trial_id in taken:  # an interrupted trial is run again under a name of its own
        repeat += 1
        trial_id = f"{stem}.{repeat}"
    directory = oc.trials_folder / trial_id
    config, arguments = oc.config, experiment_arguments(experiment)
    line = trial_command(command or config.command, seed, arguments)
    trial = Trial(
        id=trial_id, tag=oc.tag, number=experiment.number, attempt=experiment.attempt, seed=seed, purpose=purpose,
        commit=experiment.commit, command=line, directory=str(directory),
    )  # fmt: skip
    oc.ledger.add_trial(trial)
    cwd = prepare_checkout(oc, experiment)
    prune_above: tuple[tuple[float, float], ...] = ()
    diverged_above = 0.0
    if purpose in (Purpose.SCREEN, Purpose.CONFIRM):
        prune_above, diverged_above = prune_limits(oc, experiment, seed)
    evaluates = config.evaluate_command and command is None
    evaluate = trial_command(config.evaluate_command, seed, {}) if evaluates else ""
    spec = TrialSpec(
        trial_id=trial_id,
        directory=str(directory),
        command=trial.command,
        cwd=str(cwd),
        env=trial_environment(oc, experiment, seed, trial_id),
        gpu_mib=gpu_memory_mib(oc),
        seed=seed,
        budget_s=config.budget_s,
        limit_s=config.limit_s,
        metric=config.metric.name,
        metric_pattern=config.metric.pattern,
        watch={PEAK_MEMORY: default_pattern(PEAK_MEMORY), **config.watch},
        progress_pattern=config.progress,
        evaluate_command=evaluate,
        evaluate_limit_s=config.limit_s * _EVALUATE_LIMIT_FACTOR if evaluate else 0.0,
        stall_s=config.stall_s,
        prune_above=prune_above,
        diverged_above=diverged_above,
    )
    trial.handle = executor_for(config.executor).submit(spec)
    oc.ledger.set_handle(trial)
    return trial


def gpu_memory_mib(oc: OpenCampaign) -> float:
    """The most that a trial of the incumbent has taken on a GPU; 0 while that is not known."""
    incumbent = oc.ledger.incumbent(oc.tag)
    trials = [] if incumbent is None else oc.ledger.trials(oc.tag, incumbent.number)
    results = [trial.result for trial in trials if trial.result is not None]
    return max((each.peak_mem_mib or 0.0 for each in results if each.peak_mem_source in ("log", "nvml")), default=0.0)


def prepare_checkout(oc: OpenCampaign, experiment: Experiment) -> Path:
    """A clean checkout of the experiment's commit, protected files from the base; returns the folder to run in.

    Ignored inputs named under ``link`` and submodules are symbolic links to the project's own.
    With ``isolation: inplace`` the project itself is the checkout.
    """
    if oc.config.isolation == "inplace":
        return oc.repo.project
    # The same few paths for all trials: compile caches that know their sources by path stay warm.
    taken = _checkouts_in_use(oc)
    checkout = next(place for number in count() if (place := oc.checkouts_folder / str(number)) not in taken)
    shutil.rmtree(checkout, ignore_errors=True)
    base = oc.campaign.base_commit
    oc.repo.export(experiment.commit, base, _edited_paths(oc, base, experiment.commit), checkout)
    folder = checkout / oc.repo.prefix
    folder.mkdir(parents=True, exist_ok=True)
    for path in (*oc.config.link, *oc.repo.submodules(base)):
        link_path(oc.repo.project / path, folder / path)
    return folder


def _edited_paths(oc: OpenCampaign, base: str, commit: str) -> list[str]:
    files = set(oc.repo.files(base)) | set(oc.repo.files(commit))
    return sorted(path for path in files if may_edit(path, oc.config))


def link_path(target: Path, link: Path) -> None:
    """Make ``link`` a symbolic link to ``target``, if that exists and nothing is in the way."""
    if not target.exists():
        return
    if link.is_dir() and not link.is_symlink() and not any(link.iterdir()):
        link.rmdir()  # the empty folder of a submodule
    if not link.exists() and not link.is_symlink():
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(target, target_is_directory=target.is_dir())


def remove_checkouts(oc: OpenCampaign) -> None:
    """Delete the checkouts of ended trials; links in them are removed, not followed."""
    if oc.checkouts_folder.is_dir():
        for checkout in set(oc.checkouts_folder.iterdir()) - _checkouts_in_use(oc):
            shutil.rmtree(checkout, ignore_errors=True)


def _checkouts_in_use(oc: OpenCampaign) -> set[Path]:
    """The checkouts that the trials under way run in."""
    specs = (read_json(Path(trial.directory) / SPEC_FILE) for trial in oc.ledger.open_trials(oc.tag))
    places = [Path(spec["cwd"]) for spec in specs if "cwd" in spec]
    inside = [place.relative_to(oc.checkouts_folder) for place in places if oc.checkouts_folder in place.parents]
    return {oc.checkouts_folder / place.parts[0] for place in inside}


def collect_trials(oc: OpenCampaign) -> list[Trial]:
    """Take every ended trial's result into the ledger; returns the trials taken in.

    A trial whose runner is gone without a result is ``interrupted``: its orphans are ended first.
    """
    waiting = oc.ledger.open_trials(oc.tag)
    if not waiting:
        return []
    executor = executor_for(oc.config.executor)
    results = {trial.id: TrialResult.read(Path(trial.directory)) for trial in waiting}
    without = [trial for trial in waiting if results[trial.id] is None]
    for trial in without:
        if not trial.handle:
            trial.handle = executor.find(trial.id, Path(trial.directory)) or {}
    states = executor.poll([trial.handle for trial in without if trial.handle]) if without else {}
    for trial in without:
        if states.get(trial.id, State.GONE) is State.GONE:
            results[trial.id] = executor.conclude(trial.id, Path(trial.directory))
    taken = []
    for trial in waiting:
        result = results[trial.id]
        if result is not None:
            oc.ledger.end_trial(trial, comparable(oc, trial, result))
            if result.disturbed:
                oc.tell("disturbed", f"trial {trial.id}: {result.disturbed}")
            taken.append(trial)
    return taken


def comparable(oc: OpenCampaign, trial: Trial, result: TrialResult) -> TrialResult:
    """``result``, or ``interrupted`` in its place if an engine gave the trial another device than the baseline's.

    A budget of time buys a different number of steps there, and the memory is another, so neither the metric nor
    such an end says anything about the idea.
    """
    depends_on_device = result.outcome in _DEVICE_DEPENDENT or result.cause == "oom_gpu"
    if oc.config.executor.kind not in _PINNED_BY or not depends_on_device:
        return result
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    first = [] if baseline is None else oc.ledger.trials(oc.tag, baseline.number)
    device = next((each.result.device for each in first if each.result and completed([each])), result.device)
    if device == result.device:
        return result
    pin = _PINNED_BY[oc.config.executor.kind]
    reason = f"it ran on {result.device}, the baseline on {device}: pin one kind, with {pin}"
    oc.tell("other_device", f"trial {trial.id}: {reason}")
    return replace(result, outcome=Outcome.INTERRUPTED, cause="other_device", reason=reason, metric=None)


def cancel_trials(oc: OpenCampaign) -> None:
    """End every trial under way and take its ``interrupted`` result in."""
    end_trials(oc, oc.ledger.open_trials(oc.tag))
    collect_trials(oc)


def end_trials(oc: OpenCampaign, trials: Sequence[Trial]) -> None:
    """End ``trials``; each has a result then, which waits to be taken in."""
    executor = executor_for(oc.config.executor)
    for trial in trials:
        if trial.handle:
            executor.cancel(trial.handle)
        else:
            executor.conclude(trial.id, Path(trial.directory))


def failed(result: TrialResult) -> bool:
    """Whether the trial says that the code does not work, as opposed to works worse."""
    return result.outcome in (Outcome.CRASHED, Outcome.TIMED_OUT, Outcome.DIVERGED, Outcome.INVALID)


def training_python(config: Config, project: Path) -> str | None:
    """The interpreter that runs the training, as far as the command tells; None if it does not."""
    words = [word for word in shlex.split(config.command) if "=" not in word or word.startswith("-")]
    if not words:
        return None
    if Path(words[0]).name == "uv":
        candidate = project / ".venv" / "bin" / "python"
        return str(candidate) if candidate.exists() else None
    if not Path(words[0]).name.startswith("python"):
        return None
    if os.sep in words[0]:
        return str(project / words[0])
    return shutil.which(words[0], path=path_without_script_environment(os.environ.get("PATH", os.defpath)))
