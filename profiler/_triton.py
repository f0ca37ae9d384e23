"""Imports Triton for the profiler's own micro-kernels, with stand-ins where it does not install (macOS, Windows).

The kernel room has a module like this of its own: the profiler reaches kernels only by name, as data, and imports
nothing from there.
"""

from __future__ import annotations

from typing import Any

try:
    import triton
    import triton.language as tl

    AVAILABLE = True
except ImportError:
    AVAILABLE = False

    class _StandIn:
        """Answers every attribute with itself and every decorator with the bare function."""

        def __getattr__(self, name: str) -> Any:
            return self

        def __call__(self, *args: Any, **options: Any) -> Any:
            return args[0] if args else self

    triton: Any = _StandIn()
    tl: Any = _StandIn()
