"""Builders of realistic synthetic runs: a made-up GPU, a made-up CPU, and names that try to break out of every format.

No number here was measured; times follow from the floors by a fixed efficiency, so tests can foresee them.
"""

from __future__ import annotations

from collections.abc import Iterator

from seqroof.roofline import fleet
from seqroof.roofline.machine import Ceiling, Machine
from seqroof.roofline.record import (
    Achieved,
    Correctness,
    DeviceRun,
    Environment,
    Floors,
    Fraction,
    Intensity,
    Observation,
    Point,
    Run,
    Timing,
    Wall,
    Warning_,
)
from seqroof.roofline.work import Work, terms

HOSTILE = "</script><img src=x onerror=alert(1)>"
HOSTILE_RICH = "[red]odd[/blue] \x1b[31m|\n=1+1"

_GPU = {
    ("bandwidth", "dram", "", "read", "B/s"): 4.21e12,
    ("bandwidth", "dram", "", "copy", "B/s"): 4.02e12,
    ("bandwidth", "cache", "", "read", "B/s"): 7.4e12,
    ("rate", "tensor", "bf16", "matmul 8192", "FLOP/s"): 742e12,
    ("rate", "tensor", "fp16", "matmul 8192", "FLOP/s"): 735e12,
    ("rate", "tensor", "tf32", "matmul 8192", "FLOP/s"): 371e12,
    ("rate", "simt", "fp32", "fused multiply-add", "FLOP/s"): 58e12,
    ("rate", "special", "", "exp2", "op/s"): 4.1e12,
    ("latency", "launch", "", "empty kernel", "s"): 2.3e-6,
    ("latency", "launch_waited", "", "empty kernel", "s"): 6.1e-6,
    ("latency", "graph", "", "empty node", "s"): 1.2e-6,
    ("latency", "barrier", "", "132 programs", "s"): 1.1e-6,
    ("capacity", "cache", "", "knee", "B"): 38e6,
    ("capacity", "cache", "", "reported", "B"): 60e6,
}
_CPU = {
    ("bandwidth", "dram", "", "read", "B/s"): 21e9,
    ("bandwidth", "cache", "", "read", "B/s"): 68e9,
    ("rate", "simt", "fp32", "matmul 2048", "FLOP/s"): 172e9,
    ("rate", "simt", "bf16", "matmul 2048", "FLOP/s"): 96e9,
    ("latency", "launch", "", "one dispatched operation", "s"): 1.6e-6,
    ("latency", "inside", "", "compiled loop", "s"): 4e-8,
    ("capacity", "cache", "", "knee", "B"): 24e6,
}
_BYTES = {"fp32": 4, "tf32": 4, "fp16": 2, "bf16": 2}


def machine(kind: str = "gpu") -> Machine:
    """A made-up "gpu" or "cpu" with every ceiling that the floors need."""
    values = _GPU if kind == "gpu" else _CPU
    ceilings = [
        Ceiling(
            quantity=quantity,
            level=level,
            dtype=dtype,
            pattern=pattern,
            value=value,
            low=value * 0.996,
            high=value * 1.003,
            unit=unit,
            provenance="measured" if pattern != "reported" else "datasheet",
            how="largest of 6 rounds of 20 launches" if pattern != "reported" else "reported by the driver",
            when="2026-11-21",
        )
        for (quantity, level, dtype, pattern, unit), value in values.items()
    ]
    name = "Sample Accelerator 141GB" if kind == "gpu" else "Sample Processor, 2 cores"
    return Machine(
        id=f"sample-{kind}",
        name=name,
        vendor="Sample",
        year=2026,
        machine_class="datacentre" if kind == "gpu" else "cpu",
        device="cuda" if kind == "gpu" else "cpu",
        ceilings=tuple(ceilings),
    )


def work_of(kernel: str, shape: dict[str, int], dtype: str) -> Work:
    """The sums that matter for a picture; the real cost of each kernel stands in its own file."""
    e = _BYTES[dtype]
    if kernel == "attention":
        b, n, s, p = (shape[name] for name in ("B", "N", "S", "P"))
        flops, read, write, special = (
            2 * b * n * p * s * (s + 1),
            3 * e * b * n * s * p,
            e * b * n * s * p,
            b * n * s * s,
        )
    elif kernel == "gated_conv":
        b, t, c, taps = (shape[name] for name in ("B", "T", "C", "W"))
        flops, read, write, special = (
            4 * b * t * taps * c * c,
            e * (b * t * c + 2 * taps * c * c),
            e * b * t * c,
            b * t * c,
        )
    else:
        b, i, h = (shape[name] for name in ("B", "I", "H"))
        flops, read, write, special = (
            8 * b * h * (i + h),
            e * (4 * h * (i + h) + b * (i + 2 * h)),
            2 * e * b * h,
            5 * b * h,
        )
    return Work(
        terms=(
            *terms("matmul_flops", ("products", flops, "two per multiply-add")),
            *terms("special_ops", ("gates", special, "exp and tanh")),
            *terms("read_bytes", ("inputs", read, "once")),
            *terms("write_bytes", ("outputs", write, "once")),
        )
    )


def timing(median: float) -> Timing:
    """A timing with an interval of 0.7 % below and 0.9 % above."""
    low, high = median * 0.993, median * 1.009
    return Timing(median=median, low=low, high=high, min=low, p95=high, n=60, rounds=6, stop="interval within 0.5 %")


def point(
    kernel: str,
    implementation: str,
    shape: dict[str, int],
    dtype: str,
    efficiency: float,
    on: Machine,
    warnings: tuple[Warning_, ...] = (),
    headline: bool = True,
) -> Point:
    """A measured point that reaches `efficiency` of its highest floor."""
    work = work_of(kernel, shape, dtype)
    rate = on.best("rate", "tensor", dtype) or on.best("rate", "simt", dtype)
    dram, cache, latency = on.best("bandwidth", "dram"), on.best("bandwidth", "cache"), on.best("latency", "launch")
    assert rate and dram and cache and latency
    floors = Floors(
        compute=work.flops / rate.value,
        dram=work.compulsory_bytes / dram.value,
        cache=work.compulsory_bytes / cache.value,
        serial=latency.value,
    )
    wall, floor = floors.largest() or ("dram", 1.0)
    time_s = floor / efficiency
    share = Fraction(value=efficiency, low=efficiency * 0.99, high=efficiency * 1.01)
    return Point(
        kernel=kernel,
        implementation=implementation,
        shape=shape,
        dtype=dtype,
        direction="forward",
        cache="cold" if headline else "warm",
        clock="events",
        status="ok",
        headline=headline,
        correctness=Correctness(passed=True, max_error=1e-3, allowed_max=2e-3),
        time_s=timing(time_s),
        work=work,
        weights="reread",
        chain="launch",
        launches=1,
        residency="dram",
        floors_s=floors,
        bound=wall,
        contested_with=_contested(floors, wall, floor),
        best_floors_s=floors,
        best_bound=wall,
        attainable_fraction=share,
        best_fraction=share,
        roof_fraction=share,
        intensity=Intensity(compulsory=work.flops / work.compulsory_bytes, streamed=work.flops / work.streamed_bytes),
        achieved=Achieved(
            flops_per_s=work.flops / time_s,
            bytes_per_s=work.compulsory_bytes / time_s,
            streamed_bytes_per_s=work.streamed_bytes / time_s,
        ),
        gap=f"the machine could do it in {floor * 1e6:.1f} µs ({wall}); measured {time_s * 1e6:.1f} µs",
        peak_memory_bytes=work.compulsory_bytes,
        warnings=warnings,
    )


def _contested(floors: Floors, wall: Wall, floor: float) -> Wall | None:
    near = [n for n in ("compute", "dram", "serial") if n != wall and (getattr(floors, n) or 0) > 0.9 * floor]
    return near[0] if near else None  # type: ignore[return-value]


NOISY = Warning_(
    id="noisy",
    severity="warning",
    cause="the rounds differ by 4.2 %",
    advice="close other programs and repeat with --rounds 20",
)


def unmeasured(status: str, reason: str, kernel: str, implementation: str, shape: dict[str, int], dtype: str) -> Point:
    """A point that has no time, with the reason."""
    return Point(
        kernel=kernel,
        implementation=implementation,
        shape=shape,
        dtype=dtype,
        direction="forward",
        cache="cold",
        clock="events",
        status=status,  # type: ignore[arg-type]
        reason=reason,
    )


def gpu_points(on: Machine) -> Iterator[Point]:
    """A batch sweep of the LSTM step, attention, gated convolution, and one of every unhappy ending."""
    for index, batch in enumerate((1, 2, 8, 32, 128, 256, 512)):
        shape = {"B": batch, "I": 2048, "H": 2048}
        yield point("lstm_step", "torch", shape, "bf16", 0.58 - 0.02 * index, on)
        yield point("lstm_step", "triton", shape, "bf16", 0.74 - 0.01 * index, on, (NOISY,) if batch == 8 else ())
        if batch in (1, 32, 256):
            yield point("lstm_step", "torch", shape, "fp32", 0.7, on)
            yield point("lstm_step", "triton", shape, "bf16", 0.9, on, headline=False)
    for steps, efficiency in ((512, 0.31), (2048, 0.52), (8192, 0.61)):
        shape = {"B": 2, "N": 16, "G": 16, "S": steps, "K": steps, "P": 64, "causal": 1}
        yield point("attention", "torch.flash", shape, "bf16", efficiency, on)
        yield point("attention", "triton", shape, "bf16", efficiency * 0.94, on)
        yield point("attention", "torch.math", shape, "bf16", efficiency * 0.12, on)
        yield unmeasured("skipped", "no C compiler was found", "attention", "compile", shape, "bf16")
    for channels in (64, 256, 1024):
        shape = {"B": 8, "T": 1024, "C": channels, "O": channels, "W": 3, "dilation": 1}
        yield point("gated_conv", "torch", shape, "bf16", 0.24, on)
        yield point("gated_conv", "triton", shape, "bf16", 0.46, on)
    shape = {"B": 3, "I": 96, "H": 64}
    yield unmeasured("wrong", "largest error 0.4, allowed 0.002", "lstm_step", "compile", shape, "fp16")
    yield unmeasured("crashed", "the worker ended with signal 11", "gated_conv", "compile", {"B": 1}, "fp16")
    invalid = point("gated_conv", "reference", {"B": 8, "T": 1024, "C": 64, "O": 64, "W": 3}, "bf16", 0.2, on)
    yield invalid.model_copy(
        update={
            "status": "invalid",
            "reason": "faster than the best possible floor by 31 %",
            "best_fraction": None,
            "attainable_fraction": None,
        }
    )


def cpu_points(on: Machine) -> Iterator[Point]:
    """The quick suite of a small processor."""
    for batch in (1, 2, 4, 16, 64):
        shape = {"B": batch, "I": 512, "H": 512}
        yield point("lstm_step", "torch", shape, "fp32", 0.62, on)
        yield point("lstm_step", "reference", shape, "fp32", 0.21, on)
        reason = "triton kernels need a GPU; on a CPU they are only verified"
        yield unmeasured("skipped", reason, "lstm_step", "triton", shape, "fp32")
    for steps in (64, 256):
        shape = {"B": 1, "N": 4, "G": 4, "S": steps, "K": steps, "P": 64, "causal": 0}
        yield point("attention", "torch.math", shape, "fp32", 0.33, on)


def run(kind: str = "gpu", points: tuple[Point, ...] | None = None) -> Run:
    """A whole run on the made-up "gpu" or "cpu"; `points` replaces its own."""
    on = machine(kind)
    if points is None:
        points = tuple((gpu_points if kind == "gpu" else cpu_points)(on))
    return Run(
        tool="seqroof 0.1.0",
        created="2026-11-21T10:00:00Z",
        command="seqroof profile --suite quick",
        commit="0123456789abcdef",
        suite="quick",
        duration_s=41.5,
        machine=on,
        environment=Environment(python="3.12.3", torch="2.11.0", triton="3.6.0", driver="580.1", clocks={"sm": 1980e6}),
        points=points,
        observations=(
            Observation(
                id="walk",
                text="The LSTM walks up the roof: from B=1 to B=2 its work doubles and its time grows by 2 %.",
                numbers={"ratio": 1.02},
            ),
        ),
    )


def fleet_run(single: Run, count: int = 2) -> Run:
    """The same run on several devices of one model, merged."""
    ranks = [DeviceRun(rank=rank, state="complete", machine=single.machine) for rank in range(count)]
    return fleet.merge([fleet.Part(device, single) for device in ranks], single.tool)


def crowd(count: int) -> Run:
    """Many points in few places, as a full suite has them."""
    on = machine()
    points: list[Point] = []
    for index in range(count):
        shape = {"B": 2 ** (index % 9), "I": 256 * (1 + index % 5), "H": 256 * (1 + index % 5)}
        name = ("torch", "triton", "compile", "reference")[index // 9 % 4]
        points.append(point("lstm_step", name, shape, "bf16", 0.2 + 0.7 * (index % 13) / 13, on))
    return run(points=tuple(points))


def hostile_run() -> Run:
    """A run whose names, reasons and texts try to become markup, code, escapes or spreadsheet formulas."""
    on = machine()
    shape = {"B": 1, "I": 64, "H": 64}
    bad = Warning_(id=HOSTILE, severity="warning", cause=HOSTILE_RICH, advice=HOSTILE)
    points = (
        point(HOSTILE, "torch", shape, "bf16", 0.5, on, (bad,)),
        point(HOSTILE_RICH, HOSTILE, shape, "bf16", 0.25, on),
        unmeasured("skipped", HOSTILE, HOSTILE_RICH, "triton", shape, "bf16"),
    )
    return run(points=points).model_copy(
        update={
            "machine": on.model_copy(update={"name": HOSTILE}),
            "observations": (Observation(id="x", text=HOSTILE_RICH),),
            "command": HOSTILE,
        }
    )
