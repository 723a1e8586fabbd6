"""Campaigns of every kind that a report has to cope with, and texts that try to break out of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.ledger_builder import LedgerBuilder, make_repository

from autoresearch.ledger import Ledger
from autoresearch.report.series import Series, read_series

Fill = Callable[[LedgerBuilder], object]

NASTY = [
    "<script>window.hacked = 1</script>",
    "</script><img src=x onerror='window.hacked = 1'>",
    "<!-- <script>",
    "自主研究: 学习率加倍",
    "x" * 2_000,
    "tab\tand\nnewline",
    "\u202eright to left\u2028line\u2029paragraph\x00\x1b[31m",
    "{{ 7 * 7 }} {% for %} ${7 * 7} ]]>",
    "'\"&amp;<b>bold</b>",
    "costs $1 and $2 \\frac{a}{b} _^ 😀",
]


def nothing(builder: LedgerBuilder) -> None:
    pass


def only_a_baseline(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])


def a_baseline_of_one_run(builder: LedgerBuilder) -> None:
    builder.baseline([1.0])


def only_crashes(builder: LedgerBuilder) -> None:
    for at in range(3):
        builder.crash(f"idea {at}")


def deterministic(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.0, 1.0])
    builder.idea("better, and no doubt", [0.5])


def one_open_experiment(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99])
    builder.trial(builder.open("still running"), 1)


def tiny(builder: LedgerBuilder) -> None:
    builder.baseline([1e-9, 1.1e-9, 0.9e-9])
    builder.idea("less", [0.2e-9, 0.3e-9])


def huge(builder: LedgerBuilder) -> None:
    builder.baseline([1e9, 1.1e9, 0.9e9])
    builder.idea("less", [0.2e9, 0.3e9])


def a_new_epoch(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.1])
    builder.idea("in the first epoch", [0.9, 0.9])
    builder.new_epoch()
    builder.baseline([70.0, 71.0])


def a_new_epoch_without_a_baseline(builder: LedgerBuilder) -> None:
    builder.baseline([1.0])
    builder.new_epoch()
    builder.open("the next baseline")


def nasty_texts(builder: LedgerBuilder) -> None:
    builder.baseline([1.0, 1.01, 0.99], description=NASTY[1])
    for at, text in enumerate(NASTY):
        experiment = builder.idea(text, [0.98 - at / 100] * 6, family=text)
        experiment.note = text
        builder.ledger.update_experiment(experiment, "note")
    builder.crash("crash", cause=NASTY[0])
    builder.ledger.add_event(builder.tag, NASTY[1], NASTY[0])


KINDS: dict[str, Fill] = {
    fill.__name__: fill
    for fill in (
        *(nothing, only_a_baseline, a_baseline_of_one_run, only_crashes, deterministic, one_open_experiment),
        *(tiny, huge, a_new_epoch, a_new_epoch_without_a_baseline, nasty_texts),
    )
}


def read_small(folder: Path, fill: Fill, direction: str = "lower") -> Series:
    """The campaign that ``fill`` writes into a new repository at ``folder``."""
    commits = make_repository(folder, commits=2)
    with Ledger(folder / ".git" / "autoresearch", create=True) as ledger:
        fill(LedgerBuilder(ledger, commits, direction=direction))
    return read_series(folder)[0]
