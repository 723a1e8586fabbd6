"""Captured screens of the real clients, and what may not change how they are read."""
# ruff: noqa: RUF001 - the clients' own signs

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoresearch.agents.profile import Profile, bundled, load_profile
from autoresearch.agents.screen import UNKNOWN, Screen, Seen, classify, classify_any, classify_file
from autoresearch.agents.sight import see
from autoresearch.agents.sources import ClientFacts
from autoresearch.errors import UsageError

SCREENS = Path(__file__).parent / "screens"
EXPECTED: dict[str, dict[str, dict[str, Any]]] = yaml.safe_load((SCREENS / "expected.yaml").read_text("utf-8"))
CAPTURES = sorted(SCREENS.glob("*/*.txt"))
PROFILES = {name: load_profile(name) for name in bundled()}
CLIENTS = sorted(EXPECTED)

WITHOUT_ROWS = ("security_notes", "usage_limit")  # one key, whatever the rows say
NO_BREAK_SPACE = "\u00a0"
RULE = "─" * 80
CLAUDE_PROMPT = [RULE, f"❯{NO_BREAK_SPACE}", RULE, "  ⏵⏵ bypass permissions on (shift+tab to cycle)"]


def expected_of(path: Path) -> dict[str, Any]:
    """The entry for a capture: by its whole name, else without the size at its end."""
    entries = EXPECTED[path.parent.name]
    return entries.get(path.stem) or entries.get(re.sub(r"-\d+x\d+$", "", path.stem), {})


def name_of(path: Path) -> str:
    return f"{path.parent.name}/{path.stem}"


def screen_of(path: Path) -> Screen:
    expected = expected_of(path)
    lines = path.read_text("utf-8").split("\n")
    return Screen(lines, dead=expected.get("dead", False), command=expected.get("command", ""))


def profile_of(path: Path) -> Profile:
    return PROFILES[path.parent.name]


each_capture = pytest.mark.parametrize("path", CAPTURES, ids=name_of)
each_answerable = pytest.mark.parametrize(
    "path", [path for path in CAPTURES if expected_of(path).get("keys")], ids=name_of
)
each_client = pytest.mark.parametrize("client", CLIENTS)


def claude(*lines: str, **facts: Any) -> Seen:
    return classify(PROFILES["claude"], Screen(list(lines), **facts))


# --- every captured screen -----------------------------------------------------------------------


def test_every_capture_is_expected_and_every_expectation_has_its_capture() -> None:
    for client in CLIENTS:
        stems = {path.stem for path in (SCREENS / client).glob("*.txt")}
        known = stems | {re.sub(r"-\d+x\d+$", "", stem) for stem in stems}
        assert set(EXPECTED[client]) <= known, client
        assert all(expected_of(path) for path in (SCREENS / client).glob("*.txt"))
    assert len(CAPTURES) > 500


@each_capture
def test_capture_is_read_as_what_it_is(path: Path) -> None:
    expected = expected_of(path)
    seen = classify(profile_of(path), screen_of(path))
    assert seen.state == expected["state"], seen
    assert seen.dialog == expected.get("dialog", ""), seen
    assert seen.keys == tuple(expected.get("keys", ())), seen
    assert seen.ending == expected.get("ending", ""), seen
    assert seen.box.startswith(expected.get("box", "")) and bool(seen.box) == ("box" in expected), seen
    assert expected.get("reset", "") in seen.reset and bool(seen.reset) == ("reset" in expected), seen


@each_client
def test_captures_are_known_for_their_client(client: str) -> None:
    """What a dead or unknown screen shows need not be a client's own."""
    for path in (SCREENS / client).glob("*.txt"):
        expected = expected_of(path)
        if expected["state"] not in ("unknown", "exited") and expected.get("dialog") != UNKNOWN:
            assert classify_any(screen_of(path)) == (client, classify(PROFILES[client], screen_of(path))), path.name


@each_client
def test_empty_lines_below_change_nothing(client: str) -> None:
    for path in (SCREENS / client).glob("*.txt"):
        screen = screen_of(path)
        taller = replace(screen, lines=[*screen.lines, *[""] * 60])
        assert classify(PROFILES[client], taller) == classify(PROFILES[client], screen), path.name


@each_client
def test_more_of_the_transcript_above_changes_nothing(client: str) -> None:
    """A screen looks the same when older output has been pushed up, be it the text of any other screen."""
    older = [line for path in CAPTURES[::25] for line in path.read_text("utf-8").split("\n") if line.strip()]
    for path in (SCREENS / client).glob("*.txt"):
        screen = screen_of(path)
        seen = classify(PROFILES[client], screen)
        if seen.state in ("ready", "busy", "error", "limit"):
            longer = replace(screen, lines=[*older, "", *screen.lines])
            assert classify(PROFILES[client], longer) == seen, path.name


# --- what may not be taken for a dialog ------------------------------------------------------------


@each_answerable
def test_dialog_above_a_prompt_is_no_dialog(path: Path) -> None:
    """Text of a dialog that stands in the transcript, as old output, as a quotation or as another client's."""
    text = [line for line in path.read_text("utf-8").split("\n") if line.strip()]
    said = ["❯ show it", "", "● Bash(cat screen.txt)", *(f"     {line}" for line in text), "", "✻ Baked for 2s", ""]
    for transcript in (text, [f"  {line}" for line in text], said):
        seen = claude(*transcript, *CLAUDE_PROMPT)
        assert (seen.state, seen.keys) in {("ready", ()), ("limit", ())}, seen
        assert seen.state == "ready" or "hit your" in "".join(text)


@each_answerable
def test_half_drawn_dialog_never_yields_other_keys(path: Path) -> None:
    expected = expected_of(path)
    lines = path.read_text("utf-8").split("\n")
    for end in range(len(lines)):
        for part in (lines[:end], lines[end:]):
            seen = classify(profile_of(path), Screen(part))
            assert seen.keys in {(), tuple(expected["keys"])}, (end, seen)
            assert not seen.keys or seen.dialog == expected["dialog"], (end, seen)


@pytest.mark.parametrize(
    "path",
    [path for path in CAPTURES if expected_of(path).get("keys") and expected_of(path)["dialog"] not in WITHOUT_ROWS],
    ids=name_of,
)
def test_dialog_in_other_words_is_unknown_and_gets_no_key(path: Path) -> None:
    """A version whose rows are worded, ordered or counted otherwise must be left to the human."""
    lines = path.read_text("utf-8").split("\n")
    rows = [at for at, line in enumerate(lines) if re.match(r"^[\s│]*[❯›●]?\s*[12]\. ", line)]
    first, second = rows[-2:]
    words = {at: re.sub(r"^(.*?[12]\. ).*?([\s│]*)$", r"\1Perhaps\2", lines[at]) for at in (first, second)}
    swapped = {first: _with_text_of(lines[first], lines[second]), second: _with_text_of(lines[second], lines[first])}
    added = {second: f"{lines[second]}\n{lines[second].replace('2. ', '3. ').replace('❯', ' ').replace('●', ' ')}"}
    for change in (words, swapped, added):
        changed = "\n".join(change.get(at, line) for at, line in enumerate(lines)).split("\n")
        seen = classify(profile_of(path), Screen(changed))
        assert (seen.state, seen.dialog, seen.keys) == ("dialog", UNKNOWN, ()), (changed, seen)


def _with_text_of(row: str, other: str) -> str:
    number = re.match(r"^.*?[12]\. ", row)
    text = re.sub(r"^.*?[12]\. ", "", other)
    assert number
    return number[0] + text


def test_a_key_that_confirms_the_marked_row_is_named_only_where_the_right_row_is_marked() -> None:
    lines = (SCREENS / "codex" / "06-git-repo-first.txt").read_text("utf-8").split("\n")
    moved = [line.replace("› 1.", "  1.").replace("  2.", "› 2.") for line in lines]
    assert classify(PROFILES["codex"], Screen(lines)).keys == ("Enter",)
    assert classify(PROFILES["codex"], Screen(moved)) == Seen(
        "dialog", dialog="trust", detail=classify(PROFILES["codex"], Screen(moved)).detail
    )


@pytest.mark.parametrize(
    "lines",
    [
        ["  A new thing!", "", "  ❯ 1. Use it", "    2. Leave it", "", "  Enter to confirm · Esc to cancel"],
        ["Do you agree to the new terms?", "", "Press Enter to continue"],
        ["Overwrite it? [y/N]"],
        ["│ ● 1. Once │", "│   2. Never │"],
    ],
)
def test_unknown_question_is_a_dialog_without_keys(lines: list[str]) -> None:
    for client in CLIENTS:
        seen = classify(PROFILES[client], Screen(lines))
        assert (seen.state, seen.dialog, seen.keys) == ("dialog", UNKNOWN, ()), client


@pytest.mark.parametrize(
    "lines",
    [
        ["step 10 | loss 2.31", "step 20 | loss 2.28"],
        ["Next I will:", "1. change the learning rate", "2. run it again", "3. write it down"],
        ["  ▐▛███▜▌   Claude Code v2.1.197"],
        ["\u2588" * 80] * 10,
    ],
)
def test_what_asks_nothing_is_unknown(lines: list[str]) -> None:
    for client in CLIENTS:
        seen = classify(PROFILES[client], Screen(lines))
        assert (seen.state, seen.keys) == (UNKNOWN, ()), client


@pytest.mark.parametrize("client", sorted(PROFILES))
@pytest.mark.parametrize("lines", [[], [""], [""] * 24, ["   ", "\t", NO_BREAK_SPACE]])
def test_blank_screen_is_a_start(client: str, lines: list[str]) -> None:
    assert classify(PROFILES[client], Screen(lines)) == Seen("starting")


def test_garbage_never_yields_keys() -> None:
    """Rows of real screens, cut, shuffled and mixed with noise."""
    dice = random.Random(7)
    rows = [line for path in CAPTURES for line in path.read_text("utf-8").split("\n") if line.strip()]
    dialogs = {(dialog.name, dialog.keys) for profile in PROFILES.values() for dialog in profile.dialogs}
    for _ in range(400):
        lines = [_noisy(dice.choice(rows), dice) for _ in range(dice.randrange(1, 60))]
        for client in CLIENTS:
            seen = classify(PROFILES[client], Screen(lines, title=dice.choice(["", "⠂ x", "✳ x"])))
            assert not seen.keys or (seen.dialog, seen.keys) in dialogs or seen.state == "limit"
            assert seen.dialog != "bypass"


def _noisy(line: str, dice: random.Random) -> str:
    match dice.randrange(4):
        case 0:
            return line[dice.randrange(len(line)) :]
        case 1:
            return "".join(chr(dice.randrange(1, 0x3000)) for _ in range(dice.randrange(80)))
        case _:
            return line


# --- the transcript tells how the last turn ended, and nothing else ------------------------------------


LIMIT = f"  ⎿ {NO_BREAK_SPACE}You've hit your session limit · resets 8:11am (UTC)"


@pytest.mark.parametrize(
    ("turn", "state"),
    [
        (["❯ go", LIMIT], "limit"),
        (["❯ go", "", "● Working.", "", "● Bash(echo hi)", f"  ⎿ {NO_BREAK_SPACE}hi", LIMIT], "limit"),
        (["❯ go", "", "● Bash(cat log)", LIMIT], "ready"),  # a tool printed it
        (["❯ go", "", "● You've hit your session limit · resets 8:11am (UTC)"], "ready"),  # the model said it
        (["❯ go", LIMIT, "", "✻ Baked for 2s", "", "❯ go on", "", "● Done."], "ready"),  # an earlier turn
        (["❯ go", "", "● API Error: Overloaded"], "error"),
        (["❯ go", "", "● It said:", "", "  API Error: Overloaded"], "ready"),
        (["❯ go", "", "● API Error: 500 x", "", "✻ Baked for 2s", "", "❯ go on", "", "● Done."], "ready"),
        (
            ["❯ go", "", "● API Error: 500 x", "", "✻ Baked for 2s", "", "  1 tasks (0 done, 1 open)", "  ◻ first"],
            "error",
        ),
        (["❯ API Error: Overloaded"], "ready"),
        (["❯ go", "", "● There's an issue", "  with the selected model (x). Run", "  /model to pick"], "error"),
    ],
)
def test_only_the_clients_own_last_words_are_an_ending(turn: list[str], state: str) -> None:
    assert claude(*turn, "", "✻ Baked for 2s", "", *CLAUDE_PROMPT).state == state
    assert claude(*turn, "", *CLAUDE_PROMPT).state == state


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        (["● It shows:", "", LIMIT], "It shows:\n\n⎿ You've hit your session limit · resets 8:11am (UTC)"),
        (["● API Error: 529 is what", "  the log says."], "API Error: 529 is what the log says."),
    ],
)
def test_words_of_the_models_own_answer_are_no_ending(turn: list[str], message: str) -> None:
    screen = Screen(["❯ go", "", *turn, "", *CLAUDE_PROMPT])
    now = datetime(2026, 4, 5, tzinfo=UTC)

    def state(ended: str, last_message: str) -> str:
        facts = ClientFacts(state="idle", ended=ended, last_message=last_message)
        return see(PROFILES["claude"], screen, facts, now).state

    assert state("Stop", message) == "ready"
    assert state("Stop", "Something else.") in ("limit", "error")
    assert state("StopFailure", message) in ("limit", "error")


@pytest.mark.parametrize(
    ("text", "reset"),
    [
        ("You've hit your session limit · resets 8:11am (UTC)", "8:11am (UTC)"),
        ("You’ve hit your weekly limit · resets Nov 27, 5:32pm (Europe/Berlin)", "Nov 27, 5:32pm (Europe/Berlin)"),
        ("You've hit your limit · resets 8:04am (UTC)", "8:04am (UTC)"),
        ("You've hit your usage credit limit", ""),
        ("You've hit your Fable 5 limit · resets 3pm (America/New_York) /upgrade to increase your usage limit.",
         "3pm (America/New_York)"),
    ],
)  # fmt: skip
def test_limit_names_its_reset(text: str, reset: str) -> None:
    seen = claude("❯ go", f"  ⎿ {NO_BREAK_SPACE}{text}", "", *CLAUDE_PROMPT)
    assert (seen.state, seen.ending, seen.reset, seen.keys) == ("limit", "limit", reset, ())


def test_error_wrapped_at_any_width_is_the_same_error() -> None:
    message = "API Error: 529 Overloaded. This is a server-side issue, usually temporary — try again in a moment."
    for width in range(24, 120):
        rows, row = [], "●"
        for word in message.split():
            if len(row) + 1 + len(word) > width:
                rows.append(row)
                row = " "
            row += f" {word}"
        seen = claude("❯ go", "", *rows, row, "", "✻ Baked for 2s", "", *CLAUDE_PROMPT)
        assert (seen.state, seen.ending) == ("error", "overloaded"), width


# --- what tmux knows beside the screen -----------------------------------------------------------------


def test_title_tells_that_the_client_works_where_its_screen_does_not() -> None:
    assert claude("❯ go", "", *CLAUDE_PROMPT, title="⠂ Training").state == "busy"
    assert claude("❯ go", "", *CLAUDE_PROMPT, title="✳ Training").state == "ready"


@pytest.mark.parametrize("title", ["⠂ Training", "✳ Training", ""])
def test_dead_pane_is_an_exit_whatever_its_screen_shows(title: str) -> None:
    lines = (SCREENS / "claude" / "busy-80x24.txt").read_text("utf-8").split("\n")
    assert claude(*lines, title=title, dead=True, exit_status="137").state == "exited"
    assert claude(*lines, "Pane is dead (signal 9, Tue Nov 24 12:22:17 2026)", title=title).detail.startswith(
        "signal 9"
    )
    assert claude(dead=True).state == "exited"


def test_shell_in_the_clients_place_is_an_exit() -> None:
    assert claude(*CLAUDE_PROMPT, command="bash").state == "exited"
    assert claude(*CLAUDE_PROMPT, command="claude").state == "ready"
    assert claude("user@host:~/project$ ").state == "exited"
    assert claude(*CLAUDE_PROMPT, "", "bash-5.2# ").state == "exited"


def test_scripted_loop_is_busy_while_it_prints_and_over_when_its_pane_is_dead() -> None:
    scripted = PROFILES["scripted"]
    log = ["❯ 1. Yes", "  2. No", "", "Enter to confirm"]
    assert classify(scripted, Screen(log)).state == "busy"
    assert classify(scripted, Screen([*log, "Pane is dead (status 0, Tue Nov 24 12:22:17 2026)"])).state == "exited"


# --- captured screens from files --------------------------------------------------------------------------


def test_file_without_agent_is_recognised() -> None:
    seen = classify_file(SCREENS / "claude" / "05-bypass-80x24.txt")
    detail = seen.pop("detail")
    assert seen == {"agent": "claude", "state": "dialog", "dialog": "bypass", "keys": ["2"], "ending": None}
    assert detail.startswith("WARNING: Claude Code running in Bypass Permissions mode")


def test_files_agent_may_be_told() -> None:
    assert classify_file(SCREENS / "gemini" / "30-busy.txt", "gemini")["state"] == "busy"
    assert classify_file(SCREENS / "gemini" / "30-busy.txt", "codex")["state"] == UNKNOWN


def test_colours_cursor_moves_and_carriage_returns_are_not_text(tmp_path: Path) -> None:
    plain = (SCREENS / "claude" / "04-trust-80x24.txt").read_text("utf-8")
    coloured = "\r\n".join(f"\x1b[38;5;12m{line}\x1b[0m\x1b[K" for line in plain.split("\n"))
    path = tmp_path / "screen.txt"
    path.write_bytes(b"\x1b]0;title\x07\x1b]8;;http://x\x1b\\" + coloured.encode())
    assert classify_file(path) == classify_file(SCREENS / "claude" / "04-trust-80x24.txt")


@pytest.mark.parametrize("data", [b"\x00\xff\xfe" * 999, bytes(range(256)) * 40, "“".encode("cp1252"), b"\x1b" * 500])
def test_binary_file_has_no_known_state(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "screen.txt"
    path.write_bytes(data)
    seen = classify_file(path)
    assert (seen["agent"], seen["keys"], seen["dialog"]) == (None, [], None)
    assert seen["state"] in ("starting", UNKNOWN)


def test_of_a_long_file_only_the_end_counts(tmp_path: Path) -> None:
    path = tmp_path / "scrollback.txt"
    parts = ["04-trust-80x24", "05-bypass-80x24", "13-idle-after-turn"]
    texts = [(SCREENS / "claude" / f"{part}.txt").read_text("utf-8").rstrip("\n") for part in parts]
    path.write_text("\n".join(["old log line"] * 200_000 + texts) + "\n", encoding="utf-8")
    assert classify_file(path)["state"] == "ready"


def unreadable(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path
    yield tmp_path / "missing.txt"
    yield tmp_path / "a" / "missing.txt"


def test_file_that_cannot_be_read_is_a_usage_error(tmp_path: Path) -> None:
    for path in unreadable(tmp_path):
        with pytest.raises(UsageError, match=re.escape(str(path))):
            classify_file(path)
    with pytest.raises(UsageError, match="no agent 'nobody'"):
        classify_file(SCREENS / "claude" / "04-trust-80x24.txt", "nobody")
