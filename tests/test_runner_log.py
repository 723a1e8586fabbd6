"""The size and the content of a trial's log file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from autoresearch.runner.log import SMALLEST_CAP_BYTES, CappedLog

CAP = SMALLEST_CAP_BYTES


def numbered(start: int, stop: int) -> bytes:
    return b"".join(b"line %06d\n" % number for number in range(start, stop))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "log.txt"


def test_small_log_is_kept_to_the_byte(path: Path) -> None:
    log = CappedLog(path, CAP)
    log.write(b"one\n")
    log.write(b"\xff\x00 two, without an end")
    finished = log.finish()
    assert path.read_bytes() == finished.everything == finished.section == b"one\n\xff\x00 two, without an end"
    assert finished.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (log.dropped_bytes, log.failure) == (0, None)


@pytest.mark.parametrize("piece", [1, 7, 1000, CAP, 10**6])
def test_full_log_keeps_its_head_and_the_newest_output(path: Path, piece: int) -> None:
    data = numbered(0, 3000)
    log = CappedLog(path, CAP)
    for start in range(0, len(data), piece):
        log.write(data[start : start + piece])
        assert path.stat().st_size <= CAP
    text = log.finish().everything.decode()
    head, middle, tail = text.partition(f"\n[autoresearch: {log.dropped_bytes} bytes left out here]\n")
    assert middle
    assert data.decode().startswith(head)
    assert data.decode().endswith(tail)
    assert len(head) + len(tail) + log.dropped_bytes == len(data)
    assert (head[-1], tail[:5]) == ("\n", "line "), "cut at line ends"
    assert len(head) > CAP / 3
    assert len(tail) > CAP / 5


def test_log_without_line_ends_is_cut_all_the_same(path: Path) -> None:
    log = CappedLog(path, CAP)
    log.write(b"x" * 10 * CAP)
    log.write(b"\nthe end")
    assert path.stat().st_size <= CAP + 100
    assert log.finish().everything.endswith(b"x\nthe end")


@pytest.mark.parametrize("before", [0, 10, CAP // 20, CAP])
@pytest.mark.parametrize("after", [10, CAP // 20, CAP])
def test_section_holds_nothing_from_before_it(path: Path, before: int, after: int) -> None:
    log = CappedLog(path, CAP)
    log.write(b"val_bpb: 0.1\n" * before)
    log.begin_section("evaluation")
    log.write(b"val_bpb: 0.2\n" * after + b"the end")
    finished = log.finish()
    assert b"0.1" not in finished.section
    assert finished.section.startswith((b"val_bpb: 0.2\n", b"\n[autoresearch"))
    assert finished.section.endswith(b"0.2\nthe end")
    assert before == 0 or b"0.1" in finished.everything


def test_disk_that_is_full_is_noticed_and_output_goes_on(path: Path) -> None:
    path.symlink_to("/dev/full")
    log = CappedLog(path, CAP)
    log.write(b"x")
    assert log.failure is not None
    assert log.failure.strerror == "No space left on device"
    log.write(b"y")
    assert log.finish().everything == b""


def test_log_that_cannot_be_made_is_a_failure_too(tmp_path: Path) -> None:
    log = CappedLog(tmp_path / "missing" / "log.txt", CAP)
    log.write(b"x")
    assert isinstance(log.failure, FileNotFoundError)
    assert log.finish().everything == b""
