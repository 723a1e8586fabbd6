"""Bounds on watched values, as ``constraints`` in ``autoresearch.yaml`` names them."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONSTRAINT = re.compile(
    rf"^\s*(?P<name>[\w./-]+)\s*(?P<op><=|>=|<|>)\s*"
    rf"(?:(?P<factor>{_NUMBER})\s*\*\s*baseline|(?P<baseline>baseline)(?:\s*\*\s*(?P<factor2>{_NUMBER}))?|(?P<value>{_NUMBER}))\s*$"
)
_COMPARE: dict[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}


@dataclass(frozen=True, kw_only=True)
class Constraint:
    """A bound on a watched value: ``name op limit``, the limit a number or a multiple of the baseline's value."""

    text: str
    name: str
    op: str
    value: float
    relative: bool  # value is a factor of the baseline's

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``peak_vram_mb <= 1.1 * baseline`` or ``accuracy >= 0.9``; ``ValueError`` if it is neither."""
        match = _CONSTRAINT.match(text)
        if match is None:
            raise ValueError(text)
        relative = match["value"] is None
        value = float(match["value"] or match["factor"] or match["factor2"] or 1.0)
        return cls(text=text.strip(), name=match["name"], op=match["op"], value=value, relative=relative)

    def limit(self, baseline: float | None) -> float | None:
        """The bound in the value's own unit; None if it needs a baseline and there is none."""
        if not self.relative:
            return self.value
        return None if baseline is None else self.value * baseline

    def allows(self, value: float, baseline: float | None) -> bool:
        limit = self.limit(baseline)
        return limit is None or _COMPARE[self.op](value, limit)
