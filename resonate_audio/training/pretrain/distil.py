"""Guidance and steps, distilled: one evaluation of a student for many of a guided flow."""

from __future__ import annotations

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import TrainingError
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.mean_flow import MeanVelocity, follow
from resonate_audio.flow.objective import row_errors
from resonate_audio.flow.path import Velocity, noised
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
    guidance_low: float = Field(0.0, ge=0, lt=1)
    """The teacher is guided at this noise level and above; below, its prompt alone leads."""
    teacher_steps: int = Field(4, ge=1)
    """Steps of the teacher in one of the student's, each two evaluations (prompt and none)."""
    point_share: float = Field(0.5, ge=0, le=1)
    """Share of rows that learn the guided velocity at a noise level: one step of the teacher."""
    long_share: float = Field(0.1, ge=0, le=1)
    """Share of rows that learn several of the student's steps in one, from the student itself. The
    others learn one of its steps."""
    reached_share: float = Field(0.5, ge=0, le=1)
    """Share of those others that begin where the student comes to, not at a noised recording."""


class Stretch(NamedTuple):
    """Of a flow, from one noise level down to another."""

    z: Float[Tensor, "row frame channel"]
    """State at t."""
    t: Float[Tensor, " row"]
    r: Float[Tensor, " row"]
    mean: Float[Tensor, "row frame channel"]
    """The mean velocity in between, (z_t - z_r)/(t - r); where r = t, the velocity."""


class GuidedTask(MeanVelocityTask):
    """Mean velocities of the teacher's guided flow, over nothing, one own step or several.

    Guidance is most of what there is to learn, and one step of the teacher teaches it: so half of
    the rows learn velocities at single noise levels [arXiv:2210.03142, sec. 3.1]. Over one of its
    steps the student learns from some of the teacher's, over several from its own two halves of
    them [arXiv:2410.12557, eq. 4].
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
            config: how the teacher goes, and what share of rows learns what.
            teacher: a flow.
            own_steps: steps that the student will take from noise to data.
        """
        super().__init__(source, condition_dropout)
        self.config = config
        self.own_steps = own_steps
        self.teacher = teacher.eval().requires_grad_(False)

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Squared error of the mean velocity of one stretch for each row."""
        batch = self.source.own_batch(draw)
        features = self.drop_some(batch, draw)
        order, stretch = self.teach(batch, features, draw)
        z, t, r, target = stretch
        predicted = self.model(z, t, self.model.condition(features.rows(order)), r)
        mask = None if batch.mask is None else batch.mask[order]
        errors = row_errors(predicted, target, mask)
        return batch.share * (self.model.loss_weights(t) * errors).mean(), {}

    @torch.no_grad()
    def teach(
        self, batch: FlowBatch, features: TextFeatures, draw: Draw
    ) -> tuple[Int[Tensor, " row"], Stretch]:
        """What each row learns, and which row of the batch it is."""
        config, rows = self.config, len(batch.data)
        kind, first, length, reached = self.uniform(draw, 4, rows)
        points = kind < config.point_share
        long = ~points & (kind >= 1 - config.long_share) & (self.own_steps > 1)
        parts = []
        for chosen in (points, long, ~points & ~long):
            index = chosen.nonzero().flatten()
            if not len(index):
                continue
            data, noise = batch.data[index], batch.noise[index]
            words = features.rows(index)
            if chosen is points:
                parts.append((index, self._velocity_at(data, noise, batch.times[index], words)))
            elif chosen is long:
                spans = self._spans(first[index], length[index])
                parts.append((index, self._own_halves(data, noise, *spans, words)))
            else:
                begin = _up_to(first[index], self.own_steps)
                from_noise = reached[index] < config.reached_share
                parts.append((index, self._own_step(data, noise, begin, from_noise, words)))
        order = torch.cat([index for index, _ in parts])
        return order, Stretch(
            *(torch.cat(found) for found in zip(*(s for _, s in parts), strict=True))
        )

    def _velocity_at(
        self, data: Tensor, noise: Tensor, t: Tensor, features: TextFeatures
    ) -> Stretch:
        z = noised(data, noise, t)
        return Stretch(z, t, t, self._guided(features)(z, t).to(z))

    def _own_step(
        self, data: Tensor, noise: Tensor, begin: Tensor, from_noise: Tensor, features: TextFeatures
    ) -> Stretch:
        """One of the student's steps as the teacher goes it, from wherever it begins."""
        t, r = 1 - begin / self.own_steps, 1 - (begin + 1) / self.own_steps
        z = torch.where(
            from_noise[:, None, None], self.reached(noise, begin, features), noised(data, noise, t)
        )
        end = follow(self._guided(features), z, t, r, self.config.teacher_steps)
        return Stretch(z, t, r, (z - end) * self.own_steps)

    def _own_halves(
        self, data: Tensor, noise: Tensor, begin: Tensor, end: Tensor, features: TextFeatures
    ) -> Stretch:
        """Several of the student's steps as it goes them in two, from a noised recording."""
        mean, steps = self._student(features), self.own_steps
        t, s, r = (1 - number / steps for number in (begin, (begin + end) // 2, end))
        z = noised(data, noise, t)
        halfway = _go(mean, z, t, s)
        return Stretch(z, t, r, (z - _go(mean, halfway, s, r)) / (t - r)[:, None, None])

    def reached(
        self,
        noise: Float[Tensor, "row frame channel"],
        begin: Int[Tensor, " row"],
        features: TextFeatures,
    ) -> Float[Tensor, "row frame channel"]:
        """Where the student comes to from noise in so many of its steps."""
        mean, z = self._student(features), noise
        for step in range(int(begin.max())):
            t, r = (torch.full_like(z[:, 0, 0], 1 - n / self.own_steps) for n in (step, step + 1))
            z = torch.where((begin > step)[:, None, None], _go(mean, z, t, r), z)
        return z

    def _spans(self, first: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        """Of two steps or more: where each begins and ends, in steps of the student."""
        begin = _up_to(first, self.own_steps - 1)
        return begin, begin + 2 + _up_to(length, self.own_steps - 1 - begin)

    def _guided(self, features: TextFeatures) -> Velocity:
        teacher = self.teacher
        empty = teacher.condition(teacher.empty_features(len(features.pooled)))
        scale, above = self.config.guidance_scale, (self.config.guidance_low, 1.0)
        return guided(teacher, teacher.condition(features), empty, scale, interval=above)

    def _student(self, features: TextFeatures) -> MeanVelocity:
        conditions = self.model.condition(features)
        return lambda z, t, r: self.model(z, t, conditions, r)

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


def _go(mean: MeanVelocity, z: Tensor, t: Tensor, r: Tensor) -> Tensor:
    return z - (t - r)[:, None, None] * mean(z, t, r).to(z)


def _up_to(uniform: Float[Tensor, " row"], count: int | Tensor) -> Int[Tensor, " row"]:
    """Whole numbers below ``count``, of numbers in [0, 1)."""
    return torch.minimum((uniform * count).long(), torch.as_tensor(count - 1))


def _as_bytes(text: str) -> Tensor:
    return torch.tensor(list(text.encode()), dtype=torch.uint8)
