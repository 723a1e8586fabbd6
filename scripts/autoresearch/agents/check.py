"""The result of looking at one thing that has to be right on this machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from autoresearch.errors import AutoresearchError, MachineError

GIB = 2**30
MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class Check:
    """``ok`` is None for a warning: worth knowing, and no obstacle. ``hint`` is what to type."""

    name: str
    ok: bool | None
    text: str
    hint: str = ""

    @property
    def word(self) -> str:
        return {True: "ok", None: "warning", False: "failed"}[self.ok]


def passed(name: str, text: str) -> Check:
    return Check(name=name, ok=True, text=text)


def warning(name: str, text: str, hint: str = "") -> Check:
    return Check(name=name, ok=None, text=text, hint=hint)


def failed(name: str, text: str, hint: str = "") -> Check:
    return Check(name=name, ok=False, text=text, hint=hint)


def refused(name: str, error: AutoresearchError) -> Check:
    """What a command would refuse with this error."""
    return failed(name, error.message.rstrip("."), error.hint)


def demand(checks: Iterable[Check]) -> None:
    """``MachineError`` for the first that has failed; the others are not even looked at if ``checks`` is lazy."""
    for check in checks:
        if check.ok is False:
            raise MachineError(f"{check.text}.", hint=check.hint, code=f"check_{check.name}")


def size(number: float) -> str:
    """Bytes for readers."""
    for unit in ("bytes", "KiB", "MiB"):
        if number < 1024:
            return f"{number:.0f} {unit}"
        number /= 1024
    return f"{number:.1f} GiB"
