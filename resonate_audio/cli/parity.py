"""Golden vectors: does this package compute what the official code computes?

``python -m resonate_audio.cli.parity DIR`` reads every ``*.safetensors`` of a folder. The stem
names the check, the ``config`` metadata the sizes; ``weights.*`` and ``in.*`` go in and every
``out.*`` must come out. One line a file: ``name  max_abs  max_rel  PASS|FAIL``.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resonate_audio.core.errors import CheckpointError

Comparison = tuple[str, Tensor, Tensor]
Check = Callable[[dict[str, Tensor], dict[str, Any], Path], Iterator[Comparison]]

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


@dataclass(frozen=True)
class FileResult:
    """The verdict on one golden file and on each of its tensors."""

    name: str
    verdict: Literal["PASS", "FAIL"]
    differences: tuple[Difference, ...] = ()
    note: str = ""

    @property
    def max_abs(self) -> float:
        """Worst absolute error; NaN when nothing was compared."""
        return max((item.max_abs for item in self.differences), default=math.nan)

    @property
    def max_rel(self) -> float:
        """Worst relative error; NaN when nothing was compared."""
        return max((item.max_rel for item in self.differences), default=math.nan)


def find_check(stem: str) -> Check | None:
    """The check whose name the stem begins with, the longest such name first."""
    from resonate_audio.cli import parity_flow, parity_rl, parity_signals

    checks: dict[str, Check] = {
        **parity_signals.CHECKS,
        **parity_flow.CHECKS,
        **parity_rl.CHECKS,
    }
    names = sorted((name for name in checks if stem.startswith(name)), key=len, reverse=True)
    return checks[names[0]] if names else None


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


def read_golden(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of one golden file.

    Raises:
        CheckpointError: the file is truncated, or its ``config`` metadata is missing or broken.
    """
    try:
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"not a readable safetensors file ({error})") from error
    try:
        config = json.loads(metadata["config"])
    except (KeyError, ValueError) as error:
        raise CheckpointError("no readable `config` in its metadata") from error
    if not isinstance(config, dict):
        raise CheckpointError("its `config` metadata is not an object")
    return tensors, config


def check_file(path: Path) -> FileResult:
    """Run the check that the stem names, and miss no ``out.*`` tensor."""
    check = find_check(path.stem)
    if check is None:
        return FileResult(path.stem, "FAIL", note="no check of this name")
    try:
        tensors, config = read_golden(path)
        differences = [compare(*item) for item in check(tensors, config, path.parent)]
    except Exception as error:  # noqa: BLE001 - a broken file is a FAIL line, never a traceback
        note = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        return FileResult(path.stem, "FAIL", note=note)
    seen = {item.label.removeprefix("out.") for item in differences}
    differences += [
        Difference(name, math.inf, math.inf, False, "no check covers it")
        for name in sorted(expected_names(tensors) - seen)
    ]
    if not differences:
        return FileResult(path.stem, "FAIL", note="it holds no out.* tensor")
    passed = all(item.passed for item in differences)
    return FileResult(path.stem, "PASS" if passed else "FAIL", tuple(differences))


def expected_names(tensors: dict[str, Tensor]) -> set[str]:
    """Names, without the prefix, of every expected output."""
    return {name.removeprefix("out.") for name in tensors if name.startswith("out.")}


def report_lines(result: FileResult, verbose: bool = False) -> list[str]:
    """The line of a file, then its tensors: all of them if ``verbose``, else the failed ones."""
    errors = "  ".join(_number(value) for value in (result.max_abs, result.max_rel))
    line = f"{result.name:<28}  {errors}  {result.verdict}"
    lines = [f"{line}  ({result.note})" if result.note else line]
    for item in result.differences:
        if verbose or not item.passed:
            verdict = "pass" if item.passed else "FAIL"
            errors = "  ".join(_number(value) for value in (item.max_abs, item.max_rel))
            detail = f"    {item.label:<60}  {errors}  {verdict}"
            lines.append(f"{detail}  ({item.note})" if item.note else detail)
    return lines


def _number(value: float) -> str:
    return f"{'-' if math.isnan(value) else f'{value:.3e}':>9}"


def check_folder(folder: Path, verbose: bool = False) -> int:
    """Print a line for every golden file of a folder; 0 if none failed, 1 if one did, 2 if none."""
    paths = sorted(folder.glob("*.safetensors")) if folder.is_dir() else []
    if not paths:
        print(f"{folder}: no *.safetensors here; give a folder of golden vectors", file=sys.stderr)
        return 2
    failed = 0
    for path in paths:
        result = check_file(path)
        failed += result.verdict == "FAIL"
        print("\n".join(report_lines(result, verbose)), flush=True)
    return 1 if failed else 0


def main(arguments: list[str] | None = None) -> int:
    """``scripts/parity DIR [--verbose]``."""
    parser = argparse.ArgumentParser(prog="parity", description="Check golden vectors.")
    parser.add_argument("folder", type=Path, help="folder of *.safetensors golden files")
    parser.add_argument("--verbose", action="store_true", help="print every tensor")
    options = parser.parse_args(arguments)
    return check_folder(options.folder, options.verbose)


if __name__ == "__main__":
    raise SystemExit(main())
