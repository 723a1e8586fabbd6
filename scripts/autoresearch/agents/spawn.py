"""How a program comes into a tmux pane: ``python -I spawn.py FIFO`` becomes the program it is told through FIFO.

A task can be longer than tmux's commands may be, and an environment holds keys. So the pane's command
is only this file, and what it is to become goes through a FIFO: never onto a disk, never onto a
command line, and not out of the environment of a tmux server that somebody else started days ago.
Since the program replaces this one, the pane's process id is the program's.

Both ends are here. Only the standard library: the pane's end runs without the bundle on its path.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType

PATIENCE_S = 30.0  # a cold interpreter on a busy machine
POLL_INTERVAL_S = 0.01
NOT_STARTED = 127  # what shells say about a command they cannot run
# What tmux says about the pane is right; what the caller's own terminal said about itself is not.
OF_THE_PANE = ("TERM", "TERM_PROGRAM", "TERM_PROGRAM_VERSION", "COLORTERM", "TMUX", "TMUX_PANE", "COLUMNS", "LINES")
# What Claude Code tells its commands. A client that is told this takes itself for a part of the one that
# the launcher was called from: as a child session it writes neither transcript nor session file.
OF_AN_ENCLOSING_AGENT = (
    *("CLAUDECODE", "CLAUDE_CODE_CHILD_SESSION", "CLAUDE_CODE_SESSION_ID", "CLAUDE_CODE_SESSION_KIND"),
    *("CLAUDE_CODE_ENTRYPOINT", "CLAUDE_CODE_EXECPATH", "CLAUDE_CODE_SSE_PORT", "CLAUDE_EFFORT"),
    *("CLAUDE_PROJECT_DIR", "CLAUDE_ENV_FILE", "AI_AGENT"),
)


class Handover:
    """Hands a program to the pane that runs ``command``; a context, after which no trace is left.

    Raises OSError (TimeoutError among them) if nobody came for the program or it went half-way.
    """

    def __init__(self) -> None:
        self._folder = tempfile.mkdtemp(prefix="autoresearch-")
        self._fifo = Path(self._folder) / "program"

    def __enter__(self) -> Handover:
        os.mkfifo(self._fifo, 0o600)
        return self

    def __exit__(self, kind: type[BaseException] | None, value: object, trace: TracebackType | None) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    @property
    def command(self) -> list[str]:
        return [sys.executable, "-I", str(Path(__file__).resolve()), str(self._fifo)]

    def give(self, argv: Sequence[str], env: Mapping[str, str], cwd: Path, *, patience_s: float = PATIENCE_S) -> None:
        """Wait at most ``patience_s`` for the pane and tell it what to become: ``argv`` in ``cwd`` with ``env``."""
        deadline = time.monotonic() + patience_s
        message = {"argv": list(argv), "env": dict(env), "cwd": str(cwd)}
        writer = self._open(deadline)
        try:
            write_all(writer, json.dumps(message).encode(), deadline)
        finally:
            os.close(writer)

    def _open(self, deadline: float) -> int:
        """A plain open would wait for ever for a pane that never comes."""
        while True:
            try:
                return os.open(self._fifo, os.O_WRONLY | os.O_NONBLOCK)
            except OSError as error:  # ENXIO: nobody reads yet
                if time.monotonic() > deadline:
                    raise TimeoutError("nothing in the pane asked what to run") from error
            time.sleep(POLL_INTERVAL_S)


def write_all(writer: int, message: bytes, deadline: float) -> None:
    """Write ``message`` to a pipe that does not block and may be smaller than it."""
    ready = select.poll()
    ready.register(writer, select.POLLOUT)
    rest = memoryview(message)
    while rest:
        if not ready.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise TimeoutError("the pane stopped reading what to run")
        rest = rest[os.write(writer, rest) :]


def main(fifo: str) -> int:
    signal.alarm(int(PATIENCE_S))  # ends this process: a launcher that died leaves no pane waiting for ever
    try:
        program = json.loads(Path(fifo).read_bytes())
    except (OSError, ValueError) as error:
        return complain(f"was not told what to run: {error}")
    signal.alarm(0)
    env = {name: value for name, value in program["env"].items() if name not in OF_THE_PANE + OF_AN_ENCLOSING_AGENT}
    env |= {name: os.environ[name] for name in OF_THE_PANE if name in os.environ}
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and a program inherits that
        signal.signal(number, signal.SIG_DFL)
    argv = program["argv"]
    try:
        os.chdir(program["cwd"])
        os.execvpe(argv[0], argv, env)  # noqa: S606 - to become it is the purpose
    except OSError as error:
        return complain(f"cannot run {argv[0]} in {program['cwd']}: {error.strerror}")


def complain(text: str) -> int:
    sys.stderr.write(f"autoresearch: {text}\n")
    return NOT_STARTED


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1]))
