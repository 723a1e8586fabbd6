"""Whether the folder that a runner writes into is still that of its trial."""

from __future__ import annotations

import os
from pathlib import Path


class DisownedError(Exception):
    """The trial's spec is no longer where it was read: nobody waits for a result, and nothing may be written."""


class OwnSpec:
    """The spec file of a runner, known again by its identity.

    While a trial waits its project may be deleted and made anew, with another trial under the same path.
    The file stays open, for its inode would else be free for the file that takes its place.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        self._status = os.fstat(self._file.fileno())

    def check(self) -> None:
        """Raises DisownedError if the file is gone or another one."""
        try:
            status = self._path.stat()
        except (FileNotFoundError, NotADirectoryError) as error:
            raise DisownedError(str(self._path)) from error
        except OSError:  # a network file system that does not answer has deleted nothing
            return
        if not os.path.samestat(status, self._status):
            raise DisownedError(str(self._path))
