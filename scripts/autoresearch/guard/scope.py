"""Which paths an experiment may change.

Covered: every path in which the work tree differs from the incumbent, as git tells it. Not covered:
ignored files, of which git does not tell (a clean checkout has none but those under ``link``), and
anything outside the project's folder.
"""

from __future__ import annotations

import functools
import posixpath
import re
import shlex
from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

from autoresearch.config import CONFIG_FILE, Config
from autoresearch.errors import RefusedError
from autoresearch.repo import Change

RECONFIGURE = "setup_campaign.py --reconfigure"
SHOWN = 10  # offences named one by one; more would push the agent's own work out of its context

# Settings of the agent's client, and skills: this bundle itself, where it is installed in the project.
_CLIENTS = r"(.*/)?\.(agents|claude|codex|gemini|opencode|cursor)/.*"
# What people write and look at. Trials in a clean checkout never see an uncommitted change of it.
DOCUMENTS = re.compile(
    r".*\.(md|rst|txt|tex|bib|pdf|docx|pptx|html|ipynb|log|out|err|png|jpe?g|gif|svg|webp|mp4)", re.IGNORECASE
)
# What training leaves behind when run by hand; where no .gitignore names it, it must not end the night.
OUTPUTS = re.compile(
    rf".*\.(csv|tsv|jsonl|npy|npz|pkl|pickle|parquet|h5|prof|pt|pth|ckpt|safetensors|onnx)|{_CLIENTS}",
    re.IGNORECASE,
)
DEPENDENCIES = re.compile(
    r"(.*/)?(pyproject\.toml|setup\.(py|cfg)|.*requirements.*\.(txt|in)|constraints.*\.txt|\.python-version"
    r"|(uv|poetry|pdm|pixi)\.lock|conda-lock\.ya?ml|(uv|pixi)\.toml|Pipfile(\.lock)?"
    r"|environment.*\.ya?ml|conda.*\.ya?ml|package(-lock)?\.json|Cargo\.(toml|lock))"
)
INSTRUCTIONS = re.compile(
    rf"(.*/)?((CLAUDE|AGENTS|GEMINI)(\.local)?\.md|\.cursorrules|copilot-instructions\.md)|{_CLIENTS}"
)
_LINKS = {"120000": "a symbolic link", "160000": "a submodule"}  # git modes


class _Offence(NamedTuple):
    code: str
    text: str


def in_scope(path: str, edit: Iterable[str]) -> bool:
    """Whether ``path`` is under one of ``edit``: a file, a folder, or a glob.

    In a glob ``*`` and ``?`` stay within one folder, and ``**`` crosses any number of them, also none:
    ``src/**.py`` and ``src/**/*.py`` both hold ``src/a.py`` and ``src/b/c.py``.
    """
    return any(_pattern(entry).fullmatch(path) for entry in edit)


@functools.cache
def _pattern(entry: str) -> re.Pattern[str]:
    entry = posixpath.normpath(entry)
    if not re.search(r"[*?[]", entry):
        return re.compile(rf"{re.escape(entry)}(?s:/.*)?")
    wild = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?|\[[^]]+\])", entry)
    sets = (part.replace("[!", "[^", 1) if part.startswith("[") else re.escape(part) for part in parts)
    return re.compile("".join(wild.get(part, text) for part, text in zip(parts, sets, strict=True)), re.DOTALL)


def belongs_to_client(path: str) -> bool:
    """Whether a file is the agent's client's: settings or a skill, in which no training looks."""
    return re.fullmatch(_CLIENTS, path, re.IGNORECASE) is not None


def check_paths(
    changes: Sequence[Change], config: Config, *, tolerated: Collection[str] = (), base: str = ""
) -> list[str]:
    """Refuse changes outside ``config.edit``; return a line for each sort of file let pass.

    ``tolerated`` are files of the user's own, recorded at set-up and unchanged since: they pass in
    silence. ``base`` is the commit that the changes are told against, if that is not HEAD; it goes
    into the commands that undo them.
    """
    changes = [change for change in changes if change.path not in tolerated]
    documents = [change.path for change in changes if _is_aside(change, config, DOCUMENTS)]
    outputs = [change.path for change in changes if not change.tracked and _is_aside(change, config, OUTPUTS)]
    offences = [_judge(change, config, base) for change in changes if change.path not in {*documents, *outputs}]
    refused = [offence for offence in offences if offence is not None]
    if refused:
        raise _refusal(refused, config)
    return _notes("a document", documents, config) + _notes("an untracked output", outputs, config)


def may_edit(path: str, config: Config) -> bool:
    """Whether an experiment may change ``path``: ``protect`` outranks a folder or a glob under ``edit``."""
    return in_scope(path, config.edit) and not in_scope(path, config.protect)


def _is_dependency(path: str, config: Config) -> bool:
    """A dependency or lock file of the training, unless ``edit`` names that very file."""
    named = path in map(posixpath.normpath, config.edit)
    return DEPENDENCIES.fullmatch(path) is not None and not named and not belongs_to_client(path)


def _is_aside(change: Change, config: Config, names: re.Pattern[str]) -> bool:
    """Whether a change is the user's own affair: a plain file of a harmless sort that nothing protects."""
    return change.kind in ("modified", "added", "deleted", "renamed") and change.mode not in _LINKS and all(
        names.fullmatch(path)
        and not in_scope(path, (*config.edit, *config.protect))
        and not _is_dependency(path, config)
        and not (names is DOCUMENTS and INSTRUCTIONS.fullmatch(path))
        for path in (change.path, change.old_path or change.path)
    )  # fmt: skip


def _judge(change: Change, config: Config, base: str) -> _Offence | None:
    """What is wrong with one change; None if an experiment may make it."""
    path = change.path
    undo = _undo(change, base)
    whole = change.old_path and change.kind != "copied"
    if path == CONFIG_FILE:
        return _offence("config", change, f"a campaign's settings are a human's ({RECONFIGURE})", undo)
    if _is_dependency(path, config):
        if not change.tracked:
            name = shlex.quote(posixpath.basename(path))
            undo += f'; or, if a tool writes it, echo {name} >> "$(git rev-parse --git-path info/exclude)"'
        return _offence("dependencies", change, "no new dependencies within a campaign", undo)
    if may_edit(path, config) and (not whole or may_edit(change.old_path, config)):
        return _misshapen(change)
    if in_scope(path, config.protect) or (whole and in_scope(change.old_path, config.protect)):
        return _offence("protected", change, "it is protected: what measures an experiment stays", undo)
    if INSTRUCTIONS.fullmatch(path):
        return _offence("instructions", change, "the agent's instructions are a human's", undo)
    reach = ""
    if not change.tracked:
        inplace = config.isolation == "inplace"
        reach = ", and with isolation: inplace trials would see it" if inplace else ", so no trial would see it"
    return _offence("scope", change, f"it is not under `edit`{reach}", undo)


def _misshapen(change: Change) -> _Offence | None:
    """An edit path must stay a plain file with the rights it had; what it holds is not undone."""
    path = shlex.quote(change.path)
    plain = "an edit path must stay a plain file"
    if change.submodule or change.mode == "160000":
        return _offence("scope", change, plain, f"git rm --cached -- {path}")
    if change.mode == "120000":
        copy = f'cp --remove-destination "$(readlink -f {path})" {path}'
        return _offence("scope", change, plain, copy)
    if change.kind == "mode":
        chmod = f"chmod {'-x' if change.mode == '100755' else '+x'} {path}"
        return _offence("scope", change, "its rights are not part of an experiment", chmod)
    return None


def _offence(code: str, change: Change, reason: str, undo: str) -> _Offence:
    what = change.kind if change.tracked else "new, untracked"
    if change.mode in _LINKS and change.kind in ("type", "added"):
        what = f"now {_LINKS[change.mode]}"
    elif change.kind == "renamed":
        what = f"renamed from {change.old_path}"
    elif change.kind == "mode":
        what = f"mode changed to {change.mode}"
    return _Offence(code, f"{change.path} ({what}): {reason}. Undo: {undo}")


def _undo(change: Change, base: str) -> str:
    """The command that takes the change back and nothing else."""
    path = shlex.quote(change.path)
    if not change.tracked:
        return f"rm {path}"
    if change.kind in ("added", "copied"):
        return f"git rm -f -- {path}"
    if change.kind == "renamed":
        return f"git mv -- {path} {shlex.quote(change.old_path)}"
    source = f"--source={base} " if base else ""
    if change.submodule and change.kind == "modified":
        # The stash keeps what is in no commit there, files that git does not know too; an update would not move these.
        stash, unstage = f"git -C {path} stash --include-untracked", f"git restore {source}--staged -- {path}"
        return f"{stash} && {unstage} && git submodule update --force -- {path}"
    return f"git restore {source}--staged --worktree -- {path}"


def _refusal(offences: Sequence[_Offence], config: Config) -> RefusedError:
    lines = [f"only {', '.join(config.edit)} may change in an experiment, but there is"]
    lines += [f"  {offence.text}" for offence in offences[:SHOWN]]
    if len(offences) > SHOWN:
        lines.append(f"  … and {len(offences) - SHOWN} more (git status)")
    codes = {offence.code for offence in offences}
    hint = "Undo these with the commands above, keep the idea within `edit`, and run again."
    if codes <= {"scope", "dependencies"}:
        hint += f" A human can add a path to `edit` in {CONFIG_FILE} with {RECONFIGURE}."
    return RefusedError("\n".join(lines), hint=hint, code=codes.pop() if len(codes) == 1 else "scope")


def _notes(what: str, paths: Sequence[str], config: Config) -> list[str]:
    if not paths:
        return []
    names = ", ".join(paths[:3]) + (f", … ({len(paths)} in all)" if len(paths) > 3 else "")
    reach = "trials run in this tree and could read it" if config.isolation == "inplace" else "no trial sees it"
    return [f"left alone as {what}: {names}; {reach}"]
