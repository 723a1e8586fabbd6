"""Where trials run: one small interface, one module for each engine."""

from __future__ import annotations

from autoresearch.config import Executor as ExecutorSettings
from autoresearch.errors import UsageError
from autoresearch.executors.base import Executor, Handle, State
from autoresearch.executors.local import LocalExecutor, slot_from_settings

__all__ = ["Executor", "Handle", "LocalExecutor", "State", "executor_for"]


def executor_for(settings: ExecutorSettings) -> Executor:
    """The executor that ``settings`` ask for."""
    if settings.kind == "local":
        return LocalExecutor(slot_from_settings(settings))
    if settings.kind == "slurm":
        from autoresearch.executors.slurm import SlurmExecutor, SlurmOptions

        return SlurmExecutor(SlurmOptions.from_dict(settings.options))
    if settings.kind == "ray":
        from autoresearch.executors.ray import RayExecutor, RayOptions

        return RayExecutor(RayOptions.from_dict(settings.options))
    raise UsageError(
        f"executor.kind {settings.kind!r} cannot be used here; expected local, slurm or ray",
        hint="set `executor: {kind: local}` in autoresearch.yaml",
    )
