"""Files that a report is written to: their names are checked early, and they are replaced in one step."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from autoresearch.campaign.memo import PARTIAL_SUFFIX
from autoresearch.errors import UsageError


def check_target(path: Path, suffixes: Sequence[str], flag: str) -> str:
    """The format that the file's name asks for; ``UsageError`` if it is none of ``suffixes`` or cannot be a file."""
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in suffixes:
        expected = " or ".join(f".{each}" for each in suffixes)
        raise UsageError(
            f"{flag} {str(path)!r}: expected a name that ends in {expected}.", hint=f"{flag} report.{suffixes[0]}"
        )
    if not path.parent.is_dir():
        raise UsageError(f"{flag} {str(path)!r}: there is no folder {path.parent}.", hint=f"mkdir -p {path.parent}")
    if path.is_dir():
        raise UsageError(f"{flag} {str(path)!r} is a folder; expected the name of a file.", hint=f"rmdir {path}")
    return suffix


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A file beside ``path`` that takes its place when the block ends well.

    Its name is one that the exclude list knows, so that git does not see what a kill leaves.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL_SUFFIX}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
