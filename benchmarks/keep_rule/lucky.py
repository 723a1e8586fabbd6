"""A rare good tail: what does `min_seeds` refuse, and what does it cost?

    python benchmarks/keep_rule/lucky.py [--sessions 1000]

First one idea after a fresh baseline: with simulated noise, where one run of sixteen ends 3 to 5 sigma ahead, and with
recorded trainings of the rl starter (GAMMA = 0.99, LEARNING_RATE = 1e-3), of which a few do. Then whole campaigns in
the simulated world. All with the starter's baseline of five seeds and at most eight a candidate.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from autoresearch.verdict import KeepRule, RuleSettings
from rules import ScreenConfirmRetest
from world import Session, World

MIN_SEEDS = (1, 2, 3)
WAITING = -2  # a keep waits for two runs, and their mean decides as without min_seeds
BASELINE_SEEDS, MAX_SEEDS = 5, 8
TAIL = 1 / 16
# mean_return; an edit without effect, by symmetry, draws from the same distribution.
RECORDED = (
    -789.0, -852.0, -736.0, -784.0, -930.0, -643.0, -851.0, -463.0,  # the starter's code, seeds 1 to 16
    -794.0, -703.0, -815.0, -922.0, -829.0, -916.0, -723.0, -894.0,
    -713.0, -712.0, -859.0, -875.0, -1004.0, -722.0, -810.0, -925.0,  # initial weights with the opposite sign
    -878.0, -833.0, -867.0,  # their rows in reverse
)  # fmt: skip
CELLS = {
    "A/A": World(ideas=100), "A/A, tail": World(ideas=100, lucky_share=TAIL),
    "s/2": World(sigma=0.5), "s/2, tail": World(sigma=0.5, lucky_share=TAIL),
    "1": World(), "1, tail": World(lucky_share=TAIL),
    "declining": World(decline=(4.0, 0.25)), "declining, tail": World(decline=(4.0, 0.25), lucky_share=TAIL),
}  # fmt: skip


def settings(min_seeds: int) -> RuleSettings:
    return RuleSettings(baseline_seeds=BASELINE_SEEDS, min_seeds=max(min_seeds, 1), max_seeds=MAX_SEEDS)


# ---- one idea


def decide(min_seeds: int, losses: Iterator[float], gain: float, first: float | None) -> tuple[bool, int]:
    """Whether an idea that gains so much is kept, and its runs; ``first``: its first run, without the gain."""
    rule = KeepRule.start({seed: next(losses) for seed in range(1, BASELINE_SEEDS + 1)}, settings(min_seeds))
    while rule.retest_due:
        rule.add_incumbent_run(next(losses))
    runs: dict[int, float] = {}
    while True:
        lucky = first is not None and not runs
        runs[rule.next_seed(len(runs))] = (first if lucky else next(losses)) - gain
        decision = rule.judge(runs).decision
        if decision == "discard" or (decision == "keep" and len(runs) >= -min_seeds):
            return decision == "keep", len(runs)


def simulated(source: random.Random) -> Iterator[float]:
    while True:
        yield source.gauss(0, 1) - (source.uniform(3, 5) if source.random() < TAIL else 0.0)


def print_ideas(ideas: int) -> None:
    print(f"{'':34}" + "".join(f"{f'min_seeds {least}':>16}" for least in MIN_SEEDS) + f"{'2, only waiting':>18}")
    print(f"{'':34}" + f"{'kept    runs':>16}" * 3 + f"{'kept    runs':>18}")

    def row(name: str, gain: float, *, recorded: bool, lucky: bool = False) -> None:
        cells = []
        for least in (*MIN_SEEDS, WAITING):
            decided = []
            for number in range(ideas):
                source = random.Random(number)
                first = None if not lucky else source.gauss(0, 1) - source.uniform(3, 5)
                drawn = simulated(source)
                if recorded:
                    best, *others = sorted(-value for value in RECORDED)
                    first = best if lucky else None
                    left = others if lucky else [best, *others]
                    drawn = iter(source.sample(left, len(left)))
                decided.append(decide(least, drawn, gain, first))
            kept, runs = (statistics.fmean(column) for column in zip(*decided, strict=True))
            cells.append(f"{kept:.3f}  {runs:6.2f}")
        print(f"{name:34}" + "".join(f"{cell:>16}" for cell in cells[:3]) + f"{cells[3]:>18}", flush=True)

    row("simulated: lucky first run", 0.0, recorded=False, lucky=True)
    for gain in range(4):
        row(f"simulated: gain of {gain} sigma", gain, recorded=False)
    row("recorded: best run first", 0.0, recorded=True, lucky=True)
    for gain in (0.0, 150.0, 300.0):
        row(f"recorded: gain of {gain:g}", gain, recorded=True)


# ---- campaigns


@dataclass
class Counting(ScreenConfirmRetest):
    """The project's rule, with a count of what it decided and ran."""

    ideas: int = field(init=False, default=0)
    trials: int = field(init=False, default=0)
    kept_falsely: int = field(init=False, default=0)  # taken back later or not

    def decide(self, session: Session) -> bool:
        before = session.spent
        kept = super().decide(session)
        self.ideas += 1
        self.trials += round(session.spent - before)
        self.kept_falsely += kept and session.idea_gain <= 0
        return kept


def print_simulated(sessions: int) -> None:
    print(f"\nsimulated, {sessions} sessions a cell; columns as in run.py, false keeps also while they stood")
    print(
        f"{'':16}{'min_seeds':>10}{'gain per 100 runs':>20}{'keeps':>8}{'false':>7}"
        f"{'ever':>7}{'optimism':>10}{'runs':>7}"
    )
    for name, world in CELLS.items():
        for least in MIN_SEEDS:
            gains, keeps, false, ever, optimism, ideas, trials = [], 0, 0, 0, [], 0, 0
            for number in range(sessions):
                session, rule = Session(world, number), Counting(settings(least))
                session.play(rule)
                gains.append(100 * session.gain / world.budget)
                keeps += len(session.kept)
                false += sum(gain <= 0 for gain in session.kept)
                ever += rule.kept_falsely
                optimism.append((rule.reported_gain() - session.gain) / world.sigma)
                ideas, trials = ideas + rule.ideas, trials + rule.trials
            se = statistics.stdev(gains) / math.sqrt(sessions)
            print(
                f"{name:16}{least:10}{statistics.fmean(gains):13.2f} ±{se:5.2f}{keeps / sessions:8.2f}"
                f"{false / max(keeps, 1):7.2f}{ever / sessions:7.2f}{statistics.fmean(optimism):10.2f}"
                f"{trials / ideas:7.2f}",
                flush=True,
            )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--sessions", type=int, default=1000, help="a cell (default: %(default)s)")
    sessions = parser.parse_args().sessions
    print_ideas(sessions)
    print_simulated(sessions)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
