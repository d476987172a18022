"""`resonate generate` from the sentence to the file."""

import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from resonate_audio.audio.io import FORMATS, read_audio, read_recipe
from resonate_audio.cli.main import run

LONG = "dog rain bell door wind dog rain bell door wind"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: Path, *arguments: str) -> int:
    return run(["generate", *arguments, "--model", str(model), "--device", "cpu", "--steps", "2"])


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def test_a_sentence_becomes_a_file_with_its_recipe(tiny_model: Path, here: Path) -> None:
    assert generate(tiny_model, "dog", "--seed", "7", "-o", "a.flac", "--negative", "wind") == 0
    recipe = read_recipe(here / "a.flac")
    assert recipe is not None
    assert (recipe.prompt, recipe.seed, recipe.num_inference_steps) == ("dog", 7, 2)
    assert (recipe.negative_prompt, recipe.guidance_scale) == ("wind", 4.5)
    assert read_audio(here / "a.flac").duration_s == 0.5


def test_the_table_names_every_file_and_seed(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tiny_model, "dog", "rain", "-n", "2", "--seed", "7", "-o", "out/") == 0
    expected = ["out/dog_7.wav", "out/dog_8.wav", "out/rain_7.wav", "out/rain_8.wav"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == expected
    assert files(here) == expected


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_every_format_is_written(suffix: str, tiny_model: Path, here: Path) -> None:
    assert generate(tiny_model, "bell", "-o", f"a{suffix}") == 0
    assert read_audio(here / f"a{suffix}").recipe is not None


def test_prompts_come_from_a_file_too(tiny_model: Path, here: Path) -> None:
    (here / "lines.txt").write_text("rain\n\n  bell  \n", encoding="utf-8")
    assert generate(tiny_model, "dog", "--prompts-file", "lines.txt", "-o", "a.wav") == 0
    prompts = [read_recipe(here / f"a-{number}.wav") for number in (1, 2, 3)]
    assert [recipe and recipe.prompt for recipe in prompts] == ["dog", "rain", "bell"]


def test_a_picture_is_drawn_beside_the_sound(tiny_model: Path, here: Path) -> None:
    assert generate(tiny_model, "dog", "-o", "a.ogg", "--spectrogram") == 0
    assert files(here) == ["a.ogg", "a.png"]


def test_batches_do_not_change_what_a_seed_makes(tiny_model: Path, here: Path) -> None:
    prompts = ["dog", "rain", "bell"]
    assert generate(tiny_model, *prompts, "--seed", "3", "-o", "a.flac", "--batch-size", "1") == 0
    assert generate(tiny_model, *prompts, "--seed", "3", "-o", "b.flac", "--batch-size", "3") == 0
    for number in (1, 2, 3):
        alone, together = (read_audio(here / f"{name}-{number}.flac").samples for name in "ab")
        np.testing.assert_allclose(alone, together, atol=2e-3)


def test_a_random_seed_is_recorded(tiny_model: Path, here: Path) -> None:
    assert generate(tiny_model, "dog", "-n", "2", "-o", "a.wav") == 0
    first, second = (read_recipe(here / f"a-{number}.wav") for number in (1, 2))
    assert first is not None
    assert second is not None
    assert second.seed == first.seed + 1


def test_a_long_prompt_is_cut_and_that_is_said(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert generate(tiny_model, LONG, "-o", "a.wav") == 0
    assert "prompt cut at 9 tokens" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ([" "], "empty"),
        (["dog", "--duration", "6000"], "tiny makes 0.1 to 600 s"),
        (["dog", "--duration", "nan"], "tiny makes"),
        (["dog", "--duration", "-1"], "tiny makes"),
        (["dog", "--guidance", "nan"], "guidance scale nan"),
        (["dog", "--steps", "0"], "0 inference steps"),
        (["dog", "--dtype", "float16"], "float32"),
        (["dog", "--device", "toaster"], "expected cpu, cuda"),
        (["dog", "--model", "no-such-model"], "bundled:"),
    ],
)
def test_a_bad_value_is_one_line_and_no_file(
    arguments: list[str],
    complaint: str,
    tiny_model: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = [] if "--model" in arguments else ["--model", str(tiny_model)]
    device = [] if "--device" in arguments else ["--device", "cpu"]
    assert run(["generate", *arguments, *model, *device, "-o", "new/a.wav"]) == 2
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert complaint in line
    assert said.out == ""
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "misshapen", "pickled", "missing"])
def test_a_broken_checkpoint_is_named_and_nothing_is_written(
    damage: str, tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import shutil

    from resonate_audio.model.checkpoint import read_weights, write_weights

    shutil.copytree(tiny_model, here / "model")
    weights = here / "model/transformer/model.safetensors"
    if damage == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif damage == "misshapen":
        state = read_weights(weights)
        first = sorted(state)[0]
        write_weights(weights, {**state, first: state[first].flatten()[:1].clone()}, {})
    elif damage == "pickled":
        weights.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    else:
        weights.unlink()
    assert generate(here / "model", "dog", "-o", "a.wav") == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "transformer/model.safetensors" in line
    assert not (here / "a.wav").exists()


def test_a_disk_that_fills_up_keeps_finished_files_and_no_half_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    """A real limit from the kernel: the small MP3 fits, the WAV after it does not."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (9_000, 9_000))

    def command(name: str) -> list[str]:
        return [
            sys.executable, "-m", "resonate_audio.cli.main", "generate", "dog", "-o", name,
            "--model", str(tiny_model), "--device", "cpu", "--steps", "1", "--duration", "1",
        ]  # fmt: skip

    done = subprocess.run(
        command("a.wav"),
        cwd=tmp_path,
        preexec_fn=limit,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"},
    )
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("resonate: a.wav: ")
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []


LIKES_MORE = """
def brightness(samples, sample_rate_hz, prompts):
    return [abs(row[1:] - row[:-1]).sum() / abs(row).sum() for row in samples]
"""


def bright(path: Path) -> float:
    samples = read_audio(path).samples
    return float(np.abs(np.diff(samples)).sum() / np.abs(samples).sum())


def test_the_best_of_several_is_kept_and_is_what_its_seed_gives(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own_taste.py").write_text(LIKES_MORE)
    judged = ["--best-of", "3", "--judge", "own_taste:brightness", "--seed", "5"]
    assert generate(tiny_model, "dog", "rain", "-n", "2", *judged, "-o", "best/") == 0
    assert "score" in capsys.readouterr().out
    assert generate(tiny_model, "dog", "rain", "-n", "6", "--seed", "5", "-o", "all/") == 0
    expected = []
    for prompt in ("dog", "rain"):
        for seeds in ((5, 7, 9), (6, 8, 10)):  # candidates of take k: every second from k on
            name = max(
                (f"{prompt}_{seed}.wav" for seed in seeds), key=lambda n: bright(here / "all" / n)
            )
            expected.append(name)
            best, same = (read_audio(here / place / name).samples for place in ("best", "all"))
            assert np.allclose(best, same, rtol=0, atol=2 / 32768)  # made in other company
    assert files(here / "best") == sorted(expected)


def test_a_choice_refuses_a_length_before_it_opens_its_judge(
    tiny_model: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "own_taste.py").write_text("raise SystemExit('opened')\n")
    judged = ["--best-of", "2", "--judge", "own_taste:brightness", "--duration", "700"]
    assert generate(tiny_model, "dog", *judged) == 2
    assert "700" in capsys.readouterr().err


def test_the_best_has_the_name_that_was_asked_for(tiny_model: Path, here: Path) -> None:
    (here / "own_taste.py").write_text(LIKES_MORE)
    judged = ["--best-of", "2", "--judge", "own_taste:brightness", "--seed", "5"]
    assert generate(tiny_model, "dog", *judged, "-o", "one.wav") == 0
    recipe = read_recipe(here / "one.wav")
    assert recipe is not None
    assert recipe.seed in (5, 6)
    assert generate(tiny_model, "dog", *judged, "-o", "one.wav") == 2  # it is there already


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dog", "--best-of", "2", "--judge", "none"], "there is no such judge"),
        (["--list", "sounds.csv", "--best-of", "2"], "--best-of: goes with prompts"),
        (["dog", "--best-of", "0"], "--best-of"),
        (["dog", "--judge", "guard"], "--judge: chooses among several"),
    ],
)
def test_a_choice_that_makes_no_sense_is_one_line(
    arguments: list[str],
    message: str,
    tiny_model: Path,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "sounds.csv").write_text("prompt\ndog\n")
    assert generate(tiny_model, *arguments) == 2
    assert message in capsys.readouterr().err
    assert files(here) == ["sounds.csv"]


@pytest.mark.parametrize(
    "words",
    [
        ["generate", "dog", "--steps", "400"],
        ["generate", "dog", "--duration", "0"],
        ["generate", "dog", "--guidance", "3"],
        ["loop", "rain", "--duration", "700"],
        ["sequence", "0-1: rain", "1-700: wind"],
        ["generate", "dog", "--model", "nanno"],
    ],
    ids=" ".join,
)
def test_what_a_model_does_not_make_is_refused_before_its_weights_are_read(
    words: list[str],
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("weights were read")

    monkeypatch.setattr("resonate_audio.pipeline.path.read_networks", refuse)
    assert run(words) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("resonate: ")


def test_columns_that_a_list_would_read_are_told(
    tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "lines.csv"
    table.write_text("prompt,seed,id\ndog,5,1\n")
    options = ["--model", str(tiny_model), "--duration", "0.3", "--seed", "1"]
    assert run(["generate", "--prompts", str(table), "-o", str(tmp_path / "a.wav"), *options]) == 0
    assert "seed are read by --list, not by --prompts" in capsys.readouterr().err
