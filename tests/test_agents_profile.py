from __future__ import annotations

import re
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from autoresearch.agents.policy import Pace
from autoresearch.agents.profile import BUNDLED, LAST, Args, Look, Profile, bundled, load_profile
from autoresearch.errors import UsageError

SCRIPTS = Path("/bundle/scripts")
PROJECT = Path("/home/me/project")


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def argv(profile: Profile, permissions: str = "bypass", **values: str) -> list[str]:
    settings = Path(values.pop("settings")) if "settings" in values else None
    return profile.argv(permissions=permissions, scripts=SCRIPTS, project=PROJECT, settings=settings, **values)


# --- the bundled profiles ------------------------------------------------------------------------


def test_bundled_profiles_are_those_of_the_interface() -> None:
    assert bundled() == ["claude", "codex", "gemini", "opencode", "scripted"]


@pytest.mark.parametrize("name", bundled())
def test_bundled_profile_is_whole(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.interrupt
    Pace.from_dict(profile.pace)
    if profile.binary:
        assert profile.install
        assert re.fullmatch(r"\d+\.\d+\.\d+", profile.version.least)
        assert profile.args.bypass
        assert profile.screen.input is not None
        assert profile.screen.banner is not None
        assert profile.leave.startswith("/")
        assert "{task}" in "".join(profile.task_args)
        assert profile.resume.session
        assert profile.resume.last


@pytest.mark.parametrize("name", bundled())
def test_no_bundled_dialog_is_answered_without_its_rows_being_known(name: str) -> None:
    """A digit or a confirmation is sent only to a menu whose rows were seen."""
    for dialog in load_profile(name).dialogs:
        assert dialog.handover != bool(dialog.keys)
        assert dialog.options or dialog.handover or dialog.name == "security_notes"
        if dialog.keys == ("Enter",):
            assert dialog.marked or not dialog.options


def test_claudes_command_lines() -> None:
    claude = load_profile("claude")
    asks_nobody = "--disallowedTools=AskUserQuestion,EnterPlanMode,ExitPlanMode"
    assert argv(claude) == ["claude", asks_nobody, "--dangerously-skip-permissions"]
    restricted = argv(claude, "allowlist", settings="/n/s.json", model="opus", conversation="ab-1", task="-x {model}")
    assert restricted == [
        "claude", "--resume", "ab-1", asks_nobody, "--settings", "/n/s.json", "--model", "opus", "--", "-x {model}",
    ]  # fmt: skip
    assert argv(claude, conversation=LAST)[1] == "--continue"


def test_scripted_loop_runs_with_this_python_on_the_project() -> None:
    scripted = load_profile("scripted")
    assert argv(scripted, task="go", model="opus") == [
        sys.executable, "/bundle/scripts/sweep.py", "--auto", "--project", "/home/me/project",
    ]  # fmt: skip
    assert scripted.finishes
    assert scripted.takes_task  # nothing is ever typed into it


@pytest.mark.parametrize("name", ["claude", "codex", "gemini", "opencode"])
@pytest.mark.parametrize(
    "task", ["--help", "line one\n\tline two;", "$HOME `id` '\" {project} 自主研究", "x" * 100_000]
)
def test_task_stays_one_word_as_it_is(name: str, task: str) -> None:
    last = argv(load_profile(name), task=task)[-1]
    assert last == task or re.fullmatch(rf"--[a-z-]+={re.escape(task)}", last)


def test_pasted_task_is_no_argument() -> None:
    pasting = replace(load_profile("claude"), task="paste")
    assert not pasting.takes_task
    assert "go" not in argv(pasting, task="go")


def test_opencode_takes_no_task_with_an_old_conversation() -> None:
    opencode = load_profile("opencode")
    assert argv(opencode, task="go") == ["opencode", "--auto", "--prompt=go"]
    assert argv(opencode, task="go", conversation="ses_1") == ["opencode", "--session", "ses_1", "--auto"]
    assert opencode.takes_task
    assert not opencode.takes_task_again


# --- a user's own profiles -----------------------------------------------------------------------


def test_own_profile_says_only_what_differs(tmp_path: Path) -> None:
    path = write(
        tmp_path / "mine.yaml",
        """
        extends: claude
        command: [/opt/claude, --verbose]
        environment: {HTTPS_PROXY: "http://proxy:1"}
        dialogs: {welcome: {match: [Hello], keys: [Enter]}, trust: {keys: ["2"]}}
        pace: {poll_s: 0.2}
        """,
    )
    mine, claude = load_profile(path), load_profile("claude")
    assert (mine.name, mine.command) == ("mine", ("/opt/claude", "--verbose"))
    assert mine.environment == {**claude.environment, "HTTPS_PROXY": "http://proxy:1"}
    assert mine.pace == {"poll_s": 0.2}
    dialogs = {dialog.name: dialog for dialog in mine.dialogs}
    assert list(dialogs) == [*(dialog.name for dialog in claude.dialogs), "welcome"]
    assert dialogs["trust"].keys == ("2",)
    assert dialogs["trust"].match == next(each.match for each in claude.dialogs if each.name == "trust")
    same = {"name", "command", "environment", "dialogs", "pace"}
    assert all(
        getattr(mine, each.name) == getattr(claude, each.name) for each in fields(Profile) if each.name not in same
    )


def test_profile_may_extend_one_that_extends(tmp_path: Path) -> None:
    write(tmp_path / "one.yaml", "extends: codex\ntitle: One\n")
    two = write(tmp_path / "two.yml", "extends: one.yaml\nleave: /bye\n")
    profile = load_profile(two)
    assert (profile.name, profile.title, profile.leave, profile.binary) == ("two", "One", "/bye", "codex")


def test_profiles_name_is_looked_up_in_the_users_folder(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(home / ".config" / "autoresearch" / "agents" / "mine.yaml", "name: mine\ncommand: [agent]\n")
    assert load_profile("mine").command == ("agent",)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "elsewhere"))
    with pytest.raises(UsageError, match="no agent 'mine'"):
        load_profile("mine")


def test_bundled_name_wins_over_the_users_file(home: Path) -> None:
    write(home / ".config" / "autoresearch" / "agents" / "claude.yaml", "name: claude\ncommand: [other]\n")
    assert load_profile("claude").command == ("claude",)


def test_least_profile_has_usable_defaults(tmp_path: Path) -> None:
    profile = load_profile(write(tmp_path / "p.yaml", "name: p\ncommand: [agent, '{model}']\n"))
    assert profile == Profile(name="p", title="p", command=("agent", "{model}"))
    assert (profile.args, profile.screen) == (Args(), Look())
    assert argv(profile, model="m", task="go") == ["agent", "m"]


# --- mistakes ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("command: [a]", r"p\.yaml: name is None; expected a text that is not empty"),
        ("name: p", r"command is None; expected the words of a command"),
        ("{name: p, command: claude}", r"command is 'claude'; expected a list of texts"),
        ("{name: p, command: [1]}", r"command is \[1\]; expected a list of texts"),
        ("{name: p, command: ['{home}']}", r"command is .*\{home\}.*; expected no other placeholders than \{python\}"),
        ("{name: p, command: [a], comand: [b]}", r"unknown key comand \(value \['b'\]\)"),
        ("{name: p, command: [a], screen: {inputs: x}}", r"unknown key screen\.inputs"),
        ("{name: p, command: [a], args: {yolo: [x]}}", r"unknown key args\.yolo"),
        ("{name: p, command: [a], screen: {input: '('}}", r"screen\.input is '\('; expected a regular expression \("),
        ("{name: p, command: [a], screen: {input: 'x'}}", r"screen\.input is 'x'; expected .* with a group"),
        ("{name: p, command: [a], screen: {busy_title: 3}}", r"screen\.busy_title is 3; expected regular expressions"),
        ("{name: p, command: [a], task: typed}", r"task is 'typed'; expected one of: argument, paste"),
        ("{name: p, command: [a], queues: 'yes'}", r"queues is 'yes'; expected true or false"),
        ("{name: p, command: [a], interrupt: [Escape now]}", r"interrupt is .*; expected names of keys"),
        ("{name: p, command: [a], interrupt: [rm -rf]}", r"expected names of keys"),
        ("{name: p, command: [a], environment: {A: 1}}", r"environment is \{'A': 1\}; expected a mapping of texts"),
        ("{name: p, command: [a], pace: {poll_s: fast}}", r"pace is \{'poll_s': 'fast'\}; expected numbers"),
        ("{name: p, command: [a], pace: {poll_s: -1}}", r"expected numbers that are 0 or more"),
        ("{name: p, command: [a], pace: {poll_s: .nan}}", r"expected numbers that are 0 or more"),
        ("{name: p, command: [a], sources: [claude]}", r"sources is \['claude'\]; expected some of: claude_sessions"),
        ("{name: p, command: [a], root: {value: '1'}}", r"root\.variable is None; expected a text that is not empty"),
        ("{name: p, command: [a], dialogs: [x]}", r"dialogs is \['x'\]; expected a mapping"),
        ("{name: p, command: [a], dialogs: {d: {match: [x]}}}", r"dialogs\.d\.keys is None; expected the keys"),
        ("{name: p, command: [a], dialogs: {d: {match: [x], keys: [y], handover: true}}}", r"d\.keys is \['y'\]"),
        ("{name: p, command: [a], dialogs: {d: {keys: [y]}}}", r"dialogs\.d\.match is None; expected the texts"),
        ("{name: p, command: [a], dialogs: {d: {match: [x], keys: [y], marked: 1}}}", r"marked is 1; expected a whole"),
        ("{name: p, command: [a], endings: {bored: [x]}}", r"unknown key endings\.bored"),
        ("{name: p, command: [a], screen: {states: [{state: calm, where: box, match: x}]}}", r"0\.state is 'calm'"),
        ("{name: p, command: [a], screen: {states: [{state: busy, where: top, match: x}]}}", r"0\.where is 'top'"),
        ("{name: p, command: [a], screen: {states: [{state: busy, where: box}]}}", r"states\.0\.match is None"),
        ("{name: p, command: [a], screen: {states: busy}}", r"screen\.states is 'busy'; expected a list of mappings"),
        ("[claude]", r"p\.yaml: it must be a mapping of keys to values, not \['claude'\]"),
        ("name: [", r"p\.yaml is not valid YAML at line \d"),
        ("extends: 3", r"extends is 3; expected a profile's name or path"),
        ("extends: nobody", r"no agent 'nobody'"),
        ("extends: p.yaml", r"extends itself \(p\.yaml → p\.yaml\)"),
    ],
)  # fmt: skip
def test_mistake_names_key_value_and_expectation(text: str, says: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.yaml", text)
    with pytest.raises(UsageError, match=says) as caught:
        load_profile(path)
    assert caught.value.hint
    assert caught.value.exit_code == 2


def test_misspelt_key_is_told_its_right_spelling(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(write(tmp_path / "p.yaml", "{extends: claude, enviroment: {}}"))
    assert "Did you mean environment?" in caught.value.hint


@pytest.mark.parametrize("name", ["nobody", "./nobody.yaml", "nobody.yaml", "", "."])
def test_unknown_agent_is_told_the_known_ones(name: str) -> None:
    with pytest.raises(UsageError) as caught:
        load_profile(name)
    assert "claude, codex, gemini, opencode, scripted" in caught.value.hint


def test_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(b"name: \xff\xfe")
    with pytest.raises(UsageError, match="not UTF-8"):
        load_profile(path)


@pytest.mark.parametrize("name", bundled())
def test_bundled_file_says_with_which_version_it_was_checked(name: str) -> None:
    text = (BUNDLED / f"{name}.yaml").read_text("utf-8")
    assert yaml.safe_load(text)["name"] == name
    assert text.startswith("# ")
    assert name == "scripted" or re.search(r"^# .*\bseen with \d+\.\d+\.\d+", text, re.MULTILINE)
