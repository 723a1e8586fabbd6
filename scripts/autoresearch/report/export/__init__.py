"""A campaign for other programs: tables (CSV, Parquet) and experiment trackers (MLflow, TensorBoard, W&B)."""

from __future__ import annotations

from autoresearch.report.export.targets import Targets, export

__all__ = ["Targets", "export"]
