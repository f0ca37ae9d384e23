"""Floors by hand: every residency, cache state and unit on a machine with round numbers."""

import pytest
from round_machine import ROUND, ceiling, work

from seqroof.kernels import _catalog, lstm_step
from seqroof.roofline import catalogue
from seqroof.roofline.floors import best_floors, own_floors
from seqroof.roofline.machine import Ceiling
from seqroof.roofline.predict import crossing, ridge
from seqroof.roofline.work import Work, terms


def test_cold_reads_come_from_dram():
    floors = own_floors(work(), "fp32", "reread", "launch", ROUND, "cold").floors
    assert floors.dram == 100.0
    assert floors.cache == 10.0
    assert floors.serial == 2.0


def test_written_bytes_that_fit_in_a_cache_need_not_leave_it():
    assert own_floors(work(read=1000, write=4000), "fp32", "reread", "launch", ROUND, "cold").floors.dram == 10.0
    # 9000 written, 5000 stay in the cache: 4000 of 5000 bytes moved are writes, copy is the nearest pattern.
    assert own_floors(work(read=1000, write=9000), "fp32", "reread", "launch", ROUND, "cold").floors.dram == 100.0


MIXED = tuple(
    ceiling("bandwidth", "dram", value, pattern=pattern)
    for pattern, value in (("read", 100.0), ("gemv", 90.0), ("triad", 60.0), ("copy", 80.0), ("write", 40.0))
)


@pytest.mark.parametrize(
    ("read", "write", "pattern"),
    [
        (100, 0, "read"),
        (95, 5, "read"),
        (70, 30, "read"),  # nearest to triad, which is slower than what lies on the other side
        (60, 40, "copy"),
        (50, 50, "copy"),
        (2, 1, "triad"),
        (10, 90, "copy"),
        (0, 100, "write"),
    ],
)
def test_a_mix_is_no_faster_than_the_faster_of_the_patterns_around_it(read, write, pattern):
    machine = ROUND.model_copy(update={"ceilings": MIXED})
    found = machine.bandwidth("dram", read, write)
    assert found is not None and found.pattern == pattern


def test_where_writes_may_stay_in_a_cache_no_mix_is_ruled_out():
    """1000 read, 1000 written of which 0 to 5000 stay: reads are between a half and all of the bytes that move."""
    slow_reads = tuple(ceiling("bandwidth", "dram", v, pattern=p) for p, v in (("read", 50.0), ("copy", 80.0)))
    others = tuple(kept for kept in ROUND.ceilings if (kept.quantity, kept.level) != ("bandwidth", "dram"))
    machine = ROUND.model_copy(update={"ceilings": (*others, *slow_reads)})
    found = own_floors(work(read=1000, write=1000), "fp32", "reread", "launch", machine, "cold")
    assert found.floors.dram == 1000 / 80 and "copy" in found.notes["dram"]


def test_a_capacity_saves_as_much_as_the_upper_end_of_its_knee():
    """Between the last size that fits and the first that does not, it is not known what fits."""
    knee = ceiling("capacity", "cache", 5000.0, unit="B", pattern="knee", low=5000.0, high=7000.0)
    others = tuple(kept for kept in ROUND.ceilings if (kept.quantity, kept.level) != ("capacity", "cache"))
    machine = ROUND.model_copy(update={"ceilings": (*others, knee)})
    assert own_floors(work(read=7000), "fp32", "reread", "launch", machine, "warm").floors.dram == 0
    assert own_floors(work(read=8000), "fp32", "reread", "launch", machine, "warm").floors.dram == 10.0
    layer = work(depth=4, weights=6000, streamed_bytes=60_000)
    assert own_floors(layer, "fp32", "reread", "barrier", machine, "cold").residency == "cache"
    assert own_floors(layer, "fp32", "reread", "barrier", ROUND, "cold").residency == "dram"


QUICK = ROUND.model_copy(update={"ceilings": (*ROUND.ceilings, ceiling("latency", "pointwise", 0.001, unit="s"))})


def test_an_element_wise_recurrence_waits_for_registers_only():
    """h = tanh(a h + x) holds no product: a step of it is far faster than any that does."""
    chain = work(read=0, depth=1000, pointwise_flops=2000, special_ops=1000)
    for found in (
        best_floors(chain, "fp32", QUICK, "warm"),
        own_floors(chain, "fp32", "kept", "inside", QUICK, "warm"),
    ):
        assert found.floors.serial == 1.0 and "pointwise" in found.notes["serial"]
    assert own_floors(chain, "fp32", "kept", "launch", QUICK, "warm").floors.serial == 2000.0
    unknown = best_floors(chain, "fp32", ROUND, "warm")
    assert unknown.floors.serial is None and "not known" in unknown.notes["serial"]


def test_products_that_need_not_wait_leave_an_element_wise_chain():
    given = {"read": 0, "depth": 1000, "matmul_flops": 10**6}
    assert best_floors(work(**given), "fp32", QUICK, "warm").floors.serial == 500.0
    beforehand = work(**given).model_copy(update={"step_products": False})
    assert best_floors(beforehand, "fp32", QUICK, "warm").floors.serial == 1.0


def without(machine, *levels, **changes):
    """The machine without some latencies, and with its other ceilings changed."""
    kept = [roof for roof in machine.ceilings if roof.quantity != "latency" or roof.level not in levels]
    return machine.model_copy(update={"ceilings": tuple(roof.model_copy(update=changes) for roof in kept)})


@pytest.mark.parametrize(
    ("chain", "levels"),
    [
        ({"matmul_flops": 10**6}, ("inside",)),
        ({"matmul_flops": 10}, ("pointwise",)),  # so small a step may wait for less than the one that was timed
        ({"pointwise_flops": 10}, ("pointwise",)),
    ],
)
def test_the_best_chain_has_no_floor_where_its_fastest_wait_was_not_measured(chain, levels):
    """The least of the others is no lower bound: an honest kernel would lie above a physical roof."""
    job, machine = work(read=0, depth=1000, **chain), without(QUICK, *levels)
    found = best_floors(job, "fp32", machine, "warm")
    assert found.floors.serial is None and f"latency of {levels[0]}" in found.notes["serial"]
    assert best_floors(job, "fp32", QUICK, "warm").floors.serial is not None
    assert own_floors(job, "fp32", "reread", "barrier", machine, "warm").floors.serial == 1000.0
    replayed = without(QUICK, *levels, provenance="replayed")
    assert best_floors(job, "fp32", replayed, "warm").floors.serial is None


def test_a_machine_of_the_catalogue_shows_its_least_known_wait_and_says_so():
    stated = without(QUICK, "inside", provenance="assumed")
    found = best_floors(work(depth=1000, matmul_flops=10**6), "fp32", stated, "warm")
    assert found.floors.serial == 1000.0
    assert "barrier, assumed" in found.notes["serial"] and "latency of inside not known" in found.notes["serial"]
    whole = best_floors(work(depth=1000, matmul_flops=10**6), "fp32", QUICK, "warm")
    assert "stands in" not in whole.notes["serial"]


def test_a_warm_call_that_fits_needs_no_dram():
    assert own_floors(work(read=4000), "fp32", "reread", "launch", ROUND, "warm").floors.dram == 0
    # What exceeds the cache must come from below, the rest may have stayed.
    assert own_floors(work(read=6000), "fp32", "reread", "launch", ROUND, "warm").floors.dram == 10.0


def test_a_warm_call_inside_private_caches_needs_no_shared_cache():
    assert own_floors(work(read=80), "fp32", "reread", "launch", ROUND, "warm").floors.cache == 0


def test_the_slowest_unit_sets_the_compute_floor():
    job = work(matmul_flops=1000, pointwise_flops=10, special_ops=500)
    found = own_floors(job, "bf16", "reread", "launch", ROUND, "cold")
    assert found.floors.compute == 0.5
    assert "special functions" in found.notes["compute"]


def test_strict_fp32_is_scored_on_vector_units_and_bf16_on_tensor_units():
    job = work(matmul_flops=100_000)
    assert own_floors(job, "fp32", "reread", "launch", ROUND, "cold").floors.compute == 10.0
    assert own_floors(job, "bf16", "reread", "launch", ROUND, "cold").floors.compute == 1.0


def test_the_best_design_may_keep_what_others_compute_again():
    """Gradients of attention in five products, of which one repeats the scores of the forward pass."""
    attention = _catalog.load("attention")
    shape = attention.shape(B=1, N=2, S=64, P=32, K=64, G=2, causal=0, ragged=0)
    for direction, products in (("forward", 2), ("backward", 5), ("both", 7)):
        job = attention.module.work(shape, "fp32", direction)
        assert job.matmul_flops == products * 2 * 2 * 64 * 64 * 32
        own, best = (
            own_floors(job, "fp32", "reread", "launch", ROUND, "warm"),
            best_floors(job, "fp32", ROUND, "warm"),
        )
        again = direction != "forward"
        assert best.floors.compute == pytest.approx(own.floors.compute * (products - again) / products)


def test_an_unknown_rate_gives_no_floor_and_says_so():
    found = own_floors(work(matmul_flops=10), "fp16", "reread", "launch", ROUND, "cold")
    assert found.floors.compute is None
    assert "not known" in found.notes["compute"]


@pytest.mark.parametrize(
    ("weights", "where", "residency", "dram", "cache"),
    [
        # Four passes over the weights; at each but the first, caches may hold 5100 bytes of them, or 100.
        (9000, "reread", "dram", 360 - 3 * 51.0, 36 - 3 * 0.1),
        (3000, "reread", "cache", 100.0, 12 - 3 * 0.1),
        (80, "reread", "cache", 100.0, 10.0),
        (3000, "kept", "chip", 100.0, 10.0 + 4 * 0.2),
    ],
)
def test_residency_of_a_recurrence(weights, where, residency, dram, cache):
    job = work(depth=4, weights=weights, streamed_bytes=4 * weights, exchange_bytes=200)
    found = own_floors(job, "fp32", where, "barrier", ROUND, "cold")
    assert found.residency == residency
    assert (found.floors.dram, found.floors.cache) == (dram, cache)
    assert found.floors.serial == 4.0


@pytest.mark.parametrize("place", ["chip", "private"])
def test_the_best_floors_never_exceed_those_of_any_design(place):
    job = work(depth=4, weights=3000, streamed_bytes=60_000, exchange_bytes=200)
    others = tuple(kept for kept in ROUND.ceilings if (kept.quantity, kept.level) != ("capacity", place))
    roomy = ROUND.model_copy(update={"ceilings": (*others, ceiling("capacity", place, 4000.0, unit="B"))})
    best = best_floors(job, "fp32", roomy, "cold").floors
    for where in ("reread", "kept"):
        own = own_floors(job, "fp32", where, "launch", roomy, "cold").floors
        for wall in ("compute", "dram", "cache", "serial"):
            assert (getattr(best, wall) or 0) <= (getattr(own, wall) or 0)


def test_walls_within_a_tenth_are_contested():
    found = own_floors(work(read=200), "fp32", "reread", "launch", ROUND, "cold")  # dram 2.0, serial 2.0
    assert {found.bound, found.contested_with} == {"dram", "serial"}


@pytest.mark.parametrize(("hidden", "batch"), [(256, 415), (512, 275), (1024, 236), (2048, 220), (4096, 213)])
def test_the_lstm_crosses_the_ridge_of_an_h200_where_the_formula_says(hidden, batch):
    """B* = r (H + 1/2) / (H - 5 r / 8) in bf16 with I = H."""
    machine = catalogue.machine("h200-sxm")
    assert ridge(machine, "bf16") == pytest.approx(206, abs=0.5)
    sizes = [1.1**power for power in range(80)]
    works = [
        (round(b), lstm_step.work(lstm_step.Shape(B=round(b), I=hidden, H=hidden), "bf16", "forward")) for b in sizes
    ]
    assert crossing(works, "bf16", machine) == pytest.approx(batch, rel=0.01)


def test_a_small_lstm_never_crosses_the_ridge():
    works = [(b, lstm_step.work(lstm_step.Shape(B=b, I=128, H=128), "bf16", "forward")) for b in (1, 64, 4096, 10**6)]
    assert crossing(works, "bf16", catalogue.machine("h200-sxm")) is None


def test_weights_that_private_caches_hold_are_read_from_them_at_every_step():
    """A design that reads its weights at every step finds them where they lie: 10 000 B come from further away."""
    private = ceiling("capacity", "private", 4000.0, unit="B", pattern="reported")
    others = tuple(kept for kept in ROUND.ceilings if (kept.quantity, kept.level) != ("capacity", "private"))
    machine = ROUND.model_copy(update={"ceilings": (*others, private)})
    layer = work(depth=100, weights=3000, streamed_bytes=300_000)
    assert own_floors(layer, "fp32", "reread", "launch", machine, "cold").floors.cache == 10.0
    assert own_floors(layer, "fp32", "reread", "launch", ROUND, "cold").floors.cache == pytest.approx(300 - 99 * 0.1)


@pytest.mark.parametrize(("hidden", "level"), [(4, "pointwise"), (8, "inside"), (64, "inside")])
def test_a_step_smaller_than_the_one_timed_is_bound_by_registers_only(hidden, level):
    """What one library takes for a step of 8 units is no limit of the hardware for a step of 4."""
    lstm = _catalog.load("lstm")
    job = lstm.module.work(lstm.shape(B=1, T=100, I=hidden, H=hidden), "fp32", "forward")
    assert f"({level}" in best_floors(job, "fp32", QUICK, "warm").notes["serial"]


def test_a_stack_saves_what_a_level_holds_at_every_pass_over_its_weights():
    """Four layers as a wavefront have hardly more steps than one, but go through four times the weights."""
    layer = {"recurrent_bytes": 1000, "weight_bytes": 2000}
    one = Work(terms=terms("streamed_bytes", ("weights", 100 * 1000, "every step")), depth=100, **layer)
    stack = Work(terms=terms("streamed_bytes", ("weights", 400 * 1000, "every step")), depth=103, **layer)
    held = Ceiling(quantity="capacity", level="chip", value=900, unit="B", provenance="assumed", how="made up")
    others = tuple(known for known in ROUND.ceilings if known.quantity != "capacity")
    machine = ROUND.model_copy(update={"ceilings": (*others, held)})
    single, several = (best_floors(given, "fp32", machine, "cold").floors.cache for given in (one, stack))
    assert single and several and several <= 4.1 * single


def test_bytes_of_a_design_are_at_least_the_compulsory_ones():
    read = terms("read_bytes", ("x", 10**9, "read"))
    whole = Work(terms=read, depth=2)
    fewer = Work(terms=read + terms("streamed_bytes", ("less", 10**6, "too few")), depth=2)
    times = [own_floors(given, "fp32", "reread", "launch", ROUND, "cold").floors.dram for given in (whole, fewer)]
    assert times[0] == times[1]
