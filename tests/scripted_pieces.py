"""Pieces of the GPU suite that need no GPU, and the facts of a run of them."""

import sys
from dataclasses import replace

from seqroof.scripts.gpu_pieces import Piece
from seqroof.scripts.gpu_record import Facts

FACTS = Facts(commit="abc", machine="gpu", gpu="uuid", date="2026-01-01")
CHANGED = replace(FACTS, commit="abc-changed")
FOREVER = float("inf")


def python(name: str, source: str, limit_s: float = 60) -> Piece:
    return Piece(name, "a test", limit_s, (sys.executable, "-c", source))
