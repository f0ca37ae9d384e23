"""Energy of a call from meters that a test drives: idle power, short windows, overflow, and no meter at all."""

import time
from types import SimpleNamespace

import pytest
from driven_meter import Bench
from fake_nvml import MIG_UUID, UUID, FakeNvml, NVMLError_NotSupported
from round_machine import point, timing, work
from user_kernels import kernel_file

from seqroof.kernels import _catalog
from seqroof.profiler import energy
from seqroof.profiler.calls import Group
from seqroof.profiler.cases import run_group
from seqroof.profiler.devices import CpuDevice
from seqroof.profiler.energy import (
    BUDGET_SHARE,
    LEAST_STEPS,
    Accountant,
    GpuMeter,
    RaplMeter,
    energies,
)
from seqroof.profiler.nvml import Gpu
from seqroof.profiler.points import with_energy
from seqroof.profiler.sensors import GpuSensors
from seqroof.roofline.telemetry import Energy


def accountant(**changes):
    bench = Bench(**changes)
    return Accountant(bench.meter, bench.clock, bench.sleep), bench


def test_idle_power_and_step():
    at_rest, bench = accountant(idle_w=80.0, step_s=0.05)
    bench.sleep(0.03)  # so the next movement is near
    assert at_rest.step_s() == pytest.approx(0.05, abs=1e-3)
    assert at_rest.idle_w() == pytest.approx(80.0, rel=0.06)


def test_a_call_is_charged_its_power_above_idle():
    busy, bench = accountant(idle_w=80.0, busy_w=480.0, step_s=0.05)
    found = busy.measure([bench.call(0.010)], 0.010, 80.0, 3.0, lambda: None)
    assert found.per_call_j == pytest.approx(0.010 * 400.0, rel=found.error + 1e-6)
    assert found.gross_per_call_j == pytest.approx(0.010 * 480.0, rel=0.11)
    assert found.window_s >= LEAST_STEPS * 0.05 * 0.99 and found.idle_w == 80.0 and found.power_w > 400.0
    assert 0 < found.error < 0.2 and "idle power subtracted" in found.how and found.reason == ""


def test_without_idle_power_there_is_only_the_gross_figure():
    busy, bench = accountant()
    found = busy.measure([bench.call(0.010)], 0.010, None, 3.0, lambda: None)
    assert found.per_call_j is None and found.gross_per_call_j > 0 and "no idle power" in found.reason


def test_a_window_shorter_than_ten_steps_is_refused():
    slow, bench = accountant(step_s=0.1)
    found = slow.measure([bench.call(0.010)], 0.010, 80.0, 0.9, lambda: None)
    assert found.per_call_j is None and "a window of 1 s is needed, and this row's share is 0.9 s" in found.reason
    assert slow.measure([bench.call(0.010)], 0.010, 80.0, 1.1, lambda: None).per_call_j is not None
    calls = bench.calls
    assert slow.measure([bench.call(5.0)], 5.0, 80.0, 3.0, lambda: None).reason and bench.calls == calls, "not begun"


def test_a_meter_that_stands_still_is_none():
    stuck, bench = accountant(step_s=1e9)
    assert stuck.step_s() is None and "does not move" in bench.meter.reason
    assert stuck.idle_w() is None
    assert "does not move" in stuck.measure([bench.call(0.01)], 0.01, None, 3.0, lambda: None).reason


def test_a_gpu_without_an_energy_counter_has_its_power_summed():
    now = [0.0]
    watts = iter([200_000, 200_000, 400_000])  # the first to see whether power is told
    nvml = FakeNvml(
        nvmlDeviceGetTotalEnergyConsumption=NVMLError_NotSupported("no"),
        nvmlDeviceGetPowerUsage=lambda handle: next(watts),
    )
    meter = GpuMeter(Gpu(UUID, module=nvml), clock=lambda: now[0])
    assert not meter.counts and "integrated" in meter.how and meter.read_j() == 0.0
    now[0] = 2.0
    assert meter.read_j() == pytest.approx(600.0)  # the mean of 200 W and 400 W for 2 s


def test_a_gpu_that_tells_neither_energy_nor_power():
    refused = NVMLError_NotSupported("no")
    nvml = FakeNvml(nvmlDeviceGetTotalEnergyConsumption=refused, nvmlDeviceGetPowerUsage=refused)
    meter = GpuMeter(Gpu(UUID, module=nvml))
    assert meter.read_j() is None and meter.reason == "this device does not report it"
    assert GpuMeter(Gpu(UUID, module=FakeNvml())).read_j() == 5000.0


def zone(root, name, energy_uj, kind, most_uj=1_000_000):
    folder = root / "class/powercap" / name
    folder.mkdir(parents=True, exist_ok=True)
    for file, text in (("name", kind), ("max_energy_range_uj", str(most_uj)), ("energy_uj", str(energy_uj))):
        (folder / file).write_text(f"{text}\n")


def test_rapl_counts_packages_and_memory_and_unrolls_overflow(tmp_path):
    zone(tmp_path, "intel-rapl:0", 900_000, "package-0")
    zone(tmp_path, "intel-rapl:1", 100, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 500_000, "core")
    zone(tmp_path, "intel-rapl:0:1", 200, "dram")
    zone(tmp_path, "intel-rapl:2", 700_000, "psys")
    meter = RaplMeter(tmp_path)
    first = meter.read_j()
    zone(tmp_path, "intel-rapl:0", 99_999, "package-0")  # 100 000 to the end, one to the start, 99 999 further
    zone(tmp_path, "intel-rapl:1", 1_100, "package-1")
    zone(tmp_path, "intel-rapl:0:0", 999_999, "core")
    zone(tmp_path, "intel-rapl:0:1", 700, "dram")
    assert meter.read_j() - first == pytest.approx((200_000 + 1_000 + 500) * 1e-6)


def test_rapl_that_is_absent_or_for_root_only(tmp_path):
    assert "not offered" in RaplMeter(tmp_path).reason and RaplMeter(tmp_path).read_j() is None
    zone(tmp_path, "intel-rapl:0", 5, "package-0")
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").unlink()
    (tmp_path / "class/powercap/intel-rapl:0/energy_uj").mkdir()  # unreadable for root too
    assert "root only" in RaplMeter(tmp_path).reason


def emitted(meter, budget_s, call=lambda: None, names=("torch",), kind="cpu", headline="cold"):
    told = []
    subjects = [
        SimpleNamespace(name=name, cache=cache, clock="host", calls=[call], estimate_s=1e-3)
        for name in names
        for cache in ("cold", "warm")
    ]
    options = {"headline": [headline, "host"], "idle_w": 50.0, "budget_s": budget_s}
    device = SimpleNamespace(meter=meter, finish=lambda: None, kind=kind)
    energies(device, subjects, options, lambda event, **data: told.append({"event": event, **data}))
    return told


def test_only_headlines_are_measured_and_a_failure_costs_only_its_energy():
    meter = SimpleNamespace(read_j=lambda: None, reason="", how="x", step_s=0.001)

    def broken():
        raise RuntimeError("boom")

    begin, told = emitted(meter, 3.0, broken)
    assert (begin["event"], begin["stage"], told["event"], told["cache"]) == ("begin", "energy", "energy", "cold")
    assert told["energy"]["reason"] == "the window failed: RuntimeError"
    short = emitted(SimpleNamespace(read_j=lambda: 0.0, reason="", how="x", step_s=1.0), 2.0)[1]
    assert "10 s is needed" in short["energy"]["reason"] and BUDGET_SHARE * 2.0 < 10


@pytest.fixture
def bench(monkeypatch):
    """A meter of 5 ms steps, whose windows last a tenth of a second of a clock that the calls move."""
    made = Bench(idle_w=50.0, busy_w=150.0, step_s=0.005)
    monkeypatch.setattr(energy.time, "monotonic", made.clock)
    monkeypatch.setattr(energy, "Accountant", lambda meter: Accountant(meter, made.clock, made.sleep))
    return made


def test_every_headline_row_has_its_share_of_the_energys_time(bench):
    """What four windows cost is spent on four rows, not all of it on the first; what one leaves the next may use."""
    names = ("a", "b", "c", "d")
    enough = [data["energy"] for data in emitted(bench.meter, 1.0, bench.call(1e-3), names)[1::2]]
    assert [entry["per_call_j"] is not None for entry in enough] == [True] * 4
    assert all(entry["window_s"] < 0.15 for entry in enough)
    began = bench.clock()
    scarce = [data["energy"] for data in emitted(bench.meter, 0.5, bench.call(1e-3), names)[1::2]]
    assert "this row's share is 0.062 s" in scarce[0]["reason"] and scarce[-1]["per_call_j"] is not None
    assert bench.clock() - began < 0.5


@pytest.mark.parametrize(
    ("kind", "headline", "words"),
    [
        ("cpu", "warm", "warm calls back to back"),
        ("cpu", "cold", "cold calls back to back, on copies in rotation"),
        ("cuda", "cold", "not flushed between them"),
        ("cuda", "warm", "warm calls back to back"),
    ],
)
def test_how_the_calls_found_the_caches_is_said(bench, kind, headline, words):
    found = emitted(bench.meter, 1.0, bench.call(1e-3), kind=kind, headline=headline)[1]
    assert words in found["energy"]["how"]


@pytest.mark.parametrize("busy_w", [70.0, 80.0, 82.0])
def test_energy_that_does_not_rise_above_idle_is_not_called_nothing(busy_w):
    """A window that drew less than at rest, or hardly more, says nothing about a call: 0 J would be a figure."""
    calm, bench = accountant(idle_w=80.0, busy_w=busy_w, step_s=0.05)
    found = calm.measure([bench.call(0.010)], 0.010, 80.0, 3.0, lambda: None)
    assert found.per_call_j is None and found.error is None and "within the meter's doubt" in found.reason
    assert found.gross_per_call_j == pytest.approx(0.010 * busy_w, rel=0.11)


def test_a_slice_of_a_gpu_has_no_energy_of_its_own():
    sliced = Gpu(MIG_UUID, module=FakeNvml(uuid=MIG_UUID))
    assert "slice" in GpuMeter(sliced).reason and GpuMeter(sliced).read_j() is None
    assert GpuMeter(Gpu(UUID, module=FakeNvml())).reason == ""
    assert (GpuSensors(sliced).power_of, GpuSensors(Gpu(UUID, module=FakeNvml())).power_of) == ("the whole GPU", "")


def test_without_a_meter_nothing_is_spent():
    assert emitted(SimpleNamespace(reason="no RAPL"), 3.0) == []


def test_energy_per_token():

    told = point(timing(1.0), work=work().model_copy(update={"tokens": 64}))
    found = with_energy(told, Energy(per_call_j=6.4, idle_w=50.0))
    assert found.energy_j == 6.4 and found.energy.per_token_j == pytest.approx(0.1)
    assert with_energy(told, Energy(reason="no meter")).energy_j is None


def test_a_group_tells_telemetry_and_energy_of_every_headline(tmp_path):
    """The whole way in one process: looks between samples, a window after the timing, events for the parent."""
    device = CpuDevice()
    device.meter = SimpleNamespace(  # type: ignore[assignment]  # 100 W by the clock on the wall, whatever happens
        read_j=lambda: 100.0 * time.monotonic(), reason="", how="by the clock", step_s=1e-3
    )
    kernel = _catalog.load(str(kernel_file(tmp_path)))
    group = Group(device, kernel, kernel.shape(B=2, N=8), "fp32", "forward", 0)
    told = []
    options = {"time": True, "budget_s": 0.6, "rounds": 6, "clocks": [("warm", "host")]}
    options |= {"headline": ["warm", "host"], "idle_w": 60.0}
    run_group(group, ["torch"], 1.0, options, lambda event, **data: told.append((event, data)))
    points = [data for event, data in told if event == "point"]
    (spent,) = [data for event, data in told if event == "energy"]
    assert [data["telemetry"]["samples"] >= 1 for data in points] == [True]
    found = Energy.model_validate(spent["energy"])
    assert (spent["implementation"], spent["cache"]) == ("torch", "warm")
    assert found.per_call_j == pytest.approx(0.4 * found.gross_per_call_j, rel=1e-2)
    assert found.calls * found.gross_per_call_j == pytest.approx(100.0 * found.window_s, rel=1e-2)
