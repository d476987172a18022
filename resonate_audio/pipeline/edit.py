"""Work with a sound: vary it, reword it, mend it, extend it, close it to a loop."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Unpack

import numpy as np

from resonate_audio.audio.io import FORMATS, read_audio
from resonate_audio.core.edit import LONGEST_S, Edit, Part
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import FurtherSettings
from resonate_audio.core.types import Audio, Recipe
from resonate_audio.flow.ode import OnStep
from resonate_audio.model.presets import ModelConfig
from resonate_audio.pipeline.remake import Work, remake
from resonate_audio.pipeline.request import Batch, make_batch, warn_of_idle_negatives
from resonate_audio.pipeline.stations import Stations

SEAM_S = 0.5
"""Stretch around the ends of a source that is made anew to close it to a loop."""
REWORD_STRENGTH = 0.8

Source = Audio | str | Path
"""A sound of any rate, or the file it is in, of any number of channels (their mean is taken)."""


def refuse_file_name(prompt: str) -> None:
    """Refuse a prompt that is the name of a sound file: where both may be given, it was meant.

    Raises:
        InputError: says how a file is given.
    """
    if Path(prompt).suffix.lower() in FORMATS and os.path.isfile(prompt):
        raise InputError(
            f"{prompt!r} is a file that is there, and a str is a prompt; give a sound as "
            f"Path({prompt!r})"
        )


class EditOptions(FurtherSettings, total=False):
    """What every way of editing takes besides; each means what it does in `Resonate.generate`."""

    negative_prompt: str
    takes: int
    """Sounds made together, each from its own seed."""
    seeds: int | Sequence[int] | None
    num_inference_steps: int | None
    guidance_scale: float | None
    on_step: OnStep | None


class Editing(Stations):
    """The ways of `Resonate` that start from a sound, or give one a shape in time.

    Each gives one sound a take, with the recipe that makes it again, given the source. Everything
    is checked before anything is computed.
    """

    def vary(
        self,
        source: Source,
        strength: float,
        prompt: str | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Audio]:
        """Make a sound like another one: it is noised to a level and solved from there.

        Args:
            source: the sound.
            strength: 0 gives what the model's codec makes of the source, 1 a free take; between
                them less and less of it is kept.
            prompt: what to hear; by default what the source's recipe says, else nothing.
            options: see `EditOptions`.

        Returns:
            Sounds at the model's rate, as long as the source.

        Raises:
            InputError: a value is out of range; nothing was computed.
            AudioError: the source is a file that cannot be read.
            Cancelled: ``on_step`` returned False.
        """
        audio = open_source(source, self)
        edit = Edit("vary", source_sha256(audio), strength=float(strength))
        return self._edit(edit, audio, said_of(audio, prompt), audio.duration_s, options)

    def reword(
        self,
        source: Source,
        prompt: str,
        source_prompt: str | None = None,
        strength: float = REWORD_STRENGTH,
        **options: Unpack[EditOptions],
    ) -> list[Audio]:
        """Carry a sound from what one prompt describes to what another does, in its own time.

        What both prompts agree on stays; it never goes through noise (`flow.direct_edit`).

        Args:
            source: the sound.
            prompt: what it shall be.
            source_prompt: what it is; by default what its recipe says, else nothing.
            strength: the highest noise level at which the two are compared; more changes more.
            options: see `EditOptions`.

        Returns:
            Sounds at the model's rate, as long as the source.

        Raises:
            InputError: a value is out of range; nothing was computed.
            AudioError: the source is a file that cannot be read.
            Cancelled: ``on_step`` returned False.
        """
        audio = open_source(source, self)
        edit = Edit(
            "reword",
            source_sha256(audio),
            strength=float(strength),
            source_prompt=said_of(audio, source_prompt),
        )
        return self._edit(edit, audio, said(prompt), audio.duration_s, options)

    def replace(
        self,
        source: Source,
        spans: Sequence[tuple[float, float]],
        prompt: str | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Audio]:
        """Make stretches of a sound anew; outside them not a bit changes.

        Args:
            source: the sound.
            spans: (start, end) of each stretch, seconds. The passage from old to new, 60 ms at
                either side, lies inside.
            prompt: what to hear there; by default what the source's recipe says, else nothing.
            options: see `EditOptions`.

        Returns:
            Sounds at the source's rate, as long as the source.

        Raises:
            InputError: a value is out of range; nothing was computed.
            AudioError: the source is a file that cannot be read.
            Cancelled: ``on_step`` returned False.
        """
        audio = open_source(source, self)
        pairs = tuple((float(start_s), float(stop_s)) for start_s, stop_s in spans)
        edit = Edit("replace", source_sha256(audio), spans_s=pairs)
        return self._edit(edit, audio, said_of(audio, prompt), audio.duration_s, options)

    def extend(
        self,
        source: Source,
        before_s: float = 0.0,
        after_s: float = 0.0,
        prompt: str | None = None,
        **options: Unpack[EditOptions],
    ) -> list[Audio]:
        """Let a sound begin earlier, go on longer, or both; the source itself stays bit for bit.

        Args:
            source: the sound.
            before_s: seconds to put before it.
            after_s: seconds to put after it.
            prompt: what to hear there; by default what the source's recipe says, else nothing.
            options: see `EditOptions`.

        Returns:
            Sounds at the source's rate.

        Raises:
            InputError: a value is out of range; nothing was computed.
            AudioError: the source is a file that cannot be read.
            Cancelled: ``on_step`` returned False.
        """
        audio = open_source(source, self)
        edit = Edit(
            "extend", source_sha256(audio), before_s=float(before_s), after_s=float(after_s)
        )
        duration_s = before_s + audio.duration_s + after_s
        return self._edit(edit, audio, said_of(audio, prompt), duration_s, options)

    def loop(
        self,
        what: str | Audio | Path,
        duration_s: float | None = None,
        prompt: str | None = None,
        seam_s: float = SEAM_S,
        **options: Unpack[EditOptions],
    ) -> list[Audio]:
        """Make a sound whose end goes on into its beginning, or close a sound to one.

        Args:
            what: a prompt, which is solved on a circle; or a sound (a file as a `Path`), which is
                made anew around its ends and stays its own samples between them.
            duration_s: length of a loop from a prompt, to the sample; the model's default if None.
            prompt: of a loop from a sound: what to hear around its ends; by default what its
                recipe says, else nothing.
            seam_s: of a loop from a sound: the stretch that is made anew, half of it at each end.
            options: see `EditOptions`.

        Returns:
            One turn of each loop; one from a sound has its length and its rate.

        Raises:
            InputError: a value is out of range, or the prompt is the name of a sound file that
                is there; nothing was computed.
            AudioError: the source is a file that cannot be read.
            Cancelled: ``on_step`` returned False.
        """
        if isinstance(what, str):
            refuse_file_name(what)
            duration_s = self.config.default_duration_s if duration_s is None else duration_s
            self.config.check_duration(duration_s, LONGEST_S)
            return self._edit(Edit("loop"), None, said(what), duration_s, options)
        audio = open_source(what, self)
        edit = Edit("loop", source_sha256(audio), seam_s=float(seam_s))
        return self._edit(edit, audio, said_of(audio, prompt), audio.duration_s, options)

    def sequence(
        self, parts: Sequence[Part | tuple[float, float, str]], **options: Unpack[EditOptions]
    ) -> list[Audio]:
        """Make one sound that follows one prompt after the other.

        Args:
            parts: (start, end, prompt) of each, seconds; each begins where the one before ends,
                the first at 0. The passage between two takes a quarter of a second.
            options: see `EditOptions`.

        Returns:
            Sounds at the model's rate that end with the last part.

        Raises:
            InputError: parts that overlap, leave a gap or are empty; nothing was computed.
            Cancelled: ``on_step`` returned False.
        """
        given = tuple(
            part if isinstance(part, Part) else Part(float(part[0]), float(part[1]), part[2])
            for part in parts
        )
        edit = Edit("sequence", parts=given)
        edit.check(None)
        self.config.check_duration(given[-1].stop_s, LONGEST_S)
        return self._edit(edit, None, said_in_parts(given), given[-1].stop_s, options)

    def _edit(
        self, edit: Edit, source: Audio | None, prompt: str, duration_s: float, options: EditOptions
    ) -> list[Audio]:
        work = self._planned(edit, source, prompt, duration_s, options)
        texts = [part.prompt for part in edit.parts] or [prompt]
        self.warn_of_cut_prompts([*texts, *work.batch.negatives])
        warn_of_idle_negatives(work.batch, work.sampling)
        return remake(self, work, source)

    def _planned(
        self, edit: Edit, source: Audio | None, prompt: str, duration_s: float, options: EditOptions
    ) -> Work:
        known = EditOptions.__annotations__
        if unknown := sorted(options.keys() - known.keys()):
            there = ", ".join(known)
            raise InputError(f"{unknown[0]}: no option of {edit.kind}; there are {there}")
        check_edit(edit, source)
        takes = options.get("takes", 1)
        if takes < 1:
            raise InputError(f"takes {takes}: expected 1 or more")
        # A row without a prompt is allowed here: the source says what it is.
        rows = make_batch((prompt or "-",) * takes, options.get("negative_prompt"),
                          options.get("seeds"))  # fmt: skip
        batch = Batch((prompt,) * takes, rows.negatives, rows.seeds)
        steps = options.get("num_inference_steps")
        if steps is None and source is not None:
            steps = self.config.edit_steps
        sampling = self.config.sampling(
            duration_s,
            steps,
            options.get("guidance_scale"),
            **{name: options.get(name) for name in FurtherSettings.__annotations__},
        )
        self.config.check_negative(batch.negatives)
        return Work(edit, batch, sampling, options.get("on_step"))


class Rehearsal(Editing):
    """The same ways before there are weights: each refuses what it would, and makes nothing."""

    def __init__(self, config: ModelConfig) -> None:
        """Take the place of the model with this configuration."""
        self.config = config

    def _edit(
        self, edit: Edit, source: Audio | None, prompt: str, duration_s: float, options: EditOptions
    ) -> list[Audio]:
        self._planned(edit, source, prompt, duration_s, options)
        return []


def replay_edit(
    model: Stations, recipe: Recipe, edit: Edit, source: Source | None, on_step: OnStep | None
) -> Audio:
    """Make an edited sound again from its recipe and its source.

    Raises:
        InputError: the source is missing or another one, or the recipe is broken.
        Cancelled: ``on_step`` returned False.
    """
    audio = None
    if edit.source_sha256:
        if source is None:
            raise InputError(
                f"the sound was made from another one ({edit.kind}): give the source it came from"
            )
        audio = open_source(source, model)
        found = source_sha256(audio)
        if found != edit.source_sha256:
            raise InputError(
                f"the source has the hash {found[:16]}…, but the sound was made from "
                f"{edit.source_sha256[:16]}…: give the source it came from"
            )
    check_edit(edit, audio)
    model.config.check_duration(recipe.duration_s, LONGEST_S)
    batch = Batch(recipe.batch_prompts, recipe.batch_negative_prompts, recipe.batch_seeds)
    if not 0 <= recipe.row < len(batch.seeds):
        raise InputError(f"row {recipe.row} of a batch of {len(batch.seeds)}: broken recipe")
    sampling = recipe.sampling()
    model.config.check_sampling(sampling)
    return remake(model, Work(edit, batch, sampling, on_step), audio)[recipe.row]


def open_source(source: Source, model: Stations) -> Audio:
    """A source sound, read if it is a file.

    Raises:
        AudioError: a file that cannot be read or is not audio.
        InputError: no sample, NaN, or a length that the model does not take.
    """
    audio = source if isinstance(source, Audio) else read_audio(source)
    name = "the source" if isinstance(source, Audio) else str(source)
    check_source(audio, name, model.config.min_duration_s)
    return replace(audio, samples=np.asarray(audio.samples, np.float32))


def check_edit(edit: Edit, source: Audio | None) -> None:
    """Refuse what cannot be done with a source: as `Edit.check`, and a stretch without a sample.

    Raises:
        InputError: names the field, or the stretch.
    """
    edit.check(None if source is None else source.duration_s)
    if source is None:
        return
    rate_hz = source.sample_rate_hz
    stretches = [(f"span {a:g} to {b:g} s", a, b) for a, b in edit.spans_s]
    ends = (("before_s", edit.before_s), ("after_s", edit.after_s))
    stretches += [(f"{name} {value:g}", 0.0, value) for name, value in ends if value]
    for name, start_s, stop_s in stretches:
        if round(start_s * rate_hz) == round(stop_s * rate_hz):
            raise InputError(f"{name}: holds no sample at {rate_hz} Hz; give a longer stretch")


def check_source(audio: Audio, name: str, shortest_s: float, longest_s: float = LONGEST_S) -> None:
    """Refuse a sound that nothing can be made of.

    Raises:
        InputError: no sample, NaN, or too short or too long; says so of ``name``.
    """
    shape, kind = audio.samples.shape, audio.samples.dtype
    if len(shape) != 1:
        raise InputError(f"{name} has samples of shape {shape}: expected one channel")
    if not np.issubdtype(kind, np.floating):
        raise InputError(f"{name} has samples of {kind}: expected floats, full scale at 1")
    if audio.sample_rate_hz < 1:
        raise InputError(f"{name} has {audio.sample_rate_hz} samples a second: expected 1 or more")
    if not len(audio.samples):
        raise InputError(f"{name} holds no sample: give a sound")
    if not np.isfinite(audio.samples).all():
        raise InputError(f"{name} holds NaN or infinite samples: give a sound")
    if not shortest_s <= audio.duration_s <= longest_s:
        raise InputError(
            f"{name} lasts {audio.duration_s:g} s: expected {shortest_s:g} to {longest_s:g} s"
        )


def source_sha256(audio: Audio) -> str:
    """Hash of a sound's samples and rate, whatever file they were in."""
    digest = hashlib.sha256(f"{audio.sample_rate_hz}\n".encode())
    digest.update(np.ascontiguousarray(audio.samples, dtype="<f4").tobytes())
    return digest.hexdigest()


def said(prompt: str) -> str:
    """A prompt that has to say something.

    Raises:
        InputError: it is empty.
    """
    if not prompt.strip():
        raise InputError("the prompt is empty: describe a sound")
    return prompt


def said_in_parts(parts: Sequence[Part]) -> str:
    """What a sequence says as one text, for titles and recipes."""
    return "; ".join(f"{p.start_s:g}-{p.stop_s:g} s: {p.prompt.strip()}" for p in parts)


def said_of(audio: Audio, prompt: str | None) -> str:
    """The prompt given, else the one that made the source, else none."""
    if prompt is not None:
        return prompt.strip()
    return audio.recipe.prompt if audio.recipe else ""
