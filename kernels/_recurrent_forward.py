"""The forward kernel of all recurrent layers: steps of one layer, or of several as a wavefront, in one launch.

How programs share the work, and the letters: `_recurrent_triton`.
"""

from __future__ import annotations

from ._device import dot
from ._recurrent_triton import LAG, arrive, kernel, linger, part, store_slots, time_step, wait
from ._triton import tl, triton


@triton.jit
def _slot_rows(first_unit, H, GATES: tl.constexpr, SLOTS: tl.constexpr, UNITS: tl.constexpr):
    """Lines of a (SLOTS UNITS, ...) tile: the weight rows of the input, of the state, and which of them exist."""
    line = tl.arange(0, SLOTS * UNITS)
    slot = line // UNITS
    unit = first_unit + line % UNITS
    inside = unit < H
    input_row = slot * H + unit
    if GATES == SLOTS:
        return input_row, inside, input_row, inside
    state_row = tl.minimum(slot, GATES - 1) * H + unit
    return input_row, inside & (slot < GATES), state_row, inside & (slot != GATES - 1)


@triton.jit
def _four(tile, SLOTS: tl.constexpr, UNITS: tl.constexpr, BATCH: tl.constexpr):
    """Take a (SLOTS UNITS, BATCH) tile apart into its slots, each (UNITS, BATCH); a single slot stands for all four."""
    if SLOTS == 1:
        first, second, third, fourth = tile, tile, tile, tile
    else:
        # The slot as two binary digits in front; each split takes the last digit off.
        even, odd = tl.split(tile.reshape(2, 2, UNITS, BATCH).permute(2, 3, 0, 1))
        first, third = tl.split(even)
        second, fourth = tl.split(odd)
    return first, second, third, fourth


@triton.jit
def _weights(weight, rows, mask, width, DEPTH: tl.constexpr, CHUNKS: tl.constexpr):
    """Load the (rows, width) weights as CHUNKS tiles of DEPTH columns, zeros beyond: they stay on chip."""
    tiles = ()
    for chunk in tl.static_range(CHUNKS):
        column = chunk * DEPTH + tl.arange(0, DEPTH)[None, :]
        places = weight + rows[:, None] * width + column
        tiles = tiles + (tl.load(places, mask=mask[:, None] & (column < width), other=0.0),)
    return tiles


@triton.jit
def _product(
    total, weights, states, rows,
    DEPTH: tl.constexpr, CHUNKS: tl.constexpr, FLIGHT: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add the product of kept weights and of the state, whose first DEPTH columns `states` (BATCH, DEPTH) points at;
    where the mask `rows` (BATCH, 1) is false the state counts as zero.

    Loads bypass the first-level cache, for other programs have just written what is there. FLIGHT chunks are under way
    at a time. Two sums in turn halve the chain of dependent products; more would not fit into the registers.
    """
    tiles = ()
    for chunk in tl.static_range(FLIGHT):
        tiles = tiles + (tl.load(states + chunk * DEPTH, mask=rows, other=0.0, cache_modifier=".cg"),)
    other = tl.zeros(total.shape, total.dtype)
    for chunk in tl.static_range(CHUNKS):
        if chunk % 2 == 0:
            total = dot(weights[chunk], tl.trans(tiles[chunk]), total, PRECISION, INTERPRET)
        else:
            other = dot(weights[chunk], tl.trans(tiles[chunk]), other, PRECISION, INTERPRET)
        if chunk + FLIGHT < CHUNKS:
            tiles = tiles + (tl.load(states + (chunk + FLIGHT) * DEPTH, mask=rows, other=0.0, cache_modifier=".cg"),)
    total += other
    return total


@triton.jit
def _streamed(
    total, weight, rows, mask, width, exchange, batch, stride,
    DEPTH: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add the product of the state and of weights that are read anew, DEPTH columns at a time."""
    for start in tl.range(0, width, DEPTH, num_stages=STAGES):
        column = start + tl.arange(0, DEPTH)[None, :]
        tile = tl.load(weight + rows[:, None] * width + column, mask=mask[:, None] & (column < width), other=0.0)
        state = tl.load(exchange + batch[:, None] * stride + column, cache_modifier=".cg")
        total = dot(tile, tl.trans(state), total, PRECISION, INTERPRET)
    return total


def _forward(
    gx, weight_hh, weight_below, bias, lengths, state, carry, y, saved, carries, exchange, counters,
    first, last, T, B, H, D, layers, lowest, first_chain, exchange_rows,
    CELL: tl.constexpr, GATES: tl.constexpr, SLOTS: tl.constexpr, CARRIES: tl.constexpr, WAVE: tl.constexpr,
    SAVE: tl.constexpr, SAVE_SLOTS: tl.constexpr, ALIGNED: tl.constexpr, UNITS: tl.constexpr, BATCH: tl.constexpr,
    DEPTH: tl.constexpr, CHUNKS: tl.constexpr, FLIGHT: tl.constexpr, KEEP: tl.constexpr, MULTI: tl.constexpr,
    STAGES: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
    JITTER: tl.constexpr, SKIP_WAIT: tl.constexpr,
):  # fmt: skip
    """Steps `first` to `last` of the D directions of a layer, or (WAVE) of several layers of one direction.

    gx (T, B, D, GATES, H): the input product of the first layer. weight_hh (chains, GATES H, width); weight_below
    (layers - 1, GATES H, width) of the layers above the first; width is the next multiple of 16 from H on, with zeros
    beyond H, so that rows begin where wide loads can. bias (chains, SLOTS, H); lengths (B), at most T.
    state, carry (chains, B, H) in ACC: the state before the first step, overwritten by that after the last; `carry` is
    what a cell has besides, the LSTM's c, where CARRIES.
    y (layers - lowest, T, B, D, H): the outputs of the layers from `lowest` on. For the gradients, where SAVE: carries
    (layers, T, B, D, H), and where SAVE_SLOTS: saved (layers, T, B, D, SLOTS, H), which may be `gx` itself.
    exchange (3, chains, exchange_rows, columns): the states of the last steps, see `part`; at first the last part
    holds the state before the first step; zeros
    beyond H. counters: one int32 per direction and group of sequences, 32 apart, zero before the first launch.
    Grid: (programs of UNITS units, chains from `first_chain` on, groups of sequences); for more than one step all of
    them must be on the device at once. Tests set JITTER (see `linger`) and SKIP_WAIT, which lets no program wait for
    the others: what a test must notice.
    """
    width = tl.cdiv(H, 16) * 16
    if ALIGNED:
        H = H // 16 * 16
        width = H
    first_unit = tl.program_id(0) * UNITS
    chain = tl.program_id(1) + first_chain
    chains = layers * D
    group = tl.program_id(2)
    groups = tl.num_programs(2)
    lowest = tl.cast(lowest, tl.int64)
    layer = chain // D
    direction = chain % D
    counter = counters + (group * D + direction) * 32
    arrivals = tl.num_programs(0) * layers
    input_row, input_mask, state_row, state_mask = _slot_rows(first_unit, H, GATES, SLOTS, UNITS)
    unit = first_unit + tl.arange(0, UNITS)[:, None]
    unit_mask = unit < H
    line = tl.arange(0, SLOTS * UNITS)
    start = tl.load(bias + chain * SLOTS * H + line // UNITS * H + first_unit + line % UNITS,
                    mask=first_unit + line % UNITS < H, other=0.0).to(ACC)[:, None]  # fmt: skip
    weight_hh += chain.to(tl.int64) * GATES * H * width
    weight_below += tl.maximum(layer - 1, 0).to(tl.int64) * GATES * H * width
    below_mask = input_mask & (line < tl.where(layer > 0, SLOTS * UNITS, 0))
    stride = CHUNKS * DEPTH if KEEP else tl.cdiv(H, DEPTH) * DEPTH
    kept = ()
    kept_below = ()
    if KEEP:
        kept = _weights(weight_hh, state_row, state_mask, width, DEPTH, CHUNKS)
        if WAVE:
            kept_below = _weights(weight_below, input_row, below_mask, width, DEPTH, CHUNKS)
    tiles = tl.cdiv(B, BATCH)
    per_step = tl.cdiv(tiles - group, groups)
    lane = tl.arange(0, BATCH)
    place = (chain * B + group * BATCH + lane[None, :]) * H + unit
    here = unit_mask & (group * BATCH + lane[None, :] < B)
    hidden = tl.load(state + place, mask=here, other=0.0)
    extra = tl.load(carry + place, mask=here, other=0.0) if CARRIES else hidden
    # Hoisting what does not change out of the loop would take more registers than there are.
    for item in tl.range((last - first) * per_step, disable_licm=True):
        step = first + item // per_step
        turn = item % per_step
        batch = (group + turn * groups) * BATCH + lane
        batch_mask = batch < B
        position = step - LAG * layer
        t = time_step(position, direction, T)
        rows = tl.where((position >= 0) & (position < T), B, 0)  # before and after its steps a layer has none
        active = (batch < rows) & (t < tl.load(lengths + batch, mask=batch_mask, other=0))
        here = unit_mask & batch_mask[None, :]
        place = (chain * B + batch[None, :]) * H + unit
        if MULTI:
            hidden = tl.load(state + place, mask=here, other=0.0)
            if CARRIES:
                extra = tl.load(carry + place, mask=here, other=0.0)
        # What is known already is under way while this program waits: the input, from memory or from the layer below.
        inside = input_mask[:, None] & (batch < tl.where(layer == 0, rows, 0))[None, :]
        ahead = tl.load(gx + ((t * B + batch[None, :]) * D + direction) * GATES * H + input_row[:, None],
                        mask=inside, other=0.0)  # fmt: skip
        below = start
        if WAVE:
            linger(counter, step, 2, JITTER, INTERPRET)
            states = part(exchange, step - LAG, tl.maximum(chain - 1, 0), chains, exchange_rows * stride)
            states += batch[:, None] * stride + tl.arange(0, DEPTH)[None, :]
            above = (batch < tl.where(layer > 0, rows, 0))[:, None]
            total = tl.zeros((SLOTS * UNITS, BATCH), ACC)
            total = _product(total, kept_below, states, above, DEPTH, CHUNKS, FLIGHT, PRECISION, INTERPRET)
            below = start + tl.where(below_mask[:, None], total, 0.0)
        if (step > first) & (turn == 0):
            wait(counter, (step - first) * arrivals, INTERPRET, SKIP_WAIT)
        linger(counter, step, 0, JITTER, INTERPRET)
        source = part(exchange, step - 1, chain, chains, exchange_rows * stride)
        total = tl.zeros((SLOTS * UNITS, BATCH), ACC)
        if KEEP:
            states = source + batch[:, None] * stride + tl.arange(0, DEPTH)[None, :]
            total = _product(total, kept, states, batch_mask[:, None], DEPTH, CHUNKS, FLIGHT, PRECISION, INTERPRET)
        else:
            total = _streamed(total, weight_hh, state_row, state_mask, width, source, batch, stride,
                              DEPTH, STAGES, PRECISION, INTERPRET)  # fmt: skip
        if GATES != SLOTS:  # a slot without recurrent weights: nothing times an infinite state is NaN
            total = tl.where(state_mask[:, None], total, 0.0)
        total += below + ahead.to(ACC)
        slot0, slot1, slot2, slot3 = _four(total, SLOTS, UNITS, BATCH)
        after, extra_after, saved0, saved1, saved2, saved3 = CELL(slot0, slot1, slot2, slot3, hidden, extra)
        after = after.to(y.dtype.element_ty).to(ACC)  # what the next step sees
        hidden = tl.where(active[None, :], after, hidden)
        extra = tl.where(active[None, :], extra_after, extra)
        linger(counter, step, 1, JITTER, INTERPRET)
        target = part(exchange, step, chain, chains, exchange_rows * stride)
        tl.store(target + batch[None, :] * stride + unit, hidden.to(exchange.dtype.element_ty), mask=here)
        if MULTI:
            tl.store(state + place, hidden, mask=here)
            if CARRIES:
                tl.store(carry + place, extra, mask=here)
        if turn == per_step - 1:
            arrive(counter)
        token = ((layer * T + t) * B + batch[None, :]) * D + direction
        here = unit_mask & (batch < rows)[None, :]
        output = tl.where(active[None, :], hidden, 0.0).to(y.dtype.element_ty)
        stored = unit_mask & (batch < tl.where(layer >= lowest, rows, 0))[None, :]
        tl.store(y + (token - lowest * T * B * D) * H + unit, output, mask=stored)
        if SAVE_SLOTS:
            store_slots(saved + token * SLOTS * H + unit, H, saved0, saved1, saved2, saved3, here, SLOTS)
        if SAVE and CARRIES:
            tl.store(carries + token * H + unit, extra.to(carries.dtype.element_ty), mask=here)
    if not MULTI:
        place = (chain * B + group * BATCH + lane[None, :]) * H + unit
        here = unit_mask & (group * BATCH + lane[None, :] < B)
        tl.store(state + place, hidden, mask=here)
        if CARRIES:
            tl.store(carry + place, extra, mask=here)


FORWARD = kernel(
    _forward,
    ("gx", "weight_hh", "weight_below", "bias", "lengths", "state", "carry", "y", "saved", "carries"),
    ("first", "last", "T", "B", "H", "D", "layers", "lowest", "first_chain", "exchange_rows"),
)
