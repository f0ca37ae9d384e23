"""About how long the suite of the claims takes on a processor: modelled from the work of its groups."""

from __future__ import annotations

from typing import Any

# What a group costs on two cores of a server, fitted to a recorded run of this suite: it meets the sum of the groups
# within a tenth. Calls of the reference beside the timing: checks in float64, warming up, the second check.
CALLS = 60
# Speed of plain PyTorch, and what drawing inputs of so many bytes takes.
FLOPS_PER_S, BYTES_PER_S = 6e10, 2e9
# A dependent step of the reference, and one of a training step, half of which go backward.
STEP_S, TRAINING_STEP_S = 1.05e-4, 2.3e-4
# Starting a group, with its share of the looks at the roofs.
START_S = 1.3
# Noisy cases are timed for longer than their budget, most of them by half.
OVERTIME = 1.6
# Roofs of the quick suite, probes, pairs and the report.
BESIDE_GROUPS_S = 70.0


def about_s(groups: list[dict[str, Any]], group_s: float) -> float:
    """About how many seconds the whole suite takes. group_s : time for the rows of a group."""
    return BESIDE_GROUPS_S + sum(_group_about_s(group, group_s) for group in groups)


def _group_about_s(group: dict[str, Any], budget_s: float) -> float:
    work = group["work"]
    step_s = STEP_S if group["direction"] == "forward" else TRAINING_STEP_S
    call_s = work["depth"] * step_s + work["flops"] / FLOPS_PER_S + work["compulsory_bytes"] / BYTES_PER_S
    return START_S + OVERTIME * budget_s + CALLS * call_s
