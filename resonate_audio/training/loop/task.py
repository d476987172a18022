"""What a trainer brings to the loop: its modules and a loss, a function of weights and a `Draw`.

Everything random in a step comes from the draw, and the draw comes from (seed, step), so a run that
was killed and resumed does exactly what it would have done.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.errors import ConfigError
from resonate_audio.training.loop.distributed import ALONE, Ranks

Losses = dict[str, Float[Tensor, ""]]


@dataclass(frozen=True)
class Draw:
    """What one forward pass may depend on beside the weights."""

    step: int
    index: int
    """Number of the batch since the run began: step · micro_batches + micro-batch."""
    generator: torch.Generator
    """On the training device, freshly seeded from the run's seed and ``index``."""
    ranks: Ranks = ALONE
    """Whose rows of the batch to compute: the losses of all processes add up to the batch's."""


class Task:
    """What a trainer brings to the loop.

    ``phases`` are trained one after the other within a step, each with an optimiser of its own;
    the first is the model, whose weights are averaged.
    """

    phases: dict[str, nn.Module]
    contents: Mapping[str, str] = MappingProxyType({})
    """Hashes of what decides the run beside files that the recipe names, by field."""

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Loss to minimise for one phase, and what to log beside it (detached)."""
        raise NotImplementedError

    def sample(self, folder: Path, step: int) -> Mapping[str, float] | None:
        """Make something to hear; called with the averaged weights in place.

        Returns:
            Numbers for the metrics, if it measured any.
        """

    def export(self, folder: Path) -> None:
        """Write what the run is for; called at its end with the averaged weights in place."""

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse a number of processes that the task cannot be split over.

        Raises:
            ConfigError: names what does not fit.
        """
        if ranks.world > 1:
            raise ConfigError(
                f"{ranks.world} processes: this part of a model is trained in one; start it "
                "without torchrun"
            )

    def extra_state(self) -> dict[str, Tensor]:
        """What the next step depends on besides the phases' weights; kept in checkpoints."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go back to what `extra_state` gave."""


def generator_for(
    seed: int, index: int, device: torch.device | str, purpose: str = "step"
) -> torch.Generator:
    """Random numbers that belong to (seed, index, purpose) and to nothing else.

    They are hashed: generators seeded with neighbouring integers would be related.
    """
    digest = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode(), digest_size=8).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest, "big") >> 1)
    return generator


def full_precision(device: torch.device) -> torch.autocast:
    """A stretch of the forward pass in float32 whatever the run's precision: spectra need it."""
    return torch.autocast(device.type, enabled=False)
