"""K15: weights that other trainers wrote, in whatever form; what they hold is checked as ever."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from resonate_audio.core.errors import CheckpointError
from resonate_audio.model.checkpoint import load_strict, read_weights
from resonate_audio.model.weight_forms import AverageTakenWarning

State = dict[str, Tensor]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def weights() -> State:
    return {name: value.float() for name, value in network().state_dict().items()}


def named(prefix: str, state: State | None = None) -> State:
    return {prefix + name: value for name, value in (state or weights()).items()}


def other() -> State:
    return {name: value + 1 for name, value in weights().items()}


def parameters(state: State) -> State:
    """What trainers average: no buffers."""
    return {name: value for name, value in state.items() if "running" not in name}


FORMS: dict[str, Any] = {
    "plain": weights(),
    "distributed": named("module."),
    "compiled, then distributed": named("module._orig_mod."),
    "distributed, then compiled": named("_orig_mod.module."),
    "the same wrapper twice": named("module.module."),
    "four of them": named("_orig_mod.module._orig_mod.module."),
    "a part compiled": {n.replace("0.", "0._orig_mod.", 1): v for n, v in weights().items()},
    "sharded data parallel": named("_fsdp_wrapped_module."),
    "averages alone": named("ema_model."),
    "averages of a distributed model": named("ema_model.module."),
    "distributed averages": named("module.ema_model."),
    "state_dict": {"state_dict": weights(), "epoch": 7, "name": "best"},
    "model": {"model": weights(), "optimizer": {"state": {}, "param_groups": []}},
    "model_state_dict": {"model_state_dict": weights(), "loss": 0.5, "step": torch.tensor(3)},
    "net": {"net": named("module.")},
    "weights in model in state_dict": {"state_dict": {"model": {"weights": weights()}}},
    "Lightning": {
        "state_dict": named("model."),
        "epoch": 3,
        "global_step": 900,
        "pytorch-lightning_version": "2.5.0",
        "callbacks": {},
        "hyper_parameters": {"width": 3},
    },
    "ema": {"ema": weights()},
    "numbers and words beside the tensors": weights() | {"epoch": 3, "arch": "b", "lr": 1e-3},
    "tensors that count beside the weights": weights()
    | {"step": torch.tensor(4), "initted": torch.tensor([True])},
}
AVERAGED: dict[str, Any] = {
    "beside plain weights": {"model": other(), "ema": weights()},
    "without the buffers": {"model": weights() | parameters(other()), "ema": parameters(weights())},
    "flat": named("model.", other()) | named("ema_model."),
    "flat, without the buffers": named("online_model.", weights() | parameters(other()))
    | named("ema_model.", parameters(weights()))
    | {"initted": torch.tensor([True]), "step": torch.tensor([9])},
    "in state_dict": {"state_dict": named("module.", other()), "state_dict_ema": weights()},
}
SPOILT: dict[str, tuple[Callable[[], Any], str]] = {
    "a weight less": (
        lambda: {"state_dict": {k: v for k, v in named("module.").items() if "0.bias" not in k}},
        r"0\.bias is missing",
    ),
    "a weight more": (lambda: named("module.", weights() | {"2.x": torch.ones(1)}), r"2\.x is not"),
    "another shape": (
        lambda: {"model": weights() | {"0.bias": torch.ones(3)}},
        r"0\.bias has shape \(3,\), expected \(2,\)",
    ),
    "a prefix before some names alone": (
        lambda: {("module." if n < "1" else "") + n: v for n, v in weights().items()},
        r"0\.weight is missing",
    ),
    "a prefix that nobody knows": (lambda: named("student."), r"0\.weight is missing"),
    "an average of something else": (
        lambda: {"model": weights(), "ema": {"9.weight": torch.ones(1)}},
        r"9\.weight is not a weight",
    ),
    "two weights of one name": (
        lambda: weights() | {"0._orig_mod.bias": torch.ones(2)},
        r"two weights differ in '_orig_mod\.' alone",
    ),
    "NaN": (
        lambda: {"ema": weights() | {"0.bias": torch.full((2,), torch.nan)}},
        r"0\.bias holds NaN",
    ),
    "no tensor": (lambda: {"state_dict": {"epoch": 3}}, "'state_dict' is a dict, not a tensor"),
    "nothing but numbers": (lambda: {"epoch": 3}, "holds no tensor"),
    "a list": (lambda: [torch.ones(1)], "expected named tensors but it holds a list"),
}


def saved(content: Any, folder: Path) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def loaded(content: Any, folder: Path) -> State:
    module = network()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.zero_()
    load_strict(module, read_weights(saved(content, folder)), "weights.pth")
    return {name: value.float() for name, value in module.state_dict().items()}


def is_same(state: State) -> bool:
    return all(torch.equal(state[name], value) for name, value in weights().items())


@pytest.mark.parametrize("content", FORMS.values(), ids=FORMS)
def test_any_form_of_the_same_weights_is_read_without_a_word(content: Any, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_same(loaded(content, tmp_path))


@pytest.mark.parametrize("content", AVERAGED.values(), ids=AVERAGED)
def test_of_averages_beside_plain_weights_the_averages_are_taken_and_told(
    content: Any, tmp_path: Path
) -> None:
    with pytest.warns(AverageTakenWarning, match=r"weights\.pth: holds averaged weights"):
        state = loaded(content, tmp_path)
    assert is_same(state)


@pytest.mark.parametrize(("make", "message"), SPOILT.values(), ids=SPOILT)
@pytest.mark.filterwarnings("ignore::resonate_audio.model.weight_forms.AverageTakenWarning")
def test_what_is_wrong_is_refused_by_name_in_every_form(
    make: Callable[[], Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        loaded(make(), tmp_path)


def write_shards(folder: Path, state: State, **places: str) -> Path:
    """Two files and their index."""
    names = sorted(state)
    where = {name: f"model-0000{1 + (i % 2)}-of-00002.safetensors" for i, name in enumerate(names)}
    for file in set(where.values()):
        save_file({n: state[n] for n in names if where[n] == file}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": where | places}))
    return index


def test_a_file_cut_in_several_is_read_by_its_index_or_its_own_name(tmp_path: Path) -> None:
    index = write_shards(tmp_path, named("module."))
    for path in (index, tmp_path / "model.safetensors"):
        assert is_same(read_weights(path))


@pytest.mark.parametrize(
    ("places", "message"),
    [
        ({"x": "model-00003-of-00003.safetensors"}, r"model-00003-of-00003\.safetensors: missing"),
        ({"x": "../model-00001-of-00002.safetensors"}, "not a safetensors file beside it"),
        ({"x": "model-00001-of-00002.safetensors"}, "x is in none of the files"),
    ],
)
def test_an_index_that_does_not_fit_its_files_is_refused(
    places: dict[str, str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_weights(write_shards(tmp_path, weights(), **places))


def test_an_index_without_a_map_is_refused(tmp_path: Path) -> None:
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"metadata": {}}')
    with pytest.raises(CheckpointError, match="weight_map is missing"):
        read_weights(index)
