"""How many seconds run_experiment and log_result add to the bare command, and how long status and --help take."""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = ("run_experiment", "log_result", "revert", "status", "setup_campaign", "summarize")
PYTHON = sys.executable
TARGET_EXPERIMENT_S = 1.0
TARGET_LOOK_S = 0.4

# The training does what a short one does to the loop, and nothing else: it takes time and prints a summary.
PREPARE = "def evaluate_bpb(lr):\n    return 0.9979 if lr == 4 else 1.0 + lr / 1000\n"
TRAIN = """\
import time

import prepare

LR = 4
time.sleep({seconds})
print(f"val_bpb: {{prepare.evaluate_bpb(LR):.6f}}")
print(f"peak_vram_mb: {{0.0:.1f}}")
"""
# Two seeds show that the training is deterministic; then each experiment is one trial, as in the comparison.
CONFIG = """\
command: {python} -S train.py
metric: {{name: val_bpb, direction: lower}}
edit: [train.py]
budget_s: 60
keep: {{baseline_seeds: 2, retest_every: 0}}
"""
GIT = ("git", "-c", "user.name=Benchmark", "-c", "user.email=benchmark@example.invalid")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=15, help="the median is shown (default: %(default)s)")
    parser.add_argument("--seconds", type=float, default=0.5, help="that one training takes (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        project = Path(folder)
        build(project, arguments.seconds)
        return report(*measure(project, arguments.experiments))


def build(project: Path, seconds: float) -> None:
    """Write the project into ``project`` and measure its baseline."""
    files = {"prepare.py": PREPARE, "train.py": TRAIN.format(seconds=seconds), ".gitignore": "__pycache__/\n"}
    for name, text in {**files, "autoresearch.yaml": CONFIG.format(python=PYTHON)}.items():
        (project / name).write_text(text, encoding="utf-8")
    for command in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "Start"]):
        timed([*GIT, *command], project)
    timed(script("setup_campaign", "--tag", "bench"), project)
    timed(script("run_experiment", "-d", "baseline"), project)


def measure(project: Path, experiments: int) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Seconds of each experiment by step, the bare command measured right before, and of the quick commands."""
    steps: dict[str, list[float]] = {"bare command": [], "run_experiment": [], "log_result": []}
    train = project / "train.py"
    for number in range(experiments):
        train.write_text(train.read_text(encoding="utf-8").replace("LR = 4", f"LR = {number + 5}"), encoding="utf-8")
        steps["bare command"].append(timed([PYTHON, "-S", "train.py"], project))
        steps["run_experiment"].append(timed(script("run_experiment", "-d", f"rate {number}"), project))
        steps["log_result"].append(timed(script("log_result"), project))
    quick = {"status": [timed(script("status"), project) for _ in range(experiments)]}
    for name in SCRIPTS:
        quick[f"{name} --help"] = [timed(script(name, "--help"), project) for _ in range(experiments)]
    return steps, quick


def script(name: str, *arguments: str) -> list[str]:
    return [PYTHON, str(ROOT / "scripts" / f"{name}.py"), *arguments]


def timed(command: Sequence[str], cwd: Path) -> float:
    """Seconds that ``command`` takes; it must succeed."""
    started = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, stdin=subprocess.DEVNULL, capture_output=True, timeout=300)
    return time.perf_counter() - started


def report(steps: dict[str, list[float]], quick: dict[str, list[float]]) -> int:
    """Print both tables; 1 if a target is missed."""
    triples = list(zip(*steps.values(), strict=True))
    overhead = [run + log - bare for bare, run, log in triples]
    ratio = statistics.median((run + log) / bare for bare, run, log in triples)
    rows: list[tuple[str, list[float], float | None]] = [(name, values, None) for name, values in steps.items()]
    rows.append(("overhead", overhead, TARGET_EXPERIMENT_S))
    rows += [(name, values, TARGET_LOOK_S) for name, values in quick.items()]
    print(f"{len(overhead)} experiments of one trial each; run and log take {ratio:.2f} times the bare command\n")
    print(f"{'':24}{'median':>9}{'slowest':>9}{'target':>9}")
    missed = 0
    for name, values, target_s in rows:
        median = statistics.median(values)
        late = target_s is not None and median > target_s
        missed += late
        target = "" if target_s is None else f"{target_s:.1f} s"
        print(f"{name:24}{median:>7.3f} s{max(values):>7.3f} s{target:>9}{'  MISSED' if late else ''}")
    return 1 if missed else 0


if __name__ == "__main__":
    raise SystemExit(main())
