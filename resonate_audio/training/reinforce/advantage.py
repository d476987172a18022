"""How much better each take is than the other takes of its own prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float64, Int
from pydantic import Field, model_validator
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError, ShapeError
from resonate_audio.core.types import Rewards

EQUAL = 1e-7
"""Rewards that differ by less than this part of the largest are equal: float32 rounding."""

Takes = Int[Tensor, " _"]
"""Row numbers of one prompt's takes; prompts may have different numbers of them."""


class AdvantageConfig(FrozenConfig):
    """What divides the centred rewards, and which rewards they are."""

    std: Literal["group", "global", "none"] = "group"
    """Standard deviation within a prompt, of all rewards at once (published code), or none."""
    floor: float = Field(1e-4, gt=0)
    """Added to the standard deviation; in units of the reward."""
    clip: float | None = Field(5.0, gt=0)
    """Largest size of an advantage; null for no limit."""
    combine: Literal["total", "gdpo"] = "total"
    """Normalise the judge's total, or each of its parts on its own and then their sum."""
    weights: dict[str, float] = Field(default_factory=dict)
    """Weight of each part by name; for ``gdpo`` only, where none means those of the judge's sum."""

    @model_validator(mode="after")
    def _weights_go_with_gdpo(self) -> AdvantageConfig:
        if self.weights and self.combine != "gdpo":
            raise ValueError("weights: go with combine 'gdpo'; the total has those of its sum")
        if self.weights and not any(self.weights.values()):
            raise ValueError("weights: all are 0, so that nothing would count")
        return self


@dataclass(frozen=True)
class Advantages:
    """One number a row, on the CPU in float64, and what to log of them."""

    values: Float64[Tensor, " row"]
    """More is better; mean zero within a prompt, before the limit."""
    kept: Bool[Tensor, " row"]
    """False where all takes of the prompt have equal rewards: nothing to learn from."""
    metrics: Mapping[str, float]


def group_advantages(
    rewards: Rewards, group: Int[Tensor, " row"], config: AdvantageConfig
) -> Advantages:
    """Centre the rewards of each prompt and bring them to one scale.

    A = (r − mean_G r) / (std + floor)          [GRPO, arXiv:2402.03300, sec. 4.1.2]
    std is that of the prompt's takes, of all rows [Flow-GRPO's code], or 1 with no floor
    [Dr. GRPO, arXiv:2503.20783]; population form.
    gdpo: A = Σ_k w_k A_k / Σ_k |w_k|          [GDPO, arXiv:2601.05242]

    Differs from the papers: the divisor has a floor, equal rewards give exactly 0, and the sum
    of gdpo is not normalised a second time over the batch.

    Args:
        rewards: of the rows of *all* processes, so that every process sees the same groups.
        group: prompt id of each row, in any order.
        config: see its fields.

    Raises:
        ShapeError: another number of ids than of rewards, or a prompt with a single take.
        ConfigError: a weight names a part that the judge does not report.
    """
    groups = group_rows(group, len(rewards.total))
    columns, weights = _columns(rewards, config)
    scaled = torch.stack([_normalise(column, groups, config) for column in columns])
    values = (weights[:, None] * scaled).sum(dim=0) / weights.abs().sum()
    kept = torch.zeros(len(values), dtype=torch.bool)
    for rows in groups:
        kept[rows] = any(reward_spread(column[rows]) > 0 for column in columns)
    limited = values if config.clip is None else values.clamp(-config.clip, config.clip)
    metrics = _reward_metrics(rewards.total.double().cpu(), groups)
    metrics["frac_zero_std"] = sum(not kept[rows[0]] for rows in groups) / len(groups)
    metrics["frac_clipped"] = (limited != values).double().mean().item()
    return Advantages(limited, kept, metrics)


def group_rows(group: Int[Tensor, " row"], num_rows: int | None = None) -> list[Takes]:
    """Row numbers of the takes of each prompt, prompts by rising id.

    Raises:
        ShapeError: ``num_rows`` is another number than that of ids, there is none, or a prompt
            has a single take.
    """
    ids = group.cpu()
    if len(ids) != (len(ids) if num_rows is None else num_rows) or not len(ids):
        raise ShapeError(f"{len(ids)} prompt ids for {num_rows} rewards: expected one each")
    groups = [(ids == prompt).nonzero().flatten() for prompt in torch.unique(ids)]
    alone = [ids[rows[0]].item() for rows in groups if len(rows) == 1]
    if alone:
        raise ShapeError(
            f"prompt {alone[0]} has 1 take: takes are compared with each other, make 2 or more"
        )
    return groups


def _columns(
    rewards: Rewards, config: AdvantageConfig
) -> tuple[list[Float64[Tensor, " row"]], Float64[Tensor, " part"]]:
    """The rewards that are normalised on their own, and their weights."""
    chosen = config.weights or rewards.weights
    weights = {name: weight for name, weight in chosen.items() if weight != 0}
    if config.combine == "total" or not weights:
        return [rewards.total.double().cpu()], torch.ones(1, dtype=torch.float64)
    missing = sorted(set(weights) - set(rewards.parts))
    if missing:
        known = ", ".join(sorted(rewards.parts)) or "none"
        raise ConfigError(f"weights: {rewards.judge} reports no part {missing[0]!r}, only {known}")
    columns = [rewards.parts[name].double().cpu() for name in weights]
    return columns, torch.tensor(list(weights.values()), dtype=torch.float64)


def _normalise(
    reward: Float64[Tensor, " row"], groups: list[Takes], config: AdvantageConfig
) -> Float64[Tensor, " row"]:
    result = torch.zeros_like(reward)
    for rows in groups:
        if reward_spread(reward[rows]) > 0:
            result[rows] = reward[rows] - reward[rows].mean()
            if config.std == "group":
                result[rows] /= reward[rows].std(correction=0) + config.floor
    if config.std == "global":
        result /= reward.std(correction=0) + config.floor
    return result


def reward_spread(reward: Float64[Tensor, " take"]) -> float:
    """Largest minus smallest reward, 0 if that is no more than rounding."""
    width = float(reward.max() - reward.min())
    return width if width > EQUAL * float(reward.abs().max()) else 0.0


def _reward_metrics(reward: Float64[Tensor, " row"], groups: list[Takes]) -> dict[str, float]:
    spreads = [reward[rows].std(correction=0) for rows in groups]
    return {
        "reward_mean": reward.mean().item(),
        "reward_std": reward.std(correction=0).item(),
        "reward_std_within_prompt": torch.stack(spreads).mean().item(),
        "takes_per_prompt": len(reward) / len(groups),
    }
