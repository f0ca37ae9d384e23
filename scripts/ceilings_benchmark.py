"""Holds the gauges of a CPU against independent programs: C loops for bandwidths, NumPy's BLAS for products.

    python -m seqroof.scripts.ceilings_benchmark [--array-mib 1024] [--rounds 10]

Both sides are timed in turn, and the best of the rounds counts. Printed are both figures and their ratio; the target is
10 %, and beyond 25 % the exit code is 1. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from seqroof.profiler.host import available_memory_bytes
from seqroof.roofline.units import binary_bytes, si

from .c_loops import Loops

TARGET, FAILURE = 0.10, 0.25
# Three arrays on either side, so six in all; half of the memory stays free.
MEMORY_SHARE = 1 / 12
# Threads of the other side that spin when their work is done have gone to sleep by then.
PAUSE_S = 0.05
# The product of matrices of this size takes a core tens of milliseconds.
PRODUCT_SIZE = 2048

_BLAS = """
import sys, time
import numpy
numpy.random.seed(0)
a, b = (numpy.random.rand(SIZE, SIZE).astype(numpy.float32) for _ in range(2))
out = numpy.empty_like(a)
for line in sys.stdin:
    start = time.perf_counter()
    numpy.dot(a, b, out=out)
    print(time.perf_counter() - start, flush=True)
"""


@dataclass(frozen=True)
class Row:
    """One limit by our gauge and by another program, both in `unit`. other : which one it is, in words."""

    name: str
    unit: str
    ours: float
    theirs: float
    other: str

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs

    @property
    def verdict(self) -> str:
        """`ok` within the target, `wide` up to the failure, else `FAILED`. The larger over the smaller counts."""
        apart = max(self.ratio, 1 / self.ratio) - 1
        return "ok" if apart <= TARGET else "wide" if apart <= FAILURE else "FAILED"

    @property
    def text(self) -> str:
        """The row as it is printed."""
        values = f"{si(self.ours, self.unit):>14} {si(self.theirs, self.unit):>14} {self.ratio:6.2f}"
        return f"{self.name:<14} {values}  {self.verdict:<6}  {self.other}"


HEADING = f"{'limit':<14} {'gauge':>14} {'other':>14} {'ratio':>6}  verdict, other program"


def best_rates(samples: Mapping[str, Callable[[], float | None]], rounds: int, pause_s: float) -> dict[str, float]:
    """The shortest time of each sample over interleaved rounds; what gives None is left out. One round warms up."""
    best: dict[str, float] = {}
    for number in range(rounds + 1):
        for name, sample in samples.items():
            time.sleep(pause_s)
            time_s = sample()
            if time_s is not None and number:
                best[name] = min(time_s, best.get(name, time_s))
    return best


def bandwidths(array_bytes: int, rounds: int, pause_s: float = PAUSE_S) -> list[Row]:
    """Read, copy, write and triad by the gauges and by C; raises `RuntimeError` without a compiler.

    Of the two kinds of stores, the one that is nearer to what torch does is compared, and named.
    """
    import torch

    from seqroof.profiler.ceilings_cpu_gauges import Sizes, streams
    from seqroof.profiler.gauge import RECHECK

    sizes = Sizes.here(RECHECK)
    rows = []
    with (
        tempfile.TemporaryDirectory() as folder,
        Loops(Path(folder), array_bytes, sizes.threads) as loops,
        torch.inference_mode(),
    ):
        gauges = streams("dram", array_bytes, array_bytes, sizes)
        for pattern in ("read", "copy", "write", "triad"):
            own = [gauge for gauge in gauges if gauge.pattern == pattern]
            samples: dict[str, Callable[[], float | None]] = {str(i): gauge.sample for i, gauge in enumerate(own)}
            for kind in ("ordinary",) if pattern == "read" else ("ordinary", "streaming"):
                samples[kind] = partial(loops.sample, pattern, kind == "streaming")
            rows.append(_row(pattern, own[0].amount, best_rates(samples, rounds, pause_s)))
    return rows


def _row(pattern: str, amount: float, best: dict[str, float]) -> Row:
    ours = amount / min(time_s for name, time_s in best.items() if name.isdigit())
    kinds = {kind: amount / best[kind] for kind in ("ordinary", "streaming") if kind in best}
    kind = min(kinds, key=lambda kind: max(kinds[kind] / ours, ours / kinds[kind]))
    stores = {"ordinary": "C, ordinary stores (write-allocate)", "streaming": "C, streaming stores"}[kind]
    rest = ", ".join(f"{other} {si(value, 'B/s')}" for other, value in kinds.items() if other != kind)
    other = "C loop" if pattern == "read" else stores + (f"; {rest}" if rest else "")
    return Row(pattern, "B/s", ours, kinds[kind], other)


@contextlib.contextmanager
def _blas(size: int) -> Iterator[Callable[[], float]]:
    """Products by NumPy in a process of its own; each call gives the seconds of one."""
    command = [sys.executable, "-c", _BLAS.replace("SIZE", str(size))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdin is not None and child.stdout is not None
        stdin, stdout = child.stdin, child.stdout

        def sample() -> float:
            stdin.write("\n")
            stdin.flush()
            return float(stdout.readline())

        try:
            yield sample
        finally:
            child.kill()


def product(size: int, rounds: int, pause_s: float = PAUSE_S) -> Row:
    """The float32 product by the gauge's operations and by NumPy's BLAS."""
    import torch

    from seqroof.profiler.ceilings_cpu_gauges import Sizes, square_products
    from seqroof.profiler.gauge import RECHECK

    with torch.inference_mode(), _blas(size) as theirs:
        gauges = square_products("fp32", size, Sizes.here(RECHECK))
        best = best_rates({str(i): g.sample for i, g in enumerate(gauges)} | {"blas": theirs}, rounds, pause_s)
    ours = min(time_s for name, time_s in best.items() if name != "blas")
    return Row(
        "product fp32", "FLOP/s", 2 * size**3 / ours, 2 * size**3 / best["blas"], f"NumPy's BLAS, {size} x {size}"
    )


def main() -> int:
    """Print all rows; 1 when one is more than 25 % apart, 2 where nothing can be compared."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--array-mib", type=int, default=1024, help="size of each array")
    parser.add_argument("--rounds", type=int, default=10, help="the best of so many")
    asked = parser.parse_args()
    array_bytes = min(asked.array_mib * 2**20, int(available_memory_bytes() * MEMORY_SHARE)) // 4096 * 4096
    print(f"arrays of {binary_bytes(array_bytes)}, best of {asked.rounds} interleaved rounds, measured\n{HEADING}")
    try:
        rows = [*bandwidths(array_bytes, asked.rounds), product(PRODUCT_SIZE, asked.rounds)]
    except RuntimeError as error:
        print(f"seqroof: {error}", file=sys.stderr)
        return 2
    print("\n".join(row.text for row in rows))
    return 1 if any(row.verdict == "FAILED" for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
