"""K21 and K8: a number has a range that is stated, a network fits into the machine or is refused
before it is made, `true` is no number, and a field that stands twice is refused."""

import inspect
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml
from annotated_types import Le, Lt
from reader_tables import JSON_READERS, Member, try_reading
from test_k04_paths import commands, configs

from resonate_audio.cli.main import run
from resonate_audio.core import room
from resonate_audio.core.config import (
    LARGEST,
    LARGEST_SIZE,
    FrozenConfig,
    NetworkConfig,
    load_config,
    number_fields,
    parse_config,
)
from resonate_audio.core.documents.json_text import parse_json, parse_object
from resonate_audio.core.errors import ConfigError, InputError, ManifestError
from resonate_audio.core.sampling import MAX_ROWS, Sampling, SolverSettings
from resonate_audio.model.folder import build_networks
from resonate_audio.model.presets import NANO, ModelConfig
from resonate_audio.training.loop.run_config import RunConfig
from resonate_audio.training.loop.task import Task
from resonate_audio.training.recipes.model import ModelRecipe
from resonate_audio.training.recipes.pretrain import PretrainRecipe
from resonate_audio.training.recipes.reinforce import ReinforceRecipe

SECONDS = 10.0
"""Nothing may take longer to be refused."""
FREE = {*SolverSettings.model_fields, "duration_s"}
"""Options that `Sampling` bounds, for every door that they come in through."""


def test_every_number_of_a_command_has_a_largest_one() -> None:
    found = set()
    for command in commands():
        place = command.__module__.partition("cli.")[2]
        for name, one in inspect.signature(command, eval_str=True).parameters.items():
            kind, *options = get_args(one.annotation) or (one.annotation,)
            numbers = {kind, *get_args(kind)} & {int, float}
            is_bounded = any(getattr(x, "max", None) is not None for x in options)
            if numbers and not is_bounded and name not in FREE:
                found.add(f"{place}: {name}")
    assert not found


def bounded(values: dict[str, Any]) -> None:
    Sampling(**values)


@pytest.mark.parametrize(
    "values",
    [
        {"duration_s": 1.0, "num_inference_steps": 10**9},
        {"duration_s": 1.0, "guidance_scale": 1e9},
    ],
)
def test_settings_of_a_sound_have_a_range(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="expected a"):
        bounded(values)


def minimal(config: type[FrozenConfig], folder: Path) -> dict[str, Any]:
    run_values = {"output": str(folder / "run")}
    if config is PretrainRecipe:
        return {"preset": "nano", "data": {"manifest": "x.jsonl"}, "run": run_values}
    return {
        "prompts": "practice.jsonl", "reward": "nano-clap", "algorithm": {"kind": "grpo"},
        "run": run_values,
    }  # fmt: skip


OF_RECIPES = {
    "run.micro_batches": PretrainRecipe,
    "run.num_steps": ReinforceRecipe,
    "run.num_threads": ReinforceRecipe,
    "model.transformer.num_joint_blocks": PretrainRecipe,
    "model.transformer.num_single_blocks": PretrainRecipe,
    "model.vae.num_bands": PretrainRecipe,
    "model.vocoder.num_layers": PretrainRecipe,
    "model.mel.n_fft": PretrainRecipe,
    "flow.frames_per_batch": PretrainRecipe,
    "takes": ReinforceRecipe,
    "prompts_per_step": ReinforceRecipe,
    "updates_per_step": ReinforceRecipe,
    "sampler.num_steps": ReinforceRecipe,
    "sampler.rows_per_batch": ReinforceRecipe,
    "evaluation.rows_per_batch": ReinforceRecipe,
    "evaluation.num_inference_steps": ReinforceRecipe,
    "lora.rank": ReinforceRecipe,
}


@pytest.mark.parametrize("number", [10**12, 10**18, 10**40])
@pytest.mark.parametrize("name", OF_RECIPES)
def test_a_recipe_with_an_endless_number_is_refused_at_once(
    name: str, number: int, tmp_path: Path
) -> None:
    config = OF_RECIPES[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(minimal(config, tmp_path)))
    begun = time.process_time()
    with pytest.raises(ConfigError, match=name.rpartition(".")[2]) as caught:
        load_config(config, path, [f"{name}={number}"])
    assert time.process_time() - begun < SECONDS
    assert len(str(caught.value)) < 500


def test_every_count_of_a_recipe_is_refused_beyond_the_largest(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text("{}")
    for config in configs():
        for name in number_fields(config) if config.__module__.startswith("resonate") else ():
            if not name.startswith("seed"):
                with pytest.raises(ConfigError, match=rf"{name}: 1e\+10 is more than"):
                    load_config(config, path, [f"{name}={10 * LARGEST}"])


def test_sizes_of_networks_have_a_largest_one() -> None:
    """Each is a `NetworkConfig`, which bounds every size, or has bounds of its own."""
    sizes = {
        config for config in configs()
        if config.__module__.startswith(("resonate_audio.model", "resonate_audio.rewards.small"))
        or config.__module__ in ("resonate_audio.audio.mel", "resonate_audio.nano.judges.lalm")
    }  # fmt: skip
    loose = []
    for config in sizes - {NetworkConfig}:
        for name in number_fields(config):
            own = any(isinstance(x, Le | Lt) for x in config.model_fields[name].metadata)
            if not (own or issubclass(config, NetworkConfig) or name.endswith("_s")):
                loose.append(f"{config.__name__}.{name}")
    of_its_use = {"ModelConfig.default_guidance", "ModelConfig.default_steps"}
    assert set(loose) <= {"ModelIndex.format_version"} | of_its_use


LARGE = {
    "transformer.hidden": {"hidden": 999_936, "num_heads": 8},
    "transformer.text_dim": {"text_dim": 1_000_000, "hidden": 999_936, "num_heads": 8},
}


@pytest.mark.parametrize("name", LARGE)
def test_a_network_beyond_the_machine_is_refused_before_it_is_made(name: str) -> None:
    transformer = NANO.transformer.model_copy(update=LARGE[name])
    config = NANO.model_copy(update={"transformer": transformer})
    begun = time.process_time()
    with pytest.raises(ConfigError, match=r"transformer: would need .* TB; this machine has"):
        build_networks(config)
    assert time.process_time() - begun < SECONDS


def build_vae_of(config: ModelConfig) -> None:
    from resonate_audio.model.linear_vae import build_vae

    build_vae(config.vae)


def build_vocoder_of(config: ModelConfig) -> None:
    from resonate_audio.model.folder import build_vocoder

    build_vocoder(config.vocoder)


def begin_training(config: ModelConfig) -> None:
    from resonate_audio.data.latents import LatentSet
    from resonate_audio.training.pretrain.task import build_transformer

    build_transformer(config.transformer, LatentSet.__new__(LatentSet))


@pytest.mark.parametrize("build", [build_networks, build_vae_of, build_vocoder_of, begin_training])
def test_every_builder_asks_whether_there_is_room(
    build: Callable[[ModelConfig], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "machine_bytes", lambda: 1000)
    with pytest.raises(ConfigError, match=r"would need .*; this machine has 1,000 bytes"):
        build(NANO)


def test_a_plan_of_a_model_for_other_machines_is_made_here(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(room, "machine_bytes", lambda: 1000)
    assert run(["train", "plan", "--gpus", "8"]) == 0
    assert run(["train", "plan", "--steps", str(10**40)]) == 2
    assert run(["train", "plan", "--gpus", "9" * 40]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_memory_is_counted_in_words() -> None:
    assert room.machine_bytes() > 10**8
    sizes = {4 * 10**12: "4 TB", 23 * 10**9: "23 GB", 5 * 10**6: "5 MB", 12: "12 bytes"}
    assert {number: room.in_words(number) for number in sizes} == sizes


def test_a_container_with_a_limit_is_a_smaller_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = room.machine_bytes()
    for text, expected in (("1000000\n", 1_000_000), ("max\n", whole), (f"{whole * 9}\n", whole)):
        (tmp_path / "memory.max").write_text(text)
        monkeypatch.setattr(room, "CGROUP", tmp_path / "memory.max")
        assert room.machine_bytes() <= expected
        assert (room.machine_bytes() == expected) or text == "max\n" or expected == whole


def test_rows_computed_together_are_no_more_than_a_recipe_can_name(tiny_model: Path) -> None:
    from resonate_audio import Resonate

    model = Resonate.from_pretrained(tiny_model, device="cpu")
    with pytest.raises(InputError, match=r"batch size 1025: expected 1 to 1,024"):
        model.generate("dog", batch_size=MAX_ROWS + 1)
    assert run(["generate", "dog", "--batch-size", str(MAX_ROWS + 1)]) == 2


def test_a_server_with_an_odd_number_of_devices_is_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for setting in ("devices=5", "max_queued_rows=1000000000000", "max_body_mb=true"):
        assert run(["serve", "--set", setting, "--port", "0"]) == 2
        assert setting.partition("=")[0] in capsys.readouterr().err


# --- what looks like a number ---------------------------------------------------------------------


def numbers() -> Iterator[tuple[type[FrozenConfig], str]]:
    for config in configs():
        if config.__module__.startswith("resonate_audio"):
            yield from ((config, name) for name in number_fields(config))


def test_true_is_no_number_of_any_recipe() -> None:
    tried = 0
    for config, name in numbers():
        base = {"preset": "nano"} if issubclass(config, ModelRecipe) else {}
        for value in (True, False, [1, True]):
            with pytest.raises(ConfigError, match=rf"{name}: expected a number, got"):
                parse_config(config, base | {name: value}, "a recipe")
            tried += 1
    assert tried > 300


def test_a_truth_value_may_stay_one() -> None:
    assert parse_config(RunConfig, {"output": "x", "compile": True}, "a recipe").compile
    with pytest.raises(ConfigError, match="num_steps: expected a number, got true"):
        parse_config(RunConfig, {"output": "x", "num_steps": True}, "a recipe")


HELD_APART = {"a corpus' table of JSON"}
"""Reads names and values one after the other: a name that stands twice is counted as repeated."""
TWICE = '{"prompt": "dog", "prompt": "cat"}'


@pytest.mark.parametrize("finite", [True, False])
@pytest.mark.parametrize(
    "text", [TWICE, f"[{TWICE}]", '{"a": {"b": 1, "c": 2, "b": 1}}', '{"a": 1, "\\u0061": 2}']
)
def test_a_field_that_stands_twice_is_refused(text: str, finite: bool) -> None:
    with pytest.raises(ManifestError, match=r"the field (prompt|a|b) stands there twice"):
        parse_json(text, "x", finite=finite)


def test_a_field_may_stand_once_in_each_object() -> None:
    assert parse_object('{"a": {"a": 1}, "b": {"a": 2}}', "x") == {"a": {"a": 1}, "b": {"a": 2}}


@pytest.mark.parametrize("member", JSON_READERS, ids=lambda member: member.name)
def test_every_reader_of_json_refuses_a_field_that_stands_twice(
    member: Member, tmp_path: Path
) -> None:
    path = tmp_path / member.file
    path.write_text('{"x": 1, "x": 2}\n', encoding="utf-8")
    said = try_reading(member, path)
    if member.forgives or member.name in HELD_APART:
        return
    assert said is not None
    assert "the field x stands there twice" in said


def test_a_task_has_room_for_what_decides_it() -> None:
    assert dict(Task.contents) == {}
    assert LARGEST_SIZE < LARGEST
    assert torch.get_default_device().type == "cpu"
