"""A starter's modules, imported for a test."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType


@contextmanager
def imported(*files: Path) -> Iterator[tuple[ModuleType, ...]]:
    """The modules of these files, under their own names and on one thread of torch; forgotten afterwards."""
    import torch  # not before: without it a starter's tests are skipped, not in error

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield tuple(map(_load, files))
    finally:
        for file in files:
            sys.modules.pop(file.stem, None)
        torch.set_num_threads(threads)


def _load(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec is not None and spec.loader is not None
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
