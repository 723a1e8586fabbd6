"""A model that says what a test wants: a server on loopback for Claude Code, Codex, Gemini CLI and opencode.

    with ScriptedModel([run("ls"), say("That is all.")]) as model:
        ...  # a client with ANTHROPIC_BASE_URL=model.url
        assert "README" in model.asked[1].result

The script is a list of turns, or a function from a request to a turn: a scripted agent, which can
react to what the tools printed. Only requests that offer a shell tool take a turn; a client's side
requests, for titles and the like, get a harmless answer. What a model or the net between can do
wrong are turns too: ``refuse``, ``limit``, ``cut``, ``break_off``, and a ``delay_s``.
"""

from __future__ import annotations

import contextlib
import json
import ssl
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from tests.model_apis import APIS, SHELL, AnthropicMessages, Api, Body, Call, Reply

SECRET_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")
PATIENCE_S = 120.0


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An HTTP error in place of an answer."""

    status: int
    kind: str
    message: str
    headers: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One answer of the model, or what happens in its place."""

    text: str = ""
    calls: tuple[Call, ...] = ()
    input_tokens: int = 1000
    output_tokens: int = 50
    headers: dict[str, str] = field(default_factory=dict)
    delay_s: float = 0.0  # before the first byte
    drip_s: float = 0.0  # between the pieces of the text
    refusal: Refusal | None = None
    cut: bool = False  # the connection ends after the last word, before the message does
    stream_error: tuple[str, str] | None = None  # the kind and message of an error event after the last word


def say(text: str, **more: Any) -> Turn:
    """The model only talks, which ends its turn."""
    return Turn(text=text, **more)


def run(command: str, text: str = "", **more: Any) -> Turn:
    """The model has the client run ``command``; further fields of the tool's input go by ``input_``."""
    return Turn(text=text, calls=(Call(SHELL, {"command": command, **more.pop("input_", {})}),), **more)


def use(tool: str, /, text: str = "", **given: Any) -> Turn:
    """The model has the client use ``tool`` with the input ``given``."""
    return Turn(text=text, calls=(Call(tool, given),))


REFUSALS = {
    400: "invalid_request_error",
    401: "authentication_error",
    404: "not_found_error",
    429: "rate_limit_error",
    500: "api_error",
    529: "overloaded_error",
}


def refuse(status: int, message: str = "made up by the test", *, retry_after_s: float | None = None) -> Turn:
    """An HTTP error."""
    headers = {} if retry_after_s is None else {"retry-after": f"{retry_after_s:g}"}
    return Turn(refusal=Refusal(status=status, kind=REFUSALS[status], message=message, headers=headers))


def limit(resets: datetime, *, name: str = "five_hour") -> Turn:
    """A subscription's usage limit, as Anthropic tells it to Claude Code."""
    headers = {
        "status": "rejected",
        "reset": str(int(resets.timestamp())),
        "representative-claim": name,
        "5h-utilization": "1.0",
        "5h-reset": str(int(resets.timestamp())),
        "overage-status": "rejected",
    }
    headers = {f"anthropic-ratelimit-unified-{key}": value for key, value in headers.items()}
    refusal = Refusal(status=429, kind="rate_limit_error", message="This request exceeds the limit.", headers=headers)
    return Turn(refusal=refusal)


def cut(text: str) -> Turn:
    """The stream ends in the middle of a message that has said ``text``."""
    return Turn(text=text, cut=True)


def break_off(text: str, kind: str = "overloaded_error", message: str = "Overloaded") -> Turn:
    """An error event in the stream, after ``text``."""
    return Turn(text=text, stream_error=(kind, message))


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a client sent. ``at`` is ``time.monotonic()``; keys are cut from the headers."""

    number: int
    at: float
    method: str
    host: str
    path: str
    headers: dict[str, str]
    body: Body
    api: Api | None = None  # None: not for a message

    @property
    def is_main(self) -> bool:
        """Whether it goes on with the work, and isn't a side request."""
        return self.api is not None and bool(set(self.tools) & set(self.api.shells))

    @property
    def tools(self) -> list[str]:
        return self.api.tools(self.body) if self.api else []

    @property
    def items(self) -> list[tuple[str, str]]:
        """The conversation so far: ``("user", text)`` and ``("result", what a tool printed)``."""
        return list(self.api.items(self.body)) if self.api else []

    @property
    def users(self) -> list[str]:
        """All that the user has said, the client's own reminders among it."""
        return [text for kind, text in self.items if kind == "user"]

    @property
    def results(self) -> list[str]:
        """What all tools of the conversation have printed."""
        return [text for kind, text in self.items if kind == "result"]

    @property
    def result(self) -> str:
        """What the last tool printed; "" if the user has spoken since."""
        for kind, text in reversed(self.items):
            if kind == "result":
                return text
            if not is_reminder(text):
                return ""
        return ""

    @property
    def tools_used(self) -> int:
        """How many tools the model has used since the user spoke."""
        words = [kind for kind, text in self.items if kind == "result" or not is_reminder(text)]
        return next((count for count, kind in enumerate(reversed(words)) if kind == "user"), len(words))

    @property
    def message(self) -> str:
        """The user's last words."""
        return next((text for text in reversed(self.users) if not is_reminder(text)), "")


Agent = Callable[[Request], Turn]
SPENT = say("The script is at its end.")
SIDE = say('{"title": "A night", "isNewTopic": false}')


class ScriptedModel:
    """The server; a context manager.

    ``requests`` are all requests, ``asked`` those that took a turn, ``given`` the turns that they took.
    """

    def __init__(self, script: Sequence[Turn] | Agent = (), *, certificate: Path | None = None) -> None:
        """With a ``certificate`` (a PEM file that holds its key too) it is an HTTPS proxy as well.

        What a client wants from any other host by ``HTTPS_PROXY=model.url`` is answered here.
        """
        self.requests: list[Request] = []
        self.asked: list[Request] = []
        self.given: list[Turn] = []
        self._script = deque(() if callable(script) else script)
        self._agent = script if callable(script) else None
        self._tls: ssl.SSLContext | None = None
        if certificate:
            self._tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            self._tls.load_cert_chain(certificate)
        self._news = threading.Condition()
        self._closing = threading.Event()
        self._failure: BaseException | None = None
        self._server = Server(("127.0.0.1", 0), Handler)
        self._server.model = self
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        if kind is None and self._failure:
            raise self._failure

    def add(self, *turns: Turn) -> None:
        """Give these turns next, before the script goes on."""
        with self._news:
            self._script.extend(turns)

    def wait_for(self, wanted: Callable[[Request], object], *, patience_s: float = PATIENCE_S) -> Request:
        """The first request that is ``wanted``; fails if none comes."""
        return self._wait(lambda: next((request for request in self.requests if wanted(request)), None), patience_s)

    def wait_for_turn(
        self, wanted: Callable[[Turn], object], *, after: int = 0, patience_s: float = PATIENCE_S
    ) -> Request:
        """The request that was given the first ``wanted`` turn behind the first ``after`` turns; fails if none is."""
        return self._wait(lambda: self.find_turn(wanted, after=after), patience_s)

    def find_turn(self, wanted: Callable[[Turn], object], *, after: int = 0) -> Request | None:
        """The same, without waiting."""
        with self._news:
            pairs = list(zip(self.asked, self.given, strict=True))[after:]
            return next((request for request, turn in pairs if wanted(turn)), None)

    def _wait(self, find: Callable[[], Request | None], patience_s: float) -> Request:
        with self._news:
            self._news.wait_for(find, patience_s)
            request = find()
        assert request, f"of {len(self.requests)} requests none was the one waited for"
        return request

    # --- for the handler -----------------------------------------------------------------------

    def record(self, method: str, host: str, path: str, headers: dict[str, str], body: Body) -> Request:
        kept = {name: "cut" if name.lower() in SECRET_HEADERS else value for name, value in headers.items()}
        bare = path.partition("?")[0]
        api = next((api for api in APIS if api.path in bare and method == "POST" and "ount" not in bare), None)
        with self._news:
            request = Request(
                number=len(self.requests) + 1, at=time.monotonic(), method=method, host=host, path=path,
                headers=kept, body=body, api=api,
            )  # fmt: skip
            self.requests.append(request)
            self._news.notify_all()
            return request

    def turn(self, request: Request) -> Turn:
        """The answer to a request for a message. What a scripted agent raises is raised again at the end."""
        if not request.is_main:
            return SIDE
        with self._news:
            turn = self._next(request)
            self.asked.append(request)
            self.given.append(turn)
            self._news.notify_all()
            return turn

    def _next(self, request: Request) -> Turn:
        if self._script:
            return self._script.popleft()
        if self._agent is None:
            return SPENT
        try:
            return self._agent(request)
        except BaseException as error:  # noqa: BLE001 - it belongs to the test's thread
            self._failure = error
            return say(f"The scripted agent failed: {error!r}")

    def pause(self, seconds: float) -> None:
        self._closing.wait(seconds)

    def secure(self, connection: Any) -> ssl.SSLSocket | None:
        return self._tls.wrap_socket(connection, server_side=True) if self._tls else None


class Server(ThreadingHTTPServer):
    """One thread for each connection; none outlives the test's process."""

    daemon_threads = True
    model: ScriptedModel

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed or lost patience is what these tests are about."""


class Handler(BaseHTTPRequestHandler):
    """Answers one client's connection."""

    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_CONNECT(self) -> None:
        """Be the host that is asked for, not only the way to it."""
        self.send_response(200)
        self.end_headers()
        secured = self.server.model.secure(self.connection)
        if secured is None:
            self.close_connection = True
            return
        self.connection = secured
        self.rfile = secured.makefile("rb")
        self.wfile = secured.makefile("wb", buffering=0)  # type: ignore[assignment]
        self.close_connection = False
        while not self.close_connection:
            self.handle_one_request()
        with contextlib.suppress(OSError):
            secured.close()

    def do_GET(self) -> None:
        self._receive(b"")
        if self.headers.get("upgrade"):
            self._json({"error": {"message": "no websockets here"}}, 426)
        elif "models" in self.path:
            self._json({"object": "list", "data": [], "models": [], "has_more": False})
        else:
            self._json({})

    do_HEAD = do_GET  # noqa: N815 - the base class looks this name up

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers.get("content-length") or 0))
        request = self._receive(raw)
        if request.api:
            self._answer(request, request.api, self.server.model.turn(request))
        elif "ount" in self.path:  # count_tokens, countTokens
            self._json({"input_tokens": len(raw) // 4, "totalTokens": len(raw) // 4})
        else:
            self._json({})

    def _receive(self, raw: bytes) -> Request:
        try:
            body = json.loads(raw) if raw else {}
        except ValueError:
            body = {}
        return self.server.model.record(
            self.command, self.headers.get("host", ""), self.path, dict(self.headers.items()),
            body if isinstance(body, dict) else {"body": body},
        )  # fmt: skip

    def _answer(self, request: Request, api: Api, turn: Turn) -> None:
        self.server.model.pause(turn.delay_s)
        if turn.refusal:
            refusal = turn.refusal
            self._json(api.error(refusal.kind, refusal.message), refusal.status, refusal.headers)
            return
        reply = Reply(
            number=request.number, model=str(request.body.get("model", "scripted")), text=turn.text, calls=turn.calls,
            input_tokens=turn.input_tokens, output_tokens=turn.output_tokens,
        )  # fmt: skip
        if not api.wants_stream(request.path, request.body):
            self._json(api.whole(reply, request.body), headers=turn.headers)
            return
        self.send_response(200)
        for name, value in {"content-type": "text/event-stream", "connection": "close", **turn.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        for frame in self._frames(request, api, turn, reply):
            self.wfile.write(frame.encode())
            self.server.model.pause(turn.drip_s)

    def _frames(self, request: Request, api: Api, turn: Turn, reply: Reply) -> Iterator[str]:
        yield from api.saying(reply, request.body)
        if turn.cut:
            return
        if turn.stream_error:
            assert isinstance(api, AnthropicMessages)
            yield api.stream_error(*turn.stream_error)
            return
        yield from api.closing(reply, request.body)

    def _json(self, data: Body, status: int = 200, headers: dict[str, str] | None = None) -> None:
        raw = json.dumps(data, ensure_ascii=False).encode()
        self.send_response(status)
        for name, value in {"content-type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(raw)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(raw)


def is_reminder(text: str) -> bool:
    """Whether the client says this in the user's name."""
    return text.lstrip().startswith("<system-reminder>")
