"""A work tree for one more agent, beside the repository, with what git does not carry linked into it.

An agent's trials take their data, environment and other ignored inputs from the project's folder. In a
new work tree these are links to the user's own, so that nothing is copied and a new file in a linked
folder is there for everybody.
"""

from __future__ import annotations

from pathlib import Path

from autoresearch.campaign.memo import MEMO_FILES, read_memo, replace_text, without_block
from autoresearch.campaign.opened import BRANCH_PREFIX
from autoresearch.campaign.trials import link_path
from autoresearch.config import CONFIG_FILE, Config
from autoresearch.errors import NeedsHumanError, RefusedError
from autoresearch.repo import Repo

ENVIRONMENTS = (".venv", "venv")


def place_of(repo: Repo, tag: str) -> Path:
    """The root of the work tree of campaign ``tag``; clients refuse to edit anything within ``.git``."""
    root = _users_own(repo)
    return root.with_name(f"{root.name}-{tag}")


def _users_own(repo: Repo) -> Path:
    """The root of the repository's first work tree."""
    return repo.common_dir.parent if repo.common_dir.name == ".git" else repo.root


def make_worktree(source: Repo, tag: str, config: Config, config_text: str) -> Path:
    """Make the work tree of a new campaign ``tag`` at ``source``'s HEAD; returns the project's folder in it.

    It holds ``config_text`` as its settings and links to the ignored inputs of ``source``. One that an
    interrupted call has left is completed. ``RefusedError`` where something else is in the place.
    """
    place = place_of(source, tag)
    if not _is_worktree(place, source):
        _refuse_taken(place, tag)
        source.add_worktree(place, None)
    project = place / source.prefix
    _supply(source, project, config)
    replace_text(project / CONFIG_FILE, config_text)
    return project


def restore_worktree(repo: Repo, project: Path, tag: str, config: Config) -> None:
    """Make the work tree of campaign ``tag`` again, which somebody has deleted, with the state of its branch.

    ``project`` is the folder in it that the campaign was set up in.
    """
    place = place_of(repo, tag)
    if not project.is_relative_to(place):
        raise NeedsHumanError(
            f"{project}, where campaign {tag} works, has gone, and it is not where its work tree was made.",
            hint=f"Bring it back: git worktree add {project} {BRANCH_PREFIX}{tag}",
            code="no_worktree",
        )
    _refuse_taken(place, tag)
    repo.add_worktree(place, f"{BRANCH_PREFIX}{tag}")
    _supply(Repo(_users_own(repo) / project.relative_to(place)), project, config)


def _is_worktree(place: Path, source: Repo) -> bool:
    """Whether ``place`` is a work tree of the same repository, and on no branch yet."""
    if not (place / ".git").is_file():
        return False
    there = Repo(place)
    return there.common_dir == source.common_dir and there.head().branch is None


def _refuse_taken(place: Path, tag: str) -> None:
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RefusedError(
            f"{place} is there already, and campaign {tag} would have its work tree there.",
            hint=f"Move it away, or take another --session; an old work tree goes with: git worktree remove {place}",
            code="place_taken",
        )


def _supply(source: Repo, project: Path, config: Config) -> None:
    """Put into ``project`` what a trial or an agent needs of ``source`` and a checkout does not bring."""
    wanted = [*config.link, *filter(_is_inside, config.data), *ENVIRONMENTS]
    tracked = source.files("HEAD")
    links = [path for path in dict.fromkeys(wanted) if (source.project / path).exists() and path not in tracked]
    for path in links:
        link_path(source.project / path, project / path)
    made = [path for path in links if (project / path).is_symlink()]
    source.exclude([f"/{source.prefix}{path}" for path in made])  # "data/" in .gitignore matches no link
    for path in source.submodules("HEAD"):
        _fill(source.project / path, project / path)
    for name in MEMO_FILES:
        if name not in tracked and (text := without_block(read_memo(source.project / name))):
            replace_text(project / name, text)


def _is_inside(path: str) -> bool:
    return not path.startswith(("/", "~", "$")) and ".." not in Path(path).parts


def _fill(submodule: Path, empty: Path) -> None:
    """Link what lies in ``submodule`` into its ``empty`` folder: a link in place of the folder would be a change."""
    if not submodule.is_dir() or not empty.is_dir():
        return
    for entry in submodule.iterdir():
        if entry.name != ".git" and not (empty / entry.name).exists():
            (empty / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
