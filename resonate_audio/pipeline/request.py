"""What a caller wants, spelled out: one prompt, negative prompt and seed a row."""

from __future__ import annotations

import secrets
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from resonate_audio.core.errors import InputError
from resonate_audio.core.noise import MAX_SEED
from resonate_audio.core.sampling import Sampling, whole_number
from resonate_audio.core.text import check_encodable

RANDOM_SEEDS = 2**31
"""Drawn seeds stay short enough to be read aloud."""


class RequestWarning(UserWarning):
    """A part of what a caller wants has no effect."""


class PromptCutWarning(RequestWarning):
    """A prompt is longer than the text encoder reads; its end was ignored."""


class IdleNegativeWarning(RequestWarning):
    """What not to hear is said, and no guidance leads away from it."""


def idle_negative(negatives: Sequence[str], guidance_scale: float) -> str | None:
    """What to say of a negative prompt that has no effect."""
    if not any(negatives) or guidance_scale > 1:
        return None
    return (
        f"the negative prompt does nothing at a guidance scale of {guidance_scale:g}: it needs "
        "one above 1, such as 4.5"
    )


def warn_of_idle_negatives(batch: Batch, sampling: Sampling) -> None:
    """Say that a negative prompt has no effect, if it has none."""
    if (text := idle_negative(batch.negatives, sampling.guidance_scale)) is not None:
        warnings.warn(text, IdleNegativeWarning, stacklevel=4)


@dataclass(frozen=True)
class Batch:
    """Rows that are computed together."""

    prompts: tuple[str, ...]
    negatives: tuple[str, ...]
    seeds: tuple[int, ...]

    def part(self, start: int, stop: int) -> Batch:
        """Some neighbouring rows."""
        rows = slice(start, stop)
        return Batch(self.prompts[rows], self.negatives[rows], self.seeds[rows])


def make_batch(
    prompts: str | Sequence[str],
    negative_prompt: str | Sequence[str] | None = None,
    seeds: int | Sequence[int] | None = None,
) -> Batch:
    """Spell out one prompt, negative prompt and seed a row.

    Raises:
        InputError: a prompt is empty, or the numbers of rows differ.
    """
    texts = _texts("prompt", prompts)
    if not texts:
        raise InputError("no prompt: give at least one text")
    for row, text in enumerate(texts):
        if not text.strip():
            raise InputError(f"prompt {row + 1} of {len(texts)} is empty: describe a sound")
    negatives = _texts("negative prompt", "" if negative_prompt is None else negative_prompt)
    negatives = tuple(text.strip() for text in negatives)
    if isinstance(negative_prompt, str | None):
        negatives *= len(texts)
    if len(negatives) != len(texts):
        raise InputError(f"{len(negatives)} negative prompts for {len(texts)} prompts")
    return Batch(texts, negatives, _row_seeds(seeds, len(texts)))


def _texts(what: str, given: object) -> tuple[str, ...]:
    """One text or several.

    Raises:
        InputError: it is something else, or a text that cannot be encoded.
    """
    if not isinstance(given, str | Iterable) or isinstance(given, bytes):
        raise InputError(f"{what} {given!r:.80}: expected a text, or a list of texts")
    texts = (given,) if isinstance(given, str) else tuple(given)
    for row, text in enumerate(texts):
        place = f"{what} {row + 1} of {len(texts)}"
        if not isinstance(text, str):
            raise InputError(f"{place} is {text!r:.80}: expected a text")
        try:
            check_encodable(text)
        except ValueError as error:
            raise InputError(f"{place} {error}") from error
    return texts


def _row_seeds(seeds: int | Sequence[int] | None, num_rows: int) -> tuple[int, ...]:
    if seeds is None:
        return tuple(secrets.randbelow(RANDOM_SEEDS) for _ in range(num_rows))
    given: Sequence[Any]
    if hasattr(seeds, "__len__"):
        given = cast(Sequence[Any], seeds)
    else:
        first = _seed(seeds)
        given = range(first, first + num_rows)
    if len(given) != num_rows:
        raise InputError(f"{len(given)} seeds for {num_rows} prompts: give one a prompt")
    return tuple(_seed(seed) for seed in given)


def _seed(value: object) -> int:
    try:
        seed = whole_number(value)
    except ValueError:
        seed = -1
    if not 0 <= seed <= MAX_SEED:
        raise InputError(f"seed {value}: expected a whole number from 0 to {MAX_SEED}")
    return seed
