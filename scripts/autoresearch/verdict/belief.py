"""What the runs so far say about the incumbent and about ideas: the learning half of the keep rule.

Losses are in the metric's units with lower better; variances are in units of sigma^2 where said so.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

SURPRISE_LIMIT = 2.5  # standard deviations of a rejected run's surprise that may move the belief
LEAST_LEVEL_VAR = 0.01  # ideas are not the incumbent: through them alone it is never known better than this
SHIFT_DRIFT = 0.02  # share of a first run's variance by which the mean shift of ideas may wander per idea
LOOK_BACK = 30.0  # ideas that the typical first run is averaged over


@dataclass(kw_only=True)
class Belief:
    """Two unknowns, estimated together by a Kalman filter: the incumbent's loss and the mean shift of ideas.

    ``level`` is the incumbent's loss, ``shift`` how much worse an average idea's first run is. The
    (co)variances are in units of sigma^2, so that they stay right when the estimate of sigma moves.
    """

    level: float
    level_var: float
    shift: float = 0.0
    shift_var: float = 9.0  # nothing is known at first: +-3 sigma
    cov: float = 0.0

    def restart(self, level: float, level_var: float) -> None:
        """Believe in another incumbent; what is known about ideas stays."""
        self.level, self.level_var, self.cov = level, level_var, 0.0

    def see_incumbent(self, loss: float, limit: float) -> float:
        """Take in one run of the incumbent; returns the surprise, scaled to a variance of sigma^2.

        Only ``limit`` of it (same scale) moves the belief.
        """
        scale = math.sqrt(self.level_var + 1)
        surprise = (loss - self.level) / scale
        moving = min(max(surprise, -limit), limit) * scale
        self._move(moving, scale * scale, with_level=self.level_var, with_shift=self.cov)
        return surprise

    def see_rejected(self, loss: float, weight: float, noise_var: float, sigma: float) -> float:
        """Take in the first run of a rejected idea, as a weak re-test of the incumbent.

        Such a run reads ``weight * level + shift + noise`` with noise of variance ``noise_var`` (in
        sigma^2): if idea after idea looks worse than the ideas before, the incumbent's record was luck.
        Returns the squared surprise that belongs to the noise, in squared metric units.
        """
        with_level = weight * self.level_var + self.cov
        with_shift = weight * self.cov + self.shift_var
        variance = weight * with_level + with_shift + noise_var
        limit = SURPRISE_LIMIT * sigma * math.sqrt(variance)
        surprise = min(max(loss - weight * self.level - self.shift, -limit), limit)
        self._move(surprise, variance, with_level=with_level, with_shift=with_shift)
        self.level_var = max(self.level_var, LEAST_LEVEL_VAR)
        self.shift_var += SHIFT_DRIFT * noise_var
        return surprise * surprise * noise_var / variance

    def _move(self, surprise: float, variance: float, *, with_level: float, with_shift: float) -> None:
        """One Kalman step; ``with_*`` are the covariances of the two unknowns with what was observed."""
        self.level += with_level / variance * surprise
        self.shift += with_shift / variance * surprise
        self.level_var -= with_level * with_level / variance
        self.shift_var -= with_shift * with_shift / variance
        self.cov -= with_level * with_shift / variance


@dataclass(kw_only=True)
class FirstRuns:
    """How far ideas' first runs typically fall: the size of effects against the noise opens the bold lane.

    ``root_sum / effects`` is the mean square root of the first effects, whose square is a typical effect
    that one huge failure cannot move far; ``square_sum / squares`` is the variance of first runs around
    what the belief expects. Both look back on about 30 ideas.
    """

    effects: float
    root_sum: float
    squares: float
    square_sum: float

    @classmethod
    def expecting(cls, sigma: float) -> Self:
        """Before any idea: effects of 0.7 sigma (worth three ideas), a variance of 3 sigma^2 (worth two)."""
        return cls(effects=3.0, root_sum=3 * math.sqrt(0.7 * sigma), squares=2.0, square_sum=2 * 3 * sigma**2)

    @property
    def typical_effect(self) -> float:
        return (self.root_sum / self.effects) ** 2

    @property
    def variance(self) -> float:
        return self.square_sum / self.squares

    def add_effect(self, effect: float) -> None:
        fade = min(1.0, LOOK_BACK / (self.effects + 1))
        self.effects = (self.effects + 1) * fade
        self.root_sum = (self.root_sum + math.sqrt(effect)) * fade

    def add_square(self, square: float) -> None:
        fade = min(1.0, LOOK_BACK / (self.squares + 1))
        self.squares = (self.squares + 1) * fade
        self.square_sum = (self.square_sum + square) * fade
