"""Trials as jobs of a Slurm cluster, by plain ``sbatch``, ``squeue`` and ``scancel``.

The runner on the node enforces the budget, since Slurm counts whole minutes. Accounting (``sacct``) is
not needed.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Self

from autoresearch.errors import MachineError
from autoresearch.executors.base import RUNNER, Handle, State
from autoresearch.executors.cluster import ClusterExecutor, job_name
from autoresearch.executors.settings import refuse, unknown_setting
from autoresearch.trial import RUNNER_ERR_FILE, TrialSpec

BECOME = Path(__file__).with_name("become.sh")
CALL_S = 60.0  # a controller that is away keeps each call for about ten seconds
BACKSTOP_S = 300.0  # Slurm's own limit stands this far behind the runner's
QUEUED = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD")
RUNNING = ("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING")
# What the submitter's shell hands to the runner, by name: never its keys.
EXPORTED = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SHELL", "TMPDIR", "USER")
# What the engine tells the command on the node. SLURM_EXPORT_ENV is left out: it would rule a nested srun.
FROM_ENGINE = (
    r"(?!SLURM_EXPORT_ENV$)(SLURM_|SLURMD_|PMI_|PMIX_)\w*|CUDA_VISIBLE_DEVICES|ROCR_VISIBLE_DEVICES|GPU_DEVICE_ORDINAL"
)


@dataclass(frozen=True, kw_only=True)
class SlurmOptions:
    """What ``executor`` may say beside ``kind: slurm``; empty is the cluster's default."""

    partition: str = ""
    account: str = ""
    qos: str = ""
    gres: str = ""  # gpu:1, gpu:h100:1
    constraint: str = ""
    cpus: int = 0
    memory: str = ""  # as sbatch takes it: 64G
    nodes: int = 1
    extra: tuple[str, ...] = ()  # further options of sbatch, to the letter

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises UsageError naming key, value and expectation."""
        known = {each.name: each.type for each in fields(cls)}
        values: dict[str, Any] = {}
        for key, value in data.items():
            if key not in known:
                refuse(unknown_setting("slurm", key, known), known)
            if known[key] == "int":
                if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                    refuse(f"executor.{key} is {value!r}; expected a whole number, 1 or more.", known)
                values[key] = value
            elif key == "extra":
                words = [value] if isinstance(value, str) else value
                if not isinstance(words, list) or not all(
                    isinstance(word, str) and re.fullmatch(r"--[a-z][\w-]*(=\S.*)?", word) for word in words
                ):
                    refuse(f"executor.extra is {value!r}; expected options of sbatch such as --exclusive.", known)
                values[key] = tuple(words)
            elif not isinstance(value, str) or not re.fullmatch(r"[\w.:,&|*\[\]()+=/-]+", value):
                refuse(f"executor.{key} is {value!r}; expected a word as sbatch's --{key} takes it.", known)
            else:
                values[key] = value
        return cls(**values)

    def words(self) -> list[str]:
        """As options of sbatch."""
        named = {
            "partition": self.partition, "account": self.account, "qos": self.qos, "gres": self.gres,
            "constraint": self.constraint, "cpus-per-task": self.cpus, "mem": self.memory, "nodes": self.nodes,
        }  # fmt: skip
        return [*(f"--{name}={value}" for name, value in named.items() if value), *self.extra]


class SlurmExecutor(ClusterExecutor):
    """Trials by ``sbatch``, asked about by ``squeue``, ended by ``scancel``."""

    engine = "slurm"

    def __init__(self, options: SlurmOptions, **patience: float) -> None:
        super().__init__(**patience)
        self.options = options

    def submit(self, spec: TrialSpec) -> Handle:
        directory = Path(spec.directory)
        path = replace(spec, engine_names=FROM_ENGINE).write()
        minutes = int((spec.limit_s + spec.evaluate_limit_s + spec.grace_s + BACKSTOP_S) // 60) + 1
        answer = _call(
            "sbatch", "--parsable", f"--job-name={job_name(directory)}", f"--time={minutes}", "--no-requeue",
            f"--chdir={directory}", f"--output={directory / RUNNER_ERR_FILE}", "--open-mode=append",
            "--input=/dev/null", "--ntasks-per-node=1", f"--export={','.join(EXPORTED)}", *self.options.words(),
            str(BECOME), sys.executable, "-I", str(RUNNER), str(path),
        )  # fmt: skip
        return self.handle(spec.trial_id, directory, answer.strip().split(";")[0])

    @property
    def controller(self) -> str:
        return os.environ.get("SLURM_CONF", "")

    def jobs(self) -> dict[str, State]:
        return dict(_rows(_call("squeue", "--noheader", "--me", "--states=all", "--format=%i|%T")))

    def stop(self, job: str) -> None:
        _call("scancel", job)

    def find(self, trial_id: str, directory: Path) -> Handle | None:
        lines = _call("squeue", "--noheader", "--me", "--states=all", f"--name={job_name(directory)}", "--format=%i|%T")
        numbers = [number for number, state in _rows(lines) if state is not State.GONE]
        return self.handle(trial_id, directory, max(numbers, key=_number)) if numbers else None

    def why_gone(self, directory: Path) -> str:
        return "its node died, or it was preempted"


def _rows(lines: str) -> list[tuple[str, State]]:
    rows = (line.strip().split("|") for line in lines.splitlines() if "|" in line)
    return [(number, _state_of(word)) for number, word in rows]


def _state_of(word: str) -> State:
    if word in QUEUED:
        return State.QUEUED
    return State.RUNNING if word in RUNNING else State.GONE


def _number(text: str) -> int:
    return int(re.sub(r"\D.*", "", text) or 0)


def _call(*argv: str) -> str:
    """What ``argv`` prints. The caller's SBATCH_* and SQUEUE_* settings would change its meaning and are left out."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not re.match(r"(SBATCH|SQUEUE|SCANCEL|SLURM)_(?!CONF$)", name)
    }
    try:
        done = subprocess.run(
            argv, env=env, capture_output=True, encoding="utf-8", errors="replace", stdin=subprocess.DEVNULL,
            timeout=CALL_S, check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise MachineError(
            f"{argv[0]} is not installed here, and `executor` says slurm.",
            hint="Run this on a login node of the cluster, or set `executor: {kind: local}` in autoresearch.yaml",
            code="no_slurm",
        ) from None
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"{argv[0]} did not answer within {CALL_S:g} s.",
            hint="Is the controller up? scontrol ping",
            code="slurm_away",
        ) from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise MachineError(f"{argv[0]}: {said[-300:]}", hint="scontrol ping; sinfo", code="slurm")
    return done.stdout
