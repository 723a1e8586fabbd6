"""How an engine refuses what ``executor`` says in the settings."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from autoresearch.errors import UsageError, near_names

COMMON = ("kind", "devices", "parallel")  # what every engine takes


def unknown_setting(engine: str, key: str, known: Iterable[str]) -> str:
    """That ``engine`` has no setting ``key``, and which one may be meant."""
    near = near_names(key, [*COMMON, *known])
    return f"executor.{key} is not a setting of {engine}" + (f"; did you mean {near[0]}?" if near else ".")


def refuse(message: str, known: Iterable[str]) -> NoReturn:
    raise UsageError(
        message, hint=f"In autoresearch.yaml, `executor` may say: {', '.join([*COMMON, *known])}.", code="config"
    )
