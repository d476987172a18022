from __future__ import annotations

import dataclasses
import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_model import HOP, RATE_HZ, TINY, random_networks
from torch import nn

from resonate_audio.audio.io import read_audio, write_audio
from resonate_audio.core.errors import (
    Cancelled,
    CheckpointError,
    InputError,
    ModelNotFoundError,
    OutputError,
)
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.threads import cpu_threads
from resonate_audio.core.types import Latents
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.checkpoint import read_weights, write_weights
from resonate_audio.model.fast_bigvgan import FastBigVGAN
from resonate_audio.model.folder import Networks
from resonate_audio.pipeline import device as device_module
from resonate_audio.pipeline.device import choose_device, choose_dtype, vocoder_for_inference
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import PromptCutWarning, make_batch

PROMPTS = ["dog", "rain", "bell", "door", "wind", "dog rain", "bell door", "wind wind"]
SEEDS = [11, 5, 7, 3, 2, 13, 17, 19]
STEPS = 4


@pytest.fixture(scope="module")
def tiny(tiny_model: Path) -> Resonate:
    return Resonate.from_pretrained(tiny_model, device="cpu")


def latents(model: Resonate, rows: list[int], negative: str = "") -> torch.Tensor:
    return model.sample_latents(
        model.encode_text([PROMPTS[row] for row in rows]),
        model.encode_negative([negative] * len(rows)),
        [SEEDS[row] for row in rows],
        Sampling(0.5, STEPS),
    ).values


def test_low_memory_is_bfloat16_with_a_borrowed_text_encoder(tiny_model: Path) -> None:
    half = Resonate.from_pretrained(tiny_model, "cpu", "bfloat16")
    small = Resonate.from_pretrained(tiny_model, "cpu", low_memory=True)
    assert small.fingerprint == half.fingerprint
    assert small.dtype == torch.bfloat16
    for one, other in zip(
        *(m.generate(PROMPTS[:2], seeds=SEEDS[:2]) for m in (half, small)), strict=True
    ):
        assert np.array_equal(one.samples, other.samples)
    held = [value for value in vars(small.text_encoder).values() if isinstance(value, nn.Module)]
    assert held == []
    assert Resonate.from_pretrained(tiny_model, "cpu", "float32", low_memory=True).dtype == (
        torch.float32
    )


# The seed contract: latents of 10⁰, float32; kernels of other batch sizes may round differently.


@pytest.mark.parametrize("rows", [[0], [2, 0, 1], [7, 6, 5, 4, 3, 2, 1, 0]], ids=len)
def test_a_seed_gives_the_same_latents_in_any_batch_and_at_any_position(
    tiny: Resonate, rows: list[int]
) -> None:
    alone, together = latents(tiny, [0]), latents(tiny, rows)
    torch.testing.assert_close(together[rows.index(0)], alone[0], atol=2e-5, rtol=1e-5)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_seed_gives_the_same_latents_on_cuda(tiny: Resonate, tiny_model: Path) -> None:
    cuda = Resonate.from_pretrained(tiny_model, device="cuda", dtype="float32")
    torch.testing.assert_close(
        latents(cuda, [2, 0]).cpu(), latents(tiny, [2, 0]), atol=1e-3, rtol=0
    )


def test_another_seed_prompt_or_negative_gives_other_latents(tiny: Resonate) -> None:
    made = [
        latents(tiny, [0]),
        latents(tiny, [0], negative="rain"),
        tiny.sample_latents(
            tiny.encode_text(["dog"]), tiny.encode_negative([""]), [12], Sampling(0.5, STEPS)
        ).values,
        tiny.sample_latents(
            tiny.encode_text(["rain"]), tiny.encode_negative([""]), [11], Sampling(0.5, STEPS)
        ).values,
    ]
    for i, one in enumerate(made):
        for other in made[i + 1 :]:
            assert (one - other).abs().max() > 1e-3


def test_an_empty_negative_beside_a_real_one_stays_the_learned_empty(tiny: Resonate) -> None:
    mixed, empty = tiny.encode_negative(["", "rain"]), tiny.transformer.empty_features(1)
    torch.testing.assert_close(mixed.tokens[:1], empty.tokens)
    torch.testing.assert_close(mixed.pooled[:1], empty.pooled)
    torch.testing.assert_close(mixed.tokens[1:], tiny.encode_text(["rain"]).tokens)


def test_guidance_of_one_is_no_guidance(tiny: Resonate) -> None:
    features = tiny.encode_text(["dog"])
    plain, guided = (
        tiny.sample_latents(
            features, tiny.encode_negative(["rain"]), [1], Sampling(0.5, STEPS, scale)
        ).values
        for scale in (0.5, 1.0)
    )
    torch.testing.assert_close(plain, guided, atol=1e-5, rtol=1e-5)


# Sounds and their recipes.


def test_a_sound_has_the_length_asked_for_and_the_rate_of_the_model(tiny: Resonate) -> None:
    [audio] = tiny.generate("dog", duration_s=0.3, num_inference_steps=2, seeds=1)
    assert (len(audio.samples), audio.sample_rate_hz) == (2400, RATE_HZ)


def test_a_sound_never_passes_full_scale(tiny: Resonate) -> None:
    loud = dataclasses.replace(tiny_networks())
    loud.vae.data_mean.fill_(3.0)
    model = Resonate(loud, tiny.text_encoder, device="cpu")
    [audio] = model.generate("dog", num_inference_steps=1, seeds=1)
    assert np.abs(audio.samples).max() == pytest.approx(1.0)
    assert audio.recipe is not None
    assert 0 < audio.recipe.gain < 1


def test_a_quiet_sound_is_not_boosted(tiny: Resonate) -> None:
    [audio] = tiny.generate("dog", num_inference_steps=1, seeds=1)
    assert np.abs(audio.samples).max() < 1
    assert audio.recipe is not None
    assert audio.recipe.gain == 1.0


def test_the_recipe_says_how_the_sound_was_made(tiny: Resonate, tiny_model: Path) -> None:
    sounds = tiny.generate(["dog", "rain"], "wind", 0.5, STEPS, guidance_scale=3.0, seeds=[4, 9])
    recipe = sounds[1].recipe
    assert recipe is not None
    assert (recipe.prompt, recipe.negative_prompt, recipe.seed) == ("rain", "wind", 9)
    assert (recipe.num_inference_steps, recipe.guidance_scale) == (STEPS, 3.0)
    assert (recipe.row, recipe.batch_prompts, recipe.batch_seeds) == (1, ("dog", "rain"), (4, 9))
    assert (recipe.model, recipe.device, recipe.dtype) == (str(tiny_model), "cpu", "float32")


def test_replay_is_bit_equal_from_any_row_of_any_batch(tiny: Resonate) -> None:
    sounds = tiny.generate(PROMPTS[:5], ["", "rain", "", "", "dog"], seeds=SEEDS[:5],
                           num_inference_steps=STEPS, batch_size=3)  # fmt: skip
    for audio in sounds:
        assert audio.recipe is not None
        again = tiny.replay(audio.recipe)
        assert np.array_equal(again.samples, audio.samples)
        assert again.recipe == audio.recipe


def test_replay_from_a_file_by_a_freshly_loaded_model_is_bit_equal(
    tiny: Resonate, tmp_path: Path
) -> None:
    [audio] = tiny.generate("dog", num_inference_steps=STEPS, seeds=3)
    write_audio(tmp_path / "a.flac", audio)
    recipe = read_audio(tmp_path / "a.flac").recipe
    assert recipe is not None
    fresh = Resonate.from_pretrained(recipe.model, device=recipe.device, dtype=recipe.dtype)
    assert np.array_equal(fresh.replay(recipe).samples, audio.samples)


def test_replay_uses_the_recorded_number_of_threads(tiny: Resonate) -> None:
    before = torch.get_num_threads()
    with cpu_threads(2):
        [audio] = tiny.generate("dog", num_inference_steps=1, seeds=3)
    assert audio.recipe is not None
    assert audio.recipe.num_threads == 2
    again = tiny.replay(audio.recipe)
    assert again.recipe is not None
    assert again.recipe.num_threads == 2
    assert torch.get_num_threads() == before


def test_replay_by_other_weights_is_refused(tiny: Resonate) -> None:
    [audio] = tiny.generate("dog", num_inference_steps=1, seeds=3)
    assert audio.recipe is not None
    other = dataclasses.replace(audio.recipe, model_fingerprint="0123456789abcdef")
    with pytest.raises(InputError, match="made by weights 0123456789abcdef"):
        tiny.replay(other)


def test_no_seed_means_another_sound_each_time_with_its_seed_recorded(tiny: Resonate) -> None:
    first, second = tiny.generate(["dog", "dog"], num_inference_steps=1)
    assert first.recipe is not None
    assert second.recipe is not None
    assert first.recipe.seed != second.recipe.seed
    [again] = tiny.generate("dog", num_inference_steps=1, seeds=first.recipe.seed)
    np.testing.assert_allclose(again.samples, first.samples, atol=1e-4)


def test_one_seed_for_many_prompts_counts_up() -> None:
    assert make_batch(["a", "b", "c"], seeds=7).seeds == (7, 8, 9)


# Progress and cancelling.


def test_steps_are_counted_over_all_batches(tiny: Resonate) -> None:
    told: list[tuple[int, int]] = []
    tiny.generate(
        PROMPTS[:3], num_inference_steps=2, seeds=1, batch_size=2,
        on_step=lambda done, in_all: told.append((done, in_all)),
    )  # fmt: skip
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_callback_cancels(tiny: Resonate) -> None:
    told: list[int] = []

    def stop_at_two(done: int, in_all: int) -> bool:
        told.append(done)
        return done < 2

    with pytest.raises(Cancelled, match="step 2 of 4"):
        tiny.generate("dog", num_inference_steps=STEPS, seeds=1, on_step=stop_at_two)
    assert told == [1, 2]


# Stations.


def test_decoding_in_tiles_equals_decoding_at_once(
    tiny: Resonate, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = torch.randn(2, 90, 6, generator=torch.Generator().manual_seed(0))
    station = Latents(values, TINY.frame_rate_hz)
    mel = tiny.decode(station)
    samples = tiny.vocode(mel).samples
    monkeypatch.setattr("resonate_audio.pipeline.path.TILE_FRAMES", 7)
    monkeypatch.setattr("resonate_audio.pipeline.path.TILE_HOPS", 41)
    tiled = tiny.decode(station)
    torch.testing.assert_close(tiled.values, mel.values, atol=1e-5, rtol=1e-5)
    # The running phase of a sine is summed tile by tile, and rounded there.
    torch.testing.assert_close(tiny.vocode(mel).samples, samples, atol=5e-5, rtol=1e-4)


def test_stations_carry_their_rates(tiny: Resonate) -> None:
    station = tiny.sample_latents(
        tiny.encode_text(["dog"]), tiny.encode_negative([""]), [1], Sampling(0.5, 1)
    )
    mel = tiny.decode(station)
    wave = tiny.vocode(mel)
    assert station.frame_rate_hz == RATE_HZ / HOP / 4
    assert mel.hop_rate_hz == RATE_HZ / HOP
    assert wave.sample_rate_hz == RATE_HZ
    assert wave.samples.shape[1] == station.values.shape[1] * 4 * HOP


def test_a_few_rows_at_a_time_decode_to_the_same_sounds(
    tiny: Resonate, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = tiny.generate(PROMPTS[:4], num_inference_steps=1, seeds=1)
    monkeypatch.setattr("resonate_audio.pipeline.path.HOPS_PER_GROUP", {"cpu": 1})
    for one, other in zip(
        tiny.generate(PROMPTS[:4], num_inference_steps=1, seeds=1), together, strict=True
    ):
        np.testing.assert_allclose(one.samples, other.samples, atol=1e-4)


def test_equal_texts_are_encoded_alike(tiny: Resonate) -> None:
    features = tiny.encode_text(["dog", "rain", "dog"])
    assert torch.equal(features.tokens[0], features.tokens[2])
    assert not torch.equal(features.tokens[0], features.tokens[1])


def test_bfloat16_is_near_float32_and_keeps_exact_statistics(
    tiny: Resonate, tiny_model: Path
) -> None:
    half = Resonate.from_pretrained(tiny_model, device="cpu", dtype=torch.bfloat16)
    assert half.transformer.dtype == torch.bfloat16
    assert torch.equal(half.transformer.latent_std, tiny.transformer.latent_std)
    assert half.fingerprint == tiny.fingerprint
    error = (latents(half, [0, 1]) - latents(tiny, [0, 1])).abs().mean()
    assert 0 < error < 0.1 * latents(tiny, [0, 1]).std()


# Saving and loading.


def test_a_saved_model_comes_back_bit_equal(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "copy")
    copy = Resonate.from_pretrained(tmp_path / "copy", device="cpu")
    assert copy.fingerprint == tiny.fingerprint
    assert torch.equal(latents(copy, [0, 1]), latents(tiny, [0, 1]))


def test_half_precision_storage_is_half_as_large_and_close(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "full")
    tiny.save_pretrained(tmp_path / "half", storage="float16")
    sizes = [
        (tmp_path / name / "vae/model.safetensors").stat().st_size for name in ("full", "half")
    ]
    assert sizes[1] < 0.6 * sizes[0]
    half = Resonate.from_pretrained(tmp_path / "half", device="cpu")
    torch.testing.assert_close(latents(half, [0]), latents(tiny, [0]), atol=2e-2, rtol=0)


def test_half_precision_storage_is_stable(tiny_model: Path, tmp_path: Path) -> None:
    for source, name in ((tiny_model, "once"), (tmp_path / "once", "twice")):
        Resonate.from_pretrained(source, device="cpu").save_pretrained(tmp_path / name, "float16")
    for part in ("transformer", "vae", "vocoder"):
        once, twice = (tmp_path / name / part / "model.safetensors" for name in ("once", "twice"))
        assert once.read_bytes() == twice.read_bytes()


def test_raw_and_folded_vae_weights_make_the_same_model(tiny: Resonate) -> None:
    networks = tiny_networks()
    assert Resonate(networks, tiny.text_encoder, device="cpu").fingerprint == tiny.fingerprint


def test_saving_over_a_model_needs_permission(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "m")
    with pytest.raises(OutputError, match="exists already"):
        tiny.save_pretrained(tmp_path / "m")
    tiny.save_pretrained(tmp_path / "m", overwrite=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_a_folder_that_is_no_model_is_never_replaced(tiny: Resonate, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("meow")
    with pytest.raises(OutputError, match="not a model folder"):
        tiny.save_pretrained(tmp_path / "photos", overwrite=True)


def test_a_failed_save_leaves_nothing(tiny: Resonate, tmp_path: Path) -> None:
    networks = tiny_networks()
    networks.vae.decoder.conv_out.weight.data.fill_(1e6)
    networks.vae.folded.fill_(True)
    broken = Resonate(networks, tiny.text_encoder, device="cpu")
    with pytest.raises(CheckpointError, match=r"vae: decoder\.conv_out\.weight does not fit"):
        broken.save_pretrained(tmp_path / "m", storage="float16")
    assert list(tmp_path.iterdir()) == []


def test_a_hub_model_is_found_in_the_local_cache(
    tiny: Resonate, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_hub_cache(tmp_path, "someone/tiny", tiny_model)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    loaded = Resonate.from_pretrained("someone/tiny", device="cpu", local_files_only=True)
    assert loaded.fingerprint == tiny.fingerprint
    assert loaded.name == "someone/tiny"


def test_the_text_encoder_is_found_by_its_own_id(
    tiny: Resonate, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill_hub_cache(tmp_path / "hub", "nobody/tiny-text", tiny_model / "text_encoder")
    tiny.save_pretrained(tmp_path / "m")
    for file in (tmp_path / "m" / "text_encoder").iterdir():
        file.unlink()
    (tmp_path / "m" / "text_encoder").rmdir()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    loaded = Resonate.from_pretrained(tmp_path / "m", device="cpu", local_files_only=True)
    assert loaded.fingerprint == tiny.fingerprint
    loaded.save_pretrained(tmp_path / "again")
    assert not (tmp_path / "again" / "text_encoder").exists()


def fill_hub_cache(cache: Path, repo_id: str, source: Path) -> None:
    """The layout that huggingface_hub documents: refs/main names a snapshot."""
    repo = cache / f"models--{repo_id.replace('/', '--')}"
    commit = "0" * 40
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    for path in source.rglob("*"):
        if path.is_file():
            target = repo / "snapshots" / commit / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())


def test_a_hub_id_that_is_not_cached_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFoundError, match="no/one at v2: not in the local cache") as caught:
        Resonate.from_pretrained("no/one", revision="v2", local_files_only=True)
    assert "\n" not in str(caught.value)


# Bad input.


def test_an_unknown_model_lists_what_exists() -> None:
    with pytest.raises(ModelNotFoundError, match="nanno: no such model; bundled: "):
        Resonate.from_pretrained("nanno")


def test_an_official_file_is_pointed_to_convert(tmp_path: Path) -> None:
    (tmp_path / "Resonate_PT.pth").touch()
    with pytest.raises(ModelNotFoundError, match="resonate convert"):
        Resonate.from_pretrained(tmp_path / "Resonate_PT.pth")


def test_a_folder_without_an_index_is_not_a_model(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model_index\.json: cannot read it"):
        Resonate.from_pretrained(tmp_path)


def test_a_later_format_asks_for_an_upgrade(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "m")
    index = tmp_path / "m" / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "format_version": 2}))
    with pytest.raises(CheckpointError, match="format 2, this version reads 1"):
        Resonate.from_pretrained(tmp_path / "m")


def test_a_truncated_part_names_its_file(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "vocoder" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(CheckpointError, match=r"vocoder/model\.safetensors: truncated"):
        Resonate.from_pretrained(tmp_path / "m")


def test_a_misshapen_part_names_its_first_bad_key(tiny: Resonate, tmp_path: Path) -> None:
    tiny.save_pretrained(tmp_path / "m")
    path = tmp_path / "m" / "vae" / "model.safetensors"
    state = read_weights(path)
    write_weights(path, {**state, "data_mean": torch.zeros(1, 21, 1)}, {})
    with pytest.raises(CheckpointError, match=r"data_mean has shape \(1, 21, 1\), expected"):
        Resonate.from_pretrained(tmp_path / "m")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"prompts": ""}, "prompt 1 of 1 is empty"),
        ({"prompts": ["dog", "  "]}, "prompt 2 of 2 is empty"),
        ({"prompts": []}, "no prompt"),
        ({"duration_s": 0.0}, r"tiny makes 0\.1 to 600 s"),
        ({"duration_s": 600.1}, r"600\.1 s: tiny makes"),
        ({"duration_s": math.nan}, "duration of nan"),
        ({"duration_s": math.inf}, "duration of inf"),
        ({"num_inference_steps": 0}, "0 inference steps"),
        ({"guidance_scale": math.nan}, "guidance scale nan"),
        ({"guidance_scale": math.inf}, "guidance scale inf"),
        ({"guidance_scale": -1.0}, r"guidance scale -1\.0"),
        ({"seeds": [1, 2]}, "2 seeds for 1 prompts"),
        ({"seeds": -1}, "seed -1"),
        ({"seeds": [2**63]}, "seed 9223372036854775808"),
        ({"negative_prompt": ["a", "b"]}, "2 negative prompts for 1 prompts"),
        ({"batch_size": 0}, "batch size 0"),
    ],
)
def test_bad_input_is_refused_before_any_work(
    tiny: Resonate, values: dict[str, Any], message: str
) -> None:
    def work(done: int, in_all: int) -> None:
        pytest.fail("the model ran")

    with pytest.raises(InputError, match=message):
        tiny.generate(**{"prompts": "dog", "on_step": work, **values})


def test_a_prompt_that_is_too_long_is_said_to_be_cut(tiny: Resonate) -> None:
    long = "rain " * 20
    assert tiny.cut_prompts(["dog", long]) == [long]
    with pytest.warns(PromptCutWarning, match="cut at 9 tokens"):
        tiny.generate(["dog", long], num_inference_steps=1, seeds=1)


def test_a_prompt_that_fits_is_not_said_to_be_cut(tiny: Resonate) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.generate("dog", num_inference_steps=1, seeds=1)


def test_latents_that_blow_up_are_an_error_not_a_sound(tiny: Resonate) -> None:
    empty = tiny.transformer.empty_tokens.clone()
    tiny.transformer.empty_tokens.fill_(math.nan)
    try:
        with pytest.raises(InputError, match="the latents of row 1 became NaN"):
            tiny.generate("dog", num_inference_steps=STEPS, seeds=1)
    finally:
        tiny.transformer.empty_tokens.copy_(empty)


def test_a_device_that_is_not_here_is_named() -> None:
    with pytest.raises(InputError, match="device gpu: expected cpu"):
        choose_device("gpu")
    with pytest.raises(InputError, match="cuda:97: not available here"):
        choose_device("cuda:97")


def test_half_precision_is_refused_where_it_gives_garbage() -> None:
    with pytest.raises(InputError, match="float16 on mps: expected float32"):
        choose_dtype("float16", torch.device("mps"))


@pytest.mark.parametrize("fast_in", [torch.float32, torch.bfloat16])
def test_a_large_flow_is_in_what_the_processor_is_fast_in_unless_asked(
    monkeypatch: pytest.MonkeyPatch, fast_in: torch.dtype
) -> None:
    monkeypatch.setattr(device_module, "preferred_dtype", lambda _: fast_in)
    cpu, large = torch.device("cpu"), device_module.COMPILE_FROM_WEIGHTS
    assert choose_dtype(None, cpu, num_weights=large) == fast_in
    assert choose_dtype("float32", cpu, num_weights=large) == torch.float32
    assert choose_dtype(None, cpu, num_weights=large - 1) == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("preferred", [torch.float32, torch.bfloat16])
def test_a_large_bigvgan_follows_the_flow_into_bfloat16_where_that_is_fast(
    monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, preferred: torch.dtype
) -> None:
    monkeypatch.setattr(device_module, "preferred_dtype", lambda _: preferred)
    monkeypatch.setattr(device_module, "can_compile", lambda: True)
    config = BigVGANConfig(
        version=2,
        sample_rate_hz=1000,
        num_bands=6,
        initial_channels=4,
        upsample_rates=(2,),
        upsample_kernels=(4,),
    )
    vocoder, cpu = BigVGAN(config), torch.device("cpu")
    assert vocoder_for_inference(vocoder, cpu, dtype) is vocoder
    monkeypatch.setattr(device_module, "COMPILE_FROM_WEIGHTS", 1)
    fast = vocoder_for_inference(vocoder, cpu, dtype)
    assert isinstance(fast, FastBigVGAN) is (dtype in (torch.float32, preferred))
    assert not isinstance(fast, FastBigVGAN) or fast._dtype == dtype


@pytest.mark.parametrize("dtype", [None, "float32", torch.float32])
def test_cpu_computes_in_float32_by_default(dtype: str | torch.dtype | None) -> None:
    assert choose_dtype(dtype, torch.device("cpu")) == torch.float32


def tiny_networks() -> Networks:
    return random_networks(TINY, seed=0)
