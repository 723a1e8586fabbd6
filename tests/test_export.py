"""Exports, each read back with the library that it is for."""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import ROOT, RunScript
from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.ledger import Ledger, Status
from autoresearch.repo import Repo
from autoresearch.report.export import Targets, export
from autoresearch.report.export.tables import EXPERIMENT_COLUMNS, TRIAL_COLUMNS
from autoresearch.trial import Outcome

DESCRIPTIONS = (
    "=HYPERLINK(\"http://x\",\"y\")",
    "+1 layer",
    "-dropout",
    "@home, with \"quotes\", commas",
    "tab\there\nand a second line",
    "自主研究 <script>alert(1)</script>",
    "x" * 2000,
)  # fmt: skip
METRIC = "val_bpb"


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A baseline, one idea for each description, a crash, and an open experiment."""
    folder = tmp_path_factory.mktemp("export") / "gpt"
    commits = make_repository(folder)
    with Ledger(Repo(folder).state_dir, create=True) as ledger:
        builder = LedgerBuilder(ledger, commits, project=folder, curve_points=20)
        builder.baseline([1.0, 1.002, 0.998])
        for number, description in enumerate(DESCRIPTIONS):
            kept = number % 3 == 0
            builder.idea(
                description, [1.0 - 0.03 * (number + 1) if kept else 1.1], family="optimizer",
                status=None if kept else Status.DISCARD,
            )  # fmt: skip
        builder.crash("too wide", Outcome.CRASHED, "oom_gpu")
        builder.trial(builder.open("under way"), 1)
    return folder


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever still wanted to speak to a server would have to go through a proxy that is not there."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
        monkeypatch.setenv(name.lower(), "http://127.0.0.1:9")


def experiments(project: Path) -> list[Any]:
    with Ledger(Repo(project).state_dir) as ledger:
        return ledger.experiments("apr5")


def trials(project: Path) -> list[Any]:
    with Ledger(Repo(project).state_dir) as ledger:
        return ledger.trials("apr5")


# --- tables ------------------------------------------------------------------------------------


def test_csv_holds_every_experiment_and_trial(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "out.csv"
    export(project, Targets(csv=path))
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(EXPERIMENT_COLUMNS)
    for row, experiment in zip(rows, experiments(project), strict=True):
        assert int(row["number"]) == experiment.number
        assert row["commit"] == experiment.commit
        assert (float(row["metric"]) if row["metric"] else None) == experiment.metric
        assert row["status"] == (experiment.status or "open")
        gain = experiment.judgement.get("gain")
        assert (float(row["gain"]) if row["gain"] else None) == gain
    with (tmp_path / "new folder" / "out.trials.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == list(TRIAL_COLUMNS)
    assert [row["trial"] for row in rows] == [trial.id for trial in trials(project)]
    assert len(json.loads(rows[0]["curve"])) == 20
    assert (rows[-1]["outcome"], rows[-1]["metric"]) == ("running", "")
    assert sorted(path.parent.iterdir()) == [path, path.parent / "out.trials.csv"]


def test_descriptions_survive_csv_and_no_cell_is_a_formula(project: Path, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    export(project, Targets(csv=path))
    with path.open(encoding="utf-8", newline="") as file:
        cells = [row["description"] for row in csv.DictReader(file)]
    assert cells[1 : 1 + len(DESCRIPTIONS)] == [
        f"'{text}" if text[0] in "=+-@" else text for text in DESCRIPTIONS
    ]  # fmt: skip
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            assert not any(cell.startswith(("=", "+", "@")) for cell in row)


def test_csv_reads_as_numbers_in_pandas(project: Path, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    path = tmp_path / "out.csv"
    export(project, Targets(csv=path))
    frame = pandas.read_csv(path)
    assert frame["metric"].dtype == "float64"
    assert frame["number"].tolist() == [each.number for each in experiments(project)]
    assert frame["metric"].isna().sum() == 2, "the crash and the open one"


def test_parquet_equals_the_csv_and_keeps_types(project: Path, tmp_path: Path) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    export(project, Targets(parquet=tmp_path / "out.parquet"))
    table = pq.read_table(tmp_path / "out.parquet")
    assert [str(field.type) for field in table.schema][:4] == ["string", "int64", "int64", "string"]
    rows = table.to_pylist()
    assert [row["description"] for row in rows] == [each.description for each in experiments(project)]
    assert [row["metric"] for row in rows] == [each.metric for each in experiments(project)]
    assert str(table.schema.field("incumbent").type) == "int64"
    assert pq.read_table(tmp_path / "out.trials.parquet").num_rows == len(trials(project))


def test_all_tags_go_into_one_table(tmp_path: Path) -> None:
    commits = make_repository(tmp_path / "project")
    with Ledger(Repo(tmp_path / "project").state_dir, create=True) as ledger:
        for tag in ("apr5", "apr6"):
            LedgerBuilder(ledger, commits, tag=tag).baseline([1.0, 1.1])
    export(tmp_path / "project", Targets(csv=tmp_path / "out.csv"), all_tags=True)
    with (tmp_path / "out.csv").open(encoding="utf-8", newline="") as file:
        assert [row["tag"] for row in csv.DictReader(file)] == ["apr5", "apr6"]


def test_empty_campaign_gives_headers(tmp_path: Path) -> None:
    commits = make_repository(tmp_path / "project")
    with Ledger(Repo(tmp_path / "project").state_dir, create=True) as ledger:
        LedgerBuilder(ledger, commits)
    export(tmp_path / "project", Targets(csv=tmp_path / "out.csv"))
    assert (tmp_path / "out.csv").read_text(encoding="utf-8") == ",".join(EXPERIMENT_COLUMNS) + "\n"


def test_script_tells_what_it_wrote(project: Path, tmp_path: Path, run_script: RunScript) -> None:
    done = run_script("summarize", "--csv", tmp_path / "out.csv", "--json", cwd=project)
    (told,) = json.loads(done.stdout)["data"]["exported"]
    assert told.startswith(f"{tmp_path / 'out.csv'}: {len(experiments(project))} experiments")


@pytest.mark.parametrize("place", ["/proc/out.csv", "file/out.csv", "folder", "/proc/none/out.csv"])
def test_file_that_cannot_be_written(project: Path, tmp_path: Path, run_script: RunScript, place: str) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    done = run_script("summarize", "--csv", tmp_path / place, "--json", cwd=project)
    error = json.loads(done.stdout)["error"]
    assert (done.returncode, error["code"]) == (2, "usage"), done.stderr
    assert str(tmp_path / place) in error["message"]


@pytest.mark.parametrize(("flag", "module"), [("--parquet", "pyarrow"), ("--mlflow", "mlflow"),
                                              ("--tensorboard", "tensorboard"), ("--wandb", "wandb")])  # fmt: skip
def test_missing_package_is_named_before_anything_is_written(
    project: Path, tmp_path: Path, flag: str, module: str
) -> None:
    code = (
        "import runpy, sys, importlib.util as u\n"
        f"real = u.find_spec; u.find_spec = lambda name, *a: None if name == '{module}' else real(name, *a)\n"
        f"sys.argv = ['summarize.py', '--csv', 'out.csv', '{flag}', 'x', '--json', '--project', {str(project)!r}]\n"
        f"runpy.run_path({str(ROOT / 'scripts' / 'summarize.py')!r}, run_name='__main__')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )  # fmt: skip
    assert done.returncode == 5
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "no_package"
    assert "pip install" in error["hint"]
    assert list(tmp_path.iterdir()) == []


# --- trackers ----------------------------------------------------------------------------------


@pytest.fixture
def mlflow_client(tmp_path: Path) -> Iterator[Any]:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
    from mlflow.tracking import MlflowClient

    yield MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'ml' / 'mlflow.db'}")


def mlflow_runs(client: Any) -> dict[str, Any]:
    experiment = client.get_experiment_by_name("gpt/apr5")
    runs = client.search_runs([experiment.experiment_id])
    return {run.data.tags["autoresearch.number"]: run for run in runs}


def test_mlflow_has_a_run_with_curves_for_each_experiment(project: Path, tmp_path: Path, mlflow_client: Any) -> None:
    export(project, Targets(mlflow=str(tmp_path / "ml")))
    runs = mlflow_runs(mlflow_client)
    assert len(runs) == len(experiments(project))
    for experiment in experiments(project):
        run = runs[str(experiment.number)]
        assert run.data.metrics.get(METRIC) == experiment.metric
        assert run.data.tags["mlflow.source.git.commit"] == experiment.commit
        assert run.data.tags["autoresearch.status"] == (experiment.status or "open")
        assert run.data.tags["mlflow.note.content"] == experiment.description
    history = mlflow_client.get_metric_history(runs["0"].info.run_id, "loss.seed1")
    assert [(point.step, point.value) for point in history] == [(50 * at, 3.0 - at / 20) for at in range(20)]
    values = mlflow_client.get_metric_history(runs["0"].info.run_id, f"trial.{METRIC}")
    assert [point.value for point in values] == [1.0, 1.002, 0.998]
    assert runs["1"].data.params["family"] == "optimizer"
    statuses = {number: run.info.status for number, run in runs.items()}
    last = len(runs) - 1
    assert (statuses["1"], statuses[str(last - 1)], statuses[str(last)]) == ("FINISHED", "FAILED", "RUNNING")


def test_mlflow_export_again_adds_nothing_and_replaces_what_changed(tmp_path: Path, mlflow_client: Any) -> None:
    commits = make_repository(tmp_path / "gpt")
    with Ledger(Repo(tmp_path / "gpt").state_dir, create=True) as ledger:
        builder = LedgerBuilder(ledger, commits, project=tmp_path / "gpt")
        builder.baseline([1.0, 1.002])
        builder.idea("better", [0.9])
        target = Targets(mlflow=str(tmp_path / "ml"))
        assert "2 runs added" in export(tmp_path / "gpt", target)[0]
        assert "0 runs added, 0 replaced, 2 unchanged" in export(tmp_path / "gpt", target)[0]
        builder.undo(1, "no gain after all")
        assert "0 runs added, 1 replaced, 1 unchanged" in export(tmp_path / "gpt", target)[0]
    runs = mlflow_runs(mlflow_client)
    assert len(runs) == 2
    assert runs["1"].data.tags["autoresearch.undone"] == "no gain after all"


def test_mlflow_export_that_was_killed_is_completed(project: Path, tmp_path: Path, mlflow_client: Any) -> None:
    export(project, Targets(mlflow=str(tmp_path / "ml")))
    with sqlite3.connect(tmp_path / "ml" / "mlflow.db") as database:
        database.execute("DELETE FROM tags WHERE key = 'autoresearch.content' AND run_uuid IN "
                         "(SELECT run_uuid FROM runs LIMIT 1)")  # fmt: skip
    assert "0 runs added, 1 replaced" in export(project, Targets(mlflow=str(tmp_path / "ml")))[0]
    assert len(mlflow_runs(mlflow_client)) == len(experiments(project))


def test_mlflow_server_that_is_not_there_is_a_clear_error_without_its_password(
    project: Path, tmp_path: Path, run_script: RunScript, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="the extra `mlflow` is not installed")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    done = run_script("summarize", "--mlflow", "http://me:hunter2@127.0.0.1:9", "--json", cwd=project)
    assert done.returncode == 5
    assert "MLflow failed" in json.loads(done.stdout)["error"]["message"]
    assert "hunter2" not in done.stdout


def test_tensorboard_shows_curves_progress_and_settings(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="the extra `tensorboard` is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    for _ in range(2):
        export(project, Targets(tensorboard=tmp_path / "tb"))
    place = tmp_path / "tb" / "gpt" / "apr5"
    for experiment in experiments(project):
        folder = place / f"{experiment.number:04d}"
        assert len(list(folder.iterdir())) == 1, "the second export replaces the first"
        run = EventAccumulator(str(folder))
        run.Reload()
        if experiment.metric is not None:
            (value,) = run.Scalars(METRIC)
            assert value.value == pytest.approx(experiment.metric)
            assert len(run.Scalars("loss/seed1")) == 20
        text = run.Tensors("experiment")[0].tensor_proto.string_val[0].decode()
        assert experiment.description.splitlines()[0] in text
        data = run.SummaryMetadata("_hparams_/session_start_info").plugin_data.content
        start = plugin_data_pb2.HParamsPluginData.FromString(data).session_start_info
        assert start.hparams["status"].string_value == (experiment.status or "open")
    progress = EventAccumulator(str(place / "progress"))
    progress.Reload()
    incumbents = [point.value for point in progress.Scalars(f"{METRIC}/incumbent")]
    assert incumbents == sorted(incumbents, reverse=True)


def wandb_records(file: Path) -> Iterator[bytes]:
    """The records of a run's file: LevelDB's log format behind a header of seven bytes."""
    data, at, record = file.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # a block's end is too short for a header
            at += 32768 - at % 32768
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        record += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield record
            record = b""


def test_wandb_writes_offline_runs_that_a_second_export_replaces(project: Path, tmp_path: Path) -> None:
    pytest.importorskip("wandb", reason="the extra `wandb` is not installed")
    from wandb.proto import wandb_internal_pb2

    parse = wandb_internal_pb2.Record.FromString  # type: ignore[attr-defined]  # it is made at run time
    total = len(experiments(project))
    assert f"{total} of them written" in export(project, Targets(wandb=tmp_path / "wb"))[0]
    assert ", 0 of them written" in export(project, Targets(wandb=tmp_path / "wb"))[0]
    next((tmp_path / "wb" / "wandb").glob("offline-run-*/autoresearch-content")).unlink()  # as if killed
    assert ", 1 of them written" in export(project, Targets(wandb=tmp_path / "wb"))[0]
    files = list((tmp_path / "wb" / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == len(experiments(project))
    names, losses, metrics = set(), 0, set()
    for record in map(parse, (data for file in files for data in wandb_records(file))):
        if record.HasField("run"):
            names.add(record.run.display_name)
        losses += sum("loss/seed1" in (item.key, *item.nested_key) for item in record.history.item)
        metrics |= {
            float(item.value_json) for item in record.summary.update if METRIC in (item.key, *item.nested_key)
        }  # fmt: skip
    assert len(names) == len(files)
    assert "#0 baseline" in names
    assert metrics == {each.metric for each in experiments(project) if each.metric is not None}
    assert losses == 20 * sum(trial.seed == 1 and trial.result is not None for trial in trials(project))
