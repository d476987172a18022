"""The losses of a run, which wait on the device until somebody reads them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import TrainingError
from resonate_audio.training.loop.task import Losses

MAXIMA = ("ratio/max_abs_dev", "ratio/noise_floor")
"""Metrics that are the largest value of their steps; the others are means."""


class PendingLosses:
    """Losses since the last log line; they stay on the device, because reading makes a GPU wait."""

    def __init__(self) -> None:
        self.steps: list[tuple[int, Losses]] = []

    def add(self, step: int, losses: Losses) -> None:
        """Keep what a step lost."""
        self.steps.append((step, losses))

    def summary(
        self, join: Callable[[Float[Tensor, " step"]], Float[Tensor, " step"]]
    ) -> dict[str, float]:
        """Bring the losses since the last call to the CPU, and return their means, or largest.

        Args:
            join: makes one process's values those of all.

        Raises:
            TrainingError: one was not finite; names the first such step.
        """
        pending, self.steps = self.steps, []
        names = list(dict.fromkeys(name for _, losses in pending for name in losses))
        summary = {}
        for name in names:
            steps = [step for step, losses in pending if name in losses]
            values = torch.stack([losses[name] for _, losses in pending if name in losses]).cpu()
            values = join(values)
            check_finite(name, steps, values)
            summary[name] = over_steps(name, values).item()
        return summary


def over_steps(name: str, values: Float[Tensor, " step"]) -> Float[Tensor, ""]:
    """One number for several steps, or several updates of one: the largest of `MAXIMA`."""
    return values.max() if name in MAXIMA else values.mean()


def check_finite(name: str, steps: list[int], values: Float[Tensor, " step"]) -> None:
    """Stop at the first loss that is NaN or infinite.

    Raises:
        TrainingError: names the step and the loss.
    """
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        step, value = steps[int(bad[0])], values[int(bad[0])].item()
        raise TrainingError(
            f"step {step}: {name} is {value}; lower optim.learning_rate, or look for a broken "
            "clip in that batch"
        )
