"""Notifications: a real receiver on the loopback; channels that refuse, fail and hang do not touch the loop."""

from __future__ import annotations

import http.server
import json
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, TAG, Loop, make_loop, make_measured_loop
from tests.trial_bench import eventually

from autoresearch.campaign.opened import open_ledger
from autoresearch.config import Config
from autoresearch.errors import UsageError
from autoresearch.ledger import Ledger
from autoresearch.notify import check_channels, notify, notify_and_wait
from autoresearch.notify.letter import BODY_LENGTH, TITLE_WIDTH
from autoresearch.notify.limits import GAP_S, HOURLY, HOURLY_URGENT, LIMITS_FILE, admit
from autoresearch.notify.send import reason_in

SECRET = "hunter2"


class Receiver:
    """An HTTP server that keeps what it is sent and answers with ``status``."""

    def __init__(self, status: int = 200) -> None:
        self.got: list[dict[str, Any]] = []
        receiver = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(status)
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()
        self.url = f"json://user:{SECRET}@127.0.0.1:{self.server.server_port}/{SECRET}"

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def broken() -> Iterator[Receiver]:
    receiver = Receiver(status=500)
    yield receiver
    receiver.close()


@pytest.fixture
def hanging() -> Iterator[str]:
    """The URL of a server that takes a connection and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"json://user:{SECRET}@127.0.0.1:{server.getsockname()[1]}/?rto=300&cto=300"


@pytest.fixture
def refusing() -> str:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return f"json://user:{SECRET}@127.0.0.1:{port}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A campaign's state folder, beside a ledger."""
    Ledger(tmp_path, create=True).__exit__()
    return tmp_path / TAG


def told(state_dir: Path) -> list[str]:
    with Ledger(state_dir) as ledger:
        return [event.text for event in ledger.events(TAG, last=100) if event.kind == "notify"]


def await_told(state_dir: Path, count: int = 1) -> list[str]:
    return list(eventually(lambda: len(texts := told(state_dir)) >= count and texts))


# --- sending -----------------------------------------------------------------------------------


def test_message_arrives_as_one_line_of_title_and_a_text(receiver: Receiver, folder: Path) -> None:
    assert notify([receiver.url], folder, "new_best", "apr5:\nnew best\t自主研究", "first <b>\nsecond\x1b[31m")
    assert await_told(folder.parent) == ["new_best: told 1 channel"]
    (message,) = receiver.got
    assert message["title"] == "apr5: new best 自主研究"
    assert message["message"] == "first <b>\nsecond[31m"
    assert message["type"] == "success"


def test_long_texts_are_cut(receiver: Receiver, folder: Path) -> None:
    assert notify_and_wait([receiver.url], folder, "digest", "t" * 5000, "b" * 50_000).failed == ()
    (message,) = receiver.got
    assert len(message["title"]) == TITLE_WIDTH
    assert len(message["message"]) == BODY_LENGTH


def test_without_channels_nothing_is_begun(folder: Path) -> None:
    assert not notify([], folder, "finished", "title", "body")
    assert not folder.exists()


def test_failing_and_hanging_channels_are_told_apart_and_leave_the_good_one_alone(
    receiver: Receiver, broken: Receiver, hanging: str, refusing: str, folder: Path
) -> None:
    channels = [broken.url, hanging, refusing, receiver.url]
    before = time.monotonic()
    assert notify(channels, folder, "limit", "title", "body", wait_s=1)
    assert time.monotonic() - before < 0.5
    (text,) = await_told(folder.parent)
    assert text.startswith("limit: 3 of 4 channels failed (")
    reasons = text.partition("(")[2].rstrip(")").split(", ")
    assert sorted(reasons) == ["JSON: HTTP 500", "JSON: connection refused", "JSON: no answer"]
    assert SECRET not in text
    assert "127.0.0.1" not in text
    assert len(receiver.got) == 1


def test_sender_is_gone_soon_after_its_time(hanging: str, folder: Path) -> None:
    delivery = notify_and_wait([hanging], folder, "finished", "title", "body", wait_s=0.5)
    assert delivery.failed == ("JSON: no answer",)
    listed = subprocess.run(["ps", "-eo", "args"], check=True, capture_output=True, text=True).stdout
    assert SECRET not in listed


def test_channels_may_lie_in_a_file_outside_of_git(receiver: Receiver, folder: Path, tmp_path: Path) -> None:
    file = tmp_path / "channels"
    file.write_text(f"# my phone\n\n{receiver.url}\n", encoding="utf-8")
    check_channels([str(file)])
    assert notify_and_wait([str(file), str(tmp_path / "gone")], folder, "digest", "t", "b").failed == (
        f"{tmp_path / 'gone'}: cannot be read",
    )
    assert len(receiver.got) == 1


def test_sender_without_a_ledger_sends_all_the_same(receiver: Receiver, tmp_path: Path) -> None:
    assert notify([receiver.url], tmp_path / "nowhere" / TAG, "finished", "title", "body")
    eventually(lambda: receiver.got)
    assert not (tmp_path / "nowhere" / "ledger.db").exists()


def test_folder_that_cannot_be_written_disturbs_nobody(receiver: Receiver, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    assert not notify([receiver.url], tmp_path / "file", "finished", "title", "body")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ("Failed to send JSON POST notification: Unauthorized, error=401.", "HTTP 401"),
        ("A Connection error occurred sending JSON notification to secret.example.", "connection failed"),
        ("Failed to resolve 'secret.example'", "host not found"),
        ("certificate verify failed: secret", "TLS"),
        ("Something about secret", "refused by the service"),
    ],
)
def test_reason_repeats_nothing_of_the_log(message: str, reason: str) -> None:
    assert reason_in([message]) == reason


# --- rate limit --------------------------------------------------------------------------------


def test_one_kind_comes_at_most_so_often_and_says_how_many_were_held_back(tmp_path: Path) -> None:
    gap = GAP_S["new_best"]
    assert admit(tmp_path, "new_best", now=1000) == 0
    assert admit(tmp_path, "new_best", now=1000 + gap / 2) is None
    assert admit(tmp_path, "new_best", now=999 + gap) is None
    assert admit(tmp_path, "crash_streak", now=1000) == 0
    assert admit(tmp_path, "new_best", now=1001 + gap) == 2
    assert admit(tmp_path, "new_best", now=1001 + 2 * gap) == 0


def test_all_kinds_together_are_limited_and_urgent_ones_still_come_through(tmp_path: Path) -> None:
    sent = [admit(tmp_path, kind, now=at) for at in range(0, 3000, 61) for kind in ("claim", "new_best")]
    assert sum(each is not None for each in sent) == HOURLY
    urgent = [admit(tmp_path, "finished", now=3000 + 11 * at) for at in range(30)]
    assert sum(each is not None for each in urgent) == HOURLY_URGENT - HOURLY
    assert admit(tmp_path, "finished", now=7200) is not None


def test_clock_that_is_set_back_does_not_silence_the_night(tmp_path: Path) -> None:
    assert admit(tmp_path, "stuck", now=2e9) == 0
    assert admit(tmp_path, "stuck", now=1e9) == 0
    assert admit(tmp_path, "stuck", now=1e9 + 1) is None


@pytest.mark.parametrize("text", ["", "{", "[]", '{"sent": 5, "held": {}}', '{"sent": [[1]], "held": []}', "\0\xff"])
def test_damaged_record_of_the_limits_is_begun_anew(tmp_path: Path, text: str) -> None:
    (tmp_path / LIMITS_FILE).write_text(text, encoding="latin-1")
    assert admit(tmp_path, "stuck", now=10) == 0
    assert admit(tmp_path, "stuck", now=11) is None


# --- set-up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("channel", [f"nosuch://{SECRET}", f"json://:{SECRET}@", SECRET, f"http:{SECRET}"])
def test_unusable_channel_is_refused_without_being_shown(channel: str) -> None:
    with pytest.raises(UsageError) as caught:
        check_channels(["ntfys://fine", channel])
    assert SECRET not in caught.value.message + caught.value.hint


def test_missing_or_empty_file_of_channels_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        check_channels([str(tmp_path / "none")])
    (tmp_path / "empty").write_text("# nothing\n", encoding="utf-8")
    with pytest.raises(UsageError, match="holds no URL"):
        check_channels([str(tmp_path / "empty")])
    (tmp_path / "wrong").write_text(f"{SECRET}\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        check_channels([str(tmp_path / "wrong")])
    assert SECRET not in caught.value.message


@pytest.mark.parametrize(
    "line",
    [
        f"notify: {{url: 'json://{SECRET}@host'}}",
        f"notify: [1, 'json://{SECRET}@host', {SECRET}]",
        f"Notify: ['json://{SECRET}@host']",
        f"remote: ['json://{SECRET}@host']",
    ],
)
def test_mistakes_of_the_config_do_not_quote_a_url(line: str) -> None:
    with pytest.raises(UsageError) as caught:
        Config.parse(f"command: x\nmetric: {{name: loss}}\n{line}\n")
    assert SECRET not in caught.value.message + caught.value.hint


def test_setup_takes_channels_and_shows_none(receiver: Receiver, tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, config=f"{CONFIG}notify: ['{receiver.url}']\n")
    campaign = loop.campaign(TAG)
    assert campaign is not None and campaign.config["notify"] == [receiver.url]
    path = loop.folder / "autoresearch.yaml"
    path.write_text(path.read_text().replace("budget_s: 10", "budget_s: 11"))
    shown = loop.run("setup_campaign", "--reconfigure", "--dry-run", "--json", cwd=loop.folder)
    path.write_text(path.read_text().replace(receiver.url, receiver.url.replace("json:", "xml:")))
    changed = loop.run("setup_campaign", "--reconfigure", "--dry-run", "--json", cwd=loop.folder)
    assert "xml://…" in changed.stdout
    new = loop.run("setup_campaign", "--tag", "other", "--dry-run", "--json", cwd=loop.folder)
    assert json.loads(new.stdout)["data"]["config"]["notify"] == ["xml://…"]
    assert any("committed" in note for note in json.loads(new.stdout)["data"]["notes"])
    path.write_text(path.read_text().replace("xml:", "nosuch:"))
    refused = loop.run("setup_campaign", "--reconfigure", "--json", cwd=loop.folder)
    assert json.loads(refused.stdout)["error"]["code"] == "notify_url"
    for done in (shown, changed, new, refused):
        assert SECRET not in done.stdout + done.stderr


# --- the loop ----------------------------------------------------------------------------------


def loop_with(channels: list[str], folder: Path, run_script: RunScript) -> Loop:
    loop = make_loop(folder, run_script, config=f"{CONFIG}notify: {json.dumps(channels)}\n")
    loop.baseline()
    return loop


def test_keep_is_told_with_its_numbers(receiver: Receiver, tmp_path: Path, run_script: RunScript) -> None:
    loop = loop_with([receiver.url], tmp_path / "project", run_script)
    assert loop.experiment("a larger learning rate", LR=8) == "keep"
    await_told(loop.state_dir)
    (message,) = receiver.got
    assert message["title"] == f"{TAG}: new best val_bpb 0.9932"
    assert "Experiment 1: a larger learning rate" in message["message"]
    assert "gain +0.0047" in message["message"]
    assert "baseline is at 0.9979" in message["message"]


def test_crash_streak_and_being_stuck_are_told_once_each(
    receiver: Receiver, tmp_path: Path, run_script: RunScript
) -> None:
    loop = loop_with([receiver.url], tmp_path / "project", run_script)
    for number in range(8):
        assert loop.experiment(f"wider {number}", WIDTH=65 + number) == "crash"
    await_told(loop.state_dir, 2)
    titles = [message["title"] for message in receiver.got]
    assert titles == [f"{TAG}: 5 crashes in a row", f"{TAG}: 8 experiments without a gain"]


def test_loop_takes_no_longer_with_a_channel_that_hangs(hanging: str, tmp_path: Path, run_script: RunScript) -> None:
    loop = loop_with([hanging], tmp_path / "project", run_script)
    loop.submit("larger", LR=8)
    before = time.monotonic()
    assert loop.log()["experiment"]["status"] == "keep"
    assert time.monotonic() - before < 2.0, "a decision takes a few tenths of a second"
    assert loop.look()["next"]["command"].endswith('-d "the idea in a sentence"')


def test_digest_is_sent_on_request_and_says_how_that_went(
    receiver: Receiver, broken: Receiver, tmp_path: Path, run_script: RunScript
) -> None:
    loop = loop_with([receiver.url, broken.url], tmp_path / "project", run_script)
    assert loop.experiment("larger", LR=8) == "keep"
    await_told(loop.state_dir)
    receiver.got.clear()
    sent = loop.call("summarize", "--notify")["notified"]
    assert sent == {"sent": True, "channels": 2, "failed": ["JSON: HTTP 500"]}
    (message,) = receiver.got
    assert message["title"].startswith(f"{TAG}: val_bpb 0.993200, gain +0.0047")
    assert "2 experiments in" in message["message"]
    assert "#1 larger" in message["message"]
    assert loop.call("summarize", "--notify")["notified"]["sent"] is False


def test_digest_without_channels_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_measured_loop(tmp_path / "project", run_script)
    assert loop.call("summarize", "--notify", expect=2)["code"] == "no_channels"
    with open_ledger(loop.folder) as (_, ledger):
        assert [event for event in ledger.events(TAG) if event.kind == "notify"] == []
