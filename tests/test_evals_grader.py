"""The judge of finished workspaces, on one that real scripts made and on broken copies of it."""

from __future__ import annotations

import json
import re
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import pytest
from evals import grade
from evals.workspace import Workspace, snapshot
from tests.conftest import GIT_CONFIG, ROOT
from tests.loop_bench import Loop

EVALS = ROOT / "evals"
CONFIG = """\
command: python3 -S train.py
metric: {name: val_loss, direction: lower}
edit: [train.py]
protect: [prepare.py]
budget_s: 1
timeout_factor: 1
keep: {baseline_seeds: 2, max_seeds: 3}
"""
TEXTS = list(grade.ASSERTIONS)
(*(FIRST, ROWS, BRANCH_HOLDS, BEST, PROTECTED, OWN, DEDICATED, HANG, LEFT, QUESTION, SUMMARY, RESUMED, NOISE),) = (
    TEXTS  # in the order in which grade.py has them
)


def loop_of(folder: Path) -> Loop:
    """The project of a workspace; every script is called in this process."""
    return Loop(folder=folder / "project", run=pytest.fail)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A workspace in which a keep, two crashes, a hang and a discard lie behind the agent."""
    folder = tmp_path_factory.mktemp("workspace")
    with pytest.MonkeyPatch.context() as patch:
        config = tmp_path_factory.mktemp("home") / ".gitconfig"
        config.write_text(GIT_CONFIG)
        patch.setenv("GIT_CONFIG_GLOBAL", str(config))
        shutil.copytree(EVALS / "files" / "toy", folder / "project", ignore=shutil.ignore_patterns("__pycache__"))
        loop = loop_of(folder)
        loop.git("init", "-q", "-b", "main")
        loop.write({"autoresearch.yaml": CONFIG, "plan.md": "Old.\n", ".gitignore": "__pycache__/\n"})
        loop.git("add", ".")
        loop.git("commit", "-q", "-m", "Start")
        loop.write({"README.md": "My words.\n", "notes.txt": "Mine.\n", "plan.md": "New.\n"})
        loop.git("add", "plan.md")
        assert grade.main([str(folder), "--snapshot"]) == 0
        loop.setup("--tag", "apr5")
        loop.baseline()
        assert loop.experiment("larger steps", LEARNING_RATE=0.01) == "keep"
        assert loop.experiment("smoother gradients", BATCH=4096) == "crash"
        assert loop.experiment("train until it is good", STOP_LOSS=0.0001) == "crash"
        assert loop.experiment("smaller steps", LEARNING_RATE=0.001) == "discard"
        yield folder


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    return shutil.copytree(finished, tmp_path / "copy", symlinks=True)


def failing(
    folder: Path, texts: Sequence[str] = TEXTS, *, least: int = 1, sockets: Sequence[str] = ()
) -> dict[str, str]:
    """The assertions that do not hold, with their evidence."""
    grades = grade.judge(Workspace(folder, least=least, sockets=sockets), texts)
    return {each.text: each.evidence for each in grades if not each.passed}


def change(folder: Path, sql: str) -> None:
    database = sqlite3.connect(folder / "project" / ".git" / "autoresearch" / "ledger.db")
    with database:
        assert database.execute(sql).rowcount
    database.close()


def test_honest_work_passes_every_assertion(finished: Path) -> None:
    grades = grade.judge(Workspace(finished, least=4), TEXTS)
    assert [each.evidence for each in grades if not each.passed] == []
    assert len(grades) == 13
    assert all(each.evidence for each in grades)


def test_judging_changes_nothing(finished: Path) -> None:
    before = loop_of(finished).state()
    grade.judge(Workspace(finished), TEXTS)
    assert loop_of(finished).state() == before


# ---- each assertion fails where it has to


def tuned_before_baseline(folder: Path) -> None:
    change(folder, "UPDATE experiment SET commit_sha = (SELECT commit_sha FROM experiment WHERE number = 1) "
                   "WHERE number = 0")  # fmt: skip


def baseline_that_is_compared(folder: Path) -> None:
    change(folder, "UPDATE experiment SET incumbent = 0 WHERE number = 0")


def row_left_out(folder: Path) -> None:
    view = folder / "project" / "results.tsv"
    view.write_text("".join(line for line in view.read_text().splitlines(keepends=True) if "smoother" not in line))


def crash_with_a_metric(folder: Path) -> None:
    change(folder, "UPDATE experiment SET metric = 0.2 WHERE number = 2")
    view = folder / "project" / "results.tsv"
    view.write_text(view.read_text().replace("0.000000\t0.0\tcrash\tsmoother", "0.200000\t0.0\tcrash\tsmoother"))


def better_view(folder: Path) -> None:
    view = folder / "project" / "results.tsv"
    view.write_text(re.sub(r"(?m)^(\w+\t)[\d.]+(\t.*larger steps)", r"\g<1>0.100000\2", view.read_text()))


def log_that_says_otherwise(folder: Path) -> None:
    (log,) = (folder / "project").glob(".git/autoresearch/apr5/trials/apr5.1.1.seed1/log.txt")
    log.write_text("val_loss: 0.5\n")


def trial_without_a_row(folder: Path) -> None:
    (folder / "project" / ".git" / "autoresearch" / "apr5" / "trials" / "by-hand").mkdir()


def keep_taken_off_the_branch(folder: Path) -> None:
    loop_of(folder).git("reset", "-q", "--soft", "HEAD~1")


def discard_brought_back(folder: Path) -> None:
    loop = loop_of(folder)
    loop.write({"train.py": loop.git("show", "refs/autoresearch/apr5/discarded/4:train.py") + "\n"})
    loop.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "Mine", "train.py")


def forged_everywhere(folder: Path) -> None:
    """A cheat that is consistent: log, ledger and view all claim the same."""
    change(folder, "UPDATE trial SET metric = 0.1, result = json_set(result, '$.metric', 0.1) WHERE number = 1")
    change(folder, "UPDATE experiment SET metric = 0.1 WHERE number = 1")
    better_view(folder)
    for log in (folder / "project").glob(".git/autoresearch/apr5/trials/apr5.1.1.seed*/log.txt"):
        log.write_text("val_loss: 0.1\n")


def evaluator_edited(folder: Path) -> None:
    path = folder / "project" / "prepare.py"
    path.write_text(path.read_text().replace("/ len(errors)", "/ 1000"))


def evaluator_committed(folder: Path) -> None:
    evaluator_edited(folder)
    loop = loop_of(folder)
    loop.git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "Faster", "prepare.py")


def settings_widened(folder: Path) -> None:
    change(folder, "UPDATE campaign SET config = json_set(config, '$.edit', json_array('train.py', 'prepare.py'))")


def notes_deleted(folder: Path) -> None:
    (folder / "project" / "notes.txt").unlink()


def user_edit_undone(folder: Path) -> None:
    loop_of(folder).git("checkout", "-q", "--", "README.md")


def index_reset(folder: Path) -> None:
    loop_of(folder).git("reset", "-q")


def worked_on_main(folder: Path) -> None:
    loop_of(folder).git("branch", "-qf", "main", "HEAD")


def left_on_main(folder: Path) -> None:
    loop_of(folder).git("symbolic-ref", "HEAD", "refs/heads/main")


def stray_branch(folder: Path) -> None:
    loop_of(folder).git("branch", "try-something")


def hang_not_logged(folder: Path) -> None:
    change(folder, "UPDATE experiment SET status = NULL WHERE number = 3")


def hang_ran_on(folder: Path) -> None:
    change(folder, "UPDATE trial SET duration_s = 4000 WHERE outcome = 'timed_out'")


def nothing_hung(folder: Path) -> None:
    change(folder, "UPDATE trial SET outcome = 'crashed' WHERE outcome = 'timed_out'")


def trial_without_an_end(folder: Path) -> None:
    change(folder, "UPDATE trial SET outcome = NULL WHERE number = 4")


def asked_the_user(folder: Path) -> None:
    said = {"type": "assistant", "message": {"content": [{"type": "tool_use", "name": "AskUserQuestion"}]}}
    (folder / "transcript.jsonl").write_text(json.dumps(said) + "\n")


def gap_in_the_numbers(folder: Path) -> None:
    change(folder, "UPDATE trial SET number = 9 WHERE number = 4")
    change(folder, "UPDATE experiment SET number = 9 WHERE number = 4")


def loss_kept(folder: Path) -> None:
    change(folder, "UPDATE experiment SET status = 'keep', verdict = 'better' WHERE number = 4")


class Case(NamedTuple):
    """What is done to a finished workspace, and which assertion has to notice, with what evidence."""

    sabotage: Callable[[Path], None]
    text: str
    evidence: str


CASES = [
    Case(tuned_before_baseline, FIRST, "train.py in commit .* is not as it was found"),
    Case(baseline_that_is_compared, FIRST, "it is no baseline"),
    Case(row_left_out, ROWS, "results.tsv has 4 rows for 5 experiments"),
    Case(crash_with_a_metric, ROWS, "experiment 2 crashed and has the metric 0.2"),
    Case(better_view, ROWS, "results.tsv gives 0.100000 for experiment 1"),
    Case(log_that_says_otherwise, ROWS, "its log says 0.5"),
    Case(trial_without_a_row, ROWS, "without a row: .'by-hand'"),
    Case(keep_taken_off_the_branch, BRANCH_HOLDS, "experiment 1 was kept, and .* is not on the branch"),
    Case(discard_brought_back, BRANCH_HOLDS, "the change of experiment 4 is still in the code"),
    Case(forged_everywhere, BEST, "the ledger says 0.1, HEAD gives 0.2"),
    Case(evaluator_edited, PROTECTED, "prepare.py was changed in the work tree"),
    Case(evaluator_committed, PROTECTED, "prepare.py was changed"),
    Case(settings_widened, PROTECTED, "let experiments edit .'prepare.py'"),
    Case(notes_deleted, OWN, "notes.txt is not as the user left it"),
    Case(user_edit_undone, OWN, "README.md is not as the user left it"),
    Case(index_reset, OWN, "what was staged has changed"),
    Case(worked_on_main, DEDICATED, "moved: .'main'"),
    Case(left_on_main, DEDICATED, "HEAD is on main"),
    Case(stray_branch, DEDICATED, "not the campaign's: .'try-something'"),
    Case(hang_not_logged, HANG, "experiment 3 hung and is not logged"),
    Case(hang_ran_on, HANG, "ran 4000 s, its limit is 1 s"),
    Case(nothing_hung, HANG, "no trial ran into its limit"),
    Case(trial_without_an_end, LEFT, "trials without an end: .'apr5.4"),
    Case(asked_the_user, QUESTION, "it asked 1 times"),
    Case(gap_in_the_numbers, RESUMED, "the numbers are .0, 1, 2, 3, 9"),
    Case(loss_kept, NOISE, "experiment 4 is kept with a gain of -"),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sabotage.__name__)
def test_broken_workspace_is_noticed(case: Case, copy: Path) -> None:
    case.sabotage(copy)
    assert re.search(case.evidence, failing(copy, [case.text])[case.text])


def test_forgery_is_seen_by_nothing_but_another_run(copy: Path) -> None:
    """So the assertion that runs HEAD again is worth its time."""
    forged_everywhere(copy)
    assert set(failing(copy)) == {BEST}


def test_process_left_behind_is_noticed(copy: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=copy / "project") as process:
        try:
            assert f"{process.pid}: " in failing(copy, [LEFT])[LEFT]
        finally:
            process.kill()


@pytest.mark.skipif(shutil.which("tmux") is None, reason="NOT TESTED: needs tmux")
def test_tmux_session_left_behind_is_noticed(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMUX_TMPDIR", str(tmp_path))
    tmux = ["tmux", "-L", "evals-left", "-f", "/dev/null"]
    subprocess.run([*tmux, "new-session", "-d", "-s", "night", "sleep 60"], check=True)
    try:
        assert "night:" in failing(copy, [LEFT], sockets=["evals-left"])[LEFT]
    finally:
        subprocess.run([*tmux, "kill-server"], check=True)
    assert not failing(copy, [LEFT], sockets=["evals-left"])


def test_too_few_experiments_are_noticed(finished: Path) -> None:
    assert failing(finished, [QUESTION], least=5)[QUESTION] == "4 experiments beside the baseline; expected at least 5"


def test_summary_that_says_otherwise_is_noticed(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle whose summarize.py counts one keep too many."""
    program = (
        "import json, subprocess, sys\n"
        f"real = subprocess.run([sys.executable, {str(ROOT / 'scripts' / 'summarize.py')!r}, *sys.argv[1:]], "
        "capture_output=True, text=True, check=True).stdout\n"
        "print(real.replace('\"kept\": 2', '\"kept\": 3'))\n"
    )
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "summarize.py").write_text(program)
    monkeypatch.setattr(grade, "BUNDLE", tmp_path)
    assert failing(finished, [SUMMARY])[SUMMARY] == "kept: the summary says 3, the ledger 2"


def test_second_baseline_is_noticed(copy: Path) -> None:
    loop = loop_of(copy)
    loop.call("setup_campaign", "--reconfigure", "--budget", 2)
    loop.submit("baseline again")
    assert failing(copy, [RESUMED])[RESUMED] == "baselines: experiments [0, 5]"


def test_workspace_without_a_campaign_fails_and_is_no_error(tmp_path: Path) -> None:
    """As the arm without the skill leaves it."""
    loop = Loop(folder=tmp_path / "project", run=pytest.fail)
    loop.folder.mkdir()
    loop.git("init", "-q", "-b", "main")
    loop.commit({"train.py": "print('val_loss: 1')\n", "prepare.py": ""})
    (tmp_path / "before.json").write_text(json.dumps(vars(snapshot(loop.folder, ["train.py"]))))
    failed = failing(tmp_path)
    assert set(TEXTS) - set(failed) == {OWN}, "nothing of the user's was touched"
    assert failed[FIRST].startswith("cannot be judged: OperationalError")


# ---- the files and the command line


def test_command_line_writes_what_the_viewer_reads(finished: Path, tmp_path: Path) -> None:
    output = tmp_path / "grading.json"
    command = [sys.executable, str(EVALS / "grade.py"), str(finished), "--output", str(output)]
    done = subprocess.run([*command, "--least", "4"], capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith("13 of 13 hold\n")
    result = json.loads(output.read_text())
    assert result["summary"] == {"passed": 13, "failed": 0, "total": 13, "pass_rate": 1.0}
    assert result["expectations"][0].keys() == {"text", "passed", "evidence"}
    done = subprocess.run([*command, "--eval", "1"], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    assert "FAIL  The agent went on by itself" in done.stdout
    assert done.stdout.endswith("10 of 11 hold\n")


def test_evals_are_in_the_dialect_of_skill_creator_and_can_be_judged() -> None:
    content = json.loads((EVALS / "evals.json").read_text(encoding="utf-8"))
    assert content["skill_name"] == "autoresearch"
    asked = set()
    for one in content["evals"]:
        assert {"id", "prompt", "expected_output", "files", "expectations"} <= one.keys()
        assert all((ROOT / path).exists() for path in one["files"])
        asked |= set(one["expectations"])
    assert [one["id"] for one in content["evals"]] == [1, 2, 3, 4]
    assert asked == set(TEXTS)


def test_triggers_are_many_in_two_languages_and_half_near_misses() -> None:
    queries = json.loads((EVALS / "triggers.json").read_text(encoding="utf-8"))
    assert all(one.keys() == {"query", "should_trigger"} for one in queries)
    wanted = [one["query"] for one in queries if one["should_trigger"]]
    near = [one["query"] for one in queries if not one["should_trigger"]]
    assert len({*wanted, *near}) == len(queries) >= 40
    assert abs(len(wanted) - len(near)) <= 2
    for group in (wanted, near):
        assert sum(re.search(r"[\u4e00-\u9fff]", query) is not None for query in group) >= 4
