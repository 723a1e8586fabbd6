"""Send a line to a client and see that it arrived: a paste can be swallowed, and so can the Enter after it."""

from __future__ import annotations

import time

from autoresearch.agents.profile import Profile
from autoresearch.agents.screen import classify
from autoresearch.agents.terminal import Terminal

PATIENCE_S = 5.0
POLL_S = 0.1
ENTERS = 3


def deliver(terminal: Terminal, profile: Profile, text: str) -> bool:
    """Type ``text`` into the input box, send it, and wait until the box is empty or the client busy."""
    if profile.screen.placeholder and profile.screen.placeholder.search(text.lstrip()):
        text = f"Note: {text}"  # else the box would pass for empty with it
    terminal.press("C-u")  # what a human or a failed try left in the box
    if not terminal.type_line(text):
        return False
    if not _wait(terminal, profile, filled=True):
        return False
    for _ in range(ENTERS):
        terminal.enter()
        if _wait(terminal, profile, filled=False):
            return True
    terminal.press("C-u")
    return False


def _wait(terminal: Terminal, profile: Profile, *, filled: bool) -> bool:
    """Until the box holds something, or nothing any more; False if it does not come to that."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        screen = terminal.look()
        if screen is None:
            return False
        seen = classify(profile, screen)
        if bool(seen.box.strip()) is filled or (not filled and seen.state == "busy"):
            return True
        time.sleep(POLL_S)
    return False
