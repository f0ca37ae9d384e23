"""The pieces of `scripts/gpu_suite`: what is run on a GPU, in which order, and how long each may take."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

from seqroof.scripts.environment import SEQROOF

# The roofs that the piece `ceilings` measures; the profiles after it are held to them and measure none themselves.
ROOFS = "ceilings.json"
# Tests that run beside one another: the compiler of each takes a processor, and their kernels take turns on the GPU.
MOST_TESTERS = 12
# Rows of `lstm` that only appear where a package can be imported, and its name. They are nobody's dependency.
PEERS = {"flashrnn": "flashrnn", "torchrl": "torchrl", "haste": "haste_pytorch"}


@dataclass(frozen=True)
class Piece:
    """One process of the suite. `{out}` in an argument is the folder of the run.

    keeps : a file in that folder for what is printed, which otherwise goes to the log; kept when all went well.
    needs : Python packages of which at least one must be installed; without any the piece is skipped.
    """

    name: str
    why: str
    limit_s: float
    command: tuple[str, ...]
    keeps: str | None = None
    needs: tuple[str, ...] = ()


def _seqroof(*words: str) -> tuple[str, ...]:
    return (sys.executable, *SEQROOF, *words)


def _profile(name: str, *words: str, budget_s: int) -> tuple[str, ...]:
    """Profile into the folder `name` of the run, held to the roofs of the run."""
    fixed = ("--device", "cuda:0", "--out", f"{{out}}/{name}", "--roofs", f"{{out}}/{ROOFS}")
    return _seqroof("profile", *words, *fixed, "--budget", f"{budget_s}s")


def _recurrent(name: str, kernel: str, sizes: str, *words: str, rows: str = "", budget_s: int) -> tuple[str, ...]:
    """Profile a recurrent kernel at some sizes in bf16 unless `words` say otherwise, by the vendor's rows and ours."""
    words = words or ("--dtype", "bf16")
    rows = rows or "torch,triton_step,triton_resident"
    return _profile(name, kernel, "--shape", sizes, *words, "--implementation", rows, budget_s=budget_s)


def _pytest(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-P", "-m", "pytest", *words)


def _beside_one_another() -> tuple[str, ...]:
    """Options that run several tests at once, where pytest-xdist is installed."""
    if not installed("xdist"):
        return ()
    return ("-n", str(max(1, min(MOST_TESTERS, (os.cpu_count() or 1) - 2))), "--dist", "worksteal")


def installed(package: str) -> bool:
    """Whether a package can be imported; it is only looked for."""
    return importlib.util.find_spec(package) is not None


def _peers() -> tuple[str, ...]:
    rows = ",".join(["torch", "triton_resident", *(row for row, package in PEERS.items() if installed(package))])
    words = ("--dtype", "bf16,fp32", "--direction", "forward,both")
    return _recurrent("peers", "lstm", "B=16,T=1024,I=768,H=64|768", *words, rows=rows, budget_s=80)


_CLOCKS = "tests/gpu/test_clock.py"  # alone on the device: other tests would be in its times
# In order of worth: what is wrong makes every number after it worthless, and the ceilings are what numbers are held to.
# All limits together are below half an hour, those of the recurrent family below twelve minutes.
PIECES = (
    Piece("clocks", "the clocks that everything is timed with", 40, _pytest(_CLOCKS)),
    Piece(
        "tests",
        "the tests that need a GPU",
        260,
        _pytest("tests/gpu", f"--ignore={_CLOCKS}", *_beside_one_another()),
    ),
    Piece("verify", "every implementation against its reference", 180, _seqroof("verify", "--device", "cuda:0")),
    Piece(
        "ceilings",
        "what this machine can do at most, one barrier of all multiprocessors included",
        120,
        _seqroof("ceilings", "--device", "cuda:0", "--full", "--json"),
        keeps=ROOFS,
    ),
    Piece(
        "lstm_768",
        "an LSTM of 768 units in one launch, forward and with gradients",
        110,
        _recurrent(
            "lstm_768",
            "lstm",
            "B=16,T=1024,I=768,H=768",
            *("--dtype", "bf16,fp16", "--direction", "forward,both"),
            budget_s=70,
        ),
    ),
    Piece(
        "gru",
        "GRUs of 256 to 1024 units in one launch",
        110,
        _recurrent("gru", "gru", "B=16,T=1024,I=512,H=256|512|768|1024", budget_s=70),
    ),
    Piece(
        "wave_512",
        "four layers of 512 units as a wavefront, and one",
        80,
        _recurrent("wave_512", "lstm", "B=16,T=1024,I=512,H=512,L=1|4", budget_s=40),
    ),
    Piece(
        "wave_768",
        "two layers of 768 units as a wavefront, and one",
        80,
        _recurrent("wave_768", "lstm", "B=16,T=1024,I=768,H=768,L=1|2", budget_s=40),
    ),
    Piece(
        "directions",
        "both directions in one launch, and one",
        90,
        _recurrent("directions", "lstm", "B=16,T=1024,I=768,H=768|1024,D=1|2", budget_s=50),
    ),
    Piece(
        "lstm_sizes",
        "LSTMs over hidden and batch sizes",
        140,
        _recurrent("lstm_sizes", "lstm", "B=1|16|64,T=512,I=512,H=256|512|768|1024|1536", budget_s=100),
    ),
    *(
        Piece(kernel, why, 170, _profile(kernel, kernel, "--suite", "standard", budget_s=110))
        for kernel, why in (
            ("lstm_step", "the LSTM step over batch sizes"),
            ("attention", "attention over lengths"),
            ("gated_conv", "the gated convolution over lengths"),
        )
    ),
    Piece("quick", "all kernels, as a first run shows them", 75, _profile("quick", "--suite", "quick", budget_s=42)),
    Piece("peers", "other people's recurrent kernels", 120, _peers(), needs=tuple(PEERS.values())),
)
