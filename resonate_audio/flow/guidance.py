"""Classifier-free guidance, both branches in one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from resonate_audio.core.sampling import EVERYWHERE
from resonate_audio.flow.path import Velocity


@runtime_checkable
class Joinable(Protocol):
    """Conditions of several rows that can be put in one batch with others."""

    def followed_by(self, other: Any) -> Any:
        """These rows, then those of ``other``."""


def needs_empty(scale: float, both_at_one: bool = False) -> bool:
    """Whether the empty prompt, or what the sound should not be, has a part in guidance."""
    return scale > 1 or (both_at_one and scale == 1)


def within(t: Float[Tensor, " row"], interval: tuple[float, float]) -> Bool[Tensor, " row"]:
    """Which noise levels lie in an interval, both ends included."""
    return (t >= interval[0]) & (t <= interval[1])


ConditionsT = TypeVar("ConditionsT", bound=Joinable)


def guided(
    model: Callable[[Tensor, Tensor, ConditionsT], Tensor],
    prompt: ConditionsT,
    empty: ConditionsT | None,
    scale: float,
    both_at_one: bool = False,
    interval: tuple[float, float] = EVERYWHERE,
) -> Velocity:
    """Bind conditions to a model and steer it away from the empty prompt.

    v = w·v(prompt) + (1 − w)·v(empty)          [arXiv:2207.12598, eq. 6, with w one larger]

    Both branches are one evaluation of twice the rows. At w = 1, where the empty branch weighs
    nothing, and below it is left out and v = v(prompt): half the work.
    Differs from the published sampler, which computes both branches at w = 1.

    Args:
        model: velocity of (z, t, conditions).
        prompt: conditions, one per row.
        empty: conditions of no prompt, or of what the sound should not be; one per row. May be
            left out where `needs_empty` says so.
        scale: w, the guidance scale.
        both_at_one: compute both branches at w = 1, too, as sounds were made before: a batch of
            twice the rows may be rounded otherwise.
        interval: lowest and highest noise level where the empty branch counts
            [arXiv:2404.07724, sec. 3]; elsewhere v = v(prompt), one evaluation.

    Returns:
        Velocity of (z, t) alone, for a solver.
    """
    if not needs_empty(scale, both_at_one):
        return lambda z, t: model(z, t, prompt)
    assert empty is not None, scale
    both = prompt.followed_by(empty)

    def velocity(z: Float[Tensor, "row ..."], t: Float[Tensor, " row"]) -> Float[Tensor, "row ..."]:
        is_inside = within(t, interval)
        if not is_inside.any():
            return model(z, t, prompt)
        with_prompt, without = model(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        steered = scale * with_prompt + (1 - scale) * without
        if is_inside.all():
            return steered
        return torch.where(is_inside[(...,) + (None,) * (z.dim() - 1)], steered, with_prompt)

    return velocity
