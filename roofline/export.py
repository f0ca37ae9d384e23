"""Writes a run as Markdown, CSV or JSON text. CSV and JSON are in SI base units; Markdown is for people."""

from __future__ import annotations

import csv as _csv
import io
from collections.abc import Callable

from . import _view
from ._view import clean
from .clock_doubts import pace_swing
from .markdown import markdown
from .record import WALLS, Point, Run

__all__ = ["csv", "json", "markdown"]

_FORMULA = ("=", "+", "-", "@")  # spreadsheets run a text cell that begins with one of these

Value = str | float | int | None


def json(run: Run) -> str:
    """The record as indented JSON: exactly what `run.json` holds."""
    return run.model_dump_json(indent=2) + "\n"


def csv(run: Run) -> str:
    """One line per point, all statuses, numbers unrounded and in SI base units; unknown is empty.

    Text that a spreadsheet would take for a formula gets an apostrophe in front.
    """
    stream = io.StringIO()
    writer = _csv.writer(stream, lineterminator="\n")
    writer.writerow(["number", *_FIELDS])
    for row in _view.rows([run]):
        writer.writerow([row.number, *(_cell(value(row.point)) for value in _FIELDS.values())])
    return stream.getvalue()


def _cell(value: Value) -> Value:
    if not isinstance(value, str):
        return value
    text = clean(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _floor(wall: str, best: bool) -> Callable[[Point], Value]:
    def value(point: Point) -> Value:
        floors = point.best_floors_s if best else point.floors_s
        return getattr(floors, wall) if floors else None

    return value


def _of(record: str, name: str) -> Callable[[Point], Value]:
    """A field of an optional record of a point, empty where the record is missing."""

    def value(point: Point) -> Value:
        part = getattr(point, record)
        return getattr(part, name) if part is not None else None

    return value


def _ratio(point: Point, name: str) -> Value:
    ratio = getattr(point.attribution, name) if point.attribution else None
    return ratio.value if ratio else None


def _median_of(name: str) -> Callable[[Point], Value]:
    """The median of a telemetry reading, empty where it is not known."""

    def value(point: Point) -> Value:
        spread = getattr(point.telemetry, name)
        return spread.median if spread is not None else None

    return value


_FIELDS: dict[str, Callable[[Point], Value]] = {
    "kernel": lambda point: point.kernel,
    "implementation": lambda point: point.implementation,
    "shape": lambda point: point.shape_text,
    "device": lambda point: point.device,
    "dtype": lambda point: point.dtype,
    "direction": lambda point: point.direction,
    "cache": lambda point: point.cache,
    "clock": lambda point: point.clock,
    "headline": lambda point: int(point.headline),
    "status": lambda point: point.status,
    "reason": lambda point: point.reason,
    "time_s": _of("time_s", "median"),
    "time_low_s": _of("time_s", "low"),
    "time_high_s": _of("time_s", "high"),
    "samples": _of("time_s", "n"),
    "rounds": _of("time_s", "rounds"),
    **{
        name: _of("work", name)
        for name in ("matmul_flops", "flops", "special_ops", "compulsory_bytes", "streamed_bytes")
    },
    "depth": _of("work", "depth"),
    "steps": lambda point: point.steps,
    "step_s": lambda point: point.step_s,
    "launch_tax_s": lambda point: point.launch_tax_s,
    "vendor": lambda point: point.beside_vendor.vendor if point.beside_vendor else None,
    "speedup_over_vendor": lambda point: point.beside_vendor.speedup if point.beside_vendor else None,
    "speedup_low": lambda point: point.beside_vendor.low if point.beside_vendor else None,
    "speedup_high": lambda point: point.beside_vendor.high if point.beside_vendor else None,
    "hoists": lambda point: int(point.hoists),
    "padding_waste": lambda point: point.padding_waste,
    "receptive_field": lambda point: point.receptive_field,
    "residency": lambda point: point.residency,
    **{f"floor_{wall}_s": _floor(wall, best=False) for wall in WALLS},
    "bound": lambda point: point.bound,
    "contested_with": lambda point: point.contested_with,
    "attribution": _of("attribution", "wall"),
    **{
        f"attribution_{name}_ratio": lambda point, name=name: _ratio(point, name)
        for name in ("rotated", "sliced", "lighter", "halved", "longer")
    },
    "attribution_reason": _of("attribution", "reason"),
    **{f"best_floor_{wall}_s": _floor(wall, best=True) for wall in WALLS},
    "best_bound": lambda point: point.best_bound,
    "estimate_s": lambda point: point.estimate_s,
    "attainable_fraction": _of("attainable_fraction", "value"),
    "best_fraction": _of("best_fraction", "value"),
    "best_fraction_low": _of("best_fraction", "low"),
    "best_fraction_high": _of("best_fraction", "high"),
    "roof_fraction": _of("roof_fraction", "value"),
    "intensity_compulsory": _of("intensity", "compulsory"),
    "intensity_streamed": _of("intensity", "streamed"),
    **{name: _of("achieved", name) for name in ("flops_per_s", "bytes_per_s", "streamed_bytes_per_s")},
    "parts": lambda point: "; ".join(f"{p.name} {p.time_s.median} {p.bound}" for p in point.parts if p.time_s),
    "second_clock": _of("second_clock", "source"),
    "second_clock_s": _of("second_clock", "time_s"),
    **{name: _of("second_clock", name) for name in ("launches", "records", "busy_share", "waiting_share")},
    "compiler": lambda point: "; ".join(f"{name}={value}" for name, value in point.compiler.items()),
    "peak_memory_bytes": lambda point: point.peak_memory_bytes,
    "energy_j": lambda point: point.energy_j,
    "energy_per_token_j": _of("energy", "per_token_j"),
    "energy_error": _of("energy", "error"),
    "idle_w": _of("energy", "idle_w"),
    "normalised_time_s": lambda point: point.normalised_time_s,
    **{name: _median_of(name) for name in ("clock_hz", "memory_clock_hz", "power_w", "temperature_c", "other_share")},
    "pace_swing": lambda point: pace_swing(point) if point.telemetry.pace_s else None,
    "throttle": lambda point: "; ".join(f"{name} {share:.2f}" for name, share in point.telemetry.throttle.items()),
    **{f"counted_{name}": _of("counted", name) for name in ("dram_read_bytes", "dram_write_bytes", "cache_bytes")},
    **{name: _of("counted", name) for name in ("tensor_share", "amplification", "amplification_streamed")},
    "warnings": lambda point: " ".join(warning.id for warning in point.warnings),
}
