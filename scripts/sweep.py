#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "nvidia-ml-py>=12.560,<14",
#     "optuna>=4.0,<6",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Try known parameters one after the other, each point an experiment like any other.

With --auto it needs none: it changes a constant of the edited files at a time, around the incumbent's
value, and follows what is kept; it goes on until --max-trials or until it is stopped.
The same command goes on after a kill; Ctrl-C leaves the campaign on its incumbent, with nothing running.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.errors import UsageError
from autoresearch.output import Parser, Result, run_script

if TYPE_CHECKING:
    from autoresearch.campaign.sweep import Plan

DEFAULT_TRIALS = 20
EXAMPLES = """\
  python scripts/sweep.py --set MATRIX_LR=0.02,0.04 --set WARMDOWN_RATIO=0.3,0.5
  python scripts/sweep.py --arg lr=1e-3,3e-4 --env OMP_NUM_THREADS=1,2
  python scripts/sweep.py --set LR=log:0.001:0.1 --set DEPTH=2:8 --sampler tpe --max-trials 30
  python scripts/sweep.py --auto --max-trials 50"""

NEXT = "python scripts/summarize.py"


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    what = parser.add_argument_group("what to vary: NAME=a,b,c, NAME=low:high or NAME=log:low:high; repeatable")
    what.add_argument("--set", metavar="NAME=…", action="append", default=[], help="a constant of the edited files")
    what.add_argument("--arg", metavar="NAME=…", action="append", default=[], help="an argument of the command")
    what.add_argument("--env", metavar="NAME=…", action="append", default=[], help="an environment variable")
    what.add_argument("--auto", action="store_true", help="choose constants and values by itself")
    how = parser.add_argument_group("which points")
    how.add_argument("--sampler", choices=("grid", "random", "tpe"), help="default: grid")
    how.add_argument(
        "--max-trials",
        type=int,
        metavar="N",
        help=f"at most N points, those tried before included (default: grid all, auto no end, else {DEFAULT_TRIALS})",
    )
    how.add_argument("--sampler-seed", type=int, default=0, metavar="S", help="of random and tpe (default: 0)")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.sweep import run_sweep
    from autoresearch.report.sweep_text import Watcher, render_sweep

    plan = build_plan(arguments)
    with Watcher(plan.max_trials) as watcher:
        sweep = run_sweep(arguments.project, arguments.tag, plan, watcher)
    best = sweep.incumbent
    incumbent = None if best is None else {"number": best.number, "metric": best.metric, "commit": best.commit[:7]}
    data = {
        "points": [asdict(point) for point in sweep.points], "incumbent": incumbent, "tuned": sweep.tuned,
        "next": NEXT,
    }  # fmt: skip
    return Result(data=data, text=f"{render_sweep(sweep)}\nnext: {NEXT}")


def build_plan(arguments: argparse.Namespace) -> Plan:
    """The sweep that the flags ask for; ``UsageError`` where they ask for none."""
    from autoresearch.campaign.points import Kind, parse_axis
    from autoresearch.campaign.sweep import Plan

    axes = [parse_axis(kind, text) for kind in Kind for text in getattr(arguments, kind.value)]
    labels = [axis.label for axis in axes]
    if arguments.max_trials is not None and arguments.max_trials < 1:
        raise UsageError(f"--max-trials is {arguments.max_trials}; expected at least 1.", hint="--max-trials 20")
    if arguments.auto:
        return auto_plan(arguments, labels)
    if not axes:
        raise UsageError("There is nothing to vary.", hint="python scripts/sweep.py --set LR=0.02,0.04, or --auto")
    if twice := {label for label in labels if labels.count(label) > 1}:
        raise UsageError(f"{', '.join(sorted(twice))} is given twice.", hint="Give all its values in one flag.")
    sampler = arguments.sampler or "grid"
    ranges = [axis.label for axis in axes if axis.range is not None]
    if ranges and sampler == "grid":
        raise UsageError(
            f"{', '.join(ranges)} is a range; a grid needs a list of values.", hint="--sampler random or --sampler tpe"
        )
    points = DEFAULT_TRIALS if ranges else math.prod(len(axis.values) for axis in axes)
    default = points if sampler == "grid" else min(points, DEFAULT_TRIALS)
    wanted = arguments.max_trials or default
    return Plan(
        axes=axes, sampler=sampler, seed=arguments.sampler_seed,
        max_trials=wanted if ranges else min(wanted, points),
    )  # fmt: skip


def auto_plan(arguments: argparse.Namespace, labels: Sequence[str]) -> Plan:
    """A climb; it takes no axes and no sampler."""
    from autoresearch.campaign.sweep import Plan

    beside = [*labels, *(["--sampler"] if arguments.sampler else [])]
    if beside:
        raise UsageError(
            f"--auto chooses what to vary by itself; {', '.join(beside)} does not go with it.",
            hint="Leave the one or the other out.",
        )
    return Plan(axes=[], sampler="auto", max_trials=arguments.max_trials, seed=arguments.sampler_seed)


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
