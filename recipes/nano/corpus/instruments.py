"""What the soundfonts are asked to play: General MIDI programs, drum keys and drum beats."""

# ruff: noqa: SIM905 (lists of words read best as text)
from __future__ import annotations

PROGRAMS = (
    "piano;piano;piano;honky-tonk piano;electric piano;electric piano;harpsichord;clavinet;"
    "celesta;glockenspiel;music box;vibraphone;marimba;xylophone;tubular bells;dulcimer;"
    "electric organ;electric organ;electric organ;pipe organ;reed organ;accordion;harmonica;"
    "accordion;acoustic guitar;acoustic guitar;electric guitar;electric guitar;"
    "muted electric guitar;distorted electric guitar;distorted electric guitar;-;upright bass;"
    "bass guitar;bass guitar;bass guitar;slap bass;slap bass;synth bass;synth bass;violin;viola;"
    "cello;double bass;tremolo strings;pizzicato strings;harp;timpani;string ensemble;"
    "string ensemble;string ensemble;string ensemble;choir;vocal oohs;synth voice;orchestra hit;"
    "trumpet;trombone;tuba;muted trumpet;french horn;brass section;synth brass;synth brass;"
    "saxophone;saxophone;saxophone;saxophone;oboe;cor anglais;bassoon;clarinet;piccolo;flute;"
    "recorder;pan flute;blown bottle;shakuhachi;-;ocarina;synth lead;synth lead;synth lead;"
    "synth lead;synth lead;synth lead;synth lead;synth lead;synth pad;synth pad;synth pad;"
    "synth pad;synth pad;synth pad;synth pad;synth pad;-;-;-;-;-;-;-;-;sitar;banjo;shamisen;koto;"
    "kalimba;bagpipe;fiddle;shehnai;-;agogo bells;steel drums;woodblock;taiko drum;melodic tom;"
    "synth drum;reverse cymbal;guitar fret noise;-;sea waves;birdsong;telephone ring;helicopter;"
    "applause;gunshot"
).split(";")
"""Class of each program; ``-`` is not rendered."""

NAMES = {
    0: "a grand piano",
    1: "a bright piano",
    2: "an electric grand piano",
    17: "a percussive organ",
    18: "a rock organ",
    20: "a reed organ",
    23: "a bandoneon",
    24: "a nylon string guitar",
    25: "a steel string guitar",
    26: "a jazz guitar",
    29: "an overdriven electric guitar",
    33: "a fingered bass guitar",
    34: "a picked bass guitar",
    35: "a fretless bass guitar",
    38: "a synth bass",
    48: "a string ensemble",
    50: "synth strings",
    51: "synth strings",
    64: "a soprano saxophone",
    65: "an alto saxophone",
    66: "a tenor saxophone",
    67: "a baritone saxophone",
}
"""Programs whose caption says more than their class."""

MONOPHONIC = {*range(32, 40), *range(56, 61), *range(64, 80), 22, 109, 110, 111}
UNPITCHED = {47, 55, 113, 115, 116, 117, 118, 119}
FIRST_EFFECT = 119
"""Programs from here on are noises, not instruments."""

_RANGES = {
    (28, 48): range(32, 40),
    (38, 62): (42, 57, 70),
    (29, 50): (43, 58),
    (40, 55): (47,),
    (67, 91): (8, 9, 10, 72),
    (60, 86): (13, 40, 73, 74, 75, 77, 79, 110),
    (50, 76): (41,),
    (56, 80): (56, 59, 68, 71),
    (42, 70): range(24, 31),
    (58, 75): (109,),
    (45, 65): (113, 115, 116, 117, 118),
    (55, 77): (14,),
}
KEY_RANGES = {program: keys for keys, programs in _RANGES.items() for program in programs}
"""Lowest and highest key of a program; (48, 76) if not listed."""

DRUMS = {
    35: "kick drum", 36: "kick drum", 37: "rimshot", 38: "snare drum", 39: "hand clap",
    40: "snare drum", 41: "tom drum", 42: "closed hi-hat", 43: "tom drum", 44: "pedal hi-hat",
    45: "tom drum", 46: "open hi-hat", 47: "tom drum", 48: "tom drum", 49: "crash cymbal",
    50: "tom drum", 51: "ride cymbal", 52: "china cymbal", 53: "ride cymbal", 54: "tambourine",
    55: "splash cymbal", 56: "cowbell", 57: "crash cymbal", 58: "vibraslap", 59: "ride cymbal",
    60: "bongo", 61: "bongo", 62: "conga", 63: "conga", 64: "conga", 65: "timbales",
    66: "timbales", 67: "agogo bells", 68: "agogo bells", 69: "cabasa", 70: "maracas",
    73: "guiro", 74: "guiro", 75: "claves", 76: "woodblock", 77: "woodblock", 80: "triangle",
    81: "triangle", 82: "shaker", 83: "sleigh bells", 84: "bell tree", 85: "castanets",
    86: "surdo", 87: "surdo",
}  # fmt: skip
"""Class of each key of the drum channel."""
STRUCK_ONCE = {"tom drum", "conga", "ride cymbal"}
RHYTHMIC = {
    "maracas", "shaker", "tambourine", "cowbell", "hand clap", "cabasa", "castanets",
    "sleigh bells", "woodblock", "claves",
}  # fmt: skip

KICK, SNARE, CLOSED, PEDAL, OPEN, RIDE, CRASH = 36, 38, 42, 44, 46, 51, 49


def _eighths(key: int) -> list[tuple[int, float]]:
    return [(key, beat / 2) for beat in range(8)]


_TOM_FILL = [(tom, i + beat / 4) for i, tom in enumerate((48, 45, 43, 41)) for beat in range(4)]

BEATS: dict[str, tuple[list[tuple[int, float]], list[tuple[int, float]]]] = {
    caption: (first, second if second is not None else first)
    for caption, first, second in (
        (
            "a drum kit plays a rock beat",
            [(KICK, 0), (SNARE, 1), (KICK, 2), (KICK, 2.5), (SNARE, 3), *_eighths(CLOSED)],
            None,
        ),
        (
            "a drum kit plays a disco beat",
            [
                *((KICK, beat) for beat in range(4)),
                (SNARE, 1),
                (SNARE, 3),
                *((OPEN, beat + 0.5) for beat in range(4)),
                *((CLOSED, beat) for beat in range(4)),
            ],
            None,
        ),
        (
            "a drum kit plays a slow half-time beat",
            [(KICK, 0), (SNARE, 2), (KICK, 3.5), *_eighths(CLOSED)],
            None,
        ),
        (
            "a drum kit plays a swing ride pattern",
            [
                *((RIDE, beat) for beat in (0, 1, 1.67, 2, 3, 3.67)),
                (PEDAL, 1),
                (PEDAL, 3),
            ],
            None,
        ),
        (
            "a drum kit plays a tom fill ending with a crash",
            _TOM_FILL,
            [(CRASH, 0), (KICK, 0)],
        ),
        (
            "a drum kit plays a fast punk beat",
            [
                *((KICK, beat) for beat in range(4)),
                *((SNARE, beat + 0.5) for beat in range(4)),
                *_eighths(CLOSED),
            ],
            None,
        ),
    )
}
"""Two bars of (drum key, beat) for each caption."""

SENTENCES = (
    "the train leaves at nine o'clock;please close the door behind you;it is raining outside today;"
    "welcome to the test;the quick brown fox jumps over the lazy dog;open the window;system ready;"
    "warning, low battery;hello, how are you;good morning everyone;the cat sat on the mat;"
    "turn left at the next street;one two three four five;thank you for calling;"
    "the answer is forty two;danger, please step back"
).split(";")
VOICES = (
    ("a robotic voice says", "en-us", 150, 45),
    ("a high synthetic voice says", "en-gb+f3", 160, 60),
    ("a deep robotic voice says", "en-us+m3", 130, 30),
)
"""Wording, espeak-ng voice, words per minute, pitch."""
