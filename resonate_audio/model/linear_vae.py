"""The linear mel VAE: probabilistic PCA of mel patches, in closed form.

A VAE whose encoder and decoder are linear has its optimum at probabilistic PCA [Tipping and
Bishop 1999; Lucas et al. 2019, arXiv:1911.02469], so nothing needs gradient descent: one pass over
the data and one eigendecomposition. `nano` uses it, because a small convolutional VAE trained for
minutes on a CPU kept less of the harmonics than this does.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float
from pydantic import PositiveFloat, PositiveInt, model_validator
from torch import Tensor, nn

from resonate_audio.core.config import NetworkConfig
from resonate_audio.core.errors import ShapeError
from resonate_audio.core.room import refuse_too_large
from resonate_audio.model.vae import MelVAE, Posterior, VAEConfig


class LinearVAEConfig(NetworkConfig):
    """Sizes of the linear mel VAE."""

    kind: Literal["linear"] = "linear"
    num_bands: PositiveInt
    latent_channels: PositiveInt
    hops_per_frame: PositiveInt = 4
    """Mel hops of one latent frame; together they are one patch."""
    quiet_range: PositiveFloat | None = None
    """Log-mels further than this below the clip's loudest are lifted to it before encoding, so that
    no latent is spent on what nobody hears; in the mel's own logarithm (9.21 nats are 80 dB)."""

    @model_validator(mode="after")
    def _compresses(self) -> LinearVAEConfig:
        if self.latent_channels >= self.patch_size:
            raise ValueError(
                f"latent_channels {self.latent_channels}: expected fewer than the "
                f"{self.patch_size} values of a patch"
            )
        return self

    @property
    def patch_size(self) -> int:
        """Values of one patch: hops × bands."""
        return self.hops_per_frame * self.num_bands


class LinearVAE(nn.Module):
    """Log-mel to latents of unit variance at a lower frame rate, and back.

    A patch x of ``hops_per_frame`` hops has the model x = μ + W z + ε with z ~ N(0, I),
    ε ~ N(0, σ² I) and W = V (Λ − σ²)^½: V the leading eigenvectors of the patches' covariance, Λ
    their eigenvalues, σ² the mean of the others [Tipping and Bishop 1999, eq. 7–8].
    """

    mean: Tensor
    directions: Tensor
    variances: Tensor
    noise_variance: Tensor
    floor: Tensor
    ceiling: Tensor

    def __init__(self, config: LinearVAEConfig) -> None:
        super().__init__()
        self.config = config
        channels, size = config.latent_channels, config.patch_size
        self.register_buffer("mean", torch.zeros(size))
        directions = torch.zeros(channels, size)
        directions.diagonal().fill_(1)  # eye: without numbers it takes a second to import sympy
        self.register_buffer("directions", directions)
        self.register_buffer("variances", torch.ones(channels))
        self.register_buffer("noise_variance", torch.tensor(0.1))
        self.register_buffer("floor", torch.tensor(-20.0))
        self.register_buffer("ceiling", torch.full((config.num_bands,), 20.0))

    @property
    def hops_per_frame(self) -> int:
        """Mel hops of one latent frame."""
        return self.config.hops_per_frame

    @torch.no_grad()
    def fit(
        self,
        mean: Float[Tensor, " value"],
        covariance: Float[Tensor, "value value"],
        floor: float,
        ceiling: Float[Tensor, " band"],
    ) -> None:
        """Set the maximum-likelihood solution.

        Args:
            mean: of the patches, (hop, band) flattened.
            covariance: of the patches, positive semi-definite.
            floor: the smallest log-mel there is; decoding never goes below it.
            ceiling: the largest log-mel of each band; strong guidance would go above it.
        """
        values, vectors = torch.linalg.eigh(covariance.double())
        kept = self.config.latent_channels
        self.mean.copy_(mean)
        self.directions.copy_(vectors.flip(1)[:, :kept].T)
        self.variances.copy_(values.flip(0)[:kept])
        self.noise_variance.copy_(values[:-kept].mean().clamp_min(1e-8))
        self.floor.fill_(floor)
        self.ceiling.copy_(ceiling)

    def fold_weight_norm(self) -> None:
        """Nothing to fold: here so that every VAE is prepared for inference alike."""

    def encode(self, mel: Float[Tensor, "row band hop"]) -> Posterior:
        """Encode log-mels; hops beyond the last whole frame are dropped.

        p(z|x) = N((Λ − σ²)^½ Λ⁻¹ Vᵀ(x − μ), σ² Λ⁻¹)          [Tipping and Bishop 1999, sec. 3.3]

        Raises:
            ShapeError: fewer hops than one latent frame.
        """
        if mel.shape[-1] < self.hops_per_frame:
            raise ShapeError(
                f"mel of {mel.shape[-1]} hops: a latent frame needs {self.hops_per_frame}"
            )
        centred = self.patches(self.lift(mel)) - self.mean
        mean = (centred @ self.directions.T) * self.gains() / self.variances
        log_variance = (self.noise_variance / self.variances).log().expand_as(mean)
        return Posterior(mean, log_variance)

    def lift(self, mel: Float[Tensor, "row band hop"]) -> Float[Tensor, "row band hop"]:
        """Raise what lies further than ``quiet_range`` below the loudest cell of its row."""
        if self.config.quiet_range is None:
            return mel
        return mel.maximum(mel.amax(dim=(1, 2), keepdim=True) - self.config.quiet_range)

    def decode(self, latents: Float[Tensor, "row frame channel"]) -> Float[Tensor, "row band hop"]:
        """Decode latents to log-mels of frames × hops_per_frame hops: μ + W z.

        Each band stays between the quietest and the loudest value that the data had.
        """
        patches: Tensor = (latents * self.gains()) @ self.directions + self.mean
        hops = patches.reshape(len(patches), -1, self.config.num_bands)
        return hops.transpose(1, 2).clamp(self.floor, self.ceiling[:, None])

    def decode_tiled(
        self, latents: Float[Tensor, "row frame channel"], tile_frames: int
    ) -> Float[Tensor, "row band hop"]:
        """Decode: frames do not see each other, so there is nothing to tile."""
        return self.decode(latents)

    def gains(self) -> Float[Tensor, " channel"]:
        """How far one unit of each latent channel moves the log-mel: (Λ − σ²)^½."""
        return (self.variances - self.noise_variance).clamp_min(1e-12).sqrt()

    def patches(self, mel: Float[Tensor, "row band hop"]) -> Float[Tensor, "row frame value"]:
        """Cut mels into patches, each (hop, band) flattened; a rest of hops is dropped."""
        num_frames = mel.shape[-1] // self.hops_per_frame
        hops: Tensor = mel[..., : num_frames * self.hops_per_frame].transpose(1, 2)
        return hops.reshape(len(mel), num_frames, self.config.patch_size)


AnyVAE = MelVAE | LinearVAE
AnyVAEConfig = VAEConfig | LinearVAEConfig


def build_vae(config: AnyVAEConfig) -> AnyVAE:
    """Make the VAE that a configuration names."""
    kind: Any = LinearVAE if isinstance(config, LinearVAEConfig) else MelVAE
    refuse_too_large(lambda: kind(config), "vae")
    made: AnyVAE = kind(config)
    return made
