"""The addressed memory is what its docstring says in every row that runs here: values, gradients, costs."""

import math
from typing import Any, ClassVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from seqroof.kernels import memory_attention
from seqroof.kernels.memory_attention import IMPLEMENTATIONS, Shape, inputs, work

CPU_ROWS = ["reference", "torch"]
SHAPES = [Shape(1, 1, 1, 1), Shape(2, 3, 2, 5), Shape(2, 4, 3, 2), Shape(2, 3, 7, 4)]
ANY = st.builds(Shape, st.integers(1, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 5))
rows = pytest.mark.parametrize("row", CPU_ROWS)
few = settings(max_examples=10, derandomize=True, deadline=None)

Tensors = dict[str, torch.Tensor]


def _doubles(shape: Shape, seed: int = 3) -> Tensors:
    return {name: tensor.double() for name, tensor in inputs(shape, "fp32", "cpu", seed).items()}


def _run(row: str, shape: Shape, tensors: Tensors) -> tuple[torch.Tensor, ...]:
    return IMPLEMENTATIONS[row].run(shape, **tensors)


class Number:
    """A number that counts what is done to it; sums and multiply-adds of a matrix product are counted by `dot`."""

    counts: ClassVar[dict[str, int]] = {}

    def __init__(self, value: float) -> None:
        self.value = value

    @classmethod
    def _count(cls, kind: str, value: float, times: int = 1) -> "Number":
        cls.counts[kind] = cls.counts.get(kind, 0) + times
        return cls(value)

    def __add__(self, other: "Number") -> "Number":
        return self._count("pointwise", self.value + other.value)

    def __sub__(self, other: "Number") -> "Number":
        return self._count("pointwise", self.value - other.value)

    def __mul__(self, other: "Number") -> "Number":
        return self._count("pointwise", self.value * other.value)

    def __truediv__(self, other: "Number") -> "Number":
        return self._count("pointwise", self.value / other.value)

    def maximum(self, other: "Number") -> "Number":
        return self._count("pointwise", max(self.value, other.value))

    def special(self, function: Any) -> "Number":
        return self._count("special", function(self.value))


ONE = Number(1.0)
Vector = list[Number]


def _dot(a: Vector, b: Vector) -> Number:
    return Number._count("matmul", math.fsum(x.value * y.value for x, y in zip(a, b)), 2 * len(a))


def _total(values: Vector) -> Number:
    """A sum over n values counts n operations: it starts at zero."""
    result = Number(0.0)
    for value in values:
        result = result + value
    return result


def _softmax(values: Vector) -> Vector:
    largest = Number(-math.inf)
    for value in values:
        largest = largest.maximum(value)
    powers = [(value - largest).special(math.exp) for value in values]
    total = _total(powers)
    return [power / total for power in powers]


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def _norm(values: Vector) -> Number:
    return _total([value * value for value in values]).special(math.sqrt).maximum(Number(memory_attention.EPSILON))


def _softplus(x: Number) -> Number:
    return (ONE + x.special(math.exp)).special(math.log)


def _one_step(memory: list[Vector], weights: Vector, control: Vector) -> tuple[Vector, list[Vector], Vector]:
    """One step of one batch row, one number at a time, straight from the definition."""
    M, P = len(memory), len(memory[0])
    key, erase, add = control[:P], control[P : 2 * P], control[2 * P : 3 * P]
    strength, gate, *shift, sharpening = control[3 * P :]
    erase = [value.special(_sigmoid) for value in erase]
    add = [value.special(math.tanh) for value in add]
    beta, gate, gamma = _softplus(strength), gate.special(_sigmoid), ONE + _softplus(sharpening)
    shift = _softmax(shift)
    length = _norm(key)
    unit = [value / length for value in key]
    cosine = [_dot(row, unit) / _norm(row) for row in memory]
    content = _softmax([beta * value for value in cosine])
    mixed = [before + gate * (now - before) for now, before in zip(content, weights)]
    turned = [shift[0] * mixed[(i + 1) % M] + shift[1] * mixed[i] + shift[2] * mixed[(i - 1) % M] for i in range(M)]
    weights = _softmax([gamma * value.special(math.log) for value in turned])
    read = [_dot(weights, [row[p] for row in memory]) for p in range(P)]
    memory = [[m * (ONE - w * e) + w * a for m, e, a in zip(row, erase, add)] for w, row in zip(weights, memory)]
    return read, memory, weights


def _by_hand(shape: Shape, memory: torch.Tensor, weights: torch.Tensor, controls: torch.Tensor) -> list[torch.Tensor]:
    """All steps of all batch rows; leaves its operations in `Number.counts`."""
    Number.counts = {}
    reads = torch.empty(shape.T, shape.B, shape.P, dtype=torch.float64)
    last_memory, last_weights = torch.empty_like(memory), torch.empty_like(weights)
    for b in range(shape.B):
        rows = [[Number(value) for value in row] for row in memory[b].tolist()]
        shares = [Number(value) for value in weights[b].tolist()]
        for t in range(shape.T):
            read, rows, shares = _one_step(rows, shares, [Number(value) for value in controls[t, b].tolist()])
            reads[t, b] = torch.tensor([value.value for value in read], dtype=torch.float64)
        last_memory[b] = torch.tensor([[value.value for value in row] for row in rows], dtype=torch.float64)
        last_weights[b] = torch.tensor([value.value for value in shares], dtype=torch.float64)
    return [reads, last_memory, last_weights]


@rows
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_row_follows_the_definition(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    for got, want in zip(_run(row, shape, tensors), _by_hand(shape, **tensors), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_forward_operations_are_those_of_a_loop_that_counts(shape: Shape) -> None:
    _by_hand(shape, **_doubles(shape))
    cost = work(shape, "fp32", "forward")
    assert Number.counts == {
        "matmul": cost.matmul_flops,
        "pointwise": cost.pointwise_flops,
        "special": cost.special_ops,
    }


def test_likeness_is_cosine_similarity_and_the_read_comes_first() -> None:
    """A gate of one, no shift and no sharpening leave the content weights."""
    shape = Shape(2, 1, 5, 4)
    tensors = _doubles(shape)
    tensors["memory"][0, 2] = 0
    control = tensors["controls"][0]
    control[:, -5:] = torch.tensor([50.0, -60.0, 60.0, -60.0, -60.0], dtype=torch.float64)
    likeness = F.cosine_similarity(control[:, None, :4], tensors["memory"], dim=2, eps=memory_attention.EPSILON)
    want = torch.softmax(F.softplus(control[:, 12:13]) * likeness, dim=1)
    r, _, weights = _run("reference", shape, tensors)
    torch.testing.assert_close(weights, want, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(r[0], (want[:, :, None] * tensors["memory"]).sum(1), rtol=1e-12, atol=1e-12)


@rows
def test_gradients_are_those_of_differences(row: str) -> None:
    shape = Shape(2, 2, 3, 2)
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    run = IMPLEMENTATIONS[row].run
    assert torch.autograd.gradcheck(lambda *t: run(shape, **dict(zip(tensors, t))), list(tensors.values()))


@rows
@few
@given(shape=ANY)
def test_weights_stay_a_distribution(row: str, shape: Shape) -> None:
    _, _, weights = _run(row, shape, _doubles(shape))
    assert (weights >= 0).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(shape.B, dtype=torch.float64))


def _one_hot(shape: Shape, tensors: Tensors, row: int, shift: int) -> None:
    """Let every step keep the weights of the step before, moved by `shift`, with all weight on one row at first."""
    tensors["weights"].zero_()[:, row] = 1
    scalars = tensors["controls"][..., 3 * shape.P :]
    scalars[..., 1] = -math.inf
    scalars[..., 2:5] = -math.inf
    scalars[..., 3 + shift] = 0


@rows
@pytest.mark.parametrize("shift", [-1, 0, 1])
@few
@given(shape=ANY, row_seed=st.integers(0, 99))
def test_a_shift_moves_all_weight_by_one_row_in_a_circle(row: str, shift: int, shape: Shape, row_seed: int) -> None:
    tensors = _doubles(shape)
    start = row_seed % shape.M
    _one_hot(shape, tensors, start, shift)
    _, _, weights = _run(row, shape, tensors)
    want = torch.zeros_like(weights)
    want[:, (start + shift * shape.T) % shape.M] = 1
    assert torch.equal(weights, want)


@rows
@few
@given(shape=ANY)
def test_full_erasure_replaces_a_row_by_what_is_added(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    _one_hot(shape, tensors, 0, 0)
    tensors["controls"][..., shape.P : 2 * shape.P] = math.inf
    r, memory, _ = _run(row, shape, tensors)
    added = torch.tanh(tensors["controls"][:, :, 2 * shape.P : 3 * shape.P])
    torch.testing.assert_close(memory[:, 0], added[-1], rtol=1e-14, atol=1e-14)
    assert torch.equal(memory[:, 1:], tensors["memory"][:, 1:])
    torch.testing.assert_close(r, torch.cat((tensors["memory"][None, :, 0], added[:-1])), rtol=1e-14, atol=1e-14)


@rows
@few
@given(shape=ANY)
def test_nothing_erased_and_nothing_added_changes_no_bit(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    tensors["controls"][..., shape.P : 2 * shape.P] = -math.inf
    tensors["controls"][..., 2 * shape.P : 3 * shape.P] = 0
    assert torch.equal(_run(row, shape, tensors)[1], tensors["memory"])


@rows
@few
@given(shape=ANY.filter(lambda shape: shape.T > 1))
def test_two_halves_make_the_whole(row: str, shape: Shape) -> None:
    tensors = _doubles(shape)
    whole = _run(row, shape, tensors)
    half = shape.T // 2
    controls = tensors["controls"]
    first = _run(row, Shape(shape.B, half, shape.M, shape.P), tensors | {"controls": controls[:half]})
    rest = {"memory": first[1], "weights": first[2], "controls": controls[half:]}
    second = _run(row, Shape(shape.B, shape.T - half, shape.M, shape.P), rest)
    for got, want in zip((torch.cat((first[0], second[0])), *second[1:]), whole):
        torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)


@rows
@few
@given(shape=ANY, seed=st.integers(0, 9))
def test_without_a_shift_rows_can_change_places(row: str, shape: Shape, seed: int) -> None:
    tensors = _doubles(shape)
    scalars = tensors["controls"][..., 3 * shape.P :]
    scalars[..., 2] = scalars[..., 4] = -math.inf
    order = torch.randperm(shape.M, generator=torch.Generator().manual_seed(seed))
    moved = tensors | {"memory": tensors["memory"][:, order], "weights": tensors["weights"][:, order]}
    r, memory, weights = _run(row, shape, tensors)
    for got, want in zip(_run(row, shape, moved), (r, memory[:, order], weights[:, order])):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-13)


@rows
def test_batch_rows_do_not_meet(row: str) -> None:
    shape = Shape(3, 4, 5, 4)
    tensors = _doubles(shape)
    before = _run(row, shape, tensors)
    tensors["memory"][1] += 1
    tensors["controls"][:, 1] = math.nan
    after = _run(row, shape, tensors)
    for index, (was, now) in enumerate(zip(before, after)):
        parts = [t.movedim(1, 0) if index == 0 else t for t in (was, now)]
        assert torch.equal(parts[0][[0, 2]], parts[1][[0, 2]])
        assert parts[1][1].isnan().all()


@rows
def test_no_power_of_all_weights_underflows(row: str) -> None:
    """1/200 to the power of 1000 is no number of any format; equal weights stay equal all the same."""
    shape = Shape(1, 2, 200, 2)
    tensors = inputs(shape, "fp32", "cpu", seed=1)
    tensors["weights"].fill_(1 / shape.M)
    tensors["controls"][..., -5] = -math.inf
    tensors["controls"][..., -1] = 1000
    torch.testing.assert_close(_run(row, shape, tensors)[2], tensors["weights"], rtol=1e-3, atol=0)


@rows
def test_no_batch_gives_nothing(row: str) -> None:
    shape = Shape(0, 2, 3, 4)
    r, memory, weights = _run(row, shape, _doubles(shape))
    assert (r.shape, memory.shape, weights.shape) == ((2, 0, 4), (0, 3, 4), (0, 3))
    assert work(shape, "bf16", "both").flops == 0


@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"T": 0}, "T must be at least 1, not 0: without a step nothing is read"),
        ({"B": -1}, "B must be at least 0, not -1"),
        ({"M": 0}, "M must be at least 1, not 0"),
        ({"P": 0}, "P must be at least 1, not 0"),
    ],
)
def test_impossible_sizes_are_refused(sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Shape(**({"B": 1, "T": 2, "M": 3, "P": 4} | sizes))


@pytest.mark.parametrize("row", [*CPU_ROWS, "triton_step", "triton_resident"])
def test_tensors_that_do_not_fit_are_refused(row: str) -> None:
    shape = Shape(2, 3, 4, 5)
    tensors = inputs(shape, "fp32", "cpu", seed=0)
    with pytest.raises(ValueError, match=r"controls has the size \(3, 2, 20\); \(3, 2, 21\) was expected"):
        _run(row, shape, tensors | {"controls": tensors["controls"][..., 1:]})
    with pytest.raises(ValueError, match=r"weights has the size \(1, 4\)"):
        _run(row, shape, tensors | {"weights": tensors["weights"][:1]})
    with pytest.raises(ValueError, match=r"memory is torch.float64"):
        _run(row, shape, tensors | {"memory": tensors["memory"].double()})


def _refusal(row: str, dtype: str, device: str, **sizes: int) -> str:
    shape = Shape(**({"B": 1, "T": 4, "M": 128, "P": 64} | sizes))
    return IMPLEMENTATIONS[row].supports(shape, dtype, device) or ""


def test_rows_that_cannot_run_say_why() -> None:
    assert "TF32" in _refusal("torch", "tf32", "cpu")
    assert "1 GFLOP/s" in _refusal("reference", "fp16", "cpu", B=64, T=512)
    assert "at most 8 steps are compiled, not 9" in _refusal("compile", "bf16", "cuda", T=9)
    assert "float64" in _refusal("triton_step", "fp64", "cuda")
    assert _refusal("triton_resident", "bf16", "cuda", M=256) == ""
    assert "M=256 with P=64 would fit" in _refusal("triton_resident", "bf16", "cuda", M=257)
    assert "P=128 would fit" in _refusal("triton_resident", "bf16", "cuda", P=129)
    assert _refusal("triton_step", "bf16", "cuda", M=2048, P=128) == ""
    assert "at most 2048 rows, not M=2049" in _refusal("triton_step", "bf16", "cuda", M=2049)


def test_a_row_that_is_refused_says_so_when_it_is_called() -> None:
    shape = Shape(1, 1, 300, 100)
    with pytest.raises(ValueError, match=r"M=128 with P=100 would fit, and triton_step streams larger ones\."):
        _run("triton_resident", shape, inputs(shape, "fp32", "cpu", seed=0))


def test_cost_counted_by_hand() -> None:
    """2 memories of 3 rows of 4 values, 5 steps: 10 rows of controls, 30 weights and 120 cells over all steps."""
    shape = Shape(2, 5, 3, 4)
    forward, backward, both = (work(shape, "bf16", direction) for direction in ("forward", "backward", "both"))
    assert forward.matmul_flops == 5 * (2 * 2 * 3 * 4 + 2 * 2 * 3 * 4)
    assert backward.matmul_flops == 2 * forward.matmul_flops
    assert forward.pointwise_flops == 7 * 120 + 20 * 30 + 3 * 40 + 16 * 10
    assert forward.special_ops == 4 * 30 + 2 * 40 + 9 * 10
    assert backward.pointwise_flops == 15 * 120 + 52 * 30 + 12 * 40 + 34 * 10
    assert backward.special_ops == 3 * 30 + 2 * 40 + 11 * 10
    assert forward.compulsory_bytes == 2 * (2 * 24 + 2 * 6 + 5 * 2 * 18 + 5 * 2 * 4)
    assert forward.streamed_bytes == 2 * (5 * 3 * 24 + 5 * 2 * 6 + 180 + 40)
    # Four memories between five steps in 16 bit; six times weights and five times cosines in 32.
    assert forward.saved_bytes == 2 * 4 * 24 + 4 * (6 + 5) * 6
    assert backward.read_bytes == 2 * (24 + 6 + 180 + 40 + 24 + 6) + forward.saved_bytes
    assert backward.write_bytes == 2 * (24 + 6 + 180)
    assert (forward.state_bytes, forward.recurrent_bytes, forward.weight_bytes) == (60, 30, 0)
    assert (forward.depth, both.depth, forward.tokens, forward.parameters) == (5, 10, 10, 0)


def test_gradients_meet_as_many_products_as_the_flop_counter_sees() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    shape = Shape(2, 3, 5, 4)
    tensors = {name: tensor.requires_grad_() for name, tensor in _doubles(shape).items()}
    outputs = _run("reference", shape, tensors)
    counter = FlopCounterMode(display=False)
    with counter:
        torch.autograd.grad(outputs, list(tensors.values()), [torch.ones_like(output) for output in outputs])
    assert counter.get_total_flops() == work(shape, "fp64", "backward").matmul_flops


def test_inputs_are_deterministic_and_begin_with_a_distribution() -> None:
    shape = Shape(2, 3, 5, 4)
    tensors, again, other = (inputs(shape, "fp32", "cpu", seed) for seed in (7, 7, 8))
    assert all(torch.equal(tensors[name], again[name]) for name in tensors)
    assert not torch.equal(tensors["memory"], other["memory"])
    torch.testing.assert_close(tensors["weights"].sum(1), torch.ones(2))


def test_a_spot_is_a_part_of_the_whole() -> None:
    shape = Shape(9, 3, 5, 4)
    tensors = _doubles(shape)
    whole = _run("reference", shape, tensors)
    for smaller, part, of_whole, of_part in memory_attention.spot(shape, tensors, seed=5):
        assert smaller.B == 4
        for got, want in zip(of_part(_run("reference", smaller, part)), of_whole(whole), strict=True):
            torch.testing.assert_close(got, want, rtol=1e-13, atol=1e-14)
