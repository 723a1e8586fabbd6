from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from autoresearch.campaign.configure import Configured, configure
from autoresearch.campaign.detect import detect
from autoresearch.campaign.entry import Project, find_entry
from autoresearch.campaign.needs import find_links
from autoresearch.campaign.printed import direction_of
from autoresearch.campaign.wishes import Wishes
from autoresearch.errors import UsageError

LOSS = 'print(f"val_loss: {loss:.4f}")\n'


def project(
    folder: Path, files: dict[str, str], *, ignored: tuple[str, ...] = (), untracked: tuple[str, ...] = ()
) -> Project:
    """Write ``files`` and say that git tracks all of them."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Project(folder=folder, files=tuple(files), ignored=ignored, untracked=untracked)


def configured(folder: Path, files: dict[str, str], **wishes: object) -> Configured:
    return configure(project(folder, files), Wishes(**wishes), existing=None)  # type: ignore[arg-type]


def read(made: Configured, log: str) -> float:
    """The one value that the chosen pattern finds in ``log``."""
    (value,) = {float(found) for found in re.findall(made.config.metric.pattern, log, re.MULTILINE)}
    return value


# --- which script trains, and how ----------------------------------------------------------------------


class Entry(NamedTuple):
    id: str
    files: tuple[str, ...]
    expected: str


ENTRIES = [
    Entry("train.py before main.py", ("main.py", "train.py"), "train.py"),
    Entry("main.py before run.py", ("run.py", "main.py"), "main.py"),
    Entry("in src", ("lib.py", "src/train.py"), "src/train.py"),
    Entry("the only one named after training", ("lib.py", "train_gpt.py"), "train_gpt.py"),
    Entry("the only runnable one", ("lib.py", "go__main__.py"), "go__main__.py"),
]


@pytest.mark.parametrize("case", ENTRIES, ids=lambda case: case.id)
def test_entry_is_found(tmp_path: Path, case: Entry) -> None:
    files = {name: 'if __name__ == "__main__":\n    pass\n' if "__main__" in name else "" for name in case.files}
    assert find_entry(project(tmp_path, files))[0] == case.expected


def test_several_possible_scripts_are_named_with_the_flag_that_decides(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train_a\.py, train_b\.py") as caught:
        configured(tmp_path, {"train_a.py": LOSS, "train_b.py": LOSS})
    assert "--command 'python train_a.py'" in caught.value.hint


def test_a_script_that_was_never_committed_is_the_answer_to_a_missing_script(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.py is not committed") as caught:
        find_entry(project(tmp_path, {"README": ""}, untracked=("train.py",)))
    assert caught.value.hint.startswith("git add train.py")


class Runner(NamedTuple):
    id: str
    files: dict[str, str]
    command: str


RUNNERS = [
    Runner("a lock file of uv", {"uv.lock": ""}, "uv run train.py"),
    Runner("a project in pyproject", {"pyproject.toml": '[project]\nname = "x"\n'}, "uv run train.py"),
    Runner("settings of uv", {"pyproject.toml": "[tool.uv]\n"}, "uv run train.py"),
    Runner("only settings of tools", {"pyproject.toml": "[tool.ruff]\n"}, "python train.py"),
    Runner("requirements", {"requirements.txt": "torch\n"}, "python train.py"),
    Runner("an environment", {".venv/bin/python": ""}, ".venv/bin/python train.py"),
]


@pytest.mark.parametrize("case", RUNNERS, ids=lambda case: case.id)
def test_runner_is_found(tmp_path: Path, case: Runner) -> None:
    assert configured(tmp_path, {"train.py": LOSS, **case.files}).config.command == case.command


def test_missing_uv_is_remarked_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    notes = configured(tmp_path, {"train.py": LOSS, "uv.lock": ""}).notes
    assert any(note.startswith("uv is not on the PATH") for note in notes)


def test_script_with_its_own_dependencies_is_run_by_uv(tmp_path: Path) -> None:
    text = f"# /// script\n# dependencies = []\n# ///\n{LOSS}"
    assert configured(tmp_path, {"train.py": text}).config.command == "uv run train.py"


@pytest.mark.parametrize("flag", ["--seed", "--random-seed"])
def test_seed_option_gets_the_seed_of_the_runner(tmp_path: Path, flag: str) -> None:
    text = f"import argparse\np = argparse.ArgumentParser()\np.add_argument('-s', '{flag}', type=int)\n{LOSS}"
    made = configured(tmp_path, {"train.py": text})
    assert made.config.command == f"python train.py {flag} {{seed}}"
    assert "train.py:3" in made.findings[0].how


def test_command_that_leaves_a_seed_option_out_is_remarked_on_and_kept(tmp_path: Path) -> None:
    text = f"p.add_argument('--seed')\n{LOSS}"
    made = configured(tmp_path, {"train.py": text}, command="python train.py --fast")
    assert made.config.command == "python train.py --fast"
    assert any("--seed {seed}" in note for note in made.notes)


def test_fixed_seed_is_remarked_on_unless_the_runner_sets_it(tmp_path: Path) -> None:
    fixed = configured(tmp_path, {"train.py": f"import torch\ntorch.manual_seed(42)\n{LOSS}"})
    assert any("train.py:2 fixes the seed at 42" in note for note in fixed.notes)
    text = f'seed = int(os.environ.get("AUTORESEARCH_SEED", 1))\ntorch.manual_seed(seed)\nrandom.seed(7)\n{LOSS}'
    assert configured(tmp_path, {"train.py": text}).notes == []


def test_given_command_names_the_script_that_is_looked_at(tmp_path: Path) -> None:
    files = {"pkg/fit.py": 'print(f"val_acc: {acc}")\n', "train.py": LOSS}
    found = detect(project(tmp_path, files), command="python -m pkg.fit --lr 0.1")
    assert found.entry == "pkg/fit.py"
    assert [one.name for one in found.printed] == ["val_acc"]


# --- the metric ----------------------------------------------------------------------------------------


class Choice(NamedTuple):
    """What ``source`` prints, and the value that is to be read out of ``log``."""

    source: str
    name: str
    direction: str
    log: str
    value: float


EPOCHS = "epoch 0 val_loss: 0.9\nepoch 1 val_loss: 0.7\nepoch 2 val_loss: 0.5\nbye"
CHOICES = {
    "f-string": Choice('print(f"val_loss: {x:.3f}")', "val_loss", "lower", "val_loss: 0.5", 0.5),
    "equals sign": Choice('print(f"accuracy={x}")', "accuracy", "higher", "accuracy=0.9", 0.9),
    "two arguments": Choice('print("rmse:", x)', "rmse", "lower", "rmse: 1.5", 1.5),
    "percent format": Choice('print("auc: %.3f" % x)', "auc", "higher", "auc: 0.75", 0.75),
    "format method": Choice('print("f1: {:.3f}".format(x))', "f1", "higher", "f1: 0.75", 0.75),
    "concatenation": Choice('print("bleu: " + str(x))', "bleu", "higher", "bleu: 30.5", 30.5),
    "logger": Choice('logger.info("val_ppl: %.2f", x)', "val_ppl", "lower", "INFO:root:val_ppl: 9.5", 9.5),
    "json": Choice(
        'print(json.dumps({"eval_acc": x, "n": 3}))', "eval_acc", "higher", '{"eval_acc": 0.5, "n": 3}', 0.5
    ),
    "words": Choice('print(f"Test accuracy: {x}%")', "test_accuracy", "higher", "Test accuracy: 91.5%", 91.5),
    "held out before training": Choice(
        'print(f"train_loss: {a} val_loss: {b}")', "val_loss", "lower", "train_loss: 0.1 val_loss: 0.5", 0.5
    ),
    "loss before accuracy": Choice(
        'print(f"accuracy: {a}")\nprint(f"loss: {b}")', "loss", "lower", "accuracy: 0.9\nloss: 0.5", 0.5
    ),
    "val before test": Choice(
        'print(f"test_loss: {a}")\nprint(f"val_loss: {b}")',
        *("val_loss", "lower", "test_loss: 0.9\nval_loss: 0.5", 0.5),
    ),
    "quality before speed": Choice(
        'print(f"tokens_per_sec: {a}")\nprint(f"score: {b}")',
        *("score", "higher", "tokens_per_sec: 900\nscore: 7", 7.0),
    ),
    "speed alone": Choice('print(f"latency_ms: {a}")', "latency_ms", "lower", "latency_ms: 3.5", 3.5),
    "printed each epoch: the last counts": Choice(
        'for e in range(3):\n    print(f"epoch {e} val_loss: {x:.2f}")', "val_loss", "lower", EPOCHS, 0.5
    ),
    "final line before the epochs' lines": Choice(
        'for e in x:\n    print(f"val_acc: {a}")\nprint(f"acc: {b}")',
        *("acc", "higher", "val_acc: 0.1\nval_acc: 0.2\nacc: 0.5", 0.5),
    ),
}


@pytest.mark.parametrize("case", CHOICES.values(), ids=CHOICES)
def test_metric_is_chosen_and_its_pattern_reads_it(tmp_path: Path, case: Choice) -> None:
    made = configured(tmp_path, {"train.py": f"{case.source}\n"})
    assert (made.config.metric.name, made.config.metric.direction) == (case.name, case.direction)
    assert read(made, case.log) == case.value


def test_metric_printed_by_an_imported_module_is_found_and_its_self_test_is_not(tmp_path: Path) -> None:
    evaluate = 'def report(x):\n    print(f"val_loss: {x}")\n'
    evaluate += 'if __name__ == "__main__":\n    print(f"val_bpb: {1}")\n'
    made = configured(tmp_path, {"train.py": "from lib.evaluate import report\n", "lib/evaluate.py": evaluate})
    assert made.config.metric.name == "val_loss"
    assert made.config.protect == ("lib/evaluate.py",)


def test_what_goes_into_a_file_is_not_printed(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="No number to improve was found"):
        configured(tmp_path, {"train.py": 'print(f"val_loss: {x}", file=out)\n'})


def test_metric_is_found_in_an_earlier_log_when_the_code_does_not_show_it(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("{'eval_loss': 0.9, 'epoch': 1}\n{'eval_loss': 0.8, 'epoch': 2}\n")
    made = configured(tmp_path, {"train.py": "trainer.train()\n"})
    assert made.config.metric.name == "eval_loss"
    assert "run.log:1" in next(one.how for one in made.findings if one.key == "metric")
    assert read(made, "{'eval_loss': 0.7, 'epoch': 1}\n{'eval_loss': 0.6, 'epoch': 2}\n") == 0.6


def test_numbers_without_a_known_name_are_named_with_the_flags(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="alpha, beta") as caught:
        configured(tmp_path, {"train.py": 'print(f"alpha: {a}")\nprint(f"beta: {b}")\n'})
    assert "--metric alpha --direction lower|higher" in caught.value.hint
    assert caught.value.exit_code == 2


def test_two_names_of_the_same_rank_are_asked_about(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="val_loss, valid_loss") as caught:
        configured(tmp_path, {"train.py": 'print(f"val_loss: {a}")\nprint(f"valid_loss: {b}")\n'})
    assert caught.value.code == "ask_metric"


def test_unknown_direction_of_a_given_metric_is_asked_for(tmp_path: Path) -> None:
    files = {"train.py": 'print(f"alpha: {a}")\n'}
    with pytest.raises(UsageError, match="lower or a higher alpha") as caught:
        configured(tmp_path, files, metric="alpha")
    assert caught.value.code == "ask_direction"
    assert configured(tmp_path, files, metric="alpha", direction="higher").config.metric.direction == "higher"


def test_given_metric_that_nothing_prints_is_expected_as_a_line(tmp_path: Path) -> None:
    made = configured(tmp_path, {"train.py": "fit()\n"}, metric="val_loss")
    assert made.config.metric.pattern == r"^val_loss:\s*(\S+)"
    assert "expected as a line" in next(one.how for one in made.findings if one.key == "metric")


@pytest.mark.parametrize(
    ("name", "direction"),
    [
        ("val_bpb", "lower"),
        ("Validation/Loss", "lower"),
        ("imagenet_top1", "higher"),
        ("best_val_acc", "higher"),
    ],
)
def test_direction_is_known_by_name(name: str, direction: str) -> None:
    assert direction_of(name) == direction


def test_further_lines_of_the_summary_are_watched(tmp_path: Path) -> None:
    lines = ("Vocab size: {v}", "val_loss: {x}", "peak_vram_mb: {y:.1f}", "depth: {z}")
    made = configured(tmp_path, {"train.py": "\n".join(f'print(f"{line}")' for line in lines)})
    assert list(made.config.watch) == ["peak_vram_mb", "depth"]
    assert "watch: [peak_vram_mb, depth]" in made.text


# --- budget, data, links, isolation --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "budget_s", "startup_s"),
    [
        ("TIME_BUDGET = 300\n", 300, 0),
        ("MAX_SECONDS = 2 * 60\n", 120, 60),
        ('TIME_BUDGET_S = float(os.environ.get("TIME_BUDGET", 15))\n', 15, 60),
        ("TIME_BUDGET = 20\nmodel = torch.compile(model)\n", 20, 120),
        ("", 300, 0),
    ],
)
def test_time_budget_is_read_from_the_code(tmp_path: Path, source: str, budget_s: float, startup_s: float) -> None:
    config = configured(tmp_path, {"train.py": source + LOSS}).config
    assert (config.budget_s, config.startup_s) == (budget_s, startup_s)


def test_budget_that_the_code_does_not_follow_is_remarked_on(tmp_path: Path) -> None:
    fixed = configured(tmp_path, {"train.py": f"TIME_BUDGET = 300\n{LOSS}"}, budget_s=60.0)
    assert fixed.config.budget_s == 60
    assert any("TIME_BUDGET in train.py:1 is fixed at 300 s" in note for note in fixed.notes)


def test_data_is_found_by_the_constants_that_name_it(tmp_path: Path, home: Path) -> None:
    source = (
        'CACHE_DIR = os.path.join(os.path.expanduser("~"), ".cache", "thing")\n'
        'DATA_DIR = os.path.join(CACHE_DIR, "data")\n'
        'OUTPUT_DATA_DIR = "/tmp/elsewhere"\n'
        'DATASET = "org/name"\n'
        'DATA_URL = "https://example.org/data"\n'
    )
    (home / ".cache" / "thing").mkdir(parents=True)
    (home / ".cache" / "thing" / "x").touch()
    files = {"train.py": source + LOSS, "prepare.py": ""}
    made = configured(tmp_path, files)
    assert made.config.data == ("~/.cache/thing",)
    assert made.data.missing == ("~/.cache/thing/data",)
    assert made.data.prepare == "python prepare.py"
    (home / ".cache" / "thing" / "data").mkdir()
    assert configured(tmp_path, files).data.missing == ("~/.cache/thing/data",), "an empty folder holds no data"
    (home / ".cache" / "thing" / "data" / "y").touch()
    assert configured(tmp_path, files).data.missing == ()


def test_data_beside_the_script_and_by_option(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.txt").touch()
    source = 'DATA = Path(__file__).resolve().parent / "corpus"\np.add_argument("--data-root", default="shards")\n'
    made = configured(tmp_path, {"train.py": source + LOSS})
    assert made.config.data == ("corpus",)
    assert made.data.missing == (), "nobody makes `shards`, so its name alone is no evidence"


def test_folder_that_holds_only_the_script_that_fills_it_is_missing(tmp_path: Path) -> None:
    files = {f"data/{name}/prepare.py": "" for name in ("huge", "small")}
    files["train.py"] = f'dataset = "small"\ndata_dir = os.path.join("data", dataset)\n{LOSS}'
    made = configure(project(tmp_path, files), Wishes(), existing=None)
    assert made.data.missing == ("data/small",)
    assert made.data.prepare == "python data/small/prepare.py"
    filled = project(tmp_path, files, ignored=("data/small/train.bin",))
    made = configure(filled, Wishes(), existing=None)
    assert (made.data.paths, made.data.missing) == (("data/small",), ())
    assert made.config.link == ("data/small/train.bin",)


def test_given_data_replaces_what_was_found(tmp_path: Path) -> None:
    files = {"train.py": f'DATA_DIR = "~/nowhere"\n{LOSS}', "prepare.py": ""}
    assert configured(tmp_path, files, data=()).config.data == ()
    assert configured(tmp_path, files, data=("/no/such",)).data.missing == ("/no/such",)


def test_ignored_inputs_are_linked_and_outputs_are_not(tmp_path: Path) -> None:
    folders = (".venv", "data", "wandb", "checkpoints", "runs", "__pycache__", ".pytest_cache", ".claude")
    inputs = ("train.bin", "vocab.model", "ext.cpython-311.so", "out/x.bin", "nested/val.bin")
    outputs = ("model_final.pt", "ckpt.pt", "run.log", "results.tsv")
    for folder in folders:
        (tmp_path / folder).mkdir()
    here = project(tmp_path, {"train.py": LOSS}, ignored=(*folders, *inputs, *outputs))
    links, left_out = find_links(here, detect(here))
    assert set(links) == {".venv", "data", *inputs}
    assert left_out == []


def test_untracked_inputs_are_linked_when_the_code_names_them(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    untracked = ("data/x.csv", "data/y.csv", "words.csv", "other.csv")
    here = project(tmp_path, {"train.py": f'open("words.csv")\n{LOSS}'}, untracked=untracked)
    assert find_links(here, detect(here))[0] == ["data", "words.csv"]


PYPROJECT = '[project]\nname = "x"\n[build-system]\nrequires = []\n'


class Isolation(NamedTuple):
    id: str
    files: dict[str, str]
    expected: str


ISOLATIONS = [
    Isolation(
        "src layout that uv installs",
        {"uv.lock": "", "pyproject.toml": PYPROJECT, "src/x/a.py": ""},
        "inplace",
    ),
    Isolation(
        "the same, told not to",
        {"uv.lock": "", "pyproject.toml": f"{PYPROJECT}[tool.uv]\npackage = false\n", "src/x/a.py": ""},
        "worktree",
    ),
    Isolation("flat layout", {"uv.lock": "", "pyproject.toml": PYPROJECT, "x/a.py": ""}, "worktree"),
    Isolation("editable src", {".venv/lib/python3.11/site-packages/__editable__.x-0.pth": "{}/src\n"}, "inplace"),
    Isolation("editable root", {".venv/lib/python3.11/site-packages/__editable__.x-0.pth": "{}\n"}, "worktree"),
    Isolation(
        "another's",
        {".venv/lib/python3.11/site-packages/__editable__.y-0.pth": "/elsewhere/src\n"},
        "worktree",
    ),
    Isolation(
        "editable by a finder",
        {".venv/lib/python3.11/site-packages/__editable___x_0_finder.py": "MAPPING = {{'x': '{}/src/x'}}\n"},
        "inplace",
    ),
]


@pytest.mark.parametrize("case", ISOLATIONS, ids=lambda case: case.id)
def test_inplace_is_chosen_only_where_a_checkout_would_not_be_imported(tmp_path: Path, case: Isolation) -> None:
    files = {name: text.format(tmp_path) if "site-packages" in name else text for name, text in case.files.items()}
    made = configured(tmp_path, {"train.py": LOSS, **files})
    assert made.config.isolation == case.expected
    assert any(one.key == "isolation" for one in made.findings) == (case.expected == "inplace")


def test_config_file_is_complete_and_each_key_has_its_comment(tmp_path: Path) -> None:
    made = configured(tmp_path, {"train.py": LOSS})
    lines = made.text.splitlines()
    keys = [number for number, line in enumerate(lines) if re.match(r"\w+:", line)]
    assert {lines[number].partition(":")[0] for number in keys} == set(made.config.to_dict())
    assert all(lines[number - 1].startswith("# ") for number in keys)


def test_config_quotes_what_yaml_would_misread(tmp_path: Path) -> None:
    command = """bash -c "python train.py: #1 'x' \\d {seed}" """.strip()
    made = configured(tmp_path, {"train.py": LOSS, "on": ""}, command=command, edit=("train.py", "on"))
    assert (made.config.command, made.config.edit) == (command, ("train.py", "on"))


def test_edit_that_names_no_committed_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"`edit` names model\.py, and no committed file"):
        configured(tmp_path, {"train.py": LOSS}, edit=("train.py", "model.py"))


def test_syntax_errors_of_the_project_stop_nothing(tmp_path: Path) -> None:
    files = {"train.py": f"import broken\n{LOSS}", "broken.py": "def (:\n", "pyproject.toml": "[[["}
    assert configured(tmp_path, files).config.command == "python train.py"
