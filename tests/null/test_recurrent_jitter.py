"""The variants of the recurrent kernels that exist for tests: with delays, and without waiting.

What they show needs a GPU; that they differ from the kernels in use exactly by that shows in the compiled program.
"""

from __future__ import annotations

import dataclasses
import platform
from typing import Any

import pytest

from seqroof.kernels import _triton, gru, lstm
from seqroof.kernels._recurrent_backward import BACKWARD
from seqroof.kernels._recurrent_forward import FORWARD
from seqroof.profiler.compiled import WARP_THREADS, _source
from seqroof.roofline.contract import CompileCase

pytestmark = pytest.mark.skipif(
    not _triton.AVAILABLE or platform.machine() != "x86_64", reason="compiling for a GPU needs triton and its assembler"
)


def resident(kernel: Any, function: Any) -> CompileCase:
    """A configuration of one kernel that keeps its weights, for one tile of sequences."""
    return next(
        case
        for case in kernel.COMPILE
        if case.representative and case.kernel is function.program(True) and case.constexprs["KEEP"]
        and not case.constexprs["MULTI"] and " bf16 " in case.label
    )  # fmt: skip


def program(case: CompileCase, jitter: bool, skip_wait: bool) -> str:
    """The compiled program of a case for sm_90, as PTX."""
    values = {**case.constexprs, "JITTER": jitter, "SKIP_WAIT": skip_wait}
    target = _triton.triton.backends.compiler.GPUTarget("cuda", 90, WARP_THREADS)
    source = _source(dataclasses.replace(case, constexprs=values))
    return _triton.triton.compile(source, target=target, options=dict(case.options)).asm["ptx"]


@pytest.mark.parametrize(("kernel", "function"), [(lstm, FORWARD), (gru, BACKWARD)], ids=["forward", "backward"])
def test_a_kernel_waits_and_never_sleeps_unless_a_test_asks(kernel: Any, function: Any) -> None:
    case = resident(kernel, function)
    used, delayed, mutant = (program(case, *flags) for flags in ((False, False), (True, False), (True, True)))
    # After the wait, and before what is published.
    assert [text.count("nanosleep") for text in (used, delayed, mutant)] == [0, 2, 2]
    assert ["ld.acquire" in text for text in (used, delayed, mutant)] == [True, True, False]
    assert all("red.global.gpu.release.add" in text for text in (used, delayed, mutant))
