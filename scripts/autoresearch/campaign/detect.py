"""What can be known of a project by looking at its files: how it is run, what it prints, what it needs.

Nothing is run and nothing is written. Each answer says how it was found, for a person to confirm.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.campaign.constants import Constant, constants, option_flag, option_name, options
from autoresearch.campaign.entry import (
    PREPARERS,
    Project,
    entry_of,
    find_entry,
    find_runner,
    imported_modules,
)
from autoresearch.campaign.printed import Printed, merged, printed_in_log, printed_in_source
from autoresearch.guard import in_scope

EVALUATORS = re.compile(r"(.*/)?\w*(prepare|eval|metric|score|benchmark|dataset|dataloader|data)\w*\.py")
BUDGET_NAMES = re.compile(
    r"(TRAIN(ING)?_)?(TIME_BUDGET|TIME_LIMIT|BUDGET|MAX_TIME|MAX_SECONDS|MAX_TRAIN(ING)?_SECONDS)(_S|_SECONDS)?"
)
ASSUMED_BUDGET_S = 300.0
PROTECTED_AT_MOST = 20  # by name; all but `edit` is protected anyway
LOG_BYTES = 256 * 2**10  # an old log is read from its end


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One setting, its value as text, and how it was found."""

    key: str
    value: str
    how: str


@dataclass(kw_only=True)
class Detected:
    """What was found; None and empty where nothing was. ``notes`` are sentences worth reading."""

    command: str
    command_how: str = "given"
    entry: str | None = None
    protect: tuple[str, ...] = ()
    printed: list[Printed] = field(default_factory=list)
    budget_s: float = ASSUMED_BUDGET_S
    budget_how: str = "assumed: the code names no time budget"
    budget_fixed: str = ""  # where the code fixes it, so that nothing from outside moves it
    compiles: bool = False  # the training compiles its model first
    preparers: dict[str, str] = field(default_factory=dict)  # scripts that make data, with their commands
    sources: tuple[str, ...] = ()  # the entry and the project's modules that it imports
    constants: dict[str, list[Constant]] = field(default_factory=dict)  # by file
    notes: list[str] = field(default_factory=list)


def detect(project: Project, *, command: str | None = None, edit: Sequence[str] = ()) -> Detected:
    """Look at ``project``; a ``command`` that is given is taken for granted."""
    if command is not None:
        entry = entry_of(command, project)
        runner, _ = find_runner(project, entry)
        found = Detected(command=command, entry=entry)
    else:
        entry, entry_how = find_entry(project)
        runner, runner_how = find_runner(project, entry)
        found = Detected(
            command=f"{runner} {shlex.quote(entry)}", entry=entry, command_how=f"{entry_how}; {runner_how}"
        )
    starts = [path for path in edit if project.has(path)] if entry is None else [entry]
    modules = [path for start in starts for path in imported_modules(project, start)]
    found.sources = tuple(dict.fromkeys(modules))
    found.preparers = {
        path: f"{'sh' if path.endswith('.sh') else runner} {shlex.quote(path)}"
        for path in project.files
        if PREPARERS.fullmatch(path)
    }
    _find_seed(project, found, settable=command is None)
    # Scripts that lie beside a data set are about that one only.
    for path in (*found.sources, *(path for path in found.preparers if "/" not in path)):
        tree = project.tree(path) if path.endswith(".py") else None
        if tree is not None:
            found.constants[path] = list(constants(tree, path))
    found.printed = _find_printed(project, found)
    _find_budget(project, found)
    edited: set[str | None] = set(edit) or {found.entry}
    measuring = [path for path in project.files if EVALUATORS.fullmatch(path) and not _is_aside(path)]
    likely = [path for path in (*found.sources, *measuring) if path not in edited]
    found.protect = tuple(sorted(dict.fromkeys(likely[:PROTECTED_AT_MOST])))
    return found


def evaluators_within(project: Project, edit: Sequence[str], commands: Sequence[str]) -> list[str]:
    """What seems to measure and lies below a folder or a glob of ``edit``, which does not name the very file.

    ``commands`` are the training's, whose script is none, and those that only measure, whose scripts are.
    """
    training, *measuring = [entry_of(command, project) for command in commands]
    besides = {training, *map(posixpath.normpath, edit)}
    return [
        path
        for path in project.files
        if path not in besides
        and in_scope(path, edit)
        and (path in measuring or (EVALUATORS.fullmatch(path) and not _is_aside(path)))
    ]


def _is_aside(path: str) -> bool:
    return path.startswith(("test", "docs/", "examples/"))


# ---- seed, budget, metric


def _find_seed(project: Project, found: Detected, *, settable: bool) -> None:
    """Hand the runner's seed to the training, or say why trials would not differ by it."""
    tree = None if found.entry is None else project.tree(found.entry)
    for call in options(tree) if tree is not None else ():
        if option_name(call) in ("seed", "random_seed"):
            flag = option_flag(call)
            if settable:
                found.command += f" {flag} {{seed}}"
                found.command_how += f"; {found.entry}:{call.lineno} takes {flag}"
            elif "{seed}" not in found.command:
                found.notes.append(
                    f"the command does not hand {flag} to {found.entry}; add `{flag} {{seed}}`, or all "
                    "trials of an experiment run at the same seed."
                )
            return
    if "{seed}" in found.command:
        return
    texts = {path: project.text(path) for path in found.sources}
    if any("AUTORESEARCH_SEED" in text for text in texts.values()):
        return
    for path, text in texts.items():
        fixed = re.search(r"(?m)^[^#\n]*\b(?:manual_seed|seed|PRNGKey|set_seed|seed_everything)\((\d+)\)", text)
        if fixed:
            line = text[: fixed.start()].count("\n") + 1
            found.notes.append(
                f"{path}:{line} fixes the seed at {fixed[1]}, so repeated runs cannot show how much chance "
                "moves the result. Better, committed before the baseline, in its place: "
                f'int(os.environ.get("AUTORESEARCH_SEED", {fixed[1]}))'
            )
            return


def _find_budget(project: Project, found: Detected) -> None:
    named = [(path, one) for path, listed in found.constants.items() for one in listed if _is_budget(one)]
    if named:
        path, one = named[0]
        found.budget_s = float(one.value)
        found.budget_how = f"{one.name} in {path}:{one.line}"
        found.budget_fixed = "" if one.from_environment else found.budget_how
    found.compiles = any("torch.compile" in project.text(path) for path in found.sources)


def _is_budget(one: Constant) -> bool:
    return BUDGET_NAMES.fullmatch(one.name.upper()) is not None and isinstance(one.value, int | float) and one.value > 0


def _find_printed(project: Project, found: Detected) -> list[Printed]:
    printed: list[Printed] = []
    for path in found.sources:
        tree = project.tree(path) if path.endswith(".py") else None
        if tree is not None:
            printed += printed_in_source(tree, path, is_entry=path == found.entry)
    known = {one.name for one in printed}
    for log in _logs(project.folder):
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - LOG_BYTES))
            text = file.read().decode("utf-8", "replace")
        name = log.relative_to(project.folder).as_posix()
        printed += [one for one in printed_in_log(text, name) if one.name not in known]
    return merged(printed)


def _logs(folder: Path) -> list[Path]:
    """Logs of earlier runs, the newest of each place first, a few at most."""
    found = []
    for pattern in ("run.log", "*.log", "logs/*.log"):
        files = [path for path in folder.glob(pattern) if path.is_file() and path not in found]
        found += sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)[:2]
    return found
