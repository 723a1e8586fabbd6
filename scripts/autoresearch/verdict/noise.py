"""What repeated runs teach about noise: its size (sigma), and how far a seed's luck carries over (rho)."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from statistics import median
from typing import Any, Self

from autoresearch.verdict.student_t import t_quantile

RESIDUALS_KEPT = 80  # the pool follows a noise level that edits change, and the state stays small
NORMAL_MAD = 0.6745  # median of |x| for a standard normal x
STRAY_P = 0.995  # two-sided 1 %: a residual beyond this quantile (and 4 sigma) is a stray, not noise
STRAY_LEAST = 4.0
STRAY_SHARE = 1 / 6  # of the pool at most; what happens more often is no stray

# Same-seed correlation: (rho, prior weight). Public GPT runs show about 0 between different methods and
# 0.3 to 0.7 between close relatives, a learning-rate change on one H100 0.99; a posterior over a few points
# follows the data faster than shrinkage.
OPEN_MIND = ((0.0, 0.4), (0.5, 0.2), (0.9, 0.25), (0.98, 0.15))
SEED_DECIDES = ((0.0, 0.05), (0.5, 0.15), (0.9, 0.5), (0.98, 0.3))  # short deterministic trainings


@cache
def stray_bound(df: int) -> float:
    """How many sigma (estimated on ``df`` degrees of freedom) a run may lie off before it is a stray."""
    return max(STRAY_LEAST, t_quantile(STRAY_P, max(df, 1)))


@dataclass(kw_only=True)
class Noise:
    """Pooled noise of single runs, in the metric's units.

    ``residuals`` holds one number for each degree of freedom: how far a run fell from what earlier runs
    of the same code predicted, scaled so that its square has mean sigma^2. The pool is never the spread
    of *different* ideas, and never that of one fixed seed, which understates the noise up to threefold.

    ``pair_products`` and ``pair_squares`` are the centred products and squares of a candidate's and the
    incumbent's runs at equal seeds, ``pairs_df`` their number less one for each candidate.
    """

    rho_prior: tuple[tuple[float, float], ...] = OPEN_MIND
    residuals: list[float] = field(default_factory=list)
    pair_products: float = 0.0
    pair_squares: float = 0.0
    pairs_df: int = 0
    sigma: float = field(init=False, default=0.0)  # standard deviation of one run, strays left out
    df: int = field(init=False, default=0)  # residuals that sigma rests on

    @classmethod
    def from_json(cls, state: Mapping[str, Any], rho_prior: tuple[tuple[float, float], ...]) -> Self:
        """The pool that ``dataclasses.asdict`` described; what is derived from it is derived again."""
        return cls(
            rho_prior=rho_prior,
            residuals=list(state["residuals"]),
            pair_products=state["pair_products"],
            pair_squares=state["pair_squares"],
            pairs_df=state["pairs_df"],
        )

    def __post_init__(self) -> None:
        self._fit()

    def add_repeats(self, values: Sequence[float]) -> None:
        """Pool several runs of one code at different seeds.

        The runs are taken from the middle outwards, so that one stray spoils one residual and not all
        that follow it; the sum of squares is that of any other order.
        """
        middle = median(values)
        ordered = sorted(values, key=lambda value: abs(value - middle)) if len(values) > 2 else list(values)
        mean = ordered[0]
        for count, value in enumerate(ordered[1:], start=1):
            self.residuals.append(abs(value - mean) * math.sqrt(count / (count + 1)))
            mean += (value - mean) / (count + 1)
        self._fit()

    def replace_repeats(self, values: Sequence[float]) -> None:
        """Start over with the runs of one code."""
        self.residuals.clear()
        self.add_repeats(values)

    def add_residual(self, residual: float) -> None:
        """Pool one prediction error that is already scaled to a variance of sigma^2."""
        self.residuals.append(abs(residual))
        self._fit()

    def add_pairs(self, candidate: Mapping[int, float], incumbent: Mapping[int, float]) -> None:
        """Learn rho from the seeds that both codes ran at; fewer than two teach nothing."""
        seeds = [seed for seed in candidate if seed in incumbent]
        if len(seeds) < 2:
            return
        candidate_mean = sum(candidate[seed] for seed in seeds) / len(seeds)
        incumbent_mean = sum(incumbent[seed] for seed in seeds) / len(seeds)
        for seed in seeds:
            x, y = candidate[seed] - candidate_mean, incumbent[seed] - incumbent_mean
            self.pair_products += x * y
            self.pair_squares += (x * x + y * y) / 2
        self.pairs_df += len(seeds) - 1

    @property
    def rho(self) -> float:
        """Posterior mean of the correlation between two codes' runs at one seed, 0..1."""
        if self.sigma == 0:
            return sum(rho * weight for rho, weight in self.rho_prior)
        logs = []
        for rho, weight in self.rho_prior:
            rest = 1 - rho * rho
            misfit = (self.pair_squares - rho * self.pair_products) / (rest * self.sigma**2)
            logs.append(math.log(weight) - self.pairs_df * math.log(rest) / 2 - misfit)
        top = max(logs)
        weights = [math.exp(value - top) for value in logs]
        points = zip(weights, self.rho_prior, strict=True)
        return sum(weight * rho for weight, (rho, _) in points) / sum(weights)

    def _fit(self) -> None:
        """Set sigma and df from the residuals, with strays left out.

        The yardstick for strays is the median residual, which a few of them cannot move; two residuals
        have no middle. A pool whose median is 0 (a coarse metric that often repeats exactly) has no
        yardstick either: nothing is left out. Nor is it where many would be: then the pool holds codes of
        unequal noise, and that of an idea whose runs vary little is not the baseline's.
        """
        del self.residuals[:-RESIDUALS_KEPT]
        count = len(self.residuals)
        if not count:
            return
        yardstick = median(self.residuals) / NORMAL_MAD if count > 2 else 0.0
        limit = stray_bound(count) * yardstick if yardstick > 0 else math.inf
        usual = [residual for residual in self.residuals if residual <= limit]
        if count - len(usual) > max(1, STRAY_SHARE * count):
            usual = self.residuals
        self.df = len(usual)
        self.sigma = math.sqrt(sum(residual * residual for residual in usual) / self.df)
