from __future__ import annotations

import http.client
import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from tests.model_apis import SHELL
from tests.scripted_model import Request, ScriptedModel, Turn, break_off, cut, limit, refuse, run, say

MESSAGES = "/v1/messages?beta=true"
TOOLS: dict[str, list[dict[str, Any]]] = {
    MESSAGES: [{"name": "Bash"}],
    "/v1/responses": [{"name": "exec_command"}],
    "/v1/chat/completions": [{"type": "function", "function": {"name": "bash"}}],
    "/v1beta/models/x:streamGenerateContent?alt=sse": [{"functionDeclarations": [{"name": "run_shell_command"}]}],
}


def ask(
    model: ScriptedModel, path: str = MESSAGES, *, main: bool = True, **body: Any
) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=10)
    tools = TOOLS[path] if main else []
    content = json.dumps({"model": "m", "stream": True, "tools": tools, **body})
    connection.request("POST", path, content, {"x-api-key": "secret"})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, dict(answer.getheaders()), text


@pytest.mark.parametrize("path", TOOLS)
def test_a_call_of_the_shell_becomes_the_clients_own(path: str) -> None:
    with ScriptedModel([run("ls -l", "Look.")]) as model:
        status, _, text = ask(model, path)
    assert status == 200
    assert "ls -l" in text
    assert (TOOLS[path][0].get("name") or next(iter(model.asked[0].tools))) in text
    assert SHELL not in {event.get("name") for event in events(text)}


@pytest.mark.parametrize("path", TOOLS)
def test_a_cut_stream_lacks_its_end(path: str) -> None:
    with ScriptedModel([say("Half"), cut("Half")]) as model:
        whole, half = ask(model, path)[2], ask(model, path)[2]
    assert "Half" in half
    assert whole.replace("_1", "_2").startswith(half)  # the ids count the requests
    assert len(half) < len(whole)


def test_a_spent_script_still_answers_and_side_requests_take_no_turn() -> None:
    with ScriptedModel([say("first")]) as model:
        assert "first" not in ask(model, main=False)[2]
        assert "first" in ask(model, stream=False)[2]
        assert "at its end" in ask(model, stream=False)[2]
        assert (len(model.requests), len(model.asked)) == (3, 2)


def test_keys_are_not_recorded() -> None:
    with ScriptedModel() as model:
        ask(model)
    assert "secret" not in str(model.requests)


def test_added_turns_go_before_the_agents_own() -> None:
    def agent(request: Request) -> Turn:
        return say(f"agent {request.number}")

    with ScriptedModel(agent) as model:
        model.add(say("added"))
        assert "added" in ask(model, stream=False)[2]
        assert "agent 2" in ask(model, stream=False)[2]


def test_what_an_agent_raises_reaches_the_test() -> None:
    def agent(request: Request) -> Turn:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), ScriptedModel(agent) as model:
        ask(model)


def test_refusals_carry_their_headers() -> None:
    reset = datetime(2026, 4, 5, 8, 11, tzinfo=UTC)
    with ScriptedModel([refuse(529, "full", retry_after_s=3), limit(reset)]) as model:
        status, headers, text = ask(model)
        assert (status, headers["retry-after"], json.loads(text)["error"]["type"]) == (529, "3", "overloaded_error")
        status, headers, _ = ask(model)
        assert status == 429
        assert headers["anthropic-ratelimit-unified-reset"] == str(int(reset.timestamp()))


def test_an_error_event_takes_the_place_of_the_end() -> None:
    with ScriptedModel([break_off("Half")]) as model:
        kinds = [event["type"] for event in events(ask(model)[2])]
    assert kinds[-1] == "error"
    assert "message_stop" not in kinds


def test_what_the_last_tool_printed_is_the_result_until_the_user_speaks() -> None:
    used = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "42"}]}
    spoken = {"role": "user", "content": "Go on."}
    reminded = {"role": "user", "content": "<system-reminder>\nBe brief.\n</system-reminder>"}
    with ScriptedModel() as model:
        ask(model, messages=[spoken, used, reminded])
        ask(model, messages=[used, spoken, reminded])
    assert [request.result for request in model.asked] == ["42", ""]
    assert [request.tools_used for request in model.asked] == [1, 0]
    assert [request.message for request in model.asked] == ["Go on.", "Go on."]


def test_a_delayed_answer_does_not_hold_up_the_end() -> None:
    began = time.monotonic()
    with ScriptedModel([say("late", delay_s=60)]) as model:
        connection = http.client.HTTPConnection(model.url.removeprefix("http://"), timeout=10)
        connection.request("POST", MESSAGES, json.dumps({"tools": TOOLS[MESSAGES]}))
        model.wait_for_turn(lambda turn: turn.text == "late")
    connection.close()
    assert time.monotonic() - began < 10


def events(stream: str) -> list[dict[str, Any]]:
    """The JSON of a stream's events."""
    lines = [line.removeprefix("data: ") for line in stream.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]
