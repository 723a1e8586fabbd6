"""Copy a starter project into a folder, and make the folder a repository if it is none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoresearch.campaign.memo import BUNDLE
from autoresearch.errors import RefusedError, UsageError
from autoresearch.repo import Repo

STARTERS = BUNDLE / "templates" / "starters"


def starter_files(name: str) -> dict[str, Path]:
    """The files of a starter, ``{path in the project: file in the bundle}``."""
    known = sorted(path.name for path in STARTERS.iterdir() if path.is_dir())
    if name not in known:
        raise UsageError(
            f"--starter {name!r} is unknown; expected one of: {', '.join(known)}.",
            hint=f"python scripts/setup_campaign.py --starter {known[0]} --project DIR",
            code="unknown_starter",
        )
    return {file.relative_to(STARTERS / name).as_posix(): file for file in _files(STARTERS / name)}


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.is_dir() and path.name != "__pycache__":
            yield from _files(path)
        elif path.is_file():
            yield path


def check_room(name: str, folder: Path) -> None:
    """Refuse where a file of the starter would overwrite another."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not there.is_dir():
        raise UsageError(f"--project {folder} is not a folder.", hint="Name a folder, or one to make: --project DIR")
    taken = [path for path, file in starter_files(name).items() if not _is_room(folder / path, file)]
    if taken:
        raise RefusedError(
            f"{folder} has files of its own where the starter {name} brings one: {', '.join(taken)}.",
            hint="Take an empty folder: --project DIR",
            code="starter_in_the_way",
        )


def _is_room(target: Path, file: Path) -> bool:
    """Whether nothing is at ``target``, or the same file."""
    if target.is_file():
        return target.read_bytes() == file.read_bytes()
    return not target.exists()


def plant(name: str, folder: Path) -> list[str]:
    """Copy the starter; returns its paths. Files that are there already, to the byte, are left as they are.

    A folder outside any repository becomes one; one without a commit gets its first one. In both cases
    that commit holds the starter's files and nothing else.
    """
    check_room(name, folder)
    files = starter_files(name)
    for path, file in files.items():
        target = folder / path
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(file.read_bytes())
    repo = Repo.init(folder)
    if repo.head().commit is None:
        repo.first_commit(list(files), f"Start from the starter {name}")
    return list(files)
