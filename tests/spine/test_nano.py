"""All stations on the embedded model, as a user gets it."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from resonate_audio.audio.io import read_audio
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Recipe
from resonate_audio.model.hub import bundled_models
from resonate_audio.pipeline.path import Resonate

MAX_BYTES = 80_000_000
PROMPTS = ["a dog barks", "rain falling", "a rooster crows", "a clock ticking"]
PROMPTS += ["thunder", "a bell rings", "a piano plays", "rain falls while a dog barks"]
SEEDS = [11, 5, 7, 3, 2, 13, 17, 19]
SHORT = Sampling(duration_s=1.0, num_inference_steps=3, guidance_scale=1.0)


@pytest.fixture(scope="module")
def nano() -> Resonate:
    return Resonate.from_pretrained("nano", device="cpu", local_files_only=True)


def resonate(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own, as from a shell."""
    command = [sys.executable, "-m", "resonate_audio.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True)


def latents(nano: Resonate, rows: list[int]) -> torch.Tensor:
    features = nano.encode_text([PROMPTS[row] for row in rows])
    negative = nano.encode_negative([""] * len(rows))
    return nano.sample_latents(features, negative, [SEEDS[row] for row in rows], SHORT).values


def test_each_station_hands_on_what_the_next_one_takes(nano: Resonate) -> None:
    features = nano.encode_text(PROMPTS[:2])
    negative = nano.encode_negative(["", ""])
    made = nano.sample_latents(features, negative, SEEDS[:2], SHORT)
    mel = nano.decode(made)
    waveform = nano.vocode(mel)
    config = nano.config
    frames = config.num_frames(SHORT.duration_s)
    assert features.tokens.shape == (2, config.text_encoder.num_tokens, config.text_encoder.dim)
    assert made.values.shape == (2, frames, config.vae.latent_channels)
    assert mel.values.shape == (2, config.mel.num_bands, frames * config.vae.hops_per_frame)
    assert waveform.samples.shape == (2, frames * config.frame_samples)
    assert waveform.sample_rate_hz == 44_100


@pytest.mark.parametrize("rows", [[0], [2, 0, 1], [7, 6, 5, 4, 3, 2, 1, 0]], ids=len)
def test_a_seed_gives_the_same_latents_in_any_batch_and_at_any_position(
    nano: Resonate, rows: list[int]
) -> None:
    together = latents(nano, rows)
    for place, row in enumerate(rows):
        torch.testing.assert_close(together[place], latents(nano, [row])[0], rtol=1e-3, atol=1e-3)


def test_what_is_said_decides_what_is_heard(nano: Resonate) -> None:
    dog, rain = nano.generate(PROMPTS[:2], seeds=[7, 7], duration_s=1.0, num_inference_steps=3)
    assert np.abs(dog.samples - rain.samples).max() > 0.05


def test_a_sound_has_the_length_asked_for_and_keeps_in_range(nano: Resonate) -> None:
    (audio,) = nano.generate("thunder", seeds=7, duration_s=1.25, num_inference_steps=3)
    assert len(audio.samples) == round(1.25 * 44_100)
    assert 0.01 < np.abs(audio.samples).max() <= 1.0


def test_another_process_replays_the_same_bits(tmp_path: Path) -> None:
    made = resonate(
        tmp_path, "generate", *PROMPTS[:3], "--seed", "7", "--duration", "2", "-o", "a.flac"
    )
    assert made.returncode == 0, made.stderr
    again = resonate(tmp_path, "replay", "a-2.flac", "-o", "b.flac")
    assert again.returncode == 0, again.stdout + again.stderr
    assert np.array_equal(
        read_audio(tmp_path / "a-2.flac").samples, read_audio(tmp_path / "b.flac").samples
    )


def test_the_doctor_finds_nothing_wrong(tmp_path: Path) -> None:
    done = resonate(tmp_path, "doctor", "--offline")
    assert done.returncode == 0, done.stdout
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("self-test")]
    assert line.split()[1] == "ok"


def test_the_embedded_model_is_listed_with_its_licence(tmp_path: Path) -> None:
    done = resonate(tmp_path, "models")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("nano ")]
    assert "installed" in line
    assert "CC BY-SA 4.0" in line


def test_the_embedded_model_is_small_and_complete() -> None:
    folder = bundled_models()["nano"]
    sizes = {path.name: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < MAX_BYTES
    assert {"README.md", "LICENSES.md", "known_answer.json", "model_index.json"} <= sizes.keys()


def test_a_sound_of_the_nano_before_is_refused_in_one_line_that_says_who_replays_it(
    nano: Resonate,
) -> None:
    recipe = Recipe(
        "a dog barks", "", 7, 5.0, 25, 4.5, "nano", "0123456789abcdef", "cpu", "float32", "0.1.0"
    )
    with pytest.raises(InputError) as caught:
        nano.replay(recipe)
    said = str(caught.value)
    assert "weights have changed since; version 0.1.0 has those" in said
    assert "\n" not in said


def test_nano_grpo_is_nano_with_an_adapter_and_opens_with_its_settings(nano: Resonate) -> None:
    taught = Resonate.from_pretrained("nano-grpo", device="cpu", local_files_only=True)
    assert not (bundled_models()["nano-grpo"] / "transformer").exists()
    assert taught.config == nano.config
    assert taught.fingerprint != nano.fingerprint
