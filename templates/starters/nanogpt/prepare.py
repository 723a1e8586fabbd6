"""The fixed half of the nanogpt starter: text, tokenizer, batches, and the metric val_bpb.

Experiments edit train.py; this file is protected, so that every number means the same thing.

    python prepare.py                                 the default corpus: Python's own standard library
    python prepare.py --vocab 4096                    the same text in BPE tokens instead of bytes
    python prepare.py --dataset tinyshakespeare       a corpus from the table below, downloaded once
    python prepare.py --dataset URL --sha256 HEX      any text file, or a .zip of them

train.py uses the corpus prepared last. On disk, in $AUTORESEARCH_CACHE/nanogpt
(default ~/.cache/autoresearch/nanogpt):

    <name>-<vocab>-<digest>.npz    a tokenised corpus; the digest covers its text and its vocabulary
    selected.json                  which of them is in use, and what it was made from
    downloads/<sha256>             what --dataset fetched
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import http.client
import io
import json
import math
import os
import re
import sys
import sysconfig
import tempfile
import time
import urllib.request
import zipfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

TIME_BUDGET = float(os.environ.get("TIME_BUDGET", "15"))  # seconds of training; the runner sets it
CACHE = Path(os.environ.get("AUTORESEARCH_CACHE", "~/.cache/autoresearch")).expanduser() / "nanogpt"

STDLIB = "stdlib"
DATASETS = {  # name -> (URL, SHA-256)
    "tinyshakespeare": (
        "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
        "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
    ),
}
SKIPPED = {"site-packages", "dist-packages", "test", "tests", "idle_test"}  # tests: not all Pythons bring them
FEW_DOCUMENTS = 20  # a corpus of fewer is split into train and validation by passages ...
PASSAGE_BYTES = 2**14  # ... of this size
VAL_FRACTION = 0.05  # of the bytes
MAX_VOCAB = 2**15  # a token fits in an int16
BPE_SAMPLE_BYTES = 2**22  # merges are learnt from this much of the training text
BATCHES_AT_ONCE = 256  # drawn and sent to the device together
EVAL_BLOCK = 2048  # tokens; validation text is read in stretches of this length
EVAL_BLOCKS = {"cpu": 64, "cuda": 1024}  # at most so many, spread evenly over the validation text


class DataError(RuntimeError):
    """The corpus cannot be had; the message says what to do."""


# ---------------------------------------------------------------------------------------------------------
# Text


def read_documents(dataset: str, sha256: str) -> list[tuple[str, bytes]]:
    """The corpus as (name, content), in an order that depends on nothing but the corpus."""
    if dataset == STDLIB:
        root = Path(sysconfig.get_paths()["stdlib"])
        paths = sorted(path for path in root.rglob("*.py") if SKIPPED.isdisjoint(path.relative_to(root).parts))
        return [(path.relative_to(root).as_posix(), path.read_bytes()) for path in paths]
    data = download(dataset, sha256)
    if not zipfile.is_zipfile(io.BytesIO(data)):
        return [(dataset, data)]
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(name, archive.read(name)) for name in sorted(archive.namelist()) if not name.endswith("/")]


def download(url: str, sha256: str) -> bytes:
    """What is at ``url``, fetched once; content with another checksum is refused and not kept."""
    target = CACHE / "downloads" / sha256
    if target.exists() and hashlib.sha256(data := target.read_bytes()).hexdigest() == sha256:
        return data
    print(f"downloading {url}")
    try:
        with urllib.request.urlopen(url, timeout=60) as response:  # noqa: S310 - main() admits http(s) only
            data = bytes(response.read())
    except (OSError, http.client.HTTPException) as error:
        raise DataError(f"{url} could not be downloaded: {error}. Try again, or another --dataset.") from error
    if (found := hashlib.sha256(data).hexdigest()) != sha256:
        raise DataError(f"{url} has the SHA-256 {found}, not {sha256}; nothing was kept.")
    with atomic_file(target) as file:
        file.write(data)
    return data


@contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that appears under ``path`` when complete, or never."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, suffix=".tmp") as directory:
        with Path(directory, path.name).open("wb") as file:
            yield file
        Path(file.name).replace(path)


def split(documents: list[tuple[str, bytes]]) -> tuple[list[bytes], list[bytes]]:
    """Texts to train on and to validate on: each document wholly on one side, duplicates dropped.

    Documents are ordered by the digests of their names, a shuffle that is the same everywhere. Each goes
    to validation if that side has room for it: a very long one, which would be most of it, never does.
    """
    if len(documents) < FEW_DOCUMENTS:
        documents = [
            (f"{name}:{start}", data[start : start + PASSAGE_BYTES])
            for name, data in documents
            for start in range(0, len(data), PASSAGE_BYTES)
        ]
    names = {data: name for name, data in reversed(documents)}  # of equal documents, the first
    train, val, room = [], [], VAL_FRACTION * sum(map(len, names))
    for data in sorted(names, key=lambda data: hashlib.sha256(names[data].encode()).digest()):
        if len(data) <= room:
            val.append(data)
            room -= len(data)
        else:
            train.append(data)
    return train, val


# ---------------------------------------------------------------------------------------------------------
# Tokens


class Tokenizer:
    """Byte-pair encoding: tokens below 256 are bytes, and 256 + i stands for the two tokens ``merges[i]``."""

    # A merge never crosses the border of two pieces. To encode one takes the square of its length: hence the limits.
    PIECES = re.compile(rb" ?[A-Za-z]{1,32}| ?[0-9]{1,3}| ?[^A-Za-z0-9\s]{1,32}|\s{1,32}(?!\S)|\s")

    def __init__(self, merges: Iterable[Sequence[int]] = ()) -> None:
        self.merges = {(int(a), int(b)): 256 + i for i, (a, b) in enumerate(merges)}
        self.texts = [bytes([i]) for i in range(256)]
        for a, b in self.merges:
            self.texts.append(self.texts[a] + self.texts[b])
        self.encode_piece = functools.cache(self._encode_piece)

    @classmethod
    def train(cls, text: bytes, vocab: int) -> Tokenizer:
        """Merge the most frequent pair until there are ``vocab`` tokens, or until no pair occurs twice."""
        words = [(list(piece), n) for piece, n in Counter(cls.PIECES.findall(text)).items()]
        counts: Counter[tuple[int, int]] = Counter()
        words_with: defaultdict[tuple[int, int], set[int]] = defaultdict(set)

        def count(i: int, sign: int) -> None:
            tokens, n = words[i]
            for pair in pairwise(tokens):
                counts[pair] += sign * n
                words_with[pair].add(i)

        for i in range(len(words)):
            count(i, 1)
        merges: list[tuple[int, int]] = []
        while len(merges) < vocab - 256 and counts and counts[best := max(counts, key=counts.__getitem__)] > 1:
            for i in words_with[best].copy():
                count(i, -1)
                words[i] = merge(words[i][0], best, 256 + len(merges)), words[i][1]
                count(i, 1)
            del counts[best], words_with[best]
            merges.append(best)
        return cls(merges)

    def encode(self, text: bytes) -> np.ndarray:
        if not self.merges:
            return np.frombuffer(text, np.uint8)
        pieces = self.PIECES.findall(text)
        return np.array([token for piece in pieces for token in self.encode_piece(piece)], np.int16)

    def decode(self, tokens: Iterable[int]) -> bytes:
        return b"".join(self.texts[token] for token in tokens)

    def _encode_piece(self, piece: bytes) -> list[int]:
        tokens = list(piece)
        while (pair := min(pairwise(tokens), key=self._rank, default=None)) in self.merges:
            tokens = merge(tokens, pair, self.merges[pair])
        return tokens

    def _rank(self, pair: tuple[int, int]) -> float:
        return self.merges.get(pair, math.inf)


def merge(tokens: list[int], pair: tuple[int, int], new: int) -> list[int]:
    """``tokens`` with each ``pair``, found from the left, replaced by ``new``."""
    merged, i = [], 0
    while i < len(tokens):
        found = tuple(tokens[i : i + 2]) == pair
        merged.append(new if found else tokens[i])
        i += 2 if found else 1
    return merged


# ---------------------------------------------------------------------------------------------------------
# The prepared corpus


@dataclass(frozen=True)
class Corpus:
    """Tokens, uint8 if they are bytes and int16 otherwise, with a zero byte before each document."""

    train: Tensor
    val: Tensor
    tokenizer: Tokenizer

    @property
    def vocab_size(self) -> int:
        return len(self.tokenizer.texts)


def prepare(dataset: str = STDLIB, sha256: str = "", vocab: int = 256) -> Path:
    """Tokenise a corpus and return its new file.

    Several processes may do so at once: each writes its own file, and the last to rename it wins.
    """
    documents = read_documents(dataset, sha256)
    digest = hashlib.sha256(f"recipe 1, vocabulary {vocab}".encode())
    for name, data in documents:
        digest.update(f"\0{name}\0{len(data)}\0".encode() + data)
    train, val = split(documents)
    tokenizer = Tokenizer.train(b"".join(train)[:BPE_SAMPLE_BYTES], vocab) if vocab > 256 else Tokenizer()
    train_tokens, val_tokens = (
        np.concatenate([tokenizer.encode(b"\0" + text) for text in texts] or [np.zeros(0, np.uint8)])
        for texts in (train, val)
    )
    if min(len(train_tokens), len(val_tokens)) <= EVAL_BLOCK:
        raise DataError(
            f"{dataset} is too small: {len(train_tokens)} tokens to train on and {len(val_tokens)} to "
            f"validate on, where {EVAL_BLOCK + 1} are the least. Name another --dataset."
        )
    name = re.sub(r"\W+", "-", Path(dataset).stem)
    path = CACHE / f"{name}-{vocab}-{digest.hexdigest()[:16]}.npz"
    with atomic_file(path) as file:
        merges = np.array(list(tokenizer.merges), np.int16).reshape(-1, 2)
        np.savez(file, train=train_tokens, val=val_tokens, merges=merges)
    return path


@functools.cache
def load_corpus() -> Corpus:
    """The corpus prepared last, or the default one if there is none. A damaged file is made anew."""
    if not (selected := CACHE / "selected.json").exists():
        select(prepare())
    try:
        source = json.loads(selected.read_text())
        path = CACHE / source.pop("file")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{selected} is damaged ({error}). Run: python prepare.py") from error
    try:
        return read_corpus(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        print(f"{path} cannot be read ({error}); preparing it again", file=sys.stderr)
    if prepare(**source) != path:
        raise DataError(
            f"{path} cannot be made again: {source['dataset']} is not the text that it was. "
            "Start afresh with python prepare.py; results on the new text do not compare with the old ones."
        )
    return read_corpus(path)


def read_corpus(path: Path) -> Corpus:
    with np.load(path, allow_pickle=False) as data:  # a zip file: a damaged one fails its CRC
        train, val = (torch.from_numpy(data[side]) for side in ("train", "val"))
        return Corpus(train, val, Tokenizer(data["merges"]))


def select(path: Path, dataset: str = STDLIB, sha256: str = "", vocab: int = 256) -> None:
    """Make ``path`` the corpus that ``load_corpus`` gives."""
    source = {"dataset": dataset, "sha256": sha256, "vocab": vocab, "file": path.name}
    with atomic_file(CACHE / "selected.json") as file:
        file.write(json.dumps(source, indent=1).encode())


def batches(
    tokens: Tensor, batch_size: int, seq_len: int, *, seed: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (inputs, targets) of shape (batch_size, seq_len): windows at places drawn from ``seed``."""
    tokens = tokens.to(device)
    generator = torch.Generator().manual_seed(seed)  # on the CPU, so that every device sees the same order
    offsets = torch.arange(seq_len + 1, device=device)
    while True:
        # Many places at once: a copy to the GPU waits until the GPU has done all work that it was given.
        places = torch.randint(len(tokens) - seq_len, (BATCHES_AT_ONCE, batch_size, 1), generator=generator)
        for starts in places.to(device):
            window = tokens[starts + offsets].long()
            yield window[:, :-1], window[:, 1:]


# ---------------------------------------------------------------------------------------------------------
# The metric


@torch.no_grad()
def evaluate_bpb(model: nn.Module, *, batch_size: int, seq_len: int) -> float:
    """Bits that ``model`` needs per byte of validation text; lower is better. Leaves it in eval mode.

    ``model(inputs)`` must give logits of shape (batch_size, seq_len, vocab_size). The text is the same for
    every ``batch_size`` and ``seq_len``; the latter is how far back the model may look. Bits are per byte,
    not per token, to keep their meaning when the tokenizer changes. A model that looks ahead is a ValueError.
    """
    if seq_len < 2 or EVAL_BLOCK % seq_len:
        raise ValueError(f"seq_len is {seq_len}, but must be above 1 and divide {EVAL_BLOCK}.")
    corpus, device = load_corpus(), next(model.parameters()).device
    text_bytes = torch.tensor([len(text) for text in corpus.tokenizer.texts], device=device)
    blocks = min(EVAL_BLOCKS[device.type], (len(corpus.val) - 1) // EVAL_BLOCK)
    block_starts = torch.linspace(0, len(corpus.val) - 1 - EVAL_BLOCK, blocks, dtype=torch.float64).long()
    starts = (block_starts[:, None] + torch.arange(0, EVAL_BLOCK, seq_len)).flatten()
    model.eval()
    nats, total_bytes = 0.0, 0
    for rows in starts.split(batch_size):
        full = rows[torch.arange(batch_size) % len(rows)]  # one shape: a compiled model is compiled once
        window = corpus.val[full[:, None] + torch.arange(seq_len + 1)].to(device).long()
        inputs, targets = window[:, :-1], window[: len(rows), 1:]
        logits = model(inputs).float()
        if total_bytes == 0:
            refuse_foresight(model, inputs, logits)
        logits = logits[: len(rows)]
        nats += F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum").item()
        total_bytes += int(text_bytes[targets].sum())
    return nats / math.log(2) / total_bytes


def refuse_foresight(model: nn.Module, inputs: Tensor, logits: Tensor) -> None:
    """Change the second half of the text and compare the predictions in the first."""
    half = inputs.shape[1] // 2
    changed = torch.cat((inputs[:, :half], inputs[:, half:] // 2 + 1), dim=1)
    effect = (model(changed).float() - logits)[:, :half].abs().max()
    if effect > 0.01 * logits.abs().max():
        raise ValueError("The model looks ahead: a prediction changes with the text that comes after it.")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    names = ", ".join([STDLIB, *DATASETS])
    parser.add_argument("--dataset", default=STDLIB, help=f"one of {names}, or a URL")
    parser.add_argument("--sha256", default="", help="of the file at the URL, as sha256sum prints it")
    parser.add_argument("--vocab", type=int, default=256, help=f"tokens, 256 (bytes) to {MAX_VOCAB}")
    args = parser.parse_args(argv)
    dataset, sha256 = DATASETS.get(args.dataset, (args.dataset, args.sha256.lower()))
    if dataset != STDLIB and not re.match("https?://", dataset):
        parser.error(f"--dataset must be one of {names}, or an http(s) URL; not {dataset!r}")
    if dataset != STDLIB and not re.fullmatch("[0-9a-f]{64}", sha256):
        parser.error(f"a URL needs --sha256 with 64 hexadecimal digits; not {sha256!r}")
    if not 256 <= args.vocab <= MAX_VOCAB:
        parser.error(f"--vocab must be from 256 to {MAX_VOCAB}; not {args.vocab}")
    started = time.perf_counter()
    try:
        path = prepare(dataset, sha256, args.vocab)
    except DataError as error:
        print(f"prepare.py: {error}", file=sys.stderr)
        return 1
    select(path, dataset, sha256, args.vocab)
    corpus = read_corpus(path)
    text_bytes = sum(len(corpus.tokenizer.texts[token]) for token in corpus.val.tolist())
    print(f"corpus:      {args.dataset}, in {path}")
    print(f"vocabulary:  {corpus.vocab_size} tokens of {text_bytes / len(corpus.val):.2f} bytes")
    print(f"tokens:      {len(corpus.train):,} to train on, {len(corpus.val):,} to validate on")
    print(f"prepared in: {time.perf_counter() - started:.1f} s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
