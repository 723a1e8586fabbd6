"""Where a campaign goes: each target asked for, through its own library, in words what came of it."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from autoresearch.config import masked
from autoresearch.errors import MachineError
from autoresearch.report.export.extract import Extract, read_extracts
from autoresearch.report.export.files import write_csv, write_parquet
from autoresearch.report.export.tables import (
    EXPERIMENT_COLUMNS,
    TRIAL_COLUMNS,
    experiment_rows,
    trial_rows,
    trials_path,
)
from autoresearch.report.export.to_mlflow import write_mlflow
from autoresearch.report.export.to_tensorboard import write_tensorboard
from autoresearch.report.export.to_wandb import write_wandb

# The package to import, and what installs it.
_PACKAGES = {
    "parquet": ("pyarrow", "pyarrow"),
    "mlflow": ("mlflow", "mlflow-skinny"),
    "tensorboard": ("tensorboard", "tensorboard"),
    "wandb": ("wandb", "wandb"),
}


@dataclass(frozen=True, kw_only=True)
class Targets:
    """What was asked for; None where it was not."""

    csv: Path | None = None
    parquet: Path | None = None
    mlflow: str | None = None
    tensorboard: Path | None = None
    wandb: Path | None = None

    @property
    def any(self) -> bool:
        return any(value is not None for value in vars(self).values())


def export(project: Path, targets: Targets, *, tag: str | None = None, all_tags: bool = False) -> list[str]:
    """Write the campaign (or all) to each target and return a sentence for each.

    ``MachineError`` if a target's package is missing, before anything is written. The same export again leaves
    the same behind, with nothing twice.
    """
    for name, (module, package) in _PACKAGES.items():
        if getattr(targets, name) is not None and importlib.util.find_spec(module) is None:
            raise MachineError(
                f"--{name} needs the package {package}, which is not installed.",
                hint=f"pip install {package}; with uv: uv run --with {package} in front of the script",
                code="no_package",
            )
    extracts = read_extracts(project, tag=tag, all_tags=all_tags)
    told = _write_tables(targets, extracts)
    for extract in extracts:
        told += _write_trackers(targets, extract)
    return told


def _write_tables(targets: Targets, extracts: Sequence[Extract]) -> list[str]:
    told = []
    for given, write in ((targets.csv, write_csv), (targets.parquet, write_parquet)):
        if given is None:
            continue
        path = given.expanduser()
        experiments, trials = experiment_rows(extracts), trial_rows(extracts)
        write(path, EXPERIMENT_COLUMNS, experiments)
        write(trials_path(path), TRIAL_COLUMNS, trials)
        told.append(f"{path}: {len(experiments)} experiments; {trials_path(path)}: {len(trials)} trials")
    return told


def _write_trackers(targets: Targets, extract: Extract) -> list[str]:
    told = []
    if targets.mlflow is not None:
        written = write_mlflow(extract, targets.mlflow)
        place = masked(targets.mlflow) if re.match(r"\w[\w+.-]+://", targets.mlflow) else targets.mlflow
        told.append(
            f"MLflow at {place}, experiment {extract.name}: {written.added} runs added, {written.replaced} replaced, "
            f"{written.unchanged} unchanged"
        )
    if targets.tensorboard is not None:
        count = write_tensorboard(extract, targets.tensorboard.expanduser())
        told.append(f"{count} experiments for: tensorboard --logdir {targets.tensorboard}")
    if targets.wandb is not None:
        count = write_wandb(extract, targets.wandb.expanduser())
        total = len(extract.experiments)
        upload = f"wandb sync {targets.wandb}/wandb/offline-run-*"
        told.append(f"{total} experiments, {count} of them written now; to upload: {upload}")
    return told
