"""The commands for a project that is in no git repository yet, or in one without a commit."""

from __future__ import annotations

import os
import shlex
from pathlib import Path


def first_commit_hint(folder: Path, *, with_init: bool = False) -> str:
    """What makes the first commit in ``folder``, of all that is there; never that of somebody's home."""
    home = Path(os.path.realpath(os.path.expanduser("~")))  # noqa: PTH111 - Path.home() fails where there is none
    if home.is_relative_to(folder):
        return "Go to the project's folder, or name it: --project DIR"
    git = f"git -C {shlex.quote(str(folder))}"
    return f"{git} init && " * with_init + f"{git} add -A && {git} commit -m start"
