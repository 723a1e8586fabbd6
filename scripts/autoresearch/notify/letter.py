"""What is sent: one line of title, a bounded text, and the channels to send it through."""

from __future__ import annotations

import json
import unicodedata
from dataclasses import asdict, dataclass
from typing import Literal, Self

from autoresearch.output import one_line

Kind = Literal["new_best", "claim", "crash_streak", "stuck", "limit", "handover", "finished", "digest"]
TITLE_WIDTH = 120  # characters; lock screens show less, mail subjects little more
BODY_LENGTH = 2000  # characters; Discord's limit is the lowest of the common services


@dataclass(frozen=True, kw_only=True)
class Letter:
    """One message, as the sending process reads it from its stdin."""

    channels: tuple[str, ...]  # as in the config: they hold secrets
    folder: str  # the campaign's state folder; the ledger lies beside it
    kind: str
    title: str
    body: str
    wait_s: float  # for all channels together

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Self:
        data = json.loads(text)
        return cls(**{**data, "channels": tuple(data["channels"])})


def bounded(text: str) -> str:
    """``text`` without control characters, cut to ``BODY_LENGTH``; its lines stay lines."""
    clean = "".join(char for char in text if char == "\n" or unicodedata.category(char)[0] != "C").strip()
    return clean if len(clean) <= BODY_LENGTH else clean[: BODY_LENGTH - 1] + "…"


def title_line(text: str) -> str:
    return one_line(text, TITLE_WIDTH)
