"""Hierarchical attention is what its docstring says, in every row that runs here: values, gradients, reach and levels.

Run as a script, this file is the child in which the Triton rows are interpreted.
"""

import itertools
import math
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreting import Checks, run_interpreted

from seqroof.kernels import _hierarchical_launch, _triton
from seqroof.kernels.hierarchical_attention import IMPLEMENTATIONS, SHAPES, Shape, inputs, work
from seqroof.profiler.poison import poisoned_memory

CPU_ROWS = ["reference", "torch"]
TRITON_ROWS = ["triton", "triton_tree"]
SHAPES_BY_HAND = [Shape(2, 11, 3, 4), Shape(1, 9, 2, 3), Shape(3, 7, 5, 2), Shape(1, 1, 1, 2), Shape(2, 5, 4, 9)]
checks = Checks()

Tensors = dict[str, torch.Tensor]
Run = Callable[..., tuple[torch.Tensor, ...]]


def doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def by_hand(shape: Shape, x: torch.Tensor, V: torch.Tensor, b: torch.Tensor, q: torch.Tensor) -> list[torch.Tensor]:
    """One number at a time, straight from the definition; the last of the levels is the first of one vector."""
    found = []
    below = x
    for level in range(len(V)):
        contexts = []
        for start in range(0, below.shape[1], shape.F):
            window = below[:, start : start + shape.F]
            rows = []
            for sequence in window:
                scores = []
                for vector in sequence:
                    hidden = [math.tanh(float(V[level, i] @ vector + b[level, i])) for i in range(shape.P)]
                    scores.append(sum(float(q[level, i]) * hidden[i] for i in range(shape.P)))
                total = sum(math.exp(score) for score in scores)
                rows.append(sum(math.exp(score) / total * vector for score, vector in zip(scores, sequence)))
            contexts.append(torch.stack(rows))
        below = torch.stack(contexts, dim=1)
        found.append(below)
    return found


def with_gradients(run: Run, shape: Shape, tensors: Tensors) -> list[torch.Tensor]:
    """Outputs, and the gradients of all inputs for fixed random gradients of the outputs."""
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    outputs = run(shape, **leaves)
    source = torch.Generator().manual_seed(3)
    above = [torch.randn(output.shape, generator=source, dtype=output.dtype) for output in outputs]
    return [*outputs, *torch.autograd.grad(outputs, list(leaves.values()), above)]


def close(got: Any, want: Any) -> None:
    for one, other in zip(got, want, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("shape", SHAPES_BY_HAND, ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = doubles(shape)
    close(IMPLEMENTATIONS[row].run(shape, **tensors), by_hand(shape, **tensors))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_one_level_is_an_attention_pool_made_of_torch_modules(row: str) -> None:
    """A Linear, a Tanh and a Linear without bias for the scores; values and gradients."""
    shape = Shape(3, 6, 5, 6)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    affine = torch.nn.Linear(5, 5, dtype=torch.float64)
    query = torch.nn.Linear(5, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        affine.weight.copy_(tensors["V"][0])
        affine.bias.copy_(tensors["b"][0])
        query.weight.copy_(tensors["q"])
    weights = torch.nn.Sequential(affine, torch.nn.Tanh(), query)(tensors["x"]).softmax(1)
    want = (weights * tensors["x"]).sum(1, keepdim=True)
    (got,) = IMPLEMENTATIONS[row].run(shape, **tensors)
    close([got], [want])
    gradient = torch.randn_like(want)
    mine = torch.autograd.grad(got, list(tensors.values()), gradient)
    theirs = torch.autograd.grad(want, [tensors["x"], affine.weight, affine.bias, query.weight], gradient)
    close([one.squeeze(0) if one.shape[0] == 1 else one for one in mine], [theirs[0], *theirs[1:3], theirs[3][0]])


@pytest.mark.parametrize("row", CPU_ROWS)
def test_the_gradient_is_that_of_finite_differences(row: str) -> None:
    shape = Shape(1, 5, 2, 2)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    run = IMPLEMENTATIONS[row].run
    assert torch.autograd.gradcheck(lambda *t: run(shape, **dict(zip(tensors, t))), list(tensors.values()))


def test_all_cpu_rows_have_the_same_gradients() -> None:
    for shape in (Shape(2, 33, 4, 5), Shape(1, 27, 3, 3), Shape(2, 1, 3, 2), Shape(0, 9, 3, 2)):
        tensors = doubles(shape)
        want = with_gradients(IMPLEMENTATIONS["reference"].run, shape, tensors)
        close(with_gradients(IMPLEMENTATIONS["torch"].run, shape, tensors), want)


@pytest.mark.parametrize(
    ("T", "F", "levels"),
    [(1, 100, 1), (2, 2, 1), (3, 2, 2), (64, 2, 6), (65, 2, 7), (100, 10, 2), (101, 10, 3), (125, 5, 3), (126, 5, 4),
     (100, 100, 1), (101, 100, 2), (10_000, 100, 2), (10_001, 100, 3), (10**6, 100, 3), (7, 1000, 1)],
)  # fmt: skip
def test_levels_are_counted_with_integers(T: int, F: int, levels: int) -> None:
    shape = Shape(1, T, 1, F)
    assert shape.levels == levels == work(shape, "fp32", "forward").depth
    assert [work(shape, "fp32", half).depth for half in ("backward", "both")] == [levels, 2 * levels]
    assert F ** (levels - 1) < T <= F**levels or T == levels == 1
    assert len(inputs(Shape(1, min(T, 200), 1, F), "fp32", "cpu", 0)["V"]) == Shape(1, min(T, 200), 1, F).levels


@settings(derandomize=True, deadline=None, max_examples=20)
@given(T=st.integers(1, 200), F=st.integers(2, 40))
def test_every_row_gives_one_output_per_level_down_to_one_vector(T: int, F: int) -> None:
    shape = Shape(2, T, 2, F)
    tensors = inputs(shape, "fp32", "cpu", 1)
    for row in CPU_ROWS:
        lengths = [tuple(output.shape) for output in IMPLEMENTATIONS[row].run(shape, **tensors)]
        assert lengths[-1] == (2, 1, 2) and len(lengths) == shape.levels
        assert all(length[1] == -(-before // F) for before, length in zip((T, *(n[1] for n in lengths)), lengths))


@pytest.mark.parametrize("row", CPU_ROWS)
@settings(derandomize=True, deadline=None, max_examples=25)
@given(F=st.integers(2, 12), place=st.integers(0, 10**6))
def test_every_one_of_f_times_f_inputs_reaches_the_context_of_two_levels(row: str, F: int, place: int) -> None:
    shape = Shape(1, F * F, 2, F)
    assert shape.levels == 2 and Shape(1, F * F + 1, 2, F).levels == 3
    reaches(row, shape, place % (F * F))


@pytest.mark.parametrize("row", CPU_ROWS)
def test_ten_thousand_inputs_reach_the_context_of_two_levels(row: str) -> None:
    shape = Shape(1, 10_000, 2)
    assert shape.levels == 2
    for place in (0, 99, 100, 5_555, 9_999):
        reaches(row, shape, place)


def reaches(row: str, shape: Shape, place: int) -> None:
    """One changed vector changes the last context, and below only the window that it lies in."""
    tensors = doubles(shape)
    before = IMPLEMENTATIONS[row].run(shape, **tensors)
    tensors["x"][:, place] += 1
    after = IMPLEMENTATIONS[row].run(shape, **tensors)
    for level, (one, other) in enumerate(zip(before, after), start=1):
        changed = (one != other).any(-1).nonzero()[:, 1].tolist()
        assert changed == [place // shape.F**level], level


def constant_vectors_stay_what_they_are(run: Run, shape: Shape) -> None:
    """The weights of a window sum to one."""
    tensors = doubles(shape)
    tensors["x"] = torch.linspace(-2, 2, shape.P, dtype=torch.float64).expand(shape.B, shape.T, -1).contiguous()
    for output in run(shape, **tensors):
        torch.testing.assert_close(output, tensors["x"][:, : output.shape[1]], rtol=1e-13, atol=1e-13)


def order_within_a_window_does_not_matter(run: Run, shape: Shape) -> None:
    tensors = doubles(shape)
    source = torch.Generator().manual_seed(5)
    starts = range(0, shape.T, shape.F)
    sizes = [min(shape.F, shape.T - start) for start in starts]
    order = torch.cat([start + torch.randperm(size, generator=source) for start, size in zip(starts, sizes)])
    before = run(shape, **tensors)
    close(run(shape, **tensors | {"x": tensors["x"][:, order]}), before)
    if shape.T > shape.F:
        swapped = tensors["x"].roll(1, dims=1)
        assert not torch.allclose(run(shape, **tensors | {"x": swapped})[-1], before[-1])


def sequences_do_not_see_each_other(run: Run, shape: Shape) -> None:
    tensors = doubles(shape)
    before = run(shape, **tensors)
    for sequence in range(shape.B):
        alone = Shape(1, shape.T, shape.P, shape.F)
        got = run(alone, **tensors | {"x": tensors["x"][sequence : sequence + 1]})
        close(got, [output[sequence : sequence + 1] for output in before])


PROPERTIES = [
    constant_vectors_stay_what_they_are,
    order_within_a_window_does_not_matter,
    sequences_do_not_see_each_other,
]


@pytest.mark.parametrize("row", CPU_ROWS)
@pytest.mark.parametrize("holds", PROPERTIES, ids=lambda check: check.__name__)
@settings(derandomize=True, deadline=None, max_examples=15)
@given(B=st.integers(1, 3), T=st.integers(1, 60), P=st.integers(1, 5), F=st.integers(2, 12))
def test_properties(row: str, holds: Callable[[Run, Shape], None], B: int, T: int, P: int, F: int) -> None:
    holds(IMPLEMENTATIONS[row].run, Shape(B, T, P, F))


def test_inputs_are_deterministic_and_scores_differ() -> None:
    shape = Shape(2, 400, 64)
    tensors = inputs(shape, "fp32", "cpu", seed=7)
    assert all(torch.equal(tensors[name], again) for name, again in inputs(shape, "fp32", "cpu", seed=7).items())
    assert not torch.equal(tensors["x"], inputs(shape, "fp32", "cpu", seed=8)["x"])
    hidden = torch.tanh(tensors["x"] @ tensors["V"][0].t() + tensors["b"][0])
    assert 0.4 < (hidden @ tensors["q"][0]).std() < 2
    assert 0.4 < hidden.std() < 0.9


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"T": 0}, "T must be at least 1, not 0"),
        ({"P": 0}, "P must be at least 1, not 0"),
        ({"F": 1}, "F must be at least 2, not 1"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 8, "P": 8, "F": 3} | sizes))


BAD = [
    ("x", lambda t: t[:, 1:], r"x has the size \(2, 10, 3\); \(2, 11, 3\) was expected"),
    ("V", lambda t: t[:1], r"V has the size \(1, 3, 3\); \(2, 3, 3\) was expected"),
    ("b", lambda t: t[..., 1:], "b has the size"),
    ("q", lambda t: t.unsqueeze(0), "q has the size"),
    ("V", lambda t: t.double(), "V is torch.float64 on cpu and x is torch.float32 on cpu"),
]


@pytest.mark.parametrize("row", [*CPU_ROWS, *TRITON_ROWS])
@pytest.mark.parametrize(("name", "spoil", "sentence"), BAD)
def test_bad_input_is_refused(row: str, name: str, spoil: Any, sentence: str) -> None:
    shape = Shape(2, 11, 3, 4)
    tensors = inputs(shape, "fp32", "cpu", 3)
    tensors[name] = spoil(tensors[name])
    with pytest.raises(ValueError, match=sentence):
        IMPLEMENTATIONS[row].run(shape, **tensors)


def test_rows_that_cannot_run_say_why() -> None:
    refusal = lambda row, dtype, device, P=64: IMPLEMENTATIONS[row].supports(Shape(4, 4000, P), dtype, device)  # noqa: E731
    for row in ("reference", "torch", "compile"):
        assert "TF32" in (refusal(row, "tf32", "cpu") or ""), row
        assert "1 GFLOP/s" in (refusal(row, "fp16", "cpu", 256) or ""), row
        assert refusal(row, "fp16", "cuda", 256) is None
    for row in TRITON_ROWS:
        assert "float64" in (refusal(row, "fp64", "cuda") or "")
        assert "up to 256 numbers, not P=257" in (refusal(row, "bf16", "cuda", 257) or "")


@pytest.mark.parametrize("row", [*CPU_ROWS, *TRITON_ROWS])
def test_no_sequences_give_empty_contexts_and_zero_gradients(row: str) -> None:
    shape = Shape(0, 11, 3, 4)
    results = with_gradients(IMPLEMENTATIONS[row].run, shape, doubles(shape))
    assert [tuple(result.shape) for result in results[:3]] == [(0, 3, 3), (0, 1, 3), (0, 11, 3)]
    assert not any(gradient.any() for gradient in results[2:])


def test_cost_counted_by_hand() -> None:
    """Two sequences of 5 vectors of 3 numbers in windows of 2: levels of 5, 3 and 2 vectors, above them 3, 2 and 1."""
    shape = Shape(2, 5, 3, 2)
    forward, backward = work(shape, "bf16", "forward"), work(shape, "bf16", "backward")
    vectors, windows = 2 * (5 + 3 + 2), 2 * (3 + 2 + 1)
    assert forward.matmul_flops == vectors * (2 * 9 + 4 * 3)
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert forward.pointwise_flops == vectors * (3 + 3) + windows * 3
    assert backward.pointwise_flops == vectors * (1 + 2 + 3 * 3) + windows * 2 * 3 + (vectors - 3) * 3 + 2 * (3 + 2) * 3
    assert (forward.special_ops, backward.special_ops) == (vectors * 4, vectors)
    assert forward.read_bytes == 2 * (30 + 3 * (9 + 3 + 3))
    assert forward.write_bytes == 2 * windows * 3
    # Contexts of the two lower levels are read again by the level above.
    assert forward.streamed_bytes == forward.compulsory_bytes + 2 * 2 * (3 + 2) * 3
    assert backward.read_bytes == forward.read_bytes + 2 * forward.write_bytes + 4 * (vectors + windows)
    assert backward.write_bytes == forward.read_bytes
    assert (forward.parameters, forward.weight_bytes, forward.tokens) == (45, 90, 10)
    assert (forward.saved_bytes, forward.state_bytes, forward.depth) == (4 * (vectors + windows), 2 * 2 * 3 * 3, 3)


def test_the_cost_of_a_large_hierarchy_worked_out_by_hand() -> None:
    """The two levels of 10000 vectors: 2 (10000 + 100) P P + 4 (10000 + 100) P for P = 64, in each of 32 sequences."""
    cost = work(Shape(32, 10_000, 64), "bf16", "forward")
    assert cost.matmul_flops == 32 * (2 * 10_100 * 4096 + 4 * 10_100 * 64)
    assert cost.compulsory_bytes == 2 * (32 * 10_000 * 64 + 2 * (4096 + 128) + 32 * 101 * 64)


def counts_of(shape: Shape) -> dict[str, int]:
    """Operations of a forward pass written as loops, counted one by one as they are done."""
    count = dict.fromkeys(("matmul_flops", "pointwise_flops", "special_ops"), 0)

    def do(quantity: str, value: float, times: int = 1) -> float:
        count[quantity] += times
        return value

    tensors = {name: tensor.tolist() for name, tensor in doubles(shape).items()}
    for sequence in tensors["x"]:
        below = sequence
        for V, b, q in zip(tensors["V"], tensors["b"], tensors["q"]):
            contexts = []
            for start in range(0, len(below), shape.F):
                window, scores = below[start : start + shape.F], []
                for vector in window:
                    score = 0.0
                    for i in range(shape.P):
                        number = 0.0
                        for j in range(shape.P):
                            number = do("matmul_flops", number + V[i][j] * vector[j], 2)
                        number = do("special_ops", math.tanh(do("pointwise_flops", number + b[i])))
                        score = do("matmul_flops", score + q[i] * number, 2)
                    scores.append(score)
                top, total, context = -math.inf, 0.0, [0.0] * shape.P
                for score in scores:
                    top = do("pointwise_flops", max(top, score))
                for score, vector in zip(scores, window):
                    weight = do("special_ops", math.exp(do("pointwise_flops", score - top)))
                    total = do("pointwise_flops", total + weight)
                    context = [do("matmul_flops", c + weight * v, 2) for c, v in zip(context, vector)]
                contexts.append([do("pointwise_flops", c / total) for c in context])
            below = contexts
    return count


def test_cost_is_that_of_loops_that_count() -> None:
    for shape in (Shape(2, 7, 3, 3), Shape(1, 8, 2, 2), Shape(1, 1, 2, 5)):
        cost = work(shape, "fp32", "forward")
        assert counts_of(shape) == {
            name: getattr(cost, name) for name in ("matmul_flops", "pointwise_flops", "special_ops")
        }


def test_quick_shapes_are_small_and_standard_ones_bearable_on_a_cpu() -> None:
    flops = {suite: [work(shape, "fp32", "forward").matmul_flops for shape in SHAPES[suite]] for suite in SHAPES}
    assert max(flops["quick"]) < 1e8 and max(flops["standard"]) < 1e10


SMALL = [Shape(2, 9, 3, 4), Shape(1, 8, 2, 2)]


@checks.each(*itertools.product(TRITON_ROWS, SMALL))
def gradients_are_those_of_differences(row: str, shape: Shape) -> None:
    tensors = doubles(shape)

    # One vector in and one out: every pair of an input and an output would take runs of its own.
    def function(flat: torch.Tensor) -> torch.Tensor:
        parts = flat.split([tensor.numel() for tensor in tensors.values()])
        given = {name: part.view(tensor.shape) for (name, tensor), part in zip(tensors.items(), parts)}
        return torch.cat([output.flatten() for output in IMPLEMENTATIONS[row].run(shape, **given)])

    flat = torch.cat([tensor.flatten() for tensor in tensors.values()]).requires_grad_()
    assert torch.autograd.gradcheck(function, flat, fast_mode=True)


# Short windows and long ones, last windows of one vector, exact powers, two chunks of a window.
CHECKED = [Shape(2, 17, 4, 4), Shape(3, 27, 3, 3), Shape(2, 55, 20, 18), Shape(1, 75, 16, 70)]


@checks.each(*itertools.product(TRITON_ROWS, CHECKED))
def rows_hold_the_properties(row: str, shape: Shape) -> None:
    for holds in PROPERTIES:
        holds(IMPLEMENTATIONS[row].run, shape)


@checks.each(*itertools.product(TRITON_ROWS, (1, 2, 5, 100)))
def any_number_of_programs_gives_the_same(row: str, programs: int) -> None:
    """Windows shared out differently, so that parents are shared by programs differently, or by none."""
    shape = Shape(3, 75, 16, 3)  # aligned: with short windows the exception, a tile is one window
    tensors = doubles(shape)
    usual = _hierarchical_launch._PROGRAMS_INTERPRETED
    _hierarchical_launch._PROGRAMS_INTERPRETED = programs
    short, _hierarchical_launch.SHORT = _hierarchical_launch.SHORT, 2  # a window per tile
    try:
        got = with_gradients(IMPLEMENTATIONS[row].run, shape, tensors)
    finally:
        _hierarchical_launch._PROGRAMS_INTERPRETED, _hierarchical_launch.SHORT = usual, short
    close(got, with_gradients(IMPLEMENTATIONS["reference"].run, shape, tensors))


@checks.each(*((row,) for row in TRITON_ROWS))
def a_call_leaves_nothing_behind_for_the_next(row: str) -> None:
    """Neither counters nor unwritten memory, which is filled with NaN here; a graph can be gone through twice."""
    shape = Shape(2, 29, 5, 3)
    tensors = doubles(shape)
    with poisoned_memory():
        first, second = (with_gradients(IMPLEMENTATIONS[row].run, shape, tensors) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(first, second))
    close(first, with_gradients(IMPLEMENTATIONS["reference"].run, shape, tensors))
    leaves = [tensor.requires_grad_() for tensor in tensors.values()]
    outputs = IMPLEMENTATIONS[row].run(shape, **tensors)
    once, again = (torch.autograd.grad(outputs[-1].sum(), leaves, retain_graph=True) for _ in range(2))
    assert all(torch.equal(one, other) for one, other in zip(once, again))


@checks.each(*((row,) for row in TRITON_ROWS))
def what_is_left_for_the_gradients_is_what_is_declared(row: str) -> None:
    """Bytes of all memory that the graph holds besides inputs and contexts."""
    shape = Shape(2, 29, 16, 3)
    tensors = {name: tensor.requires_grad_() for name, tensor in doubles(shape).items()}
    outputs = IMPLEMENTATIONS[row].run(shape, **tensors)
    held = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in outputs[0].grad_fn.saved_tensors}
    for tensor in (*tensors.values(), *outputs):
        held.pop(tensor.untyped_storage().data_ptr(), None)
    assert sum(held.values()) == work(shape, "fp64", "forward").saved_bytes


@checks.each(*itertools.product(TRITON_ROWS, ("x", "V", "b", "q"), (math.nan, math.inf)))
def what_is_not_finite_spreads_as_in_torch(row: str, name: str, value: float) -> None:
    shape = Shape(2, 11, 3, 4)
    tensors = doubles(shape)
    tensors[name].view(-1)[1] = value
    for got, want in zip(
        IMPLEMENTATIONS[row].run(shape, **tensors), IMPLEMENTATIONS["reference"].run(shape, **tensors)
    ):
        assert torch.equal(got.isnan(), want.isnan()) and torch.equal(got.isinf(), want.isinf())


@checks.each(*((row,) for row in TRITON_ROWS))
def gradients_may_be_asked_of_some_inputs_and_outputs_only(row: str) -> None:
    shape = Shape(2, 11, 3, 4)
    tensors = doubles(shape)
    found = []
    for run in (IMPLEMENTATIONS[row].run, IMPLEMENTATIONS["reference"].run):
        q = tensors["q"].clone().requires_grad_()
        lowest, _ = run(shape, **tensors | {"q": q})
        found.append(torch.autograd.grad(lowest.sum(), q)[0])
    close([found[0]], [found[1]])


@pytest.fixture(scope="module")
def faults() -> dict[str, str]:
    return run_interpreted(__file__)


@pytest.mark.skipif(not _triton.AVAILABLE, reason="triton is not installed here")
@pytest.mark.parametrize("check", list(checks))
def test_interpreted(check: str, faults: dict[str, str]) -> None:
    assert not faults[check], faults[check]


if __name__ == "__main__":
    checks.run(int(sys.argv[1]))
