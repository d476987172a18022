"""Noise that depends on a row's own seed and on nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import InputError

MAX_SEED = 2**63 - 1


def noise_stream(
    seeds: Sequence[int], num_frames: int, num_channels: int
) -> Callable[[], Float[Tensor, "row frame channel"]]:
    """Draws of standard-normal latents, others at every call, each row from its own seed.

    The first draw is that of `seeded_noise`.

    Raises:
        InputError: a seed is negative or does not fit in 63 bits.
    """
    for seed in seeds:
        if not 0 <= seed <= MAX_SEED:
            raise InputError(f"seed {seed}: expected a whole number from 0 to {MAX_SEED}")
    generators = [torch.Generator("cpu").manual_seed(seed) for seed in seeds]
    return lambda: torch.stack(
        [torch.randn(num_frames, num_channels, generator=generator) for generator in generators]
    )


def seeded_noise(
    seeds: Sequence[int], num_frames: int, num_channels: int
) -> Float[Tensor, "row frame channel"]:
    """Draw standard-normal latents, each row from its own seed, on the CPU in float32.

    The seed contract: the same seed gives the same noise in any batch, at any position and on
    any device, because each row has a generator of its own and generators differ by device.

    Raises:
        InputError: a seed is negative or does not fit in 63 bits.
    """
    return noise_stream(seeds, num_frames, num_channels)()
