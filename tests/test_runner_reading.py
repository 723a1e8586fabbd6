"""What the runner reads from a log: metrics, watched values, progress, and why a command crashed."""

from __future__ import annotations

import json
import math
import signal
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.trial_bench import trial_spec

from autoresearch.runner.endings import REASON_LENGTH, crash, one_line
from autoresearch.runner.metrics import compile_pattern, log_text, read_metric, read_watched
from autoresearch.runner.watch import CURVE_POINTS, WATCHED_BYTES, Watch
from autoresearch.trial import Outcome

VAL_BPB = compile_pattern(r"^val_bpb:\s*(\S+)")


def make_watch(**settings: Any) -> Watch:
    return Watch(trial_spec("", Path("/trial"), budget_s=100.0, **settings))


# --- metrics -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("log", "expected"),
    [
        (b"val_bpb: 0.9979", 0.9979),
        (b"---\nval_bpb:          0.997900\ntraining_seconds: 300.1\n", 0.9979),
        (b"\rstep 1 | loss: 3.0\rval_bpb: 0.5\r\n", 0.5),
        (b"\x1b[32mval_bpb: 0.5\x1b[0m\n", 0.5),
        (b"\xff\xfe\x00garbage\nval_bpb: 0.5\n\x80", 0.5),
        (b"val_bpb: 0.5\nval_bpb: 0.50\nval_bpb: 5e-1\n", 0.5),
        (b"best val_bpb: 0.1\nval_bpb: -3\n", -3.0),
    ],
)
def test_metric_is_read(log: bytes, expected: float) -> None:
    value, ending = read_metric("val_bpb", VAL_BPB, log_text(log))
    assert (value, ending.outcome, ending.cause) == (expected, Outcome.COMPLETED, "")


@pytest.mark.parametrize(
    ("log", "outcome", "cause", "words"),
    [
        ("", Outcome.CRASHED, "no_metric", "not printed"),
        ("the val_bpb: 0.5\n", Outcome.CRASHED, "no_metric", "not printed"),
        ("val_bpb: 0.5\nval_bpb: 0.6\n", Outcome.INVALID, "two_metrics", "0.5, 0.6"),
        ("val_bpb: nan\n", Outcome.DIVERGED, "nan", "is nan"),
        ("val_bpb: -inf\n", Outcome.DIVERGED, "nan", "is -inf"),
        ("val_bpb: 1e999\n", Outcome.DIVERGED, "nan", "is inf"),
        ("val_bpb: 93%\n", Outcome.CRASHED, "bad_metric", "'93%'"),
        ("val_bpb: 0,93\n", Outcome.CRASHED, "bad_metric", "'0,93'"),
    ],
)
def test_metric_is_refused(log: str, outcome: Outcome, cause: str, words: str) -> None:
    value, ending = read_metric("val_bpb", VAL_BPB, log)
    assert (value, ending.outcome, ending.cause) == (None, outcome, cause)
    assert words in ending.reason


def test_last_finite_watched_value_wins_and_a_missing_one_is_absent() -> None:
    patterns = {name: compile_pattern(rf"^{name}: (\S+)") for name in ("mfu", "loss", "lost", "odd")}
    log = "mfu: 40\nloss: 3\nmfu: 41.5\nloss: nan\nodd: none\n"
    assert read_watched(patterns, log) == {"mfu": 41.5, "loss": 3.0}


def test_pattern_without_a_group_is_refused() -> None:
    with pytest.raises(ValueError, match="no group"):
        compile_pattern("^val_bpb: .*")


# --- progress ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "fraction", "loss"),
    [
        (
            "step 00132 (13.9%) | loss: 3.581000 | lrm: 1.00 | dt: 300ms | epoch: 1 | remaining: 34s    ",
            0.139,
            3.581,
        ),
        ("progress 13.9% loss 3.581", 0.139, 3.581),
        ("progress 100% loss 1e-3", 1.0, 0.001),
        ("iter 100: loss 2.3456, time 12.30ms, mfu 3.21%", 0.2, 2.3456),
        ("step 250: train loss 2.5, val loss 2.6", 0.2, 2.5),
        ("step=7 loss=0.25 acc=90%", 0.2, 0.25),
        ("Epoch 3/10, training_loss: 0.5", 0.2, 0.5),
        ("step 8/50 (16 %) loss: -1.5", 0.16, -1.5),
    ],
)
def test_progress_and_loss_are_understood(line: str, fraction: float, loss: float) -> None:
    watch = make_watch()
    watch.feed(f"{line}\n".encode(), elapsed_s=20)
    assert (watch.fraction, watch.loss) == (pytest.approx(fraction), loss)


@pytest.mark.parametrize("line", ["step 250: val loss 2.6", "step 3 val_loss: nan", "eval: loss nan", "no loss: nan"])
def test_losses_of_evaluation_are_not_training_losses(line: str) -> None:
    watch = make_watch()
    watch.feed(f"{line}\n".encode(), elapsed_s=20)
    assert (watch.loss, watch.ending) == (None, None)


def test_carriage_returns_end_lines_and_lines_may_come_in_pieces() -> None:
    watch = make_watch()
    watch.feed(b"\rstep 1 (10.0%) | loss: 3.5", elapsed_s=1)
    assert watch.loss is None, "the number may not be complete"
    watch.feed(b"81 | x", elapsed_s=1)
    watch.feed(b"   \rstep 2 (20.0%) | loss: 2.0 |", elapsed_s=2)
    assert (watch.fraction, watch.loss) == (0.1, 3.581)
    watch.close(elapsed_s=3)
    assert watch.curve == ((0.1, 3.581), (0.2, 2.0))


def test_own_pattern_replaces_the_built_in_one() -> None:
    watch = make_watch(progress_pattern=r"^@ (?P<percent>\d+) of 100, L=(?P<loss>\S+)")
    watch.feed(b"progress 90% loss nan\n@ 25 of 100, L=7\n", elapsed_s=1)
    assert (watch.fraction, watch.loss, watch.ending) == (0.25, 7.0, None)


def test_curve_stays_small_and_spans_the_whole_run() -> None:
    watch = make_watch()
    for step in range(10_000):
        watch.feed(f"progress {step / 100}% loss {step}\n".encode(), elapsed_s=1)
    assert CURVE_POINTS / 2 <= len(watch.curve) <= CURVE_POINTS
    fractions = [at for at, _ in watch.curve]
    gaps = [later - earlier for earlier, later in pairwise(fractions)]
    assert 0 < max(gaps) < 1.1 * min(gaps)
    assert (fractions[0], fractions[-1] > 0.98) == (0.0, True)
    assert all(loss == pytest.approx(at * 10_000) for at, loss in watch.curve)


@pytest.mark.parametrize("loss", ["nan", "inf", "-inf", "NaN"])
def test_loss_that_is_no_number_ends_the_trial(loss: str) -> None:
    watch = make_watch()
    watch.feed(f"progress 40% loss {loss}\n".encode(), elapsed_s=1)
    assert watch.ending is not None
    assert (watch.ending.outcome, watch.ending.cause) == (Outcome.DIVERGED, "nan")
    assert "40%" in watch.ending.reason
    assert watch.loss is None
    json.dumps(watch.curve, allow_nan=False)


@pytest.mark.parametrize(("limit", "diverged"), [(0.0, False), (99.0, True), (100.0, False)])
def test_loss_above_the_limit_ends_the_trial(limit: float, diverged: bool) -> None:
    watch = make_watch(diverged_above=limit)
    watch.feed(b"progress 40% loss 100\n", elapsed_s=1)
    assert (watch.ending is not None and watch.ending.outcome is Outcome.DIVERGED) == diverged


def test_prune_compares_the_mean_of_the_latest_losses_where_a_point_is_passed() -> None:
    bounds = ((0.3, 4.0), (0.6, 3.0))
    outlier = make_watch(prune_above=bounds)
    outlier.feed(b"".join(b"progress %d%% loss 3.5\n" % percent for percent in range(30)), elapsed_s=1)
    outlier.feed(b"progress 31% loss 5.0\n", elapsed_s=1)
    assert outlier.ending is None, "the mean of five is 3.8"
    outlier.feed(b"progress 59% loss 3.5\nprogress 60% loss 3.5\n", elapsed_s=1)
    assert outlier.ending is not None
    assert (outlier.ending.outcome, outlier.ending.cause) == (Outcome.PRUNED, "pruned")
    assert "above 3" in outlier.ending.reason

    behind_later = make_watch(prune_above=bounds)
    behind_later.feed(b"progress 30% loss 3.9\nprogress 50% loss 9\nprogress 61% loss 0\n", elapsed_s=1)
    assert behind_later.ending is not None, "(3.9 + 9 + 0) / 3 is above 3"
    between = make_watch(prune_above=bounds)
    between.feed(b"progress 30% loss 3.9\nprogress 50% loss 9\n", elapsed_s=1)
    assert between.ending is None, "no point lies between"


def test_flood_of_output_is_watched_in_bounded_time() -> None:
    """Quadratic matching of 64 KiB would take many seconds."""
    watch = make_watch()
    for filler in (b"\n", b"\r", b"step ", b"x", b"step 1 " + b" " * 200, b"\xff"):
        watch.feed(filler * (2 * WATCHED_BYTES), elapsed_s=1)
    watch.feed(b"\nprogress 50% loss 2.0\n", elapsed_s=1)
    assert watch.loss == 2.0
    watch.feed(b"progress 60% loss 1.0\n" + b"\n" * WATCHED_BYTES, elapsed_s=1)
    assert watch.loss == 2.0, "only the newest of a flood is looked at"


# --- crashes -----------------------------------------------------------------------------------

TRACEBACK = 'Traceback (most recent call last):\n  File "train.py", line 3, in <module>\n    main()\n'
CHILD_FAILED = "torch.distributed.elastic.multiprocessing.errors.ChildFailedError:\n====\nRoot Cause\n"


@pytest.mark.parametrize(
    ("raised", "cause"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.", "oom_gpu"),
        ("torch.cuda.OutOfMemoryError: CUDA out of memory. Tried to allocate", "oom_gpu"),
        ("torch.OutOfMemoryError: HIP out of memory. Tried to allocate", "oom_gpu"),
        ("RuntimeError: CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate`", "oom_gpu"),
        ("RuntimeError: MPS backend out of memory (MPS allocated: 9 GB)", "oom_gpu"),
        ("MemoryError", "oom_host"),
        ("RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried", "oom_host"),
        ("RuntimeError: DataLoader worker (pid 7) is killed by signal: Killed.", "oom_host"),
        ("ValueError: cannot convert float NaN to integer", "nan"),
        ("AssertionError: loss is nan", "nan"),
        ("ModuleNotFoundError: No module named 'flash_attn'", "import"),
        ("ImportError: cannot import name 'x' from 'y'", "import"),
        ("AssertionError", "assertion"),
        ("FileNotFoundError: [Errno 2] No such file or directory: 'train.bin'", "data"),
        ("ValueError: shapes do not match", "exit"),
    ],
)
def test_exception_tells_the_cause(raised: str, cause: str) -> None:
    ending = crash(f"starting\n{TRACEBACK}{raised}\n", 1, out_of_memory_kills=0)
    assert (ending.outcome, ending.cause, ending.reason) == (Outcome.CRASHED, cause, raised)


@pytest.mark.parametrize(
    ("log", "code", "cause"),
    [
        ('  File "train.py", line 3\n    def f(:\n          ^\nSyntaxError: invalid syntax\n', 1, "syntax"),
        ("IndentationError: unexpected indent\n", 1, "syntax"),
        (f"[rank1]: torch.OutOfMemoryError: CUDA out of memory.\n{TRACEBACK}{CHILD_FAILED}", 1, "oom_gpu"),
        ("terminate called after throwing an instance of 'std::bad_alloc'\n", -signal.SIGABRT, "oom_host"),
        ("Killed\n", 1, "oom_host"),
        ("step 1\n", 137, "oom_host"),
        ("step 00001 (0.1%) | loss: 99.0\nFAIL\n", 1, "nan"),
        ("", -signal.SIGSEGV, "signal"),
        ("Segmentation fault (core dumped)\n", 139, "signal"),
        ("", -signal.SIGKILL, "signal"),
        ("usage: train.py\n", 2, "exit"),
        ("", 3, "exit"),
        ("", 255, "exit"),
    ],
)
def test_crash_without_an_exception_of_its_own_is_told_apart(log: str, code: int, cause: str) -> None:
    ending = crash(log, code, out_of_memory_kills=0)
    assert (ending.outcome, ending.cause) == (Outcome.CRASHED, cause)
    assert ending.reason


def test_sigkill_is_a_lack_of_memory_if_the_kernel_counted_one() -> None:
    assert crash("", -signal.SIGKILL, out_of_memory_kills=1).cause == "oom_host"


def test_exception_that_was_raised_outweighs_one_that_was_overcome() -> None:
    log = "CUDA out of memory, going on with half the batch\n" + TRACEBACK + "KeyError: 'x'\nbye\n"
    ending = crash(log, 1, out_of_memory_kills=0)
    assert (ending.cause, ending.reason) == ("exit", "KeyError: 'x'")


@pytest.mark.parametrize(
    ("log", "code", "reason"),
    [
        ("one\ntwo\n\n", 3, "exit code 3: two"),
        ("", 3, "exit code 3"),
        ("", -signal.SIGSEGV, "ended by SIGSEGV"),
        (TRACEBACK + "  \nValueError: a\tb\x1b[31mred\x1b[0m\x07\u202e\n", 1, "ValueError: a b red"),
    ],
)
def test_reason_is_the_line_that_explains(log: str, code: int, reason: str) -> None:
    assert crash(log, code, out_of_memory_kills=0).reason.replace("bred", "b red") == reason


def test_reason_is_bounded() -> None:
    reason = crash("ValueError: " + "x" * 10**6, 1, out_of_memory_kills=0).reason
    assert len(reason) == REASON_LENGTH
    assert one_line("x" * REASON_LENGTH) == "x" * REASON_LENGTH


def test_karpathys_log_gives_all_it_holds() -> None:
    log = log_text(
        b"Vocab size: 8,192\nTime budget: 300s\n"
        b"\rstep 00000 (0.0%) | loss: 9.011201 | lrm: 1.00 | dt: 9ms | tok/sec: 5,242,880 | mfu: 1.2%"
        b" | epoch: 1 | remaining: 300s    \rstep 00001 (0.3%) | loss: 8.9 | lrm: 1.00    \n"
        b"---\nval_bpb:          0.997900\ntraining_seconds: 300.1\n"
        b"peak_vram_mb:     45060.2\nmfu_percent:      39.80\n"
    )
    patterns = {name: compile_pattern(rf"^{name}:\s*(\S+)") for name in ("peak_vram_mb", "mfu_percent", "absent")}
    assert read_metric("val_bpb", VAL_BPB, log)[0] == 0.9979
    assert read_watched(patterns, log) == {"peak_vram_mb": 45060.2, "mfu_percent": 39.8}
    watch = make_watch()
    watch.feed(log.encode(), elapsed_s=1)
    assert watch.curve == ((0.0, 9.011201), (0.003, 8.9))
    assert math.isclose(watch.fraction, 0.003)
