"""The fixed half of the vision starter: images, labels, and the metric val_accuracy.

Experiments edit train.py; this file is protected, so that every number means the same thing.

    python prepare.py         make the images, once; some seconds, no download
    python prepare.py test    train as train.py does, and tell the accuracy on the test images

The digits are real: the 1,797 scans that scikit-learn ships. Each image holds one of them, turned, scaled and
placed at random, among fragments of others, strokes and noise. Train, validation and test images are made from
different scans. On disk, in $AUTORESEARCH_CACHE/vision (default ~/.cache/autoresearch/vision):

    digits-<digest>.npz    all images and labels; the digest covers the scans and the recipe
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import sys
import tempfile
import time
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_BUDGET = float(os.environ.get("TIME_BUDGET", "10"))  # seconds of training; the runner sets it
CACHE = Path(os.environ.get("AUTORESEARCH_CACHE", "~/.cache/autoresearch")).expanduser() / "vision"

CLASSES = 10
SIDE = 20  # of an image, in pixels
SCAN_SIDE = 8
IMAGES = {"train": 20_000, "val": 4_000, "test": 4_000}
SCANS = {"train": 1_197, "val": 300, "test": 300}
SCALES = (1.3, 1.75)  # pixels of the image per pixel of the scan
TURN = 20  # degrees, at most, to either side
FRAGMENTS = 2  # of other digits, in each image
FRAGMENT = 3  # side of one, in pixels of the scan
FRAGMENT_LIGHT = (0.4, 0.8)  # of the digit's
NOISE = 0.1  # standard deviation, where a digit's ink is up to 1
EVAL_BATCH = 1_000
RECIPE = f"1 {SIDE} {IMAGES} {SCANS} {SCALES} {TURN} {FRAGMENTS} {FRAGMENT} {FRAGMENT_LIGHT} {NOISE}"


# ---------------------------------------------------------------------------------------------------------
# Images


def scans() -> tuple[Tensor, Tensor]:
    """scikit-learn's digits: (1797, 8, 8) from 0 to 1, and their labels."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    return torch.tensor(digits.images / 16, dtype=torch.float32), torch.tensor(digits.target)


def uniform(shape: int | tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def placed(patches: Tensor, generator: torch.Generator, room: float) -> Tensor:
    """Each patch (N, 8, 8) turned, scaled and moved at random on an empty image of its own.

    ``room`` is how far a patch's middle may lie from the image's, in pixels.
    """
    count = len(patches)
    scale = uniform(count, *SCALES, generator)
    angle = uniform(count, -TURN, TURN, generator).deg2rad()
    shift = uniform((count, 2), -room, room, generator) * 2 / SIDE
    zoom = SIDE / SCAN_SIDE / scale  # the grid says where in the patch, from -1 to 1, each pixel lies
    turn = torch.stack((angle.cos(), -angle.sin(), angle.sin(), angle.cos()), 1).view(count, 2, 2) * zoom[:, None, None]
    theta = torch.cat((turn, -turn @ shift[:, :, None]), dim=2)
    grid = F.affine_grid(theta, [count, 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(patches[:, None], grid, align_corners=False)[:, 0]


def fragments(scans: Tensor, generator: torch.Generator) -> Tensor:
    """Pieces of the scans, FRAGMENT pixels wide, in the middle of an empty patch."""
    corners = torch.randint(SCAN_SIDE - FRAGMENT + 1, (len(scans), 2), generator=generator)
    inside = torch.arange(FRAGMENT)
    rows, columns = (corners[:, i, None] + inside for i in range(2))
    pieces = scans[torch.arange(len(scans))[:, None, None], rows[:, :, None], columns[:, None, :]]
    before = (SCAN_SIDE - FRAGMENT) // 2
    after = SCAN_SIDE - FRAGMENT - before
    return F.pad(pieces, (before, after, before, after))


def compose(scans: Tensor, count: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
    """``count`` images, uint8 of shape (count, SIDE, SIDE), and which scan is in each."""
    chosen = torch.randint(len(scans), (count,), generator=generator)
    images = placed(scans[chosen], generator, room=(SIDE - SCAN_SIDE * SCALES[1]) / 2)
    for _ in range(FRAGMENTS):
        others = scans[torch.randint(len(scans), (count,), generator=generator)]
        light = uniform((count, 1, 1), *FRAGMENT_LIGHT, generator)
        images = torch.maximum(images, light * placed(fragments(others, generator), generator, room=SIDE / 2))
    images = images + NOISE * torch.randn(images.shape, generator=generator)
    return (255 * images.clamp(0, 1)).round().to(torch.uint8).numpy(), chosen.numpy()


def prepare() -> Path:
    """Make the images and return their file. Several processes may do so at once: their files are equal."""
    images, labels = scans()
    digest = hashlib.sha256(RECIPE.encode() + images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()
    path = CACHE / f"digits-{digest[:16]}.npz"
    generator = torch.Generator().manual_seed(0)
    shares = torch.randperm(len(images), generator=generator).split(list(SCANS.values()))
    arrays = {}
    for split, share in zip(IMAGES, shares, strict=True):
        arrays[f"{split}_images"], chosen = compose(images[share], IMAGES[split], generator)
        arrays[f"{split}_labels"] = labels[share].numpy()[chosen].astype(np.int64)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE, suffix=".tmp") as directory:
        np.savez(whole := Path(directory, path.name), **arrays)
        whole.replace(path)  # appears when complete, or never
    return path


@functools.cache
def load(split: str) -> tuple[Tensor, Tensor]:
    """Images, uint8 of shape (N, SIDE, SIDE), and labels. What is missing or damaged is made anew."""
    found = sorted(CACHE.glob("digits-*.npz"))
    for path in found if len(found) == 1 else []:
        try:
            return read(path, split)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            print(f"{path} cannot be read ({error}); making it again", file=sys.stderr)
    return read(prepare(), split)


def read(path: Path, split: str) -> tuple[Tensor, Tensor]:
    with np.load(path, allow_pickle=False) as data:  # a zip file: a damaged one fails its CRC
        return torch.from_numpy(data[f"{split}_images"]), torch.from_numpy(data[f"{split}_labels"])


def training_data(device: str) -> tuple[Tensor, Tensor]:
    """All that train.py may learn from: images, uint8 of shape (N, SIDE, SIDE), and labels, on ``device``."""
    images, labels = load("train")
    return images.to(device), labels.to(device)


# ---------------------------------------------------------------------------------------------------------
# The metric


@torch.no_grad()
def evaluate(model: nn.Module, split: str = "val") -> float:
    """The share of images of ``split`` that ``model`` classifies right; higher is better. Leaves it in eval mode.

    ``model(images)``, given uint8 of shape (N, SIDE, SIDE), must return finite logits of shape (N, CLASSES).
    The images come in another order each time: nothing but what is in them tells their labels.
    """
    model.eval()
    device = next(model.parameters()).device
    images, labels = load(split)
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(time.time_ns()))
    right = 0
    for chosen in order.split(EVAL_BATCH):
        logits = model(images[chosen].to(device))
        if logits.shape != (len(chosen), CLASSES) or not logits.isfinite().all():
            raise ValueError(f"The model must return finite logits of shape ({len(chosen)}, {CLASSES}).")
        right += int((logits.argmax(dim=1).cpu() == labels[chosen]).sum())
    return right / len(images)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("what", nargs="?", choices=["images", "test"], default="images", help="default: images")
    if parser.parse_args(argv).what == "test":
        from train import train

        model = train()[0]
        print("---")
        print(f"test_accuracy:    {evaluate(model, 'test'):.6f}")
        return 0
    started = time.perf_counter()
    path = prepare()
    print(f"images:      {', '.join(f'{count:,} {split}' for split, count in IMAGES.items())}, in {path}")
    print(f"prepared in: {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
