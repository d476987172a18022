import resource
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from resonate_audio.core.errors import OutputError, TrainingError
from resonate_audio.training.loop.checkpoint import (
    Checkpoint,
    drop_unfinished,
    list_checkpoints,
    load_checkpoint,
    load_latest,
    pack,
    pack_optimizer,
    save_checkpoint,
    unpack,
    unpack_optimizer,
)
from resonate_audio.training.loop.optim import OptimConfig, make_optimizer


def checkpoint(step: int) -> Checkpoint:
    tensors = {"weight": torch.tensor([0.1, float(step)]), "rng": torch.get_rng_state()}
    return Checkpoint(step, {"run": {"seed": 1}}, tensors, {"groups": [1, "a"]})


def test_a_checkpoint_comes_back_whole(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(7), keep_last=1)
    got = load_checkpoint(path)
    assert (got.step, got.config, got.plain) == (7, {"run": {"seed": 1}}, {"groups": [1, "a"]})
    assert all(torch.equal(got.tensors[name], v) for name, v in checkpoint(7).tensors.items())


def test_only_the_last_ones_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15):
        save_checkpoint(tmp_path, checkpoint(step), keep_last=2)
    assert [load_checkpoint(path).step for path in list_checkpoints(tmp_path)] == [10, 15]


def test_the_latest_is_the_one_of_the_highest_step(tmp_path: Path) -> None:
    assert load_latest(tmp_path) is None
    for step in (99_999_999, 20):
        save_checkpoint(tmp_path, checkpoint(step), keep_last=5)
    found = load_latest(tmp_path)
    assert found is not None
    assert found.step == 99_999_999


def test_a_truncated_checkpoint_is_refused_by_name(tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path, checkpoint(1), keep_last=1)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(TrainingError, match=f"{path.name}: not a whole training checkpoint"):
        load_checkpoint(path)


def test_another_safetensors_file_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors")
    with pytest.raises(TrainingError, match="not a whole training checkpoint"):
        load_checkpoint(tmp_path / "a.safetensors")


def test_a_half_written_file_is_never_taken_for_a_checkpoint(tmp_path: Path) -> None:
    for name in (".step-00000009.1234.part.safetensors", ".tmpAbC"):
        (tmp_path / name).write_bytes(b"half")
    assert load_latest(tmp_path) is None
    drop_unfinished(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_takes_no_more_leaves_the_older_checkpoint(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep_last=1)
    big = replace(checkpoint(2), tensors={"weight": torch.zeros(100_000)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, hard))
    try:
        with pytest.raises(OutputError, match=r"step-00000002.*cannot write it"):
            save_checkpoint(tmp_path, big, keep_last=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000001.safetensors"]


def test_prefixes_do_not_mix_names_that_begin_alike() -> None:
    tensors = pack("model", {"a": torch.ones(1)}) | pack("model2", {"b": torch.ones(1)})
    assert list(unpack("model", tensors)) == ["a"]


def test_an_optimiser_goes_on_as_if_it_had_not_been_saved() -> None:
    def train(split_at: int | None) -> torch.Tensor:
        model = nn.Linear(3, 2)
        nn.init.constant_(model.weight, 0.5)
        nn.init.zeros_(model.bias)
        optimizer = make_optimizer(model.parameters(), OptimConfig())
        for step in range(6):
            if step == split_at:
                tensors, groups = pack_optimizer(optimizer)
                optimizer = make_optimizer(model.parameters(), OptimConfig())
                unpack_optimizer(optimizer, tensors, groups)
            optimizer.zero_grad()
            model(torch.full((1, 3), float(step + 1))).square().sum().backward()
            optimizer.step()
        return model.weight.detach()

    assert torch.equal(train(None), train(split_at=3))
