"""A campaign as a night on one GPU looks: simulated ideas and noise, the real keep rule, ledger and commits.

The world of ``benchmarks/keep_rule`` deals ideas with hidden true effects and noisy runs; every decision is
the rule's own. Each experiment is a commit that edits the constants or the body of a small ``train.py``.
"""

from __future__ import annotations

import importlib.util
import math
import random
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.ledger import Experiment, Ledger, Purpose, Status
from autoresearch.repo import Repo
from autoresearch.trial import Outcome

ROOT = Path(__file__).resolve().parent.parent
BASELINE = 0.9979  # val_bpb of the unmodified code, as on one H100
SCALE = 0.0022  # val_bpb for one unit of the simulated loss
CURVE_POINTS = 120

CONSTANTS: dict[str, tuple[str, float]] = {
    "DEPTH": ("architecture", 8),
    "ASPECT_RATIO": ("architecture", 64),
    "HEAD_DIM": ("architecture", 128),
    "MLP_RATIO": ("architecture", 4),
    "WINDOW": ("architecture", 1024),
    "SOFTCAP": ("architecture", 15),
    "EMBEDDING_LR": ("optimizer", 0.6),
    "UNEMBEDDING_LR": ("optimizer", 0.004),
    "MATRIX_LR": ("optimizer", 0.04),
    "SCALAR_LR": ("optimizer", 0.5),
    "ADAM_BETA1": ("optimizer", 0.8),
    "ADAM_BETA2": ("optimizer", 0.95),
    "MUON_MOMENTUM": ("optimizer", 0.95),
    "WEIGHT_DECAY": ("regularization", 0.2),
    "DROPOUT": ("regularization", 0.02),
    "LABEL_SMOOTHING": ("regularization", 0.01),
    "WARMUP_RATIO": ("schedule", 0.02),
    "WARMDOWN_RATIO": ("schedule", 0.5),
    "FINAL_LR_FRAC": ("schedule", 0.05),
    "TOTAL_BATCH_SIZE": ("data", 524288),
    "DEVICE_BATCH_SIZE": ("data", 128),
}
SNIPPETS: list[tuple[str, str, str]] = [
    ("architecture", "QK-norm before RoPE", "q, k = norm(q), norm(k)\nq, k = apply_rotary(q), apply_rotary(k)"),
    ("architecture", "value embeddings on every second layer", "if layer % 2:\n    v = v + value_embedding(tokens)"),
    ("architecture", "SwiGLU instead of squared ReLU", "gate, up = fc(x).chunk(2, dim=-1)\nx = proj(silu(gate) * up)"),
    ("architecture", "residual scale per layer, learned", "x = scale[layer] * x + skip[layer] * x0"),
    ("architecture", "untie the output head", "head = Linear(width, vocabulary, bias=False)"),
    ("optimizer", "cautious weight decay: only where it agrees with the step", "mask = (update * weight) > 0"),
    ("optimizer", "Nesterov momentum in Muon", "gradient = gradient.lerp(buffer, momentum)"),
    ("optimizer", "clip gradients at global norm 1.0", "clip_grad_norm_(model.parameters(), 1.0)"),
    ("schedule", "cosine instead of linear warm-down", "lr = 0.5 * lr * (1 + cos(pi * progress))"),
    ("data", "shuffle documents within a shard", "order = torch.randperm(len(shard), generator=g)"),
    ("regularization", "stochastic depth 0.05", "if training and rand() < 0.05:\n    return x"),
    ("architecture", "自主研究: 滑动窗口注意力 (sliding window, SSSL)", "window = WINDOWS[layer % 4]"),
]
CRASHES = [
    (Outcome.CRASHED, "oom_gpu", 0.5),
    (Outcome.CRASHED, "exit", 0.25),
    (Outcome.DIVERGED, "nan", 0.15),
    (Outcome.TIMED_OUT, "timeout", 0.1),
]


def simulate(
    project: Path, *, runs: float = 160, seed: int = 5, tag: str = "apr5", sigma: float = 1.0, open_one: bool = False
) -> LedgerBuilder:
    """Write a campaign of about ``runs`` runs into a repository at ``project``, a new one if there is none."""
    fresh = not (project / ".git").exists()
    first = make_repository(project, commits=1)[0] if fresh else _first_commit(project)
    world = _world()
    with Ledger(project / ".git" / "autoresearch", create=True) as ledger:
        night = _Night(ledger, Repo(project), first, tag=tag, seed=seed)
        session = world.Session(world.World(sigma=sigma, rho=0.6, budget=runs, decline=(3.0, 0.4)), seed)
        with ledger.transaction():
            session.play(night)
            if open_one:
                night.leave_one_open(session)
    return night.builder


class _Night:
    """A rule of the benchmark's world that books what happens in a ledger."""

    def __init__(self, ledger: Ledger, repo: Repo, first: str, *, tag: str, seed: int) -> None:
        self.rng = random.Random(seed)
        self.repo = repo
        self.text = _train_py({name: value for name, (_, value) in CONSTANTS.items()})
        base = repo.commit_texts(first, {"train.py": self.text}, "train.py")
        self.builder = LedgerBuilder(ledger, [base], tag=tag, project=repo.project)
        self.kept_texts = {0: self.text}
        self.memory_mib = 44_000.0
        self.tokens_per_s = 1.6e6

    # ---- what the world calls

    def set_up(self, session: Any) -> None:
        values = []
        for seed in (1, 2, 3):
            self._describe_trial(value := _metric(session.run_incumbent(seed)), 1.0)
            values.append(value)
        self.builder.baseline(values)

    def decide(self, session: Any) -> bool:
        self._think()
        family, description, text = self._idea()
        self._commit(text, description)
        if self.rng.random() < 0.08:
            outcome, cause, _ = self.rng.choices(CRASHES, [share for *_, share in CRASHES])[0]
            self.builder.trial_s = self.rng.uniform(8, 60)
            self.builder.crash(description, outcome, cause, family=family)
            return False
        rule = self.builder.rule
        assert rule is not None
        cost = math.exp(self.rng.gauss(0, 0.05))
        runs: dict[int, float] = {}
        while not runs or rule.judge(runs).decision == "run":
            at = rule.next_seed(len(runs))
            runs[at] = _metric(session.run_idea(at))
        self._describe_trial(runs[min(runs)], cost)
        lines = _changed_lines(self.text, text)
        experiment = self.builder.idea(description, list(runs.values()), family=family, lines=lines)
        if experiment.status is Status.KEEP:
            self.text = self.kept_texts[experiment.number] = text
            self.memory_mib, self.tokens_per_s = self.memory_mib * cost, self.tokens_per_s / cost
        self._note(experiment)
        return experiment.status is Status.KEEP

    def after(self, session: Any) -> None:
        ledger, tag = self.builder.ledger, self.builder.tag
        while self.builder.rule is not None and self.builder.rule.retest_due:
            self._describe_trial(value := _metric(session.run_incumbent(self.builder.rule.retest_seed())), 1.0)
            self.builder.retest(value)
        incumbent = ledger.incumbent(tag)
        assert incumbent is not None
        standing = len(ledger.experiments(tag, status=Status.KEEP)) - 1
        while len(session.kept) > standing:
            session.undo()
            self.text = self.kept_texts[incumbent.number]

    def reported_gain(self) -> float:
        return 0.0

    # ---- steps

    def leave_one_open(self, session: Any) -> None:
        """An experiment whose first trial is done and whose second one runs."""
        self._think()
        family, description, text = self._idea()
        self._commit(text, description)
        experiment = self.builder.open(description, family=family, lines=_changed_lines(self.text, text))
        assert self.builder.rule is not None
        seed = self.builder.rule.next_seed(0)
        self._describe_trial(value := _metric(session.run_incumbent(seed, free=True)), 1.0)
        self.builder.trial(experiment, seed, metric=value)
        self.builder.trial(experiment, self.builder.rule.next_seed(1), Purpose.CONFIRM)

    def _think(self) -> None:
        self.builder.at(self.rng.lognormvariate(4.2, 0.6))

    def _commit(self, text: str, description: str) -> None:
        """The commit of the next experiment, where the builder will look for it."""
        builder = self.builder
        number = builder.ledger.next_number(builder.tag)
        incumbent = builder.ledger.incumbent(builder.tag)
        parent = builder.commits[0] if incumbent is None else incumbent.commit
        assert isinstance(builder.commits, list)
        builder.commits += [parent] * (number + 1 - len(builder.commits))
        builder.commits[number] = self.repo.commit_texts(parent, {"train.py": text}, description)

    def _idea(self) -> tuple[str, str, str]:
        """Family, description and the edited train.py."""
        if self.rng.random() < 0.25:
            family, description, body = self.rng.choice(SNIPPETS)
            block = "\n".join(f"    {line}" for line in body.splitlines())
            if block not in self.text:
                return family, description, self.text.replace("    # block\n", f"    # block\n{block}\n")
        name, (family, _) = self.rng.choice(list(CONSTANTS.items()))
        line = next(line for line in self.text.splitlines() if line.startswith(f"{name} = "))
        old = float(line.partition(" = ")[2])
        new = float(f"{old * self.rng.choice([0.5, 0.7, 0.8, 0.9, 1.1, 1.25, 1.5, 2.0]):.3g}")
        return family, f"{name} {old:g} -> {new:g}", self.text.replace(line, f"{name} = {new:g}")

    def _describe_trial(self, metric: float, cost: float) -> None:
        """What the next trials report beside the metric: duration, memory, speed and the learning curve."""
        builder, rng = self.builder, self.rng
        builder.trial_s = 302 + rng.uniform(0, 6)
        builder.peak_mem_mib = round(self.memory_mib * cost * rng.uniform(0.999, 1.001), 1)
        speed = self.tokens_per_s / cost * rng.uniform(0.99, 1.01)
        builder.watched = {
            "tokens_per_sec": round(speed),
            "mfu_percent": round(speed / 4.1e4, 2),
            "val_loss": round(metric * 2.9, 6),
        }
        builder.curve = tuple(
            (
                round((at + 1) / CURVE_POINTS, 4),
                round(2.9 * metric + 5.2 * math.exp(-at / 7) + 0.9 * math.exp(-at / 40) + rng.gauss(0, 0.012), 5),
            )
            for at in range(CURVE_POINTS)
        )

    def _note(self, experiment: Experiment) -> None:
        if experiment.status is Status.KEEP:
            experiment.note = f"Kept. {experiment.description}: helps early in the run; try it a step further."
            self.builder.ledger.update_experiment(experiment, "note")


def _metric(loss: float) -> float:
    return round(BASELINE + SCALE * loss, 6)


def _train_py(constants: dict[str, float]) -> str:
    settings = "\n".join(f"{name} = {value:g}" for name, value in constants.items())
    return f"# The model and its training loop.\n{settings}\n\n\ndef forward(x):\n    # block\n    return x\n"


def _changed_lines(old: str, new: str) -> tuple[int, int]:
    before, after = old.splitlines(), new.splitlines()
    return len([line for line in after if line not in before]), len([line for line in before if line not in after])


def _first_commit(project: Path) -> str:
    commit = Repo(project).commit_of("HEAD")
    assert commit is not None
    return commit


def _world() -> ModuleType:
    """``benchmarks/keep_rule/world.py``, which is no package."""
    if "keep_rule_world" not in sys.modules:
        path = ROOT / "benchmarks" / "keep_rule" / "world.py"
        spec = importlib.util.spec_from_file_location("keep_rule_world", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules["keep_rule_world"] = module  # dataclasses look their module up
        spec.loader.exec_module(module)
    return sys.modules["keep_rule_world"]
