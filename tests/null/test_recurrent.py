"""The references of lstm, gru and rnn are torch.nn's modules, and refuse what does not fit them."""

import math
from typing import Any

import pytest
import torch
from recurrences import cells, close, doubles, run

from seqroof.kernels import _recurrent, gru, lstm, rnn
from seqroof.kernels._catalog import ContractError, load
from seqroof.kernels._recurrent import Cell, Shape, lengths_of, padding_waste
from seqroof.kernels._recurrent_vendor import from_module, to_module

STACKS = [
    Shape(3, 7, 5, 6),
    Shape(2, 6, 5, 4, L=3),
    Shape(3, 5, 4, 6, D=2),
    Shape(2, 5, 6, 4, L=3, D=2),
    Shape(4, 9, 5, 6, ragged=1),
    Shape(4, 8, 3, 5, L=2, D=2, ragged=1),
]
stacks = pytest.mark.parametrize("shape", STACKS, ids=str)


def module_outputs(cell: Cell, shape: Shape, module: Any, tensors: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """y, h_n and perhaps c_n of a torch.nn module, by packing where the rows have different lengths."""
    start = None
    if "h_0" in tensors:
        start = (tensors["h_0"], tensors["c_0"]) if cell.states == 2 else tensors["h_0"]
    x = tensors["x"]
    if shape.ragged:
        x = torch.nn.utils.rnn.pack_padded_sequence(x, tensors["lengths"], enforce_sorted=False)
    y, final = module(x, start)
    if shape.ragged:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, total_length=shape.T)
    return y, *(final if cell.states == 2 else (final,))


@cells
def test_a_module_of_torch_is_made_without_random_numbers(kernel: Any, cell: Cell) -> None:
    """A row that makes one inside a call must leave what the caller draws next as it is."""
    shape = kernel.Shape(B=2, T=3, I=4, H=5, L=2, D=2)
    tensors, before = doubles(cell, shape), torch.get_rng_state()
    to_module(cell, shape, tensors)
    assert torch.equal(torch.get_rng_state(), before)


@cells
@stacks
@pytest.mark.parametrize("with_states", [True, False], ids=["states", "zeros"])
def test_outputs_and_gradients_are_those_of_torch(kernel: Any, cell: Cell, shape: Shape, with_states: bool) -> None:
    tensors = doubles(cell, shape)
    if not with_states:
        tensors = {name: tensor for name, tensor in tensors.items() if name not in ("h_0", "c_0")}
    module = to_module(cell, shape, tensors)
    leaves = {name: tensor.requires_grad_() for name, tensor in tensors.items() if name != "lengths"}
    ours = run(cell, shape, tensors)
    theirs = module_outputs(cell, shape, module, tensors)
    close(ours, theirs)
    gradients = [torch.randn_like(output) for output in ours]
    got = dict(zip(leaves, torch.autograd.grad(ours, list(leaves.values()), gradients)))
    free = [name for name in ("x", "h_0", "c_0") if name in leaves]
    targets = [leaves[name] for name in free] + list(module.parameters())
    found = torch.autograd.grad(theirs, targets, gradients)
    close([got[name] for name in free], found[: len(free)])
    for parameter, gradient in zip(module.parameters(), found[len(free) :]):
        parameter.data = gradient
    want = from_module(module)
    for name in ("weight_ih", "weight_hh", "weight_ih_upper"):
        if name in got:
            close([got[name]], [want[name]])
    # from_module adds torch's two biases, whose gradients are the same wherever they stand in one sum.
    summed = cell.gates - (cell.biases > cell.gates)
    halves = torch.ones(cell.biases, dtype=torch.float64)
    halves[:summed] = 0.5
    close([got["bias"]], [want["bias"] * halves.repeat_interleave(shape.H)])


@cells
@pytest.mark.parametrize("bias", [True, False])
def test_weights_go_to_torch_and_back(kernel: Any, cell: Cell, bias: bool) -> None:
    options = {"nonlinearity": cell.name.removeprefix("rnn_")} if kernel is rnn else {}
    shape = Shape(3, 6, 5, 4, L=2, D=2)
    module = cell.module(5, 4, num_layers=2, bidirectional=True, bias=bias, dtype=torch.float64, **options)
    weights = from_module(module)
    x = torch.randn(6, 3, 5, dtype=torch.float64)
    want = module_outputs(cell, shape, module, {"x": x})
    close(run(cell, shape, {"x": x, **weights}), want)
    close(module_outputs(cell, shape, to_module(cell, shape, weights), {"x": x}), want)


def test_projections_are_refused() -> None:
    with pytest.raises(ValueError, match="proj_size=2 is not supported"):
        from_module(torch.nn.LSTM(4, 5, proj_size=2))


def by_definition(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    """One dilated layer by its definition: h_t from h_{t-d}, without folding."""
    weight_ih, weight_hh, bias, state_bias = _recurrent.weights_of(cell, shape, tensors)[0]
    d, B = shape.dilation, shape.B
    starts = [tensors[name][0] for name in ("h_0", "c_0")[: cell.states]]
    states = [[state[t % d * B : (t % d + 1) * B] for state in starts] for t in range(d)]
    y = []
    for t in range(shape.T):
        old = states[t]
        gx, gh = tensors["x"][t] @ weight_ih.t() + bias, old[0] @ weight_hh.t()
        h, c = cell.update(gx, gh if state_bias is None else gh + state_bias, old[0], old[-1])
        states.append([h, c][: cell.states])
        y.append(h)
    # The last state of every phase, in the order of the phases.
    last = [states[max(t for t in range(len(states)) if t % d == phase)] for phase in range(d)]
    return torch.stack(y), *(torch.cat([state[i] for state in last])[None] for i in range(cell.states))


@cells
@pytest.mark.parametrize(("T", "dilation"), [(8, 2), (7, 3), (2, 3), (1, 4)])
def test_dilation_is_its_definition(kernel: Any, cell: Cell, T: int, dilation: int) -> None:
    shape = Shape(3, T, 5, 4, dilation=dilation)
    tensors = doubles(cell, shape)
    close(run(cell, shape, tensors), by_definition(cell, shape, tensors))


BAD = [
    ("weight_hh", lambda t: t[..., 1:], r"weight_hh has the size \(1, 1, \d+, 5\); \(1, 1, \d+, 6\) was expected"),
    ("weight_ih", lambda t: t[:, 1:], "weight_ih has the size"),
    ("bias", lambda t: t[..., 1:], "bias has the size"),
    ("x", lambda t: t[:, :, :4], r"x has the size \(9, 4, 4\); \(9, 4, 5\) was expected"),
    ("h_0", lambda t: t[:, :3], r"h_0 has the size \(1, 3, 6\); \(1, 4, 6\) was expected"),
    ("h_0", lambda t: t[0], "h_0 has the size"),
    ("weight_ih", lambda t: None, "weight_ih is missing"),
    ("lengths", lambda t: None, "lengths is missing"),
    ("weight_hh", lambda t: t.float(), "weight_hh is torch.float32 on cpu and x is torch.float64 on cpu; convert one"),
    ("h_0", lambda t: t.bfloat16(), "h_0 is torch.bfloat16 on cpu and x is torch.float64 on cpu"),
    ("h_0", lambda t: t.to("meta"), "h_0 is torch.float64 on meta and x is torch.float64 on cpu"),
    ("lengths", lambda t: t.int(), "lengths has the dtype torch.int32; torch.int64 was expected"),
    ("lengths", lambda t: t.to("meta"), "lengths is on meta and x on cpu; move it there"),
    ("lengths", lambda t: t * 0, "lengths must lie between 1 and T=9; found 0 to 0"),
    ("lengths", lambda t: t + 9, "lengths must lie between 1 and T=9"),
    ("weight_ih_upper", lambda t: torch.zeros(1), "weight_ih_upper was given, but"),
]


@cells
@pytest.mark.parametrize(("name", "spoil", "sentence"), BAD)
@pytest.mark.parametrize("row", ["reference", "torch"])
def test_bad_input_is_refused(kernel: Any, cell: Cell, name: str, spoil: Any, sentence: str, row: str) -> None:
    shape = kernel.Shape(4, 9, 5, 6, ragged=1)
    tensors: dict[str, Any] = doubles(cell, shape)
    tensors[name] = spoil(tensors.get(name))
    with pytest.raises(ValueError, match=sentence):
        kernel.IMPLEMENTATIONS[row].run(shape, **tensors)


@pytest.mark.parametrize("name", ["lstm", "gru", "rnn"])
@pytest.mark.parametrize(
    ("sizes", "sentence"),
    [
        ({"T": 0}, "T must be at least 1, not 0: a sequence without steps has no last state"),
        ({"B": -1}, "B must be at least 0"),
        ({"H": 0}, "H must be at least 1"),
        ({"dilation": 0}, "dilation must be at least 1"),
        ({"D": 3}, "D must be 1 .forward. or 2"),
        ({"ragged": 2}, "ragged must be 0"),
    ],
)
def test_impossible_sizes_are_refused(name: str, sizes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        load(name).shape(**({"B": 1, "T": 1, "I": 1, "H": 1} | sizes))


def test_the_nonlinearity_is_tanh_or_relu() -> None:
    with pytest.raises(ContractError, match="relu must be 0"):
        load("rnn").shape(B=1, T=1, I=1, H=1, relu=2)


@cells
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_and_infinities_propagate_as_in_torch(kernel: Any, cell: Cell, value: float) -> None:
    shape = Shape(3, 6, 5, 4, L=2, D=2)
    tensors = doubles(cell, shape)
    tensors["x"][3, 1, 2] = value
    want = module_outputs(cell, shape, to_module(cell, shape, tensors), tensors)
    got = run(cell, shape, tensors)
    close([output.nan_to_num(7, 8, 9) for output in got], [output.nan_to_num(7, 8, 9) for output in want])
    assert not got[0][:, [0, 2]].isnan().any()
    if math.isnan(value):
        assert got[0][3, 1].isnan().all()


@cells
def test_what_lies_after_the_end_of_a_row_has_no_influence(kernel: Any, cell: Cell) -> None:
    shape = Shape(4, 8, 3, 5, L=2, D=2, ragged=1)
    tensors = doubles(cell, shape)
    tensors["weight_hh"].requires_grad_()
    want = run(cell, shape, tensors)
    for row, length in enumerate(tensors["lengths"]):
        tensors["x"][length:, row] = math.nan
    got = run(cell, shape, tensors)
    assert all(torch.equal(mine, other) for mine, other in zip(got, want))
    assert torch.autograd.grad(got[0].sum(), tensors["weight_hh"])[0].isfinite().all()


@cells
@pytest.mark.parametrize("row", ["reference", "torch"])
@pytest.mark.parametrize("ragged", [0, 1])
def test_an_empty_batch_gives_empty_outputs(kernel: Any, cell: Cell, row: str, ragged: int) -> None:
    shape = kernel.Shape(0, 5, 4, 3, L=2, D=2, dilation=2, ragged=ragged)
    outputs = kernel.IMPLEMENTATIONS[row].run(shape, **kernel.inputs(shape, "fp32", "cpu", 0))
    assert [tuple(output.shape) for output in outputs] == [(5, 0, 6), *[(4, 0, 3)] * cell.states]


def test_lengths_are_spread_and_not_sorted() -> None:
    lengths = lengths_of(Shape(8, 16, 1, 1, ragged=1))
    assert sorted(lengths, reverse=True) == [16, 14, 12, 10, 8, 6, 4, 2]
    assert list(lengths) not in (sorted(lengths), sorted(lengths, reverse=True))
    assert lengths_of(Shape(3, 7, 1, 1)) == (7, 7, 7)
    assert min(lengths_of(Shape(65, 5, 1, 1, ragged=1))) == 1


def test_padding_waste_is_the_share_of_padded_steps() -> None:
    assert padding_waste(Shape(8, 16, 1, 1, ragged=1)) == 1 - 72 / 128
    assert padding_waste(Shape(8, 16, 1, 1)) == padding_waste(Shape(0, 16, 1, 1, ragged=1)) == 0


@cells
def test_inputs_are_deterministic_and_leave_the_gates_unsaturated(kernel: Any, cell: Cell) -> None:
    shape = kernel.Shape(16, 8, 96, 128, L=2, D=2)
    tensors = kernel.inputs(shape, "fp32", "cpu", 7)
    assert all(torch.equal(tensor, kernel.inputs(shape, "fp32", "cpu", 7)[name]) for name, tensor in tensors.items())
    assert not torch.equal(tensors["x"], kernel.inputs(shape, "fp32", "cpu", 8)["x"])
    gates = tensors["x"] @ tensors["weight_ih"][0].t() + tensors["h_0"][0] @ tensors["weight_hh"][0, 0].t()
    assert 0.5 < gates.std() < 1.5
    assert run(cell, shape, tensors)[0].abs().mean() > 0.05


@pytest.mark.parametrize("kernel", [lstm, gru, rnn], ids=["lstm", "gru", "rnn"])
@pytest.mark.parametrize("sizes", [(40, 5, 6, 7), (20, 9, 6, 7, 2, 2, 3, 1), (3, 4, 5, 6, 1, 1, 1, 1)])
@pytest.mark.parametrize("seed", range(4))
def test_a_spot_check_is_a_part_of_the_whole(kernel: Any, sizes: tuple[int, ...], seed: int) -> None:
    shape = kernel.Shape(*sizes)
    tensors = kernel.inputs(shape, "fp32", "cpu", 0)
    tensors = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    whole = kernel.reference(shape, **tensors)
    for smaller, part, of_whole, of_part in kernel.spot(shape, tensors, seed):
        assert min(shape.B, 16) == smaller.B
        close(of_whole(whole), of_part(kernel.reference(smaller, **part)))
        marked = [output.clone() for output in whole]
        for output in marked:
            output.view(-1)[-1] = math.nan
        assert all(output.isnan().any() for output in of_whole(marked))
