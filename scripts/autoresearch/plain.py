"""Rounded numbers for readers."""

from __future__ import annotations


def plain(value: float, digits: int, sign: str = "") -> str:
    """``value`` to ``digits`` significant digits: no exponent up to a million, no minus zero; ``sign`` is "+" or ""."""
    text = f"{value + 0.0:{sign}.{digits}g}"  # adding zero turns -0.0 into 0.0
    return f"{float(text):{sign}.0f}" if "e+" in text and abs(value) < 1e6 else text
