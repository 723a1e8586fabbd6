"""The edit itself: whether it changes anything, and whether what it changes is an experiment's to change."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import zip_longest
from pathlib import PurePosixPath

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard.metric import check_metric, line_changed
from autoresearch.guard.rebinding import Protected, check_rebinding, check_shadowing, unread_budget
from autoresearch.guard.seeds import check_seeds, seed_only, without_seeds
from autoresearch.guard.source import Source, text_of

# What the ledger writes: an experiment that knows of it could read or forge its answer.
OWN_FILES = (".git/autoresearch", "results.tsv")
_SETTINGS = frozenset([".yaml", ".yml", ".toml", ".json", ".cfg", ".ini", ".txt", ".md"])
_OUTPUT = r"\b(?:echo|e?printf?(?:ln)?|puts|cout|console\.\w+|log|write\w*)\b.*"


@dataclass
class _Edit:
    """The changed files, read."""

    old: list[Source] = field(default_factory=list)
    new: list[Source] = field(default_factory=list)
    plain: dict[str, tuple[str, str]] = field(default_factory=dict)  # not Python: text before and after
    broken: list[str] = field(default_factory=list)  # notes on Python that does not parse any more
    unread: list[str] = field(default_factory=list)  # notes on Python that our parser does not know


def check_edit(
    before: Mapping[str, str],
    after: Mapping[str, str],
    config: Config,
    *,
    protected_sources: Mapping[str, str] | None = None,
    argument_changes: bool = False,
) -> list[str]:
    """Refuse an edit that would make its experiment worthless; return notes on what is odd but let pass.

    ``before`` and ``after`` are path -> text of the files under ``edit``, at the incumbent and now; a
    missing path is a missing file. ``protected_sources`` are the project's other Python files.
    ``argument_changes``: the experiment's arguments or environment differ, so the files need not.

    Refused: no change; only seeds changed, or the runner's seed is overridden; the lines that print
    the metric, or the way of its number from a protected evaluator to them; protected names given new
    values; files of the ledger named. What these do not see stands in
    their modules. A file that is not Python is only looked at line by line, for the metric and the
    ledger's files; one that no longer parses will crash by itself and is let pass.
    """
    changed = sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
    if not changed:
        if argument_changes:
            return []
        raise RefusedError(
            f"there is no change to try: {', '.join(config.edit)} as at the incumbent.",
            hint=f"Edit {config.edit[0]} first, then run the experiment.",
            code="no_change",
        )
    edit = _read(changed, before, after)
    others = [text for path, text in after.items() if path not in changed]
    protected = Protected(config, protected_sources or {}, [*edit.old, *edit.new])
    notes = _check_effect(edit, config, argument_changes=argument_changes) + edit.broken + edit.unread
    searched_anywhere = any("sys.path" in text for text in after.values())
    check_shadowing(after.keys() - before.keys(), config, protected, searched_anywhere=searched_anywhere)
    check_rebinding(edit.old, edit.new, protected)
    notes += unread_budget(edit.old, edit.new, others)
    notes += check_seeds(edit.old, edit.new, config, others)
    if not config.evaluate_command:  # else its output alone is the metric
        check_metric(edit.old, edit.new, config, protected.modules)
        for path, (was, now) in edit.plain.items():
            _check_lines(path, was, now, config.metric.name)
    _check_own_files(edit)
    return notes


def _read(changed: Iterable[str], before: Mapping[str, str], after: Mapping[str, str]) -> _Edit:
    edit = _Edit()
    for path in changed:
        was = _parse(path, before.get(path)) if path.endswith(".py") else None
        now = _parse(path, after.get(path)) if path.endswith(".py") else None
        if not path.endswith(".py") or isinstance(was, SyntaxError):
            edit.plain[path] = (before.get(path, ""), after.get(path, ""))
        if isinstance(was, SyntaxError):
            edit.unread.append(f"{path}:{was.lineno} was not understood ({was.msg}): compared line by line")
        elif isinstance(now, SyntaxError):
            edit.broken.append(f"{path}:{now.lineno} does not parse ({now.msg}): the trial will crash there")
        else:
            edit.old += [was] if was else []
            edit.new += [now] if now else []
    return edit


def _parse(path: str, text: str | None) -> Source | SyntaxError | None:
    try:
        return None if text is None else Source(path, text)
    except SyntaxError as error:
        return error
    except (ValueError, RecursionError) as error:
        return SyntaxError(str(error), (path, 1, 1, ""))


# ---- has it an effect?


def _check_effect(edit: _Edit, config: Config, *, argument_changes: bool) -> list[str]:
    if edit.broken:
        return []
    if not edit.plain and _same(edit, _as_is):
        return ["only comments, docstrings or layout differ: the result should equal the incumbent's"]
    if not edit.plain and not argument_changes and _same(edit, without_seeds):
        raise seed_only(edit.old, edit.new, config)
    return []


def _same(edit: _Edit, form: Callable[[Source, ast.Module], ast.Module]) -> bool:
    """Whether the changed Python files are the same code once brought to ``form``, docstrings apart."""
    old = {source.path: source for source in edit.old}
    new = {source.path: source for source in edit.new}
    return old.keys() == new.keys() and all(_same_file(old[path], new[path], form) for path in old)


def _same_file(was: Source, now: Source, form: Callable[[Source, ast.Module], ast.Module]) -> bool:
    texts_was, texts_now = list(_statements(was)), list(_statements(now))
    shared = Counter(texts_was) & Counter(texts_now)

    def forms(source: Source, texts: list[str]) -> Iterator[str]:
        for text in texts:
            if text in shared and "seed" not in text.lower():
                yield text  # equal text is equal code: most of a file is not looked at closer
            else:
                tree = form(source, _without_docstrings(ast.parse(text)))
                yield from (ast.dump(statement) for statement in tree.body)

    return all(a == b for a, b in zip_longest(forms(was, texts_was), forms(now, texts_now)))


def _as_is(source: Source, tree: ast.Module) -> ast.Module:
    return tree


def _statements(source: Source) -> Iterator[str]:
    """The text of each top-level statement; several on one line are one."""
    start = end = 0
    for node in source.tree.body:
        first = min([node.lineno, *(decorator.lineno for decorator in getattr(node, "decorator_list", []))])
        if start and first > end:
            yield "\n".join(source.lines[start - 1 : end])
            start = 0
        start, end = start or first, max(end, node.end_lineno or first)
    yield "\n".join(source.lines[start - 1 : end])


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            body[:] = [s for s in body if not (isinstance(s, ast.Expr) and isinstance(s.value, ast.Constant))]
            if not body and node is not tree:
                body.append(ast.Pass())
    return tree


# ---- line by line


def _check_lines(path: str, was: str, now: str, name: str) -> None:
    """For programs that are not Python: the lines that write the metric's name stay."""
    if PurePosixPath(path).suffix.lower() in _SETTINGS:
        return
    output = re.compile(_OUTPUT + rf"(?<![\w-]){re.escape(name)}(?![\w-])", re.IGNORECASE)
    old = {line.strip(): number for number, line in enumerate(was.splitlines(), 1) if output.search(line)}
    new = {line.strip(): number for number, line in enumerate(now.splitlines(), 1) if output.search(line)}
    if old.keys() != new.keys():
        gone = [f"{path}:{old[line]}: `{line[:120]}`" for line in old if line not in new]
        raise line_changed(name, gone, [f"{path}:{new[line]}: `{line[:120]}`" for line in new if line not in old])


def _check_own_files(edit: _Edit) -> None:
    """No edit may newly name the files that the ledger keeps."""
    was = [text_of(node) for source in edit.old for node in source.strings()]
    was += [text for text, _ in edit.plain.values()]
    now = [(text_of(node), source.quote(node)) for source in edit.new for node in source.strings()]
    now += [(text, path) for path, (_, text) in edit.plain.items()]
    for name in OWN_FILES:
        if any(name in text for text in was):
            continue
        for text, where in now:
            if name in text:
                raise RefusedError(
                    f"{name} is written by the scripts alone, and training has no use for it: {where}",
                    hint="Take it out: results are read from the log and recorded by log_result.py.",
                    code="ledger_files",
                )
