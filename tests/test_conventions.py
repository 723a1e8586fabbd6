"""What holds for the bundle as a whole: scripts run anywhere, one version, links resolve.

What may import what is in test_dependencies.py.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import skills_ref  # type: ignore[import-untyped]  # it has no stubs
import yaml
from tests.conftest import own_limit_s

import autoresearch

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
SCRIPTS = sorted((ROOT / "scripts").glob("*.py"))
CODE = sorted((ROOT / "scripts").rglob("*.py"))

MAX_HELP_LINES = 60
MAX_MODULE_LINES = 500
NOT_OURS = {"__pycache__", "build", "dist", "node_modules"}
OUR_DOT_DIRECTORIES = {".ci", ".claude-plugin"}


def bundle_files(folder: Path = ROOT) -> Iterator[Path]:
    """The files of the bundle, without environments, caches and build leftovers."""
    for path in sorted(folder.iterdir()):
        if not path.is_dir():
            yield path
        elif path.name.startswith("."):
            if path.name in OUR_DOT_DIRECTORIES:
                yield from bundle_files(path)
        elif path.name not in NOT_OURS and path.suffix != ".egg-info" and not (path / "pyvenv.cfg").exists():
            yield from bundle_files(path)


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


MARKDOWN = [path for path in bundle_files() if path.suffix == ".md"]
each_script = pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
each_document = pytest.mark.parametrize("document", MARKDOWN, ids=relative)


def test_bundle_has_what_the_other_tests_look_at() -> None:
    assert SCRIPTS
    assert set(SCRIPTS) < set(CODE)
    assert ROOT / "CONTRIBUTING.md" in MARKDOWN


# --- scripts -----------------------------------------------------------------------------------


def test_no_script_hides_a_standard_module() -> None:
    """A script's folder comes first on its sys.path, so its neighbours' names are modules to it."""
    assert not {script.stem for script in SCRIPTS} & sys.stdlib_module_names


@pytest.fixture(scope="module")
def read_only_bundle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of what an installed skill runs from, without write bits."""
    bundle = tmp_path_factory.mktemp("installed") / "autoresearch"
    for name in ("scripts", "templates"):
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, bundle / name, ignore=shutil.ignore_patterns("__pycache__"))
    folders = [bundle, *(path for path in bundle.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(0o555)
    yield bundle
    for folder in folders:
        folder.chmod(0o755)


def run_isolated(script: Path, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run ``script`` as the harshest caller would: ``python -I``, stdin closed, write bits respected."""
    command = [sys.executable, "-I", str(script), *args]
    if os.geteuid() == 0:
        # Root writes where it may not, unless it gives up the capability that lets it.
        if not shutil.which("setpriv"):
            pytest.skip("as root this test needs setpriv (util-linux)")
        command = ["setpriv", "--bounding-set", "-dac_override,-dac_read_search", *command]
    return subprocess.run(
        ["sh", "-c", 'exec "$@" <&-', "sh", *command],
        cwd=cwd,
        check=False,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )


@each_script
def test_script_explains_itself_from_a_read_only_bundle(script: Path, read_only_bundle: Path, tmp_path: Path) -> None:
    before = sorted(read_only_bundle.rglob("*"))
    done = run_isolated(read_only_bundle / "scripts" / script.name, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) < MAX_HELP_LINES
    assert "exit codes:" in done.stdout
    assert "examples:" in done.stdout
    assert sorted(read_only_bundle.rglob("*")) == before
    assert not list(tmp_path.iterdir())


@each_script
def test_script_reports_an_unknown_flag_as_one_json_object(script: Path, tmp_path: Path) -> None:
    done = run_isolated(script, "--json", "--no-such-flag", cwd=tmp_path)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer.keys() == {"schema", "command", "ok", "data", "error"}
    assert (answer["command"], answer["ok"]) == (script.stem, False)
    assert "--no-such-flag" in answer["error"]["message"]


# --- layout and version ------------------------------------------------------------------------


def test_no_file_at_the_root_is_taken_for_something_else() -> None:
    """Clients would load CLAUDE.md as a project's memory; plugin.json would make the skill a plugin."""
    assert not (ROOT / "CLAUDE.md").exists()
    assert not (ROOT / ".claude-plugin" / "plugin.json").exists()


def test_no_module_has_a_private_name() -> None:
    """Some installers drop files whose names begin with an underscore."""
    private = [relative(path) for path in CODE if path.stem.startswith("_")]
    assert [name for name in private if Path(name).stem not in {"__init__", "__main__"}] == []


@pytest.mark.parametrize("module", CODE, ids=relative)
def test_module_is_short_enough_to_read(module: Path) -> None:
    lines = module.read_text(encoding="utf-8").count("\n")
    assert lines <= MAX_MODULE_LINES


def test_version_is_the_same_everywhere() -> None:
    marketplace = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))
    versions = {
        "pyproject.toml": PROJECT["version"],
        "autoresearch.__version__": autoresearch.__version__,
        "marketplace.json": marketplace["plugins"][0]["version"],
    }
    skill = ROOT / "SKILL.md"
    if skill.exists():
        frontmatter = yaml.safe_load(skill.read_text(encoding="utf-8").split("---\n")[1])
        versions["SKILL.md"] = frontmatter["metadata"]["version"]
    assert set(versions.values()) == {PROJECT["version"]}, versions


def test_marketplace_entry_is_the_whole_plugin() -> None:
    marketplace = json.loads((ROOT / ".claude-plugin" / "marketplace.json").read_text(encoding="utf-8"))
    (plugin,) = marketplace["plugins"]
    assert (plugin["name"], plugin["source"], plugin["skills"]) == ("autoresearch", "./", ["./"])
    assert plugin["strict"] is False
    assert marketplace["name"]
    assert marketplace["owner"]["name"]


# --- the tests themselves ----------------------------------------------------------------------

GROUPED = """\
import os
from pathlib import Path

import pytest


@pytest.mark.xdist_group("one")
@pytest.mark.parametrize("number", range(4))
def test_in_a_group(number):
    Path(f"worker_of_{number}").write_text(os.environ["PYTEST_XDIST_WORKER"])
"""


def test_tests_of_one_group_share_a_worker(tmp_path: Path) -> None:
    """Some releases of pytest and xdist together ignore the mark: each worker then has a cluster of its own."""
    (tmp_path / "test_grouped.py").write_text(GROUPED)
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadgroup", "-p", "no:cacheprovider"]
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(command, cwd=tmp_path, env=env, check=False, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout
    workers = [path.read_text() for path in tmp_path.glob("worker_of_*")]
    assert len(workers) == 4
    assert len(set(workers)) == 1


def test_the_longest_tests_come_first_where_several_workers_run(request: pytest.FixtureRequest) -> None:
    if not hasattr(request.config, "workerinput"):
        pytest.skip("in one process the tests keep their order")
    limits = [own_limit_s(item) for item in request.session.items]
    assert limits == sorted(limits, reverse=True)


# --- documents ---------------------------------------------------------------------------------


def links(document: Path) -> list[str]:
    """The targets of the inline links in ``document``, leaving out what stands in code."""
    text = document.read_text(encoding="utf-8")
    text = re.sub(r"(?ms)^(`{3,}|~{3,}).*?^\1|`[^`\n]*`", "", text)
    return re.findall(r"\]\(<?([^)\s>]+)", text)


@each_document
def test_relative_links_resolve(document: Path) -> None:
    targets = [link.partition("#")[0] for link in links(document) if not re.match(r"[a-z]+:", link)]
    assert [target for target in targets if target and not (document.parent / target).exists()] == []


def test_no_file_names_a_path_of_the_machine_it_was_written_on() -> None:
    ours = re.compile(r"(?<![\w.~)}\]-])/(?:work|root)/")
    found = []
    for path in bundle_files():
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{relative(path)}:{number}" for number, line in enumerate(lines, 1) if ours.search(line)]
    assert found == []


# --- the skill ---------------------------------------------------------------------------------

SKILL = ROOT / "SKILL.md"
MANUALS = [ROOT / "README.md", SKILL, *sorted((ROOT / "references").glob("*.md"))]
PORTABLE_KEYS = {"name", "description", "license", "compatibility", "metadata", "allowed-tools"}
KEYWORDS = (
    *("autoresearch", "autonomous research", "overnight experiments", "ml experiments loop"),
    *("auto optimization", "自主研究", "自动实验"),
)
MAX_SKILL_LINES = 200
MAX_SKILL_CHARACTERS = 15_000  # clients give back the first 5,000 tokens; three characters are more than one token
MAX_REFERENCE_LINES = 150
FLAG = re.compile(r"(?<![\w-])--[a-z][\w-]*")
each_manual = pytest.mark.parametrize("manual", MANUALS, ids=relative)


def test_frontmatter_holds_on_every_client() -> None:
    """Clients refuse other keys, cut longer texts, and take ``---`` and angle brackets for markup."""
    frontmatter = yaml.safe_load(SKILL.read_text(encoding="utf-8").split("---\n")[1])
    assert frontmatter.keys() <= PORTABLE_KEYS
    assert frontmatter["name"] == "autoresearch"
    description = frontmatter["description"]
    assert 0 < len(description) <= 1024
    assert not re.search(r"[<>]|---", description)
    assert [word for word in KEYWORDS if word not in description] == []
    assert len(frontmatter["compatibility"]) <= 500
    assert all(isinstance(value, str) for value in frontmatter["metadata"].values())


def test_skill_passes_the_reference_validator(tmp_path: Path) -> None:
    folder = tmp_path / "autoresearch"  # the validator compares the folder's name with the skill's
    folder.mkdir()
    shutil.copy(SKILL, folder)
    assert skills_ref.validate(folder) == []


def test_skill_and_references_are_short_enough_for_an_agent() -> None:
    text = SKILL.read_text(encoding="utf-8")
    assert text.count("\n") <= MAX_SKILL_LINES
    assert len(text) <= MAX_SKILL_CHARACTERS
    for reference in sorted((ROOT / "references").glob("*.md")):
        assert reference.read_text(encoding="utf-8").count("\n") <= MAX_REFERENCE_LINES, reference.name


def test_skill_says_when_to_open_each_reference() -> None:
    named = {link for link in links(SKILL) if link.startswith("references/")}
    assert named == {relative(path) for path in (ROOT / "references").glob("*.md")}


def test_invariants_of_the_loop_stand_in_the_first_half_of_the_skill() -> None:
    """After a compaction clients give back the beginning only."""
    text = SKILL.read_text(encoding="utf-8")
    for heading in ("## The loop", "## Who decides what", "## Safety rules"):
        assert text.index(heading) < len(text) / 2, heading


def test_each_reference_begins_with_when_to_open_it() -> None:
    for reference in sorted((ROOT / "references").glob("*.md")):
        title, _, opening = reference.read_text(encoding="utf-8").partition("\n\n")
        assert title.startswith("# "), reference.name
        assert re.match(r"(Read|Open) this (when|before)\b", opening), reference.name


@functools.cache
def flags_of(script: Path) -> frozenset[str]:
    """The flags that ``--help`` of ``script`` tells of."""
    done = run_isolated(script, "--help", cwd=ROOT)
    return frozenset(FLAG.findall(done.stdout))


@each_manual
def test_scripts_and_flags_in_manuals_exist(manual: Path) -> None:
    """On a line that names no script of ours a flag must belong to at least one of them."""
    by_name = {script.name: script for script in SCRIPTS}
    wrong = []
    for number, line in enumerate(manual.read_text(encoding="utf-8").splitlines(), 1):
        wrong += [f"{number}: {name}" for name in re.findall(r"scripts/(\w+\.py)", line) if name not in by_name]
        named = [by_name[name] for name in re.findall(r"\w+\.py", line) if name in by_name]
        known = frozenset[str]().union(*(flags_of(script) for script in named or SCRIPTS))
        wrong += [f"{number}: {flag}" for flag in FLAG.findall(line) if flag not in known]
    assert wrong == []


@each_manual
def test_manual_has_one_line_for_a_sentence(manual: Path) -> None:
    """No paragraph runs on over several lines: a line of prose ends as a sentence does."""
    text = re.sub(r"(?ms)\A---\n.*?^---\n|^(`{3,}|~{3,}).*?^\1", "", manual.read_text(encoding="utf-8"))
    prose = [line for line in text.splitlines() if re.match(r"[A-Za-z`\[*]", line)]
    assert [line for line in prose if not re.search(r"[.:;!?)`]$", line)] == []
