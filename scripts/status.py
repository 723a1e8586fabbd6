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
"""Say what happened and what is next; all that an agent needs to go on.

Repairs what a killed command left behind and says so. With --wait it waits for the running trial:
exit code 10 means that it still runs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.errors import UsageError
from autoresearch.output import Parser, Result, run_script

EXIT_RUNNING = 10
LESSONS_AT_MOST = 200  # one line each
EXAMPLES = """\
  python scripts/status.py
  python scripts/status.py --wait 540
  python scripts/status.py --history 50 --json
  python scripts/status.py --memory
  python scripts/status.py --watch"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument("--wait", type=float, default=0.0, metavar="S", help="wait at most S seconds for the trial")
    parser.add_argument("--history", type=int, default=20, metavar="N", help="how many experiments to list (20)")
    parser.add_argument(
        "--memory", action="store_true", help="list what this project's campaigns tried, by family, and what came of it"
    )
    parser.add_argument("--watch", action="store_true", help="a live view on the terminal, until Ctrl-C (exit code 0)")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    if not arguments.wait >= 0:  # NaN too
        raise UsageError(f"--wait is {arguments.wait:g}; expected 0 or more seconds.", hint="--wait 540")
    if arguments.history < 0:
        raise UsageError(f"--history is {arguments.history}; expected 0 or more experiments.", hint="--history 50")
    if arguments.memory:
        return recall(arguments)
    if arguments.watch:
        return watch(arguments)
    from autoresearch.report.loop_text import render_status

    state = look(arguments)
    data = asdict(state)
    data.pop("log_tail")
    waited = arguments.wait > 0 and state.state == "running"
    return Result(data=data, text=render_status(state), exit_code=EXIT_RUNNING if waited else 0)


def recall(arguments: argparse.Namespace) -> Result:
    from autoresearch.campaign.memory import lessons
    from autoresearch.campaign.opened import open_ledger
    from autoresearch.report.memory_text import render_lessons

    with open_ledger(arguments.project) as (repo, ledger):
        tried = lessons(ledger, repo, last=LESSONS_AT_MOST + 1)
    left_off = len(tried) > LESSONS_AT_MOST
    del tried[LESSONS_AT_MOST:]
    data = {"lessons": [asdict(lesson) for lesson in tried], "left_off": left_off}
    return Result(data=data, text=render_lessons(tried, left_off=left_off))


def look(arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    from autoresearch.campaign.driver import keep_driving
    from autoresearch.campaign.opened import open_campaign
    from autoresearch.campaign.progress import bring_forward, wait_for_trial
    from autoresearch.campaign.status import status

    if arguments.wait > 0:
        wait_for_trial(arguments.project, arguments.tag, arguments.wait)
    with open_campaign(arguments.project, arguments.tag) as oc:
        state = status(oc, bring_forward(oc), history=arguments.history)
        keep_driving(oc)
        return state


def watch(arguments: argparse.Namespace) -> Result:
    from autoresearch.report.watch import watch as show

    if arguments.json or not sys.stdout.isatty():
        raise UsageError(
            "--watch draws on a terminal; stdout is none or --json was given.",
            hint="python scripts/status.py --wait 540",
        )
    return Result(data={}, text=show(arguments.project, arguments.tag))


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
