"""The model APIs that agent clients speak, as far as a scripted model needs them: reading a request, writing an answer.

An answer is a stream of server-sent events in two parts, what the model says and what ends the
message, so that a server can break off between them.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

SHELL = "shell"  # a call by this name becomes a call of the shell tool that the client has declared
PIECE = 6  # characters of text in one event

Body = dict[str, Any]


@dataclass(frozen=True)
class Call:
    """The model asks the client to use a tool. Of SHELL the input is ``{"command": ...}``."""

    name: str
    input: Body


@dataclass(frozen=True, kw_only=True)
class Reply:
    """What a model says in one message; ``number`` makes the ids unique."""

    number: int
    model: str
    text: str
    calls: tuple[Call, ...]
    input_tokens: int
    output_tokens: int


class Api(ABC):
    """One wire format."""

    path: ClassVar[str]  # what the path of a request for a message holds
    shells: ClassVar[tuple[str, ...]]  # names of shell tools; a request that declares none is a side request

    @abstractmethod
    def tools(self, body: Body) -> list[str]:
        """The names of the tools that the client offers."""

    @abstractmethod
    def items(self, body: Body) -> Iterator[tuple[str, str]]:
        """The conversation so far: ``("user", text)`` and ``("result", what a tool printed)``, oldest first."""

    @abstractmethod
    def saying(self, reply: Reply, body: Body) -> Iterator[str]:
        """The events up to the last word."""

    @abstractmethod
    def closing(self, reply: Reply, body: Body) -> Iterator[str]:
        """The events that end the message."""

    @abstractmethod
    def whole(self, reply: Reply, body: Body) -> Body:
        """The message as one JSON object, for a client that did not ask for a stream."""

    def error(self, kind: str, message: str) -> Body:
        """The body of an HTTP error."""
        return {"error": {"type": kind, "code": kind, "message": message}}

    def wants_stream(self, path: str, body: Body) -> bool:
        return bool(body.get("stream"))


class AnthropicMessages(Api):
    """Claude Code."""

    path = "/v1/messages"
    shells = ("Bash",)

    def tools(self, body: Body) -> list[str]:
        return names(body.get("tools"))

    def items(self, body: Body) -> Iterator[tuple[str, str]]:
        for message in body.get("messages", []):
            if message["role"] != "user":
                continue
            for block in blocks(message["content"]):
                if block["type"] == "tool_result":
                    yield "result", text_of(block.get("content"))
                elif block["type"] == "text":
                    yield "user", block["text"]

    def error(self, kind: str, message: str) -> Body:
        return {"type": "error", "error": {"type": kind, "message": message}, "request_id": "req_scripted"}

    def saying(self, reply: Reply, body: Body) -> Iterator[str]:
        message = self.whole(reply, body)
        yield self._event("message_start", message={**message, "content": [], "stop_reason": None})
        for index, block in enumerate(message["content"]):
            if block["type"] == "text":
                empty: Body = {"type": "text", "text": ""}
                deltas: Iterable[Body] = ({"type": "text_delta", "text": piece} for piece in pieces(block["text"]))
            else:
                empty = {**block, "input": {}}
                deltas = [{"type": "input_json_delta", "partial_json": dumps(block["input"])}]
            yield self._event("content_block_start", index=index, content_block=empty)
            for delta in deltas:
                yield self._event("content_block_delta", index=index, delta=delta)
            yield self._event("content_block_stop", index=index)

    def closing(self, reply: Reply, body: Body) -> Iterator[str]:
        message = self.whole(reply, body)
        ended = {"stop_reason": message["stop_reason"], "stop_sequence": None}
        yield self._event("message_delta", delta=ended, usage=message["usage"])
        yield self._event("message_stop")

    def stream_error(self, kind: str, message: str) -> str:
        return self._event("error", error={"type": kind, "message": message})

    def whole(self, reply: Reply, body: Body) -> Body:
        said: list[Body] = [{"type": "text", "text": reply.text}] if reply.text else []
        for index, call in enumerate(reply.calls):
            name, given = call.name, call.input
            if name == SHELL:
                name, given = "Bash", {"description": "Go on", **given}
            said.append({"type": "tool_use", "id": f"toolu_{reply.number}_{index}", "name": name, "input": given})
        return {
            "id": f"msg_{reply.number}", "type": "message", "role": "assistant", "model": reply.model,
            "content": said, "stop_reason": "tool_use" if reply.calls else "end_turn", "stop_sequence": None,
            "usage": {
                "input_tokens": reply.input_tokens, "output_tokens": reply.output_tokens,
                "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            },
        }  # fmt: skip

    def _event(self, kind: str, **data: Any) -> str:
        return event({"type": kind, **data}, kind)


class OpenaiResponses(Api):
    """Codex."""

    path = "/responses"
    shells = ("exec_command", "shell_command", "shell", "local_shell")

    def tools(self, body: Body) -> list[str]:
        return names(body.get("tools"))

    def items(self, body: Body) -> Iterator[tuple[str, str]]:
        for item in body.get("input", []):
            if item.get("type") == "function_call_output":
                yield "result", text_of(item["output"])
            elif item.get("role") == "user":
                for part in blocks(item["content"]):
                    yield "user", part.get("text", "")

    def saying(self, reply: Reply, body: Body) -> Iterator[str]:
        yield self._event("response.created", response={"id": f"resp_{reply.number}"})
        for index, item in enumerate(self._output(reply, body)):
            yield self._event("response.output_item.added", output_index=index, item=item)
            if item["type"] == "message":
                for piece in pieces(reply.text):
                    yield self._event(
                        "response.output_text.delta", item_id=item["id"], output_index=index, content_index=0,
                        delta=piece,
                    )  # fmt: skip
            yield self._event("response.output_item.done", output_index=index, item=item)

    def closing(self, reply: Reply, body: Body) -> Iterator[str]:
        yield self._event("response.completed", response=self.whole(reply, body))

    def whole(self, reply: Reply, body: Body) -> Body:
        usage = {
            "input_tokens": reply.input_tokens, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": reply.output_tokens, "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }  # fmt: skip
        return {"id": f"resp_{reply.number}", "output": self._output(reply, body), "usage": usage}

    def _output(self, reply: Reply, body: Body) -> list[Body]:
        said: list[Body] = []
        if reply.text:
            content = [{"type": "output_text", "text": reply.text}]
            said.append({"type": "message", "role": "assistant", "id": f"msg_{reply.number}", "content": content})
        for index, call in enumerate(reply.calls):
            name, given = call.name, call.input
            if name == SHELL:
                name = next(name for name in self.shells if name in self.tools(body))
                command = given["command"]
                given = {
                    "exec_command": {"cmd": command},
                    "shell_command": {"command": command},
                }.get(name, {"command": ["bash", "-lc", command]})
            said.append({
                "type": "function_call", "id": f"fc_{reply.number}_{index}", "call_id": f"call_{reply.number}_{index}",
                "name": name, "arguments": dumps(given),
            })  # fmt: skip
        return said

    def _event(self, kind: str, **data: Any) -> str:
        return event({"type": kind, **data}, kind)


class OpenaiChat(Api):
    """opencode."""

    path = "/chat/completions"
    shells = ("bash",)

    def tools(self, body: Body) -> list[str]:
        return names(tool["function"] for tool in body.get("tools") or [])

    def items(self, body: Body) -> Iterator[tuple[str, str]]:
        for message in body.get("messages", []):
            if message["role"] == "tool":
                yield "result", text_of(message["content"])
            elif message["role"] == "user":
                for part in blocks(message["content"]):
                    yield "user", part.get("text", "")

    def saying(self, reply: Reply, body: Body) -> Iterator[str]:
        for piece in pieces(reply.text):
            yield self._chunk(reply, {"role": "assistant", "content": piece})
        if reply.calls:
            yield self._chunk(reply, {"role": "assistant", "tool_calls": self._calls(reply)})

    def closing(self, reply: Reply, body: Body) -> Iterator[str]:
        yield self._chunk(reply, {}, finish_reason=self._finish(reply), usage=self._usage(reply))
        yield "data: [DONE]\n\n"

    def whole(self, reply: Reply, body: Body) -> Body:
        message: Body = {"role": "assistant", "content": reply.text}
        if reply.calls:
            message["tool_calls"] = self._calls(reply)
        choice = {"index": 0, "message": message, "finish_reason": self._finish(reply)}
        return {
            "id": f"chat_{reply.number}", "object": "chat.completion", "created": 1, "model": reply.model,
            "choices": [choice], "usage": self._usage(reply),
        }  # fmt: skip

    def _chunk(self, reply: Reply, delta: Body, *, finish_reason: str | None = None, **more: Any) -> str:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return event({
            "id": f"chat_{reply.number}", "object": "chat.completion.chunk", "created": 1, "model": reply.model,
            "choices": [choice], **more,
        })  # fmt: skip

    def _calls(self, reply: Reply) -> list[Body]:
        found = []
        for index, call in enumerate(reply.calls):
            name, given = call.name, call.input
            if name == SHELL:
                name, given = "bash", {"description": "Go on", **given}
            function = {"name": name, "arguments": dumps(given)}
            found.append({
                "index": index, "id": f"call_{reply.number}_{index}", "type": "function", "function": function,
            })  # fmt: skip
        return found

    def _finish(self, reply: Reply) -> str:
        return "tool_calls" if reply.calls else "stop"

    def _usage(self, reply: Reply) -> Body:
        return {
            "prompt_tokens": reply.input_tokens, "completion_tokens": reply.output_tokens,
            "total_tokens": reply.input_tokens + reply.output_tokens,
        }  # fmt: skip


class GeminiContent(Api):
    """Gemini CLI."""

    path = "enerateContent"  # generateContent, streamGenerateContent
    shells = ("run_shell_command",)

    def tools(self, body: Body) -> list[str]:
        return [name for tool in body.get("tools") or [] for name in names(tool.get("functionDeclarations"))]

    def items(self, body: Body) -> Iterator[tuple[str, str]]:
        for content in body.get("contents", []):
            if content.get("role") != "user":
                continue
            for part in content["parts"]:
                if "functionResponse" in part:
                    output = text_of(part["functionResponse"]["response"].get("output", ""))
                    yield "result", output.removeprefix("<untrusted_context>\n").removeprefix("Output: ")
                elif "text" in part:
                    yield "user", part["text"]

    def wants_stream(self, path: str, body: Body) -> bool:
        return "stream" in path

    def error(self, kind: str, message: str) -> Body:
        return {"error": {"status": kind.upper(), "message": message}}

    def saying(self, reply: Reply, body: Body) -> Iterator[str]:
        for piece in pieces(reply.text):
            yield self._event(reply, [{"text": piece}])
        if reply.calls:
            yield self._event(reply, [self._call(call) for call in reply.calls])

    def closing(self, reply: Reply, body: Body) -> Iterator[str]:
        yield self._event(reply, [{"text": ""}], finishReason="STOP")

    def whole(self, reply: Reply, body: Body) -> Body:
        said: list[Body] = [{"text": reply.text}] if reply.text else []
        return self._response(reply, said + [self._call(call) for call in reply.calls], finishReason="STOP")

    def _call(self, call: Call) -> Body:
        name, given = call.name, call.input
        if name == SHELL:
            name, given = "run_shell_command", {"description": "Go on", **given}
        return {"functionCall": {"name": name, "args": given}}

    def _event(self, reply: Reply, parts: list[Body], **more: Any) -> str:
        return event(self._response(reply, parts, **more))

    def _response(self, reply: Reply, parts: list[Body], **more: Any) -> Body:
        usage = {
            "promptTokenCount": reply.input_tokens, "candidatesTokenCount": reply.output_tokens,
            "totalTokenCount": reply.input_tokens + reply.output_tokens,
        }  # fmt: skip
        candidate = {"content": {"role": "model", "parts": parts}, "index": 0, **more}
        return {"candidates": [candidate], "usageMetadata": usage, "modelVersion": "scripted"}


APIS: tuple[Api, ...] = (OpenaiResponses(), OpenaiChat(), GeminiContent(), AnthropicMessages())


def event(data: Body, name: str = "") -> str:
    return (f"event: {name}\n" if name else "") + f"data: {dumps(data)}\n\n"


def dumps(data: object) -> str:
    return json.dumps(data, ensure_ascii=False)


def pieces(text: str) -> Iterator[str]:
    for start in range(0, len(text), PIECE):
        yield text[start : start + PIECE]


def names(tools: Iterable[Body] | None) -> list[str]:
    return [tool.get("name", "") for tool in tools or []]


def blocks(content: str | list[Body]) -> list[Body]:
    """Content, which may be given as a plain string."""
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def text_of(content: Any) -> str:
    """The text of a tool's result, however it is wrapped."""
    if isinstance(content, list):
        return "".join(block.get("text", "") for block in content)
    return content if isinstance(content, str) else dumps(content)
