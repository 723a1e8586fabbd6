"""``status.py --watch`` in a real tmux window, over a real campaign."""

from __future__ import annotations

import functools
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import Loop, make_measured_loop
from tests.trial_bench import eventually

from autoresearch.campaign.opened import lock
from autoresearch.report.live import CATCH_UP_BYTES, Glance, LossTrace, Observer
from autoresearch.report.watch import PLAIN_BLOCKS, sparkline
from autoresearch.runner.memory import may_see_gpu
from autoresearch.trial import LIVE_FILE, LOG_FILE, TrialSpec

DEADLINE_S = 40.0

# Prints its progress, then waits for the gate as the toy does.
STEPS = """\
import prepare

LR = 4
for step in range(1, 41):
    print(f"step {step:05d} ({step}.0%) | loss: {8 - step / 10 + LR / 100:.4f}", flush=True)
prepare.hold()
print(f"val_bpb:          {prepare.evaluate_bpb(LR):.6f}")
print(f"peak_vram_mb:     {prepare.peak_vram_mb(LR):.1f}")
"""


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """A campaign with a baseline, a keep and a discard."""
    loop = make_measured_loop(tmp_path / "toy", run_script, files={"train.py": STEPS})
    loop.experiment("自主研究: twice the rate", LR=8)
    loop.experiment("half the rate", LR=2)
    return loop


@dataclass(frozen=True, kw_only=True)
class Window:
    """One tmux window on a server of its own."""

    socket: str

    def tmux(self, *arguments: str) -> str:
        command = ["tmux", "-L", self.socket, "-f", os.devnull, *arguments]
        return subprocess.run(command, check=True, capture_output=True, encoding="utf-8").stdout

    def lines(self) -> list[str]:
        return self.tmux("capture-pane", "-p", "-t", "view").rstrip("\n").split("\n")

    def text(self) -> str:
        return "\n".join(self.lines())

    def shows(self, *texts: str) -> None:
        """Wait until all of ``texts`` are on the screen at once."""
        deadline = time.monotonic() + DEADLINE_S
        while missing := [text for text in texts if text not in self.text()]:
            assert time.monotonic() < deadline, f"{missing} not in\n{self.text()}"
            time.sleep(0.05)

    def process(self) -> psutil.Process:
        """The view itself, below the window's shell."""
        (view,) = psutil.Process(int(self.tmux("display-message", "-p", "-t", "view", "#{pane_pid}"))).children()
        return view


@pytest.fixture
def window(tmp_path: Path) -> Iterator[Window]:
    window = Window(socket=f"watch-{os.getpid()}-{time.monotonic_ns()}")
    yield window
    subprocess.run(["tmux", "-L", window.socket, "kill-server"], check=False, capture_output=True)


def start(window: Window, folder: Path, *arguments: str, size: tuple[int, int] = (60, 20), env: str = "") -> None:
    script = ROOT / "scripts" / "status.py"
    # The shell says how it ended; tmux sometimes does not.
    command = f"trap : INT; {env} {sys.executable} {script} --watch {' '.join(arguments)}; echo exit code $?; sleep 60"
    columns, rows = map(str, size)
    window.tmux(
        *("new-session", "-d", "-s", "view", "-x", columns, "-y", rows, "-c", str(folder), "-e", "LC_ALL=C.UTF-8"),
        *("sh", "-c", command),
    )


# ---- the view


def test_view_shows_the_campaign_and_its_running_trial(loop: Loop, window: Window) -> None:
    with loop.holding():
        loop.submit("a third of the rate", "--wait", 0, expect=10, LR=3)
        start(window, loop.folder)
        window.shows("apr5: val_bpb, lower is better", "4 experiments: 2 kept, 1 discarded, 0 crashed, 1 open")
        rows = loop.call("status")["history"]
        window.shows("experiment 3: a third of the rate", "screen trial at seed 1", "40% of the run", " of 10.0 s")
        window.shows("loss 4.03 █", "Ctrl-C ends this view")
        window.shows(
            *[f"{row['number']} {row['status']:<7}" for row in rows[:-1]], "0.993200", "自主研究: twice the rate"
        )
        if not may_see_gpu(dict(os.environ)):
            window.shows("CPU: ", " GiB")
        shown = window.lines()
        assert len(shown) <= 20
        first, second, third = (next(at for at, row in enumerate(shown) if row.startswith(f"{n} ")) for n in (2, 1, 0))
        assert first < second < third, "the newest decision stands first"
    loop.await_trial()


def is_as_wide(window: Window, columns: int) -> bool:
    return any(set(row) == {"─"} and len(row) == columns for row in window.lines())


def test_view_goes_with_the_size_of_the_terminal(loop: Loop, window: Window) -> None:
    start(window, loop.folder, size=(100, 30))
    window.shows("─" * 100)
    for columns, rows in ((40, 12), (60, 20), (200, 50)):
        window.tmux("resize-window", "-t", "view", "-x", str(columns), "-y", str(rows))
        eventually(functools.partial(is_as_wide, window, columns))
        assert len(window.lines()) == rows
        assert window.lines()[-1].endswith("Ctrl-C ends this view")


def test_view_follows_decisions(loop: Loop, window: Window) -> None:
    start(window, loop.folder)
    window.shows("3 experiments:", "idle: the agent has been thinking for")
    loop.experiment("a fifth of the rate", LR=5)
    window.shows("4 experiments:", "3 keep ")


def test_ctrl_c_ends_the_view_with_0_and_leaves_it_on_the_terminal(loop: Loop, window: Window) -> None:
    start(window, loop.folder)
    window.shows("3 experiments:")
    window.tmux("send-keys", "-t", "view", "C-c")
    window.shows("exit code 0", "3 experiments: 2 kept")
    assert "Traceback" not in window.text()
    assert "Ctrl-C" not in window.text()


def test_view_waits_for_a_campaign_and_survives_its_loss(loop: Loop, window: Window, git_repo: Path) -> None:
    start(window, git_repo)
    window.shows("There is no campaign in", "Waiting for it.")
    state = loop.state_dir
    state.rename(git_repo / ".git" / "autoresearch")
    window.shows("3 experiments:")
    (git_repo / ".git" / "autoresearch").rename(state)
    window.shows("There is no campaign in")
    git_repo.rename(git_repo.with_name("gone"))
    window.tmux("send-keys", "-t", "view", "C-c")
    window.shows("exit code 0")


def test_view_without_unicode_or_colour(loop: Loop, window: Window) -> None:
    with loop.holding():
        loop.submit("a third of the rate", "--wait", 0, expect=10, LR=3)
        start(window, loop.folder, env="NO_COLOR=1 PYTHONIOENCODING=ascii:replace")
        window.shows("loss 4.03 @", "-" * 60)
        assert not re.search(r"\x1b\[3[1-7]m", window.tmux("capture-pane", "-p", "-e", "-t", "view"))
    loop.await_trial()


@pytest.mark.parametrize("flags", ["--wait -5", "--wait nan", "--history -5"])
def test_numbers_that_no_look_can_have(tmp_path: Path, run_script: RunScript, flags: str) -> None:
    done = run_script("status", *flags.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert flags.split(maxsplit=1)[0] in done.stderr


def test_watch_is_for_terminals(loop: Loop) -> None:
    done = loop.run("status", "--watch", cwd=loop.folder)
    assert done.returncode == 2
    assert "--watch draws on a terminal" in done.stderr
    assert loop.call("status", "--watch", expect=2)["hint"].endswith(f"status.py --project {loop.folder} --wait 540")


# ---- what it costs and what it does


def test_view_neither_waits_for_the_lock_nor_keeps_it(loop: Loop, window: Window) -> None:
    with lock(loop.state_dir / "apr5", wait_s=1):
        start(window, loop.folder)
        window.shows("3 experiments:")
    for _ in range(100):
        with lock(loop.state_dir / "apr5", wait_s=0):
            time.sleep(0.02)
    assert "3 experiments:" in window.text()


@pytest.mark.slow
def test_view_is_cheap(loop: Loop, window: Window) -> None:
    with loop.holding():
        loop.submit("a third of the rate", "--wait", 0, expect=10, LR=3)
        start(window, loop.folder)
        window.shows("40% of the run")
        process = window.process()
        before, started = process.cpu_times(), time.monotonic()
        time.sleep(9)
        after, elapsed_s = process.cpu_times(), time.monotonic() - started
        used_s = sum(after[:4]) - sum(before[:4])  # its children's too
    loop.await_trial()
    assert used_s / elapsed_s < 0.02


def test_result_that_nobody_takes_in_is_taken_in(loop: Loop) -> None:
    """An agent that died leaves its trial to end; the view goes on as ``status.py`` would."""
    with loop.holding():
        loop.submit("a third of the rate", "--wait", 0, expect=10, LR=3)
        observer = Observer(loop.folder, None)
        glance = seen(observer)
        assert glance.running is not None
        assert not glance.running.ended
    loop.await_trial()
    assert seen(observer).running is not None, "somebody who waits for the trial is let first"
    eventually(lambda: seen(observer).state == "judged")
    assert seen(observer).running is None
    assert loop.trials()[-1].result is not None


def seen(observer: Observer) -> Glance:
    glance = observer.look()
    assert isinstance(glance, Glance), glance
    return glance


# ---- its parts


@dataclass(frozen=True)
class Trace:
    folder: Path

    def write(self, text: str, mode: str = "a") -> None:
        with (self.folder / LOG_FILE).open(mode, encoding="utf-8") as log:
            log.write(text)


@pytest.fixture
def trace(tmp_path: Path) -> Trace:
    spec = TrialSpec(
        trial_id="t", directory=str(tmp_path), command="true", cwd="/", env={}, seed=1, budget_s=10, limit_s=20,
        metric="m", metric_pattern=r"m: (\S+)",
    )  # fmt: skip
    spec.write()
    return Trace(tmp_path)


def losses(*values: float) -> str:
    return "".join(f"step {at} (1%) | loss: {value}\n" for at, value in enumerate(values))


def test_losses_are_read_while_the_log_grows(trace: Trace, tmp_path: Path) -> None:
    reader = LossTrace(tmp_path)
    assert reader.read(0) == (), "there is no log yet"
    trace.write(losses(4.0, 3.5) + "step 2 (1%) | lo")
    assert reader.read(1) == (4.0, 3.5)
    trace.write("ss: 3.25\n")
    assert reader.read(2) == (4.0, 3.5, 3.25)
    assert reader.read(3) == (4.0, 3.5, 3.25)


def test_losses_go_on_after_the_runner_has_cut_the_log(trace: Trace, tmp_path: Path) -> None:
    reader = LossTrace(tmp_path)
    trace.write(losses(*[4.0] * 100))
    reader.read(1)
    trace.write(losses(3.0), mode="w")
    assert reader.read(2)[-1] == 3.0


def test_only_the_end_of_a_long_log_is_read(trace: Trace, tmp_path: Path) -> None:
    trace.write(losses(9.0) + "words\n" * CATCH_UP_BYTES + losses(2.0))
    assert LossTrace(tmp_path).read(1) == (2.0,)


def test_vanished_trial_has_no_losses(tmp_path: Path) -> None:
    assert LossTrace(tmp_path / "gone").read(1) == ()


def test_sparkline_falls_with_the_loss() -> None:
    assert sparkline([8, 7, 6, 5, 4, 3, 2, 1], 8) == "█▇▆▅▄▃▂▁"
    assert sparkline([8, 8, 4.5, 4.5, 1, 1], 3) == "█▅▁" or sparkline([8, 8, 4.5, 4.5, 1, 1], 3) == "█▄▁"
    assert sparkline([1.0], 10) == "▁"
    assert sparkline([3.0] * 50, 20) == "▁" * 20
    assert len(sparkline(list(range(1000)), 33)) == 33
    assert sparkline([2, 1], 2, PLAIN_BLOCKS) == "@_"


def test_trial_is_as_far_as_its_runner_says(loop: Loop) -> None:
    with loop.holding():
        loop.submit("a third of the rate", "--wait", 0, expect=10, LR=3)
        live = Path(loop.trials()[-1].directory) / LIVE_FILE
        eventually(lambda: live.exists() and json.loads(live.read_text())["loss"] is not None)
        glance = seen(Observer(loop.folder, "apr5"))
        running = glance.running
    loop.await_trial()
    assert running is not None
    assert (running.number, running.seed, running.purpose, running.fraction) == (3, 1, "screen", 0.4)
    assert running.losses[0] == pytest.approx(7.93)
    assert running.losses[-1] == running.loss == pytest.approx(4.03)
    assert re.fullmatch(r"CPU: .* GiB", glance.devices[0][1]) or may_see_gpu(dict(os.environ))
