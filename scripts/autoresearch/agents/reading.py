"""Reading a profile's YAML: every mistake is one error that names the key, the value and what was expected."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Self

import yaml

from autoresearch.errors import UsageError, near_names


def merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """``over`` on top of ``base``, key by key in mappings at any depth; lists are replaced."""
    both = dict(base)
    for key, value in over.items():
        below = both.get(key)
        both[key] = merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return both


def parse(path: Path) -> dict[str, Any]:
    """The mapping that the file holds."""
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not UTF-8 text.", hint=f"Save {path.name} as UTF-8.", code="profile") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" at line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(
            f"{path.name} is not valid YAML{line}: {problem}.",
            hint="Mend that line; patterns are safest in single quotes.",
            code="profile",
        ) from None
    if not isinstance(data, dict):
        raise UsageError(
            f"{path.name}: it must be a mapping of keys to values, not {shortened(data)}.",
            hint="Start it with `extends: claude`, or with `name:` and `command:`.",
            code="profile",
        )
    return data


class Reader:
    """One mapping of a profile; every reader checks its value and names the key that is wrong."""

    def __init__(self, data: Any, source: str, path: str = "") -> None:
        self.source, self.path = source, path
        self.data: dict[str, Any] = {} if data is None else data
        if not isinstance(self.data, dict):
            self.refuse(path.rstrip("."), data, "a mapping of keys to values")

    def refuse(self, key: str, value: Any, expected: str) -> NoReturn:
        raise UsageError(
            f"{self.source}: {key} is {shortened(value)}; expected {expected}.",
            hint=f"Change {key} in {self.source}.",
            code="profile",
        )

    def fail(self, key: str, expected: str) -> NoReturn:
        """Raise the error for the value of ``key``."""
        self.refuse(f"{self.path}{key}", self.data.get(key), expected)

    def only(self, *known: str) -> Self:
        """Itself, if it has no other keys."""
        for key, value in self.data.items():
            if key not in known:
                near = near_names(str(key), known)
                raise UsageError(
                    f"{self.source}: unknown key {self.path}{key} (value {shortened(value)}).",
                    hint=(f"Did you mean {self.path}{near[0]}? " if near else "") + f"Known keys: {', '.join(known)}.",
                    code="profile",
                )
        return self

    def section(self, key: str) -> Reader:
        return Reader(self.data.get(key), self.source, f"{self.path}{key}.")

    def sections(self, key: str) -> Iterator[tuple[str, Reader]]:
        """The mappings below ``key``, by their names."""
        below = self.section(key)
        for name in below.data:
            yield str(name), below.section(name)

    def text(self, key: str, default: str = "") -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or "\0" in value:
            self.fail(key, "a text")
        return value

    def required(self, key: str) -> str:
        if not (text := self.text(key).strip()):
            self.fail(key, "a text that is not empty")
        return text

    def choice(self, key: str, choices: Sequence[str], default: str = "") -> str:
        value = self.data.get(key, default)
        if value not in choices:
            self.fail(key, f"one of: {', '.join(choices)}")
        return str(value)

    def whole(self, key: str, at_most: int) -> int:
        value = self.data.get(key, 0)
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= at_most:
            self.fail(key, f"a whole number from 0 to {at_most}")
        return value

    def items(self, key: str) -> Iterator[Reader]:
        """The mappings in the list below ``key``."""
        value = self.data.get(key) or []
        if not isinstance(value, list):
            self.fail(key, "a list of mappings")
        return (Reader(each, self.source, f"{self.path}{key}.{at}.") for at, each in enumerate(value))

    def flag(self, key: str, *, default: bool = False) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return value

    def words(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        value = self.data.get(key, list(default))
        if not isinstance(value, list) or not all(isinstance(word, str) and "\0" not in word for word in value):
            self.fail(key, "a list of texts")
        return tuple(value)

    def keys(self, key: str) -> tuple[str, ...]:
        """Names of keys as tmux knows them; never a text that tmux would type letter by letter."""
        names = self.words(key)
        for name in names:
            if not re.fullmatch(r"(?:[CMS]-)*(?:\S|[A-Z][A-Za-z]{1,7}\d{0,2})", name):
                self.fail(key, f"names of keys, such as Enter, Escape, Down, C-c, 1 (not {name!r})")
        return names

    def mapping(self, key: str) -> dict[str, str]:
        below = self.section(key).data
        if not all(isinstance(name, str) and isinstance(value, str) for name, value in below.items()):
            self.fail(key, "a mapping of texts to texts; quote numbers")
        return dict(below)

    def numbers(self, key: str) -> dict[str, float]:
        below = self.section(key).data
        for value in below.values():
            if isinstance(value, bool) or not isinstance(value, int | float) or not value >= 0:
                self.fail(key, "numbers that are 0 or more")
        return dict(below)

    def pattern(self, key: str, *, group: bool = False) -> re.Pattern[str] | None:
        if self.data.get(key) is None:
            return None
        (compiled,) = self._compiled(key, [self.data[key]])
        if group and compiled.groups < 1:
            self.fail(key, "a regular expression with a group: what stands in the input box")
        return compiled

    def patterns(self, key: str) -> tuple[re.Pattern[str], ...]:
        value = self.data.get(key) or []
        return self._compiled(key, value if isinstance(value, list) else [value])

    def _compiled(self, key: str, texts: Sequence[Any]) -> tuple[re.Pattern[str], ...]:
        compiled = []
        for text in texts:
            if not isinstance(text, str) or not text:
                self.fail(key, f"regular expressions (not {shortened(text)})")
            try:
                compiled.append(re.compile(text, re.MULTILINE))
            except re.error as error:
                self.fail(key, f"a regular expression ({error})")
        return tuple(compiled)


def shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:79] + "…"
