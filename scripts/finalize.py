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
#     "scipy>=1.15,<2",
# ]
# ///
"""Put the kept experiments on a clean branch off the commit that the campaign began on, for review.

One commit for each, the idea as subject and its evidence below, without settings and memos. Your checkout,
index and branches stay as they are; a second call changes nothing.
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
  python scripts/finalize.py --dry-run
  python scripts/finalize.py --squash --branch faster-training
  python scripts/finalize.py --only-confirmed --measure 6 --markdown pr.md --plot progress.png"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument("--branch", metavar="NAME", help="the new branch (default: autoresearch/TAG-final)")
    parser.add_argument("--squash", action="store_true", help="one commit for all")
    parser.add_argument(
        "--only-confirmed", action="store_true", help="leave out keeps whose gain's 95 %% interval reaches down to 0"
    )
    parser.add_argument(
        "--measure", type=int, metavar="N", help="then compare the branch with the baseline at N fresh seeds"
    )
    parser.add_argument("--signoff", action="store_true", help="add your Signed-off-by to each commit")
    parser.add_argument("--markdown", metavar="FILE", type=Path, help="also write the text of a pull request")
    parser.add_argument("--plot", metavar="FILE", type=Path, help="a chart for that text to show, if it is there")
    parser.add_argument("--dry-run", action="store_true", help="say what the branch would be, and make none")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.finalize import Wish, finalize
    from autoresearch.report.final_text import render_finalized

    wish = Wish(
        branch=arguments.branch, squash=arguments.squash, only_confirmed=arguments.only_confirmed,
        signoff=arguments.signoff, dry_run=arguments.dry_run, measure=arguments.measure,
    )  # fmt: skip
    done = finalize(arguments.project, wish, tag=arguments.tag, tell=lambda text: say(f"running: {text}"))
    text = render_finalized(done, dry_run=arguments.dry_run)
    data = {**asdict(done), "dry_run": arguments.dry_run, "markdown": None}
    if arguments.markdown is not None:
        from autoresearch.report.final_text import link_from, render_pull_request

        plot = arguments.plot is not None and arguments.plot.is_file()
        link = link_from(arguments.markdown, arguments.plot) if plot else ""
        arguments.markdown.write_text(render_pull_request(done, plot=link), encoding="utf-8")
        data["markdown"] = str(arguments.markdown)
        text += f"\npull request text: {arguments.markdown}"
    return Result(data=data, text=text)


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
