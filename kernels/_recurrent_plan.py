"""Chooses how a recurrence is cut into programs, groups of sequences and launches, and refuses what cannot run.

A launch that keeps its weights on chip needs all its programs on the device at once, one per multiprocessor, so what
fits is a matter of arithmetic, done here before anything is launched. Letters as in `_recurrent_triton`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ._recurrent import Cell, Shape
from ._recurrent_triton import LAYER_LAG
from ._torch import ELEMENT_BYTES, tf32_allowed
from ._triton import checked_options, interpreted, tl, triton

# Multiprocessors and bytes of shared memory per program of an H200, for what is planned or interpreted without a GPU.
H200 = (132, 227 * 1024)
# Shared memory of a program on sm_80, the smallest of the targets.
SHARED_BYTES_SM_80 = 163 * 1024
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
# Shared memory for turning a sum into its slots: four slots of 16 units and 32 sequences in float32.
EXCHANGE_BYTES = 8 * 1024
# 32-bit registers of a thread, for programs of four warps. Left alone, the assembler spills some to make room for a
# second program that never comes. 255 are all there are; the backward kernel spills at 255 and at 200, and not at 216,
# except at the largest size, where it is the other way round.
ALL_REGISTERS = 255
BACKWARD_REGISTERS = 216
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


@dataclass(frozen=True)
class Plan:
    """How a stack is launched.

    layers : layers of one launch; more than one run as a wavefront. directions : directions of one launch.
    groups, backward_groups : groups of sequences that do not wait for one another.
    stepwise : one launch per step. forward, backward : the tiles.
    """

    forward: Tile
    backward: Tile
    layers: int
    directions: int
    groups: int
    backward_groups: int
    stepwise: bool


def dtype_of(tensor: Tensor) -> str:
    """Name the dtype of a tensor as rows do; float32 is tf32 where the switch is on."""
    names = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float64: "fp64"}
    return names.get(tensor.dtype, "tf32" if tf32_allowed() else "fp32")


@cache
def device_limits(device: torch.device | str) -> tuple[int, int]:
    """Multiprocessors, and shared memory that one program may have in bytes; those of an H200 where there is no GPU."""
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        return H200
    properties = torch.cuda.get_device_properties(device)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin


def _units(slots: int, dtype: str) -> int:
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
    return Tile(_units(cell.slots, dtype), batch, depth, chunks, flight, warps=_warps(dtype))


def forward_batches(tile: Tile, shared_limit: int) -> tuple[int, ...]:
    """Batches that the forward kernel may take: sm_80, told by its shared memory, spills in the wide large ones."""
    large = tile.chunks * tile.depth >= LARGE_COLUMNS
    return FORWARD_BATCHES[:1] if large and shared_limit <= SHARED_BYTES_SM_80 else FORWARD_BATCHES


def streaming_tile(cell: DeviceCell, dtype: str, batch: int, forward: bool) -> Tile:
    """The tile that reads the weights anew.

    Four stages of up to 16 KiB of weights are under way per processor: 4.8 TB/s times 0.6 us of latency asks for
    22 KiB, as long as the registers hold the operands.
    """
    depth = (128 if forward else 64) if ELEMENT_BYTES[dtype] == 2 else 32
    return Tile(_units(cell.slots, dtype), batch, depth, 0, 0, stages=4, warps=_warps(dtype))


def _batch_for(rows: int, programs: int, sms: int, batches: tuple[int, ...]) -> tuple[int, int]:
    """The narrowest batch whose groups all fit beside one another, else the widest; and the number of groups."""
    for batch in batches:
        groups = -(-rows // batch)
        if groups * programs <= sms:
            return batch, groups
    return batches[-1], max(1, sms // programs)


@cache
def plan_for(cell: DeviceCell, shape: Shape, dtype: str, kept: bool, sms: int, shared_limit: int) -> Plan | str:
    """Plan the launches of a stack; a string is the reason why its weights cannot be kept on chip."""
    if interpreted():
        return _interpreted_plan(cell, shape, dtype, kept)
    if not kept:
        return _streaming_plan(cell, shape, dtype)
    tile = kept_tile(cell, shape.H, dtype, FORWARD_BATCHES[0], forward=True)
    programs = -(-shape.H // _units(cell.slots, dtype))
    if tile is None or programs > sms or shared_bytes(cell.slots, tile, dtype, wave=False) > shared_limit:
        return _refusal(cell, shape, dtype, sms, shared_limit)
    layers, directions = 1, min(shape.D, sms // programs)
    if shape.D == 1 and shape.L > 1 and shared_bytes(cell.slots, tile, dtype, wave=True) <= shared_limit:
        layers = min(shape.L, sms // programs)
    batches = forward_batches(tile, shared_limit)
    batch, groups = _batch_for(shape.folded_rows, programs * layers * directions, sms, batches)
    forward = kept_tile(cell, shape.H, dtype, batch, forward=True)
    batch, backward_groups = _batch_for(shape.folded_rows, programs * directions, sms, BACKWARD_BATCHES)
    backward = kept_tile(cell, shape.H, dtype, batch, forward=False)
    assert forward is not None and backward is not None
    return Plan(forward, backward, layers, directions, groups, backward_groups, stepwise=False)


def plan_depth(plan: Plan, shape: Shape, direction: str) -> int:
    """Dependent steps of a stack by this plan; the gradients go layer by layer."""
    stacks = -(-shape.L // plan.layers)
    launches = stacks * (shape.D // plan.directions)
    forward = launches * shape.folded_steps + LAYER_LAG * (shape.L - stacks)
    backward = shape.L * (shape.D // plan.directions) * shape.folded_steps
    return {"forward": forward, "backward": backward}.get(direction, forward + backward)


def _streaming_plan(cell: DeviceCell, shape: Shape, dtype: str) -> Plan:
    wide = int(shape.folded_rows > FORWARD_BATCHES[0])
    forward = streaming_tile(cell, dtype, FORWARD_BATCHES[wide], forward=True)
    backward = streaming_tile(cell, dtype, BACKWARD_BATCHES[0], forward=False)
    groups, backward_groups = (-(-shape.folded_rows // tile.batch) for tile in (forward, backward))
    return Plan(forward, backward, 1, shape.D, groups, backward_groups, stepwise=True)


def _interpreted_plan(cell: DeviceCell, shape: Shape, dtype: str, kept: bool) -> Plan:
    """The interpreter runs one program after the other, so only a launch of one program per chain can wait for itself.

    One program then takes all units. A wavefront, whose layers wait for one another, is launched step by step, which
    is also how the streaming kernel runs; both have several programs.
    """
    if not kept:
        return _streaming_plan(cell, shape, dtype)
    columns = triton.next_power_of_2(max(shape.H, 16))
    wave = shape.D == 1 and shape.L > 1
    units = max(16, columns // 2) if wave else columns
    depth = min(columns, 64)
    tile = Tile(units, 16, depth, columns // depth, flight=min(columns // depth, 2))
    # One group takes two tiles of sequences where there are several, so that states go through memory.
    groups = -(-shape.folded_rows // 32)
    backward = replace(tile, units=columns)
    return Plan(tile, backward, min(shape.L, 2) if wave else 1, shape.D, groups, groups, stepwise=wave)


def _refusal(cell: DeviceCell, shape: Shape, dtype: str, sms: int, shared_limit: int) -> str:
    """Say why the weights do not fit on chip, and name the nearest size that does."""

    def fits(H: int) -> bool:
        tile = kept_tile(cell, H, dtype, FORWARD_BATCHES[0], forward=True)
        programs = -(-H // _units(cell.slots, dtype))
        return tile is not None and programs <= sms and shared_bytes(cell.slots, tile, dtype, False) <= shared_limit

    largest = next((H for H in range(COLUMNS[-1], 0, -1) if fits(H)), None)
    advice = f"H={largest} is the largest that does" if largest else "no size does"
    needed = cell.slots * shape.H * shape.H * ELEMENT_BYTES[dtype]
    return (
        f"the recurrent weights of H={shape.H} in {dtype} ({needed / 2**20:.1f} MiB) do not fit on {sms} "
        f"multiprocessors with {shared_limit // 1024} KiB of shared memory each, one program on each; {advice}"
    )


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
        aligned = H % 16 == 0
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


def options(tile: Tile, stepwise: bool, forward: bool) -> dict[str, Any]:
    """Launch options. One stage for the loop over time: its loads must not be moved ahead of the wait for others."""
    most = ALL_REGISTERS if forward or tile.chunks * tile.depth == COLUMNS[-1] else BACKWARD_REGISTERS
    registers = {"maxnreg": most} if tile.warps == 4 else {}
    return checked_options(num_warps=tile.warps, num_stages=1, launch_cooperative_grid=not stepwise, **registers)
