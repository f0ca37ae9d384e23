"""How a kernel is watched: workers, clocks, ceilings, the checker and the journal. Knows kernels only as data.

`from seqroof.profiler import measure` times a callable from Python; it is imported on demand, because the parent of a
run must not import torch.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "measure":
        from .door import measure

        return measure
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
