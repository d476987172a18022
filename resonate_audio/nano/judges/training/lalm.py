"""Training nano-lalm: the paper's question, answered by one token of an audio LLM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig
from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judges.lalm import (
    COMPARING_LAYER,
    LalmConfig,
    build_lalm,
    code_questions,
    save_lalm,
)
from resonate_audio.nano.judges.questions import Phrase, Question, Scene, any_template, ask, choose
from resonate_audio.nano.judges.scenes import (
    ExamItem,
    SceneBatch,
    SceneSource,
    activity,
    onsets_in,
    onsets_so_far,
)
from resonate_audio.nano.judges.training.lessons import (
    altered,
    by_kind,
    detached,
    naming_loss,
    soft_cross_entropy,
)
from resonate_audio.nano.judges.training.task import ListenerRecipe, ListeningTask, start_from
from resonate_audio.rewards.audio_llm.model import AudioLLM
from resonate_audio.training.loop.task import Losses, full_precision

MOST_ONSETS = 6
MOST_PHRASES = 3
LENT_GAIN = 1.25
LEAST_MASS = 1e-4


class LalmLoss(FrozenConfig):
    """What nano-lalm learns, each with its weight."""

    classes: float = Field(0.5, ge=0)
    """What sounds in each frame, told from the encoder."""
    onsets: float = Field(0.3, ge=0)
    """Whether a recording begins in a frame, told from the encoder."""
    naming: float = Field(1.0, ge=0)
    """Which caption names what sounds in a frame, told where both enter the language model."""
    looking: float = Field(1.0, ge=0)
    """Which phrase of the question each frame looks at, told from two heads' attention."""
    pointing: float = Field(1.0, ge=0)
    """Which phrase of the question names what sounds now, told from the layer after them."""
    counting: float = Field(0.3, ge=0)
    """How many recordings have begun so far, told from the same layer."""
    answer: float = Field(1.0, ge=0)


class LalmRecipe(ListenerRecipe):
    """Train the audio LLM."""

    judge: Literal["lalm"]
    network: LalmConfig = LalmConfig()
    loss: LalmLoss = LalmLoss()


class LalmModules(nn.Module):
    """The audio LLM and the heads that teach it; only the former is shipped."""

    def __init__(self, model: nn.Module, config: LalmConfig, num_classes: int) -> None:
        super().__init__()
        self.model = model
        self.classes = nn.Linear(config.text_dim, num_classes + 1)
        self.onsets = nn.Linear(config.text_dim, 1)
        self.sounds = nn.Linear(config.text_dim, len(config.slow_rows), bias=False)
        self.words = nn.Linear(config.text_dim, len(config.slow_rows), bias=False)
        self.pointing = nn.Linear(config.text_dim, MOST_PHRASES + 1)
        self.counting = nn.Linear(config.text_dim, MOST_ONSETS + 1)


class LalmTask(ListeningTask):
    """The paper's question, answered by one token, and three lessons on the way to it."""

    recipe: LalmRecipe

    def __init__(
        self,
        recipe: LalmRecipe,
        llm: AudioLLM,
        modules: LalmModules,
        scenes: SceneSource,
        exam: Sequence[ExamItem],
    ) -> None:
        super().__init__(scenes, exam)
        self.recipe, self.llm, self.modules = recipe, llm, modules
        self.tagger = modules.classes
        self.phases: dict[str, nn.Module] = {"model": modules}

    def hearing_loss(self, rng: np.random.Generator) -> tuple[Float[Tensor, ""], Losses]:
        """Classes of frames, recordings begun, and which of some hundred captions names each."""
        weights = self.recipe.loss
        scenes, waves = self.scenes.crowds(rng, self.recipe.scenes_per_batch)
        frames = self.hear(waves, rng)
        targets = self.scenes.class_targets(scenes, frames.shape[1])
        classes = soft_cross_entropy(self.tagger(frames), targets)
        begins = onsets_in(scenes, frames.shape[1]).to(frames.device)
        onsets = F.binary_cross_entropy_with_logits(self.modules.onsets(frames)[..., 0], begins)
        naming = naming_loss(
            self.sound_names(frames),
            self.phrase_names(scenes_told(scenes, rng)),
            scenes,
            self.scenes.classes,
        )
        total = weights.classes * classes + weights.onsets * onsets + weights.naming * naming
        return total, detached({"classes": classes, "onsets": onsets, "naming": naming})

    def hear(
        self, waves: Float[Tensor, "row sample"], rng: np.random.Generator
    ) -> Float[Tensor, "row frame dim"]:
        """The encoder's frames, through another microphone."""
        return self.encoded(altered(self.features(waves), rng, 0.1))

    def encoded(self, features: Float[Tensor, "row band hop"]) -> Float[Tensor, "row frame dim"]:
        """The encoder's frames: sounds of one length, which it takes one behind the other."""
        rows, bands, hops = features.shape
        behind = features.transpose(0, 1).reshape(bands, rows * hops)
        lengths = torch.full((rows,), hops, device=features.device)
        frames: Tensor = self.core.audio_tower(behind, feature_lens=lengths).last_hidden_state
        return frames.view(rows, -1, frames.shape[1])

    def answer_loss(
        self, batch: SceneBatch, rng: np.random.Generator
    ) -> tuple[Float[Tensor, ""], Losses]:
        """Answers, and what is learnt on the way to them."""
        core, weights = self.core, self.recipe.loss
        with torch.no_grad():
            heard = self.hear(batch.waves, rng)
        num_frames, num_questions = heard.shape[1], self.recipe.questions_per_scene
        coded = code_questions(self.llm, batch.texts(), num_frames)
        embedded = core.get_input_embeddings()(coded.ids)
        audio = heard.repeat_interleave(num_questions, dim=0)
        embedded = embedded.masked_scatter(coded.is_audio[..., None], audio.to(embedded.dtype))
        made = core.language_model(
            inputs_embeds=embedded,
            attention_mask=coded.mask,
            use_cache=False,
            output_hidden_states=True,
            output_attentions=True,
        )
        targets = torch.stack(
            [
                pointing(torch.from_numpy(activity(scene, num_frames)), question)
                for scene, asked in zip(batch.scenes, batch.questions, strict=True)
                for question in asked
            ]
        )
        phrases = [question.phrases for asked in batch.questions for question in asked]
        looks = made.attentions[COMPARING_LAYER][:, 0, coded.audio]
        later = made.hidden_states[COMPARING_LAYER + 2][:, coded.audio]
        answer, right = self.answered(made.last_hidden_state[:, -1], batch)
        whole = batch.whole()  # of a spoiled scene nothing is where it was
        asked = [s for s in batch.scenes for _ in range(num_questions)]
        parts = {
            "answer": answer,
            "looking": looking_loss(
                looks[whole], coded.phrase_tokens(phrases)[whole], targets[whole]
            ),
            "pointing": F.binary_cross_entropy_with_logits(
                self.modules.pointing(later[whole]), targets[whole].float()
            ),
            "counting": onset_loss(
                self.modules.counting(later[whole]),
                [scene for scene, is_whole in zip(asked, whole.tolist(), strict=True) if is_whole],
            ),
        }
        total = torch.stack([getattr(weights, name) * part for name, part in parts.items()]).sum()
        return total, detached(parts | by_kind(right, batch))

    def sound_names(
        self, frames: Float[Tensor, "row frame dim"]
    ) -> Float[Tensor, "row frame name"]:
        """What frames mean where sounds meet words, as strongly as a lent head will have it."""
        slow = self.modules.sounds.out_features
        strength = LENT_GAIN**2 * (self.recipe.network.head_dim / slow) ** 0.5
        named: Tensor = strength * unit_power(self.modules.sounds(self.meeting(frames)))
        return named

    def phrase_names(self, told: Sequence[Told]) -> Float[Tensor, "phrase name"]:
        """What each phrase says, at its last word, in the order of the events that they name."""
        coded = code_questions(self.llm, [text.text for text in told], 0)
        made = self.core.language_model(
            input_ids=coded.ids,
            attention_mask=coded.mask,
            use_cache=False,
            output_hidden_states=True,
        )
        tokens = coded.phrase_tokens([text.phrases for text in told])
        places = torch.arange(tokens.shape[2])
        rows, columns, events = [], [], []
        for row, text in enumerate(told):
            for column, phrase in enumerate(text.phrases):
                rows.append(row)
                columns.append(int(places[tokens[row, column]].max()))
                events.append(phrase.event)
        order = np.argsort(np.array(events), kind="stable")
        state = made.hidden_states[COMPARING_LAYER][rows, columns][torch.from_numpy(order)]
        return unit_power(self.modules.words(self.meeting(state)))

    @property
    def meeting(self) -> nn.Module:
        """What the comparing layer does to all that it reads."""
        norm: nn.Module = self.core.language_model.layers[COMPARING_LAYER].input_layernorm
        return norm

    def named_frames(
        self, waves: Float[Tensor, "row sample"], captions: Sequence[str]
    ) -> Float[Tensor, "row frame caption"]:
        """How much each caption means what is heard in each frame."""
        heard = self.encoded(self.features(waves))
        told = [
            Told(caption, (Phrase(0, len(caption), index),))
            for index, caption in enumerate(captions)
        ]
        return self.sound_names(heard) @ self.phrase_names(told).T

    def answered(
        self, last: Float[Tensor, "question dim"], batch: SceneBatch
    ) -> tuple[Float[Tensor, ""], Float[Tensor, " question"]]:
        """Cross-entropy of the answer token over the whole vocabulary, and which were right."""
        model: Any = self.modules.model
        logits = model.lm_head(last)
        yes, no = self.llm.yes_ids[0], self.llm.no_ids[0]
        answers = batch.answers()
        targets = torch.where(answers > 0, yes, no)
        right = ((logits[:, yes] > logits[:, no]).float() == answers).float()
        return F.cross_entropy(logits, targets), right

    @property
    def core(self) -> Any:
        """Encoder, projector and language model, without the head."""
        model: Any = self.modules.model
        return model.model

    def features(self, waves: Float[Tensor, "row sample"]) -> Float[Tensor, "row band frame"]:
        """Log-mels as the judge's folder makes them."""
        with full_precision(waves.device):
            return self.llm.prepare(waves, ["a"] * len(waves))["input_features"]

    def score(self, waves: Float[Tensor, "row sample"], texts: list[str]) -> Float[Tensor, " row"]:
        """Log-odds, by the code that scores with every audio LLM."""
        with full_precision(waves.device):
            return self.llm.log_odds(self.llm.prepare(waves, texts))

    def export(self, folder: Path) -> None:
        """Write a transformers folder."""
        save_lalm(self.llm, folder)


@dataclass(frozen=True)
class Told:
    """A sentence, and where it names which event."""

    text: str
    phrases: tuple[Phrase, ...]


def scenes_told(scenes: Sequence[Scene], rng: np.random.Generator) -> list[Told]:
    """Sentences of one to three phrases that name every event once; events count on over scenes."""
    told, first = list[Told](), 0
    for scene in scenes:
        left = list(range(len(scene.events)))
        while left:
            size = min(int(rng.integers(1, MOST_PHRASES + 1)), len(left))
            events, left = left[:size], left[size:]
            named = [(choose(scene.events[e].captions, rng), first + e) for e in events]
            asked = ask(any_template(size, rng), named, "described")
            told.append(Told(asked.text, asked.phrases))
        first += len(scene.events)
    return told


def pointing(active: Bool[Tensor, "event frame"], question: Question) -> Bool[Tensor, "frame 4"]:
    """Whether each of three phrases sounds in each frame, and whether something unnamed does."""
    columns = torch.zeros(active.shape[1], MOST_PHRASES + 1, dtype=torch.bool)
    unnamed = active.clone()
    for column, phrase in enumerate(question.phrases):
        if phrase.event is not None:
            columns[:, column] = active[phrase.event]
            unnamed[phrase.event] = False
    columns[:, MOST_PHRASES] = unnamed.any(dim=0)
    return columns


def looking_loss(
    looks: Float[Tensor, "question frame token"],
    phrases: Bool[Tensor, "question phrase token"],
    targets: Bool[Tensor, "question frame column"],
) -> Float[Tensor, ""]:
    """Cross-entropy of where frames look: at the phrases that name them, or at none.

    Args:
        looks: attention of one head, from frames to all tokens.
        phrases: which tokens each phrase has.
        targets: from `pointing`; its last column is not used.
    """
    named = targets[..., :MOST_PHRASES].float()
    shares = torch.cat([named, (named.sum(dim=2, keepdim=True) == 0).float()], dim=2)
    shares = shares / shares.sum(dim=2, keepdim=True)
    mass = looks.float() @ phrases.float().transpose(1, 2)
    rest = 1 - mass.sum(dim=2, keepdim=True)
    chosen = torch.cat([mass, rest], dim=2).clamp_min(LEAST_MASS).log()
    return -(shares * chosen).sum(dim=2).mean()


def unit_power(
    vectors: Float[Tensor, "*batch dim"],
) -> Float[Tensor, "*batch dim"]:
    """Vectors with a mean square of one, as heads normalise queries and keys."""
    return F.rms_norm(vectors.float(), vectors.shape[-1:], eps=1e-6)


def onset_loss(
    logits: Float[Tensor, "row frame count"], scenes: Sequence[Scene]
) -> Float[Tensor, ""]:
    """Cross-entropy of how many recordings have begun by the end of each frame."""
    begun = onsets_so_far(scenes, logits.shape[1], MOST_ONSETS).to(logits.device)
    return F.cross_entropy(logits.flatten(0, 1), begun.flatten())


def make_lalm_task(recipe: LalmRecipe, scenes: SceneSource, exam: Sequence[ExamItem]) -> LalmTask:
    """A fresh audio LLM and its lessons."""
    captions = [caption for source in scenes.sounds.sources for caption in source.captions]
    llm = build_lalm(recipe.network, captions, BUNDLED_FOLDER / "text_encoder", recipe.run.seed)
    model: Any = llm.model
    model.set_attn_implementation("eager")  # the fused form's backward takes five times as long
    modules = LalmModules(llm.model, recipe.network, len(scenes.classes.labels))
    if recipe.start is not None:
        start_from(modules, recipe.start)
        lend_head(modules, recipe.network)
    return LalmTask(recipe, llm, modules, scenes, exam)


@torch.no_grad()
def lend_head(modules: LalmModules, config: LalmConfig) -> None:
    """Let the comparing layer's first head liken sounds to words as the naming lesson does.

    The head normalises queries and keys as the lesson does, so the lesson's two maps become rows
    of both: slow ones, which the distance between sound and word hardly turns. Found by chance,
    such a head took longer than everything else that there is to learn.
    """
    model: Any = modules.model
    attention = model.model.language_model.layers[COMPARING_LAYER].self_attn
    for linear, lesson in (
        (attention.q_proj, modules.sounds),
        (attention.k_proj, modules.words),
    ):
        linear.weight[: config.head_dim] = 0
        linear.weight[config.slow_rows] = lesson.weight
    for norm in (attention.q_norm, attention.k_norm):
        norm.weight.fill_(LENT_GAIN)
