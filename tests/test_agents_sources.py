from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.claude_bench import ClaudeBench, claude
from tests.client_bench import world
from tests.scripted_model import break_off, cut, limit, refuse, run, say, use
from tests.trial_bench import eventually

from autoresearch.agents.profile import Profile, load_profile
from autoresearch.agents.screen import classify
from autoresearch.agents.sources import (
    TokenMeter,
    failure_kind,
    log_size,
    read_facts,
    read_session,
    reset_of_limits,
)
from autoresearch.runner.processes import read_process

__all__ = ["claude", "world"]  # fixtures


@pytest.fixture
def profile() -> Profile:
    return load_profile("claude")


def facts(profile: Profile, folder: Path, *, pid: int | None = None, since: int = 0):
    return read_facts(profile, {"HOME": str(folder)}, pid=pid, hooks=folder / "hooks.jsonl", since=since)


def log(folder: Path, at: float, name: str, **event: Any) -> None:
    entry = {"at": at, "event": {"session_id": "s1", "hook_event_name": name, **event}}
    with (folder / "hooks.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(entry) + "\n")


def session_file(folder: Path, pid: int, **session: Any) -> None:
    path = folder / ".claude" / "sessions" / f"{pid}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(session), encoding="utf-8")


def message(key: str, *numbers: int, **more: Any) -> str:
    names = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "output_tokens")
    return json.dumps({"message": {"id": key, "usage": dict(zip(names, numbers, strict=True))}, **more}) + "\n"


# --- files that are missing, stale, half written --------------------------------------------------


def test_nothing_there_is_nothing_known(profile: Profile, tmp_path: Path):
    nothing = facts(profile, tmp_path, pid=os.getpid())
    assert (nothing.state, nothing.session_id, nothing.ended, nothing.tokens, nothing.cost_usd) == ("", "", "", 0, None)


def test_other_clients_are_not_asked(tmp_path: Path):
    session_file(tmp_path, os.getpid(), status="busy", sessionId="s1")
    log(tmp_path, 1, "Stop", last_assistant_message="x")
    assert facts(load_profile("codex"), tmp_path, pid=os.getpid()) == facts(load_profile("codex"), tmp_path / "none")


def test_state_is_read_where_the_client_keeps_its_settings(profile: Profile, tmp_path: Path):
    session_file(tmp_path, os.getpid(), status="busy", sessionId="s1")
    found = facts(profile, tmp_path, pid=os.getpid())
    assert (found.state, found.session_id) == ("busy", "s1")
    (tmp_path / ".claude").rename(tmp_path / "elsewhere")
    env = {"HOME": str(tmp_path), "CLAUDE_CONFIG_DIR": str(tmp_path / "elsewhere")}
    assert read_session(env, os.getpid())["status"] == "busy"
    assert facts(profile, tmp_path, pid=os.getpid()).state == ""


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"status": "strange"}', '{"status": null}', "\udcff"])
def test_session_file_that_says_nothing_is_no_state(profile: Profile, tmp_path: Path, content: str):
    session_file(tmp_path, os.getpid())
    path = tmp_path / ".claude" / "sessions" / f"{os.getpid()}.json"
    path.write_text(content, encoding="utf-8", errors="surrogateescape")
    assert facts(profile, tmp_path, pid=os.getpid()).state == ""


def test_zombie_and_dead_have_no_state(profile: Profile, tmp_path: Path):
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    session_file(tmp_path, child.pid, status="busy", sessionId="s1")
    assert facts(profile, tmp_path, pid=child.pid).state == "busy"
    child.kill()
    eventually(lambda: facts(profile, tmp_path, pid=child.pid).state == "")  # a zombie: nobody has collected it
    assert Path(f"/proc/{child.pid}").exists()
    child.communicate()
    assert facts(profile, tmp_path, pid=child.pid).state == ""


def test_pid_that_belongs_to_another_process_by_now_has_no_state(profile: Profile, tmp_path: Path):
    process = read_process(os.getpid())
    assert process
    session_file(tmp_path, os.getpid(), status="busy", procStart=str(process.started))
    assert facts(profile, tmp_path, pid=os.getpid()).state == "busy"
    session_file(tmp_path, os.getpid(), status="busy", procStart=str(process.started - 1))
    assert facts(profile, tmp_path, pid=os.getpid()).state == ""


def test_last_event_says_how_the_turn_ended_until_a_new_one_begins(profile: Profile, tmp_path: Path):
    log(tmp_path, 1, "UserPromptSubmit", prompt="p")
    assert facts(profile, tmp_path).ended == ""
    log(tmp_path, 2, "Stop", last_assistant_message="done")
    found = facts(profile, tmp_path)
    assert (found.ended, found.last_message, found.at, found.failure) == ("Stop", "done", 2, "")
    log(tmp_path, 3, "StopFailure", error="server_error", last_assistant_message="API Error: 500 x")
    assert (facts(profile, tmp_path).ended, facts(profile, tmp_path).failure) == ("StopFailure", "server_error")
    log(tmp_path, 4, "UserPromptSubmit", prompt="p")
    again = facts(profile, tmp_path)
    assert (again.ended, again.last_message, again.failure, again.at) == ("", "", "", 0)


def test_events_before_the_client_was_started_are_another_ones(profile: Profile, tmp_path: Path):
    log(tmp_path, 100.0, "Stop", last_assistant_message="of the dead client")
    began = log_size(tmp_path / "hooks.jsonl")
    assert facts(profile, tmp_path, since=began).ended == ""
    assert facts(profile, tmp_path).ended == "Stop"


def test_clock_that_is_set_back_hides_no_event(profile: Profile, tmp_path: Path):
    log(tmp_path, 100.0, "Stop", last_assistant_message="of the dead client")
    began = log_size(tmp_path / "hooks.jsonl")
    log(tmp_path, 50.0, "StopFailure", error="server_error", last_assistant_message="API Error: 500 x")
    assert facts(profile, tmp_path, since=began).ended == "StopFailure"


@pytest.mark.parametrize("torn", ["", "{", '{"at": 3}\n', '{"at": "x", "event": {}}\n', "\x00\xff", "[]\n", "null\n"])
def test_line_that_is_not_whole_is_left_out(profile: Profile, tmp_path: Path, torn: str):
    log(tmp_path, 1, "Stop", last_assistant_message="done")
    with (tmp_path / "hooks.jsonl").open("a", encoding="latin-1") as file:
        file.write(torn)
    assert facts(profile, tmp_path).last_message == "done"


def test_only_the_end_of_a_long_log_is_read(profile: Profile, tmp_path: Path):
    for number in range(300):
        log(tmp_path, number, "Stop", last_assistant_message=f"{number} " + "x" * 10_000)
    begun = time.perf_counter()
    assert facts(profile, tmp_path).last_message.startswith("299 ")
    assert time.perf_counter() - begun < 0.5


@pytest.mark.parametrize(
    ("error", "text", "kind"),
    [
        ("rate_limit", "API Error: Request rejected (429) · slow", "rate_limited"),
        ("rate_limit", "You've hit your session limit · resets 8:11am (UTC)", "limit"),
        ("rate_limit", "API Error: Server is temporarily limiting requests (not your usage limit) · x", "rate_limited"),
        ("server_error", "API Error: 529 Overloaded. This is a server-side issue", "overloaded"),
        ("unknown", "API Error: Overloaded", "overloaded"),
        ("server_error", "API Error: 500 x", "server_error"),
        ("server_error", "API Error: Unable to connect to API (ConnectionRefused)", "server_error"),
        ("authentication_failed", "Invalid API key", "auth"),
        ("oauth_org_not_allowed", "x", "auth"),
        ("billing_error", "Credit balance is too low", "billing"),
        ("model_not_found", "x", "model"),
        ("max_output_tokens", "API Error: Claude's response exceeded the 64000 output token maximum.", "cut"),
        ("invalid_request", "Prompt is too long", "context"),
        ("invalid_request", "Request too large (max 32MB).", "too_large"),
        ("of a later version", "x", "server_error"),
        ("", "", "server_error"),
    ],
)
def test_failure_is_told_in_the_profiles_words(profile: Profile, error: str, text: str, kind: str):
    assert failure_kind(profile, error, text) == kind


@pytest.mark.parametrize(
    ("limits", "resets"),
    [
        ({}, None),
        ({"five_hour": {"used_percentage": 93, "resets_at": 2000}}, None),
        ({"five_hour": {"used_percentage": 100, "resets_at": 2000}}, 2000),
        ({"five_hour": {"used_percentage": 100, "resets_at": 900}}, None),
        (
            {
                "five_hour": {"used_percentage": 100, "resets_at": 2000},
                "seven_day": {"used_percentage": 101.5, "resets_at": 9000},
            },
            9000,
        ),
        ({"five_hour": None, "other": 3}, None),
    ],
)
def test_used_up_limit_tells_when_it_ends(limits: dict[str, Any], resets: float | None):
    assert reset_of_limits(limits, 1000.0) == resets


def test_cost_of_another_conversation_is_not_this_ones(profile: Profile, tmp_path: Path):
    log(tmp_path, 1, "Stop")
    status = tmp_path / "status.json"
    status.write_text('{"session_id": "s1", "cost": {"total_cost_usd": 1.5}}', encoding="utf-8")
    assert facts(profile, tmp_path).cost_usd == 1.5
    status.write_text('{"session_id": "s2", "cost": {"total_cost_usd": 1.5}}', encoding="utf-8")
    assert facts(profile, tmp_path).cost_usd is None
    status.write_text('{"session_id": "s1", "cost"', encoding="utf-8")
    assert facts(profile, tmp_path).cost_usd is None


# --- tokens ---------------------------------------------------------------------------------------


def test_message_counts_once_though_each_of_its_blocks_has_a_line(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        message("m1", 10, 2, 3, 1) + message("m1", 10, 2, 3, 5) + message("m2", 1, 0, 0, 1), encoding="utf-8"
    )
    assert TokenMeter(path).read() == 22


def test_meter_reads_on_where_it_was_and_waits_for_whole_lines(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    meter = TokenMeter(path)
    assert meter.read() == 0
    line = message("m1", 10, 0, 0, 0)
    path.write_text(line[:-10], encoding="utf-8")
    assert meter.read() == 0
    path.write_text(line, encoding="utf-8")
    assert meter.read() == 10
    with path.open("a", encoding="utf-8") as file:
        file.write('{"usage": nonsense}\n[]\n' + message("m1", 12, 0, 0, 0) + message("m2", 1, 1, 1, 1))
    assert meter.read() == 16
    assert meter.read() == 16


def test_subagents_count_too(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text(message("m1", 10, 0, 0, 0), encoding="utf-8")
    meter = TokenMeter(path)
    assert meter.read() == 10
    subagent = tmp_path / "t" / "subagents" / "agent-1.jsonl"
    subagent.parent.mkdir(parents=True)
    subagent.write_text(message("m2", 5, 0, 0, 1, isSidechain=True), encoding="utf-8")
    assert meter.read() == 16


def test_large_transcript_is_read_once(tmp_path: Path):
    path = tmp_path / "t.jsonl"
    path.write_text(
        "".join(message(f"m{number}", 1, 0, 0, 0, pad="x" * 2000) for number in range(10_000)), encoding="utf-8"
    )
    meter = TokenMeter(path)
    assert meter.read() == 10_000
    begun = time.perf_counter()
    assert meter.read() == 10_000
    assert time.perf_counter() - begun < 0.1


# --- the real client ------------------------------------------------------------------------------


@pytest.mark.slow
def test_real_client_tells_its_state_tokens_and_cost(claude: ClaudeBench):
    claude.start()
    begun = claude.facts()
    assert (begun.state, begun.ended, begun.tokens) == ("idle", "", 0)
    assert begun.session_id
    claude.ask(run("sleep 2"), say("I have slept."))
    busy = claude.until(lambda facts: facts.state == "busy")
    assert (busy.ended, busy.last_message) == ("", "")
    # A status line, ours as well as a user's, takes the place of the footer's mark of a busy client.
    eventually(lambda: (screen := claude.terminal.look()) and classify(claude.profile, screen).state == "busy")
    found = claude.until(lambda facts: facts.ended and facts.cost_usd and facts.state == "idle")
    assert (found.ended, found.last_message, found.failure) == ("Stop", "I have slept.", "")
    assert found.session_id == begun.session_id
    assert found.tokens == 2 * (1000 + 50)  # what the scripted model says of each answer
    assert 0 <= time.time() - found.at < 60


@pytest.mark.slow
def test_real_client_counts_its_subagents_and_goes_on_counting_after_a_restart(claude: ClaudeBench):
    claude.start()
    claude.do(use("Agent", description="d", prompt="p", subagent_type="general-purpose"), say("the subagent's word"))
    first = claude.until(lambda facts: facts.tokens == 3 * 1050 and facts.cost_usd)
    claude.start(conversation=first.session_id)
    claude.do()
    again = claude.until(lambda facts: facts.tokens == 4 * 1050 and (facts.cost_usd or 0) > (first.cost_usd or 0))
    assert again.session_id == first.session_id


@pytest.mark.slow
def test_real_client_tells_how_a_turn_failed(claude: ClaudeBench):
    claude.start()
    resets = datetime.fromtimestamp(int(time.time()) + 7200, UTC)
    failures = {
        "server_error": [refuse(500, retry_after_s=0)] * 2,
        "overloaded": [refuse(529, "Overloaded", retry_after_s=0)] * 2,
        "rate_limited": [refuse(429, retry_after_s=0)],  # a subscriber's is not tried again
        "limit": [limit(resets)],
    }
    for kind, turns in failures.items():
        claude.ask(*turns, text=f"about {kind}")
        claude.until(lambda facts: (facts.ended, facts.failure) == ("StopFailure", kind))  # noqa: B023
    claude.until(lambda facts: facts.state == "waiting")  # in the limit's menu
    claude.terminal.press("Escape")
    claude.until(lambda facts: facts.state == "idle" and facts.resets_at == resets.timestamp())


@pytest.mark.slow
@pytest.mark.parametrize("turn", [cut("half a sen"), break_off("half")], ids=["cut", "broken off"])
def test_stream_that_ends_early_is_an_end_of_the_turn(claude: ClaudeBench, turn):
    claude.start()
    claude.ask(turn)
    found = claude.until(lambda facts: facts.ended)
    assert (found.ended, found.failure) == (("Stop", "") if turn.cut else ("StopFailure", "overloaded"))


@pytest.mark.slow
def test_killed_client_leaves_a_busy_session_file_that_is_not_believed(claude: ClaudeBench):
    claude.start()
    claude.ask(run("sleep 60"))
    claude.until(lambda facts: facts.state == "busy")
    pid = claude.terminal.pid()
    assert pid
    os.kill(pid, signal.SIGKILL)
    eventually(lambda: read_process(pid) is None)
    stale = json.loads((claude.world.home / ".claude" / "sessions" / f"{pid}.json").read_text(encoding="utf-8"))
    assert stale["status"] == "busy"
    assert read_session(claude.env, pid) == {}
    assert claude.facts().state == ""
    claude.world.end()  # the sleep


@pytest.mark.slow
def test_client_started_from_within_another_ones_shell_tells_as_much(claude: ClaudeBench):
    claude.env |= {"CLAUDECODE": "1", "CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDE_CODE_SESSION_KIND": "bg"}
    claude.start()
    claude.do()
    claude.until(lambda facts: facts.tokens == 1050)
