"""Slots: trials of all campaigns of a user share a machine's GPUs and cores, and never one of them.

Processes, locks and signals are real. Where a test needs a GPU, ``tests/fake_gpus.py`` stands in for
NVML: there is none here; ``benchmarks/gpu_checks.py`` does the same with real ones.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests import fake_gpus
from tests.conftest import RunScript
from tests.fake_gpus import gpu
from tests.loop_bench import make_loop
from tests.trial_bench import DEADLINE_S, LONG, METRIC, eventually, living, log_of, trial_spec

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import MachineError, UsageError
from autoresearch.executors import Handle, LocalExecutor, State, executor_for, local
from autoresearch.executors.base import RUNNER, process_mark
from autoresearch.report.live import Observer
from autoresearch.runner import devices, memory
from autoresearch.runner.devices import eligible_devices
from autoresearch.runner.leases import FOLDER_NAME, Lease, Obstacles, Want, leases_folder
from autoresearch.runner.memory import load_nvml
from autoresearch.runner.orphans import MARK
from autoresearch.runner.processes import command_line, pids
from autoresearch.trial import LIVE_FILE, WAITS_FOR, Outcome, Slot, TrialResult, TrialSpec

CPU = LocalExecutor(Slot(devices="cpu"))
GPUS = LocalExecutor(Slot())
SCRIPTS = Path(local.__file__).parents[2]
# Two at a time on one device would meet at the folder's name.
ALONE = "mkdir on-{0} || echo collision; sleep 0.03; rmdir on-{0}; " + METRIC
ON_GPU = ALONE.format("$CUDA_VISIBLE_DEVICES")
CAMPAIGN = f"""
import sys, time
sys.dont_write_bytecode = True
sys.path[:0] = [{str(SCRIPTS)!r}, {str(SCRIPTS.parent)!r}]
from pathlib import Path
from tests.trial_bench import trial_spec
from autoresearch.executors import LocalExecutor, local
from autoresearch.trial import Slot, TrialResult
local.RUNNER = Path(sys.argv[1])
folder, devices = Path(sys.argv[2]), sys.argv[4]
for number in range(10):
    spec = trial_spec(sys.argv[3], folder / str(number), cwd=str(folder.parent))
    LocalExecutor(Slot(devices=devices)).submit(spec)
    while TrialResult.read(Path(spec.directory)) is None:
        time.sleep(0.005)
"""

World = Callable[..., None]


@pytest.fixture
def spec(tmp_path: Path) -> Iterator[Callable[..., TrialSpec]]:
    """``spec(command, name, **settings)``: trials that are ended after the test, and have left nothing."""
    made: list[TrialSpec] = []

    def make(command: str, name: str, **settings: Any) -> TrialSpec:
        made.append(trial_spec(command, tmp_path / name, trial_id=name, **settings))
        return made[-1]

    yield make
    for each in made:
        CPU.conclude(each.trial_id, Path(each.directory))
        assert not living(f"{MARK}={process_mark(Path(each.directory))}")


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """``world(gpu(0), …)`` puts these GPUs into the machine, for runners and for this process."""
    path = tmp_path / "gpus.json"
    monkeypatch.setenv(fake_gpus.WORLD, str(path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(local, "RUNNER", Path(fake_gpus.__file__))

    def put(*gpus: dict[str, Any]) -> None:
        new = path.with_suffix(".new")
        new.write_text(json.dumps(gpus))
        new.replace(path)

    return put


@pytest.fixture
def own_eyes(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """As ``world``; this process sees the GPUs as well."""
    for module in (memory, devices):
        for name in ("GPU_NODES", "in_container", "FREE_PATIENCE_S"):
            monkeypatch.setattr(module, name, vars(module).get(name), raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    load_nvml.cache_clear()
    fake_gpus.install()
    yield world
    load_nvml.cache_clear()


def state(handle: Handle) -> State:
    return CPU.poll([handle])[handle["trial_id"]]


def waits_for(handle: Handle) -> str:
    try:
        live = json.loads((Path(handle["directory"]) / LIVE_FILE).read_text())
    except FileNotFoundError:
        return ""
    return str(live.get(WAITS_FOR, ""))


def result_of(handle: Handle) -> TrialResult:
    result = eventually(lambda: TrialResult.read(Path(handle["directory"])))
    assert isinstance(result, TrialResult)
    return result


def start(executor: LocalExecutor, spec: TrialSpec) -> Handle:
    """Submit a command that prints ``ready``, and wait until it has."""
    handle = executor.submit(spec)
    eventually(lambda: has_begun(handle))
    return handle


def has_begun(handle: Handle) -> bool:
    return "ready" in log_of(Path(handle["directory"]))


# --- waiting -------------------------------------------------------------------------------------


def test_second_trial_waits_for_the_machine_and_its_time_does_not_run(spec: Callable[..., TrialSpec]) -> None:
    first = start(CPU, spec(f"echo ready; {LONG}", "first"))
    second = CPU.submit(spec(METRIC, "second", limit_s=0.5))
    eventually(lambda: state(second) is State.QUEUED)
    assert waits_for(second) == f"trial first (pid {first['id']}) has the CPU"
    time.sleep(0.6)
    assert TrialResult.read(Path(second["directory"])) is None
    assert CPU.poll([first, second]) == {"first": State.RUNNING, "second": State.QUEUED}
    CPU.cancel(first)
    result = result_of(second)
    assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    assert result.duration_s < 0.5


def test_trials_are_served_as_they_came(spec: Callable[..., TrialSpec], tmp_path: Path) -> None:
    first = start(CPU, spec(f"echo ready; {LONG}", "first"))
    waiting = []
    for number in range(4):
        waiting.append(CPU.submit(spec(f"echo {number} >> order; {METRIC}", f"w{number}", cwd=str(tmp_path))))
        eventually(lambda: state(waiting[-1]) is State.QUEUED)
    CPU.cancel(first)
    assert [result_of(each).outcome for each in waiting] == [Outcome.COMPLETED] * 4
    assert (tmp_path / "order").read_text().split() == ["0", "1", "2", "3"]


def test_waiting_trial_can_be_cancelled(spec: Callable[..., TrialSpec]) -> None:
    first = start(CPU, spec(f"echo ready; {LONG}", "first"))
    second = CPU.submit(spec(METRIC, "second"))
    eventually(lambda: state(second) is State.QUEUED)
    CPU.cancel(second)
    result = result_of(second)
    assert (result.outcome, result.cause, result.duration_s) == (Outcome.INTERRUPTED, "signal", 0.0)
    assert "stopped by SIGTERM while it waited: trial first" in result.reason
    assert state(first) is State.RUNNING


def test_what_a_killed_runner_left_is_ended_before_the_next_trial_starts(spec: Callable[..., TrialSpec]) -> None:
    trial = spec(f"(setsid {LONG} &); echo ready; {LONG}", "first")
    mark = f"{MARK}={process_mark(Path(trial.directory))}"
    first = start(CPU, trial)
    second = CPU.submit(spec(f"echo ready; {LONG}", "second"))
    eventually(lambda: state(second) is State.QUEUED)
    os.kill(int(first["id"]), signal.SIGKILL)
    eventually(lambda: "ready" in log_of(Path(second["directory"])))
    assert living(mark) == set()
    assert CPU.conclude("first", Path(first["directory"])).cause == "gone"


def test_killed_waiting_runner_holds_nobody_up(spec: Callable[..., TrialSpec]) -> None:
    first = start(CPU, spec(f"echo ready; {LONG}", "first"))
    second, third = CPU.submit(spec(METRIC, "second")), CPU.submit(spec(METRIC, "third"))
    eventually(lambda: state(second) is state(third) is State.QUEUED)
    os.kill(int(second["id"]), signal.SIGKILL)
    CPU.cancel(first)
    assert result_of(third).outcome is Outcome.COMPLETED


def test_waiting_trial_whose_folder_was_deleted_or_made_anew_leaves_nothing_behind(
    spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    first = start(CPU, spec(f"echo ready; {LONG}", "first"))
    deleted = spec("echo old >> ran", "deleted", cwd=str(tmp_path))
    replaced = spec("echo old >> ran", "replaced", cwd=str(tmp_path))
    old = [CPU.submit(deleted), CPU.submit(replaced)]
    eventually(lambda: all(state(handle) is State.QUEUED for handle in old))
    for each in (deleted, replaced):
        shutil.rmtree(each.directory)
    new = CPU.submit(spec(f"echo new >> ran; {METRIC}", "replaced", cwd=str(tmp_path)))
    CPU.cancel(first)
    assert result_of(new).outcome is Outcome.COMPLETED
    eventually(lambda: all(state(handle) is State.GONE for handle in old))
    assert (tmp_path / "ran").read_text() == "new\n"
    assert not Path(deleted.directory).exists()
    found = {path.name for path in Path(replaced.directory).iterdir()}
    assert found == {"spec.json", "started.json", "log.txt", "result.json", "runner.err"}


def test_running_trial_whose_folder_was_made_anew_leaves_it_alone(
    spec: Callable[..., TrialSpec], tmp_path: Path
) -> None:
    old_spec = spec(f"echo ready; while [ ! -e go ]; do sleep 0.01; done; {METRIC}", "trial", cwd=str(tmp_path))
    old = start(CPU, old_spec)
    shutil.rmtree(old_spec.directory)
    new = CPU.submit(spec("echo val_bpb: 0.25", "trial", cwd=str(tmp_path)))
    eventually(lambda: state(new) is State.QUEUED)
    (tmp_path / "go").touch()
    eventually(lambda: state(old) is state(new) is State.GONE)
    assert result_of(new).metric == 0.25


def test_trial_that_runs_trials_shares_its_slot(
    spec: Callable[..., TrialSpec], monkeypatch: pytest.MonkeyPatch
) -> None:
    start(CPU, spec(f"echo ready; {LONG}", "outer"))
    monkeypatch.setenv(MARK, "of the outer trial")
    assert result_of(CPU.submit(spec(METRIC, "inner"))).outcome is Outcome.COMPLETED


def test_folder_of_another_user_is_refused(
    spec: Callable[..., TrialSpec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "open-to-all"
    folder.mkdir()
    folder.chmod(0o777)
    monkeypatch.setenv(FOLDER_NAME, str(folder))
    result = result_of(CPU.submit(spec(METRIC, "trial")))
    assert (result.outcome, result.cause) == (Outcome.CRASHED, "device")
    assert str(folder) in result.reason


# --- never two on one device ---------------------------------------------------------------------


def run_campaigns(folder: Path, command: str, devices: str, *, runner: Path = RUNNER) -> list[TrialResult]:
    """Two campaigns of ten trials each, at the same time."""
    running = []
    for name in ("one", "two"):
        argv = [sys.executable, "-c", CAMPAIGN, str(runner), str(folder / name), command, devices]
        (folder / name).mkdir()
        running.append(subprocess.Popen(argv))
    assert [each.wait(2 * DEADLINE_S) for each in running] == [0, 0]
    found = [TrialResult.read(path.parent) for path in sorted(folder.glob("*/*/result.json"))]
    logs = [path.read_text() for path in folder.glob("*/*/log.txt")]
    assert not [log for log in logs if "collision" in log]
    assert len(logs) == 20
    return [each for each in found if each is not None]


def test_two_campaigns_never_run_two_trials_on_the_cpu(tmp_path: Path) -> None:
    results = run_campaigns(tmp_path, ALONE.format("cpu"), "cpu")
    assert [each.outcome for each in results] == [Outcome.COMPLETED] * 20


def test_two_campaigns_never_run_two_trials_on_one_gpu(tmp_path: Path, world: World) -> None:
    world(gpu(0))
    results = run_campaigns(tmp_path, ON_GPU, "auto", runner=Path(fake_gpus.__file__))
    assert [(each.outcome, each.device, each.disturbed) for each in results] == [
        (Outcome.COMPLETED, "Fake 9000", "")
    ] * 20


def test_killed_runners_do_not_let_two_trials_meet(spec: Callable[..., TrialSpec]) -> None:
    """Every second runner is killed in mid-trial; its command would live on, and keep the file locked."""
    alone = "exec 9> here; flock -n 9 || echo collision; echo ready; sleep {0}; echo val_bpb: 0.5"
    commands = [f"setsid sh -c '{alone.format(seconds)}'" for seconds in (0.1, 3, 0.1, 3, 0.1)]
    handles = [CPU.submit(spec(command, f"t{number}")) for number, command in enumerate(commands)]
    for handle in (handles[1], handles[3]):
        eventually(functools.partial(has_begun, handle))
        os.kill(int(handle["id"]), signal.SIGKILL)
    assert [result_of(handle).outcome for handle in handles[::2]] == [Outcome.COMPLETED] * 3
    assert not [each for each in handles if "collision" in log_of(Path(each["directory"]))]


def test_leases_survive_a_thousand_hands(tmp_path: Path) -> None:
    """Many processes take shares of two things as fast as they can; nothing is ever given out twice."""
    code = f"""
import random, sys, time
sys.path[:0] = [{str(SCRIPTS)!r}]
from pathlib import Path
from autoresearch.runner.leases import Lease, Obstacles, Want
folder = Path(sys.argv[1])
for _ in range(25):
    share = random.choice((0.5, 1.0))
    with Lease(folder, trial="t", mark="", wants=[Want(("a", "b"), 1, share)]) as lease:
        while isinstance(held := lease.take(lambda name: ""), Obstacles):
            time.sleep(0.001)
        (name, share), = held.items()
        with (folder / f"{{name}}.log").open("a") as log:
            log.write(f"{{time.monotonic_ns()}} {{share}}\\n")
        time.sleep(0.002)
        with (folder / f"{{name}}.log").open("a") as log:
            log.write(f"{{time.monotonic_ns()}} {{-share}}\\n")
"""
    hands = [subprocess.Popen([sys.executable, "-c", code, str(tmp_path)]) for _ in range(8)]
    assert [each.wait(DEADLINE_S) for each in hands] == [0] * 8
    for name in ("a", "b"):
        changes = sorted(line.split() for line in (tmp_path / f"{name}.log").read_text().splitlines())
        in_use = 0.0
        for _, change in changes:
            in_use += float(change)
            assert in_use <= 1.0
    assert list(tmp_path.glob("*.json")) == []


# --- cores ---------------------------------------------------------------------------------------


def test_cores_are_given_out_one_by_one(spec: Callable[..., TrialSpec]) -> None:
    cores = sorted(os.sched_getaffinity(0))
    executor = LocalExecutor(Slot(devices="cpu", cpus=1.0))
    handles = [
        start(executor, spec(f"grep Cpus_allowed_list /proc/self/status; echo ready; {LONG}", f"t{core}"))
        for core in cores
    ]
    logs = [log_of(Path(each["directory"])) for each in handles]
    assert [int(re.findall(r"Cpus_allowed_list:\s*(\S+)", log)[0]) for log in logs] == cores
    one_more = executor.submit(spec(METRIC, "more"))
    eventually(lambda: state(one_more) is State.QUEUED)
    whole = CPU.submit(spec(METRIC, "whole"))
    eventually(lambda: "more (pid" in waits_for(whole) or len(cores) > 2)
    for each in handles:
        CPU.cancel(each)
    assert [result_of(each).outcome for each in (one_more, whole)] == [Outcome.COMPLETED] * 2


def test_shares_of_a_core_add_up(tmp_path: Path) -> None:
    wants = [Want(("core 0",), 1, 0.125)]
    leases = [Lease(tmp_path, trial=str(number), mark="", wants=wants) for number in range(9)]
    taken = [each.take(lambda _: "") for each in leases]
    assert taken[:8] == [{"core 0": 0.125}] * 8
    assert isinstance(taken[8], Obstacles)
    leases[3].close()
    assert leases[8].take(lambda _: "") == {"core 0": 0.125}
    for number in set(range(9)) - {3}:
        leases[number].close()


def test_one_that_wants_much_is_not_overtaken_for_ever(tmp_path: Path) -> None:
    def lease(number: int) -> Lease:
        return Lease(tmp_path, trial=str(number), mark="", wants=[Want(("a", "b"), number)])

    with lease(1) as holder, lease(2) as wants_both, lease(1) as late:
        assert holder.take(lambda _: "") == {"a": 1.0}
        assert isinstance(wants_both.take(lambda _: ""), Obstacles)
        assert isinstance(late.take(lambda _: ""), Obstacles), "b is promised"


# --- GPUs ----------------------------------------------------------------------------------------


def test_each_trial_gets_a_gpu_of_its_own(spec: Callable[..., TrialSpec], world: World) -> None:
    world(gpu(0), gpu(1))
    tell = f"echo on $CUDA_VISIBLE_DEVICES by $CUDA_DEVICE_ORDER ready; {LONG}"
    handles = [start(GPUS, spec(tell, name)) for name in ("a", "b")]
    logs = [log_of(Path(each["directory"])).strip() for each in handles]
    assert logs == ["on 0 by PCI_BUS_ID ready", "on 1 by PCI_BUS_ID ready"]
    third = GPUS.submit(spec(f"echo on $CUDA_VISIBLE_DEVICES; {METRIC}", "c"))
    eventually(lambda: state(third) is State.QUEUED)
    assert "trial a (pid" in waits_for(third)
    assert "has GPU 1" in waits_for(third)
    GPUS.cancel(handles[1])
    assert result_of(third).outcome is Outcome.COMPLETED
    assert log_of(Path(third["directory"])).startswith("on 1\n")


def test_trial_may_have_several_gpus(spec: Callable[..., TrialSpec], world: World) -> None:
    world(gpu(0), gpu(1))
    handle = LocalExecutor(Slot(gpus=2)).submit(spec(f"echo $CUDA_VISIBLE_DEVICES; {METRIC}", "t"))
    assert (result_of(handle).device, log_of(Path(handle["directory"]))[:4]) == ("2 x Fake 9000", "0,1\n")
    result = result_of(LocalExecutor(Slot(gpus=3)).submit(spec(METRIC, "more")))
    assert (result.cause, result.reason) == (
        "device", "executor.gpus_per_trial is 3, and there are 2 that a trial may have"
    )  # fmt: skip


DIVIDED = gpu(
    1, name="A100", mig=[{"uuid": f"MIG-{letter}", "name": "A100 MIG 3g", "total_mib": 40_000} for letter in "xy"]
)


@pytest.mark.parametrize(
    ("asked", "caller", "gpus", "expected"),
    [
        ("auto", None, [gpu(0), gpu(1)], ["0", "1"]),
        ("cpu", None, [gpu(0)], []),
        ("auto", "", [gpu(0)], []),
        ("auto", "1", [gpu(0), gpu(1)], ["1"]),
        ("auto", "1,0", [gpu(0), gpu(1)], ["1", "0"]),
        ("auto", "GPU-00000001", [gpu(0), gpu(1)], ["1"]),
        ("1", None, [gpu(0), gpu(1)], ["1"]),
        ("1,0", "0,1", [gpu(0), gpu(1)], ["1", "0"]),
        ("GPU-00000001-aaaa", None, [gpu(0), gpu(1)], ["1"]),
        ("auto", None, [gpu(0, name="Small", total_mib=8_000), gpu(1), gpu(2)], ["1", "2"]),
        ("auto", None, [DIVIDED], ["MIG-x", "MIG-y"]),
        ("MIG-y", None, [gpu(0), DIVIDED], ["MIG-y"]),
        ("auto", "MIG-x", [gpu(0), DIVIDED], ["MIG-x"]),
    ],
)
def test_settings_and_caller_choose_the_gpus(
    asked: str, caller: str | None, gpus: list[dict[str, Any]], expected: list[str], own_eyes: World
) -> None:
    own_eyes(*gpus)
    env = {} if caller is None else {"CUDA_VISIBLE_DEVICES": caller}
    assert [each.visible for each in eligible_devices(asked, env)] == expected


@pytest.mark.parametrize(
    ("asked", "caller", "gpus", "told"),
    [
        ("2", None, [gpu(0)], "names 2; there are GPU 0"),
        ("0", "1", [gpu(0), gpu(1)], "names 0, which CUDA_VISIBLE_DEVICES=1 hides"),
        ("0", "", [gpu(0)], "CUDA_VISIBLE_DEVICES hides it"),
        ("0,1", None, [gpu(0), gpu(1, name="Other")], "several kinds (Fake 9000, Other)"),
    ],
)
def test_gpus_that_cannot_be_had_are_refused(
    asked: str, caller: str | None, gpus: list[dict[str, Any]], told: str, own_eyes: World
) -> None:
    own_eyes(*gpus)
    with pytest.raises(MachineError, match=re.escape(told)):
        eligible_devices(asked, {} if caller is None else {"CUDA_VISIBLE_DEVICES": caller})


def test_gpu_that_is_not_there_is_told_as_the_machines_fault(spec: Callable[..., TrialSpec], world: World) -> None:
    world(gpu(0))
    result = result_of(LocalExecutor(Slot(devices="7")).submit(spec(METRIC, "t")))
    assert (result.outcome, result.cause) == (Outcome.CRASHED, "device")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "300"])
    yield process
    process.kill()
    process.wait()


def test_busy_gpu_is_waited_for_and_then_refused(
    spec: Callable[..., TrialSpec], world: World, stranger: subprocess.Popen[bytes]
) -> None:
    world(gpu(0, processes=[{"pid": stranger.pid, "mib": 3072}]))
    handle = LocalExecutor(Slot(patience_s=0.5)).submit(spec(METRIC, "t"))
    eventually(lambda: state(handle) is State.QUEUED)
    result = result_of(handle)
    assert (result.outcome, result.cause) == (Outcome.INTERRUPTED, "device_busy")
    assert result.reason == (f"sleep (pid {stranger.pid}, 3072 MiB) computes on GPU 0; waited 0.5 s for that to end")


def test_trial_starts_when_the_stranger_has_gone(
    spec: Callable[..., TrialSpec], world: World, stranger: subprocess.Popen[bytes]
) -> None:
    world(gpu(0, processes=[{"pid": stranger.pid, "mib": 3072}]))
    handle = GPUS.submit(spec(METRIC, "t"))
    eventually(lambda: "sleep (pid" in waits_for(handle))
    stranger.kill()
    stranger.wait()
    result = result_of(handle)
    assert (result.outcome, result.disturbed) == (Outcome.COMPLETED, "")


@pytest.mark.parametrize(
    ("state_of_gpu", "told"),
    [
        ({"hidden_mib": 1200, "percent": 97}, "97 % busy with 1200 MiB of processes that cannot be seen here"),
        ({"hidden_mib": 50_000}, "30000 of 80000 MiB are free on GPU 0, and a trial takes 45000"),
    ],
)
def test_gpu_without_room_is_refused(
    state_of_gpu: dict[str, int], told: str, spec: Callable[..., TrialSpec], world: World
) -> None:
    world(gpu(0, **state_of_gpu))
    handle = LocalExecutor(Slot(patience_s=0.0)).submit(spec(METRIC, "t", gpu_mib=45_000.0))
    result = result_of(handle)
    assert result.cause == "device_busy"
    assert told in result.reason


def test_other_gpu_is_taken_where_one_is_busy_and_a_desktop_is_no_stranger(
    spec: Callable[..., TrialSpec], world: World, stranger: subprocess.Popen[bytes]
) -> None:
    own = {"pid": stranger.pid, "mib": 300}
    world(gpu(0, processes=[own]), gpu(1, processes=[{**own, "draws": True}]))
    handle = GPUS.submit(spec(f"echo on $CUDA_VISIBLE_DEVICES; {METRIC}", "t"))
    assert result_of(handle).outcome is Outcome.COMPLETED
    assert log_of(Path(handle["directory"])).startswith("on 1\n")


def test_stranger_beside_a_trial_is_flagged(
    spec: Callable[..., TrialSpec], world: World, stranger: subprocess.Popen[bytes]
) -> None:
    world(gpu(0))
    handle = start(GPUS, spec(f"echo ready; sleep 2; {METRIC}", "t"))
    world(gpu(0, processes=[{"pid": stranger.pid, "mib": 900}, {"pid": int(handle["id"]), "mib": 1, "draws": True}]))
    result = result_of(handle)
    assert (result.outcome, result.metric) == (Outcome.COMPLETED, 0.5)
    assert result.disturbed == f"on the same GPU computed sleep (pid {stranger.pid}, 900 MiB)"


def test_own_processes_are_no_strangers(spec: Callable[..., TrialSpec], world: World) -> None:
    world(gpu(0))
    handle = start(GPUS, spec(f"echo ready; sleep 1.5; {METRIC}", "t"))
    command = eventually(lambda: [pid for pid in pids() if command_line(pid) == ["sleep", "1.5"]])
    world(gpu(0, processes=[{"pid": pid, "mib": 900} for pid in command]))
    result = result_of(handle)
    assert (result.outcome, result.disturbed, result.peak_mem_mib) == (Outcome.COMPLETED, "", 900.0)


def test_memory_that_stays_in_use_is_flagged(spec: Callable[..., TrialSpec], world: World) -> None:
    world(gpu(0))
    handle = start(GPUS, spec(f"echo ready; {LONG}", "t"))
    world(gpu(0, hidden_mib=1200))
    GPUS.cancel(handle)
    result = result_of(handle)
    assert result.outcome is Outcome.INTERRUPTED
    assert result.disturbed == "1200 MiB more than before it are in use on GPU 0 after its end"


# --- settings and what the scripts say -----------------------------------------------------------


def test_settings_make_the_slot() -> None:
    assert executor_for(ExecutorSettings()).slot == Slot()  # type: ignore[attr-defined]
    options = {"gpus_per_trial": 2, "cpus_per_trial": 0.5, "wait_for_gpu_s": 30}
    executor = executor_for(ExecutorSettings(devices="0,1", options=options))
    assert executor.slot == Slot(devices="0,1", gpus=2, cpus=0.5, patience_s=30.0)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gpus_per_trial": 0}, "executor.gpus_per_trial is 0; expected a whole number"),
        ({"gpus_per_trial": 1.5}, "executor.gpus_per_trial is 1.5"),
        ({"cpus_per_trial": -1}, "executor.cpus_per_trial is -1"),
        ({"cpus_per_trial": 1.5}, "whole cores, or a share of one"),
        ({"cpus_per_trial": True}, "executor.cpus_per_trial is True"),
        ({"wait_for_gpu_s": "long"}, "executor.wait_for_gpu_s is 'long'"),
        ({"cpu_per_trial": 1}, "did you mean cpus_per_trial?"),
        ({"parallell": 2}, "did you mean parallel?"),
        ({"foo": 2}, "executor.foo is not a setting of local."),
    ],
)
def test_mistaken_setting_is_told(options: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=re.escape(told)) as caught:
        executor_for(ExecutorSettings(options=options))
    assert "`executor` may say: kind, devices, parallel, gpus_per_trial, " in caught.value.hint


def test_campaign_says_what_it_waits_for_and_what_disturbed_it(
    tmp_path: Path, run_script: RunScript, world: World, stranger: subprocess.Popen[bytes]
) -> None:
    world(gpu(0))
    one, two = (make_loop(tmp_path / name / "project", run_script) for name in ("one", "two"))
    with one.holding():
        one.submit("baseline", "--wait", 0, expect=10)
        assert one.look()["running"]["waits_for"] == ""
        two.submit("baseline", "--wait", 0, expect=10)
        running = eventually(lambda: (found := two.look()["running"])["waits_for"] and found)
        assert re.fullmatch(r"trial apr5\.0\.1\.seed1 \(pid \d+\) has GPU 0", running["waits_for"])
        assert running["elapsed_s"] == 0.0
        glance = Observer(two.folder, None).look()
        assert not isinstance(glance, str)
        assert glance.running is not None
        assert glance.running.waits_for == running["waits_for"]
        said = run_script("status", cwd=two.folder)
        assert f"queued: baseline trial of experiment 0 at seed 1 waits: {running['waits_for']}" in said.stdout
        assert "next: a trial waits for its slot on this machine" in said.stdout
        world(gpu(0, processes=[{"pid": stranger.pid, "mib": 900}]))
        time.sleep(1.2)  # two looks of the runner
        stranger.kill()
        stranger.wait()
    for loop in (one, two):
        assert loop.look("--wait", DEADLINE_S)["state"] == "idle"
    flagged = [trial for trial in one.trials() if trial.result and trial.result.disturbed]
    assert [trial.seed for trial in flagged] == [1]
    assert [event for event in one.look()["events"] if "disturbed: trial apr5.0.1.seed1: on the same GPU" in event]


def test_leases_lie_in_one_folder_whatever_the_session_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_NAME)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/nowhere")
    monkeypatch.setenv("TMPDIR", "/nowhere")
    folder = leases_folder()
    assert folder == Path(f"/tmp/autoresearch-{os.getuid()}")
    assert folder.stat().st_mode & 0o777 == 0o700
