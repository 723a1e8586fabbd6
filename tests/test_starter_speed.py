"""The speed starter: what is right is timed, what is wrong or hidden is refused, and a campaign keeps the gain."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from tests.conftest import ROOT, Done, RunScript
from tests.loop_bench import TAG, Loop

from autoresearch.config import Config

STARTER = ROOT / "templates" / "starters" / "speed"
NAIVE = (STARTER / "train.py").read_text()
CONFIG = Config.read(STARTER / "autoresearch.yaml")


@pytest.fixture(scope="module")
def prepare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("speed_prepare", STARTER / "prepare.py")
    assert spec is not None and spec.loader is not None
    threads = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    for name, value in threads.items():
        if value is None:
            os.environ.pop(name)
        else:
            os.environ[name] = value
    return module


def measured(folder: Path, code: str, budget_s: float = 0.05) -> Done:
    """Run the starter with ``code`` as its train.py."""
    (folder / "train.py").write_text(code)
    (folder / "prepare.py").write_bytes((STARTER / "prepare.py").read_bytes())
    command = [sys.executable, "prepare.py"]
    env = {**os.environ, "TIME_BUDGET": str(budget_s)}
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False, timeout=100)


def test_summary_holds_what_the_settings_watch(tmp_path: Path) -> None:
    done = measured(tmp_path, NAIVE)
    assert done.returncode == 0, done.stderr
    (ms,) = re.findall(CONFIG.metric.pattern, done.stdout, re.MULTILINE)
    figures = {
        name: float(re.findall(pattern, done.stdout, re.MULTILINE)[-1]) for name, pattern in CONFIG.watch.items()
    }
    assert float(ms) == pytest.approx(10 * figures["measured_ms"] / figures["reference_ms"], rel=1e-3)
    assert float(ms) > 15, "the code to begin with is far slower than the reference"


TIMED = """
import time
import prepare
started = time.process_time()
times, reference_times = prepare.measure(prepare.reference, budget_s=1.0)
print(time.process_time() - started, len(times), len(reference_times), prepare.relative_ms(times, reference_times))
"""


def test_measuring_ends_with_its_budget(prepare: ModuleType) -> None:
    """In a process of its own: a full heap takes long to be cleared before each call."""
    command = [sys.executable, "-B", "-c", TIMED]
    done = subprocess.run(command, cwd=STARTER, capture_output=True, text=True, check=True, timeout=100)
    cpu_s, rounds, reference_rounds, ms = map(float, done.stdout.splitlines()[-1].split())
    assert 0.9 < cpu_s < 2.0
    assert rounds == reference_rounds > prepare.LEAST_ROUNDS
    assert ms == pytest.approx(prepare.REFERENCE_MS, rel=0.25)


def test_reference_ranks_by_shared_words_and_then_by_place(prepare: ModuleType) -> None:
    documents = ("The cat sat.", "a dog", "the CAT, sat", "The cat ran", "cat the sat")
    assert prepare.reference(documents, 3) == [[2, 4, 3], [0, 2, 3], [0, 4, 3], [0, 2, 4], [0, 2, 3]]


def test_documents_follow_their_chance_alone(prepare: ModuleType) -> None:
    first, again, other = (prepare.draw_documents(random.Random(seed)) for seed in (1, 1, 2))
    assert first == again != other
    assert len(set(first)) == prepare.DOCUMENTS


def call(body: str) -> str:
    """A train.py that is right but for ``body``, which stands where each call begins and may use ``right``."""
    return f"""\
from prepare import reference as right
import itertools, os, threading, time
kept = []
calls = itertools.count()
def neighbours(documents, k):
{body}
    return right(documents, k)
"""


@pytest.mark.parametrize(
    "body, message",
    [
        ("    return [row[::-1] for row in right(documents, k)]", "neighbours returned"),
        ("    return right(documents, k)[:-1]", "rows for"),
        ("    return tuple(right(documents, k))", "list of lists"),
        ("    return [iter(row) for row in right(documents, k)]", "list of lists"),
        ("    return [[float(place) for place in row] for row in right(documents, k)]", "ints of Python's own"),
        ("    kept.append(right(documents, k)); return kept[min(len(kept), 9) - 1]", "neighbours returned"),
        ("    if next(calls) > 10: return kept[0]\n    kept.append(right(documents, k))", "neighbours returned"),
        ("    threading.Thread(target=time.sleep, args=(9,), daemon=True).start()", "leaves thread"),
    ],
    ids=["order", "rows", "tuple", "lazy", "float", "cached", "cached later", "thread"],
)
def test_what_is_not_the_answer_gets_no_number(tmp_path: Path, body: str, message: str) -> None:
    done = measured(tmp_path, call(body))
    assert done.returncode == 1
    assert message in done.stderr
    assert re.findall(CONFIG.metric.pattern, done.stdout, re.MULTILINE) == []


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="children are counted in /proc")
def test_process_left_at_work_gets_no_number(tmp_path: Path) -> None:
    code = "import subprocess\nhelper = subprocess.Popen(['sleep', '5'])\n" + NAIVE
    done = measured(tmp_path, code.replace("from __future__ import annotations\n", ""))
    assert done.returncode == 1
    assert "The import of train.py leaves process" in done.stderr


def test_printed_numbers_are_not_taken_for_the_metric(tmp_path: Path) -> None:
    code = call("    print('ms: 0.001')") + "import atexit\natexit.register(print, 'ms: 0.002')\nprint('ms: 0.003')\n"
    done = measured(tmp_path, code)
    assert done.returncode == 0, done.stderr
    assert len(re.findall(CONFIG.metric.pattern, done.stdout, re.MULTILINE)) == 1


def test_clock_that_train_py_replaces_is_not_the_one_that_measures(tmp_path: Path) -> None:
    code = call("    pass") + "time.process_time = time.perf_counter = lambda: 0.0\n"
    done = measured(tmp_path, code)
    (ms,) = re.findall(CONFIG.metric.pattern, done.stdout, re.MULTILINE)
    assert float(ms) > 5


def test_child_processes_and_threads_are_timed(tmp_path: Path) -> None:
    busy = "sum(range(3_000_000))"
    threaded = f"    thread = threading.Thread(target=lambda: {busy}); thread.start(); thread.join()"
    child = f"    pid = os.fork()\n    if not pid: {busy}; os._exit(0)\n    os.waitpid(pid, 0)"
    for body in (threaded, child):
        done = measured(tmp_path, call(body))
        (ms,) = re.findall(CONFIG.metric.pattern, done.stdout, re.MULTILINE)
        assert float(ms) > 20, done.stderr


# --- a campaign ------------------------------------------------------------------------------------------

HOISTED = {
    "    found = []\n": "    found = []\n    sets = [words(document) for document in documents]\n",
    "for i, document in enumerate(documents):\n        own = words(document)\n": "for i, own in enumerate(sets):\n",
    "words(other)), -j) for j, other in enumerate(documents)": "other), -j) for j, other in enumerate(sets)",
}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_campaign_keeps_the_planted_gain_and_gives_a_wrong_answer_no_number(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    """train.py finds the words of a document once for each pair: README.md names it as the place to begin."""
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    loop = Loop(folder=tmp_path / "project", run=run_script)
    done = run_script(
        "setup_campaign", "--starter", "speed", "--project", loop.folder, "--tag", TAG, "--budget", "0.5", "--json",
        cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["data"]["config"]["metric"]["name"] == "ms"

    def decide(description: str, edits: dict[str, str]) -> dict[str, Any]:
        text = loop.text()
        for old, new in edits.items():
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        loop.write({"train.py": text})
        loop.submit(description, "--wait", 250)
        return dict(loop.log()["experiment"])

    loop.submit("baseline", "--wait", 250)
    kept = decide("the words of each document once", HOISTED)
    assert (kept["status"], kept["verdict"]) == ("keep", "better")
    wrong = decide("forget punctuation", {"WORD.findall(document.lower())": "document.lower().split()"})
    assert (wrong["status"], wrong["metric"]) == ("crash", None)
    assert [row[3] for row in loop.rows] == ["keep", "keep", "crash"]
