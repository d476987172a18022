"""Running a local network over a long mel in tiles, with the result of one pass."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import InputError


def run_tiled(
    network: Callable[[Tensor], Tensor],
    x: Float[Tensor, "row channel position"],
    tile: int,
    halo: int,
    outputs_per_position: int,
) -> Float[Tensor, "row *channel output"]:
    """Apply ``network`` to tiles of the last axis and join what belongs to each.

    A tile is given ``halo`` more positions on either side (fewer at the true ends, where the
    network must pad as it would over the whole). If no output depends on positions further away
    than that, the result is that of one pass, and memory is bounded by the tile.

    Args:
        network: maps n positions to n · outputs_per_position outputs on the last axis.
        x: input.
        tile: positions a tile contributes.
        halo: reach of the network in positions.
        outputs_per_position: outputs on the last axis for one position.

    Raises:
        InputError: ``tile`` is below 1.
    """
    if tile < 1:
        raise InputError(f"tile of {tile} positions: expected at least 1")
    length = x.shape[-1]
    if length <= tile + 2 * halo:
        return network(x)
    parts = []
    for start in range(0, length, tile):
        stop, first = min(start + tile, length), max(0, start - halo)
        outputs = network(x[..., first : min(stop + halo, length)])
        wanted = slice(
            (start - first) * outputs_per_position, (stop - first) * outputs_per_position
        )
        parts.append(outputs[..., wanted])
    return torch.cat(parts, dim=-1)
