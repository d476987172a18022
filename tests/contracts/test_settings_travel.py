"""A setting of a generation that is declared reaches every door, and is what makes the sound."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pytest
import torch
from running import Running

from resonate_audio.audio.io import decode_audio, read_audio
from resonate_audio.cli.main import run
from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import (
    FurtherSettings,
    Sampling,
    SolverSettings,
    shown_as,
)
from resonate_audio.core.types import Audio
from resonate_audio.model.folder import read_networks
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import make_batch
from resonate_audio.serving.sounds.requests import JobRequest
from resonate_audio.serving.sounds.rowwise import generate_alone, generate_together
from resonate_audio.serving.sounds.store import Sound
from resonate_audio.training.pretrain.listen import ListenConfig, Listener
from resonate_audio.training.reinforce.evaluate import EvaluationConfig, Evaluator

BASE: dict[str, Any] = {"num_inference_steps": 3, "guidance_scale": 3.0}
OTHER: dict[str, Any] = {
    "num_inference_steps": 4,
    "guidance_scale": 2.0,
    "solver": "ab2",
    "guidance_low": 0.5,
    "guidance_high": 0.9,
    "time_shift": 3.0,
}
"""Another value of every setting than `BASE` and the defaults have."""
SETTINGS = sorted(SolverSettings.model_fields)
DURATION_S = 0.5


@pytest.fixture(scope="module")
def plain(tiny_model: Path) -> Resonate:
    """A model that takes every setting; nano has its guidance inside."""
    return Resonate.from_pretrained(tiny_model, "cpu")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Any:
    pytest.importorskip("uvicorn", reason='needs pip install "resonate-audio[serve]"')
    home = tmp_path_factory.mktemp("serve") / "home"
    with Running(home, "--model", f"tiny={tiny_model}") as running:
        yield running


def changed(name: str) -> dict[str, Any]:
    return BASE | {name: OTHER[name]}


def expected(model: Resonate, settings: dict[str, Any]) -> np.ndarray:
    sampling = Sampling(DURATION_S, **settings)
    features = model.encode_text(["rain"])
    latents = model.sample_latents(features, model.encode_negative([""]), [5], sampling)
    samples = model.to_waveform(latents).samples
    return model.finish(samples[0, :4000], make_batch("rain", seeds=5), 0, sampling).samples


def assert_made_with(audio: Audio, model: Resonate, name: str) -> None:
    """The setting is in the recipe, and made these samples (16 bits in a WAV)."""
    assert audio.recipe is not None
    assert getattr(audio.recipe, name) == OTHER[name]
    assert audio.recipe.sampling() == Sampling(DURATION_S, **changed(name))
    np.testing.assert_allclose(audio.samples, expected(model, changed(name)), atol=2**-15)
    assert np.abs(audio.samples - expected(model, BASE)).max() > 2**-8


def test_another_value_of_every_setting_stands_here() -> None:
    assert set(OTHER) == set(SETTINGS)
    for name, field in SolverSettings.model_fields.items():
        assert OTHER[name] not in (field.default, BASE.get(name))


def test_the_keywords_for_editors_are_the_settings_that_have_no_parameter() -> None:
    named = set(inspect.signature(Resonate.generate).parameters)
    assert set(FurtherSettings.__annotations__) == set(SETTINGS) - named
    hints = get_type_hints(SolverSettings)
    assert get_type_hints(FurtherSettings) == {name: hints[name] for name in set(SETTINGS) - named}


@pytest.mark.parametrize("name", SETTINGS)
def test_python_and_replay_obey_it(plain: Resonate, name: str) -> None:
    [audio] = plain.generate("rain", duration_s=DURATION_S, seeds=5, **changed(name))
    assert_made_with(audio, plain, name)
    assert audio.recipe is not None
    assert np.array_equal(plain.replay(audio.recipe).samples, audio.samples)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_command_line_obeys_it(
    plain: Resonate, tiny_model: Path, name: str, tmp_path: Path
) -> None:
    given = [
        text
        for field, value in changed(name).items()
        for text in (shown_as(SolverSettings.model_fields[field]).option, str(value))
    ]
    made, clips = tmp_path / "a.wav", tmp_path / "clips"
    length = ["--duration", str(DURATION_S), "--device", "cpu", "--model", str(tiny_model)]
    assert run(["generate", "rain", "--seed", "5", "-o", str(made), *length, *given]) == 0
    assert_made_with(read_audio(made), plain, name)
    (tmp_path / "prompts.txt").write_text("rain\n")
    arguments = ["eval", "generate", str(tmp_path / "prompts.txt"), "-o", str(clips)]
    assert run([*arguments, *length, *given]) == 0
    [clip] = clips.glob("*.flac")
    recipe = read_audio(clip).recipe
    assert recipe is not None
    assert recipe.sampling() == Sampling(DURATION_S, **changed(name))


@pytest.mark.parametrize("name", SETTINGS)
def test_the_server_obeys_it(plain: Resonate, server: Running, name: str) -> None:
    answer = server.generate(input="rain", seed=5, audio_length=DURATION_S, **changed(name))
    assert answer.status_code == 200, answer.text
    assert_made_with(decode_audio(answer.content, "answer"), plain, name)
    job = server.add_job(input="rain", seed=5, audio_length=DURATION_S, **changed(name))
    [sound] = server.wait_for(job["id"])["sounds"]
    assert sound[name] == OTHER[name]


@pytest.mark.parametrize("name", SETTINGS)
def test_sounds_made_together_obey_it(plain: Resonate, name: str) -> None:
    batch = make_batch(["dog", "rain", "bell"], seeds=[4, 5, 6])
    sampling = Sampling(DURATION_S, **changed(name))
    together = generate_together(plain, batch, sampling, lambda _: (True, True, True))
    assert together[1] is not None
    assert_made_with(together[1], plain, name)
    for row, audio in enumerate(together):
        assert audio is not None
        alone = generate_alone(plain, batch.part(row, row + 1), sampling)
        assert np.array_equal(audio.samples, alone.samples)


def test_a_row_that_leaves_does_not_move_the_others(plain: Resonate) -> None:
    batch = make_batch(["dog", "rain", "bell"], seeds=[4, 5, 6])
    sampling = Sampling(DURATION_S, 4, 2.0, solver="ab2")
    left = generate_together(plain, batch, sampling, lambda done: (True, done < 2, True))
    whole = generate_together(plain, batch, sampling, lambda _: (True, True, True))
    assert left[1] is None
    for row in (0, 2):
        assert left[row] is not None
        assert whole[row] is not None
        assert np.array_equal(left[row].samples, whole[row].samples)  # type: ignore[union-attr]


@pytest.mark.parametrize("cls", [ListenConfig, EvaluationConfig, JobRequest])
def test_every_model_of_settings_is_made_of_the_one(cls: type[FrozenConfig]) -> None:
    assert issubclass(cls, SolverSettings)


def test_a_kept_sound_tells_every_setting_and_none_where_nothing_made_it() -> None:
    assert set(SolverSettings.model_fields) <= set(Sound.model_fields)
    assert all(Sound.model_fields[name].default is None for name in SolverSettings.model_fields)


@pytest.mark.parametrize("name", SETTINGS)
def test_sounds_on_the_way_of_a_training_obey_it(
    plain: Resonate, name: str, tmp_path: Path
) -> None:
    def evaluated(settings: dict[str, Any]) -> torch.Tensor:
        config = EvaluationConfig(**settings)
        judged = Evaluator(plain, ("rain",), {}, config, DURATION_S, tmp_path / "log")
        return judged.generate().samples

    assert not torch.equal(evaluated(changed(name)), evaluated(BASE))


@pytest.mark.parametrize("name", SETTINGS)
def test_what_pretraining_listens_to_obeys_it(plain: Resonate, tiny_model: Path, name: str) -> None:
    flow = read_networks(tiny_model).transformer
    features = plain.encode_text(["rain"])

    def heard(settings: dict[str, Any]) -> torch.Tensor:
        config = ListenConfig(prompts=("rain",), **settings)
        return Listener(config, features, plain.vae, None, 16, 8000).latents(flow)

    assert not torch.equal(heard(changed(name)), heard(BASE))


def test_a_recipe_of_another_version_is_read_and_not_replayed(plain: Resonate) -> None:
    import dataclasses

    from resonate_audio.audio.embedded import format_recipe, parse_recipe

    [audio] = plain.generate("rain", duration_s=DURATION_S, seeds=5, num_inference_steps=1)
    assert audio.recipe is not None
    text = format_recipe(dataclasses.replace(audio.recipe, version="9.9"))
    newer = parse_recipe(text.replace('"solver"', '"churn": 0.5, "solver"'), "a.wav")
    assert newer is not None
    assert newer.prompt == "rain"
    with pytest.raises(InputError, match=r"version 9\.9 and holds churn"):
        plain.replay(newer)


def test_a_recipe_written_before_a_setting_means_its_default(plain: Resonate) -> None:
    import json

    from resonate_audio.audio.embedded import RECIPE_KEY, format_recipe, parse_recipe

    [audio] = plain.generate("rain", duration_s=DURATION_S, seeds=5, num_inference_steps=1)
    assert audio.recipe is not None
    fields = json.loads(format_recipe(audio.recipe))
    del fields[RECIPE_KEY]["solver"]
    older = parse_recipe(json.dumps(fields), "a.wav")
    assert older is not None
    assert np.array_equal(plain.replay(older).samples, audio.samples)
