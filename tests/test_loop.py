"""The experiment loop, through the real scripts on a toy project."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, RunScript
from tests.loop_bench import BRANCH, CONFIG, PREPARE, TAG, TRAIN, Loop, make_loop, make_measured_loop
from tests.trial_bench import eventually


@pytest.fixture
def loop(tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with its baseline measured."""
    loop = make_measured_loop(tmp_path / "project", run_script)
    return loop


@pytest.fixture
def fresh(tmp_path: Path, run_script: RunScript) -> Loop:
    """The toy project with a campaign and no experiment yet."""
    return make_loop(tmp_path / "project", run_script)


# ---- the protocol


def run_json(loop: Loop, name: str, *arguments: str) -> dict[str, Any]:
    """Run a script as a program of its own and check the envelope around its answer."""
    done = loop.run(name, *arguments, "--json", cwd=loop.folder)
    answer: dict[str, Any] = json.loads(done.stdout)
    assert list(answer) == ["schema", "command", "ok", "data", "error"]
    assert (answer["schema"], answer["command"], answer["ok"]) == (1, name, done.returncode in (0, 10))
    assert done.returncode != 0 or answer["error"] is None
    return answer | {"code": done.returncode}


def test_protocol_gives_the_table_to_the_letter_and_the_notebook_reads_it(fresh: Loop) -> None:
    def experiment(description: str, **constants: object) -> None:
        fresh.edit(**constants)
        ran = run_json(fresh, "run_experiment", "-d", description)
        assert (ran["code"], ran["data"]["experiment"]["description"]) == (0, description)
        if ran["data"]["state"] != "idle":  # a measured baseline needs no decision
            logged = run_json(fresh, "log_result")
            assert (logged["code"], logged["data"]["changed"]) == (0, True)

    experiment("baseline")
    experiment("increase LR to 0.04", LR=8)
    experiment("switch to GeLU activation", LR=2)
    experiment("double model width (OOM)", WIDTH=128)

    commits = [experiment["commit"] for experiment in run_json(fresh, "status")["data"]["history"]]
    assert fresh.results.read_text() == (
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription\n"
        f"{commits[0]}\t0.997900\t44.0\tkeep\tbaseline\n"
        f"{commits[1]}\t0.993200\t44.2\tkeep\tincrease LR to 0.04\n"
        f"{commits[2]}\t1.005000\t44.0\tdiscard\tswitch to GeLU activation\n"
        f"{commits[3]}\t0.000000\t0.0\tcrash\tdouble model width (OOM)\n"
    )
    assert fresh.tip().startswith(commits[1])
    assert fresh.git("log", "--format=%s", "main..") == "experiment: increase LR to 0.04"
    assert analyse(fresh.results) == {
        "counts": {"KEEP": 2, "DISCARD": 1, "CRASH": 1},
        "baseline": 0.9979,
        "running_best": [0.9979, 0.9932],
        "gains": [("increase LR to 0.04", pytest.approx(0.0047))],
    }


def analyse(path: Path) -> dict[str, Any]:
    """What the notebook of the protocol computes of a results.tsv, in our words."""
    import pandas as pd

    table = pd.read_csv(path, sep="\t")
    table["val_bpb"] = pd.to_numeric(table["val_bpb"], errors="coerce")
    table["memory_gb"] = pd.to_numeric(table["memory_gb"], errors="coerce")
    assert not table.isna().any(axis=None)
    table["status"] = table["status"].str.strip().str.upper()
    kept = table[table["status"] == "KEEP"]
    gains = -kept["val_bpb"].diff()
    return {
        "counts": table["status"].value_counts().to_dict(),
        "baseline": table["val_bpb"].iloc[0],
        "running_best": kept["val_bpb"].cummin().tolist(),
        "gains": list(zip(kept["description"][1:], gains[1:], strict=True)),
    }


def test_answers_carry_the_keys_that_agents_rely_on(loop: Loop) -> None:
    ran = loop.submit("faster", LR=8)
    assert set(ran) == {"experiment", "state", "running", "notes", "warnings", "next"}
    assert {"number", "commit", "verdict", "status", "metric", "seeds", "trials"} <= set(ran["experiment"])
    logged = loop.log()
    assert set(logged) == {"experiment", "changed", "incumbent", "undone", "retest_started", "told", "next"}
    state = loop.look()
    assert {"state", "counts", "incumbent", "noise", "history", "next", "repaired", "warnings"} <= set(state)
    assert set(state["next"]) == {"text", "command"}


def test_description_becomes_one_line_and_keeps_its_letters(loop: Loop) -> None:
    loop.submit("tab\there,\r\nnewline 自主研究 “ü” \x1b[31m", LR=8)
    loop.log()
    description = loop.rows[1][4]
    assert description.startswith("tab here, newline 自主研究 “ü”")
    assert "\x1b" not in description
    assert len(loop.rows) == 2
    assert loop.git("log", "-1", "--format=%s").startswith("experiment: tab here, newline 自主研究")


def test_description_and_note_may_hold_bytes_that_are_no_utf_8(loop: Loop) -> None:
    latin = os.fsdecode(b"caf\xe9")
    loop.submit(latin, LR=8)
    logged = loop.run("log_result", "--note", latin, cwd=loop.folder)
    assert logged.returncode == 0, logged.stderr
    assert loop.rows[-1][4] == "caf\ufffd"


def test_description_of_blanks_is_none(loop: Loop) -> None:
    loop.edit(LR=8)
    for blank in ("   ", "\n", "\t\x1b"):
        assert loop.submit(blank, expect=2)["code"] == "no_description"
        assert loop.submit(blank, "--ahead", expect=2)["code"] == "no_description"
    assert len(loop.rows) == 1
    loop.submit("a first line\nand a second")
    loop.log()
    assert loop.rows[1][4] == "a first line and a second"


def test_trial_gets_seed_and_budget_and_no_secret_of_the_agent(
    tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-of-the-agent")
    monkeypatch.setenv("WANDB_MODE", "offline")
    shows = 'import os\nfor name in os.environ:\n    print(f"env {name}={os.environ[name]}")\n'
    loop = make_measured_loop(tmp_path / "project", run_script, files={"train.py": shows + TRAIN})
    for index, seed in ((0, 1), (1, 2)):
        lines = loop.trial_log(index).splitlines()
        assert {f"env AUTORESEARCH_SEED={seed}", "env TIME_BUDGET=10", "env WANDB_MODE=offline"} <= set(lines)
        assert "sk-of-the-agent" not in loop.trial_log(index)


# ---- what is refused


REFUSALS = {
    "protected file": ({"prepare.py": PREPARE.replace("1.005", "0.5")}, "prepare.py"),
    "new file": ({"helper.py": "X = 1\n", "train.py": TRAIN.replace("LR = 4", "LR = 8")}, "helper.py"),
    "seed": ({"train.py": TRAIN.replace("42", "43")}, "seed"),
    "nothing": ({}, ""),
    "metric line": ({"train.py": TRAIN.replace("_bpb(LR):.6f}", "_bpb(LR) - 0.1:.6f}")}, "val_bpb"),
    "evaluator": ({"train.py": TRAIN.replace("LR = 4", "LR = 4\nprepare.evaluate_bpb = min")}, "evaluate_bpb"),
}


@pytest.mark.parametrize("edits, names", REFUSALS.values(), ids=REFUSALS)
def test_guard_refuses_and_changes_nothing(loop: Loop, edits: dict[str, str], names: str) -> None:
    loop.write(edits)
    before, rows = loop.state(), loop.rows
    error = loop.submit("cheat", expect=4)
    assert names in error["message"] + error["hint"]
    assert error["hint"]
    assert (loop.state(), loop.rows) == (before, rows)
    assert loop.look()["state"] == "idle"


def test_tree_that_was_tried_is_refused_with_its_number(loop: Loop) -> None:
    assert loop.experiment("slower", LR=2) == "discard"
    loop.edit(LR=2)
    before = loop.state()
    error = loop.submit("slower, once more", expect=4)
    assert error["code"] == "tried_already"
    assert "experiment 1 (slower)" in error["message"]
    assert loop.state() == before


def test_dry_run_changes_nothing(loop: Loop) -> None:
    loop.edit(LR=8)
    before = loop.state()
    assert loop.submit("faster", "--dry-run")["dry_run"] is True
    assert loop.state() == before
    assert loop.look()["state"] == "idle"


def test_protected_file_that_the_agent_committed_is_refused(loop: Loop) -> None:
    loop.commit({"prepare.py": PREPARE.replace("1.005", "0.5"), "train.py": TRAIN.replace("LR = 4", "LR = 2")})
    error = loop.submit("cheat by commit", expect=4)
    assert "prepare.py" in error["message"]
    assert len(loop.rows) == 1
    subprocess.run(error["message"].split("Undo: ")[1], shell=True, check=True)
    assert loop.submit("honest")["experiment"]["metric"] == 1.005
    assert loop.git("diff", "--name-only", "main", loop.tip(), "--", "*.py") == "train.py"


def test_what_the_agent_committed_and_took_back_is_not_in_the_experiment(tmp_path: Path, run_script: RunScript) -> None:
    config = CONFIG.replace("edit: [train.py]", "edit: [train.py, width.py]")
    loop = make_loop(tmp_path / "project", run_script, config=config, files={"width.py": "WIDTH = 1\n"})
    loop.baseline()
    start = loop.tip()
    loop.commit({"width.py": "WIDTH = 2\n", "train.py": TRAIN.replace("LR = 4", "LR = 8")})
    loop.git("restore", f"--source={start}", "--", "width.py")
    loop.submit("faster")
    assert loop.git("show", f"{loop.tip()}:width.py") == "WIDTH = 1"
    assert loop.log()["experiment"]["status"] == "keep"
    assert loop.status() == ""


def test_protected_file_comes_from_the_base_even_if_it_changes_while_a_trial_waits(loop: Loop) -> None:
    loop.edit(LR=2)
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10)
        loop.write({"prepare.py": PREPARE.replace("1.005", "0.5")})
    assert loop.look("--wait", 30)["experiment"]["metric"] == 1.005


def test_second_experiment_before_the_first_is_logged_is_refused(loop: Loop) -> None:
    loop.submit("faster", LR=8)
    error = loop.submit("wider", expect=4)
    assert (error["code"], "log_result.py" in error["hint"]) == ("not_logged", True)


def test_logging_twice_answers_with_the_first_decision(loop: Loop) -> None:
    loop.submit("faster", LR=8)
    first = loop.log()
    before = loop.state()
    again = loop.log("--note", "it was the learning rate")
    assert again["told"] == ["this is now the note of experiment 1, which was decided before"]
    assert loop.log("--note", "it was the learning rate")["told"] == []
    assert (first["changed"], again["changed"]) == (True, False)
    assert again["experiment"]["number"] == first["experiment"]["number"]
    assert loop.state() == before
    assert loop.log("--status", "discard", expect=4)["code"] == "already_decided"


@pytest.mark.parametrize(
    ("scale", "best", "swept"), [("1e-9", "9.932e-10", "9.79e-10"), ("-1e9", "-1.005e+09", "-979000000")]
)
def test_metric_of_any_size_is_told_in_digits_that_show_it(
    tmp_path: Path, run_script: RunScript, scale: str, best: str, swept: str
) -> None:
    files = {
        "train.py": TRAIN.replace("evaluate_bpb(LR):.6f", "evaluate_bpb(LR):.9g"),
        "prepare.py": PREPARE.replace("return BPB", f"return {scale} * BPB").replace("0.9 + lr / 1000", "0.979"),
    }
    loop = make_loop(tmp_path / "project", run_script, files=files)
    loop.baseline()
    loop.edit(LR=8 if scale == "1e-9" else 2)
    assert f"val_bpb {best} in " in loop.run("run_experiment", "-d", "an idea", cwd=loop.folder).stdout
    assert f"experiment 1: keep, val_bpb {best}\n" in loop.run("log_result", cwd=loop.folder).stdout
    lines = [line.split() for line in loop.run("status", cwd=loop.folder).stdout.splitlines()]
    assert ["measured:", best, "(seed", "1)"] in lines
    assert [line[2] for line in lines if line[3:4] == ["keep"]][1] == best
    assert next(line for line in lines if line[:1] == ["level"])[1] == best
    assert f"`val_bpb` {best}, experiment 1" in (loop.folder / "CLAUDE.md").read_text()
    assert swept in loop.run("sweep", "--set", "LR=5", cwd=loop.folder).stdout


def on_a_read_only_disk(loop: Loop, *command: str) -> subprocess.CompletedProcess[str]:
    """A script with the project's folder mounted read-only, for that script alone."""
    mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" || exit 99; cd "$0"; exec "$@"'
    script = [sys.executable, str(ROOT / "scripts" / command[0]), *command[1:]]
    inside = ["unshare", "-m", "sh", "-c", mount, str(loop.folder)]
    done = subprocess.run([*inside, *script], check=False, capture_output=True, text=True)
    if done.returncode == 99 or done.stderr.startswith("unshare: "):
        pytest.skip(f"a read-only disk needs the right to mount one: {done.stderr.strip()}")
    return done


@pytest.mark.parametrize("ends", ["closed", "killed"])
def test_what_only_looks_works_on_a_read_only_disk(loop: Loop, ends: str) -> None:
    if ends == "killed":  # SQLite leaves what it wrote last beside the ledger
        code = "import os, sqlite3, sys; db = sqlite3.connect(sys.argv[1], isolation_level=None); "
        code += "db.execute(\"UPDATE experiment SET description = 'written last'\"); os._exit(0)"
        subprocess.run([sys.executable, "-c", code, loop.folder / ".git/autoresearch/ledger.db"], check=True)
    done = on_a_read_only_disk(loop, "summarize.py")
    assert (done.returncode, done.stderr) == (0, "")
    assert "1 experiment in " in done.stdout
    assert ("written last" in done.stdout) == (ends == "killed")
    assert on_a_read_only_disk(loop, "status.py", "--memory").returncode == 0


@pytest.mark.parametrize("command", [["status.py"], ["compare.py", "baseline", "best"], ["finalize.py", "--dry-run"]])
def test_what_keeps_records_says_so_on_a_read_only_disk(loop: Loop, command: list[str]) -> None:
    done = on_a_read_only_disk(loop, *command)
    assert (done.returncode, done.stdout) == (5, "")
    said, hint = done.stderr.splitlines()
    assert said.endswith(f"{loop.folder}/.git/autoresearch/{TAG}, which cannot be written: Read-only file system.")
    assert hint.endswith("summarize.py")


def test_status_against_the_verdict_is_refused(loop: Loop) -> None:
    loop.submit("slower", LR=2)
    assert loop.log("--status", "keep", expect=4)["code"] == "keep_against_verdict"
    assert loop.log("--status", "crash", expect=4)["code"] == "status_against_verdict"
    assert len(loop.rows) == 1
    assert loop.log()["experiment"]["status"] == "discard"
    loop.submit("too wide", WIDTH=128)
    assert loop.log("--status", "discard", expect=4)["code"] == "status_against_verdict"
    assert loop.log("--status", "crash")["experiment"]["status"] == "crash"


def test_better_experiment_may_be_discarded_by_choice(loop: Loop) -> None:
    tip = loop.tip()
    loop.submit("faster, and twice the code", LR=8)
    assert loop.log("--status", "discard")["experiment"]["status"] == "discard"
    assert (loop.tip(), loop.text()) == (tip, TRAIN)


SIMPLIFICATIONS = {
    "said when it runs": (["--simplification"], []),
    "said when it is logged": ([], ["--simplification"]),
    "kept when it is logged": ([], ["--simplification", "--status", "keep"]),
}


@pytest.mark.parametrize("on_run, on_log", SIMPLIFICATIONS.values(), ids=SIMPLIFICATIONS)
def test_equal_result_with_fewer_lines_is_kept_as_simplification(
    loop: Loop, on_run: list[str], on_log: list[str]
) -> None:
    loop.write({"train.py": TRAIN.replace("# A comment that\n# may be\n# deleted.\n", "")})
    loop.submit("drop a dead comment", *on_run)
    decided = loop.log(*on_log)["experiment"]
    assert (decided["verdict"], decided["status"]) == ("equivalent", "keep")
    assert "may be" not in loop.git("show", f"{BRANCH}:train.py")


def test_equal_result_is_discarded_where_nobody_calls_it_a_simplification(loop: Loop) -> None:
    loop.write({"train.py": TRAIN.replace("# A comment that\n# may be\n# deleted.\n", "")})
    loop.submit("drop a dead comment")
    assert loop.log()["experiment"]["status"] == "discard"
    assert loop.text() == TRAIN


def test_equal_result_with_more_lines_is_no_simplification(loop: Loop) -> None:
    loop.write({"train.py": TRAIN.replace("LR = 4\n", "LR = 4\nUNUSED = 1\n")})
    loop.submit("an unused name")
    assert "deletes" in loop.log("--status", "keep", "--simplification", expect=4)["message"]
    assert loop.log()["experiment"]["status"] == "discard"


# ---- where it works


def test_without_repository_campaign_or_commit_it_says_so(
    tmp_path: Path, git_repo: Path, run_script: RunScript
) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    unborn = tmp_path / "unborn"
    subprocess.run(["git", "init", "-q", str(unborn)], check=True)
    for folder in (empty, git_repo, unborn, tmp_path / "missing"):
        for script in ("run_experiment", "log_result", "revert", "status"):
            error = Loop(folder=folder, run=run_script).call(script, expect=3)
            assert error["hint"]


def test_wrong_branch_needs_a_human_and_names_the_command(loop: Loop) -> None:
    loop.edit(LR=8)
    for elsewhere in (["switch", "-q", "-c", "other"], ["switch", "-q", "--detach"]):
        loop.git(*elsewhere)
        for script, arguments in (("run_experiment", ["-d", "faster"]), ("revert", [])):
            assert f"git -C {loop.folder} switch {BRANCH}" in loop.call(script, *arguments, expect=6)["hint"]
        command = loop.look()["next"]["command"]
        assert command == f"git -C {loop.folder} switch {BRANCH}"
        subprocess.run(command.split(), check=True)  # SKILL.md lets an agent type this one
        assert "run_experiment.py" in loop.look()["next"]["command"]
    assert loop.experiment("faster") == "keep"


def test_unfinished_merge_needs_a_human(loop: Loop) -> None:
    loop.git("branch", "side", "main")
    loop.git("switch", "-q", "side")
    loop.commit({"README.md": "Another one.\n"})
    loop.git("switch", "-q", BRANCH)
    loop.git("merge", "-q", "--no-commit", "--no-ff", "side")
    assert loop.submit("faster", expect=6)["hint"] == f"git -C {loop.folder} merge --abort"


@pytest.mark.parametrize("from_where", ["project", "below"])
def test_project_in_a_subfolder_of_its_repository(tmp_path: Path, run_script: RunScript, from_where: str) -> None:
    loop = make_loop(tmp_path / "mono", run_script, within="research/toy")
    outside = tmp_path / "mono" / "other.txt"
    outside.write_text("of another team")
    loop.baseline()
    assert loop.experiment("faster", LR=8) == "keep"
    loop.edit(LR=2)
    if from_where == "below":
        (loop.folder / "notes").mkdir()
        below = Loop(folder=loop.folder / "notes", run=run_script)
        below.call("run_experiment", "-d", "slower")
        below.log()
    else:
        assert loop.experiment("slower") == "discard"
    assert [row[3] for row in loop.rows] == ["keep", "keep", "discard"]
    assert "LR = 8" in loop.text()
    assert outside.read_text() == "of another team"
    assert loop.git("show", "--format=", "--name-only", BRANCH) == "research/toy/train.py"


def test_submodule_is_there_for_the_trial(tmp_path: Path, run_script: RunScript) -> None:
    library = tmp_path / "library"
    library.mkdir()
    for command in ("init -q", "commit -q --allow-empty -m Start"):
        subprocess.run(["git", *command.split()], cwd=library, check=True)
    (library / "lib.py").write_text("GAIN = 8\n")
    for command in ("add lib.py", "commit -q -m Library"):
        subprocess.run(["git", *command.split()], cwd=library, check=True)
    project = tmp_path / "project"
    project.mkdir()
    subprocess.run(["git", "init", "-q", "-b", "main"], cwd=project, check=True)
    add = ["git", "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(library), "lib"]
    subprocess.run(add, cwd=project, check=True)
    train = TRAIN.replace("import prepare", "import prepare\nfrom lib.lib import GAIN")
    loop = make_loop(project, run_script, files={"train.py": train})
    loop.baseline()
    assert loop.experiment("the library's rate", LR="GAIN") == "keep"
    assert loop.git("status", "--porcelain") == ""


# ---- the user's own files


def test_own_files_of_the_user_survive_the_loop(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"staged.md": "old\n", "half.md": "old\n"})
    own = {"notes.txt": "mine\n", "README.md": "My words.\n", "staged.md": "staged\n", "half.md": "second\n"}
    loop.write({**own, "half.md": "first\n"})
    loop.git("add", "staged.md", "half.md")
    loop.write({"half.md": own["half.md"]})
    before, staged = loop.status(), loop.git("diff", "--cached")
    assert before.splitlines() == [" M README.md", "MM half.md", "M  staged.md", "?? notes.txt"]

    def check() -> None:
        assert (loop.status(), loop.git("diff", "--cached")) == (before, staged)
        assert {name: loop.text(name) for name in own} == own

    loop.baseline()
    for lr, status in ((2, "discard"), (8, "keep"), (200, "discard")):
        loop.submit(f"rate {lr}", LR=lr)
        check()
        assert loop.log()["experiment"]["status"] == status
        check()
    loop.edit(LR=50)
    loop.call("revert")
    check()
    loop.call("revert", "--to", 0)
    check()


# ---- what the agent may do meanwhile


@pytest.mark.parametrize("commits", [1, 2])
def test_commits_that_the_agent_made_itself_are_taken(loop: Loop, commits: int) -> None:
    for number in range(commits):
        loop.edit(LR=8 + 40 * (commits - 1 - number))
        loop.git("commit", "-q", "-am", f"experiment: step {number}")
    head = loop.git("rev-parse", "HEAD")
    ran = loop.submit()
    assert head.startswith(ran["experiment"]["commit"])
    assert ran["experiment"]["description"] == f"step {commits - 1}"
    assert loop.log()["experiment"]["status"] == "keep"
    assert loop.tip() == head


def test_commit_of_the_agent_that_is_worse_leaves_the_branch_but_not_the_repository(loop: Loop) -> None:
    tip = loop.tip()
    loop.edit(LR=2)
    loop.git("commit", "-q", "-am", "slower")
    head = loop.git("rev-parse", "HEAD")
    loop.submit()
    loop.log()
    assert (loop.tip(), loop.text()) == (tip, TRAIN)
    assert loop.git("rev-parse", f"refs/autoresearch/{TAG}/discarded/1") == head
    assert loop.status() == ""


def test_edit_made_while_a_trial_runs_outlives_its_discard(loop: Loop) -> None:
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10, LR=2)
        loop.write({"train.py": loop.text().replace("# deleted.", "# kept.")})
    loop.look("--wait", 30)
    told = loop.log()["told"]
    assert "keeps your newer edit" in " ".join(told)
    assert loop.text() == TRAIN.replace("# deleted.", "# kept.")
    assert loop.git("diff", "--stat", "--cached") == ""


def test_line_ends_that_git_converts_are_no_edit(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={".gitattributes": "*.py text eol=crlf\n"})
    loop.baseline()
    train = loop.folder / "train.py"
    loop.git("rm", "-q", "--cached", "train.py")
    loop.git("reset", "-q", "--hard")
    start = train.read_bytes()
    assert b"LR = 4\r\n" in start
    train.write_bytes(start.replace(b"LR = 4", b"LR = 2"))
    loop.submit("slower")
    assert loop.log()["told"] == []
    assert train.read_bytes() == start
    train.write_bytes(start.replace(b"LR = 4", b"LR = 150"))
    loop.submit("slower, too")
    train.write_bytes(train.read_bytes().replace(b"# deleted.", b"# removed."))
    assert "keeps your newer edit" in loop.log()["told"][0]
    assert train.read_bytes() == start.replace(b"# deleted.", b"# removed.")


def test_edit_that_conflicts_with_the_discard_is_saved_at_a_ref(loop: Loop) -> None:
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10, LR=2)
        loop.edit(LR=77)
    loop.look("--wait", 30)
    told = " ".join(loop.log()["told"])
    assert loop.text() == TRAIN
    ref = told.split("--source=")[1].split()[0]
    assert "LR = 77" in loop.git("show", f"{ref}:train.py")


def test_commit_made_while_a_trial_runs_is_saved_and_its_files_merged(loop: Loop) -> None:
    tip = loop.tip()
    with loop.holding():
        loop.submit("slower", "--wait", 0, expect=10, LR=2)
        loop.write({"train.py": loop.text().replace("# deleted.", "# kept.")})
        loop.git("commit", "-q", "-am", "next idea")
        mine = loop.git("rev-parse", "HEAD")
    loop.look("--wait", 30)
    loop.log()
    assert loop.tip() == tip
    assert loop.text() == TRAIN.replace("# deleted.", "# kept.")
    assert mine in loop.git("for-each-ref", "--format=%(objectname)", f"refs/autoresearch/{TAG}/saved")


def test_wait_of_zero_leaves_the_trial_to_status(loop: Loop) -> None:
    with loop.holding():
        ran = loop.submit("faster", "--wait", 0, expect=10, LR=8)
        assert (ran["state"], ran["running"]["seed"]) == ("running", 1)
        assert loop.submit("another", "--wait", 0, expect=10)["code"] == "running"
        assert loop.look("--wait", 0.1, expect=10)["state"] == "running"
        assert loop.look()["state"] == "running"
        assert loop.log(expect=10)["code"] == "running"
        assert loop.log("--status", "discard", expect=10)["hint"]
    state = loop.look("--wait", 30)
    assert (state["state"], state["experiment"]["verdict"]) == ("judged", "better")


# ---- failures


def test_crash_is_mended_as_the_same_experiment(loop: Loop) -> None:
    failed = loop.submit("faster and wider", LR=8, WIDTH=128)
    assert (failed["state"], failed["experiment"]["verdict"]) == ("failed", "failed")
    assert loop.submit("the same again", expect=4)["code"] == "no_change"
    mended = loop.submit(WIDTH=64)["experiment"]
    assert (mended["number"], mended["attempt"], mended["description"]) == (1, 2, "faster and wider")
    assert loop.log()["experiment"]["status"] == "keep"
    assert [row[1] for row in loop.rows] == ["0.997900", "0.993200"]


def test_second_attempt_is_asked_for_what_the_first_was(loop: Loop) -> None:
    shorter = TRAIN.replace("# A comment that\n# may be\n# deleted.\n", "")
    loop.write({"train.py": shorter.replace("import prepare", "import prepaer")})
    loop.submit("fewer lines", "--simplification", "--seeds", 2)
    loop.write({"train.py": shorter})
    assert loop.submit()["experiment"]["seeds"] == {"1": 0.9979, "2": 0.9979}
    assert loop.log()["experiment"]["status"] == "keep"


def test_baseline_that_fails_is_mended(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": TRAIN.replace("WIDTH = 64", "WIDTH = 65")})
    assert loop.submit("baseline")["state"] == "failed"
    assert "mend" in loop.look()["next"]["text"]
    mended = loop.submit("baseline that runs", WIDTH=64)
    assert (mended["experiment"]["number"], mended["experiment"]["status"]) == (0, "keep")
    assert [row[1:4] for row in loop.rows] == [["0.997900", "44.0", "keep"]]
    assert loop.tip() == loop.incumbent()
    assert loop.experiment("faster", LR=8) == "keep"


def test_baseline_that_was_given_up_is_nothing_to_compare_with(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script, files={"train.py": f"raise OSError('no data')\n{TRAIN}"})
    loop.baseline()
    assert "1 experiment (0 kept, 0 discarded, 0 crashed, 1 open)" in loop.run("status", cwd=loop.folder).stdout
    loop.log("--status", "crash")
    assert "1 experiment (0 kept, 0 discarded, 1 crashed)\n" in loop.run("status", cwd=loop.folder).stdout
    assert loop.call("compare", "baseline", "best", expect=3)["message"] == "No baseline has been measured."


def test_edit_that_waits_for_the_baseline_is_the_next_experiment(fresh: Loop) -> None:
    ran = fresh.submit("faster", LR=8)
    assert (ran["experiment"]["description"], ran["experiment"]["metric"]) == ("baseline", 0.9979)
    assert "waits" in " ".join(ran["notes"])
    assert "LR = 8" in fresh.text()
    assert fresh.experiment("faster") == "keep"
    assert [row[4] for row in fresh.rows] == ["baseline", "faster"]


def test_broken_constraint_discards_with_the_reason(tmp_path: Path, run_script: RunScript) -> None:
    config = CONFIG + 'watch: [peak_vram_mb]\nconstraints: ["peak_vram_mb <= 1.001 * baseline"]\n'
    loop = make_measured_loop(tmp_path / "project", run_script, config=config)
    loop.submit("faster, more memory", LR=8)
    loop.log("--status", "keep", "--simplification", expect=4)
    decided = loop.log()["experiment"]
    assert decided["status"] == "discard"
    assert "peak_vram_mb <= 1.001 * baseline" in decided["reason"]


def test_evaluate_command_alone_gives_the_metric(tmp_path: Path, run_script: RunScript) -> None:
    evaluate = 'import prepare\nlr = int(open("model").read())\nprint(f"val_bpb: {prepare.evaluate_bpb(lr):.6f}")\n'
    train = 'LR = 4\nwith open("model", "w") as file:\n    file.write(str(LR))\nprint("val_bpb: 0.1")\n'
    config = CONFIG + "evaluate_command: PYTHONDONTWRITEBYTECODE=1 python3 -S evaluate.py\n"
    files = {"train.py": train, "evaluate.py": evaluate}
    loop = make_measured_loop(tmp_path / "project", run_script, config=config, files=files)
    assert loop.experiment("faster", LR=8) == "keep"
    assert [row[1] for row in loop.rows] == ["0.997900", "0.993200"]


def test_new_settings_begin_an_epoch_with_a_baseline_of_its_own(loop: Loop) -> None:
    loop.experiment("faster", LR=8)
    loop.call("setup_campaign", "--reconfigure", "--budget", 20)
    assert loop.look()["state"] == "no_baseline"
    baseline = loop.submit()["experiment"]
    assert (baseline["number"], baseline["description"], baseline["metric"]) == (2, "baseline of epoch 2", 0.9932)
    assert loop.tip() == loop.incumbent()
    assert loop.experiment("slower", LR=4) == "discard"
    assert [row[3] for row in loop.rows] == ["keep", "keep", "keep", "discard"]


# ---- back


def test_revert_brings_the_incumbent_back_once_and_saves_the_edit(loop: Loop) -> None:
    loop.edit(LR=77)
    planned = loop.call("revert", "--dry-run")
    assert (planned["restored"], "LR = 77" in loop.text()) == (["train.py"], True)
    done = loop.call("revert")
    assert (done["changed"], loop.text(), loop.status()) == (True, TRAIN, "")
    assert "LR = 77" in loop.git("show", f"{done['saved']}:train.py")
    again = loop.call("revert")
    assert again["changed"] is False
    assert all("run_experiment.py" in answer["next"]["command"] for answer in (done, again))
    assert planned["next"]["command"].endswith(f"revert.py --project {loop.folder}")
    for flags in ([], ["--dry-run"]):
        first, *_, last = loop.run("revert", *flags, cwd=loop.folder).stdout.splitlines()
        assert first.startswith("nothing to revert: the files are those of commit")
        assert "run_experiment.py" in last


def test_revert_brings_a_renamed_file_back_under_its_name(tmp_path: Path, run_script: RunScript) -> None:
    config = CONFIG.replace("edit: [train.py]", "edit: [train.py, src]")
    loop = make_loop(tmp_path / "project", run_script, config=config, files={"src/a.py": "A = 1\nB = 2\n"})
    loop.baseline()
    loop.git("mv", "src/a.py", "src/b.py")
    assert loop.call("revert")["restored"] == ["src/a.py", "src/b.py"]
    assert loop.status() == ""
    assert loop.call("revert")["changed"] is False


def test_revert_to_an_earlier_experiment_takes_later_keeps_back(loop: Loop) -> None:
    loop.experiment("faster", LR=8)
    loop.experiment("fastest", LR=50)
    planned = loop.call("revert", "--to", 1, "--dry-run")
    assert (planned["taken_back"], planned["changed"]) == ([2], False)
    assert [row[3] for row in loop.rows] == ["keep"] * 3
    assert loop.call("revert", "--to", 1)["taken_back"] == [2]
    assert [row[3] for row in loop.rows] == ["keep", "keep", "discard"]
    assert "LR = 8" in loop.text()
    assert loop.tip() == loop.incumbent()
    assert loop.git("rev-parse", "--verify", f"refs/autoresearch/{TAG}/discarded/2")
    assert loop.call("revert", "--to", 1)["changed"] is False
    assert loop.call("revert", "--to", 2, expect=4)["code"] == "not_kept"
    assert loop.call("revert", "--to", 9, expect=3)["code"] == "no_experiment"
    assert loop.experiment("slower", LR=150) == "discard"


def test_revert_waits_for_the_open_experiment(loop: Loop) -> None:
    with loop.holding():
        loop.submit("faster", "--wait", 0, expect=10, LR=8)
        loop.call("revert", expect=10)
    loop.look("--wait", 30)
    assert loop.call("revert", expect=4)["code"] == "not_logged"


def test_revert_refuses_a_head_that_is_no_recorded_experiment(loop: Loop) -> None:
    loop.edit(LR=8)
    loop.git("commit", "-q", "-am", "mine")
    error = loop.call("revert", expect=6)
    loop.git(*error["hint"].rsplit("git ", 1)[1].split())
    assert loop.call("revert")["changed"] is False


# ---- evidence that leaves the machine


def test_kept_commit_carries_its_numbers_as_a_note(loop: Loop) -> None:
    loop.experiment("faster", LR=8)
    note = loop.git("notes", "--ref=autoresearch", "show", BRANCH)
    assert "val_bpb: 0.993200 (lower is better)" in note
    assert "experiment: 1" in note


def test_keep_is_pushed_with_its_note(tmp_path: Path, run_script: RunScript) -> None:
    remote = tmp_path / "remote.git"
    subprocess.run(["git", "init", "-q", "--bare", str(remote)], check=True)
    loop = make_loop(tmp_path / "project", run_script, config=CONFIG + "push: true\n")
    loop.git("remote", "add", "origin", str(remote))
    loop.baseline()
    loop.experiment("faster", LR=8)
    refs = ["for-each-ref", "--format=%(objectname) %(refname)"]

    def arrived() -> bool:
        there = subprocess.run(["git", *refs], cwd=remote, capture_output=True, text=True, check=True)
        wanted = loop.git(*refs, f"refs/heads/{BRANCH}", "refs/notes/autoresearch")
        return there.stdout.strip() == wanted

    eventually(arrived)


def test_broken_remote_is_told_and_never_stops_the_loop(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_measured_loop(tmp_path / "project", run_script, config=CONFIG + "push: true\n")
    loop.submit("faster", LR=8)
    assert "no remote" in " ".join(loop.log()["told"])
    loop.git("remote", "add", "origin", str(tmp_path / "nowhere.git"))
    assert loop.experiment("fastest", LR=50) == "keep"
    eventually(lambda: "push failed" in " ".join(loop.look()["warnings"]))
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "nowhere.git")], check=True)
    assert loop.experiment("slower", LR=90) == "discard"
    eventually((tmp_path / "nowhere.git" / "refs" / "heads" / BRANCH).exists)
    eventually(lambda: "push failed" not in " ".join(loop.look()["warnings"]))
