"""A workspace that an agent has worked in: the project as it was found, and what can be asked about it now.

The ledger is read as SQL and the repository through git itself, so that what the bundle's own code
gets wrong does not hide itself.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

DECIDING = ("baseline", "screen", "confirm")  # re-tests and comparisons decide nothing


# ---- before


@dataclass(frozen=True, kw_only=True)
class Before:
    """The project as the agent found it. Hashes are SHA-256 of contents; None: the file was deleted."""

    branch: str
    commit: str
    editable: list[str]
    tracked: dict[str, str]
    own: dict[str, str | None]  # the user's modified and untracked files
    staged: str  # of what the index held beyond HEAD
    refs: dict[str, str]

    @classmethod
    def read(cls, path: Path) -> Before:
        return cls(**json.loads(path.read_text(encoding="utf-8")))


def snapshot(project: Path, editable: Sequence[str]) -> Before:
    """Look at ``project`` before the agent does."""
    own = [entry[3:] for entry in git(project, "status", "--porcelain", "-uall", "-z").split("\0") if entry]
    tracked = [path for path in git(project, "ls-files", "-z").split("\0") if path and path not in own]
    return Before(
        branch=git(project, "symbolic-ref", "--short", "HEAD").strip(),
        commit=git(project, "rev-parse", "HEAD").strip(),
        editable=list(editable),
        tracked={path: digest(project / path) or "" for path in tracked},
        own={path: digest(project / path) for path in own},
        staged=git(project, "diff", "--cached"),
        refs=heads(project),
    )


def heads(project: Path) -> dict[str, str]:
    lines = git(project, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/heads").splitlines()
    return dict(line.split(" ") for line in lines)


def digest(path: Path) -> str | None:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def git(project: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-c", "core.quotePath=false", *arguments], cwd=project, env=environment, check=True,
        capture_output=True, encoding="utf-8", errors="surrogateescape", stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return done.stdout


def git_says(project: Path, *arguments: str, text: str = "") -> bool:
    """Whether a git question, which may read ``text``, is answered with yes."""
    done = subprocess.run(
        ["git", *arguments],
        cwd=project,
        check=False,
        capture_output=True,
        input=text.encode("utf-8", "surrogateescape"),
    )
    return done.returncode == 0


# ---- after


@dataclass
class Workspace:
    """A finished workspace and the questions about it."""

    folder: Path
    least: int = 1  # decided experiments beside the baseline
    tolerance: float = 1e-6  # relative, of a metric that is measured again
    sockets: Sequence[str] = field(default_factory=tuple)

    @property
    def project(self) -> Path:
        return self.folder / "project"

    @cached_property
    def before(self) -> Before:
        return Before.read(self.folder / "before.json")

    @cached_property
    def state(self) -> Path:
        return (
            Path(git(self.project, "rev-parse", "--path-format=absolute", "--git-common-dir").strip()) / "autoresearch"
        )

    def rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with closing(sqlite3.connect(f"file:{self.state / 'ledger.db'}?mode=ro", uri=True)) as database:
            database.row_factory = sqlite3.Row
            return database.execute(sql, values).fetchall()

    @cached_property
    def campaign(self) -> sqlite3.Row:
        found = self.rows("SELECT * FROM campaign ORDER BY created_at")
        require(len(found) == 1, f"{len(found)} campaigns were set up; expected one")
        return found[0]

    @cached_property
    def config(self) -> dict[str, Any]:
        return dict(json.loads(self.campaign["config"]))

    @cached_property
    def experiments(self) -> list[sqlite3.Row]:
        return self.rows("SELECT * FROM experiment WHERE tag = ? ORDER BY number", self.campaign["tag"])

    @cached_property
    def trials(self) -> list[sqlite3.Row]:
        return self.rows("SELECT * FROM trial WHERE tag = ? ORDER BY created_at, id", self.campaign["tag"])

    def deciding(self, number: int) -> dict[int, float]:
        """``{seed: metric}`` of the completed trials that decided an experiment."""
        return {
            trial["seed"]: trial["metric"]
            for trial in self.trials
            if trial["number"] == number and trial["outcome"] == "completed" and trial["purpose"] in DECIDING
        }

    @property
    def kept(self) -> list[sqlite3.Row]:
        return [one for one in self.experiments if one["status"] == "keep"]

    @property
    def incumbent(self) -> sqlite3.Row:
        require(bool(self.kept), "nothing was kept, not even a baseline")
        return self.kept[-1]

    @property
    def table(self) -> list[list[str]]:
        """The rows of results.tsv."""
        path = self.project / "results.tsv"
        require(path.is_file(), "there is no results.tsv")
        return [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()[1:]]


class Failed(Exception):  # noqa: N818 - it is what an assertion does, not an error of the judge
    """An assertion does not hold; the message is the evidence."""


def require(condition: bool, evidence: str) -> None:
    if not condition:
        raise Failed(evidence)


def processes_in(project: Path) -> Iterator[str]:
    """The processes that work in ``project`` or in its git folder."""
    root = str(project.resolve())
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            cwd = str((entry / "cwd").readlink()).removesuffix(" (deleted)")
            words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if int(entry.name) != os.getpid() and (cwd == root or cwd.startswith(f"{root}/")):
            yield f"{entry.name}: {words[:100].strip()}"
