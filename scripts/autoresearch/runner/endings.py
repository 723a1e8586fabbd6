"""Why a trial ended: the words for it, read from exit code and log."""

from __future__ import annotations

import re
import signal
from typing import NamedTuple

from autoresearch.trial import Outcome

REASON_LENGTH = 200
SHELL_SIGNAL_BASE = 128  # a shell reports a child that signal n ended as exit code 128 + n
# A crash is explained by the end of the log; what was caught and printed long before explains nothing.
DIAGNOSED_CHARACTERS = 64 * 2**10

ANSI_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
EXCEPTION_LINE = re.compile(
    r"^(?:\[\w+\]:\s*|\(\w+ pid=\d+\)\s*)?"  # torchrun's and Ray's prefix
    r"(?P<text>(?:[A-Za-z_]\w*\.)*[A-Za-z_]\w*(?:Error|Exception|Exit|Interrupt|OutOfResources)\b(?::.*)?)"
    r"[ \t]*$",
    re.MULTILINE,
)
# Raised by launchers because a worker failed: the worker's own exception says more.
WRAPPER = re.compile(r"(?:[\w.]*\.)?(?:ChildFailedError|CalledProcessError|Process(?:Raised|Exited)Exception)\b")

OUT_OF_MEMORY = (
    (
        "oom_gpu",
        re.compile(
            r"(?:CUDA|HIP|MPS|XPU)[\w ]{0,20}\bout of memory|CUDA error: out of memory|\bOutOfMemoryError"
            r"|CU(?:BLAS|DNN|SPARSE)_STATUS_ALLOC_FAILED|HIPBLAS_STATUS_ALLOC_FAILED"
            r"|cudaErrorMemoryAllocation|RESOURCE_EXHAUSTED: Out of memory"
        ),
    ),
    (
        "oom_host",
        re.compile(
            r"\bMemoryError\b|DefaultCPUAllocator: (?:can't allocate|not enough) memory"
            r"|Cannot allocate memory|std::bad_alloc|insufficient shared memory"
            r"|killed by signal: (?:Killed|Bus error)|^(?:.*: line \d+: +\d+ )?Killed\b"
        ),
    ),
)
CAUSES = (
    *OUT_OF_MEMORY,
    ("nan", re.compile(r"(?i)\bnans?\b|\bnon-?finite\b|\bnot finite\b|\b(?:is|got) [+-]?inf\b|^FAIL$")),
    ("import", re.compile(r"^(?:ModuleNotFound|Import)Error\b")),
    ("syntax", re.compile(r"^(?:Syntax|Indentation|Tab)Error\b")),
    ("assertion", re.compile(r"AssertionError\b")),
    ("data", re.compile(r"^(?:\w+\.)*(?:FileNotFound|IsADirectory|NotADirectory)Error\b")),
)


# What a shell's exit code above 128 is taken for; other such codes are the program's own.
FATAL_SIGNALS = frozenset(
    signal.Signals[name]
    for name in ("SIGABRT", "SIGBUS", "SIGFPE", "SIGILL", "SIGKILL", "SIGSEGV", "SIGSYS", "SIGTERM")
)


class Ending(NamedTuple):
    """An outcome with its cause in one word and its reason in one line."""

    outcome: Outcome
    cause: str = ""
    reason: str = ""


def one_line(text: str, length: int = REASON_LENGTH) -> str:
    """``text`` from a log made fit to be shown: one line, no control sequences, bounded in length."""
    text = ANSI_SEQUENCE.sub("", text)
    words = "".join(character if character.isprintable() else " " for character in text).split()
    line = " ".join(words)
    return line if len(line) <= length else line[: length - 1] + "…"


def crash(text: str, returncode: int, *, out_of_memory_kills: int) -> Ending:
    """Explain an end with ``returncode`` (not 0; negative: a signal, which the runner did not send).

    ``text`` is the log's end, ``out_of_memory_kills`` how many processes the kernel killed for want of
    memory on this machine during the trial. The exception that was raised decides; without one, words
    about memory anywhere in ``text`` do.
    """
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last_line = one_line(lines[-1]) if lines else ""
    number = -returncode if returncode < 0 else returncode - SHELL_SIGNAL_BASE
    if returncode < 0 or number in FATAL_SIGNALS:
        if found := out_of_memory(lines):
            return found
        if number == signal.SIGKILL and (out_of_memory_kills or returncode > 0):
            return crashed("oom_host", "killed by SIGKILL, most likely for want of memory on the host")
        return crashed("signal", f"ended by {signal_name(number)}: {last_line}")

    raised = [match["text"] for match in EXCEPTION_LINE.finditer(text)]
    raised = [line for line in raised if not WRAPPER.match(line)] or raised
    evidence = one_line(raised[-1]) if raised else last_line
    reason = evidence if raised else f"exit code {returncode}: {last_line}"
    for cause, pattern in CAUSES:
        if pattern.search(evidence):
            return crashed(cause, reason)
    return (None if raised else out_of_memory(lines)) or crashed("exit", reason)


def crashed(cause: str, reason: str) -> Ending:
    return Ending(Outcome.CRASHED, cause, one_line(reason.removesuffix(": ")))


def disk_failed(error: OSError) -> Ending:
    return crashed("disk", f"the log could not be written: {error.strerror}")


def out_of_memory(lines: list[str]) -> Ending | None:
    """The latest of ``lines`` that says that memory ran out."""
    for line in reversed(lines):
        for cause, pattern in OUT_OF_MEMORY:
            if pattern.search(line):
                return crashed(cause, line)
    return None


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"
