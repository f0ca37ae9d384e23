"""`seqroof profile` and `seqroof verify`: from options to a request, and from the record to what is printed."""

from __future__ import annotations

import itertools
import json
import shlex
from dataclasses import replace
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

from . import measuring, reading, verifying
from .against import take_over
from .comparing import parse_band, print_comparison
from .exits import Exit, Stop, exit_code
from .options import Typed
from .progress import say, typed
from .sweep import check_device, parse_directions, parse_dtypes, parse_duration, parse_shape

SUITES = ("quick", "standard", "full", CLAIMS)
# Time for a group of the quick suite where the whole has no limit: half of what longer suites give.
QUICK_GROUP_S = 3.0
# The suite of the claims times few rows, mostly in one state of the caches, so each has as long as in a longer suite.
CLAIMS_GROUP_S = 1.5


def request_of(options: Typed) -> Request:
    """Check the options that can be checked without torch; raises `Stop` with a sentence."""
    suite = _suite_of(options)
    axes = parse_shape(options.shape or [])
    wanted = ",".join(options.implementation or [])
    named_s = parse_duration(options.budget)
    usual = _suite_defaults(suite, swept=bool(axes))
    limited = not options.kernels and options.rounds is None
    return replace(
        usual,
        kernels=list(options.kernels or []),
        axes=axes,
        dtypes=parse_dtypes(options.dtype or []),
        directions=parse_directions(options.direction or []),
        device=check_device(options.device),
        implementations=[name.strip() for name in wanted.split(",") if name.strip()],
        compile=usual.compile or "compile" in wanted,
        attribution=usual.attribution if options.attribution is None else options.attribution,
        budget_s=named_s or (usual.budget_s if limited else None),
        group_s=MOST_GROUP_S if named_s else usual.group_s,
        rounds=options.rounds,
        counters=options.counters,
        seed=options.seed or 0,
        deadline_s=parse_duration(options.deadline),
    )


def _suite_of(options: Typed) -> str:
    """The suite that is meant; raises `Stop` where there is none of that name, or it has no use for other options."""
    suite = options.suite or "quick"
    if suite not in SUITES:
        raise Stop(f"There is no suite {suite!r}; suites are {', '.join(SUITES)}.", Exit.USAGE)
    cases = {"--shape": options.shape, "--dtype": options.dtype, "--direction": options.direction}
    if suite == CLAIMS and any(cases.values()):
        typed_too = ", ".join(name for name, value in cases.items() if value)
        raise Stop(f"The suite {CLAIMS!r} says itself what to measure; leave out {typed_too}.", Exit.USAGE)
    return suite


def _suite_defaults(suite: str, swept: bool) -> Request:
    """What a suite decides where no option does: its time, its effort and its extras.

    swept : sizes were typed, so that the cases are not those of the suite.
    """
    if suite == CLAIMS:
        return Request(
            suite=suite,
            compile=False,
            attribution=True,
            parts=False,
            budget_s=measuring.CLAIMS_BUDGET_S,
            group_s=CLAIMS_GROUP_S,
            effort="quick",
        )
    if suite == "quick" and not swept:
        return Request(suite=suite, budget_s=measuring.QUICK_BUDGET_S, group_s=QUICK_GROUP_S, effort="quick")
    long = suite in ("standard", "full") and not swept
    return Request(suite=suite, compile=True, attribution=long, group_s=FULL_GROUP_S, effort="full")


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
    found = verifying.verify(request, long, part)
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
