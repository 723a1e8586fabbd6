"""Sweeps of the toy project: run here, or as a program that can be killed."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from tests.conftest import ROOT
from tests.loop_bench import BRANCH, Loop


def sweep(loop: Loop, *arguments: str, expect: int = 0) -> Any:
    return loop.call("sweep", *arguments, expect=expect)


def statuses(data: dict[str, Any]) -> list[tuple[str, str, bool]]:
    return [(p["description"], p["status"], bool(p["skipped"])) for p in data["points"]]


def assert_clean(loop: Loop) -> None:
    assert loop.processes() == set()
    assert loop.tip() == loop.incumbent()
    assert loop.git("status", "--porcelain") == ""
    assert loop.git("symbolic-ref", "--short", "HEAD") == BRANCH


def start(loop: Loop, *arguments: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / "sweep.py"), *arguments, "--project", str(loop.folder), "--json"]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, encoding="utf-8")
