"""Three-way merges of texts, by git's own merge, outside any repository."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path


def merge_texts(mine: str, base: str, theirs: str) -> str | None:
    """``mine`` with what ``theirs`` has changed since ``base``; None on a conflict.

    What is no UTF-8 comes and goes as surrogates.
    """
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / name for name in ("mine", "base", "theirs")]
        for file, text in zip(files, (mine, base, theirs), strict=True):
            file.write_bytes(text.encode("utf-8", "surrogateescape"))
        done = subprocess.run(
            ["git", "merge-file", "-p", "-q", *map(str, files)], capture_output=True, check=False, cwd=folder
        )
    return done.stdout.decode("utf-8", "surrogateescape") if done.returncode == 0 else None
