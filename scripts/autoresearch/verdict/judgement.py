"""From an estimated gain and its error to a decision: the boundaries of the keep rule.

The shape, keep at z >= A / sqrt(n) and drop at a small z, is what dynamic programming gives for ideas that
are plentiful: screening is cheap, confirming is for those that look better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from autoresearch.plain import plain
from autoresearch.verdict.student_t import t_boundary, t_quantile

DROP_Z = 0.3  # an idea that looks less than a third of a standard error better is not run again
BOLD_Z = 0.4  # in the bold lane one run decides, at this z
WORSE_Z = 1.0  # "worse" needs odds of about 5 to 1, as a keep does after several runs
BOUNDARY_CAP = 3.0  # t boundaries on 1 or 2 degrees of freedom are absurd: at most 3 times the normal one


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A decision about one experiment and the numbers behind it; a ``gain`` above 0 is better.

    ``decision``: ``keep``, ``discard``, or ``run`` (one more seed before deciding).

    ``verdict``, the evidence so far, is the first of these that applies:

    - ``equivalent``: the same metric as the incumbent at every seed;
    - ``better``: z has reached ``z_needed``;
    - ``equivalent``: shown to be no worse than a simplification may be, since (gain + margin) / se has
      reached ``z_needed``;
    - ``worse``: z <= -1 (or its t boundary), odds of about 5 to 1 that it is a loss;
    - ``inconclusive``: too few runs to tell.

    ``gain`` and its 95 % interval ``gain_low`` to ``gain_high`` (Student t) are in metric units and ``z``
    is gain / se. For a deterministic training, which has no noise, ``se`` is the printed metric's step.
    """

    decision: str
    verdict: str
    n_trials: int
    gain: float
    gain_low: float
    gain_high: float
    se: float
    z: float
    z_needed: float
    z_drop: float
    boldness: float  # 0 careful lane, 1 bold lane
    reason: str  # one sentence with the numbers
    min_trials: int = 1  # that a keep takes


def weigh(
    gain: float,
    se: float,
    df: int,
    *,
    n_trials: int,
    keep_z: float,
    bold: bool,
    margin: float,
    simplification: bool,
    identical: bool,
    last: bool,
) -> Judgement:
    """Judge a gain with standard error ``se``, whose sigma was estimated on ``df`` degrees of freedom.

    ``keep_z`` is the careful lane's A; ``margin`` is what a simplification may cost, in metric units;
    ``last`` says that no further trial will come.
    """
    drop_z = BOLD_Z if bold else DROP_Z
    needed = _boundary((BOLD_Z if bold else keep_z) / math.sqrt(n_trials), df)
    z, z_with_margin = gain / se, (gain + margin) / se
    if identical:
        verdict = "equivalent"
    elif z >= needed:
        verdict = "better"
    elif z_with_margin >= needed:
        verdict = "equivalent"
    else:
        verdict = "worse" if z <= -_boundary(WORSE_Z, df) else "inconclusive"
    ruling_z = z_with_margin if simplification else z
    if verdict == "better" or (simplification and verdict == "equivalent"):
        decision = "keep"
    elif identical or last or ruling_z < drop_z:
        decision = "discard"
    else:
        decision = "run"
    half_width = t_quantile(0.975, df) * se
    reason = (
        "the same metric as the incumbent at every seed: the change has no effect"
        if identical
        else f"gain {plain(gain, 4, '+')} +- {plain(half_width, 2)} (95 %) in {_trials(n_trials)}, "
        f"z = {ruling_z:.2f}{' with the margin' if simplification else ''}; "
        f"{needed:.2f} keeps, below {drop_z:.2f} drops"
    )
    return Judgement(
        decision=decision,
        verdict=verdict,
        n_trials=n_trials,
        gain=gain,
        gain_low=gain - half_width,
        gain_high=gain + half_width,
        se=se,
        z=z,
        z_needed=needed,
        z_drop=drop_z,
        boldness=float(bold),
        reason=f"{verdict}: {reason}",
    )


def weigh_without_noise(
    gain: float, step: float, *, n_trials: int, deterministic: bool, simplification: bool, last: bool
) -> Judgement:
    """Compare strictly; ``step`` is one unit of the printed metric's last decimal.

    In a deterministic training one run decides. Otherwise nothing has been repeated yet, the noise is
    unknown, and no single run can decide for the candidate.
    """
    verdict = "better" if gain > 0 else "worse" if gain < 0 else "equivalent"
    if deterministic:
        decision = "keep" if gain > 0 or (simplification and gain == 0) else "discard"
        reason = f"gain {gain:+.6g}; training is deterministic, so one run decides"
    else:
        verdict = "inconclusive"
        decision = "run" if gain > 0 and not last else "discard"
        reason = f"gain {gain:+.6g} of one run over one run, and the noise is not known"
    return Judgement(
        decision=decision,
        verdict=verdict,
        n_trials=n_trials,
        gain=gain,
        gain_low=gain,
        gain_high=gain,
        se=step,
        z=gain / step,
        z_needed=1.0,
        z_drop=1.0,
        boldness=0.0,
        reason=f"{verdict}: {reason}",
    )


def too_few(judgement: Judgement, least: int, *, last: bool) -> Judgement:
    """A keep on fewer than ``least`` trials, put off; no keep if it is the ``last`` one."""
    reason = f"{judgement.reason}; a keep takes {_trials(least)} (keep.min_seeds)"
    return replace(judgement, decision="discard" if last else "run", reason=reason)


def levelled_out(judgement: Judgement, least: int) -> Judgement:
    """What is left of a keep if the best ``least`` trials count as the last of them, with the words for it."""
    best = "the best trial counts" if least == 2 else f"the best {least - 1} trials count"
    reason = f"{judgement.reason}; {best} as the next best: a keep takes {least} good ones (keep.min_seeds)"
    return replace(judgement, min_trials=least, reason=reason)


def _boundary(z: float, df: int) -> float:
    """The normal boundary ``z``, for a sigma that is itself estimated on ``df`` degrees of freedom."""
    return min(t_boundary(z, df), BOUNDARY_CAP * z)


def _trials(count: int) -> str:
    return "1 trial" if count == 1 else f"{count} trials"
