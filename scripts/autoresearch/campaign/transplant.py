"""What one commit changed, carried over to another by three-way merges."""

from __future__ import annotations

from collections.abc import Iterable

from autoresearch.merge import merge_texts
from autoresearch.repo import Repo

REGULAR = ("100644", "100755")


class ConflictError(Exception):
    """Both sides changed the same lines of ``path``."""

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.path = path


def transplant(repo: Repo, paths: Iterable[str], *, old: str, new: str, onto: str) -> dict[str, str | None]:
    """What ``new`` changed of ``paths`` since ``old``, as entries of a commit on ``onto``; as a cherry-pick does.

    A path that has to change nothing there is left out. Raises ``ConflictError``.
    """
    paths = list(paths)
    before, after, mine = (repo.entries(commit, paths) for commit in (old, new, onto))
    entries: dict[str, str | None] = {}
    for path in paths:
        if after.get(path) in (before.get(path), mine.get(path)):
            continue
        if mine.get(path) == before.get(path):
            entries[path] = after.get(path)
        else:
            sides = {onto: mine.get(path), old: before.get(path), new: after.get(path)}
            entries[path] = _merged(repo, path, sides)
    return entries


def _merged(repo: Repo, path: str, sides: dict[str, str | None]) -> str:
    """The entry of ``path``; ``sides`` are commit and entry of mine, old and new."""
    mine, old, new = (
        repo.text(commit, path) if (entry or "").startswith(REGULAR) else None for commit, entry in sides.items()
    )
    if mine is None or old is None or new is None:  # one side deleted it, or it is no plain file
        raise ConflictError(path)
    merged = merge_texts(mine, old, new)
    if merged is None:
        raise ConflictError(path)
    my_mode, old_mode, new_mode = (str(entry).split(",")[0] for entry in sides.values())
    return f"{new_mode if new_mode != old_mode else my_mode},{repo.write_blob(merged)}"
