"""Operations of attention, whether many queries see the keys or one does."""

from __future__ import annotations

from typing import TypedDict

from ..roofline.work import Term, terms


def forward_operations(pairs: int, queries: int, P: int) -> tuple[Term, ...]:
    """Count the forward pass. pairs : of a query and a key that it sees. queries : values of q, P for each."""
    return (
        *terms(
            "matmul_flops",
            ("scores", 2 * pairs * P, "q k^T: a dot product of length P per visible pair"),
            ("average", 2 * pairs * P, "weights times v: P multiply-adds per visible pair"),
        ),
        *terms(
            "pointwise_flops",
            ("scale", queries, "q / sqrt(P): cheaper on the queries than on the scores"),
            ("softmax", 3 * pairs, "maximum, difference to it and sum, one each per visible pair"),
            ("normalise", queries, "the average divided by the sum of its weights"),
        ),
        *terms("special_ops", ("exponentials", pairs, "one per visible pair")),
    )


def backward_operations(pairs: int, queries: int, P: int) -> tuple[Term, ...]:
    """Count the gradients, with the scores computed again; letters as in `forward_operations`."""
    return (
        *terms(
            "matmul_flops",
            ("scores again", 2 * pairs * P, "q k^T recomputed: the weights are too large to keep"),
            ("dweights", 2 * pairs * P, "do v^T"),
            ("dv", 2 * pairs * P, "transposed weights times do"),
            ("dq", 2 * pairs * P, "dscores times k"),
            ("dk", 2 * pairs * P, "transposed dscores times q"),
        ),
        *terms(
            "pointwise_flops",
            ("row sums", 2 * queries, "do times o, summed over P: the share of the softmax's normalisation"),
            ("weights again", pairs, "scores minus the saved logarithm of their sum"),
            ("dscores", 2 * pairs, "weights (dweights - row sum)"),
            ("scale", 2 * queries, "of the recomputed scores and of dq, on the queries"),
        ),
        *terms("special_ops", ("exponentials again", pairs, "one per visible pair")),
    )


class Recomputed(TypedDict):
    """Fields of a `Work`."""

    recomputed_flops: int
    recomputed_ops: int


def recomputed(pairs: int, P: int, direction: str) -> Recomputed:
    """What of these operations gradients do a second time."""
    again = direction != "forward"
    return {"recomputed_flops": 2 * pairs * P * again, "recomputed_ops": pairs * again}
