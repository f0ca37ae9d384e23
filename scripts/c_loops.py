"""Plain loops in C, compiled on the spot and run in a process of their own: what the gauges of a CPU are held against.

They share nothing with torch: another compiler, other threads, another process, another clock. Ordinary stores make the
cache read a line before it is overwritten (write-allocate), streaming stores do not; both are offered, because a
bandwidth of named bytes depends on it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from types import TracebackType

# -fno-tree-loop-distribute-patterns keeps the compiler from calling memcpy and memset, which choose stores themselves.
FLAGS = ("-O3", "-march=native", "-fopenmp", "-fno-tree-loop-distribute-patterns")

SOURCE = r"""
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__SSE2__)
#include <emmintrin.h>
#endif

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_RAW, &t);
    return t.tv_sec + 1e-9 * t.tv_nsec;
}

static float *a, *b, *c;
static long n;
static volatile float sink;
static double expected;

static void reads(void) {
    float sum = 0;
#pragma omp parallel for simd reduction(+ : sum) schedule(static)
    for (long i = 0; i < n; i++) sum += a[i];
    sink = sum;
}

static void copies(void) {
#pragma omp parallel for simd schedule(static)
    for (long i = 0; i < n; i++) b[i] = a[i];
}

static void writes(void) {
#pragma omp parallel for simd schedule(static)
    for (long i = 0; i < n; i++) c[i] = 1.7f;
}

static void triads(void) {
#pragma omp parallel for simd schedule(static)
    for (long i = 0; i < n; i++) c[i] = a[i] + 1.3f * b[i];
}

#if defined(__SSE2__)
static void stream(int pattern) {
#pragma omp parallel
    {
        __m128 factor = _mm_set1_ps(1.3f), value = _mm_set1_ps(1.7f);
#pragma omp for schedule(static)
        for (long i = 0; i < n; i += 16)
            for (int k = 0; k < 16; k += 4) {
                if (pattern == 'c') _mm_stream_ps(b + i + k, _mm_load_ps(a + i + k));
                if (pattern == 'w') _mm_stream_ps(c + i + k, value);
                if (pattern == 't') {
                    __m128 scaled = _mm_mul_ps(factor, _mm_load_ps(b + i + k));
                    _mm_stream_ps(c + i + k, _mm_add_ps(_mm_load_ps(a + i + k), scaled));
                }
            }
        _mm_sfence();
    }
}
#endif

static int right(int pattern, long i) {
    if (pattern == 'r') return fabs(sink / expected - 1) < 1e-2;
    if (pattern == 'c') return b[i] == a[i];
    float wanted = pattern == 'w' ? 1.7f : a[i] + 1.3f * b[i];
    float off = c[i] - wanted;
    return off < 1e-3f && off > -1e-3f;
}

int main(int count, char **words) {
    char line[64];
    if (count < 2) return 1;
    n = atol(words[1]) / sizeof(float) / 16 * 16;
    a = aligned_alloc(64, n * sizeof(float));
    b = aligned_alloc(64, n * sizeof(float));
    c = aligned_alloc(64, n * sizeof(float));
    if (!a || !b || !c) return 1;
#pragma omp parallel for schedule(static)
    for (long i = 0; i < n; i++) {
        // Values around zero and rare large ones: a running sum in float stays exact enough, and misses none of them.
        a[i] = 1e-3f * (i % 1000) - 0.4995f + (i % 65537 ? 0.0f : 1e3f);
        b[i] = 1.0f, c[i] = 0.0f;
    }
#pragma omp parallel for reduction(+ : expected) schedule(static)
    for (long i = 0; i < n; i++) expected += a[i];
    while (fgets(line, sizeof line, stdin)) {
        int pattern = line[0], streaming = strchr(line, '!') != NULL;
#if !defined(__SSE2__)
        if (streaming) { puts("-1"); fflush(stdout); continue; }
#endif
        double start = now();
        if (pattern == 'r') reads();
#if defined(__SSE2__)
        else if (streaming) stream(pattern);
#endif
        else if (pattern == 'c') copies();
        else if (pattern == 'w') writes();
        else triads();
        double taken = now() - start;
        if (!right(pattern, 0) || !right(pattern, n / 2) || !right(pattern, n - 1)) taken = 0;
        printf("%.9f\n", taken);
        fflush(stdout);
    }
    return 0;
}
"""


def compiler() -> str | None:
    """The C compiler of this machine, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


class Loops:
    """The compiled loops in a process that keeps three arrays. Use as a context manager.

    array_bytes : of each array. threads : as many as torch uses, so that like is compared with like.
    Raises `RuntimeError` with a sentence where they cannot be compiled.
    """

    def __init__(self, folder: Path, array_bytes: int, threads: int) -> None:
        found = compiler()
        if found is None:
            raise RuntimeError("There is no C compiler (cc, gcc or clang) to compile the loops with; install one.")
        source, program = folder / "loops.c", folder / "loops"
        source.write_text(SOURCE)
        done = subprocess.run(
            [found, *FLAGS, str(source), "-o", str(program)], capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            first = (done.stderr.strip().splitlines() or ["no message"])[0]
            raise RuntimeError(f"{found} cannot compile loops with OpenMP here: {first}")
        # Threads that spin after a loop would take the cores from whatever is timed next.
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "passive"}
        self._process = subprocess.Popen(
            [str(program), str(array_bytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def __enter__(self) -> Loops:
        """Nothing more to do: the process waits for its first command."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def sample(self, pattern: str, streaming: bool = False) -> float | None:
        """Seconds of one loop of a pattern ("read", "copy", "write", "triad"); None where it cannot be had.

        Raises `RuntimeError` when the loop ended or left a wrong result.
        """
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(pattern[0] + ("!" if streaming else "") + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        if not answer or float(answer) == 0:
            raise RuntimeError(f"The C loop {pattern} ended or left a wrong result; make its arrays smaller.")
        return float(answer) if float(answer) > 0 else None
