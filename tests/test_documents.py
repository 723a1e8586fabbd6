"""What the manuals say is so: each command in them can be given, and those that can be run are."""

from __future__ import annotations

import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import CONFIG, PROJECT, Loop, make_measured_loop
from tests.setup_bench import make_bench
from tests.test_conventions import FLAG, MANUALS, SCRIPTS, relative

from autoresearch.output import Parser

FENCE = re.compile(r"(?ms)^(`{3,})(\w*)\n(.*?)^\1")
OURS = re.compile(rf"(?:^|[\s/])({'|'.join(script.stem for script in SCRIPTS)})\.py(?![\w`])")
COMMON = {"--help", "--json", "--project", "--tag"}  # told once for all scripts


class Command(NamedTuple):
    """A command of ours as a manual gives it."""

    manual: str
    script: str
    words: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.manual}: {self.script}.py {shlex.join(self.words)}"


def pieces_of_code(text: str) -> Iterator[str]:
    """The lines of fenced blocks that a shell reads, and the inline code."""
    for _, language, block in FENCE.findall(text):
        if language in ("sh", "bash"):
            yield from block.splitlines()
        elif language == "console":
            yield from (line[2:] for line in block.splitlines() if line.startswith("$ "))
    yield from re.findall(r"`([^`\n]+)`", FENCE.sub("", text))


def commands() -> list[Command]:
    found = []
    for manual in MANUALS:
        for piece in pieces_of_code(manual.read_text(encoding="utf-8")):
            if named := OURS.search(piece):
                words = shlex.split(piece[named.end() :], comments=True)
                found.append(Command(relative(manual), named[1], tuple(words)))
    return list(dict.fromkeys(found))


COMMANDS = commands()


def parser_of(script: str) -> Parser:
    parser: Parser = runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))["build_parser"]()
    return parser


def test_manuals_hold_commands_of_every_kind() -> None:
    assert {"README.md", "SKILL.md", "references/when-stuck.md"} <= {command.manual for command in COMMANDS}
    assert sum(bool(command.words) for command in COMMANDS) > 20


@pytest.mark.parametrize("command", COMMANDS, ids=str)
def test_command_of_a_manual_can_be_given(command: Command) -> None:
    """Its flags, choices and numbers are those that the script takes; a usage error fails this."""
    parser_of(command.script).parse_args(command.words)


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_every_flag_is_told_beside_its_script(script: Path) -> None:
    """The other way round: references/scripts.md has rows for each script that name all its flags."""
    text = (ROOT / "references" / "scripts.md").read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith(f"| `{script.name}`")]
    assert rows, f"give {script.name} a row"
    told = {flag for row in rows for flag in FLAG.findall(row)}
    taken = {flag for action in parser_of(script.stem)._actions for flag in action.option_strings if len(flag) > 2}
    assert taken - COMMON == told


# ---- commands that are run


# What trains for long, needs another program, or writes into the folder that the test stands in.
NOT_HERE = {
    *("--claim", "--html", "--plot", "--csv", "--parquet", "--mlflow", "--tensorboard", "--wandb", "--notify"),
    *("--starter", "--prepare", "--import", "--reconfigure", "--chart", "--watch"),
}


def told_of(*scripts: str) -> list[Command]:
    """The commands of these scripts that a test can run as they stand: without words to be filled in."""
    whole = [one for one in COMMANDS if not any(word.isupper() for word in one.words)]
    return [one for one in whole if one.script in scripts and not set(one.words) & NOT_HERE]


def test_commands_of_the_manuals_run(tmp_path: Path, run_script: RunScript) -> None:
    """Those that look, and dry runs of those that act, where an edit waits in a campaign with a keep."""
    loop = make_measured_loop(tmp_path / "project", run_script)
    assert loop.experiment("faster", LR=8) == "keep"
    loop.edit(WIDTH=32)
    looks, runs = told_of("status", "summarize"), told_of("run_experiment")
    assert (len(looks) > 4, len(runs) > 2) == (True, True)
    for command in looks:
        loop.call(command.script, *[word for word in command.words if word != "--json"])
    for command in runs:
        if "-d" in command.words:  # without one it is a further attempt
            loop.call(command.script, *command.words, "--dry-run")
    assert "WIDTH = 32" in loop.text()


def test_set_ups_of_the_manuals_run(tmp_path: Path, run_script: RunScript) -> None:
    bench = make_bench(tmp_path / "project", run_script, {**PROJECT, "autoresearch.yaml": CONFIG})
    before = bench.state()
    asked = told_of("setup_campaign")
    assert len(asked) > 1
    for command in asked:
        bench.setup(*[word for word in command.words if word != "--dry-run"], "--dry-run")
    assert bench.state() == before


# ---- the README's session

# Its project: the metric depends on one constant and, a little, on the seed.
README_TRAIN = """\
import os
import random

from prepare import evaluate

MATRIX_LR = 0.08
WARMDOWN = 0.5
WIDTH = 1
if WIDTH > 1:
    raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB")
noise = random.Random(int(os.environ["AUTORESEARCH_SEED"])).gauss(0, 0.002)
print(f"val_bpb: {evaluate(MATRIX_LR) + (0.5 - WARMDOWN) / 20 + noise:.6f}")
"""
README_PREPARE = """\
TIME_BUDGET = 300


def evaluate(rate):
    return 0.99 + 60 * (rate - 0.045) ** 2
"""
LAST = "## The morning"  # stands early in README, and shows the end of the session


class Shown(NamedTuple):
    """A command of README's consoles, and the lines beneath it."""

    command: str
    lines: list[str]


def session() -> list[Shown]:
    """The commands in the order in which they were given."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    sections = re.split(r"(?m)^(?=## )", text)
    found: list[Shown] = []
    for section in sorted(sections, key=lambda section: section.startswith(LAST)):
        for _, language, block in FENCE.findall(section):
            for line in block.splitlines() if language == "console" else ():
                if line.startswith("$ "):
                    found.append(Shown(line[2:], []))
                elif line:
                    found[-1].lines.append(line)
    return found


def shape(line: str) -> str:
    """``line`` with all that differs from machine to machine blotted out: numbers, plurals, commits, columns."""
    line = re.sub(r"\b[0-9a-f]{7}\b|[-+±]?\d[\d.]*(?:e-?\d+)?", "#", line)
    line = re.sub(r"# (\w+?)s\b", r"# \1", line)
    return re.sub(r"\s+", " ", re.sub(r"\b(?:h|min|s)\b", "s", line)).strip()


@pytest.mark.slow
def test_session_of_the_readme_goes_as_it_is_told(tmp_path: Path, run_script: RunScript) -> None:
    """Each command ends well, and prints lines of the shape that README shows (and perhaps more)."""
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    loop.git("init", "-q", "-b", "main")
    loop.commit({"train.py": README_TRAIN, "prepare.py": README_PREPARE})
    told = session()
    assert len(told) >= 7
    missing = []
    for command, lines in told:
        if "status.py" in command:  # two ideas lie between, as README says
            loop.submit("shorter warmdown", "--family", "schedule", WARMDOWN=0.4)
            assert loop.log()["experiment"]["status"] == "discard"
            loop.submit("twice the width", "--family", "architecture", WIDTH=2)
            assert loop.log()["experiment"]["status"] == "crash"
        line = command.replace("python …", f"{shlex.quote(sys.executable)} {ROOT}")
        done = subprocess.run(
            ["sh", "-c", line], cwd=loop.folder, env={**os.environ, "COLUMNS": "160"}, capture_output=True,
            text=True, check=False, timeout=100, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == 0, (command, done.stderr)
        said = (done.stdout + done.stderr).replace(f"{ROOT}/scripts", "…/scripts").replace(sys.executable, "python")
        printed = {shape(line) for line in said.splitlines()}
        missing += [f"{command}\n    {line}" for line in lines if shape(line) not in printed]
    assert missing == [], "README shows what is not printed:\n" + "\n".join(missing)
