"""Steps and guidance, distilled: a student does in one stretch what a guided flow does in many."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import TrainingError
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.mean_flow import Trajectory, follow, two_times
from resonate_audio.flow.objective import row_errors
from resonate_audio.flow.path import noised
from resonate_audio.model.checkpoint import fingerprint_weights
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.task import Draw, Losses
from resonate_audio.training.pretrain.mean_flow import MeanVelocityTask
from resonate_audio.training.pretrain.task import FlowBatch, PretrainTask


class GuidedConfig(FrozenConfig):
    """The student follows the teacher."""

    kind: Literal["guided"] = "guided"
    guidance_scale: float = Field(4.5, ge=1)
    """Of the teacher; the student has it inside."""
    teacher_steps: int = Field(12, ge=1)
    """Steps of one trajectory, each two evaluations of the teacher (prompt and none)."""
    stretches: int = Field(4, ge=1)
    """Stretches of each trajectory that the student learns in one update."""
    noise_share: float = Field(0.5, ge=0, le=1)
    """Share of rows that go the whole way from noise to data; the others go part of it, from a
    noised recording."""
    own_share: float = Field(0.5, ge=0, le=1)
    """Share of a whole way's stretches that are one of the student's own steps; the others begin
    and end anywhere."""


class GuidedTask(MeanVelocityTask):
    """Mean velocities between two noise levels of the teacher's own guided trajectory.

    target = (z_t − z_r)/(t − r), z of the teacher's solution; where r = t, its guided velocity.
    """

    def __init__(
        self,
        source: PretrainTask,
        condition_dropout: float,
        config: GuidedConfig,
        teacher: FlowTransformer,
        own_steps: int,
    ) -> None:
        """Take a task that draws batches, and whom its model is to follow.

        Args:
            source: its model is what is trained, its listener hears it.
            condition_dropout: share of rows that are trained with the empty prompt.
            config: how the teacher goes; its steps are a multiple of ``own_steps``.
            teacher: a flow.
            own_steps: steps that the student will take from noise to data.
        """
        super().__init__(source, condition_dropout)
        self.config = config
        self.own_steps = own_steps
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Squared error over some stretches of each row's trajectory."""
        batch = self.source.own_batch(draw)
        features = self.drop_some(batch, draw)
        way = self.teach(batch, features, draw)
        parts = [way.between(*pair) for pair in zip(*self.stretches(way, draw), strict=True)]
        z, t, r, target = (torch.cat(found) for found in zip(*parts, strict=True))
        conditions = self.model.condition(features).repeated(len(parts))
        mask = None if batch.mask is None else batch.mask.repeat(len(parts), 1)
        errors = row_errors(self.model(z, t, conditions, r), target, mask)
        return batch.share * (self.model.loss_weights(t) * errors).mean(), {}

    @torch.no_grad()
    def teach(self, batch: FlowBatch, features: TextFeatures, draw: Draw) -> Trajectory:
        """The teacher's guided way, of every row."""
        rows, device = len(batch.data), batch.data.device
        normals = torch.randn(2, rows, generator=draw.generator, device=device)
        flow = self.source.config
        chosen = self.uniform(draw, 2, rows)
        t, r = two_times(normals, chosen[1], 0.0, flow.time_mean, flow.time_std)
        is_whole = chosen[0] < self.config.noise_share
        t, r = torch.where(is_whole, 1.0, t), torch.where(is_whole, 0.0, r)
        teacher = self.teacher
        empty = teacher.condition(teacher.empty_features(rows))
        velocity = guided(teacher, teacher.condition(features), empty, self.config.guidance_scale)
        return follow(velocity, noised(batch.data, batch.noise, t), t, r, self.config.teacher_steps)

    def stretches(
        self, way: Trajectory, draw: Draw
    ) -> tuple[Int[Tensor, "stretch row"], Int[Tensor, "stretch row"]]:
        """The numbers of the states where each stretch begins and ends."""
        steps, own = self.config.teacher_steps, self.own_steps
        uniform = self.uniform(draw, 4, self.config.stretches, len(way.times[0]))
        first = _up_to(uniform[0], steps)
        last = first + _up_to(uniform[1], steps + 1 - first)
        is_whole = (way.times[0] == 1) & (way.times[-1] == 0)
        is_own = is_whole & (uniform[2] < self.config.own_share)
        length = steps // own
        own_first = length * _up_to(uniform[3], own)
        return torch.where(is_own, own_first, first), torch.where(is_own, own_first + length, last)

    def extra_state(self) -> dict[str, Tensor]:
        """Which teacher it is."""
        return {"teacher": _as_bytes(fingerprint_weights([self.teacher.state_dict()]))}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Refuse to go on with another teacher.

        Raises:
            TrainingError: it is another one.
        """
        if not torch.equal(state["teacher"], self.extra_state()["teacher"]):
            raise TrainingError(
                "weights.transformer holds another teacher than this run began with; choose "
                "another run.output, or put the old file back"
            )


def _up_to(uniform: Tensor, count: int | Tensor) -> Tensor:
    """A whole number below ``count``, of a number in [0, 1)."""
    return torch.minimum((uniform * count).long(), torch.as_tensor(count - 1))


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
