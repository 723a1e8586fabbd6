"""The lines of a program that print the metric, and which expression's value they print.

A line is found by rendering it: string constants as they are, a different number for every value
that is filled in, and the result held against the metric's pattern. So the number that the pattern
reads names the expression that is printed. Not seen: a metric's name that is put together at run
time; a change of what one statement prints behind the name that another has printed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from autoresearch.config import Config
from autoresearch.guard.source import Source, text_of

_PERCENT = re.compile(r"%(?:\(\w+\))?[-+ #0]*[\d*]*(?:\.[\d*]+)?[diouxXeEfFgGcrsa]")
_BRACES = re.compile(r"\{[^{}]*\}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*(e[-+]?\d+)?|\.\d+|nan|inf)", re.IGNORECASE)
_FORMS = ("0.{:06d}", "{}")  # a pattern may ask for decimals, or for a whole number
_PADDING = {"ljust", "rjust", "center", "strip", "lstrip", "rstrip", "encode"}
_MAKERS = {"format", "join", "dumps"}  # methods that return text
_SHELLS = re.compile(r"os\.(system|popen|write|exec\w+|spawn\w+)|subprocess\.\w+")


@dataclass(frozen=True)
class Line:
    """A statement (of a compound one, the expression) that prints the metric."""

    source: Source
    node: ast.AST
    key: str  # equal for equal code, wherever it stands
    value: ast.expr | None  # what is printed; None: a number spelled out

    @property
    def quoted(self) -> str:
        return self.source.quote(self.node)


def metric_lines(source: Source, config: Config) -> Iterator[Line]:
    """The places in ``source`` whose output the metric's pattern would read."""
    pattern = re.compile(config.metric.pattern, re.MULTILINE)
    calls = (node for node in source.all(ast.Call) if _may_print(node))
    sums = (node for node in source.all(ast.BinOp) if _is_text(node))
    found: dict[ast.AST, ast.expr | None] = {}
    for node in (*calls, *source.all(ast.JoinedStr), *sums, *source.strings()):
        for value in _values_read(node, pattern):
            found.setdefault(_unit(source, node), value)
    for node in source.strings():
        if config.metric.name in text_of(node) and _goes_to_a_shell(source, node):
            found.setdefault(_unit(source, node), None)
    for unit, value in found.items():
        yield Line(source, unit, ast.dump(unit), value)


def _may_print(call: ast.Call) -> bool:
    """Whether the call is given text, or makes some; all others are left out for speed."""
    return getattr(call.func, "attr", "") in _MAKERS or any(map(_is_text, call.args))


def _goes_to_a_shell(source: Source, node: ast.AST) -> bool:
    calls = (above for above in source.ancestors(node) if isinstance(above, ast.Call))
    return any(_SHELLS.fullmatch(source.dotted(call.func)) for call in calls)


def metric_entries(source: Source, name: str) -> Iterator[Line]:
    """``{name: value}``, ``table[name] = value`` and ``f(name=value)``: where a whole table is printed."""
    for table in source.all(ast.Dict):
        for key, value in zip(table.keys, table.values, strict=True):
            if text_of(key) == name:
                yield Line(source, value, ast.dump(value), value)
    for assign in source.all(ast.Assign):
        for target in assign.targets:
            if isinstance(target, ast.Subscript) and text_of(target.slice) == name:
                yield Line(source, assign, ast.dump(assign.value), assign.value)
    for keyword in source.all(ast.keyword):
        if keyword.arg == name:
            yield Line(source, keyword.value, ast.dump(keyword.value), keyword.value)


def _values_read(node: ast.expr, pattern: re.Pattern[str]) -> Iterator[ast.expr | None]:
    for form in _FORMS:
        drawing = _Drawing(form)
        text = drawing.call(node) if isinstance(node, ast.Call) else drawing.text(node)
        for match in pattern.finditer(text.replace("\r", "\n")):
            if match[1] in drawing.values:
                yield drawing.values[match[1]]
            elif _NUMBER.fullmatch(match[1] or ""):
                yield None
        if not drawing.values:  # the other form would give the same text
            return


@dataclass
class _Drawing:
    """Renders an expression as text and remembers which number stands for which part of it."""

    form: str
    values: dict[str, ast.expr] = field(default_factory=dict)

    def hole(self, node: ast.expr) -> str:
        text = self.form.format(len(self.values) + 1)
        self.values[text] = node
        return text

    def call(self, node: ast.Call) -> str:
        """What the call would print, were it ``print`` or a logger."""
        if getattr(node.func, "attr", "") in _MAKERS:
            return self.text(node)
        if len(node.args) > 1 and _PERCENT.search(text_of(node.args[0])):
            return self.filled(_PERCENT, text_of(node.args[0]), node.args[1:])
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        text = (text_of(keywords.get("sep")) or " ").join(self.text(argument) for argument in node.args)
        # print("name: ", end="") leaves the value to the next print.
        return text + self.hole(node) if "end" in keywords and text.rstrip().endswith((":", "=")) else text

    def text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=constant) | ast.FormattedValue(value=ast.Constant(value=constant)):
                return str(constant)
            case ast.JoinedStr(values=parts):
                return "".join(self.text(part) for part in parts)
            case ast.FormattedValue(value=value):
                return self.hole(value)
            case ast.BinOp(left=left, op=ast.Add(), right=right) if _is_text(left) or _is_text(right):
                return self.text(left) + self.text(right)
            case ast.BinOp(left=left, op=ast.Mod(), right=right) if _is_text(left):
                return self.filled(_PERCENT, self.text(left), right.elts if isinstance(right, ast.Tuple) else [right])
            case ast.Call(func=ast.Name(id="str" | "repr" | "format"), args=[value, *_]):
                return self.text(value)
            case ast.Call(func=ast.Attribute(value=value, attr="format"), args=parts) if _is_text(value):
                return self.filled(_BRACES, self.text(value), [*parts, *(k.value for k in node.keywords)])
            case ast.Call(func=ast.Attribute(value=value, attr="join"), args=[ast.List(elts=p) | ast.Tuple(elts=p)]):
                return text_of(value).join(self.text(part) for part in p)
            case ast.Call(func=ast.Attribute(attr="dumps"), args=[ast.Dict() as table, *_]):
                return self.text(table)
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in _PADDING and _is_text(value):
                return self.text(value)
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return "{" + ", ".join(f'"{text_of(key)}": {self.text(value)}' for key, value in pairs) + "}"
        return self.hole(node)

    def filled(self, fields: re.Pattern[str], text: str, parts: Sequence[ast.expr]) -> str:
        left = list(parts)
        return fields.sub(lambda _: self.text(left.pop(0)) if left else "", text)


def _is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str() | bytes()) | ast.JoinedStr() | ast.Call(func=ast.Name(id="str" | "repr")):
            return True
        case ast.BinOp(left=left, op=ast.Add() | ast.Mod()):
            return _is_text(left)
        case ast.Call(func=ast.Attribute(value=value)):
            return _is_text(value)
    return False


def _unit(source: Source, node: ast.AST) -> ast.AST:
    """The statement around ``node``; the whole expression where that is part of a compound statement."""
    for above in source.ancestors(node):
        if isinstance(getattr(above, "body", None), list):
            break
        node = above
    return node
