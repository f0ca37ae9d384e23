"""The verbs that answer without measuring: list, doctor; and how they load kernel files."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

from rich.console import Console
from rich.markup import escape

from seqroof.roofline.extras import installing

from .exits import Exit, Stop
from .sweep import parse_shape


def catalog_of_kernels() -> Any:
    """The module that loads kernel files; needs torch, and says so where there is none."""
    try:
        from seqroof.kernels import _catalog
    except ImportError as error:
        raise _without_torch(error) from error
    return _catalog


def _without_torch(error: ImportError) -> Stop:
    return Stop(f"Kernel files need torch ({error}); install it with {installing('run')}.", Exit.NO_DEVICE)


def kernel_named(source: str) -> Any:
    """Load a kernel by name or path; what is wrong with it ends the command with a sentence."""
    catalog = catalog_of_kernels()
    try:
        return catalog.load(source)
    except ImportError as error:
        raise _without_torch(error) from error
    except catalog.ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error


def one_shape(kernel: Any, shape: list[str] | None, verb: str) -> Any:
    """The only shape that a command is about; a range or a wrong size ends it with a sentence."""
    axes = parse_shape(shape or [])
    if any(len(values) > 1 for values in axes.values()):
        raise Stop(f"{verb} takes one shape; give one value for every size, such as B=1,T=64.", Exit.USAGE)
    try:
        return kernel.shape(**{name: values[0] for name, values in axes.items()})
    except catalog_of_kernels().ContractError as error:
        raise Stop(str(error), Exit.USAGE) from error


def list_all(as_json: bool) -> None:
    """Print kernels and machines."""
    from seqroof.roofline import catalogue

    catalog = catalog_of_kernels()
    kernels = [_described(kernel_named(name)) for name in catalog.kernel_names()]
    machines = [
        {"id": m.id, "name": m.name, "class": m.machine_class, "year": m.year} for m in catalogue.machines().values()
    ]
    if as_json:
        print(json.dumps({"kernels": kernels, "machines": machines}))
        return
    console = Console(highlight=False)
    for kernel in kernels:
        console.print(f"[bold]{kernel['name']}[/bold]  {escape(kernel['equation'])}")
        sizes = ", ".join(n if d is None else f"{n}={d}" for n, d in kernel["sizes"].items())
        console.print(f"  sizes            {sizes}", soft_wrap=True)
        console.print(f"  implementations  {', '.join(kernel['implementations'])}", soft_wrap=True)
        counts = ", ".join(f"{suite} ({len(shapes)} shapes)" for suite, shapes in kernel["suites"].items())
        console.print(f"  suites           {counts}\n")
    console.print("[bold]machines[/bold] for `seqroof predict --on`:")
    console.print("  " + ", ".join(machine["id"] for machine in machines))


def _described(kernel: Any) -> dict[str, Any]:
    return {
        "name": kernel.name,
        "equation": kernel.equation,
        "sizes": kernel.sizes(),
        "implementations": list(kernel.implementations),
        "suites": {suite: [dataclasses.asdict(s) for s in shapes] for suite, shapes in kernel.module.SHAPES.items()},
    }


def _kept_roofs() -> Any:
    """What is known of the roofs that the next run may use again."""
    from seqroof.profiler.ceiling_store import AGREEMENT, RoofStore
    from seqroof.profiler.health import Finding
    from seqroof.roofline.units import percent

    from .measuring import CEILINGS

    kept = RoofStore(CEILINGS).newest()
    if kept is None:
        return Finding("roofs", "ok", "none are kept in this folder; the next run measures them")
    text = f"those of {kept.machine.name} were measured on {kept.created[:16].replace('T', ' ')} ({kept.effort} effort)"
    rule = f"used again where device and state are the same and the calibration copy agrees within {percent(AGREEMENT)}"
    return Finding("roofs", "ok", f"{text}; {rule}; --fresh-roofs measures anew")


def doctor(as_json: bool) -> None:
    """Print what can and cannot be measured here."""
    from seqroof.profiler.health import examine
    from seqroof.profiler.obstacles import obstacles

    from .stored_noise import resolution

    findings = [*examine(), *obstacles(), _kept_roofs(), *resolution()]
    if as_json:
        print(json.dumps({"findings": [dataclasses.asdict(finding) for finding in findings]}))
        return
    console = Console(highlight=False)
    marks = {"ok": "[green]ok     [/green]", "limited": "[yellow]limited[/yellow]", "missing": "[red]missing[/red]"}
    for finding in findings:
        console.print(
            f"{marks[finding.state]}  [bold]{escape(finding.what)}[/bold]: {escape(finding.detail)}", soft_wrap=False
        )
        if finding.fix:
            console.print(f"           fix: {escape(finding.fix)}")
