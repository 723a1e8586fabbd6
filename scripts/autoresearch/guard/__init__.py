"""What an experiment may change, and fingerprints of what it may not.

The guards read paths and source code; they run nothing of the project and never touch git. They
stop mistakes and temptations, not a determined forger: Python has more ways to change a number than
any reader of source code knows. The other nets are the clean checkout, in which protected files
come from the base commit, and the claim, which is made on fresh seeds. Each module says what it
does not see.
"""

from __future__ import annotations

from autoresearch.guard.edits import check_edit
from autoresearch.guard.fingerprints import (
    data_drift,
    environment_drift,
    environment_fingerprint,
    fingerprint_data,
)
from autoresearch.guard.scope import belongs_to_client, check_paths, in_scope, may_edit

__all__ = [
    "belongs_to_client",
    "check_edit",
    "check_paths",
    "data_drift",
    "environment_drift",
    "environment_fingerprint",
    "fingerprint_data",
    "in_scope",
    "may_edit",
]
