"""Train nodes that talk over a graph for TIME_BUDGET seconds. This is the file that experiments edit.

    python train.py

Progress lines come first, then `---` and `key: value` lines; val_mse is the one that counts, lower is better.
The constants below are conservative rather than tuned.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prepare import (
    NODES,
    SEED,
    TASK,
    TIME_BUDGET,
    TOKEN_WIDTH,
    Graph,
    Problem,
    evaluate_mse,
    generator_for,
    make_graph,
    sufficient_steps,
)

GPU = torch.cuda.is_available()

# Who hears whom, and how often.
TOPOLOGY = "ring"  # ring, expander, dense or none
STEPS = sufficient_steps(NODES)  # propagation steps: enough for the ring, and the same for every topology

# Model. VARIANT follows from the task: node for graph signals, moe for tokens.
VARIANT = "moe" if TASK == "regions" else "node"
WIDTH = 16  # of a node's state
HIDDEN = 16  # units of the update's one hidden layer
TOP_K = 4  # moe: experts that a token is sent to

# Optimiser: AdamW.
LEARNING_RATE = 0.003
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.01
BATCH_SIZE = 16  # samples
GRADIENT_NORM = 1.0  # longer gradients are cut to this: many steps share their weights

# Schedule, in fractions of the time budget.
WARMUP_RATIO = 0.05  # the learning rate rises from zero
WARMDOWN_RATIO = 0.5  # and falls to zero

# The run.
MAX_STEPS = int(os.environ.get("MAX_STEPS", "0"))  # steps of the optimiser; 0: the time budget decides
UNTIMED_STEPS = 3  # the first steps, which warm up, do not count against the budget
LOG_EVERY = 0.02  # of the run, between two progress lines
CPU_THREADS = 1  # the CPU seconds of all of them count


# ---------------------------------------------------------------------------------------------------------
# Model


def aggregate(z: Tensor, neighbours: Tensor | None) -> Tensor:
    """The mean over each node's neighbours, all others if there is no table; ``z`` is (nodes, batch, width).

    A mean and not a sum: the size of a message must not depend on the degree. Gathered by index, since at
    degree 4 the product with a matrix of 256 x 256 takes longer.
    """
    if neighbours is None:
        return (z.sum(0, keepdim=True) - z) / (len(z) - 1)
    return z[neighbours].mean(1)


class Propagation(nn.Module):
    """STEPS residual updates of all nodes, all with the same weights.

    Shared weights keep the number of parameters the same for every number of steps, nodes and neighbours.
    """

    def __init__(self, graph: Graph, steps: int) -> None:
        super().__init__()
        self.steps = steps
        self.register_buffer("neighbours", graph.neighbours, persistent=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.own = nn.Linear(WIDTH, HIDDEN)
        self.heard = nn.Linear(WIDTH, HIDDEN, bias=False)
        self.out = nn.Linear(HIDDEN, WIDTH)
        nn.init.zeros_(self.out.weight)  # a step starts as the identity
        nn.init.zeros_(self.out.bias)

    def forward(self, h: Tensor) -> Tensor:
        for _ in range(self.steps):
            z = self.norm(h)
            h = h + self.out(F.gelu(self.own(z) + self.heard(aggregate(z, self.neighbours))))
        return h


class NodeModel(nn.Module):
    """Every node encodes its reading, talks, and decodes its estimate; (batch, nodes) to (batch, nodes)."""

    def __init__(self, graph: Graph, steps: int) -> None:
        super().__init__()
        self.encode = nn.Linear(1, WIDTH)
        self.propagation = Propagation(graph, steps)
        self.decode = nn.Linear(WIDTH, 1)

    def forward(self, readings: Tensor) -> Tensor:
        h = self.propagation(self.encode(readings.T[..., None]))
        return self.decode(h).squeeze(-1).T


class ExpertModel(nn.Module):
    """A mixture of experts, one at each node, with weights of their own; (batch, TOKEN_WIDTH) to (batch,).

    The router sends a token to its TOP_K experts; all talk; the answers of these experts are mixed. With the
    topology none it is the usual flat mixture. Nothing balances the experts' loads.
    """

    def __init__(self, graph: Graph, steps: int) -> None:
        super().__init__()
        self.router = nn.Linear(TOKEN_WIDTH, graph.nodes)
        self.encode = nn.Parameter(torch.randn(graph.nodes, TOKEN_WIDTH, WIDTH) * TOKEN_WIDTH**-0.5)
        self.propagation = Propagation(graph, steps)
        self.decode = nn.Parameter(torch.randn(graph.nodes, WIDTH) * WIDTH**-0.5)

    def forward(self, tokens: Tensor) -> Tensor:
        scores = self.router(tokens)
        best = scores.topk(TOP_K, dim=1)
        gates = torch.zeros_like(scores).scatter(1, best.indices, best.values.softmax(1)).T  # (nodes, batch)
        h = self.propagation(gates[..., None] * (tokens @ self.encode))
        answers = (h * self.decode[:, None]).sum(-1)
        return (gates * answers).sum(0)


def make_model(variant: str, graph: Graph, steps: int, seed: int) -> nn.Module:
    """A model whose initial weights depend on ``seed`` and on no topology."""
    torch.manual_seed(seed)
    return {"node": NodeModel, "moe": ExpertModel}[variant](graph, steps)


# ---------------------------------------------------------------------------------------------------------
# Training


def learning_rate_scale(progress: float) -> float:
    """Factor on the learning rate at ``progress`` (0 to 1) of the run."""
    rise = progress / WARMUP_RATIO if WARMUP_RATIO else 1.0
    fall = (1 - progress) / WARMDOWN_RATIO if WARMDOWN_RATIO else 1.0
    return min(1.0, rise, fall)


@dataclass(frozen=True)
class Fit:
    """How a training went."""

    train_loss: float  # mean over the last tenth of the steps
    steps: int
    train_s: float


def fit(
    model: nn.Module,
    problem: Problem,
    *,
    seed: int,
    max_steps: int = 0,
    budget_s: float = TIME_BUDGET,
    learning_rate: float = LEARNING_RATE,
    batch_size: int = BATCH_SIZE,
    log: Callable[[str], None] = lambda line: None,
) -> Fit:
    """Train ``model`` in place, in batches drawn from ``seed``, for ``budget_s`` seconds or ``max_steps`` steps.

    On a CPU the seconds are this process's CPU time: other work on the machine makes a run longer, hardly worse.
    """
    device = next(model.parameters()).device
    inputs, targets = (tensor.to(device) for tensor in problem.samples("train"))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=BETAS, weight_decay=WEIGHT_DECAY)
    order = generator_for("batches", seed)  # on the CPU, so that every device sees the same order
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    step, train_s, progress, next_log = 0, 0.0, 0.0, 0.0
    losses: list[float] = []
    while progress < 1:
        started = clock()
        rows = torch.randint(len(inputs), (batch_size,), generator=order).to(device)
        loss = F.mse_loss(model(inputs[rows]), targets[rows])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), GRADIENT_NORM)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * learning_rate_scale(progress)
        optimizer.step()
        losses.append(loss.item())
        step_s = clock() - started
        step += 1
        if not math.isfinite(losses[-1]):
            raise SystemExit(f"The loss is {losses[-1]} at step {step}: the run diverged.")
        if step > UNTIMED_STEPS:
            train_s += step_s
        progress = step / max_steps if max_steps else train_s / budget_s
        if progress >= next_log:
            loss_now = fmean(losses[-20:])
            log(f"step {step:05d} ({min(progress, 1):.1%}) | loss: {loss_now:.4f} | dt: {1000 * step_s:.0f} ms")
            next_log = progress + LOG_EVERY
    return Fit(train_loss=fmean(losses[-max(1, step // 10) :]), steps=step, train_s=train_s)


def main() -> None:
    started = time.perf_counter()
    torch.set_num_threads(CPU_THREADS)
    graph = make_graph(TOPOLOGY, NODES, SEED)
    model = make_model(VARIANT, graph, STEPS, SEED).to("cuda" if GPU else "cpu")
    report = functools.partial(print, flush=True)
    done = fit(model, Problem(TASK, NODES, SEED), seed=SEED, max_steps=MAX_STEPS, log=report)
    val_mse = evaluate_mse(model)
    print("---")
    print(f"val_mse:           {val_mse:.6f}")
    print(f"train_loss:        {done.train_loss:.6f}")
    print(f"training_seconds:  {done.train_s:.1f}")
    print(f"total_seconds:     {time.perf_counter() - started:.1f}")
    print(f"num_steps:         {done.steps}")
    print(f"num_params:        {sum(p.numel() for p in model.parameters())}")
    print(f"propagation_steps: {STEPS}")
    print(f"question:          {TASK}, {NODES} nodes, {TOPOLOGY}")


if __name__ == "__main__":
    main()
