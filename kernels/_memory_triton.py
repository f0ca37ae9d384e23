"""The Triton kernels of `memory_attention`, forward and backward.

Letters as in `memory_attention`; m is the memory before a step, m' after it, w the weights of the step. The gradient of
a step, from those of r, m' and w, goes back through the write, and then through the addressing (`_memory_addressing`):

  write          dw_i = dw_i + sum_p dm'_ip (add_p - erase_p m_ip) + sum_p dr_p m_ip
                 dadd_p = sum_i w_i dm'_ip, derase_p = - sum_i w_i dm'_ip m_ip
                 dm_ip = dm'_ip (1 - w_i erase_p) + w_i dr_p + what comes through the cosine

Two ways to run. With one program per batch row (`_walk`, `_walk_back`) a memory stays in registers for all steps. With
several, each has some rows of it, and a step takes two launches: what all rows together decide (their softmax) lies
between them. Then every program works out the weights of all rows, which are M values against M P of the memory.
"""

from dataclasses import dataclass
from typing import Any

from ._device import sigmoid, tanh
from ._memory_addressing import (
    activated,
    address,
    address_back,
    cosines_of,
    direction,
    load_controls,
    rows_back,
    sharpen,
    store_scalars,
    store_vectors,
)
from ._triton import tl, triton


@triton.jit
def _rounded(x, kind: tl.constexpr, INTERPRET: tl.constexpr):
    """x in another type, rounded to nearest: the interpreter would cut bfloat16 off, at every step of a memory."""
    if INTERPRET and kind == tl.bfloat16:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536  # half a unit, ties to even; then the upper 16 bits
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(kind)


@triton.jit
def _write(rows, share, erase, add):
    """Rows of the memory after the write; `share` (rows) are their weights."""
    return rows * (1.0 - share[:, None] * erase[None, :]) + share[:, None] * add[None, :]


@triton.jit
def _write_back(rows, drows, dr, share, erase, add):
    """Gradients through write and read for some rows: of their weights, and parts of those of erase and add."""
    dshare = tl.sum(drows * (add[None, :] - erase[None, :] * rows) + dr[None, :] * rows, 1)
    shared = share[:, None] * drows
    return dshare, tl.sum(-shared * rows, 0), tl.sum(shared, 0)


@triton.jit
def _places(base, row, column, S):
    """Pointers to some rows of one memory."""
    return base + row.to(tl.int64)[:, None] * S + column[None, :]


@triton.jit
def _inside(row, column, M, S):
    """Which of these places belong to a memory."""
    return (row < M)[:, None] & (column < S)[None, :]


def _cosines(
    memory, control, cosine, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Cosines of the key and ROWS rows of one memory; grid: B times the blocks of rows. memory (B, M, P)."""
    blocks = tl.cdiv(M, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    rows = tl.load(_places(memory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    key = tl.load(control + batch * (3 * P + 6) + column, mask=column < P, other=0.0).to(ACC)
    tl.store(cosine + batch * M + row, cosines_of(rows, key, EPSILON), mask=row < M)


def _read_and_write(
    memory, target, control, cosine, before, after, parts, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALL: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Read and write ROWS rows of one memory with the weights that all cosines give; grid as in `_cosines`.

    before, after : weights (B, M) of the step before and of this one. parts (B, blocks, P): what each block reads.
    ALL : at least M. memory and target may be the same: a program touches its own rows alone.
    """
    blocks = tl.cdiv(M, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    rows = tl.load(_places(memory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    _, erase, add, scalars = load_controls(control + batch * (3 * P + 6), column, P, ACC)
    settings = activated(scalars)
    every = tl.arange(0, ALL)
    likeness = tl.load(cosine + batch * M + every, mask=every < M, other=0.0)
    earlier = tl.load(before + batch * M + every, mask=every < M, other=0.0)
    _, _, turned = address(likeness, earlier, settings, every, M)
    weights = sharpen(turned, settings, every, M)
    share = tl.where(row < M, tl.gather(weights, tl.where(row < M, row, 0), 0), 0.0)
    tl.store(after + batch * M + row, share, mask=row < M)
    part = parts + tl.program_id(0).to(tl.int64) * S + column
    tl.store(part, tl.sum(share[:, None] * rows, 0), mask=column < S)
    rows = _write(rows, share, sigmoid(erase), tanh(add))
    tl.store(
        _places(target + batch * M * S, row, column, S), _rounded(rows, target.dtype.element_ty, INTERPRET), mask=inside
    )


def _walk(
    memory, target, history, controls, cosines, track, r, T, B, M, P, S,
    ALL: tl.constexpr, COLUMNS: tl.constexpr, SAVE: tl.constexpr, AHEAD: tl.constexpr, EPSILON: tl.constexpr,
    ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Run all steps of one batch row with its memory in registers; grid: B.

    history (T - 1, B, M, P), cosines (T, B, M) and track (T + 1, B, M), the weights from the initial ones on, are kept
    where SAVE; else track is (2, B, M), initial and final. AHEAD: the controls of a step are loaded during the one
    before, so that no step waits for memory.
    """
    batch = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, ALL), tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    rows = tl.load(_places(memory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    weights = tl.load(track + batch * M + row, mask=row < M, other=0.0)
    width = 3 * P + 6
    following = load_controls(controls + batch * width, column, P, ACC)
    for t in range(T):
        step = B.to(tl.int64) * (t + 1) + batch
        if AHEAD:
            key, erase, add, scalars = following
            following = load_controls(controls + tl.where(t + 1 < T, step, batch) * width, column, P, ACC)
        else:
            key, erase, add, scalars = load_controls(controls + (step - B) * width, column, P, ACC)
        settings = activated(scalars)
        cosine = cosines_of(rows, key, EPSILON)
        _, _, turned = address(cosine, weights, settings, row, M)
        weights = sharpen(turned, settings, row, M)
        tl.store(r + (step - B) * P + column, tl.sum(weights[:, None] * rows, 0).to(r.dtype.element_ty), column < P)
        rows = _write(rows, weights, sigmoid(erase), tanh(add))
        if SAVE:
            tl.store(cosines + (step - B) * M + row, cosine, mask=row < M)
            tl.store(track + step * M + row, weights, mask=row < M)
            if t + 1 < T:
                kept = _places(history + (step - B) * M * S, row, column, S)
                tl.store(kept, _rounded(rows, history.dtype.element_ty, INTERPRET), mask=inside)
    if not SAVE:
        tl.store(track + (B + batch) * M + row, weights, mask=row < M)
    tl.store(
        _places(target + batch * M * S, row, column, S), _rounded(rows, target.dtype.element_ty, INTERPRET), mask=inside
    )


def _write_gradients(
    memory, drows, control, dr, after, dafter, dweights, parts, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights of ROWS rows, complete, and of erase and add as far as these rows go; grid as above.

    drows (B, M, P) and dafter (B, M): gradients of memory and weights after the step. parts (B, blocks, 3, P) takes
    those of the key, which `_address_gradients` fills in, erase and add.
    """
    blocks = tl.cdiv(M, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    rows = tl.load(_places(memory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    gradients = tl.load(_places(drows + batch * M * S, row, column, S), mask=inside, other=0.0)
    control += batch * (3 * P + 6)
    erase = sigmoid(tl.load(control + P + column, mask=column < P, other=0.0).to(ACC))
    add = tanh(tl.load(control + 2 * P + column, mask=column < P, other=0.0).to(ACC))
    above = tl.load(dr + batch * P + column, mask=column < P, other=0.0).to(ACC)
    share = tl.load(after + batch * M + row, mask=row < M, other=0.0)
    dshare, derase, dadd = _write_back(rows, gradients, above, share, erase, add)
    dshare += tl.load(dafter + batch * M + row, mask=row < M, other=0.0)
    tl.store(dweights + batch * M + row, dshare, mask=row < M)
    parts += tl.program_id(0).to(tl.int64) * 3 * S + column
    tl.store(parts + S, derase, mask=column < S)
    tl.store(parts + 2 * S, dadd, mask=column < S)


def _address_gradients(
    memory, drows, control, dr, cosine, before, after, dweights, dbefore, parts, along, dcontrol, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALL: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Move the gradients of ROWS rows before the step, given those of all weights; grid and letters as above.

    drows is overwritten; dbefore (B, M): gradients of the weights before the step; along (B): sum_i dcos_i cos_i.
    The first program of a batch row stores the gradients of its six scalars.
    """
    blocks = tl.cdiv(M, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    source, target = _places(memory + batch * M * S, row, column, S), _places(drows + batch * M * S, row, column, S)
    rows = tl.load(source, mask=inside, other=0.0).to(ACC)
    gradients = tl.load(target, mask=inside, other=0.0)
    key, erase, _, scalars = load_controls(control + batch * (3 * P + 6), column, P, ACC)
    settings = activated(scalars)
    above = tl.load(dr + batch * P + column, mask=column < P, other=0.0).to(ACC)
    every = tl.arange(0, ALL)
    likeness = tl.load(cosine + batch * M + every, mask=every < M, other=0.0)
    earlier = tl.load(before + batch * M + every, mask=every < M, other=0.0)
    weights = tl.load(after + batch * M + every, mask=every < M, other=0.0)
    dw = tl.load(dweights + batch * M + every, mask=every < M, other=0.0)
    stages = address(likeness, earlier, settings, every, M)
    dcosine, dearlier, dsettings = address_back(dw, weights, stages, likeness, earlier, settings, every, M)
    here = tl.where(row < M, row, 0)
    gradients, dunit = rows_back(
        rows, gradients, above, tl.gather(weights, here, 0), sigmoid(erase), direction(key, EPSILON)[0],
        tl.gather(likeness, here, 0), tl.gather(dcosine, here, 0), EPSILON,
    )  # fmt: skip
    tl.store(target, gradients, mask=inside)
    tl.store(parts + tl.program_id(0).to(tl.int64) * 3 * S + column, dunit, mask=column < S)
    tl.store(dbefore + batch * M + row, tl.gather(dearlier, here, 0), mask=row < M)
    if tl.program_id(0) % blocks == 0:
        tl.store(along + batch, tl.sum(dcosine * likeness, 0))
        store_scalars(dcontrol + batch * (3 * P + 6), P, dsettings, scalars, settings)


def _sum_parts(
    controls, parts, along, dcontrols, blocks, P, S,
    COLUMNS: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Sum the parts (T B, blocks, 3, P) of one step and batch row, and store the gradients of key, erase and add."""
    step = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, COLUMNS)
    parts += step * blocks * 3 * S + column
    dunit = tl.zeros((COLUMNS,), ACC)
    derase = tl.zeros((COLUMNS,), ACC)
    dadd = tl.zeros((COLUMNS,), ACC)
    for block in range(blocks):
        dunit += tl.load(parts + block * 3 * S, mask=column < S, other=0.0)
        derase += tl.load(parts + (block * 3 + 1) * S, mask=column < S, other=0.0)
        dadd += tl.load(parts + (block * 3 + 2) * S, mask=column < S, other=0.0)
    width = 3 * P + 6
    store_vectors(
        dcontrols + step * width, controls + step * width, column, P, dunit, derase, dadd, tl.load(along + step),
        EPSILON, ACC,
    )  # fmt: skip


def _walk_back(
    memory, history, controls, cosines, track, dr, dmemory, dweights, dtarget, dcontrols, T, B, M, P, S,
    ALL: tl.constexpr, COLUMNS: tl.constexpr, EPSILON: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Walk back through all steps of one batch row with the gradient of its memory in registers; grid: B.

    dmemory, dweights : gradients of the last memory and weights; dtarget and dweights take those of the first ones.
    """
    batch = tl.program_id(0).to(tl.int64)
    row, column = tl.arange(0, ALL), tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    gradients = tl.load(_places(dmemory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    dw = tl.load(dweights + batch * M + row, mask=row < M, other=0.0)
    width = 3 * P + 6
    for turn in range(T):
        step = B.to(tl.int64) * (T - 1 - turn) + batch
        start = tl.where(turn + 1 < T, history + (step - B) * M * S, memory + batch * M * S)
        rows = tl.load(_places(start, row, column, S), mask=inside, other=0.0).to(ACC)
        key, erase, add, scalars = load_controls(controls + step * width, column, P, ACC)
        settings = activated(scalars)
        above = tl.load(dr + step * P + column, mask=column < P, other=0.0).to(ACC)
        cosine = tl.load(cosines + step * M + row, mask=row < M, other=0.0)
        earlier = tl.load(track + step * M + row, mask=row < M, other=0.0)
        weights = tl.load(track + (step + B) * M + row, mask=row < M, other=0.0)
        dshare, derase, dadd = _write_back(rows, gradients, above, weights, sigmoid(erase), tanh(add))
        stages = address(cosine, earlier, settings, row, M)
        dcosine, dw, dsettings = address_back(dw + dshare, weights, stages, cosine, earlier, settings, row, M)
        store_scalars(dcontrols + step * width, P, dsettings, scalars, settings)
        # Loaded once more, from a cache: there are no registers for it while the gradients go through the addressing.
        rows = tl.load(_places(start, row, column, S), mask=inside, other=0.0).to(ACC)
        gradients, dunit = rows_back(
            rows, gradients, above, weights, sigmoid(erase), direction(key, EPSILON)[0], cosine, dcosine, EPSILON
        )
        store_vectors(
            dcontrols + step * width, controls + step * width, column, P, dunit, derase, dadd,
            tl.sum(dcosine * cosine, 0), EPSILON, ACC,
        )  # fmt: skip
    tl.store(_places(dtarget + batch * M * S, row, column, S), gradients.to(dtarget.dtype.element_ty), mask=inside)
    tl.store(dweights + batch * M + row, dw, mask=row < M)


@dataclass(frozen=True)
class Kernel:
    """One kernel with the one signature that is compiled offline: nothing known of its arguments but of the wide ones.

    elements, sums : names of the arguments that point to the tensors' type, and to the type of the sums.
    wide : those whose rows take S values, a multiple of 16, so that 128-bit loads can take them.
    numbers : names of the integers, S among them.
    """

    name: str
    elements: tuple[str, ...]
    sums: tuple[str, ...]
    wide: tuple[str, ...]
    numbers: tuple[str, ...]
    program: Any


def _kernel(function: Any, elements: str, sums: str, wide: str, numbers: str) -> Kernel:
    names = [*elements.split(), *sums.split(), *numbers.split()]
    varying = [name for name in names if name not in (*wide.split(), "S")]
    return Kernel(
        function.__name__.strip("_"),
        tuple(elements.split()),
        tuple(sums.split()),
        tuple(wide.split()),
        tuple(numbers.split()),
        triton.jit(do_not_specialize=varying)(function),
    )


COSINES = _kernel(_cosines, "memory control", "cosine", "memory", "M P S")
READ_AND_WRITE = _kernel(
    _read_and_write, "memory target control", "cosine before after parts", "memory target parts", "M P S"
)
WALK = _kernel(_walk, "memory target history controls r", "cosines track", "memory target history", "T B M P S")
WRITE_GRADIENTS = _kernel(
    _write_gradients, "memory control dr", "drows after dafter dweights parts", "memory drows parts", "M P S"
)
ADDRESS_GRADIENTS = _kernel(
    _address_gradients,
    "memory control dr dcontrol",
    "drows cosine before after dweights dbefore parts along",
    "memory drows parts",
    "M P S",
)
SUM_PARTS = _kernel(_sum_parts, "controls dcontrols", "parts along", "parts", "blocks P S")
WALK_BACK = _kernel(
    _walk_back,
    "memory history controls dr dmemory dtarget dcontrols",
    "cosines track dweights",
    "memory history dmemory dtarget",
    "T B M P S",
)
