"""K16: a setting without effect is told, a refusal names the way on, nothing is done in vain."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from resonate_audio import Resonate
from resonate_audio.cli.main import run
from resonate_audio.core.errors import InputError
from resonate_audio.core.types import Prompts, TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import read_networks
from resonate_audio.pipeline.request import IdleNegativeWarning, RequestWarning
from resonate_audio.training.reinforce.policy import Policy

SHORT: dict[str, Any] = {"duration_s": 0.5, "num_inference_steps": 2, "seeds": 3}


@contextmanager
def counted(*networks: nn.Module) -> Iterator[list[int]]:
    """Rows that transformers compute, call by call."""
    rows: list[int] = []
    hooks = [one.register_forward_pre_hook(lambda _, x: rows.append(len(x[0]))) for one in networks]
    yield rows
    for hook in hooks:
        hook.remove()


@pytest.fixture
def tiny(tiny_model: Path) -> Resonate:
    return Resonate.from_pretrained(tiny_model, device="cpu")


@cache
def learner(model: Resonate) -> FlowTransformer:
    """The form of a model's transformer that is trained."""
    assert model._folder is not None
    return read_networks(model._folder).transformer.eval()


def generates(model: Resonate, scale: float) -> Any:
    return model.generate("dog", guidance_scale=scale, **SHORT)[0].samples


def varies(model: Resonate, scale: float) -> Any:
    source = model.generate("dog", **SHORT)[0]
    return model.vary(source, 0.5, num_inference_steps=2, guidance_scale=scale, seeds=3)[0].samples


def rolls_out(model: Resonate, scale: float) -> Any:
    from resonate_audio.training.reinforce.rollout import SamplerConfig, sample_rollout

    policy = Policy(learner(model), max(scale, 1.0))
    sampler = SamplerConfig(num_steps=3, guidance_scale=max(scale, 1.0))
    shape = (8, model.config.vae.latent_channels)
    prompts, features = Prompts(("dog",), 2), model.encode_text(["dog"])
    return sample_rollout(policy.bind, prompts, features, sampler, shape, 0, 0).latents


def serves(model: Resonate, scale: float) -> Any:
    from resonate_audio.core.sampling import Sampling
    from resonate_audio.pipeline.request import make_batch
    from resonate_audio.serving.sounds.rowwise import generate_together

    sampling = Sampling(0.5, 2, scale)
    batch = make_batch(("dog", "rain"), None, (3, 4))
    made = generate_together(model, batch, sampling, lambda _: (True, True))
    return np.stack([audio.samples for audio in made if audio is not None])


def listens(model: Resonate, scale: float) -> Any:
    from resonate_audio.training.pretrain.listen import ListenConfig, Listener

    config = ListenConfig(prompts=("dog",), guidance_scale=scale, num_inference_steps=2)
    listener = Listener(config, model.encode_text(["dog"]), model.vae, None, 8, 8000)
    return listener.latents(learner(model))


MAKERS: dict[str, Callable[[Resonate, float], Any]] = {
    "generation": generates,
    "edits": varies,
    "rollouts": rolls_out,
    "the server": serves,
    "listening in on a training": listens,
}


@pytest.mark.parametrize("maker", MAKERS)
def test_a_guidance_of_one_computes_one_branch(maker: str, tiny: Resonate) -> None:
    """And gives the bits that one branch gives."""
    at_one = MAKERS[maker](tiny, 1.0)
    below = MAKERS[maker](tiny, 0.0)
    assert np.array_equal(np.asarray(at_one), np.asarray(below))
    counts = []
    for scale in (1.0, 3.0):
        with counted(tiny.transformer, learner(tiny)) as rows:
            MAKERS[maker](tiny, scale)
        counts.append(sum(rows))
    others = counts[0] - counts[1] // 2  # steps of an edit that no guidance has a part in
    assert counts[1] > counts[0]
    assert others == 0 or maker == "edits"


class Names:
    """Conditions that are told apart by a number."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers

    def followed_by(self, other: "Names") -> "Names":
        return Names(*self.numbers, *other.numbers)


def model(z: Tensor, t: Tensor, names: Names) -> Tensor:
    return z * 0 + torch.tensor(names.numbers).view(-1, 1)


@pytest.mark.parametrize(("scale", "expected"), [(0.0, 2.0), (0.5, 2.0), (1.0, 2.0), (2.0, 5.0)])
def test_guidance_follows_its_equation(scale: float, expected: float) -> None:
    empty = None if scale <= 1 else Names(-1.0)
    velocity = guided(model, Names(2.0), empty, scale)
    assert velocity(torch.zeros(1, 3), torch.ones(1)).tolist() == [[expected] * 3]


def test_a_sound_of_an_older_version_is_made_again_with_both_branches(tiny: Resonate) -> None:
    from dataclasses import replace

    made = tiny.generate("dog", guidance_scale=1.0, **SHORT)[0]
    assert made.recipe is not None
    assert made.recipe.one_branch
    counts = []
    for one_branch in (True, False):
        with counted(tiny.transformer) as rows:
            tiny.replay(replace(made.recipe, one_branch=one_branch))
        counts.append(sum(rows))
    assert counts[1] == 2 * counts[0]


# --- what is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [0.0, 0.5, 1.0])
def test_python_warns_of_a_negative_prompt_without_effect(scale: float, tiny: Resonate) -> None:
    with pytest.warns(IdleNegativeWarning, match="it needs one above 1"):
        tiny.generate("dog", negative_prompt="rain", guidance_scale=scale, **SHORT)
    assert issubclass(IdleNegativeWarning, RequestWarning)


def test_nothing_is_said_of_one_with_effect(tiny: Resonate) -> None:
    tiny.generate("dog", negative_prompt="rain", guidance_scale=1.5, **SHORT)
    tiny.generate("dog", negative_prompt=" ", guidance_scale=1.0, **SHORT)


@pytest.mark.parametrize(("scale", "is_told"), [("1", True), ("0", True), ("2", False)])
def test_the_command_says_that_a_negative_prompt_does_nothing(
    scale: str, is_told: bool, tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["generate", "dog", "--negative", "rain", "--guidance", scale, "--steps", "1"]
    assert run([*command, "-m", str(tiny_model), "-o", str(tmp_path / "x.wav")]) == 0
    said = capsys.readouterr().err
    assert ("the negative prompt does nothing" in said) == is_told
    assert ("--guidance 4.5" in said) == is_told


@pytest.mark.parametrize(("scale", "told"), [(1.0, "true"), (3.0, None)])
def test_the_server_says_that_a_negative_prompt_does_nothing(
    scale: float, told: str | None, tiny_model: Path, tmp_path: Path
) -> None:
    from starlette.testclient import TestClient

    from resonate_audio.serving.app import create_app
    from resonate_audio.serving.config import ServeConfig

    asked = {"input": "dog", "negative_prompt": "hiss", "guidance_scale": scale}
    asked |= {"num_inference_steps": 1, "audio_length": 0.5}
    app = create_app(ServeConfig(models={"tiny": str(tiny_model)}, home=tmp_path))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.post("/v1/audio/generate", json=asked)
        listed = client.post("/v1/audio/generate", json=asked | {"return": "json"}).json()
    assert answer.headers.get("X-Resonate-Negative-Idle") == told
    assert listed["data"][0]["negative_idle"] == (told is not None)


def test_a_too_long_sound_is_refused_with_the_way_on(tiny: Resonate) -> None:
    with pytest.raises(InputError, match=r"0\.1 to 600 s; make it in parts, and join them"):
        tiny.generate("dog", duration_s=601.0)
    with pytest.raises(InputError, match="`resonate generate` makes longer ones in windows"):
        tiny.config.check_duration(3.0)


def test_one_prompt_of_a_rollout_needs_no_empty_one(tiny: Resonate) -> None:
    """Not even its projection: the empty prompt is left alone."""
    seen: list[int] = []
    policy = Policy(learner(tiny), 1.0)
    original = policy.model.condition

    def condition(features: TextFeatures) -> Any:
        seen.append(len(features.pooled))
        return original(features)

    policy.model.condition = condition  # type: ignore[method-assign]
    policy.bind(tiny.encode_text(["dog", "rain"]))
    assert seen == [2]
