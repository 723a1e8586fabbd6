"""The coding agent's client of one night: how it is started, watched, ended."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.agents.delivery import deliver
from autoresearch.agents.leftovers import NIGHT_MARK, end_leftovers
from autoresearch.agents.night import Night, NightFolder
from autoresearch.agents.profile import LAST, Profile, load_profile
from autoresearch.agents.screen import classify
from autoresearch.agents.settings import write_settings
from autoresearch.agents.sources import ClientFacts, log_size, read_facts
from autoresearch.agents.task import python
from autoresearch.agents.terminal import Terminal
from autoresearch.campaign.opened import TRIALS_FOLDER
from autoresearch.campaign.trials import path_without_script_environment

SCRIPTS = Path(__file__).resolve().parents[2]
LEAVE_POLL_S = 0.2
BETWEEN_KEYS_S = 0.5  # some clients take two keys in one go for one
ARGUMENT_BYTES = 100_000  # the kernel's limit for one argument is 128 KiB
PROMPT_PATIENCE_S = 5.0  # from an interrupt to the prompt


@dataclass
class Client:
    """One client in one terminal. ``env`` is the environment of whoever launched the night."""

    folder: NightFolder
    night: Night
    env: Mapping[str, str]
    profile: Profile = field(init=False)
    terminal: Terminal = field(init=False)
    hooks_before: int = 0  # size of the log of hooks when the client was started

    def __post_init__(self) -> None:
        options = self.night.options
        self.profile = load_profile(options.agent)
        self.terminal = Terminal(options.session, socket=options.socket or None, window=options.window)

    def adopt(self) -> bool:
        """Take over a client that still runs in our session, after the supervisor alone was killed."""
        return self.terminal.pid() is not None

    def start(self, task: str, *, resumes: bool = False, conversation: str = "") -> bool:
        """Start the client, in its window, a new one or a new session; True if it was given ``task``.

        The task goes with the command line where the client takes it there, byte for byte. With
        ``resumes`` the client takes up ``conversation``, or the folder's last one.
        """
        options = self.night.options
        project = Path(options.project)
        settings = write_settings(
            self.profile, self.folder.path, permissions=options.permissions, scripts=SCRIPTS,
            python=python(), project=project, edit=edited_files(project, options.tag),
            logs=self.folder.path.parent / TRIALS_FOLDER,
        )  # fmt: skip
        given = self.profile.takes_task_again if resumes else self.profile.takes_task
        # A slash would make it a command of the client, and a long one would not pass.
        given = given and len(task.encode()) <= ARGUMENT_BYTES and not task.startswith("/")
        argv = self.profile.argv(
            permissions=options.permissions, scripts=SCRIPTS, project=project, settings=settings, model=options.model,
            conversation=(conversation or LAST) if resumes else "", task=task if given else "",
        )  # fmt: skip
        env = self.environment()
        self.hooks_before = log_size(self.folder.hooks)
        with self.folder.windows():
            if self.terminal.has_window():
                self.terminal.respawn(argv, env=env, cwd=project)
            else:
                self.terminal.start(argv, env=env, cwd=project, width=options.width, height=options.height)
                self.open_monitor()
        return given

    def open_monitor(self) -> None:
        """The campaign's live view, in the session's last window."""
        options = self.night.options
        watch = [str(python()), str(SCRIPTS / "status.py"), "--watch", "--project", options.project]
        self.terminal.open_monitor([*watch, "--tag", options.tag], env=self.env, cwd=Path(options.project))

    def environment(self) -> dict[str, str]:
        """The launcher's environment, quieted, and marked so that what the client starts can be found again."""
        env = {**without_script_environment(self.env), **self.profile.environment, NIGHT_MARK: self.night.mark}
        if self.night.options.sandboxed and self.profile.root is not None:
            env[self.profile.root.variable] = self.profile.root.value
        return env

    def facts(self) -> ClientFacts:
        """What the client itself says about its state."""
        return read_facts(
            self.profile, self.env, pid=self.terminal.pid(), hooks=self.folder.hooks, since=self.hooks_before
        )

    def end_leftovers(self) -> int:
        """End what a dead client left behind; trials live on."""
        return end_leftovers(self.night.mark)

    def leave(self, patience_s: float) -> None:
        """Interrupt the client, ask it to go, and end it: afterwards it and its children are gone, even on an error."""
        try:
            if self.terminal.pid() is not None:
                self.interrupt()
                if self.profile.leave and self._comes_to_its_prompt():
                    deliver(self.terminal, self.profile, self.profile.leave)
                    _wait(self._has_left, patience_s)
            with self.folder.windows():
                self.terminal.kill()
        finally:
            self.end_leftovers()

    def interrupt(self) -> None:
        """Have the client end its turn."""
        for key in self.profile.interrupt:
            self.terminal.press(key)
            time.sleep(BETWEEN_KEYS_S)

    def _has_left(self) -> bool:
        """Whether the client has gone; a question whether it really should is answered."""
        screen = self.terminal.look()
        if screen is not None:
            seen = classify(self.profile, screen)
            if seen.state == "dialog":
                self.terminal.press(*seen.keys)
        return self.terminal.pid() is None

    def _comes_to_its_prompt(self) -> bool:
        def at_prompt() -> bool:
            screen = self.terminal.look()
            return screen is not None and classify(self.profile, screen).state in ("ready", "error")

        return _wait(at_prompt, PROMPT_PATIENCE_S)


def _wait(condition: Callable[[], bool], patience_s: float) -> bool:
    deadline = time.monotonic() + patience_s
    while not (met := condition()) and time.monotonic() < deadline:
        time.sleep(LEAVE_POLL_S)
    return met


def without_script_environment(env: Mapping[str, str]) -> dict[str, str]:
    """``env`` less what ``uv run`` makes for one script: the python that the client finds is the user's."""
    kept = {**env, "PATH": path_without_script_environment(env.get("PATH", os.defpath))}
    if kept["PATH"] != env.get("PATH", os.defpath):
        kept.pop("VIRTUAL_ENV", None)
    return kept


def edited_files(project: Path, tag: str) -> tuple[str, ...]:
    """The files that experiments of the campaign may change; none before it is set up."""
    from autoresearch.campaign.opened import open_ledger
    from autoresearch.errors import NoCampaignError

    try:
        with open_ledger(project) as (_, ledger):
            campaign = ledger.campaign(tag)
            return () if campaign is None else tuple(campaign.config["edit"])
    except NoCampaignError:
        return ()
