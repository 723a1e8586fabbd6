"""A toy project of karpathy's shape, and a campaign on it that is driven through the real scripts."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import os
import re
import runpy
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.conftest import ROOT, RunScript
from tests.setup_bench import Bench
from tests.trial_bench import eventually, living, log_of

from autoresearch.campaign.opened import open_ledger
from autoresearch.executors.base import process_mark
from autoresearch.ledger import Trial
from autoresearch.runner.orphans import MARK

TAG = "apr5"
BRANCH = f"autoresearch/{TAG}"

# The evaluator knows what each learning rate is worth: 4 is the baseline, 8 better, 2 worse.
# A trial lasts as long as the file that $TOY_GATE names exists.
PREPARE = '''\
"""Protected: the data and the evaluation."""

import os
import time

BPB = {4: 0.9979, 8: 0.9932, 2: 1.005}
MIB = {4: 45060.2, 8: 45260.8}


def hold():
    while os.path.exists(os.environ.get("TOY_GATE", "")):
        time.sleep(0.01)


def evaluate_bpb(lr):
    return BPB.get(lr, 0.9 + lr / 1000)


def peak_vram_mb(lr):
    return MIB.get(lr, 45060.2)
'''
TRAIN = """\
import prepare

LR = 4
WIDTH = 64
SEED = 42  # of the initial weights

# A comment that
# may be
# deleted.
if WIDTH > 64:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
prepare.hold()
print("---")
print(f"val_bpb:          {prepare.evaluate_bpb(LR):.6f}")
print(f"training_seconds: {0.1:.1f}")
print(f"peak_vram_mb:     {prepare.peak_vram_mb(LR):.1f}")
"""
# Two seeds tell at once that this training is deterministic; from then on one trial decides.
CONFIG = """\
command: PYTHONDONTWRITEBYTECODE=1 python3 -S train.py
metric: {name: val_bpb, direction: lower}
edit: [train.py]
budget_s: 10
keep: {baseline_seeds: 2, max_seeds: 2}
"""
PROJECT = {"prepare.py": PREPARE, "train.py": TRAIN, "README.md": "A project.\n", ".gitignore": "__pycache__/\n"}


@functools.cache
def script_main(name: str) -> Callable[[list[str]], int]:
    main: Callable[[list[str]], int] = runpy.run_path(str(ROOT / "scripts" / f"{name}.py"))["main"]
    return main


@dataclass(frozen=True, kw_only=True)
class Loop(Bench):
    """A project folder with a campaign, and the moves of an agent."""

    def call(self, name: str, *arguments: str | float | Path, expect: int = 0) -> dict[str, Any]:
        """Call a script's main here, in this process; the ``data`` of its answer, or the ``error``.

        Most of a script's second is the start of Python; that each runs on its own is tested where
        ``Bench.run`` is used.
        """
        out, on_sigterm = io.StringIO(), signal.getsignal(signal.SIGTERM)
        argv = [*map(str, arguments), "--project", str(self.folder), "--json"]
        try:
            with contextlib.redirect_stdout(out):
                code = script_main(name)(argv)
        finally:
            signal.signal(signal.SIGTERM, on_sigterm)
        answer = json.loads(out.getvalue())
        assert code == expect, answer
        assert answer["ok"] is (expect == 0 or (expect == 10 and answer["error"] is None))
        return dict(answer["data"] if answer["ok"] else answer["error"])

    def edit(self, **constants: object) -> None:
        """Give constants of train.py new values."""
        path = self.folder / "train.py"
        if not constants:
            return
        text = path.read_text()
        for name, value in constants.items():
            text, count = re.subn(rf"(?m)^{name} = [^\s#]+", f"{name} = {value}", text)
            assert count == 1
        path.write_text(text)

    def submit(
        self, description: str = "", *arguments: str | int, expect: int = 0, **constants: object
    ) -> dict[str, Any]:
        """Edit, if there are ``constants``, and run the experiment."""
        self.edit(**constants)
        named = ["-d", description] if description else []
        return self.call("run_experiment", *named, *arguments, expect=expect)

    def log(self, *arguments: str, expect: int = 0) -> dict[str, Any]:
        return self.call("log_result", *arguments, expect=expect)

    def look(self, *arguments: str | float, expect: int = 0) -> dict[str, Any]:
        return self.call("status", *arguments, expect=expect)

    def baseline(self) -> None:
        self.submit("baseline")

    def experiment(self, description: str, **constants: object) -> str:
        """Run and log an experiment; the status that it got."""
        self.edit(**constants)
        self.submit(description)
        return str(self.log()["experiment"]["status"])

    @property
    def results(self) -> Path:
        return self.folder / "results.tsv"

    @property
    def rows(self) -> list[list[str]]:
        return [line.split("\t") for line in self.results.read_text().splitlines()[1:]]

    @property
    def state_dir(self) -> Path:
        return Path(self.git("rev-parse", "--path-format=absolute", "--git-common-dir")) / "autoresearch"

    def text(self, name: str = "train.py") -> str:
        return (self.folder / name).read_text()

    def tip(self) -> str:
        return self.git("rev-parse", f"refs/heads/{BRANCH}")

    def incumbent(self) -> str:
        """The commit that the ledger holds for the incumbent; the base's while there is none."""
        with open_ledger(self.folder) as (_, ledger):
            campaign, incumbent = ledger.campaign(TAG), ledger.incumbent(TAG)
            assert campaign is not None
            if incumbent is None or incumbent.epoch != campaign.epoch:
                return campaign.base_commit
            return incumbent.commit

    def trials(self) -> list[Trial]:
        with open_ledger(self.folder) as (_, ledger):
            return ledger.trials(TAG)

    def trial_log(self, index: int = -1) -> str:
        return log_of(Path(self.trials()[index].directory))

    def processes(self) -> set[int]:
        """What lives of any trial of this project."""
        folders = [folder for folder in (self.state_dir / TAG / "trials").glob("*") if folder.is_dir()]
        return {pid for folder in folders for pid in living(f"{MARK}={process_mark(folder)}")}

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """Trials that start in this block do not end before it does."""
        gate = self.folder.with_name("gate")
        gate.touch()
        os.environ["TOY_GATE"] = str(gate)
        try:
            yield
        finally:
            gate.unlink()
            del os.environ["TOY_GATE"]

    def await_trial(self) -> None:
        """Wait until no process of a trial lives."""
        eventually(lambda: not self.processes())


def make_loop(
    folder: Path, run: RunScript, *, config: str = CONFIG, files: dict[str, str] | None = None, within: str = ""
) -> Loop:
    """A repository with the toy project (in the sub-folder ``within``) and campaign ``apr5``, not yet measured."""
    folder.mkdir(parents=True, exist_ok=True)
    repository = Bench(folder=folder, run=run)
    repository.git("init", "-q", "-b", "main")
    loop = Loop(folder=folder / within, run=run)
    project = {**PROJECT, "autoresearch.yaml": config, **(files or {})}
    loop.write(project)
    repository.git("add", ".")
    repository.git("commit", "-q", "-m", "Start")
    loop.setup("--tag", TAG)
    return loop


def copy_of(name: str, make: Callable[[Path], object], folder: Path, run: RunScript) -> Loop:
    """What ``make`` makes of an empty place, in ``folder``: made once for each ``name``, and copied since then.

    A copy has its own paths in the ledger, as if all had happened where it lies.
    """
    template = Path.home().with_name(name) / "project"  # beside the homes: for as long as pytest keeps those
    if not template.exists():
        make(template)
    shutil.copytree(template, folder, symlinks=True)
    loop = Loop(folder=folder, run=run)
    with contextlib.closing(sqlite3.connect(loop.state_dir / "ledger.db")) as ledger, ledger:
        for table, column in (("campaign", "project"), ("trial", "directory"), ("trial", "handle")):
            ledger.execute(f"UPDATE {table} SET {column} = replace({column}, ?, ?)", (str(template), str(folder)))
    return loop


def make_measured_loop(
    folder: Path, run: RunScript, *, config: str = CONFIG, files: dict[str, str] | None = None
) -> Loop:
    """As ``make_loop``, with the baseline measured; a copy where the like has been made before."""
    name = hashlib.sha256(json.dumps([config, files]).encode()).hexdigest()
    return copy_of(name, lambda place: make_loop(place, run, config=config, files=files).baseline(), folder, run)
