from __future__ import annotations

import dataclasses
import os
import re
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.ledger_builder import LedgerBuilder

from autoresearch.errors import NeedsHumanError
from autoresearch.ledger import (
    SCHEMA_VERSION,
    Campaign,
    Experiment,
    Ledger,
    Purpose,
    State,
    Status,
    Trial,
    completed,
    now,
)
from autoresearch.trial import Outcome, TrialResult

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
COMMITS = ["a" * 40, "b" * 40]
TEXT = "自主研究 <script> 'quoted' \"twice\"; DROP TABLE trial -- \\ \n\t😀"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def ledger(folder: Path) -> Iterator[Ledger]:
    with Ledger(folder, create=True) as ledger:
        yield ledger


@pytest.fixture
def builder(ledger: Ledger) -> LedgerBuilder:
    """Campaign apr5, without experiments."""
    return LedgerBuilder(ledger, COMMITS)


def an_experiment(number: int, **fields: object) -> Experiment:
    plain = Experiment(
        tag="apr5", number=number, epoch=1, description="idea", commit="c" * 40, parent="p" * 40,
        tree=f"{number:040x}", incumbent=0 if number else None,
    )  # fmt: skip
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


def a_result(trial: Trial, metric: float | None = 0.5, **fields: object) -> TrialResult:
    outcome = Outcome.COMPLETED if metric is not None else Outcome.CRASHED
    plain = TrialResult(trial_id=trial.id, outcome=outcome, metric=metric, duration_s=10.0)
    return dataclasses.replace(plain, **fields)  # type: ignore[arg-type]


def start(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python process with the ledger's names at hand and ``arguments`` in ``sys.argv[1:]``."""
    prelude = "import sys, time\nfrom pathlib import Path\nfrom autoresearch.ledger import Campaign, Ledger\n"
    return subprocess.Popen(
        [sys.executable, "-c", prelude + code, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
    )


# ---- opening


def test_a_missing_ledger_is_empty_and_looking_creates_nothing(folder: Path) -> None:
    with Ledger(folder) as ledger:
        assert ledger.campaigns() == []
        assert ledger.incumbent("apr5") is None
    assert not folder.exists()


def test_what_is_written_is_there_when_opened_again(folder: Path) -> None:
    with Ledger(folder, create=True) as ledger:
        LedgerBuilder(ledger, COMMITS).baseline([1.0, 1.1])
    with Ledger(folder) as ledger:
        assert [campaign.tag for campaign in ledger.campaigns()] == ["apr5"]
        assert len(ledger.trials("apr5")) == 2


def test_a_ledger_of_a_newer_version_is_left_alone(folder: Path) -> None:
    with Ledger(folder, create=True) as ledger:
        path = ledger.path
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {SCHEMA_VERSION + 1}")
    database.close()
    with pytest.raises(NeedsHumanError, match=f"has version {SCHEMA_VERSION + 1}") as caught:
        Ledger(folder)
    assert caught.value.exit_code == 6


def test_a_decision_is_on_disk_when_the_call_returns(ledger: Ledger) -> None:
    """WAL with synchronous=FULL: the log is flushed at every commit."""
    with ledger.snapshot() as select:
        assert select("PRAGMA journal_mode")[0][0] == "wal"
        assert select("PRAGMA synchronous")[0][0] == 2
        assert select("PRAGMA foreign_keys")[0][0] == 1


def test_many_processes_may_create_the_same_ledger_at_once(folder: Path) -> None:
    code = (
        "print('ready', flush=True)\n"
        "sys.stdin.readline()\n"
        "with Ledger(Path(sys.argv[1]), create=True) as ledger:\n"
        "    ledger.add_campaign(Campaign(tag=sys.argv[2], branch='b', base_commit='c', project='/p'))\n"
    )
    processes = [start(code, folder, f"t{at}") for at in range(6)]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.wait(timeout=60) for process in processes] == [0] * 6
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    with Ledger(folder) as ledger:
        assert {campaign.tag for campaign in ledger.campaigns()} == {f"t{at}" for at in range(6)}


# ---- transactions


def test_a_failed_transaction_leaves_nothing(ledger: Ledger, builder: LedgerBuilder) -> None:
    def decide() -> None:
        with ledger.transaction():
            ledger.add_experiment(an_experiment(0))
            with ledger.transaction():
                ledger.add_event("apr5", "repair", "x")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        decide()
    assert ledger.experiments("apr5") == []
    assert ledger.events("apr5") == []
    ledger.add_experiment(an_experiment(0))
    assert len(ledger.experiments("apr5")) == 1


def test_a_transaction_is_invisible_until_it_ends(ledger: Ledger, builder: LedgerBuilder, folder: Path) -> None:
    with Ledger(folder) as reader:
        with ledger.transaction():
            ledger.add_experiment(an_experiment(0))
            assert reader.experiments("apr5") == []
        assert len(reader.experiments("apr5")) == 1


def test_killed_in_a_transaction_nothing_of_it_stays(ledger: Ledger, builder: LedgerBuilder, folder: Path) -> None:
    code = (
        "ledger = Ledger(Path(sys.argv[1]))\n"
        "with ledger.transaction():\n"
        "    ledger.add_event('apr5', 'half', 'done')\n"
        "    print('in', flush=True)\n"
        "    time.sleep(60)\n"
    )
    with start(code, folder) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "in\n"
        process.kill()
    ledger.add_event("apr5", "whole", "done")
    assert [event.kind for event in ledger.events("apr5")] == ["whole"]


def test_a_snapshot_sees_one_moment_and_lets_the_loop_go_on(
    ledger: Ledger, builder: LedgerBuilder, folder: Path
) -> None:
    with Ledger(folder) as reader, reader.snapshot() as select:
        assert select("SELECT COUNT(*) FROM experiment WHERE tag = ?", "apr5")[0][0] == 0
        ledger.add_experiment(an_experiment(0))
        assert select("SELECT COUNT(*) FROM experiment")[0][0] == 0
        assert reader.experiments("apr5") == []
    with Ledger(folder) as reader, reader.snapshot() as select:
        assert select("SELECT COUNT(*) FROM experiment")[0][0] == 1


def test_a_snapshot_refuses_to_write(ledger: Ledger, builder: LedgerBuilder) -> None:
    with pytest.raises(sqlite3.OperationalError), ledger.snapshot():
        ledger.add_event("apr5", "repair", "x")
    ledger.add_event("apr5", "repair", "afterwards")
    assert len(ledger.events("apr5")) == 1


# ---- campaigns


def test_a_campaign_comes_back_as_it_was_stored(ledger: Ledger) -> None:
    campaign = Campaign(
        tag="mai-研究.1", branch="autoresearch/x", base_commit="a" * 40, project=f"/p {TEXT}", epoch=3,
        config={"metric": {"name": TEXT}}, setup={"own": [1, None, True]}, environment={"gpu": "H100"},
        rule={"level": 0.1 + 0.2, "seeds": {"1": 1e-300}}, view_sha256="e3", pending={"target": "t"},
    )  # fmt: skip
    ledger.add_campaign(campaign)
    assert campaign.created_at
    assert ledger.campaign(campaign.tag) == campaign
    assert ledger.campaign("other") is None


def test_campaigns_are_listed_by_age(ledger: Ledger) -> None:
    for tag, created_at in (("z", "2026-04-05T00:00:00.000Z"), ("a", "2026-04-06T00:00:00.000Z")):
        ledger.add_campaign(Campaign(tag=tag, branch=tag, base_commit="a", project="/p", created_at=created_at))
    assert [campaign.tag for campaign in ledger.campaigns()] == ["z", "a"]


def test_a_tag_is_taken_once(ledger: Ledger, builder: LedgerBuilder) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_campaign(builder.campaign)


def test_updating_a_campaign_stores_the_named_fields_only(ledger: Ledger, builder: LedgerBuilder) -> None:
    campaign = builder.campaign
    campaign.rule, campaign.epoch = {"level": 1.5}, 7
    ledger.update_campaign(campaign, "rule")
    stored = ledger.campaign("apr5")
    assert stored is not None
    assert (stored.rule, stored.epoch) == ({"level": 1.5}, 1)


def test_updating_a_field_that_does_not_exist_is_a_bug(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = builder.baseline([1.0])
    with pytest.raises(KeyError):
        ledger.update_experiment(experiment, "status", "verdikt")
    with pytest.raises(KeyError):
        ledger.update_campaign(builder.campaign, "rules")


# ---- experiments


def test_an_experiment_comes_back_as_it_was_stored(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = an_experiment(
        0,
        **dict.fromkeys(("description", "family", "reason", "undone", "note"), TEXT),
        state=State.DECIDED,
        status=Status.CRASH,
        verdict="failed",
        judgement={"z": 1.5, "runs": {"1": 0.1 + 0.2}},
        attempt=2,
        options={"arguments": {"lr": "1e-3"}},
        lines_added=3,
        lines_deleted=4,
        metric=1e-9,
        peak_mem_mib=45056.5,
        rule={"a": [1]},
        decided_at=now(),
    )
    ledger.add_experiment(experiment)
    assert ledger.experiment("apr5", 0) == experiment
    assert ledger.experiment("apr5", 1) is None


def test_an_experiment_can_be_updated_by_its_own_names(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = an_experiment(0)
    ledger.add_experiment(experiment)
    experiment.commit, experiment.tree, experiment.status, experiment.note = (
        "n" * 40,
        "t" * 40,
        Status.KEEP,
        "unsaved",
    )
    ledger.update_experiment(experiment, "commit", "tree", "status")
    assert ledger.experiment("apr5", 0) == dataclasses.replace(experiment, note="")


def test_a_number_is_used_once_and_only_in_a_campaign(ledger: Ledger, builder: LedgerBuilder) -> None:
    ledger.add_experiment(an_experiment(0))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_experiment(an_experiment(0))
    with pytest.raises(sqlite3.IntegrityError):
        ledger.add_experiment(an_experiment(0, tag="none"))


def test_experiments_are_listed_by_number_and_filtered(ledger: Ledger, builder: LedgerBuilder) -> None:
    for number, status, epoch in (
        (2, Status.KEEP, 2),
        (0, Status.KEEP, 1),
        (10, None, 2),
        (1, Status.DISCARD, 1),
    ):
        ledger.add_experiment(an_experiment(number, status=status, epoch=epoch))

    def numbers(**filters: object) -> list[int]:
        return [each.number for each in ledger.experiments("apr5", **filters)]  # type: ignore[arg-type]

    assert numbers() == [0, 1, 2, 10]
    assert numbers(status=Status.KEEP) == [0, 2]
    assert numbers(epoch=2) == [2, 10]
    assert numbers(status=Status.KEEP, epoch=2) == [2]
    assert numbers(last=2) == [2, 10]
    assert numbers(last=1, status=Status.KEEP) == [2]
    assert numbers(last=0) == []
    assert ledger.next_number("apr5") == 11
    assert ledger.next_number("other") == 0


def test_incumbent_is_the_last_keep_that_stands(ledger: Ledger, builder: LedgerBuilder) -> None:
    assert ledger.incumbent("apr5") is None
    builder.baseline([1.0, 1.1, 1.2])
    kept = builder.idea("kept", [0.5, 0.5], status=Status.KEEP)
    builder.idea("discarded", [1.5], status=Status.DISCARD)
    incumbent = ledger.incumbent("apr5")
    assert incumbent is not None
    assert incumbent.number == kept.number
    builder.undo(kept.number, "no gain")
    incumbent = ledger.incumbent("apr5")
    assert incumbent is not None
    assert incumbent.is_baseline


def test_baseline_is_the_epochs_latest(ledger: Ledger, builder: LedgerBuilder) -> None:
    crashed = builder.crash("baseline that crashed")
    mended = builder.baseline([1.0, 1.1])
    builder.new_epoch()
    assert crashed.is_baseline
    found = ledger.baseline("apr5", 1)
    assert found is not None
    assert (crashed.number, found.number) == (0, mended.number)
    assert ledger.baseline("apr5", 2) is None


def test_the_open_experiment_is_the_undecided_one(ledger: Ledger, builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.1])
    assert ledger.open_experiment("apr5") is None
    experiment = builder.open("idea")
    assert ledger.open_experiment("apr5") == experiment
    experiment.state = State.JUDGED
    ledger.update_experiment(experiment, "state")
    assert ledger.open_experiment("apr5") == experiment
    experiment.state = State.DECIDED
    ledger.update_experiment(experiment, "state")
    assert ledger.open_experiment("apr5") is None


def test_a_tree_is_recognized_within_its_epoch(ledger: Ledger, builder: LedgerBuilder) -> None:
    ledger.add_experiment(an_experiment(0, tree="same"))
    ledger.add_experiment(an_experiment(1, tree="same"))
    assert [each.number for each in ledger.experiments_with_tree("apr5", "same", epoch=1)] == [0, 1]
    assert ledger.experiments_with_tree("apr5", "same", epoch=2) == []
    assert ledger.experiments_with_tree("apr5", "other", epoch=1) == []


def test_counts_and_misses_follow_the_decisions(ledger: Ledger, builder: LedgerBuilder) -> None:
    assert ledger.counts("apr5") == {}
    builder.crash("before any keep")
    assert ledger.misses_in_a_row("apr5") == 1
    builder.baseline([1.0, 1.1, 1.2])
    assert ledger.misses_in_a_row("apr5") == 0
    builder.idea("miss", [1.5], status=Status.DISCARD)
    builder.crash("crash")
    builder.open("open")
    assert ledger.counts("apr5") == {"keep": 1, "discard": 1, "crash": 2, "open": 1}
    assert ledger.misses_in_a_row("apr5") == 2


def test_result_rows_are_the_decided_experiments(ledger: Ledger, builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.5])
    lucky = builder.idea("lucky", [0.5, 0.5], status=Status.KEEP)
    builder.undo(lucky.number, "no gain")
    builder.crash("crash")
    builder.open("open")
    rows = ledger.result_rows("apr5")
    assert [(row.description, str(row.status), row.metric) for row in rows] == [
        ("baseline", "keep", 1.25), ("lucky (undone: no gain)", "discard", 0.5), ("crash", "crash", None),
    ]  # fmt: skip
    assert rows[0].commit == COMMITS[0]
    assert [row.description for row in rows] == [each.shown_description for each in ledger.experiments("apr5")[:3]]


# ---- trials


def test_a_trial_comes_back_as_it_was_stored(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = builder.open("idea")
    trial = Trial(
        id="apr5.0.1.seed7", tag="apr5", number=experiment.number, attempt=1, seed=7, purpose=Purpose.CLAIM,
        commit="c" * 40, command=f"train {TEXT}", directory="/d", handle={"pid": 5}, environment="e3",
    )  # fmt: skip
    ledger.add_trial(trial)
    assert ledger.open_trials("apr5") == ledger.trials("apr5", 0) == [trial]
    trial.handle = {"pid": 6}
    ledger.set_handle(trial)
    assert ledger.open_trials("apr5") == [trial]
    result = a_result(
        trial,
        1e-9,
        reason=TEXT,
        watched={"loss": 0.1 + 0.2},
        exit_code=0,
        curve=((0.5, 2.0), (1.0, 1.0)),
        log_truncated=True,
        peak_mem_mib=12.5,
    )
    ledger.end_trial(trial, result)
    assert trial.result == result
    assert ledger.trials("apr5") == [trial]
    assert ledger.open_trials("apr5") == []


def test_a_trial_keeps_its_first_result(ledger: Ledger, builder: LedgerBuilder) -> None:
    trial = builder.trial(builder.open("idea"), 1)
    ledger.end_trial(trial, a_result(trial, 0.5))
    ledger.end_trial(trial, a_result(trial, None, outcome=Outcome.INTERRUPTED))
    assert trial.metric == 0.5
    assert ledger.trials("apr5") == [trial]
    assert [total["outcome"] for total in ledger.trial_totals("apr5")] == ["completed"]


def test_a_trial_needs_its_experiment(ledger: Ledger, builder: LedgerBuilder) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        builder.trial(an_experiment(5), 1)


def test_trials_are_listed_in_the_order_of_their_start(ledger: Ledger, builder: LedgerBuilder) -> None:
    first, second = builder.open("first"), builder.open("second")
    for experiment, seed in ((second, 3), (first, 1), (second, 2)):
        builder.trial(experiment, seed, metric=1.0)
    second.attempt = 2
    builder.trial(second, 9)
    assert [trial.seed for trial in ledger.trials("apr5")] == [3, 1, 2, 9]
    assert [trial.seed for trial in ledger.trials("apr5", second.number)] == [3, 2, 9]
    assert [trial.seed for trial in ledger.trials("apr5", second.number, attempt=1)] == [3, 2]
    assert [trial.seed for trial in ledger.trials("other")] == []


def test_completed_gives_the_metrics_by_seed(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = builder.open("idea")
    builder.trial(experiment, 3, metric=0.3)
    builder.trial(experiment, 1, metric=0.0)
    builder.trial(experiment, 2, outcome=Outcome.CRASHED)
    builder.trial(experiment, 4)
    assert list(completed(ledger.trials("apr5")).items()) == [(3, 0.3), (1, 0.0)]


def test_trial_totals_sum_by_outcome_and_cause(ledger: Ledger, builder: LedgerBuilder) -> None:
    experiment = builder.open("idea")
    for seed, cause in enumerate(["oom_gpu", "exit", "oom_gpu"]):
        builder.trial(experiment, seed, outcome=Outcome.CRASHED, cause=cause)
    builder.trial(experiment, 8, metric=1.0)
    builder.trial(experiment, 9)
    assert ledger.trial_totals("apr5") == [
        {"outcome": "completed", "cause": "", "trials": 1, "duration_s": 300.0},
        {"outcome": "crashed", "cause": "exit", "trials": 1, "duration_s": 300.0},
        {"outcome": "crashed", "cause": "oom_gpu", "trials": 2, "duration_s": 600.0},
    ]


# ---- events


def test_events_are_the_last_ones_oldest_first(ledger: Ledger, builder: LedgerBuilder) -> None:
    LedgerBuilder(ledger, COMMITS, tag="apr6")
    for at in range(5):
        ledger.add_event("apr5", "repair", f"{at} {TEXT}")
        ledger.add_event("apr6", "drift", "other")
    assert [event.text for event in ledger.events("apr5", last=2)] == [f"3 {TEXT}", f"4 {TEXT}"]
    assert len(ledger.events("apr5")) == 5
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", ledger.events("apr5")[0].at)


def test_campaigns_do_not_see_each_other(ledger: Ledger, builder: LedgerBuilder) -> None:
    other = LedgerBuilder(ledger, COMMITS, tag="apr6")
    other.baseline([1.0, 1.1])
    other.trial(other.open("open"), 1)
    assert ledger.experiments("apr5") == ledger.trials("apr5") == ledger.open_trials("apr5") == []
    assert ledger.incumbent("apr5") is ledger.baseline("apr5", 1) is ledger.open_experiment("apr5") is None
    assert ledger.counts("apr5") == {}
    assert ledger.trial_totals("apr5") == []
    assert ledger.misses_in_a_row("apr5") == 0
