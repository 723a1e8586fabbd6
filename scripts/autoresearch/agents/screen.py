"""From a terminal's screen to the state of the client in it. Pure functions over a profile's patterns.

Only what stands at its place counts: a mark of a state, a dialog and an error are looked for where this
client draws them, never in the transcript. A key is named only for a dialog that is known by its text
and its options; whatever else asks something is a dialog called "unknown", without keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from autoresearch.agents.profile import Dialog, Look, Profile, bundled, load_profile
from autoresearch.errors import UsageError
from autoresearch.output import one_line

UNKNOWN = "unknown"
USAGE_LIMIT = "usage_limit"
DETAIL_WIDTH = 300
DIALOG_LINES = 60  # no dialog is taller; what stands higher on the screen is something else
LINES_BELOW_MENU = 12  # hints, previews; a list with more below it is no menu
LINES_BELOW_BOX = 14
FILE_TAIL_BYTES = 1 << 18
FILE_TAIL_LINES = 300  # no terminal is taller
SHELLS = frozenset({"sh", "bash", "zsh", "fish", "dash", "ksh", "tcsh", "csh", "ash", "busybox"})

_DEAD = re.compile(r"^Pane is dead(?: \((?:status (?P<status>\d+)|signal (?P<signal>\w+))?.*\))?\s*$")
_SHELL_PROMPT = re.compile(r"^(?:\([\w.-]+\) )?(?:[\w.-]+@[\w.-]+\S*|(?:ba|z|da|k)?sh-[\d.]+)\S*\s?[#$%](?: .*)?$")
_SIDES = " │┃║"
_FRAME = f"{_SIDES}\t|╭╮╰╯┌┐└┘─━═╌"
_MARKS = "\u276f\u203a>\u25cf\u25c9\u25b8\u25b6\u2192*"  # of a menu's marked row
_OPTION = re.compile(rf"^[\s│┃║|]*(?P<mark>[{_MARKS}]?)\s*(?P<number>\d{{1,2}})[.)]\s+(?P<text>\S.*)$")
_ASKS = re.compile(
    r"\b(?:press|hit) (?:enter|return|any key|y\b)"
    r"|\b(?:enter|return) (?:to )?(?:confirm|continue|select|submit|accept)"
    r"|\besc(?:ape)? (?:to )?(?:cancel|back|go back|exit)|[\[(]y(?:es)?/n(?:o)?[\])]",
    re.IGNORECASE,
)
_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor moves
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\)"  # OSC, DCS: titles, links
    r"|\x1b[ -/]*[0-~]",
    re.DOTALL,
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class Screen:
    """One look at a pane. ``command`` is the name of what runs in it; "" where that is not known."""

    lines: Sequence[str]
    title: str = ""
    dead: bool = False
    exit_status: str = ""
    command: str = ""


@dataclass(frozen=True)
class Seen:
    """What a screen says. ``box`` is what stands in the input box, ``reset`` when a limit is over, as told."""

    state: str
    dialog: str = ""
    keys: tuple[str, ...] = ()
    ending: str = ""
    detail: str = ""
    box: str = ""
    reset: str = ""


@dataclass(frozen=True)
class _Box:
    """The input box: the lines above it, what stands in it, the text under it."""

    above: list[str]
    typed: str
    below: str


def classify(profile: Profile, screen: Screen) -> Seen:
    """The state of ``profile``'s client on ``screen``."""
    screen = _without_tmux_line(screen)
    lines = _tidy(screen.lines)
    if screen.dead:
        return _exited(profile, lines, screen.exit_status)
    if not lines:
        return Seen("starting")
    if _is_shell(profile, screen.command):
        return Seen("exited", detail=_line(lines[-1]))
    if ends := _told_end(profile, lines):
        return Seen("exited", detail=ends)
    box = _find_box(profile, lines)
    if box is not None:
        return _in_session(profile, box, screen.title)
    return _without_box(profile, lines)


def classify_any(screen: Screen) -> tuple[str, Seen]:
    """Which bundled client this is, and its state; the name is "" if no client is recognised."""
    best, best_weight, name = Seen(UNKNOWN), -1, ""
    for profile in _clients():
        seen = classify(profile, screen)
        weight = _weight(profile, screen, seen)
        if weight > best_weight:
            best, best_weight, name = seen, weight, profile.name if weight > 0 else ""
    return name, best


def classify_file(path: Path, agent: str | None = None) -> dict[str, Any]:
    """What the launcher sees in a captured screen: text, with or without escape sequences.

    Of a file that holds more than a screen only its end counts.
    """
    screen = Screen(_read_lines(path))
    if agent is None:
        name, seen = classify_any(screen)
    else:
        profile = load_profile(agent)
        name, seen = profile.name, classify(profile, screen)
    return {
        "agent": name or None,
        "state": seen.state,
        "dialog": seen.dialog or None,
        "keys": list(seen.keys),
        "ending": seen.ending or None,
        "detail": seen.detail,
    }


# ---- what every screen is asked first


def _without_tmux_line(screen: Screen) -> Screen:
    """``screen`` without tmux's own line about a dead pane, which is taken as the fact it tells."""
    lines = list(screen.lines)
    while lines and not lines[-1].strip():
        lines.pop()
    match = _DEAD.match(lines[-1]) if lines else None
    if match is None:
        return screen
    status = match["status"] or (f"signal {match['signal']}" if match["signal"] else "")
    return replace(screen, lines=lines[:-1], dead=True, exit_status=screen.exit_status or status)


def _tidy(lines: Sequence[str]) -> list[str]:
    """The lines without trailing blanks, from the first to the last that holds something.

    No-break spaces stay: Claude Code's input box is known by one.
    """
    tidy = [line.rstrip(" \t\r\n") for line in lines]
    while tidy and not tidy[-1].strip():
        tidy.pop()
    return tidy


def _is_shell(profile: Profile, command: str) -> bool:
    return command.lstrip("-") in SHELLS and Path(profile.command[0]).name not in SHELLS


def _exited(profile: Profile, lines: list[str], status: str) -> Seen:
    said = _told_end(profile, lines) or (lines[-1] if lines else "it showed nothing")
    how = f"status {status}" if status.isdecimal() else status
    return Seen("exited", detail=_line(f"{how}: {said}" if how else said))


def _told_end(profile: Profile, lines: list[str]) -> str:
    """The words with which a client takes its leave, if they are the last on the screen; else ""."""
    return next((detail for state, detail in _screen_rules(profile, lines) if state == "exited"), "")


# ---- with an input box


def _find_box(profile: Profile, lines: list[str]) -> _Box | None:
    """The last input box, if nothing but a footer stands under it."""
    if profile.screen.input is None:
        return None
    text = "\n".join(lines)
    boxes = list(profile.screen.input.finditer(text))
    if not boxes:
        return None
    match = boxes[-1]
    below = text[match.end() :]
    below_lines = [line for line in below.splitlines() if line.strip()]
    if len(below_lines) > LINES_BELOW_BOX or _find_menu(below_lines) or _SHELL_PROMPT.match(lines[-1]):
        return None
    return _Box(above=_tidy(text[: match.start()].splitlines()), typed=match[1] or "", below=below)


def _in_session(profile: Profile, box: _Box, title: str) -> Seen:
    look = profile.screen
    typed = _spaced([line.strip(_SIDES) for line in box.typed.splitlines()])
    shown = "" if look.placeholder and look.placeholder.search(typed) else typed
    blocks = _blocks(look, box.above)
    last = blocks[-1] if blocks else ""
    places = {"last": last, "box": typed, "below": box.below.replace("\u00a0", " ")}
    for rule in look.states:
        if rule.where in places and rule.pattern.search(places[rule.where]):
            return Seen(rule.state, detail=_line(last if rule.state == "busy" else ""), box=shown)
    if look.busy_title and look.busy_title.search(title):
        return Seen("busy", detail=_line(last), box=shown)
    seen = _how_it_ended(profile, blocks)
    return replace(seen, box=shown)


def _how_it_ended(profile: Profile, blocks: list[str]) -> Seen:
    """At the prompt: how the last turn went, by its last block that says something."""
    skip = profile.screen.skip
    block = next((each for each in reversed(blocks) if skip is None or not skip.search(each)), "")
    for ending in profile.endings:
        if match := ending.pattern.search(block):
            state, reset = ("limit", _reset(match)) if ending.kind == "limit" else ("error", "")
            return Seen(state, ending=ending.kind, detail=_line(block), reset=reset)
    return Seen("ready")


def _reset(match: re.Match[str]) -> str:
    """The raw text of the time that a limit is over, with its zone."""
    found = {key: value for key, value in match.groupdict().items() if value}
    reset, zone = found.get("reset", ""), found.get("zone", "")
    return f"{reset} ({zone})" if reset and zone else reset


def _blocks(look: Look, lines: list[str]) -> list[str]:
    """The paragraphs of a transcript, with the lines that the width has wrapped joined again.

    A line that ``look.mark`` knows begins something, any other one goes on with the line before it.
    Indents stay, since a client's own marks stand in certain columns.
    """
    blocks: list[list[str]] = [[]]
    for line in (each.replace("\u00a0", " ") for each in lines):
        block = blocks[-1]
        if not line.strip():
            if block:
                blocks.append([])
        elif block and not (look.mark and look.mark.search(line)):
            block[-1] += f" {line.strip()}"
        else:
            block.append(re.sub(r"(?<=\S) +", " ", line))
    return ["\n".join(block) for block in blocks if block]


def _spaced(lines: Sequence[str]) -> str:
    return " ".join(" ".join(lines).replace("\u00a0", " ").split())


# ---- without an input box: dialogs, ends, unknown screens


@dataclass(frozen=True)
class _Menu:
    """A numbered menu, as it stands on the screen, and the number of its marked row."""

    options: tuple[str, ...]
    marked: int


def _without_box(profile: Profile, lines: list[str]) -> Seen:
    above, region = _split(profile, lines)
    text, menu = _unframed(region), _find_menu(region)
    if profile.limit.menu and menu and all(each.search(text) for each in profile.limit.menu):
        return _limit_menu(profile, above)
    for dialog in profile.dialogs:
        if _is_open(dialog, text, menu):
            keys = dialog.keys if not dialog.marked or (menu and dialog.marked == menu.marked) else ()
            return Seen("dialog", dialog=dialog.name, keys=keys, detail=_line(text))
    for state, detail in _screen_rules(profile, lines):
        return Seen(state, detail=detail)
    if _SHELL_PROMPT.match(lines[-1]):
        return Seen("exited", detail=_line(lines[-1]))
    if menu or _ASKS.search(_unframed([line for line in region if line.strip()][-5:])):
        return Seen("dialog", dialog=UNKNOWN, detail=_line(text))
    return Seen(UNKNOWN, detail=_line(lines[-1]))


def _limit_menu(profile: Profile, above: list[str]) -> Seen:
    told = _how_it_ended(profile, _blocks(profile.screen, above))
    if told.state != "limit":
        told = Seen("limit", ending="limit")
    return replace(told, dialog=USAGE_LIMIT, keys=profile.limit.close)


def _screen_rules(profile: Profile, lines: list[str]) -> list[tuple[str, str]]:
    """The states that the whole screen tells, each with the text that told it."""
    # A terminal breaks a line in mid-word where a client breaks it between words: both readings are tried.
    spaced, glued = "\n".join(lines), "".join(lines)
    return [
        (rule.state, _line(match[0]))
        for rule in profile.screen.states
        if rule.where == "screen" and (match := rule.pattern.search(spaced) or rule.pattern.search(glued))
    ]


def _split(profile: Profile, lines: list[str]) -> tuple[list[str], list[str]]:
    """The transcript, and the lines at the bottom of the screen that may be a dialog."""
    bottom = lines[-DIALOG_LINES:]
    if profile.screen.top is None:
        return [], bottom
    text = "\n".join(bottom)
    tops = list(profile.screen.top.finditer(text))
    if not tops:
        return [], bottom
    above, below = text[: tops[-1].start()], text[tops[-1].end() :]
    return above.splitlines(), below.splitlines()


def _unframed(lines: Sequence[str]) -> str:
    """The text of a dialog in one line, without the frame around it."""
    return _spaced([line.strip(_FRAME) for line in lines])


def _find_menu(lines: Sequence[str]) -> _Menu | None:
    """The last numbered menu with a marked row; None where there is none or too much stands below it."""
    options: list[str] = []
    marked = column = last = 0
    filled = [line.replace("\u00a0", " ").rstrip(_SIDES) for line in lines]
    for at, line in enumerate(filled):
        match = _OPTION.match(line)
        number = int(match["number"]) if match else 0
        if number == 1:
            options, marked = [], 0
        if match and number == len(options) + 1:
            options.append(match["text"].strip())
            marked = number if match["mark"] else marked
            column, last = match.start("text"), at
        elif options and at == last + 1 and line and _column(line) >= column:
            options[-1] += f" {line.strip(_FRAME)}"  # the rest of a long option
            last = at
    below = [line for line in filled[last + 1 :] if line.strip(_FRAME)]
    if len(options) < 2 or not marked or len(below) > LINES_BELOW_MENU:
        return None
    return _Menu(tuple(options), marked)


def _column(line: str) -> int:
    """Where the text of a line begins, inside a frame if there is one."""
    return len(line) - len(line.lstrip(_SIDES))


def _is_open(dialog: Dialog, text: str, menu: _Menu | None) -> bool:
    if not all(each.search(text) for each in dialog.match):
        return False
    if not dialog.options:
        return True
    return (
        menu is not None
        and len(menu.options) == len(dialog.options)
        and all(pattern.match(option) for pattern, option in zip(dialog.options, menu.options, strict=True))
    )


# ---- which client


@cache
def _clients() -> tuple[Profile, ...]:
    """The bundled profiles of clients that can be told by their screens."""
    return tuple(profile for profile in map(load_profile, bundled()) if profile.screen.banner is not None)


def _weight(profile: Profile, screen: Screen, seen: Seen) -> int:
    """How much of ``screen`` is this client's: its own marks weigh more than what any client may show."""
    lines = _tidy(_without_tmux_line(screen).lines)
    weight = 0
    if seen.dialog and seen.dialog != UNKNOWN:
        weight += 8
    if _find_box(profile, lines) is not None:
        weight += 6
    if _screen_rules(profile, lines):
        weight += 4
    if profile.screen.banner is not None and profile.screen.banner.search("\n".join(lines)):
        weight += 2
    return weight


def _read_lines(path: Path) -> list[str]:
    try:
        data = path.read_bytes()[-FILE_TAIL_BYTES:]
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror or error}.",
            hint="Give a file as `tmux capture-pane -p > screen.txt` writes it.",
            code="no_screen",
        ) from None
    text = _CONTROL.sub("", _ESCAPES.sub("", data.decode("utf-8", "replace")))
    return text.replace("\r\n", "\n").replace("\r", "\n").rstrip("\n").split("\n")[-FILE_TAIL_LINES:]


def _line(text: str) -> str:
    return one_line(text, DETAIL_WIDTH)
