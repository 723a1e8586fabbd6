"""Locks that a dead git has left in a repository."""

from __future__ import annotations

import time
from pathlib import Path

STALE_S = 1.0


def clear_lock(lock: Path, *, root: Path, common_dir: Path) -> None:
    """Wait for ``lock`` to go; remove it if no git process of the repository lives to release it."""
    time.sleep(0.3)
    try:
        age = time.time() - lock.stat().st_mtime
    except FileNotFoundError:
        return
    if age < STALE_S:
        time.sleep(STALE_S)
    elif not _git_is_running(root, common_dir):
        lock.unlink(missing_ok=True)


def _git_is_running(root: Path, common_dir: Path) -> bool:
    import psutil

    for process in psutil.process_iter(["name"]):
        if process.info["name"] != "git":
            continue
        try:
            folder = Path(process.cwd())
        except psutil.Error:
            continue
        if folder == root or root in folder.parents or common_dir in (folder, *folder.parents):
            return True
    return False
