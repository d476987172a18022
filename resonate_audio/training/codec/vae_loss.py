"""What the mel VAE is trained to do: give back the mel, from latents close to a normal."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class VAELoss:
    """The objective and its parts, all means over elements of the normalised mel or latents."""

    total: Float[Tensor, ""]
    reconstruction: Float[Tensor, ""]
    detail: Float[Tensor, ""]
    kl: Float[Tensor, ""]


def vae_loss(
    predicted: Float[Tensor, "row band hop"],
    target: Float[Tensor, "row band hop"],
    mean: Float[Tensor, "row frame channel"],
    std: Float[Tensor, "row frame channel"],
    kl_weight: float,
    detail_weight: float = 0.5,
) -> VAELoss:
    """Reconstruct the mel while the posterior stays near a standard normal.

    L = |x̂ − x|₁ + w_d (|∂_band(x̂ − x)|₁ + |∂_hop(x̂ − x)|₁) + w_kl · ½(μ² + σ² − 1 − log σ²)

    The difference terms weigh edges in time and frequency, which a plain L1 blurs. The last
    term is the evidence bound's KL divergence [arXiv:1312.6114, app. B], a mean instead of a
    sum so that the weight does not change with the sizes.

    Args:
        predicted: mel from the decoder, normalised per band.
        target: mel of the recording, normalised per band.
        mean: posterior means.
        std: posterior standard deviations, positive.
        kl_weight: w_kl, at least 0.
        detail_weight: w_d, at least 0.

    Returns:
        The weighted total and its unweighted parts.
    """
    error = predicted - target
    reconstruction = error.abs().mean()
    detail = error.diff(dim=1).abs().mean() + error.diff(dim=2).abs().mean()
    kl = 0.5 * (mean.square() + std.square() - 1 - 2 * torch.log(std)).mean()
    total = reconstruction + detail_weight * detail + kl_weight * kl
    return VAELoss(total, reconstruction, detail, kl)
