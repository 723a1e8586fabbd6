"""Real agent clients for tests: where they are, and a world of their own to run in, with nothing left afterwards.

``make clients`` installs them. Without them their tests are skipped, unless AUTORESEARCH_REQUIRE_CLIENTS
is 1: then they fail.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from tests.conftest import GIT_CONFIG
from tests.scripted_model import ScriptedModel
from tests.trial_bench import eventually, living

from autoresearch.runner.processes import send

# Read at import: the fixture `home` takes these names out of the environment.
CLIENTS = Path(os.environ.get("AUTORESEARCH_CLIENTS", Path(sys.prefix) / "clients")) / "bin"
REQUIRED = os.environ.get("AUTORESEARCH_REQUIRE_CLIENTS") == "1"
KEY = "sk-ant-api03-made-up-for-tests-0123456789abcdefghij"
ANTHROPIC_HOSTS = "DNS:*.anthropic.com,DNS:*.claude.com"
MARK = "NIGHT_BENCH"


def find_client(name: str) -> Path:
    """The client's program; skips the test, or fails it where clients are required."""
    path = CLIENTS / name
    if not path.exists():
        lack(f"{name} is not in {CLIENTS}: make clients")
    return path


def lack(what: str) -> NoReturn:
    """The test can't run: skip it, or fail it where it must."""
    if REQUIRED:
        pytest.fail(what)
    pytest.skip(what)


@dataclass(frozen=True)
class World:
    """A home, a tmux and an environment that nothing else on this machine has.

    Everything that is started here inherits a mark, by which what is left can be found.
    """

    folder: Path

    @property
    def home(self) -> Path:
        return self.folder / "home"

    @property
    def mark(self) -> str:
        return f"{MARK}={self.folder.name}"

    def environment(self, **more: str) -> dict[str, str]:
        """What a user's shell would hand to the launcher, and ``more``."""
        (self.folder / "tmux").mkdir(exist_ok=True)
        name, _, value = self.mark.partition("=")
        return {
            "PATH": f"{CLIENTS}:{os.environ['PATH']}",
            "HOME": str(self.home),
            "LANG": "C.UTF-8",
            "TERM": "xterm-256color",
            "TMUX_TMPDIR": str(self.folder / "tmux"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "AUTORESEARCH_LEASES": str(self.folder / "leases"),
            name: value,
            **more,
        }

    def living(self) -> set[int]:
        """The processes that were started here, at whatever remove."""
        return living(self.mark)

    def commands(self) -> list[str]:
        """The command lines of what lives, for a message that says what was left."""
        found = []
        for pid in sorted(self.living()):
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes()
            except OSError:
                continue
            found.append(f"{pid}: " + words.replace(b"\0", b" ").decode("utf-8", "replace")[:200])
        return found

    def tmux(self, *arguments: str) -> str:
        """Talk to the tmux server of this world; "" if it refuses or isn't there."""
        command = ["tmux", "-u", "-L", SOCKET, *arguments]
        done = subprocess.run(
            command, env=self.environment(), capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
        )
        return done.stdout

    def screen(self) -> str:
        """What the agent's window shows."""
        return self.tmux("capture-pane", "-p", "-t", ":agent")

    def assert_empty(self) -> None:
        """Nothing that was started here lives; what is about to end gets its moment."""
        try:
            eventually(lambda: not self.living())
        except AssertionError:
            pytest.fail("left running:\n" + "\n".join(self.commands()))

    def end(self) -> list[str]:
        """End all that lives here; what it was."""
        left = self.commands()
        while pids := self.living():  # more than once: what is killed may just have started something
            send(pids, signal.SIGKILL)
        return left


SOCKET = "night"


@contextlib.contextmanager
def make_world() -> Iterator[World]:
    """A world of one's own. The block must leave it empty."""
    # A short path: a socket's may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="night-", dir="/tmp"))
    (folder / "home").mkdir()
    (folder / "home" / ".gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    world = World(folder)
    try:
        yield world
        left = world.commands()
    finally:
        world.end()
        shutil.rmtree(folder, ignore_errors=True)
    assert not left, "left running:\n" + "\n".join(left)


@pytest.fixture
def world() -> Iterator[World]:
    with make_world() as world:
        yield world


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for Anthropic's hosts and its key, in one file, which is its own authority."""
    if not shutil.which("openssl"):
        lack("openssl is not installed")
    folder = tmp_path_factory.mktemp("certificate")
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
         "-days", "2", "-subj", "/CN=loopback", "-addext", f"subjectAltName={ANTHROPIC_HOSTS}",
         "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    with certificate.open("a", encoding="utf-8") as file:
        file.write(key.read_text(encoding="utf-8"))
    return certificate


def claude_anew(model: ScriptedModel, certificate: Path) -> dict[str, str]:
    """The environment for Claude Code in a home that it has never seen, with an API key: all its questions come.

    Before the first of them it wants to reach Anthropic's own hosts, whatever its base URL is; the
    model stands in for them, as a proxy.
    """
    return {
        "ANTHROPIC_API_KEY": KEY,
        "ANTHROPIC_BASE_URL": model.url,
        "HTTPS_PROXY": model.url,
        "NO_PROXY": "127.0.0.1",
        "NODE_EXTRA_CA_CERTS": str(certificate),
    }


def claude_subscribed(model: ScriptedModel) -> dict[str, str]:
    """The environment for a subscriber's Claude Code: usage limits are told as a subscriber hears of them.

    It tries a request again once, not ten times.
    """
    return {
        "CLAUDE_CODE_OAUTH_TOKEN": "made-up-for-tests",
        "ANTHROPIC_BASE_URL": model.url,
        "CLAUDE_CODE_MAX_RETRIES": "1",
    }


def answer_claude(world: World, *projects: Path) -> None:
    """Leave Claude Code nothing to ask at its start."""
    known = {
        "hasCompletedOnboarding": True,
        "projects": {str(project): {"hasTrustDialogAccepted": True} for project in projects},
    }
    (world.home / ".claude.json").write_text(json.dumps(known), encoding="utf-8")
    (world.home / ".claude").mkdir()
    settings = {"theme": "dark", "skipDangerousModePermissionPrompt": True}
    (world.home / ".claude" / "settings.json").write_text(json.dumps(settings), encoding="utf-8")


def codex_anew(world: World, model: ScriptedModel) -> dict[str, str]:
    """Codex with a provider of its own, which is how it does without a sign-in."""
    folder = world.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(
        f"""\
model = "gpt-5-codex"
model_provider = "loopback"
check_for_update_on_startup = false

[model_providers.loopback]
name = "loopback"
base_url = "{model.url}/v1"
env_key = "LOOPBACK_KEY"
wire_api = "responses"
""",
        encoding="utf-8",
    )
    return {"LOOPBACK_KEY": KEY}


def gemini_anew(world: World, model: ScriptedModel) -> dict[str, str]:
    """Gemini CLI with a key, and the way to sign in chosen: with several it asks, and only a human can know."""
    folder = world.home / ".gemini"
    folder.mkdir()
    settings = {"security": {"auth": {"selectedType": "gemini-api-key"}}}
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    return {"GEMINI_API_KEY": KEY, "GOOGLE_GEMINI_BASE_URL": model.url}


def opencode_anew(world: World, model: ScriptedModel) -> dict[str, str]:
    """opencode with a provider of its own."""
    folder = world.home / ".config" / "opencode"
    folder.mkdir(parents=True)
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "Loopback",
        "options": {"baseURL": f"{model.url}/v1", "apiKey": KEY},
        "models": {"scripted": {"name": "Scripted"}},
    }
    settings = {"provider": {"loopback": provider}, "model": "loopback/scripted", "autoupdate": False}
    (folder / "opencode.json").write_text(json.dumps(settings), encoding="utf-8")
    return {}


OTHERS: dict[str, Callable[[World, ScriptedModel], dict[str, str]]] = {
    "codex": codex_anew,
    "gemini": gemini_anew,
    "opencode": opencode_anew,
}
