"""What a person hears of a campaign while it runs: new bests, crash streaks, claims, being stuck."""

from __future__ import annotations

from autoresearch.campaign.opened import OpenCampaign
from autoresearch.ledger import Experiment, Status
from autoresearch.notify import Kind, notify
from autoresearch.verdict.keep_rule import KeepRule

STUCK_AFTER = 8  # misses in a row after which to look back, as often as the incumbent is run again
CRASHES_FIRST = 5  # crashes in a row that are worth a message, and after how many more the next one is
CRASHES_MORE = 10


def tell_decision(oc: OpenCampaign, experiment: Experiment) -> None:
    """Say what a decision just taken means, if it means something to a person who does other things."""
    if not oc.config.notify or experiment.is_baseline:
        return
    if experiment.status is Status.KEEP:
        _tell(oc, "new_best", *_new_best(oc, experiment))
        return
    crashes = oc.ledger.crashes_in_a_row(oc.tag)
    if crashes >= CRASHES_FIRST and (crashes - CRASHES_FIRST) % CRASHES_MORE == 0:
        title = f"{crashes} crashes in a row"
        _tell(oc, "crash_streak", title, f"The last one, experiment {experiment.number}: {experiment.reason}")
    misses = oc.ledger.misses_in_a_row(oc.tag)
    if misses % STUCK_AFTER == 0 and misses:
        body = f"Nothing was kept since experiment {experiment.number - misses}. The last one: {_what(experiment)}"
        _tell(oc, "stuck", f"{misses} experiments without a gain", body)


def tell_claim(oc: OpenCampaign, a: str, b: str, word: str, reason: str) -> None:
    """Say how a comparison on fresh seeds came out."""
    _tell(oc, "claim", f"{b} against {a}: {word}", reason)


def _new_best(oc: OpenCampaign, experiment: Experiment) -> tuple[str, str]:
    metric = oc.config.metric
    value = "unknown" if experiment.metric is None else f"{experiment.metric:.6g}"
    lines = [_what(experiment), experiment.reason]
    baseline = oc.ledger.baseline(oc.tag, oc.campaign.epoch)
    if baseline is not None and baseline.metric is not None:
        lines.append(f"The baseline is at {baseline.metric:.6g}.")
    if oc.campaign.rule is not None:
        lines.append(f"Credited gain on it: {KeepRule.from_json(oc.campaign.rule).credited_gain:+.3g}.")
    claim = oc.campaign.claim
    if claim.get("word"):
        lines.append(f"Last claim, {claim['b']} against {claim['a']}: {claim['reason']}")
    return f"new best {metric.name} {value}", "\n".join(line for line in lines if line)


def _what(experiment: Experiment) -> str:
    return f"Experiment {experiment.number}: {experiment.description}"


def _tell(oc: OpenCampaign, kind: Kind, title: str, body: str) -> None:
    notify(oc.config.notify, oc.folder, kind, f"{oc.tag}: {title}", body)
