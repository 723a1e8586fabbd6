"""Several agents in one session: their work trees, their nights side by side, what they see of each other."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.client_bench import SOCKET
from tests.launch_bench import Bench, bench
from tests.night_bench import TAG
from tests.trial_bench import eventually

from autoresearch.agents.night import NightFolder
from autoresearch.agents.team import members

__all__ = ["bench"]  # a fixture

FIRST, SECOND = f"{TAG}-a0", f"{TAG}-a1"


@dataclass(frozen=True)
class Team:
    """Two agents in one session, started from the project's folder."""

    bench: Bench

    def start(self, habit: str = "obeys", *arguments: str, expect: int = 0) -> str:
        return self.bench.start(habit, "--agents", "2", *arguments, expect=expect)

    def call(self, *arguments: str, **more: Any) -> str:
        return self.bench.call(*arguments, **more)

    def folder(self, tag: str) -> NightFolder:
        return NightFolder(self.bench.project / ".git" / "autoresearch" / tag / "night")

    def record(self, tag: str) -> Any:
        return self.folder(tag).read()

    def tree(self, tag: str) -> Path:
        return self.bench.project.with_name(f"project-{tag}")

    def git(self, *arguments: str, tag: str = "") -> str:
        where = self.tree(tag) if tag else self.bench.project
        return subprocess.run(
            ["git", *arguments],
            cwd=where,
            env=self.bench.world.environment(),
            check=True,
            capture_output=True,
            text=True,
        ).stdout.strip()

    def windows(self) -> list[str]:
        return self.bench.world.tmux("list-windows", "-t", f"={TAG}", "-F", "#{window_name}").split()


@pytest.fixture
def team(bench: Bench) -> Team:
    return Team(bench)


# ---- who they are


@pytest.mark.parametrize(
    ("agents", "gpus", "expected"),
    [
        (None, "0,1", {"s-gpu0": {"devices": "0"}, "s-gpu1": {"devices": "1"}}),
        (2, "3,1", {"s-gpu3": {"devices": "3"}, "s-gpu1": {"devices": "1"}}),
        (2, "0,1,2,3", {"s-gpu0-1": {"devices": "0,1"}, "s-gpu2-3": {"devices": "2,3"}}),
    ],
)
def test_gpus_are_shared_evenly(agents: int | None, gpus: str, expected: dict[str, Any]) -> None:
    assert {member.tag: member.executor for member in members("s", agents, gpus)} == expected


def test_without_gpus_the_cores_are_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    for cores, share in ((8, 2), (5, 1), (2, 0.5), (1, 0.25)):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, cores=cores: set(range(cores)))
        four = members("s", 4, None)
        assert [member.tag for member in four] == ["s-a0", "s-a1", "s-a2", "s-a3"]
        assert [member.executor for member in four] == [{"cpus_per_trial": share}] * 4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--agents", "1"), "There would be 1 agents; expected 2 to 64"),
        (("--agents", "0"), "There would be 0 agents"),
        (("--gpus", "0"), "There would be 1 agents"),
        (("--gpus", "0,0"), "--gpus is '0,0'; expected different numbers"),
        (("--gpus", "0,x"), "--gpus is '0,x'"),
        (("--gpus", ""), "--gpus is ''"),
        (("--agents", "2", "--gpus", "0,1,2"), "3 GPUs, which 2 agents cannot share"),
        (("--status", "--agents", "2"), "--agents goes with the start"),
    ],
)
def test_a_wrong_call_is_one_clear_error(bench: Bench, arguments: tuple[str, ...], says: str) -> None:
    session = () if "--status" in arguments else ("--session", "s", "--agent", bench.profile("obeys"))
    error = bench.call(*session, *arguments, expect=2)
    assert says in error
    assert not (bench.project / ".git" / "autoresearch").exists()
    assert not bench.project.with_name("project-s-a0").exists()


# ---- where they work


def test_each_agent_has_a_work_tree_a_branch_and_a_window(team: Team) -> None:
    team.start()
    for tag in (FIRST, SECOND):
        assert team.git("branch", "--show-current", tag=tag) == f"autoresearch/{tag}"
        assert team.git("status", "--short", tag=tag) == ""
        assert team.record(tag).options.project == str(team.tree(tag))
    assert sorted(team.windows()) == [FIRST, SECOND, "monitor"]
    assert team.git("branch", "--show-current") == "main"
    assert len({team.record(tag).supervisor for tag in (FIRST, SECOND)}) == 1
    team.call("--stop")
    team.bench.world.assert_empty()


def test_what_git_does_not_carry_is_linked(team: Team) -> None:
    project = team.bench.project
    for folder in ("data", "weights", ".venv/bin"):
        (project / folder).mkdir(parents=True)
    (project / "data" / "train.bin").write_bytes(b"1")
    (project / "weights" / "w.pt").write_bytes(b"1")
    (project / ".gitignore").write_text("__pycache__/\ndata/\nweights/\n.venv/\n", encoding="utf-8")
    with (project / "autoresearch.yaml").open("a", encoding="utf-8") as file:
        file.write("data: [data]\nlink: [weights]\n")
    (project / "CLAUDE.md").write_text("Our own words.\n", encoding="utf-8")
    team.git("add", ".gitignore", "autoresearch.yaml")
    team.git("commit", "-q", "-m", "inputs")
    team.start()
    for tag in (FIRST, SECOND):
        tree = team.tree(tag)
        assert {path: (tree / path).resolve() for path in ("data", "weights", ".venv")} == {
            path: project / path for path in ("data", "weights", ".venv")
        }
        memo = (tree / "CLAUDE.md").read_text(encoding="utf-8")
        assert memo.startswith("Our own words.\n")
        assert f"agents of session {TAG}" in memo
        assert team.git("status", "--short", tag=tag) == ""
        assert "cpus_per_trial" in (tree / "autoresearch.yaml").read_text(encoding="utf-8")
    task = team.folder(FIRST).task.read_text(encoding="utf-8")
    assert "You are one of 2 agents that improve the same number at the same time" in task
    assert f"The others are {SECOND}." in task
    team.call("--stop")


def test_a_project_that_is_trained_in_place_is_refused(team: Team) -> None:
    with (team.bench.project / "autoresearch.yaml").open("a", encoding="utf-8") as file:
        file.write("isolation: inplace\n")
    assert "isolation: inplace" in team.start(expect=4)
    assert not team.tree(FIRST).exists()


def test_gpus_that_are_not_there_are_told_before_anything_is_set_up(team: Team) -> None:
    assert "executor.devices" in team.bench.start("obeys", "--gpus", "98,99", expect=5)
    assert not list(team.bench.project.parent.glob("project-*"))
    with (team.bench.project / "autoresearch.yaml").open("a", encoding="utf-8") as file:
        file.write("executor: {kind: slurm}\n")
    assert "`executor` says slurm" in team.bench.start("obeys", "--gpus", "0,1", expect=2)


@pytest.mark.slow
def test_a_folder_that_is_in_the_way_is_left_alone(team: Team) -> None:
    team.tree(SECOND).mkdir()
    (team.tree(SECOND) / "mine").touch()
    assert f"project-{SECOND} is there already" in team.start(expect=4)
    assert [path.name for path in team.tree(SECOND).iterdir()] == ["mine"]
    (team.tree(SECOND) / "mine").unlink()
    team.start()  # what was begun is completed
    assert sorted(team.windows()) == [FIRST, SECOND, "monitor"]
    team.call("--stop")


def test_edits_that_are_not_committed_would_be_in_no_trial(team: Team) -> None:
    (team.bench.project / "train.py").write_text("print(1)\n", encoding="utf-8")
    assert "Uncommitted changes would be in no trial: train.py" in team.start(expect=4)
    assert not team.tree(FIRST).exists()


# ---- one ends, the others go on


@pytest.fixture
def at_work(team: Team) -> Iterator[Team]:
    """Both have come to work; afterwards nothing of them is left."""
    team.start()
    yield team
    team.call("--stop", "--now")
    team.bench.world.assert_empty()


def undisturbed(team: Team, tag: str) -> bool:
    """Whether the agent works in its first client, as if nothing had been."""
    night = team.record(tag)
    return night.state == "working" and night.memory.all_restarts == 0 and team.folder(tag).is_watched()


@pytest.mark.slow
def test_a_killed_client_is_started_again_and_no_other(at_work: Team) -> None:
    client = at_work.record(FIRST).client
    os.kill(client, signal.SIGKILL)
    eventually(lambda: at_work.record(FIRST).client not in (0, client))
    eventually(lambda: at_work.record(FIRST).memory.all_restarts == 1)
    assert undisturbed(at_work, SECOND)
    assert "restarts 1" in at_work.call("--status", "--tag", FIRST)
    text = at_work.call("--status")
    assert text.startswith(f"Session {TAG}: 2 agents")
    assert text.count("Night of campaign") == 2
    assert f"{FIRST} " in at_work.call("--logs", "30")


@pytest.mark.slow
def test_one_is_stopped_and_goes_on_later(at_work: Team) -> None:
    at_work.call("--stop", "--tag", FIRST)
    assert at_work.record(FIRST).state == "ended"
    assert at_work.windows() == ["monitor", SECOND] or at_work.windows() == [SECOND, "monitor"]
    assert undisturbed(at_work, SECOND)
    summary = at_work.folder(FIRST).summary.read_text(encoding="utf-8")
    assert f"Session {TAG}: 2 agents" in summary
    at_work.call("--resume")
    assert at_work.record(FIRST).state == "working"
    assert undisturbed(at_work, SECOND)
    assert sorted(at_work.windows()) == [FIRST, SECOND, "monitor"]


@pytest.mark.slow
def test_what_is_said_reaches_all_or_one(at_work: Team) -> None:
    said = at_work.call("--send", "to all")
    assert said.splitlines() == [f"{FIRST} has it.", f"{SECOND} has it."]
    assert "The agent has it." in at_work.call("--send", "to one", "--tag", SECOND)
    heard = at_work.bench.heard()
    assert (heard.count("to all"), heard.count("to one")) == (2, 1)


@pytest.mark.slow
def test_a_deleted_work_tree_ends_one_night_only(at_work: Team) -> None:
    shutil.rmtree(at_work.tree(FIRST))
    eventually(lambda: at_work.record(FIRST).state == "ended")
    assert "its folder has gone" in at_work.record(FIRST).reason
    assert undisturbed(at_work, SECOND)
    at_work.call("--resume", "--tag", FIRST)
    assert at_work.git("branch", "--show-current", tag=FIRST) == f"autoresearch/{FIRST}"
    assert at_work.record(FIRST).state == "working"


@pytest.mark.slow
def test_a_broken_campaign_is_one_agents_trouble(at_work: Team) -> None:
    with contextlib.closing(sqlite3.connect(at_work.bench.project / ".git" / "autoresearch" / "ledger.db")) as db:
        (config,) = db.execute("SELECT config FROM campaign WHERE tag = ?", (FIRST,)).fetchone()
        db.execute("UPDATE campaign SET config = ? WHERE tag = ?", (config.replace("budget_s", "budget_x"), FIRST))
        db.commit()
    eventually(lambda: "error" in [event["kind"] for event in at_work.folder(FIRST).events(50)])
    assert undisturbed(at_work, SECOND)
    assert "error" not in [event["kind"] for event in at_work.folder(SECOND).events(50)]


@pytest.mark.slow
def test_a_killed_supervisor_is_replaced_for_all(at_work: Team) -> None:
    clients = [at_work.record(tag).client for tag in (FIRST, SECOND)]
    os.kill(at_work.record(FIRST).supervisor, signal.SIGKILL)
    eventually(lambda: not at_work.folder(FIRST).is_watched() and not at_work.folder(SECOND).is_watched())
    assert at_work.call("--status").count("unwatched") == 2
    at_work.call("--resume")
    assert [at_work.record(tag).client for tag in (FIRST, SECOND)] == clients
    assert all(at_work.folder(tag).is_watched() for tag in (FIRST, SECOND))


@pytest.mark.slow
def test_who_was_stopped_stays_so_when_the_others_are_resumed_after_a_crash(at_work: Team) -> None:
    at_work.call("--stop", "--tag", FIRST)
    os.kill(at_work.record(SECOND).supervisor, signal.SIGKILL)
    eventually(lambda: not at_work.folder(SECOND).is_watched())
    at_work.call("--resume")
    assert at_work.folder(SECOND).is_watched()
    assert at_work.record(FIRST).state == "ended"


@pytest.mark.slow
def test_a_killed_tmux_server_takes_both_down_and_both_come_back(at_work: Team) -> None:
    at_work.bench.world.tmux("kill-server")
    for tag in (FIRST, SECOND):
        eventually(lambda tag=tag: at_work.record(tag).memory.all_restarts == 1)  # type: ignore[misc]
    assert sorted(at_work.windows()) == [FIRST, SECOND, "monitor"]


@pytest.mark.slow
def test_one_reaches_its_cap_and_the_other_has_its_own(team: Team) -> None:
    team.call("--session", TAG, "--socket", SOCKET, "--agent", "scripted", "--agents", "2", "--max-experiments", "2")
    for _ in range(4):  # one's baseline waits while the other's trials have the cores, on a busy machine
        with contextlib.suppress(AssertionError):
            eventually(lambda: [team.record(tag).state for tag in (FIRST, SECOND)] == ["ended", "ended"])
    for tag in (FIRST, SECOND):
        # The look comes each second, and here an experiment takes less.
        assert re.fullmatch(r"[2-9] experiments are decided", team.record(tag).reason)
    team.bench.world.assert_empty()
    told = team.call("--status")
    assert told.count(" experiments are decided)") == 2
