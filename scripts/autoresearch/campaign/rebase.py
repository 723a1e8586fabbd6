"""Experiments ahead follow the incumbent: what was made on other code is made anew on today's, and run anew.

Everything here is derived from the ledger as it stands, so a killed command's work is simply done again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from autoresearch.campaign.decide import would_be_kept
from autoresearch.campaign.edit_check import check_sources
from autoresearch.campaign.judging import book_numbers
from autoresearch.campaign.opened import OpenCampaign
from autoresearch.campaign.points import replace
from autoresearch.campaign.settle import differing_paths, hold_at_ref
from autoresearch.campaign.transplant import ConflictError, transplant
from autoresearch.campaign.trials import end_trials, experiment_arguments, experiment_environment, own_settings
from autoresearch.errors import RefusedError
from autoresearch.ledger import Experiment, Purpose, State, Status, Trial
from autoresearch.output import one_line


def awaited(experiment: Experiment, opened: Sequence[Experiment]) -> Experiment | None:
    """The open experiment that ``experiment`` is built on: it is judged only after that one is decided."""
    below = (each for each in opened if each.number < experiment.number)
    return next((each for each in below if each.commit == experiment.parent), None)


def end_useless_trials(oc: OpenCampaign) -> bool:
    """End trials whose result nobody needs any more; whether there were any.

    Those are trials of an earlier attempt, and re-tests of what is no longer the incumbent.
    """
    if not (trials := oc.ledger.open_trials(oc.tag)):
        return False
    incumbent = oc.ledger.incumbent(oc.tag)
    attempts = {each.number: each.attempt for each in oc.ledger.open_experiments(oc.tag)}

    def is_useless(trial: Trial) -> bool:
        if trial.purpose is Purpose.RETEST:
            return incumbent is None or trial.number != incumbent.number
        return trial.purpose in (Purpose.SCREEN, Purpose.CONFIRM) and trial.attempt != attempts.get(trial.number)

    useless = [trial for trial in trials if is_useless(trial)]
    end_trials(oc, useless)
    return bool(useless)


def follow_incumbent(oc: OpenCampaign) -> None:
    """Re-base each experiment ahead whose base is neither the incumbent nor open any more.

    One that was already judged to be no gain stays as it is: it is one beside the code it was compared with.
    """
    opened = oc.ledger.open_experiments(oc.tag)
    incumbent = oc.ledger.incumbent(oc.tag)
    if incumbent is None or not any(each.is_ahead for each in opened):
        return
    for experiment in opened:
        moved = experiment.is_ahead and experiment.parent != incumbent.commit and not awaited(experiment, opened)
        if moved and (experiment.state is State.RUNNING or would_be_kept(experiment)):
            _rebase(oc, experiment, incumbent)


def _rebase(oc: OpenCampaign, experiment: Experiment, incumbent: Experiment) -> None:
    """Take what the experiment changes over to the incumbent as a new attempt, which begins without trials.

    A sweep's point is its values, whatever the incumbent has there; any other change is merged.
    Where that is not possible it is judged a miss, with a reason that says why.
    """
    old, new, onto = experiment.parent, experiment.commit, incumbent.commit
    paths = differing_paths(oc, old, new)
    options = _own_options(oc, experiment, incumbent)
    message = f"experiment: {one_line(experiment.description)}"
    try:
        if constants := options["ahead"].get("constants"):
            commit = oc.repo.commit_texts(onto, texts_with(oc, onto, constants), message)
        else:
            commit = oc.repo.commit_entries(onto, transplant(oc.repo, paths, old=old, new=new, onto=onto), message)
        check_sources(oc, paths, parent=onto, commit=commit, options=options, beside=incumbent)
    except ConflictError as conflict:
        base = _base(oc, experiment)
        why = f"{conflict.path} was changed at the same lines by {_name(incumbent)}, kept meanwhile"
        if base.status is not Status.KEEP:
            why = f"it changes lines of {conflict.path} that {_name(base)} had changed, which was not kept"
        _give_up(oc, experiment, why)
        return
    except KeyError as gone:
        _give_up(oc, experiment, f"{_name(incumbent)} has no {gone.args[0]}")
        return
    except RefusedError as error:
        _give_up(oc, experiment, f"on {_name(incumbent)} it is refused: {error.message}")
        return
    before = experiment.incumbent
    experiment.attempt += 1
    experiment.commit, experiment.parent, experiment.tree = commit, onto, oc.repo.tree_of(commit)
    experiment.incumbent, experiment.options = incumbent.number, options
    experiment.lines_added, experiment.lines_deleted = oc.repo.line_counts(onto, commit)
    experiment.state, experiment.verdict, experiment.judgement, experiment.reason = State.RUNNING, "", {}, ""
    experiment.metric = experiment.peak_mem_mib = None
    with oc.ledger.transaction():
        oc.ledger.update_experiment(
            experiment, "attempt", "commit", "parent", "tree", "incumbent", "options", "lines_added", "lines_deleted",
            "state", "verdict", "judgement", "reason", "metric", "peak_mem_mib",
        )  # fmt: skip
        oc.tell("rebase", f"experiment {experiment.number}, made on experiment {before}, is now on {_name(incumbent)}")
    hold_at_ref(oc, experiment)


def texts_with(oc: OpenCampaign, commit: str, constants: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """The files of ``commit`` that define ``constants`` (``{path: {name: literal}}``), with these values in them."""
    return {path: replace(oc.repo.text(commit, path) or "", values) for path, values in constants.items()}


def _own_options(oc: OpenCampaign, experiment: Experiment, incumbent: Experiment) -> dict[str, Any]:
    """The experiment's options with the arguments and environment that it changed itself, on the incumbent's."""
    own = own_settings(experiment, _base(oc, experiment))
    options = dict(experiment.options)
    options["arguments"] = {**experiment_arguments(incumbent), **own["arguments"]}
    options["environment"] = {**experiment_environment(incumbent), **own["environment"]}
    options["ahead"] = {**options["ahead"], "rebased_from": experiment.incumbent}
    return options


def _base(oc: OpenCampaign, experiment: Experiment) -> Experiment:
    """What ``experiment`` was made on."""
    assert experiment.incumbent is not None, "a baseline is never ahead"
    base = oc.ledger.experiment(oc.tag, experiment.incumbent)
    assert base is not None, "an experiment is never deleted"
    return base


def _give_up(oc: OpenCampaign, experiment: Experiment, reason: str) -> None:
    experiment.state, experiment.verdict, experiment.judgement = State.JUDGED, "inconclusive", {"decision": "discard"}
    experiment.reason = f"its change cannot be taken over: {reason}"
    book_numbers(oc, experiment)
    with oc.ledger.transaction():
        oc.ledger.update_experiment(
            experiment, "state", "verdict", "judgement", "reason", "metric", "peak_mem_mib"
        )  # fmt: skip
        oc.tell("rebase", f"experiment {experiment.number}: {experiment.reason}")


def _name(incumbent: Experiment) -> str:
    return "the baseline" if incumbent.is_baseline else f"experiment {incumbent.number}"
