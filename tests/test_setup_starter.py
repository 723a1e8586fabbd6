from __future__ import annotations

import json
from pathlib import Path

from tests.conftest import ROOT, RunScript
from tests.setup_bench import Bench, make_bench

from autoresearch.campaign.starter import starter_files


def prepared(home: Path) -> None:
    cache = home / ".cache" / "autoresearch" / "nanogpt"
    cache.mkdir(parents=True)
    (cache / "corpus.npz").write_bytes(b"0")


def test_starter_makes_a_folder_a_repository_with_a_campaign(tmp_path: Path, run_script: RunScript, home: Path) -> None:
    prepared(home)
    bench = Bench(folder=tmp_path / "new" / "project", run=run_script)
    done = run_script(
        "setup_campaign",
        "--starter",
        "nanogpt",
        "--project",
        bench.folder,
        "--tag",
        "a",
        "--json",
        cwd=tmp_path,
    )
    data = json.loads(done.stdout)["data"]
    assert (data["config"]["metric"]["name"], data["config"]["edit"]) == ("val_bpb", ["train.py"])
    assert bench.git("log", "--format=%s").splitlines()[-1] == "Start from the starter nanogpt"
    assert bench.git("rev-parse", "autoresearch/a") == data["base_commit"] == bench.git("rev-parse", "HEAD")
    committed = bench.git("ls-tree", "--name-only", "HEAD").split()
    assert committed == sorted(starter_files("nanogpt"))
    assert bench.status() == ""
    source = ROOT / "templates" / "starters" / "nanogpt" / "train.py"
    assert (bench.folder / "train.py").read_bytes() == source.read_bytes()


def test_starter_without_data_stops_with_the_command_and_goes_on_afterwards(
    tmp_path: Path, run_script: RunScript, home: Path
) -> None:
    bench = Bench(folder=tmp_path / "project", run=run_script)
    arguments = ("setup_campaign", "--starter", "nanogpt", "--project", bench.folder, "--tag", "a", "--json")
    done = run_script(*arguments, cwd=tmp_path)
    assert done.returncode == 5
    assert json.loads(done.stdout)["error"]["hint"] == f"cd {bench.folder} && python prepare.py"
    prepared(home)
    assert run_script(*arguments, cwd=tmp_path).returncode == 0


def test_starter_in_a_repository_becomes_part_of_the_base_and_of_no_branch_of_the_user(
    tmp_path: Path, run_script: RunScript, home: Path
) -> None:
    prepared(home)
    bench = make_bench(tmp_path / "project", run_script, {"theirs.txt": "x\n"})
    bench.write({"mine.txt": "x\n"})
    bench.setup("--starter", "nanogpt", "--tag", "a")
    assert bench.git("ls-tree", "--name-only", "main") == "theirs.txt"
    assert "train.py" in bench.git("ls-tree", "--name-only", "HEAD").splitlines()
    assert bench.status() == "?? mine.txt"


def test_starter_in_place_of_a_file_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    (tmp_path / "file").touch()
    done = run_script("setup_campaign", "--starter", "nanogpt", "--project", tmp_path / "file", "--json", cwd=tmp_path)
    assert done.returncode == 2
    assert "is not a folder" in json.loads(done.stdout)["error"]["message"]


def test_starter_dry_run_writes_nothing(tmp_path: Path, run_script: RunScript) -> None:
    target = tmp_path / "project"
    done = run_script(
        "setup_campaign", "--starter", "nanogpt", "--project", target, "--dry-run", "--json", cwd=tmp_path
    )
    data = json.loads(done.stdout)["data"]
    assert data["config"]["metric"]["name"] == "val_bpb"
    assert str(target) in data["done"][0]
    assert not target.exists()


def test_starter_below_a_file_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    (tmp_path / "file").write_text("x\n")
    for flags in ((), ("--dry-run",)):
        for place in ("file", "file/x", "file/x/y"):
            done = run_script(
                "setup_campaign", "--starter", "rl", "--project", tmp_path / place, *flags, "--json", cwd=tmp_path
            )
            assert done.returncode == 2
            assert "is not a folder" in json.loads(done.stdout)["error"]["message"]


def test_flag_that_does_not_fit_copies_no_starter(tmp_path: Path, run_script: RunScript) -> None:
    folder = tmp_path / "project"
    done = run_script("setup_campaign", "--starter", "rl", "--project", folder, "--budget", "-5", cwd=tmp_path)
    assert done.returncode == 2
    assert not folder.exists()
