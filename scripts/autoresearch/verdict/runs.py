"""What the rule is told of one code: its runs, ``{seed: value}``, of which it makes losses, where lower is better."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any


def as_losses(values: Mapping[int, float], direction: str) -> dict[int, float]:
    """``values`` as losses, in the same order."""
    if not values:
        raise ValueError("at least one seed with a metric is needed, got none")
    for seed, value in values.items():
        if not math.isfinite(value):
            raise ValueError(f"the metric at seed {seed} must be a finite number, got {value!r}")
    return dict(values) if direction == "lower" else {seed: -value for seed, value in values.items()}


def level_best(losses: Sequence[float], number: int) -> list[float]:
    """``losses`` with the best ``number`` of them made equal to the last of these."""
    best = sorted(losses)[number - 1]
    return [max(loss, best) for loss in losses]


def by_seed(runs: Mapping[Any, float]) -> dict[int, float]:
    """``runs`` as JSON gave them back, where keys are text."""
    return {int(seed): value for seed, value in runs.items()}


def span(values: Iterable[float]) -> float:
    ordered = sorted(values)
    return ordered[-1] - ordered[0]


def printed_step(values: Sequence[float]) -> float:
    """One unit of the last decimal that any of the values shows: the resolution of a printed metric."""
    return min(10.0 ** int(Decimal(repr(value)).as_tuple().exponent) for value in values)
