"""The durable record: campaigns, experiments, trials and events in one SQLite file.

It lies in the repository's common git directory, where no ``git reset``, ``clean``, ``stash`` or
``add`` reaches it, and is shared by all worktrees. ``results.tsv`` is only a view of it.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from autoresearch.errors import NeedsHumanError
from autoresearch.ledger.records import (
    Campaign,
    Event,
    Experiment,
    Idea,
    Purpose,
    ResultRow,
    State,
    Status,
    Trial,
    now,
    shown_description,
)
from autoresearch.trial import TrialResult

LEDGER_FILE = "ledger.db"
SCHEMA_VERSION = 1
BUSY_S = 30.0  # how long a statement waits for another process

_TABLES = """
CREATE TABLE IF NOT EXISTS campaign (
    tag TEXT PRIMARY KEY, branch TEXT NOT NULL, base_commit TEXT NOT NULL, project TEXT NOT NULL,
    epoch INTEGER NOT NULL, created_at TEXT NOT NULL, config TEXT NOT NULL, setup TEXT NOT NULL, claim TEXT NOT NULL,
    environment TEXT NOT NULL, rule TEXT, view_sha256 TEXT NOT NULL, pending TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS experiment (
    tag TEXT NOT NULL REFERENCES campaign(tag), number INTEGER NOT NULL, epoch INTEGER NOT NULL,
    description TEXT NOT NULL, commit_sha TEXT NOT NULL, parent_sha TEXT NOT NULL, tree_sha TEXT NOT NULL,
    incumbent INTEGER, family TEXT NOT NULL, state TEXT NOT NULL, status TEXT, verdict TEXT NOT NULL,
    judgement TEXT NOT NULL, attempt INTEGER NOT NULL, options TEXT NOT NULL, lines_added INTEGER NOT NULL,
    lines_deleted INTEGER NOT NULL, metric REAL, peak_mem_mib REAL, reason TEXT NOT NULL, undone TEXT NOT NULL,
    note TEXT NOT NULL, rule TEXT, created_at TEXT NOT NULL, decided_at TEXT NOT NULL,
    PRIMARY KEY (tag, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS experiment_state ON experiment(tag, state);
CREATE INDEX IF NOT EXISTS experiment_status ON experiment(tag, status);
CREATE INDEX IF NOT EXISTS experiment_tree ON experiment(tag, tree_sha);
CREATE INDEX IF NOT EXISTS experiment_open ON experiment(tag, number) WHERE state IN ('running', 'judged');
CREATE INDEX IF NOT EXISTS experiment_baseline ON experiment(tag, epoch, number) WHERE incumbent IS NULL;
CREATE TABLE IF NOT EXISTS trial (
    id TEXT PRIMARY KEY, tag TEXT NOT NULL, number INTEGER NOT NULL, attempt INTEGER NOT NULL, seed INTEGER NOT NULL,
    purpose TEXT NOT NULL, commit_sha TEXT NOT NULL, command TEXT NOT NULL, directory TEXT NOT NULL,
    created_at TEXT NOT NULL, handle TEXT NOT NULL, environment TEXT NOT NULL,
    outcome TEXT, cause TEXT, metric REAL, duration_s REAL, result TEXT,
    FOREIGN KEY (tag, number) REFERENCES experiment(tag, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS trial_experiment ON trial(tag, number);
CREATE INDEX IF NOT EXISTS trial_open ON trial(tag) WHERE outcome IS NULL;
CREATE TABLE IF NOT EXISTS event (
    id INTEGER PRIMARY KEY, tag TEXT NOT NULL, at TEXT NOT NULL, kind TEXT NOT NULL, text TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS event_tag ON event(tag, id);
"""

_CAMPAIGN_JSON = ("config", "setup", "claim", "environment", "rule", "pending")
_EXPERIMENT_JSON = ("judgement", "options", "rule")
_RENAMED = {"commit": "commit_sha", "parent": "parent_sha", "tree": "tree_sha"}


class Ledger:
    """The open ledger. Each public method is one transaction unless inside ``transaction()``."""

    def __init__(self, folder: Path, *, create: bool = False) -> None:
        """Open ``folder/ledger.db``; with ``create`` make both, else a missing ledger is an empty answer."""
        self.path = folder / LEDGER_FILE
        if create:
            folder.mkdir(parents=True, exist_ok=True)
        self._db = self._open(create)
        self._db.row_factory = sqlite3.Row
        self._depth = 0
        self._db.execute("PRAGMA foreign_keys = ON")
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise NeedsHumanError(
                f"The ledger {self.path} has version {version}; this bundle understands {SCHEMA_VERSION}.",
                hint="Update autoresearch to the version that wrote it.",
            )
        if version < SCHEMA_VERSION:
            self._switch_to_wal()
            self._db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")
        self._db.execute("PRAGMA synchronous = FULL")  # a decision survives a power cut

    def _open(self, create: bool) -> sqlite3.Connection:
        if not (create or self.path.exists()):
            return _connect(":memory:")
        if create or os.access(self.path.parent, os.W_OK):
            return _connect(str(self.path))
        # SQLite keeps two files beside a ledger that it reads, and must be told where it cannot make them.
        address = f"{self.path.absolute().as_uri()}?mode=ro"
        database = _connect(address)
        try:
            database.execute("PRAGMA user_version")
        except sqlite3.OperationalError:
            database.close()
            newest = self.path.with_name(f"{LEDGER_FILE}-wal")
            if newest.exists() and newest.stat().st_size:  # it would be passed over
                raise
            return _connect(f"{address}&immutable=1")
        return database

    def _switch_to_wal(self) -> None:
        """Let readers look while a decision is written.

        It is the one statement that SQLite does not let wait while another process opens the new ledger.
        """
        deadline = time.monotonic() + BUSY_S
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing; nested uses join the outermost one."""
        if self._depth:
            yield
            return
        self._db.execute("BEGIN IMMEDIATE")
        self._depth = 1
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        else:
            self._db.execute("COMMIT")
        finally:
            self._depth = 0

    @contextmanager
    def snapshot(self) -> Iterator[Callable[..., list[Any]]]:
        """One moment's view for a report: yields ``select(sql, *values)``; other questions see the same moment.

        Takes no write lock, so the loop goes on; a write inside fails. A nested use sees the outer one's moment.
        """
        outermost = not self._db.in_transaction
        if outermost:
            self._db.execute("BEGIN")
        try:
            yield lambda sql, *values: self._db.execute(sql, values).fetchall()
        finally:
            if outermost:
                self._db.execute("ROLLBACK")

    # ---- campaigns

    def campaigns(self) -> list[Campaign]:
        """All campaigns, the newest last."""
        rows = self._db.execute("SELECT * FROM campaign ORDER BY created_at, tag")
        return [_campaign(row) for row in rows]

    def campaign(self, tag: str) -> Campaign | None:
        row = self._db.execute("SELECT * FROM campaign WHERE tag = ?", (tag,)).fetchone()
        return None if row is None else _campaign(row)

    def add_campaign(self, campaign: Campaign) -> None:
        campaign.created_at = campaign.created_at or now()
        self._insert("campaign", _columns(campaign, _CAMPAIGN_JSON))

    def update_campaign(self, campaign: Campaign, *fields: str) -> None:
        """Store the named fields of ``campaign``."""
        columns = _columns(campaign, _CAMPAIGN_JSON)
        self._update("campaign", {name: columns[name] for name in fields}, "tag = ?", (campaign.tag,))

    # ---- experiments

    def add_experiment(self, experiment: Experiment) -> None:
        experiment.created_at = experiment.created_at or now()
        self._insert("experiment", _columns(experiment, _EXPERIMENT_JSON))

    def update_experiment(self, experiment: Experiment, *fields: str) -> None:
        """Store the named fields of ``experiment``."""
        columns = _columns(experiment, _EXPERIMENT_JSON)
        changed = {column: columns[column] for column in (_RENAMED.get(name, name) for name in fields)}
        self._update("experiment", changed, "tag = ? AND number = ?", (experiment.tag, experiment.number))

    def experiment(self, tag: str, number: int) -> Experiment | None:
        return self._first("tag = ? AND number = ?", (tag, number))

    def experiments(
        self, tag: str, *, status: Status | None = None, epoch: int | None = None, last: int | None = None
    ) -> list[Experiment]:
        """The campaign's experiments by number, if asked only those of a status or epoch, or the last few."""
        where, values = "tag = ?", [tag, *(value for value in (status, epoch) if value is not None)]
        where += "" if status is None else " AND status = ?"
        where += "" if epoch is None else " AND epoch = ?"
        if last is not None:
            return self._experiments(where, values, f"ORDER BY number DESC LIMIT {int(last)}")[::-1]
        return self._experiments(where, values)

    def open_experiment(self, tag: str) -> Experiment | None:
        """The experiment that is not decided yet; of several the lowest numbered."""
        return self._first("tag = ? AND state IN ('running', 'judged')", (tag,))

    def open_experiments(self, tag: str) -> list[Experiment]:
        """The experiments that are not decided yet, by number; at most one of them is not ``is_ahead``."""
        return self._experiments("tag = ? AND state IN ('running', 'judged')", (tag,))

    def incumbent(self, tag: str) -> Experiment | None:
        """The experiment that the branch tip stands on: the last one kept and not undone."""
        return self._first("tag = ? AND status = 'keep'", (tag,), "ORDER BY number DESC")

    def baseline(self, tag: str, epoch: int) -> Experiment | None:
        """The epoch's baseline, whatever became of it."""
        return self._first("tag = ? AND epoch = ? AND incumbent IS NULL", (tag, epoch), "ORDER BY number DESC")

    def experiments_with_tree(self, tag: str, tree: str, *, epoch: int) -> list[Experiment]:
        """The experiments of this epoch that already tried exactly these files, by number."""
        return self._experiments("tag = ? AND tree_sha = ? AND epoch = ?", (tag, tree, epoch))

    def next_number(self, tag: str) -> int:
        row = self._db.execute("SELECT COALESCE(MAX(number), -1) + 1 FROM experiment WHERE tag = ?", (tag,)).fetchone()
        return int(row[0])

    def counts(self, tag: str) -> dict[str, int]:
        """How many experiments have each status; open ones under ``open``."""
        rows = self._db.execute(
            "SELECT COALESCE(status, 'open') AS word, COUNT(*) AS n FROM experiment WHERE tag = ? GROUP BY word", (tag,)
        )
        return {row["word"]: int(row["n"]) for row in rows}

    def result_rows(self, tag: str) -> list[ResultRow]:
        """The decided experiments as results.tsv shows them, by number."""
        rows = self._db.execute(
            "SELECT commit_sha, metric, peak_mem_mib, status, description, undone FROM experiment "
            "WHERE tag = ? AND status IS NOT NULL ORDER BY number",
            (tag,),
        )
        return [
            ResultRow(
                commit=row["commit_sha"], metric=row["metric"], peak_mem_mib=row["peak_mem_mib"],
                status=row["status"], description=shown_description(row["description"], row["undone"]),
            )
            for row in rows
        ]  # fmt: skip

    def ideas(self, tag: str) -> list[Idea]:
        """What the decided experiments tried, baselines left out, by number."""
        rows = self._db.execute(
            "SELECT tag, number, epoch, description, commit_sha, parent_sha, tree_sha, lines_added, lines_deleted "
            "FROM experiment WHERE tag = ? AND status IS NOT NULL AND incumbent IS NOT NULL ORDER BY number",
            (tag,),
        )
        return [Idea(**_fields(row, ())) for row in rows]

    def family_counts(self, tag: str) -> dict[str, dict[str, int]]:
        """How many of the decided experiments, baselines left out, have each status, by family as it was given."""
        rows = self._db.execute(
            "SELECT family, status, COUNT(*) AS n FROM experiment "
            "WHERE tag = ? AND status IS NOT NULL AND incumbent IS NOT NULL GROUP BY family, status",
            (tag,),
        )
        counts: dict[str, dict[str, int]] = {}
        for row in rows:
            counts.setdefault(row["family"], {})[row["status"]] = int(row["n"])
        return counts

    def misses_in_a_row(self, tag: str) -> int:
        """Experiments decided since the last keep."""
        row = self._db.execute(
            "SELECT COUNT(*) FROM experiment WHERE tag = ? AND status IN ('discard', 'crash') AND number > "
            "COALESCE((SELECT MAX(number) FROM experiment WHERE tag = ? AND status = 'keep'), -1)",
            (tag, tag),
        ).fetchone()
        return int(row[0])

    def crashes_in_a_row(self, tag: str) -> int:
        """How many of the last decided experiments crashed, one after the other."""
        row = self._db.execute(
            "SELECT COUNT(*) FROM experiment WHERE tag = ? AND status = 'crash' AND number > "
            "COALESCE((SELECT MAX(number) FROM experiment WHERE tag = ? AND status IN ('keep', 'discard')), -1)",
            (tag, tag),
        ).fetchone()
        return int(row[0])

    # ---- trials

    def add_trial(self, trial: Trial) -> None:
        trial.created_at = trial.created_at or now()
        self._insert(
            "trial",
            {
                "id": trial.id, "tag": trial.tag, "number": trial.number, "attempt": trial.attempt,
                "seed": trial.seed, "purpose": trial.purpose.value, "commit_sha": trial.commit,
                "command": trial.command, "directory": trial.directory, "created_at": trial.created_at,
                "handle": json.dumps(trial.handle), "environment": trial.environment,
            },
        )  # fmt: skip

    def set_handle(self, trial: Trial) -> None:
        self._update("trial", {"handle": json.dumps(trial.handle)}, "id = ?", (trial.id,))

    def end_trial(self, trial: Trial, result: TrialResult) -> None:
        """Take a result in; a trial that has one keeps the first."""
        columns = {
            "outcome": result.outcome.value, "cause": result.cause, "metric": result.metric,
            "duration_s": result.duration_s, "result": result.to_json(),
        }  # fmt: skip
        self._update("trial", columns, "id = ? AND outcome IS NULL", (trial.id,))
        trial.result = self._trials("id = ?", (trial.id,))[0].result

    def trials(self, tag: str, number: int | None = None, *, attempt: int | None = None) -> list[Trial]:
        """Trials in the order they were started."""
        where, values = "tag = ?", [tag, *(value for value in (number, attempt) if value is not None)]
        where += "" if number is None else " AND number = ?"
        where += "" if attempt is None else " AND attempt = ?"
        return self._trials(where, values)

    def open_trials(self, tag: str) -> list[Trial]:
        """Trials without a result yet."""
        return self._trials("tag = ? AND outcome IS NULL", (tag,))

    def trial_totals(self, tag: str) -> list[dict[str, Any]]:
        """Number and seconds of the ended trials, by outcome and cause."""
        rows = self._db.execute(
            "SELECT outcome, cause, COUNT(*) AS trials, SUM(duration_s) AS duration_s FROM trial "
            "WHERE tag = ? AND outcome IS NOT NULL GROUP BY outcome, cause ORDER BY outcome, cause",
            (tag,),
        )
        return [dict(row) for row in rows]

    # ---- events

    def add_event(self, tag: str, kind: str, text: str) -> None:
        self._insert("event", {"tag": tag, "at": now(), "kind": kind, "text": text})

    def events(self, tag: str, *, last: int = 20) -> list[Event]:
        """The last events, oldest first."""
        rows = self._db.execute(
            "SELECT at, kind, text FROM event WHERE tag = ? ORDER BY id DESC LIMIT ?", (tag, last)
        ).fetchall()
        return [Event(at=row["at"], kind=row["kind"], text=row["text"]) for row in reversed(rows)]

    # ---- rows

    def _insert(self, table: str, columns: dict[str, Any]) -> None:
        names, marks = ", ".join(columns), ", ".join("?" * len(columns))
        with self.transaction():
            self._db.execute(f"INSERT INTO {table} ({names}) VALUES ({marks})", tuple(columns.values()))  # noqa: S608

    def _update(self, table: str, columns: dict[str, Any], where: str, values: Sequence[Any]) -> None:
        sets = ", ".join(f"{name} = ?" for name in columns)
        with self.transaction():
            self._db.execute(f"UPDATE {table} SET {sets} WHERE {where}", (*columns.values(), *values))  # noqa: S608

    def _experiments(self, where: str, values: Sequence[Any], order: str = "ORDER BY number") -> list[Experiment]:
        rows = self._db.execute(f"SELECT * FROM experiment WHERE {where} {order}", values)  # noqa: S608
        return [_experiment(row) for row in rows]

    def _first(self, where: str, values: Sequence[Any], order: str = "ORDER BY number") -> Experiment | None:
        return next(iter(self._experiments(where, values, f"{order} LIMIT 1")), None)

    def _trials(self, where: str, values: Sequence[Any]) -> list[Trial]:
        rows = self._db.execute(f"SELECT * FROM trial WHERE {where} ORDER BY created_at, id", values)  # noqa: S608
        return [_trial(row) for row in rows]


def _columns(record: Campaign | Experiment, json_fields: tuple[str, ...]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, value in vars(record).items():
        stored = value.value if isinstance(value, StrEnum) else value
        if name in json_fields and value is not None:
            stored = json.dumps(value, ensure_ascii=False)
        columns[_RENAMED.get(name, name)] = stored
    return columns


def _fields(row: sqlite3.Row, json_fields: tuple[str, ...]) -> dict[str, Any]:
    renamed = {column: name for name, column in _RENAMED.items()}
    fields = {renamed.get(name, name): row[name] for name in row.keys()}  # noqa: SIM118 - a Row iterates over values
    for name in json_fields:
        if fields[name] is not None:
            fields[name] = json.loads(fields[name])
    return fields


def _connect(address: str) -> sqlite3.Connection:
    return sqlite3.connect(address, timeout=BUSY_S, isolation_level=None, uri=address.startswith("file:"))


def _campaign(row: sqlite3.Row) -> Campaign:
    return Campaign(**_fields(row, _CAMPAIGN_JSON))


def _experiment(row: sqlite3.Row) -> Experiment:
    fields = _fields(row, _EXPERIMENT_JSON)
    fields["state"] = State(fields["state"])
    fields["status"] = None if fields["status"] is None else Status(fields["status"])
    return Experiment(**fields)


def _trial(row: sqlite3.Row) -> Trial:
    return Trial(
        id=row["id"], tag=row["tag"], number=row["number"], attempt=row["attempt"], seed=row["seed"],
        purpose=Purpose(row["purpose"]), commit=row["commit_sha"], command=row["command"],
        directory=row["directory"], created_at=row["created_at"], handle=json.loads(row["handle"]),
        environment=row["environment"],
        result=None if row["result"] is None else TrialResult.from_json(row["result"]),
    )  # fmt: skip
