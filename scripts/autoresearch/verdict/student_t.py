"""Student-t boundaries in the standard library: exact for whole degrees of freedom, and no scipy import.

Every command of the loop asks for a boundary or two; importing ``scipy.stats`` for that would cost each
of them half a second.
"""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

MOST_DF = 200  # beyond this the t and the normal quantile differ by less than 1 %


def normal_tail(z: float) -> float:
    """P(Z > z) of a standard normal."""
    return 0.5 * math.erfc(z / math.sqrt(2))


def t_tail(t: float, df: int) -> float:
    """P(T > t) for ``df`` >= 1 degrees of freedom, by its finite series in atan(t / sqrt(df))."""
    angle = math.atan(t / math.sqrt(df))
    cos2 = math.cos(angle) ** 2
    term = total = math.cos(angle) if df % 2 else 1.0
    for k in range(3 if df % 2 else 2, df - 1, 2):
        term *= cos2 * (k - 1) / k
        total += term
    if df == 1:
        total = 0.0
    inside = math.sin(angle) * total
    if df % 2:
        inside = 2 / math.pi * (angle + inside)
    return 0.5 * (1 - inside)


@lru_cache(maxsize=4096)
def t_boundary(z: float, df: int) -> float:
    """The t value that is exceeded as rarely, under ``df`` degrees of freedom, as ``z`` under the normal.

    ``z`` >= 0. Newton's steps from ``z`` upwards: the t tail is convex and heavier there, so they
    approach the boundary from below and cannot overshoot.
    """
    df = min(df, MOST_DF)
    target = normal_tail(z)
    log_scale = math.lgamma((df + 1) / 2) - math.lgamma(df / 2) - 0.5 * math.log(df * math.pi)
    t = z
    for _ in range(100):
        density = math.exp(log_scale - (df + 1) / 2 * math.log1p(t * t / df))
        step = (t_tail(t, df) - target) / density
        t += step
        if abs(step) <= 1e-10 * (1 + t):
            break
    return t


@lru_cache(maxsize=4096)
def t_quantile(p: float, df: int) -> float:
    """The quantile of a probability ``p`` in [0.5, 1)."""
    return t_boundary(NormalDist().inv_cdf(p), df)
