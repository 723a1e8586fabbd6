"""Fixtures for every test: a world without the user's settings, a repository, a way to run a script."""

from __future__ import annotations

import compileall
import itertools
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

Done = subprocess.CompletedProcess[str]
RunScript = Callable[..., Done]

# What a user's shell, a git hook, a tmux pane or an enclosing campaign would otherwise hand down.
INHERITED = ("GIT_", "TMUX", "XDG_", "AUTORESEARCH_", "TIME_BUDGET")
GIT_CONFIG = """\
[core]
    fsync = none
[user]
    name = Test User
    email = test@example.invalid
[init]
    defaultBranch = main
[gc]
    auto = 0
[maintenance]
    auto = false
"""


def pytest_configure(config: pytest.Config) -> None:
    """Compile the core once: it writes no bytecode itself, so each of its thousands of processes would compile it."""
    if not hasattr(config, "workerinput"):  # in a worker of xdist it is done
        compileall.compile_dir(ROOT / "scripts" / "autoresearch", quiet=2)


def own_limit_s(item: pytest.Item) -> float:
    """The time that the test asks for by its mark; 0 where the common limit is enough."""
    mark = item.get_closest_marker("timeout")
    return float(mark.args[0]) if mark else 0.0


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers run, let the longest tests come first: one that begins last is waited for by all."""
    if hasattr(config, "workerinput"):
        items.sort(key=own_limit_s, reverse=True)


@pytest.fixture(scope="session", autouse=True)
def python3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let ``python3`` be an interpreter; a version manager's script runs ten shells before it, at every start."""
    folder = tmp_path_factory.mktemp("bin")
    (folder / "python3").symlink_to(Path(sys.executable).resolve())
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """New folders for homes, numbered here: pytest would look through all that are there for the next number."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the test, and every process it starts, an own home with an own git identity.

    The identity lies in ``~/.gitconfig``, below a repository's own settings, so that a test may
    still set them, and so that it is found by code that drops ``GIT_*`` from the environment.
    """
    home = next(homes)
    home.mkdir()
    config = home / ".gitconfig"
    config.write_text(GIT_CONFIG, encoding="utf-8")
    for name in list(os.environ):
        if name.startswith(INHERITED):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("AUTORESEARCH_LEASES", str(home / "leases"))  # else tests that run at once wait for each other
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(config))
    monkeypatch.setenv("GIT_CONFIG_NOSYSTEM", "1")
    monkeypatch.setenv("GIT_TERMINAL_PROMPT", "0")
    return home


@pytest.fixture
def git_repo(tmp_path: Path) -> Path:
    """A repository on branch ``main`` with a clean tree and one commit, which holds ``README``."""
    repo = tmp_path / "repo"
    repo.mkdir()
    (repo / "README").write_text("A project.\n", encoding="utf-8")
    for command in ("init -q", "add README", "commit -q -m Start"):
        subprocess.run(["git", *command.split()], cwd=repo, check=True, stdin=subprocess.DEVNULL)
    return repo


@pytest.fixture
def run_script() -> RunScript:
    """``run_script(name, *args, cwd, timeout_s=60)`` runs ``scripts/<name>.py`` without input, to its end."""

    def run(name: str, *args: str | Path, cwd: Path, timeout_s: float = 60) -> Done:
        command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *map(str, args)]
        return subprocess.run(
            command,
            cwd=cwd,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            timeout=timeout_s,
        )

    return run


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show what tests have ``measured``; from here it is seen with several workers too."""
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            if name == "measured":
                terminalreporter.section(report.nodeid)
                terminalreporter.write_line(str(text))
