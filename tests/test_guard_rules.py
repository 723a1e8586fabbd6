"""How the guards decide: kinds of seeds, ways to print a metric, several files, and what it costs."""

from __future__ import annotations

import time
from typing import Any

import pytest
from tests.training_code import (
    CONFIG,
    EVALUATION,
    FASTER,
    IMPORT,
    PRINT,
    SEED,
    TRAIN,
    Changes,
    before_loop,
    check,
    edited,
)

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard import check_edit


def refusal(changes: Changes, **options: Any) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        check(changes, **options)
    return refused.value


def config(**settings: object) -> Config:
    return Config.from_dict({"command": "python train.py", "metric": {"name": "val_bpb"}} | settings)


# ---- has the edit an effect?


def test_no_change_is_refused_unless_arguments_change() -> None:
    error = refusal([])
    assert error.code == "no_change"
    assert "Edit train.py first" in error.hint
    assert check_edit({"train.py": TRAIN}, {"train.py": TRAIN}, CONFIG, argument_changes=True) == []


def test_new_seed_beside_new_arguments_is_no_experiment_on_seeds_alone() -> None:
    after = edited(TRAIN, [('"42"', '"43"')])
    assert check_edit({"train.py": TRAIN}, {"train.py": after}, CONFIG, argument_changes=True) == []


def test_coming_and_going_files_are_changes() -> None:
    one, two = {"src/a.py": "x = 1\n"}, {"src/a.py": "x = 1\n", "src/b.py": "y = 1\n"}
    assert check_edit(one, two, config(edit=["src"])) == []
    assert check_edit(two, one, config(edit=["src"])) == []


@pytest.mark.parametrize(
    "change",
    [
        ("# residual", "# the residual stream"),
        ('"""Train a small GPT."""', '"""Train a GPT."""'),
        ("MATRIX_LR = 0.04", "MATRIX_LR  =  (0.04)\n\n"),
        ("        for block in self.blocks:", '        """Run."""\n        for block in self.blocks:'),
    ],
)
def test_edit_of_layout_alone_is_let_pass_with_a_note(change: tuple[str, str]) -> None:
    (note,) = check([change])
    assert "should equal the incumbent's" in note


def test_file_that_no_longer_parses_is_let_pass_with_a_note() -> None:
    (note,) = check([("MATRIX_LR = 0.04", "MATRIX_LR = = 0.04"), ("{val_bpb:.6f}", "{val_bpb:.7f}")])
    assert "train.py:42 does not parse" in note


def test_file_that_our_parser_never_understood_is_compared_by_line() -> None:
    newer = "type X = = int\n" + TRAIN
    (note,) = check([FASTER], before=newer)
    assert "line by line" in note
    assert refusal([("{val_bpb:.6f}", "{val_bpb * 0.9:.6f}")], before=newer).code == "metric_line"
    assert refusal([FASTER, ("step = 0\n", "open('results.tsv')\nstep = 0\n")], before=newer).code == "ledger_files"


# ---- seeds

KARPATHY = edited(TRAIN, [(SEED, ""), ("manual_seed(SEED)", "manual_seed(42)")])
FIXED = "torch.manual_seed(42)"
MOVED = (FIXED, "torch.manual_seed(137)")


def test_seed_spelled_out_at_the_incumbent_stays_what_it_is() -> None:
    check([FASTER], before=KARPATHY)
    check([FASTER, (FIXED, "SEED = 42\ntorch.manual_seed(SEED)")], before=KARPATHY)
    check([FASTER, (FIXED, f"{FIXED}\nimport random\nrandom.seed(42)")], before=KARPATHY)
    assert refusal([MOVED], before=KARPATHY).code == "seed_only"
    assert refusal([MOVED, FASTER], before=KARPATHY).code == "seed_ignored"


def test_taking_the_runners_seed_is_good_beside_a_change_and_alone_a_humans() -> None:
    adopted = (FIXED, 'torch.manual_seed(int(os.environ["AUTORESEARCH_SEED"]))')
    assert check([adopted, FASTER], before=KARPATHY) == []
    error = refusal([adopted], before=KARPATHY)
    assert error.code == "seed_only"
    assert "--reconfigure" in error.hint


def test_code_without_a_seed_gets_none_spelled_out() -> None:
    unseeded = edited(KARPATHY, [(FIXED + "\n", ""), ("torch.cuda.manual_seed(42)\n", "")])
    assert refusal([before_loop("torch.manual_seed(7)"), FASTER], before=unseeded).code == "seed_ignored"


def test_runners_seed_handed_to_other_code_must_still_be_read() -> None:
    before = edited(TRAIN, [(SEED, 'run = os.environ["AUTORESEARCH_SEED"]\nbegin(run)\n'), ("(SEED)", "()")])
    assert check([FASTER], before=before) == []
    assert refusal([('os.environ["AUTORESEARCH_SEED"]', "3"), FASTER], before=before).code == "seed_ignored"


@pytest.mark.parametrize("name", ["num_seeds = 5", "n_seeds = 5", "seed = 'Once upon a time'"])
def test_what_only_sounds_like_a_seed_may_change(name: str) -> None:
    before = edited(TRAIN, [before_loop(name)])
    assert check([(name, name.replace("5", "6").replace("Once", "Twice"))], before=before) == []


FLAG = "import argparse\nparser = argparse.ArgumentParser()\n"
ARGUMENT = 'parser.add_argument("--seed", type=int, default=1337)\n'


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ([("default=1337", "default=7")], "seed_only"),
        ([("(args.seed)", "(args.seed + 1)")], "seed_only"),
        ([("(args.seed)", "(7)"), FASTER], "seed_ignored"),
        ([(ARGUMENT, ""), ("(args.seed)", "(7)"), FASTER], "seed_ignored"),
    ],
)
def test_seed_flag_of_the_command_is_the_runners(changes: Changes, code: str) -> None:
    settings = config(command="python train.py --seed {seed}")
    read = f"{FLAG}{ARGUMENT}args = parser.parse_args()\n"
    before = edited(TRAIN, [(SEED, read), ("(SEED)", "(args.seed)")])
    assert check([FASTER], before=before, config=settings) == []
    assert refusal(changes, before=before, config=settings).code == code


def test_default_of_a_seed_flag_that_the_command_leaves_out_is_a_seed() -> None:
    before = edited(TRAIN, [(SEED, f"{FLAG}{ARGUMENT}args = parser.parse_args()\n"), ("(SEED)", "(args.seed)")])
    assert refusal([("1337", "1338")], before=before).code == "seed_only"
    assert refusal([("1337", "1338"), FASTER], before=before).code == "seed_ignored"


@pytest.mark.parametrize(
    "code",
    [
        "split = divide(x, random_state=7)",
        "options = dict(seed=7)",
        'options = {"seed": 7}',
        'options["seed"] = 7',
        "def divide(x, seed=7):\n    return x",
        "def divide(x, *, seed=7):\n    return x",
        "class Options:\n    seed: int = 7",
        "rng = np.random.default_rng(7)",
        "key = jax.random.PRNGKey(7)",
        "key = jax.random.key(7)",
        "seed_everything(7)",
    ],
)
def test_seed_that_moves_is_refused_wherever_it_stands(code: str) -> None:
    before = edited(TRAIN, [before_loop(code)])
    moved = (code, code.replace("7", "8"))
    assert check([FASTER], before=before) == []
    assert refusal([moved], before=before).code == "seed_only"
    assert refusal([moved, FASTER], before=before).code == "seed_ignored"


def test_new_generator_with_a_fixed_seed_is_noted() -> None:
    (note,) = check([before_loop("order = torch.Generator().manual_seed(0)")])
    assert "the same in every trial" in note
    assert "manual_seed(0)" in note


# ---- the metric


@pytest.mark.parametrize(
    "line",
    [
        'print("val_bpb:", val_bpb)',
        'print("val_bpb", val_bpb, sep=": ")',
        'print("val_bpb: %.6f" % val_bpb)',
        'print("val_bpb: {:.6f}".format(val_bpb))',
        'print("val_bpb: " + str(val_bpb))',
        'print("val_bpb:".ljust(20) + f"{val_bpb:.6f}")',
        "print(f\"{'val_bpb:':<20}{val_bpb:.6f}\")",
        'logging.info("val_bpb: %s", val_bpb)',
        'sys.stdout.write(f"val_bpb: {val_bpb}\\n")',
        'print("\\n".join(["---", f"val_bpb: {val_bpb}"]))',
        'print(f"val_bpb: {val_bpb:.4f}  steps: {step}")',
        'line = f"val_bpb: {val_bpb:.4f}"\nprint(line)',
        'wandb.log({"val_bpb": val_bpb, "step": step})',
        "wandb.log(dict(val_bpb=val_bpb))",
        'results["val_bpb"] = val_bpb',
    ],
)
def test_every_way_to_print_the_metric_is_known(line: str) -> None:
    before = edited(TRAIN, [(PRINT, line)])
    assert check([FASTER], before=before) == []
    assert refusal([(line, "pass")], before=before).code == "metric_line"
    assert refusal([(EVALUATION, EVALUATION + "val_bpb *= 0.9\n")], before=before).code == "metric_line"


def test_metric_named_by_one_print_and_printed_by_the_next_is_known() -> None:
    line = 'print("val_bpb: ", end="")'
    before = edited(TRAIN, [(PRINT, f"{line}\nprint(val_bpb)")])
    assert check([FASTER], before=before) == []
    assert refusal([(line, "pass")], before=before).code == "metric_line"


def test_json_line_is_found_by_a_pattern_for_it() -> None:
    metric = {"name": "val_bpb", "pattern": r'"val_bpb": (\S+?)[,}]'}
    before = edited(TRAIN, [(PRINT, 'print(json.dumps({"steps": step, "val_bpb": val_bpb}))')])
    assert check([FASTER], before=before, config=config(metric=metric)) == []
    changes = [('"val_bpb": val_bpb', '"val_bpb": val_bpb / 2')]
    assert refusal(changes, before=before, config=config(metric=metric)).code == "metric_line"


def test_pattern_of_the_config_decides_what_a_metric_line_is() -> None:
    settings = config(metric={"name": "accuracy", "direction": "higher", "pattern": r"test accuracy (\d+)%"})
    before = "acc = run()\nprint(f'test accuracy {acc:.0f}%')\nprint(f'accuracy: {acc}')\n"
    assert check([("accuracy: {acc}", "accuracy = {acc}")], before=before, config=settings) == []
    assert refusal([("{acc:.0f}%", "{acc + 1:.0f}%")], before=before, config=settings).code == "metric_line"


def test_metric_in_a_printed_table_stays_in_it() -> None:
    table = 'results = {"val_bpb": val_bpb, "steps": step}\nfor k, v in results.items():\n    print(f"{k}: {v}")'
    before = edited(TRAIN, [(PRINT, table)])
    assert check([('"steps": step', '"steps": step, "depth": 8')], before=before) == []
    assert check([before_loop('history = {"val_bpb": []}')], before=before) == []
    assert refusal([('{"val_bpb": val_bpb', '{"val_bpb": val_bpb * 0.9')], before=before).code == "metric_line"
    assert refusal([("= evaluate_bpb(", "= 0.9 * evaluate_bpb(")], before=before).code == "metric_line"


def test_evaluator_as_a_method_of_a_protected_class() -> None:
    call = "val_bpb = Tokenizer().evaluate(model)[0]"
    before = edited(TRAIN, [(EVALUATION, f"    {call}\n")])
    in_steps = "judge = Tokenizer()\n    val_bpb, rest = judge.evaluate(model, 3)"
    assert check([(call, in_steps)], before=before) == []
    assert refusal([(call, call.replace("[0]", "[1]"))], before=before).code == "metric_line"
    assert refusal([(call, in_steps.replace("val_bpb, rest", "rest, val_bpb"))], before=before).code == "metric_line"


def test_metric_computed_by_the_edited_file_itself_may_be_computed_otherwise() -> None:
    before = edited(TRAIN, [(EVALUATION, "    val_bpb = sum(model(next(loader)).mean() for _ in range(9)) / 9\n")])
    assert check([("range(9)", "range(8)")], before=before) == []


def test_output_of_an_evaluate_command_alone_is_the_metric() -> None:
    settings = config(evaluate_command="python evaluate.py")
    assert check([(PRINT, "torch.save(model.state_dict(), 'model.pt')")], config=settings) == []


def test_line_of_a_shell_script_that_prints_the_metric_stays() -> None:
    settings = config(command="sh run.sh", edit=["run.sh", "conf.yaml"])
    script = 'lr=0.1\n./train $lr\necho "val_bpb: $(cat out)"\n'
    before = {"run.sh": script, "conf.yaml": "log: val_bpb\n"}
    assert check_edit(before, before | {"run.sh": script.replace("0.1", "0.2")}, settings) == []
    assert check_edit(before, before | {"conf.yaml": "log: [val_bpb, loss]\n"}, settings) == []
    with pytest.raises(RefusedError) as refused:
        check_edit(before, before | {"run.sh": script.replace("$(cat out)", "0.5")}, settings)
    assert refused.value.code == "metric_line"
    assert "run.sh:3" in refused.value.message


# ---- several files

TREE = {
    "src/train.py": "import torch\nfrom model import GPT\nfrom prepare import evaluate\n\nmodel = GPT()\n"
    "val_bpb = evaluate(model)\nprint(f'val_bpb: {val_bpb}')\n",
    "src/model.py": "class GPT:\n    width = 64\n",
}
TREE_PREPARE = {"prepare.py": "import math\nimport data_reader\n\ndef evaluate(model):\n    return math.log(2)\n"}
TREE_CONFIG = config(command="python src/train.py", edit=["src"], protect=["prepare.py"])


def check_tree(changes: dict[str, str]) -> list[str]:
    return check_edit(TREE, TREE | changes, TREE_CONFIG, protected_sources=TREE_PREPARE)


def refused_tree(changes: dict[str, str]) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        check_tree(changes)
    return refused.value


def test_files_of_an_edit_folder_change_and_come() -> None:
    wider = TREE["src/model.py"].replace("64", "128")
    assert check_tree({"src/model.py": wider, "src/layers.py": "import math\n"}) == []
    assert check_tree({"src/blocks/math.py": "x = 1\n"}) == []  # imported as blocks.math


def test_metric_line_may_move_to_another_file() -> None:
    last = "val_bpb = evaluate(model)\nprint(f'val_bpb: {val_bpb}')\n"
    report = "from prepare import evaluate\n\ndef main(model):\n    " + last.replace("\n", "\n    ").rstrip() + "\n"
    train = edited(TREE["src/train.py"], [(last, "from report import main\nmain(model)\n")])
    assert check_tree({"src/train.py": train, "src/report.py": report}) == []
    cheat = report.replace("evaluate(model)", "evaluate(model) / 2")
    assert refused_tree({"src/train.py": train, "src/report.py": cheat}).code == "metric_line"


@pytest.mark.parametrize(
    "path",
    [
        "src/prepare.py",
        "src/math.py",
        "src/data_reader/__init__.py",
        "src/data_reader.cpython-312-x86_64-linux-gnu.so",
        "src/sitecustomize.py",
    ],
)
def test_new_file_that_shadows_a_module_of_protected_code_is_refused(path: str) -> None:
    error = refused_tree({path: ""})
    assert error.code == "rebinding"
    assert path in error.message


def test_new_file_in_a_folder_that_the_code_or_the_command_imports_from_is_refused() -> None:
    moved = "import sys\nsys.path.insert(0, 'src/blocks')\n" + TREE["src/train.py"]
    assert refused_tree({"src/train.py": moved, "src/blocks/prepare.py": ""}).code == "rebinding"
    settings = config(command="PYTHONPATH=./lib:$PYTHONPATH python src/train.py", edit=["src", "lib"])
    with pytest.raises(RefusedError) as refused:
        check_edit(TREE, TREE | {"lib/math.py": ""}, settings, protected_sources=TREE_PREPARE)
    assert "lib/math.py would be imported in place of the module math" in refused.value.message


def test_evaluator_taken_from_a_new_file_is_refused() -> None:
    train = TREE["src/train.py"].replace("from prepare import evaluate", "from mine import evaluate")
    mine = "def evaluate(model):\n    return 0.5\n"
    assert refused_tree({"src/train.py": train, "src/mine.py": mine}).code == "rebinding"


def test_model_that_is_protected_only_by_not_being_named_may_be_written_anew() -> None:
    """Its names may be taken, while reaching into its module is refused as for any other."""
    before = {"train.py": TREE["src/train.py"]}
    sources = TREE_PREPARE | {"model.py": TREE["src/model.py"]}
    own = before["train.py"].replace("from model import GPT\n", "\nclass GPT:\n    width = 96\n")
    assert check_edit(before, {"train.py": own}, CONFIG, protected_sources=sources) == []
    wider = before["train.py"].replace("model = GPT()", "GPT.width = 96\nmodel = GPT()")
    assert check_edit(before, {"train.py": wider}, CONFIG, protected_sources=sources) == []
    patched = before["train.py"].replace("model = GPT()", "import model as m\nm.GPT = dict\nmodel = GPT()")
    with pytest.raises(RefusedError) as refused:
        check_edit(before, {"train.py": patched}, CONFIG, protected_sources=sources)
    assert refused.value.code == "rebinding"


def test_evaluator_that_the_config_does_not_name_stays_the_evaluator() -> None:
    sources = {"scoring.py": "def score(model):\n    return 0.9\n"}
    train = "from scoring import score\n\nval_bpb = score(1)\nprint(f'val_bpb: {val_bpb}')\n"
    own = train.replace("\n\n", "\n\ndef score(model):\n    return 0.5\n\n", 1)
    for settings, code in (CONFIG, "metric_line"), (config(), "rebinding"):
        with pytest.raises(RefusedError) as refused:
            check_edit({"train.py": train}, {"train.py": own}, settings, protected_sources=sources)
        assert refused.value.code == code


@pytest.mark.parametrize("code", ["TIME_BUDGET = 900\n", "def evaluate_bpb(*a):\n    return 0.5\n"])
def test_names_from_a_star_import_are_protected(code: str) -> None:
    before = edited(TRAIN, [(IMPORT, "from prepare import *\n")])
    assert check([FASTER], before=before) == []
    assert refusal([before_loop(code)], before=before).code == "rebinding"


def test_what_the_incumbent_did_already_is_not_refused() -> None:
    before = edited(TRAIN, [before_loop("import prepare\nprepare.TIME_BUDGET = 60\nopen('results.tsv')")])
    assert check([FASTER], before=before) == []


def test_budget_that_is_no_longer_read_is_noted() -> None:
    by_steps = [
        ("training_time < TIME_BUDGET", "step < 1000"),
        ("training_time / TIME_BUDGET", "step / 1000"),
    ]
    (note,) = check(by_steps)
    assert "time budget" in note
    assert check(by_steps[:1]) == []


# ---- cost


def test_a_long_file_is_checked_quickly() -> None:
    layer = (
        "\n\ndef layer_{n}(x, scale={n}):\n    y = x * scale + math.sqrt({n})\n    if y > 3:\n"
        "        print('layer', y)\n    return F.relu(y).square() + [i for i in range(scale)][0]\n"
    )
    filler = "".join(layer.format(n=n) for n in range(130))
    before = edited(TRAIN, [("\n\nMATRIX_LR", filler + "\n\nMATRIX_LR")])
    assert before.count("\n") > 950
    spent = []
    for _ in range(5):
        started = time.process_time()
        check([FASTER, ("F.relu(y)", "F.gelu(y)")], before=before)
        spent.append(time.process_time() - started)
    assert min(spent) < 0.15  # a third of it on an idle core; the rest is for a crowded machine
