"""Clips of any generator: noise by prompt and take, resumable, every failure with its prompt."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny_model import write_tiny_adapter

from resonate_audio.cli.evaluate.makers import model_maker
from resonate_audio.core.errors import ConfigError, InputError, ManifestError
from resonate_audio.core.sampling import Sampling
from resonate_audio.evaluation.clips.folder import read_manifest
from resonate_audio.evaluation.clips.generate import (
    CommandMaker,
    ModelMaker,
    Take,
    count_weights,
    generate_clips,
    list_clips,
    noise_seed,
    plan_takes,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.model.folder import read_networks
from resonate_audio.pipeline.path import Resonate

PROMPTS = PromptSet("made", tuple(PromptItem(id=f"{n:04d}", prompt=f"sound {n}") for n in range(5)))


class NoiseMaker:
    """Writes noise from each take's seed, and remembers what it was asked for."""

    source, suffix, nfe = "noise", ".wav", 3
    facts: Mapping[str, str] = {"params": "0"}

    def __init__(self, batch_size: int = 2, fails_at: str = "") -> None:
        self.batch_size, self.fails_at = batch_size, fails_at
        self.made: list[tuple[str, int]] = []

    def make(self, takes: Sequence[Take], paths: Sequence[Path | None]) -> None:
        for take, path in zip(takes, paths, strict=True):
            if take.item.id == self.fails_at:
                raise InputError(f"prompt {take.item.id}: no idea how that sounds")
            if path is not None:
                samples = np.random.default_rng(take.noise_seed).normal(size=800) / 8
                soundfile.write(path, samples.astype(np.float32), 16_000)
                self.made.append(take.key)


def test_noise_is_of_prompt_and_take_alone() -> None:
    assert noise_seed("a", 0) == noise_seed("a", 0)
    seeds = {noise_seed(id, take) for id in "abcdefgh" for take in range(50)}
    assert len(seeds) == 400
    assert 0 <= min(seeds) <= max(seeds) < 2**31


def test_batch_size_and_order_change_nothing(tmp_path: Path) -> None:
    turned = PromptSet("made", PROMPTS.items[::-1])
    generate_clips(tmp_path / "one", PROMPTS, NoiseMaker(1), num_takes=2, name="s")
    generate_clips(tmp_path / "many", turned, NoiseMaker(4), num_takes=2, name="s")
    one, many = (read_manifest(tmp_path / name).clips for name in ("one", "many"))
    assert {key: line.sha256 for key, line in one.items()} == {
        key: line.sha256 for key, line in many.items()
    }
    assert one["0003", 1].noise_seed == noise_seed("0003", 1)
    assert one["0003", 1].file == "0003_1.wav"
    assert (one["0003", 1].nfe, one["0003", 1].sample_rate_hz) == (3, 16_000)
    assert one["0003", 1].seconds == pytest.approx(0.05)


def test_started_again_it_makes_what_is_missing_and_nothing_else(tmp_path: Path) -> None:
    generate_clips(tmp_path, PROMPTS, NoiseMaker())
    before = read_manifest(tmp_path).clips
    (tmp_path / "0002.wav").unlink()
    maker = NoiseMaker()
    made = generate_clips(tmp_path, PROMPTS, maker)
    assert maker.made == [("0002", 0)]
    assert (made.num_made, made.num_there) == (1, 4)
    again = read_manifest(tmp_path).clips
    assert {k: line.sha256 for k, line in again.items()} == {
        k: line.sha256 for k, line in before.items()
    }


def test_what_was_made_before_a_failure_is_kept(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="prompt 0003: no idea"):
        generate_clips(tmp_path, PROMPTS, NoiseMaker(1, fails_at="0003"))
    assert sorted(key[0] for key in read_manifest(tmp_path).clips) == ["0000", "0001", "0002"]
    made = generate_clips(tmp_path, PROMPTS, NoiseMaker(1, fails_at="0003"), keep_going=True)
    assert list(made.failures) == [("0003", 0)]
    assert sorted(key[0] for key in read_manifest(tmp_path).clips) == [
        "0000",
        "0001",
        "0002",
        "0004",
    ]


def test_takes_that_would_share_a_file_are_refused() -> None:
    clash = PromptSet("made", (PromptItem(id="a", prompt="x"), PromptItem(id="a_1", prompt="y")))
    with pytest.raises(ManifestError, match=r"a_1\.wav would hold both"):
        plan_takes(clash, 2, ".wav")
    with pytest.raises(InputError, match="expected 1 or more"):
        plan_takes(PROMPTS, 0, ".wav")


def test_this_package_s_model_gives_each_clip_its_own_noise(
    tmp_path: Path, tiny_model: Path
) -> None:
    pipeline = Resonate.from_pretrained(tiny_model, device="cpu")
    made = []
    for name, batch in (("one", 1), ("three", 3)):
        maker = ModelMaker(pipeline, Sampling(pipeline.config.default_duration_s, 2), batch)
        generate_clips(tmp_path / name, PROMPTS, maker, name="s")
        made.append([soundfile.read(tmp_path / name / f"{i.id}.flac")[0] for i in PROMPTS.items])
    for one, three in zip(*made, strict=True):
        assert np.abs(one - three).max() <= 2e-3 * np.abs(one).max()
    facts = read_manifest(tmp_path / "one").system.facts
    assert count_weights(pipeline) == sum(
        weight.numel() for weight in read_networks(tiny_model).transformer.parameters()
    )
    assert (facts["nfe"], facts["guidance"]) == ("2", "4.5")


def test_an_adapter_is_part_of_the_system(tmp_path: Path, tiny_model: Path) -> None:
    adapter = write_tiny_adapter(tmp_path / "rain.safetensors")
    some, quick = PromptSet("made", PROMPTS.items[:1]), {"num_inference_steps": 2}
    plain = model_maker(str(tiny_model), quick, 1, "cpu", None)
    maker = model_maker(str(tiny_model), quick, 1, "cpu", None, adapters=[f"{adapter}:0.5"])
    generate_clips(tmp_path / "out", some, maker, name="s")
    system = read_manifest(tmp_path / "out").system
    assert system.facts["adapters"] == f"{adapter}:0.5"
    with pytest.raises(ManifestError, match=r"there and .* now"):
        generate_clips(tmp_path / "out", some, plain, name="s")


PROGRAM = """
import sys, numpy, soundfile
prompt, seed, file = sys.argv[1:]
if prompt == "sound 3":
    sys.exit("cannot do threes")
soundfile.write(file, numpy.random.default_rng(int(seed)).normal(size=800) / 8, 16000)
"""


def test_a_program_makes_clips_and_its_words_are_passed_on(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    maker = CommandMaker(f"{sys.executable} {program} {{prompt}} {{seed}} {{file}}")
    some = PromptSet("made", PROMPTS.items[2:4])
    made = generate_clips(tmp_path / "out", some, maker, keep_going=True)
    assert made.num_made == 1
    assert made.failures["0003", 0].endswith("failed with exit code 1: cannot do threes")
    assert sorted(path.name for path in (tmp_path / "out").glob("*.wav")) == ["0002.wav"]


def test_a_prompt_cannot_become_a_command(tmp_path: Path) -> None:
    evil = PromptSet(
        "made", (PromptItem(id="a", prompt=f"$(touch {tmp_path}/bad); ' \" {{file}}"),)
    )
    program = tmp_path / "program.py"
    program.write_text(PROGRAM + "open(file + '.txt', 'w').write(prompt)\n")
    maker = CommandMaker(f"{sys.executable} {program} {{prompt}} {{seed}} {{file}}")
    generate_clips(tmp_path / "out", evil, maker)
    assert not (tmp_path / "bad").exists()


@pytest.mark.parametrize(
    ("template", "complaint"),
    [("prog {prompt}", "expected {file}"), ("no-such-program {file}", "there is no such program")],
)
def test_a_template_that_cannot_work_is_refused_at_once(template: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        CommandMaker(template)


def test_programs_that_hang_or_write_nothing_are_named(tmp_path: Path) -> None:
    one = PromptSet("made", PROMPTS.items[:1])
    silent = CommandMaker("true {file}")
    with pytest.raises(InputError, match="prompt 0000, take 0: true ended well but wrote no file"):
        generate_clips(tmp_path / "a", one, silent)
    program = f"{sys.executable} -c 'import time; time.sleep(60)' {{file}}"
    slow = CommandMaker(program, timeout_s=0.5)
    with pytest.raises(InputError, match=r"gave nothing after 0\.5 s"):
        generate_clips(tmp_path / "b", one, slow)


def test_a_folder_of_clips_is_listed_where_it_lies(tmp_path: Path) -> None:
    clips = tmp_path / "theirs"
    generate_clips(clips, PROMPTS, NoiseMaker())
    (clips / "0004.wav").unlink()
    manifest, found = list_clips(tmp_path / "mine", PROMPTS, clips, name="theirs")
    assert [key for key, _ in manifest.clips.items()] == [(f"{n:04d}", 0) for n in range(4)]
    assert manifest.clips["0001", 0].file == "../theirs/0001.wav"
    assert found.missing == (("0004", 0),)
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == [
        "manifest.jsonl", "prompts.jsonl", "system.json",
    ]  # fmt: skip
