"""The tmux session of a night: start programs in its windows, see their screens, press keys.

One session has a window for each of its agents, and one more, the monitor. They are known by options
that we set on them, so a user may rename, move, split and watch them; what carries no such option is
never touched.
tmux may vanish at any moment, and then every question here is answered with None or False. A server that is
stopped or hangs is another matter: its windows are still there, so SilentError says that nothing is known.
"""

from __future__ import annotations

import re
import tempfile
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from uuid import uuid4

from autoresearch.agents.spawn import Handover
from autoresearch.errors import AgentError, MachineError, UsageError

if TYPE_CHECKING:
    from libtmux.common import tmux_cmd

    from autoresearch.agents.screen import Screen

LEAST_TMUX = (3, 2)  # options of panes, `copy-mode -q`
SESSION_MARK = "@autoresearch"
ROLE_MARK = "@autoresearch_role"
HISTORY_LINES = 50_000
START_PATIENCE_S = 30.0  # a cold interpreter on a busy machine
ANSWER_PATIENCE_S = 10.0  # tmux itself answers in milliseconds
NAME = re.compile(r"\w[\w-]{0,99}")  # tmux takes dots and colons for parts of a target, and renames silently
SOCKET = re.compile(r"[\w.-]{1,60}")  # a file's name; a socket's whole path may have 107 bytes
# Typed text is pasted: an escape in it could end the paste, and a control key would act.
NOT_TYPABLE = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
FIELDS = ("pane_id", "pane_dead", "pane_pid", "pane_dead_status", "pane_dead_signal", "pane_current_command")

AGENT = "agent"  # the window of a session's only agent
MONITOR = "monitor"


class SilentError(AgentError):
    """tmux is there and does not answer: whether the session and its programs are there, nobody can say."""

    default_code = "tmux_silent"

    def __init__(self) -> None:
        super().__init__(
            f"tmux does not answer: no word from its server in {ANSWER_PATIENCE_S:g} s.",
            hint="It is stopped or hangs. Find it with pgrep -af tmux, and let it go on: kill -CONT PID",
        )


class Pane(NamedTuple):
    """What tmux says about one of our panes; ``pid`` outlives the process if ``dead``."""

    id: str
    dead: bool
    pid: int
    exit_status: str
    command: str


class Terminal:
    """One agent's window and monitor in the session ``session``, there or not.

    The session is on the tmux server of ``socket`` (tmux's own default without). Whoever opens or closes
    windows of one session at the same time as others must take turns with them.
    """

    def __init__(
        self, session: str, *, socket: str | None = None, window: str = AGENT, config_file: Path | None = None
    ) -> None:
        """``config_file`` is read instead of the user's if this starts the tmux server.

        Raises UsageError for names that tmux would change or misunderstand.
        """
        from libtmux import Server

        if not NAME.fullmatch(session):
            raise UsageError(
                f"{session!r} can't be the name of a tmux session; expected letters, digits, - and _.",
                hint="python scripts/launch_tmux.py --session night1",
            )
        if socket is not None and not SOCKET.fullmatch(socket):
            raise UsageError(f"{socket!r} can't be the name of a tmux socket; expected letters, digits, ., - and _.")
        self.session = session
        self.socket = socket
        self.window = window
        self._monitor = MONITOR if window == AGENT else f"{MONITOR} {window}"
        # By name, not by $TMUX: whoever asks later, and from wherever, must come to the same server.
        self._server = Server(socket_name=socket or "default", config_file=str(config_file) if config_file else None)
        self._asked: Future[tmux_cmd] | None = None  # the last call, answered or not

    # --- the session ---------------------------------------------------------------------------

    def start(
        self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path, width: int = 200, height: int = 50
    ) -> None:
        """Run ``argv`` in a new window of the agent, in the session, which is made if it is not there.

        ``env`` is the program's whole environment, but for what tells of other terminals and of an enclosing agent.
        The window stays when the program ends, and keeps its size whoever looks on: the screen is
        read by a program, which must not depend on a person's terminal.
        Raises AgentError if the window is there already, if the session is not ours, or tmux refuses.
        """
        require_tmux()
        self._refuse_existing()
        if self.exists():
            self._new_window(self.window, argv, env, cwd, (width, height))
            return
        of_session = ("set-option", "-q", "-t", f"={self.session}:")
        with Handover() as handover:
            # A pane's history is bounded when the pane is made, so the session needs its options before.
            made = self._must(
                ("new-session", "-d", "-s", self.session, "-x", str(width), "-y", str(height), "sleep", "60"),
                (*of_session, SESSION_MARK, self.session),
                (*of_session, "destroy-unattached", "off"),
                (*of_session, "history-limit", str(HISTORY_LINES)),
                (*of_session, "default-size", f"{width}x{height}"),
                ("new-window", "-k", "-P", "-F", "#{pane_id}", "-t", f"={self.session}:^", "-n", self.window,
                 *handover.command),
                ("set-option", "-q", "-w", "-t", f"={self.session}:^", "remain-on-exit", "on"),
            )  # fmt: skip
            try:
                self._must(*self._window_options(self.window, width, height, made[0]))
                self._give(handover, argv, env, cwd)
            except AgentError:
                self.kill()  # it would be in the way of the next try
                raise

    def respawn(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Run the next program in the agent's window, in place of whatever is there, with the history kept.

        Only what had not yet scrolled off the screen is lost; ``look`` before if it matters.
        Raises AgentError if the session or the window has gone.
        """
        self._replace(self._agent(), argv, env, cwd)

    def open_monitor(self, argv: Sequence[str], *, env: Mapping[str, str], cwd: Path) -> None:
        """Run ``argv`` in the monitor window, in a pane of its own; the agent's window stays in front."""
        panes = self._panes()
        if own := panes.get(self._monitor):
            self._replace(own, argv, env, cwd)
        elif others := [pane for role, pane in panes.items() if is_monitor(role)]:
            self._split(others[-1], argv, env, cwd)
        else:
            size = self._ask(("display-message", "-p", "-t", self._agent().id, "#{window_width} #{window_height}"))
            width, height = (size[0] if size else "200 50").split()
            self._new_window(self._monitor, argv, env, cwd, (int(width), int(height)))

    def exists(self) -> bool:
        """Whether the session is there and ours."""
        return bool(self._mark())

    def is_taken(self) -> bool:
        """Whether there is a session of this name, ours or not."""
        return self._mark() is not None

    def has_window(self) -> bool:
        """Whether the agent has its window, with a program in it or with one that has ended."""
        return self._pane(self.window) is not None

    def kill(self) -> bool:
        """End the agent's window and monitor, and with the last agent the session; False if there was nothing of ours.

        Their programs are told by SIGHUP.
        """
        if not self.exists():
            return False
        panes = self._panes()
        if not any(role != self.window and not is_monitor(role) for role in panes):
            return self._ask(("kill-session", "-t", f"={self.session}")) is not None
        monitor, window = panes.get(self._monitor), panes.get(self.window)
        if monitor:
            self._ask(("kill-pane", "-t", monitor.id))
        if window:
            self._ask(("kill-window", "-t", window.id))
        return bool(monitor or window)

    # --- the agent's window --------------------------------------------------------------------

    def look(self) -> Screen | None:
        """The agent's screen at this moment; None if window, session or server has gone.

        ``lines`` are without the empty ones at the end; a scrolled-back view of a person changes nothing.
        """
        from autoresearch.agents.screen import Screen

        pane = self._pane(self.window)
        if pane and pane.dead and not pane.exit_status:
            # tmux 3.3 can miss the end of a child, and collects it when another of its children ends.
            self._ask(("run-shell", "true"))
            pane = self._pane(self.window)
        if pane is None:
            return None
        first = "-1" if pane.dead else "0"  # tmux scrolls by a line to write that the pane is dead
        # One call, so that title and lines belong together.
        shown = self._ask(
            ("display-message", "-p", "-t", pane.id, "#{pane_title}"),
            ("capture-pane", "-p", "-t", pane.id, "-S", first),
        )
        if shown is None:
            return None
        title, *lines = shown or [""]
        return Screen(lines=lines, title=title, dead=pane.dead, exit_status=pane.exit_status, command=pane.command)

    def pid(self) -> int | None:
        """The process that the agent's window runs; None if it has ended."""
        pane = self._pane(self.window)
        return None if pane is None or pane.dead else pane.pid

    def press(self, *keys: str) -> bool:
        """Press ``keys``, by tmux's names (``Enter``, ``Down``, ``C-c``, ``2``); False if nobody is there."""
        pane = self._pane(self.window)
        if pane is None or pane.dead:
            return False
        # Whoever scrolled back and went to bed left the pane in a mode that takes the keys for its own.
        leave_mode = ("copy-mode", "-q", "-t", pane.id)
        return self._ask(leave_mode, ("send-keys", "-t", pane.id, "--", *keys)) is not None

    def enter(self) -> bool:
        return self.press("Enter")

    def type_line(self, text: str) -> bool:
        """Put ``text`` where the cursor is, as one paste and without Enter; False if nobody is there.

        Every character arrives but control characters, which are left out, save tab and newline.
        What a client makes of a tab is its own affair.
        """
        pane = self._pane(self.window)
        if pane is None or pane.dead:
            return False
        buffer = f"autoresearch-{uuid4().hex}"
        with tempfile.NamedTemporaryFile(prefix="autoresearch-") as file:  # 0600; commands have a limit of 16 KB
            file.write(NOT_TYPABLE.sub("", text).encode("utf-8", "replace"))
            file.flush()
            loaded = self._ask(("load-buffer", "-b", buffer, file.name))
        # -p: the program learns that this is a paste, if it asked to be told; -d: the buffer goes with it.
        return loaded is not None and self._ask(("paste-buffer", "-p", "-d", "-b", buffer, "-t", pane.id)) is not None

    # --- talking to tmux -----------------------------------------------------------------------

    def _refuse_existing(self) -> None:
        mark = self._mark()
        if mark is None or (mark and not self.has_window()):
            return
        if not mark:
            raise AgentError(
                f"tmux has a session {self.session!r} that isn't of autoresearch's making; it is left alone.",
                hint=f"Take another name: python scripts/launch_tmux.py --session {self.session}-night",
                code="session_taken",
            )
        raise AgentError(
            f"the tmux session {self.session!r} runs already.",
            hint=f"python scripts/launch_tmux.py --session {self.session} --status",
            code="session_exists",
        )

    def _mark(self) -> str | None:
        """What marks the session as ours; "" if it isn't, None if there is no session."""
        found = self._ask(
            ("has-session", "-t", f"={self.session}"),
            ("display-message", "-p", "-t", f"={self.session}:", f"#{{{SESSION_MARK}}}"),
        )
        return None if found is None else "".join(found)

    def _pane(self, role: str) -> Pane | None:
        return self._panes().get(role)

    def _panes(self) -> dict[str, Pane]:
        """The panes of the session that are ours, by their role: the name of an agent's window, or a monitor."""
        panes: dict[str, Pane] = {}
        wanted = "\t".join(f"#{{{name}}}" for name in (ROLE_MARK, *FIELDS))
        for line in self._ask(("list-panes", "-s", "-t", f"={self.session}:", "-F", wanted)) or []:
            role, pane_id, dead, pid, status, number, command = line.split("\t")
            if role:
                ended_by = status or (number and f"signal {number}")
                panes.setdefault(role, Pane(pane_id, dead == "1", int(pid), ended_by, command))
        return panes

    def _agent(self) -> Pane:
        pane = self._pane(self.window)
        if pane is None:
            raise AgentError(
                f"the tmux session {self.session!r} or its agent window has gone.",
                hint=f"python scripts/launch_tmux.py --session {self.session} --resume",
                code="session_gone",
            )
        return pane

    def _replace(self, pane: Pane, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        with Handover() as handover:
            self._must(("respawn-pane", "-k", "-t", pane.id, *handover.command))
            self._give(handover, argv, env, cwd)

    def _new_window(
        self, role: str, argv: Sequence[str], env: Mapping[str, str], cwd: Path, size: tuple[int, int]
    ) -> None:
        """Open a window behind the current one, which stays that."""
        name = MONITOR if is_monitor(role) else role
        with Handover() as handover:
            # -P: the options that follow need its name.
            made = self._must(
                ("new-window", "-d", "-P", "-F", "#{pane_id}", "-t", f"={self.session}:", "-n", name,
                 *handover.command),
            )  # fmt: skip
            self._must(*self._window_options(role, *size, made[0]))
            self._give(handover, argv, env, cwd)

    def _split(self, beside: Pane, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        """Open our monitor's pane in the window of another's."""
        with Handover() as handover:
            made = self._must(
                ("split-window", "-d", "-P", "-F", "#{pane_id}", "-t", beside.id, *handover.command)
            )  # fmt: skip
            self._must(
                ("set-option", "-p", "-t", made[0], ROLE_MARK, self._monitor),
                ("select-layout", "-t", made[0], "tiled"),
            )
            self._give(handover, argv, env, cwd)

    def _window_options(self, role: str, width: int, height: int, target: str) -> list[tuple[str, ...]]:
        """``target`` is the pane's id: a hook of the user may have split the window already."""
        of_window = ("set-option", "-q", "-w", "-t", target)
        return [
            ("set-option", "-p", "-t", target, ROLE_MARK, role),
            (*of_window, "remain-on-exit", "on"),
            (*of_window, "automatic-rename", "off"),
            (*of_window, "allow-rename", "off"),
            (*of_window, "allow-set-title", "on"),  # the client tells its state by the title; new in 3.5
            # Also keeps it so, whoever attaches: from now on the window's size is manual.
            ("resize-window", "-t", target, "-x", str(width), "-y", str(height)),
        ]

    def _give(self, handover: Handover, argv: Sequence[str], env: Mapping[str, str], cwd: Path) -> None:
        try:
            handover.give(argv, env, cwd, patience_s=START_PATIENCE_S)
        except OSError as error:
            raise AgentError(
                f"{argv[0]} did not start in tmux session {self.session!r}: {error}.",
                hint=f"python scripts/launch_tmux.py --session {self.session} --status",
                code="not_started",
            ) from error

    def _ask(self, *commands: tuple[str, ...]) -> list[str] | None:
        """The lines that tmux prints for ``commands``; None if it refuses one of them or isn't there."""
        done = self._run(commands)
        return None if done.returncode else done.stdout

    def _must(self, *commands: tuple[str, ...]) -> list[str]:
        done = self._run(commands)
        if done.returncode:
            said = " ".join(done.stderr) or f"exit code {done.returncode}"
            raise AgentError(f"tmux refused for session {self.session!r}: {said}.", code="tmux")
        return done.stdout

    def _run(self, commands: Sequence[tuple[str, ...]]) -> tmux_cmd:
        """Run ``commands`` in one go, as one client of tmux; SilentError if it says nothing.

        -u: without it the screen comes in ASCII wherever the caller's locale is not UTF-8, as under cron.
        """
        words: list[str] = []
        for command in commands:
            words += [";"] if words else []
            words += [re.sub(r";\Z", r"\\;", word) for word in command]
        from libtmux.exc import TmuxCommandNotFound

        if self._asked is not None:
            self._await(self._asked)  # where tmux hangs only one call at a time waits for it
        self._asked = asked = Future["tmux_cmd"]()
        threading.Thread(target=self._answer, args=(asked, words), daemon=True).start()
        try:
            return self._await(asked).result()
        except TmuxCommandNotFound:
            raise no_tmux() from None

    def _answer(self, asked: Future[tmux_cmd], words: Sequence[str]) -> None:
        """In a thread of its own: libtmux waits for ever for a server that hangs.

        Nor would it help to end its tmux: the server, stopped or not, has been handed the other ends of the pipes.
        """
        try:
            asked.set_result(self._server.cmd("-u", *words))
        except Exception as error:  # noqa: BLE001 - it is raised where the answer is waited for
            asked.set_exception(error)

    @staticmethod
    def _await(asked: Future[tmux_cmd]) -> Future[tmux_cmd]:
        if not wait([asked], ANSWER_PATIENCE_S).done:
            raise SilentError
        return asked


def is_monitor(role: str) -> bool:
    return role == MONITOR or role.startswith(f"{MONITOR} ")


def require_tmux() -> None:
    """Raise MachineError unless tmux is here and new enough."""
    from libtmux.common import tmux_cmd
    from libtmux.exc import TmuxCommandNotFound

    least = ".".join(map(str, LEAST_TMUX))
    try:
        said = " ".join(tmux_cmd("-V").stdout)
    except TmuxCommandNotFound:
        raise no_tmux() from None
    found = re.search(r"(\d+)\.(\d+)", said)  # "tmux 3.3a", "tmux next-3.6", "tmux master"
    if found and (int(found[1]), int(found[2])) < LEAST_TMUX:
        raise MachineError(f"tmux is too old: {said}; expected {least} or newer.", hint="Install a newer tmux.")


def no_tmux() -> MachineError:
    return MachineError("tmux is not installed, or not on PATH.", hint="apt install tmux, or brew install tmux")
