"""Tensors beside what they should be, and how far off each kind of quantity may be."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import NamedTuple

import torch
from torch import Tensor

from resonate_audio.core.errors import CheckpointError

Tensors = Mapping[str, Tensor]


@dataclass(frozen=True)
class Tolerance:
    """Each value x of a tensor may be off by absolute + relative · abs(x) + of_largest · max|x|."""

    absolute: float = 0.0
    relative: float = 0.0
    of_largest: float = 0.0

    def allowed(self, expected: Tensor) -> Tensor:
        """Largest error that passes, value by value."""
        size = expected.double().abs()
        return self.absolute + self.relative * size + self.of_largest * size.max()


# As the makers of the golden vectors state them for float32.
SINGLE = Tolerance(absolute=2e-5, relative=1e-4)
"""One evaluation of a network or a formula: whatever a check does not name otherwise."""
TRAJECTORY = WAVE = Tolerance(of_largest=1e-4)
LOG_MEL = Tolerance(absolute=1e-4)
LOSS = Tolerance(absolute=1e-6, relative=torch.finfo(torch.float32).eps)
"""A scalar loss: 1e-6, and of a large one the single step to the next float32."""
GRADIENT = Tolerance(of_largest=1e-3)
EXACT = Tolerance()
"""Integers, indices and masks."""
BFLOAT16 = Tolerance(of_largest=2.0**-7)
"""One step of bfloat16 at the largest magnitude."""


class Comparison(NamedTuple):
    """One expected output of a golden file."""

    label: str
    got: Tensor
    expected: Tensor
    tolerance: Tolerance = SINGLE


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from what was expected."""

    label: str
    max_abs: float
    max_rel: float
    """max|got - expected| / max|expected|; infinite for another shape or NaN."""
    passed: bool
    note: str = ""


def compare(label: str, got: Tensor, expected: Tensor, tolerance: Tolerance = SINGLE) -> Difference:
    """Measure one tensor: integers and booleans exactly, the rest as its kind of quantity asks."""
    if got.shape != expected.shape:
        note = f"shape {tuple(got.shape)}, expected {tuple(expected.shape)}"
        return Difference(label, math.inf, math.inf, False, note)
    if not expected.numel():
        return Difference(label, 0.0, 0.0, True)
    error = (got.detach().double() - expected.double()).abs()
    max_abs = error.max().item()
    if not math.isfinite(max_abs):
        return Difference(label, math.inf, math.inf, False, "NaN or infinite")
    largest = expected.double().abs().max().item()
    max_rel = max_abs / largest if largest else (0.0 if max_abs == 0 else math.inf)
    allowed = _limit(tolerance, expected.dtype).allowed(expected)
    return Difference(label, max_abs, max_rel, bool((error <= allowed).all()))


def _limit(tolerance: Tolerance, dtype: torch.dtype) -> Tolerance:
    """What holds for values of this type, whatever they are."""
    if not dtype.is_floating_point:
        return EXACT
    return BFLOAT16 if dtype == torch.bfloat16 else tolerance


def compare_outputs(
    tensors: Tensors, got: Tensors, kinds: Mapping[str, Tolerance] | None = None
) -> Iterator[Comparison]:
    """Put what was computed beside every expected output.

    Args:
        tensors: all of a golden file.
        got: what was computed, by label.
        kinds: tolerance of the labels that match a pattern, where it is not `SINGLE`.

    Raises:
        CheckpointError: an output is expected that was not computed.
    """
    for label, expected in expected_outputs(tensors).items():
        if label not in got:
            raise CheckpointError(f"golden vectors hold out.{label}, which no check computes")
        fitting = (kind for pattern, kind in (kinds or {}).items() if fnmatchcase(label, pattern))
        yield Comparison(label, got[label], expected, next(fitting, SINGLE))


def expected_outputs(tensors: Tensors) -> dict[str, Tensor]:
    """Every ``out.*`` tensor by its name without the prefix, as it is stored."""
    return {k.removeprefix("out."): v for k, v in tensors.items() if k.startswith("out.")}


def with_prefix(tensors: Tensors, prefix: str) -> dict[str, Tensor]:
    """Tensors below ``prefix``, in float32 (weights are stored smaller but exactly)."""
    found = {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}
    return {k: v.float() if v.is_floating_point() else v for k, v in found.items()}
