"""What measures stays protected, also below a folder or a glob that experiments may change."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, PREPARE, PROJECT, TAG, TRAIN, Loop
from tests.setup_bench import Bench

from autoresearch.campaign.opened import open_campaign
from autoresearch.campaign.trials import prepare_checkout
from autoresearch.config import Config
from autoresearch.ledger import Experiment

FORGED = PREPARE.replace("4: 0.9979", "4: 0.5")
COMMAND = "PYTHONDONTWRITEBYTECODE=1 python3 -S {}train.py"
IN_SRC = {f"src/{name}": text for name, text in PROJECT.items() if name.endswith(".py")}
SETTINGS = CONFIG.replace("S train.py", "S src/train.py").replace("[train.py]", "[src]")


def project(folder: Path, run: RunScript, files: dict[str, str]) -> Loop:
    folder.mkdir()
    loop = Loop(folder=folder, run=run)
    loop.git("init", "-q", "-b", "main")
    loop.commit({**files, ".gitignore": "__pycache__/\n"}, "Start")
    return loop


def config_of(bench: Bench) -> Config:
    return Config.read(bench.folder / "autoresearch.yaml")


def assert_forgery_is_refused(loop: Loop, evaluator: str) -> None:
    """With the baseline measured, plant a better evaluator: in the work tree, in a commit, and at the base."""
    loop.baseline()
    true = loop.text(evaluator)
    head = loop.git("rev-parse", "HEAD")
    loop.write({evaluator: FORGED})
    assert loop.submit("edit the evaluator", expect=4)["code"] == "protected"
    forged = loop.commit({evaluator: FORGED}, "a committed evaluator")
    error = loop.submit("commit the evaluator", expect=4)
    assert error["code"] == "protected"
    assert f"git restore --source={head} --staged --worktree -- {evaluator}" in error["message"]
    with open_campaign(loop.folder) as oc:
        planted = Experiment(
            tag=TAG, number=9, epoch=1, description="forged", commit=forged, parent=head, tree="", incumbent=0
        )
        checkout = prepare_checkout(oc, planted)
        assert (checkout / evaluator).read_text() == true
    loop.git("reset", "-q", "--hard", head)


# --- where flags give `edit`


def test_evaluator_below_an_edited_folder_is_protected(tmp_path: Path, run_script: RunScript) -> None:
    loop = project(tmp_path / "project", run_script, IN_SRC)
    data = loop.setup("--tag", TAG, "--command", COMMAND.format("src/"), "--edit", "src", "--metric", "val_bpb")
    assert (config_of(loop).edit, config_of(loop).protect) == (("src",), ("src/prepare.py",))
    assert any("src/prepare.py may measure and stays protected" in note for note in data["notes"])
    assert_forgery_is_refused(loop, "src/prepare.py")
    (loop.folder / "src" / "train.py").write_text(TRAIN.replace("LR = 4", "LR = 8"))
    assert loop.submit("another rate")["experiment"]["verdict"] == "better"


def test_evaluator_within_an_edited_glob_is_protected(tmp_path: Path, run_script: RunScript) -> None:
    loop = project(tmp_path / "project", run_script, {**PROJECT, "lib.py": "X = 1\n"})
    loop.setup("--tag", TAG, "--command", COMMAND.format(""), "--edit", "*.py", "--protect", "lib.py")
    assert config_of(loop).protect == ("lib.py", "prepare.py"), "what is given adds to what measures"
    assert_forgery_is_refused(loop, "prepare.py")


def test_evaluator_of_no_telling_name_is_named_in_a_note(tmp_path: Path, run_script: RunScript) -> None:
    train = IN_SRC["src/train.py"].replace("prepare", "truth")
    loop = project(tmp_path / "project", run_script, {"src/train.py": train, "src/truth.py": PREPARE})
    flags = ("--tag", TAG, "--command", COMMAND.format("src/"), "--edit", "src", "--metric", "val_bpb")
    notes = loop.setup(*flags, "--dry-run")["notes"]
    assert any("may change src/truth.py" in note and "--protect src/truth.py" in note for note in notes)
    loop.setup(*flags, "--protect", "src/truth.py")
    assert_forgery_is_refused(loop, "src/truth.py")


def test_evaluator_that_edit_names_itself_may_change(tmp_path: Path, run_script: RunScript) -> None:
    bench = project(tmp_path / "project", run_script, IN_SRC)
    flags = ("--command", COMMAND.format("src/"), "--edit", "src", "./src/prepare.py", "--metric", "val_bpb")
    bench.setup("--tag", TAG, *flags)
    assert config_of(bench).protect == ()


@pytest.mark.parametrize("path", ["src/train.py", "src"])
def test_one_path_under_edit_and_protect_is_refused(tmp_path: Path, run_script: RunScript, path: str) -> None:
    bench = project(tmp_path / "project", run_script, IN_SRC)
    before = bench.state()
    error = bench.setup("--command", COMMAND.format("src/"), "--edit", path, "--protect", path, expect=2)
    assert f"({path} is under both)" in error["message"]
    assert bench.state() == before


@pytest.mark.parametrize("protect", ["src", "src/*.py"])
def test_edit_of_which_all_is_protected_is_refused(tmp_path: Path, run_script: RunScript, protect: str) -> None:
    bench = project(tmp_path / "project", run_script, IN_SRC)
    error = bench.setup("--command", COMMAND.format("src/"), "--edit", "src/train.py", "--protect", protect, expect=2)
    assert "all of it is protected" in error["message"]


# --- where autoresearch.yaml says it, and with --reconfigure


def test_evaluator_below_a_folder_that_the_settings_name(tmp_path: Path, run_script: RunScript) -> None:
    loop = project(tmp_path / "project", run_script, {**IN_SRC, "autoresearch.yaml": SETTINGS})
    data = loop.setup("--tag", TAG)
    assert config_of(loop).protect == ("src/prepare.py",)
    hows = {finding["key"]: finding["how"] for finding in data["findings"]}
    assert hows["protect"] == "autoresearch.yaml, and what measures"
    assert_forgery_is_refused(loop, "src/prepare.py")


def test_script_of_the_evaluate_command_is_protected(tmp_path: Path, run_script: RunScript) -> None:
    settings = f"{SETTINGS}evaluate_command: python3 src/truth.py\n"
    bench = project(
        tmp_path / "project", run_script, {**IN_SRC, "src/truth.py": PREPARE, "autoresearch.yaml": settings}
    )
    bench.setup("--tag", TAG)
    assert config_of(bench).protect == ("src/prepare.py", "src/truth.py")


def test_reconfigure_protects_the_evaluator(tmp_path: Path, run_script: RunScript) -> None:
    loop = project(
        tmp_path / "project", run_script,
        {**IN_SRC, "autoresearch.yaml": SETTINGS.replace("[src]", "[src/train.py]")},
    )  # fmt: skip
    loop.setup("--tag", TAG)
    loop.write({"src/prepare.py": FORGED})
    refused = loop.setup("--reconfigure", "--edit", "src", expect=4)
    assert refused["code"] == "uncommitted_changes"
    loop.write({"src/prepare.py": PREPARE})
    data = loop.setup("--reconfigure", "--edit", "src")
    assert data["differences"]["protect"] == {"old": [], "new": ["src/prepare.py"]}
    assert_forgery_is_refused(loop, "src/prepare.py")


# --- names that are not there


def test_protect_of_what_is_not_there_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    bench = project(tmp_path / "project", run_script, {**PROJECT, "autoresearch.yaml": CONFIG})
    for arguments in (("--protect", "prepar.py"), ("--protect", "prepare.py", "prepar.py")):
        error = bench.setup("--tag", TAG, *arguments, expect=2)
        assert "`protect` names prepar.py" in error["message"]
        assert error["hint"] == "Did you mean prepare.py?"
    bench.write({"autoresearch.yaml": f"{CONFIG}protect: [nowhere/]\n"})
    assert bench.setup("--tag", TAG, expect=2)["code"] == "protect_missing"
    bench.write({"autoresearch.yaml": CONFIG, ".gitignore": "made/\n", "made/truth.csv": "1\n"})
    bench.git("commit", "-qam", "ignore")
    bench.setup("--tag", TAG, "--protect", "made")
    error = bench.setup("--reconfigure", "--protect", "prepar.py", expect=2)
    assert error["code"] == "protect_missing"


def test_link_that_is_not_there_is_noted(tmp_path: Path, run_script: RunScript) -> None:
    settings = f"{CONFIG}link: [nothere]\n"
    bench = project(tmp_path / "project", run_script, {**PROJECT, "autoresearch.yaml": settings})
    said = "`link` in autoresearch.yaml names nothere, and nothing is there: no trial sees it."
    assert said in bench.setup("--tag", TAG)["notes"]
    assert said in bench.setup("--reconfigure", "--budget", "20")["notes"]
