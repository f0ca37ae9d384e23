"""Runs the Triton kernels of `memory_attention`: which tile a shape takes, the launches, and the gradients.

`triton_step` starts two kernels per step, one that compares and one that reads and writes; the memory is streamed by
every step, three times a memory's bytes. `triton_resident` starts one for all steps, a program per batch row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..roofline.contract import CompileCase
from . import _memory_triton as kernels
from ._memory_triton import Kernel
from ._torch import ELEMENT_BYTES, once_differentiable
from ._triton import checked_options, interpreted, tl

# Norms below this count as this; float16 can still hold it, unlike the 1e-8 of torch.nn.functional.cosine_similarity.
EPSILON = 1e-6
GRADIENTS = 3  # parts of the gradients of key, erase and add


@dataclass(frozen=True)
class Tile:
    """What one program does: `rows` of `columns` values; `every` places for the weights of all rows, of its memory."""

    rows: int
    columns: int
    every: int
    warps: int


# One program for a memory: the smallest that holds it.
RESIDENT = (
    Tile(32, 32, 32, 4),
    Tile(128, 32, 128, 4),
    Tile(128, 64, 128, 8),
    Tile(256, 32, 256, 8),
    Tile(512, 16, 512, 8),
    Tile(256, 64, 256, 8),
    Tile(128, 128, 128, 8),
)
# Values of a memory for which one program has registers twice, for it and for its gradient, by the bytes of an element:
# wider ones have more rows in every thread. For larger ones the gradients of `triton_resident` take launches per step.
BACKWARD_VALUES = {2: 8192, 4: 4096, 8: 4096}
_BACKWARD_ROWS = 256  # the gradients of the weights of more rows spill
# Values of a memory that leave registers for controls loaded ahead.
_AHEAD_VALUES = 8192
# Several programs for a memory: 4096 values each, 8 KiB in 16 bit, so that a dozen programs per processor keep its
# share of the memory's bandwidth under way. Few rows per program would do the work for all weights too often.
_STEP_COLUMNS = (32, 64, 128)
_STEP_VALUES = 4096
_STEP_EVERY = (128, 1024, 2048)
_STEP_WARPS = 4  # twice as many where the weights of all rows would not fit their registers


def _step_tile(columns: int, every: int) -> Tile:
    return Tile(_STEP_VALUES // columns, columns, every, 2 * _STEP_WARPS if every > 1024 else _STEP_WARPS)


def tile_for(M: int, P: int, resident: bool) -> Tile | str:
    """Choose the tile of a memory of M rows of P values, or say in a sentence why none holds it."""
    if resident:
        fits = [tile for tile in RESIDENT if tile.rows >= M and tile.columns >= P]
        if fits:
            return fits[0]
        rows = max((tile.rows for tile in RESIDENT if tile.columns >= P), default=0)
        nearest = f"M={rows} with P={P} would fit" if rows else f"P={max(tile.columns for tile in RESIDENT)} would fit"
        return (
            f"one program keeps a whole memory in its registers and has no room for M={M} rows of P={P} values; "
            f"{nearest}, and triton_step streams larger ones"
        )
    columns = next((size for size in _STEP_COLUMNS if size >= P), None)
    every = next((size for size in _STEP_EVERY if size >= M), None)
    if columns is None or every is None:
        return (
            f"every program holds rows of at most {_STEP_COLUMNS[-1]} values and the weights of at most "
            f"{_STEP_EVERY[-1]} rows, not M={M} of P={P}; the rows reference and torch take any size"
        )
    return _step_tile(columns, every)


def walks_back(tile: Tile, element_bytes: int) -> bool:
    """Whether one program has the registers for the gradients of all steps of a memory that it keeps."""
    return tile.rows * tile.columns <= BACKWARD_VALUES[element_bytes] and tile.rows <= _BACKWARD_ROWS


def _acc(kind: torch.dtype) -> torch.dtype:
    """The type of sums."""
    return torch.float64 if kind == torch.float64 else torch.float32


def _constants(kernel: Kernel, tile: Tile, save: bool, acc: torch.dtype, interpret: bool) -> dict[str, Any]:
    """Compile-time values of a kernel."""
    sums = tl.float64 if acc == torch.float64 else tl.float32
    values = {"ROWS": tile.rows, "COLUMNS": tile.columns, "ALL": tile.every, "EPSILON": EPSILON, "ACC": sums}
    values |= {"SAVE": save, "AHEAD": tile.rows * tile.columns <= _AHEAD_VALUES, "INTERPRET": interpret}
    return {name: values[name] for name in _CONSTANTS[kernel.name].split()}


_CONSTANTS = {
    "cosines": "ROWS COLUMNS EPSILON ACC",
    "read_and_write": "ROWS COLUMNS ALL ACC INTERPRET",
    "walk": "ALL COLUMNS SAVE AHEAD EPSILON ACC INTERPRET",
    "write_gradients": "ROWS COLUMNS ACC",
    "address_gradients": "ROWS COLUMNS ALL EPSILON ACC",
    "sum_parts": "COLUMNS EPSILON ACC",
    "walk_back": "ALL COLUMNS EPSILON ACC",
}


def _options(kernel: Kernel, tile: Tile) -> dict[str, Any]:
    if kernel in (kernels.WALK, kernels.WALK_BACK):
        # All registers that a thread can have: else ptxas spills a few bytes so that one more program would fit, and a
        # batch seldom has as many.
        return checked_options(num_warps=tile.warps, num_stages=1, maxnreg=255)
    few = 1 if kernel is kernels.SUM_PARTS else _STEP_WARPS
    return checked_options(num_warps=tile.warps if "ALL" in _CONSTANTS[kernel.name] else few, num_stages=1)


@dataclass(frozen=True)
class Call:
    """One call: sizes, the tile, whether one program keeps a memory, and whether gradients are wanted."""

    T: int
    B: int
    M: int
    P: int
    tile: Tile
    resident: bool
    save: bool

    @property
    def S(self) -> int:
        """Values of a row of the memory with its padding: a multiple of 16, which 128-bit loads need."""
        return -(-self.P // 16) * 16

    @property
    def blocks(self) -> int:
        """Programs of one memory."""
        return -(-self.M // self.tile.rows)

    def launch(self, kernel: Kernel, programs: int, *arguments: Any) -> None:
        """Start a kernel with these arguments, P and S; the first points to the type of the tensors."""
        acc = _acc(arguments[0].dtype)
        constants = _constants(kernel, self.tile, self.save, acc, interpreted())
        kernel.program[(programs,)](*arguments, self.P, self.S, **constants, **_options(kernel, self.tile))


def _plain(tensor: Tensor) -> Tensor:
    """Dense rows at an address that wide loads can take."""
    dense = tensor.contiguous()
    return dense if dense.data_ptr() % 16 == 0 else dense.clone()


def _padded(tensor: Tensor, width: int) -> Tensor:
    """The same with rows of `width` values, zeros at their ends: one copy, where rows are narrower."""
    missing = width - tensor.shape[-1]
    return F.pad(tensor, (0, missing)) if missing else _plain(tensor)


def _narrow(tensor: Tensor, width: int) -> Tensor:
    """Undo `_padded`."""
    return tensor[..., :width].contiguous()


def run(call: Call, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compute all steps, differentiably; returns r, memory and weights. B is at least 1."""
    return _Memory.apply(call, memory, weights, controls)  # pyright: ignore[reportReturnType]


class _Memory(torch.autograd.Function):
    """memory (B, M, P), weights (B, M), controls (T, B, 3P + 6) -> r (T, B, P), memory, weights."""

    @staticmethod
    def forward(ctx: Any, call: Call, memory: Tensor, weights: Tensor, controls: Tensor) -> tuple[Tensor, ...]:
        memory, controls = _padded(memory, call.S), _plain(controls)
        acc = _acc(memory.dtype)
        slots = call.T + 1 if call.save else 2
        track = memory.new_empty(slots, call.B, call.M, dtype=acc)
        track[0] = weights
        cosines = memory.new_empty(call.T if call.save else 1, call.B, call.M, dtype=acc)
        history = memory.new_empty(call.T - 1 if call.save else 0, call.B, call.M, call.S)
        target = torch.empty_like(memory)
        if call.resident:
            r = memory.new_empty(call.T, call.B, call.P)
            sizes = (call.T, call.B, call.M)
            call.launch(kernels.WALK, call.B, memory, target, history, controls, cosines, track, r, *sizes)
            final = track[-1]
        else:
            r = _advance(call, memory, target, history, controls, cosines, track)
            final = track[call.T % slots]
        if call.save:
            ctx.save_for_backward(memory, controls, history, cosines, track)
            ctx.call = call
        return r, _narrow(target, call.P), final.to(memory.dtype, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        call, (memory, controls, history, cosines, track) = ctx.call, ctx.saved_tensors
        dr, dmemory, dweights = gradients
        whole = call.resident and walks_back(call.tile, dmemory.element_size())
        walk = _gradients_resident if whole else _gradients_stepwise
        # A copy: the kernels overwrite it from step to step.
        carried = dweights.to(track.dtype, memory_format=torch.contiguous_format, copy=True)
        # The padding has no gradient, so that its zeros stay zeros.
        target, *others = walk(
            call, memory, controls, history, cosines, track, _plain(dr), _padded(dmemory, call.S), carried
        )
        return None, _narrow(target, call.P), *others


def _advance(
    call: Call, memory: Tensor, target: Tensor, history: Tensor, controls: Tensor, cosines: Tensor, track: Tensor
) -> Tensor:
    """Do all steps, two launches each; returns r. Without `history` every step but the first overwrites the target."""
    programs = call.B * call.blocks
    parts = track.new_empty(call.T, call.B, call.blocks, call.S)
    source = memory
    for t in range(call.T):
        onto = history[t] if call.save and t + 1 < call.T else target
        cosine, before, after = cosines[t % len(cosines)], track[t % len(track)], track[(t + 1) % len(track)]
        call.launch(kernels.COSINES, programs, source, controls[t], cosine, call.M)
        call.launch(
            kernels.READ_AND_WRITE, programs,
            source, onto, controls[t], cosine, before, after, parts[t], call.M,
        )  # fmt: skip
        source = onto
    return _narrow(parts.sum(2), call.P).to(memory.dtype)


def _gradients_resident(
    call: Call, memory: Tensor, controls: Tensor, history: Tensor, cosines: Tensor, track: Tensor,
    dr: Tensor, dmemory: Tensor, dweights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of memory, weights and controls by one launch; dweights is overwritten."""
    target, dcontrols = torch.empty_like(memory), torch.empty_like(controls)
    tensors = (memory, history, controls, cosines, track, dr, dmemory, dweights, target, dcontrols)
    call.launch(kernels.WALK_BACK, call.B, *tensors, call.T, call.B, call.M)
    return target, dweights.to(memory.dtype), dcontrols


def _gradients_stepwise(
    call: Call, memory: Tensor, controls: Tensor, history: Tensor, cosines: Tensor, track: Tensor,
    dr: Tensor, dmemory: Tensor, dweights: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of memory, weights and controls, two launches per step and one at the end; dweights is overwritten."""
    stepwise = tile_for(call.M, call.P, resident=False)
    assert isinstance(stepwise, Tile)  # its tiles hold whatever those of one program do
    call = replace(call, tile=stepwise)
    programs = call.B * call.blocks
    dcontrols = torch.empty_like(controls)
    drows = dmemory.to(track.dtype, copy=True)
    parts = track.new_empty(call.T, call.B, call.blocks, GRADIENTS, call.S)
    along = track.new_empty(call.T, call.B)
    dshares = torch.empty_like(dweights)
    for t in reversed(range(call.T)):
        rows = history[t - 1] if t else memory
        call.launch(
            kernels.WRITE_GRADIENTS, programs,
            rows, drows, controls[t], dr[t], track[t + 1], dweights, dshares, parts[t], call.M,
        )  # fmt: skip
        call.launch(
            kernels.ADDRESS_GRADIENTS, programs,
            rows, drows, controls[t], dr[t], cosines[t], track[t], track[t + 1], dshares, dweights, parts[t],
            along[t], dcontrols[t], call.M,
        )  # fmt: skip
    call.launch(kernels.SUM_PARTS, call.T * call.B, controls, parts, along, dcontrols, call.blocks)
    return drows.to(memory.dtype), dweights.to(memory.dtype), dcontrols


_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32"}
_STEP_KERNELS = (kernels.COSINES, kernels.READ_AND_WRITE, kernels.WRITE_GRADIENTS, kernels.ADDRESS_GRADIENTS)
# The sizes of the standard suite, in the type that most run in.
_USUAL = ("bf16", 64)


def _case(kernel: Kernel, dtype: str, tile: Tile, save: bool, usual: bool, representative: bool) -> CompileCase:
    constants = _constants(kernel, tile, save, torch.float32, interpret=False)
    rows = f"{constants.get('ALL', tile.rows)} x " if kernel is not kernels.SUM_PARTS else ""
    saving = " saving" if constants.get("SAVE") else ""
    return CompileCase(
        label=f"{kernel.name.replace('_', ' ')} {dtype} {rows}{tile.columns}{saving}",
        kernel=kernel.program,
        signature={
            **dict.fromkeys(kernel.elements, _ELEMENT[dtype]),
            **dict.fromkeys(kernel.sums, "*fp32"),
            **dict.fromkeys(kernel.numbers, "i32"),
            **dict.fromkeys(constants, "constexpr"),
        },
        constexprs=constants,
        divisible=(*kernel.wide, "S"),
        options=_options(kernel, tile),
        # There is no matrix product here that tensor cores could do: every memory meets one key and one set of weights.
        expects=() if kernel is kernels.SUM_PARTS else ("wide",),
        representative=representative,
        rare=not usual,
    )


def _step_cases(dtype: str) -> Iterator[CompileCase]:
    for columns in _STEP_COLUMNS:
        usual = (dtype, columns) == _USUAL
        for every in _STEP_EVERY:
            for kernel in _STEP_KERNELS:
                whole = "ALL" in _CONSTANTS[kernel.name]
                if whole or every == _STEP_EVERY[0]:
                    middle = usual and whole and every == _STEP_EVERY[1]
                    yield _case(kernel, dtype, _step_tile(columns, every), False, usual, middle)
        yield _case(kernels.SUM_PARTS, dtype, _step_tile(columns, 0), False, usual, False)


def _resident_cases(dtype: str) -> Iterator[CompileCase]:
    largest = BACKWARD_VALUES[ELEMENT_BYTES[dtype]]
    for tile in RESIDENT:
        size = tile.rows * tile.columns
        usual = size >= largest if dtype == _USUAL[0] else dtype == "fp32" and size == largest
        middle = (tile.rows, tile.columns) == (128, 64)
        for save in (True, False):
            yield _case(kernels.WALK, dtype, tile, save, usual and save, middle and save)
        if walks_back(tile, ELEMENT_BYTES[dtype]):
            yield _case(kernels.WALK_BACK, dtype, tile, False, usual, middle and dtype == _USUAL[0])


COMPILE = [case for dtype in _ELEMENT for case in (*_step_cases(dtype), *_resident_cases(dtype))]
