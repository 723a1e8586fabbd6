"""Each experiment as a TensorBoard run with its curves and hyperparameters, and one run that shows the progress."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoresearch.ledger import Experiment, Status
from autoresearch.report.export.extract import Extract, timestamp

if TYPE_CHECKING:
    from tensorboard.summary.writer.event_file_writer import EventFileWriter

SUFFIX = ".autoresearch"  # of our event files: what a second export replaces, and nothing else
PROGRESS = "progress"


def write_tensorboard(extract: Extract, folder: Path) -> int:
    """Write ``folder/<project>/<tag>/…`` and return the number of experiments; an earlier export is replaced."""
    place = folder / extract.name
    for old in place.glob(f"*/events.out.tfevents.*{SUFFIX}"):
        old.unlink()
    _write_progress(extract, place / PROGRESS)
    for experiment in extract.experiments:
        run = _Run(place / f"{experiment.number:04d}", at=timestamp(experiment.created_at) or 0.0)
        run.settings({**extract.settings(experiment), "status": experiment.status or "open"}, extract.key(experiment))
        run.text("experiment", f"{experiment.description}\n\n{experiment.reason}")
        for name, value in extract.figures(experiment).items():
            run.scalar(name, value, step=0)
        for name, curve in extract.curves(experiment).items():
            for step, loss in curve:
                run.scalar(f"loss/{name}", loss, step=step)
        run.close(at=timestamp(experiment.decided_at), failed=experiment.status is Status.CRASH)
    return len(extract.experiments)


def _write_progress(extract: Extract, folder: Path) -> None:
    """The metric over the experiments' numbers: of all, and of the incumbent at that time."""
    run = _Run(folder, at=timestamp(extract.campaign.created_at) or 0.0)
    best: Experiment | None = None
    for experiment in extract.experiments:
        if experiment.metric is not None:
            run.scalar(f"{extract.metric}/tried", experiment.metric, step=experiment.number)
        if experiment.status is Status.KEEP:
            best = experiment
        if best is not None and best.metric is not None:
            run.scalar(f"{extract.metric}/incumbent", best.metric, step=experiment.number)
    run.close()


class _Run:
    """One run's event file, in the parts of TensorBoard that need no TensorFlow."""

    def __init__(self, folder: Path, *, at: float) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        folder.mkdir(parents=True, exist_ok=True)
        self._writer: EventFileWriter = EventFileWriter(str(folder), filename_suffix=SUFFIX)
        self._at = at
        self._has_settings = False

    def scalar(self, name: str, value: float, *, step: int) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary

        if math.isfinite(value):
            self._add(Summary.Value(tag=name, simple_value=value), step)

    def text(self, name: str, text: str) -> None:
        """Shown on the TEXT page, which reads Markdown; indented, it shows the text as it is."""
        from tensorboard.compat.proto.summary_pb2 import Summary, SummaryMetadata
        from tensorboard.compat.proto.tensor_pb2 import TensorProto

        shown = "\n".join(f"    {line}" for line in text.splitlines())
        metadata = SummaryMetadata(plugin_data=SummaryMetadata.PluginData(plugin_name="text"))
        tensor = TensorProto(dtype="DT_STRING", string_val=[shown.encode("utf-8", "replace")])
        self._add(Summary.Value(tag=name, tensor=tensor, metadata=metadata), 0)

    def settings(self, values: Mapping[str, str], group: str) -> None:
        """Hyperparameters, for the HPARAMS page; what reads as a number is one."""
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        info = plugin_data_pb2.SessionStartInfo(group_name=group, start_time_secs=self._at)
        for name, text in values.items():
            number = _as_number(text)
            if number is None:
                info.hparams[name].string_value = text
            else:
                info.hparams[name].number_value = number
        data = plugin_data_pb2.HParamsPluginData(session_start_info=info)
        self._add_hparams(metadata.SESSION_START_INFO_TAG, data)
        self._has_settings = True

    def close(self, *, at: float | None = None, failed: bool = False) -> None:
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        if self._has_settings and at is not None:
            status = api_pb2.STATUS_FAILURE if failed else api_pb2.STATUS_SUCCESS
            info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=at)
            self._add_hparams(
                metadata.SESSION_END_INFO_TAG, plugin_data_pb2.HParamsPluginData(session_end_info=info)
            )  # fmt: skip
        self._writer.close()

    def _add_hparams(self, tag: str, data: Any) -> None:
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.plugins.hparams import metadata

        value = Summary.Value(tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR)
        self._add(value, 0)

    def _add(self, value: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary

        self._writer.add_event(Event(wall_time=self._at, step=step, summary=Summary(value=[value])))


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
