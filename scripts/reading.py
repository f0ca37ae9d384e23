"""The verbs that read results: report, compare, ceilings --show. They need neither torch nor triton."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape

from seqroof.profiler.ceiling_store import machine_of
from seqroof.roofline._view import clean
from seqroof.roofline.extras import installing
from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Run
from seqroof.roofline.store import RunFileError, load, write_atomically
from seqroof.roofline.wording import SOURCE, Wording

from . import pictures
from .exits import Exit, Stop, room_for
from .progress import say, typed

Read = TypeVar("Read", Run, Machine)
FORMATS = ("table", "md", "csv", "json")


def load_run(path: Path) -> Run:
    """Read a run; an unreadable one ends the command with a sentence."""
    try:
        return load(path)
    except RunFileError as error:
        raise Stop(str(error), Exit.USAGE) from error


def unless_unreadable(read: Callable[[Path], Read], path: Path) -> Read | None:
    """What `read` makes of a file that nobody named; None, with a line about it, where it cannot be read."""
    try:
        return read(path)
    except Stop as stop:
        say(f"seqroof: passed over: {stop}")
        return None


def ascii_only() -> bool:
    """Whether stdout cannot show more than ASCII."""
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    return not encoding.startswith("utf") or os.environ.get("TERM") == "dumb"


def show(run: Run, all_points: bool = False) -> None:
    """Print the table and the chart."""
    from seqroof.roofline import table, terminal_chart

    console = Console(highlight=False)
    table.render(run, console, all_points)
    if any(point.time_s for point in run.points):
        print(terminal_chart.render(run, width=min(console.width, 120), ascii=ascii_only()))


def check_language(language: str) -> str:
    """The language of a page; one that is not known ends the command with a sentence."""
    try:
        return Wording(language).language
    except ValueError as error:
        raise Stop(str(error), Exit.USAGE) from error


def write_pages(run: Run, folder: Path, language: str = SOURCE) -> None:
    """Write page and chart beside a run; without the report extra, say how to make them elsewhere."""
    again = typed(f"seqroof report {shlex.quote(str(folder))}")
    try:
        from seqroof.roofline import chart, page

        made = {"report.html": page.render([run], language), "roofline.svg": chart.to_svg([run])}
    except ImportError:
        say(
            f"seqroof: no page and chart here: the report extra is not installed ({installing('report')}). "
            f"Make them anywhere with: {again} --html page.html"
        )
        return
    for name, text in made.items():
        with room_for(folder / name, f"{folder}/run.json is whole: make room, then {again} shows it"):
            write_atomically(folder / name, text.encode())


def report(
    paths: list[Path],
    files: dict[str, Path | None],
    format: str,
    all_points: bool,
    force: bool,
    ncu: Path | None = None,
    language: str = SOURCE,
) -> None:
    """Render runs into the files asked for, or onto the terminal; `ncu` is a file of counters for a single run."""
    if format not in FORMATS:
        raise Stop(f"There is no format {format!r}; formats are {', '.join(FORMATS)}.", Exit.USAGE)
    wanted = {kind: path for kind, path in files.items() if path is not None}
    if check_language(language) != SOURCE and "html" not in wanted:
        raise Stop("--lang is the language of the page; add --html FILE.", Exit.USAGE)
    for path in wanted.values():
        pictures.check_writable(path, force)
    runs = [load_run(path) for path in paths]
    if format in ("json", "csv") and len(runs) > 1:
        raise Stop(f"--format {format} writes one document, so it takes one run; {len(runs)} were given.", Exit.USAGE)
    if ncu is not None:
        runs = [_with_counters(runs, ncu)]
    for kind, path in wanted.items():
        _write(kind, path, runs, language)
    if not wanted or format != "table":
        for run in runs:
            _print_run(run, format, all_points)


def _with_counters(runs: list[Run], file: Path) -> Run:
    """The one run that was given, with the counters of a file; the file of the run stays as it is."""
    from seqroof.roofline.counted import imported
    from seqroof.roofline.ncu import NcuError

    if len(runs) != 1:
        raise Stop(f"--ncu belongs to one run; {len(runs)} were given.", Exit.USAGE)
    try:
        return imported(runs[0], file.read_text(encoding="utf-8", errors="replace"), file.name)
    except OSError as error:
        raise Stop(f"{file} cannot be read: {error.strerror}.", Exit.USAGE) from error
    except NcuError as error:
        raise Stop(f"{file}: {error}.", Exit.USAGE) from error


def _write(kind: str, path: Path, runs: list[Run], language: str) -> None:
    from seqroof.roofline import chart, page

    makers: dict[str, Any] = {"svg": chart.to_svg, "png": chart.to_png, "pdf": chart.to_pdf}
    pictures.write(path, lambda: page.render(runs, language) if kind == "html" else makers[kind](runs))


def _print_run(run: Run, format: str, all_points: bool) -> None:
    from seqroof.roofline import export

    if format == "table":
        show(run, all_points)
    else:
        maker = {"md": export.markdown, "csv": export.csv, "json": export.json}[format]
        print(maker(run).rstrip("\n"))


def show_ceilings(as_json: bool, device: str = "auto") -> None:
    """Print the newest of the roofs that were measured before on this kind of device."""
    print_machine(_newest_machine(device), as_json)


def print_machine(machine: Machine, as_json: bool) -> None:
    """Print the roofs of a machine."""
    from seqroof.roofline import table

    if as_json:
        print(machine.model_dump_json())
        return
    console = Console(highlight=False)
    measured = [ceiling.when for ceiling in machine.ceilings if ceiling.provenance in ("measured", "replayed")]
    when = f", measured {clean(max(measured))[:10]}" if any(measured) else ""
    console.print(f"[bold]{escape(clean(machine.name))}[/bold]{escape(when)}")
    table.ceilings(machine.ceilings, console)


def _newest_machine(device: str) -> Machine:
    """The machine with the newest roofs that are kept here: of any device for "auto", else of a CPU or a GPU."""
    runs, kind = Path("seqroof-runs"), device.partition(":")[0]
    files = [*runs.glob("ceilings/*.json"), *runs.glob("*/run.json")]
    for file in sorted(files, key=lambda path: path.stat().st_mtime, reverse=True):
        machine = unless_unreadable(read_machine, file)
        if machine is not None and kind in ("auto", machine.device):
            return machine
    of = "" if kind == "auto" else f" of {device}"
    raise Stop(f"No roofs{of} were measured here yet; run `seqroof ceilings{_option(device)}`.", Exit.USAGE)


def _option(device: str) -> str:
    return "" if device == "auto" else f" --device {device}"


def read_machine(path: Path) -> Machine:
    """The machine of a run, or of a file that `seqroof ceilings` wrote; unreadable ones end the command."""
    if path.is_dir():
        return load_run(path).machine
    if not path.exists():
        raise Stop(f"There is no {path}; roofs come from a run, or from `seqroof ceilings`.", Exit.USAGE)
    try:
        data = json.loads(path.read_bytes())
        return load_run(path).machine if "schema_version" in data else Machine.model_validate(machine_of(data))
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise Stop(
            f"{path} holds neither a run nor roofs; measure again with `seqroof ceilings`.", Exit.USAGE
        ) from error
