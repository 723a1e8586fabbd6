"""What to change next where nobody has an idea: one constant after the other, around the incumbent's values.

Pure functions of the incumbent's source and of what was tried, so a killed sweep goes on as if nothing had
happened. A hill climb rather than a sampler of a fixed space: there is no space given, only a place that
works, and the keep rule says which step is one upwards.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from autoresearch.campaign.points import literals

Number = int | float

# A name with one of these words is not for tuning: it says how long is trained, on what, how it is measured, where
# it runs or what is printed.
_LEFT_ALONE = {
    *("budget", "time", "timeout", "untimed", "seconds", "minutes", "hours", "deadline", "seed", "seeds", "rng"),
    *("eval", "evaluation", "val", "valid", "validation", "test", "metric", "holdout", "heldout", "benchmark"),
    *("data", "dataset", "datasets", "corpus", "shard", "shards", "split", "classes", "labels", "pad", "index"),
    *("vocab", "vocabulary", "tokenizer", "token", "tokens"),
    *("seq", "seqlen", "sequence", "context", "ctx", "len", "length", "maxlen"),
    *("log", "logging", "print", "report", "save", "checkpoint", "ckpt", "interval", "every", "freq", "frequency"),
    *("verbose", "debug", "version", "port", "device", "devices", "gpu", "gpus", "cpu", "cpus", "cuda", "thread"),
    *("threads", "worker", "workers", "prefetch", "world", "local", "flops", "vram", "memory"),
}
_TRAINING_LENGTH = {"steps", "iters", "iterations", "epoch", "epochs", "updates"}
_PART_OF_TRAINING = {"warmup", "warmdown", "cooldown", "rampup", "decay", "accum", "accumulation"}
_FRACTIONS = {
    *("ratio", "frac", "fraction", "dropout", "drop", "prob", "probability", "momentum", "beta", "betas"),
    *("smoothing", "ema"),
}
# A width that is no multiple of the number of heads, or the like, crashes.
_SIZES = {
    *("head", "heads", "dim", "dims", "size", "width", "embd", "embed", "hidden", "channels", "batch"),
    *("group", "groups", "experts", "rank"),
}

# In the order in which they are tried: by two first, for what a smaller step does drowns in the noise of seeds.
FACTORS = (2.0, 1.5, 3.0, 1.2, 5.0, 1.1)
_DOUBLINGS = (2.0, 4.0)
_SMALL = 16  # whole numbers up to here go up and down by one as well
_FROM_ZERO = {"fraction": (0.1, 0.05, 0.2, 0.5), "float": (0.01, 0.1, 0.001, 1.0), "whole": (1, 2)}


class Outcome(StrEnum):
    """What came of an attempt, as far as the next one is concerned."""

    KEPT = "kept"
    PROMISING = "promising"  # better, but not by enough
    OPEN = "open"
    WORSE = "worse"
    CRASHED = "crashed"
    NO_EFFECT = "no effect"  # the same metric to the last digit


# In places on the ladder.
_MOMENTUM = 100.0
_PENALTY = {
    Outcome.KEPT: 0.0, Outcome.PROMISING: -0.5, Outcome.OPEN: 1.0, Outcome.WORSE: 2.0, Outcome.CRASHED: 4.0,
    Outcome.NO_EFFECT: 4.0,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Tunable:
    """A number that the incumbent's source states at top level."""

    name: str
    path: str
    value: Number
    text: str = ""  # as it is written there

    @property
    def words(self) -> frozenset[str]:
        return words_of(self.name)

    @property
    def is_learning_rate(self) -> bool:
        return ("lr" in self.words or {"learning", "rate"} <= self.words) and not self.words & _FRACTIONS

    @property
    def is_fraction(self) -> bool:
        """Whether it makes sense from 0 to 1 only: by its name, or as a number just below 1, such as a decay."""
        if isinstance(self.value, int) or self.is_learning_rate or not 0 <= self.value <= 1:
            return False
        return bool(self.words & _FRACTIONS) or 0.8 <= self.value < 1


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A decided experiment that set constants to ``values`` where incumbent ``on`` had ``before``."""

    number: int
    on: int
    before: Mapping[str, Number]
    values: Mapping[str, Number]
    outcome: Outcome


Proposal = tuple[tuple[Tunable, Number], ...]  # constants and their new values
Key = tuple[tuple[str, Number], ...]  # a proposal by names


# ---- which constants


def words_of(name: str) -> frozenset[str]:
    """``{"max", "seq", "len"}`` for ``MAX_SEQ_LEN`` and for ``maxSeqLen``."""
    return frozenset(word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name))


def is_left_alone(name: str) -> bool:
    """Whether the name says that the constant is no part of the method."""
    words = words_of(name)
    return bool(words & _LEFT_ALONE or (words & _TRAINING_LENGTH and not words & _PART_OF_TRAINING)) or (
        {"block", "size"} <= words or {"random", "state"} <= words
    )


def tunables(sources: Mapping[str, str]) -> list[Tunable]:
    """The numbers to tune in ``sources`` (text by path), learning rates first, for they matter most.

    Left out is what a name says that is no part of the method, a name that is given a value more than
    once, which is a variable, and one that nothing reads.
    """
    given, read = _names(sources.values())
    found = [
        one
        for one in numbers(sources)
        if given[one.name] == 1 and one.name in read and one.value >= 0 and not is_left_alone(one.name)
    ]
    return sorted(found, key=lambda one: not one.is_learning_rate)


def numbers(sources: Mapping[str, str]) -> Iterator[Tunable]:
    """Every number that a file of ``sources`` states at top level, but for choices between two."""
    for path, source in sources.items():
        for name, literal in literals(source).items():
            if literal is None or literal.is_choice or isinstance(literal.value, bool):
                continue
            if isinstance(literal.value, int | float):
                yield Tunable(name=name, path=path, value=literal.value, text=literal.text)


def _names(sources: Iterable[str]) -> tuple[Counter[str], set[str]]:
    """(how often each name is given a value, the names that are read) in all of the files."""
    given, read = Counter[str](), set[str]()
    for source in sources:
        try:
            tree = ast.parse(source)
        except (SyntaxError, ValueError):
            continue
        for node in ast.walk(tree):
            match node:
                case ast.Name(id=name, ctx=ast.Load()) | ast.Attribute(attr=name):
                    read.add(name)
                case ast.Name(id=name):
                    given[name] += 1
                case ast.ImportFrom(names=names):
                    read.update(alias.name for alias in names)
    return given, read


# ---- the values around a value


def ladder(one: Tunable, *, up: bool) -> list[Number]:
    """Values above (or below) the present one, in the order in which to try them, each as it is written."""
    value, fraction = one.value, one.is_fraction
    if value == 0:
        kind = "whole" if isinstance(value, int) else "fraction" if fraction else "float"
        return list(_FROM_ZERO[kind]) if up else []
    if isinstance(value, int):
        steps: list[Number] = list(_whole(value, up=up, is_size=bool(one.words & _SIZES)))
        lowest, highest = 0.0, float("inf")
    elif fraction and value >= 0.5:  # what counts is how far it is from 1: 0.9, 0.95, 0.975
        gap = 1 - value
        steps = [_rounded(1 - _short(gap / factor if up else gap * factor)) for factor in FACTORS] if gap else []
        steps = steps or ([] if up else [0.9, 0.8, 0.5])
        lowest, highest = 0.0, 1.0
    else:
        steps = [_short(value * factor if up else value / factor) for factor in FACTORS]
        lowest, highest = 0.0, 1.0 if fraction else float("inf")
    beyond = [step for step in steps if (step > value if up else step < value) and lowest < step <= highest]
    return list(dict.fromkeys(beyond))


def _whole(value: int, *, up: bool, is_size: bool) -> Iterator[int]:
    steps_of_one = [value + 1, value + 2] if up else [value - 1, value - 2]
    if value > _SMALL or is_size:
        steps_of_one = []
    yield from steps_of_one[:1]
    power_of_two = value & (value - 1) == 0
    for factor in _DOUBLINGS if power_of_two or value <= _SMALL else FACTORS:
        step = value * factor if up else value / factor
        if step == int(step) or not (power_of_two or is_size):
            yield int(step if step == int(step) else _short(step))
        yield from steps_of_one[1:] if factor == _DOUBLINGS[0] else ()


def _short(number: float) -> float:
    """Two digits are enough: the third is noise, and only makes the diff hard to read."""
    return float(f"{number:.2g}")


def _rounded(number: float) -> float:
    """Without what binary arithmetic leaves behind: 1 - 0.05 / 1.5 is 0.967."""
    return float(f"{number:.10g}")


def written(one: Tunable, value: Number) -> str:
    """``value`` as source code, in the manner of the present one: ``2**18``, ``15_000``."""
    if isinstance(value, int):
        power = re.fullmatch(r"2(\s*\*\*\s*)\d+", one.text)
        if power and value & (value - 1) == 0:
            return f"2{power[1]}{value.bit_length() - 1}"
        return f"{value:_}" if "_" in one.text else str(value)
    return repr(value)


# ---- which next


def propose(
    found: Sequence[Tunable],
    attempts: Sequence[Attempt],
    incumbent: int,
    refused: Collection[Key] = (),
) -> Proposal | None:
    """The next change of the incumbent's constants ``found``, or None where nothing is left to try.

    A keep is followed further in its direction. Else small steps of all constants come before large
    ones, and a direction in which something was worse, or crashed, comes later the worse it was. When
    every single change was tried, two constants change at once. Nothing is proposed twice for one
    incumbent; ``refused`` names what cannot be run at all.
    """
    tried = {key_of(attempt.values.items()) for attempt in attempts if attempt.on == incumbent} | set(refused)
    for attempt in attempts:
        if attempt.number == incumbent:  # to undo the step that led here is to try the incumbent before it again
            tried.add(key_of((name, attempt.before[name]) for name in attempt.values))
    costs: dict[tuple[Tunable, Number], float] = {}
    for one in found:
        known = list(_known(one, attempts))
        for up in (True, False):
            bonus = _MOMENTUM if _goes_on(one, attempts, incumbent, up=up) else 0.0
            for rung, value in enumerate(ladder(one, up=up)):
                costs[one, value] = rung + _penalty(one, value, known, up=up) - bonus
    singles: list[Proposal] = [(step,) for step in costs]
    pairs = ((a, b) for a, b in itertools.combinations(costs, 2) if a[0].name != b[0].name)
    for candidates in (singles, pairs):
        new = (steps for steps in candidates if key_of((one.name, value) for one, value in steps) not in tried)
        best = min(new, key=lambda steps: sum(costs[step] for step in steps), default=None)
        if best is not None:
            return best
    return None


def key_of(changes: Iterable[tuple[str, Number]]) -> Key:
    """What a proposal is known by."""
    return tuple(sorted(changes))


def _singles(attempts: Iterable[Attempt], name: str) -> Iterator[Attempt]:
    """The attempts that changed this constant alone: only they say something about it."""
    return (attempt for attempt in attempts if attempt.values.keys() == {name} and name in attempt.before)


def _penalty(one: Tunable, value: Number, known: Iterable[tuple[Number, float]], *, up: bool) -> float:
    """Of all that is known in this direction: in full at and beyond it, half before it."""
    penalty = 0.0
    for at, price in known:
        if at > one.value if up else at < one.value:
            penalty += price if (value >= at if up else value <= at) else price / 2
        elif at == one.value:
            penalty += price
    return penalty


def _known(one: Tunable, attempts: Iterable[Attempt]) -> Iterator[tuple[Number, float]]:
    """(value, its penalty); at the present value stands what holds of every other."""
    for attempt in _singles(attempts, one.name):
        value = attempt.values[one.name]
        if attempt.outcome is Outcome.NO_EFFECT:
            yield one.value, _PENALTY[attempt.outcome]
        elif value != one.value:
            yield value, _PENALTY[attempt.outcome]
        if attempt.outcome is Outcome.KEPT:  # what a keep came from is worse than it
            yield attempt.before[one.name], _PENALTY[Outcome.WORSE]


def _goes_on(one: Tunable, attempts: Sequence[Attempt], incumbent: int, *, up: bool) -> bool:
    """Whether the incumbent came by a step in this direction, and no step on from it has failed yet."""
    came_by = [
        attempt
        for attempt in _singles(attempts, one.name)
        if attempt.number == incumbent and (attempt.values[one.name] > attempt.before[one.name]) == up
    ]
    misses = (attempt for attempt in _singles(attempts, one.name) if attempt.on == incumbent)
    return bool(came_by) and not any((attempt.values[one.name] > one.value) == up for attempt in misses)
