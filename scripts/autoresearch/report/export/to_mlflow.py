"""Each experiment as an MLflow run: settings as parameters, numbers and curves as metrics, words as tags."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.errors import MachineError
from autoresearch.ledger import Experiment, Status
from autoresearch.report.export.extract import Extract, digest_of, timestamp

if TYPE_CHECKING:
    from mlflow.tracking import MlflowClient

DATABASE = "mlflow.db"
METRICS_AT_ONCE = 1000  # what the protocol allows in one request
TEXT_LENGTH = 5000  # of a tag; parameters may have 6000
KEY_TAG = "autoresearch.key"
CONTENT_TAG = "autoresearch.content"  # set last: a run without it was not written to its end
STATUSES = {Status.KEEP: "FINISHED", Status.DISCARD: "FINISHED", Status.CRASH: "FAILED", None: "RUNNING"}


@dataclass(frozen=True, kw_only=True)
class Written:
    """Runs that were added, replaced because they had changed, and left as they were."""

    added: int = 0
    replaced: int = 0
    unchanged: int = 0


def write_mlflow(extract: Extract, target: str) -> Written:
    """Bring the runs at ``target`` up to date: a server's address, a database's, or a folder.

    A folder gets a database ``mlflow.db``, since MLflow has given its file store up. Nothing is ever there twice.
    """
    os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # else it reports to its makers
    os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")  # how it makes its tables is not our result
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    try:
        client = MlflowClient(tracking_uri=tracking_uri(target))
        place = _experiment(client, extract.name)
        there = _runs(client, place)
        count = dict.fromkeys(("added", "replaced", "unchanged"), 0)
        for experiment in extract.experiments:
            count[_bring(client, place, extract, experiment, there.get(extract.key(experiment), []))] += 1
        return Written(**count)
    except MlflowException as error:
        reason = re.sub(r"//[^/\s@]*@", "//…@", str(error).splitlines()[0])  # a password in the address
        raise MachineError(
            f"MLflow failed: {reason[:300]}", hint="Is the server there, and the address right?"
        ) from None


def tracking_uri(target: str) -> str:
    """``target`` as MLflow wants it: a folder becomes a database in it."""
    if re.match(r"[a-z][\w+.-]+:", target) and not target.startswith("file:"):
        return target
    folder = Path(target.removeprefix("file://").removeprefix("file:")).expanduser().resolve()
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / DATABASE}"


def _experiment(client: MlflowClient, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id) if found is not None else str(client.create_experiment(name))


def _runs(client: MlflowClient, place: str) -> dict[str, list[Any]]:
    """The runs of earlier exports, by key."""
    runs: dict[str, list[Any]] = {}
    token = None
    while True:
        page = client.search_runs([place], max_results=1000, page_token=token)
        for run in page:
            runs.setdefault(run.data.tags.get(KEY_TAG, ""), []).append(run)
        token = page.token
        if not token:
            return runs


def _bring(client: MlflowClient, place: str, extract: Extract, experiment: Experiment, there: list[Any]) -> str:
    """Make the run of ``experiment`` what it should be; says what that took."""
    content = _content(extract, experiment)
    digest = digest_of(content)
    if [run.data.tags.get(CONTENT_TAG) for run in there] == [digest]:
        return "unchanged"
    for run in there:
        client.delete_run(run.info.run_id)
    _write(client, place, content, key=extract.key(experiment), digest=digest)
    return "replaced" if there else "added"


def _content(extract: Extract, experiment: Experiment) -> dict[str, Any]:
    labels = {f"autoresearch.{name}": text for name, text in extract.labels(experiment).items() if text}
    curves = extract.curves(experiment)
    values = [trial.metric for trial in extract.trials[experiment.number] if trial.metric is not None]
    metrics = [(name, value, 0) for name, value in extract.figures(experiment).items()]
    metrics += [(f"trial.{extract.metric}", value, step) for step, value in enumerate(values)]
    metrics += [(f"loss.{name}", loss, step) for name, curve in curves.items() for step, loss in curve]
    return {
        "name": extract.title(experiment),
        "start": timestamp(experiment.created_at),
        "end": timestamp(experiment.decided_at),
        "status": STATUSES[experiment.status],
        "params": {_name(name): text[:TEXT_LENGTH] for name, text in extract.settings(experiment).items() if text},
        "metrics": [(_name(name), value, step) for name, value, step in metrics],
        "tags": {
            **{name: text[:TEXT_LENGTH] for name, text in labels.items()},
            "mlflow.source.git.commit": experiment.commit,
            "mlflow.note.content": experiment.description[:TEXT_LENGTH],
        },
    }


def _write(client: MlflowClient, place: str, content: dict[str, Any], *, key: str, digest: str) -> None:
    from mlflow.entities import Metric, Param, RunTag

    at = round(1000 * (content["start"] or 0))
    run = client.create_run(place, start_time=at, run_name=content["name"], tags={KEY_TAG: key, **content["tags"]})
    if content["end"] is None:
        client.update_run(run.info.run_id, status=content["status"])
    else:
        client.set_terminated(run.info.run_id, status=content["status"], end_time=round(1000 * content["end"]))
    metrics = [Metric(name, value, at, step) for name, value, step in content["metrics"]]
    params = [Param(name, text) for name, text in content["params"].items()]
    *first, last = _batches(metrics)
    for batch in first:
        client.log_batch(run.info.run_id, metrics=batch)
    client.log_batch(run.info.run_id, metrics=last, params=params, tags=[RunTag(CONTENT_TAG, digest)])


def _batches(metrics: list[Any]) -> Iterator[list[Any]]:
    """What may be sent in one request each; an experiment has always its number of trials at least."""
    for start in range(0, len(metrics), METRICS_AT_ONCE):
        yield metrics[start : start + METRICS_AT_ONCE]


def _name(name: str) -> str:
    """``name`` in the characters that MLflow takes."""
    return re.sub(r"[^\w\-. :/]", "_", name)[:250]
