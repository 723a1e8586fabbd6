"""benchmarks/starters: the lists apply to the starters as they are, and a list that does not is told before a run."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from tests.conftest import ROOT

FOLDER = ROOT / "benchmarks" / "starters"


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmark_starters", FOLDER / "run.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_starter_has_a_list_of_eight_edits_or_more_that_apply() -> None:
    command = [sys.executable, str(FOLDER / "run.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    counts = {line.split()[0]: int(line.split()[1]) for line in done.stdout.splitlines() if "all apply" in line}
    assert counts.keys() == {path.name for path in (ROOT / "templates" / "starters").iterdir() if path.is_dir()}
    assert min(counts.values()) >= 8


CODE = "A = 1\nB = 1\n"


@pytest.mark.parametrize(
    "replacements, message",
    [
        ([[("A = 3", "A = 4")]], "does not apply"),
        ([[(" = 1", " = 2")]], "does not apply"),
        ([[("A = 1", "A = 1")]], "changes nothing"),
        ([[("A = 2", "A = 3")], [("A = 1", "A = 2")]], "does not apply"),
    ],
    ids=["absent", "twice there", "no change", "only after a later one"],
)
def test_edit_that_cannot_be_made_is_an_error(bench: ModuleType, replacements, message: str) -> None:
    edits = [bench.Edit(description="x", family="y", replace=tuple(pairs)) for pairs in replacements]
    with pytest.raises(bench.BenchError, match=message):
        bench.check_edits(edits, CODE)


def test_edit_of_what_an_earlier_edit_brings_is_none(bench: ModuleType) -> None:
    pairs = (("A = 1", "A = 2"), ("B = 1", "B = 2"), ("A = 2\nB = 2", "A = 3"))
    bench.check_edits([bench.Edit(description=new, family="y", replace=((old, new),)) for old, new in pairs], CODE)


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "a list of edits is expected"),
        ("- {description: x, family: y}", "must have the keys"),
        ("- {description: x, family: y, replace: [[a]]}", "must be a list of"),
        ("- {description: x, family: y, replace: [['', b]]}", "must be a list of"),
        ("- {description: '', family: y, replace: [[a, b]]}", "must be texts"),
        ("- &e {description: x, family: y, replace: [[a, b]]}\n- *e", "in the same words"),
        ("- [", "not valid YAML"),
    ],
)
def test_list_of_another_form_is_an_error(bench: ModuleType, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "list.yaml").write_text(text)
    with pytest.raises(bench.BenchError, match=message):
        bench.read_edits(tmp_path / "list.yaml")
