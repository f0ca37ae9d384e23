"""What a recurrent layer or stack must do, for any cell: operations, bytes, and the chain of dependent steps.

B batch, T steps, I input size, H hidden size, L layers, D directions, d dilation, G gates, R biases of a cell, as in
`_recurrent`. Further: N tokens, the valid steps of all rows (B T unless ragged); S = ceil(T / d), the dependent steps
of one layer; I_l the input size of layer l, I for the first and D H for the others; U = N L D H, the values that all
hidden units take.

Layers and directions can be done in several orders, and a floor must hold for all of them:

- the chain is the shortest: L + S - 1 steps as a wavefront, in which layer l works on step t while layer l + 1 works on
  t - 1; L S steps with two directions, because the next layer waits for both. `depth_by_layer` is that of one layer
  after the other.
- what a dependent step re-reads (`weight_bytes`, `recurrent_bytes`, `state_bytes`) is the least: one layer in one
  direction, the widest. A wavefront holds more at a time: `wavefront_bytes`.
- `exchange_bytes` is the average over the chain, so that depth times exchange is what one call must exchange: every
  hidden value once. For one layer that is B d H values per step, in a wavefront of many steps L times as many.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..roofline.work import Quantity, Term, Work, terms
from ._cost import Traffic, operations
from ._recurrent import Shape, lengths_of
from ._torch import ELEMENT_BYTES

# So much per hidden unit, sequence and step: label, amount, reason.
Line = tuple[str, int, str]

# lengths are int64 in every dtype of the other tensors.
_LENGTH_BYTES = 8


@dataclass(frozen=True)
class CellCost:
    """What the costs of the cells differ in.

    gates, biases, states : G, R, and 1 for h or 2 for h and c, as in `Cell`.
    saved : values per hidden unit and token that the forward pass keeps for the backward pass, besides y and c.
    revisited : values of y or c per hidden unit and token that a step of the backward pass reads.
    pointwise, special : operations of a forward step beyond the products.
    backward_pointwise, backward_special : the same of a backward step, without the sum of the bias gradients and
        without the addition of the output's gradient to that of the state.
    """

    gates: int
    biases: int
    states: int
    saved: int
    revisited: int
    pointwise: tuple[Line, ...]
    special: tuple[Line, ...]
    backward_pointwise: tuple[Line, ...]
    backward_special: tuple[Line, ...] = ()


@dataclass(frozen=True)
class _Counts:
    """Sums over layers and directions, in elements. `layer_inputs` is the sum of I_l over layers alone."""

    tokens: int
    steps: int
    units: int
    layer_inputs: int
    input_weights: int
    recurrent_weights: int
    input_biases: int
    biases: int

    @property
    def weights(self) -> int:
        return self.input_weights + self.recurrent_weights


def _counts(cell: CellCost, shape: Shape) -> _Counts:
    tokens = sum(lengths_of(shape))
    layer_inputs = shape.I + (shape.L - 1) * shape.D * shape.H
    hidden = shape.L * shape.D * shape.H
    return _Counts(
        tokens=tokens,
        steps=shape.folded_steps,
        units=tokens * hidden,
        layer_inputs=layer_inputs,
        input_weights=shape.D * cell.gates * shape.H * layer_inputs,
        recurrent_weights=hidden * cell.gates * shape.H,
        input_biases=hidden * cell.gates,
        biases=hidden * cell.biases,
    )


def _per_unit(quantity: Quantity, lines: tuple[Line, ...], units: int) -> tuple[Term, ...]:
    return terms(quantity, *((label, amount * units, reason) for label, amount, reason in lines if amount))


def _operations_forward(cell: CellCost, n: _Counts) -> tuple[Term, ...]:
    return (
        *terms(
            "matmul_flops",
            ("input product", 2 * n.tokens * n.input_weights, "W_ih times every layer's input, every token"),
            ("recurrent product", 2 * n.tokens * n.recurrent_weights, "W_hh times the state, every token"),
        ),
        *_per_unit("pointwise_flops", cell.pointwise, n.units),
        *_per_unit("special_ops", cell.special, n.units),
    )


def _operations_backward(cell: CellCost, n: _Counts) -> tuple[Term, ...]:
    inputs, states = 2 * n.tokens * n.input_weights, 2 * n.tokens * n.recurrent_weights
    return (
        *terms(
            "matmul_flops",
            ("dx", inputs, "transposed W_ih times the gate gradients of every token"),
            ("dh", states, "transposed W_hh times the gate gradients of every token"),
            ("dW_ih", inputs, "outer products of gate gradients and layer inputs, summed over all tokens"),
            ("dW_hh", states, "outer products of gate gradients and states, summed over all tokens"),
        ),
        *terms("pointwise_flops", ("dy", n.units, "gradient of the output added to that of the later step")),
        *_per_unit("pointwise_flops", cell.backward_pointwise, n.units),
        *terms("pointwise_flops", ("dbias", max(0, n.tokens - 1) * n.biases, "gate gradients summed over tokens")),
        *_per_unit("special_ops", cell.backward_special, n.units),
    )


def _operations_again(cell: CellCost, n: _Counts) -> tuple[Term, ...]:
    """Operations of a backward pass that computes the gates again, by products over all steps."""
    inside = cell.biases - cell.gates
    return (
        *terms(
            "matmul_flops",
            ("input product again", 2 * n.tokens * n.input_weights, "W_ih times the inputs of all steps"),
            ("recurrent product again", 2 * n.tokens * n.recurrent_weights, "W_hh times the states of all steps"),
        ),
        *_per_unit(
            "pointwise_flops",
            (
                ("bias again", cell.biases, "one addition per bias"),
                ("product with a gate again", 2 * inside, "a state's product and bias times a gate, and added"),
            ),
            n.units,
        ),
        *_per_unit("special_ops", (("gates again", cell.gates, "the nonlinearity of every gate"),), n.units),
    )


# Per direction, what an implementation must read and write; a tensor that the cell or the shape lacks has no bytes. As
# in lstm_step, what the forward pass leaves to the backward pass is no input of a training step, and a training step
# is charged for one read of the weights.
_WEIGHTS = ("weight_ih", "weight_ih_upper", "weight_hh")
_FORWARD = (("x", "h_0", "c_0", *_WEIGHTS, "bias", "lengths"), ("y", "h_n", "c_n"))
_GIVEN = ("dy", "dh_n", "dc_n")
_GRADIENTS = ("dx", "dh_0", "dc_0", *(f"d{name}" for name in _WEIGHTS), "dbias")
_KEPT = ("outputs", "gates", "cells", "hidden")
_TRAFFIC: Traffic = {
    "forward": _FORWARD,
    "backward": (("x", "h_0", "c_0", *_WEIGHTS, "lengths", *_KEPT, *_GIVEN), _GRADIENTS),
    "both": ((*_FORWARD[0], *_GIVEN), (*_FORWARD[1], *_GRADIENTS)),
}
_REASONS = {
    "x": "read once; what lies after the end of a row need not be read",
    "y": "written once, the zeros after the end of a row included",
    "dx": "written once, the zeros after the end of a row included",
    "dy": "read once; what lies after the end of a row need not be read",
    "outputs": "y of all tokens, read once",
    "gates": "left by the forward pass, read once",
    "cells": "the cell states of all tokens, left by the forward pass, read once",
    "hidden": "the outputs of the layers below the last, left by the forward pass, read once",
}


def _sizes(cell: CellCost, shape: Shape, element_bytes: int, recompute: bool) -> dict[str, int]:
    """Bytes of every tensor by name."""
    n = _counts(cell, shape)
    rows = cell.gates * shape.H
    state = shape.L * shape.D * shape.folded_rows * shape.H
    elements = {
        "x": n.tokens * shape.I,
        "h_0": state,
        "c_0": (cell.states - 1) * state,
        "weight_ih": shape.D * rows * shape.I,
        "weight_ih_upper": n.input_weights - shape.D * rows * shape.I,
        "weight_hh": n.recurrent_weights,
        "bias": n.biases,
        "y": shape.T * shape.B * shape.D * shape.H,
        "h_n": state,
        "c_n": (cell.states - 1) * state,
        "outputs": n.tokens * shape.D * shape.H,
        "gates": 0 if recompute else cell.saved * n.units,
        "cells": (cell.states - 1) * n.units,
        "hidden": n.tokens * (shape.L - 1) * shape.D * shape.H,
    }
    gradients = {f"d{name}": count for name, count in elements.items()}
    gradients |= {"dx": shape.T * shape.B * shape.I, "dy": elements["outputs"]}
    sizes = {name: element_bytes * count for name, count in (elements | gradients).items()}
    return sizes | {"lengths": _LENGTH_BYTES * shape.B * shape.ragged}


def _compulsory(sizes: Mapping[str, int], direction: str, recompute: bool) -> tuple[Term, ...]:
    reads, writes = _TRAFFIC[direction]
    reads = (*reads, "bias") if recompute and direction == "backward" else reads
    read = [(name, sizes[name], _REASONS.get(name, "read once")) for name in reads if sizes[name]]
    written = [(name, sizes[name], _REASONS.get(name, "written once")) for name in writes if sizes[name]]
    return (*terms("read_bytes", *read), *terms("write_bytes", *written))


def _moved_forward(cell: CellCost, shape: Shape, hoist: bool) -> list[Line]:
    """Elements that a forward pass moves when every step re-reads its weights; `hoist` takes the input product out."""
    n = _counts(cell, shape)
    if hoist:
        products = [
            ("input weights", n.input_weights + n.input_biases, "read once, by one product over all steps"),
            ("input", n.tokens * n.layer_inputs, "every layer's input, read once for all directions"),
            ("input product", 2 * cell.gates * n.units, "written by the product, read by the steps"),
            (
                "recurrent weights",
                n.steps * (n.recurrent_weights + n.biases - n.input_biases),
                "read by every dependent step, with a bias that stands inside the product with a gate",
            ),
        ]
    else:
        products = [
            ("weights", n.steps * (n.weights + n.biases), "weights and biases, read by every dependent step"),
            ("input", shape.D * n.tokens * n.layer_inputs, "every layer's input, read by the steps of each direction"),
        ]
    padding = shape.T * shape.B - n.tokens
    return [
        *products,
        ("state", 2 * cell.states * n.units, "read and written by every step; the written h is the layer's output"),
        ("padding", padding * shape.D * shape.H, "zeros of y after the end of a row, written once"),
    ]


def _moved_backward(cell: CellCost, shape: Shape, hoist: bool) -> list[Line]:
    """Elements that a backward pass moves; weight gradients are one product over all steps, with `hoist` dx too."""
    n = _counts(cell, shape)
    if hoist:
        products = [
            ("input weights", n.input_weights, "read once, by one product over all steps"),
            ("recurrent weights", n.steps * n.recurrent_weights, "read by every dependent step, transposed"),
            ("dx", n.tokens * n.layer_inputs, "gradients of every layer's input, written once for all directions"),
        ]
    else:
        products = [
            ("weights", n.steps * n.weights, "read by every dependent step, transposed"),
            ("dx", shape.D * n.tokens * n.layer_inputs, "gradients of every layer's input, written by each direction"),
        ]
    padding = shape.T * shape.B - n.tokens
    return [
        *products,
        ("dy", n.units, "gradient of every layer's output, read by the steps"),
        ("state gradients", 2 * cell.states * n.units, "read and written by every step"),
        ("kept values", (cell.saved + cell.revisited) * n.units, "gates and states of the forward pass, read by steps"),
        ("gate gradients", 2 * cell.biases * n.units, "written by the steps, read by the products over all steps"),
        ("inputs and states", n.tokens * n.layer_inputs + n.units, "read by the product that gives weight gradients"),
        ("weight gradients", n.weights + n.biases, "written once"),
        ("padding", padding * shape.I, "zeros of dx after the end of a row, written once"),
    ]


def _moved(cell: CellCost, shape: Shape, direction: str, hoist: bool, recompute: bool) -> list[Line]:
    """Elements moved by one pass or both; with `recompute` the gates are computed again instead of being kept."""
    n = _counts(cell, shape)
    forward = _moved_forward(cell, shape, hoist)
    if direction == "forward":
        return forward
    backward = _moved_backward(cell, shape, hoist)
    gates = cell.saved * n.units
    if recompute:
        operands = n.tokens * n.layer_inputs + n.units + n.weights + n.biases
        backward.append(("gates again", gates + operands, "computed by products over all steps and written once"))
    if direction == "backward":
        return backward
    return [*forward, *backward, ("gates", 0 if recompute else gates, "written for the backward pass")]


def _passes(direction: str) -> int:
    return 2 if direction == "both" else 1


def _streamed(
    cell: CellCost, shape: Shape, element_bytes: int, direction: str, hoist: bool, recompute: bool
) -> tuple[Term, ...]:
    lines = _moved(cell, shape, direction, hoist, recompute)
    sizes = [(label, element_bytes * count, reason) for label, count, reason in lines if count]
    if shape.ragged:
        sizes.append(("lengths", _passes(direction) * _LENGTH_BYTES * shape.B, "read by each pass"))
    return terms("hoisted_bytes" if hoist else "streamed_bytes", *sizes)


def depth(shape: Shape, direction: str = "forward") -> int:
    """Dependent steps in the best order: a wavefront, or layer by layer with two directions side by side."""
    if not shape.B:
        return 1
    steps = shape.folded_steps
    return _passes(direction) * (steps + shape.L - 1 if shape.D == 1 else shape.L * steps)


def depth_by_layer(shape: Shape, direction: str = "forward") -> int:
    """Dependent steps when one layer follows the other, two directions side by side."""
    return _passes(direction) * shape.L * shape.folded_steps if shape.B else 1


def wavefront_bytes(cell: CellCost, shape: Shape, dtype: str) -> int:
    """Bytes of the weights that a wavefront holds on chip: all but the first layer's input weights, one direction."""
    upper = (shape.L - 1) * shape.H
    return ELEMENT_BYTES[dtype] * cell.gates * shape.H * (shape.L * shape.H + upper)


def saved_bytes(cell: CellCost, shape: Shape, dtype: str, recompute: bool = False) -> int:
    """Bytes that a forward pass leaves behind and that are neither input nor output; `recompute` keeps no gates."""
    sizes = _sizes(cell, shape, ELEMENT_BYTES[dtype], recompute)
    return sizes["gates"] + sizes["cells"] + sizes["hidden"]


def work(cell: CellCost, shape: Shape, dtype: str, direction: str, recompute: bool = False) -> Work:
    """Cost of one call, of its gradients, or of both, with every tensor held in `dtype`. No sequences cost nothing.

    recompute : the backward pass computes the gates again by products over all steps instead of reading them; it
        makes no difference to a cell that saves none.
    Raises ValueError for an unknown direction.
    """
    element_bytes = ELEMENT_BYTES[dtype]
    n = _counts(cell, shape)
    recompute = recompute and cell.saved > 0
    again = _operations_again(cell, n) if recompute else ()
    done = operations(direction, _operations_forward(cell, n), (*_operations_backward(cell, n), *again))
    moved = (
        *_compulsory(_sizes(cell, shape, element_bytes, recompute), direction, recompute),
        *_streamed(cell, shape, element_bytes, direction, False, recompute),
        *_streamed(cell, shape, element_bytes, direction, True, recompute),
        *terms(
            "exchange_bytes",
            ("hidden states", element_bytes * n.units // depth(shape), "each crosses once; average of the chain"),
        ),
    )
    widest = max(shape.I, shape.D * shape.H * (shape.L > 1))
    recurrent_bytes = element_bytes * cell.gates * shape.H * shape.H
    return Work(
        terms=(*done, *moved) if n.tokens else (),
        depth=depth(shape, direction),
        weight_bytes=recurrent_bytes + element_bytes * shape.H * (cell.gates * widest + cell.biases),
        recurrent_bytes=recurrent_bytes,
        state_bytes=element_bytes * cell.states * shape.folded_rows * shape.H,
        saved_bytes=saved_bytes(cell, shape, dtype, recompute),
        parameters=n.weights + n.biases,
        tokens=n.tokens,
    )


# What a user reads for a part.
INPUT_PRODUCT = "input product"
RECURRENCE = "recurrence"


def part_works(cell: CellCost, shape: Shape, dtype: str, layers: int = 1) -> dict[str, Work]:
    """Cost of the two phases of a forward pass, each on what the other leaves in memory; their operations add up.

    layers : layers of one launch, with one direction if more than one; all but the lowest multiply their inputs inside
        the steps. Biases belong to the recurrence, which adds them.
    """
    inputs = [shape.I, *[shape.D * shape.H] * (shape.L - 1)]
    return {
        INPUT_PRODUCT: _input_product(cell, shape, ELEMENT_BYTES[dtype], inputs[::layers]),
        RECURRENCE: _recurrence(cell, shape, dtype, inputs[::layers], sum(inputs) - sum(inputs[::layers])),
    }


def _gate_inputs(cell: CellCost, n: _Counts, shape: Shape, products: list[int]) -> int:
    """Values that the products of the layers with these input sizes give to their steps."""
    return n.tokens * len(products) * shape.D * cell.gates * shape.H


def _input_product(cell: CellCost, shape: Shape, element_bytes: int, products: list[int]) -> Work:
    n = _counts(cell, shape)
    weights = shape.D * cell.gates * shape.H * sum(products)
    gate_inputs = _gate_inputs(cell, n, shape, products)
    lines = (
        *terms("matmul_flops", (INPUT_PRODUCT, 2 * n.tokens * weights, "W_ih times a layer's input, every token")),
        *terms(
            "read_bytes",
            ("input", element_bytes * n.tokens * sum(products), "every layer's input, read once for all directions"),
            ("input weights", element_bytes * weights, "read once, for all steps"),
        ),
        *terms("write_bytes", ("gate inputs", element_bytes * gate_inputs, "written for the steps")),
    )
    return Work(terms=lines if n.tokens else (), parameters=weights, tokens=n.tokens)


def _recurrence(cell: CellCost, shape: Shape, dtype: str, products: list[int], inside: int) -> Work:
    """Cost of the steps alone, which multiply inputs of `inside` values in all themselves; nothing is left to hoist."""
    size, n, whole = ELEMENT_BYTES[dtype], _counts(cell, shape), work(cell, shape, dtype, "forward")
    input_weights = shape.D * cell.gates * shape.H * inside
    weights = n.recurrent_weights + input_weights
    gate_inputs = _gate_inputs(cell, n, shape, products)
    between = n.tokens * (len(products) - 1) * shape.D * shape.H
    kept = ("h_0", "c_0", "weight_hh", "bias", "lengths", "y", "h_n", "c_n")
    lines = (
        *terms(
            "matmul_flops",
            ("recurrent product", 2 * n.tokens * n.recurrent_weights, "W_hh times the state, every token"),
            ("input product inside", 2 * n.tokens * input_weights, "W_ih of a layer above another of the same launch"),
        ),
        *(term for term in whole.terms if term.quantity in ("pointwise_flops", "special_ops", "exchange_bytes")),
        *(term for term in whole.terms if term.quantity in ("read_bytes", "write_bytes") and term.label in kept),
        *terms(
            "read_bytes",
            ("gate inputs", size * gate_inputs, "left by the input products, read once"),
            ("weight_ih inside", size * input_weights, "of layers that multiply their input step by step, read once"),
        ),
        *terms("write_bytes", ("outputs between launches", size * between, "written for the next input product")),
        *terms(
            "streamed_bytes",
            ("gate inputs", size * gate_inputs, "left by the input products, read once"),
            ("gate biases", size * n.input_biases, "read once"),
            (
                "weights",
                size * n.steps * (weights + n.biases - n.input_biases),
                "read by every dependent step, with a bias that stands inside the product with a gate",
            ),
            ("input inside", size * n.tokens * inside, "the outputs of the layer below, read by the steps"),
            ("state", 2 * size * cell.states * n.units, "read and written by every step"),
            ("padding", size * (shape.T * shape.B - n.tokens) * shape.D * shape.H, "zeros of y, written once"),
            ("lengths", _LENGTH_BYTES * shape.B * shape.ragged, "read once"),
        ),
    )
    return Work(
        terms=tuple(line for line in lines if line.amount) if n.tokens else (),
        depth=whole.depth,
        weight_bytes=whole.recurrent_bytes + size * shape.H * (cell.gates * (shape.H if inside else 0) + cell.biases),
        recurrent_bytes=whole.recurrent_bytes,
        state_bytes=whole.state_bytes,
        parameters=weights + n.biases,
        tokens=n.tokens,
    )
