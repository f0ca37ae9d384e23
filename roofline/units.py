"""Numbers for people: SI base units in, short text out."""

from __future__ import annotations

import math

_PREFIXES = (
    (1e15, "P"),
    (1e12, "T"),
    (1e9, "G"),
    (1e6, "M"),
    (1e3, "k"),
    (1.0, ""),
    (1e-3, "m"),
    (1e-6, "µ"),
    (1e-9, "n"),
    (1e-12, "p"),
)


def si(value: float | None, unit: str, digits: int = 3) -> str:
    """Write a value with an SI prefix and `digits` significant digits: `si(3.2e9, "B/s")` is "3.20 GB/s"."""
    if value is None:
        return "-"
    if value == 0:
        return f"0 {unit}"
    # Rounding first, so that 999.6 becomes 1.00 k and not 1000.
    rounded = float(f"{value:.{digits - 1}e}")
    scale, prefix = next((p for p in _PREFIXES if abs(rounded) >= p[0]), _PREFIXES[-1])
    return f"{significant(rounded / scale, digits)} {prefix}{unit}"


def significant(value: float, digits: int = 3) -> str:
    """Write a value with so many significant digits and no exponent."""
    magnitude = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(digits - magnitude, 0)}f}"


def seconds(value: float | None) -> str:
    """Write a duration: "4.31 ms"."""
    return si(value, "s")


def percent(value: float | None) -> str:
    """Write a fraction as a percentage: one decimal below ten per cent."""
    if value is None:
        return "-"
    scaled = 100 * value
    return f"{scaled:.1f} %" if abs(scaled) < 10 else f"{scaled:.0f} %"


def ratio_within(half: float) -> str:
    """Write how far a ratio may be from 1, from a half width in logarithms: "±0.5 %", "-31 % / +46 %", "a factor of 3".

    The ends lie as far from 1 in logarithms, so as percentages they differ once they are wide.
    """
    down, up = percent(-math.expm1(-half)), percent(math.expm1(half))
    if half > math.log(2):  # beyond twice the time a factor is easier to read than +200 %
        return f"a factor of {significant(math.exp(half), 2)}"
    return f"±{up}" if up == down else f"-{down} / +{up}"


def binary_bytes(value: float | None) -> str:
    """Write a capacity in binary units: "32.0 MiB"."""
    if value is None:
        return "-"
    for scale, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
        if value >= scale:
            return f"{significant(value / scale)} {name}"
    return f"{value:.0f} B"
