"""What the costs of all kernels have in common: directions, and the traffic of named tensors."""

from __future__ import annotations

from collections.abc import Mapping

from ..roofline.work import Term, terms

# For each direction the names of the tensors that any implementation must read, and of those it must write.
Traffic = Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]]


def operations(direction: str, forward: tuple[Term, ...], backward: tuple[Term, ...]) -> tuple[Term, ...]:
    """Choose the operations of a direction; `both` is one training step. Raises ValueError for another direction."""
    choices = {"forward": forward, "backward": backward, "both": (*forward, *backward)}
    if direction not in choices:
        raise ValueError(f"direction must be one of {', '.join(choices)}, not {direction!r}")
    return choices[direction]


def traffic(
    tensors: Traffic, sizes: Mapping[str, int], direction: str, saved: str, written: str, read_again: str
) -> tuple[Term, ...]:
    """Count the bytes of a direction, with every tensor of `sizes` (name -> bytes) read or written once.

    saved : the tensor that a forward pass leaves for the backward pass. In `both` it counts in the streamed bytes
        only, for an implementation may recompute it; `written` and `read_again` are the reasons given there.
    """
    reads, writes = tensors[direction]
    lines = (
        *terms("read_bytes", *((name, sizes[name], "read once") for name in reads)),
        *terms("write_bytes", *((name, sizes[name], "written once") for name in writes)),
    )
    if direction != "both":
        return lines
    halves = {half: sum(sizes[name] for names in tensors[half] for name in names) for half in ("forward", "backward")}
    return lines + terms(
        "streamed_bytes",
        ("forward", halves["forward"], "the forward pass reads and writes its tensors once"),
        (saved, sizes[saved], written),
        ("backward", halves["backward"], read_again),
    )
