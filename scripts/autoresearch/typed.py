"""The commands that an answer names, as they are to be typed where it was asked for.

Everywhere else they are written ``python scripts/NAME.py …`` and ``git …``, for the project's folder.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from pathlib import Path
from typing import Any

TYPED_KEYS = ("hint", "next", "recommendations")  # in an answer's data: what is below them names commands
_SCRIPT = re.compile(r"python scripts/(?P<name>\w+\.py)(?P<rest>[^\n;&|]*)")
# Nothing but a command follows "git" with one of these words.
_GIT = re.compile(
    r"\bgit (?=(add|apply|bisect|branch|commit|diff|log|merge|rebase|reset|restore|rm|show|stash|status|switch)\b)"
)
_UNDO = re.compile(r"(?<=\bUndo: ).+?(?=; or\b|$)|(?<=if a tool writes it, ).+", re.MULTILINE)


def typed(text: str, project: Path) -> str:
    """``text`` with its commands as they are to be typed here, for the campaign in the folder ``project``."""
    folder = _in_full(project)
    if folder == Path.cwd():
        return _SCRIPT.sub(rf"{_python()} {_scripts()}/\g<name>\g<rest>", text)
    named = shlex.quote(str(folder))

    def with_project(found: re.Match[str]) -> str:
        option = "" if "--project" in found["rest"] else f" --project {named}"
        return f"{_python()} {_scripts()}/{found['name']}{option}{found['rest']}"

    return _GIT.sub(lambda _: f"git -C {named} ", _SCRIPT.sub(with_project, text))


def typed_undo(text: str, project: Path) -> str:
    """``text`` with each command behind "Undo:", whose paths begin in the folder ``project``, for here."""
    folder = _in_full(project)
    if folder == Path.cwd():
        return text
    return _UNDO.sub(lambda found: f"(cd {shlex.quote(str(folder))} && {found[0]})", text)


def with_typed(value: Any, project: Path, *, names_commands: bool = False) -> Any:
    """``value`` with the texts under ``TYPED_KEYS``, at any depth, as they are to be typed."""
    if isinstance(value, dict):
        return {
            key: with_typed(item, project, names_commands=names_commands or key in TYPED_KEYS)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [with_typed(item, project, names_commands=names_commands) for item in value]
    return typed(value, project) if names_commands and isinstance(value, str) else value


def _in_full(project: Path) -> Path:
    # Path.expanduser and Path.resolve may raise, and this is asked when an error is told too.
    return Path(os.path.realpath(os.path.expanduser(project)))  # noqa: PTH111


def _scripts() -> str:
    """The folder of the scripts, in full unless it is here."""
    scripts = Path(__file__).resolve().parent.parent
    return "scripts" if scripts == Path.cwd() / "scripts" else shlex.quote(str(scripts))


def _python() -> str:
    """What to type for the Python that runs this, with its packages."""
    # In the environment that `uv run` makes for one script, plain python would lack the packages.
    if any(part.startswith(("environments-v", "archive-v")) for part in Path(sys.prefix).parts):
        return "uv run"
    if not sys.executable:
        return "python"
    # The folder tells environments apart, which are links to one program; the program, two of one folder.
    ours = Path(sys.executable)
    for name in ("python", "python3"):
        found = Path(shutil.which(name) or os.devnull)
        if found.parent.resolve() == ours.parent.resolve() and found.resolve() == ours.resolve():
            return name
    return shlex.quote(sys.executable)
