"""How long commands take with 10,000 experiments in the ledger, and every --help, against a bare Python."""

from __future__ import annotations

import argparse
import io
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
NOT_COMMANDS = {"demo"}  # tells a story of minutes, without flags
FAMILIES = ("optimizer", "schedule", "architecture", "data", "regularization", "")
SIGMA = 0.002  # of the synthetic metric
MOST_REPORT_MB = 8.0
MOST_WATCH_SHARE = 0.02  # of one processor, for status.py --watch
LOOKS = 20

sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]


@dataclass(frozen=True)
class Case:
    """A command to time and the seconds it may take; None: only measured."""

    name: str
    command: Sequence[str]
    target_s: float | None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--experiments", type=int, default=10_000, help="in the ledger (default: %(default)s)")
    parser.add_argument("--curve-points", type=int, default=256, help="of each trial (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=5, help="the median is shown (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="ledger-scale-") as folder:
        project = Path(folder) / "project"
        started = time.perf_counter()
        size_mib = build(project, arguments.experiments, arguments.curve_points)
        print(
            f"{arguments.experiments} experiments, a ledger of {size_mib:.0f} MiB "
            f"(written in {time.perf_counter() - started:.0f} s); median of {arguments.repeats}\n"
        )
        missed = report(cases(project, arguments.experiments), arguments.repeats, project)
        missed = max(missed, watch_share(project))
        return max(missed, report_size(report_of(project)))


def build(project: Path, experiments: int, curve_points: int) -> float:
    """Write a campaign of that many experiments on a real repository; returns the ledger's size in MiB."""
    from tests.ledger_builder import LedgerBuilder, make_repository

    from autoresearch.ledger import Ledger, Status
    from autoresearch.trial import Outcome

    commits = make_repository(project)
    rng = random.Random(1)
    level = 1.0
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        builder = LedgerBuilder(ledger, commits, project=project, curve_points=curve_points)
        with ledger.transaction():
            builder.baseline([rng.gauss(level, SIGMA) for _ in range(3)])
            for number in range(1, experiments):
                description, family = f"idea {number}: " + "words " * rng.randint(2, 20), rng.choice(FAMILIES)
                if rng.random() < 0.1:
                    builder.crash(description, Outcome.CRASHED, rng.choice(["exit", "oom_gpu"]), family=family)
                    continue
                mean = level * (1 - rng.gauss(-0.003, 0.003))
                values = [rng.gauss(mean, SIGMA) for _ in range(rng.choice([1, 1, 1, 2, 3]))]
                if builder.idea(description, values, family=family).status is Status.KEEP:
                    level = mean
                if builder.rule is not None and builder.rule.retest_due:
                    builder.retest(rng.gauss(level, SIGMA))
                if rng.random() < 0.01:
                    ledger.add_event(builder.tag, "repair", "results.tsv had been edited by hand")
        incumbent = ledger.incumbent(builder.tag)
        assert incumbent is not None
    switch = ["git", "switch", "--quiet", "--create", builder.campaign.branch, incumbent.commit]
    subprocess.run(switch, cwd=project, check=True)
    return (project / ".git" / "autoresearch" / "ledger.db").stat().st_size / 2**20


def cases(project: Path, experiments: int) -> Iterator[Case]:
    """The bare interpreter first: the others are compared with it."""
    yield Case("python -c pass", [sys.executable, "-c", "pass"], None)
    for script in SCRIPTS:
        if script.stem not in NOT_COMMANDS:
            yield Case(f"{script.name} --help", [sys.executable, str(script), "--help"], 0.4)
    for name, target_s in (("status", 0.5), ("summarize", 2.0)):
        script = ROOT / "scripts" / f"{name}.py"
        if not script.exists():
            print(f"{script.name} does not exist yet: left out")
            continue
        command = [sys.executable, str(script), "--project", str(project)]
        yield Case(f"{script.name} at {experiments}", command, target_s)
        yield Case(f"{script.name} --json at {experiments}", [*command, "--json"], target_s)
        if name == "summarize":
            yield Case(f"{script.name} --chart at {experiments}", [*command, "--chart"], 5.0)
    for flag, path in (("--plot", project.parent / "progress.png"), ("--html", report_of(project))):
        command = [sys.executable, str(ROOT / "scripts" / "summarize.py"), "--project", str(project), flag, str(path)]
        yield Case(f"summarize.py {flag} at {experiments}", command, 5.0)


def report_of(project: Path) -> Path:
    """Where the HTML report of the benchmark's campaign is written."""
    return project.parent / "report.html"


def watch_share(project: Path) -> int:
    """Print which share of a processor the live view takes; returns 1 if it is more than it may be."""
    from rich.console import Console

    from autoresearch.report.live import Observer
    from autoresearch.report.watch import INTERVAL_S, view

    observer, console = Observer(project, None), Console(file=io.StringIO(), width=100, height=40, force_terminal=True)
    observer.look()
    before = time.process_time()
    for _ in range(LOOKS):
        console.print(view(observer.look(), console))
    share = (time.process_time() - before) / LOOKS / INTERVAL_S
    over = share >= MOST_WATCH_SHARE
    print(f"{'status.py --watch':<36}{share:>8.1%}{MOST_WATCH_SHARE:>17.0%}" + "  missed" * over)
    return int(over)


def report_size(page: Path) -> int:
    """Print how large the HTML report is; returns 1 if it is larger than it may be."""
    size_mb = page.stat().st_size / 1e6
    over = size_mb >= MOST_REPORT_MB
    print(f"{f'{page.name}, MB':<36}{size_mb:>9.2f}{MOST_REPORT_MB:>16.1f}" + "  too large" * over)
    return int(over)


def report(cases: Iterable[Case], repeats: int, folder: Path) -> int:
    """Print a line for each case as soon as it is known; returns 1 if one takes longer than it may."""
    print(f"{'command':<36}{'seconds':>9}{'ratio':>8}{'target':>8}")
    bare_s = 0.0
    missed = 0
    for case in cases:
        taken_s = median_s(case.command, repeats, folder)
        bare_s = bare_s or taken_s
        over = case.target_s is not None and taken_s >= case.target_s
        missed += over
        target = "" if case.target_s is None else f"{case.target_s:.1f}"
        print(
            f"{case.name:<36}{taken_s:>9.3f}{taken_s / bare_s:>8.1f}{target:>8}" + "  missed" * over,
            flush=True,
        )
    return int(missed > 0)


def median_s(command: Sequence[str], repeats: int, folder: Path) -> float:
    """The median wall time of a command, after one run that warms the caches."""
    times_s = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        subprocess.run(command, cwd=folder, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        times_s.append(time.perf_counter() - started)
    return statistics.median(times_s[1:])


if __name__ == "__main__":
    raise SystemExit(main())
