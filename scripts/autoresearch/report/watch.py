"""``status.py --watch``: a campaign and its running trial on a terminal, drawn anew every two seconds."""

from __future__ import annotations

import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from autoresearch.output import one_line
from autoresearch.report.format import duration, margin, number, plural, signed
from autoresearch.report.live import Decision, Glance, Observer, RunningTrial
from autoresearch.report.open_text import OpenRow, open_lines
from autoresearch.report.page import LEAST_WIDTH, line

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

INTERVAL_S = 2.0
BLOCKS = "▁▂▃▄▅▆▇█"
PLAIN_BLOCKS = "_.-=+*#@"  # for a terminal without Unicode
BAR_WIDTH = 40
DECISIONS_AT_LEAST = 3  # that are shown before the devices of several trials
WORD_STYLES = {"keep": "green", "discard": "", "crash": "red"}


def watch(project: Path, tag: str | None) -> str:
    """Show the campaign until Ctrl-C; returns the last view as text, so that it stays on the terminal.

    A campaign that is not there, or goes away, is waited for. A change of the terminal's size is
    followed at once.
    """
    from rich.console import Console, ConsoleDimensions
    from rich.live import Live

    observer, console = Observer(project, tag), Console(highlight=False, markup=False, emoji=False)
    seen: Glance | str = ""

    def draw() -> None:
        # As it is now: what COLUMNS and LINES say may be a shell's, from before it was resized.
        console.size = ConsoleDimensions(*os.get_terminal_size(sys.stdout.fileno()))
        live.update(view(seen, console), refresh=True)

    with _wake_up() as wait, Live(console=console, screen=True, auto_refresh=False) as live:
        try:
            while True:
                seen = observer.look()
                draw()
                while wait(INTERVAL_S):
                    draw()
        except KeyboardInterrupt:
            pass
    return plain(seen, console.width)


@contextmanager
def _wake_up() -> Iterator[Callable[[float], bool]]:
    """Yields ``wait(seconds)``, which ends early and returns True if the terminal changes its size."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.signal(signal.SIGWINCH, lambda *_: None)  # without a handler nothing would be written
    earlier = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        yield lambda seconds: _is_woken(reader, seconds)
    finally:
        signal.set_wakeup_fd(earlier)
        signal.signal(signal.SIGWINCH, before)
        os.close(reader)
        os.close(writer)


def _is_woken(reader: int, seconds: float) -> bool:
    if not select.select([reader], [], [], seconds)[0]:
        return False
    os.read(reader, 4096)
    return True


def view(seen: Glance | str, console: Console) -> RenderableType:
    """What fits on the terminal as it is now, the last line left to the words on how to end it."""
    from rich.console import Group

    width, height = max(console.width, LEAST_WIDTH), console.height
    blocks = PLAIN_BLOCKS if "utf" not in console.encoding.lower() else BLOCKS
    lines = _lines(seen, width, height - 1, blocks)
    lines += [line("")] * (height - 1 - len(lines))
    return Group(*lines[: height - 1], line(f"{time.strftime('%H:%M:%S')}  Ctrl-C ends this view", "dim"))


def plain(seen: Glance | str, width: int) -> str:
    """The view without its colours, for after the end."""
    from autoresearch.report.page import print_page

    return print_page(_lines(seen, max(width, LEAST_WIDTH), 20, BLOCKS), width)


# ---- the lines


def _lines(seen: Glance | str, width: int, height: int, blocks: str) -> list[RenderableType]:
    if isinstance(seen, str):
        return [line(one_line(seen, 400), "yellow"), line("Waiting for it.", "dim")]
    lines: list[RenderableType] = [*_campaign(seen), line("─" * width if blocks is BLOCKS else "-" * width, "dim")]
    if seen.opened:
        lines += _several(seen.opened, width, height - len(lines))
    else:
        lines += _experiment(seen)
    if seen.running is not None and not seen.opened:
        lines += _trial(seen.running, width, blocks)
        lines += [line(one_line(text, 200)) for _, text in seen.devices]
    if seen.told:
        lines.append(line(one_line(seen.told, 400), "yellow"))
    if seen.opened:
        spare = height - len(lines) - 1 - min(len(seen.decisions), DECISIONS_AT_LEAST)
        lines += [line(f"{which} {one_line(text, 200)}", "dim") for which, text in seen.devices[: max(spare, 0)]]
    room = height - len(lines) - 1
    if seen.decisions and room > 0:
        lines.append(line("last decisions", "dim"))
        lines += _decisions(seen.decisions[:room])
    return lines


def _campaign(seen: Glance) -> Iterator[Text]:
    counts = {word: seen.counts.get(word, 0) for word in ("keep", "discard", "crash", "open")}
    yield line(f"{seen.tag}: {seen.metric}, {seen.direction} is better", "bold")
    text = f"{plural(sum(counts.values()), 'experiment')}: {counts['keep']} kept, {counts['discard']} discarded, "
    text += f"{counts['crash']} crashed" + (f", {counts['open']} open" if counts["open"] else "")
    yield line(text + (f"; {seen.misses_in_a_row} missed in a row" if seen.misses_in_a_row else ""))
    if seen.level is None or seen.se is None or seen.baseline is None:
        yield line("no baseline yet")
        return
    best = f"best {number(seen.level)} ± {margin(seen.se)} (95 %) from {number(seen.baseline)}"
    gained = bool(seen.gain)
    yield line(f"{best} ({signed(seen.gain)}, experiment {seen.best})" if gained else best, "green" if gained else "")


def _experiment(seen: Glance) -> Iterator[Text]:
    running = seen.running
    if running is not None and running.purpose == "retest":
        yield line(f"re-test of experiment {running.number} at seed {running.seed}", "bold")
    if seen.experiment:
        yield line(one_line(seen.experiment, 400), "bold")
        if seen.state in ("judged", "failed"):
            yield line(f"{seen.verdict}: the agent is to log it", "yellow")
    elif running is None:
        thinking = "" if seen.idle_s is None else f": the agent has been thinking for {duration(seen.idle_s)}"
        yield line(f"idle{thinking}", "bold")


def _several(opened: Sequence[OpenRow], width: int, height: int) -> Iterator[Text]:
    """All that is open, a line each; what does not fit is counted."""
    shown = len(opened) if len(opened) <= height else max(height - 1, 0)
    for row, text in zip(opened, open_lines(opened[:shown], width), strict=False):
        yield line(text, "yellow" if row.state.endswith("to be logged") else "")
    if shown < len(opened):
        yield line(f"… and {len(opened) - shown} more", "dim")


def _trial(running: RunningTrial, width: int, blocks: str) -> Iterator[RenderableType]:
    if running.purpose != "retest":
        yield line(f"{running.purpose} trial at seed {running.seed}")
    if running.waits_for:
        yield line(f"queued: {one_line(running.waits_for, 200)}", "yellow")
        return
    yield from _progress(running, width)
    if running.losses:
        last = running.losses[-1] if running.loss is None else running.loss
        label = f"loss {last:.4g} "
        yield line(label + sparkline(running.losses, max(width - len(label), 1), blocks), "cyan")


def _progress(running: RunningTrial, width: int) -> Iterator[RenderableType]:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    grid = Table.grid(padding=(0, 1))
    bar = ProgressBar(total=1.0, completed=running.fraction, width=min(BAR_WIDTH, max(width - 30, 8)))
    grid.add_row(bar, line(f"{running.fraction:.0%} of the run"))
    yield grid
    text = f"{duration(running.elapsed_s)} of {duration(running.budget_s)}"
    if running.ended:
        text += ", ended: its result is to be taken in"
    elif running.left_s is not None:
        text += f", about {duration(round(running.left_s))} left"
    yield line(text)


def _decisions(decisions: Sequence[Decision]) -> Iterator[Text]:
    from rich.text import Text

    digits = max(len(str(each.number)) for each in decisions)
    values = [number(each.metric) for each in decisions]
    gains = [signed(each.gain) for each in decisions]
    for each, value, gain in zip(decisions, values, gains, strict=True):
        yield Text.assemble(
            f"{each.number:>{digits}} ",
            (f"{each.status:<7}", WORD_STYLES.get(each.status, "")),
            f" {value:>{max(map(len, values))}} {gain:>{max(map(len, gains))}}  {one_line(each.description, 200)}",
            no_wrap=True,
            overflow="ellipsis",
        )


def sparkline(values: Sequence[float], width: int, blocks: str = BLOCKS) -> str:
    """``values`` as columns of blocks, each the mean of its share; the highest block is the highest mean."""
    count = min(len(values), width)
    edges = [at * len(values) // count for at in range(count + 1)]
    means = [sum(values[low:high]) / (high - low) for low, high in pairwise(edges)]
    low, high = min(means), max(means)
    step = (high - low) / (len(blocks) - 1) or 1.0
    return "".join(blocks[round((mean - low) / step)] for mean in means)
