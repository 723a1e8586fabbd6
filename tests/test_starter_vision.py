"""The vision starter: equal images each time, an evaluation that is not fooled, a campaign that keeps the gain."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import TAG, Loop
from tests.setup_bench import Bench

from autoresearch.config import Config
from autoresearch.runner.watch import PROGRESS

torch = pytest.importorskip("torch", reason="torch is not installed: the vision starter goes UNTESTED")
pytest.importorskip("sklearn", reason="scikit-learn is not installed: the vision starter goes UNTESTED")

STARTER = ROOT / "templates" / "starters" / "vision"
CONFIG = Config.read(STARTER / "autoresearch.yaml")
# One worker, since the images are made once; longer, since on busy cores each start of torch takes its time.
pytestmark = [pytest.mark.xdist_group("vision"), pytest.mark.timeout(300)]


def environment(cache: Path, **extra: str) -> dict[str, str]:
    return {**os.environ, "AUTORESEARCH_CACHE": str(cache), "CUDA_VISIBLE_DEVICES": "", **extra}


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An AUTORESEARCH_CACHE with the images in it."""
    cache = tmp_path_factory.mktemp("cache")
    command = [sys.executable, str(STARTER / "prepare.py")]
    done = subprocess.run(command, env=environment(cache), capture_output=True, text=True, check=False, timeout=100)
    assert "prepared in" in done.stdout, done.stderr
    return cache


@pytest.fixture(scope="module")
def prepare(cache: Path) -> Iterator[ModuleType]:
    spec = importlib.util.spec_from_file_location("vision_prepare", STARTER / "prepare.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUTORESEARCH_CACHE", str(cache))
        spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield module
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def run(cache: Path, tmp_path_factory: pytest.TempPathFactory):
    """``run(*command, steps=, seed=, budget=, again=)``: the output of the starter, made once for equal arguments."""

    @functools.cache
    def run(*command: str, steps: int = 0, seed: int = 1, budget: float = 100, again: int = 0) -> str:
        folder = tmp_path_factory.mktemp("run")
        for name in ("train.py", "prepare.py"):
            (folder / name).write_bytes((STARTER / name).read_bytes())
        variables = {"MAX_STEPS": str(steps), "AUTORESEARCH_SEED": str(seed), "TIME_BUDGET": str(budget)}
        done = subprocess.run(
            [sys.executable, *command], cwd=folder, env=environment(cache, **variables), capture_output=True,
            text=True, check=False, timeout=100,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


def figure(log: str, name: str) -> float:
    (found,) = re.findall(rf"(?m)^{name}:\s*(\S+)$", log)
    return float(found)


# --- training ------------------------------------------------------------------------------------------


def test_equal_seeds_give_equal_results_and_others_do_not(run) -> None:
    first, again, other = (
        run("train.py", steps=12, seed=seed, again=again) for seed, again in ((1, 0), (1, 1), (2, 0))
    )
    losses = [re.findall(r"loss: (\S+)", log) for log in (first, again, other)]
    assert losses[0] == losses[1] != losses[2]
    assert figure(first, "val_accuracy") == figure(again, "val_accuracy")


def test_summary_holds_what_the_settings_watch(run) -> None:
    log = run("train.py", steps=12)
    assert len(re.findall(CONFIG.metric.pattern, log, re.MULTILINE)) == 1
    for name, pattern in CONFIG.watch.items():
        assert len(re.findall(pattern, log, re.MULTILINE)) == 1, name


def test_progress_lines_are_those_that_the_runner_reads(run) -> None:
    log = run("train.py", steps=12).partition("---")[0]
    percents = [float(match["percent"]) for line in log.splitlines() if (match := re.search(PROGRESS, line))]
    assert len(percents) == 12 and percents[-1] == 100


def test_training_takes_its_budget(run) -> None:
    assert 1.0 <= figure(run("train.py", budget=1), "training_seconds") < 1.3


def test_test_command_trains_likewise_and_tells_test_accuracy_alone(run) -> None:
    test, val = run("prepare.py", "test", steps=12), run("train.py", steps=12)
    assert re.findall(r"loss: (\S+)", test) == re.findall(r"loss: (\S+)", val)
    assert len(re.findall(CONFIG.metric.pattern, test, re.MULTILINE)) == 1
    assert 0 < figure(test, "test_accuracy") < 1
    assert "val_accuracy" not in test
    assert CONFIG.test_command == "python prepare.py test"


# --- images --------------------------------------------------------------------------------------------


def test_images_are_the_same_each_time(prepare: ModuleType, cache: Path, tmp_path: Path, monkeypatch) -> None:
    (made,) = (cache / "vision").iterdir()
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    again = prepare.prepare()
    assert again.name == made.name
    assert again.read_bytes() == made.read_bytes()
    assert list(tmp_path.iterdir()) == [again]


def test_no_scan_is_in_two_splits(prepare: ModuleType, monkeypatch) -> None:
    """Each split's images are composed of its own share of the scans, and the shares are all of them."""
    shares = []

    def compose(scans, count, generator):
        shares.append(scans)
        chosen = torch.zeros(count, dtype=torch.int64).numpy()
        return chosen.astype("uint8"), chosen

    monkeypatch.setattr(prepare, "compose", compose)
    monkeypatch.setattr(prepare.np, "savez", lambda path, **arrays: path.touch())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "CACHE", Path(os.environ["HOME"]) / "images")
        prepare.prepare()
    assert [len(share) for share in shares] == list(prepare.SCANS.values())
    together = torch.cat(shares).flatten(1)
    assert len(together) == 1797
    assert len(together.unique(dim=0)) == len(prepare.scans()[0].flatten(1).unique(dim=0))


def test_damaged_file_is_made_anew(prepare: ModuleType, cache: Path, tmp_path: Path, monkeypatch, capsys) -> None:
    (made,) = (cache / "vision").iterdir()
    monkeypatch.setattr(prepare, "CACHE", tmp_path)
    (tmp_path / made.name).write_bytes(made.read_bytes()[:-100])
    images, labels = prepare.load.__wrapped__("val")
    assert "making it again" in capsys.readouterr().err
    assert (tmp_path / made.name).read_bytes() == made.read_bytes()
    assert images.shape == (4000, 20, 20) and labels.bincount().min() > 250


# --- the metric ----------------------------------------------------------------------------------------


class Answers(torch.nn.Module):  # type: ignore[name-defined,misc]  # torch is imported by importorskip
    """Gives the logits of ``answer(images)``; has one weight, as every model."""

    def __init__(self, answer) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.answer = answer

    def forward(self, images):
        return self.answer(images)


def test_accuracy_is_the_share_of_right_labels(prepare: ModuleType) -> None:
    images, labels = prepare.load("val")
    known = {image.numpy().tobytes(): int(label) for image, label in zip(images, labels, strict=True)}

    def cheat(batch):
        right = torch.tensor([known[image.numpy().tobytes()] for image in batch])
        right[:250] = (right[:250] + 1) % 10
        return torch.nn.functional.one_hot(right, 10).float()

    assert prepare.evaluate(Answers(cheat)) == 0.75


def test_order_of_the_images_tells_nothing(prepare: ModuleType) -> None:
    labels = iter(prepare.load("val")[1].split(prepare.EVAL_BATCH))
    model = Answers(lambda batch: torch.nn.functional.one_hot(next(labels), 10).float())
    assert prepare.evaluate(model) < 0.2


@pytest.mark.parametrize(
    "logits", [torch.full((1000, 10), float("nan")), torch.zeros(1000, 11), torch.zeros(10)], ids=["nan", "11", "flat"]
)
def test_logits_that_are_none_are_refused(prepare: ModuleType, logits) -> None:
    with pytest.raises(ValueError, match="finite logits of shape"):
        prepare.evaluate(Answers(lambda batch: logits))


# --- a campaign ----------------------------------------------------------------------------------------


def test_setup_without_images_names_the_command_that_makes_them(
    tmp_path: Path, run_script: RunScript, home: Path
) -> None:
    arguments = ("setup_campaign", "--starter", "vision", "--project", tmp_path / "p", "--tag", "a", "--json")
    done = run_script(*arguments, cwd=tmp_path)
    assert json.loads(done.stdout)["error"]["hint"].endswith("python prepare.py")
    images = home / ".cache" / "autoresearch" / "vision"
    images.mkdir(parents=True)
    (images / "digits.npz").write_bytes(b"0")
    done = run_script(*arguments, cwd=tmp_path)
    assert json.loads(done.stdout)["data"]["config"]["metric"]["name"] == "val_accuracy"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_campaign_keeps_the_planted_gain_alone(
    tmp_path: Path, cache: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter's PEAK_LR is a quarter of what it should be: README.md names it as the place to begin."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(cache))
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    repository = Bench(folder=loop.folder, run=run_script)
    repository.git("init", "-q", "-b", "main")
    config = f"""\
command: {sys.executable} train.py
metric: {{name: val_accuracy, direction: higher}}
edit: [train.py]
protect: [prepare.py]
budget_s: 2
timeout_factor: 40
startup_s: 60
"""
    sources = {name: (STARTER / name).read_text() for name in ("train.py", "prepare.py")}
    repository.commit({**sources, "autoresearch.yaml": config, ".gitignore": "__pycache__/\n"}, "Start")
    loop.setup("--tag", TAG)

    def decide(description: str, old: str, new: str) -> str:
        assert loop.text().count(old) == 1
        loop.write({"train.py": loop.text().replace(old, new)})
        loop.submit(description, "--wait", 300)
        return str(loop.log()["experiment"]["status"])

    loop.submit("baseline", "--wait", 300)
    assert decide("the same code", "# The run.\n", "# The run itself.\n") == "discard"
    assert decide("four times the learning rate", "PEAK_LR = 0.001", "PEAK_LR = 0.004") == "keep"
    assert [row[3] for row in loop.rows] == ["keep", "discard", "keep"]
