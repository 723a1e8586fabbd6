"""The Slurm executor against a real Slurm of four nodes on this host, and against its faults."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from tests.cluster_conformance import *  # noqa: F403 - what a campaign shows on every cluster
from tests.cluster_conformance import look_at_another
from tests.conftest import ROOT, RunScript
from tests.executor_conformance import *  # noqa: F403 - what every engine shows
from tests.executor_conformance import Engine, held, result_of
from tests.loop_bench import CONFIG, TAG, Loop, make_loop
from tests.slurm_bench import Cluster, cluster, installed, running
from tests.trial_bench import METRIC, eventually, living, log_of, trial_spec

from autoresearch.agents.outlook import look_at
from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError, UsageError
from autoresearch.executors import State, executor_for
from autoresearch.executors.cluster import GONE_FILE
from autoresearch.executors.slurm import SlurmExecutor, SlurmOptions
from autoresearch.runner.leases import leases_folder
from autoresearch.trial import Outcome, TrialResult

__all__ = ["cluster", "installed", "running"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


@pytest.fixture
def executor(cluster: Cluster) -> SlurmExecutor:
    return SlurmExecutor(SlurmOptions(gres="gpu:1"), lost_after_s=1.0, ask_every_s=0.0)


@pytest.fixture
def engine(executor: SlurmExecutor) -> Engine:
    return Engine(executor, slots=4)


def test_a_trial_runs_on_a_node_with_the_gpu_that_slurm_gave_it(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SBATCH_TIMELIMIT", "nonsense")
    command = "echo on $SLURMD_NODENAME gpu $CUDA_VISIBLE_DEVICES; echo val_bpb: 0.5"
    env = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "7"}
    assert result_of(engine.executor.submit(trial_spec(command, tmp_path / "t", env=env))).metric == 0.5
    assert re.match(r"on n\d gpu 0\n", log_of(tmp_path / "t"))


# ---- how often the controller is asked


@pytest.fixture
def questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with one line for each call of squeue: when it was made, in seconds."""
    asked = tmp_path / "asked"
    asked.touch()
    wrapper = tmp_path / "bin" / "squeue"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\ndate +%s.%N >> {asked}\nexec {shutil.which("squeue")} "$@"\n')
    wrapper.chmod(0o755)
    monkeypatch.setenv("PATH", f"{wrapper.parent}:{os.environ['PATH']}")
    return asked


POLL_ALL_THE_TIME = f"""
import json, sys, time
sys.dont_write_bytecode = True
sys.path.insert(0, {str(ROOT / "scripts")!r})
from autoresearch.executors.slurm import SlurmExecutor, SlurmOptions
executor = SlurmExecutor(SlurmOptions(), ask_every_s=1.0)
end = time.monotonic() + 3.5
while time.monotonic() < end:
    states = executor.poll(json.loads(sys.argv[1]))
    time.sleep(0.05)
print(states["t1"].value)
"""


def test_several_processes_that_poll_all_the_time_ask_the_controller_now_and_then(
    engine: Engine, questions: Path, tmp_path: Path
) -> None:
    handle = engine.submit_ready(trial_spec("echo ready; sleep 300", tmp_path / "t"))
    argv = [sys.executable, "-c", POLL_ALL_THE_TIME, json.dumps([handle])]
    pollers = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    assert [poller.communicate(timeout=60)[0].strip() for poller in pollers] == ["running"] * 3
    asked = [float(line) for line in questions.read_text().split()]
    assert 2 <= len(asked) <= 5
    assert min(later - earlier for earlier, later in pairwise(asked)) >= 1.0
    engine.executor.cancel(handle)


# ---- faults


def test_a_node_that_dies_is_an_interrupted_trial_after_a_while_and_never_a_crash(
    engine: Engine, cluster: Cluster, tmp_path: Path
) -> None:
    handle = engine.submit_ready(trial_spec("echo ready; sleep 300", tmp_path / "t"))
    node = cluster.node_of(handle)
    cluster.kill_node(node)
    try:
        eventually(lambda: engine.state(handle) is State.GONE)
        result = engine.executor.conclude("t1", tmp_path / "t")
        assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "gone")
    finally:
        cluster.revive_node(node)


def test_a_trial_that_outlives_its_node_in_slurms_eyes_cannot_change_its_result(
    engine: Engine, cluster: Cluster, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    handle = engine.submit_ready(trial_spec(f"echo ready; read -r line < {fifo}; {METRIC}", tmp_path / "t"))
    node = cluster.node_of(handle)
    os.kill(cluster.pid(f"slurmd-{node}"), signal.SIGKILL)  # the daemon alone: the trial runs on
    cluster.call("scontrol", "update", f"nodename={node}", "state=down", "reason=test")
    try:
        eventually(lambda: engine.state(handle) is State.GONE)
        taken = engine.executor.conclude("t1", tmp_path / "t")
        assert taken.outcome is Outcome.INTERRUPTED
        fifo.write_text("go on\n")
        eventually(lambda: "val_bpb: 0.5" in log_of(tmp_path / "t"))
        eventually(lambda: not living(f"SLURM_JOB_ID={handle['id']}"))
        assert TrialResult.read(tmp_path / "t") == taken
    finally:
        cluster.revive_node(node)


def test_a_controller_that_is_away_is_no_news_and_its_return_finds_the_result(
    engine: Engine, cluster: Cluster, tmp_path: Path
) -> None:
    executor = engine.executor
    gate, command = held(tmp_path)
    handle = engine.submit_ready(trial_spec(f"echo ready; {command}; echo val_bpb: 0.25", tmp_path / "t"))
    os.kill(cluster.pid("slurmctld"), signal.SIGTERM)
    eventually(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode)
    try:
        assert engine.state(handle) is State.RUNNING
        with pytest.raises(MachineError, match="sbatch"):
            executor.submit(trial_spec("true", tmp_path / "other"))
        with pytest.raises(MachineError):  # not None, which would mean that the job is gone
            executor.find("t1", tmp_path / "t")
        gate.unlink()
        assert result_of(handle).metric == 0.25
    finally:
        subprocess.run(["slurmctld"], check=True)
        eventually(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0)
    assert executor.conclude("t1", tmp_path / "t").metric == 0.25


def test_a_job_that_the_controller_has_forgotten_is_concluded(engine: Engine, tmp_path: Path) -> None:
    handle = engine.submit_ready(trial_spec("echo ready; sleep 300", tmp_path / "t"))
    invented = {**handle, "id": "999999"}
    assert engine.state(invented) is State.RUNNING  # it may be a late file
    eventually(lambda: engine.state(invented) is State.GONE)
    engine.executor.cancel(handle)


def test_what_the_cluster_refuses_is_told_in_its_words(cluster: Cluster, tmp_path: Path) -> None:
    refused = SlurmExecutor(SlurmOptions(partition="nowhere"))
    with pytest.raises(MachineError, match="partition"):
        refused.submit(trial_spec("true", tmp_path / "t"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"partitoin": "gpu"}, "did you mean partition"),
        ({"parallell": 2}, "did you mean parallel"),
        ({"cpus": "four"}, "whole number"),
        ({"cpus": 0}, "whole number"),
        ({"partition": "a b; rm -rf x"}, "expected a word"),
        ({"extra": ["--wrap rm"]}, "options of sbatch"),
        ({"extra": ["rm"]}, "options of sbatch"),
    ],
)
def test_settings_are_checked(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        executor_for(ExecutorSettings(kind="slurm", options=options))


def test_settings_become_options_of_sbatch() -> None:
    options = SlurmOptions.from_dict({"partition": "gpu", "cpus": 8, "memory": "64G", "extra": ["--exclusive"]})
    assert options.words() == ["--partition=gpu", "--cpus-per-task=8", "--mem=64G", "--nodes=1", "--exclusive"]


def test_without_slurm_the_error_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="not installed"):
        SlurmExecutor(SlurmOptions()).submit(trial_spec("true", tmp_path / "t"))


# ---- a campaign


@pytest.fixture
def loop(cluster: Cluster, tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with its trials on the cluster, not yet measured."""
    config = f"{CONFIG}executor: {{kind: slurm, partition: gpu, gres: 'gpu:1', cpus: 2}}\n"
    return make_loop(tmp_path / "project", run_script, config=config)


def let_news_grow_old() -> None:
    """The next look asks the controller, as it does some seconds later."""
    for news in (leases_folder() / "controllers").glob("*.json"):
        news.unlink()


def test_a_nights_looks_ask_the_controller_once_in_ten_seconds(loop: Loop, questions: Path) -> None:
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        let_news_grow_old()
        questions.write_text("")
        for _ in range(20):
            assert look_at(loop.folder, TAG).trial_runs
        assert len(questions.read_text().splitlines()) == 1
    loop.look("--wait", 60)


def test_a_node_that_dies_costs_the_campaign_one_more_trial_and_nothing_else(loop: Loop, cluster: Cluster) -> None:
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        trial = loop.trials()[-1]
        eventually(lambda: cluster.node_of(trial.handle))
        node = cluster.node_of(trial.handle)
        cluster.kill_node(node)
    try:
        gone = Path(trial.directory) / GONE_FILE
        let_news_grow_old()
        loop.look()
        assert gone.exists()
        os.utime(gone, (0, 0))  # the minute that a late file is waited for
        let_news_grow_old()
        loop.look("--wait", 60)
        assert loop.log()["experiment"]["status"] == "keep"
        outcomes = [each.result.outcome for each in loop.trials()[-2:] if each.result]
        assert outcomes == [Outcome.INTERRUPTED, Outcome.COMPLETED]
    finally:
        cluster.revive_node(node)


@pytest.mark.parametrize(
    ("outcome", "cause"),
    [(Outcome.PRUNED, "pruned"), (Outcome.TIMED_OUT, "timeout"), (Outcome.CRASHED, "oom_gpu")],
)
def test_an_end_that_another_device_explains_is_not_the_ideas(loop: Loop, outcome: Outcome, cause: str) -> None:
    first, second = look_at_another(loop, outcome=outcome, cause=cause, metric=None)
    assert (first.outcome, first.cause) == (Outcome.INTERRUPTED, "other_device")
    assert second.outcome is Outcome.COMPLETED


def test_a_crash_that_no_device_explains_stands_on_any(loop: Loop) -> None:
    (only,) = look_at_another(loop, outcome=Outcome.CRASHED, cause="syntax", metric=None)
    assert (only.outcome, only.cause) == (Outcome.CRASHED, "syntax")
