"""A campaign on the nanogpt starter: the keep rule on real training, on a CPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import TAG, Loop
from tests.setup_bench import Bench

pytest.importorskip("torch", reason="torch is not installed: the keep rule goes UNTESTED on real training")

STARTER = ROOT / "templates" / "starters" / "nanogpt"
# A second and a half of CPU time: each run ends at another step, so that equal code gives unequal numbers.
CONFIG = f"""\
command: {sys.executable} train.py
metric: {{name: val_bpb, direction: lower}}
edit: [train.py]
protect: [prepare.py]
budget_s: 1.5
timeout_factor: 40
startup_s: 60
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_training_keeps_the_planted_gain_alone(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The starter's HEAD_LR is half of what it should be: README.md names it as a place to begin."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("AUTORESEARCH_CACHE", str(tmp_path / "cache"))
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    sources = {name: (STARTER / name).read_text() for name in ("train.py", "prepare.py")}
    repository = Bench(folder=loop.folder, run=run_script)
    repository.git("init", "-q", "-b", "main")
    repository.commit({**sources, "autoresearch.yaml": CONFIG, ".gitignore": "__pycache__/\n"}, "Start")
    prepare = [sys.executable, "prepare.py"]
    subprocess.run(prepare, cwd=loop.folder, env=dict(os.environ), check=True, capture_output=True, timeout=100)
    loop.setup("--tag", TAG)

    def decide(description: str, edits: dict[str, str]) -> str:
        text = loop.text()
        for old, new in edits.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        loop.write({"train.py": text})
        loop.submit(description, "--wait", 500)
        return str(loop.log()["experiment"]["status"])

    loop.submit("baseline", "--wait", 500)
    assert loop.look()["noise"]["deterministic"] is False
    comment = {"# The run.\n": "# The run itself.\n"}
    assert decide("the same code", comment) == "discard"
    assert decide("double the learning rate of the head", {"HEAD_LR = 0.002": "HEAD_LR = 0.004"}) == "keep"
    halved = {
        "HEAD_LR = 0.004": "HEAD_LR = 0.002",
        "MATRIX_LR = 0.01": "MATRIX_LR = 0.005",
        "EMBEDDING_LR = 0.1": "EMBEDDING_LR = 0.05",
    }
    assert decide("halve all learning rates", halved) == "discard"
    assert [row[3] for row in loop.rows] == ["keep", "discard", "keep", "discard"]
