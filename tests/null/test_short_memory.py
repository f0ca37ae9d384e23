"""Where little memory is free: no arrays that stay in the last cache pass for DRAM, and it is said."""

import pytest
from roof_fakes import FakeSupervisor, Silent, look
from round_machine import ROUND

from seqroof.profiler import ceilings, gauge, host
from seqroof.profiler.ceiling_store import RoofStore
from seqroof.profiler.roofs import Roofs

SHORT = [ceiling for ceiling in ROUND.ceilings if ceiling.level != "dram"]
# One round of one sample over small arrays, with a load: all paths, little time.
TINY = gauge.Effort(rounds=1, round_s=0.0, most_bytes=2**20, load_s=1e-3)


@pytest.mark.parametrize("free", [0, 8 * 2**20])
def test_arrays_that_would_stay_in_the_last_cache_are_no_dram(monkeypatch, free):
    pytest.importorskip("torch", reason="ceilings of a CPU are measured with torch")
    monkeypatch.setattr(host, "available_memory_bytes", lambda: free)
    monkeypatch.setattr(host, "caches", lambda: {"last": 2**20, "private": 0})
    measured = ceilings.measure("cpu", TINY)
    assert {"cache", "simt", "launch"} <= {ceiling.level for ceiling in measured}
    assert [ceiling for ceiling in measured if ceiling.level == "dram"] == []
    known = [*measured, *(ceiling for ceiling in ROUND.ceilings if ceiling.level == "dram")]
    assert [ceiling for ceiling in ceilings.remeasure("cpu", known) if ceiling.level == "dram"] == []


def test_arrays_just_beyond_the_last_cache_say_by_how_much(monkeypatch):
    cpu = pytest.importorskip("seqroof.profiler.ceilings_cpu_gauges", exc_type=ImportError)
    monkeypatch.setattr(host, "available_memory_bytes", lambda: 16 * 2**20)
    monkeypatch.setattr(host, "caches", lambda: {"last": 2**20, "private": 0})
    sizes = cpu.Sizes.here(gauge.EFFORTS["quick"])
    assert sizes.dram == 2**21 and "only 2.0 times" in sizes.shortfall


def test_a_run_without_a_dram_roof_says_why():
    supervisor = FakeSupervisor([SHORT])
    supervisor.opened = supervisor.opened | {"last_cache_bytes": 32 * 2**20, "memory_bytes": 100 * 2**20}
    roofs = Roofs(supervisor, Silent())
    roofs.measure("quick")
    (found,) = roofs.findings()
    assert "No bandwidth of DRAM" in found.text and "32.0 MiB" in found.text and "100 MiB" in found.text
    supervisor.parts = [ROUND.ceilings]
    roofs.measure("quick")
    assert roofs.findings() == ()


def test_roofs_without_dram_serve_no_later_run(tmp_path):
    store, here = RoofStore(tmp_path), {"device": "abc"}
    store.keep(here, "quick", look(50.0), ROUND.model_copy(update={"ceilings": tuple(SHORT)}))
    assert store.find(here, "quick", look(50.0)).ceilings == []
    store.keep(here, "quick", look(50.0), ROUND)
    assert store.find(here, "quick", look(50.0)).ceilings
