"""What nano's three judges have in common while they learn: recipe, scenes, exam, lessons.

Scenes, renderings and questions of a step come from (seed, step) alone, so a run that was stopped
goes on exactly. The judges share the recordings and nothing else: other networks, other
losses, other seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import GivenPath
from resonate_audio.core.errors import ConfigError
from resonate_audio.nano.judges.scenes import (
    ExamItem,
    JudgeData,
    SceneBatch,
    SceneSource,
    numpy_generator,
)
from resonate_audio.nano.judges.training.exam import exam_scores, pair_accuracy, stacked
from resonate_audio.training.loop.checkpoint import load_latest, unpack
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.task import Draw, Losses, Task


class JudgeRecipe(TrainerConfig):
    """The part of a recipe that every judge has."""

    data: JudgeData
    scenes_per_batch: int = Field(32, ge=2, le=100_000)
    exam_each: int = Field(40, ge=1, le=100_000)
    """Validation scenes of each kind that a judge is examined on while it learns."""


class ListenerRecipe(JudgeRecipe):
    """The part of a recipe of a judge that first learns to hear, and then to answer.

    Each is a run of its own: what one learns to hear with is fixed while it learns to answer, so
    that a step can ask many questions about each scene for little more than the price of one.
    """

    lesson: Literal["hearing", "answers"]
    questions_per_scene: int = Field(16, ge=2, le=10_000)
    start: GivenPath | None = None
    """Folder of the run in which it learnt to hear; its last weights are the first ones of this."""


class JudgeTask(Task):
    """What the three have in common: scenes to learn from, and an exam on others."""

    def __init__(self, train_scenes: SceneSource, exam: Sequence[ExamItem]) -> None:
        self.scenes = train_scenes
        self.exam = exam

    def score(self, waves: Float[Tensor, "row sample"], texts: list[str]) -> Float[Tensor, " row"]:
        """The judge's scores while it is being trained."""
        raise NotImplementedError

    def sample(self, folder: Path, step: int) -> Mapping[str, float]:
        """Share of the exam's pairs in which the right text scores higher, by kind."""
        return pair_accuracy(self.exam, exam_scores(self.score, self.exam))


class ListeningTask(JudgeTask):
    """A judge that first learns to hear, then to answer."""

    recipe: ListenerRecipe
    tagger: nn.Linear
    """From frames to classes and silence."""

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """The lesson's loss."""
        rng = numpy_generator(draw.generator)
        if self.recipe.lesson == "hearing":
            return self.hearing_loss(rng)
        recipe = self.recipe
        return self.answer_loss(
            self.scenes.batch(rng, recipe.scenes_per_batch, recipe.questions_per_scene), rng
        )

    def hearing_loss(self, rng: np.random.Generator) -> tuple[Float[Tensor, ""], Losses]:
        """What sounds, and what it is called."""
        raise NotImplementedError

    def answer_loss(
        self, batch: SceneBatch, rng: np.random.Generator
    ) -> tuple[Float[Tensor, ""], Losses]:
        """Does the sound have what the text says?"""
        raise NotImplementedError

    def named_frames(
        self, waves: Float[Tensor, "row sample"], captions: Sequence[str]
    ) -> Float[Tensor, "row frame caption"]:
        """How much each caption means what is heard in each frame."""
        raise NotImplementedError

    def sample(self, folder: Path, step: int) -> Mapping[str, float]:
        """Of hearing: how often the loudest moment of one sound is called by its own name."""
        if self.recipe.lesson == "answers":
            return super().sample(folder, step)
        items = [item for item in self.exam if item.kind == "wrong event"]
        told = [item for item in items if len(item.scene.events) == 1]
        if not told:
            return {}
        right, wrong = [item.right for item in told], [item.wrong for item in told]
        names = self.named_frames(stacked([item.samples for item in told]), right + wrong)
        best = names.amax(dim=1)
        rows = torch.arange(len(told))
        own, other = best[rows, rows], best[rows, rows + len(told)]
        first = (best[:, : len(told)].argmax(dim=1) == rows).float().mean()
        return {"named/pairs": float((own > other).float().mean()), "named/first": float(first)}


def start_from(modules: nn.Module, run: Path) -> None:
    """Take over the averaged weights of a run's last checkpoint; what it has not, stays fresh.

    Raises:
        ConfigError: the run has no checkpoint.
    """
    checkpoint = load_latest(run / "checkpoints")
    if checkpoint is None:
        raise ConfigError(f"start: {run} has no checkpoint; name the output folder of a run")
    modules.load_state_dict(unpack("module.model", checkpoint.tensors), strict=False)
    modules.load_state_dict(unpack("average", checkpoint.tensors), strict=False)
