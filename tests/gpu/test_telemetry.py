"""NVML, energy and counters on a real GPU: readings that can be true, and counts of copies whose bytes are known."""

import time

import pytest
import torch

from seqroof.profiler import counters
from seqroof.profiler.devices import open_device
from seqroof.profiler.energy import Accountant
from seqroof.profiler.watch import Watch

# Sides of a matrix product that keeps any GPU busy for a millisecond or more.
SIDE = 4096


@pytest.fixture(scope="module")
def device():
    return open_device("cuda:0")


@pytest.fixture(scope="module")
def product():
    a, b = (torch.randn(SIDE, SIDE, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    return lambda: a @ b


def test_nvml_knows_this_gpu_by_its_uuid_or_pci_id(device):
    if not device.gpu.found:
        pytest.skip(f"NVML does not answer here: {device.gpu.reasons['device']}")
    assert device.gpu.driver


def test_a_busy_gpu_is_seen_busy(device, product):
    if not device.gpu.found:
        pytest.skip(f"NVML does not answer here: {device.gpu.reasons['device']}")
    watch = Watch(device.sensors)
    for _ in range(6):
        end = time.monotonic() + 0.2
        while time.monotonic() < end:
            for _ in range(20):
                product()
            device.finish()
        watch.look(0)
    seen = watch.telemetry(0)
    assert seen.samples == 6
    for name, least, most in (("clock_hz", 1e8, 5e9), ("power_w", 20, 3000), ("temperature_c", 10, 110)):
        value = getattr(seen, name)
        assert least < value.median < most if value is not None else seen.reasons[name]
    # NVML tells no utilisation of a slice. Anywhere else a GPU that never rests has to be seen at work.
    assert seen.busy_share.median > 0.5 if seen.busy_share is not None else seen.reasons["busy_share"]
    if seen.clock_hz and seen.reference_clock_hz:
        assert seen.clock_hz.high <= 1.01 * seen.reference_clock_hz


def test_a_product_costs_energy_above_idle(device, product):
    accountant = Accountant(device.meter)
    device.finish()
    time.sleep(1.0)
    idle_w = accountant.idle_w()
    if idle_w is None:
        pytest.skip(f"no meter: {device.meter.reason}")
    found = accountant.measure([product], 2e-4, idle_w, 3.0, device.finish)
    assert found.reason == "" and found.per_call_j is not None and 0 < found.per_call_j < found.gross_per_call_j
    assert found.power_w > idle_w and found.error < 0.25
    print(f"idle {idle_w:.0f} W, busy {found.power_w:.0f} W, {found.per_call_j:.3g} J per product, ±{found.error:.0%}")


def test_counters_see_the_bytes_of_a_kernel_of_known_traffic():
    """Within 2 % of what was read; part of what was written may still lie in the L2 cache when the kernel ends."""
    try:
        found = counters.probe(counters.tool_for("cuda"), "cuda:0")
    except counters.NotOffered as denied:  # anything else is a fault of ours
        pytest.skip(f"{denied}; {denied.fix}")
    assert found.dram_read_bytes == pytest.approx(counters.PROBE_BYTES, rel=0.02)
    l2 = torch.cuda.get_device_properties(0).L2_cache_size
    assert found.dram_write_bytes is not None and found.cache_bytes is not None
    assert counters.PROBE_BYTES - l2 <= found.dram_write_bytes <= 1.02 * counters.PROBE_BYTES
    print(f"read {found.dram_read_bytes / counters.PROBE_BYTES:.4f}, written {found.dram_write_bytes:.4g} bytes")
