"""What an assistant may do with sounds; nothing here knows how it is asked."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from resonate_audio.cli.naming import slug
from resonate_audio.core.errors import InputError, RewardError
from resonate_audio.core.text import shortened

if TYPE_CHECKING:
    from resonate_audio.cli.reward import Verdict
    from resonate_audio.core.types import Audio
    from resonate_audio.pipeline.path import Resonate
    from resonate_audio.rewards.ensemble import Ensemble

MAX_TAKES = 8
"""An assistant reads every sound that it is sent."""


@dataclass(frozen=True)
class Saved:
    """A sound that was made, and the file it is in."""

    path: Path
    audio: Audio
    is_cut: bool
    """Whether the model did not read its prompt to the end."""


@dataclass(frozen=True)
class Workshop:
    """A model, a judge, and the folders that an assistant may use; one piece of work at a time.

    Model and judge are loaded when they are first needed.
    """

    folders: tuple[Path, ...]
    """Resolved; sounds go into the first, sources may lie in any."""
    model: str
    judge_spec: str
    suffix: str
    device: str | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @cached_property
    def pipeline(self) -> Resonate:
        """The model."""
        from resonate_audio.pipeline.path import Resonate

        return Resonate.from_pretrained(self.model, device=self.device)

    @cached_property
    def judges(self) -> Ensemble:
        """The judge."""
        from resonate_audio.pipeline.device import choose_device
        from resonate_audio.rewards.catalogue import open_reward

        return open_reward(self.judge_spec, choose_device(self.device))

    def make(
        self, stem: str, takes: int, work: Callable[[Resonate], Sequence[Audio]]
    ) -> list[Saved]:
        """Have the model make sounds and save each.

        Args:
            stem: what the files are called after; the seed follows.
            takes: how many they will be.
            work: what the model does.

        Raises:
            ResonateError: as the work's, too many takes, or a file cannot be written.
        """
        if not 1 <= takes <= MAX_TAKES:
            raise InputError(f"takes {takes}: expected 1 to {MAX_TAKES}")
        with self._lock:
            return [self._save(stem, audio) for audio in work(self.pipeline)]

    def judge(self, source: str, prompt: str | None) -> Verdict:
        """Score a sound for a text; by default the one that the file says it was made from.

        Raises:
            ResonateError: no such sound, no text, or the judge gives no score.
        """
        from resonate_audio.audio.io import read_audio, read_recipe
        from resonate_audio.cli.reward import Clip, Failed, score_kind

        path = self.find(source)
        audio = read_audio(path)
        recipe = audio.recipe or read_recipe(path)
        if prompt is not None and not prompt.strip():
            raise InputError("prompt: is empty; give a text, or leave it out")
        text = prompt or (recipe.prompt if recipe else "")
        if not text.strip():
            raise InputError(f"{source}: does not say what it was made from; give prompt")
        with self._lock:
            [found] = score_kind(self.judges, [Clip(path, text, audio)])
        if isinstance(found, Failed):
            raise RewardError(found.reason)
        return found

    def find(self, source: str) -> Path:
        """The file that a source is: a name in one of the folders, or a path into one.

        Raises:
            InputError: there is none there.
        """
        with suppress(OSError):  # a name that is longer than a file's can be
            for folder in () if "\0" in source else self.folders:
                place = (folder / source).resolve()
                if any(place.is_relative_to(one) for one in self.folders) and place.is_file():
                    return place
        where = ", ".join(map(str, self.folders))
        raise InputError(f"source {shortened(source, 100)!r}: no such sound in {where}")

    def _save(self, stem: str, audio: Audio) -> Saved:
        from resonate_audio.audio.io import write_audio

        seed = audio.recipe.seed if audio.recipe else 0
        path = free_path(self.folders[0], f"{slug(stem)}_{seed}", self.suffix)
        write_audio(path, audio)
        prompt = audio.recipe.prompt if audio.recipe else ""
        return Saved(path, audio, is_cut=bool(self.pipeline.cut_prompts([prompt])))


def free_path(folder: Path, stem: str, suffix: str) -> Path:
    """The first of stem, stem-2, stem-3 … that is no file yet."""
    number, path = 1, folder / f"{stem}{suffix}"
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}{suffix}"
    return path
