"""`seqroof profile` and `seqroof verify`: from options to a request, and from the record to what is printed."""

from __future__ import annotations

import itertools
import json
import shlex
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from seqroof.profiler.request import FULL_GROUP_S, MOST_GROUP_S, Request
from seqroof.roofline.claims import SUITE as CLAIMS
from seqroof.roofline.next_command import next_command
from seqroof.roofline.record import Point, Run
from seqroof.roofline.units import binary_bytes, si

from . import measuring, reading
from .against import take_over
from .comparing import parse_band, print_comparison
from .exits import Exit, Stop, exit_code
from .progress import say, typed
from .sweep import check_device, parse_directions, parse_dtypes, parse_duration, parse_shape

SUITES = ("quick", "standard", "full", CLAIMS)
# Time for a group of the quick suite where the whole has no limit: half of what longer suites give.
QUICK_GROUP_S = 3.0
# The suite of the claims times few rows, mostly in one state of the caches, so each has as long as in a longer suite.
CLAIMS_GROUP_S = 1.5


def request_of(
    kernels: list[str] | None,
    suite: str | None,
    shape: list[str] | None,
    dtype: list[str] | None,
    direction: list[str] | None,
    device: str,
    implementation: list[str] | None,
    budget: str | None,
    rounds: int | None,
    seed: int | None,
    counters: bool = False,
    deadline: str | None = None,
    attribution: bool | None = None,
) -> Request:
    """Check the options that can be checked without torch; raises `Stop` with a sentence."""
    suite = suite or "quick"
    if suite not in SUITES:
        raise Stop(f"There is no suite {suite!r}; suites are {', '.join(SUITES)}.", Exit.USAGE)
    typed = {"--shape": shape, "--dtype": dtype, "--direction": direction}
    if suite == CLAIMS and any(typed.values()):
        options = ", ".join(name for name, value in typed.items() if value)
        raise Stop(f"The suite {CLAIMS!r} says itself what to measure; leave out {options}.", Exit.USAGE)
    axes = parse_shape(shape or [])
    wanted = ",".join(implementation or [])
    quick, for_claims = suite == "quick" and not axes, suite == CLAIMS
    named_s = parse_duration(budget)
    whole_s = measuring.QUICK_BUDGET_S if quick else measuring.CLAIMS_BUDGET_S if for_claims else None
    usual_group_s = QUICK_GROUP_S if quick else CLAIMS_GROUP_S if for_claims else FULL_GROUP_S
    return Request(
        kernels=list(kernels or []),
        suite=suite,
        axes=axes,
        dtypes=parse_dtypes(dtype or []),
        directions=parse_directions(direction or []),
        device=check_device(device),
        implementations=[name.strip() for name in wanted.split(",") if name.strip()],
        compile=not (quick or for_claims) or "compile" in wanted,
        attribution=(suite in ("standard", "full", CLAIMS) and not axes) if attribution is None else attribution,
        parts=not for_claims,
        budget_s=named_s or (None if kernels or rounds is not None else whole_s),
        group_s=MOST_GROUP_S if named_s else usual_group_s,
        rounds=rounds,
        counters=counters,
        seed=seed or 0,
        effort="quick" if quick or for_claims else "full",
        deadline_s=parse_duration(deadline),
    )


def run(
    request: Request,
    out: Path | None,
    resume: bool,
    force: bool,
    against: Path | None,
    given: set[str],
    band: str,
    roofs: Path | None,
    fresh_roofs: bool,
    dry: bool,
    all_points: bool,
    as_json: bool,
    language: str,
) -> None:
    """Profile, report, and leave with the documented exit code.

    given : the options that were typed; with `against`, the baseline decides the others.
    """
    share = parse_band(band)
    reading.check_language(language)
    if roofs is not None and fresh_roofs:
        raise Stop("--roofs uses roofs measured before and --fresh-roofs measures them; choose one.", Exit.USAGE)
    base = reading.load_run(against) if against else None
    if base is not None:
        request, told = take_over(base, request, given)
        say(f"seqroof: {told}")
    if dry:
        groups = measuring.dry_run(request)
        _print_plan(groups, measuring.about_s(request, groups), as_json)
        return
    made, folder, code = measuring.profile(request, out, resume, force, roofs, base, fresh_roofs)
    reading.write_pages(made, folder, language)
    if as_json:
        print(json.dumps(made.model_dump(mode="json"), allow_nan=False))
    else:
        reading.show(made, all_points)
    if base is not None:
        gate = print_comparison(base, made, share, everything=all_points, to_stderr=as_json)
        code = exit_code([point.status for point in made.points], gate, Exit(code))
    _say_next(made, folder)
    raise typer.Exit(int(measuring.final_code(code)))


def _say_next(run: Run, folder: Path) -> None:
    """End by naming the files and the next command."""
    measuring.say_written(run, folder)
    if run.state != "interrupted":
        say(f"Next: {typed(next_command(run, shlex.quote(str(folder))))}")


def _print_plan(groups: list[dict[str, Any]], about_s: float | None, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"groups": groups} | ({} if about_s is None else {"about_s": round(about_s)})))
        return
    console = Console(highlight=False)
    told = "By dtype: operations, bytes at least, memory needed, implementations."
    console.print(f"{len(groups)} groups; nothing was run. {told}", soft_wrap=True)
    by_case = itertools.groupby(groups, key=lambda group: (group["kernel"], group["direction"], group["shape"]))
    for (kernel, direction, shape), members in by_case:
        sizes = ",".join(f"{name}={value}" for name, value in shape.items())
        console.print(f"\n[bold]{escape(kernel)}[/bold] {direction} {escape(sizes)}", soft_wrap=True)
        console.print(_planned_rows(list(members)))
    if about_s is not None:
        how = "modelled by the work of the groups; nothing was timed"
        print(f"\nAbout {about_s / 60:.0f} minutes on two cores ({how}).")


def _planned_rows(groups: list[dict[str, Any]]) -> Table:
    """The dtypes of one case with what each would take, below one another."""
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(min_width=6, no_wrap=True)
    for _ in ("operations", "bytes", "memory"):
        table.add_column(min_width=10, justify="right", no_wrap=True)
    table.add_column(overflow="fold")
    for group in groups:
        work, rows = group["work"], " ".join(group["implementations"])
        amounts = si(work["flops"], "FLOP"), si(work["compulsory_bytes"], "B"), binary_bytes(group["memory_bytes"])
        table.add_row(f"  {group['dtype']}", *amounts, escape(rows) or "none runs here")
    return table


def run_verify(request: Request, long: bool, part: tuple[int, int], as_json: bool) -> None:
    """Verify, print a line for every case that was checked, and leave with the documented exit code."""
    request.dtypes = request.dtypes or ["fp32", "tf32", "fp16", "bf16"]
    found = measuring.verify(request, long, part)
    points = found.points
    if as_json:
        told = {"interrupted": found.interrupted, "points": [_verified(point) for point in points]}
        print(json.dumps(told, allow_nan=False))
    else:
        _print_verified(points)
    ended = [Exit.INTERRUPTED] if found.interrupted else []
    raise typer.Exit(int(exit_code([point.status for point in points], *ended)))


def _verified(point: Point) -> dict[str, Any]:
    fields = {"kernel", "implementation", "shape", "dtype", "direction", "status", "reason", "correctness"}
    return point.model_dump(mode="json", include=fields)


def _print_verified(points: list[Point]) -> None:
    console = Console(highlight=False)
    shown = [point for point in points if point.status != "skipped"]
    for _, group in itertools.groupby(shown, key=lambda point: (point.kernel, point.shape_text, point.direction)):
        cases = list(group)
        console.print(
            f"[bold]{escape(cases[0].kernel)}[/bold] {cases[0].shape_text} {cases[0].direction}", soft_wrap=True
        )
        for point in cases:
            known = point.correctness
            error = f"{known.max_error:.1e}" if known and known.max_error is not None else "-"
            allowed = f"{known.allowed_max:.1e}" if known and known.allowed_max is not None else "-"
            verdict = (
                point.reason if point.status == "ok" and point.reason else f"{point.status} {point.reason}".strip()
            )
            row = f"  {point.implementation:<16} {point.dtype:<5} error {error:>7}, allowed {allowed:>7}  {verdict}"
            console.print(escape(row), soft_wrap=True)
    skipped = [point for point in points if point.status == "skipped"]
    for reason in dict.fromkeys(point.reason for point in skipped):
        count = sum(point.reason == reason for point in skipped)
        print(f"skipped, {count} cases: {reason}")
    bad = [point for point in points if point.status not in ("ok", "skipped")]
    print(f"{sum(point.status == 'ok' for point in points)} ok, {len(bad)} failed, {len(skipped)} skipped")
