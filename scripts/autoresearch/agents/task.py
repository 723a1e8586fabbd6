"""What the supervisor says to the agent: the task, the nudge, and how to go on after a restart."""

from __future__ import annotations

import os
import shlex
import sys
from pathlib import Path

from autoresearch.agents.night import Options
from autoresearch.output import one_line

BUNDLE = Path(__file__).resolve().parents[3]
STEP_WIDTH = 300


def task_text(options: Options) -> str:
    """The first message: the user's own task to the byte, or the bundle's with the user's goal in it."""
    if options.task:
        return options.task
    import jinja2

    environment = jinja2.Environment(  # noqa: S701 - the output is plain text
        loader=jinja2.FileSystemLoader(BUNDLE / "templates"),
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
    )
    return environment.get_template("task.md.j2").render(
        tag=options.tag, skill=BUNDLE / "SKILL.md", script=command("{script}"), status=command("status"),
        goal=options.goal, others=[tag for tag in options.team if tag != options.tag],
    )  # fmt: skip


def nudge_text(step: str, reason: str) -> str:
    """One line for an agent that stands at its prompt: why, and the next step as status.py tells it."""
    next_step = one_line(step, STEP_WIDTH) or f"run {command('status')} and follow its next step"
    return f"autoresearch ({reason}): nobody is at the keyboard, decide yourself and go on. Next: {next_step}"


def resume_text() -> str:
    """The first message to a client that was started again and remembers the conversation."""
    return (
        "autoresearch: your client ended and was started again; a trial may have gone on meanwhile. "
        f"Run {command('status')} and go on with the loop."
    )


def command(script: str) -> str:
    """``script`` of this bundle as a line that works in the agent's shell, with the Python that has our packages."""
    by_uv = any(part.startswith(("environments-v", "archive-v")) for part in Path(sys.prefix).parts)
    interpreter = "uv run" if by_uv else shlex.quote(str(python()))
    return f"{interpreter} {shlex.quote(str(BUNDLE / 'scripts'))}/{script}.py"


def python() -> Path:
    """This interpreter by the path of its environment, not of the binary behind it."""
    return Path(os.path.abspath(sys.executable))  # noqa: PTH100 - resolve() would leave the environment
