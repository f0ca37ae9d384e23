"""The pieces of `scripts/gpu_suite`: what is run on a GPU, in which order, and how long each may take."""

from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass

from seqroof.scripts.environment import SEQROOF

# What stands before the name of roofs of which some are missing, as a launch hung.
PARTIAL = "partial-"
# The roofs that the pieces `ceilings` and `roofs` measure, the better ones first. Profiles are held to them and wait
# until there are some: each would need more than a minute to measure its own.
ROOFS = ("ceilings.json", "roofs.json", f"{PARTIAL}ceilings.json", f"{PARTIAL}roofs.json")
# Longest silence of a case. Our barriers have run on no GPU yet, so a launch that hangs is what is most likely to go
# wrong: it must show within the limit of its piece, or its group is lost and met again by the next call. What is
# sound compiles in seconds, and its reference takes less.
DEADLINE = "25s"
# A test that takes longer hangs; a slow one says itself how long it may take.
TEST_S = 60
# Tests that run beside one another: the compiler of each takes a processor, and their kernels take turns on the GPU.
MOST_TESTERS = 12
# Rows of `lstm` that only appear where a package can be imported, and its name. They are nobody's dependency.
PEERS = {"flashrnn": "flashrnn", "torchrl": "torchrl", "haste": "haste_pytorch"}


@dataclass(frozen=True)
class Piece:
    """One process of the suite. `{out}` in an argument is the folder of the run, `{roofs}` the file of its roofs.

    keeps : a file in that folder for what is printed, which otherwise goes to the log; kept when all went well, and
        roofs of which some are missing with `PARTIAL` before the name.
    needs : Python packages of which at least one must be installed; without any the piece is skipped.
    unless : a file in that folder with which the piece is not needed.
    """

    name: str
    why: str
    limit_s: float
    command: tuple[str, ...]
    keeps: str | None = None
    needs: tuple[str, ...] = ()
    unless: str | None = None


def _seqroof(*words: str) -> tuple[str, ...]:
    return (sys.executable, *SEQROOF, *words)


def _profile(name: str, *words: str, budget_s: int) -> tuple[str, ...]:
    """Profile into the folder `name` of the run, held to the roofs of the run."""
    fixed = ("--device", "cuda:0", "--out", f"{{out}}/{name}", "--roofs", "{roofs}", "--deadline", DEADLINE)
    return _seqroof("profile", *words, *fixed, "--budget", f"{budget_s}s")


# Rows of a recurrence, of an addressed memory, of attention, and of what PyTorch computes in one way.
_RECURRENT = "torch,triton_step,triton_streamed,triton_resident"
_MEMORY = "torch,triton_step,triton_resident"
_ATTENTION = "torch.flash,torch.efficient,torch.cudnn,triton"
_PLAIN = "torch,triton"


def _sizes(name: str, kernel: str, sizes: str, *words: str, rows: str = _RECURRENT, budget_s: int) -> tuple[str, ...]:
    """Profile a kernel at some sizes in bf16 unless `words` say otherwise, by the vendor's rows and ours."""
    words = words or ("--dtype", "bf16")
    return _profile(name, kernel, "--shape", sizes, *words, "--implementation", rows, budget_s=budget_s)


def _pytest(*words: str) -> tuple[str, ...]:
    """Tests, each named when it ends, so that the log of a piece that was cut off tells how far it came."""
    limit = (f"--timeout={TEST_S}", "--timeout-method=thread") if installed("pytest_timeout") else ()
    return (sys.executable, "-P", "-m", "pytest", "-v", *limit, *words)


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
    return _sizes("peers", "lstm", "B=16,T=1024,I=768,H=64|768", *words, rows=rows, budget_s=60)


# Alone on the device: other tests would be in their times, in the power of what is measured and in the counts.
_ALONE = tuple(f"tests/gpu/test_{name}.py" for name in ("clock", "telemetry", "ceilings", "noise", "exploits"))
_COUNTED = ("--dtype", "bf16", "--counters")
_TRAINING = ("--dtype", "bf16", "--direction", "forward,both")
# The most telling first. The ceilings are what all numbers are held to; every profile checks its results itself, so the
# tests, which look for what its checks cannot see, need not precede it. Up to `lstm_sizes` all limits together are
# below half an hour; what takes long and tells less comes after it.
PIECES = (
    Piece(
        "ceilings",
        "what this machine can do at most, at once and under load, one barrier of all multiprocessors included",
        200,
        _seqroof("ceilings", "--device", "cuda:0", "--full", "--json"),
        keeps=ROOFS[0],
    ),
    Piece(
        "roofs",
        "the same in seconds, where that did not come to its end",
        60,
        _seqroof("ceilings", "--device", "cuda:0", "--json"),
        keeps=ROOFS[1],
        unless=ROOFS[0],
    ),
    Piece(
        "lstm_768",
        "an LSTM of 768 units in one launch, forward and with gradients",
        100,
        _sizes(
            "lstm_768",
            "lstm",
            "B=16,T=1024,I=768,H=768",
            *("--dtype", "bf16,fp16", "--direction", "forward,both"),
            budget_s=50,
        ),
    ),
    Piece(
        "clocks",
        "the clocks that everything is timed with, NVML, energy, counters on a known copy, and exploits of clocks",
        180,
        _pytest("-s", *_ALONE),
    ),
    Piece(
        "gru",
        "GRUs of 256 to 1024 units in one launch",
        60,
        _sizes("gru", "gru", "B=16,T=1024,I=512,H=256|512|768|1024", budget_s=33),
    ),
    Piece(
        "wave_512",
        "four layers of 512 units as a wavefront, and one",
        50,
        _sizes("wave_512", "lstm", "B=16,T=1024,I=512,H=512,L=1|4", budget_s=25),
    ),
    Piece(
        "wave_768",
        "two layers of 768 units as a wavefront, and one",
        50,
        _sizes("wave_768", "lstm", "B=16,T=1024,I=768,H=768,L=1|2", budget_s=25),
    ),
    Piece(
        "directions",
        "both directions in one launch, and one",
        60,
        _sizes("directions", "lstm", "B=16,T=1024,I=768,H=768|1024,D=1|2", budget_s=35),
    ),
    Piece(
        "tests",
        "the tests that need a GPU",
        330,
        _pytest("tests/gpu", *(f"--ignore={file}" for file in _ALONE), *_beside_one_another()),
    ),
    Piece(
        "noise",
        "identical code against itself: the smallest change that this GPU resolves",
        90,
        _seqroof("doctor", "--aa", "--device", "cuda:0", "--json"),
        keeps="noise.json",
    ),
    Piece(
        "lstm_step",
        "the LSTM step over batch sizes, by the bytes of its weights",
        80,
        _sizes("lstm_step", "lstm_step", "B=1|8|32|128,I=2048,H=2048|4096", rows="torch,triton", budget_s=50),
    ),
    Piece(
        "attention",
        "attention over 16384 tokens, causal and full, forward and with gradients",
        100,
        _sizes(
            "attention",
            "attention",
            "B=1,N=16,S=16384,P=64|128,causal=0|1",
            *_TRAINING,
            rows=_ATTENTION,
            budget_s=72,
        ),
    ),
    Piece(
        "decode",
        "one query against 8 to 128 thousand keys",
        70,
        _sizes("decode", "attention_decode", "B=8,N=32,G=8,K=8192|32768|131072,P=128", rows=_ATTENTION, budget_s=40),
    ),
    Piece(
        "gated_conv",
        "gated convolutions that memory binds",
        60,
        _sizes("gated_conv", "gated_conv", "B=128,T=16384,C=16,O=16,W=2|4", *_TRAINING, rows=_PLAIN, budget_s=35),
    ),
    Piece(
        "dense_conv",
        "gated convolutions that the product binds",
        60,
        _sizes("dense_conv", "gated_conv", "B=8,T=4096,C=512,O=512,W=4", *_TRAINING, rows=_PLAIN, budget_s=35),
    ),
    Piece(
        "depthwise",
        "short depthwise convolutions, alone",
        60,
        _sizes("depthwise", "separable_conv", "B=8,T=8192,C=2048,W=4,silu=0|1", *_TRAINING, rows=_PLAIN, budget_s=35),
    ),
    Piece(
        "hierarchy",
        "10000 vectors summarised by windows of 100",
        60,
        _sizes(
            "hierarchy",
            "hierarchical_attention",
            "B=32,T=10000,P=64|128",
            rows="torch,triton,triton_tree",
            budget_s=35,
        ),
    ),
    Piece(
        "memory",
        "an addressed memory over 256 steps",
        60,
        _sizes("memory", "memory_attention", "B=132,T=256,M=128,P=64", rows=_MEMORY, budget_s=35),
    ),
    Piece(
        "lstm_sizes",
        "LSTMs over hidden and batch sizes",
        60,
        _sizes("lstm_sizes", "lstm", "B=1|16|64,T=512,I=512,H=256|512|768|1024|1536", budget_s=38),
    ),
    Piece(
        "counters",
        "bytes of an LSTM step as counters see them, beside the modelled ones",
        150,
        _sizes("counters", "lstm_step", "B=1,I=2048,H=2048", *_COUNTED, rows="torch,triton", budget_s=10),
    ),
    Piece(
        "verify",
        "every implementation against its reference",
        160,
        _seqroof("verify", "--device", "cuda:0", "--deadline", DEADLINE),
    ),
    Piece(
        "claims",
        "what the verdicts on the claims rest on, the probes of gradients and reach included",
        300,
        _profile("claims", "--suite", "claims", budget_s=70),
    ),
    Piece("peers", "other people's recurrent kernels", 80, _peers(), needs=tuple(PEERS.values())),
)
