"""One tensor beside what it should be, and how far off may pass."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

Comparison = tuple[str, Tensor, Tensor]

TOLERANCE = 1e-5
"""Largest error over the largest expected magnitude of a tensor, float32."""
BFLOAT16_TOLERANCE = 2.0**-7
"""One step of bfloat16 at the largest magnitude."""


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from what was expected."""

    label: str
    max_abs: float
    max_rel: float
    """max|got - expected| / max|expected|; infinite for another shape or NaN."""
    passed: bool
    note: str = ""


def compare(label: str, got: Tensor, expected: Tensor) -> Difference:
    """Measure one tensor: integers and booleans exactly, the rest against its largest value."""
    if got.shape != expected.shape:
        note = f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
        return Difference(label, math.inf, math.inf, False, note)
    error = (got.detach().double() - expected.double()).abs()
    max_abs = error.max().item() if error.numel() else 0.0
    if math.isnan(max_abs):
        return Difference(label, math.inf, math.inf, False, "NaN")
    largest = expected.double().abs().max().item() if error.numel() else 0.0
    max_rel = max_abs / largest if largest else (0.0 if max_abs == 0 else math.inf)
    return Difference(label, max_abs, max_rel, max_rel <= tolerance(expected.dtype))


def tolerance(dtype: torch.dtype) -> float:
    """Largest relative error that passes for expected values of this type."""
    if dtype == torch.bfloat16:
        return BFLOAT16_TOLERANCE
    return TOLERANCE if dtype.is_floating_point else 0.0
