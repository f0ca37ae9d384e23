"""Calls that compute gradients: other values in place reach them, and cold ones rotate through graphs of their own."""

from types import SimpleNamespace

import pytest
import torch

from seqroof.profiler import calls
from seqroof.profiler.calls import Group, call_of, subjects_of
from seqroof.profiler.gradients import Derivative
from seqroof.profiler.recheck import Recheck
from seqroof.roofline import Implementation

CLOCKS = [("cold", "host"), ("warm", "host")]
EACH = 4 * (2 * 64 * 64 + 64 * 64)  # two operands, and the gradient that comes in: all that a product keeps


def run(shape, x, w):
    return (x @ w,)


def inputs(seed):
    source = torch.Generator().manual_seed(seed)
    return {name: torch.randn(64, 64, generator=source) for name in ("x", "w")}


def group(direction, last_cache_bytes=10 * EACH, free_bytes=2**40):
    device = SimpleNamespace(
        kind="cpu",
        torch_device="cpu",
        stopwatch=lambda cache, clock: None,
        finish=lambda: None,
        last_cache_bytes=lambda: last_cache_bytes,
        free_memory_bytes=lambda: free_bytes,
    )
    module = SimpleNamespace(inputs=lambda shape, dtype, device, seed: inputs(seed))
    kernel = SimpleNamespace(module=module, implementations={"row": Implementation(run, grad=True)})
    return Group(device, kernel, None, "fp32", direction, seed=0)


def same(first, second):
    return all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


@pytest.mark.parametrize(("direction", "outputs"), [("backward", 2), ("both", 3)])
def test_values_that_are_written_in_place_reach_the_next_call(direction, outputs):
    call = call_of(run, None, inputs(0), direction)
    assert isinstance(call, Derivative)
    before = call()
    met = inputs(0) if direction == "backward" else inputs(1)  # a graph keeps the inputs that it was built with
    call.operands.fill(inputs(1), 7)
    assert call.operands.changed(met, 7) == []
    after = call()
    assert len(after) == outputs and same(after, call_of(run, None, met, direction, seed=7)())
    call.operands.fill(inputs(0), 0)
    assert same(call(), before) and not same(after, before)


def test_what_a_call_overwrites_is_named():
    call = call_of(run, None, inputs(0), "both")
    assert isinstance(call, Derivative)
    with torch.no_grad():
        call._arguments["w"].add_(1)
        call._gradients[0].mul_(2)
    assert call.operands.changed(inputs(0), 0) == ["w", "gradient 0"]


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_cold_gradients_rotate_through_more_than_twice_the_cache(direction):
    cold, warm = subjects_of(group(direction), ["row"], [inputs(0), inputs(1), inputs(2)], CLOCKS)
    assert cold.rotated_bytes == 21 * EACH and len(cold.calls) == 21 and len(warm.calls) == 3
    leaves = {call._targets[0].data_ptr() for call in cold.calls if isinstance(call, Derivative)}
    assert len(leaves) == 21 and warm.rotated_bytes is None


def test_graphs_stop_where_memory_or_time_ends(monkeypatch):
    sets = [inputs(index) for index in range(3)]
    assert len(subjects_of(group("backward", free_bytes=40 * EACH), ["row"], sets, CLOCKS)[0].calls) == 10
    monkeypatch.setattr(calls, "BUILDING_S", 0.0)
    (cold, _) = subjects_of(group("backward"), ["row"], sets, CLOCKS)
    assert len(cold.calls) == 3 and cold.rotated_bytes == 3 * EACH


@pytest.mark.parametrize(("direction", "calls_told"), [("backward", 3), ("both", 3)])
def test_an_honest_gradient_is_not_doubted_and_every_call_is_told(direction, calls_told):
    from round_machine import timing

    from seqroof.profiler.clock import HostStopwatch, Subject

    told, made = [], group(direction)
    subject = Subject("row", "cold", "host", [call_of(run, None, inputs(0), direction)], HostStopwatch(False))
    recheck = Recheck(made, inputs(0), lambda: told.append(True))
    right = call_of(run, None, inputs(0), direction)()
    found = recheck.look("row", [(subject, timing(1e3))], lambda outputs: "" if same(outputs, right) else "wrong")
    assert found == [] and len(told) == 1 + calls_told
    settled = recheck.settle(
        lambda fresh, seed: (
            lambda outputs: "" if same(outputs, call_of(run, None, fresh, direction, seed)()) else "wrong"
        )
    )
    assert settled == {}


@pytest.mark.parametrize("first", [torch.ones(64, dtype=torch.bool), torch.arange(64), 0.1, None])
def test_incoming_gradients_are_random_whatever_the_first_input_is(first):
    given = {"first": first, **{name: value.bfloat16() for name, value in inputs(0).items()}}
    call = call_of(lambda shape, first, x, w: (x.float() @ w.float(),), None, given, "backward")
    assert isinstance(call, Derivative)
    (gradient,) = call._gradients
    assert gradient.dtype == torch.bfloat16 and gradient.unique().numel() > 500


@pytest.mark.parametrize("direction", ["backward", "both"])
def test_what_has_no_gradient_is_said(direction):
    with pytest.raises(ValueError, match=r"no input is a floating-point tensor.* --direction forward"):
        call_of(run, None, {"x": torch.arange(4), "w": 0.5}, direction)
    with pytest.raises(ValueError, match=r"output 1 is torch\.int64 and has no gradient: ask for --direction forward"):
        call_of(lambda shape, x, w: tuple((x @ w).max(0)), None, inputs(0), direction)
