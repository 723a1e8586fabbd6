from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import RunScript
from tests.setup_bench import PLAIN, Bench, make_bench

from autoresearch.campaign.opened import open_campaign, open_ledger
from autoresearch.campaign.settle import recorded_tip
from autoresearch.campaign.trials import launch_trial
from autoresearch.ledger import Experiment, Purpose, State, Status
from autoresearch.trial import Outcome

DATA = 'DATA_DIR = "corpus"\n'


@pytest.fixture
def bench(tmp_path: Path, run_script: RunScript) -> Bench:
    """A project with campaign ``a``, its baseline measured and one experiment kept."""
    bench = make_bench(tmp_path / "project", run_script, {**PLAIN, ".gitignore": "corpus\n"})
    bench.write({"corpus/a.txt": "text\n"})
    base = bench.setup("--tag", "a", "--data", "corpus")["base_commit"]
    kept = bench.commit({"train.py": 'print(f"val_loss: {0.4}")\n'}, "experiment: lower")
    with open_ledger(bench.folder) as (_, ledger):
        for number, commit in enumerate((base, kept)):
            ledger.add_experiment(experiment(number, commit, base))
        campaign = ledger.campaign("a")
        assert campaign is not None
        campaign.rule = {"of": "the old epoch"}
        campaign.environment = {"of": "the old epoch"}
        ledger.update_campaign(campaign, "rule", "environment")
    return bench


def experiment(number: int, commit: str, parent: str, **fields: Any) -> Experiment:
    decided = {"state": State.DECIDED, "status": Status.KEEP, "metric": 0.5 - number / 10, **fields}
    return Experiment(
        tag="a", number=number, epoch=1, description=f"idea {number}", commit=commit, parent=parent, tree="",
        incumbent=number - 1 if number else None, **decided,
    )  # fmt: skip


def edit_config(bench: Bench, old: str, new: str) -> None:
    path = bench.folder / "autoresearch.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_edited_config_begins_an_epoch_on_top_of_the_incumbent(bench: Bench) -> None:
    kept = bench.git("rev-parse", "HEAD")
    edit_config(bench, "budget_s: 300", "budget_s: 120")
    edit_config(bench, "min_seeds: 1, max_seeds: 6", "min_seeds: 2, max_seeds: 4")
    data = bench.setup("--reconfigure")
    assert (data["changed"], data["epoch"]) == (True, 2)
    assert data["differences"] == {
        "budget_s": {"old": 300.0, "new": 120.0},
        "keep.min_seeds": {"old": 1, "new": 2}, "keep.max_seeds": {"old": 6, "new": 4},
    }  # fmt: skip
    assert bench.git("rev-parse", "HEAD^") == kept
    assert bench.git("show", "--name-only", "--format=%s", "HEAD").split("\n\n") == [
        "autoresearch: new settings, epoch 2", "autoresearch.yaml"
    ]  # fmt: skip
    assert bench.status() == ""
    with open_campaign(bench.folder) as oc:
        assert oc.config.budget_s == 120
        assert (oc.campaign.rule, oc.campaign.environment, oc.campaign.epoch) == (None, {}, 2)
        assert oc.campaign.base_commit == recorded_tip(oc) == bench.git("rev-parse", "autoresearch/a")
        assert oc.ledger.baseline("a", 2) is None
    assert "2 min of training" in (bench.folder / "CLAUDE.md").read_text()


def test_text_tells_old_and_new(bench: Bench) -> None:
    done = bench.run("setup_campaign", "--reconfigure", "--budget", "60", cwd=bench.folder)
    assert done.returncode == 0
    assert "epoch 2 begins" in done.stdout
    assert "budget_s: 300.0 -> 60.0" in done.stdout


def test_flags_are_written_into_the_config(bench: Bench) -> None:
    bench.setup("--reconfigure", "--edit", "train.py", "lib.py", "--direction", "higher")
    text = (bench.folder / "autoresearch.yaml").read_text()
    assert "edit: [train.py, lib.py]" in text
    assert "# What experiments may change" in text
    assert bench.status() == ""


def test_second_call_changes_nothing(bench: Bench) -> None:
    bench.setup("--reconfigure", "--budget", "60")
    before = bench.state()
    data = bench.setup("--reconfigure", "--budget", "60")
    assert (data["changed"], data["epoch"]) == (False, 2)
    assert bench.state() == before
    text = bench.run("setup_campaign", "--reconfigure", "--budget", "60", cwd=bench.folder).stdout
    assert text.splitlines()[-1].endswith("status.py")


def test_dry_run_changes_nothing(bench: Bench) -> None:
    before = bench.state()
    data = bench.setup("--reconfigure", "--budget", "60", "--dry-run")
    assert data["differences"] == {"budget_s": {"old": 300.0, "new": 60.0}}
    assert bench.state() == before
    campaign = bench.campaign("a")
    assert campaign is not None
    assert campaign.epoch == 1


def test_new_data_begins_an_epoch_without_a_commit(bench: Bench) -> None:
    bench.write({"corpus/a.txt": "another text\n"})
    kept = bench.git("rev-parse", "HEAD")
    data = bench.setup("--reconfigure")
    assert (data["changed"], data["epoch"], data["base_commit"]) == (True, 2, kept)
    assert any("corpus" in note for note in data["notes"])
    assert bench.setup("--reconfigure")["changed"] is False, "the new data is the one to compare with now"


def test_commits_of_a_human_on_the_branch_become_part_of_the_base(bench: Bench) -> None:
    mended = bench.commit({"lib.py": "X = 2\n"}, "Mend the evaluator")
    data = bench.setup("--reconfigure")
    assert (data["changed"], data["base_commit"]) == (True, mended)
    assert any("committed on autoresearch/a" in note for note in data["notes"])


def test_edit_of_the_agent_waits(bench: Bench) -> None:
    bench.write({"train.py": 'print(f"val_loss: {0.1}")\n'})
    data = bench.setup("--reconfigure", "--budget", "60")
    assert any("edit of train.py waits" in note for note in data["notes"])
    assert bench.status() == " M train.py"


def test_retest_under_way_is_ended(bench: Bench) -> None:
    slow = 'import time\ntime.sleep(100)\nprint(f"val_loss: {0.3}")\n'
    head = bench.commit({"train.py": slow}, "experiment: slow")
    with open_campaign(bench.folder) as oc:
        incumbent = experiment(2, head, head)
        oc.ledger.add_experiment(incumbent)
        launch_trial(oc, incumbent, 9, Purpose.RETEST)
    bench.setup("--reconfigure", "--budget", "60")
    with open_campaign(bench.folder) as oc:
        (retest,) = oc.ledger.trials("a", 2)
        assert retest.result is not None
        assert retest.result.outcome is Outcome.INTERRUPTED


def test_killed_between_branch_and_ledger_is_completed(bench: Bench) -> None:
    """The branch has the new settings, the ledger still the old ones: as if a human had committed them."""
    edit_config(bench, "budget_s: 300", "budget_s: 120")
    committed = bench.commit({"autoresearch.yaml": (bench.folder / "autoresearch.yaml").read_text()})
    data = bench.setup("--reconfigure")
    assert (data["epoch"], data["base_commit"]) == (2, committed)
    with open_campaign(bench.folder) as oc:
        assert oc.config.budget_s == 120


def test_protected_file_becomes_editable(bench: Bench) -> None:
    edit_config(bench, "protect: []", "protect: [lib.py]")
    bench.setup("--reconfigure")
    data = bench.setup("--reconfigure", "--edit", "train.py", "lib.py")
    assert data["differences"] == {
        "edit": {"old": ["train.py"], "new": ["train.py", "lib.py"]},
        "protect": {"old": ["lib.py"], "new": []},
    }


def test_new_metric_is_told_to_share_a_column_with_the_old(bench: Bench) -> None:
    data = bench.setup("--reconfigure", "--metric", "accuracy")
    assert data["differences"]["metric.direction"] == {"old": "lower", "new": "higher"}
    assert any("holds val_loss" in note for note in data["notes"])
    assert (bench.folder / "results.tsv").read_text().startswith("commit\taccuracy\t")


# --- refusals ------------------------------------------------------------------------------------------


def refused(bench: Bench, *arguments: str, expect: int) -> dict[str, Any]:
    before = bench.state()
    error = bench.setup("--reconfigure", *arguments, expect=expect)
    assert bench.state() == before
    campaign = bench.campaign("a")
    assert campaign is not None
    assert campaign.epoch == 1
    return error


@pytest.mark.parametrize("state", [State.RUNNING, State.JUDGED])
def test_open_experiment_is_decided_first(bench: Bench, state: State) -> None:
    head = bench.git("rev-parse", "HEAD")
    with open_ledger(bench.folder) as (_, ledger):
        ledger.add_experiment(experiment(2, head, head, state=state, status=None))
    bench.git("update-ref", "refs/autoresearch/a/experiments/2.1", head)  # as a submission leaves it
    error = refused(bench, "--budget", "60", expect=4)
    assert "Experiment 2 is not decided" in error["message"]
    assert "log_result.py" in error["hint"]


def test_invalid_config_is_named(bench: Bench) -> None:
    edit_config(bench, "budget_s: 300", "budget_s: soon")
    assert "budget_s is 'soon'" in refused(bench, expect=2)["message"]


def test_missing_config_is_brought_back_by_the_hint(bench: Bench) -> None:
    (bench.folder / "autoresearch.yaml").unlink()
    error = refused(bench, expect=2)
    bench.git(*error["hint"].split()[1:])
    assert (bench.folder / "autoresearch.yaml").exists()


def test_uncommitted_code_outside_edit(bench: Bench) -> None:
    bench.write({"lib.py": "X = 3\n"})
    error = refused(bench, "--budget", "60", expect=4)
    assert error["code"] == "uncommitted_changes"


def test_edit_that_names_no_committed_file(bench: Bench) -> None:
    assert "`edit` names model.py" in refused(bench, "--edit", "model.py", expect=2)["message"]


def test_missing_data(bench: Bench) -> None:
    assert "nowhere" in refused(bench, "--data", "nowhere", expect=5)["message"]


def test_another_branch_is_checked_out(bench: Bench) -> None:
    bench.git("switch", "-q", "main")
    error = refused(bench, "--budget", "60", expect=6)
    assert error["hint"] == "git switch autoresearch/a"


@pytest.mark.parametrize("flag", [["--starter", "nanogpt"], ["--import", "x"], ["--prepare"], ["--agents-md"]])
def test_flags_of_a_new_campaign(bench: Bench, flag: list[str]) -> None:
    assert flag[0] in refused(bench, *flag, expect=2)["message"]


def test_no_campaign_yet(tmp_path: Path, run_script: RunScript) -> None:
    fresh = make_bench(tmp_path / "fresh", run_script, PLAIN)
    error = fresh.setup("--reconfigure", expect=3)
    assert error["hint"].endswith("scripts/setup_campaign.py")


def test_edited_setting_that_flags_and_file_disagree_on_goes_to_the_flag(bench: Bench) -> None:
    edit_config(bench, "budget_s: 300", "budget_s: 120")
    data = bench.setup("--reconfigure", "--budget", "60")
    assert data["differences"] == {"budget_s": {"old": 300.0, "new": 60.0}}
