"""The Triton kernels that all recurrent layers share: many time steps, forward or backward, in one launch.

A program owns UNITS hidden units and all of their gates, so one exchange per step is enough: it publishes what its
units became, waits until every program has, and reads the whole state. The hidden state travels through L2; the
weights are loaded once, before the loop over time (KEEP), or streamed at every step; the input product is hoisted out
beforehand. What a cell does with its gates is a device function of the cell's own file, given as CELL.

Letters: a *slot* is a value per unit and sequence before the nonlinearity. LSTM has 4 slots, its gates; an RNN 1; a GRU
has 4 slots for its 3 gates, because the state's part of its last gate is multiplied before the input's part is added:
slot 2 holds the input's part, slot 3 the state's. A *chain* is one direction of one layer. A launch runs both
directions of a layer, or several layers of one direction as a wavefront. There a layer is LAG steps behind the one
below: what it needs from there is then known a step ahead, so that its product is done while waiting.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ._device import dot
from ._triton import tl, triton

LAYER_LAG = 2
LAG = tl.constexpr(LAYER_LAG)


@triton.jit
def _arrive(counter):
    """Say that this program has published its part; every write before is visible to whoever sees the count."""
    tl.debug_barrier()
    tl.atomic_add(counter, 1, sem="release", scope="gpu")


@triton.jit
def _wait(counter, goal, INTERPRET: tl.constexpr, SKIP_WAIT: tl.constexpr):
    """Spin until `goal` programs have arrived. The count only grows, so no program can miss it.

    Every thread polls: its own acquire is what keeps its later loads from stale lines of the first-level cache, as an
    asynchronous copy of words narrower than 16 bytes may go through it whatever the load's modifier says.
    """
    if INTERPRET:
        while tl.atomic_add(counter, 0, sem="acquire", scope="gpu") < goal:
            pass
    elif not SKIP_WAIT:
        seen = goal - 1
        while seen < goal:
            seen = tl.inline_asm_elementwise(
                "ld.acquire.gpu.global.s32 $0, [$1];", "=r,l", [counter], dtype=tl.int32, is_pure=False, pack=1
            )
    tl.debug_barrier()


@triton.jit
def _linger(counter, step, place, JITTER: tl.constexpr, INTERPRET: tl.constexpr):
    """Sleep up to 4 us, differently in every program, step and place, by the seed in the word after the counter.

    Only in tests, which set JITTER: whatever is read without waiting for it is then read too early or too late.
    """
    if JITTER and not INTERPRET:
        program = tl.program_id(0) + 1024 * (tl.program_id(1) + 32 * tl.program_id(2))
        number = tl.load(counter + 1) * 7919 + 3 * step + place  # a prime beyond the places of any test
        number = number * 40503 + program  # 2**16 over the golden ratio
        number = (number ^ (number >> 7)) * 1103515245 + 12345  # one step of the generator of the C standard
        time_ns = (number >> 16) & 4095
        tl.inline_asm_elementwise(
            "nanosleep.u32 $1; mov.u32 $0, $1;", "=r,r", [time_ns], dtype=tl.int32, is_pure=False, pack=1
        )


@triton.jit
def _part(exchange, step, chain, chains, size):
    """What a chain published in a step: one of three parts of the exchange buffer, by turns.

    A part is written anew three steps later. By then all programs have arrived two steps before, and none reads it.
    """
    return exchange + ((step + 3) % 3 * chains + chain).to(tl.int64) * size


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


@triton.jit
def _time(position, direction, T):
    """The time step at a place of the chain: the second direction runs backwards. Clamped, so that it can be loaded."""
    t = tl.where(direction == 0, position, T - 1 - position)
    return tl.minimum(tl.maximum(t, 0), T - 1).to(tl.int64)


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
    exchange (3, chains, exchange_rows, columns): the states of the last steps, see `_part`; at first the last part
    holds the state before the first step; zeros
    beyond H. counters: one int32 per direction and group of sequences, 32 apart, zero before the first launch.
    Grid: (programs of UNITS units, chains from `first_chain` on, groups of sequences); for more than one step all of
    them must be on the device at once. Tests set JITTER (see `_linger`) and SKIP_WAIT, which lets no program wait for
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
        t = _time(position, direction, T)
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
            _linger(counter, step, 2, JITTER, INTERPRET)
            states = _part(exchange, step - LAG, tl.maximum(chain - 1, 0), chains, exchange_rows * stride)
            states += batch[:, None] * stride + tl.arange(0, DEPTH)[None, :]
            above = (batch < tl.where(layer > 0, rows, 0))[:, None]
            total = tl.zeros((SLOTS * UNITS, BATCH), ACC)
            total = _product(total, kept_below, states, above, DEPTH, CHUNKS, FLIGHT, PRECISION, INTERPRET)
            below = start + tl.where(below_mask[:, None], total, 0.0)
        if (step > first) & (turn == 0):
            _wait(counter, (step - first) * arrivals, INTERPRET, SKIP_WAIT)
        _linger(counter, step, 0, JITTER, INTERPRET)
        source = _part(exchange, step - 1, chain, chains, exchange_rows * stride)
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
        after, extra_after, kept0, kept1, kept2, kept3 = CELL(slot0, slot1, slot2, slot3, hidden, extra)
        after = after.to(y.dtype.element_ty).to(ACC)  # what the next step sees
        hidden = tl.where(active[None, :], after, hidden)
        extra = tl.where(active[None, :], extra_after, extra)
        _linger(counter, step, 1, JITTER, INTERPRET)
        target = _part(exchange, step, chain, chains, exchange_rows * stride)
        tl.store(target + batch[None, :] * stride + unit, hidden.to(exchange.dtype.element_ty), mask=here)
        if MULTI:
            tl.store(state + place, hidden, mask=here)
            if CARRIES:
                tl.store(carry + place, extra, mask=here)
        if turn == per_step - 1:
            _arrive(counter)
        token = ((layer * T + t) * B + batch[None, :]) * D + direction
        here = unit_mask & (batch < rows)[None, :]
        output = tl.where(active[None, :], hidden, 0.0).to(y.dtype.element_ty)
        stored = unit_mask & (batch < tl.where(layer >= lowest, rows, 0))[None, :]
        tl.store(y + (token - lowest * T * B * D) * H + unit, output, mask=stored)
        if SAVE_SLOTS:
            spot = token * SLOTS * H + unit
            tl.store(saved + spot, kept0.to(saved.dtype.element_ty), mask=here)
            tl.store(saved + spot + H, kept1.to(saved.dtype.element_ty), mask=here)
            tl.store(saved + spot + 2 * H, kept2.to(saved.dtype.element_ty), mask=here)
            tl.store(saved + spot + 3 * H, kept3.to(saved.dtype.element_ty), mask=here)
        if SAVE and CARRIES:
            tl.store(carries + token * H + unit, extra.to(carries.dtype.element_ty), mask=here)
    if not MULTI:
        place = (chain * B + group * BATCH + lane[None, :]) * H + unit
        here = unit_mask & (group * BATCH + lane[None, :] < B)
        tl.store(state + place, hidden, mask=here)
        if CARRIES:
            tl.store(carry + place, extra, mask=here)


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


def _backward(
    dy, weight_hh, lengths, dstate, dcarry, track, track_0, saved, dslots, exchange, counters,
    first, last, T, B, H, D, first_chain, exchange_rows,
    CELL: tl.constexpr, GATES: tl.constexpr, SLOTS: tl.constexpr, CARRIES: tl.constexpr, ALIGNED: tl.constexpr,
    UNITS: tl.constexpr, BATCH: tl.constexpr, DEPTH: tl.constexpr, CHUNKS: tl.constexpr, FLIGHT: tl.constexpr,
    KEEP: tl.constexpr, MULTI: tl.constexpr, STAGES: tl.constexpr, PRECISION: tl.constexpr, ACC: tl.constexpr,
    INTERPRET: tl.constexpr, JITTER: tl.constexpr, SKIP_WAIT: tl.constexpr,
):  # fmt: skip
    """Gradients before the nonlinearities, from the last step to the first, of both directions of one layer.

    dy (T, B, D, H): gradients of the outputs. weight_hh as in `_forward`. saved (T, B, D, SLOTS, H) from `_forward`.
    track (T, B, D, H): the state that the cell's gradient needs, the LSTM's c or the others' h; track_0 (D, B, H): the
    same before the first step. dstate, dcarry (D, B, H) in ACC: gradients of the last state; overwritten by those of
    the first, dstate without what comes through the weights, which the caller adds as one product.
    dslots (T, B, D, SLOTS, H): the result. exchange (3, D, exchange_rows, SLOTS, columns), zeros at first, see `_part`;
    counters and grid as in `_forward`.
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
        t = _time(T - 1 - step, direction, T)
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
        kept0, kept1, kept2, kept3 = now, now, now, now
        spot = token * SLOTS * H + unit
        if SLOTS > 1:
            kept0 = tl.load(saved + spot, mask=here, other=0.0).to(ACC)
            kept1 = tl.load(saved + spot + H, mask=here, other=0.0).to(ACC)
            kept2 = tl.load(saved + spot + 2 * H, mask=here, other=0.0).to(ACC)
            kept3 = tl.load(saved + spot + 3 * H, mask=here, other=0.0).to(ACC)
        if MULTI:
            direct = tl.load(dstate + place, mask=here, other=0.0)
            if CARRIES:
                dextra = tl.load(dcarry + place, mask=here, other=0.0)
        if (step > first) & (turn == 0):
            _wait(counter, (step - first) * arrivals, INTERPRET, SKIP_WAIT)
        _linger(counter, step, 0, JITTER, INTERPRET)
        source = _part(exchange, step - 1, direction, D, exchange_rows * SLOTS * stride)
        if SLOTS == 1:
            total = tl.zeros((UNITS, BATCH), ACC)
        else:
            total = tl.zeros((SLOTS, UNITS, BATCH), ACC)
        gradients = _pointers(source, batch, stride, SLOTS, DEPTH)
        if KEEP:
            tiles_ahead = ()
            for chunk in tl.static_range(FLIGHT):
                tiles_ahead = tiles_ahead + (tl.load(gradients + chunk * DEPTH, cache_modifier=".cg"),)
            for chunk in tl.static_range(CHUNKS):
                total = _by_slot(kept[chunk], tiles_ahead[chunk], total, SLOTS, PRECISION, INTERPRET)
                if chunk + FLIGHT < CHUNKS:
                    tiles_ahead = tiles_ahead + (tl.load(gradients + (chunk + FLIGHT) * DEPTH, cache_modifier=".cg"),)
        else:
            for start in tl.range(0, H, DEPTH, num_stages=STAGES):
                weights = _columns(weight_hh, column, H, width, start, GATES, SLOTS, DEPTH)
                tile = tl.load(gradients + start, cache_modifier=".cg")
                total = _by_slot(weights, tile, total, SLOTS, PRECISION, INTERPRET)
        if SLOTS > 1:
            total = tl.sum(total, 0)
        dh = direct + total + fresh
        d0, d1, d2, d3, onward, dextra_before = CELL(dh, dextra, kept0, kept1, kept2, kept3, now, before)
        direct = tl.where(active[None, :], onward, dh)
        dextra = tl.where(active[None, :], dextra_before, dextra)
        d0 = tl.where(active[None, :], d0, 0.0).to(dslots.dtype.element_ty)
        d1 = tl.where(active[None, :], d1, 0.0).to(dslots.dtype.element_ty)
        d2 = tl.where(active[None, :], d2, 0.0).to(dslots.dtype.element_ty)
        d3 = tl.where(active[None, :], d3, 0.0).to(dslots.dtype.element_ty)
        _linger(counter, step, 1, JITTER, INTERPRET)
        target = _part(exchange, step, direction, D, exchange_rows * SLOTS * stride)
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
            _arrive(counter)
        tl.store(dslots + spot, d0, mask=here)
        if SLOTS > 1:
            tl.store(dslots + spot + H, d1, mask=here)
            tl.store(dslots + spot + 2 * H, d2, mask=here)
            tl.store(dslots + spot + 3 * H, d3, mask=here)
    if not MULTI:
        place = (direction * B + group * BATCH + lane[None, :]) * H + unit
        here = unit_mask & (group * BATCH + lane[None, :] < B)
        tl.store(dstate + place, direct, mask=here)
        if CARRIES:
            tl.store(dcarry + place, dextra, mask=here)


_FORWARD_NUMBERS = ("first", "last", "T", "B", "H", "D", "layers", "lowest", "first_chain", "exchange_rows")
_BACKWARD_NUMBERS = ("first", "last", "T", "B", "H", "D", "first_chain", "exchange_rows")
_FORWARD_TENSORS = ("gx", "weight_hh", "weight_below", "bias", "lengths", "state", "carry", "y", "saved", "carries")
_BACKWARD_TENSORS = ("dy", "weight_hh", "lengths", "dstate", "dcarry", "track", "track_0", "saved", "dslots")
# Allocated by the launcher, so wide loads can always take them; weights too where H is no multiple of 16.
_OWN_TENSORS = ("exchange", "counters")
_WEIGHTS = ("weight_hh", "weight_below")


@dataclass(frozen=True)
class Kernel:
    """One kernel, as a program for aligned sizes and one for any: exactly the two signatures that are compiled offline.

    tensors, numbers : names of its arguments.
    """

    tensors: tuple[str, ...]
    numbers: tuple[str, ...]
    aligned: Any
    unaligned: Any

    def program(self, aligned: bool) -> Any:
        """The Triton function."""
        return self.aligned if aligned else self.unaligned

    def divisible(self, aligned: bool) -> tuple[str, ...]:
        """The arguments known to be multiples of 16."""
        return self.tensors if aligned else tuple(name for name in self.tensors if name in (*_WEIGHTS, *_OWN_TENSORS))


def _kernel(function: Any, tensors: tuple[str, ...], numbers: tuple[str, ...]) -> Kernel:
    return Kernel(
        (*tensors, *_OWN_TENSORS),
        numbers,
        triton.jit(do_not_specialize=[*numbers])(function),
        triton.jit(do_not_specialize=[*numbers, *(name for name in tensors if name not in _WEIGHTS)])(function),
    )


FORWARD = _kernel(_forward, _FORWARD_TENSORS, _FORWARD_NUMBERS)
BACKWARD = _kernel(_backward, _BACKWARD_TENSORS, _BACKWARD_NUMBERS)
