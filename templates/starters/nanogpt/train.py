"""Train a small GPT for TIME_BUDGET seconds. This is the file that experiments edit.

    python train.py

Progress lines come first, then `---` and `key: value` lines; val_bpb is the one that counts, lower is better.
The constants below are conservative rather than tuned.
"""

from __future__ import annotations

import math
import os
import resource
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prepare import TIME_BUDGET, batches, evaluate_bpb, load_corpus

GPU = torch.cuda.is_available()
DTYPE = torch.bfloat16 if GPU else torch.float32  # of activations; weights are float32

# Model. DEPTH alone sets its size.
DEPTH = 6 if GPU else 2  # blocks
ASPECT = 128 if GPU else 32  # width of the residual stream per block of depth
HEAD_DIM = 128 if GPU else 32  # width of one attention head
VALUE_TABLES = 3 if GPU else 0  # so many of the last blocks add to each value an embedding of its token
MLP_RATIO = 4  # hidden width of the MLP / width of the residual stream
SEQ_LEN = 2048 if GPU else 256  # tokens the model can look back on; a divisor of 2048
ROTARY_BASE = 10_000  # longest wavelength of the rotary position code, in tokens / 2 pi

# Optimiser. Muon for the matrices of the blocks, AdamW for the embedding and the head.
TOTAL_BATCH_SIZE = 2**16 if GPU else 2**11  # tokens per optimiser step
DEVICE_BATCH_SIZE = 32 if GPU else 16  # sequences per forward pass, as memory allows
MATRIX_LR = 0.01  # Muon
MOMENTUM = 0.9 if GPU else 0.95  # Muon
NEURON_BETA = 0.95  # Muon, of the mean square of a neuron's updates, by which they are evened out
EMBEDDING_LR = 0.1  # AdamW, of the value embeddings too
HEAD_LR = 0.002  # AdamW
LR_SCALE = 2.5 if GPU else 1.0  # on all three: larger batches bear larger steps
ADAM_BETAS = (0.8, 0.95)
WEIGHT_DECAY = 0.05  # of the matrices, per step and unit of learning rate

# Schedule, in fractions of the time budget.
WARMUP_RATIO = 0.05  # learning rates rise from zero
WARMDOWN_RATIO = 0.5 if GPU else 0.3  # learning rates fall to FINAL_LR_FRAC
FINAL_LR_FRAC = 0.0  # of the peak

# The run.
SEED = int(os.environ.get("AUTORESEARCH_SEED", "1"))  # set by the runner: initial weights and order of the data
MAX_STEPS = int(os.environ.get("MAX_STEPS", "0"))  # steps; 0: the time budget decides
UNTIMED_STEPS = 3  # the first steps, which compile and warm up, do not count against the budget
LOG_EVERY = 0.02  # of the run, between two progress lines
CPU_THREADS = 1  # the CPU seconds of all of them count; on busy cores they wait for each other, for long
PEAK_FLOPS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "RTX 4090": 165e12}  # dense bf16


# ---------------------------------------------------------------------------------------------------------
# Model


def norm(x: Tensor) -> Tensor:
    return F.rms_norm(x, (x.shape[-1],))


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn each pair (i, i + D/2) of the last dimension by an angle proportional to the position."""
    other = x.unflatten(-1, (2, -1)).flip(-2).flatten(-2)  # of each pair; read in place where this is compiled
    return x * cos + other * sin


class Attention(nn.Module):
    """Causal self-attention with rotary positions, and queries and keys normalised to bound the logits."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        B, T, C = x.shape
        q, k, v = self.qkv(x).view(B, T, 3, C // HEAD_DIM, HEAD_DIM).unbind(2)
        if values is not None:
            v = v + values.view_as(v)
        q, k = rotate(norm(q), cos, sin), rotate(norm(k), cos, sin)
        y = F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)
        return self.out(y.transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    """Two layers with a squared ReLU between them."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = nn.Linear(width, MLP_RATIO * width, bias=False)
        self.down = nn.Linear(MLP_RATIO * width, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(F.relu(self.up(x)).square())


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = Attention(width)
        self.mlp = MLP(width)

    def forward(self, x: Tensor, values: Tensor | None, cos: Tensor, sin: Tensor) -> Tensor:
        x = x + self.attention(norm(x), values, cos, sin)
        return x + self.mlp(norm(x))


class GPT(nn.Module):
    def __init__(self, vocab_size: int) -> None:
        super().__init__()
        width = DEPTH * ASPECT
        self.embedding = nn.Embedding(vocab_size, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(DEPTH))
        self.head = nn.Linear(width, vocab_size, bias=False)
        self.values = nn.ModuleList(nn.Embedding(vocab_size, width) for _ in range(min(VALUE_TABLES, DEPTH)))
        angles = torch.outer(torch.arange(SEQ_LEN), ROTARY_BASE ** -torch.linspace(0, 1, HEAD_DIM // 2))
        cos, sin = angles.cos().to(DTYPE)[:, None], angles.sin().to(DTYPE)[:, None]  # the same for all heads
        self.register_buffer("cos", torch.cat((cos, cos), dim=-1), persistent=False)
        self.register_buffer("sin", torch.cat((-sin, sin), dim=-1), persistent=False)
        self.init_weights()

    @torch.no_grad()
    def init_weights(self) -> None:
        """Blocks start as the identity, the head as the uniform distribution: a loss of log(vocab_size)."""
        nn.init.normal_(self.embedding.weight)
        nn.init.zeros_(self.head.weight)
        for table in self.values:
            nn.init.normal_(table.weight, std=table.embedding_dim**-0.5)
        for block in self.blocks:
            for layer in (block.attention.qkv, block.mlp.up):
                nn.init.normal_(layer.weight, std=layer.in_features**-0.5)
            for layer in (block.attention.out, block.mlp.down):
                nn.init.zeros_(layer.weight)

    def forward(self, tokens: Tensor, targets: Tensor | None = None) -> Tensor:
        """The logits; or, given targets, their mean cross-entropy in nats per token."""
        x = norm(self.embedding(tokens).to(DTYPE))
        cos, sin = self.cos[: tokens.shape[1]], self.sin[: tokens.shape[1]]
        tables = [None] * (DEPTH - len(self.values)) + list(self.values)
        for block, table in zip(self.blocks, tables, strict=True):
            x = block(x, None if table is None else table(tokens).to(DTYPE), cos, sin)
        logits = self.head(norm(x))
        if targets is None:
            return logits
        return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())

    def flops_per_token(self) -> int:
        """Of one forward and backward pass: 6 per weight of a matrix, and attention's two products."""
        weights = sum(p.numel() for p in [*self.blocks.parameters(), self.head.weight])
        return 6 * weights + 12 * DEPTH * DEPTH * ASPECT * SEQ_LEN


# ---------------------------------------------------------------------------------------------------------
# Optimiser


def compiled(function: Callable[..., None]) -> Callable[..., None]:
    """``function``, compiled where that pays."""
    return torch.compile(function, dynamic=False, fullgraph=True) if GPU else function


# Polynomials a x + b x**3 + c x**5 that, one after the other, bring every x from 0.001 to 1 near 1.
POLAR_EXPRESS = (  # Amsel et al. 2025, arXiv:2505.16932
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)


def orthogonalize(G: Tensor) -> Tensor:
    """Bring the singular values of a batch of matrices near 1."""
    X = G.to(DTYPE)
    if tall := X.shape[-2] > X.shape[-1]:
        X = X.mT
    X = X / (1.02 * X.norm(dim=(-2, -1), keepdim=True) + 1e-7)  # rounding must not lift one above 1
    for a, b, c in POLAR_EXPRESS:
        A = X @ X.mT
        B = torch.baddbmm(A, A, A, beta=b, alpha=c)
        X = torch.baddbmm(X, B, X, beta=a)
    return X.mT if tall else X


def even_out(updates: Tensor, squares: Tensor) -> Tensor:
    """Give the neurons updates of one size, over time, in matrices of the same norm (NorMuon, arXiv:2510.05491).

    ``squares``, of shape (matrices, neurons, 1) or (matrices, 1, neurons), are updated in place.
    """
    updates = updates.float()
    squares.lerp_(updates.square().mean(-1 if squares.shape[-1] == 1 else -2, keepdim=True), 1 - NEURON_BETA)
    evened = updates * (squares + 1e-10).rsqrt()
    return evened * (updates.norm(dim=(-2, -1), keepdim=True) / (evened.norm(dim=(-2, -1), keepdim=True) + 1e-10))


@compiled
def muon(weights: list[Tensor], gradients: list[Tensor], momentum: Tensor, squares: Tensor, lr: Tensor) -> None:
    """Update matrices of one shape, and in place a stack of their momenta and that of ``even_out``."""
    gradient = torch.stack(gradients)
    momentum.lerp_(gradient, 1 - MOMENTUM)
    updates = even_out(orthogonalize(gradient.lerp(momentum, MOMENTUM)), squares)
    rows, columns = updates.shape[-2:]
    for weight, update in zip(weights, updates.unbind(), strict=True):
        weight.mul_(1 - lr * WEIGHT_DECAY).sub_(lr * max(1, rows / columns) ** 0.5 * update)


@compiled
def adam(weight: Tensor, gradient: Tensor, moments: tuple[Tensor, Tensor], lr: Tensor, steps: Tensor) -> None:
    """Update ``weight`` and its moments, mean and square, in place."""
    (mean, square), (beta1, beta2) = moments, ADAM_BETAS
    mean.lerp_(gradient, 1 - beta1)
    square.lerp_(gradient.square(), 1 - beta2)
    weight.sub_(lr * (mean / (1 - beta1**steps)) / ((square / (1 - beta2**steps)).sqrt() + 1e-8))


class Optimizer:
    """Muon for the blocks' matrices and AdamW for the rest, written out so that both can be changed."""

    def __init__(self, model: GPT) -> None:
        by_shape = defaultdict(list)
        for weight in model.blocks.parameters():
            by_shape[weight.shape].append(weight)
        self.matrices = []
        for weights in by_shape.values():
            momentum = torch.zeros_like(torch.stack(weights))
            rows, columns = momentum.shape[-2:]
            squares = torch.zeros_like(momentum[:, :, :1] if rows >= columns else momentum[:, :1])
            self.matrices.append((weights, momentum, squares))
        rates = {model.head: HEAD_LR} | dict.fromkeys((model.embedding, *model.values), EMBEDDING_LR)
        self.vectors = [
            (layer.weight, lr, (torch.zeros_like(layer.weight), torch.zeros_like(layer.weight)))
            for layer, lr in rates.items()
        ]
        self.weights = list(model.parameters())
        self.steps = 0

    @torch.no_grad()
    def step(self, lr_scale: float) -> None:
        """Update the weights and clear their gradients."""
        self.steps += 1
        number = torch.tensor  # numbers as tensors: a new value is no reason to compile again
        for weights, momentum, squares in self.matrices:
            muon(weights, [weight.grad for weight in weights], momentum, squares, number(lr_scale * MATRIX_LR))
        for weight, lr, moments in self.vectors:
            adam(weight, weight.grad, moments, number(lr_scale * lr), number(float(self.steps)))
        for weight in self.weights:
            weight.grad = None


def learning_rate_scale(progress: float) -> float:
    """Factor on all learning rates at ``progress`` (0 to 1) of the run."""
    rise = progress / WARMUP_RATIO if WARMUP_RATIO else 1.0
    fall = (1 - progress) / WARMDOWN_RATIO if WARMDOWN_RATIO else 1.0
    return LR_SCALE * min(1.0, rise, FINAL_LR_FRAC + (1 - FINAL_LR_FRAC) * fall)


# ---------------------------------------------------------------------------------------------------------
# The run


def peak_memory_mib() -> float:
    """Of the GPU, or of this process where there is none."""
    if GPU:
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def peak_flops_per_s() -> float | None:
    """What the GPU could do at most, if we know."""
    name = torch.cuda.get_device_name() if GPU else ""
    return next((flops for model, flops in PEAK_FLOPS.items() if model in name), None)


def main() -> None:
    started = time.perf_counter()
    device = "cuda" if GPU else "cpu"
    torch.manual_seed(SEED)
    torch.set_num_threads(CPU_THREADS)
    torch.set_float32_matmul_precision("high")  # TF32 where autocast does not reach
    corpus = load_corpus()
    model = GPT(corpus.vocab_size).to(device)
    optimizer = Optimizer(model)

    batch_size = max(1, min(DEVICE_BATCH_SIZE, TOTAL_BATCH_SIZE // SEQ_LEN))
    accumulation, rest = divmod(TOTAL_BATCH_SIZE, batch_size * SEQ_LEN)
    assert rest == 0, f"TOTAL_BATCH_SIZE must be a multiple of {batch_size} * {SEQ_LEN} tokens"
    loader = batches(corpus.train, batch_size, SEQ_LEN, seed=SEED, device=device)
    run_model = torch.compile(model, dynamic=False) if GPU else model
    autocast = torch.autocast(device, torch.bfloat16, enabled=GPU)

    # On a CPU the budget is this process's CPU time: other work on the machine makes a run longer, hardly worse.
    clock = time.perf_counter if GPU else time.process_time
    step, train_s, startup_s, progress, mean_loss, next_log = 0, 0.0, 0.0, 0.0, 0.0, 0.0
    loss_before = torch.zeros((), device=device)
    while progress < 1:
        step_started = clock()
        loss = torch.zeros((), device=device)
        for inputs, targets in islice(loader, accumulation):
            with autocast:
                part = run_model(inputs, targets) / accumulation
            part.backward()
            loss += part.detach()
        optimizer.step(lr_scale := learning_rate_scale(progress))
        # On a GPU that of the step before: to wait for this one's would leave it without work for a moment.
        loss_now = (loss_before if GPU and step > UNTIMED_STEPS else loss).item()
        loss_before = loss
        step_s = clock() - step_started
        step += 1
        if not math.isfinite(loss_now):
            raise SystemExit(f"The loss is {loss_now} at step {step}: the run diverged.")
        if step > UNTIMED_STEPS:
            train_s += step_s
        else:
            startup_s = time.perf_counter() - started
        progress = step / MAX_STEPS if MAX_STEPS else train_s / TIME_BUDGET
        mean_loss = 0.9 * mean_loss + 0.1 * loss_now
        if progress >= next_log:
            print(
                f"step {step:05d} ({min(progress, 1):.1%}) | loss: {mean_loss / (1 - 0.9**step):.4f} | lr: "
                f"{lr_scale:.2f} | dt: {1000 * step_s:.0f} ms | {TOTAL_BATCH_SIZE / step_s:,.0f} tok/s",
                flush=True,
            )
            next_log = progress + LOG_EVERY

    with autocast:
        val_bpb = evaluate_bpb(run_model, batch_size=batch_size, seq_len=SEQ_LEN)
    print("---")
    print(f"val_bpb:          {val_bpb:.6f}")
    print(f"training_seconds: {train_s:.1f}")
    print(f"startup_seconds:  {startup_s:.1f}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")
    tell_use(model, step, train_s)


def tell_use(model: GPT, steps: int, train_s: float) -> None:
    """Print what the run took and made of the machine."""
    print(f"peak_vram_mb:     {peak_memory_mib():.1f}")
    if train_s and (peak_flops := peak_flops_per_s()):
        flops_per_s = model.flops_per_token() * TOTAL_BATCH_SIZE * (steps - UNTIMED_STEPS) / train_s
        print(f"mfu_percent:      {100 * flops_per_s / peak_flops:.2f}")
    print(f"total_tokens_M:   {steps * TOTAL_BATCH_SIZE / 1e6:.2f}")
    print(f"num_steps:        {steps}")
    print(f"num_params_M:     {sum(p.numel() for p in model.parameters()) / 1e6:.2f}")
    print(f"depth:            {DEPTH}")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # at once: torch would first wait, for about ten seconds, until its compiling processes have ended
