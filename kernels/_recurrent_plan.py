"""Chooses how a recurrence is cut into programs, groups of sequences and launches, and refuses what cannot run.

A launch of more than one step needs all its programs on the device at once, one per multiprocessor, so what fits is a
matter of arithmetic, done here before anything is launched. Letters as in `_recurrent_triton`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from typing import Literal

import torch

from ._recurrent import Shape
from ._recurrent_padding import filled_up
from ._recurrent_tiles import (
    BACKWARD_BATCHES,
    COLUMNS,
    FORWARD_BATCHES,
    DeviceCell,
    Tile,
    columns_of,
    forward_batches,
    is_aligned,
    kept_tile,
    shared_bytes,
    streaming_tile,
    units_of,
)
from ._recurrent_triton import LAYER_LAG
from ._torch import ELEMENT_BYTES
from ._triton import interpreted, triton

# Where the weights of a step come from, and how steps follow one another: read anew by one launch per step; read anew
# by one launch for the whole sequence, with a grid-wide barrier per step; kept on chip by such a launch.
Schedule = Literal["step", "streamed", "resident"]

# Multiprocessors and bytes of shared memory per program of an H200, for what is planned or interpreted without a GPU.
H200 = (132, 227 * 1024)
# Elements of a state, of a step's exchange or of a layer's weights, where offsets are signed numbers of 32 bits.
MOST_ELEMENTS = 2**31
# Programs on the third axis of a grid: CUDA C++ Programming Guide, "Technical Specifications per Compute Capability".
MOST_GROUPS = 65535
# The interpreter takes some 30 ms for a program and a step. Two programs, or groups, are a full and a narrower one; of
# long sequences one has to do, as shorter ones show the same of programs side by side.
_MOST_INTERPRETED = 2
_LONG_INTERPRETED = 64


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


def device_limits(device: torch.device | str) -> tuple[int, int]:
    """Multiprocessors, and shared memory that one program may have in bytes; those of an H200 where there is no GPU."""
    found = torch.device(device)
    if found.type != "cuda" or not torch.cuda.is_available():
        return H200
    # By number, because which device "cuda" means may change.
    return _limits_of(torch.cuda.current_device() if found.index is None else found.index)


@cache
def _limits_of(number: int) -> tuple[int, int]:
    properties = torch.cuda.get_device_properties(number)
    return properties.multi_processor_count, properties.shared_memory_per_block_optin


def _batch_for(rows: int, programs: int, sms: int, batches: tuple[int, ...]) -> tuple[int, int]:
    """The narrowest batch whose groups all fit beside one another, else the widest; and the number of groups."""
    for batch in batches:
        groups = -(-rows // batch)
        if groups * programs <= sms:
            return batch, groups
    return batches[-1], max(1, sms // programs)


def _kept_programs(cell: DeviceCell, H: int, dtype: str) -> int:
    """Programs of a layer's direction whose weights stay on chip: they take the units that are filled up, too."""
    return -(-filled_up(H) // units_of(cell.slots, dtype))


@cache
def plan_for(cell: DeviceCell, shape: Shape, dtype: str, schedule: Schedule, sms: int, shared_limit: int) -> Plan | str:
    """Plan the launches of a stack; a string is the reason why its programs or weights cannot be on chip together, or
    why it is too large for a launch."""
    if interpreted():
        return _interpreted_plan(cell, shape, dtype, schedule)
    if schedule == "step":
        plan = _stepwise_plan(cell, shape, dtype)
    elif schedule == "streamed":
        plan = _streamed_plan(cell, shape, dtype, sms)
    else:
        plan = _resident_plan(cell, shape, dtype, sms, shared_limit)
    return plan if isinstance(plan, str) else _why_too_large(cell, shape, plan) or plan


def _why_too_large(cell: DeviceCell, shape: Shape, plan: Plan) -> str | None:
    """Refuse what the kernels cannot address: within a step, they count elements in 32 bits."""
    # A wavefront has a chain for each of its layers, and else one for each direction; all states are one tensor.
    chains, width = max(plan.layers, shape.D), -(-shape.H // 16) * 16
    weights, states = cell.cell.gates * shape.H * width, chains * shape.folded_rows * width
    forward, backward = (
        -(-shape.folded_rows // tile.batch) * tile.batch * columns_of(tile, shape.H)
        for tile in (plan.forward, plan.backward)
    )
    if max(weights, states, forward, cell.slots * backward) >= MOST_ELEMENTS:
        return (
            f"with H={shape.H} and {shape.folded_rows} sequences, weights or states have 2^31 elements or more, and "
            "the kernels count them in 32 bits; take fewer units or sequences"
        )
    groups = max(plan.groups, plan.backward_groups)
    if groups > MOST_GROUPS:
        most = MOST_GROUPS * min(plan.forward.batch, plan.backward.batch)
        return (
            f"{shape.folded_rows} sequences are {groups} groups, and a launch has at most {MOST_GROUPS}; take at most "
            f"{most} sequences"
        )
    return None


def _resident_plan(cell: DeviceCell, shape: Shape, dtype: str, sms: int, shared_limit: int) -> Plan | str:
    tile = kept_tile(cell, shape.H, dtype, FORWARD_BATCHES[0], forward=True)
    programs = _kept_programs(cell, shape.H, dtype)
    if tile is None or programs > sms or shared_bytes(cell.slots, tile, dtype, wave=False) > shared_limit:
        return _refusal(cell, shape, dtype, sms, shared_limit)
    layers, directions = 1, min(shape.D, sms // programs)
    if shape.D == 1 and shape.L > 1 and shared_bytes(cell.slots, tile, dtype, wave=True) <= shared_limit:
        layers = min(shape.L, sms // programs)
    batches = forward_batches(tile, is_aligned(filled_up(shape.H)), shared_limit)
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


def _streamed_plan(cell: DeviceCell, shape: Shape, dtype: str, sms: int) -> Plan | str:
    """One launch per layer whose programs wait for one another, as those that keep their weights do. Forward only."""
    if dtype == "tf32":
        return "triton_streamed has no tf32, whose registers would spill under triton 3.6; take fp32, fp16 or bf16"
    units = units_of(cell.slots, dtype)
    programs = -(-shape.H // units)
    if programs > sms:
        return (
            f"the {programs} programs of H={shape.H} in {dtype} wait for one another, and {sms} multiprocessors hold "
            f"one each; H={sms * units} is the largest that fits"
        )
    directions = min(shape.D, sms // programs)
    batch, groups = _batch_for(shape.folded_rows, programs * directions, sms, FORWARD_BATCHES)
    forward = streaming_tile(cell, dtype, batch, forward=True)
    backward = streaming_tile(cell, dtype, BACKWARD_BATCHES[0], forward=False)
    return Plan(forward, backward, 1, directions, groups, 1, stepwise=False)


def _stepwise_plan(cell: DeviceCell, shape: Shape, dtype: str) -> Plan:
    wide = int(shape.folded_rows > FORWARD_BATCHES[0])
    forward = streaming_tile(cell, dtype, FORWARD_BATCHES[wide], forward=True)
    backward = streaming_tile(cell, dtype, BACKWARD_BATCHES[0], forward=False)
    return _in_groups(Plan(forward, backward, 1, shape.D, 1, 1, stepwise=True), shape)


def _in_groups(plan: Plan, shape: Shape) -> Plan:
    """The plan with a group for every tile of sequences."""
    groups, backward_groups = (-(-shape.folded_rows // tile.batch) for tile in (plan.forward, plan.backward))
    return replace(plan, groups=groups, backward_groups=backward_groups)


def _interpreted_tile(tile: Tile, shape: Shape) -> Tile:
    """The tile, widened until few programs and few groups of sequences are left."""
    units, batch = tile.units, tile.batch
    most = _MOST_INTERPRETED if shape.folded_steps <= _LONG_INTERPRETED else 1
    while units * most < shape.H:
        units *= 2
    while batch * most < shape.folded_rows:
        batch *= 2
    return replace(tile, units=units, batch=batch)


def _interpreted_plan(cell: DeviceCell, shape: Shape, dtype: str, schedule: Schedule) -> Plan:
    """The interpreter runs one program after the other, so only a launch of one program per chain can wait for itself.

    One program then takes all units. A wavefront, whose layers wait for one another, is launched step by step, as the
    schedule "step" is; both have several programs, of wider tiles than a GPU's where there would be many.
    """
    if schedule == "step":
        plan = _stepwise_plan(cell, shape, dtype)
        forward, backward = (_interpreted_tile(tile, shape) for tile in (plan.forward, plan.backward))
        return _in_groups(replace(plan, forward=forward, backward=backward), shape)
    columns = triton.next_power_of_2(max(shape.H, 16))
    # One group takes two tiles of sequences where there are several, so that states go through memory.
    groups = -(-shape.folded_rows // 32)
    if schedule == "streamed":
        forward, backward = (
            replace(streaming_tile(cell, dtype, 16, forward), units=columns) for forward in (True, False)
        )
        return Plan(forward, backward, 1, shape.D, groups, groups, stepwise=False)
    wave = shape.D == 1 and shape.L > 1
    units = max(16, columns // 2) if wave else columns
    depth = min(columns, 64)
    tile = Tile(units, 16, depth, columns // depth, flight=min(columns // depth, 2))
    backward = replace(tile, units=columns)
    return Plan(tile, backward, min(shape.L, 2) if wave else 1, shape.D, groups, groups, stepwise=wave)


def _refusal(cell: DeviceCell, shape: Shape, dtype: str, sms: int, shared_limit: int) -> str:
    """Say why the weights do not fit on chip, and name the nearest size that does."""

    def fits(H: int) -> bool:
        tile = kept_tile(cell, H, dtype, FORWARD_BATCHES[0], forward=True)
        programs = _kept_programs(cell, H, dtype)
        return tile is not None and programs <= sms and shared_bytes(cell.slots, tile, dtype, False) <= shared_limit

    largest = next((H for H in range(COLUMNS[-1], 0, -1) if fits(H)), None)
    advice = f"H={largest} is the largest that does" if largest else "no size does"
    needed = cell.slots * shape.H * shape.H * ELEMENT_BYTES[dtype]
    return (
        f"the recurrent weights of H={shape.H} in {dtype} ({needed / 2**20:.1f} MiB) do not fit on {sms} "
        f"multiprocessors with {shared_limit // 1024} KiB of shared memory each, one program on each; {advice}"
    )
