"""Play the soundfonts (fluidsynth) and speak a few sentences (espeak-ng).

Every sound gets a slot of six seconds in one long rendering per soundfont, which is then cut. The
caption is exact, since the notes are chosen here: by a generator seeded with the program's number.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from corpus.candidates import Candidate
from corpus.instruments import (
    BEATS,
    DRUMS,
    FIRST_EFFECT,
    KEY_RANGES,
    MONOPHONIC,
    NAMES,
    PROGRAMS,
    RHYTHMIC,
    SENTENCES,
    STRUCK_ONCE,
    UNPITCHED,
    VOICES,
)
from corpus.licences import Credit
from corpus.midi import Track
from corpus.sources import SOUNDFONTS, Folders
from resonate_audio.core.files import atomic_path

SLOT_S = 6.0
SAMPLE_RATE_HZ = 44_100
DRUM_CHANNEL = 9
MAJOR = (0, 2, 4, 5, 7, 9, 11, 12)
MINOR = (0, 2, 3, 5, 7, 8, 10, 12)
CHORDS = {"chord": (0, 4, 7), "minor": (0, 3, 7)}
REVERB = {"fluidr3": "0", "msgeneral": "1"}

Labels = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Slot:
    """One sound of a rendering."""

    start_s: float
    name: str
    label: str
    captions: tuple[str, ...]


@dataclass
class Score:
    """A track and the slots it has filled so far."""

    labels: Labels
    track: Track = field(default_factory=Track)
    slots: list[Slot] = field(default_factory=list)
    start_s: float = 0.5
    """Where the open slot begins."""

    def close(self, name: str, label: str, caption: str = "", channel: int = 0) -> None:
        """Name what the open slot holds, and open the next."""
        self.track.silence(self.start_s - 0.2, channel)
        captions = (caption,) if caption else self.labels[label]
        self.slots.append(Slot(self.start_s, name, label, captions))
        self.start_s += SLOT_S


def compose(font_index: int, labels: Labels) -> Score:
    """Everything one soundfont plays: programs, drum keys, drum beats."""
    score = Score(labels)
    for program, label in enumerate(PROGRAMS):
        if label != "-":
            _compose_program(score, program, label, random.Random(program * 7 + font_index * 1000))
    score.track.program(score.start_s, 0, DRUM_CHANNEL)
    for key, label in DRUMS.items():
        _compose_drum(score, key, label)
    for index, (caption, bars) in enumerate(BEATS.items()):
        for tempo in (110,) if "fill" in caption else (90, 120, 140):
            _compose_beat(score, bars, 60 / tempo)
            score.close(f"beat{index}-{tempo}", "drum beat", caption, DRUM_CHANNEL)
    return score


def _compose_program(score: Score, program: int, label: str, chance: random.Random) -> None:
    if program >= FIRST_EFFECT:
        kinds = ["sfx1", "sfx2"]
    elif program in UNPITCHED:
        kinds = ["low", "mid", "rep"]
    elif program in MONOPHONIC:
        kinds = chance.sample(["low", "mid", "high", "scale", "melody", "rep", "down"], 5)
    else:
        kinds = chance.sample(
            ["low", "mid", "high", "chord", "minor", "scale", "melody", "arp", "down"], 5
        )
    name = NAMES.get(program, score.labels[label][0])
    verb = "plays" if name.startswith(("a ", "an ")) else "play"
    for kind in kinds:
        score.track.program(score.start_s - 0.1, program)
        velocity = chance.choice([70, 90, 110])
        low, high = KEY_RANGES.get(program, (48, 76))
        chance.randint(low, high)  # keeps the draws of the first edition of the corpus
        if kind.startswith("sfx"):
            key = 60 if kind == "sfx1" else chance.choice([55, 64, 67])
            length_s = 1.0 if label == "gunshot" else 3.0
            score.track.note(score.start_s, length_s, key, 110)
            played = ""
        else:
            what = _play(score, kind, low, high, velocity, chance)
            played = f"{name} {verb} {what}"
        score.close(f"p{program:03d}-{kind}", label, played)


def _play(
    score: Score, kind: str, low: int, high: int, velocity: int, chance: random.Random
) -> str:
    """Write the notes of one kind of phrase; returns how it is worded."""
    track, start_s, middle = score.track, score.start_s, (low + high) // 2
    if kind in ("low", "mid", "high"):
        first, last = {
            "low": (low, low + 6),
            "mid": (middle - 4, middle + 4),
            "high": (high - 6, high),
        }[kind]
        length_s = 2.0 if kind == "high" else 2.5
        track.note(start_s, length_s, chance.randint(first, last), velocity)
        return "a single note" if kind == "mid" else f"a single {kind} note"
    if kind in CHORDS:
        root = chance.randint(low + 4, max(low + 5, high - 12))
        for interval in CHORDS[kind]:
            track.note(start_s, 2.5, root + interval, velocity)
        return f"a {'major' if kind == 'chord' else 'minor'} chord"
    if kind == "rep":
        key, step_s = chance.randint(low, high), chance.choice([0.25, 0.4])
        for i in range(6 if step_s == 0.25 else 5):
            track.note(start_s + i * step_s, step_s * 0.7, key, velocity)
        return "repeated notes"
    root = chance.randint(low, max(low + 1, high - 12))
    if kind == "melody":
        _play_melody(score, root, velocity, chance)
        return "a short melody"
    if kind == "arp":
        step_s = chance.choice([0.2, 0.3])
        for i, interval in enumerate((0, 4, 7, 12, 7, 4, 0)):
            track.note(start_s + i * step_s, step_s * 1.5, root + interval, velocity)
        return "an arpeggio"
    scale, step_s = chance.choice([MAJOR, MINOR]), chance.choice([0.2, 0.3, 0.4])
    for i, interval in enumerate(scale if kind == "scale" else scale[::-1]):
        track.note(start_s + i * step_s, step_s * 0.95, root + interval, velocity)
    direction = "an ascending scale" if kind == "scale" else "a descending scale"
    return direction + {0.2: " quickly", 0.3: "", 0.4: " slowly"}[step_s]


def _play_melody(score: Score, root: int, velocity: int, chance: random.Random) -> None:
    time_s, degree = score.start_s, 0
    while time_s - score.start_s < 3.2:
        length_s = chance.choice([0.25, 0.25, 0.5])
        score.track.note(time_s, length_s * 0.95, root + MAJOR[degree], velocity)
        time_s += length_s
        degree = max(0, min(7, degree + chance.choice([-2, -1, 1, 1, 2])))


def _compose_drum(score: Score, key: int, label: str) -> None:
    for repeat, velocity in ((0, 110), (1, 80)):
        if repeat and label in STRUCK_ONCE:
            continue
        caption, length_s, num_hits = "", 0.5, 1
        if repeat and label in RHYTHMIC:
            name = score.labels[label][0].replace(" being shaken", "")
            caption, length_s, num_hits = f"{name} playing a steady rhythm", 0.1, 6
        for hit in range(num_hits):
            score.track.note(score.start_s + hit * 0.3, length_s, key, velocity, DRUM_CHANNEL)
        score.close(f"d{key}-{repeat}", label, caption, DRUM_CHANNEL)


def _compose_beat(score: Score, bars: tuple[list[tuple[int, float]], ...], beat_s: float) -> None:
    for bar, hits in enumerate(bars):
        for key, beat in hits:
            offset_s = (bar * 4 + beat) * beat_s
            if offset_s < 5.3:
                score.track.note(score.start_s + offset_s, 0.1, key, 100, DRUM_CHANNEL)


# ---------------------------------------------------------------- sounds


def render_soundfont(font: str, labels: Labels, folders: Folders) -> list[Candidate]:
    """Render and cut one soundfont, once.

    Raises:
        OSError: the soundfont was not unpacked, or fluidsynth is missing or fails.
    """
    path = folders.sources / SOUNDFONTS[font]
    if not path.is_file():
        raise OSError(f"{path.name}: the soundfont's package was not fetched")
    need("fluidsynth")
    target = folders.sources / "render" / font
    score = compose(list(SOUNDFONTS).index(font), labels)
    if not (target / ".done").is_file():
        target.mkdir(parents=True, exist_ok=True)
        score.track.write(target / "score.mid")
        _play_score(path, target, REVERB[font])
        _cut(target / "whole.wav", score.slots)
        (target / "whole.wav").unlink()
        (target / ".done").touch()
    return [
        _candidate(f"gm_{font}", f"{font}/{slot.name}", slot, "MIT (soundfont)")
        for slot in score.slots
        if (target / f"{slot.name}.wav").is_file()
    ]


def need(program: str) -> None:
    """Raise OSError if a program is not installed."""
    if shutil.which(program) is None:
        raise OSError(f"{program} is not installed (apt-get install {program})")


def _play_score(font: Path, target: Path, reverb: str) -> None:
    options = ["-niq", "-g", "0.6", "-r", str(SAMPLE_RATE_HZ), "-R", reverb, "-C", "0"]
    files = ["-F", str(target / "whole.wav"), str(font), str(target / "score.mid")]
    done = subprocess.run(["fluidsynth", *options, *files], capture_output=True, check=False)
    if done.returncode or not (target / "whole.wav").is_file():
        raise OSError(f"fluidsynth failed: {done.stderr.decode(errors='replace')[-200:]}")


def _cut(whole: Path, slots: list[Slot]) -> None:
    import soundfile

    samples = soundfile.read(whole, dtype="float32", always_2d=True)[0].mean(1)
    for slot in slots:
        begin = int(slot.start_s * SAMPLE_RATE_HZ) - 20
        part = samples[begin : int((slot.start_s + SLOT_S - 0.25) * SAMPLE_RATE_HZ)]
        if len(part) >= SAMPLE_RATE_HZ and np.abs(part).max() >= 1e-3:
            soundfile.write(
                whole.with_name(f"{slot.name}.wav"), part, SAMPLE_RATE_HZ, subtype="PCM_16"
            )


def speak_sentences(folders: Folders) -> list[Candidate]:
    """Let espeak-ng say each sentence in each voice.

    Raises:
        OSError: espeak-ng is missing or fails.
    """
    need("espeak-ng")
    target = folders.sources / "render" / "espeak"
    target.mkdir(parents=True, exist_ok=True)
    candidates = []
    for i, sentence in enumerate(SENTENCES):
        for j, (wording, voice, words_per_minute, pitch) in enumerate(VOICES):
            name = f"s{i:02d}-{j}"
            if not (target / f"{name}.wav").is_file():
                how = ["-v", voice, "-s", str(words_per_minute), "-p", str(pitch)]
                with atomic_path(target / f"{name}.wav") as partial:
                    subprocess.run(["espeak-ng", *how, "-w", str(partial), sentence], check=True)
            slot = Slot(0, name, "robot speech", (f'{wording} "{sentence}"',))
            licence = "generated with espeak-ng (output unencumbered)"
            candidates.append(_candidate("espeak", f"espeak/{name}", slot, licence, f"esp{i}"))
    return candidates


def _candidate(source: str, name: str, slot: Slot, licence: str, group: str = "") -> Candidate:
    path = f"render/{name}.wav"
    return Candidate(source, path, name, slot.label, slot.captions, Credit(licence, group=group))
