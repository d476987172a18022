"""A rubric: what a text asks for, item by item, each asked of an audio LLM by itself.

A text of three sounds is right when all three are there; one question about the whole hides which
is missing. The items stand beside the prompts in a file: in ``rubric``, written by hand or by a
language model, or else in ``event_list``, as TTA-Bench's prompts have it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.core.errors import ManifestError, RewardError
from resonate_audio.core.paths import input_path
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.audio_llm.aqascore import AQAReward
from resonate_audio.rewards.base import LocalJudge, make_rewards

FIELDS = ("rubric", "event_list")
"""Where a prompt's items stand, the first that is there."""
HEARD = 0.5
"""An item counts as heard from this probability on."""
Items = Mapping[str, tuple[str, ...]]
"""Items by prompt."""


class RubricReward(LocalJudge):
    """Asks about each item of a text by itself; the score is the mean of the answers.

    score = 1/K Σ_k P(yes | item k)          [AnyAudio-Judge, arXiv:2606.03116]

    with P as in AQAScore, arXiv:2601.14728.

    Differs from the paper: items are read and never made up on the way. The parts report ``worst``,
    the answer to the item that is heard least, ``heard_share``, the share of items heard, and the
    means of ``log_odds``, which does not saturate, and of ``answer_mass``.
    """

    def __init__(self, judge: AQAReward, items: Items) -> None:
        """Take a judge that is ready.

        Args:
            judge: is asked; its question gets an item where else a caption goes.
            items: at least one for each prompt that will be scored.
        """
        self.judge, self.items = judge, items
        self.name = f"rubric:{judge.name.removeprefix('aqa:')}"
        listed = json.dumps(sorted((text, *own) for text, own in items.items()))
        self.given = hashlib.sha256(listed.encode()).hexdigest()[:16]
        """Hash of the items: what decides the scores beside weights and code."""

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        asked = [self._items(prompt) for prompt in prompts]
        counts = [len(own) for own in asked]
        samples = self.judge.hear(audio).repeat_interleave(torch.tensor(counts), dim=0)
        answers = self.judge.answer(samples, [item for own in asked for item in own])
        rows = [part.double() for part in torch.split(answers.p_yes, counts)]
        log_odds, mass = (
            torch.stack([part.double().mean() for part in torch.split(values, counts)])
            for values in (answers.log_odds, answers.mass)
        )
        parts = {
            "worst": torch.stack([row.min() for row in rows]),
            "heard_share": torch.stack([(row > HEARD).double().mean() for row in rows]),
            "log_odds": log_odds,
            "answer_mass": mass,
        }
        total = torch.stack([row.mean() for row in rows])
        judge = f"{self.name}[{self.judge.id}, items {self.given}]"
        return make_rewards(total, judge, len(prompts), parts)

    def _items(self, prompt: str) -> tuple[str, ...]:
        if prompt not in self.items:
            raise RewardError(
                f"{self.name}: the file of items has none for the prompt {prompt[:80]!r}; add a "
                "line with it and its rubric"
            )
        return self.items[prompt]


def read_items(path: Path, field: str = "") -> Items:
    """Read the items of every prompt of a file.

    Args:
        path: JSON lines with ``prompt`` and a list of texts.
        field: what the list is called; by default the first of `FIELDS` that is there.

    Raises:
        ManifestError: the file cannot be read or is empty, a prompt has no items, or stands twice
            with others; names the line.
    """
    items: dict[str, tuple[str, ...]] = {}
    for number, fields in read_json_lines(input_path(path)):
        place = f"{path}, line {number}"
        prompt = fields.get("prompt")
        if not isinstance(prompt, str) or not prompt.strip():
            raise ManifestError(f"{place}: expected the field prompt with a text in it")
        own = items_of(fields, place, field)
        if items.setdefault(prompt.strip(), own) != own:
            raise ManifestError(f"{place}: the prompt stands above with other items")
    if not items:
        raise ManifestError(f"{path}: no prompt in it; expected lines with prompt and rubric")
    return items


def items_of(fields: Mapping[str, Any], place: str, field: str = "") -> tuple[str, ...]:
    """The items that stand beside a prompt.

    Raises:
        ManifestError: there are none, or they are no texts; begins with ``place``.
    """
    names = (field,) if field else FIELDS
    name = next((name for name in names if name in fields), None)
    if name is None:
        raise ManifestError(f"{place}: expected a list of items in {' or '.join(names)}")
    given = fields[name]
    if not isinstance(given, list) or not given:
        raise ManifestError(f"{place}: {name} is no list of one or more texts")
    if not all(isinstance(one, str) and one.strip() for one in given):
        raise ManifestError(f"{place}: {name} holds something that is empty or no text")
    return tuple(one.strip() for one in given)
