"""What may be claimed in public: two arms on fresh paired seeds, and which kept changes carry the gain.

The loop's own numbers chose the winner, so they cannot prove it. A claim rests on seeds that the loop
never used, the same ones for both arms, and is "confirmed" only if a one-sided paired t-test and the exact
Wilcoxon signed-rank test both say so at 5 %. Five seeds are the fewest at which the latter can.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from autoresearch.errors import UsageError
from autoresearch.verdict.student_t import t_quantile, t_tail

LEAST_SEEDS = 5
LEVEL = 0.05
CONFIRMED, INCONCLUSIVE = "confirmed", "inconclusive"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """Arm ``b`` against arm ``a``; ``gain`` > 0 means that ``b`` is better, in metric units.

    Standard deviations, interval and p-values are None where a single pair allows none. The p-values are
    one-sided, for "``b`` is better"; the 95 % interval is two-sided. ``gains`` are the paired differences
    in the order of ``seeds``.
    """

    word: str  # confirmed | inconclusive
    reason: str  # one sentence with the numbers
    exploratory: bool
    seeds: tuple[int, ...]
    gains: tuple[float, ...]
    mean_a: float
    sd_a: float | None
    mean_b: float
    sd_b: float | None
    gain: float
    gain_low: float | None
    gain_high: float | None
    p_t: float | None
    p_wilcoxon: float | None

    @property
    def n(self) -> int:
        return len(self.seeds)


@dataclass(frozen=True, kw_only=True)
class Contribution:
    """What a kept change adds: the final code against the final code without it.

    ``share`` is its part of the sum of all such gains (None unless that sum is positive); with
    interacting changes the parts need not add up to the whole. The words and p-values of ``claim`` are
    corrected for the number of changes looked at (Holm): k of them need about 5 + log2(k) seeds.
    """

    name: str
    claim: Claim
    share: float | None


def compare_arms(a: Mapping[int, float], b: Mapping[int, float], direction: str, exploratory: bool = False) -> Claim:
    """Compare the metrics of two commits, ``{seed: value}``, at the seeds that both completed.

    Raises ``UsageError`` below five pairs. An ``exploratory`` comparison needs one pair and never confirms.
    """
    if direction not in ("lower", "higher"):
        raise UsageError(f'direction must be one of lower, higher; got "{direction}".')
    seeds = tuple(sorted(a.keys() & b.keys()))
    least = 1 if exploratory else LEAST_SEEDS
    if len(seeds) < least:
        raise UsageError(
            f"a comparison needs at least {least} seed{'s' * (least > 1)} that both commits completed; "
            f"got {len(seeds)}.",
            hint="compare.py A B --seeds 6, or --exploratory for a first look that claims nothing",
        )
    arm_a, arm_b = [a[seed] for seed in seeds], [b[seed] for seed in seeds]
    if not all(map(math.isfinite, arm_a + arm_b)):
        raise UsageError("a comparison needs finite metrics at every seed; got NaN or infinity.")
    sign = 1 if direction == "lower" else -1
    gains = tuple(sign * (x - y) for x, y in zip(arm_a, arm_b, strict=True))
    gain, several = fmean(gains), len(seeds) > 1
    half_width = t_quantile(0.975, len(gains) - 1) * stdev(gains) / math.sqrt(len(gains)) if several else None
    claim = Claim(
        word=INCONCLUSIVE,
        reason="",
        exploratory=exploratory,
        seeds=seeds,
        gains=gains,
        mean_a=fmean(arm_a),
        sd_a=stdev(arm_a) if several else None,
        mean_b=fmean(arm_b),
        sd_b=stdev(arm_b) if several else None,
        gain=gain,
        gain_low=None if half_width is None else gain - half_width,
        gain_high=None if half_width is None else gain + half_width,
        p_t=paired_t_p(gains) if several else None,
        p_wilcoxon=wilcoxon_p(gains) if several else None,
    )
    return _worded(claim)


def leave_one_out(
    full: Mapping[int, float],
    without: Mapping[str, Mapping[int, float]],
    direction: str,
    exploratory: bool = False,
) -> tuple[Contribution, ...]:
    """Which kept changes carry the gain: ``without`` holds, by change, the final code's metrics without it.

    Smallest contribution first, since those are the candidates for removal.
    """
    claims = {name: compare_arms(arm, full, direction, exploratory) for name, arm in without.items()}
    p_t = _holm({name: claim.p_t for name, claim in claims.items()})
    p_wilcoxon = _holm({name: claim.p_wilcoxon for name, claim in claims.items()})
    total = sum(claim.gain for claim in claims.values())
    contributions = [
        Contribution(
            name=name,
            claim=_worded(dataclasses.replace(claim, p_t=p_t[name], p_wilcoxon=p_wilcoxon[name])),
            share=claim.gain / total if total > 0 else None,
        )
        for name, claim in claims.items()
    ]
    return tuple(sorted(contributions, key=lambda contribution: contribution.claim.gain))


def paired_t_p(gains: Sequence[float]) -> float:
    """One-sided p of the paired t-test for a mean gain above 0; at least two gains."""
    mean, spread = fmean(gains), stdev(gains)
    if spread == 0:
        return 0.0 if mean > 0 else 1.0 if mean < 0 else 0.5
    return t_tail(mean / (spread / math.sqrt(len(gains))), len(gains) - 1)


def wilcoxon_p(gains: Sequence[float]) -> float:
    """Exact one-sided p of the signed-rank test for gains above 0, ties and all.

    The distribution of the positive ranks' sum is built by flipping one sign after another. Tied gains
    share their mean rank; zeros carry no sign and are left out.
    """
    sizes = sorted(abs(gain) for gain in gains if gain != 0)
    # Twice the mean rank is a whole number: (first rank + last rank) of the tied ones.
    doubled = {size: 2 * sizes.index(size) + sizes.count(size) + 1 for size in sizes}
    observed = sum(doubled[gain] for gain in gains if gain > 0)
    ways = {0: 1}  # sum of doubled positive ranks -> number of sign patterns
    for size in sizes:
        flipped = dict(ways)
        for total, count in ways.items():
            flipped[total + doubled[size]] = flipped.get(total + doubled[size], 0) + count
        ways = flipped
    extreme = sum(count for total, count in ways.items() if total >= observed)
    return float(extreme / 2 ** len(sizes))


def _holm(p_values: Mapping[str, float | None]) -> dict[str, float | None]:
    """Holm's step-down correction for looking at several p-values."""
    adjusted: dict[str, float | None] = dict.fromkeys(p_values)
    known = sorted((p, name) for name, p in p_values.items() if p is not None)
    highest = 0.0
    for position, (p, name) in enumerate(known):
        highest = max(highest, min(1.0, p * (len(known) - position)))
        adjusted[name] = highest
    return adjusted


def _worded(claim: Claim) -> Claim:
    """``claim`` with the word that its numbers allow, and the reason."""
    if claim.p_t is None or claim.p_wilcoxon is None:
        return dataclasses.replace(claim, reason=f"one pair, gain {claim.gain:+.4g}: no test is possible")
    numbers = (
        f"gain {claim.gain:+.4g} (95 % {claim.gain_low:+.4g} to {claim.gain_high:+.4g}) on {claim.n} seeds, "
        f"paired t p = {claim.p_t:.3g}, Wilcoxon p = {claim.p_wilcoxon:.3g}"
    )
    passed = claim.p_t < LEVEL and claim.p_wilcoxon <= LEVEL
    if claim.exploratory:
        return dataclasses.replace(claim, reason=f"exploratory, so no claim: {numbers}")
    if passed and claim.sd_a == 0 and claim.sd_b == 0:
        reason = f"the seed changes nothing in either arm, so {claim.n} runs are one run: {numbers}"
        return dataclasses.replace(claim, reason=reason)
    word = CONFIRMED if passed else INCONCLUSIVE
    return dataclasses.replace(claim, word=word, reason=f"{word}: {numbers}")
