"""A listening test: which clips of which systems, on which scales, in a folder that holds it all.

The folder has ``test.yaml`` (this module's `ListeningTest`), ``clips/`` (WAV files under names that
say nothing, without the tags of the originals) and ``answers.sqlite``. It can be copied and served
anywhere.
"""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from resonate_audio.core.config import FrozenConfig, load_config, parse_config
from resonate_audio.core.documents.yaml_text import format_yaml
from resonate_audio.core.errors import InputError, ManifestError, OutputError
from resonate_audio.core.files import atomic_path, file_inside, output_error
from resonate_audio.core.paths import files_in, given_path, listed_path, same_name
from resonate_audio.core.types import Audio
from resonate_audio.data.prompts import read_prompt_rows
from resonate_audio.evaluation.clips.folder import AUDIO_SUFFIXES
from resonate_audio.evaluation.people.lines import read_lines
from resonate_audio.evaluation.people.ratings import TTA_PROBE

TEST_FILE, CLIP_FOLDER = "test.yaml", "clips"
SLUG = r"[a-z0-9][a-z0-9-]{0,63}"
PREFERENCE = "preference"
"""The axis of a test of pairs: 1 for the chosen clip, 0 for the other, a half each for a tie."""
_PROBE = re.compile(r"(?P<file>.+)=(?P<low>[^,=]+),(?P<high>[^,=]+)")


class Axis(FrozenConfig):
    """One question and its scale of whole numbers."""

    name: str = Field(min_length=1)
    question: str = Field(min_length=1)
    low: int = 1
    high: int = 5
    low_label: str = "Bad"
    high_label: str = "Excellent"
    shows_prompt: bool = False
    """Whether the text is on show while this is answered."""

    @model_validator(mode="after")
    def _check_scale(self) -> Axis:
        if self.low >= self.high:
            raise ValueError(f"scale of {self.low} to {self.high}: expected low under high")
        return self


Preset = Literal["ovl", "ovl-rel", "tta-bench", "ab"]
_OVL = Axis(name="OVL", question="How good does it sound, whatever it is meant to be?")
_REL = Axis(
    name="REL",
    question="How well does the sound fit the text?",
    low_label="Not at all",
    high_label="Perfectly",
    shows_prompt=True,
)


def _tta(name: str, question: str, low: str, high: str, shows_prompt: bool = False) -> Axis:
    return Axis(
        name=name,
        question=question,
        high=10,
        low_label=low,
        high_label=high,
        shows_prompt=shows_prompt,
    )


PRESETS: Mapping[Preset, tuple[Axis, ...]] = {
    "ovl": (_OVL,),
    "ovl-rel": (_OVL, _REL),
    "tta-bench": (
        _tta("complexity", "How rich is the scene?", "One plain sound", "Many layers"),
        _tta("enjoyment", "How much do you like to listen to it?", "Not at all", "Very much"),
        _tta("quality", "How clean is it technically?", "Very poor", "Flawless"),
        _tta("usefulness", "How usable is it in a film or a game?", "Unusable", "As it is"),
        _tta("alignment", "How well does it fit the text?", "Not at all", "Perfectly", True),
    ),
    "ab": (
        Axis(
            name=PREFERENCE,
            question="Which sound is the better one for this text?",
            low=0,
            high=1,
            low_label="The other",
            high_label="This one",
            shows_prompt=True,
        ),
    ),
}
"""Questions by name of the preset. Those that hide the text are all asked before the others."""


class BlindClip(FrozenConfig):
    """One sound of the test."""

    id: str = Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")
    """Random; the name of its file and all that a server says of it. A test may have been copied
    from elsewhere, so it can be no path."""
    system: str = Field(min_length=1)
    name: str = Field(min_length=1)
    """Stem of the original file; clips of one name answer one prompt."""
    prompt: str = ""
    seconds: float = Field(gt=0)
    probe: tuple[float, float] | None = None
    """Lowest and highest believable score, where the answer is known beforehand."""


class Design(FrozenConfig):
    """What the maker of a test decides."""

    title: str = Field("Listening test", min_length=1, max_length=200)
    preset: Preset = "ovl-rel"
    instructions: str = Field(
        "Use headphones in a quiet place. Keep the volume as it is once it is comfortable.",
        max_length=2000,
    )
    num_repeats: int = Field(2, ge=0, le=50)
    """Clips (or pairs) that everybody hears a second time, unannounced."""
    is_open: bool = True
    """Whether whoever opens the page may take part; else only those with a link of their own."""
    max_raters: int = Field(200, ge=1, le=10_000)
    max_raters_per_address: int = Field(20, ge=1, le=10_000)
    """Raters that one address may take in while the server runs; personal links do not count."""


class ListeningTest(Design):
    """A test as ``test.yaml`` says it."""

    seed: int = Field(0, ge=0)
    """With the rater's token, decides the order."""
    clips: tuple[BlindClip, ...] = Field(min_length=1)

    @property
    def axes(self) -> tuple[Axis, ...]:
        """Questions in the order of the preset."""
        return PRESETS[self.preset]

    @property
    def compares(self) -> bool:
        """Whether pairs are compared, not single clips rated."""
        return self.preset == "ab"

    @property
    def systems(self) -> tuple[str, ...]:
        """Sorted, without the probes."""
        return tuple(sorted({clip.system for clip in self.clips if clip.probe is None}))

    def clip(self, id: str) -> BlindClip:
        """The clip of an id that came from this test."""
        return next(clip for clip in self.clips if clip.id == id)


@dataclass(frozen=True)
class GivenClip:
    """A sound on its way into a test."""

    system: str
    name: str
    prompt: str
    audio: Audio
    probe: tuple[float, float] | None = None


def create_test(folder: Path, design: Design, given: Sequence[GivenClip]) -> ListeningTest:
    """Write a test into a new folder, whole or not at all.

    Raises:
        InputError: the clips do not make a test, or the folder's name is none for an address.
        OutputError: the folder exists or cannot be written.
    """
    if not re.fullmatch(SLUG, folder.name):
        raise InputError(
            f"{folder.name!r}: expected a name of small letters, digits and hyphens, 64 at most"
        )
    check_clips(design, given)
    with _new_folder(folder) as place:
        clips = tuple(_write_clip(place / CLIP_FOLDER, clip) for clip in given)
        test = ListeningTest(**design.model_dump(), seed=secrets.randbelow(2**31), clips=clips)
        with atomic_path(place / TEST_FILE) as temporary:
            text = format_yaml(test.model_dump(mode="json"))
            temporary.write_text(text, encoding="utf-8")
    return test


def open_test(folder: Path) -> ListeningTest:
    """Read the test of a folder.

    Raises:
        ConfigError: there is none, or a field is wrong.
        ManifestError: a clip's file is missing.
    """
    test = load_config(ListeningTest, folder / TEST_FILE)
    for clip in test.clips:
        clip_path(folder, clip)
    return test


def clip_path(folder: Path, clip: BlindClip) -> Path:
    """Where a clip lies.

    Raises:
        ManifestError: it is not in the folder, or a link that leads out of it.
    """
    path = file_inside(folder, f"{CLIP_FOLDER}/{clip.id}.wav")
    if path is None:
        place = folder / CLIP_FOLDER / f"{clip.id}.wav"
        raise ManifestError(f"{place}: missing; copy the folder as a whole, without links")
    return path


def parse_design(values: Mapping[str, object], source: str) -> Design:
    """Design from plain values.

    Raises:
        ConfigError: a field is unknown or out of range; names it.
    """
    return parse_config(Design, dict(values), source)


def check_clips(design: Design, given: Sequence[GivenClip]) -> None:
    """Refuse clips that do not make a test.

    Raises:
        InputError: no clip, one twice, one missing, a probe among pairs, or a prompt is needed.
    """
    rated = [clip for clip in given if clip.probe is None]
    systems = sorted({clip.system for clip in rated})
    if not rated:
        raise InputError("no clip to listen to")
    if design.preset == "ab" and len(systems) < 2:
        raise InputError(f"preset ab compares systems; got {systems[0]} only, expected two or more")
    if design.preset == "ab" and len(rated) < len(given):
        raise InputError("preset ab takes no probe: there is no scale to believe in")
    if len({(clip.system, clip.name) for clip in given}) < len(given):
        raise InputError("two clips of a system have the same name")
    for system in systems:
        missing = {clip.name for clip in rated} - {
            clip.name for clip in rated if clip.system == system
        }
        if missing:
            raise InputError(f"system {system} has no clip {min(missing)}; others have")
    _check_prompts(design, given)


def _check_prompts(design: Design, given: Sequence[GivenClip]) -> None:
    if not any(axis.shows_prompt for axis in PRESETS[design.preset]):
        return
    prompts: dict[str, str] = {}
    for clip in given:
        if not clip.prompt.strip():
            raise InputError(
                f"clip {clip.name} of {clip.system} has no text, and preset {design.preset} "
                "shows it; give the texts, or use preset ovl"
            )
        if prompts.setdefault(clip.name, clip.prompt) != clip.prompt:
            raise InputError(f"clips called {clip.name} have different texts")


def read_systems(
    systems: Mapping[str, Path], prompts: Mapping[str, str] | None = None
) -> list[GivenClip]:
    """Clips of a folder a system, which belong together by the stems of their names.

    A text is taken from ``prompts`` by that stem, else from what the file says it was made from.

    Raises:
        InputError: no such folder, no sound in it.
        AudioError: a file is not audio.
    """
    from resonate_audio.audio.io import read_audio

    given = []
    for system, folder in systems.items():
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; expected the clips of {system}")
        files = files_in(folder, AUDIO_SUFFIXES)
        if not files:
            raise InputError(f"{folder}: no sound in it; expected the clips of {system}")
        for path in files:
            audio = read_audio(path)
            own = audio.recipe.prompt if audio.recipe else ""
            name = same_name(path.stem)
            given.append(GivenClip(system, name, (prompts or {}).get(name, own), audio))
    return given


def read_clip_list(path: Path) -> list[GivenClip]:
    """Clips of a CSV or JSONL with ``file,system,prompt`` and, if wanted, ``name``.

    Files are relative to the list. Clips of one name answer one prompt; without a name it is the
    stem of the file.

    Raises:
        ManifestError: a column is missing or empty; names the line.
        AudioError: a file is not audio.
    """
    from resonate_audio.audio.io import read_audio

    given = []
    for place, fields in read_lines(path, ("file", "system", "prompt")):
        for name in ("file", "system", "prompt"):
            if not isinstance(fields.get(name), str) or not fields[name].strip():
                raise ManifestError(f"{place}: {name} is empty or no text")
        file = listed_path(path, str(fields["file"]))
        name = str(fields.get("name") or file.stem)
        audio = read_audio(file)
        given.append(GivenClip(str(fields["system"]), name, str(fields["prompt"]), audio))
    return given


def read_prompts(path: Path) -> dict[str, str]:
    """Texts by name of the clip: any file of prompts whose rows have a ``name`` or an ``id``.

    Raises:
        ManifestError: as for `read_prompt_rows`, a name is missing, or stands there twice.
    """
    prompts: dict[str, str] = {}
    for row in read_prompt_rows(path):
        name = row.fields.get("name", row.fields.get("id"))
        if not isinstance(name, str | int) or name == "":
            raise ManifestError(f"{row.place}: no name; expected the name of a clip and its prompt")
        name = same_name(str(name))
        if name in prompts:
            raise ManifestError(f"{row.place}: {name} stands there twice")
        prompts[name] = row.prompt
    return prompts


def read_probe(text: str) -> GivenClip:
    """A probe from ``FILE=LOW,HIGH``: a sound whose believable scores are known.

    Raises:
        InputError: another form.
        AudioError: the file is not audio.
    """
    from resonate_audio.audio.io import read_audio

    found = _PROBE.fullmatch(text)
    try:
        low, high = float(found["low"]), float(found["high"])  # type: ignore[index]
    except (TypeError, ValueError) as error:
        raise InputError(
            f"probe {text!r}: expected FILE=LOW,HIGH, such as noise.wav=1,2"
        ) from error
    path = given_path(found["file"])  # type: ignore[index]
    audio = read_audio(path)
    prompt = audio.recipe.prompt if audio.recipe else path.stem.replace("_", " ")
    return GivenClip(TTA_PROBE, path.stem, prompt, audio, (low, high))


def _write_clip(folder: Path, clip: GivenClip) -> BlindClip:
    """Write a sound without its tags, which would tell the model and the text."""
    from resonate_audio.audio.io import write_audio

    blind = BlindClip(
        id=secrets.token_hex(8),
        system=clip.system,
        name=clip.name,
        prompt=clip.prompt,
        seconds=clip.audio.duration_s,
        probe=clip.probe,
    )
    bare = Audio(clip.audio.samples, clip.audio.sample_rate_hz)
    write_audio(folder / f"{blind.id}.wav", bare)
    return blind


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that becomes ``folder`` if the block succeeds."""
    if folder.exists():
        raise OutputError(f"{folder}: exists already; choose another name")
    place = folder.with_name(f".{secrets.token_hex(4)}.part")
    try:
        (place / CLIP_FOLDER).mkdir(parents=True)
        yield place
        place.rename(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(place, ignore_errors=True)
