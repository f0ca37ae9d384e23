"""What the suite of the claims measures: the cases of `roofline/claims.toml`, and of each only what verdicts use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..roofline import claims
from ..roofline.claim_facts import BESIDE, COMPARED, class_of
from .plan import PlanError, complete, restricted

# The row of a vendor's library that stands for it where a kernel has several: the one that users get by default.
DEFAULT_ROW = "torch"
UNUSED = "no verdict on a claim rests on this row; name it with --implementation to time it all the same"


def claim_cases(kind: str, kernels: list[str], load: Callable[[str], Any]) -> list[dict]:
    """What the claims need on a kind of device, of these kernels or of all, with every size of every shape."""
    found = [case for case in claims.cases(kind) if not kernels or case["kernel"] in kernels]
    if not found:
        known = ", ".join(sorted({case["kernel"] for case in claims.cases(kind)}))
        raise PlanError(f"The suite {claims.SUITE!r} has no cases of {', '.join(kernels)}; it measures {known}.")
    return [case | {"shape": complete(load(case["kernel"]).shape(**case["shape"]))} for case in found]


def for_verdicts(groups: list[dict], cases: list[dict], named: list[str]) -> list[dict]:
    """The groups in the order of their cases, so that one claim after another is complete.

    Each carries the states of the caches that its claims name (`caches`), and keeps the rows that verdicts use.
    named : implementations that the user asked for; then all of those are kept.
    """
    by_case = {_key(group): group for group in groups}
    kept = []
    for case in cases:
        group = by_case.get(_key(case))
        if group is not None:
            planned = group | {"caches": case["caches"]}
            kept.append(planned if named else restricted(planned, _rows(group, case["fastest"]), UNUSED))
    return kept


def _key(case: dict) -> tuple[Any, ...]:
    return case["kernel"], *case["shape"].items(), case["dtype"], case["direction"]


def _rows(group: dict, fastest: bool) -> list[str]:
    """The rows that verdicts compare, and the vendor's beside them: one, or all where the fastest row counts."""
    compared = [name for name in group["implementations"] if class_of(name) in COMPARED]
    vendors = [name for name in group["implementations"] if class_of(name) == BESIDE]
    return compared + ([DEFAULT_ROW] if DEFAULT_ROW in vendors and not fastest else vendors)
