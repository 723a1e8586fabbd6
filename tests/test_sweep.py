"""The scripted loop, on the toy project."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, TRAIN, Loop, make_loop
from tests.sweep_bench import assert_clean, start, statuses, sweep
from tests.trial_bench import eventually

from autoresearch.campaign import progress
from autoresearch.campaign.points import Kind, literals, locate, parse_axis, random_points, replace
from autoresearch.campaign.tpe import Tpe
from autoresearch.errors import MachineError, UsageError
from autoresearch.ledger import Trial


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with a campaign and no experiment yet."""
    return make_loop(tmp_path / "project", run_script)


def test_grid_measures_the_baseline_and_keeps_what_is_better(loop: Loop) -> None:
    data = sweep(loop, "--set", "LR=2,4,8")
    assert statuses(data) == [
        ("sweep: LR=2", "discard", False),
        ("sweep: LR=4", "keep", True),
        ("sweep: LR=8", "keep", False),
    ]
    assert data["incumbent"]["metric"] == 0.9932
    assert "LR = 8\nWIDTH = 64\nSEED = 42  # of the initial weights\n" in loop.text()
    assert_clean(loop)


def test_same_command_again_runs_nothing(loop: Loop) -> None:
    sweep(loop, "--set", "LR=2,8")
    before = loop.results.read_text()
    assert [skipped for _, _, skipped in statuses(sweep(loop, "--set", "LR=2,8"))] == [True, True]
    assert loop.results.read_text() == before


def test_kept_arguments_and_environment_are_inherited(tmp_path: Path, run_script: RunScript) -> None:
    train = (
        "import os, sys\nLR = 4\nWIDTH = 1\n"
        "gain = float(os.environ.get('GAIN', 0)) + (float(sys.argv[2]) if sys.argv[1:] else 0)\n"
        "print(f'val_bpb: {1 + WIDTH - gain}')\n"
    )
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": train})
    data = sweep(loop, "--arg", "gain=0.1", "--env", "GAIN=0.2")
    assert statuses(data) == [("sweep: --gain=0.1 $GAIN=0.2", "keep", False)]
    assert data["points"][0]["metric"] == pytest.approx(1.7)
    assert data["next"].endswith(f"summarize.py --project {loop.folder}")
    assert loop.experiment("less width", WIDTH=0.5) == "keep"
    assert loop.look()["incumbent"]["metric"] == pytest.approx(1.2)


# What an argument is worth depends on the others; WIDTH costs.
WITH_ARGUMENTS = """\
import sys

LR = 4
WIDTH = 1
given = dict(zip(sys.argv[1::2], map(float, sys.argv[2::2])))
print(f"val_bpb: {1 + WIDTH - given.get('--lr', 0) - given.get('--wd', 0) * given.get('--lr', -1)}")
"""


def test_point_is_tried_anew_once_the_incumbent_has_other_arguments(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": WITH_ARGUMENTS})
    assert statuses(sweep(loop, "--arg", "wd=0.1")) == [("sweep: --wd=0.1", "discard", False)]
    assert statuses(sweep(loop, "--arg", "wd=0.1")) == [("sweep: --wd=0.1", "discard", True)]
    assert statuses(sweep(loop, "--arg", "lr=0.5")) == [("sweep: --lr=0.5", "keep", False)]
    assert statuses(sweep(loop, "--arg", "wd=0.1")) == [("sweep: --wd=0.1", "keep", False)]


def test_files_tried_on_todays_arguments_are_refused_whatever_came_before(
    tmp_path: Path, run_script: RunScript
) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": WITH_ARGUMENTS})
    loop.baseline()
    assert loop.experiment("wide", WIDTH=2) == "discard"
    sweep(loop, "--arg", "lr=0.5")
    assert loop.experiment("wide, at the new rate", WIDTH=2) == "discard"
    refused = loop.submit("wide, once more", expect=4, WIDTH=2)
    assert "experiment 3 (wide, at the new rate)" in refused["message"]


@pytest.mark.parametrize(
    ("flags", "metric", "told"),
    [
        (["--budget", "20"], 1.5, "the new baseline runs with lr=0.5 of experiment 1"),
        (["--command", "python3 train.py --lr 0.25"], 1.75, "without lr=0.5 of experiment 1"),
    ],
)
def test_new_epoch_goes_on_with_kept_arguments_unless_its_command_is_new(
    tmp_path: Path, run_script: RunScript, flags: list[str], metric: float, told: str
) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": WITH_ARGUMENTS})
    sweep(loop, "--arg", "lr=0.5")
    assert told in loop.call("setup_campaign", "--reconfigure", *flags)["notes"][0]
    loop.call("setup_campaign", "--reconfigure", "--budget", 30)
    loop.baseline()
    assert loop.look()["incumbent"]["metric"] == metric
    assert loop.experiment("narrow", WIDTH=0.5) == "keep"
    assert loop.look()["incumbent"]["metric"] == metric - 0.5


def test_ablation_takes_out_an_argument_and_leaves_those_of_others(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": WITH_ARGUMENTS})
    loop.baseline()
    assert loop.experiment("narrow", WIDTH=0.5) == "keep"
    sweep(loop, "--arg", "lr=0.25")
    found = loop.call("compare", "baseline", "best", "--seeds", 5, "--ablate")
    assert found["not_separable"] == []
    gains = {each["name"]: each["claim"]["gain"] for each in found["contributions"]}
    assert gains == {"experiment 1 (narrow)": 0.5, "experiment 2 (sweep: --lr=0.25)": 0.25}


def test_argument_that_a_later_keep_has_changed_again_is_not_separable(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": WITH_ARGUMENTS})
    sweep(loop, "--arg", "lr=0.25,0.5")
    found = loop.call("compare", "baseline", "best", "--seeds", 5, "--ablate")
    assert found["not_separable"] == ["experiment 1 (sweep: --lr=0.25)"]
    assert [(each["name"], each["claim"]["gain"]) for each in found["contributions"]] == [
        ("experiment 2 (sweep: --lr=0.5)", 0.25)
    ]


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_sampler_draws_whole_numbers_and_resumes(loop: Loop, sampler: str) -> None:
    command = ["--set", "LR=10:40", "--sampler", sampler, "--sampler-seed", "3", "--max-trials"]
    first = sweep(loop, *command, "2")
    second = sweep(loop, *command, "4")
    assert len(second["points"]) == 4
    assert [p["values"] for p in second["points"][:2]] == [p["values"] for p in first["points"]]
    assert [bool(p["skipped"]) for p in second["points"]] == [True, True, False, False]
    assert all(10 <= int(p["values"]["LR"]) <= 40 for p in second["points"])


def test_tpe_learns_from_the_history_it_is_told() -> None:
    axis = parse_axis(Kind.SET, "LR=log:0.001:1")
    told = Tpe([axis], seed=1, direction="lower")
    for (text,), _ in zip(random_points([axis], 5), range(30), strict=False):
        told.tell((text,), abs(float(text) - 0.1))
    asked = [float(told.ask()[0]) for _ in range(20)]
    assert sum(0.03 < value < 0.3 for value in asked) >= 11  # a third of them by chance


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--set", "WIDHT=1"), "WIDTH"),
        (("--set", "LR="), "empty value"),
        (("--set", "LR=relu"), "no Python literal"),
        (("--set", "LR=9:1", "--sampler", "tpe"), "empty range"),
        (("--set", "LR=1:9"), "needs a list"),
        (("--env", "TIME_BUDGET=1"), "set by the runner"),
        ((), "nothing to vary"),
    ],
)
def test_bad_input_is_told_before_anything_changes(loop: Loop, arguments: tuple[str, ...], words: str) -> None:
    error = sweep(loop, *arguments, expect=2)
    assert words in error["message"] + error["hint"]
    assert loop.trials() == []


def test_command_that_drops_edits_of_many_kinds_works_as_it_is_told(tmp_path: Path, run_script: RunScript) -> None:
    files = {"src/my model.py": "A = 1\nB = 2\n", "src/old.py": "C = 3\nD = 4\n"}
    config = CONFIG.replace("edit: [train.py]", "edit: [train.py, src]")
    loop = make_loop(tmp_path / "project", run_script, config=config, files=files)
    loop.write({"src/my model.py": "A = 2\nB = 2\n", "src/new file.py": "E = 5\n"})
    loop.git("mv", "src/old.py", "src/renamed.py")
    loop.git("add", "src/my model.py")
    hint = sweep(loop, "--set", "LR=8", expect=4)["hint"]
    drop, move = hint.split("drop them: ")[1].removesuffix(")").split("; ")
    subprocess.run(drop, shell=True, check=True)
    assert move == "move src/new file.py away"
    assert loop.status() == '?? "src/new file.py"'


def test_edits_in_the_work_tree_are_refused(loop: Loop) -> None:
    loop.edit(LR=5)
    assert "train.py" in sweep(loop, "--set", "LR=2", expect=4)["hint"]
    assert "LR = 5" in loop.text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_sweep_leaves_a_clean_campaign_and_goes_on(loop: Loop, number: signal.Signals) -> None:
    loop.baseline()
    with loop.holding():
        process = start(loop, "--set", "LR=8,2")
        eventually(lambda: len(loop.trials()) == 3 and bool(loop.processes()))
        process.send_signal(number)
        process.communicate(timeout=30)
    assert process.returncode == 130
    assert_clean(loop)
    assert loop.rows[-1][3] == "crash"
    assert [status for _, status, _ in statuses(sweep(loop, "--set", "LR=8,2"))] == ["keep", "discard"]
    assert_clean(loop)


def test_interrupted_point_keeps_what_it_measured(tmp_path: Path, run_script: RunScript) -> None:
    train = TRAIN.replace("prepare.hold()", 'os.environ["AUTORESEARCH_SEED"] == "1" or prepare.hold()')
    config = CONFIG.replace("max_seeds: 2", "max_seeds: 2, min_seeds: 2")
    files = {"train.py": train.replace("import prepare", "import os\n\nimport prepare")}
    loop = make_loop(tmp_path / "project", run_script, config=config, files=files)
    loop.baseline()
    with loop.holding():
        running = start(loop, "--set", "LR=8")
        eventually(lambda: [trial.seed for trial in loop.trials()][2:] == [1, 2])
        running.send_signal(signal.SIGINT)
        running.communicate()
    assert loop.rows[-1][1:2] + loop.rows[-1][3:] == ["0.993200", "discard", "sweep: LR=8"]
    assert sweep(loop, "--set", "LR=8")["points"][0]["status"] == "keep"


def test_sweep_whose_trial_could_not_be_started_is_finished_by_the_same_command(
    loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop.baseline()

    def launch(*_: object) -> Trial:
        raise MachineError("No space left on device.")

    with monkeypatch.context() as broken:
        broken.setattr(progress, "launch_trial", launch)
        sweep(loop, "--set", "LR=8", expect=5)
    assert statuses(sweep(loop, "--set", "LR=8,2")) == [
        ("sweep: LR=8", "keep", True),
        ("sweep: LR=2", "discard", False),
    ]
    assert_clean(loop)


def test_sweep_killed_during_a_trial_is_finished_by_the_same_command(loop: Loop) -> None:
    loop.baseline()
    with loop.holding():
        process = start(loop, "--set", "LR=8,2")
        eventually(lambda: len(loop.trials()) == 3 and bool(loop.processes()))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    data = sweep(loop, "--set", "LR=8,2")
    assert [(p["status"], bool(p["skipped"])) for p in data["points"]] == [("keep", True), ("discard", False)]
    assert len(loop.rows) == 3
    assert_clean(loop)


def test_edit_that_a_killed_sweep_left_is_known_and_taken_back(loop: Loop) -> None:
    sweep(loop, "--set", "LR=2")
    loop.edit(LR=2)  # as it stands between writing the file and submitting it
    assert json.loads((loop.state_dir / "apr5" / "sweep-edit.json").read_text())
    assert [status for _, status, _ in statuses(sweep(loop, "--set", "LR=8"))] == ["keep"]
    assert_clean(loop)


def test_replacement_keeps_all_other_bytes() -> None:
    source = '"""Ü"""\r\nNAME = "größe"; LR: float = (0.1)  # ä\r\nBETAS = (\n  0.8,\n  0.9,\n)\nX = LR * 2\n'
    assert replace(source, {"LR": "0.2", "BETAS": "(1, 2)"}) == (
        '"""Ü"""\r\nNAME = "größe"; LR: float = (0.2)  # ä\r\nBETAS = (1, 2)\nX = LR * 2\n'
    )
    assert literals(source)["X"] is None


def test_choice_between_two_values_is_replaced_as_a_whole() -> None:
    source = (
        "GPU = is_there()\nDEPTH = 8 if GPU else 2**1  # blocks\nNAME = 'a' if GPU else 1\nW = DEPTH if GPU else 2\n"
    )
    known = literals(source)
    assert known["DEPTH"] is not None
    assert known["DEPTH"].value == 8
    assert known["NAME"] is known["W"] is None
    assert replace(source, {"DEPTH": "6"}) == source.replace("8 if GPU else 2**1", "6")


def test_values_with_commas_in_brackets_are_one() -> None:
    assert parse_axis(Kind.SET, "BETAS=(0.8, 0.9),(0.9, 0.95)").values == ("(0.8, 0.9)", "(0.9, 0.95)")


@pytest.mark.parametrize("name", ["lr", "Lr", "LRR"])
def test_constant_that_is_not_there_names_the_nearest(name: str) -> None:
    with pytest.raises(UsageError, match=f"no top-level constant {name} in train.py") as caught:
        locate(parse_axis(Kind.SET, f"{name}=0.1"), {"train.py": "LR = 0.08\nWIDTH = 4\n"})
    assert caught.value.hint == "Did you mean: LR?"


def test_constant_is_found_among_several_files(tmp_path: Path, run_script: RunScript) -> None:
    config = "command: python3 -B train.py\nmetric: {name: val_bpb, direction: lower}\nedit: [train.py, model.py]\n"
    config += "budget_s: 10\nkeep: {baseline_seeds: 2, max_seeds: 2}\n"
    files = {"model.py": "GAIN = 0  # of all\n", "train.py": "import model\nprint(f'val_bpb: {1 - model.GAIN}')\n"}
    loop = make_loop(tmp_path / "project", run_script, config=config, files=files)
    assert [status for _, status, _ in statuses(sweep(loop, "--set", "GAIN=0.5"))] == ["keep"]
    assert loop.text("model.py") == "GAIN = 0.5  # of all\n"
