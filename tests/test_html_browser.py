"""The report as a reader meets it: in a browser, with a mouse, offline."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page
from tests.browser import DESKTOP, PHONE, Visit, chromium, visit
from tests.campaign_kinds import KINDS, NASTY, nasty_texts, read_small
from tests.ledger_builder import LedgerBuilder
from tests.simulated_campaign import simulate

from autoresearch.output import one_line
from autoresearch.report.format import number, signed
from autoresearch.report.html_report import render_report
from autoresearch.report.series import ExperimentPoint, Series, read_series

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("browser")]


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Series:
    folder = tmp_path_factory.mktemp("night") / "project"
    simulate(folder, runs=110, open_one=True)
    return read_series(folder)[0]


@pytest.fixture(scope="module")
def report(series: Series, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(series, tmp_path_factory.mktemp("report"))


@pytest.fixture
def visited(browser: Browser, report: Path) -> Iterator[Visit]:
    with visit(browser, report) as visited:
        yield visited
        assert visited.complaints == []
        assert all(url.startswith(("file:", "data:", "blob:")) for url in visited.asked)


def written(series: Series, folder: Path) -> Path:
    path = folder / "report.html"
    path.write_text(render_report(series), encoding="utf-8")
    return path


def rows(page: Page) -> list[list[str]]:
    """The texts of the table's cells, over all its pages."""
    found: list[list[str]] = []
    while True:
        found += page.eval_on_selector_all(
            "#table tbody tr", "rows => rows.map(row => [...row.cells].map(cell => cell.textContent))"
        )
        if page.locator("#next").is_disabled():
            return found
        page.click("#next")


def numbers(page: Page) -> list[int]:
    return [int(row[0]) for row in rows(page)]


def group_of(each: ExperimentPoint) -> str:
    return "undone" if each.undone else each.status


def cells(each: ExperimentPoint) -> list[str]:
    """What the table says of an experiment, by the rules of the text report."""
    gain = signed(each.gain)
    if each.gain_low is not None and each.gain_high is not None:
        gain += f" ± {(each.gain_high - each.gain_low) / 2:.2g}"
    return [
        str(each.number),
        group_of(each),
        number(each.metric),
        gain,
        "-" if each.z is None else f"{each.z:.1f}",
        str(len(each.trials)),
        f"+{each.lines_added} -{each.lines_deleted}",
        each.family,
        one_line(each.description, 160),
    ]


def place_of(page: Page, chart: str, trace: str, number: int) -> tuple[float, float]:
    """Where on the screen the marker of experiment ``number`` stands."""
    page.locator(f"#{chart}").scroll_into_view_if_needed()
    x, y = page.evaluate(
        """([chart, name, number]) => {
            const drawn = document.getElementById(chart);
            const trace = drawn.data.find((each) => each.name === name);
            const at = trace.customdata.indexOf(number);
            const { xaxis, yaxis } = drawn._fullLayout;
            const box = drawn.getBoundingClientRect();
            return [box.x + xaxis._offset + xaxis.d2p(trace.x[at]), box.y + yaxis._offset + yaxis.d2p(trace.y[at])];
        }""",
        [chart, trace, number],
    )
    return x, y


# ---- what it shows


def test_the_whole_table_says_what_the_ledger_says(visited: Visit, series: Series) -> None:
    assert rows(visited.page) == [cells(each) for each in reversed(series.experiments)]


@pytest.mark.parametrize("kind", ["tiny", "huge", "only_crashes", "a_new_epoch", "nothing", "deterministic"])
def test_campaigns_of_every_kind_are_shown_without_complaint(browser: Browser, tmp_path: Path, kind: str) -> None:
    series = read_small(tmp_path / "project", KINDS[kind], "higher")
    with visit(browser, written(series, tmp_path)) as visited:
        assert visited.complaints == []
        if series.experiments:
            assert rows(visited.page) == [cells(each) for each in reversed(series.experiments)]
        else:
            assert "No experiment has been run yet" in visited.page.inner_text("main")


@pytest.mark.parametrize(("kind", "shown"), [("only_crashes", False), ("deterministic", True)])
def test_a_chart_without_a_number_is_left_out(browser: Browser, tmp_path: Path, kind: str, shown: bool) -> None:
    series = read_small(tmp_path / "project", KINDS[kind])
    bare = [replace(each, peak_mem_mib=each.peak_mem_mib if shown else None) for each in series.experiments]
    with visit(browser, written(replace(series, experiments=bare), tmp_path)) as visited:
        assert visited.page.locator("#memory-chart").is_visible() is shown
        assert visited.page.locator("#watched-chart").is_visible() is shown
        assert visited.page.locator("#time-chart").is_visible()
        assert visited.complaints == []


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE])
def test_the_legend_of_the_times_lies_below_their_axis(
    browser: Browser, report: Path, viewport: dict[str, int]
) -> None:
    with visit(browser, report, viewport=viewport) as visited:
        title = visited.page.locator("#time-chart .xtitle").bounding_box()
        legend = visited.page.locator("#time-chart .legend .bg").bounding_box()
        assert title is not None
        assert legend is not None
        assert legend["y"] >= title["y"] + title["height"] - 1


def test_numbers_of_any_size_are_written_as_in_the_text_report(browser: Browser, tmp_path: Path) -> None:
    values = [0.00099, 9.99e-5, 1.5e-12, 123456.789, 999999.9999999, 1234567.891, 1e12, -0.5, 0.0, 2 / 3]

    def fill(builder: LedgerBuilder) -> None:
        builder.baseline([1.0, 1.01, 0.99])
        for value in values:
            builder.idea(f"{value}", [value])

    series = read_small(tmp_path / "project", fill)
    with visit(browser, written(series, tmp_path)) as visited:
        assert rows(visited.page) == [cells(each) for each in reversed(series.experiments)]


def test_hovering_tells_of_an_experiment_and_a_click_opens_it(visited: Visit, series: Series) -> None:
    page = visited.page
    each = next(each for each in series.experiments if each.kept and not each.is_baseline)
    x, y = place_of(page, "progress-chart", "kept", each.number)
    page.mouse.move(x, y)
    label = page.locator("#progress-chart .hoverlayer")
    label.locator("text").first.wait_for()
    told = label.text_content() or ""
    assert f"#{each.number}" in told
    assert one_line(each.description, 90) in told
    assert number(each.metric) in told
    page.mouse.click(x, y)
    assert page.locator("#detail-title").inner_text().startswith(f"#{each.number}")


def test_a_detail_shows_reason_note_seeds_curve_and_diff(visited: Visit, series: Series) -> None:
    page = visited.page
    each = [each for each in series.experiments if each.kept and not each.is_baseline][-1]
    page.click("#statuses [data-status=keep]")
    page.click(f"#table tr[data-number='{each.number}']")
    told = page.locator("#detail-body").inner_text()
    assert each.reason in told
    assert each.note in told
    for trial in each.trials:
        assert number(trial.metric) in told
    lines = page.eval_on_selector_all("#detail-body .diff .add", "lines => lines.map(line => line.textContent)")
    assert lines == [line for line in each.diff.splitlines() if line.startswith("+") and not line.startswith("+++")]
    assert page.locator("#detail-chart .scatterlayer .trace").count() == 2, "its curve and the incumbent's"
    page.keyboard.press("Escape")
    assert not page.locator("#detail").is_visible()


def test_the_details_can_be_leafed_through(visited: Visit, series: Series) -> None:
    page = visited.page
    page.click("#table tbody tr:first-child")
    last = series.experiments[-1].number
    assert page.locator("#detail-title").inner_text().startswith(f"#{last}")
    assert page.locator("#detail-previous").is_disabled()
    page.click("#detail-next")
    assert page.locator("#detail-title").inner_text().startswith(f"#{last - 1}")
    page.click("#detail-close")
    assert not page.locator("#detail").is_visible()


# ---- filters and order


def test_filters_by_status_family_and_words(visited: Visit, series: Series) -> None:
    page, experiments = visited.page, series.experiments[::-1]
    for group in ("keep", "undone", "discard", "crash", "open"):
        expected = [each.number for each in experiments if group_of(each) == group]
        if expected:
            page.click(f"#statuses [data-status={group}]")
            assert numbers(page) == expected
    page.click("#statuses [data-status='']")
    page.select_option("#family", "optimizer")
    assert numbers(page) == [each.number for each in experiments if each.family == "optimizer"]
    page.fill("#search", "lr 0")
    wanted = [each.number for each in experiments if each.family == "optimizer" and _matches(each, "lr 0")]
    assert 0 < len(wanted) < len(experiments)
    assert numbers(page) == wanted
    page.fill("#search", "nothing has these words")
    assert numbers(page) == []


def _matches(each: ExperimentPoint, words: str) -> bool:
    text = f"#{each.number} {each.commit[:7]} {each.description} {each.family}".lower()
    return all(word in text for word in words.split())


def test_a_click_on_a_heading_sorts_and_another_one_turns_it_round(visited: Visit, series: Series) -> None:
    page = visited.page
    measured = sorted(
        (each for each in series.experiments if each.metric is not None), key=lambda each: each.metric or 0
    )
    missing = [each.number for each in series.experiments if each.metric is None]
    page.click("#table th[data-key=metric] button")
    assert numbers(page) == [each.number for each in reversed(measured)] + missing
    page.click("#table th[data-key=metric] button")
    assert numbers(page) == [each.number for each in measured] + missing
    assert page.get_attribute("#table th[data-key=metric]", "aria-sort") == "ascending"


# ---- safety


def test_hostile_texts_are_shown_and_never_run(browser: Browser, tmp_path: Path) -> None:
    series = read_small(tmp_path / "project", nasty_texts)
    series = replace(series, summary=replace(series.summary, metric=NASTY[0], insights="\n".join(NASTY)))
    with visit(browser, written(series, tmp_path)) as visited:
        page = visited.page
        page.evaluate("addEventListener('securitypolicyviolation', () => { window.hacked = 2 })")
        for each in series.experiments:
            page.click(f"#table tr[data-number='{each.number}']")
            assert one_line(each.description)[:100] in page.locator("#detail-title").inner_text().replace("\n", " ")
            page.click("#detail-close")
            if each.kept:
                page.mouse.move(*place_of(page, "progress-chart", "kept", each.number))
                page.locator("#progress-chart .hoverlayer text").first.wait_for()
        assert page.evaluate("window.hacked") is None
        assert page.locator("img, iframe, object, embed").count() == 0
        assert page.locator("script").count() == 3
        assert page.locator("main a:not([href^='#'])").count() == 0
        assert visited.complaints == []


def test_the_policy_stops_a_script_that_got_in_and_every_request(browser: Browser, report: Path) -> None:
    with visit(browser, report) as visited:
        page = visited.page
        page.evaluate(
            """() => {
                const script = document.createElement('script');
                script.textContent = 'window.hacked = 1';
                document.body.append(script);
                return fetch('http://127.0.0.1:9/').catch(() => null);
            }"""
        )
        assert page.evaluate("window.hacked") is None
        assert any("Content Security Policy" in complaint for complaint in visited.complaints)


# ---- looks


@pytest.mark.parametrize("viewport", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_the_screen_in_light_and_dark(
    browser: Browser, report: Path, viewport: dict[str, int], scheme: str
) -> None:
    with visit(browser, report, viewport=viewport, color_scheme=scheme) as visited:
        page = visited.page
        assert page.evaluate("document.documentElement.scrollWidth") <= viewport["width"]
        ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert _lightness(ground) > 200 if scheme == "light" else _lightness(ground) < 60
        page.click("#theme")
        turned = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (_lightness(turned) > 128) is (scheme == "dark")
        label = page.evaluate("getComputedStyle(document.querySelector('#progress-chart .xtick text')).fill")
        assert (_lightness(label) > 128) is (scheme == "light"), "the charts change with the page"
        assert visited.complaints == []


def _lightness(colour: str) -> float:
    """The mean of red, green and blue of ``rgb(1, 2, 3)``."""
    parts = [float(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    return sum(parts) / 3


def test_the_axis_can_be_hours(visited: Visit, series: Series) -> None:
    page = visited.page
    page.click("[data-axis=hours]")
    last = page.evaluate(
        "Math.max(...document.getElementById('progress-chart').data.find((each) => each.name === 'discarded').x)"
    )
    assert last == pytest.approx(
        max(each.start_s for each in series.experiments if each.status == "discard" and not each.undone) / 3600,
        rel=1e-3,
    )


# ---- while the campaign runs


def test_a_running_campaign_s_page_reloads_and_keeps_what_was_chosen(
    browser: Browser, series: Series, tmp_path: Path
) -> None:
    last_at = series.summary.last_at
    assert last_at is not None
    file = written(replace(series, read_at=last_at), tmp_path)
    with visit(browser, file, clock=last_at) as visited:
        page = visited.page
        assert page.locator("#live").is_visible()
        page.click("#statuses [data-status=crash]")
        page.click("#theme")
        crashed = numbers(page)
        later = replace(series, summary=replace(series.summary, tag="newer"), read_at=last_at)
        file.write_text(render_report(later), encoding="utf-8")
        with page.expect_navigation():
            page.clock.run_for(31_000)
        assert page.inner_text("h1") == "newer"
        assert numbers(page) == crashed
        assert page.get_attribute("html", "data-theme") == "dark"
        page.click("#table tbody tr:first-child")
        page.evaluate("window.read = true")
        page.clock.run_for(40_000)
        assert page.evaluate("window.read"), "nothing is taken away from someone who reads the details"
        page.click("#detail-close")
        page.clock.fast_forward(6 * 3_600_000)
        page.evaluate("window.read = true")
        assert not page.locator("#live").is_visible()
        page.clock.run_for(60_000)
        assert page.evaluate("window.read"), "a campaign that is long quiet is not looked for"


def test_a_page_of_an_ended_campaign_stays(browser: Browser, series: Series, tmp_path: Path) -> None:
    last_at = series.summary.last_at
    assert last_at is not None
    path = tmp_path / "report.html"
    path.write_text(render_report(replace(series, read_at=last_at), finished=True), encoding="utf-8")
    with visit(browser, path, clock=last_at) as visited:
        page: Any = visited.page
        page.evaluate("window.read = true")
        page.clock.run_for(120_000)
        assert page.evaluate("window.read")
        assert not page.locator("#live").is_visible()
