"""The runner as a program: how it starts a command, how it ends it, and that nothing survives."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from tests.trial_bench import DEADLINE_S, LONG, METRIC, RUNNER, Bench, eventually, python

from autoresearch.runner.processes import send
from autoresearch.trial import LOG_FILE, STARTED_FILE, Outcome, TrialResult


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


# --- how the command is started ----------------------------------------------------------------


def test_completed_trial_is_recorded_in_full(bench: Bench) -> None:
    result = bench.run(
        "echo progress 50% loss 2.5; echo mfu: 40.5; echo to stderr >&2; echo val_bpb: 0.9979",
        watch={"mfu": r"^mfu: (\S+)", "absent": "^absent: (.*)"},
    )
    assert (result.outcome, result.metric, result.cause, result.reason) == (Outcome.COMPLETED, 0.9979, "", "")
    assert (result.exit_code, result.signal, result.processes_killed) == (0, None, 0)
    assert (result.watched, result.curve) == ({"mfu": 40.5}, ((0.5, 2.5),))
    assert (result.host, result.attempt) == (os.uname().nodename, 0)
    assert result.started_at < result.ended_at
    assert result.device
    log = (bench.directory / LOG_FILE).read_bytes()
    assert b"to stderr" in log
    assert (result.log_sha256, result.log_bytes) == (hashlib.sha256(log).hexdigest(), len(log))
    assert not result.log_truncated


def test_command_gets_exactly_the_given_environment_and_no_input(bench: Bench) -> None:
    env = {"PATH": os.environ["PATH"], "ODD": "a=b\n c", "AUTORESEARCH_SEED": "7"}
    bench.run("cat; tr '\\0' '\\1' < /proc/$$/environ; grep SigIgn /proc/self/status", env=env)
    entries, ignored = bench.log.split("SigIgn:")
    assert sorted(entries.split("\1")[:-1]) == sorted(f"{name}={value}" for name, value in env.items())
    # 32 and 33 are the C library's own: no program may set them, and libraries in this process may have.
    assert int(ignored, 16) & ~(0b11 << 31) == 0, "a signal that is ignored on start stays so for good"


def test_command_runs_in_its_folder_and_a_session_of_its_own(bench: Bench) -> None:
    bench.run(f"pwd; cut -d' ' -f6 /proc/$$/stat; echo $$; {METRIC}")
    folder, session, shell, *_ = bench.log.splitlines()
    assert folder == str(bench.directory.parent)
    assert session == shell
    started = json.loads((bench.directory / STARTED_FILE).read_text())
    assert started["session"] == int(session)
    assert started["pid"] == bench.runners[0].pid
    assert started.keys() >= {"birth_mark", "host", "device", "driver", "started_at", "attempt", "trial_id"}


@pytest.mark.parametrize(
    ("settings", "cause"),
    [({"cwd": "/no/such/folder"}, "cwd"), ({"command": f"{METRIC} #{'x' * 200_000}"}, "start")],
    ids=["no folder", "line too long"],
)
def test_command_that_cannot_be_started_crashed(bench: Bench, settings: dict[str, str], cause: str) -> None:
    result = bench.run(**{"command": METRIC, **settings})
    assert (result.outcome, result.cause, result.exit_code) == (Outcome.CRASHED, cause, None)
    assert not (bench.directory / STARTED_FILE).exists()


def test_usage_and_bugs_have_exit_codes_of_their_own(bench: Bench) -> None:
    assert subprocess.run([sys.executable, "-I", RUNNER], check=False, stderr=subprocess.DEVNULL).returncode == 2
    runner = bench.start(METRIC, metric_pattern="(")
    _, errors = runner.communicate(timeout=DEADLINE_S)
    result = TrialResult.read(bench.directory)
    assert result
    assert (runner.returncode, result.outcome, result.cause) == (1, Outcome.CRASHED, "runner")
    assert "Traceback" in errors
    assert "unterminated subpattern" in result.reason


# --- how it ends -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "exit_code", "by_signal", "cause"),
    [
        (f"{METRIC}; exit 3", 3, None, "exit"),
        (f"{METRIC}; kill -SEGV $$", None, signal.SIGSEGV, "signal"),
        (f"{METRIC}; kill -KILL $$", None, signal.SIGKILL, "signal"),
        (python("import no_such_module"), 1, None, "import"),
        ("no-such-program", 127, None, "exit"),
        ("true", 0, None, "no_metric"),
        (f"{METRIC}; echo val_bpb: 0.6", 0, None, "two_metrics"),
    ],
)
def test_end_without_a_metric_to_trust(
    bench: Bench, command: str, exit_code: int | None, by_signal: int | None, cause: str
) -> None:
    result = bench.run(command)
    assert (result.metric, result.cause) == (None, cause)
    assert (result.exit_code, result.signal) == (exit_code, by_signal)
    assert result.outcome is (Outcome.INVALID if cause == "two_metrics" else Outcome.CRASHED)


def test_end_is_noticed_at_once(bench: Bench, tmp_path: Path) -> None:
    durations = []
    for attempt in range(3):
        bench.directory = tmp_path / f"trial-{attempt}"
        durations.append(bench.run(METRIC).duration_s)
    assert min(durations) < 0.15, durations


def test_limit_ends_the_command_and_lets_it_say_goodbye(bench: Bench) -> None:
    result = bench.run(f"trap 'echo goodbye; exit 0' TERM; {METRIC}; {LONG} & wait", limit_s=0.4)
    assert (result.outcome, result.cause, result.metric) == (Outcome.TIMED_OUT, "timeout", None)
    assert result.reason == "killed after 0.4 s (limit)"
    assert result.exit_code == 0
    assert 0.4 <= result.duration_s < 3
    assert "goodbye" in bench.log


def test_silence_ends_the_command(bench: Bench) -> None:
    result = bench.run(f"echo a; sleep 0.6; echo b; {LONG}", stall_s=1.0)
    assert (result.outcome, result.cause) == (Outcome.CRASHED, "stall")
    assert 1.6 <= result.duration_s < 8
    assert bench.log == "a\nb\n"


@pytest.mark.parametrize(
    ("line", "settings", "outcome", "cause"),
    [
        ("step 00132 (13.9%) | loss: nan | ", {}, Outcome.DIVERGED, "nan"),
        ("progress 13.9% loss 101", {"diverged_above": 100.0}, Outcome.DIVERGED, "loss"),
        ("progress 30% loss 3.5", {"prune_above": ((0.3, 3.0),)}, Outcome.PRUNED, "pruned"),
    ],
)
def test_hopeless_training_is_ended_early(
    bench: Bench, line: str, settings: dict[str, Any], outcome: Outcome, cause: str
) -> None:
    result = bench.run(f"printf '\\r{line.replace('%', '%%')}\\r'; {LONG}", **settings)
    assert (result.outcome, result.cause, result.metric) == (outcome, cause, None)
    assert result.duration_s < 5


def test_loss_that_is_no_number_outweighs_a_clean_end(bench: Bench) -> None:
    result = bench.run(f"{METRIC}; printf 'progress 100%% loss nan'")
    assert (result.outcome, result.cause, result.metric) == (Outcome.DIVERGED, "nan", None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_to_the_runner_interrupts_the_trial(bench: Bench, number: signal.Signals) -> None:
    runner = bench.start_ready(f"echo ready; {LONG}; {METRIC}")
    runner.send_signal(number)
    result = bench.end(runner)
    assert (result.outcome, result.reason) == (Outcome.INTERRUPTED, f"stopped by {number.name}")


def test_command_that_an_engine_signals_before_the_runner_is_interrupted_too(bench: Bench) -> None:
    runner = bench.start_ready(f"trap 'exit 3' TERM; echo ready; {LONG} & wait")
    runner.send_signal(signal.SIGSTOP)  # so that it learns of both at once
    eventually(lambda: psutil.Process(runner.pid).status() == psutil.STATUS_STOPPED)
    send(bench.living(), signal.SIGTERM)
    eventually(lambda: not bench.living())
    runner.send_signal(signal.SIGTERM)
    runner.send_signal(signal.SIGCONT)
    assert bench.end(runner).outcome is Outcome.INTERRUPTED


def test_hangup_does_not_touch_the_trial(bench: Bench) -> None:
    fifo = bench.directory.parent / "fifo"
    os.mkfifo(fifo)
    runner = bench.start_ready(f"echo ready; read -r line < fifo; {METRIC}")
    runner.send_signal(signal.SIGHUP)
    fifo.write_text("go on\n")
    assert bench.end(runner).outcome is Outcome.COMPLETED


# --- nothing survives (the bench checks after every run) ---------------------------------------

DEAF = python(
    "import signal, time\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\nprint(1, flush=True)\ntime.sleep(300)\n"
)
# Each process keeps two children and replaces the dead, three levels deep.
REPLACING = python(
    "import os, signal, time\n"
    "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
    "def keep(level):\n"
    "    children = set()\n"
    "    while True:\n"
    "        while level and len(children) < 2:\n"
    "            child = os.fork()\n"
    "            if child == 0: keep(level - 1)\n"
    "            children.add(child)\n"
    "        try: children.discard(os.waitpid(-1, os.WNOHANG)[0])\n"
    "        except ChildProcessError: pass\n"
    "        time.sleep(0.005)\n"
    "keep(3)\n"
)


@pytest.mark.parametrize(
    ("leftover", "killed"),
    [
        (f"{LONG} &", 1),
        (f"(setsid {LONG} &)", 1),
        (f'(setsid sh -c "{LONG} & setsid {LONG} & {LONG}" > /dev/null 2>&1 &)', 4),
        (f"({DEAF}) &", 1),
    ],
    ids=["background, holds the pipe", "daemon", "daemon with children", "ignores SIGTERM"],
)
def test_what_a_clean_end_leaves_behind_is_killed(bench: Bench, leftover: str, killed: int) -> None:
    result = bench.run(f"{leftover}\nsleep 0.3; {METRIC}", grace_s=0.5)
    assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    assert killed - 1 <= result.processes_killed <= killed, "a shell may become its last command"
    assert result.duration_s < 5


@pytest.mark.parametrize("command", [DEAF, REPLACING, f"kill -STOP $$; {LONG}"], ids=["deaf", "replacing", "stopped"])
def test_limit_kills_what_resists(bench: Bench, command: str) -> None:
    result = bench.run(command, limit_s=0.5, grace_s=0.3)
    assert result.outcome is Outcome.TIMED_OUT
    assert result.processes_killed >= 1
    assert result.duration_s < 5


def test_leftover_that_ends_by_itself_is_left_to_it(bench: Bench) -> None:
    assert bench.run(f"(sleep 0.05; echo late) & {METRIC}").processes_killed == 0
    assert "late" in bench.log


def test_command_dies_with_a_runner_that_is_killed(bench: Bench) -> None:
    runner = bench.start_ready(f"echo ready; exec {LONG}")
    assert bench.living()
    runner.kill()
    eventually(lambda: not bench.living())
    assert TrialResult.read(bench.directory) is None
