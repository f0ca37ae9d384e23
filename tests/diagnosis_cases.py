"""For every entry of the closed list, a case in which it fires and one in which it must not.

A case is a function without arguments that returns warnings. A new entry of the list needs one line here:
`"its-id": Case(fires=..., quiet=...)`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import samples
from round_machine import ROUND, ceiling, point, timing, work

from seqroof.profiler.points import held_to_device, measured_point, with_afterthoughts
from seqroof.roofline.configuration import configuration_doubts
from seqroof.roofline.record import Part
from seqroof.roofline.second_clock import SecondClock
from seqroof.roofline.verdict import judge

Warnings = Callable[[], Any]


@dataclass(frozen=True)
class Case:
    """`fires` returns warnings among which the entry is; `quiet` ones among which it is not."""

    fires: Warnings
    quiet: Warnings


def judged(*arguments, machine=ROUND, **changes) -> Warnings:
    """The warnings of a judged point; its fields are those of `point`."""
    return lambda: judge(point(*arguments, **changes), machine).warnings


SHORT: dict[str, Any] = {"work": work(read=0), "weights": "kept", "chain": "inside"}
FAST = ROUND.model_copy(update={"ceilings": (ceiling("latency", "inside", 1e-9, unit="s"),)})
# Products of 100 s in fp32 and 50 s where they are rounded; the bytes take 1 s.
ROUNDED = ROUND.model_copy(
    update={
        "ceilings": (
            ceiling("bandwidth", "dram", 1e4),
            ceiling("rate", "simt", 1e4, "fp32", "product", "FLOP/s"),
            ceiling("rate", "tensor", 2e4, "tf32", "product", "FLOP/s"),
        )
    }
)
QUIET_ROUNDS = (199, 201, 200, 198, 202, 200, 201, 199, 200)
# Thirds differ by 9 % here, by chance: there is no trend.
RESTLESS = (182, 199, 205, 230, 186, 196, 199, 220, 217)
RISING = (190, 191, 192, 199, 200, 203, 213, 214, 216)
PARTS = tuple(Part(name=str(index), time_s=timing(80.0), work=work()) for index in range(2))


def device(time_s, **changes) -> dict[str, Any]:
    """A point by events, with what the driver's records say."""
    second = SecondClock(source="profiler", time_s=time_s, **({"calls": 5, "launches": 5, "records": 5} | changes))
    return {"clock": "events", "second_clock": second}


def raw(time_s, **changes) -> dict[str, Any]:
    """A point by the host's clock, with what the raw one says."""
    return {"second_clock": SecondClock(source="raw", time_s=time_s, **changes)}


GROUP: dict[str, Any] = {
    **dict(kernel="k", shape={"B": 1}, dtype="fp32", direction="forward", work=work().model_dump(), kind="cpu"),
    **dict(padding_waste=None, receptive_field=None, sequence=False),
    "classes": {"torch": dict(weights="reread", chain="launch", launches=1, hoists=False, depth=None, compiler={})},
}
EVENT: dict[str, Any] = dict(
    implementation="torch",
    cache="cold",
    clock="host",
    time_s=timing(200.0).model_dump(),
    host_s=None,
    second_clock=None,
    peak_memory_bytes=None,
)


def after_timing(changed: str) -> Warnings:
    """What the worker says of a timed call that is checked once more."""
    return lambda: measured_point(GROUP, {**EVENT, "changed": changed}, None).warnings


def parts_told(reason: str) -> Warnings:
    """What the worker says of parts that it could, or could not, run alone."""
    event = {"event": "parts", "implementation": "torch", "cache": "cold", "clock": "host", "parts": []}
    return lambda: with_afterthoughts([point(timing(200.0))], event | {"reason": reason})[0].warnings


def configured(before: dict[str, Any], after: dict[str, Any]) -> Warnings:
    """What a comparison of two runs says of a point that was configured so."""
    runs = [samples.run(points=(point(timing(200.0), compiler=facts),)) for facts in (before, after)]
    return lambda: configuration_doubts(*runs)


def across(kind: str) -> Warnings:
    """What `compare` prints, as (id, ) of every warning on its lines."""
    from contextlib import redirect_stdout
    from io import StringIO

    from seqroof.scripts.comparing import print_comparison

    def told():
        with redirect_stdout(StringIO()) as text:
            print_comparison(samples.run("gpu"), samples.run(kind), 0.01, across_machines=True)
        return text.getvalue()

    return told


CASES = {
    "above-a-physical-roof": Case(judged(timing(80.0, 0.01)), judged(timing(98.0, 0.01))),
    "faster-unit": Case(
        judged(timing(60.0), machine=ROUNDED, work=work(matmul_flops=1_000_000)),
        judged(timing(40.0), machine=ROUNDED, work=work(matmul_flops=1_000_000)),
    ),
    "roof-uncertain": Case(judged(timing(98.0, 0.01)), judged(timing(98.0, 0.06))),
    "output-changed-after-timing": Case(after_timing("output 0 differs"), after_timing("")),
    "another-device": Case(
        lambda: held_to_device(point(timing(200.0)), "GPU 2", "GPU 1").warnings,
        lambda: held_to_device(point(timing(200.0)), "GPU 1", "GPU 1").warnings,
    ),
    "no-clock-left": Case(
        judged(timing(1e-6), machine=FAST, **SHORT, **device(5e-7, records=4)),
        judged(timing(1e-6), machine=FAST, **SHORT, **device(1e-6)),
    ),
    "fits-in-cache": Case(
        judged(timing(5.0), cache="warm", work=work(read=4000), clock="events"), judged(timing(200.0))
    ),
    "launch-bound": Case(
        judged(timing(200.0), clock="events", host_s=timing(400.0)),
        judged(timing(200.0), clock="events", host_s=timing(210.0)),
    ),
    "two-clocks-disagree": Case(judged(timing(200.0), **device(300.0)), judged(timing(200.0), **device(190.0))),
    "profiler-lost-events": Case(
        judged(timing(200.0), **device(190.0, records=3)), judged(timing(200.0), **device(190.0))
    ),
    "noisy": Case(judged(timing(200.0, 0.3)), judged(timing(200.0, 0.05))),
    "drifting": Case(judged(timing(200.0, 0.02, RISING)), judged(timing(200.0, 0.02, RESTLESS))),
    "too-short-for-the-clock": Case(
        judged(timing(2e-6), machine=FAST, **SHORT), judged(timing(2e-6), machine=FAST, cache="warm", **SHORT)
    ),
    "parts-do-not-add-up": Case(
        judged(timing(200.0), parts=PARTS), judged(timing(165.0), parts=PARTS)
    ),
    "parts-not-measured": Case(parts_told("no parts today"), parts_told("")),
    "configuration-differs": Case(
        configured({"k: registers": 130, "k: tile": "M=64"}, {"k: registers": 175, "k: tile": "M=64"}),
        configured({"k: registers": 130, "only before": 1}, {"k: registers": 130, "k: cubin": None}),
    ),
    "compared-across-machines": Case(across("cpu"), across("gpu")),
}  # fmt: skip
