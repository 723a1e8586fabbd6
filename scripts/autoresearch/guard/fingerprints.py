"""Fingerprints of what results depend on and no commit holds: the data, the packages, the machine.

Not seen: a data file rewritten with the same size and modification time, changes in the middle of
large files, packages that are changed in place under the same version.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import os
import platform
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from autoresearch.errors import MachineError

WHOLE_FILE_BYTES = 2**20  # files up to here are hashed whole, while they last within
WHOLE_TOTAL_BYTES = 64 * 2**20  # this much in all; of the rest only the ends are
END_BYTES = 64 * 2**10
NAMED_FILES = 200  # of at most so many files each has a hash of its own, so that drift can be named
INTERPRETER_WAIT_S = 20.0
_FLEETING = (".lock", ".tmp", ".incomplete", ".pyc")
_MAKERS = ("prepare.py", "download.py", "prepare_data.py", "data.py")
_NVIDIA_NODES = (Path("/dev/nvidiactl"), Path("/dev/dxg"))

# Asks the training's own interpreter. Folder names tell a distribution's version without opening its
# metadata, which takes a second where hundreds are installed. Without "" on the path, no file of the
# project is imported; unlike -I, what the user's own site packages and PYTHONPATH add is seen.
_ASK_INTERPRETER = """
import sys
sys.path[:] = [entry for entry in sys.path if entry]
import json, os, platform
found = {}
for folder in sys.path:
    for entry in (os.listdir(folder) if os.path.isdir(folder) else []):
        stem, kind = os.path.splitext(entry)
        if kind in (".dist-info", ".egg-info"):
            name, _, version = stem.partition("-")
            found.setdefault(name.lower().replace("_", "-"), version.split("-py")[0])
print(json.dumps({"python": platform.python_version(), "implementation": platform.python_implementation(),
                  "executable": sys.executable, "packages": found}))
"""


# ---- data


def fingerprint_data(
    paths: Sequence[str], project: Path, *, previous: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """For each of ``paths``: number of files, bytes, newest modification, and a hash of the content.

    ``~`` and environment variables are expanded, relative paths start at ``project``. Where names,
    sizes and modification times equal those in ``previous``, its hash stands and no file is opened.
    Raises ``MachineError`` if a path is missing.
    """
    found: dict[str, Any] = {}
    for path in paths:
        place = project / Path(os.path.expandvars(path)).expanduser()
        if not place.exists():
            raise _missing(path, place, project)
        files = sorted(_files(place))
        listing = hashlib.sha256()
        for name, size, mtime_ns in files:
            listing.update(f"{name}\0{size}\0{mtime_ns}\0".encode("utf-8", "surrogateescape"))
        entry = {
            "files": len(files),
            "bytes": sum(size for _, size, _ in files),
            "newest_mtime_ns": max((mtime_ns for _, _, mtime_ns in files), default=0),
            "listing_sha256": listing.hexdigest(),
        }
        earlier = (previous or {}).get(path) or {}
        if earlier.get("listing_sha256") == entry["listing_sha256"]:
            found[path] = dict(earlier)
        else:
            found[path] = entry | _contents(place, files)
    return found


def _files(place: Path) -> Iterator[tuple[str, int, int]]:
    """(name relative to ``place``, size, modification time) of each file, links followed once."""
    if place.is_file():
        stat = place.stat()
        yield place.name, stat.st_size, stat.st_mtime_ns
        return
    seen: set[tuple[int, int]] = set()
    waiting = [(place, "")]
    while waiting:
        folder, prefix = waiting.pop()
        try:
            stat = folder.stat()
            entries = list(os.scandir(folder))
        except OSError:
            continue  # counts as a folder that is not there: drift tells
        if (stat.st_dev, stat.st_ino) in seen:
            continue
        seen.add((stat.st_dev, stat.st_ino))
        for entry in entries:
            if entry.name.endswith(_FLEETING):
                continue
            try:
                if entry.is_dir():
                    waiting.append((Path(entry.path), f"{prefix}{entry.name}/"))
                else:
                    stat = entry.stat()
                    yield f"{prefix}{entry.name}", stat.st_size, stat.st_mtime_ns
            except OSError:
                yield f"{prefix}{entry.name}", -1, 0  # a link that leads nowhere


def _contents(place: Path, files: Sequence[tuple[str, int, int]]) -> dict[str, Any]:
    """The hash over all ``files``, and one for each where they are few."""
    folder = place.parent if place.is_file() else place
    total = hashlib.sha256()
    named: dict[str, str] = {}
    left = WHOLE_TOTAL_BYTES
    end = max(2**12, min(END_BYTES, WHOLE_TOTAL_BYTES // (2 * len(files) or 1)))
    for name, size, _ in files:
        whole = size <= min(WHOLE_FILE_BYTES, left)
        left -= max(size, 0) if whole else 0
        one = _content(folder / name, size, whole=whole, end=end)
        total.update(f"{name}\0{size}\0{one}\0".encode("utf-8", "surrogateescape"))
        named[name] = one[:16]
    return {"sha256": total.hexdigest()} | ({"named": named} if len(files) <= NAMED_FILES else {})


def _content(path: Path, size: int, *, whole: bool, end: int) -> str:
    try:
        with path.open("rb") as file:
            if whole or size <= 2 * end:
                return hashlib.sha256(file.read()).hexdigest()
            head = file.read(end)
            file.seek(-end, os.SEEK_END)
            return hashlib.sha256(head + file.read(end)).hexdigest()
    except OSError:
        return "unreadable"


def _missing(path: str, place: Path, project: Path) -> MachineError:
    makers = [name for name in _MAKERS if (project / name).exists()]
    runner = "uv run" if any((project / name).exists() for name in ("uv.lock", "pyproject.toml")) else "python"
    hint = f"Get it with `{runner} {makers[0]}`" if makers else "Get it as the project's README says"
    where = "" if str(place) == path else f" ({place})"
    return MachineError(
        f"the data {path}{where} does not exist.",
        hint=f"{hint}, or change `data` in the config.",
        code="no_data",
    )


def data_drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two fingerprints of the data, a line for each path."""
    said = []
    for path in sorted(before.keys() | after.keys()):
        was, now = before.get(path), after.get(path)
        if was is None or now is None:
            said.append(f"{path} is {'new' if was is None else 'no longer listed'}")
        elif was["sha256"] != now["sha256"]:
            said.append(f"{path}: {_what_changed(was, now)}")
    return said


def _what_changed(was: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    if "named" in was and "named" in now:
        old, new = was["named"], now["named"]
        changed = [name for name in sorted(old.keys() | new.keys()) if old.get(name) != new.get(name)]
        fates = {name: "is new" for name in changed if name not in old}
        fates |= {name: "is gone" for name in changed if name not in new}
        said = ", ".join(f"{name} {fates.get(name, 'changed')}" for name in changed[:3])
        return said + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
    if (was["files"], was["bytes"]) == (now["files"], now["bytes"]):
        return f"the content of its {now['files']} files changed"
    return f"{was['files']} files of {was['bytes']} bytes, now {now['files']} of {now['bytes']}"


# ---- environment


def environment_fingerprint(python: str | None, *, cwd: Path, env: Mapping[str, str]) -> dict[str, Any]:
    """The training's interpreter and packages, and the machine.

    ``python`` is an interpreter's path, or a command that ends in one (``uv run python``); None leaves
    its part out. One that cannot be asked is told of under ``problem`` and is no error: the trial will
    say so itself. Never imports the training's packages.
    """
    found: dict[str, Any] = {
        "host": platform.node(),
        "cpus": os.cpu_count(),
        "platform": f"{platform.system()} {platform.machine()}",
        **_gpus(),
    }
    if python is None:
        return found
    argv = [python] if (cwd / python).exists() else shlex.split(python)
    asked = {**env, "UV_NO_SYNC": "1"}  # asking must not install anything
    try:
        done = subprocess.run(
            [*argv, "-c", _ASK_INTERPRETER],
            cwd=cwd, env=asked, stdin=subprocess.DEVNULL, capture_output=True, check=True,
            timeout=INTERPRETER_WAIT_S,
        )  # fmt: skip
        found |= json.loads(done.stdout.splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError) as error:
        last = (getattr(error, "stderr", None) or b"").decode(errors="replace").strip().splitlines()[-1:]
        return found | {"problem": f"{python} could not be asked: {last[0] if last else error}"}
    packages: dict[str, str] = found["packages"]
    found["torch"] = packages.get("torch", "")
    runtimes = [version for name, version in packages.items() if name.startswith("nvidia-cuda-runtime")]
    found["cuda"] = found["torch"].partition("+")[2] or "".join(runtimes[:1])
    return found


def _gpus() -> dict[str, Any]:
    if not any(node.exists() for node in _NVIDIA_NODES):
        return {"gpus": [], "driver": ""}
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        names = [nvml.nvmlDeviceGetName(handle) for handle in handles]
        return {"gpus": list(map(_text, names)), "driver": _text(nvml.nvmlSystemGetDriverVersion())}
    except Exception:  # noqa: BLE001 - a broken driver is told by the trial, which needs it
        return {"gpus": [], "driver": ""}


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def environment_drift(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """What differs between two environments, most telling first, in parts that both of them have."""
    said = []
    for key in ("python", "implementation", "torch", "cuda", "gpus", "driver", "platform", "host", "cpus"):
        if key in before and key in after and before[key] != after[key]:
            was, now = (_shown(fingerprint[key]) for fingerprint in (before, after))
            said.append(f"{key}: {was} → {now}")
    if "problem" in after and "packages" in before:
        said.append(str(after["problem"]))
    if "packages" in before and "packages" in after:
        old, new = before["packages"], after["packages"]
        names = sorted((old.keys() | new.keys()) - {"torch"})
        changed = [name for name in names if old.get(name) != new.get(name)]
        said += [f"{name}: {old.get(name, 'absent')} → {new.get(name, 'absent')}" for name in changed[:10]]
        if len(changed) > 10:
            said.append(f"and {len(changed) - 10} more packages")
    return said


def _shown(value: Any) -> str:
    return (", ".join(value) if isinstance(value, list) else str(value)) or "none"
