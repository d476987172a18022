"""Which clips stay, and which split each belongs to.

By default the answer is ``clips.txt``: the very clips, splits and groups that nano was trained on.
``choose_anew`` gives it for any set of clips: duplicates out, classes capped, and what belongs
together (one recording, numbered takes of one name, near-duplicates) kept in one split.
"""

# ruff: noqa: SIM905 (lists of words read best as text)
from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from corpus.process import SAMPLE_RATE_HZ, Processed, load_clip
from corpus.sources import HERE, Folders, stable_hash

PRIORITY = (
    "esc10 cdda scratch openclonk opensfx openrct2 blanket noisekun ambience mobs_animal 0ad "
    "megaglest voxelibre minetest hypersomnia gcompris tuxpaint ufoai flare ardentryst wesnoth "
    "widelands stk supertux tamtam scorched3d lincity openarena warzone"
).split()
"""Of two equal clips the one whose source stands first stays; sources not listed come last."""
UNSTEMMED = frozenset(
    "fsdd gm_fluidr3 gm_msgeneral asterisk_en asterisk_es asterisk_fr asterisk_it asterisk_ru "
    "guitarstrums esc10 espeak hydrogen_kits hydrogen_gm".split()
)
"""Sources whose numbered names are not takes of one recording."""
MIN_STEMS = 8
HELD_OUT_SHARE = 0.05
MIN_GROUPS = {"test": 5, "val": 8}
CLASS_CAP, CLASS_CAP_DIGITS = 150, 400
SAME_WAVE, SAME_PICTURE = 0.85, 0.995
NEAR_WAVE, NEAR_PICTURE = 0.5, 0.965
COMPARED_PICTURES = 0.9
PICTURE_STEPS, PICTURE_BANDS = 32, 34


@dataclass(frozen=True)
class Choice:
    """The place of one clip."""

    split: str
    group: str


@dataclass(frozen=True)
class Item:
    """What splitting needs to know of a clip."""

    id: str
    label: str
    group: Hashable


def read_choices(path: Path = HERE / "clips.txt") -> dict[str, Choice]:
    """The clips of the published corpus."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {line[0]: Choice(line[1], line[2]) for line in lines if line and line[0] != "#"}


class Groups:
    """Union-find: what was joined, directly or not, has one root."""

    def __init__(self) -> None:
        self._parent: dict[Hashable, Hashable] = {}

    def find(self, key: Hashable) -> Hashable:
        """Root of a key; a new key is its own."""
        parent = self._parent.setdefault(key, key)
        if parent != key:
            parent = self._parent[key] = self.find(parent)
        return parent

    def join(self, keys: Sequence[Hashable]) -> None:
        """Put all keys into one group."""
        for key in keys[1:]:
            self._parent[self.find(keys[0])] = self.find(key)


# ---------------------------------------------------------------- split


def split_items(items: Sequence[Item]) -> dict[Hashable, str]:
    """Split of each group: about 5 % of each class to test, then to val, by whole groups.

    Rare classes choose first. A class of fewer than 5 groups has no test clip, of fewer than 8 no
    val clip. Groups that hold a large part of a class stay in train, if there are smaller ones.
    """
    classes: dict[str, dict[Hashable, list[Item]]] = defaultdict(lambda: defaultdict(list))
    sizes, first_id = Counter[Hashable](), dict[Hashable, str]()
    for item in items:
        classes[item.label][item.group].append(item)
        sizes[item.group] += 1
        first_id[item.group] = min(item.id, first_id.get(item.group, item.id))
    split: dict[Hashable, str] = {}
    total = {label: sum(map(len, groups.values())) for label, groups in classes.items()}
    for label in sorted(classes, key=lambda name: (total[name], name)):
        groups, count = classes[label], total[label]
        free = sorted(
            (group for group in groups if group not in split),
            key=lambda g: (sizes[g] > max(2, 0.12 * count), stable_hash(first_id[g])),
        )
        for name in ("test", "val"):
            wanted = max(1, round(HELD_OUT_SHARE * count)) if len(groups) >= MIN_GROUPS[name] else 0
            wanted -= sum(len(groups[g]) for g in groups if split.get(g) == name)
            for group in list(free):
                slack = max(1, round(0.03 * count))
                if wanted > 0 and len(groups[group]) <= max(1, wanted + slack):
                    split[group] = name
                    wanted -= len(groups[group])
                    free.remove(group)
        split.update(dict.fromkeys(free, "train"))
    return split


def name_stem(source: str, name: str) -> tuple[str, str, str]:
    """A file's name without its take number."""
    folder, base = os.path.split(os.path.splitext(name)[0])
    return source, folder, re.sub(r"[-_ .]*\d*[a-z]?$", "", base)


# ---------------------------------------------------------------- duplicates


def picture_of(samples: np.ndarray) -> np.ndarray:
    """A 32-step log-mel picture below 5 kHz, level and mean removed, as one unit vector."""
    size, hop = 2048, 512
    padded = np.pad(samples, (0, max(0, size - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(padded, size)[::hop]
    power = np.square(np.abs(np.fft.rfft(frames * np.hanning(size), axis=1)))
    mel = np.log10(power @ _mel_bank(size).T + 1e-8)
    edges = np.linspace(0, len(mel), PICTURE_STEPS + 1).astype(int)
    steps = [mel[min(a, len(mel) - 1) : max(a + 1, b)].mean(0) for a, b in pairwise(edges)]
    picture = np.stack(steps)
    return np.maximum(picture, picture.max() - 6).ravel()


def _mel_bank(size: int) -> np.ndarray:
    """The lowest ``PICTURE_BANDS`` of 48 triangles from 40 Hz to 16 kHz."""
    low, high = (2595 * np.log10(1 + hz / 700) for hz in (40, 16_000))
    edges = 700 * (10 ** (np.linspace(low, high, 50)[: PICTURE_BANDS + 2] / 2595) - 1)
    bins = np.fft.rfftfreq(size, 1 / SAMPLE_RATE_HZ)
    left, middle, right = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    triangles = np.minimum((bins - left) / (middle - left), (right - bins) / (right - middle))
    return triangles.clip(0)


def wave_likeness(first: np.ndarray, second: np.ndarray) -> float:
    """Largest normalised cross-correlation of two waves, over all shifts, either sign."""
    size = 1 << int(np.ceil(np.log2(len(first) + len(second))))
    product = np.fft.rfft(first, size) * np.conj(np.fft.rfft(second, size))
    scale = np.linalg.norm(first) * np.linalg.norm(second) + 1e-9
    return float(np.abs(np.fft.irfft(product, size)).max() / scale)


@dataclass(frozen=True)
class Pair:
    """Two clips that look alike."""

    first: int
    second: int
    pictures: float
    waves: float


def alike_pairs(clips: Sequence[Processed], folders: Folders) -> list[Pair]:
    """Pairs of nearly equal length and picture, most alike first, with their waves compared."""
    import soxr

    if len(clips) < 2:
        return []
    pictures = np.stack([picture_of(load_clip(clip, folders)) for clip in clips])
    pictures -= pictures.mean(1, keepdims=True)
    pictures -= 0.7 * pictures.mean(0)
    pictures -= pictures.mean(1, keepdims=True)
    pictures /= np.linalg.norm(pictures, axis=1, keepdims=True) + 1e-9
    pairs = []
    for i in range(len(clips) - 1):
        likeness = pictures[i + 1 :] @ pictures[i]
        for j in np.flatnonzero(likeness > COMPARED_PICTURES) + i + 1:
            shorter, longer = sorted((clips[i].frames, clips[j].frames))
            if shorter > 0.9 * longer:
                first, second = (
                    soxr.resample(load_clip(clips[k], folders), SAMPLE_RATE_HZ, 8000)
                    for k in (i, int(j))
                )
                waves = wave_likeness(first, second)
                pairs.append(Pair(i, int(j), float(likeness[j - i - 1]), waves))
    return sorted(pairs, key=lambda pair: -pair.pictures)


def without_duplicates(
    clips: Sequence[Processed], pairs: Iterable[Pair]
) -> tuple[set[int], list[Pair]]:
    """Indices of the clips that stay, and the alike pairs among them."""
    rank = [
        (
            PRIORITY.index(clip.candidate.source) if clip.candidate.source in PRIORITY else 50,
            -clip.sample_rate_orig,
            index,
        )
        for index, clip in enumerate(clips)
    ]
    same_pcm: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        same_pcm[clip.pcm].append(index)
    alive = {min(group, key=rank.__getitem__) for group in same_pcm.values()}
    pairs = list(pairs)
    for pair in pairs:
        first, second = clips[pair.first], clips[pair.second]
        if not {pair.first, pair.second} <= alive or first.candidate == second.candidate:
            continue
        shorter, longer = sorted((first.frames, second.frames))
        same = pair.waves > SAME_WAVE or (pair.pictures > SAME_PICTURE and pair.waves > NEAR_WAVE)
        if same and shorter > 0.95 * longer:
            alive.discard(max(pair.first, pair.second, key=rank.__getitem__))
    return alive, [pair for pair in pairs if {pair.first, pair.second} <= alive]


# ---------------------------------------------------------------- all together


def choose_anew(clips: Sequence[Processed], folders: Folders) -> dict[str, Choice]:
    """Place every clip that stays by the rules instead of by the list."""
    alive, pairs = without_duplicates(clips, alike_pairs(clips, folders))
    kept = within_caps([clips[index] for index in sorted(alive)])
    groups = Groups()
    for pair in pairs:
        first, second = clips[pair.first], clips[pair.second]
        near_picture = (
            pair.pictures > NEAR_PICTURE and first.candidate.label == second.candidate.label
        )
        if pair.waves > NEAR_WAVE or near_picture:
            groups.join([first.id, second.id])
    for together in recordings(kept):
        groups.join(together)
    split = split_items([Item(c.id, c.candidate.label, groups.find(c.id)) for c in kept])
    names: dict[Hashable, str] = {}
    for clip in sorted(kept, key=lambda clip: clip.id):
        names.setdefault(groups.find(clip.id), f"{stable_hash(clip.id):08x}")
    return {
        clip.id: Choice(split[groups.find(clip.id)], names[groups.find(clip.id)]) for clip in kept
    }


def within_caps(clips: Sequence[Processed]) -> list[Processed]:
    """At most so many clips of a class, and of a class from one source; first segments first."""
    order = sorted(clips, key=lambda clip: (clip.segment, stable_hash(clip.id)))
    per_source, per_class, kept = Counter[tuple[str, str]](), Counter[str](), []
    for clip in order:
        label, source = clip.candidate.label, clip.candidate.source
        cap = CLASS_CAP_DIGITS if label == "spoken digit" else CLASS_CAP
        if per_source[label, source] < source_cap(label, source) and per_class[label] < cap:
            per_source[label, source] += 1
            per_class[label] += 1
            kept.append(clip)
    return kept


def source_cap(label: str, source: str) -> int:
    """Most clips of one class from one source."""
    if label == "spoken digit":
        return 260 if source == "fsdd" else 30
    return {"guitar strum": 80, "female speech": 40, "male speech": 40}.get(label, 60)


def recordings(clips: Sequence[Processed]) -> list[list[Hashable]]:
    """Ids that belong together: one file, one original, two channels, takes of one name."""
    together: dict[Hashable, list[Hashable]] = defaultdict(list)
    stems: dict[str, dict[Hashable, list[Hashable]]] = defaultdict(lambda: defaultdict(list))
    for clip in clips:
        candidate = clip.candidate
        together["file", candidate.path].append(clip.id)
        if candidate.credit.group:
            together["original", candidate.credit.group].append(clip.id)
        without_side = re.sub(r"_(left|right)$", "", os.path.splitext(candidate.name)[0])
        together["sides", candidate.source, without_side].append(clip.id)
        if candidate.source not in UNSTEMMED:
            stem = name_stem(candidate.source, candidate.name)
            stems[candidate.label][stem].append(clip.id)
    takes = [ids for named in stems.values() if len(named) >= MIN_STEMS for ids in named.values()]
    return [*together.values(), *takes]
