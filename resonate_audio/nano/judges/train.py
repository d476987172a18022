"""Training nano's three judges: tasks for the loop that every trainer here shares.

Scenes, renderings and questions of a step come from (seed, step) alone, so a run that was stopped
goes on exactly. The judges share the recordings and nothing else: other networks, other
losses, other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.text_encoder import TextEncoder
from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judges.lalm import (
    COMPARING_LAYER,
    LalmConfig,
    build_lalm,
    code_questions,
    save_lalm,
    tokens_within,
)
from resonate_audio.nano.judges.questions import (
    TOO_ALIKE,
    WRONG_KINDS,
    Classes,
    Phrase,
    Question,
    Scene,
    any_template,
    ask,
    choose,
)
from resonate_audio.nano.judges.scenes import (
    ExamItem,
    JudgeData,
    SceneBatch,
    SceneSource,
    activity,
    draw_exam,
    numpy_generator,
    onsets_in,
    onsets_so_far,
    open_scenes,
)
from resonate_audio.rewards.audio_llm.model import AudioLLM
from resonate_audio.rewards.small.judge import load_minilm, write_judge
from resonate_audio.rewards.small.matcher import Matcher, MatcherConfig, word_mask
from resonate_audio.rewards.small.two_tower import TwoTower, TwoTowerConfig, contrastive_loss
from resonate_audio.training.loop.checkpoint import load_latest, unpack
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.start import train
from resonate_audio.training.loop.task import Draw, Losses, Task, full_precision
from resonate_audio.training.loop.trainer import RunResult

Say = Callable[[str], None]
Score = Callable[[Float[Tensor, "row sample"], list[str]], Float[Tensor, " row"]]
MOST_ONSETS = 6
MOST_PHRASES = 3
LENT_GAIN = 1.25
LEAST_MASS = 1e-4
EXAM_SEED = 77
EXAM_BATCH = 16


class JudgeRecipe(TrainerConfig):
    """The part of a recipe that every judge has."""

    data: JudgeData
    scenes_per_batch: int = Field(32, ge=2)
    exam_each: int = Field(40, ge=1)
    """Validation scenes of each kind that a judge is examined on while it learns."""


class ClapRecipe(JudgeRecipe):
    """Train the two towers."""

    judge: Literal["clap"]
    network: TwoTowerConfig = TwoTowerConfig()


class ListenerRecipe(JudgeRecipe):
    """The part of a recipe of a judge that first learns to hear, and then to answer.

    Each is a run of its own: what one learns to hear with is fixed while it learns to answer, so
    that a step can ask many questions about each scene for little more than the price of one.
    """

    lesson: Literal["hearing", "answers"]
    questions_per_scene: int = Field(16, ge=2)
    start: Path | None = None
    """Folder of the run in which it learnt to hear; its last weights are the first ones of this."""


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
        parts = {
            "answer": answer,
            "looking": looking_loss(looks, coded.phrase_tokens(phrases), targets),
            "pointing": F.binary_cross_entropy_with_logits(
                self.modules.pointing(later), targets.float()
            ),
            "counting": onset_loss(
                self.modules.counting(later),
                [s for s in batch.scenes for _ in range(num_questions)],
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


def one_caption_each(scenes: Sequence[Scene], rng: np.random.Generator) -> list[str]:
    """A caption of every event, scene by scene."""
    return [choose(event.captions, rng) for scene in scenes for event in scene.events]


def naming_loss(
    frames: Float[Tensor, "scene frame dim"],
    words: Float[Tensor, "event dim"],
    scenes: Sequence[Scene],
    classes: Classes,
) -> Float[Tensor, ""]:
    """Cross-entropy of each sounding frame's choice among a caption of every event.

    Captions of one class are equally right; those of classes that are too alike are no choice.

    Args:
        frames: what is heard.
        words: what one caption of each event says, scene by scene.
        scenes: what lies where.
        classes: which labels are alike.
    """
    active = [torch.from_numpy(activity(scene, frames.shape[1])).float() for scene in scenes]
    heard = torch.block_diag(*active).T.to(frames.device)  # type: ignore[no-untyped-call]
    rows = torch.tensor([classes.index[e.label] for scene in scenes for e in scene.events])
    alike = torch.from_numpy(classes.similarity)[rows][:, rows].to(frames.device) >= TOO_ALIKE
    same = (rows[:, None] == rows[None]).to(frames.device)
    sounding = heard.any(dim=1)
    targets = heard[sounding] @ same.float()
    unfair = (heard[sounding] @ (alike & ~same).float() > 0) & (targets == 0)
    logits = frames.flatten(0, 1)[sounding] @ words.T / frames.shape[2] ** 0.5
    shares = targets / targets.sum(dim=1, keepdim=True)
    return soft_cross_entropy(logits.masked_fill(unfair, -1e4)[None], shares[None])


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
    for scene, questions in zip(batch.scenes, batch.questions, strict=True):
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


def pictures_of(
    network: TwoTower | Matcher, waves: Float[Tensor, "row sample"]
) -> Float[Tensor, "row band hop"]:
    """The log-mel that a network hears, whatever the precision of the run."""
    with torch.no_grad(), full_precision(waves.device):
        return network.pictures(waves)


class CaptionReader:
    """MiniLM on padding as short as the texts allow: most captions have a dozen tokens."""

    def __init__(self, encoder: TextEncoder, folder: Path) -> None:
        from tokenizers import Tokenizer

        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.no_padding()
        self.encoders = [
            TextEncoder(
                encoder.config.model_copy(update={"num_tokens": length}),
                encoder.network,
                Tokenizer.from_file(str(folder / "tokenizer.json")),
            )
            for length in (10, 16, 24, 32, encoder.config.num_tokens)
        ]

    def spans(self, texts: Sequence[str], num_tokens: int) -> list[list[tuple[int, int]]]:
        """First character of each token and the one after its last; equal where it has none."""
        return [coding.offsets[:num_tokens] for coding in self.tokenizer.encode_batch(list(texts))]

    def encode(self, texts: Sequence[str]) -> TextFeatures:
        """The features that the encoder itself gives, cut to the longest text's padding."""
        tokens: dict[int, Tensor] = {}
        pooled: dict[int, Tensor] = {}
        left = list(range(len(texts)))
        for encoder in self.encoders:
            cut = encoder.num_cut([texts[index] for index in left]) if left else []
            last = encoder is self.encoders[-1]
            short = [index for index, long in zip(left, cut, strict=True) if last or not long]
            left = [index for index in left if index not in set(short)]
            if short:
                features = encoder.encode([texts[index] for index in short])
                tokens |= dict(zip(short, features.tokens, strict=True))
                pooled |= dict(zip(short, features.pooled, strict=True))
        rows = range(len(texts))
        return TextFeatures(
            nn.utils.rnn.pad_sequence([tokens[i] for i in rows], batch_first=True),
            torch.stack([pooled[i] for i in rows]),
        )


def open_reader() -> CaptionReader:
    """The MiniLM that comes with the package."""
    return CaptionReader(load_minilm(), BUNDLED_FOLDER / "text_encoder")


def altered(
    pictures: Float[Tensor, "row band hop"], rng: np.random.Generator, strength: float
) -> Float[Tensor, "row band hop"]:
    """Another microphone: a smooth curve over the bands is added; and one row of bands goes."""
    rows, bands, _ = pictures.shape
    knots = torch.from_numpy(rng.normal(0, strength, (rows, 1, 6))).float()
    curve = F.interpolate(knots, size=bands, mode="linear", align_corners=True)
    changed = pictures + curve.transpose(1, 2).to(pictures)
    widths, starts = rng.integers(0, bands // 6, rows), rng.uniform(0, 1, rows)
    places = torch.arange(bands)
    begin = torch.from_numpy((starts * (bands - widths)).astype(int))[:, None]
    gone = (places >= begin) & (places < begin + torch.from_numpy(widths)[:, None])
    floor = pictures.amin(dim=(1, 2), keepdim=True)
    return torch.where(gone[..., None].to(pictures.device), floor, changed)


def soft_cross_entropy(
    logits: Float[Tensor, "row frame class"], targets: Float[Tensor, "row frame class"]
) -> Float[Tensor, ""]:
    """Cross-entropy with shares of classes, mean over frames."""
    return -(targets * logits.float().log_softmax(dim=2)).sum(dim=2).mean()


def detached(losses: Mapping[str, Tensor]) -> Losses:
    """For the log."""
    return {name: value.detach() for name, value in losses.items()}


def by_kind(right: Float[Tensor, " question"], batch: SceneBatch) -> dict[str, Tensor]:
    """Share of right answers to yes and to each kind of no."""
    kinds = [question.kind for asked in batch.questions for question in asked]
    groups: dict[str, list[int]] = {}
    for index, kind in enumerate(kinds):
        groups.setdefault(kind, []).append(index)
    return {f"right/{kind}": right[indices].mean() for kind, indices in groups.items()}


@torch.no_grad()
def exam_scores(score: Score, exam: Sequence[ExamItem]) -> Float[Tensor, "item 2"]:
    """Scores of the right and the wrong text of each item."""
    rows = []
    for start in range(0, len(exam), EXAM_BATCH):
        items = exam[start : start + EXAM_BATCH]
        right = score(stacked([i.samples for i in items]), [i.right for i in items])
        wrong = score(stacked([i.wrong_samples for i in items]), [i.wrong for i in items])
        rows.append(torch.stack([right, wrong], dim=1).float())
    return torch.cat(rows)


def stacked(waves: Sequence[np.ndarray]) -> Float[Tensor, "row sample"]:
    """Sounds of one length as one tensor."""
    return torch.from_numpy(np.stack(waves))


def pair_accuracy(exam: Sequence[ExamItem], scores: Float[Tensor, "item 2"]) -> dict[str, float]:
    """Share of pairs in which the right text scores higher; a tie is half a hit."""
    hits = (scores[:, 0] > scores[:, 1]).float() + 0.5 * (scores[:, 0] == scores[:, 1]).float()
    return {
        f"pairs/{kind}": float(hits[[item.kind == kind for item in exam]].mean())
        for kind in WRONG_KINDS
    }


# --- recipes --------------------------------------------------------------------------------------


def train_judge(recipe: ClapRecipe | EvalRecipe | LalmRecipe, say: Say) -> RunResult:
    """Run a judge's recipe to its end, or to its time limit."""
    scenes = open_scenes(recipe.data, "train", say)
    exam = draw_exam(open_scenes(recipe.data, "val", say), recipe.exam_each, EXAM_SEED)

    def build(device: torch.device) -> Task:
        if isinstance(recipe, ClapRecipe):
            return ClapTask(recipe, TwoTower(recipe.network), open_reader(), scenes, exam)
        if isinstance(recipe, EvalRecipe):
            modules = EvalModules(recipe.network, len(scenes.classes.labels))
            if recipe.start is not None:
                start_from(modules, recipe.start)
            return EvalTask(recipe, modules, open_reader(), scenes, exam)
        return make_lalm_task(recipe, scenes, exam)

    return train(build, recipe)


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
