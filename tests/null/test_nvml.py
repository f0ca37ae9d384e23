"""NVML as it answers, refuses, lacks functions and slices: every fact or its reason, and never an exception."""

from types import SimpleNamespace

import fake_nvml
import pytest
from fake_nvml import MIG_UUID, UUID, FakeNvml

from seqroof.profiler.energy import GpuMeter
from seqroof.profiler.nvml import Gpu, pci_id
from seqroof.profiler.sensors import GpuSensors
from seqroof.profiler.watch import Watch, summary
from seqroof.roofline.throttling import REASONS, decode

FACTS = ("clock_hz", "memory_clock_hz", "power_w", "temperature_c", "throttle_bits", "busy_share", "others", "energy_j")


def gpu(**answers):
    return Gpu(UUID, module=FakeNvml(**answers))


def test_a_gpu_that_answers():
    seen = gpu()
    assert seen.found and seen.driver == "580.159.04"
    assert (seen.clock_hz(), seen.memory_clock_hz(), seen.highest_clock_hz) == (1755e6, 3201e6, 1980e6)
    assert (seen.power_w(), seen.power_limit_w, seen.power_default_w) == (412.0, 700.0, 700.0)
    assert (seen.temperature_c(), seen.energy_j(), seen.busy_share()) == (54.0, 5000.0, 0.97)
    assert (seen.mig, seen.ecc, seen.others(), seen.others_share()) == ("off", "on", 0, 0.0)
    assert seen.reasons == {}


@pytest.mark.parametrize("bit", [*REASONS, 0x800, 1 << 40])
def test_every_throttle_bit_has_a_name(bit):
    bits = gpu(nvmlDeviceGetCurrentClocksEventReasons=bit).throttle_bits()
    expected = REASONS[bit].name if bit in REASONS else f"unknown bit {bit:#x}"
    assert bits == bit and decode(bits) == (expected,)


def test_bits_of_the_documentation():
    named = {0x1: "idle", 0x4: "software power cap", 0x40: "hardware thermal slowdown", 0x80: "hardware power brake"}
    assert {bit: decode(bit)[0] for bit in named} == named
    assert decode(0x44) == ("software power cap", "hardware thermal slowdown") and decode(0) == ()


def test_an_older_package_names_throttling_otherwise():
    older = gpu(missing=("nvmlDeviceGetCurrentClocksEventReasons",), nvmlDeviceGetCurrentClocksThrottleReasons=0x8)
    assert older.throttle_bits() == 0x8 and "throttle" not in older.reasons


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (fake_nvml.NVMLError_NoPermission("Insufficient Permissions"), "not permitted"),
        (fake_nvml.NVMLError_NotSupported("Not Supported"), "does not report"),
        (RuntimeError("driver gone mad"), "driver gone mad"),
    ],
)
def test_refusals_become_reasons(error, words):
    refused = gpu(**{name: error for name in fake_nvml.ANSWERS if name.startswith("nvmlDevice")})
    assert all(getattr(refused, fact)() is None for fact in FACTS if "clock" not in fact)
    assert refused.mig == refused.ecc == "" and refused.power_limit_w is None
    for fact in ("power_w", "temperature_c", "throttle", "busy_share", "other_processes", "energy_j", "mig"):
        assert words in refused.reasons[fact]


def test_missing_functions_become_reasons():
    missing = tuple(name for name in fake_nvml.ANSWERS if name != "nvmlInit")
    old = gpu(missing=missing)
    assert old.power_w() is None and old.throttle_bits() is None and old.mig == "" and old.driver == ""
    assert "has no nvmlDeviceGetPowerUsage" in old.reasons["power_w"]
    assert old.clock_hz() == 1755e6, "what is there still answers"


@pytest.mark.parametrize("trouble", ["missing", "error", "nothing", "nonsense"])
@pytest.mark.parametrize("function", [*fake_nvml.ANSWERS, "nvmlDeviceGetClockInfo", "nvmlDeviceGetHandleByUUID"])
def test_no_single_function_can_bring_it_down(function, trouble):
    """One function after another fails in every way; all facts stay readable, and what is unknown has a reason."""
    answer = {"error": fake_nvml.NVMLError("Unknown Error"), "nothing": None, "nonsense": object()}.get(trouble)
    fake = FakeNvml(missing=(function,)) if trouble == "missing" else FakeNvml(**{function: answer})
    seen = Gpu(UUID, module=fake)
    sensors = GpuSensors(seen)
    unknown = {name for name, value in sensors.read().items() if value is None}
    static = (seen.driver, seen.mig, seen.ecc, seen.power_limit_w, seen.power_default_w, GpuMeter(seen).read_j())
    assert unknown <= set(seen.reasons) and len(static) == 6
    summary([sensors.read()], sensors, "test")


def test_without_a_driver_everything_is_unknown_with_one_reason():
    none = gpu(nvmlInit=fake_nvml.NVMLError_LibraryNotFound("NVML Shared Library Not Found"))
    assert not none.found and all(getattr(none, fact)() is None for fact in FACTS)
    assert none.reasons["power_w"] == "the driver's library libnvidia-ml is not here"


def test_a_wrong_uuid_is_no_other_gpu():
    stranger = Gpu("GPU-00000000-0000-0000-0000-000000000000", module=FakeNvml())
    assert not stranger.found and stranger.power_w() is None
    assert stranger.reasons["power_w"] == "NVML knows no such device"


def test_found_by_pci_id_and_by_a_bare_uuid():
    assert Gpu("", "00000000:1B:00.0", FakeNvml()).found
    assert Gpu("nonsense", "00000000:1B:00.0", FakeNvml()).found
    assert Gpu(UUID.removeprefix("GPU-"), module=FakeNvml()).found
    assert not Gpu("", "", FakeNvml()).found
    properties = SimpleNamespace(pci_domain_id=0, pci_bus_id=0x1B, pci_device_id=0)
    assert pci_id(properties) == "00000000:1B:00.0" and pci_id(SimpleNamespace()) == ""


def test_a_slice_asks_the_whole_gpu_for_its_clocks_and_names_itself():
    asked = []
    fake = FakeNvml(uuid=MIG_UUID, nvmlDeviceGetPowerUsage=lambda handle: asked.append(handle) or 300_000)
    sliced = Gpu(MIG_UUID, module=fake)
    assert sliced.power_w() == 300.0 and asked == ["handle of the whole GPU"]
    assert sliced.mig == "NVIDIA H200 MIG 1g.18gb"
    assert gpu(nvmlDeviceGetMigMode=[1, 1]).mig == "on"


def test_other_tenants():
    own, other = fake_nvml.ANSWERS["nvmlDeviceGetComputeRunningProcesses"][0], SimpleNamespace(pid=1)
    assert gpu(nvmlDeviceGetComputeRunningProcesses=[own, other]).others() == 1
    assert gpu(nvmlDeviceGetComputeRunningProcesses=[other]).others() == 0, "this process under its number on the host"
    hidden = gpu(nvmlDeviceGetComputeRunningProcesses=[])
    assert hidden.others() is None and "not even this process" in hidden.reasons["other_processes"]
    samples = [SimpleNamespace(pid=own.pid, smUtil=50, timeStamp=3), SimpleNamespace(pid=1, smUtil=30, timeStamp=4)]
    assert gpu(nvmlDeviceGetProcessUtilization=samples).others_share() == pytest.approx(0.3)
    for none in ([], fake_nvml.NVMLError_NotFound("Not Found")):
        silent = gpu(nvmlDeviceGetProcessUtilization=none)
        assert silent.others_share() is None and "since the last look" in silent.reasons["other_share"]


def test_a_watched_gpu_keeps_names_spreads_and_reasons():
    reasons = iter([0x4, 0x4 | 0x20, 0x0, 0x4])
    fake = FakeNvml(
        nvmlDeviceGetCurrentClocksEventReasons=lambda handle: next(reasons),
        nvmlDeviceGetTemperature=fake_nvml.NVMLError_NoPermission("no"),
    )
    now = [0.0]
    watch = Watch(GpuSensors(Gpu(UUID, module=fake)), clock=lambda: now[0])
    for _ in range(3):
        watch.look(0)
        now[0] += 1.0
    seen = watch.telemetry(0)
    assert seen.samples == 3 and seen.scope == "its own rounds" and seen.reference_clock_hz == 1980e6
    assert seen.throttle == {
        "software power cap": pytest.approx(2 / 3),
        "software thermal slowdown": pytest.approx(1 / 3),
    }
    assert seen.power_w.median == 412.0 and seen.temperature_c is None
    assert seen.reasons["temperature_c"] == "not permitted to this user"
    assert not any(name.startswith("nvmlDeviceSet") for name in fake.called)
