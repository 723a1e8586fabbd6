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
"""Go back to the incumbent, or with --to N to the kept experiment N.

Moves only files within `edit`. Uncommitted edits are saved at a ref first; untracked files and all
else stay as they are. A second call changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.output import Parser, Result, run_script

EXAMPLES = """\
  python scripts/revert.py
  python scripts/revert.py --to 12 --dry-run
  python scripts/revert.py --to 12"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument("--to", type=int, metavar="N", help="a kept experiment; later keeps become discards")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.opened import open_campaign
    from autoresearch.campaign.progress import bring_forward, refresh
    from autoresearch.campaign.revert import revert
    from autoresearch.campaign.status import Next, status
    from autoresearch.report.loop_text import render_reverted

    with open_campaign(arguments.project, arguments.tag) as oc:
        reverted = revert(oc, arguments.to, dry_run=arguments.dry_run)
        refresh(oc)
        following = status(oc, bring_forward(oc), history=0).next
    if arguments.dry_run and (reverted.restored or reverted.taken_back):
        to = "" if arguments.to is None else f" --to {arguments.to}"
        following = Next(text="if that is right, do it", command=f"python scripts/revert.py{to}")
    data = {
        "commit": reverted.commit, "changed": reverted.changed, "dry_run": arguments.dry_run,
        "restored": reverted.restored, "taken_back": [kept.number for kept in reverted.taken_back],
        "saved": reverted.saved, "notes": reverted.told, "next": vars(following),
    }  # fmt: skip
    return Result(data=data, text=render_reverted(reverted, following, dry_run=arguments.dry_run))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
