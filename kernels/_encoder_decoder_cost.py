"""What an encoder and decoder must do: the recurrent stacks, attention between them, and the chain of dependent steps.

B, T, S, I, H, L and E as in `encoder_decoder`. The whole is the sum of its parts, the stacks and the attention, but
what passes from part to part is not compulsory. Stacks are those of the kernel lstm; with score 0 attention is the
kernel of that name without its scale, and the output product; with score 1 it is counted here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..roofline.work import Quantity, Term, Work, terms
from . import attention, lstm
from ._cost import operations, traffic
from ._torch import ELEMENT_BYTES

if TYPE_CHECKING:
    from .encoder_decoder import Shape

# What a user reads for a part, by the prefix of its weights.
PARTS = {
    "first": "encoder, both directions",
    "stack": "encoder stack",
    "decoder": "decoder",
    "attention": "attention",
}


def _luong_operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    queries, memory = shape.S * shape.B * shape.H, shape.T * shape.B * shape.H
    product = 4 * queries * shape.H
    forward = (
        *terms("matmul_flops", ("output product", product, "W_c times context and state, every target step")),
        *terms("special_ops", ("output", queries, "tanh")),
    )
    backward = (
        *terms(
            "matmul_flops",
            ("dcontext and dh", product, "transposed W_c times the gradients before tanh"),
            ("dW_c", product, "outer products with context and state, summed over all target steps"),
        ),
        *terms(
            "pointwise_flops",
            ("tanh gradient", 3 * queries, "times 1 - y^2"),
            ("dh", queries, "a state is a query and goes into the output: two gradients added"),
            ("de", memory, "an encoder output is key and value: two gradients added"),
        ),
    )
    scores = attention.work(_scores_of(shape), "fp32", direction).terms
    done = [term for term in scores if term.quantity.endswith(("flops", "ops")) and term.label != "scale"]
    return (*done, *operations(direction, forward, backward))


def _luong_work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of attention and output product on decoder states h and encoder outputs e: nothing waits for a step."""
    size = ELEMENT_BYTES[dtype]
    queries, memory = size * shape.S * shape.B * shape.H, size * shape.T * shape.B * shape.H
    logarithms = attention.work(_scores_of(shape), dtype, direction).saved_bytes
    sizes = {"h": queries, "e": memory, "output_weight": size * 2 * shape.H**2, "y": queries}
    sizes |= {f"d{name}": amount for name, amount in sizes.items()}
    sizes |= {"contexts and logarithms": queries + logarithms}
    gradients = ("dh", "de", "doutput_weight")
    moved = {
        "forward": (("h", "e", "output_weight"), ("y",)),
        "backward": (("h", "e", "output_weight", "contexts and logarithms", "y", "dy"), gradients),
        "both": (("h", "e", "output_weight", "dy"), ("y", *gradients)),
    }
    kept = "contexts and logarithms"
    return Work(
        terms=(
            *_luong_operations(shape, direction),
            *traffic(moved, sizes, direction, kept, "and writes them for the backward pass", "which reads them again"),
        ),
        saved_bytes=sizes[kept],
        parameters=2 * shape.H**2,
        tokens=shape.S * shape.B,
    )


def _bahdanau_operations(shape: Shape, direction: str) -> tuple[Term, ...]:
    queries, pairs = shape.S * shape.B, shape.S * shape.B * shape.T
    keys = 2 * shape.T * shape.B * shape.H * shape.E
    query, score, average = 2 * queries * shape.H**2, 2 * pairs * shape.H, 2 * pairs * shape.E
    forward = (
        *terms(
            "matmul_flops",
            ("keys", keys, "W_k times the encoder's outputs, once"),
            ("queries", query, "W_q times the state, every target step"),
            ("scores", score, "v times tanh: a dot product of length H per pair of target and source step"),
            ("average", average, "weights times encoder outputs: E multiply-adds per pair"),
        ),
        *terms(
            "pointwise_flops",
            ("query and key", pairs * shape.H, "W_q h + W_k e, added for every pair"),
            ("softmax", 3 * pairs, "maximum, difference to it and sum, one each per pair"),
            ("normalise", queries * shape.E, "the average divided by the sum of its weights"),
        ),
        *terms("special_ops", ("tanh", pairs * shape.H, "of every pair"), ("exponentials", pairs, "one per pair")),
    )
    backward = (
        *terms(
            "matmul_flops",
            ("dweights", average, "gradient of the context times encoder outputs"),
            ("de of the average", average, "weights times gradients of contexts, summed over target steps"),
            ("dtanh", score, "dscore times v: a product of inner dimension 1"),
            ("dv", score, "dscore times tanh, summed over all pairs"),
            ("dh", query, "transposed W_q times the gradients of queries"),
            ("dW_q", query, "outer products of query gradients and states, summed over target steps"),
            ("de of the keys", keys, "transposed W_k times the gradients of keys"),
            ("dW_k", keys, "outer products of key gradients and encoder outputs, summed over source steps"),
        ),
        *terms(
            "pointwise_flops",
            ("query and key again", pairs * shape.H, "tanh is too large to keep: H values per pair"),
            ("row sums", 2 * queries * shape.E, "dcontext times context, summed over E: the share of normalisation"),
            ("dscores", 2 * pairs, "weights (dweights - row sum)"),
            ("tanh gradient", 3 * pairs * shape.H, "times 1 - tanh^2"),
            ("dquery", (shape.T - 1) * queries * shape.H, "summed over source steps"),
            ("dkeys", (shape.S - 1) * shape.B * shape.T * shape.H, "summed over target steps"),
            ("dh", queries * shape.H, "a state is an output or goes on, and is a query: two gradients added"),
            ("de", shape.T * shape.B * shape.E, "an encoder output is key and value: two gradients added"),
        ),
        *terms("special_ops", ("tanh again", pairs * shape.H, "of every pair")),
    )
    return operations(direction, forward, backward)


def _bahdanau_bytes(shape: Shape, direction: str) -> dict[Quantity, dict[str, tuple[int, str]]]:
    """Elements that the attention of all steps reads, writes, and moves when every step reads its operands again."""
    steps, memory = shape.S * shape.B, shape.T * shape.B * (shape.H + shape.E)
    sizes = {
        "h": steps * shape.H,
        "e": shape.T * shape.B * shape.E,
        "context": steps * shape.E,
        "query_weight": shape.H**2,
        "key_weight": shape.H * shape.E,
        "score_weight": shape.H,
    }
    weights = ("query_weight", "key_weight", "score_weight")
    kept = {"keys": shape.T * shape.B * shape.H, "queries": sizes["h"], "weights": steps * shape.T}
    at_once = {name: (sizes[name], "read once") for name in ("h", "e", *weights)}
    gradients = {f"d{name}": (sizes[name], "written once") for name in ("h", "e", *weights)}
    given = {"dcontext": (sizes["context"], "read once")}
    left = {name: (amount, "left by the forward pass, read once") for name, amount in kept.items()}
    left |= {"contexts": (sizes["context"], "left by the forward pass, read once for the decoder's weights too")}
    of_step = shape.S * (shape.H**2 + shape.H)
    forward = {
        "keys": (sizes["key_weight"] + sizes["e"] + kept["keys"], "one product over all source steps"),
        "weights": (of_step, "W_q and v, read by every step"),
        "memory": (shape.S * memory, "keys and encoder outputs, read by every step"),
        "states and contexts": (sizes["h"] + sizes["context"], "read and written by the steps"),
    }
    backward = {
        "weights, backward": (of_step, "W_q transposed and v, read by every step"),
        "memory, backward": (shape.S * memory, "keys and encoder outputs, read by every step"),
        "kept values": (kept["queries"] + kept["weights"] + sizes["context"], "read by the steps"),
        "gradients of states": (sizes["h"] + sizes["context"], "read and written by the steps"),
        "gradients of queries and scores": (2 * (sizes["h"] + kept["weights"]), "written by steps, read by products"),
        "gradients at the end": (
            sizes["h"] + kept["keys"] + sizes["key_weight"] + 2 * sizes["e"] + sum(sizes[name] for name in weights),
            "products over all steps: read states, keys, encoder outputs and W_k, write gradients once",
        ),
    }
    if direction == "forward":
        context = {"context": (sizes["context"], "written once")}
        return {"read_bytes": at_once, "write_bytes": context, "streamed_bytes": forward}
    if direction == "backward":
        return {"read_bytes": at_once | left | given, "write_bytes": gradients, "streamed_bytes": backward}
    written = {"queries and weights": (kept["queries"] + kept["weights"], "written for the backward pass")}
    return {
        "read_bytes": at_once | given,
        "write_bytes": {"context": (sizes["context"], "written once")} | gradients,
        "streamed_bytes": forward | backward | written,
    }


def _bahdanau_work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of the keys and of the attention of all steps, each of which waits for the decoder's step before it.

    A step of it counts as one dependent step: a program that has a sequence for itself waits for nobody inside.
    """
    size, steps = ELEMENT_BYTES[dtype], shape.S * shape.B
    moved = [
        term
        for quantity, lines in _bahdanau_bytes(shape, direction).items()
        for term in terms(quantity, *((label, size * count, reason) for label, (count, reason) in lines.items()))
    ]
    passes = passes_of(direction)
    exchange = terms("exchange_bytes", ("contexts", size * shape.B * shape.E, "each crosses to the decoder once"))
    return Work(
        terms=(*_bahdanau_operations(shape, direction), *moved, *exchange),
        depth=passes * shape.S,
        weight_bytes=size * (shape.H**2 + shape.H),
        recurrent_bytes=size * (shape.H**2 + shape.H),
        state_bytes=size * (shape.T * shape.B * (shape.H + shape.E) + shape.B * shape.H),
        saved_bytes=size * (shape.T * shape.B * shape.H + steps * (shape.H + shape.T + shape.E)),
        parameters=shape.H**2 + shape.H * shape.E + shape.H,
        tokens=steps,
    )


def passes_of(direction: str) -> int:
    """Passes through the chain of steps: two in a training step."""
    return 2 if direction == "both" else 1


def _scores_of(shape: Shape) -> attention.Shape:
    """Luong's attention as a shape of the kernel attention: one head of H values, and every step is seen."""
    return attention.Shape(shape.B, 1, shape.S, shape.H, K=shape.T, causal=0)


def _stepped(shape: Shape, cost: Work, dtype: str, direction: str) -> Work:
    """Bahdanau's decoder from the cost of a plain stack: its layers follow one another at every step.

    Only the product of the target with W_ih can be done once for all steps.
    """
    size, gates = ELEMENT_BYTES[dtype], lstm.GATES
    first = (shape.S - 1) * gates * shape.H * size
    # What hoisting saves of each pass that reads weights at every step; the bias goes along in the forward pass only.
    savings = [first * (shape.I + 1), first * shape.I][direction == "backward" :]
    hoisted = []
    for term in cost.terms:
        if term.quantity == "streamed_bytes":
            saved = savings.pop(0) if term.label == "weights" else 0
            hoisted.append(term.model_copy(update={"quantity": "hoisted_bytes", "amount": term.amount - saved}))
    if direction != "backward":
        product = 2 * gates * shape.H * shape.S * shape.B * size
        hoisted += terms("hoisted_bytes", ("input product", product, "of the target: written at once, read by steps"))
    state = size * shape.B * shape.H
    exchange = terms("exchange_bytes", ("hidden states", state, "those of one layer, each crosses once"))
    kept = [term for term in cost.terms if term.quantity not in ("hoisted_bytes", "exchange_bytes")]
    return cost.model_copy(
        update={
            "terms": (*kept, *hoisted, *exchange),
            "depth": passes_of(direction) * shape.S * shape.L,
            "recurrent_bytes": size * gates * shape.H * (shape.H + shape.E),
        }
    )


def costs_of(shape: Shape, dtype: str, direction: str) -> dict[str, Work]:
    """Cost of every part by its name, each with the tensors that it gets from the others among its inputs."""
    found = {}
    for prefix, stack in shape.stacks.items():
        cost = lstm.work(stack, dtype, direction)
        if prefix != "decoder":  # the encoder begins with zeros, which nobody reads or gives a gradient to
            cost = cost.model_copy(update={"terms": tuple(term for term in cost.terms if term.label not in _STARTS)})
        found[prefix] = _stepped(shape, cost, dtype, direction) if prefix == "decoder" and shape.score else cost
    found["attention"] = (_bahdanau_work if shape.score else _luong_work)(shape, dtype, direction)
    return {PARTS[prefix]: cost for prefix, cost in found.items()}


_STARTS = ("h_0", "c_0", "dh_0", "dc_0")
# Bytes of a stack that pass between parts, by the label of their term, and are neither input nor output of the whole.
_BETWEEN = {*_STARTS, *("y", "h_n", "c_n", "dy", "dh_n", "dc_n")}


def _between(shape: Shape, part: str) -> set[str]:
    """Labels of the part's compulsory bytes that the whole need not move, or that another part has counted."""
    if part == "attention":
        return {"h", "e", "dh", "de", "context", "dcontext"}
    if part == PARTS["decoder"] and shape.score:  # its outputs are the result, and it reads contexts beside the target
        return _BETWEEN - {"y", "dy"} | {"x", "dx"}
    return _BETWEEN | ({"x", "dx"} if part == PARTS["stack"] else set())


def _moved(cost: Work, quantity: Quantity) -> tuple[Term, ...]:
    """Terms of streamed or hoisted traffic, or what stands for them where a part has none of its own."""
    wanted: list[tuple[str, ...]] = [(quantity,), ("streamed_bytes",), ("read_bytes", "write_bytes")]
    for names in wanted:
        found = tuple(term for term in cost.terms if term.quantity in names)
        if found:
            return tuple(term.model_copy(update={"quantity": quantity}) for term in found)
    return ()


def _terms_of(shape: Shape, part: str, cost: Work) -> tuple[Term, ...]:
    """Terms of a part as they count in the whole, each with the part's name in front."""
    between = _between(shape, part)
    traffic_terms = ("read_bytes", "write_bytes")
    once = [term for term in cost.terms if not term.quantity.endswith("_bytes")]
    once += [term for term in cost.terms if term.quantity in traffic_terms and term.label not in between]
    every = (*once, *_moved(cost, "streamed_bytes"), *_moved(cost, "hoisted_bytes"))
    return tuple(term.model_copy(update={"label": f"{part}: {term.label}"}) for term in every)


def _targets(shape: Shape, dtype: str, direction: str) -> tuple[Term, ...]:
    """The target's bytes with score 1, where it is only a part of what the decoder reads."""
    size = ELEMENT_BYTES[dtype] * shape.S * shape.B * shape.I
    read = terms("read_bytes", ("decoder: target", size, "read once"))
    return (
        read if direction == "forward" else (*read, *terms("write_bytes", ("decoder: dtarget", size, "written once")))
    )


def depth(shape: Shape, direction: str = "forward") -> int:
    """Dependent steps in the best order.

    The stack waits for both directions of the first layer; then it is a wavefront, which Luong's decoder follows layer
    by layer, as every layer begins when that of the encoder has ended. Bahdanau's decoder waits for all of the encoder,
    and each of its steps for attention and all layers.
    """
    if not shape.B:
        return 1
    encoder = shape.T + (shape.T + shape.L - 2 if shape.L > 1 else 0)
    decoder = shape.S * (shape.L + 1) if shape.score else shape.S + 1
    return passes_of(direction) * (encoder + decoder)


def work(shape: Shape, dtype: str, direction: str) -> Work:
    """Cost of one call, of its gradients, or of both: the sum of its parts, with every tensor held in `dtype`.

    What passes between the parts is not compulsory. What a step re-reads is the least of the recurrent parts, and what
    it exchanges the average over the chain. Raises ValueError for an unknown direction.
    """
    steps = depth(shape, direction)
    if not shape.B:
        operations(direction, (), ())  # refuses an unknown direction
        return Work(terms=(), depth=steps, tokens=0)
    costs = costs_of(shape, dtype, direction)
    together = [term for part, cost in costs.items() for term in _terms_of(shape, part, cost)]
    if shape.score:
        together += _targets(shape, dtype, direction)
    crossing = sum(cost.depth * cost.exchange_bytes for cost in costs.values())
    recurrent = [cost for part, cost in costs.items() if part != "attention"]
    # Outputs of stacks are inputs of others: the forward pass leaves them too, unless they are the result.
    outputs = [stack.T * stack.B * stack.D * stack.H for stack in shape.stacks.values()]
    left = sum(outputs[: len(outputs) - shape.score]) * ELEMENT_BYTES[dtype]
    return Work(
        terms=(*together, *terms("exchange_bytes", ("all parts", crossing // steps, "average over the chain"))),
        depth=steps,
        weight_bytes=min(cost.weight_bytes for cost in recurrent),
        recurrent_bytes=min(cost.recurrent_bytes for cost in recurrent),
        state_bytes=min(cost.state_bytes for cost in recurrent),
        saved_bytes=left + sum(cost.saved_bytes for cost in costs.values()),
        recomputed_flops=sum(cost.recomputed_flops for cost in costs.values()),
        recomputed_ops=sum(cost.recomputed_ops for cost in costs.values()),
        parameters=sum(cost.parameters for cost in costs.values()),
        tokens=shape.B * (shape.T + shape.S),
    )
