"""Edits of training code that are an experiment, and edits that are refused."""

from __future__ import annotations

import re
import textwrap

import pytest
from tests.training_code import (
    CONFIG,
    EVALUATION,
    FASTER,
    IMPORT,
    PRINT,
    SEED,
    SEEDING,
    STARTER,
    TRAIN,
    Changes,
    before_loop,
    check,
    on_top,
)

from autoresearch.errors import RefusedError
from autoresearch.guard import check_edit

MAIN = TRAIN[TRAIN.index("t_start = ") :]

ALLOWED: dict[str, Changes] = {
    # hyperparameters
    "learning rate": [("MATRIX_LR = 0.04", "MATRIX_LR = 0.02")],
    "weight decay off": [("WEIGHT_DECAY = 0.2", "WEIGHT_DECAY = 0.0")],
    "depth": [("n_layer: int = 8", "n_layer: int = 12")],
    "folder to import from": [on_top("import sys\nsys.path.append('layers')")],
    "dropout": [("dropout: float = 0.0", "dropout: float = 0.1")],
    "batch size of training and evaluation": [("DEVICE_BATCH_SIZE = 128", "DEVICE_BATCH_SIZE = 64")],
    "schedule": [("1.0 if progress < 0.5 else 2 * (1 - progress)", "0.5 * (1 + math.cos(math.pi * progress))")],
    "shorter training sequences": [("x = next(loader)", "x = next(loader)[:, : MAX_SEQ_LEN // 2]")],
    "constants in a dataclass": [
        ("    dropout: float", "    MAX_SEQ_LEN: int = 1024\n    dropout: float"),
    ],
    # model
    "activation": [("F.gelu(self.up(x))", "F.relu(self.up(x)).square()")],
    "normalised residual": [("x = x + block(x)", "x = x + block(F.layer_norm(x, x.shape[-1:]))")],
    "initial weights": [
        (
            "        self.down = nn.Linear(4 * config.n_embd, config.n_embd)\n",
            "        self.down = nn.Linear(4 * config.n_embd, config.n_embd)\n"
            "        nn.init.zeros_(self.down.weight)\n",
        ),
    ],
    "subclass of a protected class": [
        on_top("class MyTokenizer(Tokenizer):\n    pass"),
        ("tokenizer = Tokenizer()", "tokenizer = MyTokenizer()"),
    ],
    "model renamed": [
        ("model = GPT(", "net = GPT("),
        ("model.parameters", "net.parameters"),
        ("model(x)", "net(x)"),
        ("model.eval", "net.eval"),
        ("bpb(model", "bpb(net"),
    ],
    "code deleted": [("model.eval()\n", "")],
    # optimiser
    "optimiser of its own": [
        on_top(
            "class Lion(torch.optim.Optimizer):\n    def __init__(self, params, lr, weight_decay):\n"
            "        super().__init__(params, dict(lr=lr, weight_decay=weight_decay))\n\n"
            "    def step(self):\n"
            "        for group in self.param_groups:\n            for p in group['params']:\n"
            "                p.data.add_(p.grad.sign(), alpha=-group['lr'])"
        ),
        ("torch.optim.AdamW(", "Lion("),
    ],
    "optimiser of another kind": [("torch.optim.AdamW(", "torch.optim.NAdam(")],
    "gradient clipping": [
        (
            "    optimizer.step()",
            "    nn.utils.clip_grad_norm_(model.parameters(), 1.0)\n    optimizer.step()",
        )
    ],
    "early stop on nan": [
        (
            "    loss.backward()",
            "    if math.isnan(loss.item()):\n        raise SystemExit('FAIL')\n    loss.backward()",
        )
    ],
    "training loss renamed": [
        ("loss = model(x).mean()", "train_loss = model(x).mean()"),
        ("    loss.backward()", "    train_loss.backward()"),
        ("{loss.item():", "{train_loss.item():"),
    ],
    # machine
    "settings of torch": [
        before_loop("torch.backends.cuda.matmul.allow_tf32 = True\ntorch._dynamo.config.cache_size_limit = 64")
    ],
    "allocator": [before_loop("os.environ['PYTORCH_ALLOC_CONF'] = 'expandable_segments:True'")],
    "compiled": [before_loop("model = torch.compile(model, dynamic=False)")],
    "attributes of its own objects": [
        before_loop("model.steps = 0\nsetattr(model, 'note', 1)\nvars(model).update(a=1)")
    ],
    "dict of its own updated": [before_loop("options = {}\noptions.update(lr=1)\noptions.pop('lr')")],
    "data loader of its own": [
        on_top("def shuffled(batches):\n    yield from batches"),
        (
            'loader = make_dataloader(tokenizer, DEVICE_BATCH_SIZE, "train")',
            'loader = shuffled(make_dataloader(tokenizer, DEVICE_BATCH_SIZE, "train"))',
        ),
    ],
    # imports
    "module imported beside its names": [
        (IMPORT, "import prepare\n" + IMPORT),
        ("evaluate_bpb(model", "prepare.evaluate_bpb(model"),
    ],
    "imports in another order": [
        (
            IMPORT,
            "from prepare import evaluate_bpb, make_dataloader\n"
            "from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer\n",
        )
    ],
    "another package": [on_top("from kernels import flash_attention"), ("F.gelu(", "flash_attention(")],
    "variable named like a protected module": [before_loop("prepare = GPTConfig()\nprepare.n_layer = 2")],
    "parameter named like a protected name": [
        ("def lr_multiplier(progress):", "def lr_multiplier(progress, TIME_BUDGET=TIME_BUDGET):")
    ],
    # evaluation and what is printed
    "another evaluation batch": [("tokenizer, DEVICE_BATCH_SIZE)", "tokenizer, 2 * DEVICE_BATCH_SIZE)")],
    "averaged weights evaluated": [
        before_loop("ema = torch.optim.swa_utils.AveragedModel(model)"),
        ("evaluate_bpb(model,", "evaluate_bpb(ema.module,"),
    ],
    "second evaluation under another name": [
        (EVALUATION, EVALUATION + "    ema_bpb = evaluate_bpb(model, tokenizer, 8)\n"),
        (PRINT, PRINT + '\nprint(f"ema_bpb: {ema_bpb:.6f}")'),
    ],
    "progress line that mentions the metric": [
        ('print(f"step {step} | loss:', 'print(f"step {step} | val_bpb so far {loss.item():.3f} | loss:')
    ],
    "more summary lines": [(PRINT, PRINT + '\nprint(f"peak_vram_mb: {torch.cuda.max_memory_allocated():.1f}")')],
    "other numbers in other units": [("{training_time:.1f}", "{training_time * 1000:.0f}")],
    "value through another name": [(EVALUATION, EVALUATION.replace("val_bpb", "final", 1) + "val_bpb = final\n")],
    "value through float and item": [
        (EVALUATION, "    val_bpb = float(evaluate_bpb(model, tokenizer, DEVICE_BATCH_SIZE).item())\n")
    ],
    "value made a float later": [(EVALUATION, EVALUATION + "val_bpb = float(val_bpb)\n")],
    "value beside another": [(EVALUATION, "    val_bpb, end = evaluate_bpb(model, tokenizer, 8), time.time()\n")],
    "starting value that is no number": [before_loop("val_bpb = float('nan')")],
    "one of two models evaluated": [
        (
            EVALUATION,
            "    val_bpb = evaluate_bpb(model, tokenizer, 8) if step else evaluate_bpb(ema, tokenizer, 8)\n",
        )
    ],
    "evaluation in a function": [
        before_loop("def evaluate(net):\n    net.eval()\n    return evaluate_bpb(net, tokenizer, 64)\n\n"),
        (EVALUATION, "    val_bpb = evaluate(model)\n"),
    ],
    "evaluation in a method": [
        on_top(
            "class Trainer:\n    def finish(self, net):\n"
            "        self.score = evaluate_bpb(net, tokenizer, 64)\n"
            "        return self.score"
        ),
        (EVALUATION, "    trainer = Trainer()\n    val_bpb = trainer.finish(model)\n"),
    ],
    "value in a tuple": [
        (
            EVALUATION,
            "    def finish():\n        return evaluate_bpb(model, tokenizer, 8), step\n\n"
            "    val_bpb, steps = finish()\n",
        ),
    ],
    "everything in a main": [(MAIN, "def main():\n" + textwrap.indent(MAIN, "    ") + "\n\nmain()\n")],
    "summary in a function": [
        (PRINT, f"def report(val_bpb, steps):\n    {PRINT}\n    print(steps)\n\n\nreport(val_bpb, step)")
    ],
    "summary in a method": [
        (PRINT, f"class Report:\n    def show(self, val_bpb):\n        {PRINT}\n\n\nReport().show(val_bpb)")
    ],
    "docstring about results": [
        ('"""Train a small GPT."""', '"""Train a GPT.\n\nval_bpb: 0.99, see results.tsv\n"""'),
        FASTER,
    ],
    "metric logged to a service as well": [(PRINT, PRINT + '\nwandb.log({"val_bpb": val_bpb, "step": step})')],
    "same name in another function": [before_loop("def rank(runs):\n    val_bpb = min(runs)\n    return val_bpb\n\n")],
    # seeds beside a real change
    "generator of its own seeded by the runner": [
        before_loop("generator = torch.Generator().manual_seed(SEED + step_offset())")
    ],
    "fixed permutation": [before_loop("order = torch.randperm(8, generator=torch.Generator().manual_seed(0))")],
    "seed read in another way": [(SEED, 'SEED = int(os.environ["AUTORESEARCH_SEED"])\n'), FASTER],
    "another generator seeded too": [(SEEDING, SEEDING + "import random\nrandom.seed(SEED)\n"), FASTER],
    "seeding in a function": [
        (SEEDING, "def set_seed(seed):\n    torch.manual_seed(seed)\n\n\nset_seed(SEED)\n"),
        FASTER,
    ],
    "seed under another name": [
        (SEED, SEED.replace("SEED =", "RUN =")),
        ("manual_seed(SEED)", "manual_seed(RUN)"),
        FASTER,
    ],
    "seed offset by rank": [
        (SEEDING, "rank = int(os.environ['RANK'])\n" + SEEDING.replace("(SEED)", "(SEED + rank)")),
        FASTER,
    ],
    "number of members of an ensemble": [before_loop("num_seeds = 5"), FASTER],
    "text to start from": [before_loop("seed = 'Once upon a time'"), FASTER],
}

SEED_ONLY: dict[str, Changes] = {
    "default": [('"42"', '"43"')],
    "plus one": [(SEED, SEED.replace("))", ")) + 1"))],
    "scaled where it is used": [("torch.manual_seed(SEED)", "torch.manual_seed(SEED * 2)")],
    "replaced by a number": [(SEED, "SEED = 1337\n")],
    "seeding removed": [(SEEDING, "")],
    "seeding moved": [(SEEDING, ""), before_loop(SEEDING)],
    "another seeding added": [(SEEDING, SEEDING + "import random\nrandom.seed(7)\n")],
    "seeding under a condition": [(SEEDING, SEEDING + "if torch.cuda.is_available():\n    torch.manual_seed(7)\n")],
    "seed and a comment": [('"42"', '"43"'), ("# residual", "# residual stream")],
    "random numbers thrown away": [(SEEDING, SEEDING + "torch.rand(1)\n")],
}

SEED_IGNORED: dict[str, Changes] = {
    "number": [("torch.manual_seed(SEED)", "torch.manual_seed(7)"), FASTER],
    "arithmetic": [("torch.manual_seed(SEED)", "torch.manual_seed(SEED + 1)"), FASTER],
    "clock": [("torch.manual_seed(SEED)", "torch.manual_seed(int(time.time()))"), FASTER],
    "no longer read": [(SEED, "SEED = 42\n"), FASTER],
    "read and not used": [(SEEDING, ""), FASTER],
    "overridden after it was read": [(SEEDING, "SEED = 3\n" + SEEDING), FASTER],
    "increased after it was read": [(SEEDING, "SEED += 3\n" + SEEDING), FASTER],
    "overridden in the environment": [before_loop("os.environ['AUTORESEARCH_SEED'] = '3'"), FASTER],
    "another seeding": [(SEEDING, SEEDING + "import random\nrandom.seed(7)\n"), FASTER],
}

METRIC_LINE: dict[str, Changes] = {
    "scaled in its line": [("{val_bpb:.6f}", "{val_bpb * 0.9:.6f}")],
    "replaced by a number": [("{val_bpb:.6f}", "0.900000")],
    "removed": [(PRINT, "")],
    "printed twice": [before_loop('print("val_bpb:", 0.5)')],
    "written to stdout": [before_loop('import sys\nsys.stdout.write("val_bpb: %.3f\\n" % 0.5)')],
    "echoed by a shell": [before_loop("os.system('echo val_bpb: 0.5')")],
    "decreased before it is printed": [('print("---")', 'val_bpb -= 0.1\nprint("---")')],
    "assigned anew": [('print("---")', 'val_bpb = min(val_bpb, 1.0)\nprint("---")')],
    "wrapped in arithmetic": [("= evaluate_bpb(", "= 0.99 * evaluate_bpb(")],
    "best of two evaluations": [
        (
            EVALUATION,
            "    val_bpb = min(evaluate_bpb(model, tokenizer, 8), evaluate_bpb(model, tokenizer, 9))\n",
        )
    ],
    "changed from a function": [
        before_loop("def cheat():\n    global val_bpb\n    val_bpb = 0.5\n\n"),
        (PRINT, f"cheat()\n{PRINT}"),
    ],
    "minimum of a loop": [(EVALUATION, "    for val_bpb in [1.0, 2.0]:\n        pass\n")],
    "evaluator of its own": [
        before_loop("def my_eval(model):\n    return 0.5\n\n"),
        (EVALUATION, "    val_bpb = my_eval(model)\n"),
    ],
    "changed in a function": [
        before_loop("def shrink(v):\n    return v * 0.9\n\n"),
        (EVALUATION, "    val_bpb = shrink(evaluate_bpb(model, tokenizer, 8))\n"),
    ],
    "changed at the call": [(PRINT, f"def report(val_bpb):\n    {PRINT}\n\n\nreport(val_bpb - 0.1)")],
    "training loss instead": [(EVALUATION, "    val_bpb = loss.item()\n")],
}

REBINDING: dict[str, Changes] = {
    "function assigned": [on_top("import prepare\nprepare.evaluate_bpb = lambda *a: 0.5")],
    "function set": [on_top("import prepare\nsetattr(prepare, 'evaluate_bpb', print)")],
    "import hook": [on_top("import sys\nsys.meta_path.insert(0, Finder())")],
    "import hook assigned": [on_top("import sys\nsys.path_hooks[:] = [Finder]")],
    "import hook added": [on_top("import sys\nsys.meta_path += [Finder()]")],
    "import hook put first": [on_top("import sys\nsys.meta_path = [Finder(), *sys.meta_path]")],
    "function deleted": [on_top("import prepare\ndel prepare.evaluate_bpb")],
    "dict written": [on_top("import prepare as p\np.__dict__['TIME_BUDGET'] = 900")],
    "dict updated": [on_top("import prepare\nvars(prepare).update(TIME_BUDGET=900)")],
    "dict updated by a dict": [on_top("import prepare\nprepare.__dict__.update({'TIME_BUDGET': 900})")],
    "class patched": [on_top("Tokenizer.encode = lambda self, text: []")],
    "code replaced": [on_top("evaluate_bpb.__code__ = (lambda m, t, b: 0.5).__code__")],
    "alias": [on_top("import prepare\nhelper = prepare\nhelper.evaluate_bpb = print")],
    "budget assigned": [on_top("TIME_BUDGET = 900")],
    "budget scaled": [on_top("TIME_BUDGET *= 2")],
    "budget in the environment": [(IMPORT, "os.environ['TIME_BUDGET'] = '900'\n" + IMPORT)],
    "budget in the environment by update": [on_top("os.environ.update({'A': '1', 'TIME_BUDGET': '900'})")],
    "evaluator defined anew": [on_top("def evaluate_bpb(model, tokenizer, batch_size):\n    return 0.5")],
    "evaluator as a class": [on_top("class evaluate_bpb:\n    pass")],
    "evaluator in a function": [before_loop("def main():\n    evaluate_bpb = len\n    return evaluate_bpb\n\n")],
    "evaluator defined instead of imported": [
        (IMPORT, IMPORT.replace(" evaluate_bpb,", "") + "\n\ndef evaluate_bpb(*a):\n    return 0.5\n")
    ],
    "evaluator imported from elsewhere": [
        (IMPORT, IMPORT.replace(" evaluate_bpb,", "") + "from mine import evaluate_bpb\n")
    ],
    "evaluator rebound by global": [
        before_loop("def setup():\n    global evaluate_bpb\n    evaluate_bpb = lambda *a: 0.5\n\n\nsetup()")
    ],
    "evaluator rebound by globals().update": [before_loop("globals().update(evaluate_bpb=print)")],
    "evaluator rebound in globals()": [before_loop("globals()['evaluate_bpb'] = print")],
    "module replaced": [on_top("import sys\nsys.modules['prepare'] = sys")],
    "module dropped": [on_top("import sys\nsys.modules.pop('prepare')")],
    "module found and changed": [on_top("import sys\nsys.modules['prepare'].evaluate_bpb = print")],
    "module found by name": [on_top("import sys\nm = sys.modules['prepare']\nm.evaluate_bpb = print")],
    "module imported by name": [on_top("import importlib\nm = importlib.import_module('prepare')\nm.TIME_BUDGET = 9")],
    "patched by name": [on_top("from unittest import mock\nmock.patch('prepare.evaluate_bpb').start()")],
    "patched as an object": [
        on_top("import prepare\nfrom unittest.mock import patch\npatch.object(prepare, 'evaluate_bpb').start()")
    ],
    "reloaded": [on_top("import importlib, prepare\nimportlib.reload(prepare)")],
    "code in a string": [before_loop("exec('import prepare; prepare.evaluate_bpb = print')")],
    "print replaced": [before_loop("import builtins\nbuiltins.print = lambda *a, **k: None")],
    "print shadowed": [before_loop("def print(*a, **k):\n    pass\n\n")],
    "output replaced": [before_loop("import io, sys\nsys.stdout = io.StringIO()")],
    "clock stopped": [before_loop("time.time = lambda: 0.0")],
    "clock set": [before_loop("setattr(time, 'perf_counter', lambda: 0.0)")],
    "loss of the evaluator replaced": [before_loop("F.cross_entropy = lambda x, y: (x * 0).mean()")],
}

LEDGER_FILES: dict[str, Changes] = {
    "results written": [before_loop("open('results.tsv', 'a').write('x')")],
    "ledger opened": [before_loop("import sqlite3\ndb = sqlite3.connect('.git/autoresearch/ledger.db')")],
}

REFUSED = {
    "seed_only": SEED_ONLY,
    "seed_ignored": SEED_IGNORED,
    "metric_line": METRIC_LINE,
    "rebinding": REBINDING,
    "ledger_files": LEDGER_FILES,
}


@pytest.mark.parametrize("name", ALLOWED)
def test_edit_is_let_pass(name: str) -> None:
    check(ALLOWED[name])


@pytest.mark.parametrize(("code", "name"), [(code, name) for code, edits in REFUSED.items() for name in edits])
def test_edit_is_refused_with_the_line_and_a_hint(code: str, name: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check(REFUSED[code][name])
    assert (refused.value.code, refused.value.exit_code) == (code, 4)
    assert re.search(r"train\.py:\d+: `.+`", refused.value.message), refused.value.message
    assert refused.value.hint


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (SEED_ONLY["plus one"], 'train.py:45: `SEED = int(os.environ.get("AUTORESEARCH_SEED", "42")) + 1`'),
        (SEED_IGNORED["number"], "train.py:48: `torch.manual_seed(7)`"),
        (SEED_IGNORED["overridden after it was read"], "train.py:48: `SEED = 3`"),
        (METRIC_LINE["removed"], f"was train.py:82: `{PRINT}`"),
        (METRIC_LINE["decreased before it is printed"], "train.py:81: `val_bpb -= 0.1`"),
        (METRIC_LINE["evaluator of its own"], "`return 0.5`"),
        (METRIC_LINE["changed at the call"], "`report(val_bpb - 0.1)`"),
        (REBINDING["class patched"], "prepare.Tokenizer"),
        (REBINDING["loss of the evaluator replaced"], "torch.nn.functional.cross_entropy"),
        (REBINDING["budget assigned"], "prepare.TIME_BUDGET"),
    ],
)
def test_refusal_names_the_line_that_is_to_blame(changes: Changes, says: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check(changes)
    assert says in refused.value.message


# ---- the starter that the bundle ships: (pattern, replacement), so that its defaults can be tuned

STARTER_ALLOWED: dict[str, Changes] = {
    "learning rate": [(r"^MATRIX_LR = \S+", "MATRIX_LR = 0.02")],
    "depth": [(r"^DEPTH = .*", "DEPTH = 3")],
    "batch size": [(r"^DEVICE_BATCH_SIZE = .*", "DEVICE_BATCH_SIZE = 8")],
    "activation": [(r"F\.relu\((.*)\)\.square\(\)", r"F.gelu(\1)")],
    "schedule": [
        (r"^WARMDOWN_RATIO = \S+", "WARMDOWN_RATIO = 0.5"),
        (r"^WARMUP_RATIO = \S+", "WARMUP_RATIO = 0.0"),
    ],
    "plain AdamW": [
        (r"optimizer = Optimizer\(model\)", "optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)"),
        (r"optimizer\.step\(.*", "optimizer.step()\n        optimizer.zero_grad()"),
    ],
    "momentum schedule": [(r"1 - MOMENTUM\)", "1 - min(MOMENTUM, 0.85 + self.steps / 3000))")],
    "averaged weights evaluated": [
        (
            r"val_bpb = evaluate_bpb\(\w+,",
            "val_bpb = evaluate_bpb(torch.optim.swa_utils.AveragedModel(model),",
        )
    ],
    "second evaluation": [
        (
            r'^    print\("---"\)',
            "    raw_bpb = evaluate_bpb(model, batch_size=8, seq_len=SEQ_LEN)\n"
            '    print(f"raw_bpb: {raw_bpb:.4f}")\n    print("---")',
        ),
    ],
    "evaluation in a function": [
        (
            r"val_bpb = (evaluate_bpb\(.*\))",
            r"def measure():\n            return \1\n\n        val_bpb = measure()",
        ),
    ],
    "names of losses": [(r"\bmean_loss\b", "smooth_loss"), (r"\bloss_now\b", "train_loss")],
    "other summary line dropped": [(r'^    print\(f"depth: .*\n', "")],
    "progress line": [(r"\| loss: ", "| train: ")],
}

STARTER_REFUSED: dict[tuple[str, str], Changes] = {
    ("seed", "seed_only"): [(r"^SEED = (int\(.*?\)\))", r"SEED = \1 + 1")],
    ("seed of the data", "seed_only"): [(r"\bseed=SEED\b", "seed=SEED + 1")],
    ("data seeded by a number", "seed_ignored"): [
        (r"\bseed=SEED\b", "seed=7"),
        (r"^DEPTH = .*", "DEPTH = 3"),
    ],
    ("weights seeded by a number", "seed_ignored"): [
        (r"manual_seed\(SEED\)", "manual_seed(3)"),
        (r"^DEPTH = .*", "DEPTH = 3"),
    ],
    ("scaled", "metric_line"): [(r"\{val_bpb:", "{0.9 * val_bpb:")],
    ("loss instead", "metric_line"): [(r"val_bpb = evaluate_bpb\(.*\)", "val_bpb = mean_loss / math.log(2)")],
    ("budget", "rebinding"): [(r"^DEPTH = ", "TIME_BUDGET = 60\nDEPTH = ")],
    ("evaluator", "rebinding"): [(r"^DEPTH = ", "import prepare\nprepare.EVAL_BLOCKS['cpu'] = 1\nDEPTH = ")],
}


def check_starter(changes: Changes) -> list[str]:
    train, prepare = ((STARTER / name).read_text(encoding="utf-8") for name in ("train.py", "prepare.py"))
    after = train
    for pattern, new in changes:
        after, found = re.subn(pattern, new, after, flags=re.MULTILINE)
        assert found, f"{pattern!r} is not in the starter"
    return check_edit({"train.py": train}, {"train.py": after}, CONFIG, protected_sources={"prepare.py": prepare})


@pytest.mark.parametrize("name", STARTER_ALLOWED)
def test_edit_of_the_starter_is_let_pass_without_a_note(name: str) -> None:
    assert check_starter(STARTER_ALLOWED[name]) == []


@pytest.mark.parametrize(("name", "code"), STARTER_REFUSED)
def test_edit_of_the_starter_is_refused(name: str, code: str) -> None:
    with pytest.raises(RefusedError) as refused:
        check_starter(STARTER_REFUSED[name, code])
    assert refused.value.code == code
