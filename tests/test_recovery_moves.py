"""Kills and resets between a row of the ledger and the move of the branch that belongs to it.

The commands run in this process and are cut off where a kill -9 would cut them off: before one call to git.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.loop_bench import BRANCH, TAG, Loop, make_measured_loop

from autoresearch.campaign.opened import open_campaign
from autoresearch.repo import Repo


class Killed(BaseException):
    """Ends the command as a signal would: no handler of ours catches it."""


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    loop = make_measured_loop(tmp_path / "project", run_script)
    return loop


def killed_before_the_branch_moves(loop: Loop, monkeypatch: pytest.MonkeyPatch, script: str, *arguments: str) -> None:
    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Repo, "set_branch", killed)
        loop.call(script, *arguments)


def attempt_ref(loop: Loop, name: str) -> str:
    return loop.git("rev-parse", f"refs/autoresearch/{TAG}/experiments/{name}")


def assert_submitted(loop: Loop, attempt: int) -> None:
    assert loop.look()["repaired"] == [f"the submission of experiment 1 was interrupted; {BRANCH} is at its commit now"]
    assert loop.tip() == attempt_ref(loop, f"1.{attempt}")
    assert loop.git("status", "--porcelain") == ""
    loop.look("--wait", 30)


def test_interrupted_submission_is_not_called_a_reset(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    loop.edit(LR=8)
    killed_before_the_branch_moves(loop, monkeypatch, "run_experiment", "-d", "faster")
    assert_submitted(loop, attempt=1)
    assert loop.log()["experiment"]["status"] == "keep"


def test_interrupted_second_attempt_goes_on(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its commit is made on the incumbent, so the branch stands beside it at the first attempt."""
    loop.submit("wider", WIDTH=128)
    loop.edit(WIDTH=64, LR=8)
    killed_before_the_branch_moves(loop, monkeypatch, "run_experiment", "-d", "wider, mended")
    assert_submitted(loop, attempt=2)
    assert loop.log()["experiment"]["status"] == "keep"


def test_interrupted_submission_on_top_of_the_agents_own_commit_goes_on(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.edit(LR=8)
    loop.git("commit", "-qam", "mine")
    loop.edit(WIDTH=32)
    killed_before_the_branch_moves(loop, monkeypatch, "run_experiment", "-d", "faster and smaller")
    assert_submitted(loop, attempt=1)


def test_reset_of_a_submitted_experiment_is_called_one(loop: Loop) -> None:
    loop.submit("faster", LR=8)
    tip = loop.tip()
    loop.git("reset", "-q", "--hard", "HEAD~1")
    (repaired,) = loop.look()["repaired"]
    assert "had been reset" in repaired
    assert loop.tip() == tip


# ---- a branch moved between the decision and the move back


def decided_and_not_moved(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Three commits of the agent's own, tried and discarded, the branch not moved back; (middle, last)."""
    commits = []
    for lr, width in ((3, 64), (2, 64), (2, 32)):
        loop.edit(LR=lr, WIDTH=width)
        loop.git("commit", "-qam", f"LR {lr}, width {width}")
        commits.append(loop.git("rev-parse", "HEAD"))
    loop.submit("slower")
    killed_before_the_branch_moves(loop, monkeypatch, "log_result")
    return commits[1], commits[2]


@pytest.mark.parametrize("how", ["--hard", "--soft", "--mixed"])
@pytest.mark.parametrize("back", [1, 2, 3])
def test_reset_before_the_move_back_ends_at_the_incumbent(
    loop: Loop, monkeypatch: pytest.MonkeyPatch, how: str, back: int
) -> None:
    decided_and_not_moved(loop, monkeypatch)
    loop.git("reset", "-q", how, f"HEAD~{back}")
    loop.look()
    assert loop.tip() == loop.incumbent()
    assert loop.git("status", "--porcelain") == ""
    assert "LR = 4\nWIDTH = 64\n" in loop.text()
    assert loop.rows[-1][3] == "discard"


def test_branch_led_away_before_the_move_back_is_told_with_the_command_that_helps(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    middle, _ = decided_and_not_moved(loop, monkeypatch)
    loop.git("reset", "-q", "--hard", middle)
    loop.edit(LR=5)
    loop.git("commit", "-qam", "elsewhere")
    mine, error = loop.tip(), loop.look(expect=6)
    assert error["code"] == "diverged_branch"
    assert "LR = 5" in loop.text()
    for command in error["hint"].split(" && "):
        loop.git(*command.split()[1:])
    loop.look()
    assert (loop.tip(), loop.git("rev-parse", "mine")) == (loop.incumbent(), mine)
    with open_campaign(loop.folder) as oc:
        assert oc.campaign.pending == {}


@pytest.mark.parametrize("said", ["error: unable to write file train.py", "fatal: write error. Out of diskspace"])
def test_disk_that_only_git_finds_full_is_the_machines_fault(
    tmp_path: Path, loop: Loop, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    git = tmp_path / "bin" / "git"
    git.parent.mkdir()
    git.write_text(
        f'#!/bin/sh\ncase "$*" in *checkout-index*) echo "{said}" >&2; exit 128;; esac\n'
        f'exec {shutil.which("git")} "$@"\n'
    )
    git.chmod(0o755)
    with monkeypatch.context() as full:
        full.setenv("PATH", str(git.parent), prepend=os.pathsep)
        error = loop.submit("faster", expect=5, LR=8)
    assert said in error["message"]
    assert loop.look("--wait", 30)["experiment"]["verdict"] == "better"
