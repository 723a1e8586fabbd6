"""The Slurm executor against a real Slurm of four nodes on this host, and against its faults."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.loop_bench import CONFIG, Loop, make_loop
from tests.slurm_bench import Cluster, cluster, installed, running
from tests.trial_bench import eventually, living, log_of, trial_spec

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError, UsageError
from autoresearch.executors import Handle, State, executor_for
from autoresearch.executors.slurm import SlurmExecutor, SlurmOptions, jobs
from autoresearch.trial import STARTED_FILE, Outcome, TrialResult, TrialSpec

__all__ = ["cluster", "installed", "running"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]


@pytest.fixture
def executor(cluster: Cluster) -> SlurmExecutor:
    return SlurmExecutor(SlurmOptions(gres="gpu:1"), lost_after_s=1.0)


def state(executor: SlurmExecutor, handle: Handle) -> State:
    return executor.poll([handle])[handle["trial_id"]]


def result_of(executor: SlurmExecutor, handle: Handle) -> TrialResult:
    directory = Path(handle["directory"])
    return eventually(lambda: TrialResult.read(directory))


def submit_ready(executor: SlurmExecutor, spec: TrialSpec) -> Handle:
    handle = executor.submit(spec)
    eventually(lambda: "ready" in log_of(Path(spec.directory)))
    return handle


def test_a_trial_runs_on_a_node_with_its_gpu_and_without_the_submitters_secrets(
    executor: SlurmExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "nonsense")
    command = (
        "echo on $SLURMD_NODENAME gpu $CUDA_VISIBLE_DEVICES key [$ANTHROPIC_API_KEY] mine $MINE; echo val_bpb: 0.5"
    )
    env = {"PATH": os.environ["PATH"], "MINE": "a b,c", "CUDA_VISIBLE_DEVICES": "7"}
    handle = executor.submit(trial_spec(command, tmp_path / "t", env=env))
    result = result_of(executor, handle)
    assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    assert log_of(tmp_path / "t").startswith("on n")
    assert "gpu 0 key [] mine a b,c" in log_of(tmp_path / "t")
    eventually(lambda: state(executor, handle) is State.GONE)


def test_many_are_asked_about_at_once_and_what_finds_no_gpu_waits(executor: SlurmExecutor, tmp_path: Path) -> None:
    specs = [trial_spec("sleep 1; echo val_bpb: 0.5", tmp_path / f"t{n}", trial_id=f"t{n}") for n in range(6)]
    handles = [executor.submit(spec) for spec in specs]
    eventually(lambda: list(executor.poll(handles).values()).count(State.RUNNING) == 4)
    assert State.QUEUED in executor.poll(handles).values()
    for handle in handles:
        assert result_of(executor, handle).outcome is Outcome.COMPLETED


def test_the_budget_is_the_runners_in_seconds(executor: SlurmExecutor, tmp_path: Path) -> None:
    spec = trial_spec("sleep 300", tmp_path / "t", limit_s=1.0, grace_s=1.0)
    result = result_of(executor, executor.submit(spec))
    assert result.outcome is Outcome.TIMED_OUT
    assert result.duration_s < 10


def test_cancel_lets_the_runner_end_its_tree(executor: SlurmExecutor, tmp_path: Path) -> None:
    command = "(trap '' TERM; setsid sleep 300) & echo ready; wait"
    mark = f"SLURM_TEST_MARK={tmp_path.name}"
    name, _, value = mark.partition("=")
    env = {"PATH": os.environ["PATH"], name: value}
    spec = trial_spec(command, tmp_path / "t", env=env, grace_s=0.5)
    handle = submit_ready(executor, spec)
    executor.cancel(handle)
    result = TrialResult.read(tmp_path / "t")
    assert result
    assert result.outcome is Outcome.INTERRUPTED
    eventually(lambda: not living(mark))
    executor.cancel(handle)  # harmless


def test_cancel_in_the_queue_is_an_interrupted_trial_without_a_runner(executor: SlurmExecutor, tmp_path: Path) -> None:
    held = SlurmExecutor(SlurmOptions(extra=("--hold",)), lost_after_s=1.0)
    handle = held.submit(trial_spec("echo val_bpb: 1", tmp_path / "t"))
    assert state(held, handle) is State.QUEUED
    began = time.monotonic()
    held.cancel(handle)
    result = TrialResult.read(tmp_path / "t")
    assert result
    assert result.outcome is Outcome.INTERRUPTED
    assert time.monotonic() - began < 10


def test_a_job_is_found_whose_number_nobody_noted(executor: SlurmExecutor, tmp_path: Path) -> None:
    handle = submit_ready(executor, trial_spec("echo ready; sleep 300", tmp_path / "t"))
    assert executor.find("t1", tmp_path / "t") == handle
    assert executor.find("t1", tmp_path / "other") is None
    assert executor.conclude("t1", tmp_path / "t").outcome is Outcome.INTERRUPTED
    eventually(lambda: jobs().get(handle["id"], State.GONE) is State.GONE)


def test_a_node_that_dies_is_an_interrupted_trial_after_a_while_and_never_a_crash(
    executor: SlurmExecutor, cluster: Cluster, tmp_path: Path
) -> None:
    handle = submit_ready(executor, trial_spec("echo ready; sleep 300", tmp_path / "t"))
    node = cluster.node_of(handle)
    cluster.kill_node(node)
    try:
        eventually(lambda: state(executor, handle) is State.GONE)
        assert executor.conclude("t1", tmp_path / "t").outcome is Outcome.INTERRUPTED
    finally:
        cluster.revive_node(node)


def test_a_controller_that_is_away_is_no_news_and_its_return_finds_the_result(
    executor: SlurmExecutor, cluster: Cluster, tmp_path: Path
) -> None:
    handle = submit_ready(executor, trial_spec("echo ready; sleep 2; echo val_bpb: 0.25", tmp_path / "t"))
    os.kill(cluster.pid("slurmctld"), signal.SIGTERM)
    eventually(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode)
    try:
        assert state(executor, handle) is State.RUNNING
        with pytest.raises(MachineError, match="sbatch"):
            executor.submit(trial_spec("true", tmp_path / "other"))
        with pytest.raises(MachineError):  # not None, which would mean that the job is gone
            executor.find("t1", tmp_path / "t")
        assert result_of(executor, handle).metric == 0.25
    finally:
        subprocess.run(["slurmctld"], check=True)
        eventually(lambda: subprocess.run(["scontrol", "ping"], capture_output=True, check=False).returncode == 0)
    assert executor.conclude("t1", tmp_path / "t").metric == 0.25


def test_a_job_that_the_controller_has_forgotten_is_concluded(executor: SlurmExecutor, tmp_path: Path) -> None:
    handle = submit_ready(executor, trial_spec("echo ready; sleep 300", tmp_path / "t"))
    started = (tmp_path / "t" / STARTED_FILE).read_text()
    assert "pid" in started
    invented = {**handle, "id": "999999"}
    assert state(executor, invented) is State.RUNNING  # it may be a late file
    eventually(lambda: state(executor, invented) is State.GONE)
    executor.cancel(handle)


def test_what_the_cluster_refuses_is_told_in_its_words(cluster: Cluster, tmp_path: Path) -> None:
    refused = SlurmExecutor(SlurmOptions(partition="nowhere"))
    with pytest.raises(MachineError, match="partition"):
        refused.submit(trial_spec("true", tmp_path / "t"))


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"partitoin": "gpu"}, "did you mean partition"),
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


def test_a_whole_campaign_and_a_sweep_run_on_the_cluster(loop: Loop) -> None:
    loop.baseline()
    assert loop.experiment("a better learning rate", LR=8) == "keep"
    assert loop.experiment("a worse one", LR=2) == "discard"
    assert loop.experiment("too wide", WIDTH=128) == "crash"
    swept = loop.call("sweep", "--set", "LR=16,4")
    assert len(swept["points"]) == 2
    assert [row[3] for row in loop.rows][:4] == ["keep", "keep", "discard", "crash"]
    assert {trial.handle["engine"] for trial in loop.trials()} == {"slurm"}
    assert {trial.result.host for trial in loop.trials() if trial.result}
    assert loop.tip() == loop.incumbent()


def test_a_node_that_dies_costs_the_campaign_one_more_trial_and_nothing_else(loop: Loop, cluster: Cluster) -> None:
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        trial = loop.trials()[-1]
        eventually(lambda: cluster.node_of(trial.handle))
        node = cluster.node_of(trial.handle)
        cluster.kill_node(node)
    try:
        gone = Path(trial.directory) / "gone"
        loop.look()
        eventually(gone.exists)
        os.utime(gone, (0, 0))  # the minute that a late file is waited for
        loop.look("--wait", 60)
        assert loop.log()["experiment"]["status"] == "keep"
        outcomes = [each.result.outcome for each in loop.trials()[-2:] if each.result]
        assert outcomes == [Outcome.INTERRUPTED, Outcome.COMPLETED]
    finally:
        cluster.revive_node(node)


def test_a_submission_whose_number_was_lost_is_adopted_and_not_repeated(loop: Loop) -> None:
    from autoresearch.campaign.opened import open_ledger

    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        trial = loop.trials()[-1]
        with open_ledger(loop.folder) as (_, ledger):
            trial.handle = {}
            ledger.set_handle(trial)
    loop.look("--wait", 60)
    assert loop.log()["experiment"]["status"] == "keep"
    assert [each.number for each in loop.trials()].count(1) == 1


def test_a_result_of_another_device_is_not_compared(loop: Loop) -> None:
    loop.baseline()
    with loop.holding():
        loop.submit("a better learning rate", "--wait", 0, expect=10, LR=8)
        directory = Path(loop.trials()[-1].directory)
    result = eventually(lambda: TrialResult.read(directory))
    (directory / "result.json").write_text(replace(result, device="Another GPU").to_json())
    loop.look("--wait", 60)
    first, second = (each.result for each in loop.trials()[-2:])
    assert first is not None
    assert (first.outcome, first.cause, first.metric) == (Outcome.INTERRUPTED, "other_device", None)
    assert second is not None
    assert second.outcome is Outcome.COMPLETED
