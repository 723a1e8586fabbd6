"""A comparison on fresh seeds as text: every run, both arms, the interval, the word."""

from __future__ import annotations

from autoresearch.campaign.compare import Comparison
from autoresearch.output import one_line
from autoresearch.report.format import NOTHING, number, signed


def render_comparison(found: Comparison) -> str:
    """The comparison in full; each seed is listed, so that a reader can check it."""
    claim = found.claim
    lines = [
        f"{found.b} against {found.a}: {found.metric}, {found.direction} is better, {claim.n} paired fresh seeds",
        f"{'seed':>8} {found.a[:16]:>16} {found.b[:16]:>16} {'gain':>12}",
    ]
    gains = dict(zip(claim.seeds, claim.gains, strict=True))
    for seed in found.seeds:
        values = (number(found.runs_a.get(seed)), number(found.runs_b.get(seed)), signed(gains.get(seed)))
        lines.append(f"{seed:>8} {values[0]:>16} {values[1]:>16} {values[2]:>12}")
    for name, mean, spread in ((found.a, claim.mean_a, claim.sd_a), (found.b, claim.mean_b, claim.sd_b)):
        lines.append(f"{name}: mean {number(mean)}, sd {number(spread)}")
    lines.append(
        f"gain {signed(claim.gain)}, 95 % interval {signed(claim.gain_low)} to {signed(claim.gain_high)}; "
        f"paired t p = {_p(claim.p_t)}, Wilcoxon p = {_p(claim.p_wilcoxon)} (one-sided)"
    )
    lines.append(f"{claim.word}: {claim.reason.removeprefix(claim.word + ': ')}")
    lines += [f"failed: {one_line(text, 200)}" for text in found.failed]
    for name, value in found.test.items():
        lines.append(f"test set, once: {name} {number(value)}")
    if found.contributions:
        lines.append("without each kept change (smallest loss first):")
    for each in found.contributions:
        lines.append(f"  {one_line(each.name, 80)}: it adds {signed(each.claim.gain)}, {each.claim.word}")
    lines += [f"  {one_line(name, 80)}: later changes are built on it" for name in found.not_separable]
    return "\n".join(lines)


def _p(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"
