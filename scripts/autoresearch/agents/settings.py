"""The settings file that the client is started with: its hooks, what it may do, and where it tells its cost.

Claude Code adds it to the user's and the project's own settings for this one session. Nothing of
theirs is changed on disk.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from autoresearch.agents.profile import Profile
from autoresearch.trial import write_json

HOOKS_FILE = "hooks.jsonl"
STATUS_FILE = "status.json"
SETTINGS_FILE = "settings.json"
# A turn begins and ends; more would cost a process at every tool call.
EVENTS = ("SessionStart", "UserPromptSubmit", "Stop", "StopFailure")

# What the loop needs. Setting up, launching and judging the machine are for people.
LOOP_SCRIPTS = ("status", "run_experiment", "log_result", "revert", "summarize", "compare", "sweep")
# Never asked for under an allowlist, whatever the user's own settings grant: a tool that is denied by
# its bare name isn't even shown to the model.
DENIED_TOOLS = (
    *("Agent", "Workflow", "SendMessage", "CronCreate", "CronDelete", "ScheduleWakeup"),  # work that nobody watches
    *("EnterWorktree", "ExitWorktree", "NotebookEdit"),  # other places than the files to edit
    *("WebFetch", "WebSearch"),
    *("AskUserQuestion", "EnterPlanMode", "ExitPlanMode"),  # questions to somebody who is asleep
)


def write_settings(
    profile: Profile, folder: Path, *, permissions: str, scripts: Path, python: Path, project: Path,
    edit: Iterable[str], logs: Path | None = None,
) -> Path | None:  # fmt: skip
    """Write the settings for ``profile``'s client into ``folder``; None if it reads no such file.

    Beside it lie, for the user alone, the log of hooks and what the status line was told.
    ``edit`` are the campaign's files, folders and globs, relative to ``project``; ``logs`` is where the logs of
    its trials lie, outside the project if that is a further work tree of its repository.
    """
    if "claude_hooks" not in profile.sources:
        return None
    settings: dict[str, Any] = {
        "hooks": {event: [{"hooks": [hook(folder / HOOKS_FILE)]}] for event in EVENTS},
        "statusLine": {"type": "command", "command": keep_input(folder / STATUS_FILE)},
    }
    if permissions == "allowlist":
        settings["permissions"] = {
            "defaultMode": "dontAsk",  # what isn't allowed is denied without a question, and the turn goes on
            "allow": [*script_rules(scripts, python, project), *file_rules(scripts, project, edit, logs)],
            "deny": list(DENIED_TOOLS),
        }
    path = folder / SETTINGS_FILE
    (folder / HOOKS_FILE).touch(0o600)
    write_json(path, settings)
    path.chmod(0o600)
    return path


def hook(log: Path) -> dict[str, Any]:
    """A hook that appends its event and the time to ``log``, in one write so that two don't mix."""
    line = """'{"at":%s,"event":%s}\\n' "$(date +%s.%N)" "$event\""""
    command = f"event=$(cat); printf {line} >> {shlex.quote(str(log))}"
    return {"type": "command", "command": command, "timeout": 10}


def keep_input(path: Path) -> str:
    """A status line that shows nothing and keeps in ``path`` what it is told, its cost among it."""
    kept, new = shlex.quote(str(path)), shlex.quote(f"{path}.new")
    return f"umask 077; cat > {new} && mv -f {new} {kept}"


def script_rules(scripts: Path, python: Path, project: Path) -> list[str]:
    """The loop's scripts with any arguments, in the forms that the bundle's texts tell an agent to type."""
    folders = dict.fromkeys((scripts, scripts.resolve()))
    paths = [str(folder / f"{name}.py") for folder in folders for name in LOOP_SCRIPTS]
    for folder in folders:
        if folder.is_relative_to(project):
            paths += [str(folder.relative_to(project) / f"{name}.py") for name in LOOP_SCRIPTS]
    # Not resolved: the path of the environment's own python, not of the binary behind it.
    interpreters = ("python", "python3", shlex.quote(os.path.abspath(python)), "uv run")  # noqa: PTH100
    commands = [f"{interpreter} {shlex.quote(path)}" for path in paths for interpreter in interpreters]
    return [rule for command in commands for rule in (f"Bash({command})", f"Bash({command} *)")]


def file_rules(scripts: Path, project: Path, edit: Iterable[str], logs: Path | None = None) -> list[str]:
    """Read project, bundle and logs, edit what the campaign edits; two slashes begin an absolute path."""
    root = literal(project.resolve())
    readable = [root, literal(scripts.resolve().parent)]
    if logs is not None and not logs.is_relative_to(project):
        readable.append(literal(logs))
    return [
        *(f"Read(/{folder}/**)" for folder in readable),
        *(f"Edit(/{root}/{entry})" for entry in edit),
    ]


def literal(path: Path) -> str:
    """``path`` as a pattern that matches nothing else."""
    return re.sub(r"([\\*?\[\]!#])", r"\\\1", str(path))
