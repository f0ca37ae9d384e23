"""For every entry of the closed list, a case in which it fires and one in which it must not.

A case is a function without arguments that returns warnings. A new entry of the list needs one line here:
`"its-id": Case(fires=..., quiet=...)`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import samples
from round_machine import ROUND, ceiling, point, timing, work

from seqroof.profiler import check, streams
from seqroof.profiler.cases import replaced_doubt, settings_doubt
from seqroof.profiler.copies import shortfall
from seqroof.profiler.guard import Guard
from seqroof.profiler.points import held_to_device, measured_point, with_afterthoughts
from seqroof.profiler.recheck import slower_on_new_data
from seqroof.profiler.witness import Witness
from seqroof.roofline.circumstances import doubts_about_run
from seqroof.roofline.configuration import configuration_doubts
from seqroof.roofline.record import Environment, Evidence, Part
from seqroof.roofline.second_clock import SecondClock
from seqroof.roofline.telemetry import Counted, Spread, Telemetry
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
    telemetry={},
)


def told(doubts: Callable[[], Any]) -> Warnings:
    """Warnings of a point about which the worker has these doubts."""
    return lambda: measured_point(GROUP, {**EVENT, "doubts": doubts()}, None).warnings


def after_timing(detail: str) -> Warnings:
    """What the worker says of a timed call that is checked once more."""
    return told(lambda: [("output-changed-after-timing", {"detail": detail})] if detail else [])


def on_new_data(fastest_s: float) -> Warnings:
    """What is said of a warm call of 200 s that takes this long on new data."""
    subject = SimpleNamespace(cache="warm", clock="host")
    return told(lambda: slower_on_new_data(fastest_s, [(subject, timing(200.0))]))  # type: ignore[list-item]


def left_behind(rest_s: float) -> Warnings:
    """What is said of calls of 1 s whose device works on for so long after their stream has finished."""
    times = iter((0.0, 1.0, 1.0 + rest_s))
    stream = SimpleNamespace(synchronize=lambda: None)
    cuda = SimpleNamespace(synchronize=lambda: None, current_stream=lambda: stream)
    return told(lambda: streams.doubt(cuda, lambda: None, lambda: next(times)))


def replaced(replacement: Any) -> Warnings:
    """What is said when `seqroof.profiler.check.errors` is this."""

    def found():
        guard, before = Guard(), check.errors
        guard.watch()
        check.errors = replacement or before
        try:
            names = guard.replaced()
        finally:
            check.errors = before
        return [replaced_doubt(names)] if names else []

    return told(found)


def witnessed(seen_s: float) -> Warnings:
    """What the parent says of a block that the worker claims took 1 s."""
    times = iter((0.0, seen_s))

    def found():
        witness = Witness(lambda: next(times))
        for ended in (False, True):
            witness.note({"implementation": "torch", "ended": ended, "claimed_s": 1.0})
        return witness.doubts("torch")

    return told(found)


def watched(**readings) -> Warnings:
    """Warnings of a judged point with these readings beside its clock."""
    return judged(timing(200.0), telemetry=Telemetry(samples=6, **readings))


def counted(read_bytes: float) -> Warnings:
    """Warnings of a judged point of which so many bytes were counted; it declares 10 000."""
    counts = Counted(dram_read_bytes=read_bytes, dram_write_bytes=0.0, provenance="measured")
    return judged(timing(200.0), counted=counts, launches=1)


def about_run(evidence: Sequence[Evidence] = (), **environment) -> Warnings:
    """Warnings about a whole run."""
    return lambda: doubts_about_run(Environment(python="3", **environment), (), evidence)


def seen_during(**values) -> Warnings:
    """Warnings about a run during which this was seen."""
    return about_run([Evidence(id="surroundings-during", values=values, how="")])


def copied(start: float, end: float) -> Warnings:
    """Warnings about a run whose calibration copy ran at these shares of its roof."""
    values: dict[str, Any] = {"roof_bytes_per_s": 40e9}
    for when, share in (("start", start), ("end", end)):
        off = share - 1 if share < 0.98 else 0.0
        values |= {f"{when}_bytes_per_s": 40e9 * share, f"{when}_from_roof": off}
    return about_run([Evidence(id="calibration-copy", values=values, how="")])


def counters(**values) -> Warnings:
    """Warnings about a run whose counters answered so."""
    return about_run([Evidence(id="counters", values=values, how="")])


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
        judged(timing(250.0), parts=PARTS), judged(timing(200.0), parts=PARTS)
    ),
    "parts-not-measured": Case(parts_told("no parts today"), parts_told("")),
    "configuration-differs": Case(
        configured({"k: registers": 130, "k: tile": "M=64"}, {"k: registers": 175, "k: tile": "M=64"}),
        configured({"k: registers": 130, "only before": 1}, {"k: registers": 130, "k: cubin": None}),
    ),
    "slower-on-new-data": Case(on_new_data(2000.0), on_new_data(1000.0)),
    "unfinished-work": Case(left_behind(1.0), left_behind(1e-5)),
    "measuring-code-replaced": Case(replaced(lambda outputs, truth: ([0.0], [0.0])), replaced(None)),
    "settings-changed": Case(
        told(lambda: settings_doubt(["the number of threads"])), told(lambda: settings_doubt([]))
    ),
    "not-cold-enough": Case(
        told(lambda: shortfall(199, 100)), told(lambda: shortfall(None, 100) + shortfall(200, 100))
    ),
    "clock-contradicted": Case(witnessed(9.0), witnessed(1.5)),
    "throttled": Case(watched(throttle={"hardware thermal slowdown": 0.5}), watched(throttle={"idle": 1.0})),
    "clocks-changed": Case(
        watched(clock_hz=Spread(median=1.8e9, low=1.7e9, high=1.85e9)),
        watched(clock_hz=Spread(median=1.8e9, low=1.78e9, high=1.82e9)),
    ),
    "other-tenant": Case(seen_during(other_processes=2), seen_during(other_processes=0, other_share=0.05)),
    "roof-not-held": Case(copied(0.99, 0.6), copied(1.0, 0.99)),
    "power-limit-below-default": Case(
        about_run(power_limit_w=500.0, power_default_w=700.0), about_run(power_limit_w=700.0, power_default_w=700.0)
    ),
    "mig": Case(about_run(mig="1g.18gb"), about_run(mig="off")),
    "counters-denied": Case(
        counters(state="denied", cause="not permitted", fix="ask the administrator"), counters(state="ok")
    ),
    "declared-bytes-differ": Case(counted(8_000.0), counted(9_500.0)),
    "compared-across-machines": Case(across("cpu"), across("gpu")),
}  # fmt: skip
