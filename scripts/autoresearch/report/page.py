"""Pieces of a page for a terminal of any width: tables that give up columns, lines, and how they are printed."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import OverflowMethod, RenderableType
    from rich.table import Table
    from rich.text import Text

PIPED_WIDTH = 120  # columns
LEAST_WIDTH, MOST_WIDTH = 40, 200
GAP = 2  # between the columns of a table
LEAST_WORDS = 16  # what the last column of a table needs before others are left out for it


@dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table. Where it is narrow, the highest ``rank`` goes first; 0 stays."""

    title: str
    rank: int = 0
    words: bool = False  # flush left, figures are flush right


@dataclass(frozen=True, kw_only=True)
class Section:
    """A part of a page; one without ``parts`` is left out."""

    title: str
    parts: Sequence[RenderableType]


def table(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]], width: int, *, wraps: bool = False) -> Table:
    """A table without rules for ``width`` cells, of which only the last column, a description, is cut or ``wraps``."""
    from rich.table import Table

    shown = _fitting(columns, rows, width)
    made = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="dim", expand=True)
    for at in shown[:-1]:
        made.add_column(columns[at].title, justify="left" if columns[at].words else "right", no_wrap=True)
    # It takes what the others leave.
    overflow: OverflowMethod = "fold" if wraps else "ellipsis"
    made.add_column(columns[-1].title, no_wrap=not wraps, overflow=overflow, ratio=1)
    for row in rows:
        made.add_row(*(row[at] for at in shown))
    return made


def _fitting(columns: Sequence[Column], rows: Sequence[Sequence[Text | str]], width: int) -> list[int]:
    """The places of the columns that fit, the last one always among them."""
    from rich.cells import cell_len

    widths = [
        max(cell_len(text) for text in (column.title, *(str(row[at]) for row in rows))) + GAP
        for at, column in enumerate(columns[:-1])
    ]
    shown = list(range(len(widths)))
    while sum(widths[at] for at in shown) + LEAST_WORDS > width:
        last = max(shown, key=lambda at: columns[at].rank)
        if not columns[last].rank:
            break
        shown.remove(last)
    return [*shown, len(columns) - 1]


def facts(rows: Iterable[tuple[str, Text | str]]) -> Table:
    """Names and what there is to say of them, wrapped."""
    from rich.table import Table

    grid = Table.grid(padding=(0, GAP))
    grid.add_column(no_wrap=True, style="dim")
    grid.add_column()
    for name, value in rows:
        grid.add_row(name, value)
    return grid


def line(text: str, style: str = "") -> Text:
    """One line, cut where the page ends."""
    from rich.text import Text

    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def paragraph(text: str, style: str = "") -> Text:
    """As many lines as it takes."""
    from rich.text import Text

    return Text(text, style=style)


def command(text: str) -> Text:
    """A command to type; it is never broken, so that it can be copied."""
    from rich.text import Text

    return Text(f"   {text}", style="cyan", no_wrap=True, overflow="ignore")


def more(length: int, shown: int, what: str = "more") -> list[Text]:
    """How much a list of ``length`` goes on after the entries shown; [] if it does not."""
    return [line(f"… and {length - shown} {what}", "dim")] if length > shown else []


def page_width(width: int | None = None) -> int:
    """The width to lay out for: ``width`` if given, else stdout's, within what a page can have."""
    if width is None:
        width = shutil.get_terminal_size().columns if sys.stdout.isatty() else PIPED_WIDTH
    return min(max(width, LEAST_WIDTH), MOST_WIDTH)


def print_page(parts: Iterable[RenderableType], width: int, colour: bool | None = None) -> str:
    """The page as text; in colour if stdout is a terminal and NO_COLOR is not set, unless ``colour`` says."""
    from rich.console import Console
    from rich.text import Text

    if colour is None:
        colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    console = Console(
        file=StringIO(),
        width=width,
        force_terminal=colour,
        color_system="auto" if colour else None,
        markup=False,  # a description may hold [brackets] and :colons:
        emoji=False,
        highlight=False,
    )
    with console.capture() as captured:
        for part in parts:
            if isinstance(part, Text):  # rich forgets how a text is to be wrapped
                console.print(part, no_wrap=part.no_wrap, overflow=part.overflow, crop=False)
            else:
                console.print(part, crop=False)
    return "\n".join(text.rstrip() for text in captured.get().splitlines()) + "\n"
