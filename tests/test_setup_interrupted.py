from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import RunScript
from tests.setup_bench import PLAIN, SCRIPT, Bench, make_bench

from autoresearch.campaign.opened import open_ledger


@pytest.fixture
def plain(tmp_path: Path, run_script: RunScript) -> Bench:
    return make_bench(tmp_path / "project", run_script, PLAIN)


def test_of_two_set_ups_at_once_one_wins(plain: Bench) -> None:
    command = [sys.executable, str(SCRIPT), "--tag", "a", "--json"]
    both = [
        subprocess.Popen(command, cwd=plain.folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    answers = [json.loads(process.communicate(timeout=60)[0]) for process in both]
    assert sorted(process.returncode for process in both) in ([0, 4], [0, 10])
    (error,) = [answer["error"] for answer in answers if not answer["ok"]]
    assert error["code"] in ("locked", "tag_taken")
    assert plain.status() == ""


# Ends the script at its n-th act that could matter: a process started, a file opened, renamed, or removed.
KILLED = """
import os, runpy, signal, sys
left = int(sys.argv[1])
sys.argv = sys.argv[2:]
def hook(event, arguments):
    global left
    if event in ("subprocess.Popen", "os.rename", "os.remove", "os.mkdir", "sqlite3.connect") or (
        event == "open" and arguments[0] is not None and ".git/autoresearch" in str(arguments[0])
    ):
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(hook)
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("tracked_memo", [False, True])
def test_killed_set_up_is_completed_by_the_same_command(
    tmp_path: Path, run_script: RunScript, tracked_memo: bool
) -> None:
    """Each kill in a fresh clone; afterwards everything is as a set-up without a kill leaves it."""
    files = {**PLAIN, "CLAUDE.md": "Rules.\n"} if tracked_memo else PLAIN
    origin = make_bench(tmp_path / "origin", run_script, files)

    def outcome(bench: Bench) -> dict[str, object]:
        campaign = bench.campaign("a")
        assert campaign is not None
        assert bench.git("rev-parse", "HEAD", "autoresearch/a").split() == [campaign.base_commit] * 2
        assert bench.git("fsck", "--strict", "--no-dangling") == ""
        state = bench.state()
        return {
            **{key: state[key] for key in ("HEAD", "index", "exclude", "results.tsv", "CLAUDE.md", "train.py")},
            "tree": bench.git("rev-parse", "HEAD^{tree}"),
            "status": bench.status(),
            # Killed after the config file was written, the same settings are found in it.
            "setup": {**campaign.setup, "findings": [], "notes": []},
            "config": campaign.config,
        }

    def fresh(name: str) -> Bench:
        bench = Bench(folder=tmp_path / name, run=run_script)
        origin.git("clone", "-q", str(origin.folder), str(bench.folder))
        bench.write({"results.tsv": "mine\n", "notes.md": "notes\n"})
        return bench

    whole = fresh("whole")
    whole.setup("--tag", "a")
    expected = outcome(whole)
    at, killed = 12, 0  # the first dozen acts are reads
    while True:
        bench = fresh(f"killed-{at}")
        script = [sys.executable, "-c", KILLED, str(at), str(SCRIPT), "--tag", "a"]
        code = subprocess.run(script, cwd=bench.folder, check=False, capture_output=True, timeout=60).returncode
        if code == 0:
            break
        assert code == -9
        killed += 1
        bench.setup("--tag", "a")
        assert outcome(bench) == expected, f"killed at act {at}"
        assert (bench.folder / "results.tsv.before-a").read_text() == "mine\n"
        at += 6
    assert killed > 4


def interrupted(bench: Bench, tag: str = "a") -> None:
    """Leave behind what a set-up leaves that was killed right after it had written the ledger's row."""
    bench.setup("--tag", tag)
    with open_ledger(bench.folder) as (_, ledger):
        campaign = ledger.campaign(tag)
        assert campaign is not None
        campaign.setup["complete"] = False
        ledger.update_campaign(campaign, "setup")
    bench.git("symbolic-ref", "HEAD", "refs/heads/main")
    bench.git("reset", "-q")
    bench.git("branch", "-D", f"autoresearch/{tag}")


def test_interrupted_set_up_is_completed_without_its_tag(plain: Bench) -> None:
    interrupted(plain)
    assert plain.setup()["tag"] == "a"
    assert plain.git("branch", "--show-current") == "autoresearch/a"
    assert plain.status() == ""


def test_interrupted_set_up_is_not_completed_under_other_settings(plain: Bench) -> None:
    interrupted(plain)
    error = plain.setup("--budget", "7", expect=4)
    assert error["code"] == "interrupted_setup"
    assert "--tag a" in error["hint"]


def test_interrupted_set_up_is_not_completed_on_another_commit(plain: Bench) -> None:
    interrupted(plain)
    plain.git("switch", "-q", "-c", "other")
    plain.git("commit", "-q", "--allow-empty", "-m", "Other")
    error = plain.setup(expect=6)
    assert error["code"] == "head_moved"
    assert error["hint"].startswith("git switch main")
