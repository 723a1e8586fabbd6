"""The errors a user can cause or meet, each with an exit code and the next command to type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar


class AutoresearchError(Exception):
    """Something the user or the agent can act on; never a bug.

    ``message`` says what was wrong (with the value) and what was expected, ``hint`` names the next
    command to type, ``code`` is a stable word for programs.
    """

    exit_code: ClassVar[int] = 1
    default_code: ClassVar[str] = "error"

    def __init__(self, message: str, *, hint: str = "", code: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.code = code or self.default_code


class UsageError(AutoresearchError):
    """A flag, an argument or a config value that cannot be used."""

    exit_code = 2
    default_code = "usage"


class NoCampaignError(AutoresearchError):
    """Not a git repository, or no campaign in it."""

    exit_code = 3
    default_code = "no_campaign"


class RefusedError(AutoresearchError):
    """A guard says no: the command was understood, and doing it would break a rule."""

    exit_code = 4
    default_code = "refused"


class MachineError(AutoresearchError):
    """The machine lacks something: a tool, a device, disk space, a data folder."""

    exit_code = 5
    default_code = "environment"


class NeedsHumanError(AutoresearchError):
    """The ledger or the repository is in a state that no script may repair by itself."""

    exit_code = 6
    default_code = "needs_human"


class AgentError(AutoresearchError):
    """tmux or the agent client failed."""

    exit_code = 7
    default_code = "agent"


class StillRunningError(AutoresearchError):
    """A trial is still running; nothing is wrong."""

    exit_code = 10
    default_code = "running"


def near_names(word: str, known: Iterable[str], *, most: int = 1) -> list[str]:
    """Those of ``known`` that ``word`` may be a slip of, letter case aside, the most alike first; maybe none."""
    import difflib  # only where something is amiss: every command imports this module

    names = {name.lower(): name for name in known}
    return [names[name] for name in difflib.get_close_matches(word.lower(), names, n=most)]
