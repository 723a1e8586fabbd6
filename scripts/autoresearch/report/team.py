"""What the agents of one session came to together: sums, and the best of them, which is a selection."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from autoresearch.campaign.opened import find_campaign, home_of, open_ledger
from autoresearch.campaign.others import yardstick
from autoresearch.errors import NoCampaignError
from autoresearch.ledger import Campaign
from autoresearch.report.figures import Summary
from autoresearch.report.format import NORMAL_95
from autoresearch.report.summary import read_insights, summarise


@dataclass(frozen=True, kw_only=True)
class AgentFigures:
    """One agent's campaign in a line. Gains are over its own baseline, in the metric's unit; above 0 is better.

    ``gain`` and its 95 % interval, ``low`` to ``high``, are those of the comparison of the best with the
    baseline on fresh seeds where there is one (then ``fresh``), else what the keep rule believes. Without an
    interval where the training is deterministic (``exact``).
    """

    tag: str
    experiments: int
    kept: int
    crashed: int
    baseline: float | None
    best: float | None
    best_number: int | None
    best_commit: str
    gain: float | None
    low: float | None
    high: float | None
    fresh: bool
    exact: bool
    comparable: bool  # the same metric, direction and budget as the first one's


@dataclass(frozen=True, kw_only=True)
class TeamSummary:
    """All agents of a session. ``leader`` has the largest gain among those that may be set beside each other."""

    session: str
    metric: str
    direction: str
    agents: list[AgentFigures]
    leader: AgentFigures | None
    experiments: int
    kept: int
    trials: int
    trial_s: float
    gpu_s: float
    elapsed_s: float  # from the first trial of any to the last


def read_team(
    project: Path, *, tag: str | None = None, session: str | None = None
) -> tuple[TeamSummary, list[Summary]] | None:
    """The session ``session``, else that of the campaign that ``open_campaign`` would find; None if it works alone.

    ``NoCampaignError`` if there is no campaign, or none of that session.
    """
    with open_ledger(project) as (repo, ledger):
        found = find_campaign(repo, ledger, tag)
        name = found.setup.get("team", "") if session is None else session
        campaigns = [each for each in ledger.campaigns() if name and each.setup.get("team") == name]
        if not campaigns:
            if session is None:
                return None
            raise NoCampaignError(
                f"No session {session!r} of several agents has worked here.",
                hint="python scripts/summarize.py --all-tags",
                code="no_session",
            )
        summaries = [summarise(ledger, each, insights=read_insights(home_of(repo, each).project)) for each in campaigns]
    return _team(name, campaigns, summaries), summaries


def _team(session: str, campaigns: Sequence[Campaign], summaries: Sequence[Summary]) -> TeamSummary:
    first = campaigns[0]
    agents = [
        _figures(summary, comparable=yardstick(campaign) == yardstick(first))
        for campaign, summary in zip(campaigns, summaries, strict=True)
    ]
    rivals = [each for each in agents if each.comparable and each.gain is not None and each.gain > 0]
    used = [summary.throughput for summary in summaries]
    return TeamSummary(
        session=session,
        metric=summaries[0].metric,
        direction=summaries[0].direction,
        agents=agents,
        leader=max(rivals, key=lambda each: each.gain or 0.0, default=None),
        experiments=sum(each.experiments for each in agents),
        kept=sum(each.kept for each in agents),
        trials=sum(each.trials for each in used),
        trial_s=sum(each.trial_s for each in used),
        gpu_s=sum(each.gpu_s for each in used),
        elapsed_s=_elapsed_s(summaries),
    )


def _figures(summary: Summary, *, comparable: bool) -> AgentFigures:
    best, credit = summary.incumbent, summary.credit
    gain, low, high, fresh = _gain(summary)
    return AgentFigures(
        tag=summary.tag,
        experiments=summary.experiments.run,
        kept=summary.experiments.kept - summary.experiments.baselines,
        crashed=summary.experiments.crashed,
        baseline=None if summary.baseline is None else summary.baseline.metric,
        best=credit.level if credit else None if best is None else best.metric,
        best_number=None if best is None else best.number,
        best_commit="" if best is None else best.commit,
        gain=gain,
        low=low,
        high=high,
        fresh=fresh,
        exact=summary.noise is not None and summary.noise.deterministic,
        comparable=comparable,
    )


def _gain(summary: Summary) -> tuple[float | None, float | None, float | None, bool]:
    """The best's gain over the baseline, its 95 % interval, and whether they come from fresh seeds."""
    claim, credit, noise = summary.claim, summary.credit, summary.noise
    ends = [None if each is None else each.commit for each in (summary.baseline, summary.incumbent)]
    if noise is not None and noise.deterministic:
        return None if credit is None else credit.gain, None, None, False
    if claim is not None and claim["arms"][:2] == ends and claim.get("gain_low") is not None:
        return claim["gain"], claim["gain_low"], claim["gain_high"], True
    if credit is None:
        return None, None, None, False
    half = NORMAL_95 * credit.se
    return credit.gain, credit.gain - half, credit.gain + half, False


def _elapsed_s(summaries: Sequence[Summary]) -> float:
    begun = [(datetime.fromisoformat(each.started_at), each.elapsed_s) for each in summaries if each.started_at]
    if not begun:
        return 0.0
    first = min(start for start, _ in begun)
    return max((start - first).total_seconds() + elapsed_s for start, elapsed_s in begun)
