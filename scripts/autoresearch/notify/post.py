"""Hand a letter to a process of its own, which sends it however long that takes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from autoresearch.notify.letter import Kind, Letter, bounded, title_line
from autoresearch.notify.limits import admit

SENDER = Path(__file__).with_name("__main__.py")
WAIT_S = 10.0
START_S = 20.0  # a busy machine takes its time to start Python and to load apprise's services
_NOT_FOR_SENDERS = re.compile(r"AUTORESEARCH_|TIME_BUDGET$|PYTHON(?!UTF8)")


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """How it went: ``failed`` names services and reasons (``JSON: HTTP 500``), never a URL."""

    sent: bool  # False: held back by the rate limit, and nothing was tried
    channels: int = 0
    failed: tuple[str, ...] = ()


def notify(channels: Sequence[str], folder: Path, kind: Kind, title: str, body: str, *, wait_s: float = WAIT_S) -> bool:
    """Send, and return at once; True if the message went out to be sent.

    False without channels, where the rate limit holds it back, or where it cannot even be begun. Never
    raises. The sender gives all channels ``wait_s`` seconds together and records an event in the ledger of
    ``folder``, the campaign's state folder.
    """
    letter = Letter(
        channels=tuple(channels), folder=str(folder), kind=kind, title=title, body=body, wait_s=wait_s
    )  # fmt: skip
    try:
        sender = _start(letter, stdout=subprocess.DEVNULL)
    except OSError:  # a full disk, no more processes: the loop has the same trouble, and will say so itself
        return False
    if sender is None:
        return False
    # Whoever lives long reaps its senders; a script that ends leaves that to init.
    threading.Thread(target=sender.wait, daemon=True).start()
    return True


def notify_and_wait(
    channels: Sequence[str], folder: Path, kind: Kind, title: str, body: str, *, wait_s: float = WAIT_S
) -> Delivery:
    """Send, and say how it went: for a person who asked for it. ``OSError`` where no process can be started."""
    letter = Letter(
        channels=tuple(channels), folder=str(folder), kind=kind, title=title, body=body, wait_s=wait_s
    )  # fmt: skip
    sender = _start(letter, stdout=subprocess.PIPE)
    if sender is None:
        return Delivery(sent=False)
    try:
        out, _ = sender.communicate(timeout=wait_s + START_S)
        answer = json.loads(out)
    except (subprocess.TimeoutExpired, ValueError):
        sender.kill()
        sender.communicate()
        return Delivery(sent=True, channels=len(channels), failed=("the sending process failed",))
    return Delivery(sent=True, channels=answer["channels"], failed=tuple(answer["failed"]))


def _start(letter: Letter, *, stdout: int) -> subprocess.Popen[bytes] | None:
    """The sending process, or None if there is no reason to start one."""
    if not letter.channels:
        return None
    held = admit(Path(letter.folder), letter.kind)
    if held is None:
        return None
    more = f"\n({held} more of this kind {'was' if held == 1 else 'were'} held back before it.)" if held else ""
    letter = replace(letter, title=title_line(letter.title), body=bounded(letter.body) + more)
    environment = {name: value for name, value in os.environ.items() if not _NOT_FOR_SENDERS.match(name)}
    # A file without a name: unlike arguments and environment nobody else can read it, and unlike a pipe it never
    # fills up and blocks the loop.
    with tempfile.TemporaryFile() as paper:
        paper.write(letter.to_json().encode())
        paper.seek(0)
        return subprocess.Popen(
            [sys.executable, "-I", str(SENDER)],
            cwd="/", env=environment, stdin=paper, stdout=stdout, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
