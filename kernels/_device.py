"""Device functions that several Triton kernels share: sigmoid, tanh and a matrix product for 16-bit operands too.

All of them keep NaN: a NaN in the input is a NaN in the result. The arithmetic is float32, or float64 where the
arguments are.
"""

from ._triton import tl, triton


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)) of a float32 or float64 block; exp overflows to infinity for very negative x, which gives 0."""
    return 1.0 / (1.0 + tl.exp(-x))


@triton.jit
def tanh(x):
    """Hyperbolic tangent of a float32 or float64 block.

    The exponential of a non-positive number cannot overflow, so large arguments saturate at +1 and -1. Near zero,
    where 1 - exp(-2|x|) would cancel, float32 takes the odd Taylor polynomial.
    """
    decay = tl.exp(-2.0 * tl.abs(x))
    magnitude = (1.0 - decay) / (1.0 + decay)
    result = tl.where(x < 0, -magnitude, magnitude)
    if x.dtype == tl.float32:
        square = x * x
        # x - x^3/3 + 2x^5/15 - 17x^7/315: below 1/8 the next term is 1.3e-9 of x, a fiftieth of float32's epsilon.
        series = x * (1.0 + square * (-1.0 / 3.0 + square * (2.0 / 15.0 + square * (-17.0 / 315.0))))
        result = tl.where(tl.abs(x) < 0.125, series, result)
    return result


@triton.jit
def dot(a, b, accumulator, PRECISION: tl.constexpr, INTERPRET: tl.constexpr):
    """accumulator + a @ b for blocks (M, K) and (K, N); `PRECISION` is "ieee" or "tf32" and matters for float32 only.

    Triton's interpreter multiplies bfloat16 blocks wrongly, so under `INTERPRET` 16-bit operands are widened to
    float32 first. That changes no value: the products of 16-bit numbers are exact in float32 on the device too.
    """
    if INTERPRET and a.dtype.primitive_bitwidth == 16:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, accumulator, input_precision=PRECISION, out_dtype=accumulator.dtype)
