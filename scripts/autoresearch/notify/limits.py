"""How often a person is disturbed: at most so often for each kind, and so many in an hour altogether."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

LIMITS_FILE = "notified.json"
HOUR_S = 3600.0
# Seconds between two messages of a kind. What a person asked for, or has to act on, comes at once.
GAP_S = {
    "new_best": 600.0, "claim": 60.0, "crash_streak": 1800.0, "stuck": 1800.0,
    "limit": 1800.0, "handover": 10.0, "finished": 10.0, "digest": 10.0,
}  # fmt: skip
URGENT = ("handover", "finished", "digest")
HOURLY = 12  # messages; a phone that buzzes more often is put away
HOURLY_URGENT = 24  # what is urgent still comes through when the others have used up theirs
LOCK_TRIES = 20
LOCK_PAUSE_S = 0.01


def admit(folder: Path, kind: str, *, now: float | None = None) -> int | None:
    """Book a message of ``kind``, or refuse it; remembered in ``folder``, whichever process asks.

    Returns how many of its kind were refused since the last one, or None if this one is refused too.
    """
    now = time.time() if now is None else now
    folder.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(folder / LIMITS_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "r+", encoding="utf-8", errors="replace") as file:
        if not _locked(file.fileno()):
            return None
        book = _Book(file.read(), now)
        held = book.admit(kind)
        file.seek(0)
        file.truncate()
        file.write(book.text())
        return held


def _locked(descriptor: int) -> bool:
    """Whether the lock was had within a moment; a stopped process that holds it must not stop the loop."""
    for _ in range(LOCK_TRIES):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(LOCK_PAUSE_S)
    return False


class _Book:
    """When what was sent within the longest gap, and how many were refused since."""

    def __init__(self, text: str, now: float) -> None:
        self.now = now
        self.sent: list[tuple[float, str]] = []
        self.held: dict[str, int] = {}
        try:
            data: Any = json.loads(text)
            # What lies in the future was booked before the clock was set back: it would refuse all until then.
            self.sent = [(float(at), str(kind)) for at, kind in data["sent"] if now - HOUR_S < at <= now]
            self.held = {str(kind): int(count) for kind, count in data["held"].items()}
        except (ValueError, TypeError, KeyError, AttributeError):
            pass  # new, or half written by a process that was killed: nothing is known, so nothing is refused

    def admit(self, kind: str) -> int | None:
        most = HOURLY_URGENT if kind in URGENT else HOURLY
        recent = any(sent == kind and self.now - at < GAP_S.get(kind, HOUR_S) for at, sent in self.sent)
        if recent or len(self.sent) >= most:
            self.held[kind] = self.held.get(kind, 0) + 1
            return None
        self.sent.append((self.now, kind))
        return self.held.pop(kind, 0)

    def text(self) -> str:
        return json.dumps({"sent": self.sent, "held": self.held})
