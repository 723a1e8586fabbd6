#!/usr/bin/env -S uv run --script
# /// script
# requires-python = ">=3.11"
# dependencies = [
#     "apprise>=2.3,<3",
#     "gitpython>=3.1.43,<4",
#     "jinja2>=3.1.4,<4",
#     "libtmux>=0.62,<0.63",
#     "nvidia-ml-py>=12.560,<14",
#     "plotly>=6.0,<8",
#     "psutil>=6.0,<8",
#     "pyyaml>=6.0.1,<7",
#     "rich>=13.9,<16",
#     "scipy>=1.15,<2",
# ]
# ///
"""Start a coding agent on a campaign in tmux, and keep it at work until morning.

It accepts the client's start dialogs, gives the task, and leaves a supervisor that watches: it brings an
idle agent back to work, waits for usage limits, and starts a client that ended anew. You may close the terminal.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.errors import AgentError, UsageError
from autoresearch.output import Parser, Result, run_script

if TYPE_CHECKING:
    from autoresearch.agents.begin import Watched
    from autoresearch.agents.night import Options

STOP_PATIENCE_S = 24 * 3600.0
VERBS = ("status", "stop", "send", "attach", "logs", "resume", "classify")
CAPS = ("hours", "max_experiments", "max_gpu_hours", "max_tokens", "max_cost", "max_nudges")
OF_A_START = ("agents", "gpus", "agent", "permissions", "sandboxed", "goal", "task", "model", "width", "height")
TAKEN_BY = {"start": (*OF_A_START, *CAPS), "resume": CAPS, "classify": ("agent",)}
EXAMPLES = """\
  python scripts/launch_tmux.py --session apr5 --agent codex --hours 8 --goal "try weight decay first"
  python scripts/launch_tmux.py --session apr5 --agents 2 --gpus 0,1
  python scripts/launch_tmux.py --send "try a larger batch next"
  python scripts/launch_tmux.py --stop"""


def build_parser() -> Parser:
    parser = Parser((__doc__ or "").strip(), EXAMPLES)
    parser.usage = (
        "%(prog)s --session NAME [options]\n"
        "       %(prog)s --status | --stop [--now] | --send TEXT | --attach | --logs [N] | --resume | --classify FILE"
    )
    parser.add_argument("--session", metavar="NAME", help="of tmux; also the campaign's tag unless --tag says")
    parser.add_argument("--tag", help="the campaign, made if it is new; or one of several")
    parser.add_argument("--socket", metavar="NAME", default="", help="of tmux -L (default: the user's own server)")
    start = parser.add_argument_group("what to start")
    start.add_argument(
        "--agent", metavar="NAME", help="claude, codex, gemini, opencode, scripted, or a profile's file (default: the "
        "first that is installed)",
    )  # fmt: skip
    start.add_argument("--agents", metavar="N", type=int, help="so many at once, each in a work tree of its own")
    start.add_argument("--gpus", metavar="LIST", help="such as 0,1: what the agents share, one each")
    start.add_argument(
        "--permissions", choices=("bypass", "allowlist"), default="bypass",
        help="allowlist: only the loop's scripts and the edited files",
    )  # fmt: skip
    start.add_argument("--sandboxed", action="store_true", help="this machine is a sandbox: lets clients work as root")
    start.add_argument("--goal", metavar="TEXT", default="", help="what to aim at, within the usual task")
    start.add_argument("--task", metavar="FILE", type=Path, help="the whole task, in place of the usual one")
    start.add_argument("--model", metavar="NAME", default="", help="for the client (default: its own)")
    start.add_argument("--width", metavar="N", type=int, default=200, help="of the agent's window (default: 200)")
    start.add_argument("--height", metavar="N", type=int, default=50, help="its rows (default: 50)")
    caps = parser.add_argument_group("where each agent ends by itself (default: nowhere)")
    caps.add_argument("--hours", metavar="H", type=float, help="after this time")
    caps.add_argument("--max-experiments", metavar="N", type=int, help="after so many decided ones")
    caps.add_argument("--max-gpu-hours", metavar="H", type=float, help="after trials of this time together")
    caps.add_argument("--max-tokens", metavar="N", type=int, help="as the client counts them")
    caps.add_argument("--max-cost", metavar="USD", type=float, help="as the client says")
    caps.add_argument("--max-nudges", metavar="N", type=int, help="in a row without progress (default: 10)")
    verbs = parser.add_argument_group("a night that is there").add_mutually_exclusive_group()
    verbs.add_argument("--status", action="store_true", help="say where it stands")
    verbs.add_argument("--stop", action="store_true", help="end it after the running trial; with --now at once")
    verbs.add_argument("--send", metavar="TEXT", help="say something to the agent")
    verbs.add_argument("--attach", action="store_true", help="look at the session; leave it with Ctrl-b d")
    verbs.add_argument("--logs", metavar="N", type=int, nargs="?", const=40, help="print the last N events (40)")
    verbs.add_argument("--resume", action="store_true", help="go on after a stop, a crash or a reboot")
    verbs.add_argument("--classify", metavar="FILE", type=Path, help="say what is seen in a captured screen")
    parser.add_argument("--now", action="store_true", help="with --stop: end the running trial too")
    return parser


def work(arguments: argparse.Namespace) -> Result:
    verb = _verb(arguments)
    _check(arguments, verb)
    if verb == "classify":
        from autoresearch.agents.screen import classify_file

        seen = classify_file(arguments.classify, arguments.agent)
        return Result(data=seen, text=json.dumps(seen, ensure_ascii=False))
    if verb == "start":
        return _begun(_start(arguments), "is at work")
    return _on_nights(arguments, verb)


def _start(arguments: argparse.Namespace) -> list[Watched]:
    from autoresearch.agents import begin, team

    options = _options(arguments)
    if arguments.agents is None and arguments.gpus is None:
        return begin.start(options)
    return begin.start_team(options, team.members(options.tag, arguments.agents, arguments.gpus))


def _on_nights(arguments: argparse.Namespace, verb: str) -> Result:
    """What is done with nights that are there."""
    from autoresearch.agents import begin, launch, telling
    from autoresearch.agents.terminal import NOT_TYPABLE

    project = _project(arguments)
    nights = launch.find_nights(project, arguments.session, arguments.tag)
    if verb == "resume":
        return _begun(begin.resume(project, launch.to_resume(nights), _caps(arguments)), "is at work again")
    if verb == "attach":
        attach(nights[0][1].options, with_window=arguments.tag is not None)
    if verb == "send":
        if not NOT_TYPABLE.sub("", arguments.send).strip():
            raise UsageError("--send is empty.", hint=_hint("send"))
        delivered = launch.send(nights, arguments.send)
        data = {"delivered": all(delivered.values()), "agents": delivered}
        return Result(data=data, text=telling.sent_text(delivered))
    if verb == "logs":
        events = telling.events_of(nights, arguments.logs)
        return Result(data={"events": events}, text=telling.logs_text(nights, events))
    if verb == "stop":
        nights = launch.stop(nights, at_once=arguments.now, wait_s=STOP_PATIENCE_S)
        return Result(data=_data(nights), text=telling.ended_text(nights))
    return Result(data=_data(nights), text=telling.status_text(nights))


def _begun(begun: list[Watched], what: str) -> Result:
    from autoresearch.agents.telling import begun_text

    return Result(data=_data(begun), text=begun_text(begun, what))


def _data(nights: list[Watched]) -> dict[str, Any]:
    """Nights for programs; ``night`` is the first one."""
    from autoresearch.agents.launch import describe

    shown = [describe(folder, night) for folder, night in nights]
    return {"night": shown[0], "nights": shown}


def _verb(arguments: argparse.Namespace) -> str:
    given = (verb for verb in VERBS if getattr(arguments, verb) is not None and getattr(arguments, verb) is not False)
    return next(given, "start")


def _check(arguments: argparse.Namespace, verb: str) -> None:
    for flag, value in vars(arguments).items():
        if isinstance(value, str | Path) and not _is_unicode(str(value)):
            raise UsageError(f"{_flag(flag)} holds bytes that are not UTF-8.", hint="Write it in UTF-8.")
        if flag in (*CAPS, "logs") and value is not None and not 0 < value < math.inf:
            raise UsageError(f"{_flag(flag)} is {value:g}; expected a number above 0.", hint=f"{_flag(flag)} 8")
    parser = build_parser()
    for flag in TAKEN_BY["start"]:
        if flag not in TAKEN_BY.get(verb, ()) and getattr(arguments, flag) != parser.get_default(flag):
            raise UsageError(f"{_flag(flag)} goes with the start of a night, not with --{verb}.", hint=_hint(verb))
    if not (60 <= arguments.width <= 500 and 15 <= arguments.height <= 300):
        raise UsageError(
            f"The window would be {arguments.width} x {arguments.height}; expected 60 to 500 columns, 15 to 300 rows.",
            hint="--width 200 --height 50",
        )
    if arguments.now and not arguments.stop:
        raise UsageError("--now goes with --stop.", hint="python scripts/launch_tmux.py --stop --now")
    if arguments.goal and arguments.task:
        raise UsageError("--goal and --task were both given; the goal stands within the usual task.", hint="Give one.")
    if verb == "attach" and arguments.json:
        raise UsageError("--attach shows a terminal; it has no --json.", hint=_hint("attach"))


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _hint(verb: str) -> str:
    words = {"send": '--send "try weight decay next"', "classify": "--classify screen.txt"}
    return f"python scripts/launch_tmux.py {words.get(verb, f'--{verb}')}"


def _is_unicode(text: str) -> bool:
    """Not what Python makes of arguments in another encoding."""
    return not any("\ud800" <= char <= "\udfff" for char in text)


def _project(arguments: argparse.Namespace) -> Path:
    from autoresearch.repo import Repo

    return Repo(arguments.project).project


def _caps(arguments: argparse.Namespace) -> dict[str, Any]:
    """The caps that were given."""
    return {name: value for name in CAPS if (value := getattr(arguments, name)) is not None}


def _options(arguments: argparse.Namespace) -> Options:
    """What the flags ask for."""
    from autoresearch.agents.night import Options
    from autoresearch.agents.policy import Caps

    if not arguments.session:
        raise UsageError(
            "--session is missing: the name of the tmux session.", hint="python scripts/launch_tmux.py --session apr5"
        )
    task = ""
    if arguments.task is not None:
        try:
            task = arguments.task.expanduser().read_bytes().decode("utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--task {arguments.task} cannot be read: {error}.", hint="Name a text file.") from error
        if "\0" in task:
            raise UsageError(f"--task {arguments.task} holds a NUL byte: it is no text.", hint="Name a text file.")
        if not task.strip():
            raise UsageError(f"--task {arguments.task} is empty.", hint="Write the task into it, or use --goal.")
    return Options(
        session=arguments.session, tag=arguments.tag or arguments.session, project=str(_project(arguments)),
        agent=_agent(arguments.agent), permissions=arguments.permissions, sandboxed=arguments.sandboxed,
        goal=arguments.goal, task=task, model=arguments.model, socket=arguments.socket,
        width=arguments.width, height=arguments.height, caps=Caps(**_caps(arguments)),
    )  # fmt: skip


def _agent(named: str | None) -> str:
    """The client, or the whole path of its profile's file, which the supervisor reads from elsewhere."""
    if named is None:
        from autoresearch.agents.check_tools import first_installed

        return first_installed()
    path = Path(named).expanduser()
    return str(path.absolute()) if path.suffix and path.is_file() else named


def attach(options: Options, *, with_window: bool) -> NoReturn:
    """Become the tmux client that shows the session, and with ``with_window`` the agent's window of it."""
    from autoresearch.agents.terminal import Terminal, require_tmux

    require_tmux()
    session, socket = options.session, options.socket or "default"
    if not Terminal(session, socket=socket).exists():
        raise AgentError(
            f"There is no tmux session {session}: the night is not under way.",
            hint="python scripts/launch_tmux.py --status",
            code="session_gone",
        )
    if not sys.stdin.isatty():
        raise UsageError("--attach needs a terminal.", hint=_hint("logs"))
    target = f"={session}:{options.window}" if with_window and options.team else f"={session}"
    verb = "switch-client"
    if Path(os.environ.get("TMUX", "").partition(",")[0]).name != socket:  # we are not in a window of that server
        verb = "attach-session"
        os.environ.pop("TMUX", None)  # within another server's window tmux would refuse
    os.execvp("tmux", ["tmux", "-L", socket, verb, "-t", target])  # noqa: S606 - to become it is the purpose


def main(argv: Sequence[str] | None = None) -> int:
    return run_script(build_parser(), work, argv)


if __name__ == "__main__":
    raise SystemExit(main())
