"""Compare keep rules on true gain per run: python benchmarks/keep_rule/run.py [--quick]

Prints one table for each question (true gain, false keeps, optimism, A/A). Every rule meets the same ideas.
The project's rules are the very class that campaigns use. README.md says what was found.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))

from rules import RULES
from world import Session, World

SIGMAS = (0.25, 0.5, 1.0, 2.0, 4.0)
CELLS: dict[str, World] = {
    **{f"{sigma:g}": World(sigma=sigma) for sigma in SIGMAS},
    "declining": World(decline=(4.0, 0.25)),
    **{f"r.9 {sigma:g}": World(sigma=sigma, rho=0.9) for sigma in SIGMAS},
    "A/A": World(ideas=100),
    "stray 1": World(spike_share=0.04),
    "stray A/A": World(ideas=100, spike_share=0.04),
}
LONG_CELLS = {f"{sigma:g}": World(sigma=sigma, budget=900.0) for sigma in SIGMAS[1:]}
LONG_RULES = ("strict less (greedy)", "keep gate, <= 3 runs", "ours: default", "ours: strict", "ours: fast")
LONG_SHARE = 10  # long sessions cost nine times as much and vary less: one in ten


@dataclass(frozen=True)
class Outcome:
    """What many sessions of one rule in one world came to."""

    gain: float  # true gain for every 100 runs
    gain_se: float
    keeps: float  # standing at the end, for each session
    false_share: float  # of the standing keeps, with a true gain of 0 or less
    optimism: float  # reported less true gain, in sigma
    reported_95: float  # 95 % quantile of the reported gain, in sigma


def play(rule: str, world: World, sessions: int) -> Outcome:
    gains, keeps, false, reported, optimism = [], 0, 0, [], []
    for number in range(sessions):
        session, contender = Session(world, number), RULES[rule]()
        session.play(contender)
        gains.append(100 * session.gain / world.budget)
        keeps += len(session.kept)
        false += sum(gain <= 0 for gain in session.kept)
        reported.append(contender.reported_gain() / world.sigma)
        optimism.append(reported[-1] - session.gain / world.sigma)
    return Outcome(
        gain=statistics.fmean(gains),
        gain_se=statistics.stdev(gains) / math.sqrt(sessions),
        keeps=keeps / sessions,
        false_share=false / max(keeps, 1),
        optimism=statistics.fmean(optimism),
        reported_95=sorted(reported)[int(0.95 * (sessions - 1))],
    )


Results = dict[tuple[str, str], Outcome]


def print_table(
    title: str, results: Results, rules: Sequence[str], cells: Sequence[str], show: Callable[[Outcome], float]
) -> None:
    print(f"\n{title}")
    print(f"{'':26}" + "".join(f"{cell:>10}" for cell in cells))
    for rule in rules:
        print(f"{rule:26}" + "".join(f"{show(results[rule, cell]):10.2f}" for cell in cells))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="30 sessions a cell and no long ones (< 20 s)")
    parser.add_argument("--sessions", type=int, default=500, help="sessions a cell (default: %(default)s)")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args()
    sessions = 30 if options.quick else options.sessions
    started = time.monotonic()

    jobs = [(rule, world, sessions) for rule in RULES for world in CELLS.values()]
    keys = [(rule, cell) for rule in RULES for cell in CELLS]
    long_rules = () if options.quick else LONG_RULES
    jobs += [(rule, world, max(sessions // LONG_SHARE, 2)) for rule in long_rules for world in LONG_CELLS.values()]
    keys += [(rule, f"long {cell}") for rule in long_rules for cell in LONG_CELLS]
    with multiprocessing.get_context("spawn").Pool(options.processes) as pool:
        results: Results = dict(zip(keys, pool.starmap(play, jobs, chunksize=1), strict=True))

    rules, plain = list(RULES), [f"{sigma:g}" for sigma in SIGMAS]
    paired = [cell for cell in CELLS if cell.startswith("r.9")]
    ordinary = [*plain, "declining", *paired, "stray 1"]
    print(f"Columns: sigma / s; budget 100 runs; r.9: same-seed correlation 0.9; {sessions} sessions a cell.")
    print("stray: 4 % of the seeds end 6 to 30 sigma behind, for every code.")
    print_table("True gain for every 100 runs, in s", results, rules, ordinary, lambda x: x.gain)
    print_table("... its standard error", results, rules[:1], ordinary, lambda x: x.gain_se)
    print_table("Share of the standing keeps that are false", results, rules, ordinary, lambda x: x.false_share)
    print_table("Optimism: reported less true gain, in sigma", results, rules, ordinary, lambda x: x.optimism)
    no_gain = ["A/A", "stray A/A"]
    print_table("A/A, 100 empty ideas: standing keeps", results, rules, no_gain, lambda x: x.keeps)
    print_table("A/A: reported gain, in sigma", results, rules, no_gain, lambda x: x.optimism)
    print_table("A/A: its 95 % quantile", results, rules, no_gain, lambda x: x.reported_95)
    if long_rules:
        for title, show in (
            ("True gain for every 100 runs", lambda x: x.gain),
            ("Optimism", lambda x: x.optimism),
        ):
            long = {(rule, cell): results[rule, f"long {cell}"] for rule in long_rules for cell in LONG_CELLS}
            print_table(f"{title}, budget 900 runs, rho 0", long, long_rules, list(LONG_CELLS), show)
    print(f"\n{time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
