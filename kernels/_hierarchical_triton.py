"""The Triton kernels of hierarchical attention: one level forward, all levels forward, one level backward.

A tile is WINDOWS windows by PLACES vectors of each, WINDOWS * PLACES rows in all; windows longer than PLACES take
several tiles in turn, with a running softmax. A program goes through consecutive windows, flattened over the batch, and
reads every vector once: for the product with V, and for the average. V stays in the program where a tile has all of
its rows (COLUMNS = WIDTH); otherwise it comes from the cache in blocks of COLUMNS rows.

Letters as in `hierarchical_attention`; n vectors below a level and `above` contexts above it, per sequence.
"""

from __future__ import annotations

from ._device import dot, tanh
from ._triton import tl, triton

# As few rows, and columns, as a product on tensor cores takes.
DOT_ROWS = tl.constexpr(16)


@triton.jit
def _squash(x, FAST: tl.constexpr, INTERPRET: tl.constexpr):
    """Hyperbolic tangent. FAST is one instruction, within 2^-11 of it: half a unit in the last place of float16."""
    if FAST and not INTERPRET:
        result = tl.inline_asm_elementwise(
            "tanh.approx.f32 $0, $1;", "=f,f", [x], dtype=tl.float32, is_pure=True, pack=1
        )
    else:
        result = tanh(x)
    return result


@triton.jit
def _rows_of_V(V, first, P, COLUMNS: tl.constexpr, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows `first` to `first + COLUMNS` of V (P, P), zero outside of it."""
    row = first + tl.arange(0, COLUMNS)
    column = tl.arange(0, WIDTH)
    pointers = V + row[:, None] * P + column[None, :]
    if PADDED:
        rows = tl.load(pointers, mask=(row < P)[:, None] & (column < P)[None, :], other=0.0)
    else:
        rows = tl.load(pointers)
    return rows


@triton.jit
def _part_of(vector, first, P, COLUMNS: tl.constexpr, PADDED: tl.constexpr, ACC: tl.constexpr):
    """Numbers `first` to `first + COLUMNS` of b or q, zero beyond P."""
    place = first + tl.arange(0, COLUMNS)
    if PADDED:
        part = tl.load(vector + place, mask=place < P, other=0.0)
    else:
        part = tl.load(vector + place)
    return part.to(ACC)


@triton.jit
def _hidden(
    tile, turned, b, first, P, COLUMNS: tl.constexpr, PADDED: tl.constexpr,
    ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """u = tanh(V x + b) of all vectors of a tile for COLUMNS rows of V, from `first` on; zero beyond P."""
    nothing = tl.zeros((tile.shape[0], COLUMNS), ACC)
    bias = _part_of(b, first, P, COLUMNS, PADDED, ACC)
    hidden = _squash(dot(tile, turned, nothing, PRECISION, INTERPRET) + bias[None, :], FAST, INTERPRET)
    if PADDED:  # an infinite number of x times the zeros beyond P is NaN
        hidden = tl.where((first + tl.arange(0, COLUMNS) < P)[None, :], hidden, 0.0)
    return hidden


@triton.jit
def _scores(
    tile, turned, b, q, first, P, COLUMNS: tl.constexpr, PADDED: tl.constexpr,
    ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """The part of the scores q . u of a tile that COLUMNS rows of V, from `first` on, contribute."""
    hidden = _hidden(tile, turned, b, first, P, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET)
    return tl.sum(hidden * _part_of(q, first, P, COLUMNS, PADDED, ACC)[None, :], 1)


@triton.jit
def _places(first, turn, last, n, above, F, WINDOWS: tl.constexpr, PLACES: tl.constexpr):
    """Rows of x that belong to a tile, whether they exist, and the window of each slot of the tile."""
    chunks = tl.cdiv(tl.minimum(F, n), PLACES)
    row = tl.arange(0, WINDOWS * PLACES)
    slot = first + turn // chunks * WINDOWS
    window = slot + row // PLACES
    place = turn % chunks * PLACES + row % PLACES
    within = window % above * F + place
    inside = (window < last) & (place < F) & (within < n)
    return (window // above).to(tl.int64) * n + within, inside, slot + tl.arange(0, WINDOWS)


@triton.jit
def _tile(matrix, row, mask, P, WIDTH: tl.constexpr, PADDED: tl.constexpr, FRESH: tl.constexpr):
    """Rows of a matrix (.., P) as a block of WIDTH columns, zero outside; FRESH ones must not come from L1."""
    column = tl.arange(0, WIDTH)
    mask = mask[:, None] & (column < P)[None, :] if PADDED else mask[:, None]
    modifier: tl.constexpr = ".cg" if FRESH else ""
    return tl.load(matrix + row[:, None] * P + column[None, :], mask=mask, other=0.0, cache_modifier=modifier)


@triton.jit
def _weighted(
    weight, tile, WINDOWS: tl.constexpr, PLACES: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr
):
    """Sum the vectors of a tile by their weights (WINDOWS, PLACES): a block (WINDOWS, WIDTH).

    One window is a product on tensor cores, so that the vectors need not enter registers; its rows are all the same.
    Several windows are summed each by itself: in a product the zero weight of another's NaN would still give NaN.
    """
    if WINDOWS == 1 and (tile.dtype.primitive_bitwidth == 16 or PRECISION == "tf32"):
        weights = tl.broadcast_to(weight, (DOT_ROWS, PLACES)).to(tile.dtype)
        nothing = tl.zeros((DOT_ROWS, tile.shape[1]), weight.dtype)
        result = tl.max(dot(weights, tile, nothing, PRECISION, INTERPRET), 0)[None, :]
    else:
        vectors = tile.to(weight.dtype).reshape(WINDOWS, PLACES, tile.shape[1])
        result = tl.sum(weight[:, :, None] * vectors, 1)
    return result


@triton.jit
def _summarise(
    x, contexts, scores, logarithms, V, b, q, first, last, n, above, F, P, keep,
    WINDOWS: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
    PADDED: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr, FRESH: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Summarise the windows `first` to `last` of one level; scores and logarithms are written where `keep` is 1.

    Per window: `average`, the sum of the vectors weighted by exp(score - top); `total`, the sum of these weights;
    `top`, the largest score so far.
    """
    chunks = tl.cdiv(tl.minimum(F, n), PLACES)
    column = tl.arange(0, WIDTH)
    kept = ()
    if KEEP:
        for block in tl.static_range(WIDTH // COLUMNS):
            turned = tl.trans(_rows_of_V(V, block * COLUMNS, P, COLUMNS, WIDTH, PADDED))
            kept = kept + (turned,)  # noqa: RUF005 - Triton joins tuples with a plus sign only
    average = tl.zeros((WINDOWS, WIDTH), ACC)
    total = tl.zeros((WINDOWS,), ACC)
    top = tl.zeros((WINDOWS,), ACC)
    for turn in tl.range(0, tl.cdiv(last - first, WINDOWS) * chunks):
        row, inside, window = _places(first, turn, last, n, above, F, WINDOWS, PLACES)
        tile = _tile(x, row, inside, P, WIDTH, PADDED, FRESH)
        score = tl.zeros((WINDOWS * PLACES,), ACC)
        if KEEP:
            for block in tl.static_range(WIDTH // COLUMNS):
                score += _scores(
                    tile, kept[block], b, q, block * COLUMNS, P, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET
                )
        else:
            for block in tl.range(0, WIDTH // COLUMNS):
                turned = tl.trans(_rows_of_V(V, block * COLUMNS, P, COLUMNS, WIDTH, PADDED))
                score += _scores(
                    tile, turned, b, q, block * COLUMNS, P, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET
                )
        tl.store(scores + row, score, mask=tl.where(inside, keep, 0) != 0)
        score = tl.where(inside, score, float("-inf")).reshape(WINDOWS, PLACES)

        # Float32's lowest number: unlike -inf it can be subtracted from itself in slots without a window.
        starts = turn % chunks == 0
        top = tl.where(starts, -3.4028234663852886e38, top)
        new_top = tl.maximum(top, tl.max(score, 1))
        weight = tl.exp(score - new_top[:, None])
        shrink = tl.where(starts, 0.0, tl.exp(top - new_top))
        total = tl.where(starts, 0.0, total * shrink) + tl.sum(weight, 1)
        added = _weighted(weight, tile, WINDOWS, PLACES, PRECISION, INTERPRET)
        average = tl.where(starts, 0.0, average * shrink[:, None]) + added
        top = new_top

        done = window < tl.where(turn % chunks == chunks - 1, last, first)
        pointers = contexts + (window.to(tl.int64) * P)[:, None] + column[None, :]
        result = (average / total[:, None]).to(contexts.dtype.element_ty)
        tl.store(pointers, result, mask=done[:, None] & (column < P)[None, :])
        tl.store(logarithms + window, top + tl.log(total), mask=tl.where(done, keep, 0) != 0)


def _level(
    x, contexts, scores, logarithms, V, b, q, windows, share, n, above, F, P, keep,
    WINDOWS: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
    PADDED: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Summarise one level: `windows` of them over all sequences, `share` for every program."""
    first = tl.program_id(0) * share
    _summarise(
        x, contexts, scores, logarithms, V, b, q, first, tl.minimum(first + share, windows), n, above, F, P, keep,
        WINDOWS, PLACES, WIDTH, COLUMNS, KEEP, PADDED, ACC, FAST, False, PRECISION, INTERPRET,
    )  # fmt: skip


@triton.jit
def _arrive(counter, count):
    """Say that `count` windows are written; returns how many there are, and then all of them can be read."""
    tl.debug_barrier()
    before = tl.atomic_add(counter, count, sem="acq_rel", scope="gpu")
    tl.debug_barrier()
    return before + count


def _tree(
    x, contexts, scores, logarithms, V, b, q, counters, windows, share, B, n, above, F, P, keep,
    WINDOWS: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
    PADDED: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Summarise all levels. The program that writes the last window of a parent goes on with the parent, and so up.

    Contexts, scores, logarithms and counters of the levels lie one after the other; a counter belongs to a window of
    the second level or above. No program waits: one that is not the last leaves the rest to those that come after it.
    """
    first = tl.program_id(0) * share
    last = tl.minimum(first + share, windows)
    _summarise(
        x, contexts, scores, logarithms, V, b, q, first, last, n, above, F, P, keep,
        WINDOWS, PLACES, WIDTH, COLUMNS, KEEP, PADDED, ACC, FAST, False, PRECISION, INTERPRET,
    )  # fmt: skip
    if above > 1:
        lowest = tl.cdiv(above, F)
        begin = first // above * lowest + first % above // F
        end = (last - 1) // above * lowest + (last - 1) % above // F + 1
        for parent in range(begin, end):
            # What this program has written of the parent's windows.
            oldest = parent // lowest * above + parent % lowest * F
            youngest = tl.minimum(oldest + F, (parent // lowest + 1) * above)
            written = tl.minimum(last, youngest) - tl.maximum(first, oldest)
            climbing = _arrive(counters + parent, written) == youngest - oldest
            # The level that the parent reads, and where it begins.
            level = 1
            here = parent
            length = above
            source = windows * 0
            score = B.to(tl.int64) * n
            counter = windows * 0
            while climbing:
                contexts_above = source + B * length
                fewer = tl.cdiv(length, F)
                matrix = V + level * P * P
                _summarise(
                    contexts + source.to(tl.int64) * P, contexts + contexts_above.to(tl.int64) * P,
                    scores + score, logarithms + contexts_above, matrix, b + level * P, q + level * P,
                    here, here + 1, length, fewer, F, P, keep,
                    WINDOWS, PLACES, WIDTH, COLUMNS, False, PADDED, ACC, FAST, True, PRECISION, INTERPRET,
                )  # fmt: skip
                climbing = fewer > 1
                if climbing:
                    top = tl.cdiv(fewer, F)
                    counter += B * fewer
                    siblings = tl.minimum(F, fewer - here % fewer // F * F)
                    here = here // fewer * top + here % fewer // F
                    climbing = _arrive(counters + counter + here, 1) == siblings
                score += B * length
                source = contexts_above
                length = fewer
                level += 1


@triton.jit
def _products(
    tile, vectors, ACC: tl.constexpr, WINDOWS: tl.constexpr, PLACES: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Dot products of the rows of a tile with the vector of their window (WINDOWS, WIDTH): (WINDOWS, PLACES)."""
    if WINDOWS == 1 and (tile.dtype.primitive_bitwidth == 16 or PRECISION == "tf32"):
        columns = tl.broadcast_to(tl.trans(vectors), (tile.shape[1], DOT_ROWS))
        nothing = tl.zeros((PLACES, DOT_ROWS), ACC)
        result = tl.max(dot(tile, columns, nothing, PRECISION, INTERPRET), 1)[None, :]
    else:
        rows = tile.to(ACC).reshape(WINDOWS, PLACES, tile.shape[1])
        result = tl.sum(rows * vectors.to(ACC)[:, None, :], 2)
    return result


@triton.jit
def _through_hidden(
    slope, tile, rows, turned, dscore, row, inside, b, q, dhidden, sums, first, P,
    WIDTH: tl.constexpr, COLUMNS: tl.constexpr, PADDED: tl.constexpr,
    ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add to `slope`, dx of a tile, what comes through COLUMNS rows of V from `first` on.

    Writes `dhidden` of these rows, and sums for db and, WIDTH places later, for dq.
    """
    unit = first + tl.arange(0, COLUMNS)
    hidden = _hidden(tile, turned, b, first, P, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET)
    tl.store(sums + WIDTH + unit, tl.sum(dscore[:, None] * hidden, 0))
    query = _part_of(q, first, P, COLUMNS, PADDED, ACC)
    change = dscore[:, None] * query[None, :] * (1.0 - hidden * hidden)
    tl.store(sums + unit, tl.sum(change, 0))
    change = change.to(tile.dtype)
    tl.store(dhidden + row[:, None] * P + unit[None, :], change, mask=inside[:, None] & (unit < P)[None, :])
    if tile.dtype.primitive_bitwidth == 16 or PRECISION == "tf32":
        slope = dot(change, rows, slope, PRECISION, INTERPRET)
    else:  # turned around, for without tensor cores the layout of the other form spills
        slope = tl.trans(dot(turned, tl.trans(change), tl.trans(slope), PRECISION, INTERPRET))
    return slope


def _gradients(
    x, contexts, scores, logarithms, V, b, q, dcontexts, dx, dhidden, sums, windows, share, n, above, F, P,
    WINDOWS: tl.constexpr, PLACES: tl.constexpr, WIDTH: tl.constexpr, COLUMNS: tl.constexpr, KEEP: tl.constexpr,
    PADDED: tl.constexpr, ACC: tl.constexpr, FAST: tl.constexpr, PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Gradients of one level: dx, `dhidden` of V x + b for every vector, and the parts of db and dq of every tile.

    The weights come from the saved scores, u is computed again. `sums` is (tiles, 2, WIDTH); a running sum over tiles
    would take a quarter of the registers. `share` is a multiple of WINDOWS.
    """
    first = tl.program_id(0) * share
    last = tl.minimum(first + share, windows)
    chunks = tl.cdiv(tl.minimum(F, n), PLACES)
    column = tl.arange(0, WIDTH)
    kept = ()
    kept_turned = ()
    if KEEP:
        for block in tl.static_range(WIDTH // COLUMNS):
            rows = _rows_of_V(V, block * COLUMNS, P, COLUMNS, WIDTH, PADDED)
            kept = kept + (rows,)  # noqa: RUF005
            kept_turned = kept_turned + (tl.trans(rows),)  # noqa: RUF005
    for turn in tl.range(0, tl.cdiv(last - first, WINDOWS) * chunks):
        row, inside, window = _places(first, turn, last, n, above, F, WINDOWS, PLACES)
        tile = _tile(x, row, inside, P, WIDTH, PADDED, False)
        exists = window < last
        context = _tile(contexts, window.to(tl.int64), exists, P, WIDTH, PADDED, False)
        dcontext = _tile(dcontexts, window.to(tl.int64), exists, P, WIDTH, PADDED, False)
        logarithm = tl.load(logarithms + window, mask=exists, other=0.0)
        score = tl.load(scores + row, mask=inside, other=float("-inf")).reshape(WINDOWS, PLACES)
        weight = tl.exp(score - logarithm[:, None])
        dweight = _products(tile, dcontext, ACC, WINDOWS, PLACES, PRECISION, INTERPRET)
        share_of_sum = tl.sum(context.to(ACC) * dcontext.to(ACC), 1)
        dscore = (weight * (dweight - share_of_sum[:, None])).reshape(WINDOWS * PLACES)
        slope = tl.zeros((WINDOWS * PLACES, WIDTH), ACC)
        tile_sums = sums + (first // WINDOWS * chunks + turn).to(tl.int64) * 2 * WIDTH
        if KEEP:
            for block in tl.static_range(WIDTH // COLUMNS):
                slope = _through_hidden(
                    slope, tile, kept[block], kept_turned[block], dscore, row, inside, b, q, dhidden, tile_sums,
                    block * COLUMNS, P, WIDTH, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET,
                )  # fmt: skip
        else:
            for block in tl.range(0, WIDTH // COLUMNS):
                rows = _rows_of_V(V, block * COLUMNS, P, COLUMNS, WIDTH, PADDED)
                slope = _through_hidden(
                    slope, tile, rows, tl.trans(rows), dscore, row, inside, b, q, dhidden, tile_sums,
                    block * COLUMNS, P, WIDTH, COLUMNS, PADDED, ACC, FAST, PRECISION, INTERPRET,
                )  # fmt: skip
        # Loaded again, from the cache: it need not stay in registers meanwhile.
        dcontext = _tile(dcontexts, window.to(tl.int64), exists, P, WIDTH, PADDED, False).to(ACC)
        slope += (weight[:, :, None] * dcontext[:, None, :]).reshape(WINDOWS * PLACES, WIDTH)
        mask = inside[:, None] & (column < P)[None, :]
        tl.store(dx + row[:, None] * P + column[None, :], slope.to(dx.dtype.element_ty), mask=mask)
