"""``autoresearch.yaml``: read, validated, frozen.

Every mistake is one ``UsageError`` that names the key, quotes the value and says what was expected.
"""

from __future__ import annotations

import functools
import math
import re
import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from autoresearch.constraint import Constraint
from autoresearch.errors import UsageError, near_names

if TYPE_CHECKING:
    import yaml

CONFIG_FILE = "autoresearch.yaml"
DIRECTIONS = ("lower", "higher")
BOLDNESS = ("strict", "default", "fast")
ISOLATIONS = ("worktree", "inplace")
EXECUTORS = ("local", "slurm", "ray")
MOST_PARALLEL = 256


def default_pattern(name: str) -> str:
    """The pattern of karpathy's summary lines: ``name:   value`` at the start of a line."""
    return rf"^{re.escape(name)}:\s*(\S+)"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """The one number a campaign improves."""

    name: str
    direction: str = "lower"
    pattern: str = ""

    @property
    def lower_is_better(self) -> bool:
        return self.direction == "lower"


@dataclass(frozen=True, kw_only=True)
class Keep:
    """How sure a keep must be; the meaning of each number is the keep rule's."""

    boldness: str = "default"
    baseline_seeds: int = 3
    min_seeds: int = 1
    max_seeds: int = 6
    retest_every: int = 8


@dataclass(frozen=True, kw_only=True)
class Executor:
    """Where trials run. ``options`` holds what only one kind understands."""

    kind: str = "local"
    devices: str = "auto"
    parallel: int = 1  # trials of this campaign at once
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Config:
    """A campaign's settings. Paths are relative to the project, times in seconds."""

    command: str
    metric: Metric
    edit: tuple[str, ...] = ("train.py",)
    protect: tuple[str, ...] = ()  # outranks folders and globs under `edit`; all but `edit` is protected anyway
    watch: Mapping[str, str] = field(default_factory=dict)  # name -> pattern
    constraints: tuple[Constraint, ...] = ()
    data: tuple[str, ...] = ()  # must exist; fingerprinted
    link: tuple[str, ...] = ()  # ignored paths that a clean checkout needs, linked into it
    budget_s: float = 300.0
    timeout_factor: float = 2.0
    startup_s: float = 0.0  # added to the kill limit: start-up and compilation are not training
    stall_s: float = 0.0
    progress: str = ""  # pattern with the named groups percent and loss
    evaluate_command: str = ""
    test_command: str = ""
    prune: bool = True
    keep: Keep = field(default_factory=Keep)
    isolation: str = "worktree"
    executor: Executor = field(default_factory=Executor)
    push: bool = False
    remote: str = "origin"
    notify: tuple[str, ...] = ()

    @property
    def limit_s(self) -> float:
        """A trial is killed this long after its start."""
        return self.timeout_factor * self.budget_s + self.startup_s

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, complete, and read back by ``from_dict``."""
        data = asdict(self)
        data["constraints"] = [constraint.text for constraint in self.constraints]
        places = {key: data["executor"][key] for key in ("kind", "devices", "parallel")}
        data["executor"] = {**places, **self.executor.options}
        return {key: list(value) if isinstance(value, tuple) else value for key, value in data.items()}

    def shown(self) -> dict[str, Any]:
        """``to_dict`` without the secrets that channels hold."""
        return {**self.to_dict(), "notify": masked(self.notify)}

    @classmethod
    def from_dict(cls, data: Any, *, source: str = CONFIG_FILE, flags: Mapping[str, str] | None = None) -> Self:
        """Validate ``data`` as parsed from YAML or JSON; ``flags`` are the keys that flags gave, and these."""
        top = _Section(data, source, "", flags=flags or {})
        metric = top.section("metric", {"name", "direction", "pattern"})
        name = metric.text("name", required=True)
        if not re.fullmatch(r"[\w./@%-]+", name):
            metric.fail("name", "a name without spaces, as the log prints it")
        keep = top.section("keep", set(Keep.__dataclass_fields__))
        executor = top.section("executor", None)
        config = cls(
            command=top.command("command", required=True),
            metric=Metric(
                name=name,
                direction=metric.choice("direction", DIRECTIONS, "lower"),
                pattern=metric.pattern("pattern", default_pattern(name)),
            ),
            edit=top.paths("edit", ("train.py",)),
            protect=top.paths("protect"),
            watch=top.patterns("watch"),
            constraints=top.constraints("constraints"),
            data=top.texts("data"),
            link=top.paths("link"),
            budget_s=top.number("budget_s", 300.0, above=0.0, at_most=30 * 86400.0),
            timeout_factor=top.number("timeout_factor", 2.0, at_least=1.0, at_most=100.0),
            startup_s=top.number("startup_s", 0.0, at_least=0.0, at_most=86400.0),
            stall_s=top.number("stall_s", 0.0, at_least=0.0),
            progress=top.progress("progress"),
            evaluate_command=top.command("evaluate_command"),
            test_command=top.command("test_command"),
            prune=top.flag("prune", True),
            keep=Keep(
                boldness=keep.choice("boldness", BOLDNESS, "default"),
                baseline_seeds=keep.whole("baseline_seeds", 3, at_least=1, at_most=100),
                min_seeds=keep.whole("min_seeds", 1, at_least=1, at_most=100),
                max_seeds=keep.whole("max_seeds", 6, at_least=1, at_most=100),
                retest_every=keep.whole("retest_every", 8, at_least=0, at_most=10_000),
            ),
            isolation=top.choice("isolation", ISOLATIONS, "worktree"),
            executor=Executor(
                kind=executor.choice("kind", EXECUTORS, "local"),
                devices=executor.devices("devices"),
                parallel=executor.whole("parallel", 1, at_least=1, at_most=MOST_PARALLEL),
                options=executor.rest({"kind", "devices", "parallel"}),
            ),
            push=top.flag("push", False),
            remote=top.text("remote", "origin"),
            notify=top.texts("notify"),
        )
        if config.keep.min_seeds > config.keep.max_seeds:
            keep.fail("min_seeds", f"at most keep.max_seeds, which is {config.keep.max_seeds}")
        if config.isolation == "inplace" and config.executor.parallel > 1:
            executor.fail("parallel", "1 with `isolation: inplace`: trials at once need a checkout each")
        for path in config.edit:
            if path in config.protect:
                key, other = ("protect", "edit") if top.is_flag("protect") else ("edit", "protect")
                top.fail(key, f"a path that is not under `{other}` as well ({path} is under both)")
        for constraint in config.constraints:
            if constraint.name != config.metric.name and constraint.name not in config.watch:
                top.fail("constraints", f"the metric or a name under `watch`, not {constraint.name!r}")
        return config

    @classmethod
    def parse(cls, text: str, *, source: str = CONFIG_FILE, flags: Mapping[str, str] | None = None) -> Self:
        """Validate the text of an ``autoresearch.yaml``."""
        return cls.from_dict(load_yaml(text, source=source), source=source, flags=flags)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read and validate the file at ``path``."""
        return cls.parse(read_config_text(path), source=path.name)


def read_config_text(path: Path) -> str:
    """The text of the config at ``path``, its line ends as they are."""
    try:
        return path.read_bytes().decode("utf-8")
    except FileNotFoundError:
        raise UsageError(
            f"{path} does not exist.", hint="python scripts/setup_campaign.py writes one.", code="no_config"
        ) from None
    except IsADirectoryError:
        raise UsageError(
            f"{path} is a folder; expected the file of the settings.",
            hint="Move it out of the way, and run the command again.",
            code="config_type",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is not UTF-8 text.", hint=f"Save {path.name} as UTF-8.", code="config_syntax"
        ) from None


def load_yaml(text: str, *, source: str = CONFIG_FILE) -> Any:
    """What the text of a config says, not validated."""
    import yaml  # the loop takes its settings from the ledger, and need not wait for this

    try:
        return yaml.load(text, Loader=_loader())  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" at line {where.line + 1}" if where else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise UsageError(
            f"{source} is not valid YAML{line}: {problem}.",
            hint=f"Mend that line of {source}; patterns are safest in single quotes.",
            code="config_syntax",
        ) from None


@functools.cache
def _loader() -> type[yaml.SafeLoader]:
    """A SafeLoader that refuses a key given twice, which YAML readers else resolve silently."""
    import yaml

    class Loader(yaml.SafeLoader):
        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            seen: set[str] = set()
            for key_node, _ in node.value:
                key = str(getattr(key_node, "value", key_node))
                if key in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key!r} is given twice", key_node.start_mark
                    )
                seen.add(key)
            return super().construct_mapping(node, deep)

    return Loader


_PLACES = {  # where each key stands; "" is the top level
    "": set(Config.__dataclass_fields__),
    "metric": set(Metric.__dataclass_fields__),
    "keep": set(Keep.__dataclass_fields__),
    "executor": {"kind", "devices", "parallel", "gpus_per_trial", "cpus_per_trial", "wait_for_gpu_s"},
}


class _Section:
    """One mapping of the config, with the readers that turn its values into checked ones."""

    def __init__(
        self, data: Any, source: str, path: str, known: set[str] | None = None, *, flags: Mapping[str, str]
    ) -> None:
        self.source, self.path, self.flags = source, path, flags
        if data is None:
            data = {}
        if not isinstance(data, dict):
            raise UsageError(
                f"{source}: {path.rstrip('.') or 'the file'} must be a mapping of keys to values, not {_quote(data)}.",
                hint=f"Write it as `key: value` lines in {source}.",
                code="config_type",
            )
        self.data = data
        if path == "":
            known = set(Config.__dataclass_fields__)
        if known is not None:
            self._refuse_unknown(known)

    def _refuse_unknown(self, known: set[str]) -> None:
        for key in self.data:
            if key not in known:
                raise UsageError(
                    f"{self.source}: unknown key {self.path}{key} (value {_quote(self.data[key])}).",
                    hint=f"{self._meant(str(key), known)}Known keys: {', '.join(sorted(known))}.",
                    code="config_unknown_key",
                )

    def _meant(self, key: str, known: set[str]) -> str:
        """Which key ``key`` may be a slip of: one of this mapping, or one that stands in another."""
        here = self.path.rstrip(".")
        elsewhere = {name: place for place, names in _PLACES.items() if place != here for name in names}
        if key not in elsewhere and (near := near_names(key, known)):
            return f"Did you mean {self.path}{near[0]}? "
        if not (near := near_names(key, elsewhere)):
            return ""
        place = elsewhere[near[0]]
        meant = f"{place}.{near[0]}, under `{place}:`" if place else f"{near[0]}, at the top level"
        return f"Did you mean {meant}? "

    def fail(self, key: str, expected: str) -> None:
        """Raise the error for a value that does not fit."""
        value = self.data.get(key)
        if flag := self.flags.get(f"{self.path}{key}"):
            raise UsageError(
                f"{flag} is {_quote(value)}; expected {expected}.",
                hint=f"Give {flag} another value, or leave it out (--help).",
                code="config_value",
            )
        raise UsageError(
            f"{self.source}: {self.path}{key} is {_quote(masked(value) if key == 'notify' else value)}; "
            f"expected {expected}.",
            hint=f"Change {self.path}{key} in {self.source}, then run the command again.",
            code="config_value",
        )

    def section(self, key: str, known: set[str] | None) -> _Section:
        return _Section(self.data.get(key), self.source, f"{self.path}{key}.", known, flags=self.flags)

    def is_flag(self, key: str) -> bool:
        return f"{self.path}{key}" in self.flags

    def rest(self, but: set[str]) -> dict[str, Any]:
        return {str(key): value for key, value in self.data.items() if key not in but}

    def text(self, key: str, default: str = "", *, required: bool = False) -> str:
        value = self.data.get(key)
        if value in (None, "") and not required:
            return default
        if not isinstance(value, str) or not value.strip() or "\0" in value:
            self.fail(key, "a text that is not empty" + ("" if key in self.data else " (the key is missing)"))
        return str(value).strip()

    def command(self, key: str, *, required: bool = False) -> str:
        value = self.text(key, required=required)
        try:
            shlex.split(value)
        except ValueError as error:
            self.fail(key, f"a command line as a shell reads it ({str(error).lower()})")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self.data.get(key, [])
        if isinstance(value, str):
            value = [value]
        if value is None:
            value = []
        if not isinstance(value, list) or not all(
            isinstance(item, str) and item.strip() and "\0" not in item for item in value
        ):
            self.fail(key, "a list of texts")
        return tuple(item.strip() for item in value)

    def paths(self, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
        if key not in self.data:
            return default
        paths = self.texts(key)
        if default and not paths:
            self.fail(key, "at least one path")
        for path in paths:
            parts = Path(path).parts
            if Path(path).is_absolute() or ".." in parts or not parts:
                self.fail(key, f"paths inside the project, relative to it (not {path!r})")
        return tuple(dict.fromkeys(Path(path).as_posix() for path in paths))

    def choice(self, key: str, choices: tuple[str, ...], default: str) -> str:
        value = self.data.get(key, default)
        if value not in choices:
            self.fail(key, f"one of: {', '.join(choices)}")
        return str(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self.data.get(key, default)
        if not isinstance(value, bool):
            self.fail(key, "true or false")
        return bool(value)

    def number(
        self,
        key: str,
        default: float,
        *,
        above: float = -math.inf,
        at_least: float = -math.inf,
        at_most: float = math.inf,
    ) -> float:
        value = self.data.get(key, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not abs(value) <= sys.float_info.max:  # nor NaN, nor a whole number beyond floats
            self.fail(key, "a number")
        number = float(value)
        if not (number > above and at_least <= number <= at_most):
            low = f"above {above:g}" if above > -math.inf else f"at least {at_least:g}"
            self.fail(key, f"a number {low}" + (f" and at most {at_most:g}" if at_most < math.inf else ""))
        return number

    def whole(self, key: str, default: int, *, at_least: int, at_most: int) -> int:
        value = self.data.get(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or not at_least <= value <= at_most:
            self.fail(key, f"a whole number from {at_least} to {at_most}")
        return int(value)

    def pattern(self, key: str, default: str) -> str:
        value = self.data.get(key, default)
        if not isinstance(value, str) or not value:
            self.fail(key, "a regular expression in quotes")
        self.check_pattern(key, str(value))
        return str(value)

    def check_pattern(self, key: str, value: str) -> None:
        try:
            compiled = re.compile(value, re.MULTILINE)
        except (re.error, OverflowError) as error:
            self.fail(key, f"a regular expression ({error})")
        else:
            if compiled.groups != 1:
                self.fail(key, f"a regular expression with one group for the value (it has {compiled.groups})")

    def progress(self, key: str) -> str:
        value = self.text(key)
        if value:
            try:
                names = set(re.compile(value).groupindex)
            except (re.error, OverflowError) as error:
                self.fail(key, f"a regular expression ({error})")
            else:
                if not names or not names <= {"percent", "loss"}:
                    self.fail(key, "a regular expression with the named groups (?P<percent>…) and (?P<loss>…)")
        return value

    def patterns(self, key: str) -> dict[str, str]:
        """``[name, …]`` or ``{name: pattern, …}``."""
        value = self.data.get(key)
        if isinstance(value, dict):
            for name, pattern in value.items():
                if not isinstance(pattern, str):
                    self.fail(key, f"a regular expression for {name}")
                self.check_pattern(key, pattern)
            return {str(name): pattern for name, pattern in value.items()}
        return {name: default_pattern(name) for name in self.texts(key)}

    def constraints(self, key: str) -> tuple[Constraint, ...]:
        found = []
        for text in self.texts(key):
            try:
                found.append(Constraint.parse(text))
            except ValueError:
                self.fail(key, f"`name <= number` or `name <= 1.1 * baseline` (not {text!r})")
        return tuple(found)

    def devices(self, key: str) -> str:
        value = self.data.get(key, "auto")
        if isinstance(value, list):
            value = ",".join(str(item) for item in value)
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)
        if not isinstance(value, str) or not re.fullmatch(r"auto|cpu|\w[\w,:/-]*", value):
            self.fail(key, "auto, cpu, or device numbers such as 0,1")
        return str(value)


def masked(value: Any) -> Any:
    """Channels of ``notify`` as they may be shown: the service of a URL, the path of a file, nothing of other texts."""
    match value:
        case list() | tuple():
            return [masked(item) for item in value]
        case dict():
            return {key: masked(item) for key, item in value.items()}
        case str() if not value.startswith(("~", "/")):
            return _without_address(value) if "://" in value else "…"
    return value


def _without_address(value: Any) -> Any:
    """``value`` with each URL in it cut after its scheme: it may hold a password, wherever it was put by mistake."""
    match value:
        case list():
            return [_without_address(item) for item in value]
        case dict():
            return {_without_address(key): _without_address(item) for key, item in value.items()}
        case str():
            return re.sub(r"(?s)://.*", "://…", value)
    return value


def _quote(value: Any) -> str:
    text = repr(_without_address(value))
    return text if len(text) <= 80 else text[:77] + "…"
