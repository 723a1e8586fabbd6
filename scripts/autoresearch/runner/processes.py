"""The processes of this machine, as /proc shows them: who is who, who descends from whom, and their end."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
DEAD = "ZX"  # states of a process that has ended and only waits to be collected
FREEZE_ROUNDS = 50  # each finds what was born during the one before; even a fork bomb is still after a few


class Process(NamedTuple):
    """One line of the process table. ``started`` is in clock ticks since boot."""

    pid: int
    parent: int
    state: str
    started: int


def read_process(pid: int) -> Process | None:
    """The living process ``pid``, or None if there is none."""
    try:
        stat = (PROC / str(pid) / "stat").read_bytes()
    except OSError:
        return None
    # The second field is the program's name in parentheses, and may itself hold spaces and parentheses.
    fields = stat[stat.rindex(b")") + 2 :].split()
    process = Process(pid, int(fields[1]), fields[0].decode(), int(fields[19]))
    return None if process.state in DEAD else process


def pids() -> Iterator[int]:
    with os.scandir(PROC) as entries:
        yield from [int(entry.name) for entry in entries if entry.name.isdigit()]


def processes() -> list[Process]:
    return [process for process in map(read_process, pids()) if process is not None]


def descendants(roots: Iterable[int]) -> set[int]:
    """The living processes below ``roots``, without the roots themselves."""
    children: dict[int, list[int]] = {}
    for process in processes():
        children.setdefault(process.parent, []).append(process.pid)
    found: set[int] = set()
    todo = list(roots)
    while todo:
        born = children.get(todo.pop(), [])
        found.update(born)
        todo += born
    return found


def ancestors(pid: int) -> Iterator[int]:
    """The parent of ``pid``, its parent, and so on."""
    while process := read_process(pid):
        pid = process.parent
        yield pid


@functools.cache
def boot_id() -> str:
    try:
        return (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


def birth_mark(pid: int) -> str:
    """What tells the living process ``pid`` from any other that ever has the same number; "" if none lives.

    The start in ticks rather than a date: it does not move when the clock is set.
    """
    process = read_process(pid)
    return f"{boot_id()}/{process.started}" if process else ""


def is_alive(pid: int, mark: str) -> bool:
    """Whether the very process lives that had ``mark`` as its ``birth_mark``."""
    return bool(mark) and birth_mark(pid) == mark


def command_line(pid: int) -> list[str]:
    try:
        return os.fsdecode((PROC / str(pid) / "cmdline").read_bytes()).split("\0")[:-1]
    except OSError:
        return []


def environment_holds(pid: int, entry: str) -> bool:
    """Whether ``pid`` was started with ``entry`` (``NAME=value``) in its environment."""
    try:
        return os.fsencode(entry) in (PROC / str(pid) / "environ").read_bytes().split(b"\0")
    except OSError:  # ended meanwhile, or another user's
        return False


def send(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def freeze(find: Callable[[], set[int]]) -> set[int]:
    """Stop whatever ``find`` names, what is born meanwhile too, and return it: none of it moves any more."""
    frozen: set[int] = set()
    for _ in range(FREEZE_ROUNDS):
        moving = find() - frozen
        if not moving:
            break
        send(moving, signal.SIGSTOP)
        frozen |= moving
    return frozen


def freeze_and_kill(find: Callable[[], set[int]]) -> set[int]:
    """Kill whatever ``find`` names, and return it; call again until ``find`` finds nothing."""
    frozen = freeze(find)
    send(frozen, signal.SIGKILL)
    return frozen
