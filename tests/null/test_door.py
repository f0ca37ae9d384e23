"""`measure()` from Python: functions, modules, wrong results, and how a point shows itself."""

import pytest
import torch
from rich.console import Console
from round_machine import ROUND, ceiling

from seqroof.profiler import measure
from seqroof.profiler.door import sizes_of
from seqroof.profiler.host import usable_cores
from seqroof.roofline.work import Work, terms

SIZE = 64 * 64 * 4
WORK = Work(
    terms=terms("read_bytes", ("x", SIZE, "once"))
    + terms("write_bytes", ("y", SIZE, "once"))
    + terms("pointwise_flops", ("sum", 64 * 64, "one each"))
)
DISTANT = ROUND.model_copy(
    update={"ceilings": (ceiling("bandwidth", "dram", 1e15), ceiling("latency", "inside", 1e-9, unit="s"))}
)


@pytest.mark.parametrize("cache", ["cold", "warm"])
def test_a_function_gets_a_verdict(cache):
    x = torch.randn(64, 64)
    point = measure(torch.add, [x, 1.0], WORK, reference=torch.add, machine=DISTANT, cache=cache, budget_s=0.05)
    assert point.status == "ok" and point.correctness.passed and point.dtype == "fp32" and point.cache == cache
    assert point.time_s.median > 0 and point.best_bound is not None and "measured" in point.gap


def test_a_module_and_named_inputs():
    layer = torch.nn.Linear(64, 64).bfloat16()
    point = measure(
        layer, {"input": torch.randn(64, 64).bfloat16()}, WORK, machine=DISTANT, budget_s=0.05, name="linear"
    )
    assert point.kernel == "linear" and point.dtype == "bf16"


def test_the_callers_number_of_threads_stays_and_is_recorded():
    from seqroof.profiler import compare
    from seqroof.profiler.devices import open_device
    from seqroof.profiler.versus import here

    before, x = torch.get_num_threads(), torch.randn(64, 64)
    try:
        for count in (1, 3):
            torch.set_num_threads(count)
            point = measure(torch.add, [x, 1.0], WORK, machine=DISTANT, budget_s=0.02)
            compare(torch.abs, torch.neg, [x], rounds=2, budget_s=0.01)
            assert torch.get_num_threads() == count == point.compiler["threads"] == here([x])[1].threads
        open_device("cpu")  # a worker of ours takes all cores
        assert torch.get_num_threads() == usable_cores()
    finally:
        torch.set_num_threads(before)


def test_roofs_belong_to_a_number_of_threads(monkeypatch):
    from seqroof.profiler import door

    before, asked = torch.get_num_threads(), []
    monkeypatch.setattr(door.ceilings, "measure", lambda device, effort: asked.append(torch.get_num_threads()) or [])
    door._with_threads.cache_clear()
    try:
        for count in (1, 3, 1):
            torch.set_num_threads(count)
            door.this_machine("cpu")
        assert asked == [1, 3]
    finally:
        torch.set_num_threads(before)
        door._with_threads.cache_clear()


def test_sizes_of_inputs_tell_points_apart():
    named = sizes_of({"x": torch.zeros(2, 3), "n": 4, "y": torch.zeros(5)})
    assert named == {"x.0": 2, "x.1": 3, "y.0": 5} and sizes_of([torch.zeros(7), 1.0]) == {"in0.0": 7}


def test_a_wrong_result_is_not_timed():
    with pytest.raises(ValueError, match="not timed"):
        measure(lambda x: x + 1.1, [torch.randn(64, 64)], WORK, reference=lambda x: x + 1, machine=DISTANT)


def test_inputs_without_a_tensor_are_refused():
    with pytest.raises(ValueError, match="floating-point tensor"):
        measure(abs, [1], WORK, machine=DISTANT)


def test_a_point_shows_itself():
    point = measure(torch.exp, [torch.randn(64, 64)], WORK, machine=DISTANT, budget_s=0.05)
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(point)
    text = console.export_text()
    assert "exp" in text and "measured" in text and "best possible" in text
    assert "<table" in point._repr_html_() and "best possible" in point._repr_html_()


def test_names_in_html_are_inert():
    point = measure(torch.exp, [torch.randn(64, 64)], WORK, machine=DISTANT, budget_s=0.05, name="<script>x</script>")
    assert "<script>" not in point._repr_html_()
