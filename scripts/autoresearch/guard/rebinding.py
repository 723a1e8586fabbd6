"""Edits that reach into protected code from outside: new values for its names, modules in its place.

Seen: assignment, deletion, ``setattr``, ``__dict__`` and ``vars``, ``globals()``, ``sys.modules``,
``mock.patch``, reloading, constant strings given to ``exec`` and ``eval``, definitions and imports
that take a protected name, new files that shadow what protected code imports, import hooks, and replaced
functions that protected code calls (``F.cross_entropy = …``, ``time.time = …``). Not seen: the same through
names that are put together at run time, or on objects that protected code has made.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard.scope import in_scope
from autoresearch.guard.seeds import SEED_VARIABLE
from autoresearch.guard.source import Source, import_roots, module_names, owner, root, text_of

BUDGET_VARIABLES = ("TIME_BUDGET", "AUTORESEARCH_BUDGET_S")
_ALWAYS_LOADED = {"sitecustomize", "usercustomize"}
_STREAMS = {"sys.stdout", "sys.stderr", "sys.__stdout__", "sys.__stderr__"}
_FINDERS = {"sys.meta_path", "sys.path_hooks", "sys.path_importer_cache"}
_SETTERS = {"setattr", "delattr", "object.__setattr__", "type.__setattr__"}
_TABLE_METHODS = {"update", "pop", "__setitem__", "__delitem__"}
_PATCHERS = re.compile(r"(.*\.)?(monkey)?patch(\.\w+)?")
_LOADERS = {"importlib.reload", "importlib.util.spec_from_file_location", "runpy.run_path"}


class Protected:
    """The project's Python modules that an experiment may not change.

    ``modules`` are all of them, by every dotted name they can be imported under; ``named`` those whose
    names no edit may take: the ones that the config names, or all where it names none.
    """

    def __init__(self, config: Config, sources: Mapping[str, str], edits: Collection[Source]) -> None:
        self._roots = import_roots(config)
        self._texts = sources
        self._edits = edits
        python = [path for path in sources if path.endswith(".py")]
        self.modules = frozenset().union(*(module_names(path, self._roots) for path in (*python, *config.protect)))
        chosen = [*config.protect, *(path for path in python if in_scope(path, config.protect))]
        self.named = frozenset().union(*(module_names(path, self._roots) for path in chosen)) or self.modules
        if any(edit.stars for edit in edits):
            for source in self._in_use:
                for edit in edits:
                    edit.open_stars(module_names(source.path, self._roots), source)

    @functools.cached_property
    def _in_use(self) -> list[Source]:
        """Of the protected files only those that the config names or the edits import."""
        origins = {origin for edit in self._edits for origin in (*edit.imports.values(), *edit.stars)}
        found = []
        for path, text in self._texts.items():
            names = module_names(path, self._roots)
            if names & self.named or any(owner(origin, names) for origin in origins):
                with contextlib.suppress(SyntaxError, ValueError):
                    found.append(Source(path, text))
        return found

    @functools.cached_property
    def imported(self) -> set[str]:
        """Top-level modules that the protected files in use import."""
        origins = (origin for source in self._in_use for origin in (*source.imports.values(), *source.stars))
        return {origin.partition(".")[0] for origin in origins}

    @functools.cached_property
    def called(self) -> set[str]:
        """Dotted names of other modules that the protected files in use call."""
        calls = ((source, node.func) for source in self._in_use for node in source.all(ast.Call))
        return {source.dotted(function) for source, function in calls if source.is_imported(root(function))}

    def names_in(self, source: Source) -> dict[str, str]:
        """Local names in ``source`` that protected modules, or names from them, are imported as -> origin."""
        return {local: origin for local, origin in source.imports.items() if owner(origin, self.named)}


def check_rebinding(before: Sequence[Source], after: Sequence[Source], protected: Protected) -> None:
    """Refuse what ``after`` does to protected names and ``before`` did not."""
    earlier = {source.path: source for source in before}
    for source in after:
        old = earlier.get(source.path)
        names = protected.names_in(source) | (protected.names_in(old) if old else {})
        known = {ast.dump(node) for node, _ in _Reader(old, names, protected).findings()} if old else set()
        for node, what in _Reader(source, names, protected).findings():
            if ast.dump(node) not in known:
                raise RefusedError(
                    f"{what}: {source.quote(node)}",
                    hint="Leave protected code as it is; give a version of your own a name of its own.",
                    code="seed_ignored" if SEED_VARIABLE in what else "rebinding",
                )


def unread_budget(before: Sequence[Source], after: Sequence[Source], others: Collection[str]) -> list[str]:
    """A note where nothing reads the time budget any more; ``others`` are texts of unchanged files."""
    old = [source.quote(node) for source in before for node in _budget_reads(source)]
    still = any(True for source in after for _ in _budget_reads(source))
    still = still or any(name in text for text in others for name in BUDGET_VARIABLES)
    return [] if still or not old else [f"nothing reads the time budget any more; before: {old[0]}"]


def check_shadowing(
    added: Collection[str], config: Config, protected: Protected, *, searched_anywhere: bool = False
) -> None:
    """Refuse a new file that would be imported in place of a protected module or of what it imports.

    ``searched_anywhere``: the code changes ``sys.path``, so that any folder may be one to import from.
    """
    roots = import_roots(config)
    for path in sorted(added):
        if path.endswith((".py", ".so", ".pyd", ".pyc")):
            taken = protected.modules | protected.imported | _ALWAYS_LOADED
            above = map(str, PurePosixPath(path).parents) if searched_anywhere else ()
            for name in module_names(path.partition(".")[0], [*roots, *above]) & taken:
                raise RefusedError(
                    f"{path} would be imported in place of the module {name}, which protected code needs.",
                    hint=f"Give {path} a name of its own (git mv, or mv while it is untracked).",
                    code="rebinding",
                )


def _budget_reads(source: Source) -> Iterator[ast.AST]:
    yield from (node for node in source.strings() if node.value in BUDGET_VARIABLES)
    local = {name for name, origin in source.imports.items() if origin.endswith(".TIME_BUDGET")}
    yield from (node for node in source.all(ast.Name) if node.id in local)
    yield from (node for node in source.all(ast.Attribute) if node.attr == "TIME_BUDGET")


class _Reader:
    """Finds in one file the statements and calls that change protected names.

    ``names`` are local names that belong to protected modules, also those of the file before the edit.
    """

    def __init__(self, source: Source, names: Mapping[str, str], protected: Protected) -> None:
        self._source = source
        self._names = names
        self._protected = protected

    def findings(self) -> Iterator[tuple[ast.AST, str]]:
        for binding in self._source.bindings:
            if isinstance(binding.place, ast.Attribute | ast.Subscript):
                yield from self._said(binding.node, self._changed(binding.place))
            elif not isinstance(self._source.home(binding), ast.ClassDef):
                value = self._source.dotted(binding.value) if binding.value else ""
                yield from self._said(binding.node, self._taken(binding.target, value))
        for statement in self._source.all(ast.Import, ast.ImportFrom):
            for alias in statement.names:
                origin = f"{getattr(statement, 'module', None) or ''}.{alias.name}".lstrip(".")
                if not owner(origin, self._protected.modules):
                    yield from self._said(statement, self._taken(alias.asname or alias.name, origin))
        for call in self._source.all(ast.Call):
            if call.args or call.keywords:
                yield from self._said(call, self._called(call))

    @staticmethod
    def _said(node: ast.AST, what: str) -> Iterator[tuple[ast.AST, str]]:
        if what:
            yield node, what

    def _taken(self, name: str, value: str) -> str:
        """Giving ``name`` the dotted ``value``: is it a protected name, and another value than its own?"""
        if name in self._names and value != self._names[name]:
            return f"this takes the name of {self._names[name]}"
        return "this replaces print, by which the metric is printed" if name == "print" else ""

    def _changed(self, place: ast.Attribute | ast.Subscript) -> str:
        """Assigning to ``place``, or deleting it."""
        touched = self._touched(place.value)
        if touched:
            return f"this changes {touched} from outside"
        if found := {self._source.dotted(place), self._source.dotted(place.value)} & _FINDERS:
            return _hooked(found.pop())
        if isinstance(place, ast.Attribute):
            dotted = self._source.dotted(place) if self._source.is_imported(root(place)) else ""
            if dotted.startswith(("time.", "builtins.")) or dotted in self._protected.called:
                return f"this replaces {dotted}, on which protected code relies"
            return f"this replaces {dotted}, where the metric is read" if dotted in _STREAMS else ""
        table, key = self._source.dotted(place.value), text_of(place.slice)
        if table == "os.environ" and key in (SEED_VARIABLE, *BUDGET_VARIABLES):
            return f"{key} is set by the runner"
        if table == "sys.modules" and owner(key, self._protected.modules):
            return f"this puts another module in the place of {key}"
        return self._taken(key, "") if ast.unparse(place.value) == "globals()" else ""

    def _touched(self, node: ast.expr) -> str:
        """The protected module, or the thing from a named one, that ``node`` is or is part of; else ""."""
        while True:
            match node:
                case ast.Call(func=ast.Name(id="vars" | "getattr"), args=[part, *_]):
                    node = part
                case ast.Subscript(value=part) if self._source.dotted(part) != "sys.modules":
                    node = part
                case ast.Attribute(value=part) if node.attr.startswith("__") or not self._source.dotted(node):
                    node = part
                case _:
                    break
        if isinstance(node, ast.Name | ast.Attribute) and not self._source.is_imported(root(node)):
            return ""
        dotted = self._source.dotted(node)
        return dotted if dotted in self._protected.modules or owner(dotted, self._protected.named) else ""

    def _called(self, call: ast.Call) -> str:
        """What a call with arguments changes."""
        function = self._source.dotted(call.func)
        first = call.args[0] if call.args else call.keywords[0].value
        if function in _SETTERS and len(call.args) > 1:
            return self._changed(ast.Attribute(value=first, attr=text_of(call.args[1])))
        if isinstance(call.func, ast.Attribute) and call.func.attr in _TABLE_METHODS:
            keys = [*first.keys] if isinstance(first, ast.Dict) else [first]
            keys += [ast.Constant(keyword.arg) for keyword in call.keywords]
            places = [ast.Subscript(value=call.func.value, slice=key) for key in keys if key is not None]
            return next(filter(None, map(self._changed, places)), "")
        if isinstance(call.func, ast.Attribute) and (finder := self._source.dotted(call.func.value)) in _FINDERS:
            return _hooked(finder)
        if function in _LOADERS or _PATCHERS.fullmatch(function):
            named = text_of(first).removesuffix(".py")
            touched = self._touched(first) or (named if owner(named, self._protected.modules) else "")
            return f"this changes {touched} from outside, or loads it anew" if touched else ""
        if function in ("exec", "eval"):
            words = set(re.findall(r"\w+", text_of(first))) & {*self._names, *self._protected.named}
            return f"this runs code from a string that names {min(words)}" if words else ""
        return ""


def _hooked(finder: str) -> str:
    return f"this changes {finder}, by which the modules of protected code are found"
