"""What the launcher knows of one agent client: how it starts, what its screens mean, which keys answer them.

A profile is data (YAML). The bundled ones lie in ``profiles/``; a user's own file may say
``extends: claude`` and give only what differs.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from autoresearch.agents.reading import Reader, merged, parse
from autoresearch.errors import UsageError

BUNDLED = Path(__file__).with_name("profiles")
STATES = ("starting", "dialog", "ready", "busy", "limit", "error", "exited", "unknown")
ENDINGS = (
    "limit", "overloaded", "rate_limited", "server_error", "auth", "billing", "model", "too_large", "context", "cut",
)  # fmt: skip
SOURCES = ("claude_sessions", "claude_hooks")
PLACES = ("last", "box", "below", "screen")
PLACEHOLDERS = ("python", "scripts", "project", "settings", "model", "session", "task")
LAST = "last"

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_FILE_ENDINGS = (".yaml", ".yml")


@dataclass(frozen=True, kw_only=True)
class Version:
    """How the client tells its version, and the oldest one that the profile was checked with."""

    argv: tuple[str, ...] = ("--version",)
    least: str = ""


@dataclass(frozen=True, kw_only=True)
class Args:
    """Words of the command line, by when they are wanted."""

    always: tuple[str, ...] = ()
    bypass: tuple[str, ...] = ()
    allowlist: tuple[str, ...] = ()
    settings: tuple[str, ...] = ()  # only where there is a settings file
    model: tuple[str, ...] = ()  # only where a model is asked for


@dataclass(frozen=True, kw_only=True)
class Resume:
    """How an earlier conversation is taken up: by its id, or the last one of this folder.

    ``task``: a task as an argument is taken then, too.
    """

    session: tuple[str, ...] = ()
    last: tuple[str, ...] = ()
    task: bool = True


@dataclass(frozen=True, kw_only=True)
class Root:
    """What a client wants to see in its environment before it works without asking as root."""

    variable: str
    value: str = "1"
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class StateRule:
    """A mark of a state and the only place where it counts.

    ``last`` is the last block above the input box, ``box`` what stands in it, ``below`` what stands
    under it; ``screen`` is the whole screen, and counts only where there is no input box.
    """

    state: str
    where: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class Look:
    """How this client's screen is read.

    ``input`` finds the input box in the lines of the screen, its group 1 is what stands in it.
    ``top`` is where a dialog begins: what stands above it is the transcript. ``skip`` are blocks of the
    transcript that say nothing about how the turn ended, ``mark`` knows a line that does not merely go on
    with the one before it. ``banner`` tells this client from others, ``busy_title`` is the terminal's title
    while a turn runs.
    """

    input: re.Pattern[str] | None = None
    placeholder: re.Pattern[str] | None = None
    top: re.Pattern[str] | None = None
    skip: re.Pattern[str] | None = None
    mark: re.Pattern[str] | None = None
    banner: re.Pattern[str] | None = None
    busy_title: re.Pattern[str] | None = None
    states: tuple[StateRule, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Dialog:
    """A question of the client. It is known only if each text of ``match`` and exactly ``options`` are there.

    ``marked`` is the row that must be marked for ``keys`` to be right, where Enter confirms the marked
    row; 0 where the keys are right whichever it is. ``handover``: the human decides, no key is ever pressed.
    """

    name: str
    match: tuple[re.Pattern[str], ...]
    options: tuple[re.Pattern[str], ...] = ()  # of a numbered menu, in their order; () where there is none
    keys: tuple[str, ...] = ()
    marked: int = 0
    handover: bool = False


@dataclass(frozen=True, kw_only=True)
class Ending:
    """A last line that tells how a turn failed. Of a limit, the group ``reset`` is the time it is over."""

    kind: str
    pattern: re.Pattern[str]


@dataclass(frozen=True, kw_only=True)
class Limit:
    """The menu that some clients open at a usage limit, and what closes it."""

    menu: tuple[re.Pattern[str], ...] = ()
    close: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Profile:
    """One agent client."""

    name: str
    command: tuple[str, ...]
    title: str = ""
    binary: str = ""  # what is looked up on PATH; "" where the command is always there
    install: str = ""
    version: Version = field(default_factory=Version)
    args: Args = field(default_factory=Args)
    task: str = "paste"  # argument | paste
    task_args: tuple[str, ...] = ("{task}",)
    resume: Resume = field(default_factory=Resume)
    environment: Mapping[str, str] = field(default_factory=dict)
    root: Root | None = None
    sources: tuple[str, ...] = ()  # what the client tells of itself beside its screen: claude_sessions, claude_hooks
    queues: bool = False  # takes a line while it is busy, and reads it later
    finishes: bool = False  # its end with status 0 is the end of the night's work
    screen: Look = field(default_factory=Look)
    dialogs: tuple[Dialog, ...] = ()
    endings: tuple[Ending, ...] = ()
    limit: Limit = field(default_factory=Limit)
    interrupt: tuple[str, ...] = ()
    leave: str = ""  # the line that asks the client to end
    pace: Mapping[str, float] = field(default_factory=dict)

    @property
    def obeys_allowlist(self) -> bool:
        """Whether ``settings.py`` can tell it what it may do: its own program, or none at all."""
        return "claude_hooks" in self.sources or not self.binary

    @property
    def listens(self) -> bool:
        """Whether anything can be said to it."""
        return self.screen.input is not None

    @property
    def takes_task(self) -> bool:
        """Whether the task of a new conversation reaches the client with its command line."""
        return self.task == "argument"

    @property
    def takes_task_again(self) -> bool:
        """Whether what is to be said to an old conversation does so, too."""
        return self.takes_task and self.resume.task

    def argv(
        self, *, permissions: str, scripts: Path, project: Path, settings: Path | None = None,
        model: str = "", conversation: str = "", task: str = "",
    ) -> list[str]:  # fmt: skip
        """The client's command line, with ``task`` where it is taken there.

        ``conversation`` is the id of the one to take up, LAST for the folder's last one, "" for a new one.
        """
        resume = {"": (), LAST: self.resume.last}.get(conversation, self.resume.session)
        given = task and (self.takes_task_again if conversation else self.takes_task)
        words = [
            *self.command,
            *resume,
            *self.args.always,
            *(self.args.allowlist if permissions == "allowlist" else self.args.bypass),
            *(self.args.settings if settings else ()),
            *(self.args.model if model else ()),
            *(self.task_args if given else ()),
        ]
        values = {
            "python": sys.executable, "scripts": str(scripts), "project": str(project), "settings": str(settings or ""),
            "model": model, "session": conversation, "task": task,
        }  # fmt: skip
        return [_filled(word, values) for word in words]


def bundled() -> list[str]:
    """The names of the profiles that come with the bundle."""
    return sorted(path.stem for path in BUNDLED.glob("*.yaml"))


def load_profile(name_or_path: str | Path) -> Profile:
    """The bundled profile of that name, else the YAML file there, else the user's own of that name.

    A name is looked up in ``~/.config/autoresearch/agents`` (or below ``XDG_CONFIG_HOME``).
    """
    data, path = _inherited(_find(str(name_or_path), Path.cwd()), ())
    return _read_profile(Reader(data, path.name))


def _find(name: str, here: Path) -> Path:
    if name in bundled():
        return BUNDLED / f"{name}.yaml"
    if "/" in name or name.endswith(_FILE_ENDINGS):
        path = here / Path(name).expanduser()
        if path.is_file():
            return path
        raise UsageError(f"there is no profile at {path}.", hint=_known_names(), code="no_profile")
    own = _own_folder()
    for ending in _FILE_ENDINGS:
        if (own / f"{name}{ending}").is_file():
            return own / f"{name}{ending}"
    raise UsageError(
        f"there is no agent {name!r}: it is neither bundled nor in {own}.", hint=_known_names(), code="no_profile"
    )


def _own_folder() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(base).expanduser() / "autoresearch" / "agents"


def _known_names() -> str:
    return f"Bundled agents: {', '.join(bundled())}; or give the path of a YAML file."


def _inherited(path: Path, heirs: tuple[Path, ...]) -> tuple[dict[str, Any], Path]:
    """The file's data on top of that of the profile it extends."""
    path = path.resolve()
    if path in heirs:
        chain = " → ".join(each.name for each in (*heirs, path))
        raise UsageError(f"{path.name}: extends itself ({chain}).", hint="Mend its `extends`.", code="profile")
    data = parse(path)
    parent = data.pop("extends", None)
    if parent is None:
        return data, path
    if not isinstance(parent, str):
        raise UsageError(
            f"{path.name}: extends is {parent!r}; expected a profile's name or path.",
            hint=_known_names(),
            code="profile",
        )
    base, _ = _inherited(_find(parent, path.parent), (*heirs, path))
    return merged(base, {"name": path.stem, **data}), path


def _filled(word: str, values: Mapping[str, str]) -> str:
    """``word`` with its placeholders replaced once: what a value holds is never looked at again."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), word)


# ---- from a mapping to a profile


def _read_profile(top: Reader) -> Profile:
    top.only(*(each.name for each in fields(Profile)))
    version = top.section("version").only("argv", "least")
    args = top.section("args").only(*(each.name for each in fields(Args)))
    resume = top.section("resume").only("session", "last", "task")
    limit = top.section("limit").only("menu", "close")
    return Profile(
        name=top.required("name"),
        command=_argv(top, "command") or top.fail("command", "the words of a command"),
        title=top.text("title") or top.required("name"),
        binary=top.text("binary"),
        install=top.text("install"),
        version=Version(argv=version.words("argv", ("--version",)), least=version.text("least")),
        args=Args(**{each.name: _argv(args, each.name) for each in fields(Args)}),
        task=top.choice("task", ("argument", "paste"), "paste"),
        task_args=_argv(top, "task_args", ("{task}",)),
        resume=Resume(
            session=_argv(resume, "session"), last=_argv(resume, "last"), task=resume.flag("task", default=True)
        ),
        environment=top.mapping("environment"),
        root=_read_root(top),
        sources=_read_sources(top),
        queues=top.flag("queues"),
        finishes=top.flag("finishes"),
        screen=_read_look(top.section("screen")),
        dialogs=tuple(_read_dialog(name, below) for name, below in top.sections("dialogs")),
        endings=tuple(_read_endings(top.section("endings").only(*ENDINGS))),
        limit=Limit(menu=limit.patterns("menu"), close=limit.keys("close")),
        interrupt=top.keys("interrupt"),
        leave=top.text("leave"),
        pace=top.numbers("pace"),
    )


def _argv(reader: Reader, key: str, default: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Words of a command line, whose placeholders are known ones."""
    words = reader.words(key, default)
    if not {name for word in words for name in _PLACEHOLDER.findall(word)} <= set(PLACEHOLDERS):
        reader.fail(key, f"no other placeholders than {', '.join(f'{{{name}}}' for name in PLACEHOLDERS)}")
    return words


def _read_root(top: Reader) -> Root | None:
    if top.data.get("root") is None:
        return None
    root = top.section("root").only("variable", "value", "reason")
    return Root(variable=root.required("variable"), value=root.text("value", "1"), reason=root.text("reason"))


def _read_sources(top: Reader) -> tuple[str, ...]:
    sources = top.words("sources")
    if not set(sources) <= set(SOURCES):
        top.fail("sources", f"some of: {', '.join(SOURCES)}")
    return sources


def _read_look(screen: Reader) -> Look:
    screen.only(*(each.name for each in fields(Look)))
    return Look(
        input=screen.pattern("input", group=True),
        placeholder=screen.pattern("placeholder"),
        top=screen.pattern("top"),
        skip=screen.pattern("skip"),
        mark=screen.pattern("mark"),
        banner=screen.pattern("banner"),
        busy_title=screen.pattern("busy_title"),
        states=tuple(rule for entry in screen.items("states") for rule in _read_rules(entry)),
    )


def _read_rules(entry: Reader) -> Iterator[StateRule]:
    """The rules of one entry: any of its patterns tells the state."""
    entry.only("state", "where", "match")
    state, where = entry.choice("state", STATES), entry.choice("where", PLACES)
    for pattern in entry.patterns("match") or entry.fail("match", "at least one regular expression"):
        yield StateRule(state=state, where=where, pattern=pattern)


def _read_dialog(name: str, dialog: Reader) -> Dialog:
    dialog.only("match", "options", "keys", "marked", "handover")
    keys, handover, options = dialog.keys("keys"), dialog.flag("handover"), dialog.patterns("options")
    if bool(keys) == handover:
        dialog.fail("keys", "the keys that answer it, or else `handover: true`: the human decides")
    return Dialog(
        name=name,
        match=dialog.patterns("match") or dialog.fail("match", "the texts that tell this dialog from others"),
        options=options,
        keys=keys,
        marked=dialog.whole("marked", at_most=len(options)),
        handover=handover,
    )


def _read_endings(endings: Reader) -> Iterator[Ending]:
    for kind in endings.data:
        for pattern in endings.patterns(kind):
            yield Ending(kind=kind, pattern=pattern)
