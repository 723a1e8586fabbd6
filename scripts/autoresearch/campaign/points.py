"""What a sweep varies: axes as the user writes them, their values, and samplers that choose points."""

from __future__ import annotations

import ast
import itertools
import math
import random
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoresearch.campaign.constants import fold
from autoresearch.errors import UsageError, near_names

SWEEP = "sweep"  # how the descriptions of a sweep's experiments begin
SIGNIFICANT_DIGITS = 4  # of a number drawn from a range: more only makes diffs hard to read
_NAME = re.compile(r"[A-Za-z_]\w*")
_SET_BY_US = re.compile(r"AUTORESEARCH_\w*|TIME_BUDGET|PYTHONHASHSEED|PYTHONUNBUFFERED")

Point = tuple[str, ...]  # one value for each axis, as it is written


class Kind(StrEnum):
    """Where a value goes; the word is the flag's."""

    SET = "set"
    ARG = "arg"
    ENV = "env"


@dataclass(frozen=True, kw_only=True)
class Range:
    """Numbers from ``low`` to ``high``, both included; whole ones if both bounds are written as such."""

    low: float
    high: float
    log: bool
    whole: bool

    def text(self, value: float) -> str:
        """A value as it is written, never outside the range."""
        if self.whole:
            return str(round(value))
        rounded = float(f"{value:.{SIGNIFICANT_DIGITS}g}")
        return repr(min(max(rounded, self.low), self.high))


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One thing that a sweep varies; ``values`` as they are written, empty where a ``range`` is given."""

    kind: Kind
    name: str
    values: tuple[str, ...] = ()
    range: Range | None = None

    @property
    def label(self) -> str:
        """The name as descriptions show it: ``LR``, ``--lr``, ``$LR``."""
        return {Kind.SET: "", Kind.ARG: "--", Kind.ENV: "$"}[self.kind] + self.name


def parse_axis(kind: Kind, text: str) -> Axis:
    """``NAME=a,b,c``, ``NAME=low:high`` or ``NAME=log:low:high``; ``UsageError`` for anything else."""
    flag = f"--{kind} {text!r}"
    name, equals, rest = text.partition("=")
    name = name.strip() if kind is Kind.SET else name.strip().removeprefix("--")
    if not equals or not name or (kind is not Kind.ARG and not _NAME.fullmatch(name)):
        raise UsageError(f"{flag} names nothing to vary; expected NAME=value,value.", hint=f"--{kind} LR=0.02,0.04")
    if kind is Kind.ENV and _SET_BY_US.fullmatch(name):
        raise UsageError(f"{flag}: {name} is set by the runner itself.", hint="Choose another variable.")
    bounds = _parse_range(rest, flag)
    if bounds is not None:
        return Axis(kind=kind, name=name, range=bounds)
    values = _split(rest)
    if "" in values:
        raise UsageError(f"{flag} has an empty value; expected {name}=value,value.", hint=f"--{kind} {name}=0.02,0.04")
    return Axis(kind=kind, name=name, values=tuple(dict.fromkeys(values)))


def _parse_range(text: str, flag: str) -> Range | None:
    log = text.startswith("log:")
    low, colon, high = text.removeprefix("log:").partition(":")
    try:
        bounds = (float(low), float(high)) if colon else None
    except ValueError:
        bounds = None
    if bounds is None:
        if log:
            raise UsageError(f"{flag} is no range; expected NAME=log:low:high.", hint="--set LR=log:0.001:0.1")
        return None
    if not all(map(math.isfinite, bounds)) or bounds[0] >= bounds[1] or (log and bounds[0] <= 0):
        expected = "0 < low < high" if log else "low < high"
        raise UsageError(f"{flag} is an empty range; expected {expected}.", hint="--set LR=0.01:0.1")
    whole = all(re.fullmatch(r"[+-]?\d+", bound.strip()) for bound in (low, high))
    return Range(low=bounds[0], high=bounds[1], log=log, whole=whole)


def _split(text: str) -> list[str]:
    """Split at the commas outside brackets and quotes, so that ``(0.8, 0.95)`` is one value."""
    parts, depth, quote = [""], 0, ""
    for char in text:
        if quote:
            quote = "" if char == quote else quote
        elif char in "\"'":
            quote = char
        elif char in "([{":
            depth += 1
        elif char in ")]}":
            depth -= 1
        elif char == "," and depth <= 0:
            parts.append("")
            continue
        parts[-1] += char
    return [part.strip() for part in parts]


# ---- constants in source


@dataclass(frozen=True, kw_only=True)
class Literal:
    """A literal, or arithmetic on literals, at the top level of a file: its value and where it stands, in bytes.

    A choice between two of a kind, ``8 if GPU else 2``, counts as one, and is replaced as a whole.
    """

    value: object  # of a choice the first
    is_choice: bool  # then only a run knows which of the two holds
    text: str  # as the source writes it
    start: int
    end: int


def literals(source: str) -> dict[str, Literal | None]:
    """The top-level names of ``source``, None for those whose value is no literal; {} if it is not Python."""
    data = source.encode("utf-8", "surrogateescape")
    try:
        body = ast.parse(data).body
    except (SyntaxError, ValueError):
        return {}
    starts = [0, *itertools.accumulate(len(line) for line in data.splitlines(keepends=True))]
    found: dict[str, Literal | None] = {}
    for node in body:
        match node:
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                pass
            case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
                pass
            case _:
                continue
        try:
            known = _literal(value)
        except ValueError:
            found[name] = None
            continue
        assert value.end_lineno is not None and value.end_col_offset is not None, "parsed from source"
        start, end = starts[value.lineno - 1] + value.col_offset, starts[value.end_lineno - 1] + value.end_col_offset
        text = data[start:end].decode(errors="replace")
        is_choice = isinstance(value, ast.IfExp)
        found[name] = Literal(value=known, is_choice=is_choice, text=text, start=start, end=end)
    return found


def _literal(node: ast.expr) -> object:
    """The value of a literal, of ``2**19`` or of a choice between two; ``ValueError`` for anything else."""
    if isinstance(node, ast.IfExp):
        first, second = _literal(node.body), _literal(node.orelse)
        if not _are_alike(first, second):
            raise ValueError("a choice between values of two kinds")
        return first
    if isinstance(node, ast.BinOp) and not any(isinstance(part, ast.Name | ast.Call) for part in ast.walk(node)):
        number = fold(node, {}, "")
        if _is_number(number):
            return number
    return ast.literal_eval(node)


def replace(source: str, values: Mapping[str, str]) -> str:
    """``source`` with the literals of the names in ``values`` replaced; all else stays to the byte."""
    data = source.encode("utf-8", "surrogateescape")
    known = literals(source)
    places = [(literal, text) for name, text in values.items() if (literal := known[name]) is not None]
    for literal, text in sorted(places, key=lambda place: place[0].start, reverse=True):
        data = data[: literal.start] + text.encode() + data[literal.end :]
    return data.decode("utf-8", "surrogateescape")


def locate(axis: Axis, sources: Mapping[str, str]) -> str:
    """The file of ``sources`` that defines the constant, its values checked against the present one."""
    names = {path: literals(source) for path, source in sources.items()}
    homes = [path for path, known in names.items() if axis.name in known]
    if not homes:
        near = near_names(axis.name, sorted({name for known in names.values() for name in known}), most=3)
        raise UsageError(
            f"There is no top-level constant {axis.name} in {', '.join(sources)}.",
            hint=f"Did you mean: {', '.join(near)}?" if near else "Name one that is assigned outside functions.",
            code="unknown_constant",
        )
    if len(homes) > 1:
        raise UsageError(f"{axis.name} is defined in {' and '.join(homes)}; expected one file.", hint="Rename one.")
    literal = names[homes[0]][axis.name]
    if literal is None:
        raise UsageError(
            f"{axis.name} in {homes[0]} is calculated; expected a literal such as 0.02.",
            hint=f"Write a literal there, run that as an experiment, then sweep {axis.name}.",
            code="not_a_literal",
        )
    for text in axis.values:
        _check_value(axis.name, text, literal.value)
    if axis.range is not None and not _is_number(literal.value):
        raise UsageError(f"{axis.name} is {literal.value!r}; a range needs a number.", hint="Give a list of values.")
    return homes[0]


def _check_value(name: str, text: str, present: object) -> None:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise UsageError(
            f"--set {name}: {text!r} is no Python literal.", hint=f"Quote texts: --set {name}='\"relu\"'"
        ) from None
    if not _are_alike(value, present) and value is not None and present is not None:
        raise UsageError(
            f"--set {name}: {text} is a {type(value).__name__}; expected a {type(present).__name__}.",
            hint="Give values of the same type.",
        )


def _are_alike(value: object, other: object) -> bool:
    return type(value) is type(other) or (_is_number(value) and _is_number(other))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# ---- points


def describe(axes: Sequence[Axis], point: Point, by: str = SWEEP) -> str:
    """The description of the point's experiment, from which ``parse_description`` reads it back."""
    pairs = zip(axes, point, strict=True)
    return f"{by}: " + " ".join(f"{axis.label}={_quoted(value)}" for axis, value in pairs)


def _quoted(value: str) -> str:
    return value if re.fullmatch(r"[^\s'\"\\]+", value) else shlex.quote(value)


def parse_description(axes: Sequence[Axis], description: str) -> Point | None:
    """The point that ``describe`` wrote, None if it is of other axes."""
    pairs = described(description, SWEEP)
    if pairs is None or [label for label, _ in pairs] != [axis.label for axis in axes]:
        return None
    return tuple(value for _, value in pairs)


def described(description: str, by: str) -> list[tuple[str, str]] | None:
    """(label, value) of each axis in a description that ``describe`` wrote; None if it did not."""
    if not description.startswith(f"{by}: "):
        return None
    try:
        words = shlex.split(description.removeprefix(f"{by}: "))
    except ValueError:
        return None
    return [(label, value) for label, _, value in (word.partition("=") for word in words)]


def grid(axes: Sequence[Axis]) -> Iterator[Point]:
    """Every combination, the last axis fastest."""
    yield from itertools.product(*(axis.values for axis in axes))


def random_points(axes: Sequence[Axis], seed: int) -> Iterator[Point]:
    """Points drawn independently; the same seed gives the same sequence, so a resumed sweep continues it."""
    source = random.Random(seed)
    while True:
        yield tuple(_draw(axis, source) for axis in axes)


def _draw(axis: Axis, source: random.Random) -> str:
    span = axis.range
    if span is None:
        return source.choice(axis.values)
    if span.log:
        return span.text(math.exp(source.uniform(math.log(span.low), math.log(span.high))))
    return span.text(
        source.randint(int(span.low), int(span.high)) if span.whole else source.uniform(span.low, span.high)
    )
