"""Doctor on machines and projects as they are: real repositories, real trials, clients that are small programs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import venv
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import BRANCH, CONFIG, TAG, Loop, make_loop, make_measured_loop, script_main
from tests.setup_bench import PLAIN, Bench, make_bench
from tests.trial_bench import eventually

from autoresearch.agents.check_device import check_clock
from autoresearch.agents.check_project import check_bytecode
from autoresearch.agents.checks import require
from autoresearch.agents.night import Night, NightFolder, Options
from autoresearch.agents.profile import load_profile
from autoresearch.errors import MachineError
from autoresearch.trial import SPEC_FILE, TrialSpec

CLAUDE = "echo '2.1.197 (Claude Code)'"
KEYS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "CLAUDE_CODE_OAUTH_TOKEN", "OPENAI_API_KEY", "IS_SANDBOX")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root is refused")


class Machine:
    """A PATH of its own, with the tools of this machine and whatever else is put there."""

    def __init__(self, folder: Path) -> None:
        self.bin = folder
        folder.mkdir()
        for tool in ("git", "tmux", "sh", "python3", "env", "sleep"):
            (folder / tool).symlink_to(sys.executable if tool == "python3" else str(shutil.which(tool)))

    def put(self, name: str, script: str) -> None:
        (self.bin / name).unlink(missing_ok=True)
        (self.bin / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.bin / name).chmod(0o755)

    def remove(self, name: str) -> None:
        (self.bin / name).unlink()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(machine.bin))
    for name in KEYS:
        monkeypatch.delenv(name, raising=False)
    return machine


@pytest.fixture
def bench(tmp_path: Path, run_script: RunScript) -> Bench:
    """A project without a campaign."""
    return make_bench(tmp_path / "project", run_script, PLAIN)


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with a campaign and a baseline."""
    loop = make_measured_loop(tmp_path / "project", run_script)
    return loop


def answer(folder: Path, *arguments: str) -> tuple[int, dict[str, Any]]:
    out, on_sigterm = io.StringIO(), signal.getsignal(signal.SIGTERM)
    try:
        with contextlib.chdir(folder), contextlib.redirect_stdout(out):
            code = script_main("doctor")([*arguments, "--json"])
    finally:
        signal.signal(signal.SIGTERM, on_sigterm)
    return code, json.loads(out.getvalue())


def examine(folder: Path, *arguments: str) -> dict[str, tuple[str, str, str]]:
    """``{check: (status, text, hint)}``; code and error agree with it."""
    code, said = answer(folder, *arguments)
    checks = said["data"]["checks"]
    wrong = [check["name"] for check in checks if check["ok"] is False]
    assert code == (5 if wrong else 0)
    assert said["ok"] is (code == 0)
    if wrong:
        assert said["error"]["message"] == f"Not ready: {', '.join(wrong)}."
    return {check["name"]: (check["status"], check["text"], check["hint"]) for check in checks}


# ---- tools and client


def test_ready_machine_is_told_so_and_nothing_is_changed(machine: Machine, bench: Bench) -> None:
    machine.put("claude", CLAUDE)
    before = bench.state()
    checks = examine(bench.folder, "--session", "apr5")
    assert {name for name, (status, _, _) in checks.items() if status == "failed"} == set()
    assert checks.keys() >= {
        *("python", "packages", "git", "tmux", "agent", "identity", "project", "campaign", "data", "disk", "gpu"),
        *("cpu", "clock", "trials", "session"),
    }
    assert "val_loss" in checks["campaign"][1]
    assert bench.state() == before


def test_text_names_every_check_and_what_helps(machine: Machine, bench: Bench) -> None:
    machine.remove("tmux")
    done = bench.run("doctor", cwd=bench.folder)
    assert done.returncode == 5
    assert "failed   tmux" in done.stdout
    assert "→ apt install tmux" in done.stdout
    assert done.stderr.startswith("doctor: Not ready: tmux.")


@pytest.mark.parametrize(
    ("script", "status", "words"),
    [
        (CLAUDE, "ok", "2.1.197"),
        ("echo 1.0.3", "failed", "expected 2.1.0 or newer"),
        ("echo hello", "failed", "version unknown"),
        ("echo no node here >&2; exit 127", "failed", "no node here"),
    ],
)
def test_client_is_asked_for_its_version(machine: Machine, bench: Bench, script: str, status: str, words: str) -> None:
    machine.put("claude", script)
    found, text, hint = examine(bench.folder)["agent"]
    assert (found, words in text) == (status, True)
    assert hint == ("" if status == "ok" else "npm install -g @anthropic-ai/claude-code")


def test_first_client_that_is_installed_is_taken(machine: Machine, bench: Bench) -> None:
    status, text, _ = examine(bench.folder)["agent"]
    assert (status, "none of claude" in text) == ("warning", True)
    for name, said in (("opencode", "1.18.33"), ("gemini", "0.61.0"), ("codex", "codex-cli 0.169.0")):
        machine.put(name, f"echo {said}")
        assert said.split()[-1] in examine(bench.folder)["agent"][1]


def test_client_that_was_asked_for_must_be_there(machine: Machine, bench: Bench) -> None:
    machine.put("codex", "echo 0.169.0")
    assert examine(bench.folder, "--agent", "claude")["agent"][0] == "failed"
    assert examine(bench.folder, "--agent", "scripted")["agent"][0] == "ok"
    assert "neither bundled" in examine(bench.folder, "--agent", "nobody")["agent"][1]
    (bench.folder / "mine.yaml").write_text("extends: claude\nbinary: my-claude\n")
    machine.put("my-claude", CLAUDE)
    assert examine(bench.folder, "--agent", str(bench.folder / "mine.yaml"))["agent"][0] == "ok"


def test_key_or_login_is_found_and_never_shown(
    machine: Machine, bench: Bench, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.put("claude", CLAUDE)
    assert examine(bench.folder)["login"][0] == "warning"
    (home / ".claude").mkdir()
    (home / ".claude" / ".credentials.json").write_text('{"token": "secret-token"}')
    assert examine(bench.folder)["login"][:2] == ("ok", "~/.claude/.credentials.json is there")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "secret-key")
    assert examine(bench.folder)["login"][:2] == ("ok", "ANTHROPIC_API_KEY is set")
    assert "secret" not in json.dumps(answer(bench.folder))


@as_root
def test_root_is_told_what_the_client_wants(machine: Machine, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.put("claude", CLAUDE)
    status, _, hint = examine(bench.folder)["root"]
    assert (status, "--sandboxed" in hint) == ("warning", True)
    monkeypatch.setenv("IS_SANDBOX", "1")
    assert examine(bench.folder)["root"][0] == "ok"


@pytest.mark.parametrize(
    ("name", "script", "words"),
    [
        ("git", "echo git version 2.20.1", "expected 2.30 or newer"),
        ("tmux", "echo tmux 3.1c", "expected 3.2 or newer"),
        ("git", "exit 1", "failed"),
    ],
)
def test_tool_that_is_too_old_is_told(machine: Machine, bench: Bench, name: str, script: str, words: str) -> None:
    machine.put(name, script)
    status, text, _ = examine(bench.folder)[name]
    assert (status, words in text) == ("failed", True)


def test_missing_git_is_told(machine: Machine, tmp_path: Path) -> None:
    machine.remove("git")
    status, text, hint = examine(tmp_path)["git"]
    assert (status, text) == ("failed", "git is not installed")
    assert "apt install git" in hint


def test_missing_name_of_the_user_is_a_warning(machine: Machine, bench: Bench, home: Path) -> None:
    (home / ".gitconfig").write_text("[user]\n    useConfigOnly = true\n")
    status, _, hint = examine(bench.folder)["identity"]
    assert (status, "git config --global user.name" in hint) == ("warning", True)


def test_missing_packages_are_named_by_an_interpreter_that_lacks_them(bench: Bench, tmp_path: Path) -> None:
    venv.create(tmp_path / "bare", symlinks=True)
    done = subprocess.run(
        [tmp_path / "bare" / "bin" / "python", ROOT / "scripts" / "doctor.py", "--json"],
        cwd=bench.folder, capture_output=True, encoding="utf-8", check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["data"]["checks"]}
    assert checks["git"]["ok"]
    assert not checks["packages"]["ok"]
    assert {"pyyaml", "psutil", "gitpython"} <= set(checks["packages"]["text"].replace(",", "").split())
    assert "pip install" in checks["packages"]["hint"]


# ---- the project


def test_folder_without_a_repository(machine: Machine, tmp_path: Path) -> None:
    status, text, hint = examine(tmp_path)["project"]
    assert (status, "not in a git repository" in text, "init" in hint) == ("failed", True, True)


def test_repository_without_a_commit(machine: Machine, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    checks = examine(tmp_path)
    assert (checks["project"][0], "commit -m start" in checks["project"][2]) == ("failed", True)
    assert "campaign" not in checks


def test_unfinished_merge(machine: Machine, bench: Bench) -> None:
    bench.git("switch", "-q", "-c", "other")
    bench.commit({"lib.py": "X = 2\n"})
    bench.git("switch", "-q", "main")
    bench.commit({"lib.py": "X = 3\n"})
    subprocess.run(["git", "merge", "-q", "other"], cwd=bench.folder, capture_output=True, check=False)
    assert examine(bench.folder)["project"][2] == "Finish it, or: git merge --abort"


def test_set_up_that_would_be_refused_is_told(machine: Machine, bench: Bench) -> None:
    bench.write({"lib.py": "X = 5\n"})
    status, text, hint = examine(bench.folder)["campaign"]
    assert (status, "lib.py" in text, "git stash" in hint) == ("failed", True, True)


def test_training_that_is_not_found_is_told(machine: Machine, tmp_path: Path, run_script: RunScript) -> None:
    bench = make_bench(tmp_path / "project", run_script, {"README.md": "Nothing yet.\n"})
    status, _, hint = examine(bench.folder)["campaign"]
    assert (status, "setup_campaign.py --command" in hint) == ("failed", True)


def test_campaign_needs_its_branch(machine: Machine, loop: Loop) -> None:
    checks = examine(loop.folder)
    assert (checks["campaign"][:2], checks["branch"][0]) == (("ok", f"{TAG}: 1 keep"), "ok")
    for arguments in (("--detach",), ("main",)):
        loop.git("switch", "-q", *arguments)
        status, _, hint = examine(loop.folder)["branch"]
        assert (status, hint) == ("failed", f"git switch {BRANCH}")


def test_data_that_is_gone_or_changed(machine: Machine, tmp_path: Path, run_script: RunScript) -> None:
    data = tmp_path / "corpus"
    data.mkdir()
    (data / "part").write_text("one")
    config = "command: python3 -S train.py\nmetric: {name: val_bpb}\nedit: [train.py]\n" + f"data: [{data}]\n"
    loop = make_loop(tmp_path / "project", run_script, config=config)
    assert examine(loop.folder)["data"][0] == "ok"
    (data / "part").write_text("other")
    assert "part changed" in examine(loop.folder)["data"][1]
    shutil.rmtree(data)
    assert examine(loop.folder)["data"][:2] == ("failed", f"not there: {data}")


def test_environment_that_drifted(
    machine: Machine, loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert examine(loop.folder)["environment"][:2] == ("ok", "as at the baseline")
    (tmp_path / "more" / "newcomer-1.2.dist-info").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "more"))
    status, text, _ = examine(loop.folder)["environment"]
    assert (status, "newcomer: absent → 1.2" in text) == ("warning", True)


def test_bytecode_that_no_trial_may_keep(
    machine: Machine, tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CONFIG.replace("PYTHONDONTWRITEBYTECODE=1 ", "")
    loop = make_loop(tmp_path / "project", run_script, config=config)
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    assert "bytecode" not in examine(loop.folder)
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    status, text, hint = examine(loop.folder)["bytecode"]
    assert (status, hint) == ("warning", "unset PYTHONDONTWRITEBYTECODE")
    assert text.startswith("PYTHONDONTWRITEBYTECODE=1 reaches the trials")
    loop.baseline()
    spec = TrialSpec.read(Path(loop.trials()[-1].directory) / SPEC_FILE)
    assert spec.env["PYTHONDONTWRITEBYTECODE"] == "1", "and it does"


@pytest.mark.parametrize(
    ("command", "hint"),
    [
        ("PYTHONDONTWRITEBYTECODE= python3 train.py", None),
        ("./train.sh python", None),
        ("", None),
        ("uv run train.py", "unset PYTHONDONTWRITEBYTECODE"),
        ("A=1 .venv/bin/python3.12 train.py", "unset PYTHONDONTWRITEBYTECODE"),
        (
            "A=1 PYTHONDONTWRITEBYTECODE=x python train.py --name='a b'",
            """setup_campaign.py --reconfigure --command 'A=1 python train.py --name='"'"'a b'"'"''""",
        ),
    ],
)
def test_bytecode_is_a_matter_of_python_alone(command: str, hint: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    found = list(check_bytecode(command))
    assert [(check.ok, check.hint.removeprefix("python scripts/")) for check in found] == [(None, hint)] * bool(hint)


# ---- the disk


@contextlib.contextmanager
def disk_of(size: str, disk: Path) -> Iterator[Path]:
    """A file system of its own."""
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(disk)]
    if (mounted := subprocess.run(command, capture_output=True, text=True, check=False)).returncode:
        pytest.skip(f"a small disk needs the right to mount one: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def test_disk_that_is_full_or_read_only(tmp_path: Path, run_script: RunScript) -> None:
    with disk_of("40m", tmp_path / "disk") as disk:
        bench = make_bench(disk / "project", run_script, PLAIN)
        status, text, hint = examine(bench.folder)["disk"]
        assert (status, "MiB free" in text, hint.startswith("df -h ")) == ("failed", True, True)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        status, text, _ = examine(bench.folder)["disk"]
        assert (status, "cannot be written" in text) == ("failed", True)


def test_room_is_measured_by_what_trials_took(tmp_path: Path, run_script: RunScript) -> None:
    with disk_of("600m", tmp_path / "disk") as disk:
        loop = make_loop(disk / "project", run_script)
        loop.baseline()
        assert "a trial takes" in examine(loop.folder)["disk"][1]
        trial = next(path for path in (loop.state_dir / TAG / "trials").iterdir() if path.is_dir())
        (trial / "checkpoint").write_bytes(bytes(10 * 2**20))
        status, text, _ = examine(loop.folder)["disk"]
        assert (status, "so it is full after 1" in text) == ("warning", True)


# ---- what others left


def test_trial_that_runs_and_one_that_died(machine: Machine, loop: Loop) -> None:
    with loop.holding():
        loop.submit("slow", "--wait", 0, expect=10, LR=8)
        eventually(loop.processes)
        status, text, _ = examine(loop.folder)["trials"]
        assert (status, text.endswith("is running")) == ("ok", True)
        (running,) = [trial for trial in loop.trials() if trial.result is None]
        os.kill(int(running.handle["id"]), signal.SIGKILL)
        eventually(lambda: examine(loop.folder)["trials"][0] == "warning")
        assert examine(loop.folder)["trials"][2].endswith("scripts/status.py")
    loop.look("--wait", 30)
    assert examine(loop.folder)["trials"][:2] == ("ok", "none is running, none was left behind")


def test_runner_of_a_campaign_that_is_lost(machine: Machine, loop: Loop) -> None:
    with loop.holding():
        loop.submit("slow", "--wait", 0, expect=10, LR=8)
        eventually(loop.processes)
        for file in loop.state_dir.glob("ledger.db*"):
            file.unlink()
        status, _, hint = examine(loop.folder)["trials"]
        assert (status, hint.split()[0]) == ("warning", "kill")
        os.kill(int(hint.split()[1]), signal.SIGTERM)
        eventually(lambda: not loop.processes())
    eventually(lambda: examine(loop.folder)["trials"][0] == "ok")


def test_night_that_runs_already(machine: Machine, loop: Loop) -> None:
    folder = NightFolder.of(loop.state_dir, TAG)
    folder.make()
    folder.write(Night(options=Options(session="apr5", tag=TAG, project=str(loop.folder), agent="claude"), mark="m"))
    assert examine(loop.folder)["night"][:2] == ("ok", "none is under way")
    with folder.watch():
        status, text, hint = examine(loop.folder, "--session", "other")["night"]
        assert (status, "tmux session apr5" in text) == ("warning", True)
        assert hint.endswith("launch_tmux.py --session apr5 --status")


def test_tmux_session_that_is_in_the_way(machine: Machine, bench: Bench) -> None:
    socket = f"doctor-{os.getpid()}"
    tmux = ["tmux", "-L", socket, "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "-s", "apr5", "sleep 60"], check=True)
    path = subprocess.check_output([*tmux, "display-message", "-p", "#{socket_path}"], text=True).strip()
    try:
        checks = examine(bench.folder, "--session", "apr5", "--socket", socket)
        assert (checks["session"][0], f"tmux -L {socket} kill-session" in checks["session"][2]) == ("failed", True)
        assert examine(bench.folder, "--session", "apr", "--socket", socket)["session"][0] == "ok"
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
        Path(path).unlink(missing_ok=True)
    assert examine(bench.folder, "--session", "a.b")["session"][0] == "failed"


# ---- the clock


def test_clock_behind_what_was_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TZ", raising=False)
    assert check_clock(datetime.now(UTC)).ok
    assert check_clock(datetime.now(UTC) + timedelta(hours=1)).ok is None


def test_time_zone_that_does_not_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone, ok in (("Europe/Berlin", True), ("CET-1CEST", True), ("Nowhere/Land", None)):
        monkeypatch.setenv("TZ", zone)
        assert check_clock(None).ok is ok


# ---- for the launcher


def options(bench: Bench, **more: Any) -> Options:
    return Options(session="apr5", tag="apr5", project=str(bench.folder), agent="claude", **more)


def test_launcher_is_refused_by_the_first_check_that_fails(machine: Machine, bench: Bench) -> None:
    claude, night = load_profile("claude"), options(bench, sandboxed=True)
    with pytest.raises(MachineError, match="not installed") as caught:
        require(night, claude)
    assert caught.value.hint == "npm install -g @anthropic-ai/claude-code"
    machine.put("claude", CLAUDE)
    require(night, claude)


@as_root
def test_launcher_is_refused_as_root_unless_that_is_declared(machine: Machine, bench: Bench) -> None:
    machine.put("claude", CLAUDE)
    with pytest.raises(MachineError) as caught:
        require(options(bench), load_profile("claude"))
    assert "--sandboxed" in caught.value.hint
    require(options(bench, permissions="allowlist"), load_profile("claude"))
    require(options(bench), load_profile("scripted"))
