"""What the page knows of a campaign, as compact JSON that stays below a size whatever the campaign holds.

Experiments are columns, one list for each quantity, in the order of their numbers. Every experiment is
there with its numbers and all its trials; long texts are cut, and learning curves, diffs and notes are
given to the experiments that a reader is most likely to open, for as long as there is room.
"""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from datetime import datetime, timedelta
from statistics import fmean
from typing import Any

from autoresearch.ledger import DECIDING
from autoresearch.output import one_line
from autoresearch.report.figures import Summary
from autoresearch.report.format import NORMAL_95
from autoresearch.report.series import Curve, ExperimentPoint, Series, TrialPoint, records, retests
from autoresearch.report.timeline import timeline
from autoresearch.report.window import metric_window

STATUSES = ("keep", "discard", "crash", "open")
PURPOSES = ("baseline", "screen", "confirm", "retest", "claim", "test")
OUTCOMES = ("completed", "pruned", "crashed", "timed_out", "diverged", "interrupted", "invalid", "running")
DESCRIPTION_WIDTHS = (2_000, 400, 200, 120, 80, 40)  # the first that leaves half of the room
TEXT_CHARS = 4_000  # of a note or a reason
DIFF_CHARS = 20_000
CURVE_POINTS = 96
WATCHED = 8  # quantities
QUIET_S = 1_800.0  # a campaign in which nothing has happened for so long, and no trial can run, has ended

JsonObject = dict[str, Any]


def payload(series: Series, *, room: int, finished: bool = False) -> JsonObject:
    """The campaign in at most about ``room`` bytes of JSON, which the columns of numbers may exceed."""
    experiments = series.experiments
    families = sorted({one_line(each.family, 60) for each in experiments})
    data: JsonObject = {
        "tag": series.summary.tag,
        "metric": one_line(series.summary.metric, 60),
        "direction": series.summary.direction,
        "epoch": series.summary.epoch,
        "readAt": series.read_at,
        "liveUntil": None if finished else _live_until(series),
        "statuses": STATUSES,
        "purposes": PURPOSES,
        "outcomes": OUTCOMES,
        "families": families,
        "columns": _columns(experiments, families),
        "levels": [[each.number, each.epoch, each.level, each.se] for each in series.levels],
        "credit": None if series.summary.credit is None else asdict(series.summary.credit),
        "bandSe": NORMAL_95,
        "retests": [[each.after, each.metric, each.number, each.seed] for each in retests(series)],
        "records": records(series),
        "window": _window(series),
        "timeline": _rounded(asdict(timeline(series))),
    }
    left = room - _size(data)
    data["columns"]["description"], left = _descriptions(experiments, left)
    for name, values in _watched(series):
        if (size := _size(values)) <= left / 2:
            data.setdefault("watched", {})[name] = values
            left -= size
    data["details"] = _details(experiments, left)
    return data


def script_json(data: JsonObject) -> str:
    """``data`` for a script element: nothing in it can end the element or begin another one."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text


def _size(data: Any) -> int:
    return len(json.dumps(data, ensure_ascii=False, separators=(",", ":")).encode())


def _live_until(series: Series) -> str | None:
    """Until when the page should look for a newer version of itself; None once the campaign is quiet."""
    last_at = series.summary.last_at
    if last_at is None:
        return None
    until = datetime.fromisoformat(last_at) + timedelta(seconds=QUIET_S + series.limit_s)
    return until.isoformat() if until > datetime.fromisoformat(series.read_at) else None


def _window(series: Series) -> list[float] | None:
    if all(each.metric is None for each in series.experiments):
        return None
    window = metric_window(series)
    return [window.low, window.high]


# ---- columns


def _columns(experiments: Sequence[ExperimentPoint], families: Sequence[str]) -> JsonObject:
    place = {family: at for at, family in enumerate(families)}
    read: dict[str, Callable[[ExperimentPoint], Any]] = {
        "number": lambda each: each.number,
        "epoch": lambda each: each.epoch,
        "status": lambda each: STATUSES.index(each.status),
        "incumbent": lambda each: each.incumbent,
        "undone": lambda each: int(bool(each.undone)),
        "verdict": lambda each: each.verdict,
        "family": lambda each: place[one_line(each.family, 60)],
        "commit": lambda each: each.commit[:7],
        "metric": lambda each: each.metric,
        "gain": lambda each: _short(each.gain),
        "margin": _margin,
        "z": lambda each: None if each.z is None else round(each.z, 6),
        "added": lambda each: each.lines_added,
        "deleted": lambda each: each.lines_deleted,
        "memory": lambda each: each.peak_mem_mib,
        "start": lambda each: round(each.start_s),
        "trials": lambda each: [_trial(trial) for trial in each.trials],
    }
    return {name: [of(each) for each in experiments] for name, of in read.items()}


def _margin(each: ExperimentPoint) -> float | None:
    """Half the 95 % interval of the gain, which is symmetric."""
    if each.gain_low is None or each.gain_high is None:
        return None
    return _short((each.gain_high - each.gain_low) / 2)


def _trial(trial: TrialPoint) -> list[Any]:
    """Seed, purpose, outcome, metric, seconds, attempt."""
    outcome = OUTCOMES.index(trial.outcome or "running")
    return [trial.seed, PURPOSES.index(trial.purpose), outcome, trial.metric, round(trial.duration_s, 1), trial.attempt]


def _short(value: float | None, digits: int = 9) -> float | None:
    return None if value is None else float(f"{value:.{digits}g}")


def _rounded(data: JsonObject) -> JsonObject:
    return {
        name: [round(value, 2) for value in values] if isinstance(values, list) else values
        for name, values in data.items()
    }


def _descriptions(experiments: Sequence[ExperimentPoint], room: int) -> tuple[list[str], int]:
    """The descriptions, cut so that they leave about half of the room, and what they leave."""
    whole = [one_line(each.description) for each in experiments]
    for width in DESCRIPTION_WIDTHS:
        texts = [one_line(text, width) for text in whole]
        size = _size(texts)
        if size <= room / 2:
            break
    return texts, room - size


def _watched(series: Series) -> Iterator[tuple[str, list[float | None]]]:
    """What the trials print beside the metric, as the mean of each experiment's; seconds come first."""
    yield "trial seconds", [_mean([trial.duration_s for trial in _deciding(each)]) for each in series.experiments]
    names = dict.fromkeys(name for trial in series.trials() for name in trial.watched)
    for name in list(names)[:WATCHED]:
        yield (
            one_line(name, 60),
            [
                _mean([trial.watched[name] for trial in _deciding(each) if name in trial.watched])
                for each in series.experiments
            ],
        )


def _deciding(each: ExperimentPoint) -> list[TrialPoint]:
    """The completed trials of the last attempt that its decision rests on."""
    return [
        trial
        for trial in each.trials
        if trial.completed and trial.attempt == each.attempt and trial.purpose in DECIDING
    ]


def _mean(values: Sequence[float]) -> float | None:
    return _short(fmean(values)) if values else None


# ---- details


def _details(experiments: Sequence[ExperimentPoint], room: int) -> JsonObject:
    """By number: full commits, reason, note, diff and learning curves, the most wanted first."""
    details: JsonObject = {}
    for each in sorted(experiments, key=lambda each: (each.kept, bool(each.undone), each.number), reverse=True):
        detail = _detail(each)
        room -= _size(detail) + 12
        if room < 0:
            break
        details[str(each.number)] = detail
    return details


def _detail(each: ExperimentPoint) -> JsonObject:
    curves = {
        str(trial.seed): _thinned(trial.curve)
        for trial in each.trials
        if trial.curve and trial.attempt == each.attempt and trial.purpose in (*DECIDING, "retest")
    }
    failures = [
        [trial.seed, block(trial.reason, TEXT_CHARS)] for trial in each.trials if trial.reason and not trial.completed
    ]
    found: JsonObject = {
        "commit": each.commit,
        "parent": each.parent,
        "reason": block(each.reason, TEXT_CHARS),
        "undone": block(each.undone, TEXT_CHARS),
        "note": block(each.note, TEXT_CHARS),
        "diff": block(each.diff, DIFF_CHARS),
        "failures": failures,
        "curves": curves,
    }
    return {name: value for name, value in found.items() if value}


def _thinned(curve: Curve) -> list[float]:
    """Fractions and losses in turn, at most ``CURVE_POINTS`` of them, the last one among them."""
    step = max(-(-len(curve) // CURVE_POINTS), 1)
    points = list(curve[::-1][::step][::-1])
    return [value for at, loss in points for value in (round(at, 4), float(f"{loss:.5g}"))]


def block(text: str, most: int) -> str:
    """Text of several lines without control and direction characters, cut to ``most`` characters."""
    plain = text.replace("\r\n", "\n")
    clean = "".join(char if char in "\n\t" or unicodedata.category(char)[0] != "C" else " " for char in plain[:most])
    return clean if len(plain) <= most else f"{clean}\n… cut"


def comparison(all_series: Sequence[Series]) -> list[JsonObject]:
    """For each campaign of the current epoch the credited gain over its baseline, after each decision."""
    return [_gains(series) for series in all_series]


def _gains(series: Series) -> JsonObject:
    summary: Summary = series.summary
    hours = {each.number: (each.decided_s or each.start_s) / 3600 for each in series.experiments}
    levels = [each for each in series.levels if each.epoch == summary.epoch]
    base = levels[0].level if levels else 0.0
    points = [[each.number, round(hours[each.number], 3), _short(series.sign * (each.level - base))] for each in levels]
    return {"tag": summary.tag, "metric": one_line(summary.metric, 60), "points": points}
