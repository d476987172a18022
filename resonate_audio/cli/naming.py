"""Which file each sound goes to."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DEFAULT_SUFFIX = ".wav"
SLUG_LENGTH = 48


@dataclass(frozen=True)
class PlannedSound:
    """One sound to make: its text, its seed, its file."""

    prompt: str
    seed: int
    path: Path


def plan_sounds(
    prompts: Sequence[str], takes: int, seed: int, output: str | None
) -> list[PlannedSound]:
    """Give every take of every prompt a seed and a file of its own, prompt-major.

    Take k has seed ``seed`` + k for every prompt, so prompts can be compared on the same noise.

    Args:
        prompts: texts.
        takes: sounds per text.
        seed: seed of the first take.
        output: a file name; a folder (existing, or a name without suffix); None for here.
    """
    rows = [(prompt, seed + take) for prompt in prompts for take in range(takes)]
    if _is_folder(output):
        folder = Path(output or ".")
        stems = [f"{slug(prompt)}_{row_seed}" for prompt, row_seed in rows]
        paths = [folder / f"{stem}{DEFAULT_SUFFIX}" for stem in _distinct(stems)]
    else:
        path = Path(output or "")
        numbered = len(rows) > 1
        paths = [
            path.with_stem(f"{path.stem}-{number}") if numbered else path
            for number in range(1, len(rows) + 1)
        ]
    return [
        PlannedSound(prompt, row_seed, path)
        for (prompt, row_seed), path in zip(rows, paths, strict=True)
    ]


def slug(text: str) -> str:
    """A file name from a text: ASCII letters, digits and hyphens, at most 48 of them."""
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode("ascii").lower()
    words = re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
    if len(words) > SLUG_LENGTH:
        words = words[: SLUG_LENGTH + 1].rpartition("-")[0] or words[:SLUG_LENGTH]
    return words or "sound"


def _is_folder(output: str | None) -> bool:
    return (
        output is None or output.endswith("/") or Path(output).is_dir() or not Path(output).suffix
    )


def _distinct(stems: list[str]) -> list[str]:
    """Number the stems that repeat: a, a-2, a-3."""
    seen: Counter[str] = Counter()
    result = []
    for stem in stems:
        seen[stem] += 1
        result.append(stem if seen[stem] == 1 else f"{stem}-{seen[stem]}")
    return result
