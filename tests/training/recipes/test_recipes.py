from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from tiny_corpus import write_recipe

from resonate_audio.core.config import load_config, parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.checkpoint import load_strict, read_weights
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.linear_vae import build_vae
from resonate_audio.model.presets import NANO_FLOW
from resonate_audio.training.recipes.codec import VAERecipe, VocoderRecipe, train_vae, train_vocoder
from resonate_audio.training.recipes.model import merge
from resonate_audio.training.recipes.pretrain import PretrainRecipe, channel_scales, train_flow

RECIPES = Path(__file__).parents[3] / "recipes"
CROPS = {"crop_s": 0.3, "rows_per_batch": 2}


def quiet(_: str) -> None:
    """Say nothing."""


def test_a_preset_fills_what_the_recipe_leaves_open(settings: dict[str, Any]) -> None:
    recipe = parse_config(VAERecipe, settings, "test")
    assert recipe.model.vae.hidden == 8
    assert recipe.model.text_encoder == NANO_FLOW.text_encoder
    assert recipe.model.transformer.num_text_tokens == 77


def test_an_unknown_field_is_refused_by_name(settings: dict[str, Any]) -> None:
    with pytest.raises(
        ConfigError, match=r"model\.vae\.linear\.hiden: unknown field; known are kind"
    ):
        parse_config(VAERecipe, settings | {"model": {"vae": {"hiden": 8}}}, "test")


def test_an_unknown_preset_lists_those_that_exist(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"preset: expected one of resonate, .*nano"):
        parse_config(VAERecipe, settings | {"preset": "huge"}, "test")


def test_an_override_reaches_into_a_group(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = write_recipe(tmp_path / "recipe.yaml", settings)
    assert load_config(VAERecipe, path, ["run.seed=5"]).run.seed == 5
    assert load_config(VAERecipe, path, ["model.vae.hidden=16"]).model.vae.hidden == 16


def test_the_resolved_recipe_is_a_recipe(tmp_path: Path, settings: dict[str, Any]) -> None:
    recipe = parse_config(PretrainRecipe, settings, "test")
    path = write_recipe(tmp_path / "recipe.yaml", recipe.model_dump(mode="json"))
    assert load_config(PretrainRecipe, path) == recipe


def test_merging_replaces_single_fields() -> None:
    assert merge({"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": 9}}) == {
        "a": {"b": 9, "c": 2},
        "d": 3,
    }


def test_merging_takes_a_group_of_another_kind_whole() -> None:
    base = {"vae": {"kind": "linear", "channels": 1}}
    conv = {"kind": "conv", "width": 2}
    assert merge(base, {"vae": conv}) == {"vae": conv}


def test_the_linear_vae_is_fitted_and_exported(tmp_path: Path, settings: dict[str, Any]) -> None:
    small = {"vae": {"latent_channels": 4}, "transformer": {"latent_channels": 4}}
    recipe = parse_config(VAERecipe, settings | {"model": small}, "vae")
    assert train_vae(recipe, quiet).finished
    vae = build_vae(recipe.model.vae)
    exported = recipe.run.output / "export" / "model.safetensors"
    load_strict(vae, read_weights(exported), "export")
    assert vae.get_buffer("variances").min() > vae.get_buffer("noise_variance") > 0


def test_pretraining_without_a_vae_says_where_one_comes_from(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"weights\.vae is not set"):
        train_flow(parse_config(PretrainRecipe, settings, "test"), quiet)


def test_the_three_trainers_hand_on_to_each_other(tmp_path: Path, settings: dict[str, Any]) -> None:
    def values(name: str, **more: Any) -> dict[str, Any]:
        return settings | {"run": settings["run"] | {"output": str(tmp_path / name)}} | more

    weights = {"vae": str(tmp_path / "vae" / "export")}
    train_vae(parse_config(VAERecipe, values("vae", crops=CROPS), "vae"), quiet)
    against = {"decoded_share": 0.5, "adversary": {"width": 2, "sizes": [256]}}
    voice = values("voice", crops=CROPS, weights=weights, objective=against)
    train_vocoder(parse_config(VocoderRecipe, voice, "vocoder"), quiet)
    flow = values(
        "flow",
        weights=weights | {"vocoder": str(tmp_path / "voice" / "export")},
        window_s=[0.5, 1.0],
        listen={"prompts": ["a low hum"], "duration_s": 0.5, "num_inference_steps": 2},
    )
    recipe = parse_config(PretrainRecipe, flow, "flow")
    assert train_flow(recipe, quiet).finished
    model = FlowTransformer(recipe.model.transformer)
    load_strict(model, read_weights(tmp_path / "flow" / "export" / "model.safetensors"), "export")
    assert model.latent_std.min() > 0
    assert torch.any(model.empty_tokens != 0)
    assert (tmp_path / "flow" / "samples" / "step-00000006-0.wav").exists()
    assert (tmp_path / "voice" / "samples" / "step-00000006-0-rebuilt.wav").exists()
    assert (tmp_path / "vae" / "samples" / "step-00000006.png").exists()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vae.yaml", VAERecipe), ("vocoder.yaml", VocoderRecipe), ("pretrain.yaml", PretrainRecipe)],
)
def test_the_example_recipes_are_valid(name: str, kind: type[VAERecipe]) -> None:
    assert load_config(kind, RECIPES / name).preset == "resonate"


@pytest.mark.parametrize(
    ("name", "kind"),
    [("vae.yaml", VAERecipe), ("vocoder.yaml", VocoderRecipe), ("adversary.yaml", VocoderRecipe)],
)
def test_the_recipes_of_the_codec_are_valid(name: str, kind: type[VAERecipe]) -> None:
    recipe = load_config(kind, RECIPES / "nano" / "codec" / name)
    assert recipe.model.mel.sample_rate_hz == 44_100


def test_a_vocoder_goes_on_from_the_weights_it_is_given(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    run = settings["run"] | {"num_steps": 1}
    first = parse_config(VocoderRecipe, settings | {"crops": CROPS, "run": run}, "first")
    train_vocoder(first, quiet)
    start = tmp_path / "run" / "export"
    again = settings | {
        "crops": CROPS,
        "weights": {"vocoder": str(start)},
        "optim": {"learning_rate": 1e-9, "warmup_steps": 0},
        "run": run | {"output": str(tmp_path / "again")},
    }
    train_vocoder(parse_config(VocoderRecipe, again, "second"), quiet)
    before, after = (
        read_weights(f / "model.safetensors") for f in (start, tmp_path / "again" / "export")
    )
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-4)


def test_the_pretraining_example_is_the_published_recipe() -> None:
    recipe = load_config(PretrainRecipe, RECIPES / "pretrain.yaml")
    assert recipe.run.num_steps == 500_000
    assert recipe.optim.learning_rate == 1e-4
    assert recipe.optim.betas == (0.9, 0.95)
    assert recipe.flow.condition_dropout == 0.1
    assert recipe.flow.frames_per_batch * recipe.run.micro_batches // 431 == 128


def test_channels_can_be_scaled_only_where_they_have_gains(settings: dict[str, Any]) -> None:
    recipe = PretrainRecipe.model_validate(settings | {"channel_exponent": 0.5})
    with pytest.raises(ConfigError, match="channel_exponent: needs a linear VAE"):
        channel_scales(recipe, build_vae(recipe.model.vae))


def test_a_latent_scale_is_the_deviation_of_normalised_latents(settings: dict[str, Any]) -> None:
    recipe = PretrainRecipe.model_validate(settings | {"latent_scale": 0.25})
    scales = channel_scales(recipe, None)
    assert scales is not None
    assert scales.tolist() == [0.25] * recipe.model.vae.latent_channels
    assert channel_scales(PretrainRecipe.model_validate(settings), None) is None


def test_a_latent_scale_multiplies_the_scales_of_channels() -> None:
    recipe = load_config(PretrainRecipe, RECIPES / "nano" / "flow.yaml")
    vae = build_vae(recipe.model.vae)
    plain = channel_scales(recipe.model_copy(update={"latent_scale": None}), vae)
    scaled = channel_scales(recipe.model_copy(update={"latent_scale": 0.25}), vae)
    assert plain is not None
    assert scaled is not None
    torch.testing.assert_close(scaled, 0.25 * plain)


def test_a_latent_scale_is_what_the_network_expects(settings: dict[str, Any]) -> None:
    expects = {"model": {"transformer": {"data_std": 0.5}}}
    values = merge(settings, expects)
    PretrainRecipe.model_validate(values | {"latent_scale": 0.5})
    with pytest.raises(ValidationError, match=r"latent_scale 0\.25: model\.transformer\.data_std"):
        PretrainRecipe.model_validate(values | {"latent_scale": 0.25})
