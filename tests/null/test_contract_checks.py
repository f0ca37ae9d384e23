"""What `inputs()` of a kernel file may return, and when it is drawn a second time."""

from types import SimpleNamespace

import pytest
import torch

from seqroof.profiler.calls import Group
from seqroof.profiler.contract_checks import ContractBroken, input_sets


def group(inputs, dtype="bf16", free_bytes=2**40, torch_device="cpu"):
    device = SimpleNamespace(torch_device=torch_device, free_memory_bytes=lambda: free_bytes)
    return Group(device, SimpleNamespace(module=SimpleNamespace(inputs=inputs)), None, dtype, "forward", seed=5)


def mixed(shape, dtype, device, seed):
    """Values of many kinds beside a tensor of the dtype asked for."""
    state = torch.randn(3, generator=torch.Generator().manual_seed(seed))
    state[0] = float("nan")
    return {"lengths": torch.tensor([seed]), "state": state, "x": state.bfloat16(), "scale": object(), "none": None}


def test_honest_inputs_of_any_kinds_are_taken():
    sets = input_sets(group(mixed), 3)
    assert [one["lengths"].item() for one in sets] == [5, 6, 7]
    assert len(input_sets(group(lambda *case: {"tokens": torch.arange(3)}), 1)) == 1, "nothing here has a dtype to hold"


@pytest.mark.parametrize(("free_bytes", "seeds"), [(2**30, [5, 5, 6]), (4 * 1024 - 1, [5, 6])])
def test_the_first_set_is_drawn_twice_where_memory_is_not_short(free_bytes, seeds):
    drawn = []

    def inputs(shape, dtype, device, seed):
        drawn.append(seed)
        return {"x": torch.ones(512, dtype=torch.bfloat16)}

    input_sets(group(inputs, free_bytes=free_bytes), 2)
    assert drawn == seeds


def fickle(change):
    """Inputs that are changed at every call but the first."""
    calls = []

    def inputs(shape, dtype, device, seed):
        calls.append(seed)
        made = {"x": torch.ones(4, dtype=torch.bfloat16), "n": torch.arange(4)}
        return change(made) if len(calls) > 1 else made

    return inputs


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        (lambda *case: [torch.ones(2)], "returned list; a dict"),
        (fickle(lambda made: made | {"x": made["x"] * 2}), "other values of x when"),
        (fickle(lambda made: made | {"x": made["x"][:3]}), "other values of x when"),
        (fickle(lambda made: made | {"x": made["x"].float(), "n": None}), "other values of x, n when"),
        (fickle(lambda made: {"n": made["n"]}), "other values of x when"),
    ],
)
def test_what_is_not_as_asked_is_named(inputs, says):
    with pytest.raises(ContractBroken, match=says):
        input_sets(group(inputs), 1)


def test_inputs_on_another_device_are_refused():
    with pytest.raises(ContractBroken, match=r"torch\.bfloat16 on cpu only; torch.bfloat16 on meta was asked for"):
        input_sets(group(lambda *case: {"x": torch.ones(2, dtype=torch.bfloat16)}, torch_device="meta"), 1)
