"""`measure()` from Python: functions, modules, wrong results, and how a point shows itself."""

import pytest
import torch
from rich.console import Console
from round_machine import ROUND, ceiling

from seqroof.profiler import measure
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
