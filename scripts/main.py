"""The `seqroof` command. Each verb reads its options here and hands over to the module that does the work.

Nothing that is slow to import is imported at the top: `--help` and the verbs that read results must start at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import model_verbs
from .exits import Exit, Stop, run
from .options import (
    Attribution,
    Band,
    Counters,
    Deadline,
    Device,
    Direction,
    Dtype,
    Force,
    Json,
    Kernels,
    Language,
    Out,
    Resume,
    Seed,
    Shape,
    Suite,
    Typed,
)

app = typer.Typer(
    name="seqroof",
    help="How close does a sequence kernel run to what the machine allows, and which wall stops it: "
    "compute, DRAM bandwidth, cache bandwidth, or the chain of dependent steps?",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    epilog="First steps: seqroof profile · seqroof predict lstm_step --shape B=1,I=1024,H=1024 --on h200-sxm",
)


def _version(wanted: bool) -> None:
    if wanted:
        from .version import VERSION

        print(f"seqroof {VERSION}")
        raise typer.Exit()


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
def profile(
    kernels: Kernels = None,
    suite: Suite = None,
    shape: Shape = None,
    dtype: Dtype = None,
    direction: Direction = None,
    device: Device = "auto",
    implementation: Annotated[
        list[str] | None, typer.Option(help="Only these implementations.", show_default=False)
    ] = None,
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    against: Annotated[
        Path | None, typer.Option(help="Measure what an earlier run did and compare; exit 1 when slower.")
    ] = None,
    band: Band = "1%",
    roofs: Annotated[Path | None, typer.Option(help="Use roofs measured before: a run, or a file of ceilings.")] = None,
    fresh_roofs: Annotated[
        bool, typer.Option("--fresh-roofs", help="Measure the roofs again, though a recent run measured them.")
    ] = False,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 60s, 5m.", show_default=False)] = None,
    rounds: Annotated[
        int | None,
        typer.Option(min=1, max=1000, help="Exactly so many rounds; beyond 18 they take longer.", show_default=False),
    ] = None,
    counters: Counters = False,
    attribution: Attribution = None,
    deadline: Deadline = None,
    seed: Annotated[
        int | None, typer.Option("--seed", min=0, help="Seed of the random inputs.", show_default="0")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List the cases, run nothing.")] = False,
    all_points: Annotated[bool, typer.Option("--all", help="Show every cache state and clock.")] = False,
    lang: Language = "en",
    json: Json = False,
) -> None:
    """Measure kernels: correctness, time, roofs, floors, verdict. Without arguments: the quick suite in a minute."""
    from . import profile_verb

    options = Typed(
        kernels=kernels,
        suite=suite,
        shape=shape,
        dtype=dtype,
        direction=direction,
        device=device,
        implementation=implementation,
        budget=budget,
        rounds=rounds,
        seed=seed,
        counters=counters,
        deadline=deadline,
        attribution=attribution,
    )
    profile_verb.run(
        request=profile_verb.request_of(options),
        out=out,
        resume=resume,
        force=force,
        against=against,
        given=options.given(),
        band=band,
        roofs=roofs,
        fresh_roofs=fresh_roofs,
        dry=dry_run,
        all_points=all_points,
        as_json=json,
        language=lang,
    )


@app.command()
def verify(
    kernels: Kernels = None,
    quick: Annotated[bool, typer.Option("--quick", help="The quick suite and odd shapes (the default).")] = False,
    long: Annotated[bool, typer.Option("--long", help="The standard suite and all odd shapes too.")] = False,
    part: Annotated[str | None, typer.Option("--part", help="2/8: the second of eight parts, for long checks.")] = None,
    shape: Shape = None,
    dtype: Dtype = None,
    direction: Direction = None,
    device: Device = "auto",
    deadline: Deadline = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Check results only, forward and backward, against float64. On a CPU the Triton kernels run interpreted."""
    from . import profile_verb
    from .sweep import parse_part

    if quick and long:
        raise Stop("--quick and --long exclude each other.", Exit.USAGE)
    options = Typed(
        kernels=kernels,
        suite="standard" if long else "quick",
        shape=shape,
        dtype=dtype,
        direction=direction or ["forward", "backward"],
        device=device,
        deadline=deadline,
        seed=seed,
    )
    profile_verb.run_verify(profile_verb.request_of(options), long, parse_part(part), as_json=json)


@app.command()
def ceilings(
    show: Annotated[bool, typer.Option("--show", help="Print what was measured before; measure nothing.")] = False,
    device: Device = "auto",
    full: Annotated[bool, typer.Option("--full", help="Take longer, measure more closely.")] = False,
    json: Json = False,
) -> None:
    """Measure the roofs of this machine, or show them."""
    from . import reading
    from .sweep import check_device

    device = check_device(device)
    if not show:
        from .measuring import measure_ceilings

        measure_ceilings(device, "full" if full else "quick", lambda machine: reading.print_machine(machine, json))
    else:
        reading.show_ceilings(json, device)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Folders or run.json files.")],
    html: Annotated[Path | None, typer.Option(help="Write the page.", show_default=False)] = None,
    svg: Annotated[Path | None, typer.Option(help="Write the chart as SVG.", show_default=False)] = None,
    png: Annotated[Path | None, typer.Option(help="Write the chart as PNG.", show_default=False)] = None,
    pdf: Annotated[Path | None, typer.Option(help="Write the chart as PDF.", show_default=False)] = None,
    ncu: Annotated[
        Path | None, typer.Option(help="Add the counters of a file from ncu --csv.", show_default=False)
    ] = None,
    format: Annotated[str, typer.Option(help="table, md, csv, json.")] = "table",
    all_points: Annotated[bool, typer.Option("--all", help="Show every cache state and clock.")] = False,
    lang: Language = "en",
    force: Annotated[bool, typer.Option("--force", help="Replace files that exist.")] = False,
) -> None:
    """Show runs again, as a table, a page or a chart, without measuring."""
    from . import reading

    reading.report(runs, {"html": html, "svg": svg, "png": png, "pdf": pdf}, format, all_points, force, ncu, lang)


@app.command()
def compare(
    base: Annotated[Path, typer.Argument(metavar="BASE", help="The earlier run.")],
    new: Annotated[Path, typer.Argument(metavar="NEW", help="The later run.")],
    band: Band = "1%",
    across_machines: Annotated[bool, typer.Option("--across-machines", help="Compare runs of two machines.")] = False,
    all_points: Annotated[bool, typer.Option("--all", help="Compare every cache state and clock, list all.")] = False,
    json: Json = False,
) -> None:
    """Compare two runs point by point; exit 1 when a point became slower."""
    from . import comparing

    raise typer.Exit(comparing.compare(base, new, band, across_machines, all_points, json))


@app.command()
def claims(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Default: the newest run of each device found.", show_default=False),
    ] = None,
    expect: Annotated[
        Path | None, typer.Option(help="Expected verdicts as JSON; exit 1 when one differs.", show_default=False)
    ] = None,
    json: Json = False,
) -> None:
    """Decide the claims about LSTM, attention and convolution from recorded runs; measures nothing."""
    from . import claiming

    raise typer.Exit(claiming.claims(runs or [], expect, json))


app.command()(model_verbs.predict)
app.command("what-if")(model_verbs.what_if)
app.command()(model_verbs.explain)
app.command("map")(model_verbs.map_)
app.command()(model_verbs.contrast)
app.command()(model_verbs.scaling)
app.command()(model_verbs.generations)
app.command()(model_verbs.inspect)


@app.command("list")
def list_(json: Json = False) -> None:
    """List kernels with their implementations, sizes and suites, and the machines of the catalogue."""
    from . import asking

    asking.list_all(json)


@app.command()
def doctor(
    aa: Annotated[
        bool, typer.Option("--aa", help="Time identical code against itself: the smallest change that can be resolved.")
    ] = False,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Say what this machine can and cannot measure, each obstacle with its cause and fix."""
    from . import asking

    if aa:
        from .self_test import run_self_test
        from .sweep import check_device

        run_self_test(check_device(device), json)
    else:
        asking.doctor(json)


def main() -> None:
    """Run the `seqroof` command."""
    run(app)


if __name__ == "__main__":
    main()
