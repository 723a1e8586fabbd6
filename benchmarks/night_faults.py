"""How long a night takes to be at work again after each kind of fault, with the real Claude Code.

A second of the supervisor's patience stands for about half a minute of a real night, so the times tell
what the machinery costs, and not what a user waits. Needs ``make clients``.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from tests.client_bench import make_world
from tests.night_faults import EVERY_FAULT, faulty_night, table


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", metavar="TEXT", default="", help="the faults whose name holds this")
    only = parser.parse_args().only
    recoveries = []
    with make_world() as world, faulty_night(world) as faulty:
        for fault in EVERY_FAULT:
            if only in fault.name:
                print(f"{fault.name} ...", file=sys.stderr, flush=True)
                recoveries.append(faulty.meet(fault))
        faulty.finish()
    print(table(recoveries))


if __name__ == "__main__":
    main()
