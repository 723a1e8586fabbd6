"""``python .../agents/__main__.py FOLDER...``: be the supervisor of the nights in these folders, until they end.

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
import threading

from autoresearch.agents.client import Client
from autoresearch.agents.closing import log_traceback
from autoresearch.agents.night import NightFolder
from autoresearch.agents.supervisor import Supervisor


def main(arguments: list[str]) -> int:
    if not arguments:
        sys.stderr.write("usage: __main__.py FOLDER...\n")
        return 2
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # of the terminal that the night was launched from
    # A thread for each night: one whose client is slow to answer, or that fails, holds no other up.
    watches = [threading.Thread(target=watch, args=(NightFolder(Path(each)),)) for each in arguments]
    for each in watches:
        each.start()
    for each in watches:
        each.join()
    return 0


def watch(folder: NightFolder) -> None:
    """Supervise the night in ``folder`` until it ends, or fails in a way that its supervisor cannot meet."""
    try:
        with folder.watch():
            night = folder.read()
            if night is None:
                sys.stderr.write(f"there is no night in {folder.path}\n")
            elif night.state != "ended":  # by a --stop that was quicker than we
                Supervisor(folder, night, Client(folder, night, dict(os.environ))).run()
    except Exception as error:  # noqa: BLE001 - it is told, and the other nights go on
        log_traceback(folder.log)
        folder.tell("error", f"nobody watches any more: {error}")


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
