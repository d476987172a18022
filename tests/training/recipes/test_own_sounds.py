"""`resonate train sft --folder`: from somebody's sounds to an adapter that is heard."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import pytest
from tiny_model import TINY, random_networks, write_text_encoder

from resonate_audio.audio.io import read_audio, read_recipe, write_audio
from resonate_audio.cli.main import run
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.core.errors import InputError
from resonate_audio.core.types import Audio
from resonate_audio.data.manifest import Clip
from resonate_audio.data.sound_files import SoundFiles
from resonate_audio.model.adapter import read_adapter
from resonate_audio.model.folder import write_networks
from resonate_audio.model.presets import with_few_steps
from resonate_audio.pipeline.path import Resonate
from resonate_audio.training.recipes.own_sounds import (
    captions_told,
    find_clips,
    recipe_for,
    words_of,
)

RATE_HZ = 8000


def write_tone(path: Path, pitch_hz: float) -> None:
    times = np.arange(RATE_HZ // 2) / RATE_HZ
    wave = 0.5 * np.sin(2 * np.pi * pitch_hz * times)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_audio(path, Audio(wave.astype(np.float32), RATE_HZ))


def write_sounds(folder: Path) -> Path:
    write_tone(folder / "dog_bark-01.wav", 200)
    write_tone(folder / "x.wav", 400)
    (folder / "x.txt").write_text("a bell\nit rings\n")
    write_tone(folder / "yard" / "RainOnRoof2.flac", 300)
    return folder


def clips_of(folder: Path) -> list[Clip]:
    files = SoundFiles(folder)
    return list(find_clips(files, captions_told(files)))


def test_a_caption_lies_beside_a_sound_or_is_its_name(tmp_path: Path) -> None:
    clips = clips_of(write_sounds(tmp_path / "mine"))
    assert [(clip.caption, clip.captions) for clip in clips] == [
        ("dog bark", ()),
        ("a bell", ("it rings",)),
        ("rainonroof", ()),
    ]


def test_a_name_without_words_asks_for_a_caption(tmp_path: Path) -> None:
    assert words_of("yard/Dog_Barks (2).wav") == "dog barks"
    write_tone(tmp_path / "0001.wav", 200)
    with pytest.raises(InputError, match=r"0001\.wav: no caption; write one into 0001\.txt"):
        clips_of(tmp_path)


def test_what_was_captioned_by_its_name_or_left_out_is_said(
    tiny_model: Path, tmp_path: Path
) -> None:
    folder = write_sounds(tmp_path / "mine")
    (folder / "meow.m4a").touch()
    said: list[str] = []
    recipe_for(folder, str(tiny_model), tmp_path / "run", True, 2, said.append)
    assert said[1:] == [
        "note: 2 of them have no text and are captioned by their name: "
        "dog_bark-01.wav is “dog bark”",
        "note: left out as of a kind that cannot be read (.m4a, …): 1",
    ]


SETTINGS = [
    "listen.duration_s=0.5",
    "listen.num_inference_steps=2",
    "optim.learning_rate=0.05",
    "ema.kind=off",
    "run.device=cpu",
    "run.precision=float32",
    "run.sample_every=0",
]


def learn(folder: Path, model: Path, output: Path) -> int:
    """The command, with few steps and no picture but at the end."""
    command = ["train", "sft", "--folder", str(folder), "--lora", "--steps", "2", "-m", str(model)]
    settings = [word for setting in SETTINGS for word in ("--set", setting)]
    return run([*command, "-o", str(output), *settings])


@pytest.fixture(scope="module")
def learnt(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one command makes of a folder of sounds."""
    place = tmp_path_factory.mktemp("own")
    assert learn(write_sounds(place / "mine"), tiny_model, place / "run") == 0
    return place / "run"


def test_a_folder_becomes_an_adapter_that_is_heard_and_replays(
    learnt: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    adapter = learnt / "export" / "adapter.safetensors"
    make = ["generate", "dog bark", "--seed", "1", "--steps", "3", "--device", "cpu"]
    model = ["--model", str(tiny_model)]
    assert run([*make, *model, "-o", "before.wav"]) == 0
    assert run([*make, *model, "--adapter", str(adapter), "-o", "after.wav"]) == 0
    assert run([*make, *model, "--adapter", f"{adapter}:0", "-o", "none.wav"]) == 0
    before, after, none = (
        read_audio(tmp_path / f"{name}.wav").samples for name in ("before", "after", "none")
    )
    np.testing.assert_array_equal(before, none)
    assert np.abs(before - after).max() > 1e-2
    recipe = read_recipe(tmp_path / "after.wav")
    assert recipe is not None
    assert recipe.adapters == (str(adapter.resolve()),)
    assert run(["replay", "after.wav"]) == 0


def test_the_export_of_a_training_loads_as_a_model_by_its_run_folder(
    learnt: Path, tiny_model: Path, tmp_path: Path
) -> None:
    """The merged model makes what model and adapter make, to rounding."""
    adapter = learnt / "export" / "adapter.safetensors"
    beside = Resonate.from_pretrained(tiny_model, device="cpu", adapters=[adapter])
    sounds = [
        model.generate("dog bark", seeds=1, num_inference_steps=3)[0].samples
        for model in (beside, *map(Resonate.from_pretrained, (learnt, learnt / "export")))
    ]
    np.testing.assert_allclose(sounds[1], sounds[0], atol=1e-3)
    np.testing.assert_array_equal(sounds[1], sounds[2])
    beside.save_pretrained(tmp_path / "saved")
    saved = Resonate.from_pretrained(tmp_path / "saved", device="cpu")
    assert saved.fingerprint == beside.fingerprint


def test_a_model_of_mean_velocities_is_trained_by_its_own_objective(tmp_path: Path) -> None:
    write_networks(tmp_path / "few", random_networks(with_few_steps(TINY), seed=0))
    write_text_encoder(tmp_path / "few" / "text_encoder")
    assert learn(write_sounds(tmp_path / "mine"), tmp_path / "few", tmp_path / "run") == 0
    lines = [line for _, line in read_json_lines(tmp_path / "run" / "metrics.jsonl")]
    losses = [(line["loss"], line["squared_error"]) for line in lines if "loss" in line]
    assert losses
    assert all(0.9 < loss < 1 and error > 0 for loss, error in losses)  # e / (e + c), and e
    adapter = tmp_path / "run" / "export" / "adapter.safetensors"
    assert any("joint_blocks" in name for name in read_adapter(adapter).maps)
    made = Resonate.from_pretrained(tmp_path / "few", adapters=[adapter], device="cpu")
    assert made.config.guidance_inside
    (audio,) = made.generate(["dog bark"], seeds=[1])
    assert np.abs(audio.samples).max() > 0


def test_sounds_are_made_on_the_way(learnt: Path) -> None:
    assert len(list((learnt / "samples").glob("*.wav"))) >= 3


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([], "expected --folder with sounds, or else --recipe"),
        (["--folder", "nowhere"], "nowhere: no such folder"),
        (["--folder", "."], "no sound in it"),
        (["--folder", "mine", "--model", "nothing"], "nothing: no such model"),
        (["--folder", "mine", "--recipe", "a.yaml"], "expected --folder with sounds, or else"),
    ],
)
def test_what_cannot_be_learnt_is_one_line(
    arguments: list[str],
    complaint: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    if "mine" in arguments:
        write_sounds(tmp_path / "mine")
    assert run(["train", "sft", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert complaint in lines[-1]
    assert not (tmp_path / "run").exists()


def test_the_last_line_says_how_to_hear_it(
    learnt: Path, tiny_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A finished run ends at once, with the same line."""
    assert learn(learnt.parent / "mine", tiny_model, learnt) == 0
    line = capsys.readouterr().err.splitlines()[-1]
    words = shlex.split(line.removeprefix("hear it:  "))
    assert words[:3] == ["resonate", "generate", "dog bark"]
    assert Path(words[words.index("--adapter") + 1]).is_file()
