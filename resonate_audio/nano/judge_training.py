"""Training nano's three judges: tasks for the loop that every trainer here shares.

Scenes, renderings and questions of a step come from (seed, step) alone, so a run that was stopped
goes on exactly. The judges share the recordings and nothing else: other networks, other
losses, other seeds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from resonate_audio.nano.judge_lalm import (
    LalmConfig,
    build_lalm,
    caption_ids,
    save_lalm,
    word_ids,
)
from resonate_audio.nano.judge_questions import (
    TOO_ALIKE,
    WRONG_KINDS,
    Classes,
    Question,
    Scene,
    choose,
)
from resonate_audio.nano.judge_scenes import (
    ExamItem,
    JudgeData,
    SceneBatch,
    SceneSource,
    activity,
    draw_exam,
    numpy_generator,
    onsets_so_far,
    open_scenes,
)
from resonate_audio.rewards.audio_llm import AudioLLM
from resonate_audio.rewards.matcher import Matcher, MatcherConfig, word_mask
from resonate_audio.rewards.small_judge import load_minilm, write_judge
from resonate_audio.rewards.two_tower import TwoTower, TwoTowerConfig, contrastive_loss
from resonate_audio.training.checkpoint import load_latest, unpack
from resonate_audio.training.run import (
    Draw,
    Losses,
    RunResult,
    Task,
    TrainerConfig,
    full_precision,
    train,
)

Say = Callable[[str], None]
Score = Callable[[Float[Tensor, "row sample"], list[str]], Float[Tensor, " row"]]
MOST_ONSETS = 6
MOST_PHRASES = 3
LENT_SCALE = 0.3
NAMED_SCENES = 8
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


class ListeningConfig(FrozenConfig):
    """Learning what sounds in each frame, from scenes full of short pieces."""

    steps: int = Field(600, ge=0)
    """First steps of a run, in which nothing else is learnt."""
    scenes: int = Field(32, ge=1)
    """Scenes of each of those."""
    later_scenes: int = Field(8, ge=1)
    """Scenes of each step after them, beside those that are asked about."""


class EvalRecipe(JudgeRecipe):
    """Train the matcher."""

    judge: Literal["eval"]
    network: MatcherConfig = MatcherConfig()
    questions_per_scene: int = Field(4, ge=2)
    listening: ListeningConfig = ListeningConfig()
    class_weight: float = Field(0.5, ge=0)
    """Weight of telling what sounds in each frame."""
    naming_weight: float = Field(0.5, ge=0)
    """Weight of telling which caption names it."""


class LalmLoss(FrozenConfig):
    """What nano-lalm learns beside the answer, each with its weight."""

    classes: float = Field(0.5, ge=0)
    """What sounds in each frame, told from the encoder."""
    naming: float = Field(1.0, ge=0)
    """Which caption names what sounds in a frame, told where both enter the language model."""
    pointing: float = Field(1.0, ge=0)
    """Which phrase of the question names what sounds now, told below the last layer."""
    counting: float = Field(0.3, ge=0)
    """How many recordings have begun so far, told below the last layer."""
    answer: float = Field(1.0, ge=0)


class LalmRecipe(JudgeRecipe):
    """Train the audio LLM."""

    judge: Literal["lalm"]
    network: LalmConfig = LalmConfig()
    questions_per_scene: int = Field(4, ge=2)
    listening: ListeningConfig = ListeningConfig()
    start: Path | None = None
    """Folder of an earlier run; its last weights are the first ones of this, and what naming has
    learnt there is lent to two heads of the language model."""
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


@dataclass(frozen=True)
class Crowd:
    """Scenes full of short pieces, as an encoder heard them."""

    scenes: tuple[Scene, ...]
    frames: Float[Tensor, "scene frame dim"]
    alone: bool
    """Whether nothing else is to be learnt yet."""


class ListeningTask(JudgeTask):
    """A judge that also learns to tell what sounds in each frame."""

    tagger: nn.Linear
    """From frames to classes and silence."""

    def listen(
        self,
        config: ListeningConfig,
        step: int,
        rng: np.random.Generator,
        hear: Callable[[Tensor], Tensor],
    ) -> tuple[Float[Tensor, ""], Crowd]:
        """Cross-entropy of frame classes, and what was heard in which scenes."""
        alone = step < config.steps
        scenes, waves = self.scenes.crowds(rng, config.scenes if alone else config.later_scenes)
        frames = hear(waves)
        targets = self.scenes.class_targets(scenes, frames.shape[1])
        return soft_cross_entropy(self.tagger(frames), targets), Crowd(scenes, frames, alone)


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

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Cross-entropy of the frames' classes and, after a while, of the answers."""
        rng, recipe, matcher = numpy_generator(draw.generator), self.recipe, self.modules.matcher
        hear = partial(self.hear, rng=rng)
        classes, crowd = self.listen(recipe.listening, draw.step, rng, hear)
        naming = self.named(crowd, rng)
        lessons = recipe.class_weight * classes + recipe.naming_weight * naming
        if crowd.alone:
            return lessons, detached({"classes": classes, "naming": naming})
        batch = self.scenes.batch(rng, recipe.scenes_per_batch, recipe.questions_per_scene)
        frames = hear(batch.waves)
        tokens = self.encoder.encode(batch.texts()).tokens
        repeated = frames.repeat_interleave(recipe.questions_per_scene, dim=0)
        log_odds = matcher.match(repeated, tokens, word_mask(tokens))
        answers = batch.answers()
        answer = F.binary_cross_entropy_with_logits(log_odds, answers)
        right = ((log_odds > 0).float() == answers).float()
        logged = {"answer": answer, "classes": classes, "naming": naming}
        return answer + lessons, detached(logged | by_kind(right, batch))

    def named(self, crowd: Crowd, rng: np.random.Generator) -> Float[Tensor, ""]:
        """Which caption names what sounds?"""
        scenes, matcher = crowd.scenes[:NAMED_SCENES], self.modules.matcher
        tokens = self.encoder.encode(one_caption_each(scenes, rng)).tokens
        mask = word_mask(tokens)[..., None].float()
        words = (matcher.names(tokens) * mask).sum(dim=1) / mask.sum(dim=1)
        frames = matcher.sounds(crowd.frames[: len(scenes)])
        return naming_loss(frames, words, scenes, self.scenes.classes)

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
        self.classes = nn.Linear(config.audio_dim, num_classes + 1)
        self.sounds = nn.Linear(config.text_dim, 64)
        self.words = nn.Linear(config.text_dim, 64)
        self.pointing = nn.Linear(config.text_dim, MOST_PHRASES + 1)
        self.onsets = nn.Linear(config.text_dim, MOST_ONSETS + 1)


class LalmTask(ListeningTask):
    """The paper's question, answered by one token, and three lessons on the way to it."""

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

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Frame classes alone at first; then everything."""
        rng, recipe = numpy_generator(draw.generator), self.recipe
        hear = partial(self.hear, rng=rng)
        classes, crowd = self.listen(recipe.listening, draw.step, rng, hear)
        naming = self.named(crowd, rng)
        lessons = recipe.loss.classes * classes + recipe.loss.naming * naming
        logged = {"classes": classes, "naming": naming}
        if crowd.alone:
            return lessons, detached(logged)
        batch = self.scenes.batch(rng, recipe.scenes_per_batch, recipe.questions_per_scene)
        loss, more = self.questioned(batch, hear(batch.waves))
        return loss + lessons, detached(logged | more)

    def hear(
        self, waves: Float[Tensor, "row sample"], rng: np.random.Generator
    ) -> Float[Tensor, "row frame dim"]:
        """The encoder's frames, through another microphone."""
        heard: Tensor = self.audio_tower(altered(self.features(waves), rng, 0.1)).last_hidden_state
        return heard

    def questioned(
        self, batch: SceneBatch, heard: Float[Tensor, "scene frame dim"]
    ) -> tuple[Float[Tensor, ""], Losses]:
        """Answers, and what is learnt on the way to them."""
        core, weights = self.core, self.recipe.loss
        num_frames, num_questions = heard.shape[1], self.recipe.questions_per_scene
        ids, mask = word_ids(self.llm, batch.texts(), num_frames)
        embedded = core.get_input_embeddings()(ids)
        audio = core.multi_modal_projector(heard).repeat_interleave(num_questions, dim=0)
        is_audio = ids == self.llm.audio_id
        embedded = embedded.masked_scatter(is_audio[..., None], audio.to(embedded.dtype))
        made = core.language_model(
            inputs_embeds=embedded, attention_mask=mask, use_cache=False, output_hidden_states=True
        )
        late = made.hidden_states[-2][is_audio].view(len(ids), num_frames, -1)
        answer, right = self.answered(made.last_hidden_state[:, -1], batch)
        pointing = self.pointed(late, batch)
        counted = onsets_so_far(batch.scenes, num_frames, MOST_ONSETS)
        counting = F.cross_entropy(
            self.modules.onsets(late).flatten(0, 1),
            counted.repeat_interleave(num_questions, dim=0).flatten(),
        )
        total = weights.answer * answer + weights.pointing * pointing + weights.counting * counting
        logged = {"answer": answer, "pointing": pointing, "counting": counting}
        return total, logged | by_kind(right, batch)

    def named(self, crowd: Crowd, rng: np.random.Generator) -> Float[Tensor, ""]:
        """Which caption names what sounds? Frames enter the language model near their words.

        The captions are read as in the question, and taken from the first layer, so that sounds
        can look for them from the second on.
        """
        scenes, core = crowd.scenes[:NAMED_SCENES], self.core
        ids, mask = caption_ids(self.llm, one_caption_each(scenes, rng))
        made = core.language_model(
            input_ids=ids, attention_mask=mask, use_cache=False, output_hidden_states=True
        )
        words = self.modules.words(made.hidden_states[1][:, -1])
        frames = self.modules.sounds(core.multi_modal_projector(crowd.frames[: len(scenes)]))
        return naming_loss(frames, words, scenes, self.scenes.classes)

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

    def pointed(
        self, frames: Float[Tensor, "question frame dim"], batch: SceneBatch
    ) -> Float[Tensor, ""]:
        """Each frame says which phrases of its question name it, or that none does.

        It can only know by attending to the words: this is what makes the language model compare.
        """
        num_frames, targets = frames.shape[1], []
        for scene, asked in zip(batch.scenes, batch.questions, strict=True):
            active = torch.from_numpy(activity(scene, num_frames))
            targets += [pointing(active, question) for question in asked]
        logits = self.modules.pointing(frames)
        return F.binary_cross_entropy_with_logits(logits, torch.stack(targets).float())

    @property
    def core(self) -> Any:
        """Encoder, projector and language model, without the head."""
        model: Any = self.modules.model
        return model.model

    @property
    def audio_tower(self) -> Any:
        """The encoder."""
        return self.core.audio_tower

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

        self.encoders = [
            TextEncoder(
                encoder.config.model_copy(update={"num_tokens": length}),
                encoder.network,
                Tokenizer.from_file(str(folder / "tokenizer.json")),
            )
            for length in (10, 16, 24, 32, encoder.config.num_tokens)
        ]

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
    return -(targets * logits.log_softmax(dim=2)).sum(dim=2).mean()


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
            return EvalTask(recipe, modules, open_reader(), scenes, exam)
        return make_lalm_task(recipe, scenes, exam)

    return train(build, recipe)


def make_lalm_task(recipe: LalmRecipe, scenes: SceneSource, exam: Sequence[ExamItem]) -> LalmTask:
    """A fresh audio LLM and its lessons."""
    captions = [caption for source in scenes.sounds.sources for caption in source.captions]
    llm = build_lalm(recipe.network, captions, BUNDLED_FOLDER / "text_encoder", recipe.run.seed)
    model: Any = llm.model
    model.set_attn_implementation("eager")  # the fused form's backward takes five times as long
    model.model.audio_tower.embed_positions.requires_grad_(True)
    modules = LalmModules(llm.model, recipe.network, len(scenes.classes.labels))
    if recipe.start is not None:
        start_from(modules, recipe.start)
        lend_heads(modules)
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
def lend_heads(modules: LalmModules, num_heads: int = 2) -> None:
    """Let heads of the second layer compare sounds with words as the naming lesson does.

    There, a sound x and a caption y have the likeness xᵀSᵀW y / 8, with S and W the lesson's maps.
    Its singular vectors, shared out among the heads, become rows of their queries and keys: in the
    slow half of each head, which the distance between sound and word hardly turns. Found by chance,
    such heads took longer than everything else that there is to learn.
    """
    model: Any = modules.model
    layer = model.model.language_model.layers[1]
    attention, gain = layer.self_attn, layer.input_layernorm.weight
    dim = int(attention.head_dim)
    product = (modules.sounds.weight / gain).T @ (modules.words.weight / gain)
    left, strength, right = torch.linalg.svd(product * LENT_SCALE)
    half, first = dim // 2, 3 * dim // 16
    slow = [*range(first, half), *range(half + first, dim)]
    for head in range(num_heads):
        chosen = range(head, num_heads * len(slow), num_heads)
        roots = strength[list(chosen)].sqrt()[:, None] * dim**0.25
        rows = slice(head * dim, (head + 1) * dim)
        for linear, vectors in ((attention.q_proj, left.T), (attention.k_proj, right)):
            linear.weight[rows] = 0
            linear.bias[rows] = 0
            linear.weight[[head * dim + row for row in slow]] = roots * vectors[list(chosen)]
