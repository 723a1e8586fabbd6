"""Several agents in one session: for each a tag, a device, a campaign and a work tree of its own."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

from autoresearch.agents.night import Options
from autoresearch.campaign.config_text import set_keys
from autoresearch.campaign.configure import Configured
from autoresearch.campaign.opened import open_ledger
from autoresearch.campaign.setup import set_up
from autoresearch.campaign.setup_plan import Request, make_plan
from autoresearch.campaign.worktree import make_worktree, restore_worktree
from autoresearch.config import Config
from autoresearch.errors import RefusedError, UsageError
from autoresearch.repo import Repo
from autoresearch.runner.devices import eligible_devices

MOST_AGENTS = 64
GPUS = re.compile(r"\d+(,\d+)*")
EXAMPLE = "python scripts/launch_tmux.py --session apr5 --agents 2 --gpus 0,1"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One agent of a session. ``executor`` are the settings in which its campaign differs from the project's."""

    tag: str
    executor: Mapping[str, Any]


def members(base: str, agents: int | None, gpus: str | None) -> list[Member]:
    """The agents of a session: one for each GPU, or ``agents`` that share ``gpus``, or the CPU, evenly.

    ``gpus`` are numbers as nvidia-smi counts them; without them the project's own settings say where trials run.
    Raises UsageError.
    """
    if gpus is None:
        count = _count(agents or 0)
        share = cpu_share(count)
        return [Member(tag=f"{base}-a{number}", executor=share) for number in range(count)]
    if not GPUS.fullmatch(gpus) or len(set(numbers := [int(word) for word in gpus.split(",")])) < len(numbers):
        raise UsageError(f"--gpus is {gpus!r}; expected different numbers, as nvidia-smi counts them.", hint=EXAMPLE)
    count = _count(len(numbers) if agents is None else agents)
    if len(numbers) % count:
        raise UsageError(f"--gpus names {len(numbers)} GPUs, which {count} agents cannot share evenly.", hint=EXAMPLE)
    each = len(numbers) // count
    shares = [numbers[start : start + each] for start in range(0, len(numbers), each)]
    return [
        Member(tag=f"{base}-gpu{'-'.join(map(str, own))}", executor={"devices": ",".join(map(str, own))})
        for own in shares
    ]


def _count(agents: int) -> int:
    if not 2 <= agents <= MOST_AGENTS:
        raise UsageError(
            f"There would be {agents} agents; expected 2 to {MOST_AGENTS}.",
            hint=f"{EXAMPLE}; one agent needs neither --agents nor --gpus",
        )
    return agents


def cpu_share(agents: int) -> dict[str, Any]:
    """What one of ``agents`` gets of the cores where there is no GPU; {} where there is one: leases see to that."""
    if eligible_devices("auto", os.environ):
        return {}
    cores = len(os.sched_getaffinity(0))
    return {"cpus_per_trial": cores // agents or math.floor(100 * cores / agents) / 100}


def join(options: Options, team: Sequence[Member], today: date) -> list[Options]:
    """Give each of ``team`` a campaign in a work tree of its own; their options, made of what is common to all.

    Those that are there are taken as they are, so a call that failed half-way may be repeated.
    """
    source = Repo(Path(options.project))
    _check(source, team, options.session, today)
    tags = tuple(member.tag for member in team)
    projects = [_campaign(source, member, options.session, today) for member in team]
    return [
        replace(options, tag=tag, project=str(project), team=tags)
        for tag, project in zip(tags, projects, strict=True)
    ]  # fmt: skip


def _campaign(source: Repo, member: Member, session: str, today: date) -> Path:
    """The project's folder in the work tree of the member's campaign, which is set up if it is new."""
    with open_ledger(source.project) as (_, ledger):
        campaign = ledger.campaign(member.tag)
        if campaign is not None and campaign.setup.get("complete", True):
            return recover_worktree(source, member.tag)
        if campaign is not None:  # its set-up was killed
            project = Path(campaign.project)
        else:
            request = Request(project=source.project, tag=member.tag, agents_md=True)
            made = make_plan(source, ledger, request, today).made
            project = make_worktree(source, member.tag, made.config, _config_text(made, member))
    set_up(Request(project=project, tag=member.tag, agents_md=True, team=session), today)
    return project


def _check(source: Repo, team: Sequence[Member], session: str, today: date) -> None:
    """Refuse what would be met only after some of the campaigns were set up."""
    with open_ledger(source.project) as (_, ledger):
        known = [campaign for member in team if (campaign := ledger.campaign(member.tag)) is not None]
        if stranger := next((each for each in known if each.setup.get("team") != session), None):
            raise RefusedError(
                f"There is a campaign {stranger.tag} already, and it is none of session {session}.",
                hint="Take another name: python scripts/launch_tmux.py --session NAME --agents 2",
                code="tag_taken",
            )
        new = next((member.tag for member in team if ledger.campaign(member.tag) is None), None)
        if new is None:
            return
        config = make_plan(source, ledger, Request(project=source.project, tag=new, agents_md=True), today).made.config
    if config.isolation != "worktree":
        raise RefusedError(
            "Several agents need a project of which a copy can be trained; `isolation: inplace` says that this "
            "one's code is imported from its own folder.",
            hint="Clone it for each agent, with an environment in each clone, and start one agent in each.",
            code="inplace",
        )
    if not (gpus := ",".join(member.executor["devices"] for member in team if "devices" in member.executor)):
        return
    if config.executor.kind != "local":
        raise UsageError(
            f"--gpus is for this machine; `executor` says {config.executor.kind}, which gives out devices itself.",
            hint="python scripts/launch_tmux.py --session apr5 --agents 2",
        )
    eligible_devices(gpus, os.environ)  # raises for one that is not there, and for several kinds


def _config_text(made: Configured, member: Member) -> str:
    """The settings of the member's campaign: what the command line says of devices, the cores if nobody says."""
    if made.config.executor.kind != "local" or not member.executor:
        return made.text
    own = made.config.to_dict()["executor"]
    devices = {"devices": member.executor.get("devices", own["devices"])}
    return set_keys(made.text, {"executor": {**member.executor, **own, **devices}})


def recover_worktree(source: Repo, tag: str) -> Path:
    """The project's folder of campaign ``tag``; its work tree is made again if somebody has deleted it."""
    with open_ledger(source.project) as (_, ledger):
        campaign = ledger.campaign(tag)
        assert campaign is not None, "a campaign is never deleted"
    project = Path(campaign.project)
    if not project.is_dir():
        restore_worktree(source, project, tag, Config.from_dict(campaign.config))
    return project
