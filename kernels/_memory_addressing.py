"""Device functions of `memory_attention`: from the control values of a step to its weights, and the gradients back.

Letters as in `memory_attention`; m is the memory before a step, w the weights of the step, b those of the step before;
k the key divided by its norm. The gradient goes through the addressing of a step back to front:

  sharpening     w = softmax(z), z = gamma log u: dz_i = w_i (dw_i - sum_j w_j dw_j), dgamma = sum_i dz_i log u_i,
                 du_i = gamma dz_i / u_i; where u_i = 0 that is 0, or, for gamma = 1, the limit of w_i / u_i counts
  shift          dv_i = s_-1 du_{i-1} + s_0 du_i + s_+1 du_{i+1}, ds_-1 = sum_i du_i v_{i+1}, and so on
  interpolation  dg = sum_i dv_i (c_i - b_i), dc = g dv, db = (1 - g) dv
  content        dscore_i = c_i (dc_i - sum_j c_j dc_j), dbeta = sum_i dscore_i cos_i, dcos = beta dscore
  cosine         with n_i = max(|m_i|, eps): dm_ip += dcos_i (k_p / n_i - cos_i m_ip / n_i^2), without the second part
                 where |m_i| < eps; dk_p = sum_i dcos_i m_ip / n_i, and the same rule for the key's own norm

Rows are exchanged inside a program by a gather, so that neighbours in the circle need no scratch memory.
"""

from ._device import sigmoid, tanh
from ._triton import tl, triton

_NOWHERE = tl.constexpr(float("-inf"))


@triton.jit
def load_controls(control, column, P, ACC: tl.constexpr):
    """The control values of one step and batch row as they are: key, erase, add (zeros beyond P) and the six scalars.

    The scalars are a tuple: strength, gate, the shifts before, here and after, sharpening.
    """
    inside = column < P
    key = tl.load(control + column, mask=inside, other=0.0).to(ACC)
    erase = tl.load(control + P + column, mask=inside, other=0.0).to(ACC)
    add = tl.load(control + 2 * P + column, mask=inside, other=0.0).to(ACC)
    control += 3 * P
    strength, gate, sharpening = tl.load(control).to(ACC), tl.load(control + 1).to(ACC), tl.load(control + 5).to(ACC)
    before, here, after = tl.load(control + 2).to(ACC), tl.load(control + 3).to(ACC), tl.load(control + 4).to(ACC)
    return key, erase, add, (strength, gate, before, here, after, sharpening)


@triton.jit
def _softplus(x):
    """log(1 + exp(x)); the exponential of a non-positive number cannot overflow."""
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def _shares(before, here, after):
    """Softmax of the three shifts."""
    largest = tl.maximum(before, tl.maximum(here, after))
    before, here, after = tl.exp(before - largest), tl.exp(here - largest), tl.exp(after - largest)
    total = before + here + after
    return before / total, here / total, after / total


@triton.jit
def activated(scalars):
    """The settings of the addressing of a step, from its scalars: beta, g, s_-1, s_0, s_+1 and gamma."""
    strength, gate, before, here, after, sharpening = scalars
    beta, gate, gamma = _softplus(strength), sigmoid(gate), 1.0 + _softplus(sharpening)
    before, here, after = _shares(before, here, after)
    return beta, gate, before, here, after, gamma


@triton.jit
def direction(key, EPSILON: tl.constexpr):
    """The key divided by its norm, and the norm."""
    norm = tl.sqrt(tl.sum(key * key, 0))
    return key / tl.where(norm < EPSILON, EPSILON, norm), norm


@triton.jit
def _norms(rows):
    """Norms of the rows of a block."""
    return tl.sqrt(tl.sum(rows * rows, 1))


@triton.jit
def cosines_of(rows, key, EPSILON: tl.constexpr):
    """Cosines of the key and the rows of a block."""
    unit, _ = direction(key, EPSILON)
    norm = _norms(rows)
    return tl.sum(rows * unit[None, :], 1) / tl.where(norm < EPSILON, EPSILON, norm)


@triton.jit
def _softmax(x, inside):
    """Softmax of a vector over the places inside, zero elsewhere. NaN and infinities act as in torch.softmax."""
    x = tl.where(inside, x, _NOWHERE)
    powers = tl.where(inside, tl.exp(x - tl.max(x, 0)), 0.0)
    return powers / tl.sum(powers, 0)


@triton.jit
def address(cosine, before, settings, row, M):
    """Content weights, interpolated weights and shifted weights of all rows; zeros beyond M.

    before : weights of the step before. settings : as `activated` gives them.
    """
    beta, gate, s_before, s_here, s_after, _ = settings
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
def sharpen(turned, settings, row, M):
    """The weights of a step: u^gamma, normalised. The largest u is divided out, so that some power is one."""
    _, _, _, _, _, gamma = settings
    relative = turned / tl.max(turned, 0)
    powers = tl.where(relative == 1.0, 1.0, tl.exp(gamma * tl.log(relative)))
    powers = tl.where(row < M, powers, 0.0)
    return powers / tl.sum(powers, 0)


@triton.jit
def address_back(dw, weights, stages, cosine, before, settings, row, M):
    """Gradients through the addressing of one step, from those of its weights; `stages` are what `address` gave.

    Returns those of the cosines, of the weights before, and of the settings as a tuple.
    """
    content, mixed, turned = stages
    beta, gate, s_before, s_here, s_after, gamma = settings
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
    return beta * dscore, (1.0 - gate) * dmixed, (dbeta, dgate, ds_before, ds_here, ds_after, dgamma)


@triton.jit
def rows_back(rows, drows, dr, share, erase, unit, cosine, dcosine, EPSILON: tl.constexpr):
    """Gradients of some rows before the step, and the part of the key's that comes from them (before its own norm)."""
    norm = _norms(rows)
    short = norm < EPSILON
    scaled = dcosine / tl.where(short, EPSILON, norm)
    radial = tl.where(short, 0.0, scaled * cosine / norm)
    drows = drows * (1.0 - share[:, None] * erase[None, :]) + share[:, None] * dr[None, :]
    drows += scaled[:, None] * unit[None, :] - radial[:, None] * rows
    return drows, tl.sum(scaled[:, None] * rows, 0)


@triton.jit
def store_vectors(target, control, column, P, dunit, derase, dadd, along, EPSILON: tl.constexpr, ACC: tl.constexpr):
    """Store the gradients of key, erase and add before their activations; `along` is sum_i dcos_i cos_i."""
    key, erase, add, _ = load_controls(control, column, P, ACC)
    unit, norm = direction(key, EPSILON)
    erase, add = sigmoid(erase), tanh(add)
    dkey = tl.where(norm < EPSILON, dunit / EPSILON, (dunit - along * unit) / norm)
    inside = column < P
    tl.store(target + column, dkey.to(target.dtype.element_ty), mask=inside)
    tl.store(target + P + column, (derase * erase * (1.0 - erase)).to(target.dtype.element_ty), mask=inside)
    tl.store(target + 2 * P + column, (dadd * (1.0 - add * add)).to(target.dtype.element_ty), mask=inside)


@triton.jit
def store_scalars(target, P, dsettings, scalars, settings):
    """Store the gradients of the scalars before their activations, from those of the settings (`dsettings`)."""
    dbeta, dgate, ds_before, ds_here, ds_after, dgamma = dsettings
    strength, _, _, _, _, sharpening = scalars
    _, gate, s_before, s_here, s_after, _ = settings
    kind = target.dtype.element_ty
    target += 3 * P
    total = s_before * ds_before + s_here * ds_here + s_after * ds_after
    tl.store(target, (dbeta * sigmoid(strength)).to(kind))
    tl.store(target + 1, (dgate * gate * (1.0 - gate)).to(kind))
    tl.store(target + 2, (s_before * (ds_before - total)).to(kind))
    tl.store(target + 3, (s_here * (ds_here - total)).to(kind))
    tl.store(target + 4, (s_after * (ds_after - total)).to(kind))
    tl.store(target + 5, (dgamma * sigmoid(sharpening)).to(kind))
