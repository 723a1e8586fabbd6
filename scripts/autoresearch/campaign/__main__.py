"""``python .../campaign/__main__.py PROJECT TAG``: be the driver of a campaign, see ``driver``.

It goes on in a process that is no longer a descendant of the caller.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder
# The bundle's folder in place of this one, whose modules would hide others of the same names.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import os


def main(arguments: list[str]) -> int:
    if len(arguments) != 2:
        sys.stderr.write("usage: __main__.py PROJECT TAG\n")
        return 2
    if os.fork():
        return 0  # the caller waits no longer than for this
    from autoresearch.campaign.driver import drive

    drive(Path(arguments[0]), arguments[1])
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
