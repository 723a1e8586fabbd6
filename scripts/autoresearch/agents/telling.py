"""Nights as text for the person who launches and looks at them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from autoresearch.agents.begin import Watched
from autoresearch.agents.launch import describe, last_screen
from autoresearch.agents.night import Night, NightFolder
from autoresearch.agents.profile import load_profile

LAUNCHER = "python scripts/launch_tmux.py"
EVENT_WIDTH = 160
EVENTS_OF_A_TEAM = 3  # of each agent


def begun_text(begun: Sequence[Watched], what: str) -> str:
    """What was begun, and what a person may do next."""
    lines = []
    for _, night in begun:
        title, tag = load_profile(night.options.agent).title, night.options.tag
        if night.state == "ended":
            lines.append(f"{title} has worked on campaign {tag}, and has ended: {night.reason}.")
        else:
            lines.append(f"{title} {what} on campaign {tag}.")
    if at_work := [(folder, night) for folder, night in begun if night.state != "ended"]:
        lines[-1] += " You may close this terminal."
        lines += [f"  look:   {describe(folder, night)['attach']}" for folder, night in at_work]
        lines.append(f"  ask:    {LAUNCHER} --status")
        if load_profile(at_work[0][1].options.agent).listens:
            lines.append(f'  steer:  {LAUNCHER} --send "try weight decay next"')
        lines.append(f"  end:    {LAUNCHER} --stop")
    return "\n".join([*lines, "  in the morning: python scripts/summarize.py"])


def status_text(nights: Sequence[Watched]) -> str:
    """Where the nights stand: of one also its last events and its screen."""
    if len(nights) == 1:
        return "\n".join(_status_lines(*nights[0], events=10, screen=True))
    lines = [f"Session {nights[0][1].options.session}: {len(nights)} agents; one of them alone: --tag TAG"]
    for folder, night in nights:
        lines += _status_lines(folder, night, events=EVENTS_OF_A_TEAM, screen=False)
    return "\n".join(lines)


def _status_lines(folder: NightFolder, night: Night, *, events: int, screen: bool) -> Iterator[str]:
    shown = describe(folder, night)
    hours, since = shown["elapsed_s"] / 3600, shown["since"][:16].replace("T", " ")
    yield f"Night of campaign {shown['tag']}: {shown['state']}" + (f" ({shown['reason']})" if shown["reason"] else "")
    yield f"  agent {shown['agent']}, tmux session {shown['session']}, {hours:.1f} h, since {since} UTC"
    yield (
        f"  nudges {shown['nudges']}, restarts {shown['restarts']}, "
        f"tokens {shown['tokens']}, USD {shown['cost_usd']:.2f}"
    )
    if shown["waiting_until"]:
        yield f"  waits until {shown['waiting_until']}"
    if shown["state"] == "unwatched":
        yield f"  no supervisor watches it; go on with: {LAUNCHER} --resume"
    yield from (f"  {event_line(event)[:EVENT_WIDTH]}" for event in shown["last_events"][-events:])
    if shown["state"] not in ("ended", "unwatched"):
        if screen:
            yield last_screen(folder, night, 12)
        yield f"look: {shown['attach']}"


def events_of(nights: Sequence[Watched], last: int) -> list[dict[str, str]]:
    """The last events of all ``nights``, oldest first, each with its ``tag``."""
    events = [{**event, "tag": night.options.tag} for folder, night in nights for event in folder.events(last)]
    return sorted(events, key=lambda event: event["at"])[-last:]


def logs_text(nights: Sequence[Watched], events: Sequence[Mapping[str, str]]) -> str:
    """The events, and the last screen of each agent."""
    if len(nights) == 1:
        return "\n".join([*map(event_line, events), last_screen(*nights[0])])
    width = max(len(night.options.tag) for _, night in nights)
    lines = [f"{event['tag']:<{width}} {event_line(event)}" for event in events]
    for folder, night in nights:
        lines += [f"{night.options.tag}:", last_screen(folder, night)]
    return "\n".join(lines)


def event_line(event: Mapping[str, str]) -> str:
    """An event for readers; all times are UTC."""
    return f"{event['at'][:19].replace('T', ' ')} {event['kind']:<8} {event['text']}".rstrip()


def ended_text(nights: Sequence[Watched]) -> str:
    """How the nights ended, and what they came to."""
    lines = [f"The night of campaign {night.options.tag} has ended: {night.reason}." for _, night in nights]
    for folder, _ in nights:
        if folder.summary.exists():
            lines.append(folder.summary.read_text(encoding="utf-8"))
        if folder.page.exists():
            lines.append(f"report: {folder.page}")
    return "\n".join(lines)


def sent_text(delivered: Mapping[str, bool]) -> str:
    """Who has heard what was sent."""
    said = {True: "has it", False: "gets it as soon as its client can take it"}
    if len(delivered) == 1:
        return f"The agent {said[next(iter(delivered.values()))]}."
    return "\n".join(f"{tag} {said[arrived]}." for tag, arrived in delivered.items())
