"""The cases that claims compare within a few percent, pairs of them and lines, timed in turn in the same rounds.

A machine whose speed wanders by more than a claim's threshold within seconds cannot tell the two apart by times of
different minutes. In rounds that both share, it reaches both. What is timed here was checked as a case of the run; a
verdict takes a pair only where both of its points are valid.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator
from functools import partial
from typing import Any

from ..roofline import claims
from ..roofline.claim_facts import COMPARED, class_of, line_id, pair_id
from ..roofline.ratio import PAIR_CONFIDENCE, paired
from ..roofline.record import Evidence
from ..roofline.stats import centre_interval, median
from ..roofline.trend import slope
from .calls import Group, grad_mode, subjects_of
from .cases import INPUT_SETS, begin_settings
from .clock import measure
from .plan import complete
from .points import HEADLINE_CLOCK
from .truths import announcing

# Many short rounds: what wanders more slowly than a round of some fifty milliseconds reaches both sides of it.
ROUNDS = 100
# For as many rounds as share a budget; a hundred take six times as long.
BUDGET_S = 0.8
CENTRE = "with the estimate of Hodges and Lehmann and the interval of Wilcoxon's signed ranks"

Times = list[tuple[float, ...]]


def paired_times(
    device: Any,
    rounds: int | None,
    load: Callable[[str], Any],
    tell: Callable[[str], None],
    known: Collection[str] = (),
) -> Iterator[Evidence]:
    """The ratio of the times of every pair and the power of every line, for each implementation with all sides here.

    rounds : as a user asked, and never fewer than `ROUNDS`. load : a kernel by its name. tell : is told that the timing
    lives, first of every row its id. known : ids of rows that are not wanted again. Every row is given as soon as it is
    known; one that could not be timed says why.
    """
    time = partial(_timed, rounds=max(ROUNDS, rounds or 0), tell=tell)
    for over, under in claims.pairs(device.kind):
        groups = [_group(device, load, case) for case in (over, under)]
        sides = [(group.kernel.name, complete(group.shape)) for group in groups]
        for name in _shared(groups):
            id = pair_id(sides[0], sides[1], over.dtype, name)
            if id in known:
                continue
            yield _row(id, partial(time, groups, name, over, id), _as_ratio)
    for size, cases in claims.lines(device.kind):
        groups = [_group(device, load, case) for case in cases]
        shapes = [complete(group.shape) for group in groups]
        for name in _shared(groups):
            id = line_id(cases[0].kernel, size, shapes, cases[0].dtype, name)
            if id in known:
                continue
            as_power = partial(_as_power, sizes=[shape[size] for shape in shapes])
            yield _row(id, partial(time, groups, name, cases[0], id), as_power)


def _row(id: str, time: Callable[[], Times], read: Callable[[str, Times], Evidence]) -> Evidence:
    """What the times say; where timing fails, a row with the reason, so that the others are kept."""
    try:
        return read(id, time())
    except Exception as error:
        return Evidence(id=id, values={}, how=f"not timed in turn ({type(error).__name__}: {error})")


def _shared(groups: list[Group]) -> list[str]:
    """The implementations that claims compare and that compute all of these cases."""
    names = groups[0].kernel.implementations
    return [
        name
        for name in names
        if class_of(name) in COMPARED
        and all(name in group.kernel.implementations and not _refused(group, name) for group in groups)
    ]


def _group(device: Any, load: Callable[[str], Any], case: claims.Planned) -> Group:
    kernel = load(case.kernel)
    return Group(device, kernel, kernel.shape(**case.shape), case.dtype, case.direction, seed=0)


def _refused(group: Group, name: str) -> bool:
    return group.kernel.implementations[name].supports(group.shape, group.dtype, group.device.kind) is not None


def _timed(
    groups: list[Group], name: str, case: claims.Planned, id: str, rounds: int, tell: Callable[[str], None]
) -> Times:
    """The times in seconds of every group, round by round."""
    tell(id)
    begin_settings(groups[0])
    clock = (case.cache, HEADLINE_CLOCK[groups[0].device.kind])
    telling = announcing(lambda event, **data: tell(f"{id}, {data['stage']}"), "round")
    try:
        with grad_mode(case.direction):
            subjects = [
                subject
                for group in groups
                for subject in subjects_of(group, [name], [group.inputs(index) for index in range(INPUT_SETS)], [clock])
            ]
            times = measure(subjects, BUDGET_S, rounds, seed=0, on_slice=lambda index: telling(name))
    finally:
        groups[0].device.release_memory()
    return [times[index].rounds_s for index in range(len(groups))]


def _as_ratio(id: str, times: Times) -> Evidence:
    """The ratio of the first times over the second."""
    ratio = paired(times[1], times[0])
    values: dict[str, float | int | str | None] = {"ratio": ratio.value, "ratio_low": ratio.low}
    values |= {"ratio_high": ratio.high, "rounds": ratio.rounds}
    how = f"both timed in turn in the same rounds; the ratio of every round, {CENTRE}"
    return Evidence(id=id, values=values, how=how)


def _as_power(id: str, times: Times, sizes: list[int]) -> Evidence:
    """The power of the size in times that share their rounds, and in their medians."""
    logs = [math.log(size) for size in sizes]
    rounds = [[math.log(value) for value in shared] for shared in zip(*times)]
    low, middle, high = centre_interval([slope(logs, shared).value for shared in rounds], PAIR_CONFIDENCE)
    fitted = slope(logs, [median([shared[index] for shared in rounds]) for index in range(len(sizes))])
    values: dict[str, float | int | str | None] = {"slope": middle, "slope_low": low, "slope_high": high}
    values |= {"line": fitted.value, "line_low": fitted.low, "line_high": fitted.high, "rounds": len(rounds)}
    values |= {f"median_{size}_s": median(own) for size, own in zip(sizes, times)}
    how = "all timed in turn in the same rounds; slope: that of the logarithms of every round, "
    return Evidence(id=id, values=values, how=f"{how}{CENTRE}; line: through the medians, with Student's interval")
