"""Foreign generators are taught by the same trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("diffusers", reason="needs the extra: pip install resonate-audio[guests]")

from processes import train_here
from tiny_grpo import write_grpo_recipe

from resonate_audio.training.recipes.reinforce import open_guest

pytestmark = pytest.mark.filterwarnings("ignore")  # what diffusers says of its own parts
KINDS = ("stable-audio", "tangoflux")
DURATION_S = 0.12


@pytest.fixture(params=KINDS)
def recipe(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    import tiny_guests  # here, where warnings of its imports are let through

    model = tiny_guests.write(request.param, tmp_path / "guest")
    recipe = write_grpo_recipe(tmp_path, Path("nano"))
    recipe["run"] |= {"num_steps": 3, "precision": "float32"}
    return recipe | {"model": model, "duration_s": DURATION_S}


def metrics(recipe: dict[str, Any]) -> list[dict[str, Any]]:
    text = (Path(recipe["run"]["output"]) / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n") if line]


def test_three_grpo_steps_begin_at_a_ratio_of_one_and_leave_a_folder_that_is_read_again(
    recipe: dict[str, Any],
) -> None:
    guidance = recipe["sampler"] | {"guidance_scale": 2.0}
    assert train_here("grpo", recipe | {"sampler": guidance}) == 0
    lines = metrics(recipe)
    assert [line["step"] for line in lines] == [1, 2, 3]
    for line in lines:
        assert line["ratio/max_abs_dev"] == 0.0  # on policy
        assert line["ratio/noise_floor"] == 0.0  # and to the bit what the rollout said
        assert line["grad_norm"] > 0
    before = open_guest(recipe["model"], DURATION_S)
    kind = recipe["model"].partition(":")[0]
    after = open_guest(f"{kind}:{recipe['run']['output']}/export", DURATION_S)
    assert before is not None
    assert after is not None
    old, new = before.network.state_dict(), after.network.state_dict()
    assert any(not torch.equal(old[name], new[name]) for name in old)


def test_adapters_are_added_into_the_folder_and_evaluation_listens_in(
    recipe: dict[str, Any], tmp_path: Path
) -> None:
    (tmp_path / "held.txt").write_text("a bell\n")
    lora = {"rank": 2, "targets": r".*(to_q|to_k|to_v|to_out\.0)"}
    evaluation = {"prompts": str(tmp_path / "held.txt"), "num_inference_steps": 2}
    changed = recipe | {"lora": lora, "evaluation": evaluation}
    changed["run"] = recipe["run"] | {"sample_every": 2, "precision": "bf16"}
    changed["algorithm"] = {"kind": "grpo", "clip": 0.5}
    assert train_here("grpo", changed) == 0
    assert sorted((tmp_path / "run" / "samples").glob("*.flac"))
    kind = recipe["model"].partition(":")[0]
    after = open_guest(f"{kind}:{tmp_path / 'run' / 'export'}", DURATION_S)
    assert after is not None
    assert not [name for name in after.network.state_dict() if "lora" in name]


def test_a_run_that_stopped_goes_on_and_not_with_another_decoder(
    recipe: dict[str, Any], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from safetensors.torch import load_file, save_file

    assert train_here("grpo", recipe, "--set", "run.num_steps=2") == 0
    assert train_here("grpo", recipe) == 0
    assert "resumed" in capfd.readouterr().err
    (file,) = (*(tmp_path / "guest").glob("vae.*"), *(tmp_path / "guest" / "vae").glob("*.saf*"))
    state = load_file(file)
    save_file({name: value + 0.1 for name, value in state.items()}, file)
    assert train_here("grpo", recipe, "--set", "run.num_steps=4") == 2
    assert "the content of model changed" in capfd.readouterr().err


def test_what_only_our_own_network_can_is_refused_in_one_line(
    recipe: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    for setting in ("run.recompute_blocks=true", "train_only=nothing", "duration_s=90"):
        assert train_here("grpo", recipe, "--set", setting) == 2, setting
        said = capfd.readouterr().err.strip().split("\n")[-1]
        assert setting.partition("=")[0].partition("_")[0] in said
