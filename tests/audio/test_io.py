"""Audio files: whole, never clipped, with their recipe."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.embedded import format_recipe, parse_recipe
from resonate_audio.audio.io import (
    FORMATS,
    audio_format,
    check_output,
    decode_audio,
    encode_audio,
    peak_safe,
    read_audio,
    read_recipe,
    resample,
    write_audio,
)
from resonate_audio.core.errors import AudioError, OutputError
from resonate_audio.core.types import Audio, Recipe

SUFFIXES = sorted(FORMATS)
RATE_HZ = 16_000


def sine(
    peak: float = 0.5, frequency_hz: float = 440.0, rate_hz: int = RATE_HZ, duration_s: float = 0.5
) -> np.ndarray:
    times_s = np.arange(int(rate_hz * duration_s)) / rate_hz
    return (peak * np.sin(2 * np.pi * frequency_hz * times_s)).astype(np.float32)


def recipe(prompt: str = "a dog barks", num_rows: int = 1) -> Recipe:
    return Recipe(
        prompt=prompt,
        negative_prompt="",
        seed=2**62 + 1,
        duration_s=1 / 3,
        num_inference_steps=25,
        guidance_scale=4.5,
        model="nano",
        model_fingerprint="0123abcd",
        device="cpu",
        dtype="float32",
        version="0.1.0",
        row=num_rows - 1,
        batch_prompts=(prompt,) * num_rows,
        batch_negative_prompts=("",) * num_rows,
        batch_seeds=tuple(range(num_rows)),
    )


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_gives_the_sound_back_in_place(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"sound{suffix}"
    write_audio(path, Audio(sine(), RATE_HZ))
    back = read_audio(path)
    assert back.sample_rate_hz == RATE_HZ
    assert len(back.samples) == len(sine())
    error = back.samples - sine()
    assert np.sqrt(np.mean(error**2)) < 0.1 * np.sqrt(np.mean(sine() ** 2))  # Opus: 0.08


@pytest.mark.parametrize("prompt", ["", " ", "\n"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sound_made_without_a_prompt_is_written(suffix: str, prompt: str, tmp_path: Path) -> None:
    write_audio(tmp_path / f"a{suffix}", Audio(sine(), RATE_HZ, recipe(prompt)))
    assert read_recipe(tmp_path / f"a{suffix}").prompt == prompt


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_recipe_comes_back_from_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"sound{suffix}"
    wanted = recipe('雨 "falls", \\ then an émigré\nsings')
    write_audio(path, Audio(sine(), RATE_HZ, wanted))
    assert read_recipe(path) == wanted


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_recipe_of_a_large_batch_fits_in_every_format(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"sound{suffix}"
    wanted = recipe("a dog barks twice, then rain starts to fall on a tin roof", 500)
    write_audio(path, Audio(sine(), RATE_HZ, wanted))
    assert read_recipe(path) == wanted


@pytest.mark.parametrize("suffix", [".wav", ".mp3", ".flac", ".ogg", ".opus"])
def test_players_see_the_prompt_as_the_title(suffix: str, tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    path = tmp_path / f"sound{suffix}"
    write_audio(path, Audio(sine(), RATE_HZ, recipe("Glocken läuten, 雨")))
    with soundfile.SoundFile(path) as file:
        assert file.title == "Glocken läuten, 雨"


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_sound_that_follows_no_prompt_is_written(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"sound{suffix}"
    write_audio(path, Audio(sine(), RATE_HZ, recipe("")))
    assert read_recipe(path) == recipe("")


def test_wav_is_within_half_a_16_bit_step(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", Audio(sine(), RATE_HZ))
    error = np.abs(read_audio(tmp_path / "a.wav").samples - sine()).max()
    assert error <= 1.01 / 2**15


def test_flac_is_within_a_24_bit_step(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.flac", Audio(sine(), RATE_HZ))
    assert np.abs(read_audio(tmp_path / "a.flac").samples - sine()).max() <= 1.01 / 2**23


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_encoding_twice_decodes_to_equal_samples(suffix: str) -> None:
    kind = FORMATS[suffix]
    noise = np.random.default_rng(3).normal(0, 0.2, RATE_HZ).astype(np.float32)
    first, second = (
        decode_audio(encode_audio(Audio(noise, RATE_HZ, recipe()), kind), suffix) for _ in range(2)
    )
    assert np.array_equal(first.samples, second.samples)


def test_a_peak_over_one_is_scaled_and_not_clipped(tmp_path: Path) -> None:
    loud = sine(peak=4.0)
    write_audio(tmp_path / "a.flac", Audio(loud, RATE_HZ, recipe()))
    back = read_audio(tmp_path / "a.flac")
    np.testing.assert_allclose(back.samples, loud / np.abs(loud).max(), atol=1e-6)
    assert back.recipe is not None
    assert back.recipe.gain == pytest.approx(1 / np.abs(loud).max())


def test_a_quiet_sound_is_not_boosted() -> None:
    samples, gain = peak_safe(sine(peak=0.01))
    assert gain == 1.0
    assert np.array_equal(samples, sine(peak=0.01))


def test_peak_safe_never_leaves_a_sample_over_one() -> None:
    for peak in (1.0000001, 1.3, 7.77, 1e30):
        assert np.abs(peak_safe(sine(peak=peak))[0]).max() <= 1.0


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_samples_that_are_not_finite_are_refused(bad: float, tmp_path: Path) -> None:
    samples = sine()
    samples[7] = bad
    with pytest.raises(AudioError, match="NaN or infinite"):
        write_audio(tmp_path / "a.wav", Audio(samples, RATE_HZ))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_sound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no sample"):
        write_audio(tmp_path / "a.wav", Audio(np.zeros(0, np.float32), RATE_HZ))


def test_channels_are_averaged(tmp_path: Path) -> None:
    soundfile = pytest.importorskip("soundfile")
    soundfile.write(tmp_path / "a.wav", np.stack([sine(), -sine() / 2], 1), RATE_HZ, "FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, sine() / 4, atol=1e-7)


def test_resampling_a_sine_gives_the_sine_at_the_new_rate() -> None:
    up = resample(sine(duration_s=1.0), RATE_HZ, 44_100)
    wanted = sine(rate_hz=44_100, duration_s=1.0)
    assert len(up) == len(wanted)
    np.testing.assert_allclose(up[2000:-2000], wanted[2000:-2000], atol=1e-4)


def test_reading_at_another_rate_keeps_the_duration(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", Audio(sine(), RATE_HZ))
    back = read_audio(tmp_path / "a.wav", sample_rate_hz=24_000)
    assert back.sample_rate_hz == 24_000
    assert back.duration_s == pytest.approx(0.5)


def test_opus_carries_44100_hz_as_48000_hz(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.opus", Audio(sine(rate_hz=44_100), 44_100))
    back = read_audio(tmp_path / "a.opus")
    assert back.sample_rate_hz == 48_000
    assert back.duration_s == pytest.approx(0.5, abs=1e-3)


@pytest.mark.parametrize(
    ("wanted_hz", "file_hz"), [(8000, 8000), (22_050, 24_000), (16_000, 16_000), (96_000, 48_000)]
)
def test_a_codec_gets_the_lowest_rate_that_loses_nothing(wanted_hz: int, file_hz: int) -> None:
    assert FORMATS[".opus"].file_rate_hz(wanted_hz) == file_hz


def test_an_unknown_suffix_lists_the_known_ones() -> None:
    with pytest.raises(AudioError, match=r"'\.xyz'; write one of \.wav \.flac"):
        audio_format(Path("a.xyz"))


def test_an_existing_file_stays_without_overwrite(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    with pytest.raises(OutputError, match="--overwrite"):
        write_audio(path, Audio(sine(), RATE_HZ))
    assert path.read_bytes() == b"mine"


def test_overwrite_replaces_it(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"mine")
    write_audio(path, Audio(sine(), RATE_HZ), overwrite=True)
    assert len(read_audio(path).samples) == len(sine())


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\0\0\0\0WAVEfmt "])
def test_what_is_not_audio_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.wav"
    path.write_bytes(content)
    with pytest.raises(AudioError, match=r"odd\.wav"):
        read_audio(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"gone\.wav.*No such file"):
        read_audio(tmp_path / "gone.wav")


def test_a_file_from_elsewhere_has_no_recipe(tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", Audio(sine(), RATE_HZ))
    assert read_recipe(tmp_path / "a.wav") is None


def test_a_comment_from_elsewhere_is_no_recipe() -> None:
    assert parse_recipe('{"encoder": "x"}', "a.mp3") is None


def test_a_damaged_recipe_is_refused_by_name() -> None:
    text = format_recipe(recipe())
    with pytest.raises(AudioError, match=r"a\.mp3.*damaged"):
        parse_recipe(text.replace('"seed"', '"sead"'), "a.mp3")
    with pytest.raises(AudioError, match="damaged"):
        parse_recipe(text[:-20], "a.mp3")


def test_a_file_size_limit_leaves_nothing_behind(tmp_path: Path) -> None:
    """A real EFBIG from the kernel, in a child so that the limit dies with it."""
    code = (
        "import sys, numpy as np; from pathlib import Path\n"
        "from resonate_audio.audio.io import write_audio\n"
        "from resonate_audio.core.types import Audio\n"
        "from resonate_audio.core.errors import OutputError\n"
        "try: write_audio(Path(sys.argv[1]), Audio(np.zeros(48000, np.float32), 16000))\n"
        "except OutputError as error: print(error)\n"
    )

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))

    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.wav")],
        preexec_fn=limit,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert "a.wav" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing_behind(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a 16 kB disk needs root")
    try:
        with pytest.raises(OutputError, match="disk is full"):
            write_audio(disk / "a.wav", Audio(sine(duration_s=2.0), RATE_HZ))
        assert list(disk.iterdir()) == []
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_checking_an_output_leaves_no_trace(tmp_path: Path) -> None:
    check_output(tmp_path / "new/deep/a.wav", overwrite=False)
    assert list(tmp_path.iterdir()) == []


def test_an_output_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OutputError, match="cannot write it"):
        check_output(tmp_path / "file" / "a.wav", overwrite=False)


def test_an_output_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.wav").mkdir()
    with pytest.raises(OutputError, match="is a folder"):
        check_output(tmp_path / "a.wav", overwrite=True)


def test_a_file_name_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="File name too long"):
        check_output(tmp_path / f"{'a' * 300}.wav", overwrite=False)


def test_paths_may_be_plain_strings(tmp_path: Path) -> None:
    path = str(tmp_path / "tone.wav")
    write_audio(path, Audio(np.full(100, 0.25, dtype=np.float32), 8000))
    assert read_audio(path).sample_rate_hz == 8000
    assert read_recipe(path) is None


@pytest.mark.parametrize("left", [0.3, 0.9])
def test_a_wav_that_is_cut_off_is_refused(tmp_path: Path, left: float) -> None:
    data = encode_audio(Audio(np.zeros(32_000, np.float32), 16_000), FORMATS[".wav"])
    path = tmp_path / "cut.wav"
    path.write_bytes(data[: round(len(data) * left)])
    with pytest.raises(AudioError, match=r"cut\.wav: cut off, .* of 2\.00 s are there"):
        read_audio(path)


@pytest.mark.parametrize("left", [0.3, 0.9])
@pytest.mark.parametrize("suffix", [".mp3", ".ogg", ".opus", ".flac"])
def test_a_file_of_any_format_that_is_cut_off_is_refused(suffix: str, left: float) -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 64_000).astype(np.float32)
    data = encode_audio(Audio(noise, 16_000, recipe()), FORMATS[suffix])
    assert len(decode_audio(data, "whole").samples)
    with pytest.raises(AudioError, match=r"x: (cut off|broken)"):
        decode_audio(data[: round(len(data) * left)], "x")


def test_a_flac_that_ends_between_two_frames_is_refused() -> None:
    noise = np.random.default_rng(0).uniform(-0.1, 0.1, 64_000).astype(np.float32)
    data = encode_audio(Audio(noise, 16_000), FORMATS[".flac"])
    with pytest.raises(AudioError, match=r"x: cut off, .* of 4\.00 s are there"):
        decode_audio(data[: data.index(b"\xff\xf8", len(data) // 2)], "x")


def test_an_aiff_that_is_cut_off_is_refused() -> None:
    import io

    import soundfile

    buffer = io.BytesIO()
    soundfile.write(buffer, np.zeros(32_000, np.float32), 16_000, format="AIFF")
    assert decode_audio(buffer.getvalue(), "x").duration_s == 2.0
    with pytest.raises(AudioError, match=r"x: cut off, .* of 2\.00 s are there"):
        decode_audio(buffer.getvalue()[:32_000], "x")


def test_an_mp3_that_counts_too_many_bytes_is_whole() -> None:
    data = bytearray(encode_audio(Audio(np.zeros(64_000, np.float32), 16_000), FORMATS[".mp3"]))
    place = data.index(b"Xing") + 12  # some writers count their tags, too
    data[place : place + 4] = (2 * len(data)).to_bytes(4)
    assert decode_audio(bytes(data), "x").duration_s == pytest.approx(4.0, abs=0.1)


def test_an_mp3_with_a_tag_behind_it_is_whole() -> None:
    data = encode_audio(Audio(np.zeros(32_000, np.float32), 16_000), FORMATS[".mp3"])
    assert decode_audio(data + b"TAG" + bytes(125), "x").duration_s == pytest.approx(2.0, abs=0.1)


def test_a_wav_whose_length_was_not_known_when_it_began_is_read(tmp_path: Path) -> None:
    data = encode_audio(Audio(np.zeros(32_000, np.float32), 16_000), FORMATS[".wav"])
    path, place = tmp_path / "piped.wav", data.index(b"data") + 4
    path.write_bytes(data[:place] + b"\xff" * 4 + data[place + 4 :])
    assert read_audio(path).duration_s == pytest.approx(2.0, abs=0.01)
