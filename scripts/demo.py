#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "libtmux>=0.62,<0.63",
#     "nvidia-ml-py>=12.560,<14",
#     "optuna>=4.0,<6",
#     "plotly>=6.0,<8",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Watch a real campaign: a small GPT, trained and improved by a scripted loop in tmux, in a few minutes.

Needs no API key. The project stays where it was made, to be looked at.
"""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.agents.check import demand
from autoresearch.agents.check_tools import check_git, check_tmux
from autoresearch.errors import AgentError, AutoresearchError, MachineError, UsageError
from autoresearch.output import Parser, Result, run_script, say

if TYPE_CHECKING:
    import libtmux

SCRIPTS = Path(__file__).resolve().parent
POINTS = ("HEAD_LR=0.008,0.02,0.0005",)
POLL_S = 0.5
LEAVING_S = 20.0  # that an interrupted sweep gets to end its trial
TIMED_OUT = 124
EXAMPLES = """\
  python scripts/demo.py
  python scripts/demo.py --into ~/nanogpt-demo --budget 15 --minutes 10
  python scripts/demo.py --set HEAD_LR=0.004,0.008 --set WARMDOWN_RATIO=0.3,0.5"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.add_argument(
        "--into", metavar="DIR", type=Path, help="the project's folder, empty or new (default: a temporary one)"
    )
    parser.add_argument("--budget", type=float, default=8.0, metavar="S", help="of one training (default: 8)")
    parser.add_argument("--set", metavar="NAME=…", action="append", help=f"what to sweep (default: {POINTS[0]})")
    parser.add_argument("--minutes", type=float, default=5.0, metavar="M", help="end it after M minutes (default: 5)")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    from autoresearch.report.html_report import write_report
    from autoresearch.report.summary import read_summaries
    from autoresearch.report.text import render

    check_request(arguments)
    check_machine()
    deadline = time.monotonic() + 60 * arguments.minutes
    folder = (arguments.into or Path(tempfile.mkdtemp(prefix="autoresearch-demo-"))).expanduser().resolve()
    say(f"The project: {folder}")
    set_up = ["setup_campaign.py", "--starter", "nanogpt", "--prepare", "--budget", f"{arguments.budget:g}"]
    try:
        done = subprocess.run(
            [sys.executable, str(SCRIPTS / set_up[0]), *set_up[1:], "--project", str(folder)],
            env=environment(), stdin=subprocess.DEVNULL, stdout=sys.stderr, timeout=60 * arguments.minutes, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise out_of_time("set-up", arguments.minutes) from None
    if done.returncode != 0:
        raise MachineError(f"The project in {folder} could not be set up.", hint="The reason stands above.")
    points = [word for text in arguments.set or POINTS for word in ("--set", text)]
    sweep = [sys.executable, str(SCRIPTS / "sweep.py"), "--project", str(folder), *points]
    code = run_in_tmux(sweep, folder, deadline)
    if code == TIMED_OUT:
        raise out_of_time("sweep", arguments.minutes)
    if code != 0:
        raise AgentError(
            f"The sweep ended with exit code {code}; it has said above why.",
            hint=f"Mend it (here it lies: {folder}), and run the demo again in another folder.",
        )
    (summary,) = read_summaries(folder)
    report = write_report(folder, folder / "report.html", finished=True).path
    text = f"{render(summary)}\nproject: {folder}\nresults: {folder / 'results.tsv'}\nreport:  {report}"
    before, after = summary.baseline, summary.incumbent
    failure = None
    if not (before and after and before.metric and after.metric and after.metric < before.metric):
        failure = AutoresearchError(
            "No point was better than the baseline, beyond noise.",
            hint="Give it more time: --budget 15",
            code="no_gain",
        )
    data = {"project": folder, "report": report, "summary": asdict(summary)}
    return Result(data=data, text=text, failure=failure, project=folder)


def check_request(arguments: argparse.Namespace) -> None:
    """Refuse what no demo can be asked for."""
    for flag, value in (("--minutes", arguments.minutes), ("--budget", arguments.budget)):
        if not (math.isfinite(value) and value > 0):
            raise UsageError(f"{flag} is {value:g}; expected a number above 0.", hint=f"Leave {flag} out.")


def out_of_time(what: str, minutes: float) -> AgentError:
    return AgentError(
        f"The {what} was ended after {minutes:g} minutes.", hint="Give it longer: --minutes 10", code="timeout"
    )


def check_machine() -> None:
    """``MachineError`` for whatever is missing."""
    demand([check_git(), check_tmux()])
    if importlib.util.find_spec("torch") is None:
        raise MachineError(f"{sys.executable} has no torch, which the demo trains with.", hint="make env demo")


def environment() -> dict[str, str]:
    """Ours, with this very Python as ``python``: the starter's command trains with the torch found here."""
    return os.environ | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}


def run_in_tmux(command: Sequence[str], folder: Path, deadline: float) -> int:
    """Run ``command`` in a tmux server of its own, echo its pane; its exit code, or ``TIMED_OUT``."""
    import libtmux

    ending = Path(tempfile.mkdtemp(prefix="autoresearch-demo-end-")) / "code"
    # A login shell in between may have set its own PATH.
    path, code = shlex.quote(environment()["PATH"]), shlex.quote(str(ending))
    line = f"trap : INT; export PATH={path}; {shlex.join(command)}; echo $? > {code}; sleep 60"
    server = libtmux.Server(socket_name=f"autoresearch-demo-{os.getpid()}", config_file=os.devnull)
    say(f"Watch it: tmux -L {server.socket_name} attach -r")
    try:
        session = server.new_session(
            "demo", start_directory=str(folder), x=200, y=50,
            window_command=f"sh -c {shlex.quote(line)}",
        )  # fmt: skip
        pane = session.active_pane
        assert pane is not None, "a new session has a pane"
        try:
            return echo_until_ended(pane, ending, deadline)
        finally:
            interrupt(pane, ending)
    finally:
        server.kill()
        shutil.rmtree(ending.parent)


def interrupt(pane: libtmux.Pane, ending: Path) -> None:
    """Ctrl-C for a sweep that still runs, so that it leaves a clean campaign and no trial."""
    if ending.exists():
        return
    pane.send_keys("C-c", enter=False)
    deadline = time.monotonic() + LEAVING_S
    while not ending.exists() and time.monotonic() < deadline:
        time.sleep(POLL_S)


def echo_until_ended(pane: libtmux.Pane, ending: Path, deadline: float) -> int:
    """Echo the lines that are new in the pane until ``ending`` holds the exit code."""
    shown: set[str] = set()
    while True:
        ended = ending.exists() and ending.read_text().strip()
        lines = [line.rstrip() for line in pane.capture_pane(start="-")]
        for line in lines:
            # The bar is redrawn in place; what stays are the lines that the sweep prints above it.
            if line and line not in shown and "━" not in line:
                shown.add(line)
                say(f"│ {line}")
        if ended:
            return int(ended)
        if time.monotonic() > deadline:
            return TIMED_OUT
        time.sleep(POLL_S)


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
