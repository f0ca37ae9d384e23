"""Triton kernels of attention: the running softmax forward, and the gradients of the queries and of keys and values.

Letters as in `attention`. Scores are in powers of two: `scale` is log2(e)/sqrt(P). The forward pass leaves for every
query the logarithm, to base 2, of the sum of 2^score over the keys it sees, and +inf where it sees none: 2^(score -
logarithm) is then the weight, and zero in rows that see nothing. Every program looks up how many queries and keys its
row of the batch has; query i of them sees the keys j <= i + offset.

LAYOUT says how blocks are loaded: "descriptor" by the copy engine of sm_90 and later; "exact" by pointers to heads of
whole block width; "padded" and "unaligned" by pointers with a mask over the head dimension too. One launch is compiled
for tensors with and without lengths, for causal and full attention, and with and without gradients.
"""

from ._device import dot
from ._triton import tl, triton

LN_2 = tl.constexpr(0.6931471805599453)


@triton.jit
def _rows(matrix, batch, head, first, count, stride, P, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
          CHECK_ROWS: tl.constexpr, LAYOUT: tl.constexpr):  # fmt: skip
    """Load rows `first` to `first + ROWS` of a matrix (count, P) as a (ROWS, COLUMNS) block, zero outside of it.

    `matrix` is a descriptor of (batch, head, row, column), or points to the matrix of one head.
    """
    if LAYOUT == "descriptor":
        block = tl.reshape(matrix.load([batch, head, first, 0]), (ROWS, COLUMNS))
    else:
        row = first + tl.arange(0, ROWS)
        column = tl.arange(0, COLUMNS)
        pointers = matrix + (row.to(tl.int64) * stride)[:, None] + column[None, :]
        if CHECK_ROWS and LAYOUT != "exact":
            block = tl.load(pointers, mask=(row < count)[:, None] & (column < P)[None, :], other=0.0)
        elif CHECK_ROWS:
            block = tl.load(pointers, mask=(row < count)[:, None], other=0.0)
        elif LAYOUT != "exact":
            block = tl.load(pointers, mask=(column < P)[None, :], other=0.0)
        else:
            block = tl.load(pointers)
    return block


@triton.jit
def _store_rows(matrix, first, count, P, block, ROWS: tl.constexpr, COLUMNS: tl.constexpr):
    """Store a block as rows from `first` of a dense matrix (count, P)."""
    row = first + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    pointers = matrix + (row.to(tl.int64) * P)[:, None] + column[None, :]
    tl.store(pointers, block.to(matrix.dtype.element_ty), mask=(row < count)[:, None] & (column < P)[None, :])


@triton.jit
def _length(lengths, batch, longest, ragged):
    """Look up the length of a row of the batch, or take the longest where there are no lengths."""
    length = longest
    if ragged:
        length = tl.minimum(tl.load(lengths + batch).to(tl.int32), longest)
    return length


@triton.jit
def _keys_seen(first, queries, keys, offset, BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr):
    """Say for a block of queries up to where all of them see, in whole blocks of keys, and up to where any does."""
    by_all = tl.minimum(tl.maximum(first + offset + 1, 0), keys) // BLOCK_K * BLOCK_K
    by_any = tl.minimum(tl.maximum(tl.minimum(first + BLOCK_S, queries) + offset, 0), keys)
    beyond = first >= queries
    return tl.where(beyond, 0, by_all), tl.where(beyond, 0, by_any)


@triton.jit
def _absorb(
    average, total, top, queries, k, v, batch, group, k_row, v_row, begin, end, last_seen, scale, K, P,
    BLOCK_K: tl.constexpr, CHECK_KEYS: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Take the keys from `begin` to `end`, BLOCK_K at a time, into the running softmax of a block of queries.

    Per query: `average`, the sum of the values weighted by 2^(score - top); `total`, the sum of these weights; `top`,
    the largest score so far. Without CHECK_KEYS all queries see all these keys.
    """
    ROWS: tl.constexpr = queries.shape[0]
    WIDTH: tl.constexpr = queries.shape[1]
    STAY: tl.constexpr = queries.dtype == tl.float32  # as in _collect
    for start in tl.range(begin, end, BLOCK_K, disable_licm=STAY):
        keys = _rows(k, batch, group, start, K, k_row, P, BLOCK_K, WIDTH, CHECK_KEYS, LAYOUT)
        nothing = tl.zeros((ROWS, BLOCK_K), total.dtype)
        scores = dot(queries, tl.trans(keys), nothing, PRECISION, INTERPRET)
        if CHECK_KEYS:
            visible = (start + tl.arange(0, BLOCK_K))[None, :] <= last_seen[:, None]
            scores = tl.where(visible, scores, float("-inf"))
        new_top = tl.maximum(top, tl.max(scores, 1) * scale)
        weights = tl.exp2(scores * scale - new_top[:, None])
        shrink = tl.exp2(top - new_top)
        total = total * shrink + tl.sum(weights, 1)
        values = _rows(v, batch, group, start, K, v_row, P, BLOCK_K, WIDTH, CHECK_KEYS, LAYOUT)
        average = dot(weights.to(values.dtype), values, average * shrink[:, None], PRECISION, INTERPRET)
        top = new_top
    return average, total, top


def attend(
    q, k, v, o, logarithms, query_lengths, key_lengths, scale,
    S, K, P, N, heads_per_group, causal, ragged, keep,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute o for BLOCK_S queries of one head, and with `keep` their logarithms.

    Neighbouring programs share a head and with it keys and values in L2; of a head the late queries, which see most,
    come first. Keys that all queries of the block see take a loop without masks, the rest one with masks.
    """
    blocks = tl.cdiv(S, BLOCK_S)
    program = tl.program_id(0)
    first = (blocks - 1 - program % blocks) * BLOCK_S
    head = program // blocks % N
    batch = program // blocks // N
    group = head // heads_per_group
    if LAYOUT != "descriptor":
        q += batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
        k += batch.to(tl.int64) * k_batch + group.to(tl.int64) * k_head
        v += batch.to(tl.int64) * v_batch + group.to(tl.int64) * v_head
    row_of_all = (batch.to(tl.int64) * N + head) * S
    count = _length(query_lengths, batch, S, ragged)
    keys = _length(key_lengths, batch, K, ragged)
    offset = tl.where(causal != 0, keys - count, keys - 1)
    unmasked, end = _keys_seen(first, count, keys, offset, BLOCK_S, BLOCK_K)
    row = first + tl.arange(0, BLOCK_S)
    last_seen = tl.minimum(row + offset, keys - 1)

    queries = _rows(q, batch, head, first, count, q_row, P, BLOCK_S, BLOCK_P, True, LAYOUT)
    average = tl.zeros((BLOCK_S, BLOCK_P), ACC)
    total = tl.zeros((BLOCK_S,), ACC)
    # Float32's lowest number: unlike -inf it can be subtracted from itself in rows that see nothing.
    top = tl.full((BLOCK_S,), -3.4028234663852886e38, ACC)
    average, total, top = _absorb(
        average, total, top, queries, k, v, batch, group, k_row, v_row, 0, unmasked, last_seen, scale, keys, P,
        BLOCK_K, False, LAYOUT, PRECISION, INTERPRET,
    )  # fmt: skip
    average, total, top = _absorb(
        average, total, top, queries, k, v, batch, group, k_row, v_row, unmasked, end, last_seen, scale, keys, P,
        BLOCK_K, True, LAYOUT, PRECISION, INTERPRET,
    )  # fmt: skip

    blind = (total == 0) | (row >= count)
    result = tl.where(blind[:, None], 0.0, average / tl.where(blind, 1.0, total)[:, None])
    _store_rows(o + row_of_all * P, first, S, P, result, BLOCK_S, BLOCK_P)
    logarithm = tl.where(blind, float("inf"), top + tl.log2(tl.where(blind, 1.0, total)))
    if keep:
        tl.store(logarithms + row_of_all + row, logarithm, mask=row < S)


@triton.jit
def _collect(
    gradient, queries, above, sums, logarithm, k, v, batch, group, k_row, v_row, begin, end, last_seen, scale, K, P,
    BLOCK_K: tl.constexpr, CHECK_KEYS: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add to the gradient of a block of queries what comes through the keys from `begin` to `end`."""
    ROWS: tl.constexpr = queries.shape[0]
    WIDTH: tl.constexpr = queries.shape[1]
    # Addresses of shared memory, moved out of the loop, would take the registers that the products need, and spill.
    STAY: tl.constexpr = LAYOUT == "descriptor" or queries.dtype == tl.float32
    for start in tl.range(begin, end, BLOCK_K, disable_licm=STAY):
        keys = _rows(k, batch, group, start, K, k_row, P, BLOCK_K, WIDTH, CHECK_KEYS, LAYOUT)
        values = _rows(v, batch, group, start, K, v_row, P, BLOCK_K, WIDTH, CHECK_KEYS, LAYOUT)
        nothing = tl.zeros((ROWS, BLOCK_K), gradient.dtype)
        scores = dot(queries, tl.trans(keys), nothing, PRECISION, INTERPRET)
        weights = tl.exp2(scores * scale - logarithm[:, None])
        if CHECK_KEYS:
            visible = (start + tl.arange(0, BLOCK_K))[None, :] <= last_seen[:, None]
            weights = tl.where(visible, weights, 0.0)
        dweights = dot(above, tl.trans(values), nothing, PRECISION, INTERPRET)
        dscores = weights * (dweights - sums[:, None])
        gradient = dot(dscores.to(keys.dtype), keys, gradient, PRECISION, INTERPRET)
    return gradient


def query_gradient(
    q, k, v, do, o, dq, logarithms, sums, query_lengths, key_lengths, scale,
    S, K, P, N, heads_per_group, causal, ragged,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute dq for BLOCK_S queries of one head, and first their `sums` of do times o, which the other pass reads."""
    blocks = tl.cdiv(S, BLOCK_S)
    program = tl.program_id(0)
    first = (blocks - 1 - program % blocks) * BLOCK_S
    head = program // blocks % N
    batch = program // blocks // N
    group = head // heads_per_group
    if LAYOUT != "descriptor":
        q += batch.to(tl.int64) * q_batch + head.to(tl.int64) * q_head
        do += batch.to(tl.int64) * do_batch + head.to(tl.int64) * do_head
        k += batch.to(tl.int64) * k_batch + group.to(tl.int64) * k_head
        v += batch.to(tl.int64) * v_batch + group.to(tl.int64) * v_head
    row_of_all = (batch.to(tl.int64) * N + head) * S
    count = _length(query_lengths, batch, S, ragged)
    keys = _length(key_lengths, batch, K, ragged)
    offset = tl.where(causal != 0, keys - count, keys - 1)
    unmasked, end = _keys_seen(first, count, keys, offset, BLOCK_S, BLOCK_K)
    row = first + tl.arange(0, BLOCK_S)
    last_seen = tl.minimum(row + offset, keys - 1)

    above = _rows(do, batch, head, first, count, do_row, P, BLOCK_S, BLOCK_P, True, LAYOUT)
    ROW_LAYOUT: tl.constexpr = "padded" if LAYOUT == "descriptor" else LAYOUT
    average = _rows(o + row_of_all * P, batch, head, first, count, P, P, BLOCK_S, BLOCK_P, True, ROW_LAYOUT)
    sum_of_row = tl.sum(above.to(ACC) * average.to(ACC), 1)
    tl.store(sums + row_of_all + row, sum_of_row, mask=row < S)
    queries = _rows(q, batch, head, first, count, q_row, P, BLOCK_S, BLOCK_P, True, LAYOUT)
    logarithm = tl.load(logarithms + row_of_all + row, mask=row < count, other=float("inf"))
    gradient = tl.zeros((BLOCK_S, BLOCK_P), ACC)
    gradient = _collect(
        gradient, queries, above, sum_of_row, logarithm, k, v, batch, group, k_row, v_row, 0, unmasked, last_seen,
        scale, keys, P, BLOCK_K, False, LAYOUT, PRECISION, INTERPRET,
    )  # fmt: skip
    gradient = _collect(
        gradient, queries, above, sum_of_row, logarithm, k, v, batch, group, k_row, v_row, unmasked, end, last_seen,
        scale, keys, P, BLOCK_K, True, LAYOUT, PRECISION, INTERPRET,
    )  # fmt: skip
    # The product of query and key was scaled by 1/sqrt(P).
    gradient = tl.where((row < count)[:, None], gradient * (scale * LN_2), 0.0)
    _store_rows(dq + row_of_all * P, first, S, P, gradient, BLOCK_S, BLOCK_P)


@triton.jit
def _gather(
    dk, dv, keys, values, q, do, logarithms, sums, batch, head, q_row, do_row,
    begin, end, last_query_blind, scale, S, P,
    BLOCK_S: tl.constexpr, CHECK_KEYS: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Add to the gradients of a block of keys and values what comes from the queries `begin` to `end` of a head.

    Products are transposed, keys by queries: none of the two accumulators then needs turning. Queries beyond the last
    one have no weight: their zeros times a key that is not finite would be NaN.
    """
    BLOCK_K: tl.constexpr = keys.shape[0]
    WIDTH: tl.constexpr = keys.shape[1]
    # As in _collect; here pointers to the operands are too many as well.
    for start in tl.range(begin, end, BLOCK_S, disable_licm=True):
        row = start + tl.arange(0, BLOCK_S)
        queries = _rows(q, batch, head, start, S, q_row, P, BLOCK_S, WIDTH, True, LAYOUT)
        logarithm = tl.load(logarithms + row, mask=row < S, other=float("inf"))
        nothing = tl.zeros((BLOCK_K, BLOCK_S), dk.dtype)
        scores = dot(keys, tl.trans(queries), nothing, PRECISION, INTERPRET)
        weights = tl.where((row < S)[None, :], tl.exp2(scores * scale - logarithm[None, :]), 0.0)
        if CHECK_KEYS:
            weights = tl.where(row[None, :] > last_query_blind[:, None], weights, 0.0)
        above = _rows(do, batch, head, start, S, do_row, P, BLOCK_S, WIDTH, True, LAYOUT)
        dv = dot(weights.to(above.dtype), above, dv, PRECISION, INTERPRET)
        dweights = dot(values, tl.trans(above), nothing, PRECISION, INTERPRET)
        sums_of_rows = tl.load(sums + row, mask=row < S, other=0.0)
        dscores = weights * (dweights - sums_of_rows[None, :])
        dk = dot(dscores.to(queries.dtype), queries, dk, PRECISION, INTERPRET)
    return dk, dv


def key_gradient(
    q, k, v, do, dk, dv, logarithms, sums, query_lengths, key_lengths, scale,
    S, K, P, N, heads_per_group, causal, ragged,
    q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row, do_batch, do_head, do_row,
    BLOCK_S: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_P: tl.constexpr, LAYOUT: tl.constexpr,
    PRECISION: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute dk and dv for BLOCK_K keys of one key/value head, over the queries of all heads that share it.

    The early keys, which most queries see, come first. Queries that see only some of the keys take a loop with masks.
    """
    blocks = tl.cdiv(K, BLOCK_K)
    program = tl.program_id(0)
    first = program % blocks * BLOCK_K
    groups = N // heads_per_group
    group = program // blocks % groups
    batch = program // blocks // groups
    if LAYOUT != "descriptor":
        k += batch.to(tl.int64) * k_batch + group.to(tl.int64) * k_head
        v += batch.to(tl.int64) * v_batch + group.to(tl.int64) * v_head
    row_of_all = (batch.to(tl.int64) * groups + group) * K
    queries = _length(query_lengths, batch, S, ragged)
    count = _length(key_lengths, batch, K, ragged)
    offset = tl.where(causal != 0, count - queries, count - 1)
    row = first + tl.arange(0, BLOCK_K)
    begin = tl.minimum(tl.maximum(first - offset, 0) // BLOCK_S * BLOCK_S, queries)
    begin = tl.where(first >= count, queries, begin)
    last_key = tl.minimum(first + BLOCK_K, count) - 1
    unmasked = tl.cdiv(tl.maximum(last_key - offset, 0), BLOCK_S) * BLOCK_S
    unmasked = tl.maximum(tl.minimum(unmasked, queries), begin)

    keys = _rows(k, batch, group, first, count, k_row, P, BLOCK_K, BLOCK_P, True, LAYOUT)
    values = _rows(v, batch, group, first, count, v_row, P, BLOCK_K, BLOCK_P, True, LAYOUT)
    dkeys = tl.zeros((BLOCK_K, BLOCK_P), ACC)
    dvalues = tl.zeros((BLOCK_K, BLOCK_P), ACC)
    for head in tl.range(group * heads_per_group, (group + 1) * heads_per_group):
        if LAYOUT != "descriptor":
            q_of_head = q + batch.to(tl.int64) * q_batch + tl.cast(head, tl.int64) * q_head
            do_of_head = do + batch.to(tl.int64) * do_batch + tl.cast(head, tl.int64) * do_head
        else:
            q_of_head = q
            do_of_head = do
        rows_of_head = (batch.to(tl.int64) * N + head) * S
        dkeys, dvalues = _gather(
            dkeys, dvalues, keys, values, q_of_head, do_of_head, logarithms + rows_of_head, sums + rows_of_head,
            batch, head, q_row, do_row, begin, unmasked, row - offset - 1, scale, queries, P,
            BLOCK_S, True, LAYOUT, PRECISION, INTERPRET,
        )  # fmt: skip
        dkeys, dvalues = _gather(
            dkeys, dvalues, keys, values, q_of_head, do_of_head, logarithms + rows_of_head, sums + rows_of_head,
            batch, head, q_row, do_row, unmasked, queries, row - offset - 1, scale, queries, P,
            BLOCK_S, False, LAYOUT, PRECISION, INTERPRET,
        )  # fmt: skip
    held = (row < count)[:, None]
    dkeys = tl.where(held, dkeys * (scale * LN_2), 0.0)
    _store_rows(dk + row_of_all * P, first, K, P, dkeys, BLOCK_K, BLOCK_P)
    _store_rows(dv + row_of_all * P, first, K, P, tl.where(held, dvalues, 0.0), BLOCK_K, BLOCK_P)
