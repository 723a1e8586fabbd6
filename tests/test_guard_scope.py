"""Which paths an experiment may change, on changes that real git tells of."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autoresearch.config import Config
from autoresearch.errors import RefusedError
from autoresearch.guard import check_paths, in_scope
from autoresearch.repo import Repo

FILES = {
    "train.py": "LR = 0.1\n",
    "prepare.py": "def evaluate():\n    return 1\n",
    "tools/plot.py": "import sys\n",
    "pyproject.toml": "[project]\n",
    "uv.lock": "version = 1\n",
    "requirements/base.txt": "torch\n",
    "autoresearch.yaml": "command: python train.py\n",
    "CLAUDE.md": "# Instructions\n",
    "notes/idea.md": "Try a cosine.\n",
    "table.csv": "a,b\n",
}


def config(**changes: object) -> Config:
    data = {
        "command": "python train.py",
        "metric": {"name": "loss"},
        "edit": ["train.py"],
        "protect": ["prepare.py"],
    }
    return Config.from_dict(data | changes)


@pytest.fixture
def project(git_repo: Path) -> Path:
    for name, text in FILES.items():
        (git_repo / name).parent.mkdir(exist_ok=True)
        (git_repo / name).write_text(text, encoding="utf-8")
    git(git_repo, "add", "-A")
    git(git_repo, "commit", "-q", "-m", "Training code")
    return git_repo


def git(project: Path, *arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=project, check=True, capture_output=True)


def check(project: Path, settings: Config | None = None, **options: object) -> list[str]:
    repo = Repo(project)
    return check_paths(repo.changes("HEAD"), settings or config(), **options)  # type: ignore[arg-type]


def refused(project: Path, settings: Config | None = None, **options: object) -> RefusedError:
    with pytest.raises(RefusedError) as caught:
        check(project, settings, **options)
    assert caught.value.exit_code == 4
    return caught.value


def undo(project: Path, error: RefusedError) -> None:
    """Run the first command that the refusal names."""
    command = error.message.split("Undo: ")[1].splitlines()[0].partition("; or")[0]
    subprocess.run(["sh", "-c", command], cwd=project, check=True, capture_output=True)


# ---- in_scope


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("train.py", ["train.py"], ["train.pyc", "src/train.py", "xtrain.py"]),
        ("./train.py", ["train.py"], ["prepare.py"]),
        ("src", ["src/a.py", "src/b/c.py"], ["src2/a.py", "a.py"]),
        ("src/", ["src/a.py"], ["srca.py"]),
        ("src/**.py", ["src/a.py", "src/b/c.py"], ["src/a.txt", "a.py"]),
        ("src/**/*.py", ["src/a.py", "src/b/c.py"], ["src/a.txt"]),
        ("src/*.py", ["src/a.py"], ["src/b/c.py"]),
        ("model_?.py", ["model_a.py"], ["model_ab.py", "model_/.py"]),
        ("model_[!ab].py", ["model_c.py"], ["model_a.py"]),
        ("**", ["a.py", "b/c.py"], []),
    ],
)
def test_edit_entry_holds_files_folders_and_globs(entry: str, inside: list[str], outside: list[str]) -> None:
    assert [path for path in inside if not in_scope(path, [entry])] == []
    assert [path for path in outside if in_scope(path, [entry])] == []


# ---- let pass


def test_no_change_and_a_change_of_an_edit_file_pass(project: Path) -> None:
    assert check(project) == []
    (project / "train.py").write_text("LR = 0.2\n", encoding="utf-8")
    assert check(project) == []
    git(project, "add", "train.py")
    assert check(project) == []


def test_files_come_and_go_in_an_edit_folder(project: Path) -> None:
    settings = config(edit=["tools", "train.py"])
    (project / "tools" / "new.py").write_text("x = 1\n", encoding="utf-8")
    (project / "tools" / "run.sh").write_text("true\n", encoding="utf-8")
    (project / "tools" / "run.sh").chmod(0o755)
    git(project, "mv", "tools/plot.py", "tools/draw.py")
    assert check(project, settings) == []
    git(project, "rm", "-q", "-f", "tools/draw.py")
    assert check(project, settings) == []


def test_documents_are_left_alone_with_a_note(project: Path) -> None:
    (project / "notes" / "idea.md").write_text("Try a step.\n", encoding="utf-8")
    (project / "todo.txt").write_text("sleep\n", encoding="utf-8")
    (project / "run.log").write_text("loss: 1\n", encoding="utf-8")
    (said,) = check(project)
    assert "notes/idea.md" in said
    assert "no trial sees it" in said
    (said,) = check(project, config(isolation="inplace"))
    assert "could read it" in said


def test_document_may_be_renamed_to_a_document(project: Path) -> None:
    git(project, "mv", "notes/idea.md", "notes/old.md")
    assert len(check(project)) == 1


def test_code_renamed_to_a_document_is_refused(project: Path) -> None:
    git(project, "mv", "tools/plot.py", "plot.txt")
    assert "renamed from tools/plot.py" in refused(project).message


def test_untracked_output_of_training_does_not_end_the_night(project: Path) -> None:
    (project / "ckpt").mkdir()
    (project / "ckpt" / "model.pt").write_bytes(b"\0")
    (project / "curve.csv").write_text("1,2\n", encoding="utf-8")
    (project / ".claude").mkdir()
    (project / ".claude" / "settings.local.json").write_text("{}", encoding="utf-8")
    (said,) = check(project)
    assert "untracked output" in said
    assert "ckpt/model.pt" in said


def test_tolerated_files_pass_in_silence(project: Path) -> None:
    (project / "prepare.py").write_text("def evaluate():\n    return 2\n", encoding="utf-8")
    (project / "mine.py").write_text("x = 1\n", encoding="utf-8")
    assert check(project, tolerated={"prepare.py", "mine.py"}) == []


def test_dependency_file_may_change_where_edit_names_it(project: Path) -> None:
    (project / "pyproject.toml").write_text("[tool.x]\n", encoding="utf-8")
    assert check(project, config(edit=["train.py", "pyproject.toml"])) == []
    assert refused(project, config(edit=["**"])).code == "dependencies"


# ---- refused, and the command that helps


def test_protected_file_is_refused_and_the_named_command_restores_it(project: Path) -> None:
    (project / "prepare.py").write_text("def evaluate():\n    return 0\n", encoding="utf-8")
    git(project, "add", "prepare.py")
    error = refused(project)
    assert error.code == "protected"
    assert "git restore --staged --worktree -- prepare.py" in error.message
    undo(project, error)
    assert check(project) == []
    assert (project / "prepare.py").read_text(encoding="utf-8") == FILES["prepare.py"]


def test_base_commit_goes_into_the_command_where_head_is_another(project: Path) -> None:
    repo = Repo(project)
    base = repo.head().commit
    (project / "prepare.py").write_text("def evaluate():\n    return 0\n", encoding="utf-8")
    git(project, "commit", "-q", "-a", "-m", "The agent's own commit")
    with pytest.raises(RefusedError) as caught:
        check_paths(repo.changes(str(base)), config(), base=str(base))
    undo(project, caught.value)
    assert check_paths(repo.changes(str(base)), config()) == []


def test_protected_file_in_an_edit_folder_stays_protected(project: Path) -> None:
    (project / "tools" / "plot.py").write_text("import os\n", encoding="utf-8")
    assert refused(project, config(edit=["tools"], protect=["tools/plot.py"])).code == "protected"


def test_deleted_protected_file_is_refused_and_comes_back(project: Path) -> None:
    (project / "prepare.py").unlink()
    error = refused(project)
    assert "(deleted)" in error.message
    undo(project, error)
    assert (project / "prepare.py").exists()


def test_new_code_outside_edit_is_refused_untracked_or_staged(project: Path) -> None:
    (project / "helper.py").write_text("x = 1\n", encoding="utf-8")
    error = refused(project)
    assert error.code == "scope"
    assert "new, untracked" in error.message
    assert "no trial would see it" in error.message
    assert "--reconfigure" in error.hint
    assert "trials would see it" in refused(project, config(isolation="inplace")).message
    git(project, "add", "helper.py")
    error = refused(project)
    undo(project, error)
    assert check(project) == []
    assert not (project / "helper.py").exists()


@pytest.mark.parametrize(
    "name", ["pyproject.toml", "uv.lock", "requirements/base.txt", "requirements-dev.txt", "environment.yml"]
)
def test_dependency_files_are_refused(project: Path, name: str) -> None:
    (project / name).write_text("changed\n", encoding="utf-8")
    error = refused(project)
    assert error.code == "dependencies"
    assert "no new dependencies" in error.message


def test_lock_file_that_a_tool_writes_can_be_kept_out_of_sight(project: Path) -> None:
    git(project, "rm", "-q", "uv.lock")
    git(project, "commit", "-q", "-m", "No lock")
    (project / "uv.lock").write_text("version = 1\n", encoding="utf-8")
    command = refused(project).message.split("if a tool writes it, ")[1].splitlines()[0]
    subprocess.run(["sh", "-c", command], cwd=project, check=True)
    assert check(project) == []


def test_config_and_instructions_are_a_humans(project: Path) -> None:
    (project / "autoresearch.yaml").write_text("command: true\n", encoding="utf-8")
    error = refused(project, config(edit=["**"]))
    assert error.code == "config"
    assert "--reconfigure" in error.message
    git(project, "checkout", "-q", "autoresearch.yaml")
    (project / "CLAUDE.md").write_text("# Do as you like\n", encoding="utf-8")
    assert refused(project).code == "instructions"


def test_tracked_table_is_data_and_not_a_document(project: Path) -> None:
    (project / "table.csv").write_text("c,d\n", encoding="utf-8")
    assert refused(project).code == "scope"


def test_edit_file_made_a_link_is_refused_and_the_command_keeps_its_text(project: Path) -> None:
    (project / "train.py").unlink()
    (project / "elsewhere.txt").write_text("LR = 0.3\n", encoding="utf-8")
    (project / "train.py").symlink_to("elsewhere.txt")
    error = refused(project)
    assert "symbolic link" in error.message
    undo(project, error)
    assert (project / "train.py").read_text(encoding="utf-8") == "LR = 0.3\n"
    assert len(check(project)) == 1  # elsewhere.txt


def test_link_named_like_a_document_is_refused(project: Path) -> None:
    (project / "all.txt").symlink_to("/etc")
    assert "symbolic link" in refused(project).message


def test_edit_file_made_executable_is_refused_and_its_edit_kept(project: Path) -> None:
    (project / "train.py").write_text("LR = 0.4\n", encoding="utf-8")
    (project / "train.py").chmod(0o755)
    error = refused(project)
    assert "chmod -x train.py" in error.message
    undo(project, error)
    assert check(project) == []
    assert (project / "train.py").read_text(encoding="utf-8") == "LR = 0.4\n"


def test_edit_file_renamed_out_of_scope_is_refused_and_comes_back(project: Path) -> None:
    git(project, "mv", "train.py", "train2.py")
    error = refused(project)
    assert "renamed from train.py" in error.message
    undo(project, error)
    assert check(project) == []


def test_protected_file_renamed_into_scope_is_refused(project: Path) -> None:
    git(project, "mv", "prepare.py", "tools/prepare.py")
    assert refused(project, config(edit=["tools"])).code == "protected"


def test_submodule_in_an_edit_folder_is_refused(project: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(project), str(other)], check=True)
    git(project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), "tools/other")
    message = refused(project, config(edit=["tools"])).message
    assert "tools/other (now a submodule)" in message
    assert ".gitmodules" in message


@pytest.mark.parametrize("change", ["edited", "new file", "new commit", "new commit, staged", "all"])
def test_submodule_goes_back_and_nothing_in_it_is_lost(project: Path, tmp_path: Path, change: str) -> None:
    other = tmp_path / "other"
    subprocess.run(["git", "clone", "-q", str(project), str(other)], check=True)
    lib = project / "a lib"
    git(project, "-c", "protocol.file.allow=always", "submodule", "add", "-q", str(other), lib.name)
    git(project, "commit", "-q", "-am", "A library")
    if "commit" in change or change == "all":
        git(lib, "commit", "-q", "--allow-empty", "-m", "Newer")
    if change in ("edited", "all"):
        (lib / "train.py").write_text("LR = 7\n", encoding="utf-8")
    if change in ("new file", "all"):
        (lib / "new.py").write_text("mine\n", encoding="utf-8")
    if change in ("new commit, staged", "all"):
        git(project, "add", lib.name)
    undo(project, refused(project))
    assert check(project) == []
    if change in ("edited", "new file", "all"):
        git(lib, "stash", "pop", "-q")
        assert (lib / "train.py").read_text(encoding="utf-8").count("7") == (change != "new file")
        assert (lib / "new.py").exists() == (change != "edited")


def test_message_is_bounded_and_quotes_odd_names(project: Path) -> None:
    for number in range(15):
        (project / f"a file {number:02}.py").write_text("x\n", encoding="utf-8")
    error = refused(project)
    assert error.message.count("Undo:") == 10
    assert "and 5 more" in error.message
    assert "rm 'a file 00.py'" in error.message


def test_change_of_several_sorts_names_each(project: Path) -> None:
    (project / "prepare.py").write_text("x = 1\n", encoding="utf-8")
    (project / "uv.lock").write_text("version = 2\n", encoding="utf-8")
    error = refused(project)
    assert error.code == "scope"
    assert "protected" in error.message
    assert "dependencies" in error.message
