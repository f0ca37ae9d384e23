"""What a page says around its points: its sections, the question, the walls of the machine, what would help.

Every function returns finished sentences and cells, so that the page and the Markdown say the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from . import what_if
from ._view import Row, clean
from .floors import matmul_rate
from .machine import Ceiling
from .page_points import short_sizes
from .record import Point, Run, Wall
from .regime import main_dtype
from .stats import median
from .units import seconds, si
from .wording import Wording

# Shares are told to two digits; smaller ones are left out, so that the eye finds the others.
SEEN = 0.005
UNEXPLAINED = 2.0  # measured over estimated time beyond which the model explains less than half of the time
BAR = 100  # pixels of the bar that shows what a time consists of

Json = dict[str, Any]


def headings(_: Wording) -> dict[str, tuple[str, str]]:
    """The sections in their order, by anchor: (name in the table of contents, heading)."""
    return {
        "question": (_("question"), _("The question, and the short answer")),
        "machine": (_("machine"), _("The machine and its walls")),
        "roofline": (_("kernels"), _("Where each kernel stands")),
        "walks": (_("larger batches"), _("Up the roof: what a larger batch costs")),
        "map": (_("map of walls"), _("Which wall binds a recurrence, at every size")),
        "contrast": (_("equal layers"), _("The same task: layers of equal size")),
        "claims": (_("claims"), _("The claims, and what these measurements say of them")),
        "helps": (_("what would help"), _("What would help")),
        "method": (_("how it was measured"), _("How it was measured")),
    }


def question(of_the_argument: bool, _: Wording) -> str:
    """What the page is about: the argument, or for kernels that it does not concern the four walls."""
    if of_the_argument:
        return _(
            "Every step of an LSTM multiplies its state with weights that have to be fetched again, and cannot begin "
            "before the step before it has ended. The argument that is put to the test here: such steps ask for more "
            "bandwidth than hardware has, so most of its arithmetic idles, while attention and gated convolution work "
            "on all steps at once and fit it."
        )
    return _(
        "Work can be stopped by four walls: arithmetic, the bandwidth of DRAM, the bandwidth of the last cache, and "
        "the chain of steps that must wait for one another. Which of them stops these kernels, and how near do they "
        "come to it?"
    )


def floor_note(_: Wording) -> str:
    """What a floor is, and which of the four is called the wall."""
    return _(
        "A floor is the least time that the counted work needs on one wall: operations over the compute rate, bytes "
        "over the bandwidth of DRAM and of the last shared cache, dependent steps times the latency of one. The "
        "highest floor is the wall. Floors use ceilings that were measured on this machine where the table says so."
    )


def walls(run: Run, _: Wording) -> list[tuple[Wall, str, str, str, str]]:
    """The four walls of a machine: what stops a kernel there, the limit, its value, provenance and meaning."""
    dtype, machine = main_dtype(run.machine), run.machine
    launch = machine.best("latency", "launch")
    limits: tuple[tuple[Wall, str, Ceiling | None, str], ...] = (
        ("compute", _("arithmetic, %(dtype)s", dtype=dtype), matmul_rate(machine, dtype), _("operations in a second")),
        ("dram", _("DRAM bandwidth"), machine.best("bandwidth", "dram"), _("bytes to and from memory in a second")),
        ("cache", _("last shared cache"), machine.best("bandwidth", "cache"), _("bytes to and from it in a second")),
        ("serial", _("one launch"), launch, _("what a step costs at least when each is a launch")),
    )
    return [
        (wall, name, si(roof.value, roof.unit), _(roof.provenance), means)
        for wall, name, roof, means in limits
        if roof is not None
    ]


def ridge(run: Run, _: Wording) -> str:
    """How many operations a byte must pay for before arithmetic is what stops a kernel; nothing where not known."""
    rate, bandwidth = matmul_rate(run.machine, main_dtype(run.machine)), run.machine.best("bandwidth", "dram")
    if rate is None or bandwidth is None:
        return ""
    return _(
        "Below %(ridge)s operations per byte of memory traffic, memory is slower than arithmetic here (derived).",
        ridge=f"{rate.value / bandwidth.value:.3g}",
    )


def helps(runs: Sequence[Run], rows: Sequence[Row]) -> list[Json]:
    """What would help each kernel: of its smallest and largest charted case the fastest row, and its time's parts."""
    cases: dict[tuple[int, str], dict[str, list[Row]]] = {}
    for row in rows:
        point = row.point
        if row.number and point.direction == "forward" and point.work and point.time_s and point.estimate_s:
            shapes = cases.setdefault((row.run, point.kernel), {})
            shapes.setdefault(f"{point.shape_text} {point.dtype}", []).append(row)
    found = []
    for row in (row for shapes in cases.values() for row in _ends(list(shapes.values()))):
        case = what_if.Case.of(row.point)
        shares = what_if.elasticities(case, runs[row.run].machine) if case else {}
        if shares:
            found.append(_helped(row, shares))
    return found


def _ends(cases: Sequence[Sequence[Row]]) -> list[Row]:
    """The fastest row of the smallest and of the largest case, once where they are the same."""
    fastest = [min(rows, key=lambda row: row.point.time_s.median if row.point.time_s else 0.0) for rows in cases]
    ordered = sorted(fastest, key=lambda row: row.point.work.flops if row.point.work else 0)
    return ordered[:1] if len(ordered) == 1 else [ordered[0], ordered[-1]]


def _helped(row: Row, shares: dict[str, float]) -> Json:
    point, ratio = row.point, _over_estimate(row.point)
    assert point.time_s is not None and ratio is not None
    return {
        "number": row.number,
        "kernel": clean(point.kernel),
        "implementation": clean(point.implementation),
        "case": f"{short_sizes(point.shape)} {clean(point.dtype)}",
        "time": seconds(point.time_s.median),
        "estimate": seconds(point.estimate_s),
        "ratio": f"{ratio:.3g}",
        "half_unexplained": ratio > UNEXPLAINED,
        "shares": [f"{shares[name]:.2f}" if shares[name] >= SEEN else "" for name in what_if.RATES],
        "parts": _parts(shares),
    }


def _parts(shares: dict[str, float]) -> list[Json]:
    """The shares as lengths of one bar, which add up to its width."""
    found, start = [], 0.0
    for name in what_if.RATES:
        width = BAR * min(max(shares[name], 0.0), 1.0)
        found.append({"resource": name, "start": round(start, 1), "width": round(width, 1)})
        start += width
    return found


def model_error(runs: Sequence[Run], rows: Sequence[Row], _: Wording) -> str:
    """How far measured pairs bear the model's gains out, and measured times its times; nothing where neither is known.

    rows : those of the runs; the charted ones with an estimate count.
    """
    found = [check for run in runs for check in what_if.checks(run.points)]
    ratios = [ratio for row in rows if row.number and (ratio := _over_estimate(row.point))]
    texts = []
    if found:
        texts.append(
            _(
                "Gains between %(count)s measured pairs that differ in batch or dtype alone are foretold to within a "
                "factor of %(error)s in the median.",
                count=len(found),
                error=f"{what_if.typical_error(found):.2f}",
            )
        )
    if ratios:
        times = f"{median(ratios):.2g}"
        texts.append(_("Measured times are %(times)s times the estimate in the median.", times=times))
    return " ".join(texts)


def _over_estimate(point: Point) -> float | None:
    """Measured time over the model's estimate; None where either is not known."""
    return point.time_s.median / point.estimate_s if point.time_s and point.estimate_s else None


def unexplained(helped: Sequence[Json], _: Wording) -> str:
    """Of how many rows of `helps` the model explains less than half of the time; nothing where of none."""
    count = sum(row["half_unexplained"] for row in helped)
    if not count:
        return ""
    return _(
        "Of %(count)s of these %(all)s rows the model explains less than half of the measured time (measured / "
        "estimate above %(limit)s): what is said of them holds for that part alone.",
        count=count,
        all=len(helped),
        limit=f"{UNEXPLAINED:g}",
    )
