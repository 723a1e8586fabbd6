#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "nvidia-ml-py>=12.560,<14",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Say what a campaign has found: what was kept, how sure that is, and what failed."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from autoresearch.output import Parser, Result, run_script, say
from autoresearch.report.summary import read_summaries

EXAMPLES = """\
  python scripts/summarize.py
  python scripts/summarize.py --tag apr5 --json
  python scripts/summarize.py --all-tags
  python scripts/summarize.py --claim 6
"""


def build_parser() -> Parser:
    parser = Parser(
        "Summarize a campaign: counts, baseline and best with their noise, what was kept,\n"
        "near misses, failures, time and families. Takes no lock and changes nothing, so it\n"
        "may be run while the campaign runs; only --claim starts trials.",
        EXAMPLES,
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--tag", help="the campaign (default: the one of the checked-out branch, else the newest)")
    which.add_argument("--all-tags", action="store_true", help="compare all campaigns of the repository")
    parser.add_argument(
        "--claim", type=int, metavar="N", help="first compare the baseline with the best at N fresh seeds (5 or more)"
    )
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.report.text import render, render_comparison

    if arguments.claim is not None and not arguments.all_tags:
        from autoresearch.campaign.compare import compare

        compare(
            arguments.project,
            "baseline",
            "best",
            tag=arguments.tag,
            seeds=arguments.claim,
            exploratory=False,
            ablate=False,
            tell=lambda text: say(f"running: {text}"),
        )
    summaries = read_summaries(arguments.project, tag=arguments.tag, all_tags=arguments.all_tags)
    if arguments.all_tags:
        data = {"campaigns": [asdict(summary) for summary in summaries]}
        return Result(data=data, text=render_comparison(summaries))
    return Result(data=asdict(summaries[0]), text=render(summaries[0]))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
