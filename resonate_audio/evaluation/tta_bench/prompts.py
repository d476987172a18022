"""TTA-Bench's prompts: what its files say of them, and where the files slip.

Its six files hold 2,999 prompts. Known slips of the files are counted when they are read, and never
repaired in silence.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from resonate_audio.core.errors import ManifestError
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, read_prompt_set

Dimension = Literal[
    "accuracy", "generalization", "robustness", "fairness", "bias", "toxicity", "other"
]
PERTURBATIONS = ("uppercase", "synonym", "misspelling", "space", "rewrite", "punctuate")
_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class TTAItem:
    """One prompt and what the benchmark says of it."""

    id: str
    prompt: str
    dimension: Dimension
    event_count: int | None = None
    event_relation: str | None = None
    """How its events go together; None for a single event, or where nothing is said."""
    event_list: tuple[str, ...] = ()
    source: str | None = None
    perturbation: str | None = None
    """What was done to a robustness prompt."""
    base_id: str | None = None
    """The unperturbed accuracy prompt of a robustness prompt."""
    group: str | None = None
    """Group of a fairness prompt."""
    category: str | None = None
    """Category of a toxicity prompt."""


@dataclass(frozen=True)
class TTABenchSet:
    """One file."""

    name: str
    items: tuple[TTAItem, ...]
    """By id."""
    slips: tuple[str, ...]
    """What is wrong in the file, one line each."""

    def ids(self, wanted: Callable[[TTAItem], bool]) -> tuple[str, ...]:
        """Ids of the prompts that fulfil a condition."""
        return tuple(item.id for item in self.items if wanted(item))

    @property
    def dimension(self) -> Dimension:
        """What its prompts measure.

        Raises:
            ManifestError: they say nothing of it, or measure several things.
        """
        found = sorted({item.dimension for item in self.items})
        if len(found) > 1:
            raise ManifestError(
                f"{self.name}: holds prompts of {' and '.join(found)}; give one of TTA-Bench's "
                "files"
            )
        if found == ["other"]:
            raise ManifestError(
                f"{self.name}: no prompt says which dimension of TTA-Bench it is of; give one of "
                "its files, such as acc_prompt.json"
            )
        return found[0]


def read_tta_bench(path: Path) -> TTABenchSet:
    """Read one of the benchmark's files, or a sample of it in any form of a prompt set.

    Raises:
        ManifestError: as `read_prompt_set`, or a field has another type than it should.
    """
    prompts = read_prompt_set(path)
    return as_tta_bench(prompts.name, prompts.items)


def as_tta_bench(name: str, prompts: Sequence[PromptItem]) -> TTABenchSet:
    """Read what the prompts' other fields mean.

    Raises:
        ManifestError: a field has another type than it should; names the prompt.
    """
    items = tuple(sorted((_item(prompt) for prompt in prompts), key=lambda item: item.id))
    return TTABenchSet(name, items, tuple(_slips(items, prompts)))


def _item(prompt: PromptItem) -> TTAItem:
    meta = prompt.meta
    dimension = _dimension(meta)
    notes = _word(meta.get("notes"))
    count = meta.get("event_count")
    if count is not None and not isinstance(count, int):
        raise ManifestError(f"prompt {prompt.id}: event_count is {count!r}; expected a number")
    return TTAItem(
        id=prompt.id,
        prompt=prompt.prompt,
        dimension=dimension,
        event_count=count,
        event_relation=_word(meta.get("event_relation")),
        event_list=_texts(prompt.id, "event_list", meta.get("event_list")),
        source=_word(meta.get("source")),
        perturbation=_word(meta.get("perturbation_type")),
        base_id=_base_id(prompt.id, notes) if dimension == "robustness" else None,
        group=notes if dimension == "fairness" else None,
        category=next(iter(_texts(prompt.id, "categories", meta.get("categories"))), None),
    )


def _dimension(meta: Mapping[str, Any]) -> Dimension:
    said = str(meta.get("Dimensions of evaluation", "")).lower()
    known: tuple[Dimension, ...] = (
        "accuracy", "generalization", "robustness", "fairness", "bias",
    )  # fmt: skip
    for dimension in known:
        if said == dimension:
            return dimension
    return "toxicity" if "categories" in meta else "other"


def _word(value: Any) -> str | None:
    """A text that says something; the files write the word "None" for nothing."""
    return None if value in (None, "", "None") else str(value)


def _texts(id: str, field: str, value: Any) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or not all(isinstance(text, str) for text in value):
        raise ManifestError(f"prompt {id}: {field} is {value!r}; expected a list of texts")
    return tuple(value)


def _base_id(id: str, notes: str | None) -> str:
    found = _NUMBER.match(notes or "")
    if found is None:
        raise ManifestError(
            f"prompt {id}: notes are {notes!r}; expected the number of its accuracy prompt"
        )
    return f"prompt_{int(found[0]):04d}"


def _slips(items: Sequence[TTAItem], prompts: Sequence[PromptItem]) -> Iterable[str]:
    first: dict[str, str] = {}
    for item in items:
        earlier = first.setdefault(item.prompt, item.id)
        if earlier != item.id:
            yield f"{earlier} and {item.id} are the same prompt"
        if item.event_count is not None and len(item.event_list) != item.event_count:
            yield f"{item.id}: event_count {item.event_count}, but {len(item.event_list)} events"
    words = sum(prompt.meta.get("event_relation") == "None" for prompt in prompts)
    if words:
        yield f"{words} prompts have the word None as event_relation; read as none"
    numbers = [int(found[0]) for item in items if (found := re.search(r"\d+$", item.id))]
    if len(numbers) == len(items) > 2 and len(items) > (numbers[-1] - numbers[0]) / 2:
        there = set(numbers)
        for number in range(numbers[0], numbers[-1] + 1):
            if number not in there:
                yield f"prompt_{number:04d} is missing"
