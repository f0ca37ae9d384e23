"""The configurations of the recurrent Triton kernels that can be launched, so that they compile without a GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from ..roofline.contract import CompileCase
from ._recurrent_backward import BACKWARD
from ._recurrent_forward import FORWARD
from ._recurrent_padding import MOST_UNALIGNED
from ._recurrent_plan import H200
from ._recurrent_tiles import (
    BACKWARD_BATCHES,
    COLUMNS,
    FORWARD_BATCHES,
    DeviceCell,
    Tile,
    Variant,
    constants,
    forward_batches,
    kept_tile,
    options,
    shared_bytes,
    streaming_tile,
)
from ._recurrent_triton import Kernel
from ._triton import SHARED_BYTES_SM_80

_ELEMENT = {"bf16": "*bf16", "fp16": "*fp16", "fp32": "*fp32", "tf32": "*fp32"}
_OTHER_TYPES = {
    **dict.fromkeys(("state", "carry", "dstate", "dcarry"), "*fp32"),  # sums
    "lengths": "*i64",
    "counters": "*i32",
}
# Of these columns a kernel is compiled for every target in the ordinary test run: the middle of the sizes.
_REPRESENTATIVE_COLUMNS = 512
# The dtype of which all sizes are compiled in the ordinary test run.
_ORDINARY_DTYPE = "bf16"


def compile_cases(cell: DeviceCell, ordinary: Literal["all sizes", "one tile", "middle"]) -> list[CompileCase]:
    """All configurations of a cell that can be launched, in all dtypes.

    ordinary : what the ordinary test run compiles of them: all sizes also with several tiles of sequences and as a
    wavefront, all sizes with one tile, or the middle size; more would repeat what another cell has shown.
    """
    cases = [case for dtype in _ELEMENT for case in (*_forward_cases(cell, dtype), *_backward_cases(cell, dtype))]
    cases = [case for case in cases if case.targets]  # in turn, large sizes have the wide batch, except on sm_80
    if ordinary == "all sizes":
        return cases
    return [replace(case, rare=case.rare or not _is_ordinary(case, ordinary)) for case in cases]


def _is_ordinary(case: CompileCase, ordinary: str) -> bool:
    values = case.constexprs
    if ordinary == "middle":
        return case.representative
    return case.representative or not (values["MULTI"] or values.get("WAVE"))


def _saving(cell: DeviceCell) -> list[tuple[bool, bool]]:
    """What the forward kernel may keep for the gradients: all, what cannot be computed again, nothing."""
    return list(dict.fromkeys((save and cell.carries, slots and cell.slots > 1)
                              for save, slots in ((True, True), (True, False), (False, False))))  # fmt: skip


def _tiles(
    cell: DeviceCell, dtype: str, batches: tuple[int, ...], forward: bool, wave: bool = False
) -> Iterator[tuple[int, Tile]]:
    """Every tile that keeps weights, with its columns, as far as the largest shared memory holds it."""
    for columns in COLUMNS:
        for batch in batches:
            tile = kept_tile(cell, columns, dtype, batch, forward)
            if tile is not None and shared_bytes(cell.slots, tile, dtype, wave) <= H200[1]:
                yield columns, tile


def _variants(tile: Tile, batches: tuple[int, ...], unaligned: tuple[int, ...] = ()) -> list[Variant]:
    """Aligned sizes in one tile of sequences, in several where no wider tile exists, and sizes that are not aligned, as
    far as they are not filled up.

    unaligned : batches of the last, the narrowest alone unless told otherwise.
    """
    filled = tile.chunks * tile.depth > MOST_UNALIGNED
    widest = {batches[-1], forward_batches(tile, True, SHARED_BYTES_SM_80)[-1]}
    several = [Variant(True, True)] if tile.batch in widest else []
    others = [Variant(False, True)] if tile.batch in (unaligned or batches[:1]) and not filled else []
    return [Variant(True, False), *several, *others]


def _forward_cases(cell: DeviceCell, dtype: str) -> Iterator[CompileCase]:
    for wave in (False, True):
        for columns, tile in _tiles(cell, dtype, FORWARD_BATCHES, True, wave):
            for index, (save, slots) in enumerate(_saving(cell)):
                for variant in _variants(tile, FORWARD_BATCHES):
                    chosen = replace(variant, wave=wave, save=save, save_slots=slots)
                    usual = index == 0 and variant.aligned and _usual(tile, variant, FORWARD_BATCHES, wave)
                    yield _case(cell, FORWARD, dtype, columns, tile, chosen, usual)
    for batch in FORWARD_BATCHES[:2]:
        for index, (save, slots) in enumerate(_saving(cell)):
            for aligned in (True, False):
                chosen = Variant(aligned, not aligned, False, save, slots)
                tile = streaming_tile(cell, dtype, batch, forward=True)
                yield _case(cell, FORWARD, dtype, 0, tile, chosen, aligned and index == 0)
        yield from _streamed_cases(cell, dtype, batch)


def _streamed_cases(cell: DeviceCell, dtype: str, batch: int) -> Iterator[CompileCase]:
    """What reads its weights anew at every step of one launch: forward only, so that nothing is kept for gradients."""
    if dtype == "tf32":
        return  # refused by the plan
    tile = streaming_tile(cell, dtype, batch, forward=True)
    for variant in _variants(tile, FORWARD_BATCHES, unaligned=FORWARD_BATCHES):
        usual = variant.aligned and _usual(tile, variant, FORWARD_BATCHES, wave=False)
        yield _case(cell, FORWARD, dtype, 0, tile, variant, usual, stepwise=False)


def _usual(tile: Tile, variant: Variant, batches: tuple[int, ...], wave: bool) -> bool:
    """The narrowest batch in one tile, and the widest in several: what the ordinary test run compiles of every size."""
    return (tile.batch, variant.multi) in ((batches[0], False),) + (() if wave else ((batches[-1], True),))


def _backward_cases(cell: DeviceCell, dtype: str) -> Iterator[CompileCase]:
    for columns, tile in _tiles(cell, dtype, BACKWARD_BATCHES, False):
        for variant in _variants(tile, BACKWARD_BATCHES):
            usual = variant.aligned and _usual(tile, variant, BACKWARD_BATCHES, wave=False)
            yield _case(cell, BACKWARD, dtype, columns, tile, variant, usual)
    for aligned in (True, False):
        tile = streaming_tile(cell, dtype, BACKWARD_BATCHES[0], forward=False)
        yield _case(cell, BACKWARD, dtype, 0, tile, Variant(aligned, not aligned), aligned)


def _case(
    cell: DeviceCell, kernel: Kernel, dtype: str, columns: int, tile: Tile, variant: Variant, usual: bool,
    stepwise: bool | None = None,
) -> CompileCase:  # fmt: skip
    """Describe one configuration; `usual` ones are not rare in the dtype of the ordinary run, nor in the middle.

    stepwise : one launch per step; None where that follows from whether weights are kept.
    """
    stepwise = not columns if stepwise is None else stepwise
    forward = kernel is FORWARD
    values = constants(cell, tile, dtype, variant, forward) | {"INTERPRET": False}
    flags = [name for name in ("aligned", "multi", "wave", "save", "save_slots") if getattr(variant, name)]
    place = f"kept {columns}" if columns else "streamed" if stepwise else "streamed in one launch"
    name = f"{cell.cell.name} {'forward' if forward else 'backward'}"
    middle = columns in (0, _REPRESENTATIVE_COLUMNS) and not variant.wave and tile.batch == FORWARD_BATCHES[0]
    return CompileCase(
        label=f"{name} {dtype} {place} x {tile.batch} {' '.join(flags)}",
        kernel=kernel.program(variant.aligned),
        signature={
            **{name: _OTHER_TYPES.get(name, _ELEMENT[dtype]) for name in kernel.tensors},
            **dict.fromkeys(kernel.numbers, "i32"),
            **dict.fromkeys(values, "constexpr"),
        },
        constexprs=values,
        divisible=kernel.divisible(variant.aligned),
        options=options(cell, tile, variant, stepwise=stepwise, forward=forward),
        targets=_targets(cell, tile, dtype, variant, forward),
        expects=("wide",) if dtype == "fp32" else ("tensor", "wide"),
        representative=usual and middle and columns > 0 and not variant.multi,
        rare=not usual or (dtype != _ORDINARY_DTYPE and not middle),
    )


def _targets(cell: DeviceCell, tile: Tile, dtype: str, variant: Variant, forward: bool) -> tuple[int, ...]:
    """Where a configuration is launched: what sm_80 does not hold is refused there, and some it alone takes in turn."""
    if not tile.chunks:
        return (80, 90, 100)
    small = forward_batches(tile, variant.aligned, SHARED_BYTES_SM_80) if forward else BACKWARD_BATCHES
    fits = shared_bytes(cell.slots, tile, dtype, variant.wave) <= SHARED_BYTES_SM_80
    on_80 = (80,) if fits and tile.batch in small else ()
    in_turn = variant.aligned and variant.multi
    widest = FORWARD_BATCHES if forward else BACKWARD_BATCHES
    return on_80 if in_turn and tile.batch != widest[-1] else (*on_80, 90, 100)
