"""`seqroof inspect`: what the compiler makes of a kernel for a GPU that need not be there, beside its model."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import Console

from seqroof.roofline import catalogue
from seqroof.roofline.contract import CompileCase
from seqroof.roofline.inspect_table import render, render_list
from seqroof.roofline.inspection import Case, Inspected, remark
from seqroof.roofline.occupancy import Target, target_named
from seqroof.roofline.predict import prediction, ridge

from .asking import catalog_of_kernels, kernel_named
from .exits import Exit, Stop
from .predicting import shapes_of
from .sweep import parse_directions, parse_dtypes, parse_shape

# Compilations, of about a second each, that are announced before they begin.
_MANY = 3


@dataclass(frozen=True)
class Asked:
    """What is to be inspected, as typed."""

    implementations: list[str] | None
    shape: list[str] | None
    dtypes: list[str] | None
    directions: list[str] | None
    targets: list[str] | None


def inspect(source: str, asked: Asked, as_json: bool) -> None:
    """Print what a kernel would launch for each case and target, compiled, and its floors there."""
    kernel, targets = kernel_named(source), _targets(asked.targets)
    names = _implementations(kernel, asked.implementations)
    launched: list[tuple[Case, Target, Any]] = []
    models: list[dict[str, Any]] = []
    refused: list[str] = []
    for target in targets:
        for shape, dtype, direction in _cases(kernel, asked):
            for name in names:
                found = _planned(kernel, name, shape, dtype, direction, target)
                if isinstance(found, str):
                    refused.append(f"{name} {dtype} {direction} for {target.name}: {found}")
                    continue
                launched += [(found[0], target, launch) for launch in found[1]]
                models.append(found[2])
    if not launched:
        raise Stop(f"{kernel.name} launches no Triton kernel here. {'. '.join(refused)}.", Exit.USAGE)
    triton, programs = _compiled([(launch.case, target) for _, target, launch in launched])
    inspected = _side_by_side(
        [_inspected(program, target, case, launch) for program, (case, target, launch) in zip(programs, launched)]
    )
    models.sort(key=lambda model: names.index(model["implementation"]))
    _print(kernel, triton, inspected, models, refused, as_json)


def inspect_all(source: str, dtypes: list[str] | None, targets: list[str] | None, text: str, as_json: bool) -> None:
    """Print one line for every configuration that the kernel file lists; text : a part of its label."""
    kernel = kernel_named(source)
    if not kernel.compile_cases:
        raise Stop(f"{kernel.name} has no list COMPILE of what it launches; give --shape instead.", Exit.USAGE)
    wanted = parse_dtypes(dtypes or [])
    chosen = [
        (case, target)
        for case in kernel.compile_cases
        for target in _targets(targets)
        if target.capability in case.targets and text in case.label
        if not wanted or set(wanted) & set(case.label.replace(",", " ").split())
    ]
    if not chosen:
        raise Stop(
            f"No configuration of {kernel.name} is for this target and dtype and has {text!r} in its label; "
            f"labels are such as {kernel.compile_cases[0].label!r}.",
            Exit.USAGE,
        )
    triton, programs = _compiled(chosen)
    inspected = [_inspected(program, target) for program, (_, target) in zip(programs, chosen)]
    if as_json:
        listed = [entry.as_json() for entry in inspected]
        print(json.dumps({"kernel": kernel.name, "triton": triton, "programs": listed, "remark": remark(inspected)}))
    else:
        render_list(kernel.name, triton, inspected, Console(highlight=False))


def _targets(texts: list[str] | None) -> list[Target]:
    names = [name for name in ",".join(texts or ["sm_90"]).split(",") if name.strip()]
    try:
        return list(dict.fromkeys(target_named(name) for name in names))
    except ValueError as error:
        raise Stop(str(error), Exit.USAGE) from error


def _implementations(kernel: Any, wanted: list[str] | None) -> list[str]:
    known = list(kernel.implementations)
    names = [name.strip() for name in ",".join(wanted or []).split(",") if name.strip()]
    unknown = [name for name in names if name not in known]
    if unknown:
        raise Stop(f"{kernel.name} has no implementation {', '.join(unknown)}; it has {', '.join(known)}.", Exit.USAGE)
    found = names or [name for name in known if name.startswith("triton")]
    if not found:
        raise Stop(
            f"{kernel.name} has no implementation whose name begins with triton; it has {', '.join(known)}. "
            "Name one that launches Triton kernels with --implementation.",
            Exit.USAGE,
        )
    return found


def _cases(kernel: Any, asked: Asked) -> list[tuple[Any, str, str]]:
    axes = parse_shape(asked.shape or [])
    if axes:
        shapes = shapes_of(kernel, axes)
    else:
        shapes = kernel.suite("quick")[-1:]
    if not shapes:
        raise Stop(f"{kernel.name} has no suite; give --shape with its sizes {', '.join(kernel.sizes())}.", Exit.USAGE)
    dtypes, directions = parse_dtypes(asked.dtypes or ["bf16"]), parse_directions(asked.directions or [])
    return [(shape, dtype, direction) for shape in shapes for dtype in dtypes for direction in directions]


def _planned(kernel: Any, name: str, shape: Any, dtype: str, direction: str, target: Target) -> Any:
    """The case, its launches and its model; or a string that says why there are none."""
    from seqroof.profiler.launches import Unplanned, pretended, would_launch

    implementation = kernel.implementations[name]
    assert target.machine is not None
    with pretended(target, _multiprocessors(target)) as device:
        refused = implementation.supports(shape, dtype, "cuda")
        if refused is None and direction != "forward" and not implementation.grad:
            refused = "it has no gradients"
        if refused is not None:
            return refused
        try:
            launches = would_launch(kernel.module, implementation.run, shape, dtype, direction, target, device)
        except Unplanned as error:
            return str(error)
        except RuntimeError as error:
            raise Stop(str(error), Exit.NO_DEVICE) from error
        case = Case(name, asdict(shape), dtype, direction)
        model = _model(kernel, implementation, shape, case, target)
    return (case, launches, model) if launches else "it launches no Triton kernel for these sizes"


def _model(kernel: Any, implementation: Any, shape: Any, case: Case, target: Target) -> dict[str, Any]:
    """The work, the floors on the target's machine and the intensities, with the case that they are of."""
    assert target.machine is not None
    machine, where = catalogue.machine(target.machine), (shape, case.dtype, "cuda")
    work = kernel.module.work(shape, case.dtype, case.direction)
    made = prediction(
        work,
        case.dtype,
        implementation.weights_for(*where),
        implementation.chain_for(*where),
        machine,
        hoists=implementation.hoists_for(*where),
        depth=implementation.depth(*where, case.direction),
    )
    made["machine"] = {"id": machine.id, "name": machine.name}
    intensity = work.flops / work.compulsory_bytes if work.compulsory_bytes else None
    return {**asdict(case), "target": target.name, "intensity": intensity, "ridge": ridge(machine, case.dtype), **made}


def _multiprocessors(target: Target) -> int:
    found = catalogue.multiprocessors(target.machine or "")
    assert found is not None, f"the catalogue row of {target.name} has no number of multiprocessors"
    return found


def _compiled(cases: Sequence[tuple[CompileCase, Target]]) -> tuple[str, list[Any]]:
    """Triton's version, and every case compiled for its target."""
    from seqroof.profiler.compiled import compile_case
    from seqroof.profiler.launches import labelled

    known = catalog_of_kernels().compile_cases_loaded()
    if len(cases) > _MANY:
        print(f"compiling {len(cases)} configurations, about a second each", file=sys.stderr, flush=True)
    try:
        found = [compile_case(labelled(case, known), target.capability) for case, target in cases]
    except ValueError as error:
        raise Stop(str(error), Exit.USAGE) from error
    except RuntimeError as error:
        raise Stop(str(error), Exit.CASE_FAILED) from error
    return found[0].triton, found


def _inspected(program: Any, target: Target, case: Case | None = None, launch: Any = None) -> Inspected:
    return Inspected(
        label=program.label,
        function=program.function,
        target=target,
        multiprocessors=_multiprocessors(target),
        resources=program.resources,
        stack_bytes=program.stack_bytes,
        instructions=program.program,
        case=case,
        grid=launch.grid if launch else None,
        count=launch.count if launch else None,
    )


def _side_by_side(found: list[Inspected]) -> list[Inspected]:
    """What is to be compared stands together: the first launch of every case and target, then the second."""
    places: dict[Any, int] = {}
    order = []
    for number, entry in enumerate(found):
        key = (str(entry.case), entry.target.name)
        places[key] = places.get(key, -1) + 1
        assert entry.case is not None
        order.append((entry.case.implementation, places[key], number, entry))
    return [entry for *_, entry in sorted(order, key=lambda ranked: ranked[:3])]


def _print(
    kernel: Any, triton: str, found: list[Inspected], models: list[dict[str, Any]], refused: list[str], as_json: bool
) -> None:
    if as_json:
        programs = [entry.as_json() for entry in found]
        made = {"kernel": kernel.name, "triton": triton, "programs": programs, "models": models, "refused": refused}
        print(json.dumps(made | {"remark": remark(found)}))
        return
    console = Console(highlight=False)
    for sentence in refused:
        console.print(f"Left out: {sentence}.", markup=False)
    render(kernel.name, triton, found, models, console)
