"""Copies of inputs: their layout, what they take in memory and in a cache, and how many are made."""

import pytest
import torch

from seqroof.profiler import copies
from seqroof.profiler.copies import clone, footprint_bytes, held_bytes, rotating_copies
from seqroof.profiler.gradients import Operands, same

# Rows of 24 numbers: two views of 8 with gaps between their rows, an expanded row, and one that starts at an odd place.
WHOLE = torch.arange(4 * 24, dtype=torch.float32).reshape(4, 24)
VIEWS = {
    "q": WHOLE[:, :8],
    "k": WHOLE[:, 8:16].t(),
    "mask": torch.ones(1, 8).expand(4, 8),
    "odd": torch.arange(9)[1::2],
    "n": 3,
    "none": torch.empty(0, 4),
    "scalar": torch.tensor(2.0),
}


def test_copies_have_the_layout_of_what_they_are_made_of():
    copied = clone(VIEWS)
    assert list(copied) == list(VIEWS) and copied["n"] == 3
    for name, value in VIEWS.items():
        if isinstance(value, torch.Tensor):
            own = copied[name]
            assert torch.equal(own, value) and own.dtype == value.dtype
            assert (own.stride(), own.storage_offset()) == (value.stride(), value.storage_offset())
            assert own.numel() == 0 or own.data_ptr() != value.data_ptr()
    copied["q"][0, 0] = -1
    assert WHOLE[0, 0] == 0
    assert copied["k"].untyped_storage().data_ptr() == copied["q"].untyped_storage().data_ptr() != WHOLE.data_ptr()


def test_copies_of_parameters_and_of_conjugates_hold_their_values():
    parameter = torch.nn.Parameter(torch.ones(3))
    given = {"weight": parameter, "z": torch.tensor([1 + 2j]).conj()}
    copied = clone(given)
    assert torch.equal(copied["weight"], parameter) and not copied["weight"].requires_grad
    assert copied["z"].tolist() == [1 - 2j]


def test_what_is_shared_repeated_or_a_gap_is_read_once_or_not_at_all():
    assert footprint_bytes(VIEWS) == 4 * (2 * 4 * 8 + 8) + 8 * 4 + 4
    assert footprint_bytes({"x": WHOLE, "again": WHOLE, "transposed": WHOLE.t()}) == WHOLE.nbytes
    assert footprint_bytes({"windows": torch.arange(100.0).unfold(0, 10, 1)}) == 400
    assert held_bytes({"q": WHOLE.repeat(10, 10)[:, :8]}) == 100 * WHOLE.nbytes


def test_memory_is_counted_with_the_gaps():
    row = {"x": torch.zeros(64, 1024)[:, :8]}
    assert len(rotating_copies([row], last_cache_bytes=10 * 2048, free_bytes=2**30)) == 21
    assert len(rotating_copies([row], last_cache_bytes=10 * 2048, free_bytes=16 * 2**18)) == 4


@pytest.mark.parametrize("tiny", [{}, {"n": 3}, {"x": torch.empty(0)}, {"x": torch.ones(2)}])
def test_tiny_inputs_make_no_copies_without_end(monkeypatch, tiny):
    monkeypatch.setattr(copies, "MOST_COPIES", 50)
    assert len(rotating_copies([tiny], last_cache_bytes=2**25, free_bytes=2**34)) == 50
    assert len(rotating_copies([tiny], last_cache_bytes=2**25, free_bytes=2**16)) == 16, "an object takes memory too"


def test_other_values_reach_views_and_expanded_inputs_in_place():
    own = clone(VIEWS)
    operands = Operands(own)
    other = {name: value + 1 if name in ("q", "k") else value for name, value in VIEWS.items()}
    other["mask"] = torch.full((1, 8), 7.0).expand(4, 8)
    operands.fill(other, 0)
    assert operands.changed(other, 0) == [] and operands.changed(VIEWS, 0) == ["q", "k", "mask"]
    assert own["mask"].stride() == (0, 1) and own["mask"][3].tolist() == [7.0] * 8


def test_equal_values_are_the_same_with_nan_in_the_same_places():
    x = torch.tensor([1.0, float("nan")])
    assert same(x, x.clone()) and same(x.double(), x.double())
    assert not same(x, torch.tensor([1.0, 2.0])) and not same(x, torch.tensor([float("nan"), 1.0]))
