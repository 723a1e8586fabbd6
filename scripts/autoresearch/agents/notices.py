"""Tell the human what only a human can do, or what a night has come to."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from autoresearch.agents.night import Options
from autoresearch.campaign.opened import open_ledger
from autoresearch.errors import AutoresearchError
from autoresearch.notify import Kind, notify


def send_notice(options: Options, kind: Kind, what: str, body: str) -> bool:
    """Send over the campaign's channels; False if it has none, or is not set up yet. Never raises, never waits."""
    try:
        with open_ledger(Path(options.project)) as (repo, ledger):
            campaign = ledger.campaign(options.tag)
            if campaign is None:
                return False
            channels, folder = campaign.config.get("notify", []), repo.state_dir / options.tag
    except (AutoresearchError, OSError, sqlite3.Error):
        return False
    return notify(channels, folder, kind, f"autoresearch {options.tag} {what}", body)
