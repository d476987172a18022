"""A model of mean velocities: few steps, one forward each, guidance inside; at every door."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_model import TINY, random_networks, write_text_encoder

from resonate_audio.audio.io import read_audio
from resonate_audio.cli.evaluate.makers import model_maker
from resonate_audio.cli.main import run
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import FAST
from resonate_audio.model.folder import write_networks
from resonate_audio.model.presets import MEAN_EDIT_STEPS, ModelConfig, with_few_steps
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import Batch
from resonate_audio.serving.config import ServeConfig
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.sounds.requests import JobRequest, SoundGenerationRequest
from resonate_audio.serving.sounds.rowwise import generate_alone, generate_together
from resonate_audio.serving.sounds.shelf import Catalogue


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("few")
    write_text_encoder(place / "words")
    networks = random_networks(with_few_steps(TINY), seed=0)
    write_networks(place / "model", networks, place / "words")
    return place / "model"


@pytest.fixture(scope="module")
def few(folder: Path) -> Resonate:
    return Resonate.from_pretrained(folder, device="cpu")


@pytest.fixture
def forwards(few: Resonate) -> Iterator[list[int]]:
    """Rows of each forward of the flow transformer."""
    rows: list[int] = []
    hook = few.transformer.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))
    yield rows
    hook.remove()


def test_it_takes_its_own_steps_with_one_forward_each(few: Resonate, forwards: list[int]) -> None:
    [audio] = few.generate("dog", seeds=1)
    assert audio.recipe is not None
    assert (audio.recipe.num_inference_steps, audio.recipe.guidance_scale) == (4, 1.0)
    assert forwards == [1] * 4
    assert np.array_equal(few.replay(audio.recipe).samples, audio.samples)


@pytest.mark.parametrize("num_steps", [1, 25])
def test_any_number_of_steps_up_to_25_is_taken(
    few: Resonate, forwards: list[int], num_steps: int
) -> None:
    few.generate("dog", seeds=1, num_inference_steps=num_steps, guidance_scale=1.0)
    assert forwards == [1] * num_steps


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"num_inference_steps": 0}, "0 inference steps"),
        ({"num_inference_steps": 26}, "26 inference steps: tiny takes 1 to 25"),
        ({"guidance_scale": 4.5}, r"guidance scale 4\.5: tiny has its guidance inside"),
        ({"solver": "heun"}, "solver heun: tiny predicts mean velocities"),
        ({"guidance_low": 0.5}, r"guidance from 0\.5 to 1: tiny has its guidance inside"),
        (FAST, r"solver ab2: .*--fast: nothing is left"),
        ({"negative_prompt": "rain"}, "negative prompt 'rain': tiny has its guidance inside"),
    ],
)
def test_what_it_does_not_have_is_refused_in_one_line(
    few: Resonate, asked: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        few.generate("dog", **asked)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        few.loop("dog", **asked)  # type: ignore[arg-type]


def test_a_sound_is_varied_from_the_level_that_is_asked_for(
    few: Resonate, forwards: list[int]
) -> None:
    [source] = few.generate("dog", seeds=1)
    forwards.clear()
    [varied] = few.vary(source, 0.5, "rain", seeds=2, num_inference_steps=4)
    assert forwards == [1] * 2
    assert np.isfinite(varied.samples).all()


def test_a_source_is_changed_in_more_steps_than_a_sound_is_made_in(
    few: Resonate, forwards: list[int]
) -> None:
    [source] = few.generate("dog", seeds=1)
    whole = few.config.edit_steps
    assert whole == MEAN_EDIT_STEPS > few.config.default_steps
    forwards.clear()
    [varied] = few.vary(source, 1.0, "rain", seeds=2)
    assert len(forwards) == whole
    assert varied.recipe is not None
    assert varied.recipe.num_inference_steps == whole
    again = few.replay(varied.recipe, source=source)
    assert np.array_equal(again.samples, varied.samples)
    [loop] = few.loop("dog", seeds=2)
    assert loop.recipe is not None
    assert loop.recipe.num_inference_steps == few.config.default_steps


def test_every_way_of_editing_takes_mean_velocities(few: Resonate) -> None:
    [source] = few.generate("dog", seeds=1, duration_s=1.0)
    made = [
        few.reword(source, "rain", seeds=2),
        few.replace(source, [(0.3, 0.6)], "rain", seeds=2),
        few.extend(source, after_s=0.4, seeds=2),
        few.loop(source, seam_s=0.2, seeds=2),
        few.loop("dog", 0.7, seeds=2),
        few.sequence([(0.0, 0.5, "dog"), (0.5, 1.0, "rain")], seeds=2),
        few.generate("dog", duration_s=5.0, seeds=2),
    ]
    lengths = [len(sounds[0].samples) for sounds in made]
    assert lengths == [round(8000 * s) for s in (1.0, 1.0, 1.4, 1.0, 0.7, 1.0, 5.0)]
    assert all(np.isfinite(sounds[0].samples).all() for sounds in made)
    kept = made[1][0].samples
    assert np.array_equal(kept[:2300], source.samples[:2300])
    assert not np.array_equal(kept, source.samples)


def test_a_step_of_the_pipeline_is_the_mean_velocity_to_the_next_level(few: Resonate) -> None:
    batch, sampling = Batch(("dog",), ("",), (1,)), few.config.sampling(0.5, 2)
    z = torch.randn(1, 8, 6)
    conditions = few.transformer.condition(few.encode_text(["dog"]))
    with torch.inference_mode():
        for t, r in ((1.0, 0.5), (0.5, 0.0)):
            expected = few.transformer(z, torch.tensor([t]), conditions, torch.tensor([r]))
            got = few.velocity(batch, sampling)(z, torch.tensor([t]))
            torch.testing.assert_close(got, expected)


def test_sounds_made_together_are_those_made_alone(few: Resonate) -> None:
    batch, sampling = Batch(("dog", "rain"), ("", ""), (1, 2)), few.config.sampling()
    together = generate_together(few, batch, sampling, lambda _: (True, True))
    for row, made in enumerate(together):
        assert made is not None
        alone = generate_alone(few, batch.part(row, row + 1), sampling)
        assert np.array_equal(made.samples, alone.samples)


def test_the_command_line_and_evaluation_take_its_own_settings(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["generate", "dog", "--model", str(folder), "--device", "cpu", "-o"]
    assert run([*given, str(tmp_path / "a.wav")]) == 0
    recipe = read_audio(tmp_path / "a.wav").recipe
    assert recipe is not None
    assert (recipe.num_inference_steps, recipe.guidance_scale) == (4, 1.0)
    assert run([*given, str(tmp_path / "b.wav"), "--guidance", "3"]) == 2
    assert "guidance scale 3: tiny has its guidance inside" in capsys.readouterr().err
    maker = model_maker(str(folder), {}, 1, "cpu", None)
    assert (maker.nfe, maker.facts["guidance"]) == (4, "1")


def test_the_server_takes_its_own_settings_and_refuses_others(folder: Path, tmp_path: Path) -> None:
    config = ServeConfig(home=tmp_path, models={"few": str(folder), "nano-grpo": "nano-grpo"})
    catalogue = Catalogue(config)
    sampling = catalogue.check(JobRequest(input="dog")).sampling
    assert (sampling.num_inference_steps, sampling.guidance_scale) == (4, 1.0)
    taught = catalogue.check(JobRequest(input="dog", model="nano-grpo")).sampling
    assert (taught.num_inference_steps, taught.guidance_scale) == (4, 1.0)
    for asked in (
        JobRequest(input="dog", guidance_scale=2.0),
        JobRequest(input="dog", num_inference_steps=26),
        JobRequest(input="dog", negative_prompt="rain"),
    ):
        with pytest.raises(ApiError, match="tiny") as caught:
            catalogue.check(asked)
        assert caught.value.status == 422
    plain = SoundGenerationRequest(text="dog").as_job()
    assert catalogue.check(plain).sampling.guidance_scale == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"default_guidance": 4.5}, "default_guidance"),
        ({"default_steps": 26}, "default_steps"),
        ({"guidance_inside": False}, "guidance_inside is false"),
    ],
)
def test_a_folder_that_contradicts_itself_is_refused(
    change: dict[str, object], message: str
) -> None:
    values = with_few_steps(TINY).model_dump() | change
    with pytest.raises(ValueError, match=message):
        ModelConfig.model_validate(values)
