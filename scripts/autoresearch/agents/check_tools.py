"""The programs that a night needs: git, tmux, Python with its packages, and the agent's client."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.agents.check import Check, failed, passed, refused, warning
from autoresearch.agents.terminal import NAME, Terminal, require_tmux
from autoresearch.errors import AgentError, MachineError

if TYPE_CHECKING:
    from autoresearch.agents.profile import Profile

SCRIPTS = Path(__file__).resolve().parents[2]
LEAST_PYTHON = (3, 11)
LEAST_GIT = (2, 30)  # the first whose `rev-parse` knows --end-of-options
ANSWER_PATIENCE_S = 45.0  # a client in JavaScript took 14 s on a busy machine
IN_ORDER = ("claude", "codex", "gemini", "opencode")  # in which a client is looked for
SCRIPTED = "scripted"

# Where a client's key or login is found, by its program: variables, and files in the home folder.
_LOGINS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "claude": (
        (
            *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN"),
            *("CLAUDE_CODE_USE_BEDROCK", "CLAUDE_CODE_USE_VERTEX", "CLAUDE_CODE_USE_FOUNDRY"),
        ),
        (".claude/.credentials.json",),
    ),
    "codex": (("OPENAI_API_KEY", "CODEX_API_KEY"), (".codex/auth.json", ".codex/config.toml")),
    "gemini": (("GEMINI_API_KEY", "GOOGLE_API_KEY", "GOOGLE_GENAI_USE_VERTEXAI"), (".gemini/oauth_creds.json",)),
    "opencode": (
        ("ANTHROPIC_API_KEY", "OPENAI_API_KEY", "GEMINI_API_KEY", "OPENROUTER_API_KEY"),
        (".local/share/opencode/auth.json", ".config/opencode/opencode.json", ".config/opencode/opencode.jsonc"),
    ),
}


def version_in(text: str) -> tuple[int, ...]:
    """The first version number in ``text``; () if there is none."""
    found = re.search(r"\d+(?:\.\d+)+", text)
    return tuple(map(int, found[0].split("."))) if found else ()


def _shown(version: Sequence[int]) -> str:
    return ".".join(map(str, version))


def _ask(argv: Sequence[str], env: Mapping[str, str] | None = None) -> str:
    """What a program says to a question; ``OSError`` or ``SubprocessError`` if it does not."""
    done = subprocess.run(
        argv, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", check=True,
        timeout=ANSWER_PATIENCE_S, env=None if env is None else {**os.environ, **env},
    )  # fmt: skip
    return f"{done.stdout}\n{done.stderr}".strip()


def check_git() -> Check:
    name, hint = "git", "Install it: apt install git, or brew install git"
    if shutil.which(name) is None:
        return failed(name, "git is not installed", hint)
    try:
        said = _ask([name, "--version"])
    except (OSError, subprocess.SubprocessError) as error:
        return failed(name, f"git --version failed: {error}", hint)
    version = version_in(said)
    if version and version < LEAST_GIT:
        return failed(name, f"this is git {_shown(version)}; expected {_shown(LEAST_GIT)} or newer", hint)
    return passed(name, said.splitlines()[0])


def check_tmux() -> Check:
    try:
        require_tmux()
    except MachineError as error:
        return refused("tmux", error)
    return passed("tmux", _ask(["tmux", "-V"]))


def check_identity(project: Path) -> Check:
    """Whether git knows who commits; the scripts do without."""
    name = "identity"
    folder = project if project.is_dir() else Path.cwd()
    try:
        said = _ask(["git", "-C", str(folder), "var", "GIT_COMMITTER_IDENT"])
    except (OSError, subprocess.SubprocessError):
        return warning(
            name, "git knows no name for you, so experiments are committed as autoresearch",
            'git config --global user.name "You" && git config --global user.email you@example.org',
        )  # fmt: skip
    return passed(name, re.sub(r" \d+ [-+]\d{4}$", "", said.splitlines()[0]))


def check_session(session: str, socket: str) -> Check:
    """Whether the name can be given to a new tmux session."""
    name = "session"
    if not NAME.fullmatch(session):
        return failed(name, f"{session!r} cannot name a tmux session", "Use letters, digits, - and _.")
    try:
        if not Terminal(session, socket=socket or None).is_taken():
            return passed(name, f"there is no tmux session {session} yet")
    except (AgentError, MachineError) as error:
        return refused(name, error)
    tmux = f"tmux -L {socket}" if socket else "tmux"
    return failed(
        name, f"there is a tmux session {session} already",
        f"Choose another name, or end it: {tmux} kill-session -t ={session}",
    )  # fmt: skip


# ---- Python


def check_python() -> Iterator[Check]:
    """The interpreter, and the packages that the scripts name in their PEP 723 blocks."""
    version = f"{platform.python_implementation()} {platform.python_version()} ({sys.executable})"
    if sys.version_info < LEAST_PYTHON:
        yield failed("python", f"this is {version}; expected {_shown(LEAST_PYTHON)} or newer", "Use a newer python3.")
    else:
        yield passed("python", version)
    wanted = requirements()
    if any(part.startswith(("environments-v", "archive-v")) for part in Path(sys.prefix).parts):
        yield passed("packages", "uv brings each script its own")
        return
    missing = sorted(name for name, least in wanted.items() if _lacks(name, least))
    if missing:
        yield failed(
            "packages", f"missing or too old: {', '.join(missing)}", f"pip install {SCRIPTS.parent}, or use uv run"
        )
    else:
        yield passed("packages", f"all {len(wanted)} that the scripts need")


def requirements() -> dict[str, tuple[int, ...]]:
    """``{package: least version}`` over all scripts."""
    lines = (
        line for script in sorted(SCRIPTS.glob("*.py")) for line in script.read_text(encoding="utf-8").splitlines()
    )
    found = (re.fullmatch(r'#     "([\w.-]+)(?:[>=~]=([\d.]+))?[^"]*",', line) for line in lines)
    return {each[1]: version_in(each[2] or "") for each in found if each}


def _lacks(package: str, least: tuple[int, ...]) -> bool:
    try:
        return version_in(importlib.metadata.version(package)) < least
    except importlib.metadata.PackageNotFoundError:
        return True


# ---- the agent's client


def first_installed(path: str | None = None) -> str:
    """The first client that is found on ``path``, else the loop that needs none."""
    return next((name for name in IN_ORDER if shutil.which(name, path=path)), SCRIPTED)


def check_client(profile: Profile, *, chosen: bool) -> Iterator[Check]:
    """Whether the client is there and new enough, and can be expected to log in; ``chosen``: the user named it."""
    name = "agent"
    if not profile.binary:
        if chosen:
            yield passed(name, f"{profile.title} is part of the bundle")
        else:
            known = ", ".join(IN_ORDER)
            yield warning(
                name, f"none of {known} is installed; the {profile.title.lower()} needs none",
                "npm install -g @anthropic-ai/claude-code",
            )  # fmt: skip
        return
    place = shutil.which(profile.binary)
    if place is None:
        yield failed(name, f"{profile.title} ({profile.binary}) is not installed", profile.install)
        return
    asked = f"{place} {' '.join(profile.version.argv)}"
    try:
        said = _ask([place, *profile.version.argv], profile.environment)
    except subprocess.TimeoutExpired:
        yield warning(name, f"{asked} gave no answer in {ANSWER_PATIENCE_S:.0f} s", asked)
        return
    except (OSError, subprocess.SubprocessError) as error:
        last = (getattr(error, "stderr", None) or str(error)).strip().splitlines()[-1:]
        yield failed(name, f"{asked} failed: {''.join(last)}", profile.install)
        return
    version, least = version_in(said), version_in(profile.version.least)
    if version < least:
        told = _shown(version) or "unknown"
        yield failed(
            name, f"{profile.title} is of version {told}; expected {profile.version.least} or newer", profile.install
        )
    else:
        yield passed(name, f"{profile.title} {_shown(version)} ({place})")
    yield from _check_login(profile)


def _check_login(profile: Profile) -> Iterator[Check]:
    """A key or a login, by name and place; neither is opened, let alone shown."""
    if profile.binary not in _LOGINS:
        return
    variables, files = _LOGINS[profile.binary]
    for variable in variables:
        if os.environ.get(variable):
            yield passed("login", f"{variable} is set")
            return
    for file in files:
        if (Path("~").expanduser() / file).is_file():
            yield passed("login", f"~/{file} is there")
            return
    yield warning(
        "login", f"no key and no login of {profile.title} was found, so it may ask at its start",
        f"Log in once by hand: {profile.binary}; or export {variables[0]}",
    )  # fmt: skip


def check_root(profile: Profile, *, permissions: str, sandboxed: bool) -> Iterator[Check]:
    """A client that refuses to work without asking as root."""
    root = profile.root
    if os.geteuid() != 0 or root is None or permissions != "bypass":
        return
    if sandboxed or os.environ.get(root.variable) == root.value:
        yield passed("root", f"you are root, and {profile.title} is told that this is a sandbox")
    else:
        yield failed(
            "root", f"you are root; {profile.title}: {root.reason or 'it refuses to run so'}",
            "Use another user; or, in a container that may break: --sandboxed",
        )  # fmt: skip
