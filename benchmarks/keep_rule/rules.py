"""The rules that are compared: the project's own and those that public autoresearch loops use."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field

from autoresearch.verdict import KeepRule, RuleSettings
from autoresearch.verdict.keep_rule import PRESETS
from autoresearch.verdict.student_t import t_quantile
from world import Rule, Session

FIXED_SEED = 42


@dataclass
class ScreenConfirmRetest:
    """The project's rule; a thin driver around the very class that campaigns use.

    ``idle_share``: free runs of the incumbent for every paid run, in the time the agent thinks.
    """

    settings: RuleSettings = field(default_factory=RuleSettings)
    preset: str = ""  # "short" is chosen from the baseline and cannot be asked for
    idle_share: float = 0.0
    rule: KeepRule = field(init=False)
    idle_used: int = field(init=False, default=0)

    def set_up(self, session: Session) -> None:
        seeds = range(1, self.settings.baseline_seeds + 1)
        self.rule = KeepRule.start({seed: session.run_incumbent(seed) for seed in seeds}, self.settings)
        if self.preset:
            self.rule.preset = self.preset
            self.rule.noise.rho_prior = PRESETS[self.preset].rho_prior
        self._retest(session)

    def decide(self, session: Session) -> bool:
        runs: dict[int, float] = {}
        decision = "run"
        while decision == "run":
            seed = self.rule.next_seed(len(runs))
            runs[seed] = session.run_idea(seed)
            decision = self.rule.judge(runs).decision
        kept = decision == "keep"
        if self.rule.close(runs, kept=kept):
            session.undo()
        return kept

    def after(self, session: Session) -> None:
        self._retest(session)
        while self.idle_used + 1 <= self.idle_share * session.spent:
            self.idle_used += 1
            self._learn(session, session.run_incumbent(self.rule.retest_seed(), free=True))

    def reported_gain(self) -> float:
        return self.rule.credited_gain

    def _retest(self, session: Session) -> None:
        while self.rule.retest_due:
            self._learn(session, session.run_incumbent(self.rule.retest_seed()))

    def _learn(self, session: Session, loss: float) -> None:
        if self.rule.add_incumbent_run(loss):
            session.undo()


class _NoAfter:
    def after(self, session: Session) -> None:
        """These rules never look at the incumbent again."""


@dataclass
class Greedy(_NoAfter):
    """One run at a fixed seed; keep if it beats the record by ``margin`` baseline standard deviations."""

    margin: float = 0.0
    record: float = field(init=False)
    baseline: float = field(init=False)
    needed: float = field(init=False, default=0.0)

    def set_up(self, session: Session) -> None:
        if self.margin:
            runs = [session.run_incumbent(seed) for seed in (FIXED_SEED, FIXED_SEED + 1, FIXED_SEED + 2)]
            self.needed = self.margin * statistics.stdev(runs)
            self.record = self.baseline = statistics.fmean(runs)
        else:
            self.record = self.baseline = session.run_incumbent(FIXED_SEED)

    def decide(self, session: Session) -> bool:
        loss = session.run_idea(FIXED_SEED)
        kept = loss < self.record - self.needed
        if kept:
            self.record = loss
        return kept

    def reported_gain(self) -> float:
        return self.baseline - self.record


@dataclass
class MadConfidence(Greedy):
    """Greedy, with a second run where |record - baseline| is below one MAD of all results so far."""

    results: list[float] = field(init=False, default_factory=list)

    def set_up(self, session: Session) -> None:
        super().set_up(session)
        self.results.append(self.baseline)

    def decide(self, session: Session) -> bool:
        loss = session.run_idea(FIXED_SEED)
        self.results.append(loss)
        if loss >= self.record:
            return False
        if self._confidence(loss) < 1:
            again = session.run_idea(FIXED_SEED)
            self.results.append(again)
            loss = (loss + again) / 2
        kept = loss < self.record
        if kept:
            self.record = loss
        return kept

    def _confidence(self, record: float) -> float:
        if len(self.results) < 3:
            return math.inf
        middle = statistics.median(self.results)
        mad = statistics.median(abs(result - middle) for result in self.results)
        return abs(record - self.baseline) / mad if mad else math.inf


@dataclass
class SeveralSeeds(_NoAfter):
    """Base of the rules that hold several runs of the incumbent, by seed, and take them over from a keep."""

    seeds: int
    incumbent: dict[int, float] = field(init=False)
    baseline: float = field(init=False)

    def set_up(self, session: Session) -> None:
        self.incumbent = {seed: session.run_incumbent(seed) for seed in range(1, self.seeds + 1)}
        self.baseline = self.level

    @property
    def level(self) -> float:
        return statistics.fmean(self.incumbent.values())

    def reported_gain(self) -> float:
        return self.baseline - self.level


@dataclass
class Bootstrap(SeveralSeeds):
    """Three seeds; the first run must beat the incumbent's mean, then 95 % of all bootstrap means must."""

    seeds: int = 3

    def decide(self, session: Session) -> bool:
        runs = {1: session.run_idea(1)}
        if runs[1] > self.level:
            return False
        runs |= {seed: session.run_idea(seed) for seed in range(2, self.seeds + 1)}
        ours, theirs = _bootstrap_sums(runs), _bootstrap_sums(self.incumbent)
        wins = sum(mine < other for mine in ours for other in theirs)
        kept = wins >= 0.95 * len(ours) * len(theirs)
        if kept:
            self.incumbent = runs
        return kept


def _bootstrap_sums(runs: dict[int, float]) -> list[float]:
    return [sum(draw) for draw in itertools.product(runs.values(), repeat=len(runs))]


@dataclass
class PairedT(SeveralSeeds):
    """Always n runs at the incumbent's seeds; keep if the one-sided paired t-test has p < .05."""

    seeds: int = 5

    def decide(self, session: Session) -> bool:
        runs = {seed: session.run_idea(seed) for seed in self.incumbent}
        gains = [self.incumbent[seed] - loss for seed, loss in runs.items()]
        standard_error = statistics.stdev(gains) / math.sqrt(len(gains))
        kept = statistics.fmean(gains) >= t_quantile(0.95, len(gains) - 1) * standard_error
        if kept:
            self.incumbent = runs
        return kept


@dataclass
class KeepGate(SeveralSeeds):
    """Up to three runs against the incumbent's mean, in pooled sigma.

    Keep above 2 sigma once a second run confirms, discard below -1 sigma, after three runs keep above
    sigma / sqrt(3). The new incumbent is topped up to three runs.
    """

    seeds: int = 3
    squares: float = field(init=False, default=0.0)
    df: int = field(init=False, default=0)

    def set_up(self, session: Session) -> None:
        super().set_up(session)
        self._pool(self.incumbent)

    def _pool(self, runs: dict[int, float]) -> None:
        mean = statistics.fmean(runs.values())
        self.squares += sum((loss - mean) ** 2 for loss in runs.values())
        self.df += len(runs) - 1

    def decide(self, session: Session) -> bool:
        sigma = math.sqrt(self.squares / self.df)
        runs: dict[int, float] = {}
        promising = kept = False
        for seed in range(1, 4):
            runs[seed] = session.run_idea(seed)
            z = (self.level - statistics.fmean(runs.values())) / sigma
            if seed == 1:
                promising = z >= 2
            kept = (seed == 2 and (z >= 2 or (promising and z > 0))) or (seed == 3 and z >= 1 / math.sqrt(3))
            if kept or z < -1:
                break
        self._pool(runs)
        if kept:
            self.incumbent = runs
        return kept

    def after(self, session: Session) -> None:
        for seed in range(len(self.incumbent) + 1, self.seeds + 1):
            self.incumbent[seed] = session.run_incumbent(seed)


def ours(boldness: str = "default", *, preset: str = "", idle_share: float = 0.0) -> Callable[[], Rule]:
    return lambda: ScreenConfirmRetest(RuleSettings(boldness=boldness), preset, idle_share)


RULES: dict[str, Callable[[], Rule]] = {
    "strict less (greedy)": Greedy,
    "margin of one sigma": lambda: Greedy(margin=1.0),
    "MAD confidence": MadConfidence,
    "bootstrap, 3 seeds": Bootstrap,
    "keep gate, <= 3 runs": KeepGate,
    "paired t-test, 5 seeds": PairedT,
    "ours: default": ours(),
    "ours: strict": ours("strict"),
    "ours: fast": ours("fast"),
    "ours: short preset": ours(preset="short"),
    "ours: default + idle runs": ours(idle_share=0.15),
}
