"""GPUs where there are none: as much of NVML as the runner asks for, told by a file that the test writes.

Run as a program it is the runner on such a machine: ``tests/fake_gpus.py [--detach] SPEC.json``.
"""

from __future__ import annotations

import json
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

SCRIPTS = Path(__file__).resolve().parent.parent / "scripts"
WORLD = "FAKE_GPUS"  # the environment variable that names the file
MIB = 2**20


class NVMLError(Exception):
    """What is not supported."""


class FakeNvml(ModuleType):
    """The names of NVML's calls. A handle is the device's UUID."""

    NVMLError = NVMLError
    nvmlMemory_v2 = 2  # noqa: N815 - NVML's own name

    def _find(self, handle: str) -> tuple[int, dict[str, Any]]:
        for number, gpu in enumerate(json.loads(Path(os.environ[WORLD]).read_text())):
            for each in (gpu, *gpu.get("mig", [])):
                if each["uuid"] == handle:
                    return number, each
        raise NVMLError(handle)

    def _processes(self, handle: str) -> list[SimpleNamespace]:
        listed = self._find(handle)[1].get("processes", [])
        living = [each for each in listed if Path(f"/proc/{each['pid']}").exists()]
        return [SimpleNamespace(**each, usedGpuMemory=each["mib"] * MIB) for each in living]

    def __getattr__(self, name: str) -> Any:
        def call(handle: Any = None, place: int = 0, *, version: int = 0) -> Any:
            world = json.loads(Path(os.environ[WORLD]).read_text())
            match name.removeprefix("nvml").removeprefix("DeviceGet"):
                case "Init":
                    return None
                case "Count":
                    return len(world)
                case "SystemGetDriverVersion":
                    return "570.1"
                case "HandleByIndex":
                    return world[handle]["uuid"]
                case "MigDeviceHandleByIndex":
                    instances = self._find(handle)[1]["mig"]
                    if place >= len(instances):
                        raise NVMLError(place)
                    return instances[place]["uuid"]
            number, device = self._find(handle)
            match name.removeprefix("nvmlDeviceGet"):
                case "HandleByUUID" | "UUID":
                    return handle
                case "Index":
                    return number
                case "Name":
                    return device["name"]
                case "MigMode":
                    return [int("mig" in device), 0]
                case "MaxMigDeviceCount":
                    return 7
                case "UtilizationRates":
                    return SimpleNamespace(gpu=device.get("percent", 0))
                case "MemoryInfo":
                    used = device.get("hidden_mib", 0) * MIB + sum(p.usedGpuMemory for p in self._processes(handle))
                    total = device["total_mib"] * MIB
                    return SimpleNamespace(total=total, used=used, free=total - used)
                case "ComputeRunningProcesses":
                    return self._processes(handle)
                case "GraphicsRunningProcesses":
                    return [each for each in self._processes(handle) if getattr(each, "draws", False)]
            raise AttributeError(name)

        return call


def gpu(number: int, **other: Any) -> dict[str, Any]:
    """One GPU of the world; ``other``: name, total_mib, percent, hidden_mib, processes, mig."""
    return {"uuid": f"GPU-{number:08d}-aaaa", "name": "Fake 9000", "total_mib": 80_000, **other}


def install() -> None:
    """Have this process see the fake GPUs, as outside of a container."""
    from autoresearch.runner import devices, memory

    sys.modules["pynvml"] = FakeNvml("pynvml")
    for module in (memory, devices):
        vars(module).update(GPU_NODES=(Path("/dev/null"),), in_container=lambda: False, FREE_PATIENCE_S=0.5)


if __name__ == "__main__":
    sys.path.insert(0, str(SCRIPTS))
    install()
    runner = SCRIPTS / "autoresearch" / "runner" / "__main__.py"
    sys.argv[0] = str(runner)
    runpy.run_path(str(runner), run_name="__main__")
