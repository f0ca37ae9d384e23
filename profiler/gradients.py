"""Gradients as calls: of a graph built beforehand (`backward`), or with the forward pass that builds it (`both`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from .copies import Inputs, clone, distinct, footprint_bytes, touched_bytes


class Operands:
    """What a call reads, which can be given other values in place; whoever calls it later meets those.

    inputs : tensors and other values by name. gradients : those that come in at the outputs. kept : names of inputs
    that a graph holds, so that they must stay as they are.
    """

    def __init__(self, inputs: Inputs, gradients: Sequence[torch.Tensor] = (), kept: Sequence[str] = ()) -> None:
        self._inputs = inputs
        self._gradients = list(gradients)
        self._kept = set(kept)

    def fill(self, inputs: Inputs, seed: int) -> None:
        """Write the values of these inputs, and incoming gradients drawn from a seed."""
        with torch.no_grad():
            for name, value in inputs.items():
                if isinstance(value, torch.Tensor) and name not in self._kept:
                    own, strides = self._inputs[name], self._inputs[name].stride()
                    distinct(own, strides).copy_(distinct(value, strides))
            for own, value in zip(self._gradients, drawn(self._gradients, seed)):
                own.copy_(value)

    def changed(self, inputs: Inputs, seed: int) -> list[str]:
        """Names of what no longer has the values that `fill` wrote."""
        names = [
            name
            for name, value in inputs.items()
            if isinstance(value, torch.Tensor) and not same(value, self._inputs[name])
        ]
        pairs = zip(self._gradients, drawn(self._gradients, seed))
        return names + [f"gradient {index}" for index, (own, value) in enumerate(pairs) if not same(value, own)]


def same(value: torch.Tensor, now: torch.Tensor) -> bool:
    """Whether two tensors of one dtype hold the same values, NaN at the same places included."""
    value, now = value.detach(), now.detach()
    # Most are equal without NaN, and then nothing as large as they are is made.
    return torch.equal(value, now) or torch.equal(value.nan_to_num(), now.nan_to_num())


def drawn(like: Sequence[torch.Tensor], seed: int) -> list[torch.Tensor]:
    """Random incoming gradients of these shapes, dtypes and device; in float32 first, so that dtypes see the same."""
    if not like:
        return []
    source = torch.Generator(device=like[0].device).manual_seed(seed)
    return [
        torch.randn(one.shape, generator=source, device=one.device, dtype=torch.float32).to(one.dtype) for one in like
    ]


class Derivative:
    """A call that returns the gradients of all floating-point inputs, and the outputs where it computes them too.

    seed : of the incoming gradients. operands : what it reads.
    """

    def __init__(self, run: Callable[..., Any], shape: Any, inputs: Inputs, direction: str, seed: int = 0) -> None:
        self._run, self._shape, self._direction = run, shape, direction
        self._arguments = clone(inputs)
        self._targets = [
            value.requires_grad_()
            for value in self._arguments.values()
            if isinstance(value, torch.Tensor) and value.is_floating_point()
        ]
        if not self._targets:
            raise ValueError("no input is a floating-point tensor, so none has a gradient: ask for --direction forward")
        outputs = run(shape, **self._arguments)
        for index, output in enumerate(outputs):
            if not output.is_floating_point():
                raise ValueError(f"output {index} is {output.dtype} and has no gradient: ask for --direction forward")
        # As precise as the first of them, whatever an implementation returns: the checker refuses other dtypes later.
        kind = self._targets[0].dtype
        self._gradients = drawn([torch.empty_like(output, dtype=kind) for output in outputs], seed)
        self._outputs = outputs if direction == "backward" else ()
        kept = list(inputs) if direction == "backward" else ()
        self.operands = Operands(self._arguments, self._gradients, kept)

    def __call__(self) -> tuple[torch.Tensor, ...]:
        """The gradients of the inputs, zeros where an input has none; behind the outputs of a forward pass, if any."""
        backward = self._direction == "backward"
        outputs = self._outputs if backward else self._run(self._shape, **self._arguments)
        incoming = [gradient.to(output.dtype) for gradient, output in zip(self._gradients, outputs)]
        gradients = torch.autograd.grad(
            outputs, self._targets, incoming, retain_graph=backward, allow_unused=True, materialize_grads=True
        )
        return gradients if backward else (*outputs, *gradients)

    def rotated_bytes(self) -> int:
        """Bytes that a call finds written before: inputs, incoming gradients, and what a graph built before holds."""
        gradients = sum(gradient.nbytes for gradient in self._gradients)
        if self._direction != "backward":
            return footprint_bytes(self._arguments) + gradients
        return self._held_bytes() + gradients

    def _held_bytes(self) -> int:
        """Bytes of all that a graph saves, counted on one that is built for this and dropped."""
        saved: list[torch.Tensor] = [value for value in self._arguments.values() if isinstance(value, torch.Tensor)]
        # Held until they are counted, so that no two have the same address.
        with torch.autograd.graph.saved_tensors_hooks(lambda tensor: saved.append(tensor.detach()), lambda none: none):
            self._run(self._shape, **self._arguments)
        return touched_bytes(saved)
