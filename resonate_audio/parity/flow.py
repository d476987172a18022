"""Golden vectors of the flow: what our code gives for their inputs, beside what they expect.

Each check yields (label, got, expected) for every ``out.*`` tensor of one golden file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.errors import CheckpointError
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.objective import (
    cfm_loss,
    drop_conditions,
    make_frame_mask,
    row_errors,
    valid_frames,
)
from resonate_audio.flow.ode import integrate
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.flow.times import logit_normal_times, uniform_grid
from resonate_audio.model.attention import HeadProjection, attend
from resonate_audio.model.embeddings import (
    TIMESTEP_FEATURES,
    TimestepEmbedding,
    frequencies,
    rotary_angles,
    rotate_pairs,
    timestep_features,
)
from resonate_audio.model.flow_transformer import (
    Conditions,
    FlowTransformer,
    FlowTransformerConfig,
)
from resonate_audio.model.official.flow import from_official, to_official
from resonate_audio.parity.comparison import (
    GRADIENT,
    LOSS,
    TRAJECTORY,
    Comparison,
    Tensors,
    compare_outputs,
    with_prefix,
)

BELOW_ONE = 0.5
"""The guidance scale of ``out.ode_nocfg``: any below 1 leaves the empty branch out."""
FRAME_SAMPLES = 2 * 512
"""Samples of one latent frame in ``flow_loss``: hop 512, two hops a frame."""


def build_transformer(weights: Tensors, config: dict[str, Any]) -> FlowTransformer:
    """Build the network that a golden file's ``config`` describes, with official weights."""
    model = FlowTransformer(
        FlowTransformerConfig(
            latent_channels=config["latent_dim"],
            hidden=config["hidden"],
            num_heads=config["heads"],
            num_joint_blocks=config["depth"] - config["fused"],
            num_single_blocks=config["fused"],
            text_dim=config["text_dim"],
            pooled_dim=config["text_c_dim"],
            num_text_tokens=config["T"],
        )
    )
    model.load_state_dict(from_official(weights))
    return model


@torch.no_grad()
def check_flux(tensors: Tensors, config: dict[str, Any], folder: Path) -> Iterator[Comparison]:
    """Velocity, conditions, guidance and Euler trajectories of the flow transformer."""
    model = build_transformer(with_prefix(tensors, "weights."), config)
    given = with_prefix(tensors, "in.")
    features = TextFeatures(given["text_f"], given["text_f_c"])
    prompt = model.condition(features)
    empty = model.condition(model.empty_features(len(given["latent"])))
    got = {
        "forward": model(given["latent"], given["t"], prompt),
        "forward_otherlen": model(given["latent_otherlen"], given["t"], prompt),
        "cond_text_f": prompt.tokens,
        "cond_text_f_c": prompt.pooled,
        "empty_text_f": empty.tokens,
        "empty_text_f_c": empty.pooled,
        "x0_normalized": model.normalize(given["x0"]),
    }
    got |= _guided_velocities(model, prompt, empty, given, config)
    got |= _trajectories(model, prompt, empty, given, config)
    kinds = dict.fromkeys(("euler_final*", "euler_to_prior*"), TRAJECTORY)
    yield from compare_outputs(tensors, got, kinds)


def _guided_velocities(
    model: FlowTransformer,
    prompt: Conditions,
    empty: Conditions,
    given: Tensors,
    config: dict[str, Any],
) -> dict[str, Tensor]:
    latent, times = given["latent"], config["ode_t"]
    negative = model.condition(TextFeatures(given["neg_text_f"], given["neg_text_f_c"]))

    def at(t: float, instead: Conditions, scale: float) -> Tensor:
        level = torch.full((len(latent),), t)
        return guided(model, prompt, instead, scale)(latent, level)

    return {f"ode_cfg_t{t}": at(t, empty, config["cfg"]) for t in times} | {
        "ode_negprompt": at(times[0], negative, config["cfg"]),
        "ode_nocfg": at(times[0], empty, BELOW_ONE),
        "ode_cfg1": at(times[0], empty, 1.0),
    }


def _trajectories(
    model: FlowTransformer,
    prompt: Conditions,
    empty: Conditions,
    given: Tensors,
    config: dict[str, Any],
) -> dict[str, Tensor]:
    times = uniform_grid(config["steps"])
    velocity = guided(model, prompt, empty, config["cfg"])
    unguided = guided(model, prompt, empty, BELOW_ONE)
    second = integrate(velocity, given["x0"], times[:3])
    final = integrate(velocity, second, times[2:])
    return {
        "euler_ts": times,
        "euler_step1": integrate(velocity, given["x0"], times[:2]),
        "euler_step2": second,
        "euler_final": final,
        "euler_final_unnormalized": model.unnormalize(final),
        "euler_to_prior_nocfg": integrate(unguided, given["x0"], times.flip(0)),
    }


def check_fm_train_step(
    tensors: Tensors, config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """One training step: loss per row, mean loss, and gradients by official name."""
    model = build_transformer(flux_weights(config, folder), config)
    given = with_prefix(tensors, "in.")
    drop_mask = given["drop_uniform"] < config["pnull"]
    data = model.normalize(given["a_mean"] + given["a_std"] * given["posterior_noise"])
    t = logit_normal_times(given["t_normal"])
    features = TextFeatures(given["text_f"], given["text_f_c"])
    features = drop_conditions(features, model.empty_features(len(t)), drop_mask)

    def velocity(z: Tensor, t: Tensor) -> Tensor:
        predicted: Tensor = model(z, t, model.condition(features))
        return predicted

    unmasked = cfm_loss(velocity, data, given["x0"], t)
    masked = cfm_loss(velocity, data, given["x0"], t, given["loss_mask"].bool())
    masked.mean.backward()  # type: ignore[no-untyped-call]
    got = {
        "drop_mask": drop_mask,
        "t": t,
        "x1_normalized": data,
        "unmasked.loss": unmasked.rows.detach(),
        "unmasked.mean_loss": unmasked.mean.detach(),
        "masked.loss": masked.rows.detach(),
        "masked.mean_loss": masked.mean.detach(),
    }
    got |= {f"masked.{name}": value for name, value in gradients(model).items()}
    yield from compare_outputs(tensors, got, {"*.mean_loss": LOSS, "masked.grad*": GRADIENT})


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Every gradient by its official name, and the norm of them all."""
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    squares = [gradient.double().square().sum() for gradient in found.values()]
    official = {f"grad.{name}": gradient for name, gradient in to_official(found).items()}
    return official | {"grad_norm": torch.stack(squares).sum().sqrt()}


_SIZES = ("latent_dim", "hidden", "heads", "depth", "fused", "text_dim", "text_c_dim", "T")


def flux_weights(config: dict[str, Any], folder: Path) -> dict[str, Tensor]:
    """Weights of the ``flux*`` file in ``folder`` of the same configuration, or at least sizes.

    Raises:
        CheckpointError: the folder has no such file.
    """
    from safetensors import safe_open

    same_sizes: dict[str, Tensor] = {}
    for path in sorted(folder.glob("flux*.safetensors")):
        with safe_open(path, "pt") as stored:
            other = parse_object(
                (stored.metadata() or {}).get("config", "{}"), str(path), CheckpointError
            )
            if any(other.get(name) != config[name] for name in _SIZES):
                continue
            tensors = {k: stored.get_tensor(k) for k in stored.keys()}  # noqa: SIM118
        if other == config:
            return with_prefix(tensors, "weights.")
        same_sizes = same_sizes or with_prefix(tensors, "weights.")
    if not same_sizes:
        raise CheckpointError(f"{folder}: no flux*.safetensors with the sizes of this network")
    return same_sizes


def check_flow_loss(tensors: Tensors, config: dict[str, Any], folder: Path) -> Iterator[Comparison]:
    """Interpolation and loss without a network; ``forward`` is the other direction of time."""
    given = with_prefix(tensors, "in.")
    noise, data, t, v = given["x0"], given["x1"], given["t"], given["v"]
    num_valid = valid_frames(given["waveform_lengths"].long(), FRAME_SAMPLES)
    num_valid = num_valid.clamp(max=config["L"])
    mask = make_frame_mask(num_valid, config["L"])
    masked = row_errors(v, velocity_target(data, noise), mask)
    got = {
        "xt_reverse": noised(data, noise, t),
        "xt_forward": noised(noise, data, t),
        "loss_reverse": row_errors(v, velocity_target(data, noise)),
        "loss_forward": row_errors(v, velocity_target(noise, data)),
        "valid_lengths": num_valid,
        "loss_mask": mask.float(),
        "masked_loss": masked,
        "masked_mean_loss": masked.mean(),
    }
    for mean, std in config["lognormal"]:
        times = logit_normal_times(given["lognormal_z"], mean, std)
        got[f"lognormal_t_m{mean}_s{std}"] = times
    yield from compare_outputs(tensors, got, {"masked_mean_loss": LOSS})


@torch.no_grad()
def check_rope_timestep_attn(
    tensors: Tensors, config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Rotations, the noise-level embedding, and one self-attention."""
    given, weights = with_prefix(tensors, "in."), with_prefix(tensors, "weights.")
    angles = rotary_angles(config["len"], config["hd"], torch.device("cpu"))
    embedding = TimestepEmbedding(config["dim"])
    embedding.load_state_dict(_renamed(weights, "t_embed."))
    got = {
        "rot": _rotation_matrices(angles),
        "rope": rotate_pairs(given["x"], angles),
        "rope_bf16": rotate_pairs(given["x"].bfloat16(), angles),
        "freqs": frequencies(TIMESTEP_FEATURES, torch.device("cpu")),
        "t_freq": timestep_features(given["t"]),
        "t_emb": embedding(given["t"]),
    }
    yield from compare_outputs(tensors, got | _self_attention(given["attn_x"], weights, config))


def _self_attention(
    x: Tensor, weights: dict[str, Tensor], config: dict[str, Any]
) -> dict[str, Tensor]:
    heads = HeadProjection(config["adim"], config["aheads"])
    heads.load_state_dict(_renamed(weights, "attn."))
    angles = rotary_angles(x.shape[1], config["adim"] // config["aheads"], x.device)
    turned = heads(x, angles)
    return {
        "q": turned.query,
        "k": turned.key,
        "v": turned.value,
        "q_norope": heads(x, None).query,
        "attn": attend(turned),
    }


def _renamed(weights: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Our names of the official weights below ``prefix``, relative to their module."""
    ours = from_official({k: v for k, v in weights.items() if k.startswith(prefix)})
    return {name.split(".", 1)[1]: value for name, value in ours.items()}


def _rotation_matrices(
    angles: Float[Tensor, "position pair"],
) -> Float[Tensor, "1 position pair 2 2"]:
    cos, sin = angles.cos(), angles.sin()
    return torch.stack([cos, -sin, sin, cos], dim=-1).reshape(1, *angles.shape, 2, 2)


CHECKS = {
    "flux": check_flux,
    "fm_train_step": check_fm_train_step,
    "flow_loss": check_flow_loss,
    "rope_timestep_attn": check_rope_timestep_attn,
}
"""Which check reads the golden files whose name starts so."""
