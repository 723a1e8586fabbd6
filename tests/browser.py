"""A headless Chromium, the machine's own one, driven by playwright."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# Read at import: the tests' own environment has none of our variables. Set where a browser must be there.
REQUIRED = os.environ.get("AUTORESEARCH_REQUIRE_BROWSER") == "1"
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@contextmanager
def chromium() -> Iterator[Browser]:
    """The browser; without one the test is skipped, or fails where one is required."""
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        message = f"no browser: none of {', '.join(PROGRAMS)} is installed"
        if REQUIRED:
            pytest.fail(message)
        pytest.skip(message)
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not work for root; the pages are ours.
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Visit:
    """An open page, with what it complained about and whom it asked."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)


@contextmanager
def visit(browser: Browser, file: Path, *, anchor: str = "", clock: str = "", **context: Any) -> Iterator[Visit]:
    """Open ``file``; with ``clock`` the page's time starts there and goes on only when it is told to."""
    opened = browser.new_context(**{"viewport": DESKTOP, **context})
    try:
        page = opened.new_page()
        visited = Visit(page)
        page.on("console", lambda message: visited.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: visited.complaints.append(f"error: {error}"))
        page.on("request", lambda request: visited.asked.append(request.url))
        if clock:
            page.clock.install(time=clock)
        page.goto(f"{file.as_uri()}{anchor}")
        yield visited
    finally:
        opened.close()
