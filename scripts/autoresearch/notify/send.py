"""The sending process: all channels at once within the time given, then one event in the ledger."""

from __future__ import annotations

import json
import logging
import math
import re
import signal
import sqlite3
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.config import masked
from autoresearch.errors import AutoresearchError
from autoresearch.ledger import Ledger
from autoresearch.notify.channels import urls_of
from autoresearch.notify.letter import Letter

if TYPE_CHECKING:
    from apprise import Apprise
    from apprise.result import NotifyResult

LAST_RESORT_S = 60  # beyond the time given, the process ends whatever it hangs on
_HTTP_ERROR = re.compile(r"\berror=(\d{3})\b")
# What a plugin's log says of a request that failed, and what may be told of it: the log itself names the host.
_TROUBLE = (
    (re.compile(r"timed? ?out", re.IGNORECASE), "no answer"),
    (re.compile(r"refused", re.IGNORECASE), "connection refused"),
    (re.compile(r"resolve|name or service|getaddrinfo", re.IGNORECASE), "host not found"),
    (re.compile(r"certificate|ssl", re.IGNORECASE), "TLS"),
    (re.compile(r"unreachable|no route", re.IGNORECASE), "network unreachable"),
    (re.compile(r"auth", re.IGNORECASE), "login refused"),
    (re.compile(r"connection error|socket exception", re.IGNORECASE), "connection failed"),
)
_TONE = {"new_best": "success", "claim": "success", "finished": "success", "crash_streak": "warning",
         "stuck": "warning", "limit": "warning", "handover": "warning"}  # fmt: skip


def main() -> None:
    letter = Letter.from_json(sys.stdin.read())
    signal.alarm(math.ceil(letter.wait_s) + LAST_RESORT_S)
    count, failed = send(letter)
    # Whoever waits reads it; the ledger may be busy for as long as a decision takes.
    sys.stdout.write(json.dumps({"channels": count, "failed": failed}))
    sys.stdout.flush()
    _record(letter, count, failed)


def send(letter: Letter) -> tuple[int, list[str]]:
    """How many channels there were, and which failed why: ``JSON: HTTP 500``."""
    log = logging.getLogger("apprise")
    log.addHandler(logging.NullHandler())  # else it prints URLs on stderr
    log.setLevel(logging.DEBUG)  # only there it says why a connection failed
    try:
        import apprise
    except ImportError:
        return len(letter.channels), ["the package apprise is missing"]
    post, count, failed = apprise.Apprise(), 0, []
    for channel in letter.channels:
        urls, trouble = _read(channel)
        count += len(urls) or 1
        failed += trouble
        failed += [f"{masked(url)}: not understood" for url in urls if not _add(post, url)]
    if len(post):
        answer = post.notify(
            title=letter.title, body=letter.body, body_format="text", notify_type=_TONE.get(letter.kind, "info"),
            timeout=letter.wait_s, log_level=logging.DEBUG,
        )  # fmt: skip
        failed += [f"{result.name}: {_reason(result)}" for result in answer.results if not result]
    return count, failed


def _read(channel: str) -> tuple[list[str], list[str]]:
    try:
        return urls_of([channel]), []
    except (OSError, UnicodeDecodeError):
        return [], [f"{masked(channel)}: cannot be read"]


def _add(post: Apprise, url: str) -> bool:
    return "://" in url and post.add(url)


def _reason(result: NotifyResult) -> str:
    """Why a channel failed, in a word that cannot hold a part of its URL."""
    if result.status.name == "TIMEOUT":
        return "no answer"
    return reason_in(entry.message for entry in result.logs())


def reason_in(messages: Iterable[str]) -> str:
    text = "\n".join(messages)
    status = _HTTP_ERROR.search(text)
    if status:
        return f"HTTP {status[1]}"
    return next((word for pattern, word in _TROUBLE if pattern.search(text)), "refused by the service")


def _record(letter: Letter, count: int, failed: list[str]) -> None:
    channels = f"{count} channel{'s' * (count != 1)}"
    text = f"{letter.kind}: told {channels}"
    if failed:
        text = f"{letter.kind}: {len(failed)} of {channels} failed ({', '.join(failed)})"
    folder = Path(letter.folder)
    try:
        with Ledger(folder.parent) as ledger:
            ledger.add_event(folder.name, "notify", text)
    except (OSError, sqlite3.Error, AutoresearchError):
        pass  # nobody is left to tell
