"""Each way to install the bundle, tried in a home of its own: the client lists the skill, and its scripts work there.

Whatever was installed must be the same to the byte after a campaign.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests import client_bench
from tests.client_bench import (
    CLIENTS,
    KEY,
    World,
    codex_anew,
    find_client,
    gemini_anew,
    opencode_anew,
)
from tests.conftest import ROOT
from tests.loop_bench import CONFIG, PROJECT
from tests.scripted_model import ScriptedModel, run, say, use
from tests.setup_bench import Bench
from tests.test_conventions import bundle_files

world = client_bench.world  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

DESCRIPTION = "Autonomous research on training code in a git repository"
QUIET = {"CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1", "DISABLE_AUTOUPDATER": "1", "DISABLE_TELEMETRY": "1"}
HANDED_ON = {name: os.environ[name] for name in ("NODE_EXTRA_CA_CERTS",) if name in os.environ}  # the network's
NPX_SKILLS = "skills@1.7.4"


def call(world: World, *words: str | Path, cwd: Path, expect: int | None = 0, **environment: str) -> str:
    """Run a program in ``world``; what it said, on both streams."""
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=world.environment(**QUIET, **HANDED_ON, **environment), check=False, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=240,
    )  # fmt: skip
    assert expect in (None, done.returncode), done.stdout
    return done.stdout


@pytest.fixture
def published(world: World) -> Path:
    """A repository that holds the bundle as it stands here, to install from."""
    folder = world.folder / "published" / "autoresearch"
    for file in bundle_files():
        target = folder / file.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(file, target)
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "A release")):
        call(world, "git", *words, cwd=folder)
    return folder


@pytest.fixture
def project(world: World) -> Path:
    """A user's project, in which a campaign has yet to be set up."""
    folder = world.folder / "project"
    folder.mkdir()
    Bench(folder=folder, run=pytest.fail).write({**PROJECT, "autoresearch.yaml": CONFIG})
    for words in (("init", "-q", "-b", "main"), ("add", "-A"), ("commit", "-q", "-m", "Start")):
        call(world, "git", *words, cwd=folder)
    return folder


def content(folder: Path) -> dict[str, str]:
    """Every file below ``folder`` but git's, with a hash of what it holds."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and ".git" not in path.parts]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def assert_campaign_works(world: World, skill: Path, project: Path) -> None:
    """A keep and a discard by the installed scripts, after which the installed files are as they were."""
    before = content(skill)
    assert {"SKILL.md", "scripts/status.py", "templates/CLAUDE.md.j2"} <= before.keys()

    def script(name: str, *words: str, expect: int = 0) -> str:
        command = [sys.executable, str(skill / "scripts" / f"{name}.py"), *words]
        # A user's shell does not set it, and it would hide what this test is about.
        return call(world, *command, cwd=project, expect=expect, PYTHONDONTWRITEBYTECODE="")

    assert "not committed, so no trial sees it" not in script("setup_campaign", "--tag", "apr5")
    script("run_experiment", "-d", "baseline")
    for rate, status in ((8, "keep"), (2, "discard")):
        text = (project / "train.py").read_text()
        (project / "train.py").write_text(text.replace(text.split("LR = ")[1].split()[0], str(rate), 1))
        script("run_experiment", "-d", f"rate {rate}")
        assert f": {status}" in script("log_result")
    assert "rate 8" in script("status")
    script("summarize")
    script("revert")
    assert content(skill) == before
    rows = (project / "results.tsv").read_text().splitlines()[1:]
    assert [row.split("\t")[3] for row in rows] == ["keep", "keep", "discard"]


def lists_skill(model: ScriptedModel, name: str) -> bool:
    """Whether the client has told the model of the skill under ``name``, with its description."""
    asked = [json.dumps(request.body) for request in model.requests if request.api]
    return any(name in text and DESCRIPTION in text for text in asked)


def ask_claude(world: World, project: Path, model: ScriptedModel) -> str:
    return call(
        world, find_client("claude"), "-p", "What can you do?", "--dangerously-skip-permissions", cwd=project,
        ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=model.url, IS_SANDBOX="1",
    )  # fmt: skip


# ---- Claude Code: a clone


@pytest.mark.parametrize("place", ["home/.claude/skills", "project/.claude/skills"])
def test_clone_is_a_skill_of_claude_code(world: World, published: Path, project: Path, place: str) -> None:
    """Its text says where the scripts lie, and a campaign runs from there, in the project's own folder too."""
    skill = world.folder / place / "autoresearch"
    skill.parent.mkdir(parents=True)
    call(world, "git", "clone", "-q", f"file://{published}", skill, cwd=world.folder)
    with ScriptedModel([use("Skill", skill="autoresearch"), say("Ready.")]) as model:
        ask_claude(world, project, model)
        assert lists_skill(model, "- autoresearch: ")
        told = "\n".join(model.asked[-1].users)
        assert f"Base directory for this skill: {skill}" in told
        assert "## The loop" in told
    assert_campaign_works(world, skill, project)
    assert (skill / "SKILL.md").exists()


def test_update_of_a_skill_in_the_project_does_not_stop_its_campaign(
    world: World, published: Path, project: Path
) -> None:
    """No file of a skill is an edit of the experiment, nor to be removed."""
    for place in (".claude", ".agents"):
        shutil.copytree(published, project / place / "skills" / "autoresearch", ignore=shutil.ignore_patterns(".git"))
    script = project / ".agents" / "skills" / "autoresearch" / "scripts"
    call(world, sys.executable, script / "setup_campaign.py", "--tag", "apr5", cwd=project)
    call(world, sys.executable, script / "run_experiment.py", "-d", "baseline", cwd=project)
    for place in (".claude", ".agents"):
        skill = project / place / "skills" / "autoresearch"
        for name in ("scripts/demo.py", "pyproject.toml", "SKILL.md"):
            with (skill / name).open("a") as file:
                file.write("\n# newer\n")
        (skill / "scripts" / "new.py").write_text("X = 1\n")
    text = (project / "train.py").read_text()
    (project / "train.py").write_text(text.replace("LR = 4", "LR = 8"))
    call(world, sys.executable, script / "run_experiment.py", "-d", "faster", cwd=project)
    assert ": keep" in call(world, sys.executable, script / "log_result.py", cwd=project)
    assert (script / "new.py").exists()


# ---- other clients: .agents/skills


class Other(NamedTuple):
    """A client that reads .agents/skills, and how to ask it something without a terminal."""

    words: tuple[str, ...]
    prepare: Callable[[World, ScriptedModel], dict[str, str]]


OTHERS = {
    "codex": Other(("codex", "exec", "--skip-git-repo-check", "What can you do?"), codex_anew),
    "gemini": Other(("gemini", "--skip-trust", "-p", "What can you do?"), gemini_anew),
    "opencode": Other(("opencode", "run", "What can you do?"), opencode_anew),
}


@pytest.mark.parametrize(
    ("client", "place"),
    [("codex", "home/.agents/skills"), ("gemini", "project/.agents/skills"), ("opencode", "project/.agents/skills")],
)
def test_clone_below_agents_is_a_skill_of_other_clients(
    world: World, published: Path, project: Path, client: str, place: str
) -> None:
    find_client(client)
    skill = world.folder / place / "autoresearch"
    skill.parent.mkdir(parents=True)
    call(world, "git", "clone", "-q", f"file://{published}", skill, cwd=world.folder)
    other = OTHERS[client]
    with ScriptedModel([say("Ready.")]) as model:
        environment = other.prepare(world, model)
        # Gemini CLI's own side questions want answers that a scripted model has not; how it ends is no matter.
        call(world, *other.words, cwd=project, expect=None, **environment)
        assert lists_skill(model, "autoresearch")
    if client == "codex":  # the scripts are the same for all
        assert_campaign_works(world, skill, project)


# ---- the plugin marketplace


def test_marketplace_is_valid_and_its_plugin_brings_the_skill(world: World, published: Path, project: Path) -> None:
    claude = find_client("claude")
    assert "Validation passed" in call(world, claude, "plugin", "validate", published, "--strict", cwd=project)
    call(world, claude, "plugin", "marketplace", "add", published, cwd=project)
    call(world, claude, "plugin", "install", "autoresearch@autoresearch-skills", cwd=project)
    assert "autoresearch@autoresearch-skills" in call(world, claude, "plugin", "list", cwd=project)
    with ScriptedModel([say("Ready.")]) as model:
        ask_claude(world, project, model)
        assert lists_skill(model, "autoresearch:autoresearch")
    (skill,) = (world.home / ".claude" / "plugins" / "cache" / "autoresearch-skills" / "autoresearch").iterdir()
    assert_campaign_works(world, skill, project)


# ---- npx skills


@pytest.mark.network
def test_npx_skills_installs_from_a_path(world: World, published: Path, project: Path) -> None:
    node = CLIENTS / "node"  # npx skills needs node 22, which `make clients` brings
    find_client("node")
    npx = node.resolve().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npx-cli.js"
    call(
        world, node, npx, "--yes", NPX_SKILLS, "add", published, "-a", "claude-code", "codex", "-y", cwd=project,
        CI="1", npm_config_cache=str(world.folder / "npm"),
    )  # fmt: skip
    skill = project / ".agents" / "skills" / "autoresearch"
    assert (project / ".claude" / "skills" / "autoresearch").resolve() == skill
    with ScriptedModel([say("Ready.")]) as model:
        ask_claude(world, project, model)
        assert lists_skill(model, "- autoresearch: ")
    assert_campaign_works(world, skill, project)


# ---- a Python without the packages


@pytest.mark.parametrize("words", [["status"], ["setup_campaign"], ["sweep", "--set", "LR=1"]])
def test_python_without_the_packages_is_told_how_they_come(tmp_path: Path, words: list[str]) -> None:
    command = [sys.executable, "-S", str(ROOT / "scripts" / f"{words[0]}.py"), *words[1:]]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 5
    said, hint = done.stderr.splitlines()
    assert f"is not installed for {sys.executable}: No module named " in said
    assert hint.endswith(f" -m pip install {ROOT}, or call the script by uv run")


# ---- read-only


def test_campaign_runs_from_a_folder_that_cannot_be_written(world: World, published: Path, project: Path) -> None:
    """As a skill of the machine's administrator."""
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("NOT TESTED: as root this needs setpriv")
    folders = [published, *(path for path in published.rglob("*") if path.is_dir() and ".git" not in path.parts)]
    for folder in folders:
        folder.chmod(0o555)
    harsh = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    try:
        if harsh:
            assert "Permission denied" in call(
                world, *harsh, "touch", published / "scripts" / "x", cwd=project, expect=1
            )
        for words in (("setup_campaign", "--tag", "apr5"), ("run_experiment", "-d", "baseline"), ("summarize",)):
            command = [sys.executable, str(published / "scripts" / f"{words[0]}.py"), *words[1:]]
            call(world, *harsh, *command, cwd=project, PYTHONDONTWRITEBYTECODE="")
    finally:
        for folder in folders:
            folder.chmod(0o755)
    assert (project / "results.tsv").read_text().count("\tkeep\tbaseline") == 1


def test_dry_run_of_an_agent_that_only_has_the_skill(world: World, published: Path, project: Path) -> None:
    """What the skill's text says to type works as it stands, without a word about this machine."""
    skill = world.home / ".claude" / "skills" / "autoresearch"
    skill.parent.mkdir(parents=True)
    shutil.copytree(published, skill, ignore=shutil.ignore_patterns(".git"))
    script = f"python3 {skill}/scripts/"
    turns = [
        use("Skill", skill="autoresearch"),
        run(f"{script}setup_campaign.py --dry-run"),
        run(f"{script}setup_campaign.py --tag apr5"),
        run(f'{script}run_experiment.py -d "baseline"'),
        run(f"sed -i 's/LR = 4/LR = 8/' train.py && {script}run_experiment.py -d 'faster' --family optimizer"),
        run(f"{script}log_result.py --note 'eight is better'"),
        say("Done."),
    ]
    python = str(Path(sys.executable).parent)
    with ScriptedModel(turns) as model:
        call(
            world, find_client("claude"), "-p", "Start autoresearch on my training code",
            "--dangerously-skip-permissions", cwd=project, ANTHROPIC_API_KEY=KEY, ANTHROPIC_BASE_URL=model.url,
            IS_SANDBOX="1", PATH=f"{python}:{CLIENTS}:{os.environ['PATH']}",
        )  # fmt: skip
    assert "experiment 1: keep" in "\n".join(model.asked[-1].results)
