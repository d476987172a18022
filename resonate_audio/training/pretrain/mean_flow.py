"""MeanFlow: a flow transformer learns mean velocities from recordings, with guidance inside."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.types import TextFeatures
from resonate_audio.flow.mean_flow import (
    MeanVelocity,
    adaptive_rows,
    guided_target,
    mean_flow_target,
    two_times,
)
from resonate_audio.flow.objective import drop_conditions, row_errors
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.task import Draw, Losses, Task
from resonate_audio.training.pretrain.task import FlowBatch, PretrainTask


class MeanFlowConfig(FrozenConfig):
    """The published objective of MeanAudio; its own numbers are the defaults."""

    kind: Literal["meanflow"] = "meanflow"
    equal_share: float = Field(0.75, ge=0, le=1)
    """Share of rows with r = t, where it is plain flow matching."""
    time_mean: float = -0.4
    time_std: float = Field(1.0, gt=0)
    """Both times are sigmoid(mean + std · normal)."""
    data_share: float = Field(0.3, gt=0, le=1)
    """w: of the data's velocity in the target; 1 leaves guidance out."""
    prompt_share: float = Field(0.9, ge=0, lt=1)
    """k: of the network's own velocity with the prompt; its velocity without one gets the rest,
    1 - w - k. The guidance scale is w/(1 - k)."""
    loss_offset: float = Field(1e-3, gt=0)
    """c of the loss e/(e + c)."""


class MeanVelocityTask(Task):
    """What both ways to a mean velocity share: batches of another task, prompts dropped here."""

    finish: Callable[[FlowTransformer, Path], None] | None = None
    """Makes a whole model of the averaged weights, in a folder."""

    def __init__(self, source: PretrainTask, condition_dropout: float) -> None:
        """Take a task that draws batches with every prompt in place.

        Args:
            source: its model is what is trained, its listener hears it.
            condition_dropout: share of rows that are trained with the empty prompt.
        """
        self.source = source
        self.model = source.model
        self.phases = source.phases
        self.condition_dropout = condition_dropout

    def drop_some(self, batch: FlowBatch, draw: Draw) -> TextFeatures:
        """The batch's prompts, some of them replaced by the empty one."""
        rows = len(batch.data)
        empty = self.model.empty_features(rows)
        return drop_conditions(
            batch.features, empty, self.uniform(draw, 1, rows)[0] < self.condition_dropout
        )

    def uniform(self, draw: Draw, *shape: int) -> Tensor:
        """Numbers in [0, 1) of a step."""
        return torch.rand(*shape, generator=draw.generator, device=draw.generator.device)

    def sample(self, folder: Path, step: int) -> None:
        """Let the listener hear the averaged model."""
        self.source.sample(folder, step)

    def export(self, folder: Path) -> None:
        """Write the averaged weights, and the whole model where its other parts are known."""
        self.source.export(folder)
        if self.finish is not None:
            self.finish(self.model, folder / "model")


class MeanFlowTask(MeanVelocityTask):
    """The MeanFlow loss over a pre-training task's batches [arXiv:2505.13447, alg. 1]."""

    def __init__(
        self, source: PretrainTask, condition_dropout: float, config: MeanFlowConfig
    ) -> None:
        super().__init__(source, condition_dropout)
        self.config = config

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Adaptive loss of one batch; the plain squared error is logged beside it."""
        batch, config = self.source.own_batch(draw), self.config
        features = self.drop_some(batch, draw)
        rows = len(batch.data)
        normals = torch.randn(2, rows, generator=draw.generator, device=batch.data.device)
        equal = self.uniform(draw, 1, rows)[0]
        t, r = two_times(normals, equal, config.equal_share, config.time_mean, config.time_std)
        z = noised(batch.data, batch.noise, t)
        target = self.target(z, t, r, batch, features)
        predicted = self.model(z, t, self.model.condition(features), r)
        squares = row_errors(predicted, target, batch.mask)
        loss = batch.share * adaptive_rows(squares, config.loss_offset).mean()
        return loss, {"squared_error": batch.share * squares.detach().mean()}

    @torch.no_grad()
    def target(
        self, z: Tensor, t: Tensor, r: Tensor, batch: FlowBatch, dropped: TextFeatures
    ) -> Float[Tensor, "row frame channel"]:
        """The target of each row; its guidance hears the prompt whether it was dropped or not."""
        config, model = self.config, self.model
        followed = velocity_target(batch.data, batch.noise)
        if config.data_share < 1:
            empty = model.empty_features(len(z))
            heard = model.condition(batch.features).followed_by(model.condition(empty))
            both = model(torch.cat([z, z]), torch.cat([t, t]), heard)
            with_prompt, without = both.chunk(2)
            followed = guided_target(
                followed, with_prompt, without, config.data_share, config.prompt_share
            )

        def bind(part: Int[Tensor, " part"]) -> MeanVelocity:
            conditions = model.condition(dropped.rows(part))
            return lambda z, t, r: model(z, t, conditions, r)

        return mean_flow_target(bind, z, t, r, followed)
