"""Captions that a file's name spells out: spoken words, and chords of a strummed guitar."""

# ruff: noqa: SIM905 (lists of words read best as text)
from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from corpus.sources import stable_hash

NUMBERS = dict(
    enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
        "fifteen sixteen seventeen eighteen nineteen".split()
    )
)
NUMBERS |= {
    10 * i: word
    for i, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
NUMBERS[100] = "one hundred"
LANGUAGES = {"es": "Spanish", "fr": "French", "it": "Italian", "ru": "Russian"}
WORDS = {"oclock": "o'clock", "a-m": "a m", "p-m": "p m"}
PHONETIC = (
    "alpha bravo charlie delta echo foxtrot golf hotel india juliet kilo lima mike november oscar "
    "papa quebec romeo sierra tango uniform victor whiskey x-ray yankee zulu"
).split()
DAYS = "sunday monday tuesday wednesday thursday friday saturday".split()
MONTHS = (
    "january february march april may june july august september october november december"
).split()
COCKPIT = {
    "dont-sink": "don't sink",
    "too-low-flaps": "too low, flaps",
    "too-low-gear": "too low, gear",
    "too-low-terrain": "too low, terrain",
}
MAX_DIGIT_TAKES = 8
SPOKEN_LETTERS = (2, 80)


def caption_of(kind: str, path: str, folder: Path) -> str | None:
    """Word the caption of ``path`` (relative to ``folder``, without suffix), or None to reject."""
    if kind.startswith("ast_"):
        return telephone(kind.removeprefix("ast_"), path)
    return KINDS[kind](path, folder)


def telephone(language: str, path: str) -> str | None:
    """Digits, letters, days and months of a telephone exchange's voice."""
    who = "a man" if language == "it" else "a woman"
    name = path.rsplit("/", 1)[-1]
    if "/digits/" in f"/{path}":
        if name.isdigit():
            number = NUMBERS.get(int(name))
            where = f" in {LANGUAGES[language]}" if language in LANGUAGES else ""
            return f"{who} says the number {number}{where}" if number else None
        for prefix, words in (("day-", DAYS), ("mon-", MONTHS)):
            if name.startswith(prefix):
                return f'a woman says "{words[int(name.removeprefix(prefix))]}"'
        return f'a woman says "{WORDS.get(name, name)}"'
    if "letters/" in path:
        if len(name) == 1:
            return f"a woman says the letter {name.upper()}"
        return 'a woman says "{}"'.format(name.replace("-", " ").replace("aimation", "amation"))
    return f'a woman says "{PHONETIC[ord(name[0]) - ord("a")]}"' if "phonetic/" in path else None


def strum(path: str, _: Path) -> str | None:
    """A chord of an acoustic guitar, as in ``Csharp_minor7b5_up_01``."""
    name = path.rsplit("/", 1)[-1].lower()
    found = re.match(r"([a-g])(sharp|flat|)_?(major|minor7b5|minro7b5|minor)", name)
    if not found:
        return None
    letter, accidental, quality = found.groups()
    note = f"{letter.upper()} {accidental}".strip()
    article = "an" if letter in "aef" else "a"
    quality = "half-diminished" if "7b5" in quality else quality
    stroke = next(
        (f" with {s}stroke" for s in ("a down", "an up") if f"_{s.split()[1]}" in name), ""
    )
    return f"an acoustic guitar strums {article} {note} {quality} chord{stroke}"


def digit(path: str, _: Path) -> str | None:
    """``<digit>_<speaker>_<take>``, the first eight takes of each man."""
    number, _speaker, take = path.rsplit("/", 1)[-1].split("_")
    if int(take) >= MAX_DIGIT_TAKES:
        return None
    word = NUMBERS[int(number)]
    wordings = (
        f"a man says the digit {word}",
        f'a male voice says "{word}"',
        f"a man says {word}",
    )
    return wordings[stable_hash(path.rsplit("/", 1)[-1]) % 3]


def stamp(path: str, folder: Path) -> str | None:
    """What a spoken description says: the first line of the text beside it."""
    text = folder / f"{path.removesuffix('_desc')}.txt"
    if not text.is_file():
        return None
    lines = text.read_text(encoding="utf-8", errors="replace").splitlines()
    said = lines[0].strip().rstrip(".").strip() if lines else ""
    low, high = SPOKEN_LETTERS
    return f'a person says "{said[0].lower()}{said[1:]}"' if low <= len(said) <= high else None


def cockpit(path: str, _: Path) -> str:
    """A warning of the ground proximity system."""
    name = path.rsplit("/", 1)[-1]
    return f'a cockpit warning voice says "{COCKPIT.get(name, name.replace("-", " "))}"'


def collision(path: str, _: Path) -> str:
    """An advisory of the collision avoidance system."""
    return f'a female cockpit voice says "{path.rsplit("/", 1)[-1].replace("_", " ")}"'


def channel(path: str, _: Path) -> str:
    """A loudspeaker's name."""
    name = path.rsplit("/", 1)[-1].replace("audio-channel-", "")
    return 'a woman says "{}"'.format(name.replace("-", " "))


KINDS: dict[str, Callable[[str, Path], str | None]] = {
    "strum": strum,
    "fsdd": digit,
    "tuxdesc": stamp,
    "mkviii": cockpit,
    "tcas": collision,
    "fdo": channel,
}
