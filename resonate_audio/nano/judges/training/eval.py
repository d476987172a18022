"""Training nano-eval: a matcher of frames and words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig
from resonate_audio.nano.judges.lalm import tokens_within
from resonate_audio.nano.judges.questions import Scene, choose
from resonate_audio.nano.judges.scenes import ExamItem, SceneBatch, SceneSource, activity
from resonate_audio.nano.judges.training.captions import CaptionReader
from resonate_audio.nano.judges.training.lessons import (
    altered,
    by_kind,
    detached,
    naming_loss,
    pictures_of,
    soft_cross_entropy,
)
from resonate_audio.nano.judges.training.task import ListenerRecipe, ListeningTask
from resonate_audio.rewards.small.judge import write_judge
from resonate_audio.rewards.small.matcher import Matcher, MatcherConfig, word_mask
from resonate_audio.training.loop.task import Losses


class EvalLoss(FrozenConfig):
    """What nano-eval learns, each with its weight."""

    classes: float = Field(0.5, ge=0)
    """What sounds in each frame."""
    naming: float = Field(1.0, ge=0)
    """Which caption names it."""
    pointing: float = Field(1.0, ge=0)
    """In which frames each word of a question is heard."""
    answer: float = Field(1.0, ge=0)


class EvalRecipe(ListenerRecipe):
    """Train the matcher."""

    judge: Literal["eval"]
    network: MatcherConfig = MatcherConfig()
    loss: EvalLoss = EvalLoss()


class EvalModules(nn.Module):
    """The matcher and what it needs while it learns."""

    def __init__(self, config: MatcherConfig, num_classes: int) -> None:
        super().__init__()
        self.matcher = Matcher(config)
        self.classes = nn.Linear(config.dim, num_classes + 1)


class EvalTask(ListeningTask):
    """Answers to hard questions, and what sounds in each frame."""

    recipe: EvalRecipe

    def __init__(
        self,
        recipe: EvalRecipe,
        modules: EvalModules,
        encoder: CaptionReader,
        scenes: SceneSource,
        exam: Sequence[ExamItem],
    ) -> None:
        super().__init__(scenes, exam)
        self.recipe, self.modules, self.encoder = recipe, modules, encoder
        self.tagger = modules.classes
        self.phases: dict[str, nn.Module] = {"model": modules}

    def hearing_loss(self, rng: np.random.Generator) -> tuple[Float[Tensor, ""], Losses]:
        """Classes of frames, and which of some hundred captions names each."""
        scenes, waves = self.scenes.crowds(rng, self.recipe.scenes_per_batch)
        frames, weights = self.hear(waves, rng), self.recipe.loss
        targets = self.scenes.class_targets(scenes, frames.shape[1])
        classes = soft_cross_entropy(self.tagger(frames), targets)
        words = self.caption_names(one_caption_each(scenes, rng))
        naming = naming_loss(
            self.modules.matcher.sounds(frames), words, scenes, self.scenes.classes
        )
        total = weights.classes * classes + weights.naming * naming
        return total, detached({"classes": classes, "naming": naming})

    def answer_loss(
        self, batch: SceneBatch, rng: np.random.Generator
    ) -> tuple[Float[Tensor, ""], Losses]:
        """Answers, and in which frames each word is heard."""
        matcher, weights = self.modules.matcher, self.recipe.loss
        texts, answers = batch.texts(), batch.answers()
        with torch.no_grad():
            matcher.picture.eval()
            matcher.mixers.eval()
            frames = self.hear(batch.waves, rng)
        tokens = self.encoder.encode(texts).tokens
        repeated = frames.repeat_interleave(self.recipe.questions_per_scene, dim=0)
        log_odds = matcher.match(repeated, tokens, word_mask(tokens))
        answer = F.binary_cross_entropy_with_logits(log_odds, answers)
        spans = self.encoder.spans(texts, tokens.shape[1])
        pointing = word_pointing(matcher.likeness(repeated, tokens), spans, batch)
        right = ((log_odds > 0).float() == answers).float()
        total = weights.answer * answer + weights.pointing * pointing
        logged = {"answer": answer, "pointing": pointing}
        return total, detached(logged | by_kind(right, batch))

    def caption_names(self, captions: Sequence[str]) -> Float[Tensor, "caption dim"]:
        """What whole captions say: the mean of their words."""
        tokens = self.encoder.encode(captions).tokens
        mask = word_mask(tokens)[..., None].float()
        named: Tensor = self.modules.matcher.names(tokens) * mask
        return named.sum(dim=1) / mask.sum(dim=1)

    def named_frames(
        self, waves: Float[Tensor, "row sample"], captions: Sequence[str]
    ) -> Float[Tensor, "row frame caption"]:
        """How much each caption means what is heard in each frame."""
        matcher = self.modules.matcher
        frames: Tensor = matcher.sounds(matcher.hear(pictures_of(matcher, waves)))
        return frames @ self.caption_names(captions).T

    def hear(
        self, waves: Float[Tensor, "row sample"], rng: np.random.Generator
    ) -> Float[Tensor, "row frame dim"]:
        """Frames as the matcher hears them through another microphone."""
        matcher = self.modules.matcher
        return matcher.hear(altered(pictures_of(matcher, waves), rng, 0.15))

    def score(self, waves: Float[Tensor, "row sample"], texts: list[str]) -> Float[Tensor, " row"]:
        """Log-odds."""
        matcher, tokens = self.modules.matcher, self.encoder.encode(texts).tokens
        return matcher.match(matcher.hear(pictures_of(matcher, waves)), tokens, word_mask(tokens))

    def export(self, folder: Path) -> None:
        """Write the judge's folder."""
        write_judge(folder, self.recipe.network, self.modules.matcher.state_dict())


def one_caption_each(scenes: Sequence[Scene], rng: np.random.Generator) -> list[str]:
    """A caption of every event, scene by scene."""
    return [choose(event.captions, rng) for scene in scenes for event in scene.events]


def word_pointing(
    likeness: Float[Tensor, "question token frame"],
    spans: Sequence[Sequence[tuple[int, int]]],
    batch: SceneBatch,
) -> Float[Tensor, ""]:
    """Binary cross-entropy of which words sound when; words outside of phrases say nothing.

    Args:
        likeness: log-odds that a word is heard in a frame.
        spans: first and last character of each token, for each question.
        batch: what was asked about which scenes.
    """
    targets = torch.zeros_like(likeness)
    asked = torch.zeros(likeness.shape[:2], dtype=torch.bool, device=likeness.device)
    row = 0
    for scene, questions, spoiled in zip(batch.scenes, batch.questions, batch.spoiled, strict=True):
        if spoiled:  # no word is where it was
            row += len(questions)
            continue
        active = torch.from_numpy(activity(scene, likeness.shape[2])).to(likeness)
        for question in questions:
            for phrase in question.phrases:
                for token in tokens_within(spans[row], phrase):
                    asked[row, token] = True
                    if phrase.event is not None:
                        targets[row, token] = active[phrase.event]
            row += 1
    loss = F.binary_cross_entropy_with_logits(likeness.float(), targets.float(), reduction="none")
    return loss[asked].mean()
