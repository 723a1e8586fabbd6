"""The guard's look at an edit, wherever it lies: in the work tree, or in a commit that no branch holds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.guard import check_edit, may_edit
from autoresearch.ledger import Experiment


def check_sources(
    oc: OpenCampaign,
    paths: Iterable[str],
    *,
    parent: str,
    commit: str | None,
    options: dict[str, Any],
    beside: Experiment | None,
) -> list[str]:
    """Guard what ``commit`` (None: the work tree) changes of ``paths`` since ``parent``; notes for the agent.

    ``RefusedError`` where a guard says no, also where nothing differs: neither a file, nor ``options`` from those
    of the experiment ``beside``.
    """
    changed = list(paths)
    before, after = oc.repo.texts(parent, changed), _texts(oc, commit, changed)
    base = oc.campaign.base_commit
    files = oc.repo.files(base)
    beside_them = [path for path in files if may_edit(path, oc.config) and path not in before and path not in after]
    unchanged = oc.repo.texts(parent, beside_them)  # they belong to the picture: a name may be imported from one
    before, after = {**before, **unchanged}, {**after, **unchanged}
    guarded = [path for path in files if path.endswith(".py") and not may_edit(path, oc.config)]
    protected = {**dict.fromkeys(guarded, ""), **oc.repo.texts(base, guarded)}
    inherited = {} if beside is None else beside.options
    differs = any(options[key] != (inherited.get(key) or {}) for key in ("arguments", "environment"))
    return check_edit(before, after, oc.config, protected_sources=protected, argument_changes=differs)


def _texts(oc: OpenCampaign, commit: str | None, paths: Sequence[str]) -> dict[str, str]:
    if commit is not None:
        return oc.repo.texts(commit, paths)
    files = {path: oc.repo.project / path for path in paths}
    return {
        path: file.read_bytes().decode("utf-8", "surrogateescape") for path, file in files.items() if file.is_file()
    }
