"""Hints are commands that work when they are typed, whatever ``python`` is on the PATH."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import PROJECT


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


def typed_in(folder: Path, command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/sh", "-c", command], cwd=folder, capture_output=True, encoding="utf-8", check=False)


@pytest.fixture
def project(tmp_path: Path, run_script: RunScript) -> Path:
    """A campaign in a folder with a blank in its name, set up from beside it."""
    (folder := tmp_path / "with a blank").mkdir()
    for name, text in PROJECT.items():
        (folder / name).write_text(text)
    for command in ("init -q", "add -A", "commit -q -m Start"):
        subprocess.run(["git", *command.split()], cwd=folder, check=True)
    done = run_script("setup_campaign", "--project", folder.name, "--tag", "a", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    again = typed_in(tmp_path, done.stdout.splitlines()[-1].partition(": ")[2] + " --dry-run")
    assert again.returncode == 0, again.stderr
    return folder


def test_next_command_works_beside_the_project(project: Path, run_script: RunScript) -> None:
    for cwd in (project.parent, Path("/")):
        answers = [run_script("status", "--project", project, "--json", cwd=cwd).stdout]
        answers.append(run_script("summarize", "--project", project, "--json", cwd=cwd).stdout)
        found = [json.loads(answer)["data"] for answer in answers]
        printed = run_script("status", "--project", project, cwd=cwd).stdout.splitlines()
        commands = [found[0]["next"]["command"], *(one["command"] for one in found[1]["recommendations"])]
        commands += [line.strip() for line in printed if "run_experiment.py" in line]
        assert len(commands) >= 2
        for command in commands:
            again = typed_in(cwd, f"{command} --dry-run")
            assert again.returncode == 0, again.stderr


def test_git_command_works_beside_the_project(project: Path, run_script: RunScript) -> None:
    assert run_script("run_experiment", "-d", "baseline", cwd=project).returncode == 0
    evaluator = (project / "prepare.py").read_text()
    (project / "prepare.py").write_text(evaluator + "# edited\n")
    (project / "train.py").write_text((project / "train.py").read_text() + "# edited\n")
    (project / "new.py").write_text("")
    refused = run_script("run_experiment", "--project", project, "-d", "x", cwd=project.parent)
    assert refused.returncode == 4
    undo = [line.partition("Undo: ")[2] for line in refused.stderr.splitlines() if "Undo: " in line]
    (project.parent / "new.py").write_text("of somebody else")
    assert len(undo) == 2
    for command in (each.partition("; or")[0] for each in undo):
        assert typed_in(project.parent, command).returncode == 0
    assert ((project / "prepare.py").read_text(), (project / "new.py").exists()) == (evaluator, False)
    assert (project.parent / "new.py").exists()
    (project / "train.py").write_text(PROJECT["train.py"])
    subprocess.run(["git", "switch", "-q", "main"], cwd=project, check=True)
    done = run_script("status", "--project", project, "--tag", "a", "--json", cwd=project.parent)
    assert typed_in(project.parent, json.loads(done.stdout)["data"]["next"]["command"]).returncode == 0
    branch = subprocess.check_output(["git", "branch", "--show-current"], cwd=project, text=True).strip()
    assert branch == "autoresearch/a"


def test_repository_is_made_by_the_command_that_is_named(tmp_path: Path, run_script: RunScript) -> None:
    (folder := tmp_path / "not in git").mkdir()
    (folder / "train.py").write_text("")
    refused = run_script("status", "--project", folder, cwd=tmp_path)
    assert refused.returncode == 3
    done = typed_in(tmp_path, refused.stderr.partition("→ ")[2])
    assert done.returncode == 0, done.stderr
    assert subprocess.check_output(["git", "ls-files"], cwd=folder, text=True) == "train.py\n"


@pytest.mark.parametrize("has_repository", [False, True])
def test_no_command_takes_a_home_into_a_repository(home: Path, run_script: RunScript, has_repository: bool) -> None:
    if has_repository:
        subprocess.run(["git", "init", "-q"], cwd=home, check=True)
    for folder in (home,) if has_repository else (home, Path("/")):
        done = run_script("setup_campaign", cwd=folder)
        assert done.returncode == 3
        assert done.stderr.partition("→ ")[2].strip() == "Go to the project's folder, or name it: --project DIR"


def test_commands_in_the_project_are_as_short_as_before(project: Path, run_script: RunScript) -> None:
    done = run_script("status", "--project", ".", "--json", cwd=project)
    assert "--project" not in done.stdout
    (project.parent / "link").symlink_to(project)
    assert "--project" not in run_script("status", "--project", project.parent / "link", "--json", cwd=project).stdout
