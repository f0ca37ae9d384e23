"""`seqroof what-if RUN`: what would help each measured point, and how far measured pairs bear the model out."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.roofline import _view, what_if
from seqroof.roofline.record import Point, Run
from seqroof.roofline.units import percent, seconds
from seqroof.roofline.what_if import Case

from .exits import Exit, Stop
from .reading import load_run


def what_if_run(path: Path, as_json: bool) -> None:
    """Print what would help each headline point of a run, and how far its measured pairs bear the model out."""
    run = load_run(path)
    rows = [(row, case) for row in _view.rows([run]) if row.point.headline and (case := _scored(row.point))]
    if not rows:
        raise Stop(f"{path} holds no timed point whose time can be estimated; profile something first.", Exit.USAGE)
    found = what_if.checks(run.points)
    if as_json:
        points = [{"key": row.point.key} | _helped(row.point, case, run) for row, case in rows]
        print(
            json.dumps(
                {"points": points, "checks": [dataclasses.asdict(check) | {"off": check.off} for check in found]}
            )
        )
        return
    console = Console(highlight=False)
    _print_points(rows, run, console)
    _print_checks(found, console)


def _scored(point: Point) -> Case | None:
    return Case.of(point) if point.status == "ok" and point.time_s and point.estimate_s else None


def _helped(point: Point, case: Case, run: Run) -> dict[str, Any]:
    assert point.time_s is not None
    return {
        "time_s": point.time_s.median,
        "estimate_s": point.estimate_s,
        "elasticities": what_if.elasticities(case, run.machine),
    }


def _print_points(rows: Sequence[tuple[_view.Row, Case]], run: Run, console: Console) -> None:
    by_point = {id(row.point): case for row, case in rows}
    console.print("Percent of time that one percent more of a resource saves, in each row's own design (modelled).\n")
    for heading, members in _view.sections([row for row, _ in rows]):
        console.print(f"[bold]{escape(heading)}[/bold]", soft_wrap=True)
        table = Table(box=None, pad_edge=False)
        for title in ("#", "implementation", "dtype", "measured", "estimate", *what_if.RATES):
            table.add_column(
                title, justify="left" if title in ("implementation", "dtype") else "right", overflow="fold"
            )
        for row, sizes in members:
            point, found = row.point, _helped(row.point, by_point[id(row.point)], run)
            if sizes:
                table.add_row("", escape(sizes))
            shares = [_share(found["elasticities"].get(name, 0.0)) for name in what_if.RATES]
            times = seconds(found["time_s"]), seconds(found["estimate_s"])
            table.add_row(
                row.number, escape(_view.clean(point.implementation)), escape(_view.clean(point.dtype)), *times, *shares
            )
        console.print(table)
    console.print()


def _share(value: float) -> str:
    """Two digits; a dot where the resource does not matter, so that the eye finds those that do."""
    return f"{value:.2f}" if abs(value) >= 0.005 else "."


# A model that is off by no more than a quarter is near; beyond half, the pair is listed.
NEAR = 1.25
FAR_OFF = 1.5
MOST_LISTED = 12


def _print_checks(found: Sequence[what_if.Check], console: Console) -> None:
    if not found:
        console.print(
            "No two points of this run differ in the batch or the dtype alone, so nothing checks the model here."
        )
        return
    right = sum(check.off <= NEAR for check in found)
    console.print(
        f"Measured pairs against the model: {len(found)} that differ in batch or dtype alone; it is typically off by "
        f"{percent(what_if.typical_error(found) - 1)}, and within 25 %, or the measured interval, on {right}."
    )
    far = sorted((check for check in found if check.off > FAR_OFF), key=lambda check: -check.off)
    if not far:
        return
    console.print("Furthest off, as times as fast per token:")
    for check in far[:MOST_LISTED]:
        measured = f"measured {check.measured:.2f} ({check.low:.2f} to {check.high:.2f})"
        name = escape(_view.clean(f"{check.kernel} {check.implementation}"))
        console.print(f"  {name}, {check.change}: modelled {check.modelled:.2f}, {measured}")
        console.print(f"    {escape(_view.clean(check.case))}", style="dim", soft_wrap=True)
    if len(far) > MOST_LISTED:
        console.print(f"... and {len(far) - MOST_LISTED} more; --json has all.")
