"""Fingerprints of data and environment: what they notice, what they leave alone, what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from autoresearch.errors import MachineError
from autoresearch.guard import data_drift, environment_drift, environment_fingerprint, fingerprint_data

MIB = 2**20


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    (folder / "train").mkdir(parents=True)
    (folder / "train" / "a.bin").write_bytes(b"a" * 1000)
    (folder / "train" / "b.bin").write_bytes(b"b" * 1000)
    (folder / "val.bin").write_bytes(b"v" * 1000)
    return folder


def fingerprint(data: Path, previous: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return fingerprint_data(["data"], data.parent, previous=previous)


# ---- data


def test_fingerprint_counts_and_is_the_same_again(data: Path) -> None:
    first = fingerprint(data)
    assert (first["data"]["files"], first["data"]["bytes"]) == (3, 3000)
    assert fingerprint(data) == first
    assert fingerprint(data, first) == first
    assert data_drift(first, first) == []


def test_drift_names_changed_new_and_missing_files(data: Path) -> None:
    before = fingerprint(data)
    (data / "train" / "a.bin").write_bytes(b"x" * 1000)
    (data / "train" / "b.bin").unlink()
    (data / "train" / "c.bin").write_bytes(b"c")
    (said,) = data_drift(before, fingerprint(data, before))
    assert said == "data: train/a.bin changed, train/b.bin is gone, train/c.bin is new"


def test_touched_files_with_the_same_content_are_no_drift(data: Path) -> None:
    before = fingerprint(data)
    for file in data.rglob("*.bin"):
        os.utime(file, (1, 1))
    assert data_drift(before, fingerprint(data, before)) == []


def test_files_that_come_and_go_by_themselves_are_left_out(data: Path) -> None:
    before = fingerprint(data)
    (data / "tokenizer.lock").touch()
    (data / "part.incomplete").write_bytes(b"x")
    (data / "__pycache__").mkdir()
    (data / "__pycache__" / "x.pyc").write_bytes(b"x")
    assert fingerprint(data) == before


def test_unchanged_listing_spares_reading(data: Path) -> None:
    """A rewrite that keeps size and time is not seen with ``previous``, and seen without."""
    before = fingerprint(data)
    file = data / "val.bin"
    stat = file.stat()
    file.write_bytes(b"w" * 1000)
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert fingerprint(data, before) == before
    assert data_drift(before, fingerprint(data)) == ["data: val.bin changed"]


def test_ends_of_a_large_file_are_hashed(data: Path) -> None:
    large = data / "large.bin"
    large.write_bytes(bytes(3 * MIB))
    before = fingerprint(data)
    with large.open("r+b") as file:
        file.seek(-10, os.SEEK_END)
        file.write(b"x")
    assert data_drift(before, fingerprint(data, before)) == ["data: large.bin changed"]


def test_single_file_and_linked_folder_are_followed(data: Path) -> None:
    link = data.parent / "linked"
    link.symlink_to(data)
    (data / "train" / "loop").symlink_to(data)
    found = fingerprint_data(["data/val.bin", "linked"], data.parent)
    assert found["data/val.bin"]["files"] == 1
    assert found["linked"]["files"] == 3
    (data / "val.bin").write_bytes(b"w" * 1000)
    after = fingerprint_data(["data/val.bin", "linked"], data.parent, previous=found)
    assert data_drift(found, after) == ["data/val.bin: val.bin changed", "linked: val.bin changed"]


def test_home_and_variables_are_expanded(data: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_HOME", str(data))
    (home / "corpus").write_text("text", encoding="utf-8")
    found = fingerprint_data(["~/corpus", "$DATA_HOME/val.bin"], data.parent)
    assert [found[path]["bytes"] for path in found] == [4, 1000]


def test_missing_data_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    (tmp_path / "prepare.py").touch()
    with pytest.raises(MachineError) as missing:
        fingerprint_data(["~/nowhere"], tmp_path)
    assert "~/nowhere" in missing.value.message
    assert "python prepare.py" in missing.value.hint
    (tmp_path / "uv.lock").touch()
    with pytest.raises(MachineError) as missing:
        fingerprint_data(["~/nowhere"], tmp_path)
    assert "uv run prepare.py" in missing.value.hint


def test_unreadable_folder_and_dangling_link_do_not_stop_it(data: Path) -> None:
    (data / "gone").symlink_to(data / "nowhere")
    assert fingerprint(data)["data"]["files"] == 4


def test_many_files_are_summed_up(tmp_path: Path) -> None:
    folder = tmp_path / "data"
    folder.mkdir()
    for number in range(10_000):
        (folder / f"{number:05}.bin").write_bytes(b"%d" % number)
    before = fingerprint(folder)
    assert "named" not in before["data"]
    started = time.process_time()
    assert fingerprint(folder, before) == before
    assert time.process_time() - started < 0.5
    (folder / "00007.bin").write_bytes(b"8")
    assert data_drift(before, fingerprint(folder, before)) == ["data: the content of its 10000 files changed"]
    (folder / "new.bin").write_bytes(b"12345")
    (said,) = data_drift(before, fingerprint(folder, before))
    assert "10000 files of 38890 bytes, now 10001 of 38895" in said


def test_path_that_came_or_went_is_drift(data: Path) -> None:
    one = fingerprint(data)
    assert data_drift(one, {}) == ["data is no longer listed"]
    assert data_drift({}, one) == ["data is new"]


# ---- environment


def environment(python: str | None, cwd: Path, **env: str) -> dict[str, Any]:
    return environment_fingerprint(python, cwd=cwd, env={"PATH": os.environ["PATH"], **env})


def package(folder: Path, name: str, version: str) -> Path:
    made = folder / f"{name}-{version}.dist-info"
    made.mkdir(parents=True)
    (made / "METADATA").write_text(f"Name: {name}\nVersion: {version}\n", encoding="utf-8")
    return made


def test_environment_holds_interpreter_packages_and_machine(tmp_path: Path) -> None:
    found = environment(sys.executable, tmp_path)
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["packages"]["pytest"] == pytest.__version__
    assert found["packages"]["pyyaml"]
    assert found["host"]
    assert found["cpus"] == os.cpu_count()
    assert environment_drift(found, environment(sys.executable, tmp_path)) == []


def test_environment_is_that_of_the_interpreter_asked(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True, timeout=60)
    found = environment("venv/bin/python", tmp_path)
    assert found["packages"] == {}
    assert found["executable"].startswith(str(tmp_path))


def test_command_that_ends_in_an_interpreter_is_asked(tmp_path: Path) -> None:
    found = environment(f"env MARK=1 {sys.executable}", tmp_path)
    assert found["packages"]["pytest"] == pytest.__version__


def test_no_file_of_the_project_is_imported(tmp_path: Path) -> None:
    (tmp_path / "json.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    (tmp_path / "platform.py").write_text("raise SystemExit(3)\n", encoding="utf-8")
    assert "problem" not in environment(sys.executable, tmp_path)


def test_packages_on_pythonpath_count(tmp_path: Path) -> None:
    package(tmp_path / "site", "my_package", "1.5")
    found = environment(sys.executable, tmp_path, PYTHONPATH=str(tmp_path / "site"))
    assert found["packages"]["my-package"] == "1.5"


def test_drift_names_packages_that_changed_came_or_went(tmp_path: Path) -> None:
    site = tmp_path / "site"
    for name, version in (("torch", "2.4.0+cu121"), ("stays", "1"), ("goes", "1"), ("moves", "1")):
        package(site, name, version)
    env = {"PYTHONPATH": str(site)}
    before = environment(sys.executable, tmp_path, **env)
    assert before["torch"] == "2.4.0+cu121"
    assert before["cuda"] == "cu121"
    (site / "torch-2.4.0+cu121.dist-info").rename(site / "torch-2.5.0+cu124.dist-info")
    (site / "moves-1.dist-info").rename(site / "moves-2.dist-info")
    (site / "goes-1.dist-info").rename(site / "comes-1.dist-info")
    drift = environment_drift(before, environment(sys.executable, tmp_path, **env))
    assert drift == [
        "torch: 2.4.0+cu121 → 2.5.0+cu124",
        "cuda: cu121 → cu124",
        "comes: absent → 1",
        "goes: 1 → absent",
        "moves: 1 → 2",
    ]


def test_drift_of_many_packages_is_bounded(tmp_path: Path) -> None:
    before = {"packages": {f"p{number}": "1" for number in range(30)}}
    drift = environment_drift(before, {"packages": {}})
    assert len(drift) == 11
    assert drift[-1] == "and 20 more packages"


def test_drift_of_machine_and_driver_is_named() -> None:
    before = {"gpus": ["A100"], "driver": "550.54", "host": "a", "python": "3.11.7"}
    after = {"gpus": ["H100", "H100"], "driver": "560.1", "host": "a"}
    assert environment_drift(before, after) == ["gpus: A100 → H100, H100", "driver: 550.54 → 560.1"]


def test_without_an_interpreter_only_the_machine_is_known(tmp_path: Path) -> None:
    found = environment(None, tmp_path)
    assert "packages" not in found
    assert environment_drift(environment(sys.executable, tmp_path), found) == []


@pytest.mark.parametrize("python", ["/no/such/python", "false", "sh"])
def test_interpreter_that_cannot_be_asked_is_a_problem_and_no_error(tmp_path: Path, python: str) -> None:
    found = environment(python, tmp_path)
    assert python in found["problem"]
    before = environment(sys.executable, tmp_path)
    assert environment_drift(before, found) == [found["problem"]]


def test_asking_costs_less_than_half_a_second(tmp_path: Path) -> None:
    best = 9.0
    for _ in range(3):
        started = time.perf_counter()
        environment(sys.executable, tmp_path)
        best = min(best, time.perf_counter() - started)
    assert best < 0.5
