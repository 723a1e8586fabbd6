"""One page on all agents of a session: a line for each, and the best of them with what that is worth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from autoresearch.report.figures import Summary
from autoresearch.report.format import NOTHING, duration, gpu_hours, number, plural, signed
from autoresearch.report.page import Column, command, line, page_width, paragraph, print_page, table
from autoresearch.report.team import AgentFigures, TeamSummary
from autoresearch.report.text import render

if TYPE_CHECKING:
    from rich.console import RenderableType

CLAIM_SEEDS = 6


def render_team(team: TeamSummary, *, width: int | None = None, colour: bool | None = None) -> str:
    """What a session came to, in a dozen lines and one for each agent."""
    width = page_width(width)
    title = f"Session {team.session}: {len(team.agents)} agents; {team.metric}, {team.direction} is better"
    columns = [
        Column(title="tried", rank=3),
        Column(title="kept", rank=4),
        Column(title="crashed", rank=5),
        Column(title="baseline", rank=2),
        Column(title="best"),
        Column(title="gain", rank=1),
        Column(title="95 %"),
        Column(title="campaign"),
    ]
    parts: list[RenderableType] = [line(title, "bold"), table(columns, list(map(_row, team.agents)), width)]
    return print_page([*parts, "", *_together(team)], width, colour)


def render_all(team: TeamSummary, summaries: Sequence[Summary]) -> str:
    """The session, and then each campaign as it is told alone."""
    return "\n\n".join([render_team(team).rstrip(), *(render(summary).rstrip() for summary in summaries)])


def _row(agent: AgentFigures) -> list[str]:
    if agent.low is None:
        interval = "exact" if agent.exact else NOTHING
    else:
        interval = f"{signed(agent.low)} to {signed(agent.high)}"
    return [
        str(agent.experiments),
        str(agent.kept),
        str(agent.crashed),
        NOTHING if agent.baseline is None else number(agent.baseline),
        NOTHING if agent.best is None else number(agent.best),
        signed(agent.gain),
        f"{interval}, fresh seeds" if agent.fresh else interval,
        agent.tag + ("" if agent.comparable else " (measured otherwise)"),
    ]


def _together(team: TeamSummary) -> Iterator[RenderableType]:
    used = f"{plural(team.trials, 'trial')} took {duration(team.trial_s)}"
    if team.gpu_s:
        used += f", {gpu_hours(team.gpu_s)} GPU-hours"
    yield paragraph(
        f"together: {plural(team.experiments, 'experiment')}, {team.kept} kept beside the baselines, "
        f"in {duration(team.elapsed_s)}; {used}"
    )
    leader = team.leader
    if leader is None:
        yield paragraph("No agent has kept anything better than its baseline.", "yellow")
        return
    largest = f"The largest gain is {leader.tag}'s, {signed(leader.gain)} at experiment {leader.best_number}"
    apart = "each gain is over that agent's own baseline: they are not added up"
    if leader.exact:
        yield paragraph(
            f"{largest} ({leader.best_commit[:7]}). The training is deterministic, so it is exact; {apart}."
        )
        return
    yield paragraph(f"{largest} ({leader.best_commit[:7]}), {_worth(team, leader)}; {apart}.")
    yield from _settle(team, leader)


def _worth(team: TeamSummary, leader: AgentFigures) -> str:
    if leader.fresh:
        return "measured on seeds that had no part in the choice"
    return f"and since it is the best of {len(team.agents)}, luck is in it"


def _settle(team: TeamSummary, leader: AgentFigures) -> Iterator[RenderableType]:
    """The commands that tell how good the best of several really is."""
    if not leader.fresh:
        yield paragraph("To be sure of it, on seeds that nobody has chosen by:")
        yield command(f"python scripts/compare.py baseline best --tag {leader.tag} --seeds {CLAIM_SEEDS}")
    rivals = [each for each in team.agents if each.comparable and each is not leader and (each.gain or 0.0) > 0]
    if rivals:
        rival = max(rivals, key=lambda each: each.gain or 0.0)
        yield paragraph(f"Against the best of {rival.tag}, both on {leader.tag}'s base and device:")
        yield command(
            f"python scripts/compare.py {rival.best_commit[:10]} best --tag {leader.tag} --seeds {CLAIM_SEEDS}"
        )
