"""The guard's look at an edit, wherever it lies: in the work tree, or in a commit that no branch holds."""

from __future__ import annotations

from collections.abc import Iterable
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
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for path in paths:
        for texts, text in ((before, oc.repo.text(parent, path)), (after, _text(oc, commit, path))):
            if text is not None:
                texts[path] = text
    base = oc.campaign.base_commit
    files = oc.repo.files(base)
    for path in files:  # unchanged edit files belong to the picture: a name may be imported from one
        if may_edit(path, oc.config) and path not in before and path not in after:
            text = oc.repo.text(parent, path)
            if text is not None:
                before[path] = after[path] = text
    protected = {
        path: oc.repo.text(base, path) or "" for path in files if path.endswith(".py") and not may_edit(path, oc.config)
    }
    inherited = {} if beside is None else beside.options
    differs = any(options[key] != (inherited.get(key) or {}) for key in ("arguments", "environment"))
    return check_edit(before, after, oc.config, protected_sources=protected, argument_changes=differs)


def _text(oc: OpenCampaign, commit: str | None, path: str) -> str | None:
    if commit is not None:
        return oc.repo.text(commit, path)
    file = oc.repo.project / path
    return file.read_bytes().decode("utf-8", "surrogateescape") if file.is_file() else None
