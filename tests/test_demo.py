"""The demo, with the smallest setting that it can show an improvement with."""

from __future__ import annotations

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
from tests.conftest import RunScript

TIMEOUT_S = 150


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S + 20)
def test_demo_trains_in_tmux_and_ends_better_than_its_baseline(tmp_path: Path, run_script: RunScript) -> None:
    if importlib.util.find_spec("torch") is None or shutil.which("tmux") is None:
        pytest.skip("NOT TESTED: the demo needs torch and tmux (make env)")
    project = tmp_path / "demo"
    done = run_script(
        "demo", "--into", project, "--budget", "3", "--set", "HEAD_LR=0.008", "--json", cwd=tmp_path,
        timeout_s=TIMEOUT_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["data"]["project"] == str(project)
    assert "sweep: HEAD_LR=0.008 → keep" in done.stderr
    statuses = [line.split("\t")[3] for line in (project / "results.tsv").read_text().splitlines()[1:]]
    assert statuses == ["keep", "keep"]


@pytest.mark.parametrize("minutes", ["0", "-1", "nan", "inf"])
def test_demo_of_no_length_is_refused(tmp_path: Path, run_script: RunScript, minutes: str) -> None:
    done = run_script("demo", "--into", tmp_path / "demo", "--minutes", minutes, cwd=tmp_path)
    assert done.returncode == 2
    assert f"--minutes is {minutes}; expected a number above 0" in done.stderr
    assert not (tmp_path / "demo").exists()


def test_demo_that_is_too_short_says_so(tmp_path: Path, run_script: RunScript) -> None:
    if importlib.util.find_spec("torch") is None or shutil.which("tmux") is None:
        pytest.skip("NOT TESTED: the demo needs torch and tmux (make env)")
    done = run_script("demo", "--into", tmp_path / "demo", "--minutes", "0.0001", "--json", cwd=tmp_path)
    assert json.loads(done.stdout)["error"]["code"] == "timeout"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_demo_whose_sweep_cannot_be_says_where_to_run_it_again(tmp_path: Path, run_script: RunScript) -> None:
    if importlib.util.find_spec("torch") is None or shutil.which("tmux") is None:
        pytest.skip("NOT TESTED: the demo needs torch and tmux (make env)")
    project = tmp_path / "demo"
    done = run_script("demo", "--into", project, "--set", "NOPE=1", cwd=tmp_path)
    assert done.returncode == 7
    assert "There is no top-level constant NOPE" in done.stderr
    assert f"here it lies: {project}), and run the demo again in another folder" in done.stderr
