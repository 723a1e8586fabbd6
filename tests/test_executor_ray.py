"""The Ray executor against a real Ray on this host, and against its faults."""

from __future__ import annotations

import os
import re
import signal
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.cluster_conformance import *  # noqa: F403 - what a campaign shows on every cluster
from tests.conftest import RunScript
from tests.executor_conformance import *  # noqa: F403 - what every engine shows
from tests.executor_conformance import Engine, marked, result_of
from tests.loop_bench import CONFIG, Loop, make_loop
from tests.ray_bench import GPUS, KIND, OTHER_NODE, Cluster, cluster, installed, running
from tests.trial_bench import LONG, METRIC, eventually, living, log_of, trial_spec

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError, UsageError
from autoresearch.executors import State, executor_for, ray
from autoresearch.executors.ray import RayExecutor, RayOptions
from autoresearch.trial import Outcome, TrialResult

__all__ = ["cluster", "installed", "running"]  # fixtures
pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.xdist_group("ray")]


def executor_with(address: str, **options: object) -> RayExecutor:
    settings = RayOptions.from_dict({"address": address, **options})
    return RayExecutor(settings, lost_after_s=1.0, ask_every_s=0.0)


@pytest.fixture
def engine(cluster: Cluster) -> Engine:
    return Engine(executor_with(cluster.address, gpus=1), slots=GPUS)


def test_a_trial_gets_the_gpu_that_ray_gave_it_and_can_reach_the_cluster(engine: Engine, tmp_path: Path) -> None:
    env = {"PATH": os.environ["PATH"], "CUDA_VISIBLE_DEVICES": "7", "RAY_ADDRESS": "another:6379"}
    spec = trial_spec(f"echo gpu $CUDA_VISIBLE_DEVICES at $RAY_ADDRESS; {METRIC}", tmp_path / "t", env=env)
    assert result_of(engine.executor.submit(spec)).metric == 0.5
    assert re.match(r"gpu [01] at [\d.]+:\d+\n", log_of(tmp_path / "t"))


def test_a_kind_of_gpu_can_be_asked_for_and_one_that_is_not_there_is_waited_for(
    cluster: Cluster, tmp_path: Path
) -> None:
    here = executor_with(cluster.address, gpus=1, accelerator_type=KIND)
    assert result_of(here.submit(trial_spec(METRIC, tmp_path / "t"))).metric == 0.5
    nowhere = executor_with(cluster.address, gpus=1, accelerator_type="H900")
    handle = nowhere.submit(trial_spec(METRIC, tmp_path / "u"))
    assert nowhere.poll([handle]) == {"t1": State.QUEUED}
    nowhere.cancel(handle)
    result = TrialResult.read(tmp_path / "u")
    assert result
    assert result.outcome is Outcome.INTERRUPTED


def test_a_trial_can_not_be_submitted_twice(engine: Engine, tmp_path: Path) -> None:
    spec = trial_spec(f"echo ready; {LONG}", tmp_path / "t", grace_s=1.0)
    handle = engine.submit_ready(spec)
    with pytest.raises(MachineError, match="already exists"):
        engine.executor.submit(spec)
    engine.executor.cancel(handle)


def test_a_cancelled_command_has_its_whole_grace(engine: Engine, tmp_path: Path) -> None:
    """Ray by itself would kill everything after 3 s."""
    command = f"trap 'sleep 4; echo last words; exit' TERM; echo ready; {LONG} & wait"
    handle = engine.submit_ready(trial_spec(command, tmp_path / "t", grace_s=8.0))
    engine.executor.cancel(handle)
    assert result_of(handle).reason == "stopped by SIGTERM"
    assert "last words" in log_of(tmp_path / "t")


# ---- faults


def test_a_job_that_ray_gives_up_ends_in_order_and_leaves_nothing_on_the_node(
    engine: Engine, cluster: Cluster, tmp_path: Path
) -> None:
    env, mark = marked(tmp_path)
    spec = trial_spec(f"(setsid {LONG} &); echo ready; {LONG}; true", tmp_path / "t", env=env, grace_s=1.0)
    handle = engine.submit_ready(spec)
    os.kill(cluster.supervisor_of(tmp_path / "t"), signal.SIGKILL)  # as Ray does where memory runs short
    result = result_of(handle)
    assert (result.outcome, result.reason) == (Outcome.INTERRUPTED, "stopped by SIGTERM")
    eventually(lambda: not living(mark))
    eventually(lambda: engine.state(handle) is State.GONE)


def test_a_node_that_dies_is_an_interrupted_trial_after_a_while_and_never_a_crash(
    cluster: Cluster, tmp_path: Path
) -> None:
    before = set(cluster.processes())
    cluster.start_other_node()
    engine = Engine(executor_with(cluster.address, resources={OTHER_NODE: 1}), slots=1)
    handle = engine.submit_ready(trial_spec(f"echo ready; {LONG}", tmp_path / "t"))
    node = cluster.processes() - before
    for pid in node:
        os.kill(pid, signal.SIGKILL)  # with the trial's runner: it has the token in its environment, too
    eventually(lambda: engine.state(handle) is State.GONE)
    result = engine.executor.conclude("t1", tmp_path / "t")
    assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "gone")
    assert "Ray says FAILED" in result.reason


def test_a_head_that_is_away_is_no_news_and_its_return_finds_the_result(
    engine: Engine, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "CALL_S", 0.5)
    handle = engine.submit_ready(trial_spec(f"echo ready; sleep 2; {METRIC}", tmp_path / "t"))
    head = cluster.pids("dashboard/dashboard.py")
    assert head
    for pid in head:
        os.kill(pid, signal.SIGSTOP)
    try:
        assert engine.state(handle) is State.RUNNING
        with pytest.raises(MachineError, match="no Ray answers"):
            engine.executor.submit(trial_spec("true", tmp_path / "other"))
        with pytest.raises(MachineError, match="timed out"):  # not None, which would mean that the job is gone
            engine.executor.find("t1", tmp_path / "t")
        assert result_of(handle).metric == 0.5
    finally:
        for pid in head:
            os.kill(pid, signal.SIGCONT)
    assert engine.executor.conclude("t1", tmp_path / "t").metric == 0.5


def test_a_job_that_a_new_head_does_not_know_is_concluded(engine: Engine, tmp_path: Path) -> None:
    handle = {"engine": "ray", "id": "autoresearch-none", "trial_id": "t1", "directory": str(tmp_path / "t")}
    assert engine.state(handle) is State.RUNNING  # it may be a late file
    eventually(lambda: engine.state(handle) is State.GONE)
    assert "Ray does not know it" in engine.executor.conclude("t1", tmp_path / "t").reason


def test_what_kept_the_runner_from_starting_is_told_in_rays_words(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "RUNNER", tmp_path / "nowhere.py")  # as on a node without the shared disk
    handle = engine.executor.submit(trial_spec(METRIC, tmp_path / "t"))
    eventually(lambda: engine.state(handle) is State.GONE)
    assert "failed with exit code 2" in engine.executor.conclude("t1", tmp_path / "t").reason


def test_without_the_token_the_answer_is_rays(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH")
    with pytest.raises(MachineError, match=r"answers 401.*Missing authentication token"):
        engine.executor.find("t1", tmp_path / "t")
    monkeypatch.setenv("RAY_AUTH_TOKEN", "a guess")
    with pytest.raises(MachineError, match="answers 403"):
        engine.executor.find("t1", tmp_path / "t")


# ---- settings


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"adress": "http://head:8265"}, "did you mean address"),
        ({"parallell": 2}, "did you mean parallel"),
        ({"address": "ray://head:10001"}, "dashboard"),
        ({"address": "auto"}, "dashboard"),
        ({"gpus": "one"}, "number, 0 or more"),
        ({"cpus": -1}, "number, 0 or more"),
        ({"gpus": True}, "number, 0 or more"),
        ({"accelerator_type": "H100; rm"}, "one word"),
        ({"resources": ["fast"]}, "amounts by name"),
        ({"resources": {"fast": "much"}}, "amounts by name"),
    ],
)
def test_settings_are_checked(options: dict[str, object], word: str) -> None:
    with pytest.raises(UsageError, match=word):
        executor_for(ExecutorSettings(kind="ray", options=options))


def test_settings_become_what_ray_reserves() -> None:
    options = RayOptions.from_dict(
        {"address": "http://head:8265/", "cpus": 8, "gpus": 0.5, "accelerator_type": "H100", "resources": {"fast": 1}}
    )
    assert options.address == "http://head:8265"
    assert options.reserved() == {
        "entrypoint_num_cpus": 8,
        "entrypoint_num_gpus": 0.5,
        "entrypoint_resources": {"fast": 1, "accelerator_type:H100": 0.001},
    }


def test_without_a_ray_the_error_says_where_it_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"no Ray answers at http://127\.0\.0\.1:9: .*refused"):
        executor_with("http://127.0.0.1:9").submit(trial_spec("true", tmp_path / "t"))


@pytest.mark.parametrize("page", ["<html>Log in</html>", '{"detail": "not here"}', '"ok"'])
def test_another_server_at_the_address_is_not_taken_for_a_ray_that_knows_no_job(tmp_path: Path, page: str) -> None:
    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(page.encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        executor = executor_with(f"http://127.0.0.1:{server.server_port}")
        with pytest.raises(MachineError, match="no Ray answers"):
            executor.jobs()
        handle = executor.handle("t1", tmp_path / "t", "autoresearch-7")
        assert executor.poll([handle]) == {"t1": State.RUNNING}
        server.shutdown()
    assert not (tmp_path / "t").exists()  # nothing was noted against the job


# ---- a campaign


@pytest.fixture
def loop(cluster: Cluster, tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with its trials on Ray, not yet measured."""
    config = f"{CONFIG}executor: {{kind: ray, address: '{cluster.address}', gpus: 1}}\n"
    return make_loop(tmp_path / "project", run_script, config=config)
