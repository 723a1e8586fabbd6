"""A repository to set campaigns up in, with the questions that the tests ask about it."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import runpy
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, RunScript

from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Campaign, Experiment

SCRIPT = ROOT / "scripts" / "setup_campaign.py"
MAIN = runpy.run_path(str(SCRIPT))["main"]

# The shape of karpathy's project: what is detected in it must be found with no flag at all.
TRAIN = '''\
"""Trains a model for a fixed time."""

import torch

from prepare import TIME_BUDGET, evaluate_bpb

DEPTH = 8
torch.manual_seed(42)
step = 0
while True:
    loss = 1.0 / (step + 1)
    print(f"\\rstep {step:05d} ({100 * step / 5:.1f}%) | loss: {loss:.6f} | dt: {3}ms", end="", flush=True)
    step += 1
    if step > 5:
        break
print()
val_bpb = evaluate_bpb(None)
print("---")
print(f"val_bpb:          {val_bpb:.6f}")
print(f"training_seconds: {TIME_BUDGET:.1f}")
print(f"peak_vram_mb:     {0:.1f}")
print(f"mfu_percent:      {39.8:.2f}")
print(f"depth:            {DEPTH}")
'''
PREPARE = '''\
"""One-time preparation: downloads data, trains a tokenizer."""

import os

TIME_BUDGET = 300  # seconds
CACHE_DIR = os.path.join(os.path.expanduser("~"), ".cache", "autoresearch")
DATA_DIR = os.path.join(CACHE_DIR, "data")
TOKENIZER_DIR = os.path.join(CACHE_DIR, "tokenizer")


def evaluate_bpb(model):
    return 0.9979


if __name__ == "__main__":
    print(f"Cache directory: {CACHE_DIR}")
    for folder in (DATA_DIR, TOKENIZER_DIR):
        os.makedirs(folder, exist_ok=True)
        with open(os.path.join(folder, "made"), "w") as file:
            file.write("made")
'''
KARPATHY = {
    "train.py": TRAIN,
    "prepare.py": PREPARE,
    "README.md": "Research.\n",
    "pyproject.toml": '[project]\nname = "autoresearch"\nversion = "0.1.0"\n',
    "uv.lock": "version = 1\n",
    ".gitignore": ".venv\nCLAUDE.md\nAGENTS.md\nresults.tsv\n__pycache__/\n",
}
PLAIN = {"train.py": 'print(f"val_loss: {0.5}")\n', "lib.py": "X = 1\n"}


@dataclass(frozen=True, kw_only=True)
class Bench:
    """One project folder and the script that sets campaigns up in it."""

    folder: Path
    run: RunScript

    def git(self, *arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments],
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
        return done.stdout.rstrip("\n")

    def write(self, files: dict[str, str]) -> None:
        for name, text in files.items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())

    def commit(self, files: dict[str, str], message: str = "Work") -> str:
        self.write(files)
        self.git("add", "-f", *files)
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def setup(self, *arguments: str | Path, expect: int = 0) -> dict[str, Any]:
        """Call the script's main; the ``data`` of its answer, or with another ``expect`` its ``error``.

        In this process, because most of a script's second is the start of Python; that it runs on its own
        is tested where ``run`` is used.
        """
        out, on_sigterm = io.StringIO(), signal.getsignal(signal.SIGTERM)
        try:
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(out):
                code = MAIN([*map(str, arguments), "--json"])
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
        assert code == expect, out.getvalue()
        answer = json.loads(out.getvalue())
        assert answer["ok"] is (expect == 0)
        return dict(answer["data"] if expect == 0 else answer["error"])

    def campaign(self, tag: str) -> Campaign | None:
        with open_ledger(self.folder) as (_, ledger):
            return ledger.campaign(tag)

    def experiments(self, tag: str) -> list[Experiment]:
        with open_ledger(self.folder) as (_, ledger):
            return ledger.experiments(tag)

    def status(self) -> str:
        return self.git("status", "--porcelain")

    def state(self) -> dict[str, str]:
        """Everything that a set-up could change: files, refs, HEAD, index, exclude list, ledger."""
        files = {
            str(path.relative_to(self.folder)): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and ".git" not in path.relative_to(self.folder).parts
        }
        git = self.folder / ".git"
        exclude = git / "info" / "exclude"
        return files | {
            "refs": self.git("for-each-ref"),
            "HEAD": (git / "HEAD").read_text(),
            "index": self.git("ls-files", "-s"),
            "exclude": exclude.read_text() if exclude.exists() else "",
            "ledger": str((git / "autoresearch" / "ledger.db").exists()),
        }


def make_bench(folder: Path, run: RunScript, files: dict[str, str]) -> Bench:
    """A repository on branch ``main`` whose one commit holds ``files``."""
    folder.mkdir(parents=True, exist_ok=True)
    bench = Bench(folder=folder, run=run)
    bench.git("init", "-q", "-b", "main")
    bench.commit(files, "Start")
    return bench
