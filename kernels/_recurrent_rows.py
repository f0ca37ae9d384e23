"""The rows of IMPLEMENTATIONS that lstm, gru and rnn share: PyTorch's loop, torch.compile, and the vendors'."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from ..roofline.contract import Implementation, Weights
from ._recurrent import Cell, Shape, lengths_of
from ._recurrent_cost import CellCost, depth_by_layer
from ._recurrent_launch import recurrence
from ._recurrent_parts import torch_parts, triton_parts
from ._recurrent_peers import peer_rows
from ._recurrent_plan import Plan, Schedule, device_limits, plan_depth, plan_for
from ._recurrent_tiles import DeviceCell
from ._recurrent_vendor import run_onednn, run_padded, run_torch
from ._torch import run_compiled, tf32_on_cpu, why_no_compiler
from ._triton import interpreted, why_no_triton

CellOf = Callable[[Any], Cell]

# An unrolled loop compiles in proportion to its length: on two cores 64 steps took 9 to 19 s and 256 steps 68 s.
_UNROLLED_STEPS = 64
# float16 products of a CPU run at about 1 GFLOP/s: beyond this a call takes longer than a second.
_SLOW_FLOPS = 1e9
# Processors and compute capability of an H200, for derivations without a GPU.
_H200 = (132, (9, 0))


def _steps(shape: Shape) -> int:
    """Steps of all layers and directions, which the reference does one after the other."""
    return shape.L * shape.D * shape.folded_steps


def _depth(shape: Shape, dtype: str, device: str, direction: str) -> int | None:
    """One layer after the other; on a CPU also one direction after the other. cuDNN is free to overlap them."""
    return shape.D * depth_by_layer(shape, direction) if device == "cpu" else None


def _why_slow(shape: Shape, dtype: str, device: str) -> str | None:
    flops = 2 * sum(lengths_of(shape)) * shape.L * shape.D * 4 * shape.H * (max(shape.I, shape.H) + shape.H)
    if device == "cpu" and dtype == "fp16" and flops > _SLOW_FLOPS:
        return "float16 products on a CPU run at about 1 GFLOP/s; these would take longer than a second"
    return tf32_on_cpu(dtype, device)


def why_not_torch(shape: Shape, dtype: str, device: str) -> str | None:
    """Say why torch.nn's operator cannot compute this, or None when it can."""
    shortest = min(lengths_of(shape), default=shape.T)
    if shape.dilation > shortest:
        return (
            f"with dilation={shape.dilation} a row of {shortest} steps has phases without any; torch cannot pack those"
        )
    return _why_slow(shape, dtype, device)


def why_not_onednn(shape: Shape, dtype: str, device: str) -> str | None:
    """Say why oneDNN's primitive for training cannot be asked for, or None when it can."""
    if device != "cpu":
        return "oneDNN is a library for CPUs"
    if not torch.backends.mkldnn.is_available():
        return "this build of PyTorch has no oneDNN"
    if dtype != "fp32":
        return f"oneDNN's primitives for training and inference differ in fp32 only, not in {dtype}"
    if shape.ragged or shape.T % shape.dilation:
        return "PyTorch does not give packed sequences to oneDNN"
    return tf32_on_cpu(dtype, device)


def why_not_padded(states: int, shape: Shape, dtype: str, device: str) -> str | None:
    """Say why rows cannot be computed past their end and cut afterwards, or None when they can."""
    if not shape.ragged:
        return "all rows have the same length; the row `torch` computes exactly this"
    if states == 2:
        return "the state c at the end of a row is inside torch.nn.LSTM, which returns it for the last step only"
    if shape.D == 2:
        return "the reverse direction would begin in the padding instead of at the end of a row"
    if shape.L > 1:
        return "torch.nn returns the steps of the last layer only, so the others' states at the end of a row are lost"
    return why_not_torch(shape, dtype, device)


def why_no_unrolling(shape: Shape, dtype: str, device: str) -> str | None:
    """Say why torch.compile is not asked to unroll the reference, or None when it is."""
    if _steps(shape) > _UNROLLED_STEPS:
        return (
            f"torch.compile unrolls the loop and takes about 0.25 s for each of {_steps(shape)} steps; "
            f"shapes with T L D / dilation of at most {_UNROLLED_STEPS} are compiled"
        )
    return why_no_compiler(shape, dtype, device)


def _small_hidden(cell_name: str, direction: str) -> int:
    """Largest hidden size of cuDNN's persistent algorithm for small ones, as PyTorch chooses it."""
    vanilla = cell_name.startswith("rnn")
    if direction == "forward":
        return 384 if vanilla else 192
    return 256 if vanilla else 128


def cudnn_algorithm(
    cell_name: str,
    shape: Shape,
    dtype: str,
    direction: str,
    sms: int = _H200[0],
    capability: tuple[int, int] = _H200[1],
) -> str:
    """Derive the algorithm that PyTorch asks of cuDNN: "persistent static", its "small H" variant, or "standard".

    Weights stay on chip in the first two. cell_name is that of `Cell`; for direction "both" the two halves are named
    when they differ. The rules are those of compute capability 8.0 and newer.
    Source: PyTorch, aten/src/ATen/native/cudnn/RNN.cpp, get_algo and the functions above it.
    """
    if direction == "both":
        halves = [cudnn_algorithm(cell_name, shape, dtype, half, sms, capability) for half in ("forward", "backward")]
        return halves[0] if halves[0] == halves[1] else f"{halves[0]} forward, {halves[1]} backward"
    if shape.ragged or shape.T % shape.dilation or dtype == "fp64":
        return "standard"
    if _small_hidden(cell_name, direction) >= shape.H:
        return "persistent static, small H"
    batch = shape.folded_rows
    persistent = (
        dtype == "fp16"
        and (shape.L, shape.D) == (1, 1)
        and shape.H <= 1024
        and shape.H % 128 == 0
        and shape.I % 128 == 0
        and sms >= 98
        and capability[1] != 6
        and cell_name != "gru"
        and batch % 8 == 0
        and batch <= 128
        and (cell_name == "lstm" or batch < 96 or shape.H < 896)
    )
    return "persistent static" if persistent else "standard"


def _derived(cell_of: CellOf, shape: Shape, dtype: str, device: str, direction: str) -> str | None:
    if device == "cpu":
        return None
    processors, capability = _H200
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        processors, capability = properties.multi_processor_count, (properties.major, properties.minor)
    if capability < (8, 0):
        return None
    return cudnn_algorithm(cell_of(shape).name, shape, dtype, direction, processors, capability)


def _vendor_weights(cell_of: CellOf, shape: Shape, dtype: str, device: str) -> Weights:
    derived = _derived(cell_of, shape, dtype, device, "forward")
    return "kept" if derived and derived.startswith("persistent") else "reread"


def _triton_rows(
    device_of: Callable[[Any], DeviceCell], cost_of: Callable[[Any], CellCost]
) -> dict[str, Implementation]:
    """The Triton rows: one launch per step, and one launch for the whole sequence, which reads or keeps its weights."""

    def plan(shape: Shape, dtype: str, device: str, schedule: Schedule) -> Plan | str:
        return plan_for(device_of(shape), shape, dtype, schedule, *device_limits(device))

    def why_not(schedule: Schedule, shape: Shape, dtype: str, device: str) -> str | None:
        if dtype == "fp64" and not interpreted():
            return "the Triton kernels add up in float32; float64 is for the reference"
        refused = why_no_triton(device) or tf32_on_cpu(dtype, device)
        if refused or not shape.B:
            return refused
        found = plan(shape, dtype, device, schedule)
        return found if isinstance(found, str) else None

    def launches(shape: Shape, dtype: str, device: str) -> int:
        # The input product of every layer, and every step of it.
        return shape.L * (1 + shape.folded_steps)

    def depth(schedule: Schedule, shape: Shape, dtype: str, device: str, direction: str) -> int | None:
        found = plan(shape, dtype, device, schedule)
        return None if isinstance(found, str) else plan_depth(found, shape, direction)

    def row(schedule: Schedule, **declared: Any) -> Implementation:
        return Implementation(
            lambda shape, **tensors: recurrence(device_of(shape), shape, schedule, **tensors),
            supports=partial(why_not, schedule),
            hoists=True,
            parts=partial(triton_parts, device_of, cost_of, schedule),
            **declared,
        )

    def by_layer(shape: Shape, dtype: str, device: str, direction: str) -> int:
        return depth_by_layer(shape, direction)

    whole: dict[str, Any] = {"chain": "barrier", "launches": lambda shape, dtype, device: 2 * shape.L}
    return {
        "triton_step": row("step", weights="reread", chain="launch", launches=launches, depth=by_layer, grad=True),
        "triton_streamed": row("streamed", weights="reread", depth=partial(depth, "streamed"), **whole),
        "triton_resident": row("resident", weights="kept", depth=partial(depth, "resident"), grad=True, **whole),
    }


def rows(
    cell_of: CellOf,
    reference: Callable[..., Any],
    operators: int,
    device_of: Callable[[Any], DeviceCell],
    cost_of: Callable[[Any], CellCost],
    onednn: bool = False,
) -> dict[str, Implementation]:
    """Make the rows of a kernel.

    cell_of, device_of, cost_of : map a shape to its cell in PyTorch and in Triton, and to its costs.
    operators : PyTorch operators that one step of the reference starts on the device.
    onednn : PyTorch has a layer of oneDNN for this cell.
    """

    def by(run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda shape, **tensors: run(cell_of(shape), shape, **tensors)

    # A step of a vendor's kernel waits inside the kernel as far as anybody can tell: the smallest latency, so that the
    # floor stays a lower bound.
    vendor: dict[str, Any] = {
        "weights": partial(_vendor_weights, cell_of),
        "chain": "inside",
        "launches": lambda shape, dtype, device: 2 * shape.L,
        "hoists": True,
        "depth": _depth,
        "algorithm": partial(_derived, cell_of),
    }
    return {
        "reference": Implementation(
            reference,
            launches=lambda shape, dtype, device: operators * _steps(shape),
            supports=_why_slow,
            depth=lambda shape, dtype, device, direction: shape.D * depth_by_layer(shape, direction),
            grad=True,
        ),
        "compile": Implementation(
            run_compiled(reference),
            launches=lambda shape, dtype, device: 3 * _steps(shape),
            supports=why_no_unrolling,
            depth=lambda shape, dtype, device, direction: shape.D * depth_by_layer(shape, direction),
            grad=True,
        ),
        "torch": Implementation(
            by(run_torch),
            supports=why_not_torch,
            grad=True,
            parts=partial(torch_parts, cell_of, cost_of),
            **vendor,
        ),
        "torch.padded": Implementation(
            by(run_padded),
            supports=lambda shape, dtype, device: why_not_padded(cell_of(shape).states, shape, dtype, device),
            grad=True,
            **vendor,
        ),
        **({"torch.onednn": Implementation(by(run_onednn), supports=why_not_onednn, **vendor)} if onednn else {}),
        **_triton_rows(device_of, cost_of),
        **peer_rows(cell_of),
    }
