"""The pairs of cases that claims compare within a few percent, timed in turn in the same rounds.

A machine whose speed wanders by more than a claim's threshold within seconds cannot tell the two apart by times of
different minutes. In rounds that both share, it reaches both. What is timed here was checked as a case of the run; a
verdict takes a pair only where both of its points are valid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..roofline import claims
from ..roofline.claim_facts import COMPARED, class_of, pair_id
from ..roofline.ratio import paired
from ..roofline.record import Evidence
from .calls import Group, grad_mode, subjects_of
from .cases import INPUT_SETS, begin_settings
from .clock import measure
from .plan import complete
from .points import HEADLINE_CLOCK
from .truths import announcing

# Many short rounds: what wanders more slowly than a round of some fifty milliseconds reaches both sides of it.
ROUNDS = 100
# For as many rounds as share a budget; a hundred take six times as long.
BUDGET_S = 1.0


def paired_times(device: Any, load: Callable[[str], Any], tell: Callable[[str], None]) -> list[Evidence]:
    """The ratio of the times of every pair, for each implementation that has both sides here.

    load : a kernel by its name. tell : is told that the timing lives.
    """
    return [row for over, under in claims.pairs(device.kind) for row in _pair(device, load, tell, over, under)]


def _pair(
    device: Any, load: Callable[[str], Any], tell: Callable[[str], None], over: claims.Planned, under: claims.Planned
) -> list[Evidence]:
    groups = [_group(device, load, case) for case in (over, under)]
    sides = [groups[0].kernel.implementations, groups[1].kernel.implementations]
    rows = []
    for name in [name for name in sides[0] if class_of(name) in COMPARED and name in sides[1]]:
        if any(_refused(group, name) for group in groups):
            continue
        ids = [(group.kernel.name, complete(group.shape)) for group in groups]
        rows.append(_timed(groups, name, over, pair_id(ids[0], ids[1], over.dtype, name), tell))
    return rows


def _group(device: Any, load: Callable[[str], Any], case: claims.Planned) -> Group:
    kernel = load(case.kernel)
    return Group(device, kernel, kernel.shape(**case.shape), case.dtype, case.direction, seed=0)


def _refused(group: Group, name: str) -> bool:
    return group.kernel.implementations[name].supports(group.shape, group.dtype, group.device.kind) is not None


def _timed(groups: list[Group], name: str, case: claims.Planned, id: str, tell: Callable[[str], None]) -> Evidence:
    tell(id)
    begin_settings(groups[0])
    clock = (case.cache, HEADLINE_CLOCK[groups[0].device.kind])
    telling = announcing(lambda event, **data: tell(f"{id}, {data['stage']}"), "round")
    with grad_mode(case.direction):
        subjects = [
            subject
            for group in groups
            for subject in subjects_of(group, [name], [group.inputs(index) for index in range(INPUT_SETS)], [clock])
        ]
        times = measure(subjects, BUDGET_S, ROUNDS, seed=0, on_slice=lambda index: telling(name))
    groups[0].device.release_memory()
    ratio = paired(times[1].rounds_s, times[0].rounds_s)
    values: dict[str, float | int | str | None] = {"ratio": ratio.value, "ratio_low": ratio.low}
    values |= {"ratio_high": ratio.high, "rounds": ratio.rounds}
    how = "both timed in turn in the same rounds; the ratio of every round, with the estimate of Hodges and Lehmann"
    return Evidence(id=id, values=values, how=f"{how} and the interval of Wilcoxon's signed ranks")
