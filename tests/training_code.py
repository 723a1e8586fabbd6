"""A small project in karpathy's style, and edits of it held against the guards."""

from __future__ import annotations

from pathlib import Path

from autoresearch.config import Config
from autoresearch.guard import check_edit

STARTER = Path(__file__).resolve().parent.parent / "templates" / "starters" / "nanogpt"

PREPARE = '''\
"""Data and evaluation."""
import math
import time

import torch
import torch.nn.functional as F

TIME_BUDGET = 300
MAX_SEQ_LEN = 2048


class Tokenizer:
    def encode(self, text):
        return list(text.encode())


def make_dataloader(tokenizer, batch_size, split):
    while True:
        yield torch.randint(256, (batch_size, MAX_SEQ_LEN))


def evaluate_bpb(model, tokenizer, batch_size):
    started = time.time()
    x = next(make_dataloader(tokenizer, batch_size, "val"))
    return F.cross_entropy(model(x), x).item() / math.log(2)
'''

TRAIN = '''\
"""Train a small GPT."""
import math
import os
import time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader


@dataclass
class GPTConfig:
    n_layer: int = 8
    n_embd: int = 512
    dropout: float = 0.0


class MLP(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd)

    def forward(self, x):
        return self.down(F.gelu(self.up(x)))


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.blocks = nn.ModuleList(MLP(config) for _ in range(config.n_layer))

    def forward(self, x):
        for block in self.blocks:
            x = x + block(x)  # residual
        return x


MATRIX_LR = 0.04
WEIGHT_DECAY = 0.2
DEVICE_BATCH_SIZE = 128
SEED = int(os.environ.get("AUTORESEARCH_SEED", "42"))

t_start = time.time()
torch.manual_seed(SEED)
torch.cuda.manual_seed(SEED)
torch.set_float32_matmul_precision("high")

tokenizer = Tokenizer()
model = GPT(GPTConfig())
optimizer = torch.optim.AdamW(model.parameters(), lr=MATRIX_LR, weight_decay=WEIGHT_DECAY)
loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, "train")


def lr_multiplier(progress):
    return 1.0 if progress < 0.5 else 2 * (1 - progress)


step = 0
training_time = 0.0
while training_time < TIME_BUDGET:
    t0 = time.time()
    x = next(loader)
    loss = model(x).mean()
    loss.backward()
    for group in optimizer.param_groups:
        group["lr"] = MATRIX_LR * lr_multiplier(training_time / TIME_BUDGET)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    training_time += time.time() - t0
    step += 1
    print(f"step {step} | loss: {loss.item():.4f}", end="\\r", flush=True)

model.eval()
with torch.no_grad():
    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)

print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {training_time:.1f}")
print(f"num_steps:        {step}")
'''
CONFIG = Config.from_dict(
    {
        "command": "uv run train.py",
        "metric": {"name": "val_bpb"},
        "edit": ["train.py"],
        "protect": ["prepare.py"],
    }
)

# Pieces of TRAIN that edits replace.
IMPORT = "from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, evaluate_bpb, make_dataloader\n"
SEED = 'SEED = int(os.environ.get("AUTORESEARCH_SEED", "42"))\n'
SEEDING = "torch.manual_seed(SEED)\ntorch.cuda.manual_seed(SEED)\n"
EVALUATION = "    val_bpb = evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE)\n"
PRINT = 'print(f"val_bpb:          {val_bpb:.6f}")'
FASTER = ("MATRIX_LR = 0.04", "MATRIX_LR = 0.05")  # a real change beside another

Changes = list[tuple[str, str]]


def on_top(code: str) -> tuple[str, str]:
    """Put ``code`` after the imports."""
    return "\n\n@dataclass\n", f"\n{code}\n\n\n@dataclass\n"


def before_loop(code: str) -> tuple[str, str]:
    """Put ``code`` between set-up and training."""
    return "step = 0\n", f"{code}\nstep = 0\n"


def edited(text: str, changes: Changes) -> str:
    """``text`` with each (old, new) of ``changes`` replaced in turn."""
    for old, new in changes:
        assert old in text, f"{old!r} is not in the training code"
        text = text.replace(old, new)
    return text


def check(changes: Changes, *, before: str = TRAIN, config: Config = CONFIG, prepare: str = PREPARE) -> list[str]:
    """Hold an edit of train.py against the guards."""
    after = {"train.py": edited(before, changes)}
    return check_edit({"train.py": before}, after, config, protected_sources={"prepare.py": prepare})
