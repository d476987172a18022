from pathlib import Path
from typing import Any

import pytest
import torch
from processes import CALM, assert_same_training, finish, start
from shard_corpus import CHANNELS, DIM, LATENTS, write_shards

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import ConfigError
from resonate_audio.data.shards.read import LatentShards
from resonate_audio.model.flow_transformer import FlowTransformerConfig
from resonate_audio.model.presets import NANO
from resonate_audio.training.loop.distributed import ALONE, Ranks
from resonate_audio.training.loop.task import Draw, generator_for
from resonate_audio.training.pretrain.shards import ShardPretrainTask
from resonate_audio.training.pretrain.task import FlowConfig, build_transformer
from resonate_audio.training.recipes.codec import VAERecipe, train_vae
from resonate_audio.training.recipes.pretrain import PretrainRecipe, train_flow

SMALL = FlowTransformerConfig(
    latent_channels=CHANNELS,
    hidden=32,
    num_heads=2,
    num_joint_blocks=1,
    num_single_blocks=1,
    text_dim=DIM,
    pooled_dim=DIM,
    num_text_tokens=LATENTS.num_tokens,
)


def make_task(folder: Path, ranks: Ranks = ALONE, **config: Any) -> ShardPretrainTask:
    data = LatentShards(folder)
    torch.manual_seed(0)
    model = build_transformer(SMALL, data)
    flow = FlowConfig(frames_per_batch=16, **config)
    return ShardPretrainTask(model, data, flow, 0, ranks)


def draw(index: int, ranks: Ranks = ALONE) -> Draw:
    return Draw(index, index, generator_for(0, index, "cpu"), ranks)


def flip(folder: Path, number: int) -> None:
    shards = LatentShards(folder).shards
    path = folder / shards.index.shards[0].name
    content = bytearray(path.read_bytes())
    content[int(shards.samples["offset"][number]) + 600] ^= 1
    path.write_bytes(content)


def test_a_batch_joins_latents_with_their_own_captions(tmp_path: Path) -> None:
    task = make_task(write_shards(tmp_path, [5, 6]), condition_dropout=0.0)
    for index in range(4):
        batch = task.draw_batch(draw(index))
        assert batch.data.shape[0] * batch.data.shape[1] <= 16
        torch.testing.assert_close(batch.data[:, 0, 0], batch.features.pooled[:, 0])


def test_a_dropped_caption_is_the_empty_prompt(tmp_path: Path) -> None:
    task = make_task(write_shards(tmp_path, [5, 6]), condition_dropout=1.0)
    assert not task.draw_batch(draw(0)).features.pooled.any()


def test_silence_after_a_clip_can_be_masked(tmp_path: Path) -> None:
    task = make_task(write_shards(tmp_path, [5, 6]), mask_padding=True)
    mask = task.draw_batch(draw(0)).mask
    assert mask is not None
    assert mask.sum(1).tolist() == [mask.shape[1] - 1] * len(mask)


def test_batch_n_is_the_same_after_a_restart(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [5, 6])
    before = make_task(folder)
    for index in range(9):
        batch = before.draw_batch(draw(index))
    again = make_task(folder).draw_batch(draw(8))
    for name in ("data", "noise", "times"):
        assert torch.equal(getattr(batch, name), getattr(again, name))


@pytest.mark.parametrize("world", [2, 3])
def test_processes_share_the_batch_of_one(tmp_path: Path, world: int) -> None:
    folder = write_shards(tmp_path, [5, 6], frames=(4,))
    whole = make_task(folder).draw_batch(draw(1))
    for rank in range(world):
        ranks = Ranks(rank, world)
        part = make_task(folder, ranks).draw_batch(draw(1, ranks))
        assert torch.equal(part.data, whole.data[rank::world])
        assert torch.equal(part.noise, whole.noise[rank::world])
        assert torch.equal(part.features.tokens, whole.features.tokens[rank::world])
        assert part.share == len(part.data) / len(whole.data)


def test_the_losses_of_processes_add_up(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [5, 6])
    whole, _ = make_task(folder).loss("model", draw(1))
    parts = [
        make_task(folder, ranks).loss("model", draw(1, ranks))[0]
        for ranks in (Ranks(0, 2), Ranks(1, 2))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


def test_a_clip_that_cannot_be_used_weighs_nothing(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [120])
    good = make_task(folder).draw_batch(draw(0))
    bad_number = int(good.data[1, 0, 0])  # a clip's latents are its number
    flip(folder, bad_number)
    batch = make_task(folder).draw_batch(draw(0))
    assert torch.equal(batch.data, torch.cat([good.data[:1], good.data[2:]]))
    assert torch.equal(batch.noise, torch.cat([good.noise[:1], good.noise[2:]]))
    assert batch.share == len(batch.data) / len(good.data)


def test_a_process_left_without_a_clip_still_has_a_gradient(tmp_path: Path) -> None:
    folder = write_shards(tmp_path, [120], frames=(8,))
    ranks = Ranks(1, 2)
    flip(folder, int(make_task(folder).draw_batch(draw(0)).data[1, 0, 0]))
    task = make_task(folder, ranks)
    loss, _ = task.loss("model", draw(0, ranks))
    loss.backward()
    assert loss == 0
    assert all(p.grad is not None for p in task.model.parameters() if p.requires_grad)


def test_batches_that_do_not_split_over_the_processes_are_refused(tmp_path: Path) -> None:
    task = make_task(write_shards(tmp_path, [5, 6]))  # 4 rows of 4 frames, 2 of 8
    task.check_ranks(Ranks(0, 2))
    with pytest.raises(ConfigError, match=r"frames_per_batch 16 \(8 a row\): a batch of 2 rows"):
        task.check_ranks(Ranks(0, 4))


# --- recipes -----------------------------------------------------------------------------------


def write_fitting(folder: Path, **changes: Any) -> Path:
    """Shards that fit the tiny model of the recipes."""
    sizes = LATENTS.model_copy(
        update={
            "channels": 4,
            "text_dim": NANO.text_encoder.dim,
            "num_tokens": NANO.text_encoder.num_tokens,
            "frame_samples": 1024,
        }
        | changes
    )
    return write_shards(folder, [7, 6], latents=sizes, rate_hz=16_000)


def recipe(settings: dict[str, Any], folder: Path, output: Path, **more: Any) -> PretrainRecipe:
    values = settings | {"data": {"shards": str(folder)}, "flow": {"frames_per_batch": 16}} | more
    values["run"] = settings["run"] | {"output": str(output)}
    return parse_config(PretrainRecipe, values, "test")


def test_a_recipe_trains_on_shards_and_a_resumed_run_ends_the_same(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = write_fitting(tmp_path / "shards")
    said: list[str] = []
    first = recipe(settings, folder, tmp_path / "first")
    assert train_flow(first, said.append).finished
    assert said[0] == f"13 samples in 2 shards of {folder}"
    exported = (tmp_path / "first" / "export" / "model.safetensors").read_bytes()
    for late in (tmp_path / "first" / "checkpoints").glob("step-00000006*"):
        late.unlink()
    (tmp_path / "first" / "export" / "model.safetensors").unlink()
    assert train_flow(first, said.append).finished
    assert (tmp_path / "first" / "export" / "model.safetensors").read_bytes() == exported


@pytest.mark.slow
def test_two_processes_train_on_shards_as_one_does(
    tmp_path: Path, settings: dict[str, Any]
) -> None:
    folder = write_fitting(tmp_path / "shards")
    values = settings | {"data": {"shards": str(folder)}, "flow": {"frames_per_batch": 16}}
    values |= {"optim": CALM}
    for world in (1, 2):
        finish(start(world, "pretrain", values, f"of-{world}"))
    assert_same_training(values, "of-1", "of-2")


@pytest.mark.parametrize(
    ("field", "value"), [("channels", 5), ("text_dim", 8), ("num_tokens", 9), ("frame_samples", 7)]
)
def test_shards_of_other_sizes_are_refused(
    tmp_path: Path, settings: dict[str, Any], field: str, value: int
) -> None:
    folder = write_fitting(tmp_path / "shards", **{field: value})
    with pytest.raises(ConfigError, match=f"{field} {value}, the model has"):
        train_flow(recipe(settings, folder, tmp_path / "run"), lambda text: None)


def test_the_latents_of_another_vae_are_refused(tmp_path: Path, settings: dict[str, Any]) -> None:
    crops = {"crop_s": 0.3, "rows_per_batch": 2}
    other = settings | {"run": settings["run"] | {"num_steps": 1}}
    train_vae(parse_config(VAERecipe, other | {"crops": crops}, "vae"), lambda text: None)
    folder = write_fitting(tmp_path / "shards")
    weights = {"vae": str(tmp_path / "run" / "export")}
    with pytest.raises(ConfigError, match=r"weights\.vae: fingerprint .* encoded with 0 of none"):
        train_flow(recipe(settings, folder, tmp_path / "flow", weights=weights), lambda text: None)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({}, "expected either manifest or shards"),
        ({"manifest": "a", "shards": "b"}, "expected either manifest or shards"),
        ({"shards": "b", "splits": ["train"]}, "splits: shards have none"),
    ],
)
def test_data_comes_from_one_place(
    settings: dict[str, Any], data: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_config(PretrainRecipe, settings | {"data": data}, "test")


def test_sound_is_not_found_in_shards_of_latents(settings: dict[str, Any]) -> None:
    values = settings | {"data": {"shards": "somewhere"}}
    with pytest.raises(ConfigError, match=r"data\.manifest is not set: shards of latents"):
        train_vae(parse_config(VAERecipe, values, "test"), lambda text: None)
