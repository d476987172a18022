"""Batches of rendered scenes with their questions, and the exam that judges sit on other splits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from pydantic import Field
from torch import Tensor

from resonate_audio.core.config import FrozenConfig, GivenPath, WrittenPath
from resonate_audio.data.mixing import fade_out, lay
from resonate_audio.nano.bundle import BUNDLED_FOLDER
from resonate_audio.nano.judges.questions import (
    SCENES_FOR,
    WRONG_KINDS,
    Classes,
    Placement,
    Question,
    QuestionKind,
    Scene,
    SceneKind,
    SceneMaker,
    without_event,
)
from resonate_audio.nano.judges.sounds import (
    MAX_SAMPLES,
    RATE_HZ,
    Half,
    Say,
    SoundSet,
    cached_sounds,
    class_similarity,
    only_half,
)
from resonate_audio.nano.judges.spoiling import SPOILED, coloured_noise, spoil
from resonate_audio.rewards.small.judge import load_minilm

Samples = Float32[np.ndarray, "_"]


class JudgeData(FrozenConfig):
    """Where the recordings are, and how scenes differ from them."""

    corpus: GivenPath
    """Folder with manifest.jsonl and shards, as ``recipes/nano/prepare`` writes it."""
    cache: WrittenPath = Path("work/judges/cache")
    decoded_share: float = Field(0.5, ge=0, le=1)
    """Scenes made of recordings that went through nano's VAE and vocoder."""
    max_speed: float = Field(1.08, ge=1)
    """Recordings are played up to so much faster or slower."""
    noise_share: float = Field(0.3, ge=0, le=1)
    """Scenes with coloured noise 20 to 50 dB below them."""
    spoiled_share: float = Field(0.0, ge=0, lt=1)
    """Scenes whose sound is spoiled (`SPOILED`); whatever is asked about them, the answer is no."""
    half: Half = "all"
    """Which recordings of the training split: those of one half are never heard by a judge that
    learns from the other."""
    codec: GivenPath | None = None
    """Folder of the model whose VAE and vocoder recordings pass; None is nano."""


@dataclass(frozen=True)
class SceneBatch:
    """Scenes, how they sound, and questions about each."""

    scenes: tuple[Scene, ...]
    waves: Float[Tensor, "row sample"]
    questions: tuple[tuple[Question, ...], ...]
    spoiled: tuple[bool, ...]
    """Scenes that do not sound as they are laid out: nothing in them is where it was."""

    def texts(self) -> list[str]:
        """All texts, scene by scene."""
        return [question.text for asked in self.questions for question in asked]

    def answers(self) -> Float[Tensor, " question"]:
        """1 where the answer is yes."""
        return torch.tensor([float(q.answer) for asked in self.questions for q in asked])

    def whole(self) -> Bool[Tensor, " question"]:
        """Questions about scenes that sound as they are laid out."""
        asked = zip(self.questions, self.spoiled, strict=True)
        return torch.tensor([not spoiled for questions, spoiled in asked for _ in questions])


class SceneSource:
    """Scenes of one split."""

    def __init__(self, sounds: SoundSet, classes: Classes, data: JudgeData) -> None:
        self.sounds = sounds
        self.classes = classes
        self.data = data
        self.maker = SceneMaker(sounds.sources, classes, MAX_SAMPLES, RATE_HZ)

    def crowds(
        self, rng: np.random.Generator, num_scenes: int
    ) -> tuple[tuple[Scene, ...], Float[Tensor, "row sample"]]:
        """Scenes to learn what sounds like what: two in three are full of short pieces."""
        scenes = tuple(
            self.maker.crowd(rng) if index % 3 else self.maker.scene(rng)
            for index in range(num_scenes)
        )
        return scenes, self._sounds(scenes, rng)

    def _sounds(
        self, scenes: Sequence[Scene], rng: np.random.Generator
    ) -> Float[Tensor, "row sample"]:
        waves = [
            self.augmented(self.render(scene, rng, rng.random() < self.data.decoded_share), rng)
            for scene in scenes
        ]
        return torch.from_numpy(np.stack(waves))

    def batch(self, rng: np.random.Generator, num_scenes: int, num_questions: int) -> SceneBatch:
        """Draw scenes, render them with augmentation, and ask about them."""
        scenes = tuple(self.maker.scene(rng) for _ in range(num_scenes))
        waves = self._sounds(scenes, rng)
        questions = [tuple(self.maker.questions(scene, num_questions, rng)) for scene in scenes]
        share = self.data.spoiled_share
        chosen = tuple(bool(share) and bool(rng.random() < share) for _ in scenes)
        for row, is_spoiled in enumerate(chosen):
            if is_spoiled:
                how = SPOILED[int(rng.integers(len(SPOILED)))]
                waves[row] = torch.from_numpy(spoil(waves[row].numpy(), how, rng))
                questions[row] = tuple(replace(one, answer=False) for one in questions[row])
        return SceneBatch(scenes, waves, tuple(questions), chosen)

    def render(
        self, scene: Scene, rng: np.random.Generator | None, decoded: bool = False
    ) -> Samples:
        """The sound of a scene; with a generator, speeds vary."""
        pieces = [self._piece(placed, rng, decoded) for placed in scene.placements]
        return lay(pieces, [placed.start for placed in scene.placements], MAX_SAMPLES)

    def _piece(self, placed: Placement, rng: np.random.Generator | None, decoded: bool) -> Samples:
        samples = self.sounds.samples(placed.source, decoded)
        if rng is not None:
            samples = at_speed(samples, self.data.max_speed ** rng.uniform(-1, 1))
        if len(samples) < 0.9 * placed.num_samples:
            samples = np.tile(samples, -(-placed.num_samples // len(samples)))
        return fade_out(samples, placed.num_samples) * np.float32(placed.gain)

    def augmented(self, samples: Samples, rng: np.random.Generator) -> Samples:
        """Another level, and at times noise."""
        if rng.random() < self.data.noise_share:
            ratio_db = rng.uniform(20, 50)
            level = np.sqrt(np.square(samples).mean()) * 10 ** (-ratio_db / 20)
            samples = samples + level * coloured_noise(len(samples), rng)
        gain = 10 ** (rng.uniform(-18, 3) / 20)
        return np.clip(samples * np.float32(gain), -1, 1).astype(np.float32)

    def class_targets(
        self, scenes: Sequence[Scene], num_frames: int
    ) -> Float[Tensor, "row frame class"]:
        """What sounds in each frame: shares of the classes that do, or all of silence, the last."""
        silence = len(self.classes.labels)
        targets = torch.zeros(len(scenes), num_frames, silence + 1)
        for row, scene in enumerate(scenes):
            active = torch.from_numpy(activity(scene, num_frames)).float()
            for event, frames in zip(scene.events, active, strict=True):
                targets[row, :, self.classes.index[event.label]] += frames
            targets[row, :, silence] = (active.sum(dim=0) == 0).float()
        return targets / targets.sum(dim=2, keepdim=True)


def open_scenes(data: JudgeData, split: str, say: Say) -> SceneSource:
    """Scenes of a split; which classes are alike is told by the training split's captions."""
    codec = data.codec or BUNDLED_FOLDER
    trained = cached_sounds(data.corpus, data.cache, "train", say, codec)
    classes = Classes(*class_similarity(trained, load_minilm(), data.cache))
    if split == "train":
        return SceneSource(only_half(trained, data.half), classes, data)
    return SceneSource(cached_sounds(data.corpus, data.cache, split, say, codec), classes, data)


def at_speed(samples: Samples, speed: float) -> Samples:
    """Played faster (and higher) or slower, by linear interpolation."""
    length = max(int(len(samples) / speed), 1)
    positions = np.arange(length) * speed
    played: Samples = np.interp(positions, np.arange(len(samples)), samples).astype(np.float32)
    return played


def activity(scene: Scene, num_frames: int) -> np.ndarray:
    """Whether each event sounds in at least half of each frame, (event, frame)."""
    frame = MAX_SAMPLES / num_frames
    centres = (np.arange(num_frames) + 0.5) * frame
    active = np.zeros((len(scene.events), num_frames), bool)
    for placed in scene.placements:
        end = placed.start + max(placed.num_samples, frame)
        active[placed.event] |= (centres >= placed.start) & (centres < end)
    return active


def onsets_so_far(
    scenes: Sequence[Scene], num_frames: int, most: int
) -> Int64[Tensor, "row frame"]:
    """How many recordings have begun by the end of each frame, at most ``most``."""
    ends = (np.arange(num_frames) + 1) * MAX_SAMPLES / num_frames
    rows = [
        np.sum([ends > placed.start for placed in scene.placements], axis=0) for scene in scenes
    ]
    return torch.from_numpy(np.stack(rows)).clamp_max(most).long()


def onsets_in(scenes: Sequence[Scene], num_frames: int) -> Float[Tensor, "row frame"]:
    """1 where a recording begins within the frame."""
    begins = torch.zeros(len(scenes), num_frames)
    for row, scene in enumerate(scenes):
        for placed in scene.placements:
            begins[row, placed.start * num_frames // MAX_SAMPLES] = 1
    return begins


def numpy_generator(generator: torch.Generator) -> np.random.Generator:
    """Random numbers of numpy's, seeded from torch's."""
    seed = torch.randint(2**62, (1,), generator=generator, device=generator.device)
    return np.random.default_rng(int(seed))


@dataclass(frozen=True)
class ExamItem:
    """Two pairs of sound and text that differ in one respect: one belongs together, one not.

    Of a missing event, the text is the same and the event is left out of the sound: a judge that
    only likes short texts gains nothing. Of the other kinds, the sound is the same.
    """

    kind: QuestionKind
    scene: Scene
    samples: Samples
    right: str
    wrong_samples: Samples
    wrong: str


def draw_exam(
    source: SceneSource, num_each: int, seed: int, decoded: bool = False
) -> list[ExamItem]:
    """So many scenes of each wrong kind, without augmentation."""
    rng = np.random.default_rng(seed)
    return [draw_item(source, kind, rng, decoded) for kind in WRONG_KINDS for _ in range(num_each)]


def draw_item(
    source: SceneSource, kind: QuestionKind, rng: np.random.Generator, decoded: bool
) -> ExamItem:
    """One pair of a kind; an event goes missing from scenes of two."""
    kinds: tuple[SceneKind, ...] = ("together", "sequence")
    if kind != "missing event":
        kinds = SCENES_FOR[kind]
    scene = source.maker.scene(rng, kinds[int(rng.integers(len(kinds)))])
    right = source.maker.question(scene, "described", rng)
    samples = source.render(scene, None, decoded)
    if kind == "missing event":
        silenced = without_event(scene, int(rng.integers(len(scene.events))))
        return ExamItem(
            kind, scene, samples, right.text, source.render(silenced, None, decoded), right.text
        )
    wrong = source.maker.question(scene, kind, rng)
    return ExamItem(kind, scene, samples, right.text, samples, wrong.text)
