"""Laws of the model over the real costs of kernels, and floors against every recorded run."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seqroof.kernels import _catalog
from seqroof.roofline import catalogue, what_if
from seqroof.roofline.record import WALLS
from seqroof.roofline.store import load
from seqroof.roofline.what_if import RATES, RESOURCES, Case

ROOT = Path(__file__).resolve().parents[2]
RECORDED = sorted((ROOT / "results").glob("**/run.json"))
# Doubts that explain a time below the best possible floor.
BELOW_THE_FLOOR = {"above-a-physical-roof", "roof-uncertain", "faster-unit", "fits-in-cache"}
SIZES = {
    "lstm": {"B": (1, 64), "T": (1, 33, 512), "I": (64,), "H": (64, 1024, 4096), "L": (1, 2)},
    "rnn": {"B": (1, 64), "T": (1, 33, 512), "I": (64,), "H": (64, 1024, 4096)},
    "lstm_step": {"B": (1, 256), "I": (1024,), "H": (64, 4096)},
    "attention": {"B": (1, 8), "N": (4,), "S": (64, 4096), "P": (64,)},
    "attention_decode": {"B": (1, 64), "N": (4,), "K": (64, 65536), "P": (64,)},
    "hierarchical_attention": {"B": (1,), "T": (100, 10_000), "P": (64,), "F": (2, 100)},
    "memory_attention": {"B": (1, 8), "T": (1, 200), "M": (128, 4096), "P": (64,)},
    "dilated_conv": {"B": (1, 8), "T": (64, 4096), "C": (64, 512), "W": (3,), "L": (6,)},
    "transformer_block": {"B": (1, 8), "T": (64, 2048), "M": (512,), "N": (8,)},
}
# A datasheet machine with all latencies, and a wide and a narrow one with what its row knows.
MACHINES = ("h200-sxm", "a100-sxm-80gb", "l4")


@cache
def work_of(kernel, sizes, dtype, direction):
    """The cost of a case; cached, because hypothesis asks again."""
    loaded = _catalog.load(kernel)
    return loaded.module.work(loaded.shape(**dict(sizes)), dtype, direction)


@st.composite
def cases(draw):
    """Any kernel at any of its sizes, in any class of design."""
    kernel = draw(st.sampled_from(sorted(SIZES)))
    sizes = tuple((name, draw(st.sampled_from(values))) for name, values in SIZES[kernel].items())
    dtype = draw(st.sampled_from(["fp32", "bf16"]))
    direction = draw(st.sampled_from(["forward", "both"] if kernel != "lstm_step" else ["forward"]))
    weights, chain = draw(st.sampled_from(["reread", "kept"])), draw(st.sampled_from(["launch", "graph", "barrier"]))
    cache_state, hoists = draw(st.sampled_from(["cold", "warm"])), draw(st.booleans())
    return Case(work_of(kernel, sizes, dtype, direction), dtype, cache_state, weights, chain, hoists)


def all_of(case, machine):
    """Every floor and the estimate, of the design and of the best possible one."""
    for one in (case, case.best):
        found = what_if._floors(one, machine)
        yield from ((wall, getattr(found.floors, wall)) for wall in WALLS)
        yield "estimate", found.estimate_s


def no_slower(case, before, after):
    for (wall, old), (_, new) in zip(all_of(case, before), all_of(case, after)):
        assert (old is None) == (new is None)
        assert old is None or new <= old * (1 + 1e-9), f"{wall} rises from {old} to {new}"


@settings(deadline=None)
@given(cases(), st.sampled_from(MACHINES), st.sampled_from(sorted(RESOURCES)), st.floats(1.0, 20.0))
def test_more_of_a_resource_raises_no_floor_and_no_estimate(case, id, resource, factor):
    machine = catalogue.machine(id)
    no_slower(case, machine, what_if.scaled(machine, resource, factor))


@settings(deadline=None)
@given(cases(), st.sampled_from(MACHINES), st.sampled_from(what_if.INSIDE_FACTORS))
def test_units_inside_the_memory_raise_no_floor_and_no_estimate(case, id, factor):
    machine = catalogue.machine(id)
    no_slower(case, machine, what_if.inside_memory(machine, factor))


@settings(deadline=None)
@given(cases(), st.sampled_from(MACHINES))
def test_twice_every_rate_and_half_every_latency_halve_every_floor(case, id):
    before = after = catalogue.machine(id)
    for resource in RATES:
        after = what_if.scaled(after, resource, 2.0)
    for (_, old), (_, new) in zip(all_of(case, before), all_of(case, after)):
        assert (old is None and new is None) or new == pytest.approx(old / 2)


@settings(deadline=None)
@given(cases(), st.sampled_from(MACHINES))
def test_gains_are_at_least_one_and_rise_with_the_factor(case, id):
    for gains in what_if.gains(case, catalogue.machine(id)).values():
        found = [gains[factor] for factor in what_if.FACTORS]
        assert found[0] >= 1 - 1e-9 and found == sorted(found)


def floors_and_times(run):
    """Best possible floor, upper end of the time and diagnoses of every timed point that has all of them."""
    for point in run.points:
        found = point.best_floors_s.largest() if point.best_floors_s else None
        if point.time_s and found:
            yield found[1], point.time_s.high, {warning.id for warning in point.warnings}, point.key


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: path.parent.name)
def test_best_floors_of_a_recorded_run_lie_below_its_times_or_are_diagnosed(path):
    found = list(floors_and_times(load(path)))
    below = [(ids, key) for floor, high, ids, key in found if floor > high]
    assert len(found) >= 100 and len(below) <= 0.02 * len(found), below
    assert [key for ids, key in below if not ids & BELOW_THE_FLOOR] == []


def test_there_are_recorded_runs():
    assert RECORDED
