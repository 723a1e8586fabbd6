from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.ledger_builder import LedgerBuilder, make_repository
from tests.simulated_campaign import simulate

from autoresearch.ledger import Ledger, Purpose
from autoresearch.repo import Repo
from autoresearch.report.series import Series, read_series, records, retests
from autoresearch.report.timeline import timeline
from autoresearch.verdict import KeepRule


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("series") / "project"
    simulate(folder, runs=70, open_one=True)
    return folder


@pytest.fixture(scope="module")
def series(project: Path) -> Series:
    return read_series(project)[0]


def ledger_of(project: Path) -> Ledger:
    return Ledger(project / ".git" / "autoresearch")


def test_every_experiment_and_trial_equals_the_ledger(project: Path, series: Series) -> None:
    with ledger_of(project) as ledger:
        rows, trials = ledger.experiments("apr5"), ledger.trials("apr5")
    assert len(rows) > 40
    for point, row in zip(series.experiments, rows, strict=True):
        for name in ("number", "epoch", "commit", "parent", "incumbent", "family", "verdict", "undone", "description"):
            assert getattr(point, name) == getattr(row, name)
        assert point.status == (row.status or "open")
        assert (point.metric, point.note, point.reason) == (row.metric, row.note, row.reason)
        assert point.peak_mem_mib == row.peak_mem_mib
        assert point.gain == row.judgement.get("gain")
        assert (point.decided_s is None) == (row.decided_at == "")
        own = [trial for trial in trials if trial.number == row.number]
        assert [(each.seed, each.purpose, each.metric) for each in point.trials] == [
            (trial.seed, trial.purpose, trial.metric) for trial in own
        ]
        for shown, trial in zip(point.trials, own, strict=True):
            if trial.result is None:
                assert shown.outcome is None
            else:
                assert shown.outcome == trial.result.outcome
                assert (shown.duration_s, shown.watched) == (trial.result.duration_s, trial.result.watched)
                assert tuple(shown.curve) == trial.result.curve


def test_the_running_best_is_what_the_keep_rule_believed_after_each_decision(project: Path, series: Series) -> None:
    with ledger_of(project) as ledger:
        rules = {row.number: KeepRule.from_json(row.rule) for row in ledger.experiments("apr5") if row.rule}
    assert [(each.number, each.level, each.se) for each in series.levels] == [
        (number, rule.incumbent_level, rule.incumbent_se) for number, rule in rules.items()
    ]


def test_a_long_campaign_has_a_level_at_every_keep_and_few_between(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoresearch.report.series.LEVELS", 10)
    found = read_series(project)[0]
    numbers = {each.number for each in found.levels}
    assert {each.number for each in found.experiments if each.kept or each.undone} <= numbers
    assert len(numbers) < 30


def test_diffs_are_those_of_git_for_what_was_kept_once(project: Path, series: Series) -> None:
    repo = Repo(project)
    kept = [each for each in series.experiments if (each.kept or each.undone) and not each.is_baseline]
    assert kept
    for each in kept:
        assert each.diff == repo.diff(each.parent, each.commit).strip("\n")
        assert "+" in each.diff
    assert not any(each.diff for each in series.experiments if each not in kept)


def test_only_the_experiments_that_were_asked_for_have_curves(project: Path) -> None:
    found = read_series(project, detailed=12)[0]
    detailed = [each for each in found.experiments if any(trial.curve for trial in each.trials)]
    kept = [each for each in found.experiments if each.kept or each.undone]
    assert 0 < len(kept) <= 12
    assert len(detailed) <= 12
    assert all(each in detailed for each in kept)
    assert not any(trial.curve for trial in read_series(project, detailed=0)[0].trials())


def test_retests_stand_after_the_experiment_that_was_decided_last(project: Path, series: Series) -> None:
    with ledger_of(project) as ledger:
        rows = ledger.experiments("apr5")
        expected = [
            (
                trial.seed,
                trial.metric,
                max(row.number for row in rows if row.decided_at and row.decided_at <= trial.created_at),
            )
            for trial in ledger.trials("apr5")
            if trial.purpose == Purpose.RETEST
        ]
    assert expected
    assert [(each.seed, each.metric, each.after) for each in retests(series)] == expected


def test_records_only_get_better(series: Series) -> None:
    found = [metric for _, metric in records(series)]
    assert len(found) > 2
    assert found == sorted(found, reverse=True)
    assert series.summary.record is not None
    assert found[-1] == series.summary.record.metric


def test_the_timeline_holds_every_second_of_the_trials_and_of_thinking(series: Series) -> None:
    spent = timeline(series, bins=50)
    trials = list(series.trials())
    for kind, outcomes in (("completed", ["completed"]), ("failed", ["crashed", "timed_out", "diverged"])):
        seconds = sum(trial.duration_s for trial in trials if trial.outcome in outcomes)
        assert sum(getattr(spent, kind)) == pytest.approx(seconds, abs=0.1)
        assert seconds > 0
    thinking = sum(
        after.start_s - (before.decided_s or 0.0)
        for before, after in zip(series.experiments, series.experiments[1:], strict=False)
    )
    assert sum(spent.thinking) == pytest.approx(thinking, abs=0.1)
    assert all(seconds <= spent.bin_s + 0.01 for seconds in spent.completed), "one device, one trial at a time"


def test_campaigns_are_read_one_by_one_and_a_nested_snapshot_sees_the_outer_moment(tmp_path: Path) -> None:
    commits = make_repository(tmp_path / "project")
    state = tmp_path / "project" / ".git" / "autoresearch"
    with Ledger(state, create=True) as ledger, Ledger(state) as other:
        LedgerBuilder(ledger, commits, tag="first").baseline([1.0, 1.1])
        builder = LedgerBuilder(ledger, commits, tag="second")
        builder.baseline([2.0, 2.1])
        with other.snapshot() as select:
            assert select("SELECT COUNT(*) FROM experiment")[0][0] == 2
            builder.idea("while a report is read", [2.0])
            with other.snapshot() as nested:
                assert nested("SELECT COUNT(*) FROM experiment")[0][0] == 2
        assert [len(each.experiments) for each in read_series(tmp_path / "project", all_tags=True)] == [1, 2]


def test_an_imported_experiment_without_trials_and_rule_is_read(tmp_path: Path) -> None:
    commits = make_repository(tmp_path / "project")
    with Ledger(tmp_path / "project" / ".git" / "autoresearch", create=True) as ledger:
        builder = LedgerBuilder(ledger, commits)
        experiment = builder.open("imported")
        experiment.metric = 0.5
        ledger.update_experiment(experiment, "metric")
    found = read_series(tmp_path / "project")[0]
    assert (found.experiments[0].metric, found.experiments[0].trials, found.levels) == (0.5, (), [])
    assert json.dumps(found.summary.experiments.run) == "1"
