"""A machine with round numbers, and works and points that go with it, for tests that calculate by hand."""

from seqroof.roofline.machine import Ceiling, Machine
from seqroof.roofline.record import Point, Timing
from seqroof.roofline.work import Work, terms


def ceiling(quantity, level, value, dtype="", pattern="read", unit="B/s", **more):
    """A measured ceiling."""
    return Ceiling(
        quantity=quantity,
        level=level,
        dtype=dtype,
        pattern=pattern,
        value=value,
        unit=unit,
        provenance="measured",
        how="by hand",
        **more,
    )


ROUND = Machine(
    id="round",
    name="round numbers",
    machine_class="cpu",
    device="cpu",
    ceilings=(
        ceiling("bandwidth", "dram", 100.0),
        ceiling("bandwidth", "dram", 50.0, pattern="copy"),
        ceiling("bandwidth", "cache", 1000.0),
        ceiling("rate", "simt", 1e4, "fp32", "product", "FLOP/s"),
        ceiling("rate", "tensor", 1e5, "bf16", "product", "FLOP/s"),
        ceiling("rate", "special", 1e3, unit="op/s"),
        ceiling("latency", "launch", 2.0, unit="s"),
        ceiling("latency", "barrier", 1.0, unit="s"),
        ceiling("latency", "inside", 0.5, unit="s"),
        ceiling("capacity", "cache", 5000.0, unit="B", pattern="knee"),
        ceiling("capacity", "private", 100.0, unit="B", pattern="reported"),
    ),
)


def work(read=10_000, write=0, depth=1, weights=0, recurrent=None, **more):
    """A work with one term per quantity."""
    made = terms("read_bytes", ("inputs", read, "")) + terms("write_bytes", ("outputs", write, ""))
    made += sum((terms(name, (name, amount, "")) for name, amount in more.items()), ())
    kept = {} if recurrent is None else {"recurrent_bytes": recurrent}
    return Work(terms=made, depth=depth, weight_bytes=weights, **kept)


def timing(median, width=0.0, rounds=(), n=30):
    """A timing whose interval is `width` wide, relative to the median."""
    return Timing(
        median=median,
        low=median * (1 - width / 2),
        high=median * (1 + width / 2),
        min=median * (1 - width / 2),
        p95=median * (1 + width / 2),
        n=n,
        rounds=max(1, len(rounds)),
        rounds_s=tuple(rounds),
    )


def point(time=None, **changes):
    """A cold, timed point of a work with 10 000 compulsory bytes: its DRAM floor on ROUND is 100 s."""
    fields = {
        "kernel": "k",
        "implementation": "torch",
        "shape": {"B": 1},
        "dtype": "fp32",
        "direction": "forward",
        "cache": "cold",
        "clock": "host",
        "status": "ok",
        "work": work(),
        "weights": "reread",
        "chain": "launch",
        "time_s": time,
    }
    return Point(**(fields | changes))
