"""A clean branch in words: for the terminal, and as the Markdown text of a pull request."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoresearch.campaign.finalize import Finalized
from autoresearch.campaign.kept import Part
from autoresearch.output import one_line
from autoresearch.report.format import NOTHING, number, plural, signed

DESCRIPTION_WIDTH = 70
NOT_MEASURED = (
    "This subset was not measured as a whole: each part was measured on top of all that was kept before it. "
    "finalize.py --measure N does it at N fresh seeds."
)


def render_finalized(done: Finalized, *, dry_run: bool) -> str:
    """What finalize.py says."""
    kept = [part for part in done.parts if part.number is not None]
    verb = "would hold" if dry_run else "holds" if done.changed else "was there already and holds"
    commits = len({part.commit for part in done.parts})
    lines = [
        f"branch {done.branch} {verb} {plural(len(kept), 'kept experiment')} in {plural(commits, 'commit')} "
        f"on {done.base[:7]}, at {done.commit[:7]}"
    ]
    lines += [_line(part) for part in done.parts]
    lines += [f"  left out: {part.name}: {part.left_out}" for part in done.left_out]
    lines.append(f"files: {', '.join(done.files)}")
    lines.append(_standing(done))
    lines += [f"note: {note}" for note in [*done.notes, *_settings(done)]]
    lines.append(f"next: git log -p {done.base[:7]}..{done.branch if not dry_run else done.commit[:7]}")
    return "\n".join(lines)


def _line(part: Part) -> str:
    gain = "" if part.gain is None else f" {signed(part.gain)}"
    return f"  {part.commit[:7]}{gain} {one_line(part.description, DESCRIPTION_WIDTH)}"


def _standing(done: Finalized) -> str:
    """What is known of the branch as a whole."""
    if done.comparison is not None:
        return f"measured at fresh seeds: {done.comparison.claim.reason}"
    if not done.equals_incumbent:
        return NOT_MEASURED
    if done.claim:
        return f"its files are the incumbent's; claim on fresh seeds: {done.claim}"
    return (
        "its files are the incumbent's, which the loop measured; it is not confirmed on fresh seeds yet: "
        "python scripts/compare.py baseline best"
    )


def _settings(done: Finalized) -> list[str]:
    named = {"arguments": done.arguments, "environment variables": done.environment}
    return [
        f"the incumbent's numbers also need these {what}, which are not in the code: "
        + ", ".join(f"{name}={value}" for name, value in values.items())
        for what, values in named.items()
        if values
    ]


# ---- Markdown


def render_pull_request(done: Finalized, *, plot: str = "") -> str:
    """The text of a pull request: what improved, on what evidence, change by change. ``plot`` is a link to a chart."""
    kept = [part for part in done.parts if part.number is not None]
    better = "lower" if done.direction == "lower" else "higher"
    blocks = [f"## {plural(len(kept), 'change')} for a {better} `{done.metric}`"]
    blocks.append(
        f"Found by campaign `{done.tag}`: every change was trained and compared with the best code so far at the same "
        "seeds, and kept only if its gain stood out from the noise between seeds, or if it made the code shorter at no "
        "loss."
    )
    if plot:
        blocks.append(f"![Every experiment of the campaign, the kept ones labelled]({plot})")
    blocks.append(_evidence_table(kept, values=done.equals_incumbent))
    blocks.append(_sentence(_standing(done)))
    by_hand = [part for part in done.parts if part.number is None]
    if by_hand:
        blocks.append("\n".join(f"- {_escaped(part.description)}: {_paths(part.files)}" for part in by_hand))
    if done.left_out:
        items = [f"- {_escaped(part.name)}: {_escaped(part.left_out)}" for part in done.left_out]
        blocks.append("Left out:\n\n" + "\n".join(items))
    blocks += [_sentence(_escaped(text)) for text in [*done.notes, *_settings(done)]]
    blocks.append(f"Files: {_paths(done.files)}")
    return "\n\n".join(blocks) + "\n"


def _evidence_table(parts: Sequence[Part], *, values: bool) -> str:
    """A row for each change; with ``values`` also the metric after it, which holds only if all before it are there."""
    columns = ["#", "change", "gain", "95 % interval", "z", *(["value"] if values else []), "seeds", "lines", "commit"]
    rows = [_row(columns), _row("---" if name in ("change", "95 % interval", "commit") else "---:" for name in columns)]
    for part in parts:
        known = part.gain_low is not None and part.gain_high is not None
        cells = {
            "#": str(part.number),
            "change": _escaped(one_line(part.description, 300)),
            "gain": signed(part.gain),
            "95 % interval": f"{signed(part.gain_low)} to {signed(part.gain_high)}" if known else NOTHING,
            "z": NOTHING if part.z is None else f"{part.z:.1f}",
            "value": number(part.metric),
            "seeds": str(part.seeds or NOTHING),
            "lines": f"+{part.lines_added} -{part.lines_deleted}",
            "commit": f"`{part.commit[:7]}`",
        }
        rows.append(_row(cells[name] for name in columns))
    return "\n".join(rows)


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _escaped(text: str) -> str:
    """Text as Markdown shows it: an agent wrote it, and it may hold tags, tables and links."""
    return re.sub(r"([\\`*_{}\[\]<>|#~])", r"\\\1", one_line(text))


def _paths(paths: Sequence[str]) -> str:
    return ", ".join(f"`{path}`" for path in paths)


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def link_from(markdown: Path, plot: Path) -> str:
    """``plot`` as a link in the file ``markdown``."""
    return Path(os.path.relpath(plot.resolve(), markdown.resolve().parent)).as_posix().replace(" ", "%20")
