"""Who uses what of this machine: leases that never overlap, kept as files, gone with the process that holds them.

Each runner that waits or runs has one file in a folder that all of a user's campaigns share. It says what
the runner wants and what it holds, and is locked (flock) by it from the first moment to the last. So a
file that nobody locks is of a runner that was killed. Files are read and written under one more lock,
which is held for moments only.

Who came first is served first: what an earlier one waits for is not given to a later one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Self

from autoresearch.errors import MachineError
from autoresearch.runner.orphans import end_orphans

FOLDER_NAME = "AUTORESEARCH_LEASES"  # the environment variable that names another folder
REGISTER = "register.lock"
WHOLE = 1.0
ROUNDING = 1e-6  # eight times 0.125 is one


class Want(NamedTuple):
    """``share`` of each of ``number`` resources among ``names``, the first ones rather than the last."""

    names: tuple[str, ...]
    number: int
    share: float = WHOLE


class Entry(NamedTuple):
    """What another runner has written of itself."""

    path: Path
    lives: bool
    trial: str
    pid: int
    mark: str  # its trial's processes have it in their environment
    wants: tuple[Want, ...]
    holds: dict[str, float]

    @property
    def wanted(self) -> set[str]:
        return {name for want in self.wants for name in want.names}


class Obstacles(NamedTuple):
    """Why nothing was leased: runners that hold it or came first, and what else keeps a resource from use."""

    runners: tuple[Entry, ...]
    hindrances: dict[str, str]


def leases_folder() -> Path:
    """The folder that all campaigns of this user on this machine share, made if there is none.

    Not below $XDG_RUNTIME_DIR or $TMPDIR: the same user has them in one session and not in another.
    Raises MachineError if somebody else could write into it, OSError if it cannot be made.
    """
    named = os.environ.get(FOLDER_NAME)
    folder = Path(named or f"/tmp/autoresearch-{os.getuid()}")  # noqa: S108 - looked at below
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700, parents=bool(named))
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise MachineError(
            f"{folder} is not a folder that only you can write into; the leases of devices lie there",
            hint=f"Remove it, or name another folder: export {FOLDER_NAME}=~/.autoresearch-leases",
        )
    return folder


class Lease:
    """This process's entry, at first without holding anything; ``close`` gives back what it holds."""

    def __init__(self, folder: Path, *, trial: str, mark: str, wants: Sequence[Want]) -> None:
        self._folder = folder
        self._wants = tuple(wants)
        self._wanted = {name for want in wants for name in want.names}
        self._known_as = {"trial": trial, "pid": os.getpid(), "mark": mark, "wants": self._wants}
        # While the folder is locked, systemd-tmpfiles does not take its files for old and forgotten.
        self._kept = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        fcntl.flock(self._kept, fcntl.LOCK_SH)
        self._register = os.open(folder / REGISTER, os.O_RDWR | os.O_CREAT, 0o600)
        self._watch(folder)
        self._path = folder / f"{time.monotonic_ns():020d}-{os.getpid()}.json"  # sorts by arrival
        with self._exclusive():
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(self._file, fcntl.LOCK_EX)
            self._write({})

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def take(self, hindrance: Callable[[str], str]) -> dict[str, float] | Obstacles:
        """Lease what is wanted if all of it can be had now: ``{name: share}``; else what stands in the way.

        ``hindrance`` is asked about resources that nobody leases: why one cannot be used, "" if it can.
        What a killed runner held is free again once the processes that it left have been ended.
        """
        with self._exclusive():
            others = self._others()
            used = Counter[str]()
            for each in others:
                used.update(each.holds)
            earlier = [
                each for each in others
                if each.lives and not each.holds and each.path < self._path and each.wanted & self._wanted
            ]  # fmt: skip
            self._watch(earlier[-1].path if earlier else self._folder)
            promised = {name for each in earlier for name in each.wanted}
            hindrances: dict[str, str] = {}
            holds = self._choose(used, promised, hindrance, hindrances)
            if holds is not None:
                self._write(holds)
        for each in others:
            if not each.lives:
                if each.holds:
                    end_orphans(each.mark)
                each.path.unlink(missing_ok=True)
        if holds is not None:
            return holds
        holders = [each for each in others if self._wanted & set(each.holds)]
        return Obstacles((*holders, *earlier), hindrances)

    @property
    def is_first(self) -> bool:
        """Whether nobody came before who waits for any of the same."""
        return self._watched == self._folder

    def may_find_more(self) -> bool:
        """Whether another ``take`` may succeed: what costs next to nothing to ask.

        Who is first watches the folder, where a file goes when a lease is given back; everybody else
        only the one before, so that a lease given back does not wake them all.
        """
        try:
            return version(self._watched) != self._seen
        except FileNotFoundError:
            return True

    def _watch(self, path: Path) -> None:
        self._watched, self._seen = path, version(path)

    def close(self) -> None:
        """Give back what is held, for the next one to see at once."""
        with self._exclusive():
            self._path.unlink(missing_ok=True)
            os.close(self._file)
        os.close(self._register)
        os.close(self._kept)

    def _choose(
        self,
        used: Mapping[str, float],
        promised: set[str],
        hindrance: Callable[[str], str],
        hindrances: dict[str, str],
    ) -> dict[str, float] | None:
        """What to take; None if that is not all there. Notes in ``hindrances`` what was passed over."""
        chosen: dict[str, float] = {}
        for want in self._wants:
            missing = want.number
            for name in want.names:
                if not missing:
                    break
                if name in promised or used.get(name, 0.0) + want.share > WHOLE + ROUNDING:
                    continue
                if reason := hindrance(name):
                    hindrances[name] = reason
                    continue
                chosen[name] = want.share
                missing -= 1
            if missing:
                return None
        return chosen

    def _others(self) -> list[Entry]:
        found = (read_entry(path) for path in sorted(self._folder.glob("*.json")) if path != self._path)
        return [entry for entry in found if entry is not None]

    def _write(self, holds: Mapping[str, float]) -> None:
        data = json.dumps({**self._known_as, "holds": holds}).encode()
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, data, 0)

    @contextlib.contextmanager
    def _exclusive(self) -> Iterator[None]:
        fcntl.flock(self._register, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._register, fcntl.LOCK_UN)


def version(path: Path) -> tuple[int, int]:
    """What changes when ``path`` does; the time alone moves in steps of milliseconds."""
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def read_entry(path: Path) -> Entry | None:
    """The entry in ``path``; None if there is none. Only for who holds the register's lock."""
    try:
        file = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lives = False
    except BlockingIOError:
        lives = True
    try:
        data = json.loads(os.read(file, 2**20))
    except ValueError:  # killed while it wrote
        data = {}
    finally:
        os.close(file)
    wants = (Want(tuple(names), number, share) for names, number, share in data.get("wants", ()))
    return Entry(
        path, lives, data.get("trial", ""), data.get("pid", 0), data.get("mark", ""), tuple(wants),
        data.get("holds", {}),
    )  # fmt: skip
