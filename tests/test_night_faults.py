"""A compressed night in which everything goes wrong, with the real Claude Code and a scripted model."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from tests.client_bench import World, find_client, world
from tests.night_faults import EVERY_FAULT, faulty_night, table

__all__ = ["world"]  # a fixture


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_night_comes_through_every_fault(world: World, record_property: Callable[[str, object], None]) -> None:
    find_client("claude")
    with faulty_night(world) as faulty:
        recoveries = [faulty.meet(fault) for fault in EVERY_FAULT]
        faulty.finish()
    record_property("measured", table(recoveries))
