"""How outputs are taken for a check: on memory filled with NaN, and as they are when the call returns."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from .settings import choose_determinism

# The mode of torch that fills fresh tensors: deterministic algorithms, where there are some, and a warning where not.
_FILLING = 1


@contextlib.contextmanager
def poisoned_memory() -> Iterator[None]:
    """Fill fresh tensors with NaN, so that an output that is never written shows.

    What is chosen of deterministic algorithms meanwhile stays, to be found among the settings that were changed.
    """
    switches: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), switches.fill_uninitialized_memory
    choose_determinism(_FILLING)
    switches.fill_uninitialized_memory = True
    try:
        yield
    finally:
        if torch.get_deterministic_debug_mode() == _FILLING:
            choose_determinism(before[0])
        switches.fill_uninitialized_memory = before[1]


def memory_for(name: str) -> Any:
    """The memory that an implementation is checked on: poisoned, but for torch.compile.

    It would compile once with and once without the poison, and allocates past it anyway.
    """
    return contextlib.nullcontext() if name == "compile" else poisoned_memory()


def at_once(outputs: Any) -> Any:
    """Copy the outputs as they are when the call has returned: what is finished later does not count.

    What is no plain tensor is left as it is, for the checker to refuse.
    """
    if not isinstance(outputs, (tuple, list)):
        return outputs
    plain = [type(output) is torch.Tensor and output.device.type != "meta" for output in outputs]
    return tuple(output.detach().clone() if whole else output for output, whole in zip(outputs, plain))
