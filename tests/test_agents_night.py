from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoresearch.agents.night import Night, NightFolder, Options, nights
from autoresearch.agents.policy import Caps, Memory
from autoresearch.agents.task import command, nudge_text, resume_text, task_text
from autoresearch.errors import AgentError, NeedsHumanError

AWKWARD = 'try "quotes" and `backticks`,\ta tab, $HOME, {{ braces }}, 自主研究 🚀, trailing  \n\nand {placeholders}\n'


def options(**changes) -> Options:
    return Options(**{"session": "apr5", "tag": "apr5", "project": "/p", "agent": "claude", **changes})


@pytest.fixture
def folder(tmp_path: Path) -> NightFolder:
    folder = NightFolder.of(tmp_path, "apr5")
    folder.make()
    return folder


def test_what_is_written_is_read_back(folder: NightFolder):
    night = Night(
        options=options(goal=AWKWARD, caps=Caps(hours=8, max_nudges=3)), mark="abc",
        memory=Memory(rows=7, nudges=2, wait_for="limit"), tokens={"a.jsonl": 12}, state="waiting",
    )  # fmt: skip
    folder.write(night)
    assert folder.read() == night


def test_a_record_of_a_later_version_is_read_without_what_is_not_known(folder: NightFolder):
    folder.write(Night(options=options(), mark="m"))
    path = folder.path / "night.json"
    data = json.loads(path.read_text())
    data["novelty"] = 1
    data["memory"]["novelty"] = 1
    path.write_text(json.dumps(data))
    night = folder.read()
    assert night is not None
    assert night.mark == "m"


def test_no_night_is_none_and_a_broken_record_is_a_clear_error(folder: NightFolder):
    assert folder.read() is None
    (folder.path / "night.json").write_text("{half")
    with pytest.raises(NeedsHumanError, match=r"night\.json"):
        folder.read()


def test_events_are_one_line_each_in_order_and_survive_a_torn_line(folder: NightFolder):
    for number in range(30):
        folder.tell("nudge", f"number {number}\nwith\ttabs")
    with (folder.path / "events.jsonl").open("a") as file:
        file.write('{"at": "half')
    events = folder.events(5)
    assert [event["text"] for event in events] == [f"number {number} with tabs" for number in range(25, 30)]
    assert folder.events(0) == []


def test_wishes_are_taken_once_in_their_order(folder: NightFolder):
    for number in range(20):
        folder.post({"send": str(number)})
    (folder.inbox / "2020-torn.json").write_text("{")
    assert [wish["send"] for wish in folder.take()] == [str(number) for number in range(20)]
    assert folder.take() == []


def test_nobody_else_may_read_a_night(folder: NightFolder):
    assert folder.path.stat().st_mode & 0o077 == 0


def test_only_one_supervisor_watches_and_its_lock_dies_with_it(folder: NightFolder):
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]);"
        "from pathlib import Path; from autoresearch.agents.night import NightFolder;"
        "watch = NightFolder(Path(sys.argv[2])).watch(); watch.__enter__(); print('on', flush=True); time.sleep(60)"
    )
    scripts = Path(__file__).resolve().parent.parent / "scripts"
    other = subprocess.Popen([sys.executable, "-c", code, str(scripts), str(folder.path)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None
        assert other.stdout.readline() == b"on\n"
        assert folder.is_watched()
        with pytest.raises(AgentError, match="supervisor already"), folder.watch():
            pass
        other.kill()
        other.wait()
        assert not folder.is_watched()
        with folder.watch():
            pass
    finally:
        other.kill()
        other.wait()


def test_all_nights_of_a_repository_are_found(tmp_path: Path):
    for tag in ("apr5", "apr6"):
        NightFolder.of(tmp_path, tag).make()
    (tmp_path / "apr7").mkdir()
    assert [folder.path.parent.name for folder in nights(tmp_path)] == ["apr5", "apr6"]


def test_the_goal_and_a_task_of_the_user_reach_the_agent_to_the_byte():
    assert AWKWARD in task_text(options(goal=AWKWARD))
    assert task_text(options(task=AWKWARD)) == AWKWARD
    assert "{" not in task_text(options())


def test_the_command_in_the_task_works_from_anywhere(git_repo: Path):
    text = task_text(options())
    line = command("status")
    assert line in text
    done = subprocess.run([*line.split(), "--help"], cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0


def test_a_nudge_is_one_line_with_the_next_step():
    text = nudge_text("run it:\npython scripts/run_experiment.py", "idle")
    assert "\n" not in text
    assert "run_experiment.py" in text
    assert "status.py" in nudge_text("", "idle")
    assert "status.py" in resume_text()


def test_a_full_disk_loses_an_event_and_not_the_night(folder: NightFolder):
    (folder.path / "events.jsonl").mkdir()  # cannot be appended to, as root on any file system
    folder.tell("nudge", "lost")
    (folder.path / "events.jsonl").rmdir()
    folder.tell("nudge", "found")
    assert [event["text"] for event in folder.events()] == ["found"]


def test_a_wish_is_never_seen_half_written(folder: NightFolder):
    began = time.monotonic()
    folder.post({"send": "x" * 100_000})
    (wish,) = folder.take()
    assert len(wish["send"]) == 100_000
    assert time.monotonic() - began < 5
