"""Golden vectors of samplers, online learning and the judge's score.

Each check yields (label, got, expected) for every ``out.*`` tensor of one golden file; sizes,
noise levels and weights come from its ``config`` and from the tensors. Where the published code
does something else than ours, the check does it, and says so.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.types import Rewards, TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.path import Velocity, noised, velocity_target
from resonate_audio.flow.sde import SamplerKind, SDESchedule, Transition, make_schedule, sde_step
from resonate_audio.model.flow_transformer import Conditions, FlowTransformer
from resonate_audio.model.official.flow import official_to_ours
from resonate_audio.parity.comparison import (
    GRADIENT,
    LOSS,
    TRAJECTORY,
    Comparison,
    Tensors,
    compare_outputs,
    with_prefix,
)
from resonate_audio.parity.flow import build_transformer, flux_weights, gradients
from resonate_audio.rewards.audio_llm.yes_no import yes_probability
from resonate_audio.training.algorithms.best_of_n import raft_mask
from resonate_audio.training.algorithms.dpo import dpo_loss, make_pairs
from resonate_audio.training.algorithms.grpo import grpo_loss
from resonate_audio.training.reinforce.advantage import (
    AdvantageConfig,
    Advantages,
    group_advantages,
)
from resonate_audio.training.reinforce.divergence import gaussian_kl, row_mean_square

KINDS: dict[str, SamplerKind] = {"sde": "flow_sde", "cps": "cps"}
"""Our name of each published sampler."""
PUBLISHED = {"beta": 0.04, "clip": 1e-4, "adv_clip": 5.0}
"""Settings of the published recipe where a ``config`` names none."""


@torch.no_grad()
def check_sde_steps(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Single steps of both published samplers, replayed and sampled."""
    given = with_prefix(tensors, "in.")
    got: dict[str, Tensor] = {}
    for name, kind in KINDS.items():
        for eta in config["noise"]:
            schedule = make_schedule(kind, float(eta), given["timesteps"])
            for label, value in _single_steps(schedule, given).items():
                got[f"{name}.nl{eta}.{label}"] = value
    if "mixed_idx" in given:
        got |= _mixed_batch(tensors, given, config)
    yield from compare_outputs(tensors, got)


def _single_steps(schedule: SDESchedule, given: Tensors) -> dict[str, Tensor]:
    """Every step of the schedule for every row, as one batch."""
    shape = given["sample"].shape[:2]
    index = torch.arange(shape[0]).repeat_interleave(shape[1])
    z, v, state, noise = (
        given[name].flatten(0, 1) for name in ("sample", "model_output", "prev_sample", "noise")
    )
    replayed = sde_step(z, v, index, schedule, next_state=state)
    sampled = sde_step(z, v, index, schedule, noise=noise)
    got = {
        "log_prob": _published_log_prob(replayed, schedule),
        "mean": replayed.mean,
        "std": _published_std(schedule)[index],
        "sqrt_dt": _root_of_lengths(schedule)[index],
        "sampled": sampled.next_state,
        "sampled_log_prob": _published_log_prob(sampled, schedule),
    }
    return {label: value.view(*shape, *value.shape[1:]) for label, value in got.items()}


def _mixed_batch(tensors: Tensors, given: Tensors, config: dict[str, Any]) -> dict[str, Tensor]:
    """Rows at different steps; the file does not say at which η, so its std has to."""
    index = given["mixed_idx"]
    schedules = [
        make_schedule("flow_sde", float(eta), given["timesteps"]) for eta in config["noise"]
    ]
    wanted = tensors["out.mixed.std"]
    schedule = min(schedules, key=lambda s: float((_published_std(s)[index] - wanted).abs().max()))
    z, v, state = (given[f"mixed_{name}"] for name in ("sample", "model_output", "prev_sample"))
    step = sde_step(z, v, index, schedule, next_state=state)
    return {
        "mixed.log_prob": step.log_prob,
        "mixed.mean": step.mean,
        "mixed.std": _published_std(schedule)[index],
    }


def _published_std(schedule: SDESchedule) -> Float[Tensor, " step"]:
    """What the published code calls std: without the step's length, but for CPS."""
    if schedule.kind == "cps":
        return schedule.std
    return schedule.std / _root_of_lengths(schedule)


def _root_of_lengths(schedule: SDESchedule) -> Float[Tensor, " step"]:
    return (schedule.levels[:-1] - schedule.levels[1:]).sqrt()


def _published_log_prob(step: Transition, schedule: SDESchedule) -> Float[Tensor, " row"]:
    """The published CPS score is no log-density: it leaves the variance out."""
    if schedule.kind == "cps":
        return -row_mean_square(step.next_state - step.mean)
    return step.log_prob


def check_grpo_terms(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Loss, gradients and shares for given log-densities; advantages for given rewards."""
    given = with_prefix(tensors, "in.")
    settings = PUBLISHED | config
    cases = {name.rsplit(".", 1)[0] for name in given if name.endswith(".new_log_prob")}
    got = _advantages(given["adv.rewards"], given["adv.prompt_ids"].long(), tensors)
    for case in cases:
        beta = float(case.split(".beta")[1])
        terms = _grpo_terms(with_prefix(given, f"{case}."), beta, settings)
        got |= {f"{case}.{label}": value for label, value in terms.items()}
    yield from compare_outputs(tensors, got, {"*.grad_*": GRADIENT, "*loss": LOSS})


def _grpo_terms(given: Tensors, beta: float, settings: dict[str, Any]) -> dict[str, Tensor]:
    log_prob, mean = (
        given[n].clone().requires_grad_() for n in ("new_log_prob", "prev_sample_mean")
    )
    advantage = _limited(given["advantages"], settings)
    policy = grpo_loss(log_prob, given["old_log_prob"], advantage, settings["clip"])
    std = given["std_dev_t"].flatten()
    kl = gaussian_kl(mean, given["prev_sample_mean_ref"], std).mean()
    loss = policy.rows.mean() + beta * kl
    loss.backward()  # type: ignore[no-untyped-call]
    assert log_prob.grad is not None
    assert mean.grad is not None
    change = log_prob.detach() - given["old_log_prob"]
    return {
        "loss": loss.detach(),
        "policy_loss": policy.rows.mean().detach(),
        "kl_loss": kl.detach(),
        "ratio": policy.ratio,
        "approx_kl": 0.5 * change.square().mean(),
        "clipfrac": (policy.above | policy.below).float().mean(),
        "clipfrac_gt_one": policy.above.float().mean(),
        "clipfrac_lt_one": policy.below.float().mean(),
        "grad_log_prob": log_prob.grad,
        "grad_prev_sample_mean": mean.grad,
    }


def _limited(advantage: Tensor, settings: dict[str, Any]) -> Tensor:
    return advantage.clamp(-settings["adv_clip"], settings["adv_clip"])


def _advantages(
    reward: Float[Tensor, " row"], group: Tensor, tensors: Tensors
) -> dict[str, Tensor]:
    got: dict[str, Tensor] = {}
    for is_global in (False, True):
        name = f"adv.global_std_{is_global}"
        result = _published_advantages(reward, group, is_global)
        got[name] = result.values
        if f"out.{name}.2d" in tensors:
            got[f"{name}.2d"] = result.values[:, None].expand(tensors[f"out.{name}.2d"].shape)
        got[f"{name}.group_size"] = torch.tensor(result.metrics["takes_per_prompt"])
    metrics = result.metrics
    got["adv.reward_std_mean"] = torch.tensor(metrics["reward_std_within_prompt"])
    got["adv.zero_std_ratio"] = torch.tensor(metrics["frac_zero_std"], dtype=torch.float64)
    return got | {f"adv.type_{n}": v for n, v in _other_advantages(reward, group).items()}


def _published_advantages(
    reward: Float[Tensor, " row"], group: Tensor, is_global: bool
) -> Advantages:
    config = AdvantageConfig(std="global" if is_global else "group", floor=1e-4, clip=None)
    return group_advantages(Rewards(reward, {}, "golden vectors"), group, config)


def _other_advantages(reward: Float[Tensor, " row"], group: Tensor) -> dict[str, Tensor]:
    """Rewards as weights, the best takes, and best against worst.

    Where all takes are equal the published code marks all as best, and makes a pair of the
    first two, the second winning; ours keeps one, and makes no pair.
    """
    best = raft_mask(reward, group, 1).double()
    pairs = make_pairs(reward, group)
    versus = torch.zeros(len(reward), dtype=torch.float64)
    versus[pairs.winners], versus[pairs.losers] = 1.0, -1.0
    for prompt in torch.unique(group):
        rows = (group == prompt).nonzero().flatten()
        best[rows] = (reward[rows] == reward[rows[best[rows].bool()]]).double()
        if not versus[rows].any():
            versus[rows[:2]] = torch.tensor([-1.0, 1.0], dtype=torch.float64)
    return {"rwr": reward.double(), "sft": best, "dpo": versus}


def check_grpo_rollout(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """A rollout with guidance, its replay, and the gradient of one update.

    Replay and update start from the published states, so that the last bits in which our rollout
    differs (one batch for both branches of guidance, where the published code takes two) are not
    counted again.
    """
    given, weights = with_prefix(tensors, "in."), flux_weights(config, folder)
    schedule = make_schedule("flow_sde", config["noise"], given["timesteps"])
    with torch.no_grad():
        velocity = _policy_velocity(build_transformer(weights, config), given, config)
        states, sampled = _rollout(velocity, given, schedule)
        published = list(tensors["out.latents"].unbind(dim=1))
        replayed = [
            _replay(velocity, published, number, schedule) for number in range(len(sampled))
        ]
        policy = build_transformer(weights, config)
        for name, delta in with_prefix(given, "delta.").items():
            policy.get_parameter(official_to_ours(name)).add_(delta)
    got = {
        "latents": torch.stack(states, dim=1),
        "log_probs": torch.stack([step.log_prob for step in sampled], dim=1),
        "log_probs_recomputed": torch.stack([step.log_prob for step in replayed], dim=1),
        "prev_sample_mean": torch.stack([step.mean for step in replayed], dim=1),
    }
    velocity = _policy_velocity(policy, given, config)
    moved = [
        _replay(velocity, published, number, schedule) for number in range(int(0.99 * len(sampled)))
    ]
    update = _update_terms(moved, sampled, replayed, schedule, given, PUBLISHED | config)
    update["mean_loss"] = update["loss"].mean()
    update["mean_loss"].backward()  # type: ignore[no-untyped-call]
    update |= gradients(policy)
    got |= {f"update.{name}": value.detach() for name, value in update.items()}
    kinds = {"latents": TRAJECTORY, "update.*loss": LOSS, "update.grad*": GRADIENT}
    yield from compare_outputs(tensors, got, kinds)


def _policy_velocity(model: FlowTransformer, given: Tensors, config: dict[str, Any]) -> Velocity:
    """Guided velocity; prompts and empty prompts are projected as one batch, as published.

    Two batches round differently in the last bit, which a guidance of 4.5 and the difference of
    two means enlarge to 1e-5 of a gradient.
    """
    num_rows = len(given["text_f"])
    empty = model.empty_features(num_rows)
    both = model.condition(
        TextFeatures(
            torch.cat([given["text_f"], empty.tokens]), torch.cat([given["text_f_c"], empty.pooled])
        )
    )
    prompt = Conditions(both.tokens[:num_rows], both.pooled[:num_rows])
    without = Conditions(both.tokens[num_rows:], both.pooled[num_rows:])
    return guided(model, prompt, without, config["cfg"])


def _rollout(
    velocity: Velocity, given: Tensors, schedule: SDESchedule
) -> tuple[list[Tensor], list[Transition]]:
    states, steps = [given["x_init"]], []
    for number in range(schedule.num_steps):
        index = torch.full((len(states[0]),), number)
        v = velocity(states[-1], schedule.levels[index])
        steps.append(sde_step(states[-1], v, index, schedule, noise=given["noise"][:, number]))
        states.append(steps[-1].next_state)
    return states, steps


def _replay(
    velocity: Velocity, states: list[Tensor], number: int, schedule: SDESchedule
) -> Transition:
    index = torch.full((len(states[0]),), number)
    v = velocity(states[number], schedule.levels[index])
    return sde_step(states[number], v, index, schedule, next_state=states[number + 1])


def _update_terms(
    moved: list[Transition],
    sampled: list[Transition],
    reference: list[Transition],
    schedule: SDESchedule,
    given: Tensors,
    settings: dict[str, Any],
) -> dict[str, Tensor]:
    """The published loss of each step; its divergence leaves the step's length out."""
    advantage = _limited(given["advantages"], settings)
    policy = [
        grpo_loss(step.log_prob, old.log_prob, advantage, settings["clip"])
        for step, old in zip(moved, sampled, strict=False)
    ]
    std = _published_std(schedule)[:, None].expand(-1, len(advantage))
    kl = torch.stack(
        [
            gaussian_kl(step.mean, base.mean, s).mean()
            for step, base, s in zip(moved, reference, std, strict=False)
        ]
    )
    policy_loss = torch.stack([surrogate.rows.mean() for surrogate in policy])
    return {
        "loss": policy_loss + settings["beta"] * kl,
        "policy_loss": policy_loss,
        "kl_loss": kl,
        "ratio": torch.stack([surrogate.ratio for surrogate in policy]),
        "log_prob": torch.stack([step.log_prob for step in moved]),
    }


def check_dpo(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Pairs, their common noise, and the loss with its gradient.

    The published code compares the first two takes of a prompt; equal ones stay in order.
    """
    given = with_prefix(tensors, "in.")
    first = torch.arange(config["pairs"]) * config["k"]
    rows = torch.stack([first, first + 1], dim=1)
    pairs = make_pairs(
        given["scores"][rows].flatten(), torch.arange(len(rows)).repeat_interleave(2)
    )
    swapped = torch.zeros(len(rows), dtype=torch.bool)
    swapped[pairs.winners // 2] = pairs.winners % 2 == 1
    order = torch.where(swapped[:, None], rows.flip(1), rows).T.flatten()
    latents = given["latents"][order]
    target = velocity_target(latents, given["noise"])
    got = {
        "swap_mask": swapped,
        "batch_latents": latents,
        "batch_prompt_embeds": given["prompt_embeds"][first.repeat(2)],
        "noisy_latents": noised(latents, given["noise"], given["t"]),
        "target_v": target,
    }
    for beta in config["betas"]:
        terms = _dpo_terms(given, target, float(beta))
        got |= {f"beta{beta}.{label}": value for label, value in terms.items()}
    yield from compare_outputs(tensors, got, {"*.grad_model_pred": GRADIENT, "*.loss": LOSS})


def _dpo_terms(given: Tensors, target: Tensor, beta: float) -> dict[str, Tensor]:
    predicted = given["model_pred"].clone().requires_grad_()
    errors = row_mean_square(predicted - target)
    reference = row_mean_square(given["ref_pred"] - target)
    winners, losers = errors.chunk(2)
    loss = dpo_loss(winners, losers, reference.chunk(2)[0], reference.chunk(2)[1], beta)
    loss.pairs.mean().backward()  # type: ignore[no-untyped-call]
    assert predicted.grad is not None
    return {
        "loss": loss.pairs.mean().detach(),
        "accuracy": loss.correct.float().mean(),
        "inside_term": loss.margin,
        "raw_model_loss": errors.detach(),
        "raw_ref_loss": reference,
        "grad_model_pred": predicted.grad,
    }


def check_aqascore(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """The judge's score from logits and from log-probabilities."""
    given = with_prefix(tensors, "in.")
    log_probs = given["logits"].log_softmax(dim=1)[:, given["yes_no_ids"]]
    got = {
        "log_probs_yes_no": log_probs,
        "score": yes_probability(log_probs[:, :1], log_probs[:, 1:]),
        "score_from_log_probs": yes_probability(
            given["log_p_yes"][:, None], given["log_p_no"][:, None]
        ),
    }
    yield from compare_outputs(tensors, got)


CHECKS = {
    "sde_steps": check_sde_steps,
    "grpo_terms": check_grpo_terms,
    "grpo_rollout": check_grpo_rollout,
    "dpo": check_dpo,
    "aqascore": check_aqascore,
}
"""Which check reads the golden files whose name starts so."""
