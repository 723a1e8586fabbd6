"""A tmux of its own for a test, gone afterwards with all that ran in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from tests.trial_bench import eventually

from autoresearch.agents.screen import Screen
from autoresearch.agents.terminal import Terminal

SOCKET = "bench"


class TerminalBench:
    """Terminals on one private tmux server, which reads no settings unless ``config`` is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.config = folder / "tmux.conf"
        self.config.touch()
        self.program = shutil.which("tmux") or pytest.fail("these tests need tmux")

    def terminal(self, session: str = "night") -> Terminal:
        return Terminal(session, socket=SOCKET, config_file=self.config)

    def start(self, *argv: str, terminal: Terminal | None = None, **env: str) -> Terminal:
        """A terminal whose agent window runs ``argv``."""
        terminal = terminal or self.terminal()
        terminal.start(argv, env={"PATH": os.environ["PATH"], **env}, cwd=self.folder)
        return terminal

    def tmux(self, *arguments: str) -> str:
        command = [self.program, "-u", "-L", SOCKET, "-f", str(self.config), *arguments]
        return subprocess.run(command, capture_output=True, encoding="utf-8", check=False, timeout=30).stdout

    def server_pid(self) -> int:
        return int(self.tmux("display-message", "-p", "#{pid}"))


def shows(terminal: Terminal, text: str) -> Screen:
    """The screen, once ``text`` stands in it."""

    def found() -> Screen | None:
        screen = terminal.look()
        return screen if screen and text in "\n".join(screen.lines) else None

    screen = eventually(found)
    assert isinstance(screen, Screen)
    return screen


def shell(*lines: str) -> Sequence[str]:
    return ("sh", "-c", "\n".join(lines))


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[TerminalBench]:
    # A short path: a socket's may have 107 bytes.
    with tempfile.TemporaryDirectory(prefix="tmux-", dir="/tmp") as sockets:
        monkeypatch.setenv("TMUX_TMPDIR", sockets)
        bench = TerminalBench(tmp_path)
        yield bench
        bench.tmux("kill-server")
