"""Classifier-free guidance, both branches in one evaluation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.flow.path import Velocity


@runtime_checkable
class Joinable(Protocol):
    """Conditions of several rows that can be put in one batch with others."""

    def followed_by(self, other: Any) -> Any:
        """These rows, then those of ``other``."""


ConditionsT = TypeVar("ConditionsT", bound=Joinable)


def guided(
    model: Callable[[Tensor, Tensor, ConditionsT], Tensor],
    prompt: ConditionsT,
    empty: ConditionsT,
    scale: float,
) -> Velocity:
    """Bind conditions to a model and steer it away from the empty prompt.

    v = w·v(prompt) + (1 − w)·v(empty)          [arXiv:2207.12598, eq. 6, with w one larger]

    Both branches are one evaluation of twice the rows. Below w = 1 the empty branch is left out
    and v = v(prompt), as in the published sampler.

    Args:
        model: velocity of (z, t, conditions).
        prompt: conditions, one per row.
        empty: conditions of no prompt, or of what the sound should not be; one per row.
        scale: w, the guidance scale.

    Returns:
        Velocity of (z, t) alone, for a solver.
    """
    if scale < 1:
        return lambda z, t: model(z, t, prompt)
    both = prompt.followed_by(empty)

    def velocity(z: Float[Tensor, "row ..."], t: Float[Tensor, " row"]) -> Float[Tensor, "row ..."]:
        with_prompt, without = model(torch.cat([z, z]), torch.cat([t, t]), both).chunk(2)
        return scale * with_prompt + (1 - scale) * without

    return velocity
