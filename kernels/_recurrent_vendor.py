"""The recurrent kernels as PyTorch's own libraries compute them, and weights in the form of torch.nn.

On CUDA torch.nn.LSTM, GRU and RNN are cuDNN. On a CPU an LSTM in fp32 and bf16 is oneDNN, and everything else is a loop
over steps inside one operator. All of them do the input product once for all steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence
from torch.utils.weak import WeakTensorKeyDictionary

from ._recurrent import Cell, Shape, Tensors, check, fold, folded_lengths, unfold, weights_of
from ._torch import once_differentiable


def flat_weights(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Tensor]:
    """List the weights as torch.nn does: for every layer and direction weight_ih, weight_hh, bias_ih, bias_hh."""
    flat: list[Tensor] = []
    no_bias = None
    for weight_ih, weight_hh, bias, state_bias in weights_of(cell, shape, tensors):
        if state_bias is None:
            no_bias = state_bias = bias.new_zeros(bias.shape) if no_bias is None else no_bias
        flat += [weight_ih, weight_hh, bias, state_bias]
    return flat


def to_module(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> Any:
    """Make the torch.nn module of this shape with a copy of these weights, drawing no random numbers for it."""
    options = {"nonlinearity": cell.name.removeprefix("rnn_")} if cell.module is nn.RNN else {}
    weight = tensors["weight_ih"]
    module = cell.module(
        shape.I,
        shape.H,
        num_layers=shape.L,
        bidirectional=shape.D == 2,
        device="meta",
        dtype=weight.dtype,
        **options,
    ).to_empty(device=weight.device)
    with torch.no_grad():
        for parameter, value in zip(module.parameters(), flat_weights(cell, shape, tensors), strict=True):
            parameter.copy_(value)
    return module


def from_module(module: Any) -> Tensors:
    """Take the weights out of a torch.nn.LSTM, GRU or RNN, differentiably; raises ValueError for projections."""
    if module.proj_size:
        raise ValueError(f"proj_size={module.proj_size} is not supported here; a module with proj_size=0 was expected")
    directions = 2 if module.bidirectional else 1
    parameters = dict(module.named_parameters())

    def stacked(name: str, first: int, last: int) -> Tensor:
        suffixes = ("", "_reverse")[:directions]
        names = [[f"{name}_l{layer}{suffix}" for suffix in suffixes] for layer in range(first, last)]
        return torch.stack([torch.stack([parameters[one] for one in layer]) for layer in names])

    weights = {"weight_ih": stacked("weight_ih", 0, 1)[0], "weight_hh": stacked("weight_hh", 0, module.num_layers)}
    if module.num_layers > 1:
        weights["weight_ih_upper"] = stacked("weight_ih", 1, module.num_layers)
    split = 2 * module.hidden_size
    if not module.bias:
        rows = weights["weight_hh"].shape[2] + (module.hidden_size if module.mode == "GRU" else 0)
        weights["bias"] = weights["weight_hh"].new_zeros(module.num_layers, directions, rows)
        return weights
    of_input, of_state = (stacked(name, 0, module.num_layers) for name in ("bias_ih", "bias_hh"))
    if module.mode == "GRU":
        both = (of_input + of_state)[..., :split]
        weights["bias"] = torch.cat([both, of_input[..., split:], of_state[..., split:]], dim=2)
    else:
        weights["bias"] = of_input + of_state
    return weights


@dataclass
class _Flattened:
    """A copy of stacks of weights in the one buffer that cuDNN wants.

    module : holds the buffer. places, versions : where the stacks lay, and how often they had been written, when they
    were copied. held : all stacks but the recurrent weights, so that no other tensor takes their place in memory.
    """

    module: Any
    places: list[tuple[int, tuple[int, ...]]]
    versions: list[int]
    held: list[Tensor]


# By the recurrent weights.
_FLATTENED: Any = WeakTensorKeyDictionary()
# By the lengths: how often they had been written, and their copy.
_ON_HOST: Any = WeakTensorKeyDictionary()


def _flattened(cell: Cell, shape: Shape, tensors: dict[str, Any], stacks: list[Tensor]) -> list[Tensor]:
    """The weights in one buffer, copied again where a stack is another tensor or was written to.

    What was written to is copied into the same buffer, so that gradients of outputs from before are refused, as those
    of a module are whose parameters were written to.
    """
    places = [(stack.data_ptr(), stack.stride()) for stack in stacks]
    versions = [stack._version for stack in stacks]
    known = _FLATTENED.get(tensors["weight_hh"])
    if known is None or known.places != places:
        module = to_module(cell, shape, tensors).requires_grad_(False)
        held = [stack.detach() for stack in stacks if stack is not tensors["weight_hh"]]
        known = _FLATTENED[tensors["weight_hh"]] = _Flattened(module, places, versions, held)
    elif known.versions != versions:
        with torch.no_grad():
            torch._foreach_copy_(known.module._flat_weights, flat_weights(cell, shape, tensors))
        known.versions = versions
    return known.module._flat_weights


class _Parameters(torch.autograd.Function):
    """Copies of the weights in the place of what they were copied from: their gradients are those of the stacks."""

    @staticmethod
    def forward(ctx: Any, cell: Cell, shape: Shape, copies: list[Tensor], *stacks: Tensor) -> tuple[Tensor, ...]:
        ctx.cell, ctx.shape, ctx.sizes = cell, shape, [stack.shape for stack in stacks]
        return tuple(copy.detach() for copy in copies)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        parts = _by_stack(ctx.cell, ctx.shape, list(gradients))
        return None, None, None, *(_joined(part, size) for part, size in zip(parts, ctx.sizes, strict=True))


def _by_stack(cell: Cell, shape: Shape, flat: list[Tensor]) -> list[list[Tensor]]:
    """Sort what `flat_weights` lists into its stacks: weight_ih, perhaps weight_ih_upper, weight_hh and bias."""
    of_input, of_state, biases, state_biases = (flat[place::4] for place in range(4))
    if cell.biases > cell.gates:  # the last gate of the state has a bias of its own
        own = [bias[(cell.gates - 1) * shape.H :] for bias in state_biases]
        biases = [part for pair in zip(biases, own) for part in pair]
    upper = [of_input[shape.D :]] if shape.L > 1 else []
    return [of_input[: shape.D], *upper, of_state, biases]


def _joined(parts: list[Tensor], size: torch.Size) -> Tensor:
    """Parts of a stack behind one another, in its size; a single dense one is not copied."""
    return (parts[0] if len(parts) == 1 else torch.cat([part.reshape(-1) for part in parts])).reshape(size)


def _wants_buffer(weight: Tensor) -> bool:
    """Whether the operator takes its weights out of one buffer: on CUDA cuDNN does."""
    return weight.is_cuda


def _vendor_weights(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Tensor]:
    """Weights for the operator. cuDNN would copy them in every call if they did not lie in one buffer, as those of a
    module do; beside such a module a training step then has one join of the gradients for every stack of several."""
    names = ("weight_ih", "weight_ih_upper", "weight_hh", "bias")
    stacks = [tensors[name] for name in names if tensors.get(name) is not None]
    if not _wants_buffer(stacks[0]):
        return flat_weights(cell, shape, tensors)
    copies = _flattened(cell, shape, tensors, stacks)
    if torch.is_grad_enabled() and any(stack.requires_grad for stack in stacks):
        return list(_Parameters.apply(cell, shape, copies, *stacks))  # pyright: ignore[reportGeneralTypeIssues]
    return copies


def _host_lengths(shape: Shape, tensors: dict[str, Any]) -> Tensor | None:
    """Steps of every folded row on the CPU, where packing needs them; copied once, so that no later call waits."""
    lengths = tensors.get("lengths")
    if lengths is not None and lengths.is_cuda:
        known = _ON_HOST.get(lengths)
        if known is None or known[0] != lengths._version:
            known = _ON_HOST[lengths] = (lengths._version, lengths.cpu())
        lengths = known[1]
    return folded_lengths(shape, lengths, "cpu")


def _states(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Tensor]:
    size = (shape.L * shape.D, shape.folded_rows, shape.H)
    given = [tensors.get(name) for name in ("h_0", "c_0")[: cell.states]]
    return [tensors["x"].new_zeros(size) if state is None else state.contiguous() for state in given]


def _operator(cell: Cell, shape: Shape, tensors: dict[str, Any], states: list[Tensor], *data: Tensor) -> tuple:
    """Call what torch.nn calls: `data` is x, or the values and batch sizes of a packed sequence."""
    start = tuple(states) if cell.states == 2 else states[0]
    train = torch.is_grad_enabled() and any(
        tensor.requires_grad for tensor in tensors.values() if isinstance(tensor, Tensor)
    )
    weights = _vendor_weights(cell, shape, tensors)
    last = () if len(data) == 2 else (False,)  # batch_first
    before = (data[0], start) if len(data) == 1 else (*data, start)
    return getattr(torch._VF, cell.name)(*before, weights, True, shape.L, 0.0, train, shape.D == 2, *last)


def run_torch(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    """Compute the stack by torch.nn's operator: dilation by folding, rows of different lengths by packing.

    What a module would not start besides is one join per stack of several weights' gradients, gru's join of its biases'
    gradients, folding and packing, and after weights were written to a copy of them.
    """
    check(cell, shape, tensors)
    x = fold(shape, tensors["x"])
    lengths = _host_lengths(shape, tensors)
    states = _states(cell, shape, tensors)
    if lengths is None or not shape.B:  # packing has no empty batches
        y, *finals = _operator(cell, shape, tensors, states, x)
        return unfold(shape, y), *finals
    packed = pack_padded_sequence(x, lengths, enforce_sorted=False)
    order, back = packed.sorted_indices, packed.unsorted_indices
    assert order is not None and back is not None  # rows are sorted unless enforce_sorted
    states = [state.index_select(1, order) for state in states]
    data, *finals = _operator(cell, shape, tensors, states, packed.data, packed.batch_sizes)
    result = PackedSequence(data, packed.batch_sizes, order, back)
    y, _ = pad_packed_sequence(result, total_length=shape.folded_steps)
    return unfold(shape, y), *(state.index_select(1, back) for state in finals)


def run_onednn(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    """Compute by oneDNN's primitive for training, which PyTorch takes while gradients are enabled.

    In fp32 it is a chain of plain BLAS products where that for inference is blocked. On two cores a step of H = 16
    takes 0.4 us instead of 1.2 us, and one of H = 256 and more takes longer.
    """
    detached = {name: tensor.detach() for name, tensor in tensors.items() if tensor is not None}
    with torch.enable_grad():
        return run_torch(cell, shape, **detached)


def run_padded(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    """Compute all T steps of every row, then blank what lies after its end and pick the state at its last step."""
    check(cell, shape, tensors)
    x = fold(shape, tensors["x"])
    lengths = folded_lengths(shape, tensors["lengths"], x.device)
    assert lengths is not None  # check() has seen them
    y, _ = _operator(cell, shape, tensors, _states(cell, shape, tensors), x)
    last = (lengths - 1)[None, :, None].expand(1, -1, shape.H)
    inside = torch.arange(len(x), device=x.device)[:, None] < lengths
    return unfold(shape, torch.where(inside[..., None], y, 0)), y.gather(0, last)
