"""Two real Claude Code clients on scripted models in one session, and one of them is killed while its trial runs."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.client_bench import World, answer_claude, claude_subscribed, find_client, world
from tests.conftest import ROOT
from tests.loop_bench import PROJECT
from tests.night_bench import TAG, Night, make_night, make_project, profile
from tests.night_faults import PACE
from tests.scripted_agent import Idea, Researcher
from tests.scripted_model import Request, ScriptedModel, Turn
from tests.trial_bench import living

from autoresearch.executors.base import process_mark
from autoresearch.runner.orphans import MARK
from autoresearch.runner.processes import read_process

__all__ = ["world"]  # a fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

KILLED, OTHER = f"{TAG}-a0", f"{TAG}-a1"
# Each agent goes its own way down: no idea of one is an idea of the other.
IDEAS = {
    KILLED: tuple(Idea(f"learning rate {rate}", "LR", rate) for rate in range(95, 75, -2)),
    OTHER: tuple(Idea(f"learning rate {rate}", "LR", rate) for rate in range(94, 54, -2)),
}
# Trials of campaign X last as long as there is a file gate-X.
HOLD = """
def hold():
    gate = os.environ["TOY_GATE"] + "-" + os.environ["AUTORESEARCH_TRIAL"].split(".")[0]
    while os.path.exists(gate):
        time.sleep(0.01)
"""


def make_held_project(world: World) -> Path:
    project = make_project(world)
    before, after = PROJECT["prepare.py"].split("\ndef hold():")
    rest = after[after.index("\n\n\n") :]
    (project / "prepare.py").write_text(before + HOLD + rest, encoding="utf-8")
    subprocess.run(["git", "commit", "-qam", "Hold"], cwd=project, env=world.environment(), check=True)
    return project


def two_researchers(tree: Callable[[str], Path]) -> Callable[[Request], Turn]:
    """Two agents in one model: whose request it is stands in its working directory."""
    agents = {tag: Researcher(project=tree(tag), ideas=ideas) for tag, ideas in IDEAS.items()}

    def answer(request: Request) -> Turn:
        return agents[sender(request, tree)](request)

    return answer


def sender(request: Request, tree: Callable[[str], Path]) -> str:
    body = json.dumps(request.body)
    (tag,) = [tag for tag in IDEAS if str(tree(tag)) in body]
    return tag


@contextlib.contextmanager
def holding(world: World, tag: str) -> Iterator[None]:
    gate = world.folder / f"gate-{tag}"
    gate.touch()
    try:
        yield
    finally:
        gate.unlink()


def trials(night: Night) -> frozenset[str]:
    """The trials of the campaign whose processes live."""
    folders = (night.folder.parent / "trials").glob("*")
    return frozenset(folder.name for folder in folders if living(f"{MARK}={process_mark(folder)}"))


def expected(tag: str, count: int) -> list[tuple[str, str]]:
    """Status and description of the first ``count`` rows of an agent that nothing has disturbed."""
    return [("keep", "baseline"), *(("keep", idea.description) for idea in IDEAS[tag])][:count]


def summary(night: Night) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "summarize.py"), "--session", TAG, "--json"],
        cwd=night.project, env=night.world.environment(), check=True, capture_output=True, text=True,
    )  # fmt: skip
    return dict(json.loads(done.stdout)["data"])


def test_one_is_killed_in_mid_trial_and_the_other_does_not_notice(
    world: World, record_property: Callable[[str, object], None]
) -> None:
    find_client("claude")
    project = make_held_project(world)

    def tree(tag: str) -> Path:
        return project.with_name(f"{project.name}-{tag}")

    with ScriptedModel(two_researchers(tree)) as model:
        answer_claude(world)
        environment = {**claude_subscribed(model), "TOY_GATE": str(world.folder / "gate")}
        both = make_night(world, model, environment, project=project)
        killed, other = (
            dataclasses.replace(both, tag=tag, window=tag, project=tree(tag), record_folder=project) for tag in IDEAS
        )
        both.launch("--agents", "2", "--agent", str(profile(world, "claude", PACE)))
        for night in (killed, other):
            night.until_rows(2)

        with holding(world, KILLED):
            running = killed.until(lambda: trials(killed))
            client, rows = killed.client(), len(other.rows())
            asked = len(model.asked)
            os.kill(client, signal.SIGKILL)
            struck = time.monotonic()
            killed.until(lambda: read_process(client) is None)
            killed.until(lambda: killed.client() not in (0, client))
            other.until_rows(rows + 2)
            assert trials(killed) == running, "the trial was started anew, or ended with its client"
            rows = len(killed.rows())
        again = killed.until(lambda: next((each for each in model.asked[asked:] if sender(each, tree) == KILLED), None))
        killed.until_rows(rows + 2)
        ended = both.call("--stop")["nights"]
        record_property("measured", f"at work again {again.at - struck:.1f} s after the kill")

        assert [night["state"] for night in ended] == ["ended", "ended"]
        world.assert_empty()
        assert not list((world.folder / "leases").glob("*.json"))
        for night in (killed, other):
            found = [(row[-2], row[-1]) for row in night.rows()]
            assert found == expected(night.tag, len(found)), "an experiment was lost, run twice, or decided otherwise"
        assert killed.record()["memory"]["all_restarts"] == 1
        assert other.record()["memory"]["all_restarts"] == 0
        assert not {"exit", "restart", "error", "nudge", "orphan", "handover"} & set(other.kinds())
        assert other.kinds().count("task") == 1
        assert {"trust"} == {*killed.answered(), *other.answered()}

        shown = summary(both)
        assert [each["tag"] for each in shown["team"]["agents"]] == [KILLED, OTHER]
        undecided = shown["team"]["experiments"] - len(killed.rows()) - len(other.rows())
        assert undecided in (0, 1, 2), "each agent may have been stopped in one"
        best = {night.tag: float(night.rows()[-1][0]) for night in (killed, other)}
        assert shown["team"]["leader"]["tag"] == min(best, key=lambda tag: best[tag])
        text = (other.folder / "summary.txt").read_text(encoding="utf-8")
        assert f"Session {TAG}: 2 agents" in text
