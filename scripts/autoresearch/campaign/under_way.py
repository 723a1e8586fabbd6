"""What is open right now: every experiment that is not decided, every trial under way, and how far each has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from autoresearch.campaign.decide import would_be_kept
from autoresearch.campaign.rebase import awaited
from autoresearch.executors.base import read_json
from autoresearch.ledger import DECIDING, Experiment, Ledger, State, Trial
from autoresearch.trial import LIVE_FILE, LOG_FILE, RESULT_FILE, STARTED_FILE, WAITS_FOR


def describe_running(trial: Trial, budget_s: float) -> dict[str, Any]:
    """The trial under way, with what its runner last said of it."""
    folder = Path(trial.directory)
    live = read_json(folder / LIVE_FILE)
    waits_for = str(live.get(WAITS_FOR, ""))
    began = read_json(folder / STARTED_FILE).get("started_at", trial.created_at)
    elapsed_s = 0.0 if waits_for else time.time() - datetime.fromisoformat(began).timestamp()
    return {
        "id": trial.id,
        "number": trial.number,
        "seed": trial.seed,
        "purpose": trial.purpose.value,
        "waits_for": waits_for,
        "elapsed_s": round(max(0.0, elapsed_s), 1),
        "budget_s": budget_s,
        "fraction": live.get("fraction"),
        "loss": live.get("loss"),
        "memory_mib": live.get("memory_mib"),
        "ended": (folder / RESULT_FILE).exists(),  # and not taken in yet
        "log": str(folder / LOG_FILE),
    }


def describe_trials(
    ledger: Ledger, tag: str, opened: Sequence[Experiment], trials: Sequence[Trial], budget_s: float
) -> list[dict[str, Any]]:
    """Every trial under way, with the description of its experiment, which a re-test's is not among ``opened``."""
    known = {each.number: each.description for each in opened}
    for number in {trial.number for trial in trials} - known.keys():
        found = ledger.experiment(tag, number)
        known[number] = "" if found is None else found.description
    return [{**describe_running(trial, budget_s), "description": known[trial.number]} for trial in trials]


def standing(experiment: Experiment, opened: Sequence[Experiment], trials: Sequence[Trial]) -> str:
    """What an open experiment is at, or waits for; ``trials`` are those under way."""
    base = awaited(experiment, opened)
    if experiment.state is State.JUDGED:
        first = opened[0]
        blocked = experiment is not first and would_be_kept(experiment)
        return f"{experiment.verdict}, kept once experiment {first.number} is decided" if blocked else "to be logged"
    if any(trial.number == experiment.number and trial.purpose in DECIDING for trial in trials):
        return "running"
    if base is not None:
        return f"waits for experiment {base.number}, which it is built on"
    return "waits for a slot"
