"""`resonate eval generate`: which way clips come in, and what of a folder is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile

from resonate_audio.cli.evaluate.generate import bring_in, choose_way, read_facts
from resonate_audio.cli.evaluate.processes import LISTED, name_some
from resonate_audio.cli.main import run
from resonate_audio.core.errors import InputError
from resonate_audio.evaluation.clips.baselines import TABLE_1
from resonate_audio.evaluation.clips.folder import read_manifest
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet


def test_there_is_one_way_and_a_preset_fills_it_in() -> None:
    audioldm, flux = TABLE_1["audioldm-l-full"], TABLE_1["tangoflux"]
    assert choose_way(None, None, None, None, audioldm) == (None, None, None, audioldm.place)
    assert choose_way(None, None, None, None, flux) == (None, None, flux.place, None)
    assert choose_way(None, Path("mine"), None, None, flux) == (None, Path("mine"), None, None)
    with pytest.raises(InputError, match="--model and --clips are given; expected one of them"):
        choose_way("nano", Path("mine"), None, None, None)


@pytest.mark.parametrize(
    ("preset", "option"), [("tango-full", "--clips FOLDER"), ("resonate-pt", "--model FOLDER")]
)
def test_a_preset_says_which_option_it_needs(preset: str, option: str) -> None:
    with pytest.raises(InputError, match=option):
        choose_way(None, None, None, None, TABLE_1[preset])


def test_facts_have_a_name_and_a_value() -> None:
    assert read_facts(["size=5M", "note=a=b"]) == {"size": "5M", "note": "a=b"}
    with pytest.raises(InputError, match="--fact =5: expected name=value"):
        read_facts(["=5"])


def test_many_names_are_counted_after_the_first_few(capsys: pytest.CaptureFixture[str]) -> None:
    name_some("missing", [str(n) for n in range(LISTED + 3)])
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == LISTED + 1
    assert lines[-1] == "missing: 3 more"


def test_missing_and_left_over_clips_of_a_folder_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = tmp_path / "theirs"
    clips.mkdir()
    for name in ("0001.wav", "applause.wav"):
        soundfile.write(clips / name, np.zeros(100), 16_000)
    asked = PromptSet("p", tuple(PromptItem(id=id, prompt="rain") for id in ("0001", "0002")))
    bring_in(tmp_path / "out", asked, clips, "theirs", {"params": "1M"})
    said = capsys.readouterr()
    assert said.out.splitlines()[1].split()[1:] == ["2", "1", "1", "1", "1"]
    assert "missing, will count as failed: 0002, take 0" in said.err
    assert "of no prompt, not used: applause.wav" in said.err
    assert read_manifest(tmp_path / "out").system.facts["params"] == "1M"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--clips", "theirs", "--steps", "4"], "--steps: --clips has no use for it"),
        (["--clips", "theirs", "--keep-going"], "--keep-going: --clips has no use for it"),
        (["--clips", "theirs", "--threads", "1"], "--threads: --clips has no use for it"),
        (["--command", "true {file}", "--duration", "5"], "--duration: --command has no use"),
        (["--command", "true {file}", "--dtype", "float32"], "--dtype: --command has no use"),
        (["--preset", "audioldm-l-full", "--timeout", "9"], "--timeout: --diffusers has no use"),
        (["--timeout", "9"], "--timeout: --model has no use for it; leave it out"),
        (["--timeout", "600"], "--timeout: --model has no use for it; leave it out"),
        (["--command", "x {prompt} {file}", "--batch-size", "8"], "--batch-size: --command has no"),
    ],
)
def test_options_that_a_way_does_not_take_are_refused_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("rain\n")
    assert run(["eval", "generate", str(prompts), "-o", str(tmp_path / "out"), *options]) == 2
    (said,) = capsys.readouterr().err.strip().splitlines()
    assert message in said
    assert not (tmp_path / "out").exists()
