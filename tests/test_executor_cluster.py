"""What engines with a controller share: how seldom it is asked, and when a job counts as lost."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoresearch.errors import MachineError
from autoresearch.executors import Handle, State
from autoresearch.executors.cluster import GONE_FILE, ClusterExecutor, News, news_file
from autoresearch.runner.leases import leases_folder
from autoresearch.trial import Outcome, TrialResult, TrialSpec

AWAY = MachineError("away", hint="", code="away")


class Board(ClusterExecutor):
    """An engine whose controller says what ``known`` holds, and counts how often it is asked."""

    engine = "board"

    def __init__(self, controller: str = "one", **patience: float) -> None:
        super().__init__(**patience)
        self.known: dict[str, State] | None = {}
        self.questions = 0
        self._controller = controller

    @property
    def controller(self) -> str:
        return self._controller

    def jobs(self) -> dict[str, State]:
        self.questions += 1
        if self.known is None:
            raise AWAY
        return self.known

    def submit(self, spec: TrialSpec) -> Handle:
        return self.handle(spec.trial_id, Path(spec.directory), "7")

    def find(self, trial_id: str, directory: Path) -> Handle | None:
        return None

    def stop(self, job: str) -> None:
        pass

    def why_gone(self, directory: Path) -> str:
        return "no reason"


@pytest.fixture
def handle(tmp_path: Path) -> Handle:
    return Board().handle("t1", tmp_path / "t", "7")


def state(board: Board, handle: Handle) -> State:
    return board.poll([handle])["t1"]


def last_asked(ago_s: float) -> None:
    """Have the last question asked ``ago_s`` ago."""
    path = news_file("board", "one")
    news = News.read(path)
    assert news
    News(asked_at=time.time() - ago_s, answered_at=time.time() - ago_s, jobs=news.jobs).write(path)


# ---- how seldom


def test_the_answer_serves_whoever_asks_within_ten_seconds(handle: Handle) -> None:
    first, second, elsewhere = Board(), Board(), Board("two")
    first.known = {"7": State.QUEUED}
    assert state(first, handle) is State.QUEUED
    for _ in range(5):
        assert state(second, handle) is State.QUEUED
    state(elsewhere, handle)
    assert (first.questions, second.questions, elsewhere.questions) == (1, 0, 1)
    last_asked(9)
    assert state(second, handle) is State.QUEUED
    last_asked(11)
    second.known = {"7": State.RUNNING}
    assert state(second, handle) is State.RUNNING
    assert (first.questions, second.questions) == (1, 1)


def test_a_controller_that_is_away_is_not_asked_more_often(handle: Handle) -> None:
    board = Board(lost_after_s=0.0)
    board.known = None
    assert [state(board, handle) for _ in range(3)] == [State.RUNNING] * 3
    assert board.questions == 1
    last_asked(11)
    assert state(board, handle) is State.RUNNING
    assert board.questions == 2


def test_nothing_is_asked_when_nothing_is_under_way() -> None:
    board = Board()
    assert board.poll([]) == {}
    assert board.questions == 0


def test_while_another_process_asks_its_last_answer_is_good_enough(handle: Handle) -> None:
    board = Board()
    board.known = {"7": State.QUEUED}
    path = news_file("board", "one")
    with path.with_suffix(".lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert state(board, handle) is State.RUNNING  # nothing is known yet
        News(asked_at=0.0, answered_at=0.0, jobs={"7": State.QUEUED}).write(path)
        assert state(board, handle) is State.QUEUED
    assert board.questions == 0


@pytest.mark.parametrize("text", ["", "{", "[]", '{"asked_at": 1}', '{"asked_at": 1, "answered_at": 1, "jobs": [7]}'])
def test_news_that_cannot_be_read_are_asked_for_anew(handle: Handle, text: str) -> None:
    board = Board()
    board.known = {"7": State.QUEUED}
    news_file("board", "one").write_text(text)
    assert state(board, handle) is State.QUEUED
    assert state(board, handle) is State.QUEUED
    assert board.questions == 1


def test_news_from_the_future_are_of_a_clock_that_was_set_back(handle: Handle) -> None:
    board = Board()
    state(board, handle)
    last_asked(-3600)
    state(board, handle)
    assert board.questions == 2


def test_where_nothing_can_be_kept_each_look_asks(handle: Handle) -> None:
    board = Board()
    board.known = {"7": State.QUEUED}
    (leases_folder() / "controllers").write_text("a file in the way")
    assert [state(board, handle) for _ in range(2)] == [State.QUEUED] * 2
    assert board.questions == 2


# ---- when a job counts as lost


@pytest.fixture
def board() -> Board:
    return Board(ask_every_s=0.0, lost_after_s=60.0)


Later = Callable[[Board, Handle, float], State]


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """``later(board, handle, s)``: the state as a look finds it ``s`` from now."""

    def look(board: Board, handle: Handle, seconds: float) -> State:
        with monkeypatch.context() as patch:
            now = time.time()
            patch.setattr(time, "time", lambda: now + seconds)
            return state(board, handle)

    return look


def test_a_job_that_is_unknown_is_lost_only_when_a_later_answer_says_so(
    board: Board, handle: Handle, later: Later
) -> None:
    assert state(board, handle) is State.RUNNING  # it may be younger than the answer, or its result on the way
    assert later(board, handle, 59) is State.RUNNING
    assert later(board, handle, 61) is State.GONE


def test_an_old_answer_loses_nothing_however_late_it_is_looked_at(handle: Handle) -> None:
    board = Board(lost_after_s=0.5)
    assert state(board, handle) is State.RUNNING
    os.utime(Path(handle["directory"]) / GONE_FILE, (time.time() - 0.4, time.time() - 0.4))
    time.sleep(0.2)
    assert state(board, handle) is State.RUNNING  # no further answer since
    assert board.questions == 1


def test_a_job_that_comes_back_is_not_lost(board: Board, handle: Handle, later: Later) -> None:
    assert state(board, handle) is State.RUNNING
    board.known = {"7": State.RUNNING}
    assert later(board, handle, 40) is State.RUNNING
    board.known = {}
    assert later(board, handle, 80) is State.RUNNING  # it counts from anew


def test_a_result_is_an_end_whatever_the_controller_says_later(board: Board, handle: Handle) -> None:
    board.known = {"7": State.GONE}
    directory = Path(handle["directory"])
    directory.mkdir()
    TrialResult(trial_id="t1", outcome=Outcome.COMPLETED, metric=0.5).write_first_wins(directory)
    assert state(board, handle) is State.GONE
    assert not (directory / GONE_FILE).exists()


def test_a_lost_job_is_concluded_with_what_the_engine_knows(board: Board, tmp_path: Path) -> None:
    result = board.conclude("t1", tmp_path / "t")
    assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "gone")
    assert result.reason == "the job is gone without a result: no reason"


def test_a_job_cancelled_in_the_queue_leaves_a_result_that_keeps_it_from_starting(board: Board, handle: Handle) -> None:
    board.known = {"7": State.QUEUED}  # the engine will stop it only when it has left the queue
    began = time.monotonic()
    board.cancel(handle)
    assert time.monotonic() - began < 5
    result = TrialResult.read(Path(handle["directory"]))
    assert result
    assert (result.outcome, result.reason) == (Outcome.INTERRUPTED, "cancelled")
