"""Writes a run as Markdown, CSV or JSON text. CSV and JSON are in SI base units; Markdown is for people."""

from __future__ import annotations

import csv as _csv
import io
from collections.abc import Callable

from . import _seen, _steps, _view, fleet, stated
from ._view import clean
from .record import WALLS, Point, Run
from .table import ceiling_cells

_FORMULA = ("=", "+", "-", "@")  # spreadsheets run a text cell that begins with one of these

Value = str | float | int | None

_MARKDOWN = ("#", "kernel", "implementation", "sizes", "device", "dtype", "direction", "cache", "clock", "time", "±")
_MARKDOWN += ("per step", "launch tax", "wall", "seen", "machine", "design", "rate", "status")
_OPTIONAL = ("device", "per step", "launch tax", "seen")  # of fleets, of sequences, and of experiments


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


def markdown(run: Run) -> str:
    """Points, what was not measured, warnings and ceilings as Markdown tables and lists."""
    rows = _view.rows([run])
    measured = [row for row in rows if row.point.status in _view.MEASURED]
    lines = [f"# {_escape(run.machine.name)}", "", _view.NUMBERS_NOTE, ""]
    lines += [seen, ""] if (seen := _seen.run_text(run)) else []
    if run.devices:
        lines += [*_table(fleet.TITLES, fleet.cells(run)), "", fleet.note(run), ""]
    lines += _table(*_without_empty(_MARKDOWN, [_markdown_cells(row) for row in measured]))
    lines += _parts(measured) + _second_clocks(measured)
    seen = _seen.cells(measured)
    lines += ["", "## Clocks, energy and counted bytes", "", *_table(_seen.TITLES, seen)] if seen else []
    for group in _view.unmeasured(run.points):
        lines += ["", f"**{group.status}**: {_escape(group.reason)}", ""]
        lines += [f"- {_escape(name)}: {_escape('; '.join(cases))}" for name, cases in group.lines]
    advices = [*_view.Advices(measured).all, *_seen.of_run([run])]
    if advices:
        cells = [(a.id, cause, a.advice, ", ".join(names)) for a in advices for cause, names in a.causes]
        lines += ["", "## Warnings", "", *_table(("warning", "cause", "advice", "points"), cells)]
    if run.observations:
        lines += ["", "## Observations", "", *(f"- {_escape(found.text)}" for found in run.observations)]
    ceilings = [ceiling_cells(ceiling) for ceiling in run.machine.ceilings]
    lines += ["", "## Ceilings", "", *_table(("ceiling", "value", "±", "provenance", "how"), ceilings)]
    beside = [found.cells for found in stated.side_by_side(run.machine.ceilings)]
    if beside:
        lines += ["", "## Measured beside stated", "", *_table(stated.TITLES, beside), "", stated.NOTE]
    return "\n".join(lines) + "\n"


def _without_empty(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> tuple[tuple[str, ...], list]:
    """Leave out the optional columns that no row fills."""
    kept = [i for i, title in enumerate(titles) if title not in _OPTIONAL or any(row[i] for row in rows)]
    return tuple(titles[i] for i in kept), [tuple(row[i] for i in kept) for row in rows]


def _parts(measured: list[_view.Row]) -> list[str]:
    """The phases that were run alone, as a table of their own."""
    cells = [
        (
            row.number or f"{row.point.implementation} {_view.case_text(row.point)} {row.point.cache}",
            clean(part.name),
            _view.time_text(part),
            _view.interval_text(part),
            _view.wall_text(part.bound),
            _view.machine_text(part),
            _view.design_text(part),
        )
        for row in measured
        for part in row.point.parts
        if part.time_s
    ]
    titles = ("point", "part, measured alone", "time", "±", "wall", "machine", "design")
    return ["", "## Parts", "", *_table(titles, cells)] if cells else []


def _second_clocks(measured: list[_view.Row]) -> list[str]:
    """The device's records beside the clocks that times come from; a host's raw clock is told once for all points."""
    cells = [
        (
            row.number or f"{row.point.implementation} {_view.case_text(row.point)}",
            row.point.cache,
            _view.time_text(row.point),
            _steps.records_text(row.point),
        )
        for row in measured
        if _steps.records_text(row.point)
    ]
    titles = ("point", "cache", "time by events", "second clock")
    return ["", "## Second clocks", "", *_table(titles, cells)] if cells else []


def _markdown_cells(row: _view.Row) -> tuple[str, ...]:
    point = row.point
    reason = f": {point.reason}" if point.reason else ""
    warned = f" ({', '.join(warning.id for warning in point.warnings)})" if point.warnings else ""
    return (
        row.number,
        point.kernel,
        point.implementation,
        _view.sizes_text(point.shape),
        "" if point.device is None else str(point.device),
        point.dtype,
        point.direction,
        point.cache,
        point.clock,
        _view.time_text(point),
        _view.interval_text(point),
        _steps.step_text(point),
        _steps.tax_text(point),
        _view.wall_text(point.bound, point.contested_with),
        point.attribution.wall if point.attribution else "",
        _view.machine_text(point),
        _view.design_text(point),
        _view.rate_text(point),
        point.status + reason + warned,
    )


def _table(titles: tuple[str, ...], rows: list) -> list[str]:
    return [
        f"| {' | '.join(titles)} |",
        f"|{'|'.join(' --- ' for _ in titles)}|",
        *(f"| {' | '.join(map(_escape, cells))} |" for cells in rows),
    ]


def _escape(text: str) -> str:
    """Text that is neither markup nor HTML nor the end of a table cell."""
    text = clean(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join(f"\\{character}" if character in "\\`*[]|" else character for character in text)


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
        for name in ("rotated", "sliced", "halved", "longer")
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
    "throttle": lambda point: "; ".join(f"{name} {share:.2f}" for name, share in point.telemetry.throttle.items()),
    **{f"counted_{name}": _of("counted", name) for name in ("dram_read_bytes", "dram_write_bytes", "cache_bytes")},
    **{name: _of("counted", name) for name in ("tensor_share", "amplification", "amplification_streamed")},
    "warnings": lambda point: " ".join(warning.id for warning in point.warnings),
}
