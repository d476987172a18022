"""`resonate replay`: the same bits again."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny_model import write_tiny_adapter

from resonate_audio.audio.io import FORMATS, at_rate, read_audio, write_audio
from resonate_audio.cli.main import run
from resonate_audio.pipeline.path import Resonate


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: Path, *arguments: str) -> None:
    assert run(["generate", *arguments, "--model", str(model), "--steps", "3"]) == 0


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_replay_is_bit_equal_in_every_format(
    suffix: str, tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_model, "dog", "--seed", "7", "-o", f"a{suffix}", "--guidance", "3")
    capsys.readouterr()
    assert run(["replay", f"a{suffix}"]) == 0
    said = capsys.readouterr().out.split()
    assert said[said.index("bit-equal") + 1] == "yes"


def test_a_row_of_a_batch_replays_bit_equal(tiny_model: Path, here: Path) -> None:
    generate(tiny_model, "dog", "rain", "bell door", "-n", "2", "--seed", "7", "-o", "a.flac")
    assert run(["replay", "a-5.flac", "-o", "b.flac"]) == 0
    assert np.array_equal(read_audio(Path("a-5.flac")).samples, read_audio(Path("b.flac")).samples)


def test_a_lossless_replay_is_the_same_file(tiny_model: Path, here: Path) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    assert run(["replay", "a.wav", "-o", "b.wav"]) == 0
    assert (here / "a.wav").read_bytes() == (here / "b.wav").read_bytes()


def test_a_changed_sample_is_told_and_exits_1(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    audio = read_audio(Path("a.wav"))
    samples = audio.samples.copy()
    samples[100] += np.float32(0.25 if samples[100] < 0 else -0.25)
    write_audio(Path("a.wav"), dataclasses.replace(audio, samples=samples), overwrite=True)
    capsys.readouterr()
    assert run(["replay", "a.wav"]) == 1
    said = capsys.readouterr().out
    assert "no" in said.split()
    assert "0.25 of full scale" in said


def test_another_model_is_refused(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    audio = read_audio(Path("a.wav"))
    assert audio.recipe is not None
    recipe = dataclasses.replace(audio.recipe, model_fingerprint="0" * 12)
    write_audio(Path("a.wav"), dataclasses.replace(audio, recipe=recipe), overwrite=True)
    assert run(["replay", "a.wav"]) == 2
    assert "000000000000" in capsys.readouterr().err


def test_an_existing_output_is_kept(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    (here / "b.wav").write_bytes(b"mine")
    assert run(["replay", "a.wav", "-o", "b.wav"]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert (here / "b.wav").read_bytes() == b"mine"


def test_a_source_that_no_sound_was_made_of_is_refused(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    assert run(["replay", "a.wav", "--source", "a.wav"]) == 2
    assert "--source a.wav: a.wav was made from no other sound" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["a.flac", "a.aif", "a"])
def test_a_file_replays_whatever_its_suffix_says(tiny_model: Path, here: Path, name: str) -> None:
    generate(tiny_model, "dog", "-o", "a.wav")
    (here / "a.wav").rename(here / name)
    assert run(["replay", name]) == 0


def test_a_format_that_is_not_written_here_is_told_before_the_work(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    generate(tiny_model, "dog", "-o", "a.flac")
    with soundfile.SoundFile("a.flac") as file:
        samples, comment = file.read(), file.comment
    with soundfile.SoundFile("b.flac", "w", 44100, 1, "PCM_S8") as file:
        file.comment = comment
        file.write(samples)
    capsys.readouterr()
    assert run(["replay", "b.flac"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "b.flac: is FLAC PCM_S8; expected one of the formats that are written here" in line


def test_an_adapter_with_another_weight_is_told_as_such(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_adapter(here / "rain.safetensors")
    generate(tiny_model, "dog", "-o", "a.wav", "--adapter", "rain.safetensors:0.3333333333")
    assert run(["replay", "a.wav"]) == 0
    assert run(["replay", "a.wav", "--adapter", "rain.safetensors:0.5"]) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "give the model and the adapters that made it, each with its weight" in line


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_a_sound_that_a_server_sent_at_another_rate_replays(
    suffix: str, tiny_model: Path, here: Path
) -> None:
    [made] = Resonate.from_pretrained(tiny_model, "cpu").generate("dog", seeds=7)
    write_audio(here / f"a{suffix}", at_rate(made, 16_000))
    assert run(["replay", f"a{suffix}"]) == 0
