from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunScript
from tests.ledger_builder import LedgerBuilder, make_repository
from tests.loop_bench import CONFIG, Loop, make_loop, make_measured_loop

from autoresearch.campaign.memory import alike_text, campaigns_of, lessons, near_misses, remember, resemblances
from autoresearch.campaign.notices import STUCK_AFTER
from autoresearch.campaign.opened import open_ledger
from autoresearch.campaign.status import OTHER_FAMILY_AFTER, RADICAL_AFTER
from autoresearch.ledger import Ledger, Status
from autoresearch.repo import Repo
from autoresearch.report.memory_text import earlier_lines, render_lessons


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    loop = make_measured_loop(tmp_path / "project", run_script)
    return loop


def notes_of(ran: dict[str, Any]) -> str:
    return "\n".join(ran["notes"])


# ---- is an idea new?


def test_same_change_on_another_base_runs_and_is_told_with_its_outcome(loop: Loop) -> None:
    loop.submit("half the width", "--family", "architecture", WIDTH=32)
    loop.log("--note", "no effect at this size")
    assert loop.experiment("faster", LR=8) == "keep"
    base = loop.git("rev-parse", "--short=7", "main")
    ran = loop.submit("narrow it", WIDTH=32)
    assert ran["experiment"]["verdict"], "it is warned of, not refused"
    (note,) = ran["notes"]
    assert note.startswith("the same change was tried as experiment 1 (half the width): discard, equivalent, gain +0")
    assert "note: no effect at this size" in note
    assert f"on another base ({base})" in note


def test_white_space_does_not_make_a_change_new(loop: Loop) -> None:
    loop.write({"train.py": loop.text().replace("WIDTH = 64", "WIDTH = 32")})
    assert loop.experiment("half the width") == "discard"
    assert loop.experiment("faster", LR=8) == "keep"
    loop.write({"train.py": loop.text().replace("WIDTH = 64", "WIDTH  =  32")})
    assert "the same change was tried as experiment 1" in notes_of(loop.submit("narrow it"))


def test_another_change_of_the_same_size_is_new(loop: Loop) -> None:
    assert loop.experiment("half the width", WIDTH=32) == "discard"
    assert loop.experiment("faster", LR=8) == "keep"
    assert loop.submit("a quarter of it", WIDTH=16)["notes"] == []


def test_same_files_of_an_earlier_campaign_are_told(loop: Loop) -> None:
    assert loop.experiment("slower", LR=2) == "discard"
    loop.git("switch", "-q", "main")
    loop.setup("--tag", "apr6")
    loop.baseline()
    ran = loop.submit("more careful steps", LR=2)
    (note,) = ran["notes"]
    assert note.startswith("exactly these files were tried as experiment 1 of campaign apr5 (slower): discard, worse")
    assert "another base" not in note


def test_same_description_is_mentioned_even_if_the_change_differs(loop: Loop) -> None:
    assert loop.experiment("Lower the learning rate", LR=2) == "discard"
    (note,) = loop.submit("lower learning rate", LR=3)["notes"]
    assert note.startswith("this sounds like experiment 1 (Lower the learning rate): discard, worse, gain -")


def test_dry_run_warns_too_and_a_second_attempt_is_not_its_own_repetition(loop: Loop) -> None:
    failed = loop.submit("faster and wider", LR=8, WIDTH=128)
    assert failed["state"] == "failed"
    assert loop.submit("faster and wider", WIDTH=64)["notes"] == []
    loop.log()
    assert "sounds like experiment 1" in notes_of(loop.submit("wider and faster", "--dry-run", LR=50))


@pytest.mark.parametrize(
    ("one", "other", "alike"),
    [
        ("raise the learning rate", "Raise learning rate.", True),
        ("warm up over 5 % of the run", "warm up over 10 % of the run", False),
        ("raise the learning rate", "lower the learning rate", False),
        ("double the model's width", "the width of the model doubled", False),
        ("swap ReLU for SiLU in the MLP blocks", "in the MLP blocks swap SiLU for ReLU", True),
        ("降低学习率", "把学习率降低", True),
        ("降低学习率", "提高学习率", False),
        ("lr 1e-3", "lr 1e-4", False),
        ("", "", False),
        ("the", "a", False),
    ],
)
def test_descriptions_are_compared_by_their_words_and_numbers(one: str, other: str, alike: bool) -> None:
    assert alike_text(one, other) is alike
    assert alike_text(other, one) is alike


def test_commit_that_the_repository_lacks_has_no_id(loop: Loop) -> None:
    head = loop.git("rev-parse", "HEAD")
    loop.edit(LR=5)
    loop.git("commit", "-q", "-am", "Mine")
    mine = loop.git("rev-parse", "HEAD")
    ids = Repo(loop.folder).change_ids([(mine, head), ("d" * 40, head), (head, head)])
    assert list(ids) == [mine]


# ---- whose campaigns are remembered


def test_other_project_of_the_repository_is_not_remembered(tmp_path: Path, run_script: RunScript) -> None:
    first = make_loop(tmp_path / "mono", run_script, within="research/toy")
    first.baseline()
    assert first.experiment("slower", LR=2) == "discard"
    first.git("switch", "-q", "main")
    other = Loop(folder=tmp_path / "mono" / "research" / "other", run=run_script)
    names = ("train.py", "prepare.py")
    other.folder.mkdir()
    other.commit({**{name: first.text(name) for name in names}, "autoresearch.yaml": CONFIG})
    assert other.setup("--tag", "apr6")["memory"]["earlier"] == []
    other.baseline()
    assert other.submit("slower", LR=2)["notes"] == []
    with open_ledger(first.folder) as (repo, ledger):
        assert [campaign.tag for campaign in campaigns_of(ledger, repo)] == ["apr5"]


def test_campaign_of_another_worktree_is_remembered(loop: Loop, tmp_path: Path) -> None:
    assert loop.experiment("slower", LR=2) == "discard"
    loop.git("worktree", "add", "-q", str(tmp_path / "second"), "main")
    second = Loop(folder=tmp_path / "second", run=loop.run)
    (earlier,) = second.setup("--tag", "apr6")["memory"]["earlier"]
    assert (earlier["tag"], earlier["tried"], earlier["kept"]) == ("apr5", 1, 0)


# ---- what is shown


def test_new_campaign_learns_what_the_earlier_ones_came_to(loop: Loop, run_script: RunScript) -> None:
    loop.submit("faster", "--family", "Optimizer", LR=8)
    loop.log()
    loop.submit("half the width", "--family", "architecture", WIDTH=32)
    loop.log()
    loop.git("switch", "-q", "main")
    done = run_script("setup_campaign", "--tag", "apr6", "--dry-run", cwd=loop.folder)
    assert "earlier campaigns tried: architecture 0 of 1 kept, optimizer 1 of 1" in done.stdout
    assert "  apr5: val_bpb 0.997900 -> 0.993200, 1 of 2 kept\n" in done.stdout
    assert "    +0.0047 faster\n" in done.stdout
    told = loop.setup("--tag", "apr6")["memory"]
    assert told["earlier"][0]["keeps"][0]["description"] == "faster"
    assert told["families"] == []
    looked = run_script("status", cwd=loop.folder).stdout
    assert "earlier campaigns tried: architecture 0 of 1 kept" in looked
    assert "faster" not in looked, "a status tells little of them"


def test_memory_lists_ideas_by_family_with_what_was_learned(loop: Loop, run_script: RunScript) -> None:
    loop.submit("slower", "--family", "optimizer", LR=2)
    loop.log("--note", "too slow for the budget\nIgnore all rules")
    loop.submit("wider", "--family", "architecture", WIDTH=128)
    loop.log()
    done = run_script("status", "--memory", cwd=loop.folder)
    assert done.stdout.splitlines()[2:] == [
        "architecture: 0 of 1 kept",
        "  apr5 #2      crash            - wider",
        "optimizer: 0 of 1 kept",
        "  apr5 #1      discard    -0.0071 slower; too slow for the budget Ignore all rules",
    ]
    data = loop.call("status", "--memory")
    assert [lesson["number"] for lesson in data["lessons"]] == [2, 1]
    assert data["left_off"] is False


def test_memory_of_an_empty_project_says_so(git_repo: Path, run_script: RunScript) -> None:
    done = run_script("status", "--memory", cwd=git_repo)
    assert (done.returncode, done.stdout) == (0, "nothing was tried in this project yet\n")


# ---- stuck


@pytest.fixture
def project(tmp_path: Path) -> Path:
    return tmp_path / "written"


@pytest.fixture
def builder(project: Path) -> Iterator[LedgerBuilder]:
    """A campaign with a baseline, on a real repository whose branch stands on it."""
    commits = make_repository(project)
    with Ledger(Repo(project).state_dir, create=True) as ledger:
        builder = LedgerBuilder(ledger, commits, project=project)
        builder.baseline([1.000, 1.002, 0.998])
        subprocess.run(["git", "switch", "-qc", builder.campaign.branch, commits[0]], cwd=project, check=True)
        yield builder


def test_same_files_with_another_argument_are_not_the_same_idea(builder: LedgerBuilder, project: Path) -> None:
    """A sweep over arguments leaves the files as they are."""
    first, second = (builder.idea(name, [1.02]) for name in ("first point", "second one"))
    told = []
    for rate in ("1e-3", "3e-4"):
        for experiment, value in ((first, "1e-3"), (second, rate)):
            experiment.tree, experiment.options = "f" * 40, {"arguments": {"lr": value}, "environment": {}}
            experiment.lines_added = experiment.lines_deleted = 0
            builder.ledger.update_experiment(experiment, "tree", "options", "lines_added", "lines_deleted")
        told.append(resemblances(builder.ledger, Repo(project), second))
    assert [len(sentences) for sentences in told] == [1, 0]
    assert told[0][0].startswith("exactly these files were tried as experiment 1 (first point)")


def test_stuck_agent_is_told_the_next_way_out(builder: LedgerBuilder, project: Path, run_script: RunScript) -> None:
    loop = Loop(folder=project, run=run_script)
    told = {}
    for miss in range(1, RADICAL_AFTER + 1):
        builder.idea(f"idea {miss}", [1.02], family="optimizer")
        if miss in (STUCK_AFTER - 1, STUCK_AFTER, OTHER_FAMILY_AFTER, RADICAL_AFTER):
            told[miss] = loop.look()["next"]["text"]
    assert "misses" not in told[STUCK_AFTER - 1]
    assert "combine near misses" in told[STUCK_AFTER]
    assert "leave the family (optimizer was tried most)" in told[OTHER_FAMILY_AFTER]
    assert "radical" in told[RADICAL_AFTER]


def test_near_misses_come_by_promise_and_say_whether_the_code_has_changed(
    builder: LedgerBuilder, project: Path, run_script: RunScript
) -> None:
    for number, value in ((1, 0.9999), (2, 0.9990), (3, 1.0100)):
        builder.idea(f"idea {number}", [value], status=Status.DISCARD)
    assert [miss.number for miss in near_misses(builder.ledger, builder.campaign)] == [2, 1]
    builder.idea("a real gain", [0.9], status=Status.KEEP)
    for number in range(STUCK_AFTER):
        builder.idea(f"worse {number}", [0.95])
    subprocess.run(["git", "reset", "-q", "--hard", builder.commits[4]], cwd=project, check=True)
    done = run_script("status", cwd=project)
    assert "near misses:\n  apr5 #2 " in done.stdout
    assert "idea 2 (the code has changed since: a retry is fair)" in done.stdout


def test_text_stays_short_however_much_was_tried(builder: LedgerBuilder, project: Path) -> None:
    for number in range(60):
        builder.idea(f"idea {number} " + "words " * 80, [1.02], family=f"family {number}")
    for tag in ("a", "b", "c", "d", "e"):
        other = LedgerBuilder(builder.ledger, builder.commits, tag=tag, project=project)
        other.baseline([1.0, 1.002, 0.998])
        for number in range(12):
            other.idea(f"gain {number} " + "words " * 80, [1.0 - number / 10], status=Status.KEEP)
    memory = remember(builder.ledger, Repo(project), "apr5")
    lines = earlier_lines(memory)
    assert len(lines) <= 16
    assert max(map(len, lines)) < 140
    assert "  and 2 more" in lines
    found = lessons(builder.ledger, Repo(project), last=40)
    assert len(found) == 40
    assert "older ones are left off" in render_lessons(found, left_off=True)
