"""Who may import what, read from the syntax trees: rooms, heavy packages, declared packages."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "scripts"
CORE = FOLDER / "autoresearch"
SCRIPTS = sorted(FOLDER.glob("*.py"))
MODULES = sorted(CORE.rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]

# A room knows those before it, except that two know less: a trial runs on machines that have only the
# runner's own needs, and statistics are functions of numbers.
ROOMS = (
    *(
        "errors",
        "plain",
        "typed",
        "output",
        "papers",
        "trial",
        "constraint",
        "config",
        "merge",
        "first_commit",
        "git_lock",
        "repo",
        "ledger",
        "results",
        "notify",
        "guard",
        "runner",
    ),
    *("executors", "verdict", "campaign", "report", "agents"),
)
KNOWS_ONLY = {"runner": {"errors", "trial"}, "verdict": {"errors", "plain"}}
HEAVY = {"pandas", "scipy", "torch", "matplotlib", "plotly", "optuna", "jinja2", "apprise",
         "pyarrow", "mlflow", "tensorboard", "wandb"}  # fmt: skip


def relative(path: Path) -> str:
    return path.relative_to(FOLDER).as_posix()


each_file = pytest.mark.parametrize("file", SCRIPTS + MODULES, ids=relative)
each_module = pytest.mark.parametrize("module", MODULES, ids=relative)
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=relative)

When = Literal["start", "call", "typing"]


class Import(NamedTuple):
    """One imported name in full (``autoresearch.trial.TrialSpec``), and when the import happens."""

    name: str
    when: When
    line: int

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]

    @property
    def room(self) -> str:
        """The room of the core that the name belongs to; "" if it belongs to none."""
        match self.name.split("."):
            case ["autoresearch", room, *_] if not room.startswith("__"):
                return room
        return ""


def imports(file: Path) -> list[Import]:
    return list(imports_below(ast.parse(file.read_text(encoding="utf-8")), "start"))


def imports_below(node: ast.AST, when: When) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        match child:
            case ast.Import(names=names):
                yield from (Import(alias.name, when, child.lineno) for alias in names)
            case ast.ImportFrom(module=str(module), names=names, level=0):
                yield from (Import(f"{module}.{alias.name}", when, child.lineno) for alias in names)
            case ast.ImportFrom():
                pytest.fail(f"relative import in line {child.lineno}")
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                yield from imports_below(child, "call")
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                yield from imports_below(child, "typing")
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield Import(name, "call", child.lineno)
            case _:
                yield from imports_below(child, when)


def room_of(module: Path) -> str:
    return module.relative_to(CORE).with_suffix("").parts[0]


def test_there_are_files_to_look_at() -> None:
    assert SCRIPTS
    assert CORE / "errors.py" in MODULES
    assert any(found.when == "call" for file in MODULES for found in imports(file)), "no lazy import was seen"


# --- inside the bundle -------------------------------------------------------------------------


@each_module
def test_module_imports_only_rooms_before_its_own(module: Path) -> None:
    room = room_of(module)
    if room == "__init__":
        known: set[str] = set()
    else:
        assert room in ROOMS, f"give the new room {room!r} its place in ROOMS"
        known = KNOWS_ONLY.get(room, set(ROOMS[: ROOMS.index(room)])) | {room}
    wrong = [found for found in imports(module) if found.room and found.room not in known]
    assert wrong == []


@each_file
def test_scripts_are_not_imported(file: Path) -> None:
    names = {script.stem for script in SCRIPTS}
    assert [found for found in imports(file) if found.top in names] == []


@each_file
def test_only_repo_imports_git(file: Path) -> None:
    if file != CORE / "repo.py":
        assert [found for found in imports(file) if found.top in {"git", "gitdb"}] == []


@each_file
def test_heavy_packages_are_imported_only_where_they_are_used(file: Path) -> None:
    """They take up to seconds, which ``--help`` and ``status.py`` have no use for."""
    assert [found for found in imports(file) if found.when == "start" and found.top in HEAVY] == []


# --- packages from outside ---------------------------------------------------------------------


def package_name(requirement: str) -> str:
    """``GitPython`` for ``GitPython>=3``, in the normal form of package names."""
    name = re.match(r"[\w.-]+", requirement)
    assert name, requirement
    return re.sub(r"[-_.]+", "-", name[0]).lower()


def package_names(requirements: list[str]) -> set[str]:
    return {package_name(requirement) for requirement in requirements}


DEPENDENCIES = package_names(PROJECT["dependencies"])
OPTIONAL = package_names([line for extra in PROJECT["optional-dependencies"].values() for line in extra])
FOR_SCRIPTS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["papers"]]
DISTRIBUTIONS = packages_distributions()


def packages_of(found: list[Import]) -> set[str]:
    """The packages outside the bundle that the imports need when they run."""
    names = {each.top for each in found if each.when != "typing"} - sys.stdlib_module_names - {"autoresearch"}
    return {package_name(DISTRIBUTIONS.get(name, [name])[0]) for name in names}


def files_of(name: str) -> list[Path]:
    """The core's files that run when the dotted ``name`` is imported."""
    path, files = FOLDER, []
    for part in name.split("."):
        path /= part
        files += [file for file in (path / "__init__.py", path.with_suffix(".py")) if file.exists()]
    return files


def reachable(script: Path) -> list[Import]:
    """The imports of ``script`` and of all of the core that it may come to run.

    Executors start the runner by its path and with the script's own interpreter, and notify its sender.
    """
    todo, seen, found = [script], set(), []
    while todo:
        file = todo.pop()
        if file in seen:
            continue
        seen.add(file)
        if CORE / "executors" in file.parents:
            todo += sorted((CORE / "runner").rglob("*.py"))
        if CORE / "notify" in file.parents:
            todo += sorted((CORE / "notify").rglob("*.py"))
        for each in imports(file):
            found.append(each)
            if each.top == "autoresearch" and each.when != "typing":
                todo += files_of(each.name)
    return found


def script_block(script: Path) -> dict[str, Any]:
    """What the PEP 723 block of ``script`` says."""
    text = script.read_text(encoding="utf-8")
    blocks = re.findall(r"(?m)^# /// script\n((?:#(?: .*)?\n)*?)# ///$", text)
    assert len(blocks) == 1, f"{script.name} needs one `# /// script` block, found {len(blocks)}"
    return tomllib.loads(re.sub(r"(?m)^# ?", "", blocks[0]))


@each_file
def test_imported_packages_are_declared(file: Path) -> None:
    found = imports(file)
    assert packages_of([each for each in found if each.when == "start"]) <= DEPENDENCIES
    assert packages_of(found) <= DEPENDENCIES | OPTIONAL


@each_script
def test_script_block_repeats_lines_of_pyproject(script: Path) -> None:
    block = script_block(script)
    assert block["requires-python"] == PROJECT["requires-python"]
    assert set(block["dependencies"]) <= set(FOR_SCRIPTS)


@each_script
def test_script_block_names_what_the_script_comes_to_import(script: Path) -> None:
    """Under ``uv run`` a script has the packages of its block and no others."""
    needed = packages_of(reachable(script)) & package_names(FOR_SCRIPTS)
    assert needed <= package_names(script_block(script)["dependencies"])
