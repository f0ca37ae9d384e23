"""How a kernel is watched: workers, clocks, ceilings, the checker and the journal. Knows kernels only as data."""

from typing import Any

__all__ = ["measure"]


def __getattr__(name: str) -> Any:
    """Import `measure` when it is asked for: the parent of a run must not import torch."""
    if name == "measure":
        from .door import measure

        return measure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
