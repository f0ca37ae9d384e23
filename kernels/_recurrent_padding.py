"""Hidden units filled up to a multiple of 16, where programs for odd sizes would not fit into the registers.

Units beyond H have neither weights nor a bias nor a state, so that every cell leaves them at zero, and no other unit
and no gradient sees them. Letters as in `_recurrent`.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from ._recurrent import Cell, Shape
from ._recurrent_tiles import COLUMNS, is_aligned

# Beyond this many columns a program whose rows begin anywhere spills on sm_100 (64 bytes of stack in rnn's forward).
MOST_UNALIGNED = COLUMNS[-2]


def filled_up(H: int) -> int:
    """Hidden units of the kernels for H units that keep their weights on chip: H, or the next multiple of 16."""
    return H if is_aligned(H) or H <= MOST_UNALIGNED else -(-H // 16) * 16


def fill_up(cell: Cell, shape: Shape, units: int, given: list[Tensor | None]) -> list[Tensor | None]:
    """weight_ih, weight_ih_upper, weight_hh, bias, h_0 and c_0 for `units` instead of H units, differentiably."""
    # Axes that count units, and how many times; axes are counted from the front.
    axes = (
        {1: cell.gates},
        {2: cell.gates, 3: shape.D},
        {2: cell.gates, 3: 1},
        {2: cell.biases},
        {2: 1},
        {2: 1},
    )
    return [_filled(tensor, blocks, units - shape.H) for tensor, blocks in zip(given, axes, strict=True)]


def _filled(tensor: Tensor | None, blocks: dict[int, int], more: int) -> Tensor | None:
    for axis, count in blocks.items() if tensor is not None else ():
        assert tensor is not None
        behind = tensor.dim() - 1 - axis
        tensor = F.pad(tensor.unflatten(axis, (count, -1)), (0, 0) * behind + (0, more)).flatten(axis, axis + 1)
    return tensor


def cut_back(shape: Shape, y: Tensor, *states: Tensor) -> tuple[Tensor, ...]:
    """Outputs (T, B, D units) and states (L D, B, units) for the first H units of each direction."""
    return y.unflatten(2, (shape.D, -1))[..., : shape.H].flatten(2), *(state[..., : shape.H] for state in states)
