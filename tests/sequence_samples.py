"""A made-up run of recurrences: a sweep over the steps, with parts, graphs and the host's clock."""

from __future__ import annotations

from collections.abc import Iterator

from samples import machine, point, run, timing

from seqroof.roofline.machine import Machine
from seqroof.roofline.observe import observations
from seqroof.roofline.record import Part, Point, Run
from seqroof.roofline.verdict import judge, with_launch_tax
from seqroof.roofline.work import Work, terms


def points(on: Machine) -> Iterator[Point]:
    """A sweep over the steps of a recurrence, judged as in a run, with parts and a launch tax."""
    for steps in (16, 64, 256, 1024):
        shape = {"B": 1, "T": steps, "I": 256, "H": 256, "L": 1, "D": 1, "dilation": 1, "ragged": 0}
        product, recurrence = (_sequence_work(steps, hoisted) for hoisted in (True, False))
        parts = (
            Part(name="input product", time_s=timing(4e-6 + steps * 2e-9), work=product),
            Part(name="recurrence", time_s=timing(6e-6 + steps * 2.1e-6), work=recurrence),
        )
        for name, chain, clock, time_s in (
            ("torch", "inside", "events", 12e-6 + steps * 4.4e-6),
            ("triton_resident", "barrier", "events", 11e-6 + steps * 2.1e-6),
            ("triton_step", "launch", "events", 9e-6 + steps * 3.2e-6),
            ("triton_step", "launch", "graph", 9e-6 + steps * 3.0e-6),
            ("triton_step", "launch", "host", 20e-6 + steps * 5.5e-6),
        ):
            yield judge(
                point("lstm_step", name, {"B": 1, "I": 256, "H": 256}, "bf16", 0.5, on).model_copy(
                    update={
                        "kernel": "lstm",
                        "shape": shape,
                        "cache": "warm",
                        "clock": clock,
                        "headline": clock == "events",
                        "time_s": timing(time_s),
                        "work": recurrence,
                        "weights": "kept" if chain == "barrier" else "reread",
                        "chain": chain,
                        "hoists": chain == "barrier",
                        "parts": parts if chain == "barrier" else (),
                    }
                ),
                on,
            )


def _sequence_work(steps: int, product: bool) -> Work:
    weights, tokens = 2 * 4 * 256 * 256, steps * 256 * 2
    flops = 2 * steps * 4 * 256 * 256
    lines = (
        *terms("matmul_flops", ("products", flops if product else 2 * flops, "two per multiply-add")),
        *terms("read_bytes", ("weights", weights * (1 if product else 2), "once"), ("x", tokens, "once")),
        *terms("write_bytes", ("y", tokens, "once")),
    )
    if product:
        return Work(terms=lines)
    streamed = terms("streamed_bytes", ("steps", steps * 2 * weights, "again at every step"))
    hoisted = terms("hoisted_bytes", ("steps", steps * weights, "recurrent weights again at every step"))
    exchange = terms("exchange_bytes", ("h", 512, "the state of one step"))
    return Work(
        terms=lines + streamed + hoisted + exchange, depth=steps, weight_bytes=2 * weights, recurrent_bytes=weights
    )


def sequence_run() -> Run:
    """A run of recurrences on the made-up GPU."""
    found = with_launch_tax(points(machine()))
    texts = tuple(observations(found, machine()))
    return run(points=found).model_copy(update={"observations": texts})


def depth_run() -> Run:
    """Recurrences beside attention at the same lengths: depth T and depth 1."""
    on = machine()
    found = []
    for steps in (16, 64, 256, 1024):
        shape = {"B": 1, "N": 4, "G": 4, "S": steps, "K": steps, "P": 64, "causal": 1}
        for name, share in (("torch.flash", 0.4), ("triton", 0.3)):
            found.append(judge(point("attention", name, shape, "bf16", share, on), on))
    found += with_launch_tax(points(on))
    counted = tuple(
        p.model_copy(update={"work": p.work.model_copy(update={"tokens": p.shape.get("T", p.shape.get("S"))})})
        for p in found
        if p.work
    )
    return run(points=counted).model_copy(update={"observations": tuple(observations(counted, on))})
