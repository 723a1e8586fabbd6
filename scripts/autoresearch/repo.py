"""Every git question and every git move in a repository: the only module that touches one.

Moves never run a hook, never stash, never clean, and name the paths they touch. Commits are built
in an index of their own, so what the user has staged stays staged.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Self

from autoresearch.errors import MachineError, NeedsHumanError, NoCampaignError
from autoresearch.first_commit import first_commit_hint
from autoresearch.git_lock import clear_lock

if TYPE_CHECKING:
    import git

STATE_FOLDER = "autoresearch"
NOTES_REF = "refs/notes/autoresearch"
_ZERO = "0" * 40
# A surrounding hook, worktree command or agent may set these; they would send our commands elsewhere.
_REDIRECTING = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_PREFIX",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_NAMESPACE", "GIT_EXTERNAL_DIFF", "GIT_DIFF_OPTS", "GIT_EDITOR",
)  # fmt: skip
# Options that make git's answers independent of the user's configuration.
_NEUTRAL = (
    "-c", "core.quotePath=false", "-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null",
    "-c", "submodule.recurse=false", "-c", "advice.detachedHead=false", "-c", "gc.auto=0",
)  # fmt: skip
_LOCKED = re.compile(r"Unable to create '(?P<path>[^']+\.lock)': File exists")
_KINDS = {"M": "modified", "A": "added", "D": "deleted", "R": "renamed", "C": "copied", "T": "type"}
_REGULAR = ("100644", "100755")


@dataclass(frozen=True, kw_only=True)
class Change:
    """One path that differs from a commit."""

    path: str  # relative to the project, posix
    kind: str  # modified | added | deleted | renamed | copied | type | mode
    tracked: bool  # False: untracked and not ignored
    old_path: str = ""
    mode: str = ""  # the new git mode; "" when deleted
    submodule: bool = False


@dataclass(frozen=True, kw_only=True)
class Head:
    """Where HEAD stands; both None in a detached or unborn state respectively."""

    branch: str | None
    commit: str | None


class Repo:
    """The git repository around a project folder."""

    def __init__(self, project: Path) -> None:
        """Find the repository of ``project``; ``NoCampaignError`` if there is none."""
        for name in _REDIRECTING:
            os.environ.pop(name, None)  # GitPython hands our environment on and cannot leave names out
        os.environ["GIT_OPTIONAL_LOCKS"] = "0"  # questions must not fight over the index with the user's own git
        try:
            import git
        except ModuleNotFoundError:  # GitPython itself
            raise
        except ImportError as error:  # GitPython raises it when the git program is missing
            raise MachineError(f"git cannot be used: {error}.", hint="Install git (apt-get install git).") from None
        self.project = project.expanduser().resolve()
        if not self.project.is_dir():
            told, hint = f"--project {project} is not a folder.", "Give the folder of the training code."
            raise NoCampaignError(told, hint=hint, code="no_folder")
        try:
            repo = git.Repo(self.project, search_parent_directories=True)
        except git.InvalidGitRepositoryError:
            raise NoCampaignError(
                f"{self.project} is not in a git repository.",
                hint=first_commit_hint(self.project, with_init=True),
                code="no_repository",
            ) from None
        if repo.bare or repo.working_tree_dir is None:
            told = f"{self.project} is a bare repository, without files to run."
            raise NoCampaignError(told, hint="git clone it and work in the clone.")
        self._command_error: type[Exception] = git.GitCommandError
        self._git: git.Git = repo.git
        self.root = Path(repo.working_tree_dir).resolve()
        self.git_dir = Path(repo.git_dir).resolve()
        self.common_dir = Path(repo.common_dir).resolve()
        self.state_dir = self.common_dir / STATE_FOLDER
        relative = self.project.relative_to(self.root).as_posix()
        self.prefix = "" if relative == "." else f"{relative}/"
        repo.close()

    @classmethod
    def init(cls, folder: Path) -> Self:
        """The repository of ``folder``; where there is none, ``git init`` makes one without commits."""
        try:
            return cls(folder)
        except NoCampaignError as error:
            if error.code != "no_repository":
                raise
        import git

        git.Repo.init(folder).close()
        return cls(folder)

    # ---- running git

    def _run(self, *arguments: str, env: Mapping[str, str] | None = None, ok: Sequence[int] = (0,)) -> str:
        """Run git at the root and return its stdout, unstripped; clears a lock that a dead git left behind."""
        for attempt in range(4):
            status, out, err = self._git.execute(
                ["git", *_NEUTRAL, "--literal-pathspecs", *arguments], with_extended_output=True,
                with_exceptions=False, strip_newline_in_stdout=False, env=dict(env or {}),
            )  # fmt: skip
            if status in ok:
                return str(out)
            locked = _LOCKED.search(str(err))
            if locked is None or attempt == 3:
                break
            clear_lock(Path(locked["path"]), root=self.root, common_dir=self.common_dir)
        text = str(err).strip() or str(out).strip()
        if re.search("No space left|Out of disk|unable to write|Read-only file system|Permission denied", text):
            raise MachineError(f"git {arguments[0]} failed: {text}", hint="Check disk space and rights: df -h .")
        raise NeedsHumanError(f"git {arguments[0]} failed: {text}", hint="git status", code="git_failed")

    def _ask(self, *arguments: str) -> str | None:
        """The stripped answer to a question, or None if git says there is none."""
        status, out, _ = self._git.execute(
            ["git", *_NEUTRAL, "--literal-pathspecs", *arguments], with_extended_output=True, with_exceptions=False
        )
        return str(out).strip() if status == 0 else None

    # ---- questions

    def head(self) -> Head:
        branch = self._ask("symbolic-ref", "--quiet", "--short", "HEAD")
        return Head(branch=branch or None, commit=self.commit_of("HEAD"))

    def commit_of(self, name: str) -> str | None:
        """The full SHA of the commit that ``name`` means, or None."""
        return self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}") or None

    def tree_of(self, commit: str) -> str:
        """The tree of the project's folder in ``commit``; "" where it has none."""
        return self._ask("rev-parse", "--verify", "--quiet", f"{commit}:{self.prefix.rstrip('/')}") or ""

    def is_ancestor(self, older: str, newer: str) -> bool:
        return self._ask("merge-base", "--is-ancestor", older, newer) is not None

    def subject(self, commit: str) -> str:
        return self._run("log", "-1", "--format=%s", commit, "--").strip()

    def is_valid_branch(self, name: str) -> bool:
        return self._ask("check-ref-format", "--branch", name) is not None

    def branches(self, prefix: str) -> list[str]:
        """Local branches whose name starts with ``prefix``."""
        out = self._run("for-each-ref", "--format=%(refname:short)", f"refs/heads/{prefix}")
        return out.split()

    def operation_in_progress(self) -> str | None:
        """The name of an unfinished merge, rebase, cherry-pick, revert or bisect."""
        marks = {
            "MERGE_HEAD": "merge", "rebase-merge": "rebase", "rebase-apply": "rebase",
            "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert", "BISECT_LOG": "bisect",
        }  # fmt: skip
        return next((name for mark, name in marks.items() if (self.git_dir / mark).exists()), None)

    def remotes(self) -> list[str]:
        return self._run("remote").split()

    def changes(self, commit: str) -> list[Change]:
        """How the project's folder differs from ``commit``: tracked, staged and untracked, not ignored."""
        scope = ["--", self.prefix] if self.prefix else ["--"]
        raw = self._run("diff", "--raw", "-z", "-M", "--no-ext-diff", "--ignore-submodules=none", commit, *scope)
        found = list(self._parse_raw(raw))
        others = self._run("ls-files", "--others", "--exclude-standard", "-z", *scope)
        known = {change.path for change in found}
        for path in filter(None, others.split("\0")):
            if (name := self._inside(path)) in known:  # deleted from the index and there again: git calls it both
                continue
            file = self.root / path
            mode = "120000" if file.is_symlink() else "100755" if os.access(file, os.X_OK) else "100644"
            found.append(Change(path=name, kind="added", tracked=False, mode=mode))
        return found

    def _parse_raw(self, raw: str) -> Iterator[Change]:
        fields = iter(raw.split("\0"))
        for header in fields:
            if not header:
                return
            old_mode, new_mode, _, _, letter = header.lstrip(":").split(" ")
            path, old_path = next(fields), ""
            if letter[0] in "RC":
                old_path, path = path, next(fields)
            kind = _KINDS.get(letter[0], "modified")
            if kind == "modified" and old_mode != new_mode and {old_mode, new_mode} <= set(_REGULAR):
                kind = "mode"
            yield Change(
                path=self._inside(path),
                kind=kind,
                tracked=True,
                old_path=self._inside(old_path),
                mode="" if kind == "deleted" else new_mode,
                submodule="160000" in (old_mode, new_mode),
            )

    def _inside(self, path: str) -> str:
        return path.removeprefix(self.prefix)

    def files(self, commit: str) -> list[str]:
        """The project's files in ``commit``."""
        out = self._run("ls-tree", "-r", "-z", "--name-only", "--full-tree", commit, "--", self.prefix or ".")
        return [self._inside(path) for path in out.split("\0") if path]

    def entries(self, commit: str, paths: Sequence[str]) -> dict[str, str]:
        """Mode and blob ("100644,SHA") of those of the project's ``paths`` that ``commit`` has."""
        if not paths:
            return {}
        out = self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", *(self.prefix + path for path in paths))
        found = (entry.split("\t", 1) for entry in out.split("\0") if entry)
        return {self._inside(path): f"{meta.split(' ')[0]},{meta.split(' ')[2]}" for meta, path in found}

    def text(self, commit: str, path: str) -> str | None:
        """The file's text in ``commit``, undecodable bytes as surrogates; None if it is not there."""
        status, out, _ = self._git.execute(
            ["git", *_NEUTRAL, "cat-file", "blob", f"{commit}:{self.prefix}{path}"],
            with_extended_output=True,
            with_exceptions=False,
            strip_newline_in_stdout=False,
        )
        return str(out) if status == 0 else None

    def texts(self, commit: str, paths: Iterable[str]) -> dict[str, str]:
        """The texts of those of ``paths`` that ``commit`` has, by path; one process reads them all."""
        try:
            found = {path: self._read(commit, path) for path in paths}
        finally:
            self._git.clear_cache()  # ends that process: who finds a lock looks for a git that lives
        return {path: text for path, text in found.items() if text is not None}

    def _read(self, commit: str, path: str) -> str | None:
        name = f"{commit}:{self.prefix}{path}"
        if re.fullmatch(r"[0-9a-f]{40}:.+", name):  # what that process can be asked for
            with contextlib.suppress(ValueError):  # not there, or not in UTF-8
                _, kind, _, data = self._git.get_object_data(name)
                return data.decode("utf-8", "surrogateescape") if os.fsdecode(kind) == "blob" else None
        return self.text(commit, path)

    def line_counts(self, old: str, new: str) -> tuple[int, int]:
        """Lines added and deleted between two commits in the project's folder; binary files count as none."""
        scope = ["--", self.prefix] if self.prefix else []
        out = self._run("diff", "--numstat", "--no-ext-diff", "--no-renames", old, new, *scope)
        counts = [line.split("\t")[:2] for line in out.splitlines()]
        numbers = [(int(added), int(deleted)) for added, deleted in counts if added != "-"]
        return sum(added for added, _ in numbers), sum(deleted for _, deleted in numbers)

    def changed_paths(self, old: str, new: str) -> list[str]:
        """The project's files that differ between two commits; a rename counts as two."""
        scope = ["--", self.prefix] if self.prefix else []
        out = self._run("diff", "--name-only", "-z", "--no-renames", "--no-ext-diff", old, new, *scope)
        return [self._inside(path) for path in out.split("\0") if path]

    def diff(self, old: str, new: str) -> str:
        scope = ["--", self.prefix] if self.prefix else []
        return self._run("diff", "--no-ext-diff", "--no-color", old, new, *scope)

    def change_ids(self, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """An id of what each ``(commit, parent)`` changes in the project's folder, by commit.

        Changes with one id differ at most in white space and in where in a file they stand. A commit that
        changes nothing, or that this repository does not have, has no id.
        """
        scope = ["--", self.prefix] if self.prefix else []
        listed = "".join(f"{commit} {parent}\n" for commit, parent in pairs)
        diffs = self._feed(listed.encode(), "diff-tree", "--stdin", "-r", "-p", "-U0", "--no-ext-diff", *scope)
        ids = (line.split() for line in self._feed(diffs, "patch-id", "--stable").decode().splitlines())
        return {commit: change for change, commit in ids}

    def _feed(self, text: bytes, *arguments: str) -> bytes:
        """The output of a git command that reads ``text``."""
        command = ["git", *_NEUTRAL, "--literal-pathspecs", *arguments]
        return subprocess.run(command, cwd=self.root, input=text, capture_output=True, check=True).stdout

    def diffs(self, pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
        """The diff of each ``(commit, parent)`` in the project's folder, by commit; as for ``change_ids``."""
        scope = ["--", self.prefix] if self.prefix else []
        listed = "".join(f"{commit} {parent}\n" for commit, parent in pairs)
        asked = ("diff-tree", "--stdin", "-p", "--no-ext-diff", "--no-color", "--format=%x00%H")
        answers = self._feed(listed.encode(), *asked, *scope).decode("utf-8", "replace").split("\0")[1:]
        return {commit: diff.strip("\n") for commit, _, diff in (answer.partition("\n") for answer in answers)}

    def ignored(self) -> list[str]:
        """Ignored entries of the project's folder, folders unexpanded, project-relative."""
        out = self._run(
            "ls-files", "--others", "--ignored", "--exclude-standard", "--directory", "-z", "--", self.prefix or "."
        )
        return [self._inside(path).rstrip("/") for path in out.split("\0") if path]

    def submodules(self, commit: str) -> list[str]:
        """Submodule folders in ``commit``: a checkout from it leaves them empty."""
        out = self._run("ls-tree", "-r", "-z", "--full-tree", commit, "--", self.prefix or ".")
        entries = (entry.split("\t", 1) for entry in out.split("\0") if entry)
        return [self._inside(path) for meta, path in entries if meta.startswith("160000")]

    # ---- moves

    @contextmanager
    def _scratch_index(self) -> Iterator[dict[str, str]]:
        """An environment in which git uses an empty index of our own."""
        self.state_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.state_dir, prefix="index-") as folder:
            yield {"GIT_INDEX_FILE": str(Path(folder) / "index")}

    def _identity(self) -> dict[str, str]:
        """The user's own name where git knows one, else ours: a night must not end on a missing user.name."""
        env: dict[str, str] = {}
        for role in ("AUTHOR", "COMMITTER"):
            if self._ask("var", f"GIT_{role}_IDENT") is None:
                env |= {f"GIT_{role}_NAME": "autoresearch", f"GIT_{role}_EMAIL": "autoresearch@localhost"}
        return env

    def identity(self) -> str | None:
        """The user as git knows them, "Name <email>"; None if it does not."""
        known = self._ask("var", "GIT_COMMITTER_IDENT")
        return None if known is None else known.rsplit(" ", 2)[0]

    def commit_paths(self, parent: str, paths: Sequence[str], message: str) -> str:
        """Make a commit on ``parent`` that holds its files, with ``paths`` as they lie in the work tree.

        Moves no branch and touches neither the index nor the work tree. ``paths`` are project-relative
        files; one that does not exist is deleted in the commit.
        """
        with self._scratch_index() as env:
            self._run("read-tree", parent, env=env)
            if paths:
                self._run("update-index", "--add", "--remove", "--", *(self.prefix + path for path in paths), env=env)
            tree = self._run("write-tree", env=env).strip()
        return self.commit_tree(tree, parent, message)

    def commit_texts(self, parent: str, texts: Mapping[str, str], message: str, *, at: datetime | None = None) -> str:
        """Make a commit on ``parent`` in which the existing files ``texts`` (by path) hold those texts instead."""
        modes = {path: entry.split(",")[0] for path, entry in self.entries(parent, list(texts)).items()}
        entries = {path: f"{modes[path]},{self.write_blob(text)}" for path, text in texts.items()}
        return self.commit_entries(parent, entries, message, at=at)

    def commit_entries(
        self, parent: str, entries: Mapping[str, str | None], message: str, *, at: datetime | None = None
    ) -> str:
        """Make a commit on ``parent`` in which the paths have these ``entries`` ("mode,sha"); None deletes one."""
        with self._scratch_index() as env:
            self._run("read-tree", parent, env=env)
            self._put(entries, env)
            tree = self._run("write-tree", env=env).strip()
        return self.commit_tree(tree, parent, message, at=at)

    def _put(self, entries: Mapping[str, str | None], env: Mapping[str, str]) -> None:
        """Make the index of ``env`` hold ``entries``."""
        gone = [self.prefix + path for path, entry in entries.items() if entry is None]
        if gone:
            self._run("update-index", "--force-remove", "--", *gone, env=env)
        there = [f"{entry},{self.prefix}{path}" for path, entry in entries.items() if entry is not None]
        if there:
            self._run("update-index", "--add", *(word for line in there for word in ("--cacheinfo", line)), env=env)

    def write_blob(self, text: str) -> str:
        """Store ``text`` in the object database; returns its SHA."""
        return self._feed(text.encode("utf-8", "surrogateescape"), "hash-object", "-w", "--stdin").decode().strip()

    def commit_tree(self, tree: str, parent: str | None, message: str, *, at: datetime | None = None) -> str:
        """A commit by the user, dated ``at`` (now): the same arguments at the same time give the same commit."""
        parents = [] if parent is None else ["-p", parent]
        env = self._identity()
        if at is not None:
            env |= dict.fromkeys(("GIT_AUTHOR_DATE", "GIT_COMMITTER_DATE"), f"{at.timestamp():.0f} +0000")
        return self._run("commit-tree", tree, *parents, "-m", message, env=env).strip()

    def first_commit(self, paths: Sequence[str], message: str) -> str:
        """Put ``paths`` as they lie in the work tree into the first commit of the branch that HEAD names."""
        with self._scratch_index() as env:
            self._run("update-index", "--add", "--", *[self.prefix + path for path in paths], env=env)
            tree = self._run("write-tree", env=env).strip()
        commit = self.commit_tree(tree, None, message)
        self._run("update-ref", "-m", f"autoresearch: {message}", "HEAD", commit, _ZERO)
        self.unstage(paths)
        return commit

    def root_tree(self, commit: str) -> str:
        """The tree of the whole commit (not only the project's folder)."""
        return self._run("rev-parse", "--verify", f"{commit}^{{tree}}").strip()

    def set_branch(self, branch: str, new: str, old: str | None, reason: str) -> None:
        """Point ``branch`` at ``new``; fails unless it stands at ``old`` (None: does not exist)."""
        self._run("update-ref", "-m", f"autoresearch: {reason}", f"refs/heads/{branch}", new, old or _ZERO)

    def set_ref(self, ref: str, commit: str) -> None:
        self._run("update-ref", ref, commit)

    def hold_refs(self, wanted: Mapping[str, str]) -> None:
        """Point each ref at its commit; those that do already cost one question together and are not written."""
        listed = self._run("for-each-ref", "--format=%(refname) %(objectname)", *wanted) if wanted else ""
        for ref in wanted.items() - {tuple(line.split()) for line in listed.splitlines()}:
            self.set_ref(*ref)

    def attach(self, branch: str, paths: Sequence[str]) -> None:
        """Put HEAD on ``branch`` without touching the work tree; ``paths`` are all in which the two differ."""
        self._run("symbolic-ref", "-m", "autoresearch: set up", "HEAD", f"refs/heads/{branch}")
        self.unstage(paths)

    def add_worktree(self, place: Path, branch: str | None) -> None:
        """Make a work tree in the folder ``place``, on ``branch``, or on no branch at HEAD's commit."""
        self._run("worktree", "prune")  # of what was deleted by hand: its branch is free again
        self._run("worktree", "add", "--quiet", *(["--detach", str(place)] if branch is None else [str(place), branch]))

    def switch(self, branch: str) -> None:
        """Check out ``branch``; git refuses where that would overwrite uncommitted work."""
        self._run("switch", "--quiet", "--no-guess", branch)

    def unstage(self, paths: Sequence[str]) -> None:
        """Make the index entries of ``paths`` equal HEAD's; the work tree stays."""
        if paths:
            self._run("reset", "--quiet", "--", *[self.prefix + path for path in paths])

    def restore(self, commit: str, paths: Sequence[str]) -> None:
        """Make ``paths`` in index and work tree equal ``commit``; a path it lacks is deleted."""
        here = set(self.files(commit))
        present = [self.prefix + path for path in paths if path in here]
        if present:
            self._run("restore", f"--source={commit}", "--staged", "--worktree", "--", *present)
        gone = [path for path in paths if path not in here]
        if gone:
            self._run("rm", "--cached", "--quiet", "--ignore-unmatch", "--", *[self.prefix + path for path in gone])
            for path in gone:
                (self.project / path).unlink(missing_ok=True)

    def annotate(self, commit: str, text: str) -> None:
        """Attach ``text`` to ``commit`` as a note under refs/notes/autoresearch, replacing an earlier one."""
        self._run("notes", f"--ref={NOTES_REF}", "add", "--force", "-m", text, commit, env=self._identity())

    def export(self, commit: str, base: str, paths: Sequence[str], destination: Path) -> None:
        """Write a checkout: all files of ``base``, with ``paths`` (project-relative) as they are in ``commit``.

        So a protected file comes from ``base`` whatever ``commit`` did to it. ``destination`` must not exist.
        """
        destination.mkdir(parents=True)
        with self._scratch_index() as env:
            self._run("read-tree", base, env=env)
            if commit != base:
                wanted = self.entries(commit, paths)
                self._put({path: wanted.get(path) for path in paths}, env)
            self._run("checkout-index", "--all", "--force", f"--prefix={destination}/", env=env)

    def exclude(self, lines: Sequence[str]) -> list[str]:
        """Add ``lines`` to .git/info/exclude where they are missing; returns those added."""
        path = self.common_dir / "info" / "exclude"
        path.parent.mkdir(exist_ok=True)
        text = path.read_text(encoding="utf-8", errors="surrogateescape") if path.exists() else ""
        missing = [line for line in lines if line not in text.splitlines()]
        if missing:
            lead = "" if not text or text.endswith("\n") else "\n"
            with path.open("a", encoding="utf-8", errors="surrogateescape") as file:
                file.write(lead + "\n".join(missing) + "\n")
        return missing

    def push_in_background(self, remote: str, refs: Sequence[str], log: Path) -> int:
        """Start ``git push`` of ``refs`` on its own, output to ``log``; returns its pid. Never asks for a password."""
        env = {**os.environ, "GIT_TERMINAL_PROMPT": "0", "GIT_SSH_COMMAND": "ssh -oBatchMode=yes"}
        script = 'git push --porcelain --force-with-lease "$@"; echo "exit $?"'
        with log.open("wb") as out:
            process = subprocess.Popen(
                ["sh", "-c", script, "sh", remote, *refs],
                cwd=self.root, env=env, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
            )  # fmt: skip
        return process.pid
