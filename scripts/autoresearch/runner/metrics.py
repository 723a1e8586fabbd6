"""Numbers read from a log by patterns."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from autoresearch.runner.endings import ANSI_SEQUENCE, Ending, one_line
from autoresearch.trial import Outcome


def log_text(data: bytes) -> str:
    """``data`` as lines: ``\\r`` ends a line too, colours are gone, what is not UTF-8 is replaced."""
    text = data.decode("utf-8", errors="replace").replace("\r", "\n")
    return ANSI_SEQUENCE.sub("", text) if "\x1b" in text else text


def compile_pattern(pattern: str) -> re.Pattern[str]:
    """A pattern for log text: ``^`` and ``$`` are those of a line. Raises re.error or ValueError."""
    compiled = re.compile(pattern, re.MULTILINE)
    if not compiled.groups:
        raise ValueError(f"the pattern {pattern!r} has no group (...) for the value")
    return compiled


def number(text: str | None) -> float | None:
    """What ``text`` says as a number, NaN and infinity included; None if it is none."""
    try:
        return float(text or "")
    except ValueError:
        return None


def read_metric(name: str, pattern: re.Pattern[str], text: str) -> tuple[float | None, Ending]:
    """The one value that the command printed of its metric, and the ending that this makes.

    Printing the same value again is harmless; two values leave open which one is meant.
    """

    def ending(outcome: Outcome, cause: str, reason: str) -> tuple[None, Ending]:
        return None, Ending(outcome, cause, one_line(f"{name} {reason}"))

    printed = {match[1] or "": number(match[1]) for match in pattern.finditer(text)}
    if not printed:
        return ending(Outcome.CRASHED, "no_metric", "was not printed")
    for written, value in printed.items():
        if value is None:
            return ending(Outcome.CRASHED, "bad_metric", f"is not a number: {written!r}")
        if not math.isfinite(value):
            return ending(Outcome.DIVERGED, "nan", f"is {value}")
    values = set(printed.values())
    if len(values) > 1:
        shown = ", ".join(printed)
        return ending(Outcome.INVALID, "two_metrics", f"was printed with {len(values)} values: {shown}")
    return values.pop(), Ending(Outcome.COMPLETED)


def read_watched(patterns: Mapping[str, re.Pattern[str]], text: str) -> dict[str, float]:
    """The last finite value of each pattern; names without one are absent."""
    found = {}
    for name, pattern in patterns.items():
        for match in pattern.finditer(text):
            value = number(match[1])
            if value is not None and math.isfinite(value):
                found[name] = value
    return found
