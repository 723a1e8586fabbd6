"""A real Ray of two nodes on this host, for tests, and how it is harmed."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from tests.trial_bench import eventually, living

from autoresearch.runner.processes import ancestors, command_line, send

REQUIRED = os.environ.get("AUTORESEARCH_REQUIRE_RAY") == "1"
# `make ray` puts it there: the scripts need none of it, so its hundred packages stay out of their environment.
OWN = Path(sys.prefix) / "ray" / "bin" / "ray"
START_S = 90
GPUS = 2
KIND = "TESTGPU"  # the accelerator type of the head's GPUs
OTHER_NODE = "other_node"  # a resource of the second node alone


def free_port() -> int:
    """A port below those that Ray's workers take."""
    port = 5000 + secrets.randbelow(5000)
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", port)) == 0
    return free_port() if taken else port


@dataclass
class Cluster:
    """The running Ray. Its processes are known by the path of their token, which nobody else has."""

    ray: str
    folder: Path
    port: int = field(default_factory=free_port)
    dashboard_port: int = field(default_factory=free_port)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def token(self) -> Path:
        return self.folder / "token"

    def start(self) -> None:
        self.token.write_text(secrets.token_hex(32))
        self.start_node(
            "--head", f"--port={self.port}", "--dashboard-host=127.0.0.1", f"--dashboard-port={self.dashboard_port}",
            f"--ray-client-server-port={free_port()}", f"--temp-dir={self.folder / 'ray'}", f"--num-gpus={GPUS}",
            f"--resources={json.dumps({f'accelerator_type:{KIND}': 1})}", "--disable-usage-stats",
        )  # fmt: skip

    def start_other_node(self) -> None:
        address = f"--address=127.0.0.1:{self.port}"
        self.start_node(address, f"--resources={json.dumps({OTHER_NODE: 1})}", "--num-gpus=0")

    def start_node(self, *options: str) -> None:
        # Loopback is for the dashboard alone: Ray's own ports answer to holders of the token.
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(self.token), "HOME": str(self.folder)}
        # A node that is gone is missed after 3 s, in place of 15.
        env |= {"RAY_health_check_period_ms": "1000", "RAY_health_check_failure_threshold": "3"}
        agent = f"--dashboard-agent-listen-port={free_port()}"
        argv = [self.ray, "start", *options, agent, "--num-cpus=4", "--object-store-memory=80000000"]
        done = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def pids(self, word: str) -> list[int]:
        """Its processes whose command line has ``word``, in order of their start."""
        return sorted(pid for pid in self.processes() if word in " ".join(command_line(pid)))

    def processes(self) -> set[int]:
        return living(f"RAY_AUTH_TOKEN_PATH={self.token}")

    def supervisor_of(self, directory: Path) -> int:
        """The process with which Ray watches a trial."""
        runner = self.pids(f"--guard {directory}/")[0]
        return next(pid for pid in ancestors(runner) if "JobSupervisor" in " ".join(command_line(pid)))

    def stop(self) -> None:
        send(self.processes(), signal.SIGKILL)  # never `ray stop`, which ends every Ray of this machine
        eventually(lambda: not self.processes())


@pytest.fixture(scope="module")
def installed() -> str:
    found = str(OWN) if OWN.exists() else shutil.which("ray")
    if found:
        return found
    reason = "needs a Ray: make ray"
    if REQUIRED:
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def running(installed: str) -> Iterator[Cluster]:
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray's sockets lie in it
    cluster = Cluster(installed, folder)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def cluster(running: Cluster, monkeypatch: pytest.MonkeyPatch) -> Cluster:
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(running.token))
    return running
