"""The lines of a program that print the metric, and which expression's value they print.

A line is found by rendering it: string constants as they are, a different number for every value
that is filled in, and the result held against the metric's pattern. So the number that the pattern
reads names the expression that is printed. Not seen: a metric's name that is put together at run
time; a change of what one statement prints behind the name that another has printed.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from autoresearch.config import Config
from autoresearch.guard.drawing import MAKERS, Drawing, is_text
from autoresearch.guard.source import Source, text_of

_NUMBER = re.compile(r"[-+]?(\d+\.?\d*(e[-+]?\d+)?|\.\d+|nan|inf)", re.IGNORECASE)
_FORMS = ("0.{:06d}", "{}")  # a pattern may ask for decimals, or for a whole number
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
    sums = (node for node in source.all(ast.BinOp) if is_text(node))
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
    return getattr(call.func, "attr", "") in MAKERS or any(map(is_text, call.args))


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
        numbers = _Numbers(form)
        drawing = Drawing(numbers.hole)
        text = drawing.call(node) if isinstance(node, ast.Call) else drawing.text(node)
        for match in pattern.finditer(text.replace("\r", "\n")):
            if match[1] in numbers.values:
                yield numbers.values[match[1]]
            elif _NUMBER.fullmatch(match[1] or ""):
                yield None
        if not numbers.values:  # the other form would give the same text
            return


@dataclass
class _Numbers:
    """Puts a different number for every value, and remembers which stands for which."""

    form: str
    values: dict[str, ast.expr] = field(default_factory=dict)

    def hole(self, node: ast.expr) -> str:
        if isinstance(node, ast.Constant):
            return str(node.value)
        text = self.form.format(len(self.values) + 1)
        self.values[text] = node
        return text


def _unit(source: Source, node: ast.AST) -> ast.AST:
    """The statement around ``node``; the whole expression where that is part of a compound statement."""
    for above in source.ancestors(node):
        if isinstance(getattr(above, "body", None), list):
            break
        node = above
    return node
