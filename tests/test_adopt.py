"""Two campaigns of one session, without their agents: what each sees of the other, and what it takes over."""

from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, PROJECT, Loop
from tests.sweep_bench import sweep

from autoresearch.agents.night import Options
from autoresearch.agents.team import Member, join, recover_worktree
from autoresearch.campaign import progress
from autoresearch.errors import MachineError, RefusedError
from autoresearch.ledger import Trial
from autoresearch.repo import Repo

# Two places to change, far enough apart to be merged.
TRAIN = (
    PROJECT["train.py"]
    .replace("SEED = 42", "SEED = 42\n\n\nBONUS = 0")
    .replace("prepare.evaluate_bpb(LR)", "prepare.evaluate_bpb(LR) - BONUS / 100")
)


class Pair(NamedTuple):
    """Two agents' folders."""

    first: Loop
    second: Loop


def make_pair(folder: Path, run: RunScript, *, measured: int = 2, train: str = TRAIN) -> Pair:
    """A repository and in it two campaigns, ``s-a0`` and ``s-a1``; the first ``measured`` have their baseline."""
    project = folder / "project"
    project.mkdir()
    for name, text in {**PROJECT, "train.py": train, "autoresearch.yaml": CONFIG}.items():
        (project / name).write_text(text, encoding="utf-8")
    for command in ("init -q -b main", "add .", "commit -q -m Start"):
        subprocess.run(["git", *command.split()], cwd=project, check=True)
    options = Options(session="s", tag="s", project=str(project), agent="scripted")
    team = [Member(tag=tag, executor={}) for tag in ("s-a0", "s-a1")]
    pair = Pair(*(Loop(folder=Path(each.project), run=run) for each in join(options, team, date(2026, 11, 24))))
    for loop in pair[:measured]:
        loop.baseline()
    return pair


@pytest.fixture
def pair(tmp_path: Path, run_script: RunScript) -> Pair:
    return make_pair(tmp_path, run_script)


def test_each_sees_what_the_other_has_kept_and_what_has_failed(pair: Pair) -> None:
    assert pair.first.experiment("half the learning rate", LR=2) == "discard"
    assert pair.first.experiment("twice the learning rate", LR=8) == "keep"
    (other,) = pair.second.look()["others"]
    assert (other["tag"], other["kept"], other["tried"], other["comparable"]) == ("s-a0", 1, 2, True)
    assert [(each["number"], each["description"]) for each in other["keeps"]] == [(2, "twice the learning rate")]
    assert [(each["number"], each["description"]) for each in other["failed"]] == [(1, "half the learning rate")]
    assert other["gain"] == pytest.approx(0.0047, abs=1e-6)
    text = pair.second.run("status", cwd=pair.second.folder).stdout
    assert "run_experiment.py --adopt s-a0/2" in text
    assert "earlier campaigns" not in text
    (other,) = pair.first.look()["others"]
    assert (other["tag"], other["kept"], other["keeps"], other["gain"]) == ("s-a1", 0, [], 0.0)


def test_an_adopted_idea_is_measured_on_its_new_base(pair: Pair) -> None:
    pair.first.experiment("twice the learning rate", LR=8)
    pair.second.experiment("a bonus", BONUS=1)
    shown = pair.second.call("run_experiment", "--adopt", "s-a0/1")["experiment"]
    assert shown["description"] == "adopt s-a0/1: twice the learning rate"
    assert pair.second.log()["experiment"]["status"] == "keep"
    assert "LR = 8" in pair.second.text()
    assert "BONUS = 1" in pair.second.text()
    assert pair.second.look()["incumbent"]["metric"] == pytest.approx(0.9932 - 0.01)
    (other,) = pair.second.look()["others"]
    assert other["known"] == {"1": 2}
    assert "(here it is experiment 2)" in pair.second.run("status", cwd=pair.second.folder).stdout
    (other,) = pair.first.look()["others"]
    assert other["known"] == {"2": 1}, "it came from here, and is nothing to adopt"
    assert "--adopt s-a1/1" in pair.first.run("status", cwd=pair.first.folder).stdout
    refused = pair.second.call("run_experiment", "--adopt", "s-a0/1", expect=4)
    assert "in the files already" in refused["message"]


def test_second_attempt_of_an_adopted_idea_keeps_its_arguments(tmp_path: Path, run_script: RunScript) -> None:
    bonus = TRAIN.replace("BONUS = 0", "BONUS = len(sys.argv)").replace("import prepare", "import os, sys, prepare")
    crash = 'if os.path.exists(os.environ.get("TOY_CRASH", "")):\n    raise RuntimeError("not today")\n'
    pair = make_pair(tmp_path, run_script, train=bonus.replace("\nLR", f"\n{crash}LR"))
    assert sweep(pair.first, "--arg", "bonus=1")["points"][0]["status"] == "keep"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TOY_CRASH", str(tmp_path))
        pair.second.call("run_experiment", "--adopt", "s-a0/1")
    pair.second.write({"train.py": pair.second.text().replace("\nLR", "\n\nLR")})
    shown = pair.second.submit()["experiment"]
    assert shown["attempt"] == 2
    assert pair.second.log()["experiment"]["options"]["arguments"] == {"bonus": "1"}
    assert pair.second.look()["incumbent"]["metric"] == pytest.approx(0.9979 - 0.03)


def test_a_change_that_does_not_fit_is_refused_and_leaves_nothing(pair: Pair) -> None:
    pair.first.experiment("twice the learning rate", LR=8)
    pair.second.experiment("a large learning rate", LR=32)
    before = pair.second.git("status", "--short"), pair.second.text()
    refused = pair.second.call("run_experiment", "--adopt", "s-a0/1", expect=4)
    assert "train.py" in refused["message"]
    assert refused["code"] == "conflict"
    assert (pair.second.git("status", "--short"), pair.second.text()) == before
    assert pair.second.look()["state"] == "idle"


def test_only_what_another_campaign_has_kept_is_adopted(pair: Pair) -> None:
    pair.first.experiment("half the learning rate", LR=2)
    pair.first.experiment("twice the learning rate", LR=8)
    for reference, code in (
        ("nonsense", 2), ("s-a0/99", 2), ("s-a1/0", 2), ("s-a9/1", 2), ("s-a0/0", 4), ("s-a0/1", 4)
    ):  # fmt: skip
        error = pair.second.call("run_experiment", "--adopt", reference, expect=code)
        assert reference in error["message"]
    before = pair.second.text()
    told = pair.second.call("run_experiment", "--adopt", "s-a0/2", "--dry-run")
    assert told["experiment"]["description"].startswith("adopt s-a0/2")
    assert pair.second.text() == before
    assert pair.second.git("status", "--short") == ""


def test_an_edit_that_has_not_been_run_is_not_overwritten(pair: Pair) -> None:
    pair.first.experiment("twice the learning rate", LR=8)
    pair.second.edit(BONUS=1)
    refused = pair.second.call("run_experiment", "--adopt", "s-a0/1", expect=4)
    assert "train.py" in refused["message"]
    assert "BONUS = 1" in pair.second.text()


def test_adopted_files_stay_where_the_trial_could_not_be_started(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    pair.first.experiment("twice the learning rate", LR=8)

    def launch(*_: object) -> Trial:
        raise MachineError("No space left on device.")

    with monkeypatch.context() as broken:
        broken.setattr(progress, "launch_trial", launch)
        pair.second.call("run_experiment", "--adopt", "s-a0/1", expect=5)
    assert pair.second.status() == ""
    assert "LR = 8" in pair.second.text()
    assert pair.second.look("--wait", 30)["experiment"]["verdict"] == "better"
    assert pair.second.log()["experiment"]["status"] == "keep"
    assert pair.second.status() == ""


def test_the_same_edit_by_hand_is_known(pair: Pair) -> None:
    pair.first.experiment("half the learning rate", LR=2)
    notes = pair.second.submit("a smaller step", LR=2)["notes"]
    assert any("of campaign s-a0" in note for note in notes)


def test_nothing_is_adopted_before_there_is_a_baseline(tmp_path: Path, run_script: RunScript) -> None:
    pair = make_pair(tmp_path, run_script, measured=1)
    pair.first.experiment("twice the learning rate", LR=8)
    refused = pair.second.call("run_experiment", "--adopt", "s-a0/1", expect=4)
    assert refused["code"] == "no_baseline"
    assert "LR = 4" in pair.second.text()


def test_a_sub_folder_with_a_submodule_is_trained_in_a_further_work_tree(
    home: Path, tmp_path: Path, run_script: RunScript
) -> None:
    with (home / ".gitconfig").open("a", encoding="utf-8") as file:
        file.write('[protocol "file"]\n    allow = always\n')
    library, top = tmp_path / "library", tmp_path / "two words"
    for folder, files in (
        (library, {"bonus.py": "BONUS = 1\n"}),
        (top / "sub", {**PROJECT, "train.py": f"from vendor import bonus\n{TRAIN}", "autoresearch.yaml": CONFIG}),
    ):
        folder.mkdir(parents=True)
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    for folder, commands in (
        (library, ["init -q -b main", "add .", "commit -q -m Library"]),
        (top, ["init -q -b main", f"submodule add -q {library} sub/vendor", "add .", "commit -q -m Start"]),
    ):
        for command in commands:
            subprocess.run(["git", *command.split()], cwd=folder, check=True)
    options = Options(session="s", tag="s", project=str(top / "sub"), agent="scripted")
    (own,) = join(options, [Member(tag="s-a0", executor={})], date(2026, 11, 24))
    loop = Loop(folder=Path(own.project), run=run_script)
    assert loop.folder == tmp_path / "two words-s-a0" / "sub"
    loop.baseline()
    assert loop.experiment("twice the learning rate", LR=8) == "keep"
    shutil.rmtree(loop.folder.parent)
    assert recover_worktree(Repo(top), "s-a0") == loop.folder
    assert loop.git("status", "--short") == ""
    assert loop.experiment("a large learning rate", LR=32) == "keep"
    with pytest.raises(RefusedError, match="none of session t"):
        join(replace(options, session="t"), [Member(tag="s-a0", executor={})], date(2026, 11, 24))
