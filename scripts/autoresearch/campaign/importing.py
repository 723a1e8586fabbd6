"""Adopt an earlier run that kept its own ``results.tsv``: its rows become experiments of epoch 1."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from autoresearch.errors import RefusedError, UsageError
from autoresearch.ledger import Experiment, State, Status, now
from autoresearch.output import one_line
from autoresearch.repo import Repo
from autoresearch.results import MIB_PER_GB

HEADER = ("commit", "metric", "memory_gb", "status", "description")


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the file."""

    line: int
    commit: str  # as written, usually 7 characters
    metric: float | None
    peak_mem_mib: float | None
    status: Status
    description: str


@dataclass(frozen=True, kw_only=True)
class Import:
    """An earlier run, read and understood."""

    metric: str
    rows: list[Row]


@dataclass(kw_only=True)
class Adopted:
    """The rows as experiments. ``incumbent`` is the last kept one whose commit is on the branch."""

    experiments: list[Experiment]
    incumbent: Experiment | None
    unknown: int  # rows whose commit the repository does not have
    beyond: int  # kept rows that are not on the branch


def read_import(path: Path) -> Import:
    """Read a results.tsv; ``UsageError`` names the first line that is not understood."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (FileNotFoundError, IsADirectoryError):
        raise UsageError(
            f"--import {path}: there is no such file.",
            hint="Name the results.tsv of the earlier run.",
            code="import_missing",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"--import {path}: not UTF-8 text.", hint=f"Save {path.name} as UTF-8.", code="import_syntax"
        ) from None
    return parse_import(text, path.name)


def parse_import(text: str, name: str) -> Import:
    """See ``read_import``. A crash's ``0.000000`` and memory ``0.0`` mean that there is no number."""
    lines = [line.rstrip("\r") for line in text.split("\n")]
    header = lines[0].split("\t")
    if len(header) < len(HEADER) or (header[0], *header[2:5]) != (HEADER[0], *HEADER[2:]):
        _fail(name, 1, lines[0], "the header commit, METRIC, memory_gb, status, description, separated by tabs")
    rows = [_row(line, number, name, len(header)) for number, line in enumerate(lines[1:], 2) if line.strip()]
    if not rows:
        _fail(name, 2, "", "at least one row below the header")
    return Import(metric=header[1], rows=rows)


def _row(line: str, number: int, name: str, columns: int) -> Row:
    fields = line.split("\t")
    if len(fields) < len(HEADER):
        _fail(name, number, line, f"{len(HEADER)} columns separated by tabs, not {len(fields)}")
    commit, metric_text, memory_text, word = (field.strip() for field in fields[:4])
    # A description that holds tabs has made more columns than the header names.
    description = " ".join([fields[4], *fields[columns:]])
    if not commit.isalnum():
        _fail(name, number, line, "a commit in the first column")
    try:
        metric, memory_gb = float(metric_text), float(memory_text)
    except ValueError:
        _fail(name, number, line, "numbers in the second and third column")
    if word.lower() not in tuple(Status):
        _fail(name, number, line, "keep, discard or crash in the fourth column")
    status = Status(word.lower())
    absent = not math.isfinite(metric) or (metric == 0 and (status is Status.CRASH or memory_gb == 0))
    if status is Status.KEEP and absent and metric != 0:
        _fail(name, number, line, "a finite number for a kept row")
    return Row(
        line=number, commit=commit, status=status, description=one_line(description),
        metric=None if absent and status is not Status.KEEP else metric,
        peak_mem_mib=memory_gb * MIB_PER_GB if math.isfinite(memory_gb) and memory_gb > 0 else None,
    )  # fmt: skip


def _fail(name: str, number: int, line: str, expected: str) -> NoReturn:
    raise UsageError(
        f"{name}, line {number}: expected {expected}; found {one_line(line, 80)!r}.",
        hint=f"Mend line {number} of {name}; nothing has been imported.",
        code="import_syntax",
    )


def adopt(earlier: Import, repo: Repo, tag: str, head: str, name: str) -> Adopted:
    """The experiments that the rows amount to, in their order, the first one the baseline.

    ``RefusedError`` if the kept commits are in the repository and ``head`` stands on none of them.
    """
    experiments: list[Experiment] = []
    incumbent: Experiment | None = None
    last_kept: Experiment | None = None
    unknown = beyond = 0
    for number, row in enumerate(earlier.rows):
        commit = repo.commit_of(row.commit)
        experiment = Experiment(
            tag=tag, number=number, epoch=1, description=row.description, commit=commit or row.commit,
            parent=(repo.commit_of(f"{commit}^") if commit else None) or "",
            tree=repo.tree_of(commit) if commit else "",
            incumbent=None if last_kept is None else last_kept.number, state=State.DECIDED, status=row.status,
            metric=row.metric, peak_mem_mib=row.peak_mem_mib, reason=f"imported from {name}, line {row.line}",
            judgement={"imported": True}, created_at=now(), decided_at=now(),
            note="" if commit else f"commit {row.commit} is not in this repository",
        )  # fmt: skip
        if number and experiment.incumbent is None:
            experiment.incumbent = 0  # only the first row is the baseline, even if it was not kept
        experiments.append(experiment)
        unknown += commit is None
        if row.status is Status.KEEP:
            last_kept = experiment
            if commit and repo.is_ancestor(commit, head):
                incumbent = experiment
            elif commit:
                beyond += 1
    if incumbent is None and beyond:
        raise RefusedError(
            f"None of the commits that {name} keeps is on this branch.",
            hint=f"Switch to the branch of that run first: git branch --contains {_first_kept(earlier.rows)}",
            code="import_other_branch",
        )
    return Adopted(experiments=experiments, incumbent=incumbent, unknown=unknown, beyond=beyond)


def _first_kept(rows: Sequence[Row]) -> str:
    return next(row.commit for row in rows if row.status is Status.KEEP)
