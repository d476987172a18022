from __future__ import annotations

import numpy as np
import pytest
from tiny_scenes import tone_scenes, tones

from resonate_audio.nano.judges.scenes import SceneSource
from resonate_audio.nano.judges.sounds import RATE_HZ, in_half, only_half
from resonate_audio.nano.judges.spoiling import SPOILED, span, spoil

SOUND = np.zeros(3 * RATE_HZ, np.float32)
SOUND[RATE_HZ : 2 * RATE_HZ] = 0.5 * np.sin(2 * np.pi * 440 * np.arange(RATE_HZ) / RATE_HZ)


def spoiled(how: str) -> np.ndarray:
    return spoil(SOUND, how, np.random.default_rng(1))


@pytest.mark.parametrize("how", SPOILED)
def test_every_way_gives_another_sound_of_the_same_length(how: str) -> None:
    before = SOUND.copy()
    made = spoiled(how)
    assert (made.shape, made.dtype) == (SOUND.shape, SOUND.dtype)
    assert np.abs(made - SOUND).max() > 0.1
    assert np.array_equal(SOUND, before)


def test_a_cut_keeps_the_beginning_and_silences_the_rest() -> None:
    made = spoiled("cut off")
    first, last = span(made)
    assert first == span(SOUND)[0]
    assert 0.2 * RATE_HZ - 50 <= last - first <= 0.6 * RATE_HZ
    assert not made[last + 50 :].any()


def test_a_click_is_all_that_is_left() -> None:
    assert 0 < np.count_nonzero(spoiled("one click")) <= RATE_HZ // 100


def test_levels_are_what_they_are_called() -> None:
    assert 10 ** (-60 / 20) <= np.abs(spoiled("too quiet")).max() <= 10 ** (-36 / 20)
    assert (np.abs(spoiled("clipped")) == 1).mean() > 0.2
    noise, sound = (np.sqrt(np.square(x).mean()) for x in (spoiled("noise"), SOUND))
    assert noise == pytest.approx(sound, rel=1e-4)


def test_glued_stretches_are_all_there_in_another_order() -> None:
    made = spoiled("glued")
    assert np.array_equal(np.sort(made), np.sort(SOUND))
    assert not np.array_equal(made, SOUND)


def test_silence_can_be_spoiled() -> None:
    for how in SPOILED:
        assert np.isfinite(
            spoil(np.zeros(RATE_HZ, np.float32), how, np.random.default_rng(0))
        ).all()


def test_the_answer_about_a_spoiled_scene_is_no_and_nothing_else_changes() -> None:
    source = tone_scenes()
    half = source.data.model_copy(update={"spoiled_share": 0.5})
    batch = SceneSource(source.sounds, source.classes, half).batch(
        np.random.default_rng(3), num_scenes=40, num_questions=6
    )
    assert 8 < sum(batch.spoiled) < 32
    for asked, is_spoiled in zip(batch.questions, batch.spoiled, strict=True):
        assert any(question.answer for question in asked) != is_spoiled
    assert batch.whole().tolist() == [not one for one in batch.spoiled for _ in range(6)]


def test_halves_are_whole_groups_and_together_everything() -> None:
    groups = [f"g{number}" for number in range(200)]
    first = [group for group in groups if in_half(group, "first")]
    second = [group for group in groups if in_half(group, "second")]
    assert sorted(first + second) == sorted(groups)
    assert 70 < len(first) < 130
    assert all(in_half(group, "all") for group in groups)


def test_a_half_holds_the_same_samples() -> None:
    sounds = tones()
    whole = [sounds.samples(index) for index in range(len(sounds.sources))]
    halves = [only_half(sounds, "first"), only_half(sounds, "second")]
    kept = [half.samples(i) for half in halves for i in range(len(half.sources))]
    assert len(kept) == len(whole)
    assert sorted(map(float, (wave.sum() for wave in kept))) == pytest.approx(
        sorted(map(float, (wave.sum() for wave in whole)))
    )
