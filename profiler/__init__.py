"""How a kernel is watched: workers, clocks, ceilings, the checker and the journal. Knows kernels only as data.

`from seqroof.profiler import measure, compare` time callables from Python; they are imported on demand, because the
parent of a run must not import torch.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    if name == "measure":
        from .door import measure

        return measure
    if name == "compare":
        from .versus import compare

        return compare
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
