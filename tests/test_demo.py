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
