"""A Python file as the guards read it: nodes by kind, their parents, imports, and what each name is given.

One walk over the tree at construction; the rest is looked up when asked. Names are resolved by
scope, attributes and subscripts by their text. Flow is not followed: all values that a name is
ever given in its scope count.
"""

from __future__ import annotations

import ast
import functools
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from autoresearch.config import Config

FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
Function = ast.FunctionDef | ast.AsyncFunctionDef
_WITHOUT_NODES = {"ctx", "op", "ops", "id", "attr", "arg", "kind", "type_comment", "level", "module"}
_QUOTED = 120


@dataclass(frozen=True, eq=False)
class Binding:
    """A name, attribute or subscript (``target``, its text) is given a value, or deleted."""

    target: str
    place: ast.AST  # the target itself; of a definition, the definition
    node: ast.AST  # the statement
    value: ast.expr | None  # None where no expression spells the value
    index: int | None = None  # position in the value, where that is unpacked


class Source:
    """A parsed file. Raises ``SyntaxError`` or ``ValueError`` if it does not parse."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.tree = ast.parse(text)
        self.lines = text.split("\n")
        self._parent: dict[ast.AST, ast.AST] = {}
        self._nodes: dict[type[ast.AST], list[Any]] = defaultdict(list)
        queue: list[ast.AST] = [self.tree]
        for node in queue:  # grows while we walk it
            self._nodes[type(node)].append(node)
            for field in _child_fields(node._fields):
                value = getattr(node, field, None)
                for child in value if isinstance(value, list) else (value,):
                    if isinstance(child, ast.AST):
                        self._parent[child] = node
                        queue.append(child)
        self.imports: dict[str, str] = {}  # local name -> dotted origin
        self.aliases: dict[str, str] = {}  # the same for names given an import as it is: p = prepare
        self.stars: list[str] = []  # modules of which all names are imported
        self._read_imports()

    def all(self, *kinds: type[ast.AST]) -> Iterator[Any]:
        """Every node of exactly these kinds."""
        for kind in kinds:
            yield from self._nodes[kind]

    def quote(self, node: ast.AST) -> str:
        """``file:line: `source line` ``, for a message."""
        line = getattr(node, "lineno", 1)
        text = self.lines[line - 1].strip()
        return f"{self.path}:{line}: `{text if len(text) <= _QUOTED else text[: _QUOTED - 1] + '…'}`"

    def ancestors(self, node: ast.AST) -> Iterator[ast.AST]:
        while (found := self._parent.get(node)) is not None:
            yield found
            node = found

    def scope(self, node: ast.AST) -> ast.AST:
        """The function, class or module whose body ``node`` is in."""
        kinds = (*FUNCTIONS, ast.ClassDef)
        return next((above for above in self.ancestors(node) if isinstance(above, kinds)), self.tree)

    def strings(self) -> Iterator[ast.Constant]:
        """Every string in the code; docstrings are not code."""
        for node in self.all(ast.Constant):
            if isinstance(node.value, str) and not isinstance(self._parent[node], ast.Expr):
                yield node

    # ---- names

    def _read_imports(self) -> None:
        for statement in self.all(ast.Import):
            for alias in statement.names:
                top = alias.name.partition(".")[0]
                self.imports[alias.asname or top] = alias.name if alias.asname else top
        for statement in self.all(ast.ImportFrom):
            package = f"{statement.module}." if statement.module else ""
            for alias in statement.names:
                if alias.name == "*":
                    self.stars.append(statement.module or "")
                else:
                    self.imports[alias.asname or alias.name] = package + alias.name
        for statement in self.all(ast.Assign):
            target, value = statement.targets[0], statement.value
            if isinstance(target, ast.Name) and target.id not in self.imports:
                known = isinstance(value, ast.Name | ast.Attribute) and self.is_imported(root(value))
                origin = self.dotted(value) if known else _module_by_name(self, value)
                if origin:
                    self.aliases[target.id] = origin

    def is_imported(self, name: str) -> bool:
        """Whether a local name stands for an import."""
        return name in self.imports or name in self.aliases

    def open_stars(self, names: Iterable[str], module: Source) -> None:
        """Where all names of ``module`` are imported, under one of its ``names``, say which these are."""
        for star in set(self.stars) & set(names):
            own = {binding.target for binding in module.bindings if module.home(binding) is module.tree}
            for name in own | set(module.imports):
                if name.isidentifier() and not name.startswith("_"):
                    self.imports.setdefault(name, f"{star}.{name}")

    def dotted(self, node: ast.expr) -> str:
        """``F.cross_entropy`` as ``torch.nn.functional.cross_entropy``; "" if it is no dotted name."""
        if isinstance(node, ast.Name):
            return self.imports.get(node.id) or self.aliases.get(node.id, node.id)
        if isinstance(node, ast.Attribute):
            base = self.dotted(node.value)
            return f"{base}.{node.attr}" if base else ""
        return _module_by_name(self, node)

    @functools.cached_property
    def bindings(self) -> list[Binding]:
        """All statements and expressions that bind, imports and parameters apart."""
        found: list[Binding] = []
        for node in self.all(ast.Assign):
            for target in node.targets:
                found += _unpack(target, node, node.value)
        for node in self.all(ast.AnnAssign, ast.NamedExpr):
            if node.value is not None:
                found += _unpack(node.target, node, node.value)
        for node in self.all(ast.AugAssign, ast.For, ast.AsyncFor):
            found += _unpack(node.target, node, None)
        for node in self.all(ast.withitem):
            if node.optional_vars is not None:
                found += _unpack(node.optional_vars, node.optional_vars, None)
        for node in self.all(ast.Delete):
            for target in node.targets:
                found += _unpack(target, node, None)
        found += [Binding(node.name, node, node, None) for node in self.all(*FUNCTIONS, ast.ClassDef)]
        return found

    @functools.cached_property
    def _by_target(self) -> Mapping[str, list[Binding]]:
        found: dict[str, list[Binding]] = defaultdict(list)
        for binding in self.bindings:
            found[binding.target].append(binding)
        return found

    @functools.cached_property
    def _globals(self) -> Mapping[ast.AST, set[str]]:
        found: dict[ast.AST, set[str]] = defaultdict(set)
        for node in self.all(ast.Global):
            found[self.scope(node)] |= set(node.names)
        return found

    def given(self, target: str) -> list[Binding]:
        """All bindings of a name, attribute or subscript, whatever their scope."""
        return self._by_target.get(target, [])

    def home(self, binding: Binding) -> ast.AST:
        """The scope that a binding binds in."""
        scope = self.scope(binding.node)
        return self.tree if binding.target in self._globals.get(scope, ()) else scope

    def visible(self, target: str, at: ast.AST) -> tuple[list[Binding], Function | None]:
        """The bindings of ``target`` that ``at`` sees, and the function that has it as parameter, or None."""
        if not target.isidentifier():
            return self.given(target), None
        for scope in (*(above for above in self.ancestors(at) if isinstance(above, FUNCTIONS)), self.tree):
            found = [binding for binding in self.given(target) if self.home(binding) is scope]
            if isinstance(scope, FUNCTIONS) and target in parameters(scope):
                return found, scope
            if found:
                return found, None
        return [], None


@functools.cache
def _child_fields(fields: tuple[str, ...]) -> list[str]:
    return [name for name in fields if name not in _WITHOUT_NODES]


def parameters(function: Function) -> list[str]:
    """Names of the parameters but ``*args`` and ``**kwargs``, in order."""
    spec = function.args
    return [argument.arg for argument in (*spec.posonlyargs, *spec.args, *spec.kwonlyargs)]


def root(node: ast.expr) -> str:
    """The leftmost name of ``a.b[c].d``, or ""."""
    while isinstance(node, ast.Attribute | ast.Subscript):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def text_of(node: ast.AST | None) -> str:
    """The value of a string constant, else ""."""
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def _module_by_name(source: Source, node: ast.expr) -> str:
    """``importlib.import_module("m")``, ``__import__("m")`` and ``sys.modules["m"]`` -> m."""
    if isinstance(node, ast.Call) and source.dotted(node.func) in ("importlib.import_module", "__import__"):
        return text_of(node.args[0]) if node.args else ""
    if isinstance(node, ast.Subscript) and source.dotted(node.value) == "sys.modules":
        return text_of(node.slice)
    return ""


def _unpack(target: ast.expr, node: ast.AST, value: ast.expr | None) -> Iterator[Binding]:
    if isinstance(target, ast.Starred):
        yield from _unpack(target.value, node, None)
    elif isinstance(target, ast.Tuple | ast.List):
        for index, element in enumerate(target.elts):
            for one in _unpack(element, node, value):
                yield Binding(one.target, one.place, node, one.value, index)
    else:
        name = target.id if isinstance(target, ast.Name) else ast.unparse(target)
        yield Binding(name, target, node, value)


# ---- modules of the project


def import_roots(config: Config) -> list[str]:
    """Folders that the programs import from: the top, ``src``, those of the scripts that run, and ``PYTHONPATH``'s."""
    commands = f"{config.command} {config.evaluate_command}"
    words = re.split(r"[\s;&|()'\"]+", commands)
    scripts = {posixpath.dirname(posixpath.normpath(word)) for word in words if word.endswith(".py")}
    given = ":".join(re.findall(r"\bPYTHONPATH=[\"']?([^\s;&|\"']+)", commands)).split(":")
    named = {posixpath.normpath(folder) for folder in given if folder}
    return sorted({"", "src"} | scripts | named)


def module_names(path: str, roots: Sequence[str]) -> set[str]:
    """The dotted names under which the Python file or the folder ``path`` can be imported."""
    parts = PurePosixPath(path).with_suffix("").parts
    if parts[-1:] == ("__init__",):
        parts = parts[:-1]
    tops = [PurePosixPath(folder).parts for folder in roots]
    return {".".join(parts[len(top) :]) for top in tops if parts[: len(top)] == top and len(parts) > len(top)}


def owner(dotted: str, modules: Iterable[str]) -> str:
    """The one of ``modules`` that a dotted name is, or lies in; else ""."""
    return next((name for name in modules if dotted == name or dotted.startswith(name + ".")), "")
