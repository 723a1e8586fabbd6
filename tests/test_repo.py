"""Files of a commit, read by one git process for all of them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import psutil
import pytest

from autoresearch.repo import Repo

FILES = {
    "train.py": b"LR = 0.1\n",
    "a folder/\xe8\x87\xaa\xe4\xb8\xbb.py": "自主研究\n".encode(),
    "two  spaces.py": b"",
    "not utf-8 \xff.py": b"\xff\xfe\r\n\0",
    "line\nend.py": b"no newline at the end",
}


@pytest.fixture
def repo(git_repo: Path) -> Repo:
    for name, data in FILES.items():
        path = git_repo / os.fsdecode(name.encode("latin-1"))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    subprocess.run(["git", "add", "-A"], cwd=git_repo, check=True)
    subprocess.run(["git", "commit", "-q", "-m", "Files"], cwd=git_repo, check=True)
    return Repo(git_repo)


def test_texts_are_those_of_the_files_whatever_their_names_and_bytes(repo: Repo) -> None:
    commit = repo.commit_of("HEAD")
    assert commit is not None
    files = repo.files(commit)
    expected = {path: (repo.project / path).read_bytes().decode("utf-8", "surrogateescape") for path in files}
    assert len(expected) >= len(FILES)
    assert repo.texts(commit, [*files, "none.py", "not there either.py", "a folder", "no\nfile.py"]) == expected
    assert repo.texts("HEAD", files) == expected
    assert {path: repo.text(commit, path) for path in files} == expected


def test_reading_leaves_no_git_behind(repo: Repo) -> None:
    commit = repo.commit_of("HEAD")
    assert commit is not None
    before = psutil.Process().children()
    assert repo.texts(commit, ["train.py"]) == {"train.py": "LR = 0.1\n"}
    assert psutil.Process().children() == before
