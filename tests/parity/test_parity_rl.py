"""The published samplers' and losses' own numbers, skipped where they are not kept; and files of
other sizes, written here, that the same checks must read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from drawn import draw
from safetensors.torch import save_file
from torch import Tensor

from resonate_audio.parity.check import check_file, read_golden

GOLDEN = Path(__file__).parents[3] / "shared" / "reference" / "golden"
NAMES = ["sde_steps", "grpo_terms", "grpo_rollout_tiny", "dpo", "aqascore"]


def golden(name: str) -> Path:
    path = GOLDEN / f"{name}.safetensors"
    if not path.is_file():
        pytest.skip(f"no golden vectors at {path}")
    return path


def write(path: Path, tensors: dict[str, Tensor], config: object) -> Path:
    contiguous = {name: value.contiguous() for name, value in tensors.items()}
    save_file(contiguous, path, metadata={"config": json.dumps(config)})
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_published_output_is_reproduced(name: str) -> None:
    result = check_file(golden(name))
    assert result.verdict == "PASS", (result.note, [d for d in result.differences if not d.passed])


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("sde_steps", "out.cps.nl0.7.sampled_log_prob"),
        ("sde_steps", "out.mixed.mean"),
        ("sde_steps", "in.timesteps"),
        ("grpo_terms", "out.small.beta0.04.kl_loss"),
        ("grpo_terms", "in.large.beta0.0.advantages"),
        ("grpo_terms", "in.adv.rewards"),
        ("grpo_rollout_tiny", "out.update.ratio"),
        ("grpo_rollout_tiny", "out.latents"),
        ("dpo", "out.beta1.0.grad_model_pred"),
        ("dpo", "in.t"),
        ("aqascore", "out.score"),
        ("aqascore", "in.log_p_yes"),
    ],
)
def test_one_number_that_is_one_percent_off_fails(name: str, changed: str, tmp_path: Path) -> None:
    assert check_file(with_one_moved(name, changed, 0.99, tmp_path)).verdict == "FAIL"


def with_one_moved(name: str, changed: str, factor: float, folder: Path) -> Path:
    """A copy of a published file in which the largest number of one tensor is multiplied."""
    tensors, config = read_golden(golden(name))
    flat = tensors[changed].flatten()
    flat[flat.abs().argmax()] *= factor
    tensors[changed] = flat.view_as(tensors[changed])
    if name.startswith("grpo_rollout"):
        shutil.copy(golden("flux_tiny"), folder)
    return write(folder / f"{name}.safetensors", tensors, config)


def test_a_policy_that_moved_otherwise_is_seen_at_one_percent_and_fails_at_ten(
    tmp_path: Path,
) -> None:
    changed = ("grpo_rollout_tiny", "in.delta.final_layer.conv.bias")
    near = check_file(with_one_moved(*changed, 0.99, tmp_path))
    kl_loss = next(item for item in near.differences if item.label == "update.kl_loss")
    assert kl_loss.max_rel > 1e-3
    assert check_file(with_one_moved(*changed, 0.9, tmp_path)).verdict == "FAIL"


def test_another_pairing_fails(tmp_path: Path) -> None:
    tensors, config = read_golden(golden("dpo"))
    tensors["out.swap_mask"][0] ^= True
    assert check_file(write(tmp_path / "dpo.safetensors", tensors, config)).verdict == "FAIL"


def steps(num_steps: int, rows: int, noise: list[float]) -> dict[str, Tensor]:
    """Steps whose expected values are written from the equations of the published code."""
    shape = (num_steps, rows, 3, 2)
    names = ("sample", "model_output", "prev_sample", "noise")
    given = {name: draw(*shape, seed=seed) for seed, name in enumerate(names)}
    times = torch.linspace(1, 0, num_steps + 1)
    tensors = {f"in.{name}": value for name, value in given.items()} | {"in.timesteps": times}
    level, after = (part.double()[:, None, None, None] for part in (times[:-1], times[1:]))
    length, root = level - after, (level - after).sqrt()
    x, v = given["sample"].double(), given["model_output"].double()
    for eta in noise:
        std = eta * (level / (1 - torch.where(level == 1, after[0], level))).sqrt()
        mean = x - v * length - std**2 / (2 * level) * (x + (1 - level) * v) * length
        normal = torch.distributions.Normal(mean, std * root)
        sampled = mean + std * root * given["noise"]
        named = {
            "mean": mean,
            "sampled": sampled,
            "log_prob": normal.log_prob(given["prev_sample"].double()).mean(dim=(2, 3)),
            "sampled_log_prob": normal.log_prob(sampled).mean(dim=(2, 3)),
            "std": std.expand(shape)[:, :, 0, 0],
            "sqrt_dt": root.expand(shape)[:, :, 0, 0],
        }
        tensors |= {f"out.sde.nl{eta}.{label}": value.float() for label, value in named.items()}
    return tensors


def test_steps_of_other_sizes_and_several_noise_levels_pass(tmp_path: Path) -> None:
    path = tmp_path / "sde_steps_b.safetensors"
    result = check_file(write(path, steps(7, 2, [0.3, 1]), {"noise": [0.3, 1]}))
    assert result.verdict == "PASS", [d for d in result.differences if not d.passed]
    assert len(result.differences) == 12


def test_the_noise_level_of_a_mixed_batch_is_found(tmp_path: Path) -> None:
    tensors, index = steps(5, 1, [0.2, 0.9]), torch.tensor([4, 0, 2])
    for name in ("sample", "model_output", "prev_sample"):
        tensors[f"in.mixed_{name}"] = tensors[f"in.{name}"][index, 0]
    for name in ("mean", "std", "log_prob"):
        tensors[f"out.mixed.{name}"] = tensors[f"out.sde.nl0.9.{name}"][index, 0]
    tensors["in.mixed_idx"] = index
    path = tmp_path / "sde_steps.safetensors"
    assert check_file(write(path, tensors, {"noise": [0.2, 0.9]})).verdict == "PASS"


def test_the_first_two_of_several_takes_are_paired_and_the_better_one_wins(tmp_path: Path) -> None:
    latents, embeds = draw(6, 4, 2), draw(6, 3, 2, seed=1)
    tensors = {
        "in.latents": latents,
        "in.prompt_embeds": embeds,
        "in.scores": torch.tensor([0.1, 0.4, 0.9, 0.5, 0.5, 0.0]),
        "in.noise": draw(2, 4, 2, seed=2).repeat(2, 1, 1),
        "in.t": torch.tensor([0.3, 0.8, 0.3, 0.8]),
        "in.model_pred": draw(4, 4, 2, seed=3),
        "in.ref_pred": draw(4, 4, 2, seed=4),
        "out.swap_mask": torch.tensor([True, False]),
        "out.batch_latents": latents[[1, 3, 0, 4]],
        "out.batch_prompt_embeds": embeds[[0, 3, 0, 3]],
    }
    config = {"pairs": 2, "k": 3, "betas": [7]}
    result = check_file(write(tmp_path / "dpo_b.safetensors", tensors, config))
    assert result.verdict == "PASS", [d for d in result.differences if not d.passed]
