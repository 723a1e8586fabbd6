"""The runner as a program: evaluation, output in any amount, memory, and the one result."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.trial_bench import LONG, METRIC, Bench, eventually, python

from autoresearch.trial import LIVE_FILE, LOG_FILE, STARTED_FILE, Outcome, TrialResult


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.close()


TOO_LONG = "the command could not be started: Argument list too long"

# --- evaluation --------------------------------------------------------------------------------


def test_metric_comes_from_the_evaluation_alone(bench: Bench) -> None:
    result = bench.run(
        "echo val_bpb: 0.1; echo tokens: 5; (setsid sh -c 'sleep 0.6; echo val_bpb: 0.2' &)",
        evaluate_command="echo progress 100% loss nan; echo val_bpb: 0.9",
        evaluate_limit_s=10.0,
        watch={"tokens": r"^tokens: (\d+)"},
    )
    assert (result.outcome, result.metric, result.watched) == (Outcome.COMPLETED, 0.9, {"tokens": 5.0})
    assert bench.log.index("0.1") < bench.log.index("=== evaluation ===") < bench.log.index("0.9")


@pytest.mark.parametrize(
    ("command", "evaluation", "outcome", "reason"),
    [
        ("exit 1", METRIC, Outcome.CRASHED, "exit code 1"),
        (METRIC, "true", Outcome.CRASHED, "evaluation: val_bpb was not printed"),
        (METRIC, "echo broken; exit 4", Outcome.CRASHED, "evaluation: exit code 4: broken"),
        (METRIC, LONG, Outcome.TIMED_OUT, "evaluation: killed after 0.3 s (limit)"),
        (METRIC, f"#{'x' * 200_000}", Outcome.CRASHED, f"evaluation: {TOO_LONG}"),
    ],
    ids=["not reached", "silent", "failed", "too slow", "not startable"],
)
def test_failed_evaluation_leaves_no_metric(
    bench: Bench, command: str, evaluation: str, outcome: Outcome, reason: str
) -> None:
    result = bench.run(command, evaluate_command=evaluation, evaluate_limit_s=0.3)
    assert (result.outcome, result.reason, result.metric) == (outcome, reason, None)


# --- output and memory -------------------------------------------------------------------------


def test_flood_of_garbage_does_not_drown_the_metric(bench: Bench) -> None:
    result = bench.run(f"head -c 20000000 /dev/urandom; echo; {METRIC}; printf 'no end'", log_cap_bytes=2**20)
    assert (result.outcome, result.metric, result.log_truncated) == (Outcome.COMPLETED, 0.5, True)
    assert result.log_bytes == (bench.directory / LOG_FILE).stat().st_size < 2**20 + 100
    assert bench.log.endswith("val_bpb: 0.5\nno end")


def test_pipe_that_a_stranger_floods_and_holds_open_does_not_hold_up_the_end(bench: Bench) -> None:
    fifo = bench.directory.parent / "fifo"
    os.mkfifo(fifo)
    runner = bench.start_ready(f"echo ready; {METRIC}; read -r line < fifo")
    (shell,) = bench.living()
    with Path(f"/proc/{shell}/fd/1").open("wb") as pipe, subprocess.Popen(["yes"], stdout=pipe) as stranger:
        try:
            eventually(lambda: "y\ny\n" in bench.log)
            fifo.write_text("go on\n")
            assert bench.end(runner).metric == 0.5
        finally:
            stranger.kill()


def test_full_disk_crashes_the_trial_with_a_result(bench: Bench) -> None:
    bench.directory.mkdir()
    (bench.directory / LOG_FILE).symlink_to("/dev/full")
    result = bench.run(f"echo x; {LONG}")
    assert (result.outcome, result.cause) == (Outcome.CRASHED, "disk")
    assert "No space left on device" in result.reason
    assert result.duration_s < 5


def test_result_finds_room_on_a_full_disk(bench: Bench) -> None:
    bench.directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(bench.directory)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("this test mounts a small file system, which is not allowed here")
    try:
        result = bench.run("yes")
        assert (result.outcome, result.cause) == (Outcome.CRASHED, "disk")
    finally:
        subprocess.run(["umount", "-l", str(bench.directory)], check=True)


def test_memory_of_a_short_process_is_measured(bench: Bench) -> None:
    result = bench.run(python('x = bytearray(200 << 20); print("val_bpb: 1")'))
    assert result.peak_mem_source == "rss"
    assert result.peak_mem_mib
    assert 200 <= result.peak_mem_mib < 260


def test_memory_of_processes_that_run_together_adds_up_and_is_shown_live(bench: Bench) -> None:
    hold = python('x = bytearray(100 << 20); print("held", flush=True); input()')
    fifos = [bench.directory.parent / name for name in ("one", "two")]
    for fifo in fifos:
        os.mkfifo(fifo)
    runner = bench.start(f"({hold}) < one & ({hold}) < two & wait; {METRIC}", budget_s=0.5)
    with fifos[0].open("w") as one, fifos[1].open("w") as two:
        live = eventually(lambda: (shown := live_of(bench)) and shown["memory_mib"] >= 200 and shown)
        one.write("go on\n")
        two.write("go on\n")
    result = bench.end(runner)
    assert result.peak_mem_mib
    assert live["memory_mib"] <= result.peak_mem_mib < 300
    assert live.keys() == {"fraction", "loss", "elapsed_s", "memory_mib", "updated_at"}
    assert (live["fraction"], live["loss"]) == (1.0, None)
    assert 1 <= live["elapsed_s"] <= result.duration_s


def live_of(bench: Bench) -> dict[str, Any]:
    path = bench.directory / LIVE_FILE
    return json.loads(path.read_text()) if path.exists() else {}


def test_peak_that_the_command_prints_is_taken(bench: Bench) -> None:
    result = bench.run(f"echo peak_vram_mb: 45060.2; {METRIC}", watch={"peak_vram_mb": r"^peak_vram_mb: (\S+)"})
    assert (result.peak_mem_mib, result.peak_mem_source) == (45060.2, "log")


# --- the first result wins ---------------------------------------------------------------------

EARLIER = TrialResult(trial_id="t1", outcome=Outcome.INTERRUPTED, reason="earlier")


def test_trial_that_has_a_result_is_not_run_again(bench: Bench) -> None:
    bench.directory.mkdir()
    EARLIER.write_first_wins(bench.directory)
    assert bench.run(METRIC) == EARLIER
    assert not (bench.directory / LOG_FILE).exists()


def test_result_of_another_attempt_stands(bench: Bench) -> None:
    runner = bench.start(f"read -r line < fifo; {METRIC}")
    fifo = bench.directory.parent / "fifo"
    os.mkfifo(fifo)
    eventually((bench.directory / STARTED_FILE).exists)
    EARLIER.write_first_wins(bench.directory)
    fifo.write_text("go on\n")
    assert bench.end(runner) == EARLIER
