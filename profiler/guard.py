"""Notices when a kernel file replaces what it is measured with: clocks, the device's waits, the checker.

What is watched is remembered before the first kernel file is loaded and compared afterwards: the clocks of Python and
of torch, the functions of torch that the checker uses, and every function, class and constant of this package's own
rooms, tables by their content. What was replaced is named and put back. Code in the same process can get round this in
the end: it keeps honest mistakes and the usual tricks out, no determined attacker.
"""

from __future__ import annotations

import sys
import time
from types import FunctionType, ModuleType
from typing import Any

import torch

_PACKAGE = __name__.split(".", maxsplit=1)[0]
# The rooms that measure and judge. Kernel files may do as they like among themselves.
_ROOMS = tuple(f"{_PACKAGE}.{room}." for room in ("profiler", "roofline"))
_PLAIN = (int, float, str, tuple, dict, list, set, frozenset, type, FunctionType)
_OF_CLASS = (FunctionType, staticmethod, classmethod, property, int, float, str, tuple, dict, list)
# Tables, which change without being replaced.
_TABLES = (dict, list, set)
_OF_FUNCTION = ("__code__", "__defaults__", "__kwdefaults__")
_CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "time_ns", "sleep")
_TORCH = ("equal", "where", "zeros_like", "full_like", "rand", "randn", "empty", "Generator", "Tensor")
_TENSOR = ("double", "abs", "isnan", "isfinite", "square", "mean", "sqrt", "max", "item", "clone", "copy_", "to")
_TENSOR += ("__sub__", "__eq__", "__or__", "__mul__", "nan_to_num", "detach", "numel", "data_ptr")
_TENSOR += ("__getitem__", "set_", "stride", "size", "storage_offset", "untyped_storage", "is_floating_point")
_STORAGE = ("clone", "copy_", "data_ptr", "nbytes")
_CUDA = ("synchronize", "Event", "Stream", "CUDAGraph", "graph", "current_stream", "_sleep", "is_available")
_EVENT = ("record", "elapsed_time", "synchronize", "query", "wait")
_GRAPH = ("replay", "capture_begin", "capture_end")


class Guard:
    """Remembers what must not be replaced."""

    def __init__(self) -> None:
        # (id of owner, name) -> owner, name, what it was, whether the owner held it itself, what people call it.
        self._known: dict[tuple[int, str], tuple[Any, str, Any, bool, str]] = {}
        # id of a table -> the table, a copy of what it held, what people call it.
        self._tables: dict[int, tuple[Any, Any, str]] = {}

    def watch(self) -> None:
        """Remember what is not known yet; what is known stays as it was when it was first seen."""
        for owner, names, called in (
            (time, _CLOCKS, "time"),
            (torch, _TORCH, "torch"),
            (torch.Tensor, _TENSOR, "torch.Tensor"),
            (torch.UntypedStorage, _STORAGE, "torch.UntypedStorage"),
            (torch.cuda, _CUDA, "torch.cuda"),
            (torch.cuda.Event, _EVENT, "torch.cuda.Event"),
            (torch.cuda.Stream, ("synchronize", "wait_stream"), "torch.cuda.Stream"),
            (torch.cuda.CUDAGraph, _GRAPH, "torch.cuda.CUDAGraph"),
        ):
            for name in names:
                if hasattr(owner, name):
                    self._remember(owner, name, getattr(owner, name), called)
        for module_name, module in list(sys.modules.items()):
            if module_name.startswith(_ROOMS):
                self._remember_module(module)

    def _remember_module(self, module: ModuleType) -> None:
        for name, value in list(vars(module).items()):
            if name.startswith("__") or not (isinstance(value, _PLAIN) or callable(value)):
                continue
            self._remember(module, name, value, module.__name__)
            self._remember_table(name, value, module.__name__)
            if getattr(value, "__module__", None) != module.__name__:
                continue
            called = f"{module.__name__}.{name}"
            if isinstance(value, FunctionType):
                self._remember_function(value, called)
            elif isinstance(value, type):
                for member, inner in list(vars(value).items()):
                    if isinstance(inner, _OF_CLASS) and not member.endswith("__"):
                        self._remember(value, member, inner, called)
                        self._remember_table(member, inner, called)
                    if isinstance(inner, FunctionType):
                        self._remember_function(inner, f"{called}.{member}")

    def _remember_function(self, function: FunctionType, called: str) -> None:
        for name in _OF_FUNCTION:
            self._remember(function, name, getattr(function, name), called)

    def _remember_table(self, name: str, value: Any, called: str) -> None:
        """Tables in capitals are constants; others may be filled while a run goes on."""
        if isinstance(value, _TABLES) and name.isupper():
            self._tables.setdefault(id(value), (value, _copied(value), f"{called}.{name}"))

    def _remember(self, owner: Any, name: str, value: Any, called: str) -> None:
        held = name in getattr(owner, "__dict__", ()) or isinstance(owner, FunctionType)
        self._known.setdefault((id(owner), name), (owner, name, value, held, f"{called}.{name}"))

    def replaced(self) -> list[str]:
        """Name what is no longer what it was, and put it back; empty where nothing was touched."""
        found = [called for table, before, called in self._tables.values() if table != before]
        for table, before, _ in self._tables.values():
            if table != before:
                _refill(table, before)
        for owner, name, value, held, called in self._known.values():
            now = (
                vars(owner).get(name) if held and isinstance(owner, (ModuleType, type)) else getattr(owner, name, None)
            )
            if now is value:
                continue
            found.append(called)
            if held:
                setattr(owner, name, value)
            else:
                delattr(owner, name)  # it was inherited, and is again
        return found


def _copied(value: Any) -> Any:
    """A copy of nested tables; what is no table is the same in both."""
    if isinstance(value, dict):
        return {name: _copied(inner) for name, inner in value.items()}
    return type(value)(map(_copied, value)) if isinstance(value, (list, set)) else value


def _refill(table: Any, before: Any) -> None:
    """Give a table the content of a copy; whoever holds the table sees it."""
    table.clear()
    (table.extend if isinstance(table, list) else table.update)(_copied(before))


GUARD = Guard()


def in_words(names: list[str]) -> str:
    """Name what was replaced, three at most."""
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more
