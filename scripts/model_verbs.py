"""The verbs that ask the model or fit curves: predict, what-if, explain, map, contrast, scaling, generations, inspect.

`main` gives them their names. As there, nothing that is slow to import is imported at the top.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .exits import Exit, Stop
from .options import Destination, Device, Direction, Dtype, Force, Json, Out, Resume, Shape

On = Annotated[str, typer.Option("--on", help="A machine of the catalogue, or the path of a run.")]
OneDtype = Annotated[str, typer.Option("--dtype", help="fp32, tf32, fp16, bf16.")]
OneDirection = Annotated[str, typer.Option("--direction", help="forward, backward, both.")]
Weights = Annotated[str, typer.Option(help="reread or kept.")]
Chain = Annotated[str, typer.Option(help="launch, graph, barrier or inside.")]
Cache = Annotated[str, typer.Option(help="cold or warm.")]
Picture = Annotated[Path | None, typer.Option(help="Draw it into this file.", show_default=False)]


def predict(
    kernel: Annotated[str, typer.Argument(metavar="KERNEL|FILE.py")],
    on: Annotated[str, typer.Option(help="A machine of the catalogue, such as h200-sxm.")],
    shape: Shape = None,
    dtype: OneDtype = "bf16",
    direction: OneDirection = "forward",
    weights: Weights = "reread",
    chain: Chain = "launch",
    cache: Cache = "cold",
    json: Json = False,
) -> None:
    """Compute the floors of a kernel, or of a sweep, on any machine of the catalogue. Needs no GPU."""
    from . import predicting

    predicting.predict(kernel, on, shape, dtype, direction, weights, chain, cache, json)


def what_if(
    kernel: Annotated[str, typer.Argument(metavar="KERNEL|FILE.py|RUN")],
    on: On = "h200-sxm",
    shape: Shape = None,
    dtype: OneDtype = "bf16",
    direction: OneDirection = "forward",
    weights: Weights = "reread",
    chain: Chain = "launch",
    cache: Cache = "cold",
    json: Json = False,
) -> None:
    """Say what more compute, bandwidth or batch, another design or machine would buy. Needs no GPU.

    For a RUN: what would help each of its points, and how far its measured pairs bear the model out.
    """
    if Path(kernel).exists() and not kernel.endswith(".py"):
        from . import supposing_run

        supposing_run.what_if_run(Path(kernel), json)
    else:
        from . import supposing

        supposing.what_if_kernel(kernel, on, shape, dtype, direction, weights, chain, cache, json)


def explain(
    kernel: Annotated[str, typer.Argument(metavar="KERNEL|FILE.py")],
    on: On = "h200-sxm",
    shape: Shape = None,
    dtype: OneDtype = "fp32",
    direction: OneDirection = "forward",
    measure: Annotated[bool, typer.Option("--measure", help="Measure the case here, and explain its time.")] = False,
    device: Device = "auto",
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
) -> None:
    """Explain a case: its cost term by term, its four walls, and why its time is not the best possible one."""
    from . import explaining

    to = Destination(out, resume, force)
    explaining.explain(kernel, on, shape, dtype, direction, measure, device, to)


def map_(
    kernel: Annotated[str, typer.Argument(metavar="lstm|gru|rnn")] = "lstm",
    on: On = "h200-sxm",
    dtype: Annotated[str, typer.Option(help="fp32, tf32, fp16, bf16; left out: fp32 on a CPU, else bf16.")] = "",
    steps: Annotated[int, typer.Option(help="Steps of the sequences: 1, 16, 128, 1024.")] = 128,
    svg: Picture = None,
    png: Picture = None,
    json: Json = False,
) -> None:
    """Show which wall binds a recurrence at every batch and hidden size, and where one gives way to another."""
    from . import mapping

    mapping.show_map(kernel, on, dtype, steps, json, {"svg": svg, "png": png})


def contrast(
    equal: Annotated[str, typer.Option(help="parameters, flops or width.")] = "parameters",
    budget: Annotated[
        str | None, typer.Option(help="How many: 250k, 1M, 2G.", show_default="1M, 32G, width 256")
    ] = None,
    shape: Shape = None,
    dtype: OneDtype = "fp32",
    direction: Annotated[list[str] | None, typer.Option(help="forward, backward, both.", show_default=False)] = None,
    rows: Annotated[str, typer.Option(help="What is compared: reference, torch, compile or triton.")] = "torch",
    on: On = "h200-sxm",
    measure: Annotated[
        bool, typer.Option("--measure", help="Measure all of them here, in a quarter of an hour on two cores.")
    ] = False,
    device: Device = "auto",
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    svg: Picture = None,
    json: Json = False,
) -> None:
    """Set complete layers beside one another: LSTM, GRU, RNN, attention, hierarchy and convolutions of equal size."""
    from . import contrasting

    to = Destination(out, resume, force)
    contrasting.contrast_layers(equal, budget, shape, dtype, direction, rows, on, measure, device, json, svg, to)


def scaling(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Default: the newest run with lengths enough.", show_default=False),
    ] = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure five kernels at five lengths here.")] = False,
    shape: Annotated[
        list[str] | None,
        typer.Option(
            "--shape", help="With --measure: batch, lengths, width.", show_default="B=1,T=64:1024:x2,width=128"
        ),
    ] = None,
    dtype: Annotated[str, typer.Option(help="With --measure: fp32, tf32, fp16, bf16.")] = "fp32",
    device: Device = "auto",
    out: Out = None,
    resume: Resume = False,
    force: Force = False,
    all_points: Annotated[bool, typer.Option("--all", help="Show every cache state and clock.")] = False,
    svg: Picture = None,
    png: Picture = None,
    json: Json = False,
) -> None:
    """Fit how time grows with the length of a sequence, beside operations, dependent steps and the model."""
    from . import scaling as command

    to = Destination(out, resume, force)
    command.show_scaling(runs or [], measure, shape, dtype, device, all_points, json, {"svg": svg, "png": png}, to)


def generations(
    svg: Picture = None,
    png: Picture = None,
    json: Json = False,
) -> None:
    """Show FLOP/s, bytes/s and operations per byte by year, and what is left of an LSTM step's units. Needs no GPU."""
    from . import generating

    generating.show_generations(json, {"svg": svg, "png": png})


def inspect(
    kernel: Annotated[str, typer.Argument(metavar="KERNEL|FILE.py")],
    implementation: Annotated[
        list[str] | None, typer.Option(help="Only these; default: all triton*.", show_default=False)
    ] = None,
    shape: Shape = None,
    dtype: Dtype = None,
    direction: Direction = None,
    target: Annotated[list[str] | None, typer.Option(help="sm_80, sm_90, sm_100, ...", show_default="sm_90")] = None,
    all_: Annotated[
        bool, typer.Option("--all", help="Every configuration that the kernel file lists, whatever the shape.")
    ] = False,
    filter: Annotated[str, typer.Option(help="With --all: only labels that contain this.", show_default=False)] = "",
    json: Json = False,
) -> None:
    """Compile what a kernel would launch on a GPU: registers, spills, occupancy, instructions, floors. Needs no GPU."""
    from . import inspecting

    if all_ or filter:
        if shape or direction or implementation:
            raise Stop("--all and --filter go with --dtype and --target only; leave the others out.", Exit.USAGE)
        inspecting.inspect_all(kernel, dtype, target, filter, json)
    else:
        inspecting.inspect(kernel, inspecting.Asked(implementation, shape, dtype, direction, target), json)
