"""The text that an expression would print, read off its syntax: constants as they are, a mark for every value."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from autoresearch.guard.source import text_of

MAKERS = {"format", "join", "dumps"}  # methods that return text
_PERCENT = re.compile(r"%(?:\(\w+\))?[-+ #0]*[\d*]*(?:\.[\d*]+)?[diouxXeEfFgGcrsa]")
_BRACES = re.compile(r"\{[^{}]*\}")
_PADDING = {"ljust", "rjust", "center", "strip", "lstrip", "rstrip", "encode"}


@dataclass(frozen=True)
class Drawing:
    """Draws expressions; ``hole`` says what stands for one whose value is known only at run time, or a number."""

    hole: Callable[[ast.expr], str]

    def call(self, node: ast.Call) -> str:
        """What the call would print, were it ``print`` or a logger."""
        if getattr(node.func, "attr", "") in MAKERS:
            return self.text(node)
        if len(node.args) > 1 and _PERCENT.search(text_of(node.args[0])):
            return self._filled(_PERCENT, text_of(node.args[0]), node.args[1:], node)
        keywords = {keyword.arg: keyword.value for keyword in node.keywords}
        text = (text_of(keywords.get("sep")) or " ").join(self.text(argument) for argument in node.args)
        # print("name: ", end="") leaves the value to the next print.
        return text + self.hole(node) if "end" in keywords and text.rstrip().endswith((":", "=")) else text

    def text(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=str() as text):
                return text
            case ast.FormattedValue(value=value):
                return self.text(value) if isinstance(value, ast.Constant) else self.hole(value)
            case ast.JoinedStr(values=parts):
                return "".join(self.text(part) for part in parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right) if is_text(left) or is_text(right):
                return self.text(left) + self.text(right)
            case ast.BinOp(left=left, op=ast.Mod(), right=ast.Tuple(elts=parts)) if is_text(left):
                return self._filled(_PERCENT, self.text(left), parts, node)
            case ast.BinOp(left=left, op=ast.Mod(), right=right) if is_text(left):
                return self._filled(_PERCENT, self.text(left), itertools.repeat(right), node)
            case ast.Call(func=ast.Name(id="str" | "repr" | "format"), args=[value, *_]):
                return self.text(value)
            case ast.Call(func=ast.Attribute(value=value, attr="format"), args=parts) if is_text(value):
                return self._filled(_BRACES, self.text(value), [*parts, *(k.value for k in node.keywords)], node)
            case ast.Call(func=ast.Attribute(value=value, attr="join"), args=[ast.List(elts=p) | ast.Tuple(elts=p)]):
                return text_of(value).join(self.text(part) for part in p)
            case ast.Call(func=ast.Attribute(attr="dumps"), args=[ast.Dict() as table, *_]):
                return self.text(table)
            case ast.Call(func=ast.Attribute(value=value, attr=method)) if method in _PADDING and is_text(value):
                return self.text(value)
            case ast.Dict(keys=keys, values=values):
                pairs = zip(keys, values, strict=True)
                return "{" + ", ".join(f'"{text_of(key)}": {self.text(value)}' for key, value in pairs) + "}"
        return self.hole(node)

    def _filled(self, fields: re.Pattern[str], text: str, parts: Iterable[ast.expr], whole: ast.expr) -> str:
        """``text`` with ``parts`` in its fields; where they cannot be told apart, ``whole`` stands for a field."""
        left = iter(parts)
        return fields.sub(lambda _: self.text(part) if (part := next(left, None)) else self.hole(whole), text)


def is_text(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=str() | bytes()) | ast.JoinedStr() | ast.Call(func=ast.Name(id="str" | "repr")):
            return True
        case ast.BinOp(left=left, op=ast.Add() | ast.Mod()):
            return is_text(left)
        case ast.Call(func=ast.Attribute(value=value)):
            return is_text(value)
    return False
