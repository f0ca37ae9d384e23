"""How many bytes a call keeps alive beside its inputs: outputs and intermediate results."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class _Alive(TorchDispatchMode):
    """Follows every tensor that an operation returns until it dies; `peak` is the most bytes alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._bytes = 0
        self._held: dict[int, list[int]] = {}  # address -> bytes, and tensors that share them

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        known = {_address(value) for value in tree_leaves((args, kwargs)) if isinstance(value, torch.Tensor)}
        result = func(*args, **(kwargs or {}))
        for value in tree_leaves(result):
            # What shares memory with an argument that was not made here is an input of the call.
            if isinstance(value, torch.Tensor) and (_address(value) in self._held or _address(value) not in known):
                self._hold(value)
        return result

    def _hold(self, tensor: torch.Tensor) -> None:
        address = _address(tensor)
        held = self._held.setdefault(address, [tensor.untyped_storage().nbytes(), 0])
        if held[1] == 0:
            self._bytes += held[0]
            self.peak = max(self.peak, self._bytes)
        held[1] += 1
        weakref.finalize(tensor, self._let_go, address)

    def _let_go(self, address: int) -> None:
        held = self._held[address]
        held[1] -= 1
        if held[1] == 0:
            self._bytes -= held[0]
            del self._held[address]


def _address(tensor: torch.Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


def made_bytes(call: Callable[[], object]) -> int:
    """The most bytes that operations of one call have made and not freed yet; their own scratch memory is not seen."""
    with _Alive() as alive:
        result = call()
    del result
    return alive.peak
