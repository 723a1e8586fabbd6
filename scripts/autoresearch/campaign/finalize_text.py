"""The messages of a clean branch's commits: the idea as subject, its evidence below."""

from __future__ import annotations

from collections.abc import Sequence

from autoresearch.campaign.kept import Part
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.output import one_line

SUBJECT_WIDTH = 72


def commit_message(oc: OpenCampaign, part: Part, includes: Sequence[int], signoff: str) -> str:
    """The message of one part's commit."""
    full = one_line(part.description)
    subject = one_line(full, SUBJECT_WIDTH)
    body = [full] if full != subject else []
    body.append("\n".join(evidence_lines(oc, part)))
    if includes:
        numbers = ", ".join(map(str, includes))
        body.append(f"Holds the change of experiment {numbers} too: it was taken back, but this one was built on it.")
    if part.note:
        body.append(f"Note: {one_line(part.note, 1000)}")
    return _message(subject, body, signoff)


def squashed_message(oc: OpenCampaign, parts: Sequence[Part], signoff: str) -> str:
    """The message of the one commit that holds all parts."""
    kept = [part for part in parts if part.number is not None]
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    level = kept[-1].metric
    ends = "" if baseline is None or baseline.metric is None or level is None else (
        f": {oc.config.metric.name} {baseline.metric:.6g} -> {level:.6g}"
    )  # fmt: skip
    subject = one_line(f"{len(kept)} kept experiments{ends}", SUBJECT_WIDTH)
    items = [f"- {one_line(part.description, 200)}\n  {'; '.join(evidence_lines(oc, part))}" for part in kept]
    return _message(subject, ["\n".join(items)], signoff)


def evidence_lines(oc: OpenCampaign, part: Part) -> list[str]:
    """The numbers that a part was kept on, a line for each kind."""
    metric = oc.config.metric
    lines = []
    if part.metric is not None:
        seeds = f", mean of {part.seeds} seed{'s' * (part.seeds != 1)}" if part.seeds else ""
        lines.append(f"{metric.name}: {part.metric:.6g} ({metric.direction} is better{seeds})")
    if part.gain is not None:
        line = f"Gain: {part.gain:+.3g} over experiment {part.against} at the same seeds"
        if part.gain_low is not None and part.gain_high is not None:
            line += f", 95 % interval {part.gain_low:+.3g} to {part.gain_high:+.3g}"
        line += "" if part.z is None else f", z = {part.z:.2f}"
        lines.append(f"{line}, {part.trials} trial{'s' * (part.trials != 1)}")
    if part.simplification:
        lines.append(f"Kept as a simplification: {part.lines_added} lines added, {part.lines_deleted} deleted")
    where = f"Experiment {part.number} of" if part.number is not None else "From"
    return [*lines, f"{where} campaign {oc.tag}, original commit {part.original[:12]}"]


def _message(subject: str, body: Sequence[str], signoff: str) -> str:
    return "\n\n".join(filter(None, [subject, *body, signoff])) + "\n"
