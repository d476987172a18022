"""Optimiser and learning-rate schedule; the rate is a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from itertools import pairwise
from typing import Annotated, Literal

import torch
from pydantic import Field, field_validator
from torch import nn

from resonate_audio.core.config import FrozenConfig

Beta = Annotated[float, Field(ge=0, lt=1)]


class OptimConfig(FrozenConfig):
    """AdamW, warm-up and schedule; the defaults are the official pre-training recipe."""

    learning_rate: float = Field(1e-4, gt=0)
    """Peak rate, reached at the end of the warm-up."""
    betas: tuple[Beta, Beta] = (0.9, 0.95)
    eps: float = Field(1e-6, gt=0)
    weight_decay: float = Field(1e-6, ge=0)
    clip_norm: float = Field(1.0, gt=0)
    """Largest 2-norm of the whole gradient."""
    schedule: Literal["constant", "step", "cosine"] = "step"
    warmup_steps: int = Field(1000, ge=0)
    milestones: tuple[float, ...] = (0.8, 0.9)
    """Rising fractions of the run at which a ``step`` schedule multiplies the rate by ``drop``."""
    drop: float = Field(0.1, gt=0, le=1)
    final_ratio: float = Field(0.01, ge=0, le=1)
    """Where a ``cosine`` schedule ends, as a fraction of the peak."""

    @field_validator("milestones")
    @classmethod
    def _rise_from_above_0(cls, milestones: tuple[float, ...]) -> tuple[float, ...]:
        if not all(before < after for before, after in pairwise((0.0, *milestones))):
            raise ValueError(
                f"{list(milestones)}: expected fractions of the run above 0, each larger than the "
                "one before"
            )
        return milestones


def learning_rate_factor(step: int, num_steps: int, config: OptimConfig) -> float:
    """Fraction of the peak learning rate used by the update that follows ``step`` updates.

    Warm-up is linear, (step + 1) / warmup_steps. Milestones count from the first update of the
    run: the official code chains schedulers, which shifts its drops by the warm-up.
    """
    warmup = min(1.0, (step + 1) / config.warmup_steps) if config.warmup_steps else 1.0
    if config.schedule == "step":
        return warmup * config.drop ** sum(step >= part * num_steps for part in config.milestones)
    if config.schedule == "cosine":
        length = max(1, num_steps - config.warmup_steps)
        progress = min(1.0, max(0.0, (step - config.warmup_steps) / length))
        floor = config.final_ratio
        return warmup * (floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * progress)))
    return warmup


def make_optimizer(parameters: Iterable[nn.Parameter], config: OptimConfig) -> torch.optim.AdamW:
    """AdamW in its fused form over the parameters that want a gradient.

    Fused is the fastest on CPU and CUDA alike; each element is updated on its own, so the result
    does not depend on the number of threads.
    """
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return torch.optim.AdamW(
        trained,
        lr=config.learning_rate,
        betas=config.betas,
        eps=config.eps,
        weight_decay=config.weight_decay,
        fused=all(parameter.device.type in ("cpu", "cuda") for parameter in trained),
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, learning_rate: float) -> None:
    """Use ``learning_rate`` for every group."""
    for group in optimizer.param_groups:
        group["lr"] = learning_rate
