#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "libtmux>=0.62,<0.63",
#     "nvidia-ml-py>=12.560,<14",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "scipy>=1.15,<2",
# ]
# ///
"""Say whether this machine is ready: tools, agent client, project, campaign, data, disk, device.

Looks and changes nothing. Each line is ok, a warning, or failed, with the command that helps.
Exit code 0 if nothing failed, else 5.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

if sys.version_info < (3, 11):  # noqa: UP036 - whoever asks why nothing works may have an older one
    sys.stderr.write("doctor: this is Python %d.%d; expected 3.11 or newer.\n" % sys.version_info[:2])  # noqa: UP031
    raise SystemExit(5)

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.agents.checks import Check, check_machine
from autoresearch.errors import MachineError
from autoresearch.output import Parser, Result, one_line, run_script

LINE = 200
EXAMPLES = """\
  python scripts/doctor.py
  python scripts/doctor.py --agent codex --session apr5
  python scripts/doctor.py --project ~/nanogpt --json"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument("--tag", help="the campaign (default: the checked-out branch's)")
    parser.add_argument(
        "--agent", metavar="NAME", help="the client to look for, or its profile's file (default: the first installed)"
    )
    parser.add_argument("--session", metavar="NAME", default="", help="the tmux session that a night is to have")
    parser.add_argument("--socket", metavar="NAME", default="", help="of tmux -L (default: the user's own server)")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    checks = check_machine(
        arguments.project, agent=arguments.agent, session=arguments.session, socket=arguments.socket, tag=arguments.tag
    )
    text = "\n".join(map(line, checks))
    data = {"checks": [{**asdict(check), "status": check.word} for check in checks]}
    wrong = [check for check in checks if check.ok is False]
    if not wrong:
        return Result(data=data, text=f"{text}\nThis machine is ready.")
    names = ", ".join(check.name for check in wrong)
    failure = MachineError(f"Not ready: {names}.", hint=wrong[0].hint, code="not_ready")
    return Result(data=data, text=text, failure=failure)


def line(check: Check) -> str:
    """The check, and below it what helps."""
    text = f"{check.word:<8} {check.name:<12} {one_line(check.text, LINE)}"
    return f"{text}\n{'':<22}→ {check.hint}" if check.hint else text


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
