"""The backward kernel of all recurrent layers: from the last step to the first, both directions of a layer, in one
launch. How programs share the work, and the letters: `_recurrent_triton`."""

from __future__ import annotations

from ._device import dot
from ._recurrent_triton import arrive, kernel, linger, part, store_slots, time_step, wait
from ._triton import tl, triton


@triton.jit
def _columns(weight, column, H, width, first_row, GATES: tl.constexpr, SLOTS: tl.constexpr, DEPTH: tl.constexpr):
    """Load the columns of this program's units from DEPTH rows of the weights of every slot, (SLOTS, UNITS, DEPTH), or
    (UNITS, DEPTH) for a single slot; zeros beyond H and in the slot that has no weights."""
    row = first_row + tl.arange(0, DEPTH)
    if SLOTS == 1:
        places = row[None, :] * width + column[:, None]
        mask = (column < width)[:, None] & (row < H)[None, :]
    else:
        slot = tl.arange(0, SLOTS)[:, None, None]
        mask = (column < width)[None, :, None] & (row < H)[None, None, :]
        if GATES != SLOTS:
            mask = mask & (slot != GATES - 1)
            slot = tl.minimum(slot, GATES - 1)
        places = (slot * H + row[None, None, :]) * width + column[None, :, None]
    return tl.load(weight + places, mask=mask, other=0.0)


@triton.jit
def _pointers(exchange, batch, stride, SLOTS: tl.constexpr, DEPTH: tl.constexpr):
    """Where the first DEPTH columns of all slots' gradients of some sequences are: (SLOTS, BATCH, DEPTH), or
    (BATCH, DEPTH) for a single slot."""
    column = tl.arange(0, DEPTH)
    if SLOTS == 1:
        places = batch[:, None] * stride + column[None, :]
    else:
        slot = tl.arange(0, SLOTS)[:, None, None]
        places = (batch[None, :, None] * SLOTS + slot) * stride + column[None, None, :]
    return exchange + places


@triton.jit
def _by_slot(weights, gradients, total, SLOTS: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr):
    """Add weights times gradients turned, slot by slot: every warp sums a slot of its own."""
    if SLOTS == 1:
        turned = tl.trans(gradients)
    else:
        turned = tl.permute(gradients, 0, 2, 1)
    return dot(weights, turned, total, PRECISION, INTERPRET)


@triton.jit
def _product(
    total, weights, gradients,
    DEPTH: tl.constexpr, CHUNKS: tl.constexpr, FLIGHT: tl.constexpr, SLOTS: tl.constexpr, PRECISION: tl.constexpr,
    INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add the product of kept weights and of the gradients, whose first DEPTH columns `gradients` points at; FLIGHT
    chunks are under way at a time. Loads bypass the first-level cache, as in the forward pass."""
    tiles = ()
    for chunk in tl.static_range(FLIGHT):
        tiles = tiles + (tl.load(gradients + chunk * DEPTH, cache_modifier=".cg"),)
    for chunk in tl.static_range(CHUNKS):
        total = _by_slot(weights[chunk], tiles[chunk], total, SLOTS, PRECISION, INTERPRET)
        if chunk + FLIGHT < CHUNKS:
            tiles = tiles + (tl.load(gradients + (chunk + FLIGHT) * DEPTH, cache_modifier=".cg"),)
    return total


@triton.jit
def _streamed(
    total, weight, column, H, width, gradients,
    GATES: tl.constexpr, SLOTS: tl.constexpr, DEPTH: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr,
    INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add the product of the gradients and of weights that are read anew, DEPTH rows of every slot at a time."""
    for start in tl.range(0, H, DEPTH, num_stages=STAGES):
        weights = _columns(weight, column, H, width, start, GATES, SLOTS, DEPTH)
        tile = tl.load(gradients + start, cache_modifier=".cg")
        total = _by_slot(weights, tile, total, SLOTS, PRECISION, INTERPRET)
    return total


def _backward(
    dy, weight_hh, lengths, dstate, dcarry, track, track_0, saved, dslots, exchange, counters,
    first, last, T, B, H, D, first_chain, exchange_rows,
    CELL: tl.constexpr, GATES: tl.constexpr, SLOTS: tl.constexpr, CARRIES: tl.constexpr, ALIGNED: tl.constexpr,
    UNITS: tl.constexpr, BATCH: tl.constexpr, DEPTH: tl.constexpr, CHUNKS: tl.constexpr, FLIGHT: tl.constexpr,
    KEEP: tl.constexpr, MULTI: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    INTERPRET: tl.constexpr, JITTER: tl.constexpr, SKIP_WAIT: tl.constexpr,
):  # fmt: skip
    """Gradients before the nonlinearities, from the last step to the first, of both directions of one layer.

    dy (T, B, D, H): gradients of the outputs. weight_hh as in the forward kernel, which left `saved`
    (T, B, D, SLOTS, H).
    track (T, B, D, H): the state that the cell's gradient needs, the LSTM's c or the others' h; track_0 (D, B, H): the
    same before the first step. dstate, dcarry (D, B, H) in ACC: gradients of the last state; overwritten by those of
    the first, dstate without what comes through the weights, which the caller adds as one product.
    dslots (T, B, D, SLOTS, H): the result. exchange (3, D, exchange_rows, SLOTS, columns), zeros at first, see `part`;
    counters and grid as in the forward kernel.
    """
    width = tl.cdiv(H, 16) * 16
    if ALIGNED:
        H = H // 16 * 16
        width = H
    direction = tl.program_id(1) + first_chain
    group = tl.program_id(2)
    groups = tl.num_programs(2)
    counter = counters + (group * D + direction) * 32
    arrivals = tl.num_programs(0)
    column = tl.program_id(0) * UNITS + tl.arange(0, UNITS)
    unit = column[:, None]
    unit_mask = unit < H
    weight_hh += direction.to(tl.int64) * GATES * H * width
    stride = CHUNKS * DEPTH if KEEP else tl.cdiv(H, DEPTH) * DEPTH
    kept = ()
    if KEEP:
        for chunk in tl.static_range(CHUNKS):
            kept = kept + (_columns(weight_hh, column, H, width, chunk * DEPTH, GATES, SLOTS, DEPTH),)
    tiles = tl.cdiv(B, BATCH)
    per_step = tl.cdiv(tiles - group, groups)
    lane = tl.arange(0, BATCH)
    batch = group * BATCH + lane
    place = (direction * B + batch[None, :]) * H + unit
    here = unit_mask & (batch < B)[None, :]
    direct = tl.load(dstate + place, mask=here, other=0.0)
    dextra = tl.load(dcarry + place, mask=here, other=0.0) if CARRIES else direct
    for item in tl.range((last - first) * per_step, disable_licm=True):
        step = first + item // per_step
        turn = item % per_step
        batch = (group + turn * groups) * BATCH + lane
        batch_mask = batch < B
        t = time_step(T - 1 - step, direction, T)
        steps = tl.load(lengths + batch, mask=batch_mask, other=0)
        active = batch_mask & (t < steps)
        here = unit_mask & batch_mask[None, :]
        place = (direction * B + batch[None, :]) * H + unit
        token = (t * B + batch[None, :]) * D + direction
        # Nothing of this depends on other programs, so it is under way while this one waits for them.
        fresh = tl.load(dy + token * H + unit, mask=here & active[None, :], other=0.0).to(ACC)
        now = tl.load(track + token * H + unit, mask=here, other=0.0).to(ACC)
        begins = t == tl.where(direction == 0, 0, steps - 1)
        earlier = token + tl.where(direction == 0, -1, 1) * B * D
        inner = here & active[None, :] & (begins == 0)[None, :]
        before = tl.load(track + earlier * H + unit, mask=inner, other=0.0).to(ACC)
        outer = here & begins[None, :]
        before += tl.load(track_0 + place, mask=outer, other=0.0).to(ACC)
        saved0, saved1, saved2, saved3 = now, now, now, now
        spot = token * SLOTS * H + unit
        if SLOTS > 1:
            saved0 = tl.load(saved + spot, mask=here, other=0.0).to(ACC)
            saved1 = tl.load(saved + spot + H, mask=here, other=0.0).to(ACC)
            saved2 = tl.load(saved + spot + 2 * H, mask=here, other=0.0).to(ACC)
            saved3 = tl.load(saved + spot + 3 * H, mask=here, other=0.0).to(ACC)
        if MULTI:
            direct = tl.load(dstate + place, mask=here, other=0.0)
            if CARRIES:
                dextra = tl.load(dcarry + place, mask=here, other=0.0)
        if (step > first) & (turn == 0):
            wait(counter, (step - first) * arrivals, INTERPRET, SKIP_WAIT)
        linger(counter, step, 0, JITTER, INTERPRET)
        source = part(exchange, step - 1, direction, D, exchange_rows * SLOTS * stride)
        if SLOTS == 1:
            total = tl.zeros((UNITS, BATCH), ACC)
        else:
            total = tl.zeros((SLOTS, UNITS, BATCH), ACC)
        gradients = _pointers(source, batch, stride, SLOTS, DEPTH)
        if KEEP:
            total = _product(total, kept, gradients, DEPTH, CHUNKS, FLIGHT, SLOTS, PRECISION, INTERPRET)
        else:
            total = _streamed(total, weight_hh, column, H, width, gradients,
                              GATES, SLOTS, DEPTH, STAGES, PRECISION, INTERPRET)  # fmt: skip
        if SLOTS > 1:
            total = tl.sum(total, 0)
        dh = direct + total + fresh
        d0, d1, d2, d3, onward, dextra_before = CELL(dh, dextra, saved0, saved1, saved2, saved3, now, before)
        direct = tl.where(active[None, :], onward, dh)
        dextra = tl.where(active[None, :], dextra_before, dextra)
        d0 = tl.where(active[None, :], d0, 0.0).to(dslots.dtype.element_ty)
        d1 = tl.where(active[None, :], d1, 0.0).to(dslots.dtype.element_ty)
        d2 = tl.where(active[None, :], d2, 0.0).to(dslots.dtype.element_ty)
        d3 = tl.where(active[None, :], d3, 0.0).to(dslots.dtype.element_ty)
        linger(counter, step, 1, JITTER, INTERPRET)
        target = part(exchange, step, direction, D, exchange_rows * SLOTS * stride)
        target += batch[None, :] * SLOTS * stride + unit
        tl.store(target, d0, mask=here)
        if SLOTS > 1:
            tl.store(target + stride, d1, mask=here)
            if GATES == SLOTS:
                tl.store(target + 2 * stride, d2, mask=here)
            tl.store(target + 3 * stride, d3, mask=here)
        if MULTI:
            tl.store(dstate + place, direct, mask=here)
            if CARRIES:
                tl.store(dcarry + place, dextra, mask=here)
        if turn == per_step - 1:
            arrive(counter)
        store_slots(dslots + spot, H, d0, d1, d2, d3, here, SLOTS)
    if not MULTI:
        place = (direction * B + group * BATCH + lane[None, :]) * H + unit
        here = unit_mask & (group * BATCH + lane[None, :] < B)
        tl.store(dstate + place, direct, mask=here)
        if CARRIES:
            tl.store(dcarry + place, dextra, mask=here)


BACKWARD = kernel(
    _backward,
    ("dy", "weight_hh", "lengths", "dstate", "dcarry", "track", "track_0", "saved", "dslots"),
    ("first", "last", "T", "B", "H", "D", "first_chain", "exchange_rows"),
)
