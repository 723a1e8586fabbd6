"""The examples of references/domain-adaptation.md, set up and run with small programs in the place of the training."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import Loop
from tests.setup_bench import make_bench

from autoresearch.config import Config

TEXT = (ROOT / "references" / "domain-adaptation.md").read_text(encoding="utf-8")


class Example(NamedTuple):
    """A section's ``autoresearch.yaml``, and the other block in it: the end of a log, or the measuring program."""

    title: str
    config: str
    kind: str
    other: str


def examples() -> list[Example]:
    found = []
    for section in re.split(r"(?m)^## ", TEXT)[1:]:
        blocks = re.findall(r"(?ms)^```(\w+)\n(.*?)^```", section)
        if blocks:
            (_, config), (kind, other) = blocks
            found.append(Example(section.splitlines()[0], config, kind, other))
    return found


EXAMPLES = examples()
each_example = pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.title.partition(":")[0])


def printing(log: str) -> str:
    """A program that prints ``log``."""
    return f"print({log.strip()!r})\n"


def files_of(example: Example, config: Config) -> dict[str, str]:
    """A project in which every file that the settings name is there."""
    programs = re.findall(r"\w+\.py", f"{config.command} {config.evaluate_command}")
    texts = {path: "X = 1\n" if path.endswith(".py") else "" for path in (*config.edit, *config.protect)}
    texts = {path if path.endswith(".py") else f"{path}/net.py": text for path, text in texts.items()}
    for program in programs:
        texts[program] = printing(example.other) if example.kind == "text" else example.other
    if "solve.py" in texts:
        texts["solve.py"] = "def solve(items):\n    return sorted(items)\n"
    return {**texts, "autoresearch.yaml": example.config}


def test_there_is_an_example_for_each_kind_of_task() -> None:
    assert len(EXAMPLES) == 4


@each_example
def test_example_is_measured_as_it_stands(example: Example, tmp_path: Path, home: Path, run_script: RunScript) -> None:
    config = Config.parse(example.config)
    bench = make_bench(tmp_path / "project", run_script, files_of(example, config))
    for data in config.data:
        path = home / data.removeprefix("~/")
        path.mkdir(parents=True)
        (path / "batch").write_bytes(b"1")
    for link in config.link:
        (bench.folder / link).mkdir(parents=True)
        (bench.folder / ".git" / "info" / "exclude").write_text("data\ncheckpoints\n")
    bench.setup("--tag", "apr5")
    loop = Loop(folder=bench.folder, run=run_script)
    baseline = loop.submit("baseline")["experiment"]
    assert len(baseline["trials"]) >= config.keep.baseline_seeds
    assert baseline["metric"] is not None
    watched = baseline["trials"][0]["watched"]
    assert set(config.watch) <= watched.keys()
    if example.kind == "text":
        assert f"{baseline['metric']:g}" in example.other


def test_wrong_answer_of_the_measured_program_is_a_crash_and_no_metric(tmp_path: Path, run_script: RunScript) -> None:
    example = EXAMPLES[-1]
    files = files_of(example, Config.parse(example.config))
    bench = make_bench(tmp_path / "project", run_script, files)
    bench.setup("--tag", "apr5")
    loop = Loop(folder=bench.folder, run=run_script)
    loop.baseline()
    loop.write({"solve.py": "def solve(items):\n    return items\n"})
    failed = loop.submit("skip the sorting")
    assert (failed["state"], failed["experiment"]["metric"]) == ("failed", None)
    assert loop.log()["experiment"]["status"] == "crash"
