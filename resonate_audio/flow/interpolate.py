"""Between two sounds: the way from one noise to another that stays noise."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def great_circle(
    start: Float[Tensor, "row frame channel"],
    end: Float[Tensor, "row frame channel"],
    share: Float[Tensor, " row"],
) -> Float[Tensor, "row frame channel"]:
    """Go a share of the way from one noise to another along a great circle.

    z = sin((1 − s)·ω)/sin ω · start + sin(s·ω)/sin ω · end,   cos ω = ⟨start, end⟩/(‖start‖‖end‖)
    [Shoemake, SIGGRAPH 1985]

    High-dimensional normals lie near a sphere; the straight line between two of them passes
    through its inside, which a model never met. Nearly parallel ones go straight.

    Args:
        start: noise at share 0, returned there to the bit.
        end: noise at share 1, returned there to the bit.
        share: s of each row, in [0, 1].
    """
    flat, other = start.flatten(1), end.flatten(1)
    lengths = flat.norm(dim=1) * other.norm(dim=1)
    cosine = ((flat * other).sum(dim=1) / lengths.clamp_min(1e-12)).clamp(-1, 1)
    angle = torch.acos(cosine)
    sine = torch.sin(angle)
    is_straight = sine < 1e-4
    safe = torch.where(is_straight, 1.0, sine)
    of_start = torch.where(is_straight, 1 - share, torch.sin((1 - share) * angle) / safe)
    of_end = torch.where(is_straight, share, torch.sin(share * angle) / safe)
    mixed = of_start[:, None, None] * start + of_end[:, None, None] * end
    at = share[:, None, None]
    return torch.where(at == 0, start, torch.where(at == 1, end, mixed))
