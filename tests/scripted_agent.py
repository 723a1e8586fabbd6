"""A scripted model that does research: it follows what the loop's scripts say, as a good agent would.

It remembers nothing: like a model, it knows what stands in the conversation that it is sent, so that a
client which loses its conversation loses its memory too, and status.py must be enough to go on.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import ROOT
from tests.scripted_model import Request, Turn, run, say, use

IDEA_WANTED = "the idea in a sentence"


def script(name: str, *arguments: str) -> str:
    """The command line that calls one of the bundle's scripts."""
    return shlex.join([sys.executable, str(ROOT / "scripts" / f"{name}.py"), *arguments])


@dataclass(frozen=True)
class Idea:
    """One experiment: a constant of train.py and its new value."""

    description: str
    constant: str
    value: int


@dataclass(kw_only=True)
class Researcher:
    """The agent of a scripted model: ``ScriptedModel(Researcher(...))``.

    With ``by_shell`` it edits with sed, for clients whose edit tool isn't called Edit. ``stamina`` is how
    many tools it uses before it stops and waits to be asked again.
    """

    project: Path
    ideas: Sequence[Idea]
    by_shell: bool = False
    stamina: int = sys.maxsize

    def __call__(self, request: Request) -> Turn:
        result = request.result
        if request.tools_used >= self.stamina:
            return say("That is done. Shall I go on?")
        if command := next_command(result):
            if IDEA_WANTED not in command:
                return run(command, "I follow the next step.")
            idea = self._idea(request)
            return self._begin(idea) if idea else say("I have tried all my ideas.")
        idea = self._idea(request)
        if idea and (code := shown_code(request)) and (found := re.search(rf"\b{idea.constant} = (\w+)", code)):
            return self._edit(idea, found[1])
        if idea and "has been updated" in result:
            return self._run(idea)
        return run(script("status"), "I look where things stand.")

    def _idea(self, request: Request) -> Idea | None:
        """The first idea that no answer of the scripts tells of."""
        return next((idea for idea in self.ideas if not any(tells_of(idea, text) for text in request.results)), None)

    def _begin(self, idea: Idea) -> Turn:
        if self.by_shell:
            edit = shlex.join(["sed", "-i", f"s/^{idea.constant} = .*/{idea.constant} = {idea.value}/", "train.py"])
            return run(f"{edit} && {self._command(idea)}", f"I try {idea.description}.")
        return use("Read", "I read the code.", file_path=str(self.project / "train.py"))

    def _edit(self, idea: Idea, value: str) -> Turn:
        if value == str(idea.value):  # edited, and then the client was killed
            return self._run(idea)
        return use(
            "Edit", f"I try {idea.description}.", file_path=str(self.project / "train.py"),
            old_string=f"{idea.constant} = {value}", new_string=f"{idea.constant} = {idea.value}",
        )  # fmt: skip

    def _run(self, idea: Idea) -> Turn:
        return run(self._command(idea), "I run it.")

    def _command(self, idea: Idea) -> str:
        return script("run_experiment", "-d", idea.description)


def next_command(text: str) -> str:
    """The command that a script's answer ends with; "" if there is none.

    A failed experiment is given up: the step's own command is for who can mend it. A refused command
    has its next one behind an arrow.
    """
    if steps := re.findall(r"(?m)^next: (.*)\n  (\S.*)$", text):
        step, command = steps[-1]
        return script("log_result", "--status", "crash") if "give it up" in step else str(command)
    hints = re.findall(rf"(?m)^  → ({re.escape(sys.executable)} .*)$", text)
    return str(hints[-1]) if hints else ""


def shown_code(request: Request) -> str:
    """The code of train.py if the last tool has shown it, or has said that it is still what was shown before."""
    shown = [text for text in request.results if "\timport prepare" in text]
    return shown[-1] if shown and (request.result is shown[-1] or "unchanged since your last" in request.result) else ""


def tells_of(idea: Idea, text: str) -> bool:
    """Whether an answer of the scripts names an experiment with this idea."""
    description = re.escape(idea.description)
    return bool(re.search(rf"(?m)^experiment \d+: {description} \(commit|^ +\d+ [0-9a-f]{{7}} .* {description}$", text))
