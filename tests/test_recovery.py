"""What git commands, accidents and kills do to a campaign: the next command has everything back."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import BRANCH, TAG, TRAIN, Loop, copy_of, make_loop
from tests.trial_bench import eventually

from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import State

# Read before the fixtures clear the environment: how many rounds of kills, and the seed of their moments.
KILLS = int(os.environ.get("AUTORESEARCH_KILLS", "20"))
KILL_SEED = os.environ.get("AUTORESEARCH_KILL_SEED", "1")
NOTES = "mine\n"


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """A campaign with a baseline, a keep and a discard, and an ignored and an untracked file of the user's."""

    def make(place: Path) -> None:
        loop = make_loop(place, run_script, files={".gitignore": "__pycache__/\ndata/\n"})
        loop.write({"notes.txt": NOTES})
        loop.baseline()
        assert loop.experiment("faster", LR=8) == "keep"
        assert loop.experiment("slower", LR=2) == "discard"

    return copy_of("a-keep-and-a-discard", make, tmp_path / "project", run_script)


def check(loop: Loop) -> None:
    """What must hold whenever no experiment is open (and in part when one is)."""
    with open_ledger(loop.folder) as (_, ledger):
        experiments = ledger.experiments(TAG)
        decided = [each for each in experiments if each.state is State.DECIDED]
        open_one = ledger.open_experiment(TAG)
        campaign = ledger.campaign(TAG)
    assert campaign is not None
    assert [each.number for each in experiments] == list(range(len(experiments)))
    assert [(row[0], row[3]) for row in loop.rows] == [(each.commit[:7], str(each.status)) for each in decided]
    assert campaign.pending == {}
    if open_one is None:
        assert loop.tip() == loop.incumbent()
        assert not loop.processes()
        assert loop.git("diff", "--cached", "--name-only") == ""
    else:
        assert loop.tip() == open_one.commit
    for each in decided:
        if str(each.status) != "keep":
            assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/discarded/{each.number}") == each.commit
    assert loop.text("notes.txt") == NOTES
    loop.git("fsck", "--strict", "--no-dangling")


# ---- git commands behind our back


ACCIDENTS = {
    "clean": ["clean -q -fdx -e notes.txt"],
    "hard reset": ["reset -q --hard"],
    "hard reset by one": ["reset -q --hard HEAD~1"],
    "stash": ["add notes.txt", "stash -q -u", "checkout -q stash@{0} -- notes.txt", "rm -q --cached notes.txt"],
    "branch deleted": ["switch -q --detach", f"branch -q -D {BRANCH}", "switch -q main"],
    "pruned": ["reflog expire --expire=now --all", "gc -q --prune=now"],
}


@pytest.mark.parametrize("commands", ACCIDENTS.values(), ids=ACCIDENTS)
@pytest.mark.parametrize("moment", ["idle", "judged"])
def test_next_command_has_everything_back(loop: Loop, commands: list[str], moment: str) -> None:
    before, incumbent = loop.results.read_text(), loop.incumbent()
    if moment == "judged":
        loop.submit("fastest", LR=50)
    for command in commands:
        loop.git(*command.split())
    state = loop.look()
    assert state["counts"]["keep"] == 2
    loop.git("switch", "-q", BRANCH)
    check(loop)
    assert loop.results.read_text() == before
    if moment == "judged":
        assert loop.log()["experiment"]["status"] == "keep"
        assert "LR = 50" in loop.text()
    else:
        assert loop.tip() == incumbent
        assert (loop.text(), loop.git("status", "--porcelain")) == (TRAIN.replace("LR = 4", "LR = 8"), "?? notes.txt")
        assert loop.experiment("fastest", LR=50) == "keep"
    check(loop)


def test_branch_switch_while_a_verdict_waits(loop: Loop) -> None:
    loop.submit("slow", LR=200)
    loop.git("switch", "-q", "main")
    logged = loop.log()
    assert (logged["experiment"]["status"], loop.text()) == ("discard", TRAIN)
    loop.git("switch", "-q", BRANCH)
    check(loop)
    assert loop.text() == TRAIN.replace("LR = 4", "LR = 8")


@pytest.mark.parametrize("flags", [[], ["--json"]], ids=["text", "json"])
def test_answer_that_finds_no_room_is_one_clear_error(loop: Loop, flags: list[str]) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "status.py"), *flags]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=loop.folder, check=False)
    assert (done.returncode, done.stderr) == (
        5, "status: stdout cannot be written: No space left on device.\n  → Check the disk that it goes to: df -h .\n"
    )  # fmt: skip


def test_folder_in_the_place_of_results_is_one_clear_error_and_the_loop_goes_on_without_it(loop: Loop) -> None:
    before = loop.results.read_text()
    loop.results.unlink()
    loop.results.mkdir()
    refused = loop.look(expect=6)
    assert refused["code"] == "results_is_a_folder"
    subprocess.run(refused["hint"], shell=True, check=True, cwd=loop.folder)
    loop.look()
    assert loop.results.read_text() == before


def test_deleted_table_is_written_again(loop: Loop) -> None:
    before = loop.results.read_text()
    loop.results.unlink()
    assert loop.look()["repaired"] == []
    assert loop.results.read_text() == before


def test_table_edited_by_hand_is_saved_aside_and_told(loop: Loop) -> None:
    before = loop.results.read_text()
    mine = before.replace("1.005000", "0.005000")
    loop.results.write_text(mine)
    [told] = loop.look()["repaired"]
    copy = Path(told.split(" kept as ")[1].split(", the ledger")[0])
    assert (copy.read_text(), loop.results.read_text()) == (mine, before)
    assert loop.look()["repaired"] == []


def test_lock_that_a_dead_git_left_is_cleared(loop: Loop) -> None:
    lock = loop.folder / ".git" / "index.lock"
    lock.touch()
    os.utime(lock, (0, 0))
    assert loop.experiment("fastest", LR=50) == "keep"
    assert not lock.exists()
    check(loop)


def test_unrelated_branch_tip_needs_a_human(loop: Loop) -> None:
    loop.git("switch", "-q", "--orphan", "elsewhere")
    loop.git("commit", "-q", "--allow-empty", "-m", "Elsewhere")
    loop.git("switch", "-q", "main")
    loop.git("branch", "-q", "-f", BRANCH, "elsewhere")
    error = loop.look(expect=6)
    assert (error["code"], BRANCH in error["hint"]) == ("diverged_branch", True)


# ---- several commands at once


def start(loop: Loop, script: str, *arguments: str) -> subprocess.Popen[str]:
    """Run a script in a session of its own, so that it can be killed with its git processes."""
    return subprocess.Popen(
        [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *arguments],
        cwd=loop.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        start_new_session=True,
    )  # fmt: skip


def test_of_four_commands_at_once_one_runs(loop: Loop) -> None:
    loop.edit(LR=50)
    with loop.holding():
        commands = [start(loop, "run_experiment", "-d", "at once", "--wait", "0", "--json") for _ in range(4)]
        answers = [(json.loads(each.communicate(timeout=60)[0]), each.returncode) for each in commands]
        assert [answer["data"]["experiment"]["number"] for answer, _ in answers if answer["ok"]] == [3]
        for answer, code in answers:
            if not answer["ok"]:
                assert code in (4, 10)
                assert answer["error"]["message"].endswith(".")
    assert loop.look("--wait", 30)["state"] == "judged"
    assert loop.log()["experiment"]["status"] == "keep"
    check(loop)


# ---- kill -9


class Killer:
    """Kills at random moments of a command's life."""

    def __init__(self, loop: Loop, seed: str) -> None:
        self.loop = loop
        self.random = random.Random(seed)
        self.killed = 0

    def command(self, most_s: float, script: str, *arguments: str) -> None:
        """Kill a command within ``most_s`` seconds: with its git processes, or it alone."""
        process = start(self.loop, script, *arguments)
        try:
            process.communicate(timeout=self.random.uniform(0.05, 1) * most_s)
        except subprocess.TimeoutExpired:
            (os.killpg if self.random.random() < 0.7 else os.kill)(process.pid, signal.SIGKILL)
            process.communicate()
            self.killed += 1

    def runner(self, *arguments: str) -> None:
        """Kill the runner of the trial that a command started, and half the time the command too."""
        with self.loop.holding():
            process = start(self.loop, "run_experiment", *arguments)
            pid = eventually(self._runner_pid)
            time.sleep(self.random.uniform(0.05, 0.3))
            os.kill(pid, signal.SIGKILL)
            if self.random.random() < 0.5:
                os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=60)
        self.killed += 1

    def _runner_pid(self) -> int | None:
        running = [trial for trial in self.loop.trials() if trial.result is None and trial.handle]
        return int(running[0].handle["id"]) if running else None


def length_s(loop: Loop, *command: str) -> float:
    """How long a command takes that nobody kills."""
    began = time.monotonic()
    start(loop, *command).communicate(timeout=60)
    return time.monotonic() - began


@pytest.mark.slow
@pytest.mark.timeout(60 + 10 * KILLS)
def test_nothing_is_lost_by_kills_at_random_moments(loop: Loop) -> None:
    """Each round kills one command, or a runner, anywhere in its life; the next commands carry on."""
    killer = Killer(loop, KILL_SEED)
    # A kill must come within a command's life, which is short on a quiet machine and long on a busy one.
    loop.edit(LR=50)
    run_s, log_s, revert_s = (
        length_s(loop, *command) for command in (("run_experiment", "-d", "timed"), ("log_result",), ("revert",))
    )
    for number in range(KILLS):
        victim = ("run", "log", "revert", "runner", "revert --to")[number % 5]
        place = f"round {number}: {victim}"
        loop.edit(LR=300 + number if number % 2 else 49 - number / 1000)  # worse and better in turn
        if victim in ("log", "revert --to"):
            loop.submit(place)
        if victim == "revert --to":
            loop.log()
        decided = loop.rows
        match victim:
            case "run":
                killer.command(run_s, "run_experiment", "-d", place)
            case "log":
                killer.command(log_s, "log_result")
            case "revert":
                killer.command(revert_s, "revert")
            case "runner":
                killer.runner("-d", place)
            case "revert --to":
                killer.command(revert_s, "revert", "--to", "1")
        state = loop.look("--wait", 30)
        check(loop)
        assert [row[:3] for row in loop.rows[: len(decided)]] == [row[:3] for row in decided], place
        if state["state"] in ("judged", "failed"):
            loop.log()
        loop.call("revert")
        check(loop)
        assert loop.experiment(f"{place}, after it", LR=1000 + number) == "discard", place
        check(loop)
    assert killer.killed > KILLS / 2


# ---- the disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MiB of its own."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a full disk needs the right to mount one: {mounted.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(disk: Path) -> Path:
    """Take the last byte of ``disk``; returns the file that holds them."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(2**16))
    with ballast.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0")
    return ballast


def test_full_disk_is_one_clear_error_and_loses_nothing(small_disk: Path, run_script: RunScript) -> None:
    loop = make_loop(small_disk / "project", run_script)
    loop.write({"notes.txt": NOTES})
    loop.baseline()
    assert loop.experiment("faster", LR=8) == "keep"
    rows = loop.rows
    ballast = fill(small_disk)
    loop.edit(LR=5)
    error = loop.submit("fastest", expect=5)
    assert "disk" in error["message"] + error["hint"]
    ballast.unlink()
    loop.look()
    check(loop)
    assert loop.rows == rows
    loop.submit("fastest")
    ballast = fill(small_disk)
    assert loop.log(expect=5)["hint"]
    ballast.unlink()
    assert loop.look("--wait", 30)["state"] in ("judged", "idle")
    loop.log()
    check(loop)
    assert [row[4] for row in loop.rows] == ["baseline", "faster", "fastest"]


def test_disk_that_fills_up_during_a_trial_costs_that_trial_only(small_disk: Path, run_script: RunScript) -> None:
    loop = make_loop(small_disk / "project", run_script)
    loop.write({"notes.txt": NOTES})
    loop.baseline()
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        ballast = fill(small_disk)
    loop.await_trial()
    assert loop.look(expect=5)["hint"]
    ballast.unlink()
    assert loop.look("--wait", 30)["experiment"]["verdict"] == "better"
    assert loop.log()["experiment"]["status"] == "keep"
    check(loop)


def test_read_only_disk_is_one_clear_error(small_disk: Path, run_script: RunScript) -> None:
    loop = make_loop(small_disk / "project", run_script)
    loop.write({"notes.txt": NOTES})
    loop.baseline()
    loop.edit(LR=8)
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)
    try:
        assert loop.submit("faster", expect=5)["hint"]
        loop.call("revert", expect=5)
    finally:
        subprocess.run(["mount", "-o", "remount,rw", str(small_disk)], check=True)
    assert loop.experiment("faster") == "keep"
    check(loop)
