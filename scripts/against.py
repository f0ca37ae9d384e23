"""`seqroof profile --against BASE`: what a baseline decides about the run that is held against it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from seqroof.profiler.request import FULL_GROUP_S, Request
from seqroof.roofline.compare import differences, set_up
from seqroof.roofline.record import Environment, Point, Run

from .exits import Exit, Stop

# Options of `seqroof profile` and the fields of a point that the baseline decides where they are not typed.
_DECIDED = (("shape", "shape"), ("dtype", "dtype"), ("direction", "direction"))


def take_over(base: Run, request: Request, given: set[str]) -> tuple[Request, str]:
    """The request with the cases and the seed of a baseline, but for options in `given`; and what was taken, in words.

    Naming a suite or a size gives the shapes. Raises `Stop` where the baseline has nothing to be held against.
    """
    given = given | ({"shape"} if "suite" in given else set())
    measured = [point for point in base.points if point.status == "ok"]
    if not measured:
        raise Stop("--against: the baseline holds no valid measurement; measure a new one.", Exit.USAGE)
    fields = [field for option, field in _DECIDED if option not in given]
    cases = _cases(measured, fields, with_names="implementation" not in given)
    taken = replace(
        request,
        cases=cases,
        dtypes=request.dtypes if "dtype" in given else _unique(measured, "dtype"),
        directions=request.directions if "direction" in given else _unique(measured, "direction"),
        seed=request.seed if "seed" in given else base.seed,
        suite=request.suite if "shape" in given else base.suite or request.suite,
        compile=True,
    )
    if "shape" not in given and base.suite != "quick":  # as long for every case as the baseline had
        taken = replace(taken, effort="full")
        taken = taken if "budget" in given else replace(taken, budget_s=None, group_s=FULL_GROUP_S)
    words = [f"{field}s" for field in fields] + ([] if "seed" in given else [f"seed {base.seed}"])
    kernels = ", ".join(_unique(measured, "kernel"))
    return taken, f"taken over from the baseline, of {kernels}: {', '.join(words) or 'nothing but the kernels'}"


def _cases(measured: list[Point], fields: list[str], with_names: bool) -> list[dict[str, Any]]:
    """The distinct cases of these points, each with its implementations where they are wanted."""
    found: dict[tuple, dict[str, Any]] = {}
    for point in measured:
        named = {"kernel": point.kernel, **{field: getattr(point, field) for field in fields}}
        case = found.setdefault(tuple(str(value) for value in named.values()), named)
        if with_names and point.implementation not in case.setdefault("implementations", []):
            case["implementations"].append(point.implementation)
    return list(found.values())


def _unique(points: list[Point], field: str) -> list[str]:
    return list(dict.fromkeys(getattr(point, field) for point in points))


def refuse_other_machine(base: Run | None, opened: dict[str, Any]) -> None:
    """Refuse a baseline from another machine or set-up before anything is measured against it."""
    if base is None:
        return
    here = set_up(opened["id"], Environment.model_validate(opened["environment"]))
    differing = differences(set_up(base.machine.id, base.environment), here)
    if differing:
        text = f"--against: the baseline comes from another machine or set-up ({'; '.join(differing)})"
        raise Stop(f"{text}; measure a baseline here.", Exit.NO_DEVICE)
