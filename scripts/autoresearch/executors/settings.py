"""How an engine refuses what ``executor`` says in the settings."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import NoReturn

from autoresearch.errors import UsageError


def unknown_setting(engine: str, key: str, known: Iterable[str]) -> str:
    """That ``engine`` has no setting ``key``, and which one may be meant."""
    near = difflib.get_close_matches(key, list(known), n=1, cutoff=0.0)[0]
    return f"executor.{key} is not a setting of {engine}; did you mean {near}?"


def refuse(message: str, known: Iterable[str]) -> NoReturn:
    raise UsageError(message, hint=f"In autoresearch.yaml, `executor` may say: {', '.join(known)}.", code="config")
