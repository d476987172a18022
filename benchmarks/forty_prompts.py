"""Forty prompts to hear and see: a recording where there is one, and what each model makes of it.

    python benchmarks/forty_prompts.py --corpus ../shared/corpus [--before FOLDER] [--list FILE]

Writes ``docs/forty.md`` and ``docs/sounds/``. Twenty prompts are captions of recordings that no
model met (splits "test" and "val", under CC0, CC-BY or in the public domain, at most one a class),
twenty are of ``fresh.jsonl``; both evenly spaced, none chosen. Seed 0, five seconds, each model in
its own steps.

The nano of before is another version of this package. ``--list`` writes the prompts and ends; a
checkout of that version makes them, and ``--before`` is the folder with what it made:

    python benchmarks/forty_prompts.py --corpus ../shared/corpus --list prompts.txt
    git worktree add ../old 233caf9
    PYTHONPATH=../old python -m resonate_audio generate --prompts prompts.txt --seed 0 -o before/
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from linked_sounds import RATE_HZ, SOUNDS, linked, write_linked

from resonate_audio import Audio, Resonate, read_audio
from resonate_audio.audio.io import read_recipe
from resonate_audio.core.documents.json_text import read_json_lines
from resonate_audio.nano.bundle import PROMPTS_FOLDER
from resonate_audio.nano.judges.sounds import decode_clips, read_clips

PAGE = Path(__file__).resolve().parents[1] / "docs" / "forty.md"
EACH = 20
DURATION_S = 5.0
SHORTEST_S = 0.5
FREE = re.compile(r"CC0|CC-BY(-\d\.\d)?|public[ -]domain", re.IGNORECASE)
Thing = TypeVar("Thing")
COLUMNS = ("recording", "nano-before", "nano", "nano-grpo")

HEAD = """\
# Forty prompts to hear

A click on a picture plays it. Five seconds from left to right, 30 Hz to 22 kHz from bottom to top;
seed 0, every model in its own steps, nothing chosen: the first twenty prompts are captions of
recordings that no model met, evenly spaced; the others are evenly spaced among those of
`fresh.jsonl`. “Before” is the nano of 28 November (16 kHz, 25 steps with
guidance). Made by `benchmarks/forty_prompts.py`; how the two of now compare over many prompts is
told in [reinforcement](reinforcement.md#nano-before-and-after).

| prompt | recording | before | nano | nano-grpo |
|---|---|---|---|---|"""
FOOT = """
## The recordings

As the corpus of `recipes/nano/prepare` has them: mixed to one channel, cut, and written here as
MP3. Its `LICENCES.md` names the origin of each source.

| prompt | recording, licence |
|---|---|"""


@dataclass
class Row:
    """A prompt, its sounds by column, and whose recording it is."""

    prompt: str
    sounds: dict[str, Audio]
    licence: str = ""


def main() -> None:
    """Choose, make, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, required=True, help="folder with manifest.jsonl")
    parser.add_argument(
        "--before", type=Path, help="what an older nano made of the prompts, if anew"
    )
    parser.add_argument("--list", type=Path, help="write the prompts here, and end")
    options = parser.parse_args()
    rows = [*recorded(options.corpus), *fresh()]
    if options.list is not None:
        options.list.write_text("".join(f"{row.prompt}\n" for row in rows), encoding="utf-8")
        return
    if options.before is not None:
        add_older(rows, options.before)
    for name in ("nano", "nano-grpo"):
        model = Resonate.from_pretrained(name, device="cpu")
        made = model.generate([row.prompt for row in rows], seeds=0, duration_s=DURATION_S)
        for row, sound in zip(rows, made, strict=True):
            row.sounds[name] = sound
    for number, row in enumerate(rows, 1):
        for column, sound in row.sounds.items():
            write_linked(f"{number:02d}-{column}", sound, DURATION_S)
    PAGE.write_text(page(rows), encoding="utf-8")


def recorded(corpus: Path) -> list[Row]:
    """Captions of recordings, with the recordings."""
    clips: dict[str, dict[str, Any]] = {}
    for split in ("test", "val"):
        for clip in read_clips(corpus, split):
            fits = SHORTEST_S <= clip["duration"] <= DURATION_S and FREE.fullmatch(clip["licence"])
            if fits:
                clips.setdefault(clip["label"], clip)
    chosen = spaced(sorted(clips.values(), key=lambda clip: clip["id"]))
    sounds = decode_clips(corpus, chosen, RATE_HZ)
    return [
        Row(
            clip["caption"],
            {"recording": Audio(samples, RATE_HZ)},
            source_of(clip),
        )
        for clip, samples in zip(chosen, sounds, strict=True)
    ]


def source_of(clip: dict[str, Any]) -> str:
    """Whose it is, and its licence."""
    told = [clip["id"], clip.get("author"), clip.get("url"), clip["licence"]]
    return ", ".join(filter(None, told))


def fresh() -> list[Row]:
    """Prompts of one sound, two together and two in order."""
    lines = list(read_json_lines(PROMPTS_FOLDER / "fresh.jsonl"))
    return [Row(line["prompt"], {}) for _, line in spaced(lines)]


def spaced(things: list[Thing]) -> list[Thing]:
    """As many as `EACH`, evenly spaced."""
    return [things[index * len(things) // EACH] for index in range(EACH)]


def add_older(rows: list[Row], folder: Path) -> None:
    """What another version made, which its files tell by their prompts."""
    for path in sorted(folder.glob("*.wav")):
        recipe = read_recipe(path)
        for row in rows:
            if recipe is not None and recipe.prompt == row.prompt:
                row.sounds["nano-before"] = read_audio(path)


def page(rows: list[Row]) -> str:
    """The page, with what is said above the table."""
    lines = [HEAD]
    for number, row in enumerate(rows, 1):
        cells = [cell(number, column, row.prompt) for column in COLUMNS]
        lines.append(f"| {row.prompt} | {' | '.join(cells)} |")
    lines.append(FOOT)
    lines += [f"| {row.prompt} | {row.licence} |" for row in rows if row.licence]
    return "\n".join(lines) + "\n"


def cell(number: int, column: str, prompt: str) -> str:
    """A picture that leads to its sound, of this run or one that is there already."""
    name = f"{number:02d}-{column}"
    there = (SOUNDS / f"{name}.mp3").exists()
    return linked(name, f"{prompt}, {column}") if there else ""


if __name__ == "__main__":
    main()
