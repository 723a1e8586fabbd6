"""A real Slurm of four nodes on this host, for tests, and how it is harmed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.trial_bench import eventually

from autoresearch.executors import Handle
from autoresearch.runner.processes import descendants, environment_holds, send

HERE = Path(__file__).parent
REQUIRED = os.environ.get("AUTORESEARCH_REQUIRE_SLURM") == "1"


class Cluster:
    """The running Slurm, and how it is harmed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def call(self, *argv: str) -> str:
        return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=30).stdout.strip()

    def pid(self, daemon: str) -> int:
        return int((self.folder / "run" / f"{daemon}.pid").read_text())

    def node_of(self, handle: Handle) -> str:
        return self.call("squeue", "-h", "-j", handle["id"], "-o", "%N")

    def kill_node(self, node: str) -> None:
        """The machine loses its power: its daemon and whatever it runs are gone."""
        daemon = self.pid(f"slurmd-{node}")
        steps = [
            int(line.split()[0])
            for line in self.call("ps", "-eo", "pid,args").splitlines()
            if "slurmstepd: [" in line and self.is_on(int(line.split()[0]), node)
        ]
        send([daemon, *steps, *descendants(steps)], signal.SIGKILL)
        self.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")

    def is_on(self, pid: int, node: str) -> bool:
        return any(environment_holds(child, f"SLURMD_NODENAME={node}") for child in descendants([pid]))

    def revive_node(self, node: str) -> None:
        self.call("slurmd", "-N", node)
        eventually(lambda: node in self.call("sinfo", "-h", "-N", "-t", "idle", "-o", "%N"))


@pytest.fixture(scope="module")
def installed() -> None:
    if os.geteuid() == 0 and all(map(shutil.which, ("slurmctld", "slurmd", "munged", "sbatch"))):
        return
    reason = "needs root and Debian's munge, slurmctld, slurmd, slurm-client"
    pytest.fail(reason) if REQUIRED else pytest.skip(reason)


@pytest.fixture(scope="module")
def running(installed: None) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))  # the nodes and munge are fussy about its parents
    folder.chmod(0o755)
    try:
        subprocess.run([HERE / "slurm_up.sh", folder, "4", "1"], check=True, timeout=100)
        yield Cluster(folder)
    finally:
        subprocess.run([HERE / "slurm_down.sh", folder], check=False, timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("SLURM_CONF", str(running.folder / "slurm.conf"))
    return running
