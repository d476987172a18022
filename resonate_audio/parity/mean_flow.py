"""Golden vectors of MeanAudio: the network of two times, its sampling, its training loss."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resonate_audio.core.sampling import SolverSettings
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.mean_flow import (
    MeanVelocity,
    adaptive_rows,
    guided_target,
    mean_flow_target,
    sampling_velocity,
)
from resonate_audio.flow.objective import row_errors
from resonate_audio.flow.ode import solve
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.official.flow import from_official, to_official
from resonate_audio.parity.comparison import (
    GRADIENT,
    LOSS,
    TRAJECTORY,
    Comparison,
    Tensors,
    compare_outputs,
    expected_outputs,
    with_prefix,
)


def build_network(tensors: Tensors, config: dict[str, Any]) -> FlowTransformer:
    """Build the network that a golden file's ``config`` describes, with official weights."""
    model = FlowTransformer(
        FlowTransformerConfig(
            latent_channels=config["latent_dim"],
            hidden=config["hidden_dim"],
            num_heads=config["num_heads"],
            num_joint_blocks=config["depth"] - config["fused_depth"],
            num_single_blocks=config["fused_depth"],
            text_dim=config["text_dim"],
            pooled_dim=config["text_c_dim"],
            num_text_tokens=config["text_seq_len"],
            mean_velocity=True,
        )
    )
    model.load_state_dict(from_official(with_prefix(tensors, "weights.")))
    return model


@torch.no_grad()
def check_meanaudio(tensors: Tensors, config: dict[str, Any], folder: Path) -> Iterator[Comparison]:
    """Mean velocities with and without a prompt, and sounds of a few steps."""
    model, given = build_network(tensors, config), with_prefix(tensors, "in.")
    z, t, r = given["latents"], given["t"], given["r"]
    prompt = model.condition(TextFeatures(given["text_f"], given["text_f_c"]))
    empty = model.condition(model.empty_features(len(z)))
    got = {
        "velocity": model(z, t, prompt, r),
        "empty_velocity": model(z, t, empty, r),
    }
    numbers = [n.removeprefix("sampled_") for n in expected_outputs(tensors) if "sampled_" in n]
    for num_steps in sorted(map(int, numbers)):
        settings = SolverSettings(num_inference_steps=num_steps)
        velocity = sampling_velocity(model, prompt, empty, settings, is_mean=True)
        got[f"sampled_{num_steps}"] = solve(velocity, z, settings)
        got["unnormalized"] = model.unnormalize(got[f"sampled_{num_steps}"])  # of the most steps
    yield from compare_outputs(tensors, got, dict.fromkeys(("sampled_*", "unnorm*"), TRAJECTORY))


def check_meanflow_loss(
    tensors: Tensors, config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """The loss of each row and gradients by official name, with guidance in the target or not."""
    given = with_prefix(tensors, "in.")
    got: dict[str, Tensor] = {}
    for kind, shares in (("plain", (1.0, 0.0)), ("guided", (config["w"], config["k"]))):
        model = build_network(tensors, config)
        rows = _loss_rows(model, given, shares, config["adaptive"]["c"])
        rows.mean().backward()  # type: ignore[no-untyped-call]
        grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        got |= {f"{kind}.grad.{name}": grad for name, grad in to_official(grads).items()}
        got[f"{kind}.loss"] = rows.detach()
    yield from compare_outputs(tensors, got, {"*.loss": LOSS, "*.grad.*": GRADIENT})


def _loss_rows(
    model: FlowTransformer, given: Tensors, shares: tuple[float, float], offset: float
) -> Tensor:
    features = TextFeatures(given["text_f"], given["text_f_c"])
    data, noise, t, r = given["data"], given["noise"], given["t"], given["r"]
    z, followed = noised(data, noise, t), velocity_target(data, noise)
    prompt = model.condition(features)
    if shares[0] < 1:
        with torch.no_grad():
            empty = model.condition(model.empty_features(len(z)))
            followed = guided_target(followed, model(z, t, prompt), model(z, t, empty), *shares)

    def bind(part: Tensor) -> MeanVelocity:
        some = model.condition(features.rows(part))
        return lambda z, t, r: model(z, t, some, r)

    target = mean_flow_target(bind, z, t, r, followed)
    return adaptive_rows(row_errors(model(z, t, prompt, r), target), offset)


CHECKS = {"meanaudio": check_meanaudio, "meanflow_loss": check_meanflow_loss}
"""Which check reads the golden files whose name starts so."""
