"""What is worth saying about settings beside their values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from autoresearch.campaign.detect import Detected
from autoresearch.campaign.entry import Project
from autoresearch.campaign.wishes import Wishes
from autoresearch.config import CONFIG_FILE, Config
from autoresearch.guard import belongs_to_client, in_scope, may_edit


def protect_how(wishes: Wishes, within: Sequence[str]) -> str:
    if wishes.protect is None:
        return "what it imports and what measures"
    return "given, and what measures" if within else "given"


def about_evaluators(found: Detected, config: Config, within: Sequence[str]) -> list[str]:
    """What of a folder or a glob under ``edit`` stays protected by its looks, and what does not."""
    notes = []
    if within:
        notes.append(
            f"{', '.join(within[:5])} may measure and stays protected, though `edit` holds it: "
            "if experiments may change it, name the very file under `edit`."
        )
    named = {Path(path).as_posix() for path in config.edit} | {found.entry}
    open_ = [path for path in found.sources if path not in named and may_edit(path, config)]
    if open_:
        notes.append(
            f"experiments may change {', '.join(open_[:5])}, which the training imports. "
            f"If that measures, protect it: --protect {open_[0]}"
        )
    return notes


def missing_links(config: Config, folder: Path) -> list[str]:
    """A note on what stands under ``link`` and is not there."""
    missing = [path for path in config.link if not (folder / path).exists()]
    if not missing:
        return []
    return [f"`link` in {CONFIG_FILE} names {', '.join(missing[:5])}, and nothing is there: no trial sees it."]


def about_budget(found: Detected, wishes: Wishes) -> list[str]:
    if wishes.budget_s is None or not found.budget_fixed or wishes.budget_s == found.budget_s:
        return []
    return [
        f"{found.budget_fixed} is fixed at {found.budget_s:g} s: --budget {wishes.budget_s:g} moves the time "
        "limit and leaves the training as long as it is."
    ]


def loose_code(project: Project, config: Config) -> list[str]:
    """Code that git does not have is not in a checkout; the baseline would fail on it."""
    code = [path for path in project.untracked if path.endswith(".py") and not belongs_to_client(path)]
    loose = [path for path in code if not in_scope(path, config.link)]
    if not loose or config.isolation == "inplace":
        return []
    names = ", ".join(loose[:5])
    return [f"not committed, so no trial sees it: {names}. If training needs it: git add {loose[0]} && git commit"]


def secrets(config: Config) -> list[str]:
    """The config is part of a commit, and a URL that sends messages is a password."""
    urls = [channel for channel in config.notify if "://" in channel]
    if not urls:
        return []
    return [
        f"`notify` in {CONFIG_FILE} holds {len(urls)} URL{'s' * (len(urls) != 1)}, and that file is committed on the "
        "campaign's branch. To keep them out of git, put them into a file such as ~/.config/autoresearch/notify, "
        "one a line, and name the file."
    ]
