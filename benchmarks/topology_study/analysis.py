"""Paired comparisons of several arms at common seeds, and how stable their order is. Pure functions.

An arm is a mapping from seed to error, lower being better.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean

import numpy as np
from scipy import stats

LEVEL = 0.05
INCONCLUSIVE = "inconclusive"

Arm = Mapping[int, float]


@dataclass(frozen=True, kw_only=True)
class Pair:
    """``a`` against ``b``; the difference is a - b. P-values are two-sided, corrected for all pairs asked (Holm)."""

    a: str
    b: str
    n: int
    difference: float
    low: float  # of the 95 % interval, which is not corrected
    high: float
    p_t: float
    p_wilcoxon: float

    @property
    def word(self) -> str:
        """The better arm if both tests say so at 5 %."""
        if max(self.p_t, self.p_wilcoxon) >= LEVEL:
            return INCONCLUSIVE
        return f"{self.a if self.difference < 0 else self.b} better"


def compare_pairs(arms: Mapping[str, Arm], reference: str = "") -> list[Pair]:
    """Every two arms, or each with the ``reference``: paired t-test and exact Wilcoxon signed-rank test.

    At the seeds that both arms have. Fewer pairs cost less correction, so ask for those that matter.
    """
    names = [pair for pair in combinations(arms, 2) if not reference or reference in pair]
    tests = [paired_tests(arms[a], arms[b]) for a, b in names]
    p_t, p_wilcoxon = (holm([test[key] for test in tests]) for key in ("p_t", "p_wilcoxon"))
    return [
        Pair(
            a=a, b=b, n=int(test["n"]), difference=test["difference"], low=test["low"], high=test["high"],
            p_t=p_t[i], p_wilcoxon=p_wilcoxon[i],
        )
        for i, ((a, b), test) in enumerate(zip(names, tests, strict=True))
    ]  # fmt: skip


def paired_tests(a: Arm, b: Arm) -> dict[str, float]:
    """Both tests of one pair, uncorrected; arms that are equal at every seed have p = 1."""
    seeds = sorted(a.keys() & b.keys())
    if len(seeds) < 2:
        raise ValueError(f"{len(seeds)} common seeds; a paired test needs 2, and 6 to reach 5 % by ranks.")
    differences = np.array([a[seed] - b[seed] for seed in seeds])
    mean = low = high = float(differences.mean())
    if np.ptp(differences) > 0:
        t = stats.ttest_1samp(differences, 0)
        (low, high), p_t = map(float, t.confidence_interval(0.95)), float(t.pvalue)
    else:  # no spread, which the t-test cannot divide by
        p_t = 1.0 if mean == 0 else 0.0
    p_wilcoxon = float(stats.wilcoxon(differences, method="exact").pvalue) if differences.any() else 1.0
    return {"n": len(seeds), "difference": mean, "low": low, "high": high, "p_t": p_t, "p_wilcoxon": p_wilcoxon}


def unpaired_p(a: Arm, b: Arm) -> float:
    """Welch's t-test, which forgets which runs share a seed."""
    return float(stats.ttest_ind(list(a.values()), list(b.values()), equal_var=False).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction, in the order given."""
    corrected, highest = [0.0] * len(p_values), 0.0
    for position, i in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        highest = max(highest, min(1.0, p_values[i] * (len(p_values) - position)))
        corrected[i] = highest
    return corrected


@dataclass(frozen=True, kw_only=True)
class Stability:
    """Do the seeds agree on the order of the arms, by training loss and by test error?"""

    seeds: int
    train_order: tuple[str, ...]  # the most frequent one, best first
    train_count: int  # seeds that have it
    test_order: tuple[str, ...]
    test_count: int
    test_winners: Mapping[str, int]  # how often each arm is the best
    agreement: float  # mean over seeds of Kendall's tau between the two orders; 1: the same


def order_stability(train: Mapping[str, Arm], test: Mapping[str, Arm]) -> Stability:
    """Both mappings hold the same arms; seeds that some arm lacks are left out."""
    seeds = sorted(set.intersection(*(set(arm) for arm in [*train.values(), *test.values()])))
    orders = [Counter(order_at(arms, seed) for seed in seeds) for arms in (train, test)]
    (train_order, train_count), (test_order, test_count) = (order.most_common(1)[0] for order in orders)
    taus = [
        stats.kendalltau([train[arm][seed] for arm in train], [test[arm][seed] for arm in train]).statistic
        for seed in seeds
    ]
    return Stability(
        seeds=len(seeds), train_order=train_order, train_count=train_count, test_order=test_order,
        test_count=test_count, test_winners=Counter(order_at(test, seed)[0] for seed in seeds),
        agreement=fmean(map(float, taus)),
    )  # fmt: skip


def order_at(arms: Mapping[str, Arm], seed: int) -> tuple[str, ...]:
    """The arms at one seed, best first."""
    return tuple(sorted(arms, key=lambda arm: arms[arm][seed]))
