"""New settings, new epoch: what a human changed in ``autoresearch.yaml`` takes effect on a new baseline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from autoresearch.campaign.config_notes import missing_links
from autoresearch.campaign.configure import check_edit, with_wishes
from autoresearch.campaign.entry import Project
from autoresearch.campaign.memo import BEGIN, Memo, memo_files, read_memo, render_memo, replace_text, write_tracked
from autoresearch.campaign.needs import is_missing
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.preflight import check_work_tree, own_files
from autoresearch.campaign.progress import collect, refresh, repair
from autoresearch.campaign.run import check_head
from autoresearch.campaign.settle import incumbent_commit
from autoresearch.campaign.trials import cancel_trials, experiment_arguments, experiment_environment
from autoresearch.campaign.wishes import Wishes
from autoresearch.config import CONFIG_FILE, Config, masked
from autoresearch.errors import MachineError, RefusedError, UsageError
from autoresearch.guard import data_drift, fingerprint_data, may_edit
from autoresearch.results import outdate_results


@dataclass(frozen=True, kw_only=True)
class Reconfigured:
    """What changed; ``changed`` is False if nothing did, and then there is no new epoch."""

    changed: bool
    epoch: int
    base_commit: str
    differences: dict[str, tuple[Any, Any]]  # key -> (old, new)
    notes: list[str] = field(default_factory=list)


def reconfigure(oc: OpenCampaign, wishes: Wishes, *, dry_run: bool = False) -> Reconfigured:
    """Take the work tree's ``autoresearch.yaml``, and the flags on top, as the campaign's settings.

    They are committed on top of the branch, which becomes the base of a new epoch; commits that a human
    has made there are part of it. The config file is written first, then the branch, then the ledger:
    killed in between, the same command completes it.
    """
    wishes.check()
    notes = [] if dry_run else repair(oc)
    check_head(oc)
    if not dry_run:
        collect(oc)
    experiment = oc.ledger.open_experiment(oc.tag)
    if experiment is not None:
        raise RefusedError(
            f"Experiment {experiment.number} is not decided yet, and its trials run under the old settings.",
            hint="python scripts/status.py --wait 540, then python scripts/log_result.py",
            code="open_experiment",
        )
    tip = oc.repo.commit_of("HEAD") or oc.campaign.base_commit
    text, config = _wanted(oc, wishes, tip)
    work_tree = check_work_tree(oc.repo, tip, ours=config.edit, but=config.protect)
    data, data_changes = _data(oc, config)
    notes += missing_links(config, oc.repo.project)
    differences = _differences(oc.config.to_dict(), config.to_dict())
    commits_on_top = tip != incumbent_commit(oc)
    if not (differences or data_changes or commits_on_top):
        return Reconfigured(
            changed=False,
            epoch=oc.campaign.epoch,
            base_commit=oc.campaign.base_commit,
            differences={},
            notes=notes,
        )
    if commits_on_top:
        notes.append(f"what was committed on {oc.branch} since the incumbent is part of the new baseline")
    notes += data_changes
    inherited, told = _inherited(oc, new_command="command" in differences)
    notes += told
    if "metric.name" in differences:
        notes.append(f"results.tsv has one metric column: in its rows up to now it holds {oc.config.metric.name}")
    waiting = [change.path for change in oc.repo.changes(tip) if may_edit(change.path, config)]
    if waiting:
        notes.append(f"your uncommitted edit of {', '.join(waiting[:3])} waits: the baseline is the code without it")
    if dry_run:
        return Reconfigured(
            changed=True, epoch=oc.campaign.epoch + 1, base_commit=tip, differences=differences, notes=notes
        )
    cancel_trials(oc)  # a re-test of the incumbent would be judged by a rule that is gone
    replace_text(oc.repo.project / CONFIG_FILE, text)
    written = [CONFIG_FILE, *write_tracked(oc.campaign, config, oc.repo.project, _own_memos(oc, tip))]
    commit = oc.repo.commit_paths(tip, written, f"autoresearch: new settings, epoch {oc.campaign.epoch + 1}")
    if oc.repo.root_tree(commit) == oc.repo.root_tree(tip):
        commit = tip
    else:
        oc.repo.set_branch(oc.branch, commit, tip, "new settings")
    oc.repo.unstage(written)
    campaign = oc.campaign
    with oc.ledger.transaction():
        campaign.epoch += 1
        campaign.base_commit, campaign.config = commit, config.to_dict()
        campaign.rule, campaign.environment = None, {}
        own = own_files(work_tree, config, oc.repo.project)
        campaign.setup = {**campaign.setup, "data": data, "own_files": own, "inherited": inherited}
        oc.ledger.update_campaign(campaign, "epoch", "base_commit", "config", "rule", "environment", "setup")
        outdate_results(oc.ledger, campaign)
        oc.tell("reconfigure", f"epoch {campaign.epoch}: {', '.join(differences) or 'same settings'}")
    fresh = replace(oc, config=config)
    notes += refresh(fresh)
    render_memo(fresh)
    return Reconfigured(changed=True, epoch=campaign.epoch, base_commit=commit, differences=differences, notes=notes)


def _inherited(oc: OpenCampaign, *, new_command: bool) -> tuple[dict[str, dict[str, str]], list[str]]:
    """What kept experiments have added to command and environment, for the new baseline; and what to tell of it.

    A new command says by itself what it is given.
    """
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or incumbent.epoch != oc.campaign.epoch:  # an epoch without a baseline, begun like this one
        return ({} if new_command else oc.campaign.setup.get("inherited", {})), []
    arguments, environment = experiment_arguments(incumbent), experiment_environment(incumbent)
    words = [f"{name}={value}" for name, value in arguments.items()]
    words += [f"${name}={value}" for name, value in environment.items()]
    if not words:
        return {}, []
    kept = f"{', '.join(words)} of experiment {incumbent.number}"
    if new_command:
        return {}, [f"the new command is taken as it stands, without {kept}"]
    return {"arguments": arguments, "environment": environment}, [f"the new baseline runs with {kept}"]


def _own_memos(oc: OpenCampaign, tip: str) -> list[Memo]:
    """The memos whose block still stands."""
    memos = memo_files(oc.repo.project, oc.repo.files(tip), agents_md=True)
    return [memo for memo in memos if BEGIN in read_memo(oc.repo.project / memo.path)]


def _wanted(oc: OpenCampaign, wishes: Wishes, tip: str) -> tuple[str, Config]:
    path = oc.repo.project / CONFIG_FILE
    if not path.exists():
        raise UsageError(
            f"{path} is gone.",
            hint=f"git restore --source={oc.campaign.base_commit[:7]} -- {CONFIG_FILE}",
            code="no_config",
        )
    Config.read(path)  # for its errors
    project = Project(folder=oc.repo.project, files=oc.repo.files(tip))
    text, config = with_wishes(path.read_bytes().decode("utf-8"), project, wishes)
    check_edit(config, project)
    return text, config


def _data(oc: OpenCampaign, config: Config) -> tuple[dict[str, Any], list[str]]:
    """The data's fingerprint, and how it differs from the one of the epoch so far."""
    missing = [path for path in config.data if is_missing(path, oc.repo.project)]
    if missing:
        raise MachineError(
            f"The data is not there: {', '.join(missing)}.",
            hint=f"Put it there, or change `data` in {CONFIG_FILE}.",
            code="data_missing",
        )
    before = oc.campaign.setup.get("data") or {}
    after = fingerprint_data(config.data, oc.repo.project, previous=before)
    if config.data != oc.config.data or not before:
        return after, []
    return after, data_drift(before, after)


def _differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Keys whose values differ, those of sections by their full name: ``keep.max_seeds``."""
    found: dict[str, tuple[Any, Any]] = {}
    for key in {**old, **new}:
        before, after = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict) and key != "watch":
            found |= {f"{key}.{inner}": pair for inner, pair in _differences(before, after).items()}
        elif before != after:
            found[key] = (masked(before), masked(after)) if key == "notify" else (before, after)
    return found
