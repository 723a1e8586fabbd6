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
"""Decide the experiment that has its verdict, and record it: keep advances the branch, else it goes back.

The numbers come out of the trials' own logs. Without --status the verdict decides; a second call
changes nothing. Of several open experiments it takes the first that can be decided.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.output import Parser, Result, as_text, run_script

EXAMPLES = """\
  python scripts/log_result.py
  python scripts/log_result.py --status discard --note "gains little and doubles the code"
  python scripts/log_result.py --status keep --simplification"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument(
        "--status", choices=("auto", "keep", "discard", "crash"), default="auto", help="default: as the verdict says"
    )
    parser.add_argument("--note", type=as_text, default="", help="what was learned; kept with the experiment")
    parser.add_argument(
        "--simplification", action="store_true", help="keep an equivalent result that deletes more lines than it adds"
    )
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.decide import log_result
    from autoresearch.campaign.driver import keep_driving
    from autoresearch.campaign.opened import open_campaign
    from autoresearch.campaign.progress import bring_forward
    from autoresearch.campaign.status import status
    from autoresearch.report.loop_text import render_decision

    with open_campaign(arguments.project, arguments.tag) as oc:
        bring_forward(oc)
        decision = log_result(oc, arguments.status, note=arguments.note, simplification=arguments.simplification)
        state = status(oc, bring_forward(oc), history=0)
        keep_driving(oc)
    data = asdict(decision)
    for experiment in (data["experiment"], data["incumbent"], data["undone"]):
        if experiment is not None:
            experiment.pop("rule")
    data["next"] = vars(state.next)
    return Result(data=data, text=render_decision(decision, state))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
