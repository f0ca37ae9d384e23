"""The Triton kernels of `memory_attention`, forward and backward, and what their programs share.

Letters as in `memory_attention`; m is the memory before a step, m' after it, w the weights of the step, b those of the
step before; k the key divided by its norm. The gradient of a step, from those of r, m' and w, back to front:

  write          dw_i = dw_i + sum_p dm'_ip (add_p - erase_p m_ip) + sum_p dr_p m_ip
                 dadd_p = sum_i w_i dm'_ip, derase_p = - sum_i w_i dm'_ip m_ip
                 dm_ip = dm'_ip (1 - w_i erase_p) + w_i dr_p + what comes through the cosine
  sharpening     w = softmax(z), z = gamma log u: dz_i = w_i (dw_i - sum_j w_j dw_j), dgamma = sum_i dz_i log u_i,
                 du_i = gamma dz_i / u_i; where u_i = 0 that is 0, or, for gamma = 1, the limit of w_i / u_i counts
  shift          dv_i = s_-1 du_{i-1} + s_0 du_i + s_+1 du_{i+1}, ds_-1 = sum_i du_i v_{i+1}, and so on
  interpolation  dg = sum_i dv_i (c_i - b_i), dc = g dv, db = (1 - g) dv
  content        dscore_i = c_i (dc_i - sum_j c_j dc_j), dbeta = sum_i dscore_i cos_i, dcos = beta dscore
  cosine         with n_i = max(|m_i|, eps): dm_ip += dcos_i (k_p / n_i - cos_i m_ip / n_i^2), without the second part
                 where |m_i| < eps; dk_p = sum_i dcos_i m_ip / n_i, and the same rule for the key's own norm

Two ways to run. With one program per batch row (`_walk`, `_walk_back`) a memory stays in registers for all steps. With
several, each has some rows of it, and a step takes two launches: what all rows together decide (their softmax) lies
between them. Then every program works out the weights of all rows, which are M values against M P of the memory.
Rows are exchanged inside a program by a gather, so that neighbours in the circle need no scratch memory.
"""

from dataclasses import dataclass
from typing import Any

from ._device import sigmoid, tanh
from ._triton import tl, triton

_NOWHERE = tl.constexpr(float("-inf"))


@triton.jit
def _softplus(x):
    """log(1 + exp(x)); the exponential of a non-positive number cannot overflow."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _rounded(x, kind: tl.constexpr, INTERPRET: tl.constexpr):
    """x in another type, rounded to nearest: the interpreter would cut bfloat16 off, at every step of a memory."""
    if INTERPRET and kind == tl.bfloat16:
        bits = x.to(tl.float32).to(tl.int32, bitcast=True)
        bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & -65536  # half a unit, ties to even; then the upper 16 bits
        x = tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    return x.to(kind)


@triton.jit
def _controls(control, column, P, ACC: tl.constexpr):
    """The control values of one step and batch row as they are: key, erase, add (zeros beyond P) and six scalars."""
    inside = column < P
    key = tl.load(control + column, mask=inside, other=0.0).to(ACC)
    erase = tl.load(control + P + column, mask=inside, other=0.0).to(ACC)
    add = tl.load(control + 2 * P + column, mask=inside, other=0.0).to(ACC)
    control += 3 * P
    strength, gate, sharpening = tl.load(control).to(ACC), tl.load(control + 1).to(ACC), tl.load(control + 5).to(ACC)
    before, here, after = tl.load(control + 2).to(ACC), tl.load(control + 3).to(ACC), tl.load(control + 4).to(ACC)
    return key, erase, add, strength, gate, before, here, after, sharpening


@triton.jit
def _direction(key, EPSILON: tl.constexpr):
    """The key divided by its norm, and the norm."""
    norm = tl.sqrt(tl.sum(key * key, 0))
    return key / tl.where(norm < EPSILON, EPSILON, norm), norm


@triton.jit
def _shares(before, here, after):
    """Softmax of the three shifts."""
    largest = tl.maximum(before, tl.maximum(here, after))
    before, here, after = tl.exp(before - largest), tl.exp(here - largest), tl.exp(after - largest)
    total = before + here + after
    return before / total, here / total, after / total


@triton.jit
def _norms(rows):
    """Norms of the rows of a block."""
    return tl.sqrt(tl.sum(rows * rows, 1))


@triton.jit
def _softmax(x, inside):
    """Softmax of a vector over the places inside, zero elsewhere. NaN and infinities act as in torch.softmax."""
    x = tl.where(inside, x, _NOWHERE)
    powers = tl.where(inside, tl.exp(x - tl.max(x, 0)), 0.0)
    return powers / tl.sum(powers, 0)


@triton.jit
def _address(cosine, before, beta, gate, s_before, s_here, s_after, row, M):
    """Content weights, interpolated weights and shifted weights of all rows; zeros beyond M."""
    inside = row < M
    content = _softmax(beta * cosine, inside)
    mixed = tl.where(inside, gate * content + (1.0 - gate) * before, 0.0)
    following, preceding = _neighbours(mixed, row, M)
    turned = s_before * following + s_here * mixed + s_after * preceding
    return content, mixed, tl.where(inside, turned, 0.0)


@triton.jit
def _neighbours(x, row, M):
    """The values of a vector at the next row and at the one before, in a circle of M rows."""
    following = tl.where(row >= M - 1, 0, row + 1)
    preceding = tl.where(row >= M, 0, tl.where(row == 0, M - 1, row - 1))
    return tl.gather(x, following, 0), tl.gather(x, preceding, 0)


@triton.jit
def _sharpen(turned, gamma, row, M):
    """The weights of a step: u^gamma, normalised. The largest u is divided out, so that some power is one."""
    relative = turned / tl.max(turned, 0)
    powers = tl.where(relative == 1.0, 1.0, tl.exp(gamma * tl.log(relative)))
    powers = tl.where(row < M, powers, 0.0)
    return powers / tl.sum(powers, 0)


@triton.jit
def _write(rows, share, erase, add):
    """Rows of the memory after the write; `share` (rows) are their weights."""
    return rows * (1.0 - share[:, None] * erase[None, :]) + share[:, None] * add[None, :]


@triton.jit
def _address_back(
    dw, weights, content, mixed, turned, cosine, before, beta, gate, s_before, s_here, s_after, gamma, row, M,
):  # fmt: skip
    """Gradients through the addressing of one step, from those of its weights.

    Returns those of cosines and earlier weights, and of beta, g, s_-1, s_0, s_+1 and gamma.
    """
    inside = row < M
    difference = tl.where(inside, dw - tl.sum(weights * dw, 0), 0.0)
    logarithm = tl.where(turned == 0.0, 0.0, tl.log(turned))
    dgamma = tl.sum(tl.where(inside, weights * difference * logarithm, 0.0), 0)
    limit = tl.where(gamma == 1.0, 1.0 / tl.sum(turned, 0), 0.0)  # pyright: ignore[reportOperatorIssue]
    ratio = tl.where(turned == 0.0, limit, weights / turned)
    dturned = tl.where(inside, gamma * ratio * difference, 0.0)
    following, preceding = _neighbours(mixed, row, M)
    ds_before, ds_here = tl.sum(dturned * following, 0), tl.sum(dturned * mixed, 0)
    ds_after = tl.sum(dturned * preceding, 0)
    following, preceding = _neighbours(dturned, row, M)
    dmixed = tl.where(inside, s_before * preceding + s_here * dturned + s_after * following, 0.0)
    dgate = tl.sum(dmixed * (content - before), 0)
    dcontent = gate * dmixed
    dscore = content * (dcontent - tl.sum(content * dcontent, 0))  # pyright: ignore[reportOperatorIssue]
    dbeta = tl.sum(dscore * cosine, 0)
    return beta * dscore, (1.0 - gate) * dmixed, dbeta, dgate, ds_before, ds_here, ds_after, dgamma


@triton.jit
def _write_back(rows, drows, dr, share, erase, add):
    """Gradients through write and read for some rows: of their weights, and parts of those of erase and add."""
    dshare = tl.sum(drows * (add[None, :] - erase[None, :] * rows) + dr[None, :] * rows, 1)
    shared = share[:, None] * drows
    return dshare, tl.sum(-shared * rows, 0), tl.sum(shared, 0)


@triton.jit
def _rows_back(rows, drows, dr, share, erase, unit, cosine, dcosine, EPSILON: tl.constexpr):
    """Gradients of some rows before the step, and the part of the key's that comes from them (before its own norm)."""
    norm = _norms(rows)
    short = norm < EPSILON
    scaled = dcosine / tl.where(short, EPSILON, norm)
    radial = tl.where(short, 0.0, scaled * cosine / norm)
    drows = drows * (1.0 - share[:, None] * erase[None, :]) + share[:, None] * dr[None, :]
    drows += scaled[:, None] * unit[None, :] - radial[:, None] * rows
    return drows, tl.sum(scaled[:, None] * rows, 0)


@triton.jit
def _store_vectors(target, control, column, P, dunit, derase, dadd, along, EPSILON: tl.constexpr, ACC: tl.constexpr):
    """Store the gradients of key, erase and add before their activations; `along` is sum_i dcos_i cos_i."""
    key, erase, add, _, _, _, _, _, _ = _controls(control, column, P, ACC)
    unit, norm = _direction(key, EPSILON)
    erase, add = sigmoid(erase), tanh(add)
    dkey = tl.where(norm < EPSILON, dunit / EPSILON, (dunit - along * unit) / norm)
    inside = column < P
    tl.store(target + column, dkey.to(target.dtype.element_ty), mask=inside)
    tl.store(target + P + column, (derase * erase * (1.0 - erase)).to(target.dtype.element_ty), mask=inside)
    tl.store(target + 2 * P + column, (dadd * (1.0 - add * add)).to(target.dtype.element_ty), mask=inside)


@triton.jit
def _store_scalars(
    target, P, dbeta, dgate, ds_before, ds_here, ds_after, dgamma, strength, gate, s_before, s_here, s_after, sharpening
):
    """Store the gradients of strength, gate, shift and sharpening before their activations."""
    kind = target.dtype.element_ty
    target += 3 * P
    total = s_before * ds_before + s_here * ds_here + s_after * ds_after
    tl.store(target, (dbeta * sigmoid(strength)).to(kind))
    tl.store(target + 1, (dgate * gate * (1.0 - gate)).to(kind))
    tl.store(target + 2, (s_before * (ds_before - total)).to(kind))
    tl.store(target + 3, (s_here * (ds_here - total)).to(kind))
    tl.store(target + 4, (s_after * (ds_after - total)).to(kind))
    tl.store(target + 5, (dgamma * sigmoid(sharpening)).to(kind))


@triton.jit
def _places(base, row, column, S):
    """Pointers to some rows of one memory."""
    return base + row.to(tl.int64)[:, None] * S + column[None, :]


@triton.jit
def _inside(row, column, M, S):
    """Which of these places belong to a memory."""
    return (row < M)[:, None] & (column < S)[None, :]


def _compare(
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
    unit, _ = _direction(key, EPSILON)
    norm = _norms(rows)
    likeness = tl.sum(rows * unit[None, :], 1) / tl.where(norm < EPSILON, EPSILON, norm)
    tl.store(cosine + batch * M + row, likeness, mask=row < M)


def _read_and_write(
    memory, target, control, cosine, before, after, parts, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ALL: tl.constexpr, ACC: tl.constexpr, INTERPRET: tl.constexpr,
):  # fmt: skip
    """Read and write ROWS rows of one memory with the weights that all cosines give; grid as in `_compare`.

    before, after : weights (B, M) of the step before and of this one. parts (B, blocks, P): what each block reads.
    ALL : at least M. memory and target may be the same: a program touches its own rows alone.
    """
    blocks = tl.cdiv(M, ROWS)
    batch = (tl.program_id(0) // blocks).to(tl.int64)
    row = tl.program_id(0) % blocks * ROWS + tl.arange(0, ROWS)
    column = tl.arange(0, COLUMNS)
    inside = _inside(row, column, M, S)
    rows = tl.load(_places(memory + batch * M * S, row, column, S), mask=inside, other=0.0).to(ACC)
    _, erase, add, beta, gate, s_before, s_here, s_after, gamma = _controls(
        control + batch * (3 * P + 6), column, P, ACC
    )
    beta, gate, gamma = _softplus(beta), sigmoid(gate), 1.0 + _softplus(gamma)
    s_before, s_here, s_after = _shares(s_before, s_here, s_after)
    every = tl.arange(0, ALL)
    likeness = tl.load(cosine + batch * M + every, mask=every < M, other=0.0)
    earlier = tl.load(before + batch * M + every, mask=every < M, other=0.0)
    _, _, turned = _address(likeness, earlier, beta, gate, s_before, s_here, s_after, every, M)
    weights = _sharpen(turned, gamma, every, M)
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
    following = _controls(controls + batch * width, column, P, ACC)
    for t in range(T):
        step = B.to(tl.int64) * (t + 1) + batch
        if AHEAD:
            key, erase, add, beta, gate, s_before, s_here, s_after, gamma = following
            following = _controls(controls + tl.where(t + 1 < T, step, batch) * width, column, P, ACC)
        else:
            key, erase, add, beta, gate, s_before, s_here, s_after, gamma = _controls(
                controls + (step - B) * width, column, P, ACC
            )
        beta, gate, gamma = _softplus(beta), sigmoid(gate), 1.0 + _softplus(gamma)
        s_before, s_here, s_after = _shares(s_before, s_here, s_after)
        unit, _ = _direction(key, EPSILON)
        norm = _norms(rows)
        cosine = tl.sum(rows * unit[None, :], 1) / tl.where(norm < EPSILON, EPSILON, norm)
        _, _, turned = _address(cosine, weights, beta, gate, s_before, s_here, s_after, row, M)
        weights = _sharpen(turned, gamma, row, M)
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


def _weigh_back(
    memory, drows, control, dr, after, dafter, dweights, parts, M, P, S,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr,
):  # fmt: skip
    """Gradients of the weights of ROWS rows, complete, and of erase and add as far as these rows go; grid as above.

    drows (B, M, P) and dafter (B, M): gradients of memory and weights after the step. parts (B, blocks, 3, P) takes
    those of the key, which `_move_back` fills in, erase and add.
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


def _move_back(
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
    key, erase, _, strength, gate, s_before, s_here, s_after, sharpening = _controls(
        control + batch * (3 * P + 6), column, P, ACC
    )
    gate, beta, gamma = sigmoid(gate), _softplus(strength), 1.0 + _softplus(sharpening)
    s_before, s_here, s_after = _shares(s_before, s_here, s_after)
    above = tl.load(dr + batch * P + column, mask=column < P, other=0.0).to(ACC)
    every = tl.arange(0, ALL)
    likeness = tl.load(cosine + batch * M + every, mask=every < M, other=0.0)
    earlier = tl.load(before + batch * M + every, mask=every < M, other=0.0)
    weights = tl.load(after + batch * M + every, mask=every < M, other=0.0)
    dw = tl.load(dweights + batch * M + every, mask=every < M, other=0.0)
    content, mixed, turned = _address(likeness, earlier, beta, gate, s_before, s_here, s_after, every, M)
    dcosine, dearlier, dbeta, dgate, ds_before, ds_here, ds_after, dgamma = _address_back(
        dw, weights, content, mixed, turned, likeness, earlier, beta, gate, s_before, s_here, s_after, gamma, every, M
    )
    here = tl.where(row < M, row, 0)
    gradients, dunit = _rows_back(
        rows, gradients, above, tl.gather(weights, here, 0), sigmoid(erase), _direction(key, EPSILON)[0],
        tl.gather(likeness, here, 0), tl.gather(dcosine, here, 0), EPSILON,
    )  # fmt: skip
    tl.store(target, gradients, mask=inside)
    tl.store(parts + tl.program_id(0).to(tl.int64) * 3 * S + column, dunit, mask=column < S)
    tl.store(dbefore + batch * M + row, tl.gather(dearlier, here, 0), mask=row < M)
    if tl.program_id(0) % blocks == 0:
        tl.store(along + batch, tl.sum(dcosine * likeness, 0))
        _store_scalars(
            dcontrol + batch * (3 * P + 6), P, dbeta, dgate, ds_before, ds_here, ds_after, dgamma,
            strength, gate, s_before, s_here, s_after, sharpening,
        )  # fmt: skip


def _collect(
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
    _store_vectors(
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
        key, erase, add, strength, gate, s_before, s_here, s_after, sharpening = _controls(
            controls + step * width, column, P, ACC
        )
        gate, beta, gamma = sigmoid(gate), _softplus(strength), 1.0 + _softplus(sharpening)
        s_before, s_here, s_after = _shares(s_before, s_here, s_after)
        above = tl.load(dr + step * P + column, mask=column < P, other=0.0).to(ACC)
        cosine = tl.load(cosines + step * M + row, mask=row < M, other=0.0)
        earlier = tl.load(track + step * M + row, mask=row < M, other=0.0)
        weights = tl.load(track + (step + B) * M + row, mask=row < M, other=0.0)
        dshare, derase, dadd = _write_back(rows, gradients, above, weights, sigmoid(erase), tanh(add))
        content, mixed, turned = _address(cosine, earlier, beta, gate, s_before, s_here, s_after, row, M)
        dcosine, dw, dbeta, dgate, ds_before, ds_here, ds_after, dgamma = _address_back(
            dw + dshare, weights, content, mixed, turned, cosine, earlier, beta, gate, s_before, s_here, s_after,
            gamma, row, M,
        )  # fmt: skip
        _store_scalars(
            dcontrols + step * width, P, dbeta, dgate, ds_before, ds_here, ds_after, dgamma,
            strength, gate, s_before, s_here, s_after, sharpening,
        )  # fmt: skip
        # Loaded once more, from a cache: there are no registers for it while the gradients go through the addressing.
        rows = tl.load(_places(start, row, column, S), mask=inside, other=0.0).to(ACC)
        gradients, dunit = _rows_back(
            rows, gradients, above, weights, sigmoid(erase), _direction(key, EPSILON)[0], cosine, dcosine, EPSILON
        )
        _store_vectors(
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


COMPARE = _kernel(_compare, "memory control", "cosine", "memory", "M P S")
READ_AND_WRITE = _kernel(
    _read_and_write, "memory target control", "cosine before after parts", "memory target parts", "M P S"
)
WALK = _kernel(_walk, "memory target history controls r", "cosines track", "memory target history", "T B M P S")
WEIGH_BACK = _kernel(
    _weigh_back, "memory control dr", "drows after dafter dweights parts", "memory drows parts", "M P S"
)
MOVE_BACK = _kernel(
    _move_back,
    "memory control dr dcontrol",
    "drows cosine before after dweights dbefore parts along",
    "memory drows parts",
    "M P S",
)
COLLECT = _kernel(_collect, "controls dcontrols", "parts along", "parts", "blocks P S")
WALK_BACK = _kernel(
    _walk_back,
    "memory history controls dr dmemory dtarget dcontrols",
    "cosines track dweights",
    "memory history dmemory dtarget",
    "T B M P S",
)
