"""Doubts from around a kernel: each detector where it must fire and where it must not, and where each is seen."""

import io
import json
from types import SimpleNamespace

import pytest
import samples
from fake_nvml import UUID, FakeNvml, NVMLError_NoPermission
from rich.console import Console
from round_machine import ROUND, point, timing, work

from seqroof.profiler import obstacles
from seqroof.profiler.nvml import Gpu
from seqroof.roofline import export, table
from seqroof.roofline.circumstances import between_arms, doubts_about_run
from seqroof.roofline.record import Environment, Evidence
from seqroof.roofline.store import dumps, from_data
from seqroof.roofline.telemetry import Counted, Energy, Spread, Telemetry
from seqroof.roofline.throttling import REASONS
from seqroof.roofline.verdict import judge


def hertz(median, low=None, high=None):
    return Spread(median=median, low=low or median, high=high or median)


def ids(point):
    return [warning.id for warning in point.warnings]


def seen(**telemetry):
    return judge(point(timing(200.0), telemetry=Telemetry(samples=6, **telemetry)), ROUND)


@pytest.mark.parametrize("reason", [r for r in REASONS.values() if r.kind == "slowdown"], ids=lambda r: r.name)
def test_throttled_by_name(reason):
    (warning,) = seen(throttle={reason.name: 0.5}).warnings
    assert warning.id == "throttled" and reason.name in warning.cause and warning.advice == reason.fix
    assert ids(seen(throttle={reason.name: 0.05})) == [], "one look in twenty"


def test_an_unknown_bit_is_told_as_it_is():
    (warning,) = seen(throttle={"unknown bit 0x800": 1.0}).warnings
    assert warning.id == "throttled" and "0x800" in warning.cause


def test_a_power_cap_is_news_only_below_the_highest_clock():
    def capped(clock):
        return seen(throttle={"software power cap": 1.0}, clock_hz=hertz(clock), reference_clock_hz=2e9)

    assert ids(capped(1.8e9)) == ["throttled"] and "10.0 % below the highest" in capped(1.8e9).warnings[0].cause
    assert ids(capped(1.95e9)) == []
    assert ids(seen(throttle={"software power cap": 1.0})) == ["throttled"], "nothing says that the clock held"


def test_idle_and_settings_are_no_events_of_a_point():
    assert ids(seen(throttle={"idle": 1.0, "application clocks": 1.0, "display clocks": 1.0})) == []


def test_clocks_changed_between_rounds():
    assert ids(seen(clock_hz=hertz(1.8e9, 1.7e9, 1.85e9))) == ["clocks-changed"]
    assert ids(seen(clock_hz=hertz(1.8e9, 1.76e9, 1.84e9))) == []


def test_clocks_changed_between_arms():
    def arm(name, clock, **changes):
        return point(timing(200.0), implementation=name, telemetry=Telemetry(clock_hz=hertz(clock)), **changes)

    slow, fast = between_arms([arm("a", 1.6e9), arm("b", 1.8e9)])
    assert ids(slow) == ["clocks-changed"] and ids(fast) == []
    assert between_arms([slow, fast])[0] == slow, "told once"
    assert not any(ids(p) for p in between_arms([arm("a", 1.75e9), arm("b", 1.8e9)]))
    assert not any(ids(p) for p in between_arms([arm("a", 1.6e9), arm("b", 1.8e9, dtype="bf16")])), "another case"


def counted_point(read, write=0.0, **changes):
    how = {"provenance": changes.pop("provenance", "measured"), "launches": changes.pop("counted_launches", None)}
    counts = Counted(dram_read_bytes=read, dram_write_bytes=write, **how)
    return judge(point(timing(200.0), counted=counts, **({"launches": 1} | changes)), ROUND)


def test_declared_bytes_differ():
    assert ids(counted_point(8_900.0)) == ["declared-bytes-differ"], "10 000 are declared, and nothing was cached"
    assert ids(counted_point(9_100.0)) == ids(counted_point(12_400.0)) == []
    assert ids(counted_point(12_600.0)) == ["declared-bytes-differ"]
    assert ids(counted_point(30_000.0, launches=3)) == [], "results between launches go through memory"
    assert ids(counted_point(30_000.0, launches=None)) == [], "how many launches is not known"
    assert ids(counted_point(30_000.0, counted_launches=1)) == ["declared-bytes-differ"]
    assert ids(counted_point(30_000.0, counted_launches=3)) == [], "more were counted than declared"
    assert ids(counted_point(100.0, cache="warm")) == [], "found in a cache"
    assert ids(counted_point(100.0, provenance="derived")) == [], "misses are a lower bound"
    streams = work(depth=4, weights=5000, streamed_bytes=30_000)
    assert ids(counted_point(31_000.0, work=streams)) == [], "its weights are read at every step"
    assert ids(counted_point(31_000.0, work=streams, weights="kept")) == ["declared-bytes-differ"]


def doubts(environment=None, evidence=(), points=()):
    found = doubts_about_run(environment or Environment(python="3.12"), points, evidence)
    return {warning.id: warning.cause for warning in found}


def test_power_limit_below_default():
    low = Environment(python="3", power_limit_w=500.0, power_default_w=700.0)
    assert "500 W" in doubts(low)["power-limit-below-default"]
    assert doubts(low.model_copy(update={"power_limit_w": 700.0})) == {}
    assert doubts(low.model_copy(update={"power_default_w": None})) == {}


def test_mig():
    sliced = Environment(python="3", mig="NVIDIA H200 MIG 1g.18gb")
    assert "1g.18gb" in doubts(sliced)["mig"] and "mig" in doubts(sliced.model_copy(update={"mig": "on"}))
    assert doubts(sliced.model_copy(update={"mig": "off"})) == doubts(sliced.model_copy(update={"mig": ""})) == {}


def around(when, **values):
    return Evidence(id=f"surroundings-{when}", values=values, how="")


def test_other_tenants_before_during_and_after():
    cause = doubts(evidence=[around("before", other_processes=0), around("during", other_processes=2)])["other-tenant"]
    assert "2 other processes on the device during the run" in cause and "before" not in cause
    assert "after" in doubts(evidence=[around("after", other_share=0.3)])["other-tenant"]
    assert "stolen" in doubts(evidence=[around("during", steal_share=0.3)])["other-tenant"]
    assert doubts(evidence=[around("during", other_processes=0, other_share=0.05, steal_share=0.0)]) == {}
    assert doubts(evidence=[around("before", other_share=None, other_processes=None)]) == {}
    hidden = {"busy_share": 0.8, "host_load": 1.0, "host_other_share": 0.0}
    assert "busy for 80 %" in doubts(evidence=[around("before", **hidden)])["other-tenant"]
    assert doubts(evidence=[around("after", **hidden), around("before", busy_share=0.8, host_load=1.0)]) == {}


def test_clocks_held_by_a_setting_are_told_with_the_run():
    held = point(timing(200.0), telemetry=Telemetry(throttle={"application clocks": 1.0}))
    assert "application clocks" in doubts(points=[held])["throttled"]
    assert doubts(points=[point(timing(200.0), telemetry=Telemetry(throttle={"idle": 1.0}))]) == {}


def test_counters_denied():
    denied = Evidence(id="counters", values={"state": "denied", "cause": "not permitted", "fix": "ask"}, how="")
    assert "not permitted" in doubts(evidence=[denied])["counters-denied"]
    assert doubts(evidence=[Evidence(id="counters", values={"state": "ok"}, how="")]) == doubts() == {}


def test_counters_that_miscount_a_known_copy():
    def copied(read, provenance="measured"):
        values = {"state": "ok", "probe_bytes": 1000, "probe_read_bytes": read, "provenance": provenance}
        return doubts(evidence=[Evidence(id="counters", values=values, how="")])

    assert "kernel of known traffic" in copied(970.0)["declared-bytes-differ"] and copied(1030.0)
    assert copied(985.0) == copied(1015.0) == copied(500.0, "derived") == {}


def test_clock_normalised_time_where_the_wall_has_that_clock():
    slow = {"telemetry": Telemetry(clock_hz=hertz(1.5e9), reference_clock_hz=2e9)}
    compute = judge(point(timing(200.0), work=work(read=10, matmul_flops=10**6), **slow), ROUND)
    assert compute.bound == "compute" and compute.normalised_time_s == pytest.approx(150.0)
    assert judge(point(timing(200.0), **slow), ROUND).normalised_time_s is None, "DRAM has another clock"
    unknown = {"telemetry": Telemetry(clock_hz=hertz(1.5e9))}
    assert (
        judge(point(timing(200.0), work=work(read=10, matmul_flops=10**6), **unknown), ROUND).normalised_time_s is None
    )


def whole_run(normalised=None):
    run = samples.run("gpu")
    known = Telemetry(
        samples=9,
        clock_hz=hertz(1.98e9),
        reference_clock_hz=1.98e9,
        power_w=Spread(median=612.4, low=600.0, high=640.0),
        reasons={"temperature_c": "not permitted to this user"},
    )
    update = {
        "telemetry": known,
        "normalised_time_s": normalised,
        "energy_j": 0.012,
        "energy": Energy(per_call_j=0.012, per_token_j=0.0015, idle_w=80.0, error=0.05, how="by hand"),
        "counted": Counted(
            dram_read_bytes=2e6, dram_write_bytes=1e5, amplification=1.07, tensor_share=0.4, provenance="measured"
        ),
    }
    first, *others = run.points
    idle = {"throttle: idle": 1.0}
    return run.model_copy(
        update={
            "points": (first.model_copy(update=update), *others),
            "evidence": (around("during", clock_hz=1.98e9, power_w=612.4, other_share=0.01, **idle),),
            "warnings": doubts_about_run(Environment(python="3", mig="on"), (), ()),
        }
    )


@pytest.mark.parametrize(("width", "normalised"), [(80, 1.1e-3), (120, None)])
def test_the_table_shows_telemetry_energy_counts_and_doubts_about_the_run(width, normalised):
    console = Console(width=width, file=io.StringIO(), highlight=False)
    table.render(whole_run(normalised), console)
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    text = " ".join(printed.split())
    assert "Seen beside the clock (measured, medians): clock 1.98 GHz; 612 W; other programs 1.0 %" in text
    assert "bytes of 1 points counted" in text and "held down" not in text
    assert "energy 12.0 mJ ±5.0 % per call, 1.50 mJ per token (measured, idle subtracted)" in text
    assert "DRAM moved 2.10 MB, 1.07 x the compulsory bytes (measured)" in text
    assert ("1.10 ms at the highest clock (derived)" in text) == (normalised == 1.1e-3)
    assert "(run) mig: this is a slice of a GPU (the whole run)" in text
    assert max(map(len, printed.splitlines())) <= width


def test_exports_show_it_too():
    run = whole_run()
    markdown, csv = export.markdown(run), export.csv(run)
    assert (
        "## Clocks, energy and counted bytes" in markdown and "| mig |" in markdown and "612 W (600 to 640)" in markdown
    )
    titles, *lines = (line.split(",") for line in csv.splitlines())
    assert {"clock_hz", "normalised_time_s", "counted_dram_read_bytes", "amplification", "throttle"} <= set(titles)
    assert any("2000000.0" in line and "1980000000.0" in line for line in lines)
    assert from_data(json.loads(dumps(run)), "memory") == run
    assert "Seen beside" not in export.markdown(samples.run("cpu")), "an earlier run recorded none of it"


def doctor(**answers):
    return {finding.what: finding for finding in obstacles.of_gpu(Gpu(UUID, module=FakeNvml(**answers)))}


def test_doctor_on_a_quiet_gpu_and_on_a_troubled_one():
    idle = SimpleNamespace(gpu=0)
    quiet = doctor(nvmlDeviceGetUtilizationRates=idle, nvmlDeviceGetCurrentClocksEventReasons=0x1)
    assert {finding.state for finding in quiet.values()} == {"ok"} and "1980 MHz" in quiet["GPU clocks"].detail
    troubled = doctor(
        nvmlDeviceGetEnforcedPowerLimit=500_000,
        nvmlDeviceGetMigMode=[1, 1],
        nvmlDeviceGetCurrentClocksEventReasons=0x40,
    )
    assert {finding.state for finding in troubled.values()} == {"limited"} and all(f.fix for f in troubled.values())
    assert "hardware thermal slowdown" in troubled["GPU clocks"].detail and "97%" in troubled["GPU tenants"].detail
    assert "500 W" in troubled["GPU power"].detail and "GPU slice" in troubled


def test_doctor_where_nvml_is_silent():
    (finding,) = obstacles.of_gpu(Gpu("GPU-other", module=FakeNvml()))
    assert finding.state == "limited" and "no such device" in finding.detail
    refused = doctor(
        nvmlDeviceGetCurrentClocksEventReasons=NVMLError_NoPermission("no"),
        nvmlDeviceGetUtilizationRates=NVMLError_NoPermission("no"),
    )
    assert "not permitted" in refused["GPU clocks"].detail and "not permitted" in refused["GPU tenants"].detail
