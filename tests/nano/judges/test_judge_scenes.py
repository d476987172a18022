from __future__ import annotations

import numpy as np
import torch
from tiny_scenes import tone_scenes

from resonate_audio.nano.judges.questions import WRONG_KINDS, Event, Placement, Scene
from resonate_audio.nano.judges.scenes import (
    activity,
    at_speed,
    coloured_noise,
    draw_exam,
    numpy_generator,
    onsets_so_far,
)
from resonate_audio.nano.judges.sounds import MAX_SAMPLES

HALF = MAX_SAMPLES // 2
TWO = Scene(
    "sequence",
    (Event("beep", ("a beep",)), Event("hum", ("a hum",))),
    (Placement(0, 0, HALF // 2, 0), Placement(2, HALF, HALF // 2, 1)),
)


def test_a_scene_is_silent_where_nothing_lies() -> None:
    wave = tone_scenes().render(TWO, None)
    assert np.abs(wave[HALF // 2 : HALF]).max() == 0
    assert np.abs(wave[HALF : HALF + 1000]).max() > 0.1


def test_activity_is_where_recordings_lie() -> None:
    expected = [[1, 1, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1, 0, 0]]
    assert activity(TWO, 8).astype(int).tolist() == expected


def test_onsets_are_counted_as_they_come() -> None:
    assert onsets_so_far([TWO], 4, 6).tolist() == [[1, 1, 2, 2]]


def test_onsets_stop_at_the_most() -> None:
    assert onsets_so_far([TWO], 4, 1).tolist() == [[1, 1, 1, 1]]


def test_class_targets_are_shares_and_silence() -> None:
    targets = tone_scenes().class_targets([TWO], 8)[0]
    torch.testing.assert_close(targets.sum(dim=1), torch.ones(8))
    assert targets[0].argmax() == 0
    assert targets[2].argmax() == 4


def test_the_same_draw_gives_the_same_batch() -> None:
    def draw() -> torch.Tensor:
        rng = numpy_generator(torch.Generator().manual_seed(3))
        return tone_scenes().batch(rng, 3, 2).waves

    assert torch.equal(draw(), draw())


def test_faster_is_shorter_and_higher() -> None:
    tone = np.sin(2 * np.pi * 100 * np.arange(16_000) / 16_000).astype(np.float32)
    fast = at_speed(tone, 1.25)
    assert len(fast) == 12_800
    assert np.abs(np.fft.rfft(fast)).argmax() == round(125 * 12_800 / 16_000)


def test_noise_has_unit_power() -> None:
    noise = coloured_noise(5000, np.random.default_rng(0))
    np.testing.assert_allclose(np.square(noise).mean(), 1, rtol=1e-5)


def test_the_exam_asks_every_kind_equally_often() -> None:
    exam = draw_exam(tone_scenes(), 3, seed=0)
    assert [item.kind for item in exam] == [kind for kind in WRONG_KINDS for _ in range(3)]


def test_only_a_missing_event_changes_the_sound_and_not_the_text() -> None:
    for item in draw_exam(tone_scenes(), 5, seed=0):
        same_sound = np.array_equal(item.samples, item.wrong_samples)
        assert same_sound == (item.kind != "missing event")
        assert (item.right == item.wrong) == (item.kind == "missing event")
