"""Each experiment as an offline W&B run, which ``wandb sync`` uploads when a person wants that."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoresearch.errors import MachineError
from autoresearch.ledger import Experiment
from autoresearch.report.export.extract import Extract, digest_of

MARK = "autoresearch-content"
# Offline, silent, and without looking at the machine that exports: it is not the one that trained.
_ENVIRONMENT = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "WANDB_ERROR_REPORTING": "false"}


def write_wandb(extract: Extract, folder: Path) -> int:
    """Write ``folder/wandb/offline-run-…`` for each experiment and return how many were written.

    A run that has not changed since an earlier export stays, another is replaced. Each keeps its id, so that a
    second upload adds nothing.
    """
    os.environ.update(_ENVIRONMENT)
    import wandb

    folder.mkdir(parents=True, exist_ok=True)
    try:
        return sum(_bring(extract, experiment, folder) for experiment in extract.experiments)
    except wandb.errors.Error as error:
        raise MachineError(f"wandb failed: {str(error).splitlines()[0][:300]}", hint="pip install -U wandb") from None
    finally:
        wandb.teardown()  # ends the process that it writes through


def _bring(extract: Extract, experiment: Experiment, folder: Path) -> bool:
    """Make the run of ``experiment`` what it should be; whether it had to be written."""
    key = extract.key(experiment)
    curves: dict[int, dict[str, float]] = {}
    for name, curve in extract.curves(experiment).items():
        for step, loss in curve:
            curves.setdefault(step, {})[f"loss/{name}"] = loss
    content = {
        "config": {**extract.settings(experiment), **extract.labels(experiment)},
        "curves": sorted(curves.items()),
        "summary": extract.figures(experiment),
        "description": experiment.description,
    }
    digest = digest_of(content)
    there = list(folder.glob(f"wandb/offline-run-*-{key}"))
    if [_written(run) for run in there] == [digest]:
        return False
    for old in there:
        shutil.rmtree(old)
    _write(extract, experiment, content, folder)
    (run,) = folder.glob(f"wandb/offline-run-*-{key}")
    (run / MARK).write_text(digest, encoding="ascii")  # last: a run without it was not written to its end
    return True


def _written(run: Path) -> str:
    mark = run / MARK
    return mark.read_text(encoding="ascii") if mark.exists() else ""


def _write(extract: Extract, experiment: Experiment, content: Mapping[str, Any], folder: Path) -> None:
    import wandb

    quiet = wandb.Settings(
        console="off", disable_git=True, disable_code=True, save_code=False, silent=True,
        x_disable_stats=True, x_disable_meta=True, x_save_requirements=False,
    )  # fmt: skip
    run = wandb.init(
        dir=folder, project=extract.name.replace("/", "-"), id=extract.key(experiment), mode="offline",
        name=extract.title(experiment), notes=experiment.description, tags=[content["config"]["status"]],
        config=dict(content["config"]), reinit="finish_previous", settings=quiet,
    )  # fmt: skip
    for step, losses in content["curves"]:
        run.log(losses, step=step)
    run.summary.update(content["summary"])
    run.finish()
