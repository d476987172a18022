"""Prompts that change over time: each part of a sound follows its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor

from resonate_audio.flow.path import Velocity
from resonate_audio.flow.windows import VelocityAt


def part_shares(
    boundaries: Sequence[float], num_frames: int, fade_frames: float
) -> Float[Tensor, "part frame"]:
    """How much each part counts at each frame; a frame's shares sum to 1.

    Part p lies between boundary p − 1 and p. Around a boundary b the shares pass linearly from one
    part to the next within b ± fade/2.

    Args:
        boundaries: between neighbouring parts, rising, in frames.
        num_frames: frames in all.
        fade_frames: length of a passage, in frames, above 0.
    """
    centres = torch.arange(num_frames) + 0.5
    # How far each part has begun: the first has from the beginning on, none follows the last.
    begun = [torch.ones(num_frames)]
    begun += [((centres - b) / fade_frames + 0.5).clamp(0, 1) for b in boundaries]
    begun.append(torch.zeros(num_frames))
    begun_by_part = torch.stack(begun)
    return begun_by_part[:-1] - begun_by_part[1:]


def scheduled(velocities: Sequence[Velocity], shares: Float[Tensor, "part frame"]) -> VelocityAt:
    """Velocity that follows another prompt at another time.

    v(z, t)_f = Σ_p share_p(f)·v_p(z, t)_f          [regions of MultiDiffusion, arXiv:2302.08113]

    Every part's velocity sees the whole window, so it knows what comes before and after; parts
    that do not reach into a window are not computed there.

    Args:
        velocities: one a part, conditions bound.
        shares: of each part at each frame of the whole, summing to 1 over parts.
    """

    def velocity(
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        frames: Int[Tensor, " frame"],
    ) -> Float[Tensor, "row frame channel"]:
        here = shares[:, frames]
        present = here.any(dim=1).nonzero().flatten().tolist()
        parts = [here[p].to(z)[:, None] * velocities[p](z, t) for p in present]
        return torch.stack(parts).sum(dim=0) if len(parts) > 1 else velocities[present[0]](z, t)

    return velocity
