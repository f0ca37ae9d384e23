"""The catalogue: consistent with clocks and widths, marked, and found by what people type."""

import pytest

from seqroof.roofline.catalogue import by_driver_name, machine, machines
from seqroof.roofline.catalogue_rows import PARTS

# Rates that are not units x multiply-adds x 2 x clock within 2 %, each with its reason.
EXCEPTIONS = {
    ("h100-pcie", "tensor"): "the vendor's rate implies 1619 MHz, what the card's power limit sustains",
    ("h100-nvl", "tensor"): "the vendor's rate implies 1544 MHz, what the card's power limit sustains",
    ("h200-nvl", "tensor"): "the vendor's rate implies 1544 MHz, what the card's power limit sustains",
    ("h20", "simt"): "the rate from public tables implies 2204 MHz, above any clock of the part",
    ("b200-sxm", "tensor"): "the vendor's rate implies 1856 MHz, below the largest clock",
    ("b200-sxm", "simt"): "the vendor's round figure implies 2112 MHz, above the largest clock",
}
TOLERANCE = 0.02


def _deviation(rate, units, multiply_adds, clock_hz):
    return rate / (units * multiply_adds * 2 * clock_hz) - 1


def _consistency():
    for part in PARTS:
        if not part.units or not part.boost_hz:
            continue
        sixteen_bit = max((part.rates[dtype] for dtype in ("fp16", "bf16") if dtype in part.rates), default=None)
        if sixteen_bit and part.tensor_fma:
            clock = part.tensor_hz or part.boost_hz
            yield (part.id, "tensor"), _deviation(sixteen_bit, part.units, part.tensor_fma, clock)
        if part.simt and part.simt_fma:
            yield (part.id, "simt"), _deviation(part.simt, part.units, part.simt_fma, part.boost_hz)


def test_rates_are_units_times_width_times_clock_with_listed_exceptions():
    checked = dict(_consistency())
    off = {key for key, deviation in checked.items() if abs(deviation) > TOLERANCE}
    assert off == set(EXCEPTIONS)
    assert len(checked) >= 75


def test_ids_are_unique_and_drivers_name_one_machine():
    ids = [part.id for part in PARTS]
    assert len(set(ids)) == len(ids) == len(machines())
    drivers = [name for part in PARTS for name in part.drivers]
    assert len(set(drivers)) == len(drivers)


def test_every_machine_has_a_class_a_year_and_a_source_for_every_value():
    for entry in machines().values():
        assert entry.year and 2014 <= entry.year <= 2025
        assert entry.machine_class != "cpu"
        for ceiling in entry.ceilings:
            assert len(ceiling.how) > 5, (entry.id, ceiling)
            assert ceiling.provenance in ("datasheet", "derived", "published", "assumed")


@pytest.mark.parametrize(
    ("id", "ridge"),
    [("h200-sxm", 206), ("h100-sxm", 295), ("a100-sxm-80gb", 153), ("b200-sxm", 281), ("tpu-v5e", 241), ("l4", 403)],
)
def test_ridge_points(id, ridge):
    entry = machine(id)
    rate = entry.best("rate", "tensor", "bf16")
    bandwidth = entry.best("bandwidth", "dram")
    assert rate and bandwidth
    assert round(rate.value / bandwidth.value) == ridge


@pytest.mark.parametrize("id", ["p100-sxm2", "v100-pcie", "v100s-pcie", "t4", "mi8", "mi60"])
def test_older_parts_have_no_bf16(id):
    assert machine(id).best("rate", "tensor", "fp16")
    assert machine(id).best("rate", "tensor", "bf16") is None


def test_datacentre_parts_since_2016_are_those_of_the_rule():
    listed = [part for part in PARTS if part.machine_class == "datacentre" and part.year >= 2016]
    assert {part.vendor for part in listed} == {"NVIDIA", "AMD", "Intel"}
    assert [part.id for part in listed if not {"fp16", "bf16"} & set(part.rates)] == []
    assert {part.year for part in listed} == set(range(2016, 2026))


def test_a_part_whose_16_bit_types_differ_keeps_both_rates():
    rates = [machine("mi100").best("rate", "tensor", dtype) for dtype in ("fp16", "bf16")]
    assert [rate.value for rate in rates if rate] == [184.6e12, 92.3e12]


def test_strict_fp32_has_no_tensor_roof_and_lives_on_the_vector_units():
    for entry in machines().values():
        assert entry.best("rate", "tensor", "fp32") is None
    h200 = machine("h200-sxm")
    simt, tf32 = h200.best("rate", "simt", "fp32"), h200.best("rate", "tensor", "tf32")
    assert simt and tf32 and tf32.value > 7 * simt.value


def test_h200_has_all_that_its_floors_need():
    h200 = machine("h200-sxm")
    for quantity, level in (
        ("bandwidth", "dram"), ("bandwidth", "cache"), ("rate", "special"), ("capacity", "cache"), ("capacity", "chip"),
        ("latency", "launch"), ("latency", "graph"), ("latency", "barrier"),
    ):  # fmt: skip
        assert h200.best(quantity, level), (quantity, level)
    cache, chip, special = (
        h200.best("capacity", "cache"),
        h200.best("capacity", "chip"),
        h200.best("rate", "special"),
    )
    assert cache and cache.value == 50 * 2**20 and "60 MB" in cache.how
    assert chip and chip.value == 132 * (228 + 256) * 1024
    assert special and special.value == 132 * 16 * 1980e6 and special.provenance == "derived"
    assert all(ceiling.provenance == "assumed" for ceiling in h200.ceilings if ceiling.quantity == "latency")


def test_compute_in_memory_is_marked_and_not_a_device_to_run_on():
    rows = [entry for entry in machines().values() if entry.machine_class == "compute-in-memory"]
    assert {row.vendor for row in rows} == {"UPMEM", "Samsung", "SK hynix"}
    assert all(row.device == "" and row.ceilings[0].provenance == "assumed" for row in rows)


def test_unknown_id_lists_near_matches():
    with pytest.raises(KeyError, match="h200-sxm, h200-nvl"):
        machine("h200")
    with pytest.raises(KeyError, match="a100-sxm-80gb"):
        machine("a100-sxm-80")
    with pytest.raises(KeyError, match="machines: k80"):
        machine("")


def test_device_is_found_by_its_drivers_name():
    found = by_driver_name("NVIDIA H200")
    assert found and found.id == "h200-sxm"
    assert by_driver_name("some CPU") is None
