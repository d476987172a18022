"""K1: no C library below gets what it cannot take: it would end the process."""

import dataclasses
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from resonate_audio.audio.decoding import MAX_SAMPLES
from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio, read_audio, write_audio
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio, Recipe

SUFFIXES = sorted(FORMATS)
TONE = (0.3 * np.sin(np.arange(16_000))).astype(np.float32)
WRONG_RATES = [0, -1, 1, 999, 384_001, 655_351, 2**31, 2**63, 44_100.0, "44100", None, float("nan")]
VORBIS = """
import numpy as np, threading
from resonate_audio.audio.io import FORMATS, decode_audio, encode_audio
from resonate_audio.core.types import Audio
threading.stack_size(256 * 1024)
def work():
    for seconds in (5, 60):
        noise = np.random.default_rng(0).standard_normal(44_100 * seconds)
        sound = Audio((0.3 * noise).astype("f4"), 44_100)
        for in_blocks in (True, False):
            found = decode_audio(encode_audio(sound, FORMATS[".ogg"], in_blocks), "x")
            assert len(found.samples) == len(sound.samples)
    print("whole")
thread = threading.Thread(target=work); thread.start(); thread.join()
"""


def test_a_minute_of_vorbis_is_written_on_a_small_stack() -> None:
    done = subprocess.run([sys.executable, "-c", VORBIS], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr


RATES = """
from resonate_audio.audio.io import FORMATS, encode_audio
from resonate_audio.core.errors import AudioError
from resonate_audio.core.types import Audio
import numpy as np
tone = np.zeros(3_000, np.float32)
for rate in (200_001, 384_000, 0, -1, 44_100.0, 2**40):
    for suffix, format in FORMATS.items():
        try:
            encode_audio(Audio(tone, rate), format)
        except AudioError:
            pass
print("whole")
"""


def test_no_sample_rate_ends_the_process() -> None:
    done = subprocess.run([sys.executable, "-c", RATES], capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, "whole"), done.stderr


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate_hz", WRONG_RATES, ids=repr)
def test_a_wrong_rate_is_refused_before_any_library_is_called(suffix: str, rate_hz: Any) -> None:
    with pytest.raises(AudioError, match=r"sample rate of .* expected a whole number from"):
        encode_audio(made(TONE, rate_hz), FORMATS[suffix])


def made(samples: Any, rate_hz: Any) -> Audio:
    """A sound without the check of its types, as callers make it who have none."""
    audio = object.__new__(Audio)
    for name, value in (("samples", samples), ("sample_rate_hz", rate_hz), ("recipe", None)):
        object.__setattr__(audio, name, value)
    return audio


def test_vorbis_and_flac_name_the_rates_that_they_cannot_hold() -> None:
    with pytest.raises(AudioError, match="Ogg Vorbis holds at most 200000 Hz, not 200001"):
        encode_audio(Audio(TONE, 200_001), FORMATS[".ogg"])
    with pytest.raises(AudioError, match="FLAC over 65,535 Hz: a multiple of 10, not 96001"):
        encode_audio(Audio(TONE, 96_001), FORMATS[".flac"])


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("rate_hz", [1_000, 8_000, 44_101, 65_530, 192_000, 200_000, 384_000])
def test_every_rate_that_is_written_is_read_back(suffix: str, rate_hz: int) -> None:
    try:
        data = encode_audio(Audio(TONE[:4_000], rate_hz), FORMATS[suffix])
    except AudioError:
        assert suffix == ".ogg"
        assert rate_hz > 200_000
        return
    assert len(decode_audio(data, suffix).samples) > 0


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 3), np.float32),
        np.zeros(0, np.float32),
        np.array(["a"]),
        np.array([None]),
        np.array([1 + 2j]),
        np.ones(100, np.int16),
        np.float32(0.5),
        np.broadcast_to(np.float32(0), MAX_SAMPLES + 1),
    ],
    ids=["two axes", "none", "text", "objects", "complex", "whole numbers", "a scalar", "too many"],
)
def test_samples_that_no_encoder_takes_are_refused(suffix: str, samples: Any) -> None:
    with pytest.raises(AudioError, match="the sound"):
        encode_audio(made(samples, 16_000), FORMATS[suffix])


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_samples_of_another_number_format_are_written(kind: Any) -> None:
    data = encode_audio(made(np.ones(100, kind), np.int64(16_000)), FORMATS[".wav"])
    assert decode_audio(data, "x").samples == pytest.approx(1.0, abs=1e-4)


def recipe_of(rows: int, length: int) -> Recipe:
    """A recipe whose texts cannot be packed: each prompt is noise."""
    rng = np.random.default_rng(rows)
    texts = tuple("".join(map(chr, rng.integers(0x4E00, 0x9FFF, length))) for _ in range(rows))
    return Recipe(
        prompt=texts[0], negative_prompt="", seed=1, duration_s=1.0, num_inference_steps=2,
        guidance_scale=1.0, model="nano", model_fingerprint="0" * 16, device="cpu",
        dtype="float32", version="0.1.0", batch_prompts=texts,
        batch_negative_prompts=("",) * rows, batch_seeds=tuple(range(rows)),
    )  # fmt: skip


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(("rows", "length"), [(1, 10), (64, 500), (500, 100), (2, 30_000)])
def test_no_recipe_is_too_long_for_the_file_that_it_is_in(
    suffix: str, rows: int, length: int, tmp_path: Path
) -> None:
    given = recipe_of(rows, length)
    write_audio(tmp_path / f"a{suffix}", Audio(TONE, 16_000, given))
    found = read_audio(tmp_path / f"a{suffix}")
    assert len(found.samples) > 0
    if suffix == ".opus" and rows * length > 10_000:  # only 51,200 bytes of a comment are read back
        assert found.recipe is None or found.recipe.batch_prompts == ()
    else:
        assert found.recipe == dataclasses.replace(given, gain=1.0)


def test_resampling_has_limits_of_rate_and_length() -> None:
    from resonate_audio.audio.io import resample

    for from_hz, to_hz in ((1, 44_100), (44_100, 2**31), (0, 16_000), (16_000, 0)):
        with pytest.raises(AudioError, match="sample rate"):
            resample(TONE, from_hz, to_hz)
    with pytest.raises(AudioError, match="samples"):
        resample(np.broadcast_to(np.float32(0), MAX_SAMPLES // 2), 1_000, 384_000)
