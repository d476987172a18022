"""Exponential moving average of weights: constant decay or power function."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig


class EmaConfig(FrozenConfig):
    """How the averaged weights follow the trained ones."""

    kind: Literal["off", "constant", "power"] = "power"
    decay: float = Field(0.9999, ge=0, lt=1)
    """Decay of ``constant``, approached as (1 + n) / (10 + n) so that a start is forgotten."""
    sigma_rel: float = Field(0.05, gt=0, lt=0.28)
    """Width of the ``power`` profile as a fraction of the run so far."""

    @field_validator("kind", mode="before")
    @classmethod
    def _yaml_reads_off_as_false(cls, value: Any) -> Any:
        return "off" if value is False else value


def power_exponent(sigma_rel: float) -> float:
    """Exponent γ of the power-function average with relative width ``sigma_rel``.

    σ_rel² = (γ + 1) / ((γ + 2)² (γ + 3))           [Karras et al., arXiv:2312.02696, eq. 125]
    """
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 7.0, 16.0 - inverse, 12.0 - inverse])
    return float(max(root.real for root in roots if abs(root.imag) < 1e-9))


def ema_decay(num_updates: int, config: EmaConfig) -> float:
    """Weight that the old average keeps at update ``num_updates`` (the first is 1).

    Power function: β = (1 − 1/n)^(γ+1), so the first update copies the weights.
    [Karras et al., arXiv:2312.02696, eq. 127]
    """
    if config.kind == "power":
        exponent = power_exponent(config.sigma_rel) + 1.0
        return float((1.0 - 1.0 / num_updates) ** exponent)
    return min(config.decay, (1.0 + num_updates) / (10.0 + num_updates))


def start_average(model: nn.Module) -> dict[str, Tensor]:
    """Float32 copy of the parameters that are trained."""
    return {
        name: parameter.detach().float().clone()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


@torch.no_grad()
def update_average(average: dict[str, Tensor], model: nn.Module, decay: float) -> None:
    """Move each average towards its parameter: a ← decay · a + (1 − decay) · p, in place."""
    current = dict(model.named_parameters())
    torch._foreach_lerp_(
        list(average.values()),
        [current[name].detach().float() for name in average],
        1.0 - decay,
    )


def averaged_state(model: nn.Module, average: dict[str, Tensor] | None) -> dict[str, Tensor]:
    """State dict of ``model`` with the averaged weights where there are any."""
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    for name, value in (average or {}).items():
        state[name] = value.to(state[name].dtype).clone()
    return state
