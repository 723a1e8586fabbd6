"""What a person reads of a night: ``report.html``, rewritten while it goes on, and ``summary.txt`` at its end."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass, field
from pathlib import Path

from autoresearch.agents.night import NightFolder, Options
from autoresearch.agents.task import BUNDLE, python


@dataclass
class Report:
    """The page of one night, written beside its record."""

    folder: NightFolder
    options: Options
    writer: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def rewrite(self) -> None:
        """Write the page anew, in a process of its own: a long campaign's takes seconds, and nobody waits for it."""
        if self.writer is not None and self.writer.poll() is None:
            return  # the next decision brings the next page
        script = str(BUNDLE / "scripts" / "summarize.py")
        self.writer = subprocess.Popen(
            [str(python()), script, "--project", self.options.project, "--tag", self.options.tag,
             "--html", str(self.folder.page)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/",
        )  # fmt: skip

    def finish(self) -> None:
        """Write page and summary for the last time; afterwards the page no longer reloads itself."""
        from autoresearch.report.html_report import write_report
        from autoresearch.report.summary import read_summaries
        from autoresearch.report.team import read_team
        from autoresearch.report.team_text import render_team
        from autoresearch.report.text import render

        if self.writer is not None:
            self.writer.wait()
        project = Path(self.options.project)
        (summary,) = read_summaries(project, tag=self.options.tag)
        parts = [render(summary)]
        if self.options.team and (found := read_team(project, tag=self.options.tag)):
            parts.insert(0, render_team(found[0]))
        self.folder.summary.write_text("\n".join(parts) + "\n", encoding="utf-8")
        write_report(project, self.folder.page, tag=self.options.tag, finished=True)
