from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.terminal_bench import SOCKET, TerminalBench, bench, shell, shows
from tests.trial_bench import eventually

from autoresearch.agents import spawn
from autoresearch.agents.spawn import Handover
from autoresearch.agents.terminal import Terminal
from autoresearch.errors import AgentError, MachineError, UsageError

__all__ = ["bench"]  # the fixture

CAT = shell("stty -echo", "echo ready", "exec cat")
# Takes what is typed to the byte, and says so; with `paste` it asks to be told of pastes, as clients do.
RECORDER = """
import os, sys, tty
tty.setraw(0)
if "paste" in sys.argv:
    os.write(1, b"\\x1b[?2004h")
with open("typed", "wb", buffering=0) as file:
    os.write(1, b"ready")
    while True:
        file.write(os.read(0, 65536))
"""
LENGTHS = "import os, sys; print(len(sys.argv[1].encode()), len(os.environ['BIG'])); input()"
# Another patience than the real one, in a process of its own: what runs out is a signal that ends it.
HASTY = "import sys; sys.path.insert(0, sys.argv[1]); import spawn; spawn.PATIENCE_S = 1; spawn.main(sys.argv[2])"
LINES = {
    "leading dash": "--help -t x",
    "trailing semicolon": "first; second;",
    "escaped semicolon": r"a\;",
    "quotes": """it's "quoted" `id` $HOME $(id) \\n %% #{pane_id} !!""",
    "tab": "a\tb",
    "blanks": "  a  b  ",
    "chinese": "自主研究 自动实验",
    "emoji": "🚀 👩‍🔬 é",
    "4 KB": "0123456789abcde;" * 256,
    "64 KB": "自" * 21_000,
    "lone semicolon": ";",
    "a key's name": "Enter",
}


@pytest.fixture
def recorder(bench: TerminalBench) -> Callable[..., Callable[[], bytes]]:
    """Start the recorder in ``terminal``; returns what tells the bytes so far."""

    def start(terminal: Terminal, *arguments: str) -> Callable[[], bytes]:
        bench.start(sys.executable, "-c", RECORDER, *arguments, terminal=terminal)
        shows(terminal, "ready")
        return (bench.folder / "typed").read_bytes

    return start


# --- start and end -----------------------------------------------------------------------------


def test_program_runs_in_its_folder_with_the_given_environment_and_size(bench: TerminalBench):
    terminal = bench.start(*shell('echo "$PWN $WORD"', "pwd", "stty size", "cat"), WORD="自主 'q' $x")
    screen = shows(terminal, "50 200")
    assert screen.lines[:3] == [" 自主 'q' $x", str(bench.folder), "50 200"]
    assert not screen.dead
    eventually(lambda: (now := terminal.look()) and now.command == "sh")  # tmux may be a moment behind


def test_nothing_of_the_tmux_servers_environment_reaches_the_program(
    bench: TerminalBench, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SERVERS_OWN", "secret")
    of_elsewhere = {"TMUX": "/elsewhere,1,0", "TERM": "xterm-kitty", "COLORTERM": "truecolor"}
    env = {"PATH": os.environ["PATH"], "HOME": "/h", "CALLERS": "1", **of_elsewhere}
    terminal = bench.terminal()
    terminal.start(shell("env", "echo that is all", "cat"), env=env, cwd=bench.folder)
    lines = shows(terminal, "that is all").lines
    told = dict(line.partition("=")[::2] for line in lines if "=" in line)
    assert not {"SERVERS_OWN", "COLORTERM"} & told.keys()
    assert (told["HOME"], told["CALLERS"]) == ("/h", "1")
    assert re.match("tmux|screen", told["TERM"])
    assert told["TMUX"].startswith(f"{os.environ['TMUX_TMPDIR']}/")


def test_marks_of_an_enclosing_agent_do_not_reach_the_program(bench: TerminalBench):
    """With CLAUDE_CODE_CHILD_SESSION Claude Code writes neither its session file nor its transcript."""
    kept = {"CLAUDE_CODE_OAUTH_TOKEN": "t", "CLAUDE_CONFIG_DIR": "/c", "ANTHROPIC_API_KEY": "k"}
    marks = {"CLAUDECODE": "1", "CLAUDE_CODE_CHILD_SESSION": "1", "CLAUDE_CODE_SESSION_KIND": "bg"}
    terminal = bench.terminal()
    terminal.start(shell("env; echo end; cat"), env={"PATH": os.environ["PATH"], **kept, **marks}, cwd=bench.folder)
    lines = shows(terminal, "end").lines
    assert {f"{name}={value}" for name, value in kept.items()} <= set(lines)
    assert [line for line in lines if line.partition("=")[0] in marks] == []


def test_pid_is_the_programs_own(bench: TerminalBench):
    terminal = bench.start(*shell("echo pid $$", "cat"))
    assert f"pid {terminal.pid()}" in shows(terminal, "pid").lines


def test_window_stays_when_the_program_ends(bench: TerminalBench):
    terminal = bench.start(*shell("echo last words", "exit 3"))
    screen = eventually(lambda: (found := terminal.look()) and found.dead and found)
    assert "last words" in screen.lines
    assert terminal.pid() is None
    assert terminal.exists()
    assert not terminal.press("Enter")
    assert not terminal.type_line("x")


def test_exit_status_is_told(bench: TerminalBench):
    terminal = bench.start(*shell("exit 3"))
    assert eventually(lambda: (found := terminal.look()) and found.dead and found.exit_status) == "3"


@pytest.mark.parametrize(("argv", "cwd"), [(["no-such-program"], "."), (["cat"], "missing")])
def test_what_cannot_be_started_says_why_in_the_window(bench: TerminalBench, argv: list[str], cwd: str):
    terminal = bench.terminal()
    terminal.start(argv, env={"PATH": os.environ["PATH"]}, cwd=bench.folder / cwd)
    screen = shows(terminal, "No such file or directory")
    assert f"cannot run {argv[0]}" in " ".join(screen.lines)
    assert eventually(lambda: (found := terminal.look()) and found.exit_status) == str(spawn.NOT_STARTED)


def test_failed_start_leaves_no_session_behind(bench: TerminalBench, monkeypatch: pytest.MonkeyPatch):
    """As when the environment of the launcher's Python was deleted."""
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    monkeypatch.setattr("autoresearch.agents.terminal.START_PATIENCE_S", 0.5)
    with pytest.raises(AgentError, match="did not start") as failed:
        bench.start("cat")
    assert failed.value.code == "not_started"
    assert not bench.terminal().exists()


def test_task_of_100_kb_and_a_large_environment_arrive(bench: TerminalBench):
    task = "自主研究; 'task' $x\n" * 5000
    env = {"PATH": os.environ["PATH"], "BIG": "b" * 100_000}
    terminal = bench.terminal()
    terminal.start(
        [sys.executable, "-c", LENGTHS, task],
        env=env,
        cwd=bench.folder,
    )
    shows(terminal, f"{len(task.encode())} 100000")


def test_signals_are_as_a_shell_would_leave_them(bench: TerminalBench):
    """Python ignores SIGPIPE, and a program that inherits that never ends by it."""
    terminal = bench.start(*shell("yes | head -1", "grep SigIgn /proc/$$/status", "echo end; cat"))
    ignored = next(line for line in shows(terminal, "end").lines if line.startswith("SigIgn"))
    assert not int(ignored.split()[1], 16) & (1 << (signal.SIGPIPE - 1))


def test_kill_ends_session_and_program(bench: TerminalBench):
    terminal = bench.start(*CAT)
    pid = terminal.pid()
    assert pid is not None
    assert terminal.kill()
    eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert not terminal.exists()
    assert not terminal.kill()


def test_another_process_finds_the_session(bench: TerminalBench):
    bench.start(*CAT)
    assert "ready" in shows(bench.terminal(), "ready").lines


# --- sessions that are not ours ----------------------------------------------------------------


def test_session_of_the_user_is_never_touched(bench: TerminalBench):
    bench.tmux("new-session", "-d", "-s", "night", "-n", "agent", "cat")
    terminal = bench.terminal()
    with pytest.raises(AgentError, match="isn't of autoresearch's making") as refused:
        bench.start("cat", terminal=terminal)
    assert refused.value.code == "session_taken"
    assert "--session" in refused.value.hint
    assert (terminal.exists(), terminal.look(), terminal.pid()) == (False, None, None)
    assert not terminal.press("C-c")
    assert not terminal.type_line("x")
    assert not terminal.kill()
    with pytest.raises(AgentError):
        terminal.respawn(["cat"], env={}, cwd=bench.folder)
    with pytest.raises(AgentError):
        terminal.open_monitor(["cat"], env={}, cwd=bench.folder)
    assert bench.tmux("list-sessions", "-F", "#{session_name}") == "night\n"
    assert bench.tmux("list-panes", "-a", "-F", "#{pane_dead}#{pane_current_command}") == "0cat\n"


def test_second_start_is_refused_and_the_first_goes_on(bench: TerminalBench):
    terminal = bench.start(*CAT)
    pid = terminal.pid()
    with pytest.raises(AgentError, match="runs already"):
        bench.start("true", terminal=terminal)
    assert terminal.pid() == pid


def test_session_whose_name_begins_the_same_is_another(bench: TerminalBench):
    bench.start(*CAT, terminal=bench.terminal("night-2"))
    assert not bench.terminal("night").exists()
    assert not bench.terminal("night").kill()
    bench.start(*CAT)
    assert bench.terminal("night").kill()
    assert bench.terminal("night-2").exists()


@pytest.mark.parametrize("name", ["a.b", "a:b", "", "-t", "a b", "=a", "$1", "@1", "a\nb", "a/b"])
def test_name_that_tmux_would_change_or_misread_is_refused(name: str):
    with pytest.raises(UsageError, match="can't be the name"):
        Terminal(name)


@pytest.mark.parametrize("socket", ["", "a/b", "-x y", "x" * 200])
def test_socket_that_is_no_files_name_is_refused(socket: str):
    with pytest.raises(UsageError, match="socket"):
        Terminal("night", socket=socket)


@pytest.mark.parametrize("name", ["apr5", "apr-5_b", "自主研究"])
def test_good_names_work(bench: TerminalBench, name: str):
    terminal = bench.start(*CAT, terminal=bench.terminal(name))
    assert terminal.exists()
    shows(terminal, "ready")


# --- tmux comes and goes -----------------------------------------------------------------------


def assert_nobody_is_there(terminal: Terminal) -> None:
    assert terminal.look() is None
    assert terminal.pid() is None
    assert (terminal.exists(), terminal.press("Enter"), terminal.enter(), terminal.type_line("x")) == (False,) * 4
    assert not terminal.kill()


def test_without_a_server_nobody_is_there(bench: TerminalBench):
    assert_nobody_is_there(bench.terminal())


def test_killed_server_is_nobody_there_and_a_new_start_works(bench: TerminalBench):
    terminal = bench.start(*CAT)
    os.kill(bench.server_pid(), signal.SIGKILL)
    eventually(lambda: not terminal.exists())
    assert_nobody_is_there(terminal)
    with pytest.raises(AgentError, match="has gone"):
        terminal.respawn(["cat"], env={}, cwd=bench.folder)
    bench.start(*CAT, terminal=terminal)
    shows(terminal, "ready")


def test_tmux_that_is_stopped_is_told_in_time_and_nothing_is_lost(
    bench: TerminalBench, monkeypatch: pytest.MonkeyPatch
):
    terminal = bench.start(*CAT)
    shows(terminal, "ready")
    monkeypatch.setattr("autoresearch.agents.terminal.ANSWER_PATIENCE_S", 0.5)
    server = bench.server_pid()
    os.kill(server, signal.SIGSTOP)
    try:
        for ask in (terminal.look, terminal.pid, terminal.exists, terminal.enter, terminal.kill):
            with pytest.raises(AgentError, match="tmux does not answer"):
                ask()
    finally:
        os.kill(server, signal.SIGCONT)
    shows(terminal, "ready")


def test_closed_agent_window_is_nobody_there(bench: TerminalBench):
    terminal = bench.start(*CAT)
    bench.tmux("new-window", "-t", "night:", "cat")
    bench.tmux("kill-window", "-t", "night:agent")
    assert (terminal.look(), terminal.pid(), terminal.press("Enter")) == (None, None, False)
    assert terminal.exists()
    assert terminal.kill()


def test_missing_tmux_is_the_machines_fault(bench: TerminalBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MachineError, match="tmux is not installed"):
        bench.start("cat")


@pytest.mark.parametrize(("version", "good"), [("tmux 3.1c", False), ("tmux 2.9", False), ("tmux 3.2", True)])
def test_old_tmux_is_refused(
    bench: TerminalBench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, version: str, good: bool
):
    fake = tmp_path / "bin" / "tmux"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\n[ \"$1\" = -V ] && echo '{version}' && exit\nexit 1\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", str(fake.parent), prepend=os.pathsep)
    with pytest.raises(AgentError if good else MachineError, match="refused" if good else "too old: tmux"):
        bench.start("cat")


def test_works_from_within_tmux(bench: TerminalBench, monkeypatch: pytest.MonkeyPatch):
    """The session comes to the named server, whichever one this process stands in."""
    monkeypatch.setenv("TMUX", "/nowhere/tmux-0/default,1,0")
    monkeypatch.setenv("TMUX_PANE", "%99")
    terminal = bench.start(*CAT)
    shows(terminal, "ready")
    assert bench.tmux("list-sessions", "-F", "#{session_name}") == "night\n"


def test_awkward_settings_of_the_user_do_no_harm(bench: TerminalBench):
    bench.config.write_text(
        "set -g base-index 1\nsetw -g pane-base-index 1\nset -g destroy-unattached on\nset -g renumber-windows on\n"
        "setw -g remain-on-exit off\nsetw -g automatic-rename on\nset -g history-limit 10\nsetw -g mode-keys vi\n"
        "set -g default-command 'exit 1'\nset -g default-shell /bin/false\n",
        encoding="utf-8",
    )
    terminal = bench.start(*shell("seq 1000", "echo ready", "cat"))
    shows(terminal, "ready")
    terminal.open_monitor(CAT, env={"PATH": os.environ["PATH"]}, cwd=bench.folder)
    assert bench.tmux("list-windows", "-a", "-F", "#{window_name}") == "agent\nmonitor\n"
    assert bench.tmux("capture-pane", "-p", "-S", "-", "-t", "night:agent").startswith("1\n2\n")


# --- looking -----------------------------------------------------------------------------------


def test_hook_of_the_user_that_splits_new_windows_gets_no_keys_of_the_agent(bench: TerminalBench):
    bench.config.write_text("set-hook -g after-new-window 'split-window \"echo mine; cat\"'\n", encoding="utf-8")
    terminal = bench.start(*CAT)
    shows(terminal, "ready")
    terminal.type_line("to the agent")
    terminal.enter()
    assert "mine" not in shows(terminal, "to the agent").lines


def test_screen_comes_as_it_is_whatever_the_callers_locale(bench: TerminalBench, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LC_ALL", "C")
    terminal = bench.start(*shell(r"printf '\033]2;⠂ 研究\007'", "printf '>\\302\\240x ⏵⏵ 自主\\n  ready\\n'", "cat"))
    screen = shows(terminal, "ready")
    assert screen.lines == [">\u00a0x ⏵⏵ 自主", "  ready"]
    assert screen.title == "⠂ 研究"


def test_blank_screen_without_title_is_a_screen(bench: TerminalBench):
    terminal = bench.start(*shell(r"printf '\033]2;\007'", "touch up", "sleep 60"))
    eventually((bench.folder / "up").exists)
    screen = eventually(lambda: (found := terminal.look()) and found.title == "" and found)
    assert list(screen.lines) == []


def test_title_with_separators_is_whole(bench: TerminalBench):
    terminal = bench.start(*shell(r"printf '\033]2;a | b; c #{pane_id}\007'", "echo ready", "cat"))
    assert eventually(lambda: (found := terminal.look()) and found.title.startswith("a") and found.title) == (
        "a | b; c #{pane_id}"
    )


def test_who_looks_on_with_a_small_terminal_changes_nothing(bench: TerminalBench):
    terminal = bench.start(*shell("while :; do clear; stty size; sleep 0.1; done"))
    shows(terminal, "50 200")
    onlooker = subprocess.Popen(
        ["script", "-qc", f"stty rows 10 cols 40; tmux -L {SOCKET} attach -t night", "/dev/null"],
        stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, env={**os.environ, "TERM": "xterm"},
    )  # fmt: skip
    try:
        eventually(lambda: bench.tmux("list-clients"))
        shows(terminal, "50 200")
        assert bench.tmux("display-message", "-p", "-t", "night:agent", "#{window_width}") == "200\n"
    finally:
        bench.tmux("detach-client", "-s", "night")
        onlooker.communicate(timeout=10)
    assert terminal.exists()


# --- keys and text -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", LINES)
def test_typed_line_arrives_to_the_byte_and_without_enter(bench: TerminalBench, recorder, name: str):
    terminal = bench.terminal()
    typed = recorder(terminal)
    assert terminal.type_line(LINES[name])
    assert terminal.press("F12")  # whatever comes before it has come
    end = b"\x1b[24~"
    assert eventually(lambda: typed().endswith(end) and typed()) == LINES[name].encode() + end


def test_program_that_asked_for_it_is_told_that_it_is_a_paste(bench: TerminalBench, recorder):
    terminal = bench.terminal()
    typed = recorder(terminal, "paste")
    assert terminal.type_line("two\nlines;")
    assert eventually(lambda: typed().endswith(b"~") and typed()) == b"\x1b[200~two\rlines;\x1b[201~"


def test_typed_text_cannot_press_keys_or_end_the_paste(bench: TerminalBench, recorder):
    terminal = bench.terminal()
    typed = recorder(terminal, "paste")
    assert terminal.type_line("a\x1b[201~\x03\x04\x7fb\x9bc")
    assert eventually(lambda: typed().endswith(b"~") and typed()) == b"\x1b[200~a[201~bc\x1b[201~"


def test_no_buffer_stays_in_tmux_and_the_users_stay(bench: TerminalBench, recorder):
    terminal = bench.terminal()
    typed = recorder(terminal)
    bench.tmux("set-buffer", "-b", "mine", "precious")
    terminal.type_line("abc")
    eventually(lambda: typed() == b"abc")
    assert bench.tmux("list-buffers", "-F", "#{buffer_name}") == "mine\n"


@pytest.mark.parametrize(
    ("keys", "wanted"),
    [
        (("Enter",), b"\r"),
        (("Down", "Enter"), b"\x1b[B\r"),
        (("2",), b"2"),
        (("Escape",), b"\x1b"),
        (("C-c",), b"\x03"),
        (("C-u",), b"\x15"),
        ((";",), b";"),
        (("-",), b"-"),
    ],
)
def test_keys_are_pressed(bench: TerminalBench, recorder, keys: tuple[str, ...], wanted: bytes):
    terminal = bench.terminal()
    typed = recorder(terminal)
    assert terminal.press(*keys)
    assert eventually(lambda: len(typed()) >= len(wanted) and typed()) == wanted


def test_keys_and_looks_work_while_somebody_has_scrolled_back(bench: TerminalBench):
    terminal = bench.start(*shell("seq 500", "echo ready", "read line", "echo got $line", "cat"))
    shows(terminal, "ready")
    for typing in ((lambda: terminal.type_line("hello")), terminal.enter):
        bench.tmux("copy-mode", "-t", "night:agent")
        bench.tmux("send-keys", "-t", "night:agent", "-X", "history-top")
        assert "1" not in shows(terminal, "500").lines
        assert typing()
    shows(terminal, "got hello")


def test_keys_go_to_the_agent_though_its_window_was_renamed_split_and_left(bench: TerminalBench):
    terminal = bench.start(*CAT)
    shows(terminal, "ready")
    bench.tmux("split-window", "-t", "night:agent", "cat")
    bench.tmux("rename-window", "-t", "night:agent", "mine")
    bench.tmux("new-window", "-t", "night:", "-n", "agent", "cat")
    terminal.type_line("for the agent")
    terminal.enter()
    assert list(shows(terminal, "for the agent").lines) == ["ready", "for the agent"]


# --- the next program, and the monitor ---------------------------------------------------------


def test_next_program_comes_into_the_same_window_and_history_is_kept(bench: TerminalBench):
    terminal = bench.start(*shell("seq 200"))
    eventually(lambda: (found := terminal.look()) and found.dead)
    window = bench.tmux("list-panes", "-a", "-F", "#{window_id} #{pane_id}")
    terminal.respawn(shell("echo second $WORD", "cat"), env={"PATH": os.environ["PATH"], "WORD": "w"}, cwd=Path("/"))
    assert list(shows(terminal, "second w").lines) == ["second w"]
    assert bench.tmux("list-panes", "-a", "-F", "#{window_id} #{pane_id}") == window
    history = bench.tmux("capture-pane", "-p", "-S", "-", "-t", "night:agent").splitlines()
    assert history[:3] == ["1", "2", "3"]
    assert "100" in history


def test_next_program_replaces_one_that_still_runs(bench: TerminalBench):
    terminal = bench.start(*CAT)
    first = terminal.pid()
    terminal.respawn(CAT, env={"PATH": os.environ["PATH"]}, cwd=bench.folder)
    assert terminal.pid() not in (None, first)
    eventually(lambda: not Path(f"/proc/{first}").exists())


def test_monitor_has_a_window_of_its_own_behind_the_agents(bench: TerminalBench):
    terminal = bench.start(*CAT)
    for word in ("one", "two"):  # the second replaces the first
        terminal.open_monitor(
            shell("echo watch $WORD", "cat"), env={"PATH": os.environ["PATH"], "WORD": word}, cwd=Path("/")
        )
        eventually(lambda: f"watch {word}" in bench.tmux("capture-pane", "-p", "-t", "night:monitor"))  # noqa: B023
    windows = bench.tmux("list-windows", "-a", "-F", "#{window_name} #{window_active} #{window_width}")
    assert windows == "agent 1 200\nmonitor 0 200\n"
    assert list(shows(terminal, "ready").lines) == ["ready"]


# --- the handover ------------------------------------------------------------------------------


def test_handover_leaves_nothing_on_disk_and_is_the_users_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with Handover() as handover:
        (folder,) = tmp_path.iterdir()
        fifo = Path(handover.command[-1])
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert stat.S_IMODE(fifo.stat().st_mode) == 0o600
        assert fifo.is_fifo()
        pane = subprocess.Popen(handover.command, stdout=subprocess.PIPE, text=True)
        handover.give(["sh", "-c", "echo $SECRET"], {"PATH": os.environ["PATH"], "SECRET": "s3cret"}, tmp_path)
        assert pane.communicate(timeout=30)[0] == "s3cret\n"
        assert not any("s3cret" in word for word in handover.command)
    assert list(tmp_path.iterdir()) == []


def test_launcher_does_not_wait_for_ever_for_a_pane(tmp_path: Path):
    with Handover() as handover, pytest.raises(TimeoutError):
        handover.give(["true"], {}, tmp_path, patience_s=0.1)


def test_launcher_does_not_wait_for_ever_for_a_pane_that_stopped_reading(tmp_path: Path):
    with Handover() as handover:
        fifo = os.open(handover.command[-1], os.O_RDONLY | os.O_NONBLOCK)
        with pytest.raises(TimeoutError):
            handover.give(["true"], {"BIG": "x" * 2**21}, tmp_path, patience_s=0.2)
        os.close(fifo)


def test_pane_that_died_half_way_is_an_error(tmp_path: Path):
    with Handover() as handover:
        fifo = os.open(handover.command[-1], os.O_RDONLY | os.O_NONBLOCK)
        threading.Timer(0.2, os.close, [fifo]).start()
        with pytest.raises(BrokenPipeError):
            handover.give(["true"], {"BIG": "x" * 2**21}, tmp_path)


def test_pane_does_not_wait_for_ever_for_a_launcher_that_died(tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    command = [sys.executable, "-c", HASTY, str(Path(spawn.__file__).parent), str(fifo)]
    pane = subprocess.run(command, check=False, timeout=20)
    assert pane.returncode == -signal.SIGALRM


def test_program_is_not_ended_by_the_patience_of_its_start(tmp_path: Path):
    with Handover() as handover:
        command = [sys.executable, "-c", HASTY, str(Path(spawn.__file__).parent), handover.command[-1]]
        pane = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        handover.give(["sh", "-c", "sleep 1.5; echo alive"], {"PATH": os.environ["PATH"]}, tmp_path)
        assert pane.communicate(timeout=20)[0] == "alive\n"


def test_pane_whose_launcher_died_in_mid_sentence_runs_nothing(tmp_path: Path):
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    pane = subprocess.Popen([sys.executable, "-I", spawn.__file__, str(fifo)], stderr=subprocess.PIPE, text=True)
    fifo.write_text('{"argv": ["touch", "pwn"]', encoding="utf-8")
    assert "was not told what to run" in pane.communicate(timeout=20)[1]
    assert pane.returncode == spawn.NOT_STARTED
