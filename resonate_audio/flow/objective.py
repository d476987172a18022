"""Conditional flow matching: regress the velocity of straight paths."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.path import Velocity, noised, velocity_target


@dataclass(frozen=True)
class FlowLoss:
    """The loss of a batch and of each of its rows."""

    mean: Float[Tensor, ""]
    """Mean over rows, so a short clip weighs as much as a long one; has the gradient."""
    rows: Float[Tensor, " row"]


def cfm_loss(
    velocity: Velocity,
    data: Float[Tensor, "row frame channel"],
    noise: Float[Tensor, "row frame channel"],
    t: Float[Tensor, " row"],
    frame_mask: Bool[Tensor, "row frame"] | None = None,
) -> FlowLoss:
    """Squared error of the velocity on the straight path from data to noise.

    E ‖v(z_t, t) − (noise − data)‖²          [arXiv:2210.02747, eq. 23]

    Args:
        velocity: the model, conditions bound.
        data: normalised latents.
        noise: standard normal.
        t: noise levels, 1 = noise.
        frame_mask: true where a frame is sound and false where it is padding; None is all true.

    Returns:
        Loss per row (the mean over its unmasked frames and all channels) and their mean.
    """
    predicted = velocity(noised(data, noise, t), t)
    rows = row_errors(predicted, velocity_target(data, noise), frame_mask)
    return FlowLoss(rows.mean(), rows)


def row_errors(
    predicted: Float[Tensor, "row frame channel"],
    target: Float[Tensor, "row frame channel"],
    frame_mask: Bool[Tensor, "row frame"] | None = None,
) -> Float[Tensor, " row"]:
    """Mean squared error of each row over its unmasked frames; a row of padding gives 0."""
    squares = (predicted.float() - target.float()).square().mean(dim=2)
    if frame_mask is None:
        return squares.mean(dim=1)
    kept = torch.where(frame_mask, squares, 0.0)
    return kept.sum(dim=1) / frame_mask.sum(dim=1).clamp(min=1)


def valid_frames(num_samples: Int[Tensor, " row"], frame_samples: int) -> Int[Tensor, " row"]:
    """Latent frames that hold any of a clip's samples: ⌈samples / samples per frame⌉."""
    return (num_samples + frame_samples - 1) // frame_samples


def make_frame_mask(num_valid: Int[Tensor, " row"], num_frames: int) -> Bool[Tensor, "row frame"]:
    """True for the first ``num_valid`` frames of each row."""
    return torch.arange(num_frames, device=num_valid.device) < num_valid[:, None]


def drop_conditions(
    features: TextFeatures, empty: TextFeatures, drop_mask: Bool[Tensor, " row"]
) -> TextFeatures:
    """Replace the whole prompt (tokens and pooled together) of the rows in ``drop_mask``.

    Trains the unconditional branch of classifier-free guidance [arXiv:2207.12598, alg. 1].
    """
    return TextFeatures(
        torch.where(drop_mask[:, None, None], empty.tokens, features.tokens),
        torch.where(drop_mask[:, None], empty.pooled, features.pooled),
    )
