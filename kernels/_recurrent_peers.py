"""Other people's recurrent kernels as rows, where their packages can be imported: FlashRNN, TorchRL, Haste.

None of them is a dependency, and none has been run here: the calls are written for the versions named below and have
not been executed on a GPU. A package that is not installed makes no row. Letters as in `_recurrent`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import shutil
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import Chain, Implementation
from ._recurrent import Cell, Shape, Tensors, check, weights_of
from ._torch import DTYPES

# Row -> package to import. Written for flashrnn 1.0.4, haste_pytorch 0.5.0rc0, and the main branch of TorchRL of 2026,
# whose functions take `input_precision`.
MODULES = {"flashrnn": "flashrnn", "torchrl": "torchrl", "haste": "haste_pytorch"}
# TorchRL keeps its Triton kernels in a private module; the row asks for these names and refuses without them.
_TORCHRL_MODULE = "torchrl.modules.tensordict_module._rnn_triton"
_TORCHRL_FUNCTIONS = {"lstm": "lstm_triton", "gru": "gru_triton"}
# From this hidden size on TorchRL launches one kernel per step instead of one for all.
_TORCHRL_STEPWISE = 512
# FlashRNN's fused kernel cuts the hidden units into tiles of so many; its own tests go no finer.
_FLASHRNN_UNITS = 32


def peer_rows(cell_of: Callable[[Any], Cell]) -> dict[str, Implementation]:
    """Rows of the packages that are installed; they are looked for, not imported. cell_of : a shape's cell."""
    made = {"flashrnn": _flashrnn_row, "torchrl": _torchrl_row, "haste": _haste_row}
    return {row: made[row](cell_of) for row, package in MODULES.items() if importlib.util.find_spec(package)}


def why_not_plain(shape: Shape, device: str, cells: tuple[str, ...], cell: Cell) -> str | None:
    """Say what of a case none of the packages computes, or None; `cells` are the cells that one of them has."""
    if cell.name not in cells:
        return f"this package computes {' and '.join(cells)}, not {cell.name}"
    if device != "cuda":
        return "this package's kernels need an NVIDIA GPU"
    if (shape.L, shape.D, shape.dilation, shape.ragged) != (1, 1, 1, 0):
        return "this package computes one layer in one direction over rows of one length, without dilation"
    return None if shape.B else "this package was not written for empty batches"


def _initial(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Tensor]:
    """The initial states (B, H) of one layer, zeros where none is given."""
    given = [tensors.get(name) for name in ("h_0", "c_0")[: cell.states]]
    return [tensors["x"].new_zeros(shape.B, shape.H) if state is None else state[0] for state in given]


def flashrnn_layout(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Wx (B, T, G, 1, H), R (G, 1, H, H), b (G, 1, H) and states (2, B, 1, 1, H) of one head, as FlashRNN takes them.

    The input product is done here: FlashRNN begins after it. R[g, n, d, p] goes from unit p to unit d.
    """
    weight_ih, weight_hh, bias, _ = weights_of(cell, shape, tensors)[0]
    product = F.linear(tensors["x"], weight_ih).view(shape.T, shape.B, cell.gates, 1, shape.H)
    states = torch.stack(_initial(cell, shape, tensors))[:, :, None, None]
    heads = (cell.gates, 1, shape.H)
    return product.transpose(0, 1), weight_hh.view(*heads, shape.H), bias.view(heads), states


def from_flashrnn(steps: Tensor, last: Tensor) -> tuple[Tensor, ...]:
    """Give y, h_n and c_n from FlashRNN's states at all steps (2, B, T, 1, H) and at the last (2, B, 1, 1, H)."""
    return steps[0, :, :, 0].transpose(0, 1), *(state[:, 0, 0][None] for state in last)


def _run_flashrnn(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    check(cell, shape, tensors)
    package = importlib.import_module("flashrnn")
    layout = flashrnn_layout(cell, shape, tensors)
    kind = str(tensors["x"].dtype).removeprefix("torch.")
    return from_flashrnn(
        *package.flashrnn(*layout[:3], states=layout[3], function="lstm", backend="cuda_fused", dtype=kind)
    )


def _flashrnn_row(cell_of: Callable[[Any], Cell]) -> Implementation:
    """One cooperative launch with the weights on chip; two barriers per step where several programs share a head."""

    def why_not(shape: Shape, dtype: str, device: str) -> str | None:
        refused = why_not_plain(shape, device, ("lstm",), cell_of(shape))
        if refused:
            return refused
        if dtype not in ("bf16", "fp16", "fp32"):
            return f"FlashRNN has kernels for bf16, fp16 and fp32, not for {dtype}"
        if shape.H % _FLASHRNN_UNITS:
            return f"FlashRNN's fused kernel wants H to be a multiple of {_FLASHRNN_UNITS}, not {shape.H}"
        return None if shutil.which("nvcc") else "FlashRNN compiles its kernels with nvcc, which is not installed"

    return Implementation(
        lambda shape, **tensors: _run_flashrnn(cell_of(shape), shape, **tensors),
        weights="kept",
        chain="barrier",
        launches=2,
        supports=why_not,
        hoists=True,
        grad=True,
    )


def torchrl_layout(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[Tensor]:
    """The tensors of TorchRL's lstm_triton or gru_triton: x (B, T, I), the states (B, T, H), weights, biases, resets.

    The states are those to begin again with at every step that the mask of resets (B, T) names; here the first alone
    counts, and nothing is reset.
    """
    weight_ih, weight_hh, bias, state_bias = weights_of(cell, shape, tensors)[0]
    rest = tensors["x"].new_zeros(shape.B, shape.T - 1, shape.H)
    states = [torch.cat((state[:, None], rest), dim=1) for state in _initial(cell, shape, tensors)]
    second = torch.zeros_like(bias) if state_bias is None else state_bias
    resets = torch.zeros(shape.B, shape.T, dtype=torch.bool, device=bias.device)
    return [tensors["x"].transpose(0, 1).contiguous(), *states, weight_ih, weight_hh, bias, second, resets]


def from_torchrl(cell: Cell, results: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Give y and the last states: TorchRL returns all steps (B, T, H) of h, and of c, then the last (B, H) of each."""
    return results[0].transpose(0, 1), *(state[None] for state in results[cell.states :])


@cache
def _torchrl_function(name: str) -> Callable[..., Any] | str:
    """One of TorchRL's private functions, or why it cannot be called."""
    try:
        function = getattr(importlib.import_module(_TORCHRL_MODULE), _TORCHRL_FUNCTIONS[name], None)
    except ImportError as error:
        return f"TorchRL's Triton kernels cannot be imported: {error}"
    if function is None or "input_precision" not in inspect.signature(function).parameters:
        return f"this TorchRL has no {_TORCHRL_FUNCTIONS[name]} with input_precision, a private name that may change"
    return function


def _torchrl_row(cell_of: Callable[[Any], Cell]) -> Implementation:
    """A program keeps some sequences' states and reads all weights at every step; large H is launched step by step."""

    def run(shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
        cell = cell_of(shape)
        check(cell, shape, tensors)
        function = _torchrl_function(cell.name)
        if isinstance(function, str):
            raise RuntimeError(function + ".")
        precision = "tf32" if torch.backends.cuda.matmul.allow_tf32 else "ieee"
        return from_torchrl(cell, function(*torchrl_layout(cell, shape, tensors), input_precision=precision))

    def why_not(shape: Shape, dtype: str, device: str) -> str | None:
        cell = cell_of(shape)
        refused = why_not_plain(shape, device, tuple(_TORCHRL_FUNCTIONS), cell)
        if refused:
            return refused
        if DTYPES[dtype] != torch.float32:
            return f"TorchRL's kernels take float32 data, not {dtype}"
        function = _torchrl_function(cell.name)
        return function if isinstance(function, str) else None

    def chain(shape: Shape, dtype: str, device: str) -> Chain:
        return "launch" if shape.H >= _TORCHRL_STEPWISE else "inside"

    return Implementation(
        run,
        weights="reread",
        chain=chain,
        launches=lambda shape, dtype, device: 1 + (shape.T if shape.H >= _TORCHRL_STEPWISE else 1),
        supports=why_not,
        hoists=True,
        grad=True,
    )


# Haste's order of gates by torch's: i, g, f, o and z, r, n.
_HASTE_ORDER = {"lstm": (0, 2, 1, 3), "gru": (1, 0, 2)}


def haste_layout(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> tuple[Tensors, Any]:
    """The parameters of haste_pytorch.LSTM or GRU by name, weights as (inputs, G H), and its initial state."""

    def ordered(rows: Tensor) -> Tensor:
        gates = rows.unflatten(0, (cell.gates, shape.H))
        return torch.cat([gates[gate] for gate in _HASTE_ORDER[cell.name]])

    weight_ih, weight_hh, bias, state_bias = weights_of(cell, shape, tensors)[0]
    parameters = {
        "kernel": ordered(weight_ih).t(),
        "recurrent_kernel": ordered(weight_hh).t(),
        "bias": ordered(bias),
    }
    if state_bias is not None:
        parameters["recurrent_bias"] = ordered(state_bias)
    states = [state[None] for state in _initial(cell, shape, tensors)]
    return parameters, tuple(states) if cell.states == 2 else states[0]


@cache
def _haste_module(name: str, inputs: int, hidden: int) -> Any:
    """A layer whose own parameters are never used; making one draws orthogonal matrices, which takes a while."""
    return getattr(importlib.import_module("haste_pytorch"), name.upper())(inputs, hidden)


def _run_haste(cell: Cell, shape: Shape, **tensors: Any) -> tuple[Tensor, ...]:
    check(cell, shape, tensors)
    parameters, state = haste_layout(cell, shape, tensors)
    module = _haste_module(cell.name, shape.I, shape.H).train(torch.is_grad_enabled())
    y, last = torch.func.functional_call(module, parameters, (tensors["x"], state))
    return (y, *last) if cell.states == 2 else (y, last)


def _haste_row(cell_of: Callable[[Any], Cell]) -> Implementation:
    """The input product for all steps, then a product and an elementwise kernel per step."""

    def why_not(shape: Shape, dtype: str, device: str) -> str | None:
        refused = why_not_plain(shape, device, tuple(_HASTE_ORDER), cell_of(shape))
        return refused or (None if dtype == "fp32" else f"Haste computes in float32 and float64, not in {dtype}")

    return Implementation(
        lambda shape, **tensors: _run_haste(cell_of(shape), shape, **tensors),
        weights="reread",
        chain="launch",
        launches=lambda shape, dtype, device: 1 + 2 * shape.T,
        supports=why_not,
        hoists=True,
        grad=True,
    )
