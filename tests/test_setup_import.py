from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from tests.conftest import RunScript
from tests.setup_bench import PLAIN, Bench, make_bench

from autoresearch.campaign.importing import parse_import
from autoresearch.campaign.opened import open_campaign
from autoresearch.campaign.progress import repair
from autoresearch.campaign.settle import incumbent_commit, recorded_tip
from autoresearch.errors import UsageError
from autoresearch.ledger import Status

HEADER = "commit\tval_loss\tmemory_gb\tstatus\tdescription\n"


class Run(NamedTuple):
    """An earlier run on its own branch: baseline, one keep, one crash, one discard, one keep."""

    bench: Bench
    table: str
    kept: tuple[str, str, str]
    discarded: str


@pytest.fixture
def run(tmp_path: Path, run_script: RunScript) -> Run:
    bench = make_bench(tmp_path / "project", run_script, {**PLAIN, ".gitignore": "results.tsv\n"})
    baseline = bench.git("rev-parse", "HEAD")
    bench.git("switch", "-q", "-c", "autoresearch/mar5")
    first = bench.commit({"train.py": 'print(f"val_loss: {0.4}")\n'}, "lower")
    discarded = bench.commit({"train.py": 'print(f"val_loss: {0.6}")\n'}, "higher")
    bench.git("reset", "-q", "--hard", first)
    second = bench.commit({"train.py": 'print(f"val_loss: {0.3}")\n'}, "lower still")
    table = HEADER + (
        f"{baseline[:7]}\t0.500000\t44.0\tkeep\tbaseline\n"
        f"{first[:7]}\t0.400000\t44.2\tkeep\tlower\n"
        "d4e5f6g\t0.000000\t0.0\tcrash\tdouble width (OOM)\n"
        f"{discarded[:7]}\t0.600000\t44.0\tdiscard\thigher\n"
        f"{second[:7]}\t0.300000\t45.5\tkeep\tlower still\n"
    )
    bench.write({"results.tsv": table})
    return Run(bench=bench, table=table, kept=(baseline, first, second), discarded=discarded)


def test_run_is_adopted_with_its_branch(run: Run) -> None:
    data = run.bench.setup("--import", "results.tsv")
    assert data["tag"] == "mar5"
    assert run.bench.git("branch", "--show-current") == "autoresearch/mar5"
    assert run.bench.git("rev-parse", "HEAD^") == run.kept[2]
    assert run.bench.status() == ""
    rows = run.bench.experiments("mar5")
    assert [(row.number, row.status, row.metric, row.incumbent) for row in rows] == [
        (0, Status.KEEP, 0.5, None),
        (1, Status.KEEP, 0.4, 0),
        (2, Status.CRASH, None, 1),
        (3, Status.DISCARD, 0.6, 1),
        (4, Status.KEEP, 0.3, 1),
    ]
    assert [row.commit for row in rows] == [*run.kept[:2], "d4e5f6g", run.discarded, run.kept[2]]
    assert rows[1].parent == run.kept[0]
    assert rows[1].tree == run.bench.git("rev-parse", f"{run.kept[1]}^{{tree}}")
    assert (rows[0].peak_mem_mib, rows[2].peak_mem_mib) == (44 * 1024, None)
    assert "not in this repository" in rows[2].note
    assert any("5 earlier experiments" in note and "fresh baseline" in note for note in data["notes"])
    assert any("1 of their commits" in note for note in data["notes"])


def test_rows_appear_again_to_the_letter(run: Run) -> None:
    run.bench.setup("--import", "results.tsv")
    assert (run.bench.folder / "results.tsv").read_text() == run.table


def test_next_is_a_baseline_of_the_code_as_it_is(run: Run) -> None:
    base = run.bench.setup("--import", "results.tsv")["base_commit"]
    with open_campaign(run.bench.folder) as oc:
        assert oc.campaign.epoch == 2
        assert oc.ledger.baseline(oc.tag, 2) is None
        assert oc.ledger.incumbent(oc.tag).commit == run.kept[2]  # type: ignore[union-attr]
        assert incumbent_commit(oc) == recorded_tip(oc) == base
        assert repair(oc) == []


def test_new_tag_leaves_the_old_branch_where_it_was(run: Run) -> None:
    data = run.bench.setup("--import", "results.tsv", "--tag", "apr5")
    assert data["branch"] == "autoresearch/apr5"
    assert run.bench.git("rev-parse", "autoresearch/mar5") == run.kept[2]
    assert len(run.bench.experiments("apr5")) == 5


def test_run_that_was_kept_on_the_main_branch(run: Run) -> None:
    run.bench.git("switch", "-q", "main")
    run.bench.git("merge", "-q", "--ff-only", "autoresearch/mar5")
    data = run.bench.setup("--import", "results.tsv")
    assert data["tag"] != "mar5"
    assert run.bench.git("rev-parse", "main") == run.kept[2]


def test_table_from_another_folder(run: Run, tmp_path: Path) -> None:
    (tmp_path / "old.tsv").write_text(run.table)
    run.bench.write({"results.tsv": "other\n"})
    run.bench.setup("--import", str(tmp_path / "old.tsv"))
    assert (run.bench.folder / "results.tsv").read_text() == run.table
    assert (run.bench.folder / "results.tsv.before-mar5").read_text() == "other\n"


def test_dry_run_of_an_import_writes_nothing(run: Run) -> None:
    before = run.bench.state()
    assert run.bench.setup("--import", "results.tsv", "--dry-run")["tag"] == "mar5"
    assert run.bench.state() == before


def test_commit_after_the_last_keep_is_told(run: Run) -> None:
    run.bench.commit({"train.py": 'print(f"val_loss: {0.2}")\n'}, "untried")
    notes = run.bench.setup("--import", "results.tsv")["notes"]
    assert any(f"not at the last kept commit {run.kept[2][:7]}" in note for note in notes)


def test_metric_of_the_table_is_the_campaigns(run: Run) -> None:
    run.bench.write({"results.tsv": run.table.replace("val_loss", "val_bpb")})
    config = run.bench.setup("--import", "results.tsv")["config"]
    assert (config["metric"]["name"], config["metric"]["direction"]) == ("val_bpb", "lower")


def test_only_the_first_row_is_the_baseline_also_if_it_crashed(run: Run) -> None:
    _, first, second, *_ = run.table.splitlines()
    crashed = first.replace("0.500000\t44.0\tkeep", "0.000000\t0.0\tcrash")
    run.bench.write({"results.tsv": f"\ufeff{HEADER}{crashed}\n{second}\n"})
    run.bench.setup("--import", "results.tsv")
    assert [row.incumbent for row in run.bench.experiments("mar5")] == [None, 0]


# --- what cannot be imported ---------------------------------------------------------------------------


def test_branch_without_the_kept_commits_is_refused(run: Run) -> None:
    run.bench.git("switch", "-q", "--orphan", "other")
    run.bench.commit(PLAIN)
    before = run.bench.state()
    error = run.bench.setup("--import", "results.tsv", expect=4)
    assert error["code"] == "import_other_branch"
    assert error["hint"].endswith(f"git branch --contains {run.kept[0][:7]}")
    assert run.bench.state() == before


def test_branch_of_the_tag_that_is_not_checked_out_is_refused(run: Run) -> None:
    run.bench.git("switch", "-q", "main")
    before = run.bench.state()
    error = run.bench.setup("--import", "results.tsv", "--tag", "mar5", expect=4)
    assert error["hint"].startswith("git switch autoresearch/mar5")
    assert run.bench.state() == before


def test_other_metric_than_the_tables_is_refused(run: Run) -> None:
    before = run.bench.state()
    error = run.bench.setup("--import", "results.tsv", "--metric", "accuracy", expect=2)
    assert "results.tsv holds val_loss" in error["message"]
    assert run.bench.state() == before


def test_campaign_that_the_ledger_knows_is_not_imported_again(run: Run) -> None:
    run.bench.setup("--import", "results.tsv")
    error = run.bench.setup("--import", "results.tsv", "--tag", "mar5", expect=4)
    assert error["code"] == "tag_taken"
    assert len(run.bench.experiments("mar5")) == 5


def test_table_that_is_not_there(run: Run) -> None:
    assert "no such file" in run.bench.setup("--import", "nope.tsv", expect=2)["message"]


def test_table_that_is_no_text(run: Run) -> None:
    (run.bench.folder / "results.tsv").write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8" in run.bench.setup("--import", "results.tsv", expect=2)["message"]


class Malformed(NamedTuple):
    id: str
    text: str
    line: int
    expected: str


MALFORMED = [
    Malformed("nothing", "", 1, "the header"),
    Malformed("commas", "commit,val_loss,memory_gb,status,description\n", 1, "the header"),
    Malformed("other header", HEADER.replace("status", "state"), 1, "the header"),
    Malformed("no row", HEADER, 2, "at least one row"),
    Malformed("four columns", f"{HEADER}a1b2c3d\t0.5\t1.0\tkeep\n", 2, "5 columns"),
    Malformed("no number", f"{HEADER}a1\t0.5\t1.0\tkeep\tx\na2\tabout 1\t1.0\tkeep\tx\n", 3, "numbers"),
    Malformed("no memory", f"{HEADER}a1b2c3d\t0.5\t-\tkeep\tx\n", 2, "numbers"),
    Malformed("other status", f"{HEADER}a1b2c3d\t0.5\t1.0\tkept\tx\n", 2, "keep, discard or crash"),
    Malformed("no commit", f"{HEADER}\t0.5\t1.0\tkeep\tx\n", 2, "a commit"),
    Malformed("keep without a number", f"{HEADER}a1b2c3d\tnan\t1.0\tkeep\tx\n", 2, "a finite number"),
]  # fmt: skip


@pytest.mark.parametrize("case", MALFORMED, ids=lambda case: case.id)
def test_malformed_line_is_named(case: Malformed) -> None:
    with pytest.raises(UsageError, match=rf"old\.tsv, line {case.line}: expected {case.expected}") as caught:
        parse_import(case.text, "old.tsv")
    assert caught.value.exit_code == 2


def test_malformed_line_changes_nothing(run: Run) -> None:
    run.bench.write({"results.tsv": run.table + "x\n"})
    before = run.bench.state()
    error = run.bench.setup("--import", "results.tsv", expect=2)
    assert "line 7" in error["message"]
    assert run.bench.state() == before


def test_habits_of_other_tools_are_tolerated() -> None:
    text = (
        "commit\tval_loss\tmemory_gb\tstatus\tdescription\tnotes\r\n"
        "a1b2c3d\t0.5\t1.0\tKEEP\tbase\tx\r\n"
        "\r\n"
        "b1b2c3d\tnan\t0.0\tCrash\tbroken\r\n"
        "c1b2c3d\t0.000000\t0.0\tdiscard\tpruned\ty\tz\r\n"
        "d1b2c3d\t0.000000\t3.0\tdiscard\tperfect\r\n"
    )
    found = parse_import(text, "old.tsv")
    assert found.metric == "val_loss"
    assert [(row.line, row.status.value, row.metric) for row in found.rows] == [
        (2, "keep", 0.5), (4, "crash", None), (5, "discard", None), (6, "discard", 0.0)
    ]  # fmt: skip
    assert [row.description for row in found.rows] == ["base", "broken", "pruned z", "perfect"]
