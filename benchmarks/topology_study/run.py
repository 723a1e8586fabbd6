"""Ring, expander, dense or none: which graph should nodes, or experts, talk over?

    python benchmarks/topology_study/run.py                        what is missing, then the tables
    python benchmarks/topology_study/run.py --report               the tables of what is there
    python benchmarks/topology_study/run.py --only "regions, N = 64"
    python benchmarks/topology_study/run.py --quick --out /tmp/q   a few optimiser steps each: does it run?

The trainings are those of templates/starters/topology, on one thread of the CPU, and each is kept as a line
of results.jsonl when it ends, so that an interrupted study goes on where it stopped. Needs torch and scipy.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, stdev

import torch

from analysis import Arm, compare_pairs, order_stability, paired_tests, unpaired_p

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "templates" / "starters" / "topology"))

import prepare
import train

RESULTS = Path(__file__).resolve().parent / "results.jsonl"
SEEDS = range(11, 19)  # with eight pairs Wilcoxon's p reaches 0.0078: below 5 % for the best of six comparisons
FEW_SEEDS = range(11, 16)  # for traps
LEARNING_RATE = 0.01  # for all; the better of the two that were tried, 0.003 and 0.01, at seeds 1 and 2
# Optimiser steps and batch, by size. 256 nodes propagate over 66 steps, and a batch costs accordingly.
OPTIMISER_STEPS = {64: 200, 256: 100}
BATCH_SIZES = {("node", 64): 16, ("node", 256): 8, ("moe", 64): 32, ("moe", 256): 16}


@dataclass(frozen=True, kw_only=True)
class Training:
    """One training, of ``arm`` within ``cell``: what stands in one table together."""

    cell: str
    arm: str
    task: str
    nodes: int
    topology: str
    seed: int
    targets: int  # the seed of samples and targets: all arms share it, except where that is the trap
    steps: int  # of propagation
    noise: float = 1.0
    learning_rate: float = LEARNING_RATE
    shuffled: bool = False  # the graph's nodes relabelled at random
    summed: bool = False  # messages added up instead of averaged

    @property
    def variant(self) -> str:
        return "moe" if self.task == "regions" else "node"


# ---------------------------------------------------------------------------------------------------------
# What is trained


def cell_of(task: str, nodes: int) -> Iterator[Training]:
    """All topologies at all seeds, seed by seed."""
    for seed, topology in product(SEEDS, prepare.TOPOLOGIES):
        yield Training(
            cell=f"{task}, N = {nodes}", arm=topology, task=task, nodes=nodes, topology=topology, seed=seed,
            targets=seed, steps=prepare.sufficient_steps(nodes),
        )  # fmt: skip


def grid() -> Iterator[Training]:
    for nodes, task in product((64, 256), prepare.TASKS):
        yield from cell_of(task, nodes)


def traps() -> Iterator[Training]:
    """Variations of the cells of 64 nodes, each wrong in one way."""
    consensus, smooth, regions = (list(cell_of(task, 64)) for task in ("consensus", "smooth", "regions"))
    for steps, one in product((1, 2, 4), consensus):
        yield replace(one, cell=f"trap: propagation steps, {steps}", steps=steps)
    for one in smooth:
        if one.topology == "ring":
            yield replace(one, cell="trap: the ring's own geometry", arm="ring, shuffled", shuffled=True)
    for one in consensus:
        if one.seed in FEW_SEEDS:
            yield replace(one, cell="trap: too easy", noise=0.01)
    for one in regions:
        if one.topology == "none":
            for copy in "abcd":  # four times the same model: whatever is found to differ does not
                targets = 100 + ord(copy)
                yield replace(one, cell="trap: fresh targets", arm=f"copy {copy}", targets=targets)
    for one in consensus:
        if one.seed in FEW_SEEDS:
            yield replace(one, cell="trap: sums", summed=True)
    for one in regions:
        yield replace(one, cell="trap: another learning rate", learning_rate=0.003)


# ---------------------------------------------------------------------------------------------------------
# Training


def sum_of_messages(z: torch.Tensor, neighbours: torch.Tensor | None) -> torch.Tensor:
    return z.sum(0, keepdim=True) - z if neighbours is None else z[neighbours].sum(1)


def shuffle(graph: prepare.Graph, seed: int) -> prepare.Graph:
    """The same graph with its nodes relabelled."""
    assert graph.neighbours is not None
    label = torch.randperm(graph.nodes, generator=prepare.generator_for("labels", seed))
    neighbours = torch.empty_like(graph.neighbours)
    neighbours[label] = label[graph.neighbours]
    return replace(graph, neighbours=neighbours)


def result_of(one: Training, optimiser_steps: int) -> dict[str, float]:
    """Train, and measure on the test samples, which no campaign looks at."""
    started = time.process_time()
    graph = prepare.make_graph(one.topology, one.nodes, one.seed)
    if one.shuffled:
        graph = shuffle(graph, one.seed)
    problem = prepare.Problem(one.task, one.nodes, one.targets, one.noise)
    averaging = train.aggregate
    if one.summed:
        train.aggregate = sum_of_messages
    try:
        model = train.make_model(one.variant, graph, one.steps, one.seed)
        fit = train.fit(
            model, problem, seed=one.seed, max_steps=optimiser_steps, learning_rate=one.learning_rate,
            batch_size=BATCH_SIZES[one.variant, one.nodes],
        )  # fmt: skip
        test_mse = prepare.mean_squared_error(model, problem, "test")
    finally:
        train.aggregate = averaging
    return {
        "train_loss": fit.train_loss,
        "test_mse": test_mse,
        "parameters": sum(weight.numel() for weight in model.parameters()),
        "cpu_s": time.process_time() - started,
    }


class Results:
    """The file of finished trainings, a JSON object a line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: dict[Training, dict[str, float]] = {}
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        whole, newline, rest = text.rpartition("\n")
        if rest:  # the study was killed while it wrote this line
            path.write_text(whole + newline, encoding="utf-8")
        for line in whole.splitlines():
            row = json.loads(line)
            self.rows[Training(**row["training"])] = row["result"]

    def add(self, one: Training, result: dict[str, float]) -> None:
        self.rows[one] = result
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"training": asdict(one), "result": result}) + "\n")

    def arms(self, cell: str, key: str) -> dict[str, dict[int, float]]:
        """``{arm: {seed: value}}`` of a cell."""
        arms: dict[str, dict[int, float]] = {}
        for one, result in self.rows.items():
            if one.cell == cell:
                arms.setdefault(one.arm, {})[one.seed] = result[key]
        return arms


# ---------------------------------------------------------------------------------------------------------
# Tables, in Markdown


def table(head: str, rows: list[str]) -> None:
    columns = head.count("|") + 1
    print(f"| {head} |\n|{'---|' * columns}", *(f"| {row} |" for row in rows), sep="\n", end="\n\n")


def print_levels(results: Results, cells: list[str]) -> None:
    """Mean and standard deviation of each arm's test error, a row for each cell."""
    rows = []
    for cell in cells:
        arms = results.arms(cell, "test_mse")
        seeds = min(map(len, arms.values()))
        parameters = {int(n) for arm in results.arms(cell, "parameters").values() for n in arm.values()}
        levels = [f"{fmean(arm.values()):.4f} ± {stdev(arm.values()):.4f}" for arm in arms.values()]
        rows.append(f"{cell} | {seeds} | {'/'.join(map(str, sorted(parameters)))} | {' | '.join(levels)}")
    table(f"test MSE, mean ± sd | seeds | parameters | {' | '.join(results.arms(cells[0], 'test_mse'))}", rows)


def print_pairs(cells: Mapping[str, Mapping[str, Arm]], reference: str = "") -> None:
    """All pairs of arms, or those with ``reference``; ``cells`` gives each cell's test errors."""
    rows = []
    for cell, arms in cells.items():
        rows += [
            f"{cell} | {pair.a} - {pair.b} | {pair.difference:+.4f} | {pair.low:+.4f} to {pair.high:+.4f} | "
            f"{pair.p_t:.2g} | {pair.p_wilcoxon:.2g} | {pair.word}"
            for pair in compare_pairs(arms, reference)
        ]
    table("cell | pair | difference | 95 % | p, t | p, Wilcoxon | verdict", rows)


def print_stability(results: Results, cells: list[str]) -> None:
    """Orders by training loss and by test error, best first."""
    rows = []
    for cell in cells:
        found = order_stability(results.arms(cell, "train_loss"), results.arms(cell, "test_mse"))
        winners = ", ".join(f"{arm} {count}" for arm, count in sorted(found.test_winners.items()))
        rows.append(
            f"{cell} | {' '.join(found.train_order)} | {found.train_count}/{found.seeds} | "
            f"{' '.join(found.test_order)} | {found.test_count}/{found.seeds} | {winners} | {found.agreement:+.2f}"
        )
    table("cell | order by train loss | seeds | order by test MSE | seeds | best on test | Kendall's tau", rows)


def print_pairing(results: Results, cells: list[str]) -> None:
    """What pairing is worth: the two closest arms of each cell, with and without it, uncorrected."""
    rows = []
    for cell in cells:
        arms = results.arms(cell, "test_mse")
        closest = min(compare_pairs(arms), key=lambda pair: abs(pair.difference))
        a, b = arms[closest.a], arms[closest.b]
        rows.append(f"{cell} | {closest.a} - {closest.b} | {paired_tests(a, b)['p_t']:.2g} | {unpaired_p(a, b):.2g}")
    table("cell | closest pair | p, paired t | p, Welch", rows)


def report(results: Results) -> None:
    present = list(dict.fromkeys(one.cell for one in results.rows))
    cells = [cell for cell in present if not cell.startswith("trap")]
    traps = [cell for cell in present if cell.startswith("trap")]
    if cells:
        print("## The question\n")
        print_levels(results, cells)
        print_pairs({cell: results.arms(cell, "test_mse") for cell in cells})
        print_stability(results, cells)
        print_pairing(results, cells)
    for trap in traps:
        print(f"## {trap[0].upper()}{trap[1:]}\n")
        print_levels(results, [trap])
        arms, name = results.arms(trap, "test_mse"), trap.removeprefix("trap: ")
        if "geometry" in trap:  # its one arm stands beside those of the cell that it varies
            print_pairs({name: {**results.arms("smooth, N = 64", "test_mse"), **arms}}, reference=next(iter(arms)))
        else:
            print_pairs({name: arms})
        if "learning rate" in trap:
            print_stability(results, [trap])
    print(f"{len(results.rows)} trainings, {sum(row['cpu_s'] for row in results.rows.values()) / 60:.1f} CPU minutes")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=RESULTS, help="where trainings are kept")
    parser.add_argument("--only", default="", metavar="TEXT", help="train only cells whose name contains this")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--quick", action="store_true", help="3 optimiser steps a training; needs an --out of its own")
    args = parser.parse_args()
    if args.quick and args.out == RESULTS:
        parser.error("--quick needs an --out of its own: its results are none")
    if not args.out.parent.is_dir():
        parser.error(f"--out {args.out}: the folder does not exist")
    torch.set_num_threads(1)
    results = Results(args.out)
    wanted = [one for one in (*grid(), *traps()) if args.only in one.cell and one not in results.rows]
    for number, one in enumerate([] if args.report else wanted, 1):
        result = result_of(one, 3 if args.quick else OPTIMISER_STEPS[one.nodes])
        results.add(one, result)
        print(
            f"{number}/{len(wanted)} {one.cell}, {one.arm}, seed {one.seed}: test {result['test_mse']:.4f}, "
            f"{result['cpu_s']:.1f} s",
            file=sys.stderr,
        )
    report(results)


if __name__ == "__main__":
    main()
