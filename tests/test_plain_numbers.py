"""Numbers that people read have no exponent where plain digits are as short."""

from __future__ import annotations

import pytest

from autoresearch.plain import plain
from autoresearch.report.format import signed


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [(474.2, 2, "470"), (123456, 2, "120000"), (999999, 2, "1000000"), (99.6, 2, "100"), (12.3, 2, "12"),
     (0.0123, 2, "0.012"), (-0.0, 2, "0"), (2.5e6, 2, "2.5e+06"), (1.2e-7, 2, "1.2e-07"), (float("inf"), 2, "inf")],
)  # fmt: skip
def test_plain(value: float, digits: int, text: str) -> None:
    assert plain(value, digits) == text


@pytest.mark.parametrize(("value", "text"), [(493.8, "+494"), (-12345, "-12300"), (-0.0, "+0"), (0.5, "+0.5")])
def test_signed(value: float, text: str) -> None:
    assert signed(value) == text
