"""Our nanogpt starter beside another train.py, each on one GPU: val_bpb, MFU and memory at an equal budget.

    python benchmarks/nanogpt_gpu/run.py --budget 60 --seeds 5 --reference karpathy/train.py

    python benchmarks/nanogpt_gpu/run.py --stored benchmarks/nanogpt_gpu/h200.json

With ``--gpus 0,1`` as many trainings run at once, each code on each card in turn.
Both train on the same tokens (the Python sources of this machine's packages, in BPE tokens) and are
judged by the same validation code, ours. The reference is karpathy/autoresearch's train.py, fetched by
whoever measures; it runs with two replacements, told in ``adapt``. Needs a CUDA GPU, torch and numpy.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import itertools
import json
import multiprocessing
import os
import queue
import re
import signal
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scipy import stats

STARTER = Path(__file__).resolve().parents[2] / "templates" / "starters" / "nanogpt"
COMPILED_AT_ONCE = 3  # codes, whose memory must fit on one card together
FIGURES = ("val_bpb", "mfu_percent", "peak_vram_mb", "num_steps", "num_params_M", "training_seconds", "total_seconds")

# What the reference expects of its prepare.py, over ours: the same windows of the same text.
SHIM = """
import sys
sys.path.insert(0, {starter!r})
import importlib.util
spec = importlib.util.spec_from_file_location("ours", {prepare!r})
ours = importlib.util.module_from_spec(spec)
sys.modules["ours"] = ours
spec.loader.exec_module(ours)
import os
import torch
TIME_BUDGET = ours.TIME_BUDGET
MAX_SEQ_LEN = 2048
SEED = int(os.environ.get("AUTORESEARCH_SEED", "1"))

class Tokenizer:
    @classmethod
    def from_directory(cls):
        return cls()
    def get_vocab_size(self):
        return ours.load_corpus().vocab_size

def make_dataloader(tokenizer, B, T, split):
    for inputs, targets in ours.batches(ours.load_corpus().train, B, T, seed=SEED, device="cuda"):
        yield inputs.contiguous(), targets.contiguous(), 1

def evaluate_bpb(model, tokenizer, batch_size):
    return ours.evaluate_bpb(model, batch_size=batch_size, seq_len=MAX_SEQ_LEN)
"""


def adapt(reference: Path, folder: Path) -> Path:
    """A copy of the reference that runs without a network, at the seed that the runner sets.

    Attention is torch's own in place of a kernel from a hub, so windows are full ones; the data and the
    evaluation are ours.
    """
    code = reference.read_text(encoding="utf-8")
    code, kernels = re.subn(r"from kernels import get_kernel\n.*?flash_attn_interface\n", "", code, flags=re.DOTALL)
    code, calls = re.subn(
        r"fa3\.flash_attn_func\(q, k, v, causal=True, window_size=window_size\)",
        "F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)"
        ".transpose(1, 2)",
        code,
    )
    code, windows = re.subn(r'WINDOW_PATTERN = "SSSL"', 'WINDOW_PATTERN = "L"', code)
    code, seeds = re.subn(r"manual_seed\(42\)", 'manual_seed(int(os.environ["AUTORESEARCH_SEED"]))', code)
    assert (kernels, calls, windows, seeds) == (1, 1, 1, 2), "this is not the train.py that was measured"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "train.py").write_text(code, encoding="utf-8")
    shim = SHIM.format(starter=str(STARTER), prepare=str(STARTER / "prepare.py"))
    (folder / "prepare.py").write_text(shim, encoding="utf-8")
    return folder / "train.py"


def documents(megabytes: int) -> list[tuple[str, bytes]]:
    """The Python sources of the installed packages, (path, content), up to so much text."""
    packages = [Path(sysconfig.get_paths()[name]) for name in ("purelib", "stdlib")]
    packages += [Path(entry) for entry in sys.path if entry.endswith(("site-packages", "dist-packages"))]
    found, size = {}, 0
    for path in sorted({file for package in packages for file in package.rglob("*.py")}):
        data = path.read_bytes() if path.is_file() else b""
        if 200 < len(data) < 200_000 and size < megabytes * 2**20:  # no empty ones, no generated tables
            found[str(path)] = data
            size += len(data)
    return list(found.items())


def make_corpus(vocab: int, megabytes: int) -> None:
    """Tokenise the Python sources of the installed packages, unless that was done before."""
    sys.path.insert(0, str(STARTER))
    prepare = importlib.import_module("prepare")
    if (prepare.CACHE / "selected.json").exists():
        return
    sources = documents(megabytes)
    learn = prepare.Tokenizer.train

    def learn_and_encode(text: bytes, vocab: int) -> object:
        """The tokenizer; all documents are encoded here by as many processes as there are cores."""
        tokenizer = learn(text, vocab)
        _Worker.encode = tokenizer.encode
        texts = [b"\0" + data for _, data in sources]
        with multiprocessing.get_context("fork").Pool() as pool:
            tokenizer.encode = dict(zip(texts, pool.map(_Worker.run, texts, chunksize=64), strict=True)).__getitem__
        return tokenizer

    prepare.read_documents = lambda dataset, sha256: sources
    prepare.Tokenizer.train = learn_and_encode
    started = time.perf_counter()
    path = prepare.prepare("packages", "", vocab)
    prepare.select(path, "packages", "", vocab)
    corpus = prepare.read_corpus(path)
    sizes = (
        f"{len(corpus.train) / 1e6:.1f} M tokens of {corpus.vocab_size}, {len(corpus.val) / 1e6:.2f} M to validate on"
    )
    size = sum(len(data) for _, data in sources)
    print(f"corpus: {size / 1e6:.0f} MB, {sizes}, in {time.perf_counter() - started:.0f} s", flush=True)


class _Worker:
    """What a process that encodes has: it is forked, so nothing needs to be sent."""

    encode: Callable[[bytes], Any]

    @classmethod
    def run(cls, text: bytes) -> Any:
        return cls.encode(text)


def variant_of(code: Path, constants: dict[str, str], folder: Path) -> Path:
    """A copy of ``code``, and of the prepare.py beside it, with other constants."""
    text = code.read_text(encoding="utf-8")
    for name, value in constants.items():
        text, count = re.subn(rf"(?m)^{name} = [^#\n]+", f"{name} = {value}  ", text)
        assert count == 1, f"no constant {name} in {code}"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / code.name).write_text(text, encoding="utf-8")
    (folder / "prepare.py").write_text((STARTER / "prepare.py").read_text(encoding="utf-8"), encoding="utf-8")
    return folder / code.name


def train(code: Path, seed: int, budget_s: float, gpu: str) -> dict[str, float]:
    """One training in a process of its own; its figures."""
    env = os.environ | {"AUTORESEARCH_SEED": str(seed), "TIME_BUDGET": f"{budget_s:g}", "CUDA_VISIBLE_DEVICES": gpu}
    started = time.perf_counter()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [sys.executable, str(code)], env=env, cwd=code.parent, stdout=log, stderr=log, start_new_session=True
        )
        status = process.wait()
        wall_s = time.perf_counter() - started
        with contextlib.suppress(ProcessLookupError):  # what compiled for it would go on for some seconds
            os.killpg(process.pid, signal.SIGKILL)
        log.seek(0)
        output = log.read().decode(errors="replace")
    if status:
        print(output[-2500:], flush=True)
        return {}
    found = {name: re.search(rf"(?m)^{name}:\s*(\S+)", output) for name in FIGURES}
    return {name: float(match[1]) for name, match in found.items() if match} | {"wall_seconds": wall_s}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", type=Path, help="karpathy/autoresearch's train.py")
    parser.add_argument("--budget", type=float, default=60.0, metavar="S")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--vocab", type=int, default=8192)
    parser.add_argument("--megabytes", type=int, default=160, help="of text")
    parser.add_argument("--code", type=Path, default=STARTER / "train.py", help="ours, or a variant of it")
    parser.add_argument(
        "--try", dest="variants", metavar="NAME=VALUE,…", action="append", default=[], help="ours with these constants"
    )
    parser.add_argument("--gpus", default="0", metavar="LIST", help="their numbers; one training on each at a time")
    parser.add_argument("--out", type=Path, help="write all figures as JSON")
    parser.add_argument("--stored", type=Path, metavar="JSON", help="train nothing, summarise what --out wrote")
    args = parser.parse_args()
    if args.stored:
        summarise(json.loads(args.stored.read_text(encoding="utf-8")))
        return
    make_corpus(args.vocab, args.megabytes)
    folder = Path(tempfile.gettempdir()) / "nanogpt_gpu"
    codes = {"ours": variant_of(args.code, {}, folder / "ours")}
    for number, text in enumerate(args.variants):
        constants = dict(pair.split("=", 1) for pair in text.split(","))
        codes[text] = variant_of(args.code, constants, folder / f"variant-{number}")
    if args.reference:
        codes["reference"] = adapt(args.reference, folder / "reference")
    gpus = args.gpus.split(",")
    started = time.perf_counter()
    with ThreadPoolExecutor(COMPILED_AT_ONCE) as pool:
        list(pool.map(lambda code: train(code, args.first_seed, 0.2, gpus[0]), codes.values()))
    print(f"all compiled in {time.perf_counter() - started:.0f} s", flush=True)
    results: dict[str, list[dict[str, float]]] = {name: [] for name in codes}
    free: queue.Queue[str] = queue.Queue()
    for gpu in gpus:
        free.put(gpu)
    writing = threading.Lock()

    def one(name: str, seed: int) -> None:
        gpu = free.get()
        figures = train(codes[name], seed, args.budget, gpu)
        free.put(gpu)
        with writing:
            results[name].append({"seed": seed, "gpu": int(gpu)} | figures)
            print(name, *(f"{key} {value:g}" for key, value in results[name][-1].items()), sep="  ", flush=True)
            if args.out:
                args.out.write_text(json.dumps(results, indent=1), encoding="utf-8")

    seeds = range(args.first_seed, args.first_seed + args.seeds)
    # Side by side, so that a slow hour meets all codes; their order turns around so that each card does.
    orders = itertools.cycle([list(codes), list(reversed(codes))])
    with ThreadPoolExecutor(len(gpus)) as pool:
        list(pool.map(lambda job: one(*job), [(name, seed) for seed in seeds for name in next(orders)]))
    summarise(results)


def summarise(results: dict[str, list[dict[str, float]]]) -> None:
    """Print means and standard deviations, and each code's val_bpb against the reference's at equal seeds."""
    for name, runs in results.items():
        for key in ("val_bpb", "mfu_percent", "peak_vram_mb"):
            values = [run[key] for run in runs if key in run]
            if values:
                spread = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
                print(f"{name:<40} {key:<14} {statistics.fmean(values):.4f}{spread}")
    scores = {name: {run["seed"]: run["val_bpb"] for run in runs if "val_bpb" in run} for name, runs in results.items()}
    other = scores.pop("reference", {})
    for name, ours in scores.items():
        pairs = [ours[seed] - other[seed] for seed in sorted(ours.keys() & other.keys())]
        if len(pairs) > 1:
            test = stats.ttest_1samp(pairs, 0)
            low, high = test.confidence_interval()
            each = " ".join(f"{pair:+.4f}" for pair in pairs)
            print(f"{name} - reference: {statistics.fmean(pairs):+.4f} (95 % {low:+.4f} to {high:+.4f}), of {each}")


if __name__ == "__main__":
    main()
