"""Two tables of a campaign: one row for each experiment, and one for each trial."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoresearch.ledger import DECIDING, Experiment, Trial, completed
from autoresearch.report.export.extract import Extract

Row = dict[str, Any]
# Columns and the type of their values, each of which may be None as well.
EXPERIMENT_COLUMNS: dict[str, type] = {
    "tag": str, "number": int, "epoch": int, "description": str, "family": str, "status": str, "verdict": str,
    "metric_name": str, "direction": str, "metric": float, "gain": float, "gain_low": float, "gain_high": float,
    "z": float, "incumbent": int, "seeds": int, "trials": int, "duration_s": float, "peak_mem_mib": float,
    "lines_added": int, "lines_deleted": int, "attempt": int, "commit": str, "parent": str, "reason": str,
    "undone": str, "note": str, "arguments": str, "environment": str, "created_at": str, "decided_at": str,
}  # fmt: skip
TRIAL_COLUMNS: dict[str, type] = {
    "tag": str, "number": int, "attempt": int, "trial": str, "purpose": str, "seed": int, "outcome": str,
    "cause": str, "reason": str, "metric": float, "duration_s": float, "peak_mem_mib": float,
    "peak_mem_source": str, "exit_code": int, "signal": int, "commit": str, "command": str, "host": str,
    "device": str, "driver": str, "log_sha256": str, "log_bytes": int, "started_at": str, "ended_at": str,
    "watched": str, "curve": str,
}  # fmt: skip


def experiment_rows(extracts: Sequence[Extract]) -> list[Row]:
    return [_experiment(extract, each) for extract in extracts for each in extract.experiments]


def trial_rows(extracts: Sequence[Extract]) -> list[Row]:
    return [
        _trial(trial) for extract in extracts for each in extract.experiments for trial in extract.trials[each.number]
    ]


def trials_path(path: Path) -> Path:
    """``out.trials.csv`` beside ``out.csv``."""
    return path.with_name(f"{path.stem}.trials{path.suffix}")


def _experiment(extract: Extract, experiment: Experiment) -> Row:
    trials = extract.trials[experiment.number]
    seeds = completed([trial for trial in trials if trial.purpose in DECIDING and trial.attempt == experiment.attempt])
    figures = extract.figures(experiment)
    return {
        **{name: getattr(experiment, name, None) for name in EXPERIMENT_COLUMNS},
        "status": experiment.status or "open",
        "metric_name": extract.metric,
        "direction": extract.campaign.config["metric"]["direction"],
        **{name: figures.get(name) for name in ("gain", "gain_low", "gain_high", "z")},
        "seeds": len(seeds),
        "trials": len(trials),
        "duration_s": figures["duration_s"],
        "arguments": _json(experiment.options.get("arguments")),
        "environment": _json(experiment.options.get("environment")),
    }


def _trial(trial: Trial) -> Row:
    result = trial.result
    row: Row = {name: getattr(result, name, None) for name in TRIAL_COLUMNS}
    return row | {
        "tag": trial.tag,
        "number": trial.number,
        "attempt": trial.attempt,
        "trial": trial.id,
        "purpose": str(trial.purpose),
        "seed": trial.seed,
        "commit": trial.commit,
        "command": trial.command,
        "outcome": "running" if result is None else str(result.outcome),
        "watched": None if result is None else _json(result.watched),
        "curve": None if result is None else _json(result.curve),
    }


def _json(value: Any) -> str | None:
    """JSON in one cell, None for what is empty."""
    return json.dumps(value, ensure_ascii=False) if value else None
