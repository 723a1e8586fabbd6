from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.claude_bench import ClaudeBench, claude
from tests.client_bench import world
from tests.scripted_model import run
from tests.trial_bench import eventually, living, log_of, trial_spec

from autoresearch.agents.leftovers import NIGHT_MARK, end_leftovers
from autoresearch.executors.local import LocalExecutor
from autoresearch.runner.processes import command_line, read_process, send
from autoresearch.trial import Outcome, TrialResult

__all__ = ["claude", "world"]  # fixtures

DAEMON = """
import os, sys, time
os.fork() and os._exit(0)
os.setsid()
os.fork() and os._exit(0)
open("daemon", "w").close()
time.sleep(300)
"""
DEAF = "import signal, time\nsignal.signal(15, signal.SIG_IGN)\nprint('ready', flush=True)\ntime.sleep(300)"
SPAWN = "import subprocess\nwhile True: subprocess.Popen(['sleep', '300'], start_new_session=True); time.sleep(0.02)"


class Night:
    """What runs under one mark, and under a second mark by which the test can end it whatever happens."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.mark = f"night-of-{folder.name}"
        self.own = f"TEST_MARK={folder}"
        self.started: list[subprocess.Popen[str]] = []

    def env(self, **changes: str) -> dict[str, str]:
        name, _, value = self.own.partition("=")
        return {"PATH": os.environ["PATH"], name: value, NIGHT_MARK: self.mark, **changes}

    def start(self, *argv: str, env: dict[str, str] | None = None) -> subprocess.Popen[str]:
        env = self.env() if env is None else env
        process = subprocess.Popen(argv, env=env, cwd=self.folder, stdout=subprocess.PIPE, text=True)
        self.started.append(process)
        return process

    def lives(self) -> set[int]:
        return living(f"{NIGHT_MARK}={self.mark}")

    def close(self) -> None:
        send(living(self.own), signal.SIGKILL)
        for process in self.started:
            process.kill()
            process.communicate()


@pytest.fixture
def night(tmp_path: Path) -> Iterator[Night]:
    night = Night(tmp_path)
    yield night
    night.close()


def test_commands_of_a_killed_client_end(night: Night):
    client = night.start("sh", "-c", "sleep 300 & sleep 300 & echo ready; wait")
    assert client.stdout
    assert client.stdout.readline() == "ready\n"
    client.kill()
    client.wait()
    eventually(lambda: len(night.lives()) == 2)
    assert end_leftovers(night.mark) == 2
    assert night.lives() == set()
    assert end_leftovers(night.mark) == 0


def test_daemon_in_a_session_of_its_own_ends(night: Night):
    night.start(sys.executable, "-c", DAEMON).wait()
    eventually((night.folder / "daemon").exists)
    eventually(lambda: len(night.lives()) == 1)
    assert end_leftovers(night.mark) == 1
    assert night.lives() == set()


def test_process_that_will_not_be_asked_is_killed(night: Night):
    deaf = night.start(sys.executable, "-c", DEAF)
    assert deaf.stdout
    assert deaf.stdout.readline() == "ready\n"
    assert end_leftovers(night.mark, patience_s=0.3) == 1
    assert deaf.wait(timeout=10) == -signal.SIGKILL


def test_stopped_process_ends(night: Night):
    stopped = night.start("sleep", "300")
    stopped.send_signal(signal.SIGSTOP)
    assert end_leftovers(night.mark, patience_s=0.3) == 1
    assert stopped.wait(timeout=10) == -signal.SIGKILL


def test_process_asked_may_end_by_itself(night: Night, tmp_path: Path):
    polite = night.start(
        "sh", "-c", f"trap 'echo bye > {tmp_path}/bye; exit' TERM; echo ready; while :; do sleep 0.05; done"
    )
    assert polite.stdout
    assert polite.stdout.readline() == "ready\n"
    end_leftovers(night.mark)
    assert (tmp_path / "bye").read_text(encoding="utf-8") == "bye\n"


def test_child_that_cleared_its_environment_ends_with_its_parent(night: Night):
    parent = night.start("sh", "-c", f"env -i {night.own.replace(' ', '')} sleep 300 & echo $!; wait")
    assert parent.stdout
    child = int(parent.stdout.readline())
    eventually(lambda: command_line(child) == ["sleep", "300"])
    end_leftovers(night.mark)
    assert read_process(child) is None


def test_what_keeps_having_children_ends(night: Night):
    spawner = night.start(sys.executable, "-c", DEAF.replace("time.sleep(300)", SPAWN))
    assert spawner.stdout
    assert spawner.stdout.readline() == "ready\n"
    assert end_leftovers(night.mark, patience_s=0.3) > 1
    assert night.lives() == set()


def test_processes_of_others_are_untouched(night: Night):
    others = [
        night.start("sleep", "300", env=night.env(**{NIGHT_MARK: night.mark + "2"})),
        night.start("sleep", "300", env=night.env(**{NIGHT_MARK: ""})),
        night.start("sleep", "300", env=night.env(**{NIGHT_MARK: "", f"{NIGHT_MARK}_X": night.mark})),
        night.start("sh", "-c", f"exec sleep 300 # {NIGHT_MARK}={night.mark}", env={"PATH": os.environ["PATH"]}),
    ]
    ours = night.start("sleep", "300")
    assert end_leftovers(night.mark) == 1
    assert ours.wait(timeout=10) == -signal.SIGTERM
    assert [other.poll() for other in others] == [None] * 4


def test_empty_mark_is_refused():
    """Else it would name every process whose mark is empty."""
    with pytest.raises(ValueError, match="mark"):
        end_leftovers("")


def test_caller_and_its_ancestors_live_on(night: Night):
    """As when a night is stopped from within the agent's own shell."""
    scripts = Path(__file__).resolve().parent.parent / "scripts"
    code = (
        f"import sys; sys.path.insert(0, {str(scripts)!r})\n"
        "from autoresearch.agents.leftovers import end_leftovers\n"
        f"print(end_leftovers({night.mark!r}))"
    )
    shell = night.start("sh", "-c", 'sleep 300 & "$0" -c "$1"; echo end', sys.executable, code)
    assert shell.communicate(timeout=30)[0] == "1\nend\n"


def test_trial_goes_on_and_brings_its_result(night: Night, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Its runner was started by a command of the client, so it bears the client's mark."""
    monkeypatch.setenv(NIGHT_MARK, night.mark)
    folder = tmp_path / "trial"
    spec = trial_spec(f"echo ready; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; echo val_bpb: 0.5", folder)
    handle = LocalExecutor().submit(spec)
    try:
        eventually(lambda: "ready" in log_of(folder))
        assert int(handle["id"]) in night.lives()
        leftover = night.start("sleep", "300")
        assert end_leftovers(night.mark) == 1
        assert leftover.wait(timeout=10) == -signal.SIGTERM
        (tmp_path / "go").touch()
        result = eventually(lambda: TrialResult.read(folder))
        assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    finally:
        LocalExecutor().cancel(handle)


def test_trial_that_hands_the_mark_on_is_spared_with_its_daemons(night: Night, tmp_path: Path):
    folder = tmp_path / "trial"
    spec = trial_spec("setsid sleep 300 & exec sleep 300", folder, env=night.env())
    handle = LocalExecutor().submit(spec)
    try:
        eventually(lambda: [*map(command_line, night.lives())] == [["sleep", "300"]] * 2)
        assert end_leftovers(night.mark) == 0
        assert len(night.lives()) == 2
        send([int(handle["id"])], signal.SIGKILL)  # the daemon outlives its runner; it is the trial's still
        daemon = eventually(lambda: len(night.lives()) == 1 and night.lives())
        assert end_leftovers(night.mark) == 0
        assert night.lives() == daemon
    finally:
        LocalExecutor().cancel(handle)


@pytest.mark.slow
def test_real_clients_commands_end_after_it_was_killed(claude: ClaudeBench, night: Night):
    claude.env[NIGHT_MARK] = night.mark
    claude.start()
    claude.ask(run("setsid sleep 300 & sleep 300"))
    eventually(lambda: [*map(command_line, night.lives())].count(["sleep", "300"]) == 2)
    client = claude.terminal.pid()
    assert client in night.lives()  # it is found though it gives itself a title
    assert client
    os.kill(client, signal.SIGKILL)
    eventually(lambda: client not in night.lives())
    assert end_leftovers(night.mark) >= 2
    assert night.lives() == set()
