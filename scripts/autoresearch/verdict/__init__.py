"""The statistics of keep, discard and inconclusive: pure functions and state machines over numbers."""

from __future__ import annotations

from autoresearch.verdict.judgement import Judgement
from autoresearch.verdict.keep_rule import KeepRule, RuleSettings

__all__ = ["Judgement", "KeepRule", "RuleSettings"]
