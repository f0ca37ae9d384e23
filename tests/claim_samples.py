"""A made-up run that supports every claim, with a knob for each that turns it the other way. Nothing was measured."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

from round_machine import ceiling, timing

from seqroof.roofline.machine import Machine
from seqroof.roofline.record import Environment, Evidence, Fraction, Point, Run
from seqroof.roofline.work import Work, terms

MACHINE = Machine(
    id="sample-cpu",
    name="Sample Processor",
    machine_class="cpu",
    device="cpu",
    ceilings=(
        ceiling("bandwidth", "dram", 1e10),
        ceiling("rate", "simt", 1e13, "fp32", "product", "FLOP/s"),
        ceiling("capacity", "cache", 16e6, unit="B", pattern="knee"),
    ),
)
# What every knob is when its claim is supported, and what turns the verdict.
KNOBS = {
    "C1": (0.8, 0.3),  # share of the bandwidth that the weights take
    "C2": (0, 20_000),  # operations of a step for every pair of units, besides those of the mathematics
    "C4": (0.1, 0.6),  # share of the classic roof that the LSTM reaches
    "C5": (3.0, 1.4),  # weights from memory over weights from a cache
    "C6": (1.5, 0.8),  # LSTM over attention, T=512
    "C7": (1.0, 0.5),  # power of T
    "C10": (4.0, 1.2),  # long over short sequences
    "C11": (0.5, 2.0),  # LSTM step over attention to a long cache
    "C12": (0.8, 0.97),  # GRU over LSTM
    "C13": (1.0, 1.2),  # dilated over plain
    "C15": (0.8, 1.5),  # LSTM over attention, T=256
    "C16": (10.0, 2.0),  # one sequence over 64, per token
    "C17": (0, 10**9),  # operations besides products and update
}
WIDTH = 0.01  # of every interval


def work(flops=1, pointwise=0, read=1000, parameters=1000, tokens=1, depth=1) -> Work:
    """A work with these sums; weights are four bytes each."""
    lines = terms("matmul_flops", ("products", flops, "")) + terms("pointwise_flops", ("rest", pointwise, ""))
    lines += terms("read_bytes", ("inputs", read, ""))
    return Work(terms=lines, parameters=parameters, weight_bytes=4 * parameters, tokens=tokens, depth=depth)


def timed(kernel: str, shape: dict[str, int], time_s: float, of: Work, **changes: Any) -> Point:
    """A valid point of the reference on the processor, warm and forward unless told otherwise."""
    fields = {"implementation": "reference", "dtype": "fp32", "direction": "forward", "cache": "warm", "clock": "host"}
    fields |= {"status": "ok", "time_s": timing(time_s, WIDTH), "work": of, "weights": "reread", "chain": "launch"}
    return Point.model_validate({"kernel": kernel, "shape": shape, **fields, **changes})


def step(B: int, H: int, time_s: float, knob: dict[str, Any], **changes: Any) -> Point:
    """An LSTM step with its real operations and weights, and with those that a knob adds."""
    flops = (16 * B + int(knob["C2"])) * H * H
    of = work(flops, 8 * B * H + int(knob["C17"]), 32 * H * H, 8 * H * H + 4 * H, B)
    of = of.model_copy(update={"state_bytes": 2 * 4 * B * H})
    return timed("lstm_step", {"B": B, "I": H, "H": H}, time_s, of, **{"cache": "cold", **changes})


def lstm(B: int, T: int, H: int, time_s: float, kernel: str = "lstm", **changes: Any) -> Point:
    """A recurrence of one layer."""
    shape = {"B": B, "T": T, "I": H, "H": H, "L": 1, "D": 1, "dilation": 1, "ragged": 0}
    return timed(kernel, shape, time_s, work(parameters=8 * H * H, tokens=B * T, depth=T), **changes)


def block(B: int, T: int, H: int, time_s: float, **changes: Any) -> Point:
    """A layer of attention of as many parameters."""
    heads = max(1, H // 64)
    shape = {"B": B, "T": T, "M": H, "N": heads, "G": heads, "F": 2 * H, "causal": 1}
    return timed("transformer_block", shape, time_s, work(parameters=8 * H * H, tokens=B * T), **changes)


def convolution(B: int, T: int, C: int, time_s: float, **changes: Any) -> Point:
    """A gated convolution of as many parameters."""
    shape = {"B": B, "T": T, "C": C, "O": C, "W": 4, "dilation": 1, "residual": 0}
    return timed("gated_conv", shape, time_s, work(parameters=8 * C * C, tokens=B * T), **changes)


def share(value: float) -> Fraction:
    """A fraction with a narrow interval."""
    return Fraction(value=value, low=value * 0.99, high=value * 1.01)


def steps(knob: dict[str, Any]) -> list[Point]:
    """LSTM steps of all sizes that claims plan: those that stream their weights, and those that fit a cache."""
    found = []
    for H, batches in ((1024, (1, 2, 4, 8, 16, 32, 64, 128, 256)), (2048, (1, 8))):
        weights = 4 * (8 * H**2 + 4 * H) / 1e10
        found += [step(B, H, weights / knob["C1"], knob) for B in batches]
    for H, batches in ((192, (1, 16)), (512, (1, 4, 16))):
        small = 4 * 8 * H**2 / 1e10
        for B in batches:
            found += [step(B, H, small, knob), step(B, H, small / knob["C5"], knob, cache="warm")]
    return found


def recurrences(knob: dict[str, Any]) -> list[Point]:
    """Recurrences of all sizes that claims plan, with the attention and the convolutions beside them."""
    found = [lstm(1, T, 256, 1e-5 * T ** knob["C7"]) for T in (32, 64, 128, 256)]
    for (direction, longer), (B, H) in product((("forward", 1), ("both", 3)), ((1, 256), (16, 128))):
        seconds = 1e-5 * 512 ** knob["C7"] * longer * B
        how: dict[str, Any] = {"direction": direction}
        found += [
            lstm(B, 512, H, seconds, roof_fraction=share(knob["C4"]), **how),
            block(B, 512, H, seconds / knob["C6"], roof_fraction=share(0.5), **how),
            convolution(B, 512, H, seconds / 2, roof_fraction=share(0.6), **how),
        ]
    one = 1e-5 * 32 ** knob["C7"]
    found += [lstm(64, 32, 256, one * 64 / knob["C16"]), lstm(64, 32, 128, one * 64 / knob["C16"])]
    found += [lstm(1, 32, 128, one), lstm(1, 32, 512, 4 * one)]
    found += [lstm(B, 64, 256, B * 1e-5 * 64 ** knob["C7"]) for B in (4, 16)]
    found.append(lstm(1, 32, 512, 4 * one * knob["C12"], kernel="gru"))
    found += [lstm(B, 64, 256, B * 1e-5 * 64 ** knob["C7"] * knob["C12"], kernel="gru") for B in (1, 4, 16)]
    found += [lstm(16, 1024, 64, 1.0), block(16, 1024, 64, 1.0 / knob["C6"])]
    found += [lstm(16, 256, 64, knob["C15"]), block(16, 256, 64, 1.0)]
    for B, T, rise in ((32, 32, 0), (1, 1024, 1)):
        found.append(lstm(B, T, 128, 0.1 * knob["C10"] ** rise, direction="both"))
        found.append(convolution(B, T, 128, 0.1 * 1.1**rise, direction="both"))
    return found


def points(turned: str = "") -> list[Point]:
    """The points of a run that supports every claim but the one that is turned."""
    knob = {name: values[name == turned] for name, values in KNOBS.items()}
    found = steps(knob) + recurrences(knob)
    small = 4 * 8 * 512**2 / 1e10
    for K, seconds in ((1, small / 20), (256, small / knob["C11"] * 0.9), (16384, small / knob["C11"])):
        shape = {"B": 1, "N": 8, "K": K, "P": 64, "G": 8, "ragged": 0}
        found.append(timed("attention_decode", shape, seconds, work(read=4096 * K + 4096), cache="cold"))
    for (B, T, C), (first, seconds) in product(((16, 2048, 64), (4, 4096, 128)), ((1, 0.1), (64, 0.1 * knob["C13"]))):
        shape = {"B": B, "T": T, "C": C, "W": 3, "L": 1, "base": 2, "residual": 1, "first": first}
        found.append(timed("dilated_conv", shape, seconds, work()))
    for T, depth in ((100, 1), (10000, 2)):
        found.append(timed("hierarchical_attention", {"B": 1, "T": T, "P": 64, "F": 100}, 0.1, work(depth=depth)))
    found.append(timed("attention", {"B": 1, "N": 4, "S": 512, "P": 64, "K": 512, "G": 4, "causal": 1}, 0.1, work()))
    return found


def spread(name: str, value: float) -> dict[str, float | int | str | None]:
    """A value of a probe with a narrow interval."""
    return {name: value, f"{name}_low": value * 0.9, f"{name}_high": value * 1.1}


def evidence(turned: str = "") -> tuple[Evidence, ...]:
    """The rows of the probes, but for the claim that is turned."""
    kept = {"norm_100": 1e-9 if turned == "C9" else 0.01, "norm_1000": 1e-9}
    return (
        Evidence(
            id="hierarchy-reach",
            values={"window": 100, "inputs": 10000, "levels": 2, "levels_one_more": 3}
            | {"changed": 9999 if turned == "C8" else 10000},
            how="sample",
        ),
        *(
            Evidence(
                id=f"gradient-reach forget_bias={bias}",
                values={"forget_bias": bias, "seeds": 10}
                | spread("norm_100", kept["norm_100"])
                | spread("norm_1000", 1e-9),
                how="sample",
            )
            for bias in (0, 1, 2, 3, 4, 6)
        ),
        *(
            Evidence(
                id=f"gradient-depth weights={weights}",
                values={"weights": weights, "layers": 32, "seeds": 10}
                | spread("gated_over_tanh", 0.5 if turned == "C14" else 50.0)
                | spread("gated_over_gated_tanh", 0.7 if turned == "C14" else 70.0)
                | spread("gated", 0.0005 if turned == "C14" else 0.05)
                | spread("tanh", 0.001)
                | spread("gated_tanh", 0.0007),
                how="sample",
            )
            for weights in ("1/fan-in", "keeping size")
        ),
    )


def on_gpu(points: Iterable[Point]) -> Run:
    """A run of these points as if a GPU had made them."""
    made = tuple(point.model_copy(update={"clock": "events", "dtype": "bf16"}) for point in points)
    return run(points=made, machine=MACHINE.model_copy(update={"device": "cuda"}))


def run(turned: str = "", **changes: Any) -> Run:
    """A run that supports every claim but the one that is turned."""
    fields: dict[str, Any] = {"points": tuple(points(turned)), "evidence": evidence(turned), "machine": MACHINE}
    fields |= {"tool": "seqroof 0", "created": "2026-01-01T00:00:00+00:00", "command": "seqroof profile --suite claims"}
    fields |= {"suite": "claims", "environment": Environment(python="3.11", torch="2.13")}
    return Run(**(fields | changes))


def catalogue(rate: float = 3.0, bandwidth: float = 1.5) -> tuple[Machine, ...]:
    """Datacentre parts whose rate and bandwidth grow by these factors in two years, but for a tenth of scatter."""
    parts = []
    for index, year in enumerate((2016, 2018, 2020, 2022, 2024, 2026)):
        scatter = 1.1 if index % 2 else 0.9
        roofs = (
            ceiling("rate", "tensor", 1e14 * scatter * rate**index, "bf16", "", "FLOP/s"),
            ceiling("bandwidth", "dram", 1e12 / scatter * bandwidth**index),
        )
        parts.append(Machine(id=f"part{year}", name="p", year=year, machine_class="datacentre", ceilings=roofs))
    return tuple(parts)


RESULTS = list((Path(__file__).resolve().parents[1] / "results").glob("*/*/run.json"))
