"""The files of a project, and which of them is run to train."""

from __future__ import annotations

import ast
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

from autoresearch.errors import UsageError

SETUP = "python scripts/setup_campaign.py"
ENTRIES = ("train.py", "main.py", "run.py")  # in this order, in the project's folder and then in these:
ENTRY_FOLDERS = ("", "src", "scripts")
PREPARERS = re.compile(r"(.*/)?(prepare|download|get_data|make_data|setup_data|preprocess)[\w-]*\.(py|sh)")
MODULES_READ = 50


@dataclass(frozen=True, kw_only=True)
class Project:
    """What detection looks at: a folder and which of its files git tracks, ignores or does not know."""

    folder: Path
    files: Sequence[str]
    ignored: Sequence[str] = ()
    untracked: Sequence[str] = ()

    def text(self, path: str) -> str:
        """The file's text; "" if it cannot be read."""
        try:
            return (self.folder / path).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def tree(self, path: str) -> ast.Module | None:
        """The syntax tree of a Python file; None if it has errors."""
        try:
            return ast.parse(self.text(path))
        except (SyntaxError, ValueError):
            return None

    def has(self, path: str) -> bool:
        """Whether git tracks the file."""
        return path in self._known

    @cached_property
    def _known(self) -> frozenset[str]:
        return frozenset(self.files)

    @cached_property
    def folders(self) -> frozenset[str]:
        """Folders that hold a tracked file, at any depth."""
        return frozenset(str(parent) for path in self.files for parent in PurePosixPath(path).parents)

    @cached_property
    def pyproject(self) -> dict[str, Any]:
        try:
            return tomllib.loads(self.text("pyproject.toml")) if self.has("pyproject.toml") else {}
        except tomllib.TOMLDecodeError:
            return {}


def find_entry(project: Project) -> tuple[str, str]:
    """The script that trains, and how it was found; ``UsageError`` where that is not clear."""
    for folder in ENTRY_FOLDERS:
        for name in ENTRIES:
            path = f"{folder}/{name}" if folder else name
            if project.has(path):
                return path, f"{path} is there"
    scripts = [path for path in project.files if path.endswith(".py") and "/" not in path]
    training = [path for path in scripts if "train" in path]
    runnable = [path for path in scripts if "__main__" in project.text(path) and not PREPARERS.fullmatch(path)]
    for candidates, how in (
        (training, "the only script named after training"),
        (runnable, "the only script"),
    ):
        if len(candidates) == 1:
            return candidates[0], how
    unsaved = [path for path in project.untracked if path in ENTRIES]
    if unsaved:
        raise UsageError(
            f"{unsaved[0]} is not committed, and a campaign works on commits.",
            hint=f"git add {unsaved[0]} && git commit -m start",
            code="entry_not_committed",
        )
    several = training or runnable
    what = f"several could be: {', '.join(several[:8])}" if several else "there is no train.py, main.py or run.py"
    example = shlex.quote(f"python {several[0] if several else 'path/to/script.py'}")
    raise UsageError(
        f"Which script trains is not clear: {what}.",
        hint=f"Say how it is run: {SETUP} --command {example}",
        code="ask_command",
    )


def find_runner(project: Project, entry: str | None) -> tuple[str, str]:
    """What stands before the script in its command, and why."""
    if project.has("uv.lock"):
        return "uv run", "uv.lock is there"
    if "project" in project.pyproject or "uv" in project.pyproject.get("tool", {}):
        return "uv run", "pyproject.toml describes a project"
    if entry is not None and re.search(r"(?m)^# /// script$", project.text(entry)):
        return "uv run", f"{entry} names its own dependencies"
    for folder in (".venv", "venv"):
        python = f"{folder}/bin/python"
        if (project.folder / python).exists():
            return python, f"the project's environment is {folder}"
    name = "python" if shutil.which("python") or not shutil.which("python3") else "python3"
    return name, "no environment of its own"


def entry_of(command: str, project: Project) -> str | None:
    """The project's script that ``command`` runs: ``python x.py``, ``uv run x.py``, ``python -m pkg.x``."""
    for word in re.findall(r"[\w./-]+\.(?:py|sh)\b", command):
        path = str(PurePosixPath(word))
        if project.has(path):
            return path
    for word in re.findall(r"(?<!\S)-m\s+([\w.]+)", command):
        module = word.replace(".", "/")
        for path in (
            f"{module}.py",
            f"{module}/__main__.py",
            f"src/{module}.py",
            f"src/{module}/__main__.py",
        ):
            if project.has(path):
                return path
    return None


def imported_modules(project: Project, entry: str) -> Iterator[str]:
    """``entry`` and the project's own modules that it imports, directly or not."""
    seen, waiting = {entry}, [entry]
    while waiting and len(seen) <= MODULES_READ:
        path = waiting.pop(0)
        yield path
        tree = project.tree(path)
        for module in _module_names(tree) if tree is not None else ():
            below = module.replace(".", "/")
            for folder in dict.fromkeys((str(PurePosixPath(path).parent), ".", "src")):
                for name in (f"{below}.py", f"{below}/__init__.py"):
                    file = str(PurePosixPath(folder) / name)
                    if project.has(file) and file not in seen:
                        seen.add(file)
                        waiting.append(file)


def _module_names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.module
            yield from (f"{node.module}.{alias.name}" if node.module else alias.name for alias in node.names)
