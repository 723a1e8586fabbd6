"""The durable record of campaigns, experiments and trials, in one SQLite file out of git's reach."""

from __future__ import annotations

from autoresearch.ledger.records import (
    DECIDING,
    Campaign,
    Event,
    Experiment,
    Idea,
    Purpose,
    ResultRow,
    State,
    Status,
    Trial,
    completed,
    now,
    shown_description,
)
from autoresearch.ledger.store import LEDGER_FILE, SCHEMA_VERSION, Ledger

__all__ = [
    "DECIDING",
    "LEDGER_FILE",
    "SCHEMA_VERSION",
    "Campaign",
    "Event",
    "Experiment",
    "Idea",
    "Ledger",
    "Purpose",
    "ResultRow",
    "State",
    "Status",
    "Trial",
    "completed",
    "now",
    "shown_description",
]
