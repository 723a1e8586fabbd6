"""A real campaign of the nanogpt starter on one GPU by sweep.py: noise, keeps, pruning, and where each second goes.

    python benchmarks/gpu_campaign.py --experiments 20 --budget 5

The starter's own corpus is taken; `prepare.py` makes it on first use. The starter's copy prints torch's
peak memory under another name, so that the runner's own gauge (NVML) measures beside it.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
STARTER = ROOT / "templates" / "starters" / "nanogpt"
AXES = ("MATRIX_LR=log:0.005:0.08", "HEAD_LR=log:0.001:0.01", "EMBEDDING_LR=log:0.05:0.6", "WARMDOWN_RATIO=0.2:0.7")
GIT = ("git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.invalid")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--experiments", type=int, default=20)
    parser.add_argument("--budget", type=float, default=5.0, metavar="S", help="seconds of training in each trial")
    parser.add_argument("--parallel", type=int, default=1, help="trials at once, each on a GPU of its own")
    parser.add_argument("--out", type=Path, help="write the figures as JSON")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gpu-campaign-") as folder:
        project = Path(folder)
        plant(project, arguments.budget, arguments.parallel)
        began = time.monotonic()
        axes = [word for axis in AXES for word in ("--set", axis)]
        points = str(arguments.experiments)
        script(project, "sweep", *axes, "--sampler", "random", "--max-trials", points)
        wall_s = time.monotonic() - began
        print(script(project, "summarize"))
        figures = measure(project / ".git" / "autoresearch" / "ledger.db", wall_s)
    print(json.dumps(figures, indent=1))
    if arguments.out:
        arguments.out.write_text(json.dumps(figures, indent=1), encoding="utf-8")
    return 0


def plant(project: Path, budget_s: float, parallel: int) -> None:
    """The starter as a repository with a campaign; torch's peak memory is watched, but not taken for the trial's."""
    shutil.copytree(STARTER, project, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    rename(project / "train.py", "peak_vram_mb:     {", "torch_peak_mb:    {")
    rename(project / "autoresearch.yaml", "peak_vram_mb", "torch_peak_mb")
    rename(project / "autoresearch.yaml", "command: python ", f"command: {sys.executable} ")
    with (project / "autoresearch.yaml").open("a", encoding="utf-8") as settings:
        settings.write(f"executor: {{parallel: {parallel}}}\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Start"]):
        subprocess.run([*GIT, *command], cwd=project, check=True)
    script(project, "setup_campaign", "--tag", "gpu", "--budget", f"{budget_s:g}")


def rename(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert text.count(old) == 1, f"{old!r} is not once in {file.name}"
    file.write_text(text.replace(old, new), encoding="utf-8")


def script(project: Path, name: str, *arguments: str) -> str:
    command = [sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (0, 10):
        raise SystemExit(f"{name} ended with {done.returncode}: {done.stdout[-2000:]}")
    return done.stdout


def measure(ledger: Path, wall_s: float) -> dict[str, Any]:
    """Medians over the completed trials, seconds unless said; ``first`` is the trial that had to compile."""
    db = sqlite3.connect(ledger)
    trials = [
        {"created_at": created_at, **json.loads(result)}
        for created_at, result in db.execute("SELECT created_at, result FROM trial WHERE result IS NOT NULL ORDER BY 1")
    ]
    statuses = [status for (status,) in db.execute("SELECT status FROM experiment")]
    done = [trial for trial in trials if trial["outcome"] == "completed"]
    phases = [phases_of(trial) for trial in done]
    pruned = [trial["duration_s"] for trial in trials if trial["outcome"] == "pruned"]
    whole = statistics.median(trial["duration_s"] for trial in done)
    return {
        "device": done[0]["device"],
        "wall_s": wall_s,
        "experiments": len(statuses),
        "keeps": statuses.count("keep") - 1,
        "trials": len(trials),
        "pruned": len(pruned),
        "saved by pruning": sum(whole - duration for duration in pruned),
        "first": phases[0],
        "median": {name: statistics.median(each[name] for each in phases[1:]) for name in phases[0]},
        "from a trial's end to the next one's start": statistics.median(pauses(trials)),
        "sum of training": sum(trial["watched"]["training_seconds"] for trial in done),
        "peak MiB by NVML": max(trial["peak_mem_mib"] for trial in done),
        "how measured": sorted({trial["peak_mem_source"] for trial in done}),
        "peak MiB allocated by torch": max(trial["watched"]["torch_peak_mb"] for trial in done),
        "disturbed": [trial["disturbed"] for trial in trials if trial["disturbed"]],
    }


def phases_of(trial: dict[str, Any]) -> dict[str, float]:
    """Where the seconds of one trial went."""
    watched = trial["watched"]
    started_up, trained, total = (watched[f"{name}_seconds"] for name in ("startup", "training", "total"))
    return {
        "to the process": seconds(trial["created_at"], trial["started_at"]),
        "interpreter, imports, end": trial["duration_s"] - total,
        "compilation and first steps": started_up,
        "training": trained,
        "evaluation": total - started_up - trained,
    }


def pauses(trials: list[dict[str, Any]]) -> Iterator[float]:
    """From each trial's start back to the end of the one before it on the same GPU, as the order of ends tells."""
    ends: list[str] = []
    for trial in trials:
        if before := max((end for end in ends if end <= trial["created_at"]), default=None):
            ends.remove(before)
            yield seconds(before, trial["created_at"])
        ends.append(trial["ended_at"])


def seconds(start: str, end: str) -> float:
    return (datetime.fromisoformat(end) - datetime.fromisoformat(start)).total_seconds()


if __name__ == "__main__":
    raise SystemExit(main())
