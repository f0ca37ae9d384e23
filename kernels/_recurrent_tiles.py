"""The tiles of the recurrent Triton kernels: what one program does, holds, and is compiled for.

Letters as in `_recurrent_triton`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ._recurrent import Cell
from ._torch import ELEMENT_BYTES
from ._triton import SHARED_BYTES_SM_80, checked_options, interpreted, tl

# Columns that a program keeps; sizes between two of these are filled up with zeros. Few, because each is a program of
# its own for the compiler.
COLUMNS = (64, 128, 256, 512, 768, 1024, 1536)
# Sequences of a program: tensor cores take 8 columns or more, and 16 fill a load of the state; beyond the widest, sums
# and gradients no longer fit into the registers beside the state that is under way.
FORWARD_BATCHES = (16, 32)
BACKWARD_BATCHES = (16,)
# Values of one chunk of the state by bytes of an element. Three chunks in 16-bit types are 24 KiB: all of the state up
# to H = 768 and 16 sequences, with room for the weights of H = 1024 in the shared memory of sm_80. 32-bit operands go
# through registers, which hold less; and beyond the large size addresses take more of them.
CHUNK = {2: 4096, 4: 512, 8: 512}
LARGE_COLUMNS, LARGE_DEPTH = 1024, 128
# Most columns of a wide batch on sm_80.
WIDE_COLUMNS_SM_80 = 256
# Shared memory for turning a sum into its slots: four slots of 16 units and 32 sequences in float32.
EXCHANGE_BYTES = 8 * 1024
# 32-bit registers of a thread, for programs of four warps. Left alone, the assembler spills some to make room for a
# second program that never comes. 255 are all there are; where one of the targets spills with all and not with fewer,
# fewer are given, see `_registers`.
ALL_REGISTERS, TURNS_REGISTERS, FORWARD_REGISTERS, BACKWARD_REGISTERS = 255, 248, 240, 216
_PRECISION = {"bf16": "ieee", "fp16": "ieee", "fp32": "ieee", "fp64": "ieee", "tf32": "tf32"}


@dataclass(frozen=True)
class DeviceCell:
    """A cell as the Triton kernels need it.

    cell : its sizes in PyTorch. forward, backward : the device functions of the cell's own file.
    activate : `activate(gx, gh)` gives what `forward` saves, (..., slots H), from the products of input and state of
        all steps, both (..., G H) with their biases; None for a cell that saves nothing.
    """

    cell: Cell
    forward: Any
    backward: Any
    activate: Callable[[Tensor, Tensor], Tensor] | None = None

    @property
    def slots(self) -> int:
        """Values per unit and sequence before the nonlinearity: as many as there are biases."""
        return self.cell.biases

    @property
    def carries(self) -> bool:
        """Whether the cell has a state besides h."""
        return self.cell.states == 2


@dataclass(frozen=True)
class Tile:
    """What one program does: `units` hidden units for `batch` sequences, `depth` columns of the state at a time.

    chunks : how many times `depth` columns the kept weights have, 0 where weights are streamed. flight : chunks of the
    state that are under way together.
    """

    units: int
    batch: int
    depth: int
    chunks: int
    flight: int
    stages: int = 1
    warps: int = 4


def units_of(slots: int, dtype: str) -> int:
    """Hidden units per program: 64 rows give 16-bit types the products of a warp group; 32-bit types have half."""
    rows = 64 if dtype in ("bf16", "fp16") else 32
    return rows // slots


def _depth(dtype: str, rows: int) -> int:
    """Columns of a chunk that `rows` rows of the state fill, at least as many as a product on tensor cores takes."""
    return max(16, CHUNK[ELEMENT_BYTES[dtype]] // rows)


def _warps(dtype: str) -> int:
    # A warp group of four; 32-bit operands need the registers of eight.
    return 4 if ELEMENT_BYTES[dtype] == 2 else 8


def _flight(slots: int, dtype: str, columns: int, forward: bool) -> int:
    """Chunks of the state that are under way together: as many as let no target spill a register."""
    if dtype == "fp32" and forward and slots > 1:
        return 2
    large = forward and columns >= LARGE_COLUMNS
    return 4 if large or ELEMENT_BYTES[dtype] > 2 else 3


def _columns(H: int) -> int | None:
    return next((columns for columns in COLUMNS if columns >= H), None)


def shared_bytes(slots: int, tile: Tile, dtype: str, wave: bool) -> int:
    """Shared memory of a program: the kept weights, the state that is under way, and room to regroup the sums."""
    weights = slots * tile.units * tile.chunks * tile.depth * (2 if wave else 1)
    state = tile.flight * tile.depth * tile.batch
    return ELEMENT_BYTES[dtype] * (weights + state) + EXCHANGE_BYTES


def kept_tile(cell: DeviceCell, H: int, dtype: str, batch: int, forward: bool) -> Tile | None:
    """The tile that keeps the weights of H columns on chip; None beyond the largest size."""
    columns = _columns(H)
    if columns is None:
        return None
    depth = min(columns, _depth(dtype, batch if forward else batch * cell.slots))
    if columns >= LARGE_COLUMNS:
        depth = min(depth, LARGE_DEPTH)
    chunks = columns // depth
    flight = min(chunks, _flight(cell.slots, dtype, columns, forward))
    if forward and batch > FORWARD_BATCHES[0]:
        flight = min(flight, 3)  # a wide batch has twice the bytes in a chunk of the large sizes
    return Tile(units_of(cell.slots, dtype), batch, depth, chunks, flight, warps=_warps(dtype))


def is_aligned(H: int) -> bool:
    """Whether rows of H values begin where wide loads can."""
    return H % 16 == 0


def forward_batches(tile: Tile, aligned: bool, shared_limit: int) -> tuple[int, ...]:
    """Batches of the forward kernel: narrow ones where wide ones spill, for sizes that are not aligned, and for many
    columns on sm_80, told by its shared memory."""
    many = tile.chunks * tile.depth > WIDE_COLUMNS_SM_80
    narrow = not aligned or (many and shared_limit <= SHARED_BYTES_SM_80)
    return FORWARD_BATCHES[:1] if narrow else FORWARD_BATCHES


def streaming_tile(cell: DeviceCell, dtype: str, batch: int, forward: bool) -> Tile:
    """The tile that reads the weights anew.

    Four stages of up to 16 KiB of weights are under way per processor: 4.8 TB/s times 0.6 us of latency asks for
    22 KiB, as long as the registers hold the operands.
    """
    depth = (128 if forward else 64) if ELEMENT_BYTES[dtype] == 2 else 32
    return Tile(units_of(cell.slots, dtype), batch, depth, 0, 0, stages=4, warps=_warps(dtype))


def acc_of(dtype: str) -> tuple[Any, torch.dtype]:
    """The type of sums and of states inside a launch, for Triton and for PyTorch."""
    return (tl.float64, torch.float64) if dtype == "fp64" else (tl.float32, torch.float32)


def columns_of(tile: Tile, H: int) -> int:
    """Columns of a row of the exchange buffer: as many as a program reads."""
    return tile.chunks * tile.depth if tile.chunks else -(-H // tile.depth) * tile.depth


@dataclass(frozen=True)
class Variant:
    """What a kernel is compiled for besides its tile.

    aligned : H is a multiple of 16, which gives wide loads. multi : a program takes several tiles of sequences in turn,
    so that their states go through memory; always so where H is not aligned. wave, save, save_slots : of the forward
    kernel, see there.
    """

    aligned: bool
    multi: bool
    wave: bool = False
    save: bool = False
    save_slots: bool = False

    @staticmethod
    def of(cell: DeviceCell, H: int, several: bool, wave: bool, save: bool, recompute: bool) -> Variant:
        """The variant for a launch; what a cell does not save makes no variant of its own."""
        aligned = is_aligned(H)
        slots = save and cell.slots > 1 and not recompute
        return Variant(aligned, several or not aligned, wave, save and cell.carries, slots)


def constants(cell: DeviceCell, tile: Tile, dtype: str, variant: Variant, forward: bool) -> dict[str, Any]:
    """The compile-time values of the forward or the backward kernel."""
    shared = {
        "CELL": cell.forward if forward else cell.backward,
        "GATES": cell.cell.gates,
        "SLOTS": cell.slots,
        "CARRIES": cell.carries,
        "ALIGNED": variant.aligned,
        "UNITS": tile.units,
        "BATCH": tile.batch,
        "DEPTH": tile.depth,
        "CHUNKS": tile.chunks,
        "FLIGHT": tile.flight,
        "KEEP": tile.chunks > 0,
        "MULTI": variant.multi,
        "STAGES": tile.stages,
        "PRECISION": _PRECISION[dtype],
        "ACC": acc_of(dtype)[0],
        "INTERPRET": interpreted(),
        "JITTER": False,
        "SKIP_WAIT": False,
    }
    own = {"WAVE": variant.wave, "SAVE": variant.save, "SAVE_SLOTS": variant.save_slots}
    return shared | (own if forward else {})


def _registers(cell: DeviceCell, tile: Tile, variant: Variant, forward: bool) -> int:
    """As many registers as let no target spill; found by compiling every configuration for all of them."""
    columns, gru = tile.chunks * tile.depth, cell.slots > cell.cell.gates
    if forward:
        bare_gru = gru and variant.aligned and not variant.save_slots
        return FORWARD_REGISTERS if bare_gru and columns == LARGE_COLUMNS else ALL_REGISTERS
    if columns == COLUMNS[-1]:
        return ALL_REGISTERS
    if not variant.aligned:
        return TURNS_REGISTERS if gru and variant.multi else ALL_REGISTERS
    return BACKWARD_REGISTERS if cell.carries or not variant.multi else ALL_REGISTERS


def options(cell: DeviceCell, tile: Tile, variant: Variant, stepwise: bool, forward: bool) -> dict[str, Any]:
    """Launch options. One stage for the loop over time: its loads must not be moved ahead of the wait for others."""
    registers = {"maxnreg": _registers(cell, tile, variant, forward)} if tile.warps == 4 else {}
    return checked_options(num_warps=tile.warps, num_stages=1, launch_cooperative_grid=not stepwise, **registers)
