"""Started by its path, away from any project: reads one letter from stdin and sends it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder

from autoresearch.notify.send import main

if __name__ == "__main__":
    main()
    # A service that never answers still has a thread of apprise's, which a normal exit would wait for.
    os._exit(0)
