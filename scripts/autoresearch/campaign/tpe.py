"""Points of a sweep that Optuna's TPE sampler proposes; apart from other points, so that only a sweep needs Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from autoresearch.campaign.points import Axis, Point, Range

if TYPE_CHECKING:
    import optuna


class Tpe:
    """Optuna's TPE sampler behind points: ``ask`` for one, ``tell`` what it gave (None: no metric)."""

    def __init__(self, axes: Sequence[Axis], *, seed: int, direction: str) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._axes = axes
        self._study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(seed=seed),
            direction="maximize" if direction == "higher" else "minimize",
        )
        self._space: dict[str, optuna.distributions.BaseDistribution] = {
            axis.label: _distribution(axis) for axis in axes
        }

    def ask(self) -> Point:
        params = self._study.ask(self._space).params
        return tuple(
            str(params[axis.label]) if axis.range is None else axis.range.text(params[axis.label])
            for axis in self._axes
        )

    def tell(self, point: Point, metric: float | None) -> None:
        """Add a measured point; one outside the present ranges says nothing and is left out."""
        import optuna

        params: dict[str, str | float] = {}
        for axis, text in zip(self._axes, point, strict=True):
            params[axis.label] = text if axis.range is None else _number(text, axis.range)
        state = optuna.trial.TrialState
        try:
            trial = optuna.trial.create_trial(
                params=params, distributions=self._space, value=metric,
                state=state.FAIL if metric is None else state.COMPLETE,
            )  # fmt: skip
        except ValueError:
            return
        self._study.add_trial(trial)


def _number(text: str, span: Range) -> float:
    try:
        return int(text) if span.whole else float(text)
    except ValueError:
        return math.nan


def _distribution(axis: Axis) -> optuna.distributions.BaseDistribution:
    import optuna

    span = axis.range
    if span is None:
        return optuna.distributions.CategoricalDistribution(axis.values)
    if span.whole:
        return optuna.distributions.IntDistribution(int(span.low), int(span.high), log=span.log)
    return optuna.distributions.FloatDistribution(span.low, span.high, log=span.log)
