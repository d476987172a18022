"""Random numbers of a test, the same each time."""

from __future__ import annotations

import torch
from torch import Tensor


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    """Normal numbers from a generator of their own."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def draw_double(*shape: int, seed: int = 0) -> Tensor:
    """The same in float64, for differences that rounding would hide."""
    return draw(*shape, seed=seed, dtype=torch.float64)
