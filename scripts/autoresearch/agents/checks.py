"""Is this machine ready for a night? Every check is a line; nothing is changed and nobody is waited for."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.agents.check import Check, demand, failed, passed, refused, warning
from autoresearch.agents.check_tools import (
    check_client,
    check_git,
    check_identity,
    check_python,
    check_root,
    check_session,
    check_tmux,
    first_installed,
)
from autoresearch.errors import AutoresearchError

if TYPE_CHECKING:
    from autoresearch.agents.night import Options
    from autoresearch.agents.profile import Profile
    from autoresearch.repo import Repo

__all__ = ["Check", "check_machine", "require"]


def check_machine(
    project: Path,
    *,
    agent: str | None = None,
    session: str = "",
    socket: str = "",
    tag: str | None = None,
) -> list[Check]:
    """Everything that a set-up, an experiment or a night in ``project`` would stumble over.

    ``agent`` is a client's name or the file of its profile; None: the first that is installed.
    """
    return list(_all_checks(project, agent=agent, session=session, socket=socket, tag=tag))


def require(options: Options, profile: Profile, *, adopts: bool = False) -> None:
    """``MachineError`` for the first thing on this machine that keeps the night of ``options`` from beginning.

    ``adopts``: its tmux session is there already, and is taken over.
    """
    demand(_for_the_night(options, profile, adopts=adopts))


def _for_the_night(options: Options, profile: Profile, *, adopts: bool) -> Iterator[Check]:
    from autoresearch.agents.check_project import check_disk
    from autoresearch.repo import Repo

    yield check_git()
    yield check_tmux()
    if not adopts:
        yield check_session(options.session, options.socket)
    yield from check_client(profile, chosen=True)
    yield from check_root(profile, permissions=options.permissions, sandboxed=options.sandboxed)
    yield check_disk(Repo(Path(options.project)), None)


def _all_checks(project: Path, *, agent: str | None, session: str, socket: str, tag: str | None) -> Iterator[Check]:
    yield from check_python()
    yield (git := check_git())
    try:
        yield check_tmux()
        yield from _agent_checks(agent)
        if git.ok:
            yield check_identity(project)
            yield from _project_checks(project, tag, session, socket)
    except ImportError as error:  # one of the packages that check_python has named
        yield failed("stopped", f"the other checks need {error.name}", "Install the packages first.")


def _agent_checks(agent: str | None) -> Iterator[Check]:
    from autoresearch.agents.profile import load_profile

    try:
        profile = load_profile(agent or first_installed())
    except AutoresearchError as error:
        yield refused("agent", error)
        return
    yield from check_client(profile, chosen=agent is not None)
    for check in check_root(profile, permissions="bypass", sandboxed=False):
        # A night with --permissions allowlist, or with --sandboxed, would run.
        yield check if check.ok else warning(check.name, check.text, f"{check.hint}; or --permissions allowlist")


def _project_checks(project: Path, tag: str | None, session: str, socket: str) -> Iterator[Check]:
    from autoresearch.agents.check_device import check_clock, check_device
    from autoresearch.agents.check_project import (
        check_campaign,
        check_disk,
        check_leftovers,
        check_repository,
        check_set_up,
        latest_record,
        opened,
    )
    from autoresearch.config import Executor as ExecutorSettings
    from autoresearch.ledger import Ledger
    from autoresearch.repo import Repo

    try:
        repo = Repo(project)
        yield (repository := check_repository(repo))
        with Ledger(repo.state_dir) as ledger:
            oc = opened(repo, ledger, tag)
            if oc is not None:
                yield from check_campaign(oc)
            elif repository.ok:
                yield from check_set_up(repo, ledger)
            yield check_disk(repo, None if oc is None else oc.campaign)
            yield from check_device(ExecutorSettings() if oc is None else oc.config.executor)
            yield check_clock(latest_record(ledger))
            yield check_leftovers(repo, ledger)
            yield _check_night(repo, session, socket)
    except AutoresearchError as error:
        yield refused("project", error)


def _check_night(repo: Repo, session: str, socket: str) -> Check:
    """A night that runs here, or a session in the way of one."""
    from autoresearch.agents.leftovers import leftovers
    from autoresearch.agents.night import nights

    for folder in nights(repo.state_dir):
        night = folder.read()
        if night is None:
            continue
        command = f"python scripts/launch_tmux.py --session {night.options.session}"
        if folder.is_watched():
            told = f"campaign {night.options.tag} is under way, tmux session {night.options.session}"
            return warning("night", told, f"{command} --status")
        if left := leftovers(night.mark):
            told = f"{len(left)} processes of the night of campaign {night.options.tag} live without a supervisor"
            return warning("night", told, f"{command} --resume, or --stop")
    return check_session(session, socket) if session else passed("night", "none is under way")
