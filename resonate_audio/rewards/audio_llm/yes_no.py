"""How sure a language model is of "yes"."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.errors import RewardError


def yes_probability(
    yes: Float[Tensor, "row yes_token"], no: Float[Tensor, "row no_token"]
) -> Float[Tensor, " row"]:
    """Probability of "yes" among "yes" and "no" as the next token.

    p = p(yes) / (p(yes) + p(no)) = sigmoid(logsumexp(yes) − logsumexp(no))
    [AQAScore, arXiv:2601.14728]

    Args:
        yes: logits or log-probabilities of every spelling of "yes"; what all tokens of a row
            have in common drops out, so both give the same.
        no: the same of "no".

    Returns:
        One probability a row, in float32 or wider.

    Raises:
        RewardError: a value is NaN, or neither answer has any probability in a row.
    """
    wide = torch.promote_types(yes.dtype, torch.float32)
    difference = yes.to(wide).logsumexp(dim=1) - no.to(wide).logsumexp(dim=1)
    if difference.isnan().any():
        row = int(difference.isnan().nonzero()[0])
        raise RewardError(f"row {row + 1}: the judge gave neither yes nor no any probability")
    return torch.sigmoid(difference)
