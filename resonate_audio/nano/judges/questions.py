"""Scenes whose content is known, and questions about them whose answers are known.

A scene lays recordings on a canvas; a question is a text and whether the scene has what it says.
The wrong texts differ from a right one in a single respect, which is the question's kind: one event
too many, one event exchanged, two events swapped, another count. Texts are made of the corpus'
captions and of the templates that training mixtures have (`data.mixing`).

Everything is a function of a generator's state: the same seed asks the same questions.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal, TypeVar

import numpy as np
from jaxtyping import Float, Float32

from resonate_audio.core.errors import InputError
from resonate_audio.data.mixing import BACKGROUND_GAIN, IN_SEQUENCE, THREE, TOGETHER

OptionT = TypeVar("OptionT")
SceneKind = Literal["single", "counted", "together", "sequence", "crowd"]
QuestionKind = Literal[
    "described", "part", "missing event", "wrong event", "wrong order", "wrong count"
]
WRONG_KINDS: tuple[QuestionKind, ...] = (
    "missing event",
    "wrong event",
    "wrong order",
    "wrong count",
)
SCENES_FOR: Mapping[QuestionKind, tuple[SceneKind, ...]] = {
    "described": ("single", "counted", "together", "sequence"),
    "part": ("counted", "together", "sequence"),
    "missing event": ("single", "counted", "together", "sequence"),
    "wrong event": ("single", "counted", "together", "sequence"),
    "wrong order": ("sequence",),
    "wrong count": ("counted",),
}
"""Kinds of scene that a kind of question can be asked about."""
SCENE_SHARES: Mapping[SceneKind, float] = {
    "single": 0.16,
    "counted": 0.28,
    "together": 0.16,
    "sequence": 0.40,
}
COUNTS = {1: ("once",), 2: ("twice", "two times"), 3: ("three times",)} | {
    count: (f"{word} times",) for count, word in ((4, "four"), (5, "five"))
}
THREE_TOGETHER = ("{0} while {1} and {2}", "{0}, {1} and {2}")
TOO_ALIKE = 0.6
"""Classes whose captions are at least this similar are never each other's wrong answer."""
CONFUSABLE_SHARE = 0.35
"""How often the wrong event is one of the `NUM_CONFUSABLE` most similar that are not too alike."""
NUM_CONFUSABLE = 12
LONGEST_GAP_S = 1.2
SHORTEST_GAP_S = 0.15


@dataclass(frozen=True)
class Source:
    """A recording, as far as a question may depend on it."""

    label: str
    captions: tuple[str, ...]
    num_samples: int
    countable: tuple[str, ...] = ()
    """Captions that "twice" can be put after; empty if the sound is no single short event."""
    group: str = ""
    """What was recorded in one go, or nearly repeats; never split between halves."""


@dataclass(frozen=True)
class Placement:
    """One recording on the canvas."""

    source: int
    start: int
    num_samples: int
    """Samples kept on the canvas; what is longer is faded out, what is shorter is tiled."""
    event: int
    gain: float = 1.0


@dataclass(frozen=True)
class Event:
    """Something that can be told of a scene: a caption's worth of sound."""

    label: str
    captions: tuple[str, ...]
    count: int = 0
    """How often it happens, if that may be told; 0 if not."""


@dataclass(frozen=True)
class Scene:
    """What lies where, before anything is rendered."""

    kind: SceneKind
    events: tuple[Event, ...]
    """In order of time; of simultaneous ones the longer, softer one comes last."""
    placements: tuple[Placement, ...]


@dataclass(frozen=True)
class Phrase:
    """The words of a text that name one event."""

    begin: int
    end: int
    """Characters ``text[begin:end]``."""
    event: int | None
    """Index of the event that they name, or None when the scene does not have it."""


@dataclass(frozen=True)
class Question:
    """Does the scene have what the text says?"""

    text: str
    answer: bool
    kind: QuestionKind
    phrases: tuple[Phrase, ...]


@dataclass(frozen=True)
class Classes:
    """Which labels may stand for something else than which others."""

    labels: tuple[str, ...]
    similarity: Float32[np.ndarray, "label label"]
    """Cosine between the classes' captions, 1 on the diagonal."""

    @cached_property
    def index(self) -> dict[str, int]:
        """Row of each label."""
        return {label: row for row, label in enumerate(self.labels)}

    def unlike(self, labels: Sequence[str]) -> np.ndarray:
        """Rows of the classes that are too alike to none of ``labels``."""
        rows = [self.index[label] for label in labels]
        return np.flatnonzero((self.similarity[:, rows] < TOO_ALIKE).all(axis=1))

    def confusable(self, label: str, rows: np.ndarray) -> np.ndarray:
        """Of ``rows``, those most similar to ``label``."""
        closest = np.argsort(-self.similarity[self.index[label], rows], kind="stable")
        return rows[closest[:NUM_CONFUSABLE]]


class SceneMaker:
    """Draws scenes from recordings, and questions about them.

    Recordings of other classes than ``classes`` has are left out.
    """

    def __init__(
        self, sources: Sequence[Source], classes: Classes, num_samples: int, rate_hz: int
    ) -> None:
        self.sources = tuple(sources)
        self.classes = classes
        self.num_samples = num_samples
        self.rate_hz = rate_hz
        self.shortest_gap = int(SHORTEST_GAP_S * rate_hz)
        self.most_countable = num_samples // len(COUNTS) - self.shortest_gap
        """Longest recording that fits on the canvas as often as is ever counted."""
        self.members: dict[str, list[int]] = defaultdict(list)
        self.by_caption: dict[tuple[str, str], list[int]] = defaultdict(list)
        for index, source in enumerate(self.sources):
            if source.label not in classes.index:
                continue
            self.members[source.label].append(index)
            if source.num_samples <= self.most_countable:
                for caption in source.countable:
                    self.by_caption[source.label, caption].append(index)
        self._rows = np.array([classes.index[label] for label in self.members])
        counts = np.zeros(len(classes.labels))
        counts[self._rows] = [len(members) for members in self.members.values()]
        self._weights = np.sqrt(counts)
        self._countable = np.array(sorted({classes.index[label] for label, _ in self.by_caption}))

    # --- scenes -------------------------------------------------------------------------------

    def scene(self, rng: np.random.Generator, kind: SceneKind | None = None) -> Scene:
        """Draw a scene, of any kind if none is given."""
        if kind is None:
            kinds = list(SCENE_SHARES)
            kind = kinds[int(rng.choice(len(kinds), p=list(SCENE_SHARES.values())))]
        if kind == "single":
            return self._single(rng)
        if kind == "counted":
            return self._counted(rng)
        return self._together(rng) if kind == "together" else self._sequence(rng)

    def _single(self, rng: np.random.Generator) -> Scene:
        (source,) = self._draw_sources(rng, 1)
        length = self.sources[source].num_samples
        if length > 2 * self.rate_hz and rng.random() < 0.5:
            length = self.num_samples
        latest = max(min(self.num_samples - length, self.rate_hz), 0)
        start = int(rng.integers(latest + 1))
        placed = Placement(source, start, min(length, self.num_samples - start), 0)
        return Scene("single", (self._event(source),), (placed,))

    def _counted(self, rng: np.random.Generator) -> Scene:
        names = list(self.by_caption)
        label, caption = names[int(rng.integers(len(names)))]
        alike = self.by_caption[label, caption]
        count = int(rng.integers(len(COUNTS))) + 1
        first = alike[int(rng.integers(len(alike)))]
        several = rng.random() < 0.4
        chosen = [alike[int(rng.integers(len(alike)))] if several else first for _ in range(count)]
        lengths = [self.sources[source].num_samples for source in chosen]
        starts = self._spread(lengths, rng)
        placements = tuple(
            Placement(source, start, length, 0)
            for source, start, length in zip(chosen, starts, lengths, strict=True)
        )
        return Scene("counted", (Event(label, (caption,), count),), placements)

    def _spread(self, lengths: Sequence[int], rng: np.random.Generator) -> list[int]:
        """Starts with gaps that fill what is spare on the canvas, but none over `LONGEST_GAP_S`."""
        shortest = self.shortest_gap
        spare = self.num_samples - sum(lengths) - shortest * len(lengths)
        widest = min(int(LONGEST_GAP_S * self.rate_hz) - shortest, spare // len(lengths))
        position, starts = int(rng.integers(min(widest, self.rate_hz // 2) + 1)), []
        tempo = int(rng.integers(widest + 1)) if rng.random() < 0.5 else None
        for length in lengths:
            starts.append(position)
            extra = int(rng.integers(widest + 1)) if tempo is None else tempo
            position += length + shortest + extra
        return starts

    def _together(self, rng: np.random.Generator) -> Scene:
        while True:
            pair = self._draw_sources(rng, 2)
            front, bed = sorted(pair, key=lambda source: self.sources[source].num_samples)
            if self.sources[bed].num_samples >= 1.5 * self.rate_hz:
                break
        bed_length = self.sources[bed].num_samples
        if bed_length > 2 * self.rate_hz:
            bed_length = self.num_samples
        front_length = min(self.sources[front].num_samples, 3 * self.rate_hz, bed_length)
        start = int(rng.integers((bed_length - front_length) // 2 + 1))
        placements = (
            Placement(front, start, front_length, 0),
            Placement(bed, 0, bed_length, 1, BACKGROUND_GAIN),
        )
        return Scene("together", (self._event(front), self._event(bed)), placements)

    def _sequence(self, rng: np.random.Generator) -> Scene:
        sources = self._draw_sources(rng, 3 if rng.random() < 0.2 else 2)
        share = self.num_samples // len(sources)
        position, placements = int(rng.uniform(0, 0.3) * self.rate_hz), []
        for event, source in enumerate(sources):
            length = min(self.sources[source].num_samples, share, self.num_samples - position)
            placements.append(Placement(source, position, length, event))
            position += length + int(rng.uniform(0.05, 0.4) * self.rate_hz)
        events = tuple(self._event(source) for source in sources)
        return Scene("sequence", events, tuple(placements))

    def crowd(self, rng: np.random.Generator) -> Scene:
        """As many short pieces of anything as fit: nothing to ask about, but much to name."""
        position, sources, placements = 0, list[int](), list[Placement]()
        while position < self.num_samples - self.rate_hz // 4:
            (source,) = self._draw_sources(rng, 1)
            longest = min(int(rng.uniform(0.4, 1.6) * self.rate_hz), self.num_samples - position)
            length = min(self.sources[source].num_samples, longest)
            placements.append(Placement(source, position, length, len(sources)))
            sources.append(source)
            position += length + int(rng.uniform(0, 0.2) * self.rate_hz)
        events = tuple(self._event(source) for source in sources)
        return Scene("crowd", events, tuple(placements))

    def _draw_sources(self, rng: np.random.Generator, count: int) -> list[int]:
        """Recordings of classes that are unlike each other."""
        labels: list[str] = []
        for _ in range(count):
            rows = self.classes.unlike(labels) if labels else self._rows
            labels.append(self._draw_label(rows, rng))
        groups = [self.members[label] for label in labels]
        return [group[int(rng.integers(len(group)))] for group in groups]

    def _draw_label(self, rows: np.ndarray, rng: np.random.Generator) -> str:
        weights: Float[np.ndarray, " label"] = self._weights[rows]
        return self.classes.labels[int(rng.choice(rows, p=weights / weights.sum()))]

    def _event(self, source: int) -> Event:
        return Event(self.sources[source].label, self.sources[source].captions)

    # --- questions ----------------------------------------------------------------------------

    def question(self, scene: Scene, kind: QuestionKind, rng: np.random.Generator) -> Question:
        """Ask one question of a kind.

        Raises:
            InputError: such a question cannot be asked about such a scene.
        """
        if scene.kind not in SCENES_FOR[kind] or (
            kind == "missing event" and len(scene.events) > 2
        ):
            raise InputError(f"no '{kind}' question about a '{scene.kind}' scene")
        named: list[tuple[str, int | None]] = [
            (choose(event.captions, rng), index) for index, event in enumerate(scene.events)
        ]
        if kind == "wrong order":
            return ask(sequence_template(len(named), rng), self._reordered(named, rng), kind)
        if kind == "part":
            return self._part(scene, named, rng)
        if kind == "wrong event":
            index = int(rng.integers(len(named)))
            named[index] = (self._absent(scene, index, rng), None)
        if scene.kind == "counted":
            named[0] = (self._counted_phrase(scene, named[0][0], kind, rng), named[0][1])
        if kind == "missing event":
            index = int(rng.integers(len(scene.events)))
            named.insert(int(rng.integers(len(named) + 1)), (self._absent(scene, index, rng), None))
        return ask(self._template(scene, len(named), rng), named, kind)

    def questions(self, scene: Scene, num: int, rng: np.random.Generator) -> list[Question]:
        """``num`` questions, half of them (rounded up) with the answer yes.

        Every other wrong one is about order or count, the hardest to tell, if the scene has them.
        """
        wrong = [
            kind
            for kind in WRONG_KINDS
            if scene.kind in SCENES_FOR[kind]
            and not (kind == "missing event" and len(scene.events) > 2)
        ]
        kinds: list[QuestionKind] = ["described"]
        while len(kinds) < (num + 1) // 2:
            part = scene.kind != "single" and rng.random() < 0.5
            kinds.append("part" if part else "described")
        hard = [kind for kind in wrong if kind in ("wrong order", "wrong count")]
        easier = [kind for kind in wrong if kind not in hard]
        while len(kinds) < num:
            turn = hard if hard and len(kinds) % 2 == (num + 1) // 2 % 2 else easier
            kinds.append(turn[int(rng.integers(len(turn)))])
        return [self.question(scene, kind, rng) for kind in kinds[:num]]

    def _part(
        self, scene: Scene, named: list[tuple[str, int | None]], rng: np.random.Generator
    ) -> Question:
        """Less than there is: one event of several, or an event without its count."""
        if len(named) == 3 and rng.random() < 0.5:
            named.pop(int(rng.integers(3)))
            return ask(sequence_template(2, rng), named, "part")
        return ask("{0}", [named[int(rng.integers(len(named)))]], "part")

    def _reordered(
        self, named: list[tuple[str, int | None]], rng: np.random.Generator
    ) -> list[tuple[str, int | None]]:
        first = int(rng.integers(len(named) - 1))
        swapped = list(named)
        swapped[first], swapped[first + 1] = swapped[first + 1], swapped[first]
        return swapped

    def _counted_phrase(
        self, scene: Scene, caption: str, kind: QuestionKind, rng: np.random.Generator
    ) -> str:
        count = scene.events[0].count
        if kind == "wrong count":
            others = [other for other in COUNTS if other != count]
            count = others[int(rng.integers(len(others)))]
        return f"{caption} {choose(COUNTS[count], rng)}"

    def _template(self, scene: Scene, num_events: int, rng: np.random.Generator) -> str:
        if num_events == 1:
            return "{0}"
        if scene.kind == "sequence" or (scene.kind != "together" and rng.random() < 0.5):
            return sequence_template(num_events, rng)
        return choose(TOGETHER if num_events == 2 else THREE_TOGETHER, rng)

    def _absent(self, scene: Scene, index: int, rng: np.random.Generator) -> str:
        """A caption of a class that the scene has not, at times one like its event ``index``."""
        rows = self.classes.unlike([event.label for event in scene.events])
        counted = scene.kind == "counted"
        rows = np.intersect1d(rows, self._countable if counted else self._rows)
        if rng.random() < CONFUSABLE_SHARE:
            rows = self.classes.confusable(scene.events[index].label, rows)
        label = self._draw_label(rows, rng)
        if counted:
            return choose([caption for name, caption in self.by_caption if name == label], rng)
        return choose(self.sources[choose(self.members[label], rng)].captions, rng)


def without_event(scene: Scene, event: int) -> Scene:
    """What is heard when one event is left out; the events that may be told stay listed."""
    placements = tuple(placed for placed in scene.placements if placed.event != event)
    return replace(scene, placements=placements)


def sequence_template(num_events: int, rng: np.random.Generator) -> str:
    """A sentence with places for two or three events in order of time."""
    return choose(IN_SEQUENCE if num_events == 2 else THREE, rng)


def any_template(num_events: int, rng: np.random.Generator) -> str:
    """A sentence with places for one to three events, in sequence or together."""
    if num_events == 1:
        return "{0}"
    if rng.random() < 0.5:
        return sequence_template(num_events, rng)
    return choose(TOGETHER if num_events == 2 else THREE_TOGETHER, rng)


def choose(options: Sequence[OptionT], rng: np.random.Generator) -> OptionT:
    """One at random."""
    return options[int(rng.integers(len(options)))]


def ask(template: str, named: Sequence[tuple[str, int | None]], kind: QuestionKind) -> Question:
    """Fill a template, and remember where each event is named.

    Args:
        template: a text with ``{0}``, ``{1}``, … for the events.
        named: what to put there, and the index of the event that it names.
        kind: what is right or wrong about the text.
    """
    text, phrases = "", []
    for part in re.split(r"(\{\d\})", template):
        if re.fullmatch(r"\{\d\}", part):
            words, event = named[int(part[1])]
            phrases.append(Phrase(len(text), len(text) + len(words), event))
            text += words
        else:
            text += part
    return Question(text, kind in ("described", "part"), kind, tuple(phrases))
