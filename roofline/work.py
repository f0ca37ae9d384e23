"""What a kernel must do, in operations and bytes. Knows no machine.

Conventions. A multiply-add of a matrix product or a convolution counts two `matmul_flops`; every other addition,
multiplication or maximum counts one `pointwise_flops`; exp, tanh, sigmoid and sqrt count one `special_ops` each and
are no flops. Compulsory bytes: each input read once, each output written once, weights once per call.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, computed_field, model_validator

from ._model import Frozen

Quantity = Literal[
    "matmul_flops",
    "pointwise_flops",
    "special_ops",
    "read_bytes",
    "write_bytes",
    "streamed_bytes",
    "hoisted_bytes",
    "exchange_bytes",
]

_SUMS = (
    "matmul_flops",
    "pointwise_flops",
    "special_ops",
    "flops",
    "read_bytes",
    "write_bytes",
    "compulsory_bytes",
    "streamed_bytes",
    "hoisted_bytes",
    "exchange_bytes",
)


class Term(Frozen):
    """One line of a cost: so much of a quantity, and why."""

    quantity: Quantity
    label: str
    amount: int = Field(ge=0)
    reason: str


class Work(Frozen):
    """The cost of one call, term by term.

    depth : steps that must wait for one another.
    step_products : whether such a step holds a matrix product. False where all products can be done for all steps at
        once and the chain is element-wise, as in SRU; without `matmul_flops` it does not matter.
    weight_bytes, state_bytes : what a dependent step re-reads if nothing is kept on chip.
    recurrent_bytes : the weights among them that meet the state, so that no product over all steps can take them out of
        the loop; all of them unless said otherwise.
    saved_bytes : what a forward pass must leave behind for its backward pass.
    recomputed_flops, recomputed_ops : of the matrix products and of the special operations, those that are counted a
        second time because their results are too large to keep; a design that keeps them all the same does without.
    tokens : sequence positions processed by one call.

    `streamed_bytes` is the traffic when every dependent step re-reads weights and state (equal to the compulsory bytes
    when there is one step); `hoisted_bytes` the same with the input product done once for all steps;
    `exchange_bytes` what a chip-resident recurrence moves through the shared cache per step.
    """

    terms: tuple[Term, ...]
    depth: int = Field(default=1, ge=1)
    step_products: bool = True
    weight_bytes: int = Field(default=0, ge=0)
    recurrent_bytes: int = Field(default=0, ge=0)
    state_bytes: int = Field(default=0, ge=0)
    saved_bytes: int = Field(default=0, ge=0)
    recomputed_flops: int = Field(default=0, ge=0)
    recomputed_ops: int = Field(default=0, ge=0)
    parameters: int = Field(default=0, ge=0)
    tokens: int = Field(default=1, ge=0)

    def total(self, quantity: Quantity) -> int:
        """Sum the terms of one quantity."""
        return sum(term.amount for term in self.terms if term.quantity == quantity)

    @computed_field
    @property
    def matmul_flops(self) -> int:
        """Operations of matrix products and convolutions, two per multiply-add."""
        return _sums_of(self.terms)["matmul_flops"]

    @computed_field
    @property
    def pointwise_flops(self) -> int:
        """Other additions, multiplications and maxima."""
        return _sums_of(self.terms)["pointwise_flops"]

    @computed_field
    @property
    def special_ops(self) -> int:
        """Evaluations of exp, tanh, sigmoid and sqrt."""
        return _sums_of(self.terms)["special_ops"]

    @computed_field
    @property
    def flops(self) -> int:
        """Matrix-product and pointwise operations together."""
        return _sums_of(self.terms)["flops"]

    @computed_field
    @property
    def read_bytes(self) -> int:
        """Bytes of all inputs and weights, once."""
        return _sums_of(self.terms)["read_bytes"]

    @computed_field
    @property
    def write_bytes(self) -> int:
        """Bytes of all outputs, once."""
        return _sums_of(self.terms)["write_bytes"]

    @computed_field
    @property
    def compulsory_bytes(self) -> int:
        """Every input read once, every output written once."""
        return _sums_of(self.terms)["compulsory_bytes"]

    @computed_field
    @property
    def streamed_bytes(self) -> int:
        """Traffic when each dependent step re-reads its weights and state."""
        return _sums_of(self.terms)["streamed_bytes"]

    @computed_field
    @property
    def hoisted_bytes(self) -> int:
        """Streamed traffic with the input product done once for all steps."""
        return _sums_of(self.terms)["hoisted_bytes"]

    @computed_field
    @property
    def exchange_bytes(self) -> int:
        """State moved through the shared cache per step by a chip-resident recurrence."""
        return _sums_of(self.terms)["exchange_bytes"]

    @model_validator(mode="wrap")
    @classmethod
    def _sums_match(cls, value: Any, handler: Any) -> Work:
        """Accept the sums of a stored record, and refuse them when they differ from the terms."""
        if not isinstance(value, dict):
            return handler(value)
        value = {"recurrent_bytes": value.get("weight_bytes", 0)} | value
        stored = {name: value[name] for name in _SUMS if name in value}
        work = handler({name: entry for name, entry in value.items() if name not in stored})
        sums = _sums_of(work.terms)
        wrong = [name for name, entry in stored.items() if entry != sums[name]]
        if wrong:
            raise ValueError(f"the stored sum of {', '.join(wrong)} differs from the sum of its terms")
        return work


def _sums_of(terms: tuple[Term, ...]) -> dict[str, int]:
    """All sums; streamed bytes without terms of their own are the compulsory ones, hoisted bytes the streamed ones."""
    totals: dict[str, int] = {}
    for term in terms:
        totals[term.quantity] = totals.get(term.quantity, 0) + term.amount
    sums = {name: totals.get(name, 0) for name in _SUMS}
    sums["flops"] = sums["matmul_flops"] + sums["pointwise_flops"]
    sums["compulsory_bytes"] = sums["read_bytes"] + sums["write_bytes"]
    sums["streamed_bytes"] = totals.get("streamed_bytes", sums["compulsory_bytes"])
    sums["hoisted_bytes"] = totals.get("hoisted_bytes", sums["streamed_bytes"])
    return sums


def terms(quantity: Quantity, *lines: tuple[str, int, str]) -> tuple[Term, ...]:
    """Write several lines of one quantity: `(label, amount, reason)`."""
    return tuple(Term(quantity=quantity, label=label, amount=amount, reason=reason) for label, amount, reason in lines)
