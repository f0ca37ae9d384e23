"""The Triton kernels that all dense convolutions share: the product, the gradient of the weights, and that of ReLU.

Tensors are channels last, (B, T, C). A walk says which inputs an output sees: output row r meets, at tap k, the input
step r row_stride + first + k tap_stride; steps before the first and after the last are padding. A causal convolution,
the gradient of its input, a strided one and, phase by phase, a transposed one are such walks (`_conv_launch.Walk`).
Sums are float32, or float64 in the interpreter.
"""

from ._device import dot
from ._triton import tl, triton


@triton.jit
def place_of(row, row_stride, first, x_step):
    """Elements from the beginning of a sequence to the first channel that the rows see at a tap, as int64."""
    return (row * row_stride + first) * x_step


def _product(
    x, weight, bias, addend, y, kept, rows, source, taps, row_stride, first, tap_stride, stride, cycle, dilation,
    padding, steps, C, O, x_batch, x_step, weight_tap, weight_channel,
    STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, BIAS: tl.constexpr, RELU: tl.constexpr,
    ADD: tl.constexpr, KEEP: tl.constexpr, PHASES: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    INTERPRET: tl.constexpr,
):  # fmt: skip
    """Compute y (B, steps, O) for STEPS rows and OUTPUTS channels: sum over taps, + bias, ReLU, + addend.

    x has `source` steps; weight has elements [tap, channel, output] with the outputs side by side. With PHASES the
    outputs of a transposed convolution of this stride are taken by their phase (step + padding) mod stride, in which
    all outputs see the same taps: every `cycle`-th, or none. KEEP stores where ReLU let a value through, as bytes.
    One loop runs over chunks of channels and, inside of these, over the taps, whose inputs overlap: only the first tap
    of a chunk brings new inputs from memory, the others find them in a cache.
    """
    program = tl.program_id(0)
    output_blocks = tl.cdiv(O, OUTPUTS)
    step_blocks = tl.cdiv(rows, STEPS)
    output = program % output_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    program = program // output_blocks
    row = (program % step_blocks * STEPS + tl.arange(0, STEPS)).to(tl.int64)
    program = program // step_blocks
    step = row
    if PHASES:
        turn = program % stride
        program = program // stride
        tap = turn % cycle
        # Taps `cycle` apart share a phase, and these phases lie gcd(stride, dilation) apart; those between see no tap.
        phase = tap * dilation % stride + turn // cycle
        row += padding // stride
        step = row * stride + phase - padding
        first = (phase - tap * dilation) // stride
        weight += tap.to(tl.int64) * weight_tap
        taps = tl.where(turn < cycle, tl.cdiv(taps - tap, cycle), 0)
        weight_tap = weight_tap.to(tl.int64) * cycle
    batch = program.to(tl.int64)
    chunk = tl.arange(0, CHANNELS)

    x += batch * x_batch
    end = source.to(tl.int64) * x_step
    written = (step >= 0) & (step < steps)
    sums = tl.zeros((STEPS, OUTPUTS), ACC)
    for turn in range(tl.cdiv(C, CHANNELS) * taps):
        tap = turn % taps
        channel = turn // taps * CHANNELS + chunk
        place = place_of(row, row_stride, first + tap * tap_stride, x_step)[:, None] + channel[None, :]
        # A place outside the sequence is padding: every step takes at least C places.
        seen = (place >= 0) & (place < end) & written[:, None] & (channel < C)[None, :]
        taken = tl.load(x + place, mask=seen, other=0.0, cache_modifier=".ca")
        weights = tl.load(
            weight + tap.to(tl.int64) * weight_tap + (channel.to(tl.int64) * weight_channel)[:, None] + output[None, :],
            mask=(channel < C)[:, None] & (output < O)[None, :],
            other=0.0,
        )
        sums = dot(taken, weights, sums, PRECISION, INTERPRET)

    mask = written[:, None] & (output < O)[None, :]
    target = ((batch * steps + step) * O)[:, None] + output[None, :]
    if BIAS:
        sums += tl.load(bias + output, mask=output < O, other=0.0).to(ACC)[None, :]
    if RELU:
        sums = tl.where(sums <= 0, 0.0, sums)  # NaN stays
    if KEEP:
        tl.store(kept + target, (sums != 0).to(tl.uint8), mask=mask)
    if ADD:
        sums += tl.load(addend + target, mask=mask, other=0.0).to(ACC)
    tl.store(y + target, sums.to(y.dtype.element_ty), mask=mask)


def _weight_gradient(
    x, g, partial, sequences, rows, source, taps, row_stride, first, tap_stride, chunks, C, O,
    x_batch, x_step, g_batch, g_step,
    STEPS: tl.constexpr, OUTPUTS: tl.constexpr, CHANNELS: tl.constexpr, ACC: tl.constexpr, PRECISION: tl.constexpr,
    INTERPRET: tl.constexpr,
):  # fmt: skip
    """Sum the outer products of what the rows see at one tap, x, and of their gradients g over `chunks` runs of rows.

    partial (splits, taps, C, O) has one part per split of all runs of all sequences; a run is STEPS rows of one
    sequence. The caller sums the parts in their order, so that the result is the same in every call.
    """
    program = tl.program_id(0)
    output_blocks = tl.cdiv(O, OUTPUTS)
    channel_blocks = tl.cdiv(C, CHANNELS)
    step_blocks = tl.cdiv(rows, STEPS)
    output = program % output_blocks * OUTPUTS + tl.arange(0, OUTPUTS)
    program = program // output_blocks
    channel = program % channel_blocks * CHANNELS + tl.arange(0, CHANNELS)
    program = program // channel_blocks
    tap = program % taps
    split = program // taps
    lane = tl.arange(0, STEPS)

    end = source.to(tl.int64) * x_step
    sums = tl.zeros((CHANNELS, OUTPUTS), ACC)
    for run in range(split * chunks, tl.minimum((split + 1) * chunks, sequences * step_blocks)):
        batch = (run // step_blocks).to(tl.int64)
        row = (run % step_blocks * STEPS + lane).to(tl.int64)
        place = place_of(row, row_stride, first + tap * tap_stride, x_step)[:, None] + channel[None, :]
        seen = (place >= 0) & (place < end) & (row < rows)[:, None] & (channel < C)[None, :]
        taken = tl.load(x + batch * x_batch + place, mask=seen, other=0.0, cache_modifier=".ca")
        above = tl.load(
            g + batch * g_batch + (row * g_step)[:, None] + output[None, :],
            mask=(row < rows)[:, None] & (output < O)[None, :],
            other=0.0,
        )
        sums = dot(tl.trans(taken), above, sums, PRECISION, INTERPRET)

    part = (split.to(tl.int64) * taps + tap) * C + channel
    mask = (channel < C)[:, None] & (output < O)[None, :]
    tl.store(partial + (part * O)[:, None] + output[None, :], sums, mask=mask)


def _relu_gradient(
    dy, kept, g, partial, rows, O, ROWS: tl.constexpr, COLUMNS: tl.constexpr, ACC: tl.constexpr
):  # fmt: skip
    """g = dy where `kept` is not zero, both (rows, O), and its column sums in partial (programs, O)."""
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    lane = tl.arange(0, ROWS)
    sums = tl.zeros((ROWS, COLUMNS), ACC)
    for block in range(tl.program_id(0), tl.cdiv(rows, ROWS), tl.num_programs(0)):
        row = (block * ROWS + lane).to(tl.int64)
        place = (row * O)[:, None] + column[None, :]
        mask = (row < rows)[:, None] & (column < O)[None, :]
        above = tl.load(dy + place, mask=mask, other=0.0)
        above = tl.where(tl.load(kept + place, mask=mask, other=0) != 0, above, 0.0)
        tl.store(g + place, above, mask=mask)
        sums += above.to(ACC)
    tl.store(partial + tl.program_id(0).to(tl.int64) * O + column, tl.sum(sums, axis=0), mask=column < O)


PRODUCT_TENSORS = ("x", "weight", "bias", "addend", "y", "kept")
PRODUCT_COUNTS = (
    "rows", "source", "taps", "row_stride", "first", "tap_stride", "stride", "cycle", "dilation", "padding", "steps",
)  # fmt: skip
PRODUCT_SIZES = ("C", "O", "x_batch", "x_step", "weight_tap", "weight_channel")
GRADIENT_TENSORS = ("x", "g", "partial")
GRADIENT_COUNTS = ("sequences", "rows", "source", "taps", "row_stride", "first", "tap_stride", "chunks")
GRADIENT_SIZES = ("C", "O", "x_batch", "x_step", "g_batch", "g_step")
RELU_TENSORS = ("dy", "kept", "g", "partial")

# Two kernels from one function each, so that exactly the signatures that are compiled offline are ever launched: all
# pointers and sizes multiples of 16, which gives 128-bit loads, or nothing known.
product_aligned = triton.jit(do_not_specialize=[*PRODUCT_COUNTS])(_product)
product_unaligned = triton.jit(do_not_specialize=[*PRODUCT_COUNTS, *PRODUCT_SIZES, *PRODUCT_TENSORS])(_product)
weight_gradient_aligned = triton.jit(do_not_specialize=[*GRADIENT_COUNTS])(_weight_gradient)
weight_gradient_unaligned = triton.jit(do_not_specialize=[*GRADIENT_COUNTS, *GRADIENT_SIZES, *GRADIENT_TENSORS])(
    _weight_gradient
)
relu_gradient_aligned = triton.jit(do_not_specialize=["rows"])(_relu_gradient)
relu_gradient_unaligned = triton.jit(do_not_specialize=["rows", "O", *RELU_TENSORS])(_relu_gradient)
