"""Hints are commands that work when they are typed, whatever ``python`` is on the PATH."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment in a folder with a blank in its name, with our packages."""
    folder = tmp_path_factory.mktemp("with a blank") / "env"
    venv.create(folder, symlinks=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "ours.pth").write_text(f"{sysconfig.get_path('purelib')}\n")
    return folder / "bin"


@pytest.mark.parametrize(
    ("on_path", "typed"),
    [
        ({"python": "ours", "python3": "ours"}, "python"),
        ({"python": "another", "python3": "ours"}, "python3"),
        ({"python3": "ours"}, "python3"),
        ({"python": "another", "python3": "another"}, "in full"),
        ({"python": "another environment"}, "in full"),
        ({}, "in full"),
    ],
    ids=str,
)
def test_hint_works_when_typed(
    environment: Path, git_repo: Path, tmp_path: Path, on_path: dict[str, str], typed: str
) -> None:
    ours = environment / "python3.real"
    ours.unlink(missing_ok=True)
    ours.symlink_to(Path(sys.executable).resolve())
    (other := tmp_path / "other").mkdir()
    for name in ("python", "python3"):
        (environment / name).unlink(missing_ok=True)
        match on_path.get(name):
            case "ours":
                (environment / name).symlink_to(ours.name)
            case "another":
                (other / name).write_text("#!/bin/sh\nexit 1\n")
                (other / name).chmod(0o755)
            case "another environment":
                (other / name).symlink_to(ours.resolve())
    (other / "git").symlink_to(subprocess.check_output(["which", "git"], text=True).strip())
    env = {**os.environ, "PATH": f"{other}{os.pathsep}{environment}"}
    done = subprocess.run(
        [ours, ROOT / "scripts" / "status.py"],
        cwd=git_repo,
        env=env,
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 3, done.stderr
    hint = done.stderr.partition("→ ")[2].strip()
    word = shlex.quote(str(ours)) if typed == "in full" else typed
    assert hint == f"{word} {ROOT / 'scripts' / 'setup_campaign.py'}"
    again = subprocess.run(
        ["/bin/sh", "-c", f"{hint} --help"], cwd=git_repo, env=env, capture_output=True, encoding="utf-8", check=False
    )
    assert again.returncode == 0, again.stderr
    assert "exit codes:" in again.stdout
