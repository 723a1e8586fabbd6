"""Screen - Confirm - Re-test: which experiment to keep when every run is noisy.

Three runs of the baseline tell the noise. One run screens an idea; if it looks better it is run again,
up to six times, and it is kept when the evidence is strong enough for the number of runs. Only part of
a win is booked, because the winner of a noisy race was lucky. Every miss says a little about the
incumbent; after eight misses it is run again, and if it turns out no better than the code before it,
the keep is undone.

The rule is a pure state machine over ``{seed: metric}``: it starts no run and reads no file. Whoever
drives it runs what it asks for, books each decision with ``close`` and stores ``to_json()``::

    rule = KeepRule.start(baseline_runs, RuleSettings(direction="lower"))
    while rule.retest_due: ...                # see below; a baseline that tells too little asks for more
    runs[rule.next_seed(0)] = ...             # one trial
    judgement = rule.judge(runs)              # "run": one more trial at rule.next_seed(1); else decided
    if rule.close(runs, kept=judgement.decision == "keep"):
        ...                                   # go back to the code before the last keep
    while rule.retest_due:
        rule.add_incumbent_run(...)           # the incumbent's metric at rule.retest_seed()

Inside, lower is better: a loss is the metric itself, or its negative where higher is better.
``benchmarks/keep_rule`` measures this very code against other rules, and says where each step comes from.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from statistics import fmean, median
from typing import Any, Self

from autoresearch.verdict.belief import Belief, FirstRuns
from autoresearch.verdict.judgement import Judgement, levelled_out, too_few, weigh, weigh_without_noise
from autoresearch.verdict.noise import OPEN_MIND, SEED_DECIDES, Noise, stray_bound
from autoresearch.verdict.runs import as_losses, by_seed, level_best, printed_step, span

CREDIT_SHARE = 6.0  # of a win with z, z^2 / (z^2 + 6) is booked: z = 2 -> 40 %, z = 4 -> 73 %
LUCK_LEFT = 0.6  # share of the variance of the candidate's own mean that stays in the belief after a keep
KNOWN_WELL = 0.06  # level variance (sigma^2) below which another re-test does not pay
UNDO_Z = -0.6  # a keep is undone once it no longer looks this much better than the incumbent before it
MARGIN_SIGMAS = 1.0  # what all simplifications of a campaign together may cost
UNCLEAR_RATIO = 6.0  # of three baseline runs: the far one's residual against that of the two close ones
NEARLY_EQUAL = 1e-5  # baseline seeds that agree to five digits: training is nearly deterministic
SEEDS_IN_ROTATION = 6  # unless more are asked for
HIGH_RHO, PAIRS_FOR_RHO = 0.85, 4  # from here on the pairs show that the seed decides


@dataclass(frozen=True, kw_only=True)
class Preset:
    """How boldly to decide.

    ``keep_z``: keep after n runs at z >= keep_z / sqrt(n), the shape that dynamic programming gives.
    ``bold_from``: one run decides while first runs typically lie this many sigma off (infinity: never).
    ``rho_prior``: see ``Noise``.
    """

    keep_z: float
    bold_from: float = math.inf
    rho_prior: tuple[tuple[float, float], ...] = OPEN_MIND


PRESETS = {
    "strict": Preset(keep_z=2.5),
    "default": Preset(keep_z=2.0),
    "fast": Preset(keep_z=2.5, bold_from=1.7),
    # Short, nearly deterministic trainings: chosen from the baseline, never asked for.
    "short": Preset(keep_z=2.5, bold_from=1.4, rho_prior=SEED_DECIDES),
}
BOLDNESS = ("strict", "default", "fast")
DIRECTIONS = ("lower", "higher")


@dataclass(frozen=True, kw_only=True)
class RuleSettings:
    """What a campaign may choose; the rest is measured.

    A keep takes ``min_seeds`` good runs. ``retest_every`` is the number of misses in a row after which the
    incumbent is run again; 0 = never.
    """

    boldness: str = "default"
    baseline_seeds: int = 3
    min_seeds: int = 1
    max_seeds: int = 6
    retest_every: int = 8
    direction: str = "lower"

    def __post_init__(self) -> None:
        if self.boldness not in BOLDNESS:
            raise ValueError(f"boldness must be one of {', '.join(BOLDNESS)}; got {self.boldness!r}")
        if self.direction not in DIRECTIONS:
            raise ValueError(f"direction must be one of {', '.join(DIRECTIONS)}; got {self.direction!r}")
        if self.baseline_seeds < 1 or not 1 <= self.min_seeds <= self.max_seeds or self.retest_every < 0:
            raise ValueError(f"seeds must be at least 1, retest_every at least 0, min_seeds <= max_seeds; got {self}")


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A candidate against the incumbent: gain and standard error, and the candidate's loss behind them."""

    gain: float
    se: float
    loss: float


@dataclass(frozen=True, kw_only=True)
class Earlier:
    """The incumbent before the last keep, to go back to."""

    level: float
    level_var: float
    runs: dict[int, float]


@dataclass(kw_only=True)
class KeepRule:
    """The state of the rule; make one with ``start`` or ``from_json``.

    ``seed_slots`` are the seeds in the order in which candidates use them: those at which the incumbent
    has run come first, since the comparison at equal seeds is free.
    """

    settings: RuleSettings
    preset: str
    noise: Noise
    belief: Belief
    first_runs: FirstRuns
    baseline_level: float  # as a loss
    incumbent_runs: dict[int, float]  # as losses
    seed_slots: list[int]
    fresh_seed: int  # the smallest seed that no code has run at
    ideas: int = 0  # decided so far
    standing_keeps: int = 0  # between the baseline and the incumbent
    misses: int = 0  # since the last keep or re-test
    booked_loss: float = 0.0  # what kept simplifications have cost so far
    earlier: Earlier | None = None
    stray_seeds: list[int] = field(default_factory=list)  # where the incumbent fell too far off to be used

    @classmethod
    def start(cls, baseline: Mapping[int, float], settings: RuleSettings) -> Self:
        """Begin with the metrics of the unchanged code; seeds whose trial failed are simply absent.

        If these tell too little (one run, or one far from two close ones), ``retest_due`` asks for more.
        """
        runs = as_losses(baseline, settings.direction)
        preset = settings.boldness
        level = fmean(runs.values())
        if preset != "strict" and len(runs) > 1 and span(runs.values()) <= NEARLY_EQUAL * abs(level):
            preset = "short"
        fresh_seed = max(runs) + 1
        spare = range(fresh_seed, fresh_seed + max(SEEDS_IN_ROTATION, settings.max_seeds) - len(runs))
        rule = cls(
            settings=settings,
            preset=preset,
            noise=Noise(rho_prior=PRESETS[preset].rho_prior),
            belief=Belief(level=level, level_var=1 / len(runs)),
            first_runs=FirstRuns.expecting(0.0),
            baseline_level=level,
            incumbent_runs=runs,
            seed_slots=[*runs, *spare],
            fresh_seed=fresh_seed + len(spare),
        )
        rule._learn_from_baseline()
        return rule

    # ---- what is known

    @property
    def sigma(self) -> float:
        """Standard deviation of one run, in the metric's units; strays do not count."""
        return self.noise.sigma

    @property
    def sigma_df(self) -> int:
        """Degrees of freedom that sigma rests on; 0 = one run so far, nothing is known."""
        return self.noise.df

    @property
    def rho(self) -> float:
        """How far a seed's luck carries over from one code to another, 0..1."""
        return self.noise.rho

    @property
    def deterministic(self) -> bool:
        """At least two runs of one code, and never a difference: the seed changes nothing."""
        return self.noise.df > 0 and self.noise.sigma == 0

    @property
    def incumbent_level(self) -> float:
        """Best estimate of the incumbent's metric: wins are booked in part, so this is no record."""
        return self._sign * self.belief.level

    @property
    def incumbent_se(self) -> float:
        return self.sigma * math.sqrt(self.belief.level_var)

    @property
    def credited_gain(self) -> float:
        """How much better than the baseline the incumbent is believed to be, in metric units."""
        return self.baseline_level - self.belief.level

    @property
    def boldness(self) -> float:
        """1 in the bold lane, where one run decides because effects are large against the noise; else 0.

        ``fast`` opens it. ``default`` does too once pairs at equal seeds have shown that the seed is most
        of the noise, since one paired run then says nearly everything.
        """
        bold_from = PRESETS[self.preset].bold_from
        if self.preset != "strict" and self.noise.pairs_df >= PAIRS_FOR_RHO and self.rho > HIGH_RHO:
            bold_from = min(bold_from, PRESETS["short"].bold_from)
        return float(self.sigma > 0 and self.first_runs.typical_effect >= bold_from * self.sigma)

    # ---- what to run and what to decide

    def next_seed(self, n_done: int) -> int:
        """The seed for a candidate's next trial, after ``n_done`` trials (failed ones count)."""
        beyond = n_done - len(self.seed_slots)
        return self.seed_slots[n_done] if beyond < 0 else self.fresh_seed + beyond

    def judge(self, runs: Mapping[int, float], *, simplification: bool = False, last: bool = False) -> Judgement:
        """Decide on a candidate from its metrics so far, ``{seed: value}`` with at least one.

        With ``simplification`` it is enough to be no worse than the margin: one sigma, less what earlier
        simplifications have cost. ``last`` says that no further trial is possible (the budget is spent,
        the remaining seeds failed): undecided becomes discard. Changes nothing.

        With ``min_seeds`` above 1 a keep waits for that many runs. It must then hold as well if all better ones
        were only as good as the last of the best ``min_seeds``: one run from a rare good tail keeps nothing.
        """
        losses, least = self._losses(runs), self.settings.min_seeds
        last = last or len(losses) >= self.settings.max_seeds
        judgement = replace(self._weigh(losses, simplification=simplification, last=last), min_trials=least)
        if judgement.decision != "keep" or least == 1:
            return judgement
        if len(losses) < least:
            return too_few(judgement, least, last=last)
        sober = self._weigh(losses, simplification=simplification, last=last, levelled=least)
        return judgement if sober.decision == "keep" else levelled_out(sober, least)

    def _weigh(self, losses: Mapping[int, float], *, simplification: bool, last: bool, levelled: int = 1) -> Judgement:
        sigma, df = self.sigma, self.sigma_df
        if sigma == 0 and len(losses) > 1:  # a baseline of one run or without a spread: the candidate's has to do
            own = Noise()
            own.add_repeats(list(losses.values()))
            sigma, df = own.sigma, own.df
        estimate = self._estimate(losses, sigma, levelled)
        if sigma == 0:
            return weigh_without_noise(
                estimate.gain,
                printed_step([*losses.values(), *self.incumbent_runs.values()]),
                n_trials=len(losses),
                deterministic=df > 0,
                simplification=simplification,
                last=last,
            )
        return weigh(
            estimate.gain,
            estimate.se,
            df,
            n_trials=len(losses),
            keep_z=PRESETS[self.preset].keep_z,
            bold=self.boldness == 1,
            margin=max(MARGIN_SIGMAS * sigma - self.booked_loss, 0.0),
            simplification=simplification,
            identical=all(self.incumbent_runs.get(seed) == loss for seed, loss in losses.items()),
            last=last,
        )

    def close(self, runs: Mapping[int, float], *, kept: bool, simplification: bool = False) -> bool:
        """Book the decision on a candidate that had at least one metric; once for each candidate.

        Returns True if the last keep must now be undone: the evidence since says that it is no better
        than the code before it. The rule has then already gone back to that earlier incumbent.
        """
        losses = self._losses(runs)
        seed, loss = next(iter(losses.items()))
        rho = self.rho if seed in self.incumbent_runs else 0.0
        first = self._estimate({seed: loss}, 1.0)
        self.first_runs.add_effect(abs(first.gain) / first.se)
        self.noise.add_repeats(list(losses.values()))
        self.noise.add_pairs(losses, self.incumbent_runs)
        self.ideas += 1
        if kept:
            self._advance(losses, simplification)
            return False
        self.misses += 1
        if self.sigma > 0:
            self._learn_from_miss(loss - rho * self.incumbent_runs.get(seed, 0.0), rho)
        self._set_strays_aside()
        return self._undo_if_no_better()

    def close_elsewhere(self, runs: Mapping[int, float]) -> None:
        """Book a rejected candidate that was made beside another incumbent than the present one.

        What its repeats say of the noise holds for any code. Its pairs, its distance from the incumbent and
        its being a miss belong to the code before: they tell nothing of this one.
        """
        self.noise.add_repeats(list(self._losses(runs).values()))
        self.ideas += 1

    @property
    def retest_due(self) -> bool:
        """Whether the incumbent itself should be run next, at ``retest_seed()``."""
        if not self.settings.retest_every or self.deterministic:
            return False
        if self.sigma_df == 0 or (self.ideas == 0 and self._baseline_is_unclear):
            return True
        patience = self.settings.retest_every * (2 if self.boldness else 1)
        return self.misses >= patience and self.belief.level_var > KNOWN_WELL

    def retest_seed(self) -> int:
        """A seed never used before: another look at an old one would repeat its luck."""
        return self.fresh_seed

    def add_incumbent_run(self, value: float) -> bool:
        """Take in the incumbent's metric at ``retest_seed()``, when due or whenever the device is idle.

        That seed becomes the next screening seed. Returns True if the last keep must now be undone.
        """
        seed = self.fresh_seed
        loss = self._losses({seed: value})[seed]
        self.fresh_seed += 1
        self.misses = 0
        if self.ideas == 0:  # simply one more baseline run
            self.incumbent_runs[seed] = loss
            self._put_first(self.incumbent_runs)
            self._learn_from_baseline()
            return False
        limit = stray_bound(self.sigma_df) * self.sigma if self.sigma > 0 else math.inf
        surprise = self.belief.see_incumbent(loss, limit)
        self.noise.add_residual(surprise)
        if abs(surprise) <= limit:
            self.incumbent_runs.pop(self.seed_slots[-1], None)
            self.incumbent_runs[seed] = loss
            self._put_first([seed])
        else:
            self.stray_seeds.append(seed)
        self._set_strays_aside()
        return self._undo_if_no_better()

    # ---- storage

    def to_json(self) -> dict[str, Any]:
        """The whole state as numbers, strings, lists and dicts, for ``json.dumps`` and ``from_json``."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Self:
        """The rule that ``to_json`` described, deciding exactly as it would have.

        JSON has only text as keys, so seeds may come as text.
        """
        earlier = data["earlier"]
        parts = {
            "settings": RuleSettings(**data["settings"]),
            "noise": Noise.from_json(data["noise"], PRESETS[data["preset"]].rho_prior),
            "belief": Belief(**data["belief"]),
            "first_runs": FirstRuns(**data["first_runs"]),
            "incumbent_runs": by_seed(data["incumbent_runs"]),
            "seed_slots": list(data["seed_slots"]),
            "stray_seeds": list(data["stray_seeds"]),
            "earlier": earlier and Earlier(**{**earlier, "runs": by_seed(earlier["runs"])}),
        }
        return cls(**{**data, **parts})

    # ---- the steps

    def _estimate(self, losses: Mapping[int, float], sigma: float, levelled: int = 1) -> Estimate:
        """The candidate's gain over the incumbent, at equal seeds where the incumbent has run them.

        A seed's luck, as far as rho carries it over, is taken off the candidate's run. The standard error
        counts the incumbent's own uncertainty too. The best ``levelled`` runs count as the last of them.
        """
        rho, level, incumbent = self.rho, self.belief.level, self.incumbent_runs
        count, paired = len(losses), sum(seed in incumbent for seed in losses) / len(losses)
        own = [loss - rho * (incumbent.get(seed, level) - level) for seed, loss in losses.items()]
        loss = self._mean(level_best(own, levelled))
        variance = (1 - rho * paired) ** 2 * self.belief.level_var + (1 - rho * rho * paired) / count
        return Estimate(gain=level - loss, se=sigma * math.sqrt(variance), loss=loss)

    def _mean(self, values: Sequence[float]) -> float:
        """The mean of a candidate's runs, each pulled in to where noise could have put it."""
        if len(values) < 3 or self.sigma == 0:
            return fmean(values)
        middle, limit = median(values), stray_bound(self.sigma_df) * self.sigma
        return middle + fmean(min(max(value - middle, -limit), limit) for value in values)

    def _advance(self, losses: dict[int, float], simplification: bool) -> None:
        """Make the candidate the incumbent, and book only the part of its win that is likely real.

        Winner's curse: of a win with z, the share z^2 / (z^2 + 6) is credited. The candidate's own mean is
        weighed against that credit by the variances of the two. A simplification's loss is booked as
        measured, and it cannot be undone: it was not kept for being better.
        """
        belief, estimate = self.belief, self._estimate(losses, self.sigma)
        before = Earlier(level=belief.level, level_var=belief.level_var, runs=self.incumbent_runs)
        share = 1.0
        if estimate.se > 0:
            z2 = (estimate.gain / estimate.se) ** 2
            share = z2 / (z2 + CREDIT_SHARE)
        credited = belief.level - max(estimate.gain, 0.0) * share
        own_var = 1 / len(losses)
        trust = belief.level_var / (belief.level_var + own_var)
        belief.level = credited + trust * (estimate.loss - credited)
        belief.level_var = (trust + LUCK_LEFT * (1 - trust)) * own_var
        belief.cov *= 1 - trust
        if simplification:
            self.booked_loss += max(belief.level - before.level, 0.0)
        self.earlier = None if simplification else before
        self.incumbent_runs = losses
        self.standing_keeps += 1
        self.misses = 0
        self._put_first(reversed(losses))
        self.fresh_seed = max(self.fresh_seed, max(losses) + 1)

    def _learn_from_miss(self, loss: float, rho: float) -> None:
        """A rejected first run, less its seed's luck, is a weak re-test of the incumbent, and free."""
        noise_var = max(self.first_runs.variance / self.sigma**2, 1 - rho * rho)
        self.first_runs.add_square(self.belief.see_rejected(loss, 1 - rho, noise_var, self.sigma))

    def _undo_if_no_better(self) -> bool:
        """Go back to the incumbent before the last keep if this one no longer looks better than that."""
        before = self.earlier
        if before is None:
            return False
        unsure = (1 - self.rho) * self.sigma * math.sqrt(self.belief.level_var + before.level_var)
        if self.belief.level - before.level <= UNDO_Z * unsure:
            return False
        self.belief.restart(before.level, before.level_var)
        self.incumbent_runs = before.runs
        self.standing_keeps -= 1
        self.earlier = None
        return True

    @property
    def _baseline_is_unclear(self) -> bool:
        """Three runs, one far from two close ones: is it a stray, or do the two agree by chance?"""
        residuals = self.noise.residuals
        return len(residuals) == 2 and max(residuals) > UNCLEAR_RATIO * min(residuals)

    def _learn_from_baseline(self) -> None:
        """Noise and level from the baseline's runs, before the first idea."""
        self.noise.replace_repeats(list(self.incumbent_runs.values()))
        self.first_runs = FirstRuns.expecting(self.sigma)
        self._set_strays_aside()
        self._rest_on_baseline()

    def _rest_on_baseline(self) -> None:
        self.baseline_level = fmean(self.incumbent_runs.values())
        self.belief.restart(self.baseline_level, 1 / len(self.incumbent_runs))

    def _set_strays_aside(self) -> None:
        """Take seeds at which the incumbent fell far off out of the comparison.

        Such a run says nothing about the code (an initialisation that trains badly, two jobs on one GPU),
        and one of them in the baseline would make every later idea look like a discovery.
        """
        runs = self.incumbent_runs
        if len(runs) < 3 or self.sigma == 0:
            return
        middle, limit = median(runs.values()), stray_bound(self.sigma_df) * self.sigma
        strays = [seed for seed, loss in runs.items() if abs(loss - middle) > limit]
        if not strays or 2 * len(strays) >= len(runs):
            return  # without a majority there is nothing to be far off from
        self.stray_seeds += strays
        self.incumbent_runs = {seed: loss for seed, loss in runs.items() if seed not in strays}
        usable = [seed for seed in self.seed_slots if seed not in strays]
        spare = range(self.fresh_seed, self.fresh_seed + len(self.seed_slots) - len(usable))
        self.seed_slots = [*usable, *spare]
        self.fresh_seed += len(spare)
        if self.standing_keeps == 0:
            self._rest_on_baseline()

    def _put_first(self, seeds: Iterable[int]) -> None:
        """Let candidates begin with ``seeds``; as many others drop out at the end as come new."""
        first = list(seeds)
        rest = [seed for seed in self.seed_slots if seed not in first]
        self.seed_slots = [*first, *rest][: max(len(self.seed_slots), len(first))]

    @property
    def _sign(self) -> int:
        return 1 if self.settings.direction == "lower" else -1

    def _losses(self, values: Mapping[int, float]) -> dict[int, float]:
        return as_losses(values, self.settings.direction)
