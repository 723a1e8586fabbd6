"""The metric is the evaluator's: the lines that print it stay, and so does the way of its number to them.

A number that came straight from a call into a protected module must still do so. It is followed back
through names, parameters, tuples, and functions of the same file. Not seen: an evaluator called
properly on a model or on data that deceive it; anything about a metric that the edited file itself
computes, which only the reader of the diff can judge.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard.printed import Line, metric_entries, metric_lines
from autoresearch.guard.source import FUNCTIONS, Binding, Function, Source, owner, parameters

_SAME_NUMBER = {"item", "cpu", "detach", "float"}  # methods that leave the value as it is
_NO_NUMBER = re.compile(r"None|float\(['\"][-+]?(nan|inf)['\"]\)|(math|np|numpy|torch)\.(nan|inf)", re.IGNORECASE)
_DEPTH = 12  # names and calls on the way from a line to its evaluator

Origins = frozenset[str]


def check_metric(before: Sequence[Source], after: Sequence[Source], config: Config, protected: Collection[str]) -> None:
    """Refuse an edit that changes a line printing the metric, or takes its number from elsewhere.

    ``protected`` are dotted names of modules.
    """
    name = config.metric.name
    old = [line for source in before for line in metric_lines(source, config)]
    new = [line for source in after for line in metric_lines(source, config)]
    if not old and not new:  # then entries of a table count, and another table may have one as well
        old = [line for source in before for line in metric_entries(source, name)]
        keys = {line.key for line in old}
        new = [line for source in after for line in metric_entries(source, name) if line.key in keys]
    keys_old, keys_new = {line.key for line in old}, {line.key for line in new}
    if keys_old != keys_new:
        gone = [line.quoted for line in old if line.key not in keys_new]
        raise line_changed(name, gone, [line.quoted for line in new if line.key not in keys_old])
    for line in new:
        _check_origin(name, line, [other for other in old if other.key == line.key], protected)


def line_changed(name: str, gone: Sequence[str], new: Sequence[str]) -> RefusedError:
    """The error for lines printing the metric that are ``gone`` or ``new``, each as text for a reader."""
    said = [f"the line that prints {name} is the evaluator's and may not change:"]
    said += [f"  was {where}" for where in gone[:3]] + [f"  new {where}" for where in new[:3]]
    back = "Put it back as it was" if gone else "Take it out"
    hint = f"{back}; what else you print needs a line of its own, under another name than {name}."
    return RefusedError("\n".join(said), hint=hint, code="metric_line")


def _check_origin(name: str, line: Line, earlier: Iterable[Line], protected: Collection[str]) -> None:
    known = [_Tracer(other.source, protected).origins(other.value) for other in earlier]
    evaluators = Origins().union(*(origins for origins in known if origins))
    tracer = _Tracer(line.source, protected)
    origins = tracer.origins(line.value)
    if evaluators and not (origins and origins <= evaluators):
        called = " or ".join(sorted(evaluators))
        raise RefusedError(
            f"{name} no longer is what {called} returned: {line.source.quote(tracer.blame or line.node)}",
            hint=f"Print the value of {called} untouched; its arguments may change, the number may not.",
            code="metric_line",
        )


class _Tracer:
    """Follows values of one file back to calls into protected modules.

    Origins are None where anything else has a part in a value, and empty for what is no number, such
    as None or nan. ``index`` picks an element where the value is unpacked.
    """

    def __init__(self, source: Source, protected: Collection[str]) -> None:
        self._source = source
        self._protected = protected
        self._open: set[Binding | Function] = set()  # being followed already: a loop adds nothing
        self.blame: ast.AST | None = None  # what was met first that is no such call

    def origins(self, node: ast.expr | None, index: int | None = None, depth: int = 0) -> Origins | None:
        found = None if node is None or depth > _DEPTH else self._origins(node, index, depth + 1)
        if found is None:
            self.blame = self.blame or node
        return found

    def _origins(self, node: ast.expr, index: int | None, depth: int) -> Origins | None:  # noqa: PLR0912 - a table
        suffix = "" if index is None else f"[{index}]"
        match node:
            case ast.Name(id=name):
                bindings, function = self._source.visible(name, node)
                found = [self._binding(binding, index, depth) for binding in bindings]
                if function is not None:
                    found += [self.origins(argument, index, depth) for argument in self._arguments(function, name)]
                return _united(found)
            case ast.Call(func=function) if self._is_protected(function):
                return Origins({f"{self._source.dotted(function)}(){suffix}"})
            case ast.Call() | ast.Attribute() if _NO_NUMBER.fullmatch(ast.unparse(node)):
                return Origins()
            case ast.Constant(value=None):
                return Origins()
            case ast.Call(func=ast.Name(id="float"), args=[value]):
                return self.origins(value, index, depth)
            case ast.Call(func=ast.Name(id=name)):
                return self._returned(name, index, depth)
            case ast.Call(func=ast.Attribute(value=value, attr=method)):
                if method in _SAME_NUMBER:
                    return self.origins(value, index, depth)
                own = self._returned(method, index, depth)
                return own if own is not None else self._part(value, f".{method}(){suffix}", depth)
            case ast.Attribute(value=value) | ast.Subscript(value=value):
                bindings = self._source.given(ast.unparse(node))
                if bindings:
                    return _united([self._binding(binding, index, depth) for binding in bindings])
                return self._part(value, ast.unparse(node)[len(ast.unparse(value)) :] + suffix, depth)
            case ast.Tuple(elts=parts) if index is not None and index < len(parts):
                return self.origins(parts[index], None, depth)
            case ast.IfExp(body=body, orelse=other):
                return _united([self.origins(body, index, depth), self.origins(other, index, depth)])
            case ast.NamedExpr(value=value):
                return self.origins(value, index, depth)
        return None

    def _part(self, whole: ast.expr, part: str, depth: int) -> Origins | None:
        found = self.origins(whole, None, depth)
        return None if found is None else Origins(one + part for one in found)

    def _binding(self, binding: Binding, index: int | None, depth: int) -> Origins | None:
        if binding in self._open or isinstance(binding.node, ast.Delete):
            return Origins()
        self._open.add(binding)
        found = self.origins(binding.value, index if binding.index is None else binding.index, depth)
        self._open.discard(binding)
        if binding.value is None:
            self.blame = self.blame or binding.node
        return found

    def _is_protected(self, function: ast.expr) -> bool:
        """Whether a protected module is called, by a name that is given nothing else in the file."""
        if not owner(self._source.dotted(function), self._protected):
            return False
        if not isinstance(function, ast.Name):
            return True
        bindings, parameter_of = self._source.visible(function.id, function)
        origins = [self._source.dotted(binding.value) if binding.value else "" for binding in bindings]
        return parameter_of is None and all(owner(origin, self._protected) for origin in origins)

    def _returned(self, name: str, index: int | None, depth: int) -> Origins | None:
        """What the file's own functions of that name return."""
        found: list[Origins | None] = []
        for function in self._source.all(*FUNCTIONS):
            if function.name == name and function not in self._open:
                self._open.add(function)
                returns = (node for node in self._source.all(ast.Return) if self._source.scope(node) is function)
                found += [self.origins(node.value, index, depth) for node in returns if node.value is not None]
                self._open.discard(function)
        return _united(found)

    def _arguments(self, function: Function, name: str) -> Iterator[ast.expr | None]:
        """What the file's calls of ``function`` pass for its parameter ``name``; None where nothing."""
        names = parameters(function)
        position = names.index(name) - (names[0] in ("self", "cls"))
        for call in self._source.all(ast.Call):
            if function.name in (getattr(call.func, "id", ""), getattr(call.func, "attr", "")):
                by_name = [keyword.value for keyword in call.keywords if keyword.arg == name]
                yield by_name[0] if by_name else call.args[position] if position < len(call.args) else None


def _united(parts: Sequence[Origins | None]) -> Origins | None:
    """All origins together; None if there are none to unite or one is not known."""
    known = [part for part in parts if part is not None]
    return Origins().union(*known) if parts and len(known) == len(parts) else None
