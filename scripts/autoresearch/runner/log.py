"""The log of a trial: whatever the command prints, within a size."""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import NamedTuple

SMALLEST_CAP_BYTES = 4096
LINE_END = re.compile(rb"[\r\n]")


class FinishedLog(NamedTuple):
    """``section`` is the part since ``begin_section``, or everything without one."""

    everything: bytes
    section: bytes
    sha256: str


class CappedLog:
    """``log.txt``: the first half of the cap, then the newest output; what lay between is dropped.

    The file is complete and readable at any moment. Past the cap, each time it is full the older
    half of the newest part goes, in place; cuts are made at line ends, so that no half of a line
    can be taken for a value. A write error sets ``failure``, and from then on output is dropped.
    """

    def __init__(self, path: Path, cap_bytes: int) -> None:
        self.failure: OSError | None = None
        self.cap_bytes = max(cap_bytes, SMALLEST_CAP_BYTES)
        self.dropped_bytes = 0
        self.section = ""
        self._size = 0
        self._head_end = 0  # where the dropped part begins, and
        self._tail_start = 0  # where the newest part does, after the line that says so
        self._section_start = 0
        self._fd = -1
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        except OSError as error:
            self.failure = error

    def write(self, data: bytes) -> None:
        rest = memoryview(data)
        try:
            while rest and self.failure is None:
                if self._size >= self.cap_bytes:
                    self._drop_middle()
                written = os.write(self._fd, rest[: self.cap_bytes - self._size])
                self._size += written
                rest = rest[written:]
        except OSError as error:
            self.failure = error

    def begin_section(self, title: str) -> None:
        """Write a line that says ``title``; what follows is the section that ``finish`` returns."""
        self.section = title
        self.write(f"\n=== {title} ===\n".encode())
        self._section_start = self._size

    def finish(self) -> FinishedLog:
        """Close the file, safe on disk, and return what it holds."""
        if self._fd < 0:
            return FinishedLog(b"", b"", "")
        everything = b""
        try:
            everything = self._read(0)
            os.fsync(self._fd)
            os.close(self._fd)
        except OSError as error:  # some file systems say only now that the disk is full
            self.failure = self.failure or error
        self._fd = -1
        section = everything[self._section_start :]
        return FinishedLog(everything, section, hashlib.sha256(everything).hexdigest())

    def _read(self, start: int) -> bytes:
        parts = []
        while part := os.pread(self._fd, self._size - start, start):
            parts.append(part)
            start += len(part)
        return b"".join(parts)

    def _drop_middle(self) -> None:
        if not self.dropped_bytes:
            half = self.cap_bytes // 2
            head = os.pread(self._fd, half, 0)
            self._head_end = self._tail_start = max(head.rfind(b"\n"), head.rfind(b"\r")) + 1 or half
        keep_from = self._size - self.cap_bytes // 4
        newest = self._read(keep_from)
        if end := LINE_END.search(newest):
            keep_from += end.end()
            newest = newest[end.end() :]
        self.dropped_bytes += keep_from - self._tail_start
        marker = f"\n[autoresearch: {self.dropped_bytes} bytes left out here]\n".encode()
        self._tail_start = self._head_end + len(marker)
        if self._section_start > self._head_end:
            self._section_start = self._tail_start + max(0, self._section_start - keep_from)
        os.ftruncate(self._fd, self._head_end)
        os.lseek(self._fd, self._head_end, os.SEEK_SET)
        self._size = self._head_end
        for part in (marker, newest):
            self._size += os.write(self._fd, part)
