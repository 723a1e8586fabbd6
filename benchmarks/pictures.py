"""Draw the pictures under docs/: the chart and the report of a simulated night, in a real browser."""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MOST_BYTES = 300_000
SHARE_DONE = 0.47  # of the trial under way: the night has a clock of its own

sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]


@dataclass(frozen=True)
class Shot:
    """One picture of the page: the screen, what is opened on it, and how much of its height is taken."""

    name: str
    width: int
    height: int
    scheme: str
    scale: float = 1.0
    anchor: str = ""


SHOTS = (
    Shot("report-light", 1280, 1270, "light"),
    Shot("report-dark", 1280, 1270, "dark"),
    Shot("report-phone-light", 390, 1370, "light", scale=1.5),
    Shot("report-phone-dark", 390, 1370, "dark", scale=1.5),
    Shot("report-detail", 1280, 1040, "light", anchor="#e={kept}"),
)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder (default: %(default)s)")
    parser.add_argument("--runs", type=float, default=160, help="of the simulated night (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=5, help="(default: %(default)s)")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="pictures-") as folder:
        for picture in draw(Path(folder), arguments.out, arguments.runs, arguments.seed):
            shrink(picture)
            size = picture.stat().st_size
            print(f"{picture}  {size / 1000:.0f} kB" + "  too large" * (size > MOST_BYTES))
    return 0


def draw(folder: Path, out: Path, runs: float, seed: int) -> Iterator[Path]:
    from tests.browser import chromium, visit
    from tests.simulated_campaign import simulate

    from autoresearch.report.html_report import render_report
    from autoresearch.report.plot import plot_progress
    from autoresearch.report.series import read_series

    project, page = folder / "project", folder / "report.html"
    simulate(project, runs=runs, seed=seed, open_one=True)
    series = read_series(project)[0]
    last_at = series.summary.last_at
    assert last_at is not None
    trials = [{**trial, "elapsed_s": SHARE_DONE * trial["budget_s"]} for trial in series.summary.trials_under_way]
    summary = replace(series.summary, trials_under_way=trials)
    plot_progress(series, out / "progress.png")
    yield out / "progress.png"
    page.write_text(render_report(replace(series, read_at=last_at, summary=summary)), encoding="utf-8")
    kept = max((each for each in series.experiments if each.kept), key=lambda each: each.gain or 0.0).number
    with chromium() as browser:
        for shot in SHOTS:
            screen = {"width": shot.width, "height": shot.height}
            looks = {"viewport": screen, "color_scheme": shot.scheme, "device_scale_factor": shot.scale}
            with visit(browser, page, anchor=shot.anchor.format(kept=kept), clock=last_at, **looks) as visited:
                path = out / f"{shot.name}.png"
                visited.page.screenshot(path=path)
                yield path


def shrink(path: Path) -> None:
    """The best lossless compression."""
    from PIL import Image

    with Image.open(path) as image:
        plain = image.convert("RGB")
    plain.save(path, optimize=True)


if __name__ == "__main__":
    raise SystemExit(main())
