"""What a run will do: the groups of cases, in order, before anything is measured.

A *group* is one kernel at one shape, dtype and direction; its implementations are timed together, interleaved. The plan
is made in the worker, because shapes live in kernel files and kernel files import torch.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

from pydantic import ValidationError

from ..roofline.contract import whole_number
from ..roofline.work import Work
from .configuration import declared
from .journal import first_fault
from .points import failed_point

# Inputs in three sets, their float64 copies, and intermediate results of the reference.
MEMORY_FACTOR = 12
# What is checked without being timed: shapes as they are profiled, and small ones around the edges of tiles. Triton's
# interpreter takes seconds for what a processor does in microseconds, so there it is the small ones alone.
CHECKED = {
    "checked": ("quick", "odd"),
    "checked-long": ("quick", "standard", "odd", "odd-long"),
    "interpreted": ("odd",),
    "interpreted-long": ("odd", "odd-long"),
}


class PlanError(Exception):
    """A request that cannot be planned: unknown kernel, size or dtype. The text is for people."""


def expand(axes: dict[str, list[int]]) -> list[dict[str, int]]:
    """All combinations of swept sizes, the last axis varying fastest."""
    names = list(axes)
    return [dict(zip(names, values)) for values in itertools.product(*axes.values())]


def shapes_of(kernel: Any, suite: str, axes: dict[str, list[int]], cases: list[dict] | None = None) -> list[Any]:
    """The shapes of one kernel: the swept ones, those of the cases that name some, or those of the suite.

    Swept sizes are combined with the kernel's defaults; sizes without a default must be given.
    """
    if axes:
        return [kernel.shape(**sizes) for sizes in expand(axes)]
    wanted = [case["shape"] for case in cases or () if case["kernel"] == kernel.name and "shape" in case]
    if wanted:
        return list(dict.fromkeys(kernel.shape(**sizes) for sizes in wanted))
    shapes = list(dict.fromkeys(shape for part in CHECKED.get(suite, (suite,)) for shape in _part(kernel, part)))
    if not shapes and not any(size is None for size in kernel.sizes().values()):
        shapes = [kernel.shape()]
    if not shapes:
        names = ", ".join(name for name, default in kernel.sizes().items() if default is None)
        raise PlanError(
            f"{kernel.source} has no shapes for the suite {suite!r}; give its sizes with --shape ({names})."
        )
    return shapes


def _part(kernel: Any, part: str) -> list[Any]:
    return list(getattr(kernel.module, "ODD_LONG", ())) if part == "odd-long" else kernel.suite(part)


def check_names(kernels: list[Any], wanted: list[str]) -> None:
    """Refuse implementation names that none of the kernels has."""
    known = {name for kernel in kernels for name in kernel.implementations}
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise PlanError(f"There is no implementation {', '.join(unknown)}; there are {', '.join(sorted(known))}.")


def check_sources(kernels: list[Any]) -> None:
    """Refuse two files of one name: a run tells its rows apart by the names of kernels."""
    sources: dict[str, str] = {}
    for kernel in kernels:
        other = sources.setdefault(kernel.name, kernel.source)
        if other != kernel.source:
            raise PlanError(
                f"{other} and {kernel.source} are both the kernel {kernel.name!r} in a run, which could not tell their "
                "rows apart; rename a file, or profile one after the other."
            )


def groups_of(kernel: Any, shapes: list[Any], dtypes: list[str], directions: list[str], request: dict) -> list[dict]:
    """The groups of one kernel as plain data, each implementation either planned or refused with a reason."""
    groups = []
    for shape, dtype, direction in itertools.product(shapes, dtypes, directions):
        work = _work_of(kernel, shape, dtype, direction)
        case = (shape, dtype, request["kind"])
        planned, refused = [], {}
        for name, implementation in kernel.implementations.items():
            ask = partial(_refusal, name, implementation, shape, dtype, direction, request)
            reason = _answer(kernel, f"supports() of {name}", ask) or _too_long(work, request)
            if reason:
                refused[name] = reason
            else:
                planned.append(name)
        group = {
            "source": kernel.source,
            "kernel": kernel.name,
            "kind": request["kind"],
            "shape": complete(shape, kernel.source),
            "dtype": dtype,
            "direction": direction,
            "implementations": planned,
            "refused": refused,
            "work": work.model_dump(mode="json"),
            "memory_bytes": MEMORY_FACTOR * work.compulsory_bytes,
            "sequence": work.depth > 1,
            "padding_waste": _said(kernel, "padding_waste", shape),
            "receptive_field": _said(kernel, "receptive_field", shape),
            "classes": {
                name: _answer(kernel, f"a declaration of {name}", partial(_class_of, name, entry, case, direction))
                for name, entry in kernel.implementations.items()
            },
        }
        _refuse_what_no_record_takes(kernel, group)
        groups.append(group)
    return groups


def _work_of(kernel: Any, shape: Any, dtype: str, direction: str) -> Work:
    work = _answer(kernel, "work()", partial(kernel.module.work, shape, dtype, direction))
    if not isinstance(work, Work):
        raise PlanError(
            f"{kernel.source}: work() returned {type(work).__name__}; a seqroof.roofline.Work was expected."
        )
    return work


def _said(kernel: Any, name: str, shape: Any) -> Any:
    """What an optional function of the kernel file says of a shape; None where it is missing or says nothing."""
    function = getattr(kernel.module, name, None)
    return _answer(kernel, f"{name}()", partial(function, shape)) or None if function else None


def _answer(kernel: Any, called: str, function: Callable[[], Any]) -> Any:
    """What a function of the kernel file returns; raises `PlanError` with what it is `called` where it raises."""
    try:
        return function()
    except Exception as error:  # a user's function may raise anything
        raise PlanError(f"{kernel.source}: {called} raised {type(error).__name__}: {error}") from error


def _refuse_what_no_record_takes(kernel: Any, group: dict) -> None:
    """Refuse a group of which the kernel file says what is no number, or none of the words that are known."""
    light = group | {"work": None}  # it was checked when it was made
    for name in group["classes"]:
        try:
            failed_point(light, name, "skipped", group["refused"].get(name, ""))
        except ValidationError as error:
            raise PlanError(
                f"{kernel.source}: what it says of {name} cannot be recorded: {first_fault(error)}."
            ) from error


def _class_of(name: str, implementation: Any, case: tuple[Any, str, str], direction: str) -> dict[str, Any]:
    """What an implementation declares of itself in a case (shape, dtype, kind of device)."""
    algorithm = implementation.algorithm(*case, direction)
    return {
        "weights": implementation.weights_for(*case),
        "chain": implementation.chain_for(*case),
        # Declared of the forward pass alone.
        "launches": implementation.launches_for(*case) if direction == "forward" else None,
        "hoists": implementation.hoists_for(*case),
        "depth": implementation.depth(*case, direction),
        "compiler": declared(name) | ({"algorithm_derived": algorithm} if algorithm else {}),
    }


def _too_long(work: Work, request: dict) -> str | None:
    most = request.get("most_flops")
    if most is None or work.flops <= most:
        return None
    return (
        f"a call does more than {most / 1e9:.0f} GFLOP, where suites stop on this processor; "
        "name the sizes with --shape to measure it all the same"
    )


def _refusal(name: str, implementation: Any, shape: Any, dtype: str, direction: str, request: dict) -> str | None:
    wanted = request.get("implementations")
    if wanted and name not in wanted:
        return "left out by --implementation"
    if name == "compile" and not request["compile"]:
        return (
            "torch.compile takes 1 to 20 s for every shape, so the suites quick and claims leave it out: "
            "--suite standard, or --implementation compile"
        )
    if direction != "forward" and not implementation.grad:
        return "this implementation has no backward pass"
    return implementation.supports(shape, dtype, request["kind"])


def complete(shape: Any, source: str = "") -> dict[str, int]:
    """The sizes of a shape by name, with those that were not given.

    Raises `PlanError`, which names its file `source`, where one is no whole number.
    """
    try:
        return {name: whole_number(name, value) for name, value in dataclasses.asdict(shape).items()}
    except ValueError as error:
        raise PlanError(f"{source}: {error}." if source else f"{error}.") from error


def kernels_of(cases: list[dict], known: list[str]) -> list[str]:
    """The kernels of some cases; refuses those that only a file of the user's can bring."""
    names = list(dict.fromkeys(case["kernel"] for case in cases))
    foreign = [name for name in names if name not in known]
    if foreign:
        raise PlanError(
            f"The baseline measured {', '.join(foreign)} from a file; name it before --against: "
            f"seqroof profile ./{foreign[0]}.py --against BASE."
        )
    return names


def only(groups: list[dict], cases: list[dict]) -> list[dict]:
    """The groups that one of the cases names, each with the implementations of its cases; all where there are none."""
    if not cases:
        return groups
    kept = []
    for group in groups:
        mine = [case for case in cases if all(group[name] == case[name] for name in _NAMING if name in case)]
        if mine:
            named = [case["implementations"] for case in mine if "implementations" in case]
            wanted = {name for names in named for name in names}
            kept.append(restricted(group, wanted, "not among the rows that were asked for") if named else group)
    return kept


_NAMING = ("kernel", "shape", "dtype", "direction")


def restricted(group: dict, wanted: Collection[str], reason: str) -> dict:
    """A group with these of its implementations alone; the others are refused for this reason."""
    left = {name: reason for name in group["implementations"] if name not in wanted}
    planned = [name for name in group["implementations"] if name not in left]
    return group | {"implementations": planned, "refused": group["refused"] | left}
