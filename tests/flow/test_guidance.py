from __future__ import annotations

from dataclasses import dataclass, field

import torch

from resonate_audio.flow.guidance import guided


@dataclass
class Level:
    """Conditions whose velocity is a constant per row."""

    values: torch.Tensor

    def followed_by(self, other: Level) -> Level:
        return Level(torch.cat([self.values, other.values]))


@dataclass
class ConstantModel:
    """Velocity = the condition's value; remembers the rows of each call."""

    rows: list[int] = field(default_factory=list)

    def __call__(self, z: torch.Tensor, t: torch.Tensor, level: Level) -> torch.Tensor:
        self.rows.append(len(z))
        return level.values[:, None, None].expand_as(z)


Z, T = torch.zeros(2, 3, 1), torch.ones(2)
PROMPT, EMPTY = Level(torch.tensor([1.0, 2.0])), Level(torch.tensor([0.5, 4.0]))


def test_guidance_extrapolates_from_empty_through_prompt() -> None:
    v = guided(ConstantModel(), PROMPT, EMPTY, 4.5)(Z, T)
    torch.testing.assert_close(v[:, 0, 0], torch.tensor([4.5 * 1 - 3.5 * 0.5, 4.5 * 2 - 3.5 * 4.0]))


def test_both_branches_are_one_evaluation() -> None:
    model = ConstantModel()
    guided(model, PROMPT, EMPTY, 4.5)(Z, T)
    assert model.rows == [4]


def test_scale_one_is_the_prompt_alone() -> None:
    v = guided(ConstantModel(), PROMPT, EMPTY, 1.0)(Z, T)
    torch.testing.assert_close(v[:, 0, 0], PROMPT.values)


def test_below_one_the_empty_branch_is_skipped() -> None:
    model = ConstantModel()
    v = guided(model, PROMPT, EMPTY, 0.5)(Z, T)
    assert (v[:, 0, 0].tolist(), model.rows) == ([1.0, 2.0], [2])


def test_outside_the_interval_the_prompt_is_followed_alone_in_half_the_rows() -> None:
    model = ConstantModel()
    velocity = guided(model, PROMPT, EMPTY, 4.5, interval=(0.3, 0.8))
    inside, outside = velocity(Z, 0.8 * T), velocity(Z, 0.81 * T)
    assert torch.equal(inside, guided(ConstantModel(), PROMPT, EMPTY, 4.5)(Z, 0.8 * T))
    assert torch.equal(outside[:, 0, 0], PROMPT.values)
    assert model.rows == [4, 2]


def test_rows_at_different_levels_are_each_guided_or_not() -> None:
    velocity = guided(ConstantModel(), PROMPT, EMPTY, 4.5, interval=(0.3, 0.8))
    v = velocity(Z, torch.tensor([0.5, 0.9]))[:, 0, 0]
    torch.testing.assert_close(v, torch.tensor([4.5 * 1 - 3.5 * 0.5, 2.0]))
