"""Values that Python source states literally: numbers and paths that can be read without running it."""

from __future__ import annotations

import ast
import os
import posixpath
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

Value = str | int | float

_ENVIRONMENT = ("os.environ.get", "os.getenv", "environ.get", "getenv")
_UNCHANGED = (
    "str",
    "int",
    "float",
    "expanduser",
    "expandvars",
    "abspath",
    "realpath",
    "resolve",
    "absolute",
    "normpath",
)


@dataclass(frozen=True, kw_only=True)
class Constant:
    """A name and its value; a path is posix, ``~`` is the home folder, a relative one is the project's."""

    name: str
    value: Value
    line: int
    from_environment: bool  # an environment variable can change it


def constants(tree: ast.Module, path: str) -> Iterator[Constant]:
    """The module-level assignments and option defaults in ``tree``, which was read from the file ``path``."""
    known: dict[str, Value] = {}
    for node in tree.body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=expression):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as expression):
                pass
            case _:
                continue
        value = fold(expression, known, path)
        if value is None:
            known.pop(name, None)
            continue
        known[name] = value
        yield Constant(name=name, value=value, line=node.lineno, from_environment=_asks_environment(expression))
    for call in options(tree):
        default = next((keyword.value for keyword in call.keywords if keyword.arg == "default"), None)
        value = None if default is None else fold(default, known, path)
        if value is not None:
            yield Constant(name=option_name(call), value=value, line=call.lineno, from_environment=False)


def options(tree: ast.Module) -> Iterator[ast.Call]:
    """Calls that declare a command line option: argparse's, click's and typer's."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args and option_name(node):
            yield node


def option_name(call: ast.Call) -> str:
    """``data_dir`` for ``add_argument("-d", "--data-dir", …)``; "" if the call declares no long option."""
    return option_flag(call).removeprefix("--").replace("-", "_")


def option_flag(call: ast.Call) -> str:
    """``--data-dir`` for the same."""
    if _name_of(call.func).rpartition(".")[2] not in ("add_argument", "option", "Option"):
        return ""
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and argument.value.startswith("--"):
            return argument.value.partition("/")[0]
    return ""


def fold(node: ast.expr, known: Mapping[str, Value], path: str) -> Value | None:
    """The value of an expression of literals, ``known`` names and the usual path functions, or None."""
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.Name(id="__file__"):
            return path
        case ast.Name(id=name):
            return known.get(name)
        case ast.Attribute(value=base, attr="parent"):
            folded = fold(base, known, path)
            return _parent(folded) if isinstance(folded, str) else None
        case ast.BinOp(left=left, op=operator, right=right):
            return _calculate(fold(left, known, path), operator, fold(right, known, path))
        case ast.JoinedStr(values=parts):
            if any(isinstance(part, ast.FormattedValue) and part.format_spec for part in parts):
                return None
            texts = [fold(part.value if isinstance(part, ast.FormattedValue) else part, known, path) for part in parts]
            return None if None in texts else "".join(map(str, texts))
        case ast.Call(func=function, args=arguments):
            return _call(function, arguments, known, path)
    return None


def _calculate(left: Value | None, operator: ast.operator, right: Value | None) -> Value | None:
    match left, operator, right:
        case str(), ast.Div(), str():
            return posixpath.normpath(posixpath.join(left, right))
        case str(), ast.Add(), str():
            return left + right
        case int() | float(), ast.Add(), int() | float():
            return left + right
        case int() | float(), ast.Sub(), int() | float():
            return left - right
        case int() | float(), ast.Mult(), int() | float():
            return left * right
        case int() | float(), ast.Div(), int() | float() if right:
            return left / right
        case int(), ast.Pow(), int() if abs(left) <= 1000 and 0 <= right <= 64:  # a typing error costs no minutes
            return int(left**right)
    return None


def _call(function: ast.expr, arguments: list[ast.expr], known: Mapping[str, Value], path: str) -> Value | None:
    name = _name_of(function)
    short = name.rpartition(".")[2] or (function.attr if isinstance(function, ast.Attribute) else "")
    values = [fold(argument, known, path) for argument in arguments]
    if name in _ENVIRONMENT and values:
        return os.environ.get(str(values[0]), values[1] if len(values) > 1 else None)
    if name in ("Path.home", "pathlib.Path.home"):
        return "~"
    if None in values:
        return None
    texts = [str(value) for value in values]
    method_of = fold(function.value, known, path) if isinstance(function, ast.Attribute) else None
    parts: list[str] = []
    if name.endswith("path.join") or short == "Path":
        parts = texts
    elif short == "joinpath" and method_of is not None:
        parts = [str(method_of), *texts]
    if parts:
        return posixpath.normpath(posixpath.join(*parts))
    if short == "dirname" and len(texts) == 1:
        return _parent(texts[0])
    if short in _UNCHANGED:
        value = method_of if not values else values[0]
        return _as_number(value) if short in ("int", "float") else value
    return None


def _as_number(value: Value | None) -> Value | None:
    try:
        return float(value) if value is not None else None
    except ValueError:
        return None


def _parent(path: str) -> str:
    return posixpath.dirname(path) or "."


def _name_of(node: ast.expr) -> str:
    """``os.path.join`` for that chain of names; "" for anything else."""
    match node:
        case ast.Name(id=name):
            return name
        case ast.Attribute(value=base, attr=attribute):
            before = _name_of(base)
            return f"{before}.{attribute}" if before else ""
    return ""


def _asks_environment(node: ast.expr) -> bool:
    return re.search(r"\b(environ|getenv)\b", ast.unparse(node)) is not None
