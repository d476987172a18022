"""Golden vectors: does this package compute what the official code computes?

The stem of a ``*.safetensors`` file names its check, the ``config`` metadata the sizes;
``weights.*`` and ``in.*`` go in and every ``out.*`` must come out.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.errors import CheckpointError
from resonate_audio.core.files import check_regular
from resonate_audio.parity import flow, mean_flow, rl, signals
from resonate_audio.parity.comparison import Comparison, Difference, compare, expected_outputs

Check = Callable[[dict[str, Tensor], dict[str, Any], Path], Iterator[Comparison]]
CHECKS: dict[str, Check] = {**signals.CHECKS, **flow.CHECKS, **rl.CHECKS, **mean_flow.CHECKS}
"""Which check reads the golden files whose name starts so."""


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
    names = sorted((name for name in CHECKS if stem.startswith(name)), key=len, reverse=True)
    return CHECKS[names[0]] if names else None


def read_golden(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and configuration of one golden file.

    Raises:
        CheckpointError: the file is truncated, or its ``config`` metadata is missing or broken.
    """
    try:
        check_regular(path)
        with safe_open(path, "pt") as stored:
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
            metadata = stored.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"not a readable safetensors file ({error})") from error
    try:
        text = metadata["config"]
    except KeyError as error:
        raise CheckpointError("no readable `config` in its metadata") from error
    return tensors, parse_object(text, "its `config` metadata", CheckpointError)


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
    seen = {item.label for item in differences}
    differences += [
        Difference(name, math.inf, math.inf, False, "no check covers it")
        for name in sorted(expected_outputs(tensors).keys() - seen)
    ]
    if not differences:
        return FileResult(path.stem, "FAIL", note="it holds no out.* tensor")
    passed = all(item.passed for item in differences)
    return FileResult(path.stem, "PASS" if passed else "FAIL", tuple(differences))
