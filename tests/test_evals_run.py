"""The evals' own runner, with a real Claude Code and a scripted model in the place of a real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.client_bench import KEY, find_client
from tests.conftest import ROOT
from tests.scripted_model import Request, ScriptedModel, Turn, run, say, use

RUN = ROOT / "evals" / "run.py"
PYTHON = shlex.quote(sys.executable)


def call(*arguments: str | Path, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(RUN), *map(str, arguments)], cwd=cwd, env=environment, capture_output=True, text=True,
        check=False, stdin=subprocess.DEVNULL, timeout=240,
    )  # fmt: skip


def world(model: ScriptedModel) -> dict[str, str]:
    client = find_client("claude")
    path = f"{client.parent}{os.pathsep}{os.environ['PATH']}"
    return {"PATH": path, "ANTHROPIC_API_KEY": KEY, "ANTHROPIC_BASE_URL": model.url, "LANG": "C.UTF-8"}


def test_missing_client_and_missing_key_are_told(tmp_path: Path) -> None:
    done = call("--agent", "claude", cwd=tmp_path, PATH=os.defpath)
    assert (done.returncode, done.stderr.startswith("claude is not on the PATH")) == (5, True)
    (tmp_path / "claude").touch(mode=0o755)
    done = call("--agent", "claude", cwd=tmp_path, PATH=f"{tmp_path}:{os.defpath}")
    assert (done.returncode, done.stderr.startswith("There is no key: set one of ANTHROPIC_API_KEY")) == (5, True)
    assert [path.name for path in tmp_path.iterdir()] == ["claude"]


def test_unasked_work_as_root_is_the_users_decision(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("NOT TESTED: needs root")
    (tmp_path / "claude").touch(mode=0o755)
    done = call("--agent", "claude", cwd=tmp_path, PATH=f"{tmp_path}:{os.defpath}", ANTHROPIC_API_KEY=KEY)
    assert done.returncode == 5
    assert "--sandboxed" in done.stderr


class Researcher:
    """A model that opens the skill, and does what its text and the scripts' answers tell it, with ideas of its own."""

    IDEAS = (("larger steps", "LEARNING_RATE = .*", "LEARNING_RATE = 0.01"), ("too many", "BATCH = .*", "BATCH = 4096"))

    def __init__(self) -> None:
        self.tried = 0
        self.folder = ""

    def __call__(self, request: Request) -> Turn:
        if opened := re.search(r"Base directory for this skill: (\S+)", "\n".join(request.users + request.results)):
            self.folder = opened[1]
        if not self.folder:
            return use("Skill", skill="autoresearch")
        result = request.result
        if "Campaign" not in "\n".join(request.results):
            return run(self.script("setup_campaign", "--budget", "1"))
        if "run_experiment.py" in result and "the idea in a sentence" not in result:
            return run(self.script("run_experiment", "-d", "baseline"))
        if "log it" in result or "failed" in result:
            return run(self.script("log_result"))
        if self.tried == len(self.IDEAS):
            return say("That was it.")
        description, old, new = self.IDEAS[self.tried]
        self.tried += 1
        edit = f"sed -i {shlex.quote(f's/^{old}/{new}/')} train.py"
        return run(f"{edit} && {self.script('run_experiment', '-d', description)}")

    def script(self, name: str, *arguments: str) -> str:
        return f"{PYTHON} {self.folder}/scripts/{name}.py {shlex.join(arguments)}"


@pytest.mark.slow
@pytest.mark.timeout(260)
def test_eval_is_run_judged_and_laid_out_for_the_viewer(tmp_path: Path) -> None:
    with ScriptedModel(Researcher()) as model:
        done = call("--agent", "claude", "--eval", "1", "--sandboxed", "--minutes", "3", cwd=tmp_path, **world(model))
    folder = tmp_path / "autoresearch-workspace" / "iteration-1" / "eval-1" / "with_skill" / "run-1"
    result = json.loads((folder / "grading.json").read_text())
    failed = [one["text"] for one in result["expectations"] if not one["passed"]]
    assert failed == ["The agent went on by itself, without a question to the user."], done.stdout + done.stderr
    assert done.returncode == 1, "two ideas are not the eight that the eval asks for"
    assert (folder / "outputs" / "results.tsv").read_text().count("\n") == 4
    benchmark = json.loads((folder.parents[2] / "benchmark.json").read_text())
    (row,) = benchmark["runs"]
    assert row["result"]["tool_calls"] >= 6
    assert row["result"]["tokens"] > 0
    assert benchmark["run_summary"]["with_skill"]["pass_rate"]["mean"] == pytest.approx(10 / 11)
    assert json.loads((folder.parents[1] / "eval_metadata.json").read_text())["eval_id"] == 1


@pytest.mark.slow
@pytest.mark.timeout(260)
def test_trigger_is_the_skill_opened_and_nothing_else(tmp_path: Path) -> None:
    """The first query opens the skill, the second reads SKILL.md, the third talks and lists files."""
    answers: dict[str, Turn] = {}
    queries = [one["query"] for one in json.loads((ROOT / "evals" / "triggers.json").read_text())]
    answers[queries[0]] = use("Skill", skill="autoresearch")
    home = tmp_path / "autoresearch-workspace" / "iteration-1" / "home"
    answers[queries[1]] = use("Read", file_path=str(home / ".claude" / "skills" / "autoresearch" / "SKILL.md"))

    def agent(request: Request) -> Turn:
        turn = answers.get(request.message, run("ls"))
        return say("Nothing.") if request.result else turn

    with ScriptedModel(agent) as model:
        done = call("--agent", "claude", "--triggers", "--first", "3", "--sandboxed", cwd=tmp_path, **world(model))
    rows: list[dict[str, Any]] = json.loads((home.parent / "triggers.json").read_text())["results"]
    assert [row["triggers"] for row in rows] == [1, 1, 0], done.stdout + done.stderr
    assert [row["pass"] for row in rows] == [True, True, False]
    listed = [
        text for request in model.asked for text in [json.dumps(request.body)] if "autoresearch: Autonomous" in text
    ]
    assert listed, "the client lists the skill with its description"
