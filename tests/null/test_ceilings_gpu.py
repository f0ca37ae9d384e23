"""How the roofs of a GPU are measured, on a machine without one: parts, what they say, memory that is short."""

import contextlib

import pytest

from seqroof.profiler import gauge
from seqroof.profiler._triton import AVAILABLE

torch = pytest.importorskip("torch")

from seqroof.profiler import ceilings_cuda, cuda_events  # noqa: E402  (needs torch)

needs_triton = pytest.mark.skipif(not AVAILABLE, reason="triton is not installed here")

# Enough memory for streams that exceed the last cache, and too little for any product.
SMALL = cuda_events.Facts("cpu", sms=9, cache=2**17, shared_per_sm=2**16, free=2**22, tensor_dtypes=("bf16",))
TWO_ROUNDS = gauge.Effort(rounds=2, round_s=0.0, most_bytes=2**20)


@pytest.fixture
def pretended(monkeypatch):
    """A GPU whose memory is the host's. It has no clock, so every gauge is left out at its first sample."""
    monkeypatch.setattr(ceilings_cuda, "fresh_facts", lambda device: SMALL)
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())


@needs_triton
def test_no_round_of_a_gpu_is_told_in_the_words_of_an_earlier_one(pretended):
    """The parent takes a worker that says nothing new for hung, and one request measures all parts."""
    said: list[str] = []
    for part in ceilings_cuda.PARTS:
        part("cpu", TWO_ROUNDS, said.append)
    rounds = [text for text in said if ", round " in text]
    # The last cache, all that is no chain, chains, barriers.
    assert len(rounds) == 4 * TWO_ROUNDS.rounds and len(set(rounds)) == len(rounds)
