"""The clean branch: real campaigns, real git, and nothing of the user's touched."""

from __future__ import annotations

import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunScript
from tests.loop_bench import BRANCH, PREPARE, TAG, TRAIN, Loop, make_loop, make_measured_loop
from tests.loop_bench import CONFIG as TOY_CONFIG
from tests.noise_bench import CONFIG, make_noisy_loop, project

from autoresearch.campaign.opened import open_ledger
from autoresearch.ledger import Experiment, Purpose, State, Status

FINAL = f"{BRANCH}-final"
WORTH = {"A": 8.0, "B": 8.0, "C": 8.0}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the first test leaves its campaign for the others to copy."""
    return tmp_path_factory.mktemp("template") / "project"


@pytest.fixture
def loop(template: Path, tmp_path: Path, run_script: RunScript) -> Loop:
    """A campaign whose settings were no part of the user's repository, with A, B and C kept and one discard."""
    if not template.exists():
        make_campaign(Loop(folder=template, run=run_script))
    shutil.copytree(template, tmp_path / "project", symlinks=True)
    return Loop(folder=tmp_path / "project", run=run_script)


def make_campaign(loop: Loop) -> None:
    loop.folder.mkdir()
    loop.git("init", "-q", "-b", "main")
    loop.commit({**project(worth=WORTH), "notes.txt": "mine\n"}, "Start")
    loop.write({"autoresearch.yaml": CONFIG})
    loop.setup("--tag", TAG)
    loop.baseline()
    assert loop.experiment("raise A", A=1) == "keep"
    assert loop.experiment("lower B", B=-1) == "discard"
    assert loop.experiment("raise B, which\tis | <b>better</b>", B=1) == "keep"
    assert loop.experiment("raise C", C=1) == "keep"


def messages(loop: Loop, branch: str = FINAL) -> list[str]:
    return loop.git("log", "--reverse", "--format=%B%x00", f"main..{branch}").split("\0")[:-1]


def subjects(loop: Loop, branch: str = FINAL) -> list[str]:
    return loop.git("log", "--reverse", "--format=%s", f"main..{branch}").splitlines()


def changed(loop: Loop, branch: str = FINAL) -> list[str]:
    return loop.git("diff", "--name-only", "main", branch).splitlines()


def weaken(loop: Loop, number: int) -> None:
    """Let the ledger say that the gain of a kept experiment may have been none."""
    with open_ledger(loop.folder) as (_, ledger):
        experiment = ledger.experiment(TAG, number)
        assert experiment is not None
        experiment.judgement["gain_low"] = -0.001
        ledger.update_experiment(experiment, "judgement")


# --- the whole ---------------------------------------------------------------------------------


def test_branch_has_a_commit_for_each_keep_on_the_users_own_commit(loop: Loop) -> None:
    done = loop.call("finalize")
    assert subjects(loop) == ["raise A", "raise B, which is | <b>better</b>", "raise C"]
    assert loop.git("merge-base", "main", FINAL) == loop.git("rev-parse", "main")
    assert changed(loop) == ["train.py"], "neither settings nor memos"
    assert loop.git("show", f"{FINAL}:train.py") == loop.git("show", f"{BRANCH}:train.py")
    assert (done["equals_incumbent"], done["changed"]) == (True, True)
    assert done["commit"] == loop.git("rev-parse", FINAL)
    assert [part["number"] for part in done["parts"]] == [1, 3, 4]


def test_message_holds_the_evidence(loop: Loop) -> None:
    loop.call("finalize", "--signoff")
    message = messages(loop)[1]
    with open_ledger(loop.folder) as (_, ledger):
        experiment = ledger.experiment(TAG, 3)
        assert experiment is not None
    decided = datetime.fromisoformat(experiment.decided_at)
    assert loop.git("log", "-1", "--format=%at %ct", f"{FINAL}~1").split() == [f"{decided.timestamp():.0f}"] * 2
    assert f"Gain: {experiment.judgement['gain']:+.3g} over experiment 1" in message
    assert f"z = {experiment.judgement['z']:.2f}" in message
    assert f"val_bpb: {experiment.metric:.6g} (lower is better, mean of" in message
    assert f"Experiment 3 of campaign {TAG}, original commit {experiment.commit[:12]}" in message
    assert message.rstrip().endswith("Signed-off-by: Test User <test@example.invalid>")
    assert loop.git("log", "-1", "--format=%an <%ae>", FINAL) == "Test User <test@example.invalid>"


def test_nothing_of_the_users_is_touched(loop: Loop) -> None:
    loop.write({"notes.txt": "staged\n"})
    loop.git("add", "notes.txt")
    loop.write({"notes.txt": "unstaged\n", "new.txt": "untracked\n", "train.py": loop.text() + "# an idea\n"})
    before = loop.state()
    loop.call("finalize")
    after = loop.state()
    assert FINAL in after.pop("refs")
    before.pop("refs")
    assert after == before
    assert loop.git("rev-parse", BRANCH) == loop.incumbent()


def test_second_call_changes_nothing_and_another_branch_is_refused(loop: Loop) -> None:
    first = loop.call("finalize")
    again = loop.call("finalize")
    assert (again["commit"], again["changed"]) == (first["commit"], False)
    assert loop.call("finalize", "--squash", expect=4)["code"] == "branch_exists"
    assert loop.call("finalize", "--branch", "main", expect=4)["code"] == "branch_exists"
    assert loop.call("finalize", "--branch", "a..b", expect=2)
    assert loop.git("rev-parse", FINAL) == first["commit"]


def test_dry_run_makes_no_branch(loop: Loop) -> None:
    refs = loop.git("for-each-ref")
    done = loop.call("finalize", "--dry-run")
    assert (done["dry_run"], done["changed"], len(done["parts"])) == (True, False, 3)
    assert loop.git("for-each-ref") == refs


def test_squash_is_one_commit_that_lists_all(loop: Loop) -> None:
    loop.call("finalize", "--squash", "--branch", "faster")
    (message,) = messages(loop, "faster")
    assert message.startswith("3 kept experiments: val_bpb ")
    assert all(f"- {idea}" in message for idea in ("raise A", "raise B", "raise C"))
    assert loop.git("show", "faster:train.py") == loop.git("show", f"{BRANCH}:train.py")


def test_branch_is_made_from_a_detached_head_and_from_the_users_own_branch(loop: Loop) -> None:
    loop.git("stash", "-q", "-u")
    loop.git("switch", "-q", "--detach", "main")
    first = loop.call("finalize")
    loop.git("switch", "-q", "main")
    assert loop.call("finalize")["commit"] == first["commit"]
    assert loop.git("branch", "--show-current") == "main"


def test_branch_is_made_while_an_experiment_runs(loop: Loop) -> None:
    loop.submit("raise A again", A=2)
    done = loop.call("finalize")
    assert [part["number"] for part in done["parts"]] == [1, 3, 4]
    assert "A = 1" in loop.git("show", f"{FINAL}:train.py")
    assert loop.call("finalize", "--measure", 5, expect=4)["code"] == "open_experiment"


# --- subsets -----------------------------------------------------------------------------------


def test_only_confirmed_drops_what_may_be_nothing_and_says_it_was_not_measured(loop: Loop) -> None:
    weaken(loop, 3)
    done = loop.call("finalize", "--only-confirmed")
    assert subjects(loop) == ["raise A", "raise C"]
    text = loop.git("show", f"{FINAL}:train.py")
    assert ("A = 1" in text, "B = 0" in text, "C = 1" in text) == (True, True, True)
    assert done["equals_incumbent"] is False
    assert [(part["number"], "95 % interval" in part["left_out"]) for part in done["left_out"]] == [(3, True)]
    told = loop.run("finalize", "--only-confirmed", cwd=loop.folder).stdout
    assert "not measured as a whole" in told


def test_subset_is_measured_at_fresh_seeds_on_request(loop: Loop) -> None:
    weaken(loop, 3)
    used = {trial.seed for trial in loop.trials()}
    done = loop.call("finalize", "--only-confirmed", "--measure", 5)
    comparison = done["comparison"]
    assert comparison["claim"]["word"] == "confirmed"
    assert comparison["claim"]["gain"] == pytest.approx(0.16, abs=0.03), "A and C are worth 8 sigma each"
    assert not used & set(comparison["seeds"])
    claimed = {trial.commit for trial in loop.trials() if trial.purpose is Purpose.CLAIM}
    assert done["commit"] in claimed
    assert loop.git("status", "--porcelain") == ""


def test_whole_branch_is_measured_as_the_incumbent_that_it_equals(loop: Loop) -> None:
    done = loop.call("finalize", "--measure", 5)
    assert done["comparison"]["b"] == "experiment 4"
    again = loop.call("finalize")
    assert (again["comparison"], again["claim"]) == (None, done["comparison"]["claim"]["reason"])


def test_few_seeds_are_a_look_and_confirm_nothing(loop: Loop) -> None:
    assert loop.call("finalize", "--measure", 2)["comparison"]["claim"]["word"] == "inconclusive"
    assert loop.call("finalize", "--measure", 0, expect=2)["code"] == "usage"


def test_part_that_is_built_on_a_dropped_one_is_a_conflict_that_names_both(tmp_path: Path, run_script: Any) -> None:
    loop = make_noisy_loop(tmp_path / "project", run_script, worth={"A": 8.0})
    assert loop.experiment("A one up", A=1) == "keep"
    assert loop.experiment("A two up", A=2) == "keep"
    weaken(loop, 1)
    error = loop.call("finalize", "--only-confirmed", expect=4)
    assert error["code"] == "conflict"
    assert "Experiment 2 (A two up)" in error["message"]
    assert "built on Experiment 1 (A one up)" in error["message"]
    assert "train.py" in error["message"]
    assert loop.git("branch", "--list", FINAL) == ""


# --- campaigns of every kind -------------------------------------------------------------------


def test_nothing_kept_is_refused(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "project", run_script)
    assert loop.call("finalize", expect=4)["code"] == "nothing_kept"
    loop.baseline()
    assert loop.call("finalize", expect=4)["code"] == "nothing_kept"
    assert loop.experiment("larger", LR=8) == "keep"
    weaken(loop, 1)
    assert loop.call("finalize", "--only-confirmed", expect=4)["code"] == "nothing_kept"


def test_keep_that_was_taken_back_is_not_on_the_branch(loop: Loop) -> None:
    loop.call("revert", "--to", 3)
    loop.call("finalize")
    assert subjects(loop)[-1].startswith("raise B")
    assert "C = 0" in loop.git("show", f"{FINAL}:train.py")


def test_epochs_follow_each_other_and_edits_by_hand_are_a_commit_of_their_own(loop: Loop) -> None:
    loop.commit({"train.py": loop.text() + "# by hand\n", "lib.py": "X = 1\n"}, "By hand")
    settings = loop.text("autoresearch.yaml").replace("budget_s: 10", "budget_s: 11")
    loop.write({"autoresearch.yaml": settings})
    loop.call("setup_campaign", "--reconfigure")
    loop.baseline()
    assert loop.experiment("raise A more", A=2) == "keep"
    done = loop.call("finalize")
    assert subjects(loop)[2:] == ["raise C", "Edits by hand before epoch 2", "raise A more"]
    assert changed(loop) == ["train.py"]
    assert loop.git("show", f"{FINAL}:train.py") == loop.git("show", f"{BRANCH}:train.py")
    assert any("lib.py" in note for note in done["notes"])


def test_files_that_an_experiment_added_and_deleted(tmp_path: Path, run_script: RunScript) -> None:
    train = TRAIN.replace("import prepare\n", "import os\nimport prepare\n").replace(
        "LR)", "8 if os.path.exists('model/new.py') else LR)"
    )
    config = TOY_CONFIG.replace("[train.py]", "[train.py, model]")
    files = {"train.py": train, "model/old.py": "OLD = 1\n"}
    loop = make_measured_loop(tmp_path / "project", run_script, config=config, files=files)
    loop.write({"model/new.py": "NEW = 1\n", "model/run.sh": "true\n", "model/über sicht.py": "U = 1\n"})
    (loop.folder / "model" / "old.py").unlink()
    (loop.folder / "model" / "run.sh").chmod(0o755)
    assert loop.experiment("another file") == "keep"
    loop.call("finalize")
    assert loop.git("ls-tree", "-r", FINAL, "model") == loop.git("ls-tree", "-r", BRANCH, "model")
    assert loop.git("ls-tree", FINAL, "model/run.sh").startswith("100755")
    assert loop.git("ls-tree", FINAL, "model/old.py") == ""


def test_project_in_a_sub_folder(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_loop(tmp_path / "repository", run_script, within="deep/down")
    loop.baseline()
    assert loop.experiment("larger", LR=8) == "keep"
    done = loop.call("finalize")
    assert done["files"] == ["train.py"]
    names = loop.git("diff", "--name-only", "main", FINAL)
    assert names == "deep/down/train.py"


def test_merge_that_an_agent_made_becomes_a_plain_commit(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_measured_loop(tmp_path / "project", run_script)
    loop.git("switch", "-q", "-c", "side")
    loop.edit(LR=8)
    loop.git("commit", "-q", "-am", "side")
    loop.git("switch", "-q", BRANCH)
    loop.git("merge", "-q", "--no-ff", "-m", "merge the side", "side")
    loop.submit("merged")
    assert loop.log()["experiment"]["status"] == "keep"
    loop.call("finalize")
    assert loop.git("log", "--merges", "--format=%s", f"main..{FINAL}") == ""
    assert "LR = 8" in loop.git("show", f"{FINAL}:train.py")


def test_adopted_campaign_begins_at_the_earlier_baseline(tmp_path: Path, run_script: RunScript) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    loop = Loop(folder=folder, run=run_script)
    loop.git("init", "-q", "-b", "main")
    base = loop.commit({"train.py": TRAIN, "prepare.py": PREPARE, ".gitignore": "__pycache__/\n"}, "Start")
    loop.git("switch", "-q", "-c", "earlier")
    kept = loop.commit({"train.py": f"{TRAIN}# the end\n"}, "narrower")
    rows = [
        "commit\tval_bpb\tmemory_gb\tstatus\tdescription", f"{base[:7]}\t0.9979\t44.0\tkeep\tbaseline",
        f"{kept[:7]}\t0.9969\t44.0\tkeep\tnarrower", "abcdef1\t1.2\t44.0\tdiscard\tgone",
    ]  # fmt: skip
    loop.write({"results.tsv": "\n".join(rows) + "\n", "autoresearch.yaml": TOY_CONFIG})
    loop.setup("--tag", TAG, "--import", folder / "results.tsv")
    loop.baseline()
    assert loop.experiment("larger", LR=8) == "keep"
    done = loop.call("finalize")
    assert done["base"] == base
    assert subjects(loop) == ["narrower", "larger"]
    assert changed(loop) == ["train.py"]
    loop.git("branch", "-D", "-q", FINAL)
    assert [part["left_out"] for part in loop.call("finalize", "--only-confirmed")["left_out"]] == [
        "no interval is on record"
    ]


def test_memo_that_the_users_repository_holds_stays_as_it_was(tmp_path: Path, run_script: RunScript) -> None:
    loop = make_measured_loop(tmp_path / "project", run_script, files={"CLAUDE.md": "Mine.\n"})
    assert loop.experiment("larger", LR=8) == "keep"
    assert loop.git("show", f"{BRANCH}:CLAUDE.md") != "Mine."
    loop.call("finalize")
    assert loop.git("show", f"{FINAL}:CLAUDE.md") == "Mine."
    assert loop.call("finalize")["notes"] == []


def test_starters_files_are_the_first_commit(tmp_path: Path, run_script: RunScript) -> None:
    loop = Loop(folder=tmp_path / "project", run=run_script)
    loop.folder.mkdir()
    loop.git("init", "-q", "-b", "main")
    loop.commit({"notes.txt": "mine\n"}, "Start")
    loop.setup("--tag", TAG, "--starter", "nanogpt", "--data", "")
    with open_ledger(loop.folder) as (repo, ledger):
        campaign = ledger.campaign(TAG)
        assert campaign is not None
        base = campaign.base_commit
        kept = repo.commit_texts(base, {"train.py": "# shorter\n"}, "experiment: shorter")
        repo.set_branch(BRANCH, kept, base, "a keep")
        for number, commit in enumerate((base, kept)):
            ledger.add_experiment(
                Experiment(
                    tag=TAG, number=number, epoch=1, description=("baseline", "shorter")[number], commit=commit,
                    parent=base, tree=repo.tree_of(commit), incumbent=0 if number else None, state=State.DECIDED,
                    status=Status.KEEP, decided_at="2026-04-05T21:00:00Z",
                )
            )  # fmt: skip
    loop.call("finalize")
    assert subjects(loop) == ["Start: the files of the baseline", "shorter"]
    assert {"train.py", "prepare.py"} <= set(changed(loop))
    assert "autoresearch.yaml" not in changed(loop)


def test_settings_outside_the_code_are_told(tmp_path: Path, run_script: RunScript) -> None:
    train = TRAIN.replace("import prepare\n", "import os\nimport prepare\n").replace(
        "bpb(LR)", "bpb(int(os.environ.get('MY_LR', LR)) + WIDTH - 64)"
    )
    loop = make_measured_loop(tmp_path / "project", run_script, files={"train.py": train})
    loop.call("sweep", "--env", "MY_LR=8")
    assert loop.call("finalize", expect=4)["code"] == "nothing_kept", "no file has changed"
    assert loop.experiment("a narrower model", WIDTH=50) == "keep"
    done = loop.call("finalize")
    assert done["environment"] == {"MY_LR": "8"}
    assert [part["number"] for part in done["left_out"]] == [1]
    assert "MY_LR=8" in loop.run("finalize", cwd=loop.folder).stdout
    loop.git("branch", "-D", "-q", FINAL)
    weaken(loop, 1)
    assert loop.call("finalize", "--only-confirmed")["equals_incumbent"]


# --- the text ----------------------------------------------------------------------------------


def test_pull_request_text_has_the_table_and_the_chart(loop: Loop, tmp_path: Path) -> None:
    page, chart = tmp_path / "pr" / "text.md", tmp_path / "progress chart.png"
    page.parent.mkdir()
    chart.write_bytes(b"png")
    weaken(loop, 4)
    done = loop.call("finalize", "--only-confirmed", "--markdown", page, "--plot", chart)
    assert done["markdown"] == str(page)
    text = page.read_text(encoding="utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and "---" not in line]
    assert [row.split(" | ")[0].strip("| ") for row in rows] == ["#", "1", "3"]
    assert r"raise B, which is \| \<b\>better\</b\>" in text
    assert "](../progress%20chart.png)" in text
    assert "was not measured as a whole" in text
    assert "| value |" not in text, "the values were measured with what is left out"
    assert r"Experiment 4 (raise C)" in text
    loop.call("finalize", "--only-confirmed", "--markdown", page, "--plot", tmp_path / "none.png")
    assert "![" not in page.read_text(encoding="utf-8")
    loop.call("finalize", "--branch", "all", "--markdown", page)
    assert "| value |" in page.read_text(encoding="utf-8")


def test_commits_pass_git_fsck(loop: Loop) -> None:
    loop.call("finalize")
    done = subprocess.run(["git", "fsck", "--strict"], cwd=loop.folder, capture_output=True, text=True, check=False)
    assert (done.returncode, "error" in done.stderr) == (0, False)
