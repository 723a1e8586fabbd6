"""The fixed half of the topology starter: graphs, problems, and the metric val_mse.

Experiments edit train.py; this file is protected, so that every number means the same thing.
Nothing is downloaded and nothing lies on disk: a problem is drawn from its seed in milliseconds.

    python prepare.py                what the graphs look like: degree, diameter, spectral gap

A problem is (task, nodes, seed). Its samples, targets and noise come from these three alone and never from a
topology: whoever compares topologies at one seed compares them on the same numbers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

# The question of a campaign. Choose before its baseline: these are protected afterwards.
TASK = "consensus"  # or smooth, or regions: see TASKS at the end of the problems
NODES = 64  # of the graph; 256 is the larger size, for a GPU or for patience

TIME_BUDGET = float(os.environ.get("TIME_BUDGET", "6"))  # seconds of training; the runner sets it
SEED = int(os.environ.get("AUTORESEARCH_SEED", "1"))  # set by the runner: samples, expander, initial weights, order

DEGREE = 4  # of the sparse graphs
LEAST_GAP = 0.1  # of an expander; random graphs of degree 4 tend to 1 - sqrt(3) / 2 = 0.134 as they grow
SIZES = {"train": 1024, "val": 512, "test": 512}  # samples; campaigns look at val, so keep test for claims
EVAL_BATCH = 64


# ---------------------------------------------------------------------------------------------------------
# Graphs

TOPOLOGIES = ("ring", "expander", "dense", "none")


@dataclass(frozen=True)
class Graph:
    """An undirected graph of ``nodes`` nodes, in which node i hears the nodes ``neighbours[i]``.

    For ``dense``, where all hear all others, there is no table. With ``none`` each node hears itself only:
    the model has the same weights and does the same work, and nothing travels.
    """

    topology: str
    nodes: int
    neighbours: Tensor | None  # (nodes, degree)

    def adjacency(self) -> Tensor:
        """(nodes, nodes), 1 where two different nodes are neighbours."""
        if self.neighbours is None:
            return 1 - torch.eye(self.nodes)
        return torch.zeros(self.nodes, self.nodes).scatter_(1, self.neighbours, 1).fill_diagonal_(0)

    @property
    def diameter(self) -> int | None:
        """The longest of all shortest paths; None where some node cannot be reached."""
        step = self.adjacency() + torch.eye(self.nodes)
        reached, hops = torch.eye(self.nodes), 0
        while not reached.all():
            further = (reached @ step).clamp(max=1)
            if torch.equal(further, reached):
                return None
            reached, hops = further, hops + 1
        return hops

    @property
    def gap(self) -> float:
        """1 minus the second largest eigenvalue of the random walk: near 0, averages spread slowly."""
        adjacency = self.adjacency().double()
        walk = adjacency / adjacency.sum(1).clamp(min=1)  # symmetric, since the graphs are regular
        return 1 - torch.linalg.eigvalsh(walk)[-2].item() if adjacency.any() else 0.0


def make_graph(topology: str, nodes: int, seed: int) -> Graph:
    """The graph of a topology; only the expander depends on ``seed``."""
    makers: dict[str, Callable[[], Tensor | None]] = {
        "ring": lambda: ring(nodes),
        "expander": lambda: expander(nodes, seed),
        "dense": lambda: None,
        "none": lambda: torch.arange(nodes)[:, None],
    }
    if topology not in makers:
        raise ValueError(f"topology is {topology!r}; expected one of: {', '.join(TOPOLOGIES)}.")
    if nodes <= DEGREE + 1:
        raise ValueError(f"nodes is {nodes}; a graph of degree {DEGREE} that is not complete has more.")
    return Graph(topology, nodes, makers[topology]())


def ring(nodes: int) -> Tensor:
    """The circulant graph: each node hears the two nearest on either side."""
    offsets = torch.tensor([-2, -1, 1, 2])
    return (torch.arange(nodes)[:, None] + offsets) % nodes


def expander(nodes: int, seed: int) -> Tensor:
    """A random 4-regular graph with a spectral gap of at least LEAST_GAP: two random Hamiltonian cycles.

    Drawn again until no edge is in both cycles, one try in seven, and until the gap is wide enough.
    Connected, since one cycle alone is.
    """
    generator = generator_for("expander", nodes, seed)
    for _ in range(1000):
        cycles = [torch.randperm(nodes, generator=generator) for _ in range(DEGREE // 2)]
        neighbours = torch.empty(nodes, DEGREE, dtype=torch.long)
        for i, cycle in enumerate(cycles):
            neighbours[cycle, 2 * i] = cycle.roll(1)
            neighbours[cycle, 2 * i + 1] = cycle.roll(-1)
        neighbours = neighbours.sort(1).values
        graph = Graph("expander", nodes, neighbours)
        if (graph.adjacency().sum(1) == DEGREE).all() and graph.gap >= LEAST_GAP:
            return neighbours
    raise ValueError(f"no expander of {nodes} nodes with a spectral gap of {LEAST_GAP} in 1000 draws.")


def sufficient_steps(nodes: int) -> int:
    """Propagation steps that let every node hear every other on any connected graph here, and two more.

    The ring's diameter decides. To give each topology its own number would change the depth with the graph.
    """
    diameter = make_graph("ring", nodes, seed=0).diameter
    assert diameter is not None
    return diameter + 2


# ---------------------------------------------------------------------------------------------------------
# Problems


@dataclass(frozen=True)
class Problem:
    """What is to be learnt: see TASKS. ``noise`` is that of a node's reading; below 1 the task is easier."""

    task: str
    nodes: int
    seed: int
    noise: float = 1.0

    def samples(self, split: str) -> tuple[Tensor, Tensor]:
        """Inputs and targets, the sample first; equal for equal arguments, on every machine of one torch."""
        if self.task not in TASKS:
            raise ValueError(f"task is {self.task!r}; expected one of: {', '.join(TASKS)}.")
        generator = generator_for(self.task, self.nodes, self.seed, split)
        return TASKS[self.task](self, SIZES[split], generator)

    def read(self, signal: Tensor, generator: torch.Generator) -> Tensor:
        """What the nodes measure: ``signal`` with noise, five times as much in every fifth reading.

        Outliers make a plain mean about four times worse than the best estimate, so that there is something to learn.
        """
        outlier = torch.rand(signal.shape, generator=generator) < 0.2
        return signal + self.noise * (1 + 4 * outlier) * torch.randn(signal.shape, generator=generator)


def generator_for(*what: object) -> torch.Generator:
    """Random numbers for one purpose, independent of those for any other."""
    return torch.Generator().manual_seed(zlib.crc32(repr(what).encode()))


def consensus(problem: Problem, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """All nodes measure one number and each must estimate it: every reading counts, however far away."""
    signal = torch.randn(count, 1, generator=generator).expand(count, problem.nodes)
    return problem.read(signal, generator), signal


def smooth(problem: Problem, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Nodes on a circle denoise a signal that is smooth along it: near readings count, distant ones do not.

    The circle is the ring's own. Sixteen nodes to the shortest wavelength at every size, so that a larger
    graph is more of the same and no smoother.
    """
    harmonics = max(1, problem.nodes // 16)
    angles = torch.outer(torch.arange(1, harmonics + 1), torch.arange(problem.nodes)) * (2 * torch.pi / problem.nodes)
    waves = torch.cat([angles.cos(), angles.sin()]) / harmonics**0.5
    signal = torch.randn(count, 2 * harmonics, generator=generator) @ waves
    return problem.read(signal, generator), signal


TOKEN_WIDTH = 8
REGIONS = 16


def regions(problem: Problem, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Tokens for a mixture of experts, one expert a node: a linear function of its own in each of 16 regions."""
    fixed = generator_for("regions", problem.seed)  # the same teacher for all splits and sizes
    centres, slopes = torch.randn(2, REGIONS, TOKEN_WIDTH, generator=fixed)
    tokens = torch.randn(count, TOKEN_WIDTH, generator=generator)
    slope = slopes[(tokens @ centres.T).argmax(1)]
    return tokens, (tokens * slope).sum(1) / TOKEN_WIDTH**0.5


TASKS = {"consensus": consensus, "smooth": smooth, "regions": regions}


# ---------------------------------------------------------------------------------------------------------
# The metric


@torch.no_grad()
def mean_squared_error(model: nn.Module, problem: Problem, split: str) -> float:
    """Of all predictions on a split; targets are free of noise, so 0 is perfect. Leaves ``model`` in eval mode."""
    device = next(model.parameters()).device
    model.eval()
    squares, count = 0.0, 0
    inputs, targets = problem.samples(split)
    for some_inputs, some_targets in zip(inputs.split(EVAL_BATCH), targets.split(EVAL_BATCH), strict=True):
        predictions = model(some_inputs.to(device)).float().cpu()
        if predictions.shape != some_targets.shape:
            raise ValueError(f"predictions of shape {tuple(predictions.shape)}; expected {tuple(some_targets.shape)}.")
        squares += (predictions - some_targets).square().sum().item()
        count += some_targets.numel()
    return squares / count


def evaluate_mse(model: nn.Module) -> float:
    """The metric of a campaign: the error on the validation samples of its question."""
    return mean_squared_error(model, Problem(TASK, NODES, SEED), "val")


def main() -> None:
    print(f"{'topology':<10} {'nodes':>5} {'degree':>6} {'diameter':>8} {'gap':>7}")
    for nodes in (64, 256):
        for topology in TOPOLOGIES:
            graph = make_graph(topology, nodes, SEED)
            degree = int(graph.adjacency().sum(1).max())
            print(f"{topology:<10} {nodes:>5} {degree:>6} {graph.diameter or '-':>8} {graph.gap:>7.4f}")


if __name__ == "__main__":
    main()
