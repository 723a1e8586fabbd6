"""A night's record on disk: what was asked for, where things stand, what happened, and its letter box.

It lies in the campaign's state folder, out of reach of git and of the agent's edits:
``night.json`` (rewritten atomically), ``events.jsonl`` (appended to), ``task.md``, ``inbox/`` (a file for
each wish of the user, taken once), ``lock`` (held by the supervisor while it lives), ``supervisor.log``,
``screens/`` (dialogs that were not recognised) and ``summary.txt``.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Self
from uuid import uuid4

from autoresearch.agents.policy import Caps, Memory
from autoresearch.agents.terminal import AGENT
from autoresearch.errors import AgentError, NeedsHumanError
from autoresearch.ledger.records import now
from autoresearch.output import one_line
from autoresearch.trial import write_json

FOLDER = "night"
WINDOWS_LOCK = ".windows.lock"
EVENT_WIDTH = 500
TAIL_BYTES = 256 * 1024
LOCK_PATIENCE_S = 2.0  # whoever asks whether it is held, holds it for a moment
LOCK_POLL_S = 0.02


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for. Paths are absolute."""

    session: str
    tag: str
    project: str
    agent: str  # a profile's name, or the path of its file
    permissions: str = "bypass"  # bypass | allowlist
    sandboxed: bool = False
    goal: str = ""
    task: str = ""  # the whole task in the user's own words, in place of the bundle's
    model: str = ""
    socket: str = ""  # of tmux -L; "" is the user's own server
    width: int = 200
    height: int = 50
    caps: Caps = field(default_factory=Caps)  # each agent's own
    team: tuple[str, ...] = ()  # the tags of all agents of the session; () where there is one

    @property
    def window(self) -> str:
        """The name of the agent's tmux window."""
        return self.tag if self.team else AGENT

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        return cls(**{**data, "caps": Caps(**data.get("caps", {})), "team": tuple(data.get("team", ()))})


@dataclass(kw_only=True)
class Night:
    """Where a night stands. Written by its supervisor alone."""

    options: Options
    mark: str  # in the environment of everything the client starts
    state: str = "starting"  # starting | working | waiting | handover | ending | ended
    started_at: str = ""
    ended_at: str = ""
    reason: str = ""  # why it ended, or what the human is needed for
    supervisor: int = 0  # pids
    client: int = 0
    conversation: str = ""  # the client's own id of it
    waiting_until: str = ""
    memory: Memory = field(default_factory=Memory)
    steering: list[str] = field(default_factory=list)  # what the user sent and the client could not take yet
    tokens: dict[str, int] = field(default_factory=dict)  # by transcript
    cost_usd: dict[str, float] = field(default_factory=dict)  # by conversation

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        known = {each.name for each in fields(cls)}
        memory = {key: value for key, value in data.get("memory", {}).items() if key in Memory.__dataclass_fields__}
        return cls(
            **{
                **{key: value for key, value in data.items() if key in known},
                "options": Options.from_dict(data["options"]),
                "memory": Memory(**memory),
            }
        )


@contextmanager
def alone(descriptor: int) -> Iterator[None]:
    """Wait for the lock on the file or folder that ``descriptor`` means and hold it; closes it afterwards."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class NightFolder:
    """The folder of one campaign's night."""

    path: Path

    @classmethod
    def of(cls, state_dir: Path, tag: str) -> Self:
        return cls(state_dir / tag / FOLDER)

    @property
    def task(self) -> Path:
        return self.path / "task.md"

    @property
    def hooks(self) -> Path:
        return self.path / "hooks.jsonl"

    @property
    def log(self) -> Path:
        return self.path / "supervisor.log"

    @property
    def summary(self) -> Path:
        return self.path / "summary.txt"

    def screen(self, name: str = "end") -> Path:
        """A screen that was kept; ``end`` is the last one."""
        return self.path / "screens" / f"{name}.txt"

    @property
    def page(self) -> Path:
        return self.path / "report.html"

    @property
    def inbox(self) -> Path:
        return self.path / "inbox"

    def make(self) -> None:
        """The folder and its letter box, readable by the user alone."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        self.path.chmod(0o700)

    def read(self) -> Night | None:
        """The record; None if there never was a night here."""
        path = self.path / "night.json"
        try:
            return Night.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            raise NeedsHumanError(
                f"{path} cannot be read: {error}.", hint=f"Set it aside and start again: mv {path} {path}.broken"
            ) from error

    def write(self, night: Night) -> None:
        write_json(self.path / "night.json", asdict(night))

    def tell(self, kind: str, text: str) -> None:
        """Append an event. A full disk loses the event, never the night."""
        line = json.dumps({"at": now(), "kind": kind, "text": one_line(text, EVENT_WIDTH)}, ensure_ascii=False)
        with contextlib.suppress(OSError), (self.path / "events.jsonl").open("a", encoding="utf-8") as file:
            file.write(line + "\n")

    def events(self, last: int = 20) -> list[dict[str, str]]:
        """The last events, oldest first; what a kill left half written is passed over."""
        try:
            with (self.path / "events.jsonl").open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - TAIL_BYTES))
                lines = file.read().decode("utf-8", "replace").splitlines()
        except FileNotFoundError:
            return []
        found = []
        for line in lines:
            with contextlib.suppress(ValueError):
                found.append(json.loads(line))
        return [event for event in found if isinstance(event, dict)][-last:] if last else []

    def post(self, wish: dict[str, Any]) -> Path:
        """Put a wish into the letter box; the supervisor takes the file away when it acts on it."""
        self.make()
        path = self.inbox / f"{time.time_ns():020d}-{uuid4().hex[:8]}.json"
        write_json(path, wish)
        return path

    def take(self) -> list[dict[str, Any]]:
        """All wishes, oldest first, removed from the letter box; what cannot be removed is not taken."""
        wishes = []
        for path in sorted(self.inbox.glob("*.json")):
            with contextlib.suppress(OSError, ValueError):
                text = path.read_text(encoding="utf-8")
                path.unlink()
                wishes.append(json.loads(text))
        return wishes

    @contextmanager
    def windows(self) -> Iterator[None]:
        """Hold the lock under which agents of one session open and close windows, one after the other."""
        try:
            descriptor = os.open(self.path.parent.parent / WINDOWS_LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:  # somebody has deleted all records: what is left to be done needs no turns
            yield
            return
        with alone(descriptor):
            yield

    def is_watched(self) -> bool:
        """Whether a supervisor lives: it holds the lock, which dies with it."""
        try:
            descriptor = os.open(self._lock, os.O_RDONLY | os.O_CLOEXEC)  # on a read-only disk, too
        except OSError:
            return False
        try:
            return not _locks(descriptor, fcntl.LOCK_SH)
        finally:
            os.close(descriptor)

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Hold the lock; ``AgentError`` if another supervisor has it."""
        if not self.path.is_dir():
            raise FileNotFoundError(self.path)
        descriptor = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        deadline = time.monotonic() + LOCK_PATIENCE_S
        try:
            while not _locks(descriptor, fcntl.LOCK_EX):
                if time.monotonic() > deadline:
                    raise AgentError(
                        f"The night of campaign {self.path.parent.name} has a supervisor already.",
                        hint="python scripts/launch_tmux.py --status",
                        code="already_running",
                    )
                time.sleep(LOCK_POLL_S)
            yield
        finally:
            os.close(descriptor)

    @property
    def _lock(self) -> Path:
        return self.path / "lock"


def _locks(descriptor: int, how: int) -> bool:
    """Whether the lock could be taken, without waiting."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def nights(state_dir: Path) -> list[NightFolder]:
    """The folders of all nights of a repository."""
    return [NightFolder(path) for path in sorted(state_dir.glob(f"*/{FOLDER}"))]
