"""Lists of pairs of sounds: read, checked, encoded, drawn."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pair_lists import RATE_HZ, noise, tone, write_pairs
from tiny_model import TINY

from resonate_audio.audio.io import write_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.errors import AudioError, ManifestError
from resonate_audio.core.types import Audio, TextFeatures
from resonate_audio.model.folder import read_networks
from resonate_audio.training.algorithms.pairs import (
    EncodedSounds,
    encode_files,
    fit_length,
    make_pair_set,
    read_pairs,
)

NUM_FRAMES = 8
FRAME = TINY.frame_samples


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    return write_pairs(tmp_path)


def change(file: Path, number: int, **fields: Any) -> None:
    """Change fields of one line."""
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[number] |= fields
    file.write_text("".join(f"{json.dumps(line)}\n" for line in lines))


def encode(tiny_model: Path, *paths: Path, num_frames: int = NUM_FRAMES) -> EncodedSounds:
    vae = read_networks(tiny_model).vae
    return encode_files(paths, vae, MelFrontEnd(TINY.mel), num_frames)


def test_a_list_gives_its_pairs_and_every_sound_once(listed: Path) -> None:
    change(listed, 1, chosen="clips/w0.wav")
    found = read_pairs(listed)
    assert [pair.prompt for pair in found.pairs] == ["dog", "rain", "bell"]
    assert [path.name for path in found.files()] == [
        "w0.wav", "l0.wav", "l1.wav", "w2.wav", "l2.wav"
    ]  # fmt: skip


def test_only_text_and_files_are_needed(listed: Path) -> None:
    line = {"prompt": "dog", "chosen": "clips/w0.wav", "rejected": "clips/l0.wav"}
    listed.write_text(json.dumps(line) + "\n\n")
    assert read_pairs(listed).pairs[0].num_raters == 1


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"prompt": " "}, "prompt is empty; a pair needs the text"),
        ({"chosen": "clips/none.wav"}, "chosen: there is no file"),
        ({"rejected": "clips/none.wav"}, "rejected: there is no file"),
        ({"rejected": "clips"}, "rejected: there is no file"),
        ({"rejected": "clips/w1.wav"}, "chosen and rejected are the same file"),
        ({"prompt": 7}, "prompt: Input should be a valid string"),
        ({"margin": 1.5}, "margin: Input should be less than or equal to 1"),
        ({"loser": "x"}, "loser: unknown field"),
    ],
)
def test_a_line_that_is_no_pair_is_named(
    listed: Path, fields: dict[str, Any], message: str
) -> None:
    change(listed, 1, **fields)
    with pytest.raises(ManifestError, match=rf"pairs\.jsonl:2: .*{message}"):
        read_pairs(listed)


@pytest.mark.parametrize("line", ["{broken", "[1]", '{"prompt": "dog"}'])
def test_a_broken_line_is_named_by_its_number(listed: Path, line: str) -> None:
    listed.write_text(listed.read_text() + line + "\n")
    with pytest.raises(ManifestError, match=r"pairs\.jsonl:4: "):
        read_pairs(listed)


@pytest.mark.parametrize("text", ["", "\n\n"])
def test_a_list_without_a_pair_is_refused(listed: Path, text: str) -> None:
    listed.write_text(text)
    with pytest.raises(ManifestError, match=r"no pair in it; `resonate listen export`"):
        read_pairs(listed)


def test_a_missing_list_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.jsonl: cannot read it"):
        read_pairs(tmp_path / "none.jsonl")


def test_what_is_too_long_loses_its_end_and_what_is_too_short_is_followed_by_silence() -> None:
    wave = torch.arange(1.0, 5.0)
    assert fit_length(wave, 3).tolist() == [1, 2, 3]
    assert fit_length(wave, 6).tolist() == [1, 2, 3, 4, 0, 0]


def test_a_long_sound_is_encoded_as_its_beginning(tiny_model: Path, tmp_path: Path) -> None:
    whole = tone(440, 3 * NUM_FRAMES * FRAME / RATE_HZ)
    write_audio(tmp_path / "long.wav", whole)
    write_audio(tmp_path / "cut.wav", Audio(whole.samples[: NUM_FRAMES * FRAME], RATE_HZ))
    found = encode(tiny_model, tmp_path / "long.wav", tmp_path / "cut.wav")
    assert found.mean.shape[1] == NUM_FRAMES
    torch.testing.assert_close(found.mean[0], found.mean[1])
    assert (found.num_cut, found.num_padded) == (1, 0)


def test_silence_after_a_short_sound_is_encoded_with_it(tiny_model: Path, tmp_path: Path) -> None:
    short = tone(440, 2 * FRAME / RATE_HZ)
    padded = np.pad(short.samples, (0, (NUM_FRAMES - 2) * FRAME))
    write_audio(tmp_path / "short.wav", short)
    write_audio(tmp_path / "padded.wav", Audio(padded, RATE_HZ))
    found = encode(tiny_model, tmp_path / "short.wav", tmp_path / "padded.wav")
    torch.testing.assert_close(found.mean[0], found.mean[1])
    assert (found.num_cut, found.num_padded) == (0, 1)


def test_another_rate_is_brought_to_the_models(tiny_model: Path, tmp_path: Path) -> None:
    seconds = NUM_FRAMES * FRAME / RATE_HZ
    for rate_hz in (RATE_HZ, 3 * RATE_HZ):
        times = np.arange(round(seconds * rate_hz)) / rate_hz
        samples = (0.3 * np.sin(2 * np.pi * 500 * times)).astype(np.float32)
        write_audio(tmp_path / f"{rate_hz}.wav", Audio(samples, rate_hz))
    one, other = encode(tiny_model, *sorted(tmp_path.glob("*.wav"))).mean
    inner = slice(2, -2)
    torch.testing.assert_close(one[inner], other[inner], atol=0.1, rtol=0.1)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(4000, np.float32), "is silent from end to end"),
        (np.full(4000, np.nan, np.float32), "holds NaN or infinite samples"),
        (np.zeros(0, np.float32), "holds no sample"),
    ],
)
def test_a_sound_that_cannot_be_heard_is_named(
    tiny_model: Path, tmp_path: Path, samples: np.ndarray, message: str
) -> None:
    import soundfile

    soundfile.write(tmp_path / "bad.wav", samples, RATE_HZ, subtype="FLOAT")
    with pytest.raises(AudioError, match=rf"bad\.wav: {message}"):
        encode(tiny_model, tmp_path / "bad.wav")


def test_a_text_that_ends_in_wav_is_no_sound(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.wav").write_text("hello")
    with pytest.raises(AudioError, match=r"bad\.wav: not an audio file"):
        encode(tiny_model, tmp_path / "bad.wav")


def number_of(texts: list[str]) -> TextFeatures:
    """A text's length as its features."""
    values = torch.tensor([float(len(text)) for text in texts])
    return TextFeatures(values[:, None, None], values[:, None])


def test_a_pair_is_drawn_with_its_own_sounds_and_text(tiny_model: Path, listed: Path) -> None:
    found = read_pairs(listed)
    sounds = encode(tiny_model, *found.files())
    sharp = replace(sounds, std=torch.zeros_like(sounds.std))
    pairs = make_pair_set(found, sharp, number_of)
    drawn = pairs.draw(torch.tensor([2, 0]), lambda z: 2 * z, torch.Generator())
    torch.testing.assert_close(drawn.winners, 2 * sounds.mean[[4, 0]])
    torch.testing.assert_close(drawn.losers, 2 * sounds.mean[[5, 1]])
    assert drawn.features.pooled.flatten().tolist() == [len("bell"), len("dog")]


def test_latents_are_drawn_from_the_posterior() -> None:
    mean, std = torch.full((1, 4000, 1), 3.0), torch.full((1, 4000, 1), 0.5)
    drawn = EncodedSounds(mean, std, 0, 0).sample(torch.tensor([0]), torch.Generator())
    assert drawn.mean().item() == pytest.approx(3.0, abs=0.05)
    assert drawn.std().item() == pytest.approx(0.5, abs=0.05)


def test_another_sound_under_the_same_name_is_another_list(listed: Path) -> None:
    before = read_pairs(listed).fingerprint()
    assert read_pairs(listed).fingerprint() == before
    write_audio(listed.parent / "clips" / "l2.wav", noise(9), overwrite=True)
    assert read_pairs(listed).fingerprint() != before
