"""``python .../runner/__main__.py [--detach | --guard] SPEC.json``: run one trial and leave its result beside the spec.

Exit codes: 0 there is a result, whatever the outcome, or the spec has been deleted or replaced, and nothing is
left behind; 1 a bug, told on stderr; 2 usage.
With ``--detach`` the trial runs on in a process that is no longer a descendant of the caller;
stdout gets one line about it, ``{"pid": …, "birth_mark": …}``, once it is on its own.
With ``--guard`` it runs in a child, and ends in order when this process is killed, as some engines do.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.dont_write_bytecode = True  # nothing is ever written into the bundle's folder
# The bundle's folder in place of this one, whose modules would hide others of the same names.
sys.path[:] = [entry for entry in sys.path if Path(entry).resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import contextlib
import json
import os
import signal

from autoresearch.runner.processes import birth_mark

SHRINK_BYTES = 64 * 2**10  # given back by the log when the disk is too full for the result


def main(arguments: list[str]) -> int:
    match arguments:
        case ["--detach", path]:
            detach()
        case ["--guard", path]:
            guard()
        case [path] if not path.startswith("-"):
            pass
        case _:
            sys.stderr.write("usage: __main__.py [--detach | --guard] SPEC.json\n")
            return 2

    # Only now: the caller of --detach need not wait for these.
    from autoresearch.runner.endings import crashed
    from autoresearch.runner.ownership import DisownedError, OwnSpec
    from autoresearch.runner.run import run_trial
    from autoresearch.trial import LOG_FILE, TrialResult, TrialSpec

    own = OwnSpec(Path(path))
    spec = TrialSpec.read(Path(path))
    directory = Path(spec.directory)
    if TrialResult.read(directory) is not None:  # started again by an engine that did not know
        return 0
    code = 0
    try:
        result = run_trial(spec, own)
        own.check()
    except DisownedError:  # whatever lies there now is another trial's
        return 0
    except Exception as error:  # noqa: BLE001 - a trial ends with a result, also one that met a bug
        import traceback

        traceback.print_exc()
        code = 1
        outcome, cause, reason = crashed("runner", f"the runner failed: {type(error).__name__}: {error}")
        result = TrialResult(trial_id=spec.trial_id, outcome=outcome, cause=cause, reason=reason)
    try:
        result.write_first_wins(directory)
    except OSError:
        log = directory / LOG_FILE
        with contextlib.suppress(OSError):
            os.truncate(log, max(0, log.stat().st_size - SHRINK_BYTES))
        result.write_first_wins(directory)
    return code


def detach() -> None:
    """Go on in a child whose parent has ended, so that no walk down from the caller finds it."""
    if os.fork():
        os._exit(0)
    line = json.dumps({"pid": os.getpid(), "birth_mark": birth_mark(os.getpid())})
    os.write(sys.stdout.fileno(), f"{line}\n".encode())
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, sys.stdout.fileno())
    os.close(null)


def guard() -> None:
    """Go on in a child that gets SIGTERM when this process ends; this one waits for it, and ends as it does.

    An engine that loses sight of its job kills the job's process group. That would end the runner without a
    word and leave the training alive, on a GPU that the engine now takes for free.
    """
    from autoresearch.runner.tree import die_with_parent

    parent = os.getpid()
    if child := os.fork():
        _, status = os.waitpid(child, 0)
        os._exit(os.waitstatus_to_exitcode(status) & 0xFF)
    os.setsid()
    die_with_parent(parent, signal.SIGTERM)()


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
