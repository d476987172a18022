"""Sounds made together have the bits that they have alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from resonate_audio.audio.io import FORMATS, encode_audio
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Audio
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import Batch, make_batch
from resonate_audio.serving.sounds.rowwise import can_batch, generate_alone, generate_together

SIXTEEN = make_batch([f"sound {row % 5} of rain" for row in range(16)], "", range(40, 56))
SHORT = Sampling(1.0, 2, 1.0)


@pytest.fixture(scope="module")
def nano() -> Resonate:
    return Resonate.from_pretrained("nano", "cpu")


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Resonate:
    """A model that guidance is added to; nano has its inside."""
    return Resonate.from_pretrained(tiny_model, "cpu")


def together(model: Resonate, batch: Batch, sampling: Sampling) -> list[Audio]:
    made = generate_together(model, batch, sampling, lambda _: [True] * len(batch.seeds))
    sounds = [sound for sound in made if sound is not None]
    assert len(sounds) == len(batch.seeds)
    return sounds


def files(sounds: list[Audio]) -> list[bytes]:
    return [encode_audio(sound, FORMATS[".wav"]) for sound in sounds]


def alone(model: Resonate, batch: Batch, sampling: Sampling) -> list[bytes]:
    parts = [batch.part(row, row + 1) for row in range(len(batch.seeds))]
    return files([generate_alone(model, part, sampling) for part in parts])


def test_sixteen_sounds_made_together_are_the_files_that_each_is_alone(nano: Resonate) -> None:
    assert files(together(nano, SIXTEEN, SHORT)) == alone(nano, SIXTEEN, SHORT)


@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
@pytest.mark.parametrize("duration_s", [0.1, 0.73])
def test_so_are_three_at_any_guidance_and_length(
    plain: Resonate, scale: float, duration_s: float
) -> None:
    batch, sampling = SIXTEEN.part(3, 6), Sampling(duration_s, 2, scale)
    assert files(together(plain, batch, sampling)) == alone(plain, batch, sampling)


@pytest.mark.parametrize("duration_s", [0.1, 0.73])
def test_so_are_three_of_nano_at_any_length(nano: Resonate, duration_s: float) -> None:
    batch, sampling = SIXTEEN.part(3, 6), Sampling(duration_s, 2, 1.0)
    assert files(together(nano, batch, sampling)) == alone(nano, batch, sampling)


def test_so_are_those_with_and_without_a_negative_prompt(plain: Resonate) -> None:
    batch = make_batch(["a dog", "rain", "a dog"], ["wind", "", "bell"], 7)
    sampling = Sampling(1.0, 2, 4.5)
    assert files(together(plain, batch, sampling)) == alone(plain, batch, sampling)


def test_a_sound_made_in_company_replays_alone_and_does_not_tell_of_the_others(
    nano: Resonate,
) -> None:
    sound = together(nano, SIXTEEN, SHORT)[5]
    assert sound.recipe is not None
    assert sound.recipe.batch_prompts == (SIXTEEN.prompts[5],)
    assert bool((nano.replay(sound.recipe).samples == sound.samples).all())


def test_rows_that_are_no_longer_wanted_leave_and_do_not_move_the_others(nano: Resonate) -> None:
    batch = SIXTEEN.part(0, 4)
    told: list[int] = []

    def still_wanted(step: int) -> list[bool]:
        told.append(step)
        return [True, step < 1, True, step < 2]

    made = generate_together(nano, batch, Sampling(1.0, 3, 1.0), still_wanted)
    assert told == [1, 2, 3]
    assert made[1] is None
    assert made[3] is None
    expected = alone(nano, batch, Sampling(1.0, 3, 1.0))
    assert files([made[0], made[2]]) == [expected[0], expected[2]]  # type: ignore[list-item]


def test_a_batch_that_nobody_wants_stops_at_once(nano: Resonate) -> None:
    told: list[int] = []

    def still_wanted(step: int) -> list[bool]:
        told.append(step)
        return [False, False]

    batch = SIXTEEN.part(0, 2)
    assert generate_together(nano, batch, Sampling(1.0, 9, 1.0), still_wanted) == [None, None]
    assert told == [1]


def test_company_is_tried_out_before_it_is_allowed(nano: Resonate, tiny_model: Path) -> None:
    assert can_batch(nano)
    assert not can_batch(Resonate.from_pretrained(tiny_model, "cpu", torch.bfloat16))
