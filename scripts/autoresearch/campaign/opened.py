"""An opened campaign: its repository, ledger and config, found from a project folder and locked."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from autoresearch.config import Config
from autoresearch.errors import MachineError, NoCampaignError, StillRunningError
from autoresearch.ledger import Campaign, Ledger, Status
from autoresearch.repo import Repo

BRANCH_PREFIX = "autoresearch/"
RESULTS_FILE = "results.tsv"
TRIALS_FOLDER = "trials"
TAG_PATTERN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
LOCK_WAIT_S = 30.0


@dataclass(kw_only=True)
class OpenCampaign:
    """What every verb works on. ``campaign`` is the ledger's row; change it only through the ledger."""

    repo: Repo
    ledger: Ledger
    campaign: Campaign
    config: Config

    @property
    def tag(self) -> str:
        return self.campaign.tag

    @property
    def branch(self) -> str:
        return self.campaign.branch

    @property
    def folder(self) -> Path:
        """Where the campaign's trials, checkouts and logs lie."""
        return self.repo.state_dir / self.tag

    @property
    def trials_folder(self) -> Path:
        return self.folder / TRIALS_FOLDER

    @property
    def checkouts_folder(self) -> Path:
        return self.folder / "checkouts"

    @property
    def results_path(self) -> Path:
        """The view of the ledger in the project that commands are run from."""
        return self.repo.project / RESULTS_FILE

    @property
    def is_measured(self) -> bool:
        """Whether the baseline of this epoch has its numbers, so that an idea can be compared with it."""
        baseline = self.ledger.baseline(self.tag, self.campaign.epoch)
        return baseline is not None and baseline.status is Status.KEEP

    def ref(self, *parts: object) -> str:
        """A ref of this campaign outside refs/heads: ``refs/autoresearch/<tag>/discarded/<n>``."""
        return "/".join(["refs/autoresearch", self.tag, *map(str, parts)])

    def tell(self, kind: str, text: str) -> None:
        """Record an event."""
        self.ledger.add_event(self.tag, kind, text)


@contextmanager
def open_ledger(project: Path, *, create: bool = False) -> Iterator[tuple[Repo, Ledger]]:
    """The repository of ``project`` and its ledger, which may be empty."""
    repo = Repo(project)
    with Ledger(repo.state_dir, create=create) as ledger:
        yield repo, ledger


@contextmanager
def open_campaign(project: Path, tag: str | None = None, *, wait_s: float = LOCK_WAIT_S) -> Iterator[OpenCampaign]:
    """The campaign of ``project``, locked against every other command until the block ends.

    ``tag`` picks one; without it: the one of the checked-out branch, else the one set up in this
    folder last, else the newest. ``NoCampaignError`` if there is none.
    """
    with open_ledger(project) as (here, ledger):
        campaign = find_campaign(here, ledger, tag)
        repo = home_of(here, campaign)
        with lock(repo.state_dir / campaign.tag, wait_s=wait_s):
            fresh = ledger.campaign(campaign.tag)
            assert fresh is not None, "a campaign is never deleted"
            config = Config.from_dict(fresh.config, source=f"the config of campaign {fresh.tag}")
            yield OpenCampaign(repo=repo, ledger=ledger, campaign=fresh, config=config)


def find_campaign(repo: Repo, ledger: Ledger, tag: str | None) -> Campaign:
    """See ``open_campaign`` for how it is found."""
    campaigns = ledger.campaigns()
    if not campaigns:
        raise NoCampaignError(
            f"There is no campaign in {repo.root}.", hint="python scripts/setup_campaign.py", code="no_campaign"
        )
    if tag is not None:
        for campaign in campaigns:
            if campaign.tag == tag:
                return campaign
        known = ", ".join(campaign.tag for campaign in campaigns[-10:])
        raise NoCampaignError(f"There is no campaign {tag!r}.", hint=f"Known tags: {known}.", code="no_campaign")
    branch = repo.head().branch
    here = [campaign for campaign in campaigns if campaign.branch == branch]
    set_up_here = [campaign for campaign in campaigns if campaign.project == str(repo.project)]
    return (here or set_up_here or campaigns)[-1]


def home_of(repo: Repo, campaign: Campaign) -> Repo:
    """The project that the campaign's files lie in: here if its branch is checked out here, else where it was set up.

    So a command given in a sub-folder or in another worktree never takes that for the project.
    """
    home = Path(campaign.project)
    if home == repo.project or not home.is_dir():
        return repo
    there = Repo(home)
    if there.common_dir != repo.common_dir:
        return repo
    return repo if there.root != repo.root and repo.head().branch == campaign.branch else there


@contextmanager
def lock(folder: Path, *, wait_s: float) -> Iterator[None]:
    """Hold the campaign's lock; ``StillRunningError`` if another command keeps it longer than ``wait_s``.

    A flock dies with its process, so a killed command never leaves a lock behind.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
            raise
        raise MachineError(
            f"This command keeps records in {folder}, which cannot be written: {error.strerror}.",
            hint="To look only, which needs no record: python scripts/summarize.py",
        ) from None
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise StillRunningError(
                        f"Another autoresearch command is working on campaign {folder.name}.",
                        hint="python scripts/status.py --wait 540",
                        code="locked",
                    ) from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)
