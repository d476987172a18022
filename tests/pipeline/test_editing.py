from __future__ import annotations

import dataclasses
import math
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from tiny_model import HOP, RATE_HZ, TINY, random_networks

from resonate_audio.audio.finish import finish_sound
from resonate_audio.audio.io import read_audio, resample, write_audio
from resonate_audio.core.edit import Finish, Part
from resonate_audio.core.errors import AudioError, Cancelled, InputError
from resonate_audio.core.types import Audio
from resonate_audio.model.bigvgan import BigVGANConfig
from resonate_audio.pipeline import remake
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import PromptCutWarning

STEPS = 4
FRAME = 4 * HOP


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Resonate:
    return Resonate.from_pretrained(tiny_model, device="cpu")


def recording(seconds: float = 1.0, rate_hz: int = RATE_HZ, seed: int = 0) -> Audio:
    """A chirp in noise: no two stretches of it are alike."""
    places = np.arange(round(seconds * rate_hz)) / rate_hz
    hiss = np.random.default_rng(seed).standard_normal(len(places))
    wave = 0.3 * np.sin(2 * np.pi * (200 + 300 * places) * places) + 0.02 * hiss
    return Audio(wave.astype(np.float32), rate_hz)


SOURCE = recording()
Way = Callable[..., list[Audio]]
WAYS: dict[str, Callable[[Resonate], Callable[..., list[Audio]]]] = {
    "vary": lambda m: lambda **k: m.vary(SOURCE, 0.6, "dog", **k),
    "reword": lambda m: lambda **k: m.reword(SOURCE, "dog", "rain", **k),
    "replace": lambda m: lambda **k: m.replace(SOURCE, [(0.3, 0.6)], "dog", **k),
    "extend": lambda m: lambda **k: m.extend(SOURCE, 0.2, 0.3, "dog", **k),
    "loop a prompt": lambda m: lambda **k: m.loop("dog", 0.7, **k),
    "loop a sound": lambda m: lambda **k: m.loop(SOURCE, prompt="dog", **k),
    "sequence": lambda m: lambda **k: m.sequence([(0.0, 0.4, "dog"), (0.4, 1.0, "rain")], **k),
}
EVERY_WAY = pytest.mark.parametrize("way", list(WAYS))


# What holds for every way of editing.


@EVERY_WAY
def test_a_recipe_makes_the_sound_again_bit_for_bit_given_the_source(
    tiny: Resonate, way: str, tmp_path: Path
) -> None:
    made = WAYS[way](tiny)(takes=2, seeds=[5, 9], num_inference_steps=STEPS)[1]
    write_audio(tmp_path / "a.flac", made)
    recipe = read_audio(tmp_path / "a.flac").recipe
    assert recipe is not None
    assert recipe == made.recipe
    again = tiny.replay(recipe, source=SOURCE)
    assert np.array_equal(again.samples, made.samples)
    assert again.recipe == made.recipe


@EVERY_WAY
def test_takes_differ_and_follow_their_seeds(tiny: Resonate, way: str) -> None:
    first, second = WAYS[way](tiny)(takes=2, seeds=[5, 9], num_inference_steps=STEPS)
    [alone] = WAYS[way](tiny)(seeds=9, num_inference_steps=STEPS)
    assert not np.array_equal(first.samples, second.samples)
    np.testing.assert_allclose(alone.samples, second.samples, atol=1e-3)


@EVERY_WAY
def test_a_callback_hears_of_every_step_and_cancels(tiny: Resonate, way: str) -> None:
    told: list[tuple[int, int]] = []

    def stop_at_two(done: int, in_all: int) -> bool:
        told.append((done, in_all))
        return done < 2

    with pytest.raises(Cancelled):
        WAYS[way](tiny)(seeds=1, num_inference_steps=STEPS, on_step=stop_at_two)
    assert [done for done, _ in told] == [1, 2]


@EVERY_WAY
def test_what_is_made_is_in_range_and_finite(tiny: Resonate, way: str) -> None:
    [made] = WAYS[way](tiny)(seeds=1, num_inference_steps=STEPS)
    assert np.isfinite(made.samples).all()
    assert np.abs(made.samples).max() <= 1


@EVERY_WAY
def test_every_solver_works(tiny: Resonate, way: str) -> None:
    made = [
        WAYS[way](tiny)(seeds=1, num_inference_steps=STEPS, solver=solver)[0]
        for solver in ("euler", "heun", "ab2")
    ]
    assert made[1].recipe is not None
    assert made[1].recipe.solver == "heun"
    assert not np.array_equal(made[0].samples, made[1].samples)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"takes": 0}, "takes 0: expected 1 or more"),
        ({"seeds": -1}, "seed -1"),
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
        ({"num_inference_steps": 0}, "0 inference steps"),
        ({"guidance_scale": math.nan}, "guidance scale nan"),
        ({"solver": "rk45"}, "solver rk45"),
        ({"seed": 5}, "seed: no option of"),
    ],
)
@EVERY_WAY
def test_a_bad_option_is_refused_before_any_work(
    tiny: Resonate, way: str, values: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        WAYS[way](tiny)(**values, on_step=lambda done, in_all: pytest.fail("the model ran"))


def test_a_prompt_that_is_too_long_is_said_to_be_cut(tiny: Resonate) -> None:
    with pytest.warns(PromptCutWarning, match="cut at 9 tokens"):
        tiny.vary(SOURCE, 0.5, "rain " * 20, seeds=1, num_inference_steps=1)


# Sources.


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (Audio(np.zeros(0, np.float32), RATE_HZ), "the source holds no sample"),
        (Audio(np.full(8000, np.nan, np.float32), RATE_HZ), "holds NaN or infinite"),
        (Audio(np.zeros(100, np.float32), RATE_HZ), r"lasts 0\.0125 s: expected 0\.1 to 600 s"),
        (Audio(np.zeros(601 * 100, np.float32), 100), r"lasts 601 s: expected 0\.1 to 600 s"),
    ],
)
def test_a_source_that_cannot_be_used_is_refused(
    tiny: Resonate, source: Audio, message: str
) -> None:
    for call in (
        lambda: tiny.vary(source, 0.5),
        lambda: tiny.reword(source, "dog"),
        lambda: tiny.replace(source, [(0.0, 0.01)]),
        lambda: tiny.extend(source, after_s=1.0),
        lambda: tiny.loop(source),
    ):
        with pytest.raises(InputError, match=message):
            call()


def test_a_source_that_cannot_be_read_is_one_line_with_its_name(
    tiny: Resonate, tmp_path: Path
) -> None:
    (tmp_path / "a.wav").write_text("no sound")
    for path in (tmp_path / "a.wav", tmp_path / "none.wav"):
        with pytest.raises(AudioError, match=path.name):
            tiny.vary(path, 0.5)


def test_a_file_of_any_rate_and_channels_comes_in(tiny: Resonate, tmp_path: Path) -> None:
    stereo = np.stack([recording(0.5, 44_100).samples, recording(0.5, 44_100, 1).samples], axis=1)
    soundfile.write(tmp_path / "a.wav", stereo, 44_100)
    [varied] = tiny.vary(tmp_path / "a.wav", 0.5, seeds=1, num_inference_steps=1)
    [mended] = tiny.replace(tmp_path / "a.wav", [(0.2, 0.3)], seeds=1, num_inference_steps=1)
    assert (varied.sample_rate_hz, len(varied.samples)) == (RATE_HZ, RATE_HZ // 2)
    assert (mended.sample_rate_hz, len(mended.samples)) == (44_100, 22_050)


def test_another_source_is_refused_by_replay(tiny: Resonate) -> None:
    [made] = tiny.vary(SOURCE, 0.5, seeds=1, num_inference_steps=1)
    assert made.recipe is not None
    with pytest.raises(InputError, match="made from another one"):
        tiny.replay(made.recipe)
    with pytest.raises(InputError, match="the source has the hash"):
        tiny.replay(made.recipe, source=recording(seed=1))
    same_samples = dataclasses.replace(SOURCE, sample_rate_hz=RATE_HZ + 1)
    with pytest.raises(InputError, match="the source has the hash"):
        tiny.replay(made.recipe, source=same_samples)


def test_the_prompt_of_the_source_is_used_unless_another_is_given(tiny: Resonate) -> None:
    [source] = tiny.generate("bell", duration_s=0.5, seeds=1, num_inference_steps=1)
    prompts = [
        tiny.vary(source, 0.5, prompt, seeds=1, num_inference_steps=1)[0].recipe.prompt  # type: ignore[union-attr]
        for prompt in (None, "dog", "")
    ]
    assert prompts == ["bell", "dog", ""]


# Vary.


def test_no_strength_is_what_the_codec_makes_of_the_source(tiny: Resonate) -> None:
    [made] = tiny.vary(SOURCE, 0.0, "dog", seeds=1, num_inference_steps=STEPS)
    wave = torch.from_numpy(np.pad(SOURCE.samples, (0, -len(SOURCE.samples) % FRAME)))[None]
    from resonate_audio.core.types import Waveform

    known = tiny.to_waveform(tiny.encode(Waveform(wave, RATE_HZ))).samples[0]
    np.testing.assert_allclose(made.samples, known.numpy()[: len(SOURCE.samples)], atol=1e-5)


def test_the_whole_strength_is_a_free_take_bit_for_bit(tiny: Resonate) -> None:
    [made] = tiny.vary(SOURCE, 1.0, "dog", seeds=7, num_inference_steps=STEPS)
    [free] = tiny.generate("dog", duration_s=1.0, seeds=7, num_inference_steps=STEPS)
    assert np.array_equal(made.samples, free.samples)


def test_more_strength_keeps_less_of_the_source(tiny: Resonate) -> None:
    still = tiny.vary(SOURCE, 0.0, "dog", seeds=1)[0].samples
    moved = [
        np.abs(tiny.vary(SOURCE, strength, "dog", seeds=1)[0].samples - still).mean()
        for strength in (0.05, 0.3, 0.9)
    ]
    assert moved[0] < moved[1] < moved[2]


def test_a_strength_out_of_range_is_refused(tiny: Resonate) -> None:
    for strength in (-0.1, 1.1, math.nan):
        with pytest.raises(InputError, match="strength"):
            tiny.vary(SOURCE, strength)
        with pytest.raises(InputError, match="strength"):
            tiny.reword(SOURCE, "dog", strength=strength)


def test_rewording_to_the_same_words_is_what_the_codec_makes_of_the_source(tiny: Resonate) -> None:
    [made] = tiny.reword(SOURCE, "dog", "dog", seeds=1, num_inference_steps=STEPS)
    [still] = tiny.vary(SOURCE, 0.0, seeds=1)
    assert np.array_equal(made.samples, still.samples)


# Replace and extend.


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
def test_outside_the_spans_are_the_sources_own_bits(tiny: Resonate, rate_hz: int) -> None:
    source = recording(1.5, rate_hz)
    spans = [(1.0, 1.2), (0.25, 0.5)]
    [made] = tiny.replace(source, spans, "dog", seeds=1, num_inference_steps=STEPS)
    outside = np.ones(len(source.samples), bool)
    for start_s, stop_s in spans:
        outside[round(start_s * rate_hz) : round(stop_s * rate_hz)] = False
    assert np.array_equal(made.samples[outside], source.samples[outside])
    assert np.abs(made.samples[~outside] - source.samples[~outside]).mean() > 1e-3


@pytest.mark.parametrize("way", ["replace", "extend", "loop"])
def test_a_loud_source_is_not_made_quieter_by_what_is_put_into_it(tiny: Resonate, way: str) -> None:
    loud = Audio(np.sign(SOURCE.samples) * np.float32(0.999), RATE_HZ)
    given: dict[str, tuple[Any, ...]] = {
        "replace": ([(0.3, 0.6)],),
        "extend": (0.2, 0.3),
        "loop": (),
    }
    [made] = getattr(tiny, way)(loud, *given[way], seeds=1, num_inference_steps=STEPS)
    assert np.abs(made.samples).max() <= 1


def test_spans_that_touch_are_one(tiny: Resonate) -> None:
    options: dict[str, Any] = {"prompt": "dog", "seeds": 1, "num_inference_steps": STEPS}
    [two] = tiny.replace(SOURCE, [(0.5, 0.8), (0.2, 0.5)], **options)
    [one] = tiny.replace(SOURCE, [(0.2, 0.8)], **options)
    assert np.array_equal(two.samples, one.samples)


def test_the_last_sample_of_a_source_of_a_high_rate_can_be_replaced(tiny: Resonate) -> None:
    rate_hz, length = 384_000, 384_000 + 1
    fine = Audio(resample(recording(1.1).samples, RATE_HZ, rate_hz)[:length], rate_hz)
    [made] = tiny.replace(
        fine, [((length - 1) / rate_hz, length / rate_hz)], seeds=1, num_inference_steps=1
    )
    assert np.array_equal(made.samples[:-1], fine.samples[:-1])


def test_a_replaced_wav_file_keeps_its_own_bits_outside(tiny: Resonate, tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", recording(1.0, 22_050).samples, 22_050, subtype="PCM_16")
    [made] = tiny.replace(tmp_path / "a.wav", [(0.4, 0.6)], seeds=1, num_inference_steps=1)
    write_audio(tmp_path / "b.wav", made)
    before, after = (soundfile.read(tmp_path / f"{n}.wav", dtype="int16")[0] for n in "ab")
    assert np.array_equal(before[: 22_050 * 4 // 10], after[: 22_050 * 4 // 10])
    assert np.array_equal(before[22_050 * 6 // 10 :], after[22_050 * 6 // 10 :])


def test_replacing_everything_is_a_free_take(tiny: Resonate) -> None:
    [made] = tiny.replace(SOURCE, [(0.0, 1.0)], "dog", seeds=7, num_inference_steps=STEPS)
    assert not np.array_equal(made.samples, SOURCE.samples)


def test_what_is_far_from_the_span_is_not_heard(tiny: Resonate) -> None:
    source = recording(30.0)
    [made] = tiny.replace(source, [(14.0, 14.5)], "dog", seeds=1, num_inference_steps=STEPS)
    far = source.samples.copy()
    far[: 8 * RATE_HZ], far[22 * RATE_HZ :] = 0, 0
    [same] = tiny.replace(Audio(far, RATE_HZ), [(14.0, 14.5)], "dog", seeds=1,
                          num_inference_steps=STEPS)  # fmt: skip
    inside = slice(14 * RATE_HZ, round(14.5 * RATE_HZ))
    np.testing.assert_allclose(made.samples[inside], same.samples[inside], atol=1e-4)


def test_a_span_longer_than_the_models_window_is_replaced(tiny: Resonate) -> None:
    source = recording(8.0)
    [made] = tiny.replace(source, [(1.0, 7.0)], "dog", seeds=1, num_inference_steps=1)
    assert np.array_equal(made.samples[:RATE_HZ], source.samples[:RATE_HZ])
    assert np.array_equal(made.samples[7 * RATE_HZ :], source.samples[7 * RATE_HZ :])


@pytest.mark.parametrize(("before_s", "after_s"), [(0.5, 0.0), (0.0, 0.7), (0.3, 3.0)])
@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
def test_an_extended_sound_holds_the_source_bit_for_bit(
    tiny: Resonate, before_s: float, after_s: float, rate_hz: int
) -> None:
    source = recording(1.0, rate_hz)
    [made] = tiny.extend(source, before_s, after_s, "dog", seeds=1, num_inference_steps=STEPS)
    start = round(before_s * rate_hz)
    assert len(made.samples) == start + len(source.samples) + round(after_s * rate_hz)
    assert np.array_equal(made.samples[start : start + len(source.samples)], source.samples)
    assert made.samples[:start].any() == (before_s > 0)
    assert made.samples[start + len(source.samples) :].any() == (after_s > 0)


def test_a_tone_goes_on_into_its_extension_without_a_jump(tiny: Resonate) -> None:
    places = np.arange(RATE_HZ) / RATE_HZ
    source = Audio((0.4 * np.sin(2 * np.pi * 300 * places)).astype(np.float32), RATE_HZ)
    [made] = tiny.extend(source, 0.0, 0.5, "dog", seeds=1, num_inference_steps=STEPS)
    jumps = np.abs(np.diff(made.samples))
    assert jumps[RATE_HZ - 1] <= 1.05 * jumps[: RATE_HZ - 1].max()


# Loops.


@pytest.mark.parametrize("duration_s", [0.5, 0.7123, 3.0])
def test_a_loop_has_its_length_to_the_sample(tiny: Resonate, duration_s: float) -> None:
    [made] = tiny.loop("dog", duration_s, seeds=1, num_inference_steps=STEPS)
    assert len(made.samples) == round(duration_s * RATE_HZ)


def test_the_turn_after_the_one_that_is_cut_out_begins_as_that_one_did(tiny: Resonate) -> None:
    vocoder = BigVGANConfig(  # whose samples have no phase that runs on
        version=2, sample_rate_hz=TINY.mel.sample_rate_hz, num_bands=20, initial_channels=16,
        upsample_rates=(8, 8), upsample_kernels=(16, 16), block_kernels=(3,), dilations=(1,),
    )  # fmt: skip
    config = TINY.model_copy(update={"vocoder": vocoder})
    tiny = Resonate(random_networks(config, seed=0), tiny.text_encoder, device="cpu")
    circle = torch.randn(
        1, 40, TINY.vae.latent_channels, generator=torch.Generator().manual_seed(0)
    )
    around = remake.halo_frames(tiny)
    places = torch.arange(-around, 40 + around) % 40
    with torch.no_grad():
        [decoded] = remake.decode(tiny, circle[:, places], len(places) * FRAME)
    first, last = around * FRAME, (around + 40) * FRAME
    near = 2 * FRAME
    torch.testing.assert_close(
        torch.from_numpy(decoded[first - near : first + near]),
        torch.from_numpy(decoded[last - near : last + near]),
        atol=1e-6, rtol=1e-4,
    )  # fmt: skip


def test_what_follows_a_turn_passes_into_its_beginning() -> None:
    samples = np.concatenate([np.ones(100), np.full(900, 2.0), np.full(20, 3.0)])
    made = remake.closed(samples.astype(np.float32), 1000)
    assert len(made) == 1000
    assert made[0] == pytest.approx(3.0, abs=0.1)
    assert made[19] == pytest.approx(1.0, abs=0.1)
    assert np.array_equal(made[20:], samples[20:1000].astype(np.float32))


def test_a_period_in_another_number_of_samples_is_the_same_wave() -> None:
    def wave(num_samples: int) -> np.ndarray:
        angle = 2 * np.pi * np.arange(num_samples) / num_samples
        return (np.sin(3 * angle) + 0.3 * np.cos(20 * angle)).astype(np.float32)

    for num_samples in (900, 1000, 1001, 1200):
        np.testing.assert_allclose(remake.periodic(wave(1000), num_samples), wave(num_samples),
                                   atol=1e-5)  # fmt: skip


def test_the_quietest_place_is_found_across_the_ends() -> None:
    samples = np.ones(1000, np.float32)
    samples[np.arange(-40, 30) % 1000] = 0.1
    assert remake.quietest(samples, 20) in {*range(0, 12), *range(978, 1000)}


@pytest.mark.parametrize("rate_hz", [RATE_HZ, 44_100])
def test_a_sound_closed_to_a_loop_keeps_its_own_bits_between_its_ends(
    tiny: Resonate, rate_hz: int
) -> None:
    source = recording(1.5, rate_hz)
    [made] = tiny.loop(source, prompt="dog", seam_s=0.4, seeds=1, num_inference_steps=STEPS)
    kept = slice(round(0.21 * rate_hz), len(source.samples) - round(0.21 * rate_hz))
    assert len(made.samples) == len(source.samples)
    assert np.array_equal(made.samples[kept], source.samples[kept])
    assert not np.array_equal(made.samples[: kept.start], source.samples[: kept.start])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.loop("dog", 0.05), r"duration of 0\.05 s: tiny makes 0\.1 to 600 s"),
        (lambda m: m.loop(" ", 1.0), "the prompt is empty"),
        (lambda m: m.loop(SOURCE, seam_s=1.0), "seam_s 1: expected more than 0 and less than"),
        (lambda m: m.reword(SOURCE, ""), "the prompt is empty"),
        (lambda m: m.replace(SOURCE, [(0.5, 1.5)]), r"within the source's 0 to 1 s"),
        (lambda m: m.extend(SOURCE), "before_s 0 and after_s 0"),
        (lambda m: m.replace(SOURCE, [(0.5, 0.500001)]), "span 0.5 to 0.500001 s: holds no sample"),
        (lambda m: m.extend(SOURCE, after_s=1e-6), "after_s 1e-06: holds no sample at 8000 Hz"),
        (
            lambda m: m.replace(recording(1.234625), [(0.5, 1.23463)]),
            r"within the source's 0 to 1\.234625 s",
        ),
        (
            lambda m: m.sequence([(0.0, 1.0, "dog"), (0.5, 2.0, "rain")]),
            "two prompts for one moment",
        ),
        (lambda m: m.sequence([Part(0.0, 601.0, "dog")]), "duration of 601"),
    ],
)
def test_a_value_that_cannot_be_is_refused(
    tiny: Resonate, call: Callable[[Resonate], object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        call(tiny)


def test_the_name_of_a_sound_file_is_no_prompt_of_a_loop(tiny: Resonate, tmp_path: Path) -> None:
    path = tmp_path / "one.wav"
    write_audio(path, SOURCE)
    with pytest.raises(InputError, match=r"one\.wav' is a file that is there, and a str is a pro"):
        tiny.loop(str(path))


# Sequences and length.


def test_each_part_of_a_sequence_follows_its_own_prompt(tiny: Resonate) -> None:
    def made(*prompts: str) -> np.ndarray:
        parts = [(0.0, 0.6, prompts[0]), (0.6, 1.2, prompts[1])]
        return tiny.sequence(parts, seeds=1, num_inference_steps=STEPS)[0].samples

    both, other = made("dog", "rain"), made("dog", "bell")
    half = len(both) // 2
    assert np.abs(both - other)[half:].mean() > 3 * np.abs(both - other)[: half // 2].mean()


def test_a_sequence_of_one_prompt_is_that_prompt(tiny: Resonate) -> None:
    [made] = tiny.sequence([(0.0, 1.0, "dog")], seeds=1, num_inference_steps=STEPS)
    [plain] = tiny.generate("dog", duration_s=1.0, seeds=1, num_inference_steps=STEPS)
    assert np.array_equal(made.samples, plain.samples)
    assert made.recipe is not None
    assert made.recipe.prompt == "0-1 s: dog"


def test_a_sound_longer_than_the_window_is_made_and_made_again(tiny: Resonate) -> None:
    [long] = tiny.generate("dog", duration_s=9.3, seeds=1, num_inference_steps=STEPS)
    assert len(long.samples) == round(9.3 * RATE_HZ)
    assert long.recipe is not None
    assert np.array_equal(tiny.replay(long.recipe).samples, long.samples)


def test_memory_does_not_grow_with_the_length_beyond_the_sound(tiny: Resonate) -> None:
    peaks = []
    for duration_s in (10.0, 40.0):
        tracemalloc.start()
        tiny.generate("dog", duration_s=duration_s, seeds=1, num_inference_steps=1)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] - peaks[0] < 40 * RATE_HZ * 4 * 10


# Finish.


def test_a_finished_sound_is_made_again_finished(tiny: Resonate) -> None:
    [plain] = tiny.generate("dog", duration_s=0.5, seeds=1, num_inference_steps=STEPS)
    made = finish_sound(plain, Finish(length_s=0.3, fade_s=0.02, loudness_lufs=-20.0))
    assert made.recipe is not None
    again = tiny.replay(made.recipe)
    assert np.array_equal(again.samples, made.samples)
    assert again.recipe == made.recipe


@pytest.mark.parametrize(
    ("first", "second", "is_one"),
    [
        (Finish(trim_db=-30.0), Finish(normalize_db=-6.0), True),
        (Finish(trim_db=-30.0), Finish(length_s=0.5, fade_s=0.1), True),
        (Finish(fade_s=0.1), Finish(length_s=0.5), False),
        (Finish(trim_db=-30.0), Finish(trim_db=-20.0), False),
        (Finish(loudness_lufs=-20.0), Finish(normalize_db=-6.0), False),
    ],
)
def test_a_sound_that_is_finished_twice_is_made_again_or_says_no_recipe(
    tiny: Resonate, first: Finish, second: Finish, is_one: bool
) -> None:
    [plain] = tiny.generate("dog", duration_s=1.0, seeds=1, num_inference_steps=STEPS)
    made = finish_sound(finish_sound(plain, first), second)
    assert (made.recipe is not None) == is_one
    if made.recipe is not None:
        assert np.array_equal(tiny.replay(made.recipe).samples, made.samples)


def test_a_recipe_whose_stretch_holds_no_sample_is_refused(tiny: Resonate) -> None:
    [made] = tiny.replace(SOURCE, [(0.3, 0.6)], seeds=1, num_inference_steps=1)
    assert made.recipe is not None
    assert made.recipe.edit is not None
    edit = dataclasses.replace(made.recipe.edit, spans_s=((0.5, 0.500001),))
    with pytest.raises(InputError, match="holds no sample at 8000 Hz"):
        tiny.replay(dataclasses.replace(made.recipe, edit=edit), source=SOURCE)


def test_a_plain_recipe_is_written_as_before(tiny: Resonate) -> None:
    from resonate_audio.audio.embedded import format_recipe

    [plain] = tiny.generate("dog", duration_s=0.5, seeds=1, num_inference_steps=1)
    assert plain.recipe is not None
    assert '"edit"' not in format_recipe(plain.recipe)
    assert '"finish"' not in format_recipe(plain.recipe)


def test_resampling_there_and_back_is_not_what_keeps_the_bits() -> None:
    back = resample(resample(recording(1.0, 44_100).samples, 44_100, RATE_HZ), RATE_HZ, 44_100)
    assert not np.array_equal(back, recording(1.0, 44_100).samples)


@pytest.mark.parametrize("prompt", ["wind blows", "rain falls on leaves"])
def test_the_seam_of_a_loop_does_not_fade_as_the_ends_did(prompt: str) -> None:
    """Hearing a quarter of a second, nano made seams of 5 to 7 dB less."""
    model = Resonate.from_pretrained("nano", device="cpu")
    [sound] = model.generate(prompt, duration_s=4.0, seeds=1)
    rate_hz = sound.sample_rate_hz
    [loop] = model.loop(sound, seeds=1)
    seam = np.concatenate([loop.samples[-rate_hz // 5 :], loop.samples[: rate_hz // 5]])
    body = loop.samples[rate_hz : 2 * rate_hz]
    assert abs(20 * np.log10(seam.std() / body.std())) < 3
