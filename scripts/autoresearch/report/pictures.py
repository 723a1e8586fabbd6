"""The charts and pages that ``summarize.py`` was asked for."""

from __future__ import annotations

from pathlib import Path

from autoresearch.errors import UsageError
from autoresearch.report.target import check_target


def check_pictures(plot: Path | None, html: Path | None, *, all_tags: bool) -> None:
    """``UsageError`` for a name that cannot be written, before anything that takes long."""
    from autoresearch.report.html_report import SUFFIXES
    from autoresearch.report.plot import FORMATS

    if plot is not None:
        check_target(plot, FORMATS, "--plot")
        if all_tags:
            raise UsageError(
                "--plot shows one campaign; expected --tag and not --all-tags.",
                hint="python scripts/summarize.py --all-tags --html report.html",
            )
    if html is not None:
        check_target(html, SUFFIXES, "--html")


def write_pictures(
    project: Path, plot: Path | None, html: Path | None, *, tag: str | None, all_tags: bool
) -> dict[str, str]:
    """Write what is asked for; returns ``{"plot": path, "html": path}`` of what was written."""
    written = {}
    if plot is not None:
        from autoresearch.report.plot import plot_progress
        from autoresearch.report.series import read_series

        plot_progress(read_series(project, tag=tag, detailed=0)[0], plot)
        written["plot"] = str(plot)
    if html is not None:
        from autoresearch.report.html_report import write_report

        write_report(project, html, tag=tag, all_tags=all_tags)
        written["html"] = str(html)
    return written
