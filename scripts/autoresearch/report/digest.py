"""The morning digest: what a phone shows of a campaign before its owner opens the report."""

from __future__ import annotations

from pathlib import Path

from autoresearch.campaign.opened import find_campaign, open_ledger
from autoresearch.config import Config
from autoresearch.errors import UsageError
from autoresearch.notify import Delivery, notify_and_wait
from autoresearch.output import one_line
from autoresearch.report.figures import Judged, Summary
from autoresearch.report.format import duration, margin, number, plural, signed

KEPT_SHOWN = 5  # the largest gains
DESCRIPTION_WIDTH = 70


def send_digest(project: Path, summary: Summary) -> Delivery:
    """Send the digest to the campaign's channels and say how that went; ``UsageError`` if it has none."""
    with open_ledger(project) as (repo, ledger):
        campaign = find_campaign(repo, ledger, summary.tag)
        folder = repo.state_dir / campaign.tag
    channels = Config.from_dict(campaign.config).notify
    if not channels:
        raise UsageError(
            f"Campaign {campaign.tag} has no channel to send to: `notify` is empty.",
            hint="Name some in autoresearch.yaml, then: python scripts/setup_campaign.py --reconfigure",
            code="no_channels",
        )
    return notify_and_wait(channels, folder, "digest", *digest(summary))


def render_delivery(delivery: Delivery) -> str:
    """One line on what became of the digest."""
    if not delivery.sent:
        return "digest: not sent, since one went out seconds ago"
    text = f"digest: sent to {delivery.channels - len(delivery.failed)} of {delivery.channels} channels"
    return text + (f"; failed: {', '.join(delivery.failed)}" if delivery.failed else "")


def digest(summary: Summary) -> tuple[str, str]:
    """Title and text."""
    counts = summary.experiments
    tried = plural(counts.run, "experiment")
    lines = [f"{tried} in {duration(summary.elapsed_s)}: {counts.told()}"]
    title = f"{summary.tag}: {tried}, no baseline yet"
    if summary.baseline is not None and summary.incumbent is not None:
        title = f"{summary.tag}: {summary.metric} {number(summary.incumbent.metric)}"
        lines.append(f"{summary.metric} {number(summary.baseline.metric)} -> {number(summary.incumbent.metric)}")
    if summary.credit is not None:
        title += f", gain {signed(summary.credit.gain)}"
        credit = summary.credit
        lines.append(f"credited {number(credit.level)} ± {margin(credit.se)} (95 %), a gain of {signed(credit.gain)}")
    lines.append(_claim(summary))
    standing = sorted((each for each in summary.kept if not each.undone), key=_gain, reverse=True)
    lines += [f"+ {signed(each.gain)} {_what(each)}" for each in standing[:KEPT_SHOWN]]
    if summary.near_misses:
        lines.append(f"worth more seeds: {_what(summary.near_misses[0])}")
    if summary.failures:
        worst = summary.failures[0]
        lines.append(f"most failures: {worst.outcome} {worst.cause}, {plural(worst.trials, 'trial')}")
    return title, "\n".join(lines)


def _claim(summary: Summary) -> str:
    if summary.claim is None:
        return "not yet confirmed on fresh seeds"
    return f"claim {summary.claim['word']}: {summary.claim['b']} against {summary.claim['a']}"


def _gain(judged: Judged) -> float:
    return judged.gain or 0.0


def _what(judged: Judged) -> str:
    return f"#{judged.number} {one_line(judged.description, DESCRIPTION_WIDTH)}"
