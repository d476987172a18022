"""Training nano-clap: two towers, contrastive."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.nano.judges.scenes import ExamItem, SceneBatch, SceneSource, numpy_generator
from resonate_audio.nano.judges.training.captions import CaptionReader
from resonate_audio.nano.judges.training.lessons import altered, pictures_of
from resonate_audio.nano.judges.training.task import JudgeRecipe, JudgeTask
from resonate_audio.rewards.small.judge import write_judge
from resonate_audio.rewards.small.two_tower import TwoTower, TwoTowerConfig, contrastive_loss
from resonate_audio.training.loop.task import Draw, Losses


class ClapRecipe(JudgeRecipe):
    """Train the two towers."""

    judge: Literal["clap"]
    network: TwoTowerConfig = TwoTowerConfig()


class ClapTask(JudgeTask):
    """Contrastive learning of sounds and whole captions; nothing tells it of order or number."""

    def __init__(
        self,
        recipe: ClapRecipe,
        network: TwoTower,
        encoder: CaptionReader,
        scenes: SceneSource,
        exam: Sequence[ExamItem],
    ) -> None:
        super().__init__(scenes, exam)
        self.recipe, self.network, self.encoder = recipe, network, encoder
        self.phases: dict[str, nn.Module] = {"model": network}

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """SigLIP loss over the batch's sounds and their captions."""
        rng = numpy_generator(draw.generator)
        batch = self.scenes.batch(rng, self.recipe.scenes_per_batch, 0)
        pictures = altered(pictures_of(self.network, batch.waves), rng, 0.05)
        sounds = self.network.embed_pictures(pictures)
        texts = self.network.embed_texts(self.encoder.encode(self.captions(batch, rng)))
        network = self.network
        loss = contrastive_loss(sounds, texts, network.log_scale, network.bias)
        chosen = (sounds @ texts.T).argmax(dim=1)
        hits = (chosen == torch.arange(len(chosen), device=chosen.device)).float().mean()
        return loss, {"found": hits.detach()}

    def captions(self, batch: SceneBatch, rng: np.random.Generator) -> list[str]:
        """Right texts, worded like those of nano's training mixtures, which never count."""
        return [
            self.scenes.maker.question(s, "part" if s.kind == "counted" else "described", rng).text
            for s in batch.scenes
        ]

    def score(self, waves: Float[Tensor, "row sample"], texts: list[str]) -> Float[Tensor, " row"]:
        """Cosines."""
        sounds = self.network.embed_pictures(pictures_of(self.network, waves))
        return (sounds * self.network.embed_texts(self.encoder.encode(texts))).sum(dim=1)

    def export(self, folder: Path) -> None:
        """Write the judge's folder."""
        write_judge(folder, self.recipe.network, self.network.state_dict())
