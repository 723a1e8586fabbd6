"""What the other agents of the same session have found out: an agent's campaign seen from a sibling's.

All campaigns of a session began at one commit, and their figures are set beside each other only where
metric, direction and budget are still the same.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from autoresearch.campaign.memory import Lesson, lesson_of
from autoresearch.ledger import Campaign, Ledger, Status

KEEPS_TOLD = 5  # of each sibling, the newest
FAILED_TOLD = 3
FAILED_AMONG = 20  # the last experiments


@dataclass(frozen=True, kw_only=True)
class Other:
    """A sibling campaign. ``gain`` is over its own baseline, in the metric's unit; above 0 is better."""

    tag: str
    metric: str
    tried: int
    kept: int
    gain: float | None  # as its keep rule books it; None before its baseline is measured
    comparable: bool  # the same metric, direction and budget as here
    keeps: list[Lesson]  # the newest first; those undone are no keeps
    failed: list[Lesson]  # discards and crashes, the newest first
    known: dict[int, int]  # those of its experiments that were adopted here, or from here: which one that is here


def siblings(ledger: Ledger, campaign: Campaign) -> list[Campaign]:
    """The other campaigns of ``campaign``'s session; [] where one agent works alone."""
    team = campaign.setup.get("team")
    if not team:
        return []
    return [each for each in ledger.campaigns() if each.setup.get("team") == team and each.tag != campaign.tag]


def others(ledger: Ledger, campaign: Campaign) -> list[Other]:
    """What the siblings of ``campaign`` have kept, and what has failed there."""
    return [_other(ledger, campaign, each) for each in siblings(ledger, campaign)]


def _other(ledger: Ledger, campaign: Campaign, sibling: Campaign) -> Other:
    recent = ledger.experiments(sibling.tag, epoch=sibling.epoch, last=FAILED_AMONG)
    failed = [each for each in recent if each.status in (Status.DISCARD, Status.CRASH) and not each.is_baseline]
    kept = ledger.experiments(sibling.tag, status=Status.KEEP, epoch=sibling.epoch)
    keeps = [each for each in kept if not each.is_baseline]
    tried = sum(sum(count.values()) for count in ledger.family_counts(sibling.tag).values())
    return Other(
        tag=sibling.tag, metric=sibling.config["metric"]["name"], tried=tried, kept=len(keeps),
        gain=_gain(sibling), comparable=yardstick(sibling) == yardstick(campaign),
        keeps=[lesson_of(each) for each in reversed(keeps[-KEEPS_TOLD:])],
        failed=[lesson_of(each) for each in reversed(failed[-FAILED_TOLD:])],
        known={
            **dict(_adoptions(ledger, sibling.tag, source=campaign.tag)),
            **{model: own for own, model in _adoptions(ledger, campaign.tag, source=sibling.tag)},
        },
    )  # fmt: skip


def _adoptions(ledger: Ledger, tag: str, *, source: str) -> Iterator[tuple[int, int]]:
    """What ``tag`` has adopted from ``source``: the number that it has there, and that of its model."""
    with ledger.snapshot() as select:
        rows = select(
            "SELECT number, json_extract(options, '$.adopted') FROM experiment "
            "WHERE tag = ? AND json_extract(options, '$.adopted') IS NOT NULL", tag,
        )  # fmt: skip
    for own, adopted in rows:
        model, _, number = adopted.rpartition("/")
        if model == source:
            yield own, int(number)


def yardstick(campaign: Campaign) -> tuple[object, ...]:
    """What two campaigns must share before their figures are set beside each other."""
    config = campaign.config
    return config["metric"]["name"], config["metric"]["direction"], config["budget_s"]


def _gain(campaign: Campaign) -> float | None:
    if campaign.rule is None:
        return None
    from autoresearch.verdict.keep_rule import KeepRule

    return KeepRule.from_json(campaign.rule).credited_gain
