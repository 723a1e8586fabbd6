"""Train a small residual network for TIME_BUDGET seconds. This is the file that experiments edit.

    python train.py

Progress lines come first, then `---` and `key: value` lines; val_accuracy is the one that counts, higher is better.
The constants below are conservative rather than tuned.
"""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prepare import CLASSES, TIME_BUDGET, evaluate, training_data

GPU = torch.cuda.is_available()

# Model. WIDTH alone sets its size.
WIDTH = 64 if GPU else 16  # channels of the first stage; each further one has twice as many
STAGES = 3 if GPU else 2  # each halves the image
BLOCKS = 2 if GPU else 1  # residual blocks of a stage

# Optimiser: AdamW with one cycle of the learning rate.
BATCH_SIZE = 512 if GPU else 64  # images per step
PEAK_LR = 0.001
BETAS = (0.9, 0.99)
WEIGHT_DECAY = 0.05  # of matrices and kernels, per step and unit of learning rate
LABEL_SMOOTHING = 0.0
WARMUP_RATIO = 0.2  # of the run, in which the learning rate rises from zero; then it falls to zero

# Augmentation.
SHIFT = 1  # pixels that an image moves, at most, in each direction

# The run.
SEED = int(os.environ.get("AUTORESEARCH_SEED", "1"))  # set by the runner: initial weights, order, augmentation
MAX_STEPS = int(os.environ.get("MAX_STEPS", "0"))  # steps; 0: the time budget decides
UNTIMED_STEPS = 3  # the first steps, which compile and warm up, do not count against the budget
LOG_EVERY = 0.02  # of the run, between two progress lines
CPU_THREADS = 1  # the CPU seconds of all of them count; on busy cores they wait for each other, for long


# ---------------------------------------------------------------------------------------------------------
# Model


class Block(nn.Module):
    """Two 3x3 convolutions beside the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1, bias=False),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)


class ResNet(nn.Module):
    """uint8 images of shape (N, side, side) to logits."""

    def __init__(self) -> None:
        super().__init__()
        stages, channels = [], 1
        for stage in range(STAGES):
            width = WIDTH * 2**stage
            stages.append(nn.Conv2d(channels, width, 3, stride=2, padding=1, bias=False))
            stages.extend(Block(width) for _ in range(BLOCKS))
            channels = width
        self.stages = nn.Sequential(*stages, nn.BatchNorm2d(channels), nn.ReLU())
        self.head = nn.Linear(channels, CLASSES)
        nn.init.zeros_(self.head.weight)  # starts as the uniform distribution: a loss of log(CLASSES)

    def forward(self, images: Tensor) -> Tensor:
        x = images[:, None].float() / 255 - 0.25
        x = self.stages(x.to(memory_format=torch.channels_last))
        return self.head(x.mean(dim=(2, 3))).float()


# ---------------------------------------------------------------------------------------------------------
# Data


def augmented(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each image moved by up to SHIFT pixels, with what is outside black."""
    if SHIFT == 0:
        return images
    count, side, _ = images.shape
    corners = torch.randint(2 * SHIFT + 1, (2, count, 1), generator=generator, device=images.device)
    rows, columns = corners + torch.arange(side, device=images.device)
    padded = F.pad(images, (SHIFT, SHIFT, SHIFT, SHIFT))
    return padded[torch.arange(count, device=images.device)[:, None, None], rows[:, :, None], columns[:, None, :]]


def batches(device: str) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (images, labels): each epoch in an order of its own, all of it on ``device``."""
    images, labels = training_data(device)
    generator = torch.Generator(device).manual_seed(SEED)
    while True:
        order = torch.randperm(len(images), generator=generator, device=device)
        for chosen in order[: len(order) // BATCH_SIZE * BATCH_SIZE].view(-1, BATCH_SIZE):
            yield augmented(images[chosen], generator), labels[chosen]


# ---------------------------------------------------------------------------------------------------------
# The run


def learning_rate_scale(progress: float) -> float:
    """Factor on the peak learning rate at ``progress`` (0 to 1) of the run: up in a line, down in a cosine."""
    if progress < WARMUP_RATIO:
        return progress / WARMUP_RATIO
    return 0.5 * (1 + math.cos(math.pi * min(1.0, (progress - WARMUP_RATIO) / (1 - WARMUP_RATIO))))


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    decayed = [weight for weight in model.parameters() if weight.ndim > 1]
    others = [weight for weight in model.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=PEAK_LR, betas=BETAS, fused=GPU)


def train() -> tuple[nn.Module, dict[str, float]]:
    """The trained model, and what the training took."""
    started = time.perf_counter()
    device = "cuda" if GPU else "cpu"
    torch.manual_seed(SEED)
    torch.set_num_threads(CPU_THREADS)
    torch.set_float32_matmul_precision("high")  # TF32 where autocast does not reach
    model = ResNet().to(device, memory_format=torch.channels_last)
    optimizer = make_optimizer(model)
    run_model = torch.compile(model, dynamic=False) if GPU else model
    # On a CPU the budget is this process's CPU time: other work on the machine makes a run longer, hardly worse.
    clock = time.perf_counter if GPU else time.process_time
    step, train_s, progress, mean_loss, next_log = 0, 0.0, 0.0, 0.0, 0.0
    for images, labels in batches(device):
        step_started = clock()
        lr_scale = learning_rate_scale(progress)
        for group in optimizer.param_groups:
            group["lr"] = lr_scale * PEAK_LR
        with torch.autocast(device, torch.bfloat16, enabled=GPU):
            loss = F.cross_entropy(run_model(images), labels, label_smoothing=LABEL_SMOOTHING)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        loss_now = loss.item()
        step_s = clock() - step_started
        step += 1
        if not math.isfinite(loss_now):
            raise SystemExit(f"The loss is {loss_now} at step {step}: the run diverged.")
        if step > UNTIMED_STEPS:
            train_s += step_s
        progress = step / MAX_STEPS if MAX_STEPS else train_s / TIME_BUDGET
        mean_loss = 0.9 * mean_loss + 0.1 * loss_now
        if progress >= next_log:
            print(
                f"step {step:05d} ({min(progress, 1):.1%}) | loss: {mean_loss / (1 - 0.9**step):.4f} | lr: "
                f"{lr_scale:.2f} | dt: {1000 * step_s:.1f} ms | {BATCH_SIZE / step_s:,.0f} images/s",
                flush=True,
            )
            next_log = progress + LOG_EVERY
        if progress >= 1:
            break
    return model, {
        "training_seconds": train_s,
        "startup_seconds": time.perf_counter() - started - train_s,
        "num_steps": step,
        "epochs": step * BATCH_SIZE / len(training_data(device)[0]),
        "num_params_M": sum(weight.numel() for weight in model.parameters()) / 1e6,
    }


def main() -> None:
    started = time.perf_counter()
    model, figures = train()
    print("---")
    print(f"val_accuracy:     {evaluate(model):.6f}")
    for name, value in figures.items():
        print(f"{name + ':':<17} {value:.4g}")
    print(f"total_seconds:    {time.perf_counter() - started:.1f}")


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # at once: torch would first wait, for about ten seconds, until its compiling processes have ended
