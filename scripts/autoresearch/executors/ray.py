"""Trials as jobs of a Ray cluster, by the Jobs API of its head, which is plain HTTP.

Ray need not be installed beside the scripts: its own client would bring 400 MB, of the cluster's release,
and takes another address from the environment over the one it is given.
"""

from __future__ import annotations

import http.client
import json
import math
import os
import re
import shlex
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from autoresearch.errors import MachineError
from autoresearch.executors.base import RUNNER, Handle, State
from autoresearch.executors.cluster import ClusterExecutor, job_name
from autoresearch.executors.settings import refuse, unknown_setting
from autoresearch.trial import RUNNER_ERR_FILE, TrialSpec

CALL_S = 30.0
STOP_S = 10.0  # what the runner needs beyond the command's own grace; Ray would kill it after 3 s
SAID_CHARACTERS = 150
STATES = {"PENDING": State.QUEUED, "RUNNING": State.RUNNING}  # all others are ends
# What Ray tells the command on the node. From the submitter's shell these would be keys and other clusters.
FROM_ENGINE = r"RAY_\w*|(CUDA|HIP|ROCR)_VISIBLE_DEVICES"


@dataclass(frozen=True, kw_only=True)
class RayOptions:
    """What ``executor`` may say beside ``kind: ray``: the head, and what it reserves for each trial."""

    address: str = "http://127.0.0.1:8265"  # of the head's dashboard
    cpus: float = 1.0
    gpus: float = 0.0
    accelerator_type: str = ""  # as Ray names it: H100, A100-80G
    resources: Mapping[str, float] = field(default_factory=dict)  # the cluster's own: {node_with_fast_disk: 1}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """Raises UsageError naming key, value and expectation."""
        known = [each.name for each in fields(cls)]
        for key, value in data.items():
            if key not in known:
                refuse(unknown_setting("ray", key, known), known)
            if expected := _expected(key, value):
                refuse(f"executor.{key} is {value!r}; expected {expected}.", known)
        return cls(**{**data, "address": data.get("address", cls.address).rstrip("/")})

    def reserved(self) -> dict[str, Any]:
        """As fields of a submission."""
        kind = {f"accelerator_type:{self.accelerator_type}": 0.001} if self.accelerator_type else {}
        return {
            "entrypoint_num_cpus": self.cpus, "entrypoint_num_gpus": self.gpus,
            "entrypoint_resources": {**self.resources, **kind},
        }  # fmt: skip


def _expected(key: str, value: object) -> str:
    """What a value of ``key`` must be; "" if it is that."""
    match key, value:
        case "address", str() if re.fullmatch(r"https?://[^\s/?#]+(/[^\s?#]*)?", value):
            return ""
        case "address", _:
            return "the address of the head's dashboard, such as http://head:8265"
        case "accelerator_type", str() if re.fullmatch(r"[\w.-]+", value):
            return ""
        case "accelerator_type", _:
            return "one word, as `ray status` prints it after accelerator_type:"
        case "resources", dict() if all(isinstance(name, str) and _is_amount(each) for name, each in value.items()):
            return ""
        case "resources", _:
            return "amounts by name, such as {fast_disk: 1}"
    return "" if _is_amount(value) else "a number, 0 or more"


def _is_amount(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < math.inf


class RayExecutor(ClusterExecutor):
    """Trials by the Jobs API. Jobs have names of our choice: one whose submission was never answered is found."""

    engine = "ray"

    def __init__(self, options: RayOptions, **patience: float) -> None:
        super().__init__(**patience)
        self.options = options

    def submit(self, spec: TrialSpec) -> Handle:
        directory = Path(spec.directory)
        path = replace(spec, engine_names=FROM_ENGINE).write()
        command = shlex.join([sys.executable, "-I", str(RUNNER), "--guard", str(path)])
        self._call(
            "POST",
            "",
            {
                "submission_id": job_name(directory),
                "entrypoint": f"exec {command} >>{shlex.quote(str(directory / RUNNER_ERR_FILE))} 2>&1",
                "runtime_env": {"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(math.ceil(spec.grace_s + STOP_S))}},
                "metadata": {"job_name": spec.trial_id},
                **self.options.reserved(),
            },
        )
        return self.handle(spec.trial_id, directory, job_name(directory))

    @property
    def controller(self) -> str:
        return self.options.address

    def jobs(self) -> dict[str, State]:
        listed = self._call("GET", shape=list)
        return {each["submission_id"]: state_of(each) for each in listed if each.get("submission_id")}

    def stop(self, job: str) -> None:
        self._call("POST", f"{job}/stop", none_if_unknown=True)

    def find(self, trial_id: str, directory: Path) -> Handle | None:
        job = self._call("GET", job_name(directory), none_if_unknown=True)
        if job is None or state_of(job) is State.GONE:
            return None
        return self.handle(trial_id, directory, job_name(directory))

    def why_gone(self, directory: Path) -> str:
        job = self._call("GET", job_name(directory), none_if_unknown=True)
        if job is None:
            return "Ray does not know it; was its head started again?"
        return _shortened(f"Ray says {job['status']}: {job.get('message')}")

    def _call(
        self, method: str, path: str = "", data: object = None, *, shape: type = dict, none_if_unknown: bool = False
    ) -> Any:
        """What the head answers, a ``shape``; MachineError if it refuses, or is away, or is not Ray."""
        address = self.options.address
        request = urllib.request.Request(  # noqa: S310 - the settings allow http and https alone
            f"{address}/api/jobs/{path}",
            method=method,
            data=None if data is None else json.dumps(data).encode(),
            headers={"Content-Type": "application/json", **authorization()},
        )
        try:
            with urllib.request.urlopen(request, timeout=CALL_S) as answer:  # noqa: S310
                said = json.load(answer)
            if not isinstance(said, shape):
                raise ValueError(f"it says {said!r}")  # noqa: TRY004 - no better than what is no JSON
            return said
        except urllib.error.HTTPError as error:
            if error.code == http.client.NOT_FOUND and none_if_unknown:
                return None
            refusal = error.read().decode(errors="replace")
            raise MachineError(
                f"Ray at {address} answers {error.code} to {method} jobs/{path}: {_shortened(refusal)}",
                hint=f"curl {address}/api/version",
                code="ray",
            ) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise MachineError(
                f"no Ray answers at {address}: {_shortened(str(reason))}",
                hint=f"Is that the head's dashboard, and can it be reached from here? curl {address}/api/version",
                code="ray_away",
            ) from None


def state_of(job: Mapping[str, Any]) -> State:
    return STATES.get(job["status"], State.GONE)


def authorization() -> dict[str, str]:
    """The header with the user's token, from where Ray's own client takes it; empty if there is none."""
    token = os.environ.get("RAY_AUTH_TOKEN", "").strip()
    if not token:
        named = os.environ.get("RAY_AUTH_TOKEN_PATH") or "~/.ray/auth_token"
        try:
            token = Path(named).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, RuntimeError, ValueError):
            return {}
    return {"Authorization": f"Bearer {token}"} if token else {}


def _shortened(text: str) -> str:
    """One line: how ``text`` begins, and how it ends, which is where a traceback or a log says what it is about."""
    words = " ".join(text.split())
    return words if len(words) <= 2 * SAID_CHARACTERS else f"{words[:SAID_CHARACTERS]} … {words[-SAID_CHARACTERS:]}"
