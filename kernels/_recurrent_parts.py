"""The phases of lstm, gru and rnn that can be run alone: the input product of all steps, and the steps given it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import PartCall
from ._recurrent import Cell, Shape, fold, folded_lengths
from ._recurrent_cost import INPUT_PRODUCT, RECURRENCE, CellCost, part_works
from ._recurrent_launch import phases
from ._recurrent_plan import Schedule
from ._recurrent_tiles import DeviceCell
from ._recurrent_vendor import run_torch
from ._torch import dtype_of


def triton_parts(
    device_of: Callable[[Any], DeviceCell],
    cost_of: Callable[[Any], CellCost],
    schedule: Schedule,
    shape: Shape,
    tensors: dict[str, Any],
) -> list[PartCall]:
    """Both phases of a Triton row. In a wavefront the layers above the lowest multiply their inputs in their steps."""
    if not shape.B:
        return []
    halves = phases(device_of(shape), shape, schedule, **tensors)
    works = part_works(cost_of(shape), shape, dtype_of(tensors["x"]), halves.layers)
    calls = {INPUT_PRODUCT: halves.multiply, RECURRENCE: halves.advance}
    return [PartCall(name, call, works[name]) for name, call in calls.items()]


def torch_parts(
    cell_of: Callable[[Any], Cell], cost_of: Callable[[Any], CellCost], shape: Shape, tensors: dict[str, Any]
) -> list[PartCall]:
    """The input product of torch.nn's operator, as plain products of all valid steps.

    Its recurrence is no part: the libraries take no product that was computed before, so their steps cannot be run
    without it, and the difference to the whole would not be measured.
    """
    if not shape.B:
        return []
    with torch.no_grad():
        operands = _operands(cell_of(shape), shape, tensors)
    work = part_works(cost_of(shape), shape, dtype_of(tensors["x"]))[INPUT_PRODUCT]
    return [PartCall(INPUT_PRODUCT, partial(_multiply, operands), work)]


@torch.no_grad()
def _multiply(operands: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    return [F.linear(values, weight) for values, weight in operands]


def _operands(cell: Cell, shape: Shape, tensors: dict[str, Any]) -> list[tuple[Tensor, Tensor]]:
    """Inputs of all valid steps (N, I_l) and weights (D G H, I_l) of every layer."""
    lengths = folded_lengths(shape, tensors.get("lengths"), tensors["x"].device)
    found = []
    for layer in range(shape.L):
        source = tensors["x"] if layer == 0 else _below(cell, shape, tensors, layer)
        weight = tensors["weight_ih"] if layer == 0 else tensors["weight_ih_upper"][layer - 1]
        values = fold(shape, source)
        steps = torch.arange(len(values), device=values.device)[:, None]
        dense = values.flatten(0, 1) if lengths is None else values[steps < lengths]
        found.append((dense, weight.flatten(0, 1)))
    return found


def _below(cell: Cell, shape: Shape, tensors: dict[str, Any], layers: int) -> Tensor:
    """The outputs (T, B, D H) of the lowest `layers` layers."""
    upper = {"weight_ih_upper": tensors["weight_ih_upper"][: layers - 1]} if layers > 1 else {}
    cut = {
        name: tensor[: layers * (1 if name in ("weight_hh", "bias") else shape.D)]
        for name, tensor in tensors.items()
        if name in ("weight_hh", "bias", "h_0", "c_0") and tensor is not None
    }
    rest = {name: tensors.get(name) for name in ("x", "weight_ih", "lengths")}
    return run_torch(cell, replace(shape, L=layers), **rest, **cut, **upper)[0]
