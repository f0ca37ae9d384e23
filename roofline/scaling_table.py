"""The words of curves of time against length: cells of their table, the launch tax, and what lacks an exponent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from . import _view
from .record import Fraction
from .scaling import Curve
from .units import percent, seconds

HEADINGS = (
    "implementation",
    "dtype",
    "lengths",
    "exponent",
    "at the end",
    "model",
    "operations",
    "steps",
    "path",
    "per step",
    "±",
)
EXPLAINED = (
    "exponent: the power of the length in the measured time, with its 95 % interval; at the end: between the two "
    "longest lengths alone, where what a call costs at any length weighs least, ± half its interval; model: in the "
    "modelled time; operations, steps: in the counted ones. path: dependent steps between the ends of a sequence "
    "(counted). per step: measured time over dependent steps at the longest length, ± half its interval."
)
NO_TAX = "not measured: needs a GPU"


def fitted(of: Iterable[Curve]) -> list[Curve]:
    """The curves that have an exponent."""
    return [curve for curve in of if curve.power]


def heading(curve: Curve) -> str:
    """What the curves of one part of the table have in common: all but implementation, dtype and lengths."""
    point = curve.last
    device = "" if point.device is None else f", device {point.device}"
    return _view.clean(f"{point.kernel} {point.direction}, {point.cache} ({point.clock}{device}) {curve.fixed}")


def cells(curve: Curve) -> tuple[str, ...]:
    """The texts of a curve under `HEADINGS`."""
    first, last = curve.lengths[0], curve.lengths[-1]
    return (
        _view.clean(curve.last.implementation),
        _view.clean(curve.last.dtype),
        f"{first} to {last}",
        power_text(curve.power),
        f"{curve.end_power.value:.2f} ±{_half(curve.end_power):.2f}" if curve.end_power else "-",
        _number(curve.model_power),
        _number(curve.flops_power),
        _number(curve.path.power if curve.path else None),
        curve.path.words if curve.path else "-",
        seconds(curve.step_s.value) if curve.step_s else "-",
        percent(_half(curve.step_s) / curve.step_s.value) if curve.step_s else "",
    )


def power_text(power: Fraction | None) -> str:
    """An exponent with its interval."""
    return f"{power.value:.2f} [{power.low:.2f}, {power.high:.2f}]" if power else "-"


def _half(value: Fraction) -> float:
    return (value.high - value.low) / 2


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value + 0.0:.2f}"


def tax_lines(of: Iterable[Curve]) -> list[str]:
    """What launching adds to each dependent step, of every curve of which it is known; one line that says so else."""
    found = [
        f"{_view.clean(curve.last.implementation)} {curve.last.kernel} {curve.last.dtype}, "
        f"{curve.size}={curve.lengths[-1]}: {seconds(curve.tax_s.value)} "
        f"[{seconds(curve.tax_s.low)}, {seconds(curve.tax_s.high)}] (measured: host clock less graph)"
        for curve in of
        if curve.tax_s
    ]
    return found or [f"{NO_TAX}, where the same steps are timed launched by the host and as a graph"]


@dataclass(frozen=True)
class Lack:
    """A case with too few lengths for an exponent. text : with what is missing, and for which implementations."""

    lengths: int
    text: str


def lacking(of: Iterable[Curve]) -> list[Lack]:
    """The cases with too few lengths for an exponent, those that are nearest to one first."""
    short: dict[tuple[str, int, str], list[str]] = {}
    for curve in of:
        if not curve.power:
            key = (heading(curve), len(curve.points), curve.missing)
            short.setdefault(key, []).append(_view.clean(curve.last.implementation))
    found = [
        Lack(count, f"{told}: {missing} ({', '.join(dict.fromkeys(names))})")
        for (told, count, missing), names in short.items()
    ]
    return sorted(found, key=lambda lack: -lack.lengths)
