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
"""Run the idea in the work tree: guard it, commit it, train it at the incumbent's seeds, give a verdict.

The first run of a campaign is its baseline. A trial outlives this command: when --wait is over it
answers "running" with exit code 10, and status.py --wait picks up. With --ahead the idea is taken out
of the work tree and tried beside what runs; its verdict comes through status.py.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.output import Parser, Result, as_text, one_line, run_script

EXIT_RUNNING = 10
EXAMPLES = """\
  python scripts/run_experiment.py -d "baseline"
  python scripts/run_experiment.py -d "double the learning rate" --family optimizer
  python scripts/run_experiment.py -d "drop the unused gate" --simplification
  python scripts/run_experiment.py -d "twice the width" --ahead
  python scripts/run_experiment.py -d "warm down over half the run" --no-prune --wait 0"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument("-d", "--description", type=as_text, default="", help="the idea in a sentence")
    parser.add_argument(
        "--family", type=as_text, default="", help="the kind of idea: optimizer, architecture, schedule, data, …"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="at least N trials before a verdict")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--adopt", metavar="TAG/N", help="merge in what another campaign has kept, and measure it here")
    how.add_argument(
        "--ahead", nargs="?", const="incumbent", choices=("incumbent", "candidate"),
        help="beside what runs, off the branch: on the incumbent (default) or on the candidate that is being tried",
    )  # fmt: skip
    parser.add_argument(
        "--wait", type=float, metavar="S", help="wait at most S seconds for the verdict (default: 540; --ahead: 0)"
    )
    parser.add_argument("--no-prune", action="store_true", help="never end a hopeless trial early")
    parser.add_argument(
        "--simplification", action="store_true", help="declare that equal is good enough if lines go away"
    )
    parser.add_argument("--dry-run", action="store_true", help="check the edit, change nothing, run nothing")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.adopt import adopt
    from autoresearch.campaign.ahead import submit_ahead
    from autoresearch.campaign.driver import keep_driving
    from autoresearch.campaign.opened import open_campaign
    from autoresearch.campaign.progress import bring_forward, wait_for_trial
    from autoresearch.campaign.run import Request, submit
    from autoresearch.campaign.status import describe, status
    from autoresearch.report.loop_text import render_run

    request = Request(
        description=arguments.description if one_line(arguments.description) else "",
        family=arguments.family,
        seeds=arguments.seeds,
        prune=not arguments.no_prune,
        simplification=arguments.simplification,
    )
    with open_campaign(arguments.project, arguments.tag) as oc:
        if arguments.ahead:
            submission = submit_ahead(oc, request, arguments.ahead, dry_run=arguments.dry_run)
        elif arguments.adopt is not None:
            submission = adopt(oc, arguments.adopt, request, dry_run=arguments.dry_run)
        else:
            submission = submit(oc, request, dry_run=arguments.dry_run)
        number, tag = submission.experiment.number, oc.tag
        if arguments.dry_run:
            shown = describe(oc, submission.experiment, trials=False)
            text = "\n".join([f"experiment {number} would run: {shown['description']}", *submission.notes])
            return Result(data={"experiment": shown, "notes": submission.notes, "dry_run": True}, text=text)
    default_s = 0.0 if arguments.ahead else 540.0
    wait_s = default_s if arguments.wait is None else max(0.0, arguments.wait)
    wait_for_trial(arguments.project, tag, wait_s, number=number)
    with open_campaign(arguments.project, tag) as oc:
        state = status(oc, bring_forward(oc), history=0)
        keep_driving(oc)
        experiment = oc.ledger.experiment(tag, number)
        assert experiment is not None, "an experiment is never deleted"
        shown = describe(oc, experiment)
    notes = list(dict.fromkeys([*submission.notes, *state.repaired]))
    running = shown["state"] == "running"
    data = {
        "experiment": shown, "state": state.state, "running": state.running, "notes": notes,
        "warnings": state.warnings, "next": vars(state.next),
    }  # fmt: skip
    return Result(data=data, text=render_run(state, shown, notes), exit_code=EXIT_RUNNING if running else 0)


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
