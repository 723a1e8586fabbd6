#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "nvidia-ml-py>=12.560,<14",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Compare two commits on fresh seeds, as a paper would: mean and spread of both, interval, p-values, a word.

The word is "confirmed" only if the paired t-test and the exact Wilcoxon test both say so; else it is
"inconclusive". Killed, the same command goes on where it stopped.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.output import Parser, Result, run_script, say

EXAMPLES = """\
  python scripts/compare.py baseline best --seeds 6
  python scripts/compare.py baseline best --ablate
  python scripts/compare.py 3 7 --seeds 3 --exploratory"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument(
        "a", metavar="A", nargs="?", default="baseline", help="baseline, best, an experiment's number or a commit"
    )
    parser.add_argument(
        "b", metavar="B", nargs="?", default="best", help="likewise; the claim is that B is better than A"
    )
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument("--seeds", type=int, default=6, metavar="N", help="pairs of fresh trials, at least 5 (6)")
    parser.add_argument("--exploratory", action="store_true", help="allow fewer seeds; then nothing is confirmed")
    parser.add_argument("--ablate", action="store_true", help="also run the best without each kept change")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.compare import compare
    from autoresearch.report.claim_text import render_comparison

    found = compare(
        arguments.project,
        arguments.a,
        arguments.b,
        tag=arguments.tag,
        seeds=arguments.seeds,
        exploratory=arguments.exploratory,
        ablate=arguments.ablate,
        tell=lambda text: say(f"running: {text}"),
    )
    return Result(data=asdict(found), text=render_comparison(found))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
