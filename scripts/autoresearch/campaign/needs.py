"""What a trial needs beside the committed code: data, ignored files, an import that finds the checkout."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from autoresearch.campaign.detect import Detected
from autoresearch.campaign.entry import Project

DATA_NAMES = re.compile(r"(.*_)?(data|datasets?|corpus|cache|tokenizers?)(_.*)?", re.IGNORECASE)
PATH_NAMES = re.compile(r"(.*_)?(dir|path|root|folder|file|cache|home|base)", re.IGNORECASE)
# Written by training, not read: a fingerprint of these would change with every trial.
OUTPUT_NAMES = re.compile(
    r"(.*_)?(out|output|log|save|result|ckpt|checkpoint|compile|inductor|triton|wandb|tensorboard)s?(_.*)?",
    re.IGNORECASE,
)
TOO_BROAD = {"", ".", "~", "/", "~/.cache", "/tmp", "/data", "/home", "/root", "/mnt"}  # noqa: S108 - never written

# Ignored entries, by the name of the file or folder: these are linked into a checkout ...
LINKED_FOLDERS = {
    ".venv", "venv", "env", "data", "dataset", "datasets", "corpus", "tokenizer", "tokenizers",
    "input", "inputs", "pretrained", "node_modules", "third_party", "assets",
}  # fmt: skip
LINKED_FILES = re.compile(
    r".*\.(bin|pt|npy|npz|parquet|arrow|h5|hdf5|safetensors|csv|jsonl|txt|model|vocab|idx|zip|gz|tar|so|pyd)"
)
# ... unless they look like something that training writes: through a link it would overwrite the user's.
OUTPUTS = re.compile(
    r"(.*[\W_])?(ckpt|checkpoint|best|last|final|model|weights|out|output|result|results|run|log|pred|predictions|tmp)s?"
    r"([\W_].*)?", re.IGNORECASE,
)  # fmt: skip
LINKS_AT_MOST = 100


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the data is. ``missing`` are those of its parts that are not there."""

    paths: tuple[str, ...]
    missing: tuple[str, ...] = ()
    prepare: str | None = None  # the command that makes what is missing
    how: str = "given"


def find_data(project: Project, found: Detected, links: Sequence[str]) -> Data:
    """The folders and files that the code's own constants name as data, outermost only."""
    parts: dict[str, str] = {}
    for path, listed in found.constants.items():
        for one in listed:
            if isinstance(one.value, str) and _names_data(one.name, one.value, project):
                parts.setdefault(_shortened(one.value, project.folder), f"{one.name} in {path}:{one.line}")
    for link in links:
        if PurePosixPath(link).name in LINKED_FOLDERS and DATA_NAMES.fullmatch(PurePosixPath(link).name):
            parts.setdefault(link, "an ignored folder")
    parts = {
        part: how
        for part, how in parts.items()
        if part not in TOO_BROAD and (not _in_checkout(part, project) or _is_unprepared(part, project, found))
    }
    data = given_data(tuple(parts), project, found)
    missing = data.missing
    if data.prepare is None:  # then nobody makes it, and a name alone is no evidence that it is needed
        parts = {part: how for part, how in parts.items() if part not in missing}
        missing = ()
    outer = [part for part in parts if not any(_is_below(part, other) for other in parts)]
    return Data(
        paths=tuple(outer),
        missing=missing,
        prepare=data.prepare,
        how="; ".join(dict.fromkeys(parts[part] for part in outer)),
    )


def given_data(paths: tuple[str, ...], project: Project, found: Detected) -> Data:
    """Data at ``paths``: what of it is missing, and what makes that."""
    missing = tuple(path for path in paths if is_missing(path, project.folder) or _is_unprepared(path, project, found))
    return Data(paths=paths, missing=missing, prepare=_preparing(missing, found) if missing else None)


def _preparing(missing: Sequence[str], found: Detected) -> str | None:
    """The command that makes ``missing``: of the script beside it, of one on top, or of the only one."""
    beside = [path for path in found.preparers if str(PurePosixPath(path).parent) in missing]
    on_top = sorted((path for path in found.preparers if "/" not in path), key=lambda path: "prepare" not in path)
    only = list(found.preparers) if len(found.preparers) == 1 else []
    return next((found.preparers[path] for path in (*beside, *on_top, *only)), None)


def _is_unprepared(part: str, project: Project, found: Detected) -> bool:
    """Whether a folder of the project holds the script that fills it, and nothing that git does not have."""
    made = any(_is_below(path, part) for path in (*project.ignored, *project.untracked))
    return any(str(PurePosixPath(path).parent) == part for path in found.preparers) and not made


def is_missing(path: str, folder: Path) -> bool:
    """Whether ``path`` (with ``~`` or variables; relative to ``folder``) is absent or an empty folder."""
    place = folder / os.path.expandvars(Path(path).expanduser())
    if place.is_dir():
        return not any(place.iterdir())
    return not place.exists()


def _names_data(name: str, value: str, project: Project) -> bool:
    if not DATA_NAMES.fullmatch(name) or OUTPUT_NAMES.fullmatch(name) or "://" in value or "\n" in value:
        return False
    if value.startswith(("~", "/")):
        return True
    return bool(value) and (PATH_NAMES.fullmatch(name) is not None or (project.folder / value).exists())


def _shortened(path: str, folder: Path) -> str:
    """``path`` as a config writes it: relative within the project, else with ``~`` for the home folder."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() fails without a home, this does not
    for base, short in ((str(folder), ""), (home, "~")):
        if path == base or path.startswith(f"{base}/"):
            return f"{short}{path.removeprefix(base)}".removeprefix("" if short else "/") or "."
    return str(PurePosixPath(path))


def _in_checkout(part: str, project: Project) -> bool:
    """Whether git has it, and all of it."""
    tracked = project.has(part) or part in project.folders
    return tracked and not any(_is_below(ignored, part) for ignored in project.ignored)


def _is_below(path: str, folder: str) -> bool:
    return path != folder and path.startswith(f"{folder.rstrip('/')}/")


def find_links(project: Project, found: Detected) -> tuple[list[str], list[str]]:
    """(ignored or untracked entries that a checkout needs, those beyond what can be linked one by one)."""
    folders = {str(parent) for path in project.untracked for parent in PurePosixPath(path).parents}
    code = "\n".join(map(project.text, found.sources))
    named = [path for path in project.untracked if PurePosixPath(path).name in code and not path.endswith(".py")]
    wanted: dict[str, None] = {}
    for entry in (*project.ignored, *sorted(folders - {"."}), *named):
        covered = any(str(parent) in wanted for parent in PurePosixPath(entry).parents)
        if not covered and entry not in project.folders and _is_needed(entry, project.folder):
            wanted[entry] = None
    return list(wanted)[:LINKS_AT_MOST], list(wanted)[LINKS_AT_MOST:]


def _is_needed(entry: str, folder: Path) -> bool:
    name = PurePosixPath(entry).name
    if any(part.startswith(".") and part not in LINKED_FOLDERS for part in PurePosixPath(entry).parts):
        return False
    if (folder / entry).is_dir():
        return name in LINKED_FOLDERS and (name != "env" or (folder / entry / "pyvenv.cfg").exists())
    if name.endswith((".so", ".pyd")):
        return True
    return LINKED_FILES.fullmatch(name) is not None and not OUTPUTS.fullmatch(PurePosixPath(name).stem)


def find_isolation(project: Project, found: Detected) -> tuple[str, str]:
    """How to isolate trials, and why: ``inplace`` only where a checkout's code would not be imported."""
    for folder in _editable_folders(project):
        # What is imported from the script's own folder comes from the checkout all the same.
        beside = {str(PurePosixPath(found.entry).parent) if found.entry else ".", "."}
        if folder not in beside:
            return (
                "inplace",
                f"the project is installed editable from {folder}/: a checkout's copy would not be imported",
            )
    return "worktree", ""


def _editable_folders(project: Project) -> Iterator[str]:
    """Folders of the project that its environment imports from, now or after ``uv run`` has synced it."""
    table: dict[str, Any] = project.pyproject
    packaged = "build-system" in table and table.get("tool", {}).get("uv", {}).get("package") is not False
    if packaged and project.has("uv.lock") and any(file.startswith("src/") for file in project.files):
        yield "src"
    for environment in (".venv", "venv"):
        for site in (project.folder / environment).glob("lib/python*/site-packages"):
            for path in sorted(site.glob("*.pth")):
                yield from _inside(path.read_text(encoding="utf-8", errors="replace").splitlines(), project.folder)
            for finder in sorted(site.glob("__editable___*_finder.py")):
                mapped = re.findall(r"['\"](/[^'\"]+)['\"]", finder.read_text(encoding="utf-8", errors="replace"))
                yield from _inside([str(Path(path).parent) for path in mapped], project.folder)


def _inside(lines: Iterable[str], folder: Path) -> Iterator[str]:
    """Those lines that are folders of the project, relative to it."""
    for line in lines:
        place = Path(line.strip())
        if place.is_absolute() and place.is_relative_to(folder) and "site-packages" not in place.parts:
            yield place.relative_to(folder).as_posix()
