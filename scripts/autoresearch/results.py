"""``results.tsv``: the ledger as karpathy's analysis notebook reads it; a view, never a source."""

from __future__ import annotations

import hashlib
import os
import shlex
import tempfile
from collections.abc import Iterable
from pathlib import Path

from autoresearch.errors import NeedsHumanError
from autoresearch.ledger import Campaign, Ledger, ResultRow, now
from autoresearch.output import one_line

MIB_PER_GB = 1024.0
_STALE = "!"  # before Campaign.view_sha256: the file is as we wrote it, but the ledger has moved on


def render_results(metric: str, rows: Iterable[ResultRow]) -> str:
    """The whole file: header, then one row per decided experiment.

    A missing metric is printed as ``0.000000`` and missing memory as ``0.0``, as the format demands.
    """
    lines = [f"commit\t{metric}\tmemory_gb\tstatus\tdescription"]
    for row in rows:
        value = 0.0 if row.metric is None else row.metric
        memory_gb = (row.peak_mem_mib or 0.0) / MIB_PER_GB
        lines.append(f"{row.commit[:7]}\t{value:.6f}\t{memory_gb:.1f}\t{row.status}\t{one_line(row.description)}")
    return "\n".join(lines) + "\n"


def outdate_results(ledger: Ledger, campaign: Campaign) -> None:
    """Note, within the transaction that changes a row, that the view has to be written again."""
    if not campaign.view_sha256.startswith(_STALE):
        campaign.view_sha256 = _STALE + campaign.view_sha256
        ledger.update_campaign(campaign, "view_sha256")


def write_results(path: Path, ledger: Ledger, campaign: Campaign, aside: Path) -> str:
    """Rewrite the view at ``path`` atomically if it does not equal the ledger.

    A file that was edited since we wrote it is first copied into the folder ``aside``. Returns a
    sentence saying so, or "".
    """
    if path.is_dir():
        raise NeedsHumanError(
            f"{path} is a folder; the table of all experiments belongs there.",
            hint=f"mv {shlex.quote(str(path))} {shlex.quote(f'{path}.old')}",
            code="results_is_a_folder",
        )
    found = path.read_bytes() if path.exists() else None
    found_digest = "" if found is None else hashlib.sha256(found).hexdigest()
    if found_digest and found_digest == campaign.view_sha256:
        return ""
    text = render_results(campaign.config["metric"]["name"], ledger.result_rows(campaign.tag))
    digest = hashlib.sha256(text.encode()).hexdigest()
    known, told = campaign.view_sha256.removeprefix(_STALE), ""
    if found_digest != digest:
        if found is not None and known and found_digest != known:
            aside.mkdir(parents=True, exist_ok=True)
            copy = aside / f"results.edited-{now().replace(':', '')}.tsv"
            copy.write_bytes(found)
            told = f"{path.name} had been edited by hand; the edited file is kept as {copy}, the ledger stands."
        _write_atomically(path, text)
    campaign.view_sha256 = digest
    ledger.update_campaign(campaign, "view_sha256")
    return told


def _write_atomically(path: Path, text: str) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    temporary = Path(name)
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="") as file:
            file.write(text)
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
