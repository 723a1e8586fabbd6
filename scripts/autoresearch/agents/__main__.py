"""``python .../agents/__main__.py FOLDER``: be the supervisor of the night in FOLDER, until it ends.

Started by ``launch_tmux.py`` in a session of its own, with the launcher's environment, which the client gets.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder
# The bundle's folder in place of this one, whose modules would hide others of the same names.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import os
import signal

from autoresearch.agents.client import Client
from autoresearch.agents.night import NightFolder
from autoresearch.agents.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        sys.stderr.write("usage: __main__.py FOLDER\n")
        return 2
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of the terminal that the night was launched from
    folder = NightFolder(Path(arguments[0]))
    with folder.watch():
        night = folder.read()
        if night is None:
            sys.stderr.write(f"there is no night in {folder.path}\n")
            return 2
        if night.state == "ended":  # by a --stop that was quicker than we
            return 0
        Supervisor(folder, night, Client(folder, night, dict(os.environ))).run()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
