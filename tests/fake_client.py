"""A client for tests: a prompt, a short turn for each line, and habits by name.

``python fake_client.py FOLDER HABIT [TASK]``. What it is told it appends to FOLDER/heard.jsonl.
"""

from __future__ import annotations

import json
import signal
import sys
import termios
import time
from pathlib import Path

TURN_S = 0.3
ASLEEP_S = 600.0


def draw(*lines: str) -> None:
    sys.stdout.write("\033[2J\033[H" + "\n".join(lines))
    sys.stdout.flush()


def turn(folder: Path, text: str) -> None:
    with (folder / "heard.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(text) + "\n")
    draw("fake client", "", "> ", "  working")
    time.sleep(TURN_S)


def main(folder: Path, habit: str, *task: str) -> int:
    if habit == "fails":
        sys.stdout.write("Invalid key\n")
        return 1
    if habit == "mute":
        draw("fake client", "", "> ")
        attributes = termios.tcgetattr(0)
        attributes[3] &= ~termios.ECHO
        termios.tcsetattr(0, termios.TCSANOW, attributes)
        time.sleep(ASLEEP_S)
    if habit == "strange":
        draw("Welcome to version 99", "~ beam me up ~")
        time.sleep(ASLEEP_S)
    if habit == "deaf":
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGINT, lambda *_: None)
    for text in task:
        turn(folder, text)
    while True:
        draw("fake client", "", "> ")
        line = sys.stdin.readline().rstrip("\n")
        if line == "/exit" and habit != "deaf":
            return 0
        if line:
            turn(folder, line)
        elif not line:
            time.sleep(TURN_S)  # deaf to the end of its terminal, too


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *sys.argv[2:]))
