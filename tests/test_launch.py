"""``launch_tmux.py`` under a person who errs and a machine that breaks: a small client in real tmux."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from tests.client_bench import SOCKET
from tests.conftest import ROOT
from tests.launch_bench import Bench, bench
from tests.night_bench import TAG
from tests.trial_bench import eventually

from autoresearch.agents.closing import log_traceback
from autoresearch.agents.night import NightFolder
from autoresearch.agents.outlook import Outlook
from autoresearch.agents.policy import Act, Caps, Look, Memory, Pace, Policy, Sight, Spent
from autoresearch.runner.processes import read_process

__all__ = ["bench"]  # a fixture

# ---- what a person gets wrong


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "--session is missing"),
        (("--session", ""), 2, "--session is missing"),
        (("--session", "my.night", "--agent", "scripted"), 5, "cannot name a tmux session"),
        (("--session", "a", "--hours", "inf"), 2, "--hours is inf"),
        (("--session", "a", "--hours", "nan"), 2, "--hours is nan"),
        (("--session", "a", "--max-experiments", "0"), 2, "--max-experiments is 0"),
        (("--session", "a", "--goal", "\udcff"), 2, "--goal holds bytes that are not UTF-8"),
        (("--session", "a", "--agent", "scripted", "--model", "m"), 2, "takes no --model"),
        (("--session", "a", "--agent", "scripted", "--goal", "g"), 2, "takes no --goal"),
        (("--session", "a", "--agent", "nobody"), 2, "there is no agent 'nobody'"),
        (("--send", ""), 3, "There is no night"),
        (("--logs", "-5"), 2, "--logs is -5"),
        (("--status", "--goal", "g"), 2, "--goal goes with the start of a night"),
        (("--resume", "--task", "t"), 2, "--task goes with the start of a night"),
        (("--stop", "--hours", "2"), 2, "--hours goes with the start of a night"),
        (("--attach", "--json"), 2, "--attach shows a terminal"),
        (("--resume",), 3, "There is no night"),
        (("--status", "--tag", "x"), 3, "There is no night of campaign 'x'"),
    ],
)
def test_a_wrong_call_is_one_clear_error(bench: Bench, arguments: tuple[str, ...], code: int, says: str) -> None:
    error = bench.call(*arguments, expect=code)
    assert says in error
    _, hint = error.strip().splitlines()
    assert hint.startswith("  → ")
    assert not (bench.project / ".git" / "autoresearch").exists()


def test_a_task_that_is_no_text_is_refused(bench: Bench) -> None:
    task = bench.world.folder / "task.bin"
    for content, says in ((b"a\xff", "cannot be read"), (b"a\0b", "NUL"), (b" \n", "is empty")):
        task.write_bytes(content)
        assert says in bench.call("--session", "a", "--task", str(task), expect=2)


@pytest.mark.slow
def test_every_verb_before_and_after_the_night(bench: Bench) -> None:
    bench.start()
    assert "A night runs in" in bench.start(expect=7)
    assert "A night runs in" in bench.call("--resume", expect=7)
    assert "needs a terminal" in bench.call("--attach", expect=2)
    assert "The agent has it" in bench.call("--send", 'it\'s "odd";')
    assert bench.heard()[-1] == 'it\'s "odd";'
    assert "working" in bench.call("--status", cwd=bench.project / ".git" / "..")
    told = json.loads(bench.call("--stop", "--json"))
    assert told["data"]["night"]["state"] == "ended"
    bench.world.assert_empty()

    assert "ended (stopped by the user)" in bench.call("--status")
    assert "has ended: stopped by the user" in bench.call("--stop")
    assert "There is no tmux session" in bench.call("--attach", expect=7)
    assert "Nobody watches" in bench.call("--send", "x", expect=7)
    assert "ended" in bench.call("--logs", "1")


@pytest.mark.slow
def test_what_was_sent_before_does_not_count_as_delivered(bench: Bench) -> None:
    bench.start("strange", expect=7)
    bench.folder.tell("send", "a line of before")
    bench.folder.post({"send": "waits"})
    eventually(lambda: bench.record().steering == ["waits"])
    bench.kill_supervisor()
    bench.call("--resume", expect=7)
    assert bench.record().steering == ["waits"], "what waits for the client outlives the supervisor"
    bench.call("--stop")


@pytest.mark.slow
def test_the_scripted_loop_is_told_nothing(bench: Bench) -> None:
    text = bench.call("--session", TAG, "--socket", SOCKET, "--agent", "scripted", gate=str(bench.project))
    assert "steer:" not in text
    assert "cannot be told anything" in bench.call("--send", "x", expect=2)
    bench.call("--stop", "--now")
    bench.world.assert_empty()


# ---- where the command comes from


@pytest.mark.slow
def test_the_night_of_the_worktree_is_meant(bench: Bench) -> None:
    other = bench.world.folder / "other tree"
    git = ["git", "-C", str(bench.project)]
    subprocess.run([*git, "worktree", "add", "-q", "-b", "side", str(other)], env=bench.world.environment(), check=True)
    bench.start()
    bench.call("--session", "night2", "--socket", SOCKET, "--agent", bench.profile("obeys"), cwd=other)
    assert f"campaign {TAG}: working" in bench.call("--status")
    assert "campaign night2: working" in bench.call("--status", cwd=other)
    assert "campaign apr5" in bench.call("--stop", "--session", TAG, cwd=other)
    assert "night2" in bench.call("--stop", cwd=other)


@pytest.mark.slow
def test_a_start_from_a_sub_folder_is_at_home(bench: Bench) -> None:
    (bench.project / "sub").mkdir()
    bench.start()
    bench.call("--stop")
    bench.call("--session", TAG, "--socket", SOCKET, "--agent", bench.profile("obeys"), cwd=bench.project / "sub")
    assert bench.record().options.project == str(bench.project)
    bench.call("--stop")


def test_a_session_of_somebody_else_is_left_alone(bench: Bench) -> None:
    bench.world.tmux("new-session", "-d", "-s", TAG, "sleep", "60")
    assert "tmux session apr5 already" in bench.start(expect=5)
    assert TAG in bench.world.tmux("list-sessions")
    bench.world.tmux("kill-server")
    bench.world.assert_empty()


# ---- a client that does not come to work, and one that does not go


def test_a_client_that_fails_is_told_with_its_last_screen(bench: Bench) -> None:
    assert "Invalid key; 2 starts without any progress" in bench.start("fails", expect=7)
    assert "| Invalid key" in bench.call("--logs")
    bench.world.assert_empty()


@pytest.mark.slow
def test_an_unknown_screen_is_handed_over_and_no_key_pressed(bench: Bench) -> None:
    assert "Fake client needs you: the screen is not known: ~ beam me up ~" in bench.start("strange", expect=7)
    assert bench.heard("strange") == []
    assert "handover" in bench.call("--status")
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
def test_a_client_that_takes_nothing_is_handed_over(bench: Bench) -> None:
    assert "takes nothing that is typed" in bench.start("mute", expect=7)
    assert not bench.record().memory.task_given
    bench.call("--stop")
    bench.world.assert_empty()


def test_a_client_that_ignores_everything_is_ended(bench: Bench) -> None:
    bench.start("deaf")
    bench.call("--stop")
    bench.world.assert_empty()


# ---- whoever kills what


@pytest.mark.slow
def test_a_killed_supervisor_is_replaced_and_the_client_kept(bench: Bench) -> None:
    bench.start()
    before = bench.record()
    bench.kill_supervisor()
    assert "unwatched" in bench.call("--status")
    assert "still runs, without a supervisor" in bench.start(expect=7)
    bench.call("--resume")
    after = bench.record()
    assert (after.client, after.mark) == (before.client, before.mark)
    assert after.supervisor != before.supervisor
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.parametrize("watched", [True, False])
def test_two_stops_at_once(bench: Bench, watched: bool) -> None:
    bench.start()
    if not watched:
        bench.kill_supervisor()
    stops = [bench.popen("--stop"), bench.popen("--stop", "--now")]
    for stop in stops:
        out, errors = stop.communicate(timeout=60)
        assert (stop.returncode, errors) == (0, ""), out
        assert "has ended: stopped by the user" in out
    bench.world.assert_empty()


@pytest.mark.slow
def test_a_stop_ends_the_night_though_its_supervisor_is_killed_over_it(bench: Bench) -> None:
    bench.start("deaf")
    supervisor = bench.record().supervisor
    stop = bench.popen("--stop")
    eventually(lambda: bench.record().state == "ending")
    os.kill(supervisor, signal.SIGKILL)
    out, errors = stop.communicate(timeout=60)
    assert (stop.returncode, errors) == (0, "")
    assert "without a supervisor" in out
    assert bench.record().state == "ended"
    bench.world.assert_empty()


def test_ctrl_c_during_the_start_says_that_the_night_goes_on(bench: Bench) -> None:
    start = bench.popen("--session", TAG, "--socket", SOCKET, "--agent", bench.profile("obeys"))
    eventually(bench.folder.is_watched)
    start.send_signal(signal.SIGINT)
    _, errors = start.communicate(timeout=60)
    assert start.returncode == 130
    assert "the night of campaign apr5 is being started all the same" in errors
    eventually(lambda: bench.record().state == "working")
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
def test_of_two_launchers_at_once_one_is_refused(bench: Bench) -> None:
    profile = bench.profile("obeys")
    starts = [bench.popen("--session", name, "--tag", TAG, "--socket", SOCKET, "--agent", profile) for name in "ab"]
    told = [start.communicate(timeout=100)[1] for start in starts]
    codes = [start.returncode for start in starts]
    assert sorted(codes) == [0, 7], told
    assert "A night runs in" in told[codes.index(7)]
    assert bench.record().options.session == "ab"[codes.index(0)]
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
def test_a_night_that_was_stopped_before_its_supervisor_came(bench: Bench) -> None:
    """It must not begin after all."""
    bench.start()
    bench.call("--stop")
    events = len(bench.kinds())
    main = ROOT / "scripts" / "autoresearch" / "agents" / "__main__.py"
    subprocess.run([sys.executable, str(main), str(bench.folder.path)], env=bench.world.environment(), check=True)
    assert len(bench.kinds()) == events


def test_whoever_asks_for_the_lock_does_not_keep_the_supervisor_out(tmp_path: Path) -> None:
    folder = NightFolder(tmp_path)
    code = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path; import fcntl, os\n"
        "fd = os.open(Path(sys.argv[2]) / 'lock', os.O_RDWR | os.O_CREAT); fcntl.flock(fd, fcntl.LOCK_SH)\n"
        "print('on', flush=True); time.sleep(0.3)"
    )
    asker = subprocess.Popen(
        [sys.executable, "-c", code, str(ROOT / "scripts"), str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert asker.stdout and asker.stdout.readline() == "on\n"
    began = time.monotonic()
    with folder.watch():
        assert time.monotonic() - began > 0.1
        assert folder.is_watched()
    asker.communicate()


# ---- a tmux server that hangs


@pytest.mark.slow
def test_a_night_waits_for_a_tmux_that_hangs_and_goes_on_afterwards(bench: Bench) -> None:
    bench.start()
    client = bench.record().client
    with bench.tmux_stopped():
        eventually(lambda: "tmux does not answer" in bench.record().reason)
        assert "tmux does not answer" in bench.call("--status")
    bench.call("--send", "go on")
    assert bench.heard()[-1] == "go on"
    assert (bench.record().client, bench.record().memory.restarts) == (client, 0)
    assert "error" not in bench.kinds()
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
@pytest.mark.parametrize("watched", [True, False])
def test_a_stop_while_tmux_hangs_ends_all_that_it_can_and_says_what_it_cannot(bench: Bench, watched: bool) -> None:
    bench.start()
    if not watched:
        bench.kill_supervisor()
    with bench.tmux_stopped():
        assert "stopped by the user" in (said := bench.call("--stop"))
        assert "tmux does not answer" in said
        assert not read_process(bench.record().client)
    assert "still runs, without a supervisor" in bench.start(expect=7)
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
def test_a_night_ends_at_its_time_though_tmux_hangs(bench: Bench) -> None:
    bench.start("obeys", "--hours", "0.001")
    with bench.tmux_stopped():
        eventually(lambda: "hours are over" in bench.record().reason)
        eventually(lambda: bench.record().state == "ended")
    bench.call("--stop")
    bench.world.assert_empty()


@pytest.mark.slow
def test_a_start_on_a_tmux_that_hangs_is_one_clear_error(bench: Bench) -> None:
    bench.world.tmux("new-session", "-d", "-s", "mine", "sleep", "600")
    with bench.tmux_stopped():
        assert "tmux does not answer" in bench.start(expect=5)
    assert not bench.folder.path.exists()
    bench.world.tmux("kill-server")
    bench.world.assert_empty()


# ---- a person at the client's keyboard


def test_who_types_is_not_interrupted_and_who_went_to_bed_over_it_is_not_waited_for() -> None:
    policy, memory = Policy(caps=Caps(), pace=Pace()), Memory(task_given=True, has_worked=True)

    def decide(now: float, typed: str) -> Act:
        sight = Sight(state="ready", typed=bool(typed), print_of_screen=typed)
        look = Look(sight=sight, outlook=Outlook(), now=now, wall=datetime(2026, 4, 5, tzinfo=UTC))
        return policy.decide(memory, look, Spent()).act

    assert [decide(10.0 * i, "a" * i) for i in range(6)] == [Act.WAIT] * 6
    assert decide(65, "aaaaa") is Act.WAIT
    assert decide(71, "aaaaa") is Act.NUDGE


def test_a_line_of_which_nothing_can_be_typed_is_refused(bench: Bench) -> None:
    bench.start()
    assert "--send is empty" in bench.call("--send", "\x1b", expect=2)
    bench.call("--stop")


def test_a_line_that_looks_like_the_empty_boxs_own_text_arrives(bench: Bench) -> None:
    bench.start()
    bench.call("--send", 'Try "muon" next')
    assert 'Try "muon" next' in bench.heard()[-1]
    bench.call("--stop")


# ---- a disk that takes nothing, and one that is cleared


def test_a_stop_with_a_damaged_ledger_ends_everything_and_says_the_damage_once(bench: Bench) -> None:
    bench.start()
    (bench.folder.path.parent.parent / "ledger.db").write_bytes(b"garbage" * 1000)
    assert bench.call("--stop").count("file is not a database") == 1
    bench.world.assert_empty()
    assert "nobody watches" not in bench.call("--logs")


def test_a_night_whose_record_was_deleted_ends_and_leaves_nothing_running(bench: Bench) -> None:
    bench.start()
    shutil.rmtree(bench.folder.path.parent.parent)
    bench.world.assert_empty()


def test_a_stop_that_cannot_be_posted_is_done_without_the_supervisor(bench: Bench) -> None:
    bench.start()
    shutil.rmtree(bench.folder.inbox)
    bench.folder.inbox.touch()
    assert "without a supervisor" in bench.call("--stop")
    assert bench.record().state == "ended"
    bench.world.assert_empty()


def test_a_wish_that_cannot_be_removed_is_not_taken_again_and_again(tmp_path: Path) -> None:
    folder = NightFolder(tmp_path)
    folder.make()
    (folder.inbox / "1.json").mkdir()  # neither readable nor removable, for root either
    folder.post({"send": "x"})
    assert [folder.take(), folder.take()] == [[{"send": "x"}], []]


def test_an_error_on_a_full_disk_is_not_one_more() -> None:
    full = Path("/dev/full")
    with pytest.raises(OSError, match="No space left"):
        full.write_text("a line\n", encoding="utf-8")
    try:
        raise ValueError("a line\nand another")
    except ValueError:
        log_traceback(full)
