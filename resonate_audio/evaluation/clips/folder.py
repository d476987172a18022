"""The clips of one system: a folder that says what is in it and how it came to be.

``system.json`` says which system it is and under which protocol, ``prompts.jsonl`` what it was
asked for, and ``manifest.jsonl`` has a line for each clip there is. The manifest only grows: a clip
counts as done when its line and its file are there and the file is the one of the line.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from resonate_audio.core import files
from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import json_line, parse_object, read_object
from resonate_audio.core.documents.text import read_bytes, read_text
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import append_text, atomic_path
from resonate_audio.core.paths import files_in, same_name
from resonate_audio.evaluation.clips.prompt_sets import PromptSet, read_prompt_set, write_prompt_set

SYSTEM, MANIFEST, PROMPTS = "system.json", "manifest.jsonl", "prompts.jsonl"
AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".opus", ".aiff", ".aif")
_PREFIX = "prompt_"
_TAKE = re.compile(r"(?P<id>.+)_(?P<take>\d{1,3})")

ClipKey = tuple[str, int]
"""Prompt's id, number of the take."""


class System(FrozenConfig):
    """Who made the clips of a folder, and under which conditions."""

    name: str = Field(min_length=1)
    source: str
    """Where the sounds come from: a model, a command, a folder."""
    protocol: dict[str, str] = Field(default_factory=dict)
    """What must be equal for a comparison: prompt set, its hash, takes."""
    facts: dict[str, str] = Field(default_factory=dict)
    """What may differ between systems: parameters, NFE, guidance, model."""


class ClipLine(FrozenConfig):
    """One line of the manifest."""

    id: str
    prompt: str
    seed: int = Field(0, ge=0)
    """Number of the take, from 0."""
    noise_seed: int | None = None
    """What its noise was drawn from; None if the system says nothing of it."""
    file: str
    """Relative to the folder."""
    sha256: str
    """Of the file's bytes."""
    sample_rate_hz: int | None = None
    """None if the file is no audio that can be read."""
    seconds: float | None = None
    nfe: int | None = None
    """Steps of the solver, as papers count function evaluations."""
    wall_s: float | None = None
    """Seconds that making it took, its share of a batch."""

    @property
    def key(self) -> ClipKey:
        """Which clip it is about."""
        return self.id, self.seed


@dataclass
class Manifest:
    """A system's folder."""

    folder: Path
    system: System
    clips: dict[ClipKey, ClipLine] = field(default_factory=dict)
    """A later line about a clip stands for the earlier."""

    def append(self, lines: Sequence[ClipLine]) -> None:
        """Add lines, and come back when they are on the disk.

        Raises:
            OutputError: the disk is full, or the file cannot be written.
        """
        text = "".join(json_line(line, exclude_none=True) for line in lines)
        append_text(self.folder / MANIFEST, text)
        self.clips.update({line.key: line for line in lines})

    def file_of(self, line: ClipLine) -> Path:
        """Where a clip lies."""
        return self.folder / line.file

    def is_done(self, key: ClipKey) -> bool:
        """Whether a clip's line and its file are there, and the file is the one of the line."""
        line = self.clips.get(key)
        return line is not None and file_sha256(self.file_of(line)) == line.sha256


def open_manifest(folder: Path, system: System, prompts: PromptSet) -> Manifest:
    """Begin a folder, or go on with it.

    Raises:
        ManifestError: it holds clips of another system, or under another protocol; names the field.
        OutputError: it cannot be written.
    """
    path = folder / SYSTEM
    if path.exists():
        manifest = read_manifest(folder)
        _check_same(manifest.system, system, path)
        _drop_half_line(folder / MANIFEST)
        return manifest
    if (folder / MANIFEST).exists():
        raise ManifestError(f"{folder}: has {MANIFEST} but no {SYSTEM}; choose another folder")
    write_prompt_set(folder / PROMPTS, prompts)
    with atomic_path(path) as temporary:
        temporary.write_text(system.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return Manifest(folder, system)


def read_manifest(folder: Path) -> Manifest:
    """Read a folder; a half-written last line is one that was not written.

    Raises:
        ManifestError: there is no ``system.json``, or a line is broken; names file and line.
    """
    path = folder / SYSTEM
    if not path.is_file():
        raise ManifestError(
            f"{path}: not there; make or list clips with resonate eval generate, which writes it"
        )
    system = parse_config(System, read_object(path), str(path), ManifestError)
    lines = [
        parse_config(ClipLine, parse_object(line, place), place, ManifestError)
        for number, line in enumerate(_whole_lines(folder / MANIFEST), 1)
        for place in [f"{folder / MANIFEST}, line {number}"]
        if line.strip()
    ]
    return Manifest(folder, system, {line.key: line for line in lines})


def read_system_prompts(folder: Path) -> PromptSet:
    """The prompts that a folder's system was asked for, under the name of their set.

    Raises:
        ManifestError: they are missing, or not those that ``system.json`` says.
    """
    protocol = read_manifest(folder).system.protocol
    found = read_prompt_set(folder / PROMPTS)
    prompts = PromptSet(protocol.get("prompt_set", found.name), found.items)
    if protocol.get("prompt_set_sha256", prompts.sha256) != prompts.sha256:
        raise ManifestError(f"{folder / PROMPTS}: these are not the prompts that {SYSTEM} says")
    return prompts


def file_sha256(path: Path) -> str | None:
    """Hash of a file's bytes, in hex digits; None if there is no such file.

    Raises:
        ManifestError: it is there and cannot be read.
    """
    try:
        return files.file_sha256(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ManifestError(f"{path}: cannot read it ({error.strerror or error})") from error


@dataclass(frozen=True)
class FoundClips:
    """What a folder of somebody else's clips has, by prompt."""

    files: Mapping[ClipKey, Path]
    num_takes: int
    missing: tuple[ClipKey, ...]
    """Takes of prompts without a file."""
    surplus: tuple[Path, ...]
    """Sounds whose name is no prompt's id."""


def find_clips(folder: Path, prompts: PromptSet) -> FoundClips:
    """Match files to prompts by their names.

    ``0001.wav``, ``prompt_0001.wav`` and ``0001_2.wav`` belong to the prompt ``0001`` or
    ``prompt_0001``; an underscore and a number at the end tell takes apart. Takes are counted
    from 0 in the order of the numbers found, whatever number a maker begins with.

    Raises:
        ManifestError: there is no such folder, no sound in it belongs to a prompt, or two are the
            same take of one.
    """
    if not folder.is_dir():
        raise ManifestError(f"{folder}: no such folder; expected one of clips named by prompt id")
    ids = {same_name(_plain(item.id)): item.id for item in prompts.items} | {
        same_name(item.id): item.id for item in prompts.items
    }
    named: dict[ClipKey, Path] = {}
    surplus = []
    for path in files_in(folder, AUDIO_SUFFIXES):
        key = _match(same_name(path.stem), ids)
        if key is None:
            surplus.append(path)
        elif key in named:
            raise ManifestError(f"{path}: {named[key].name} is the same take of prompt {key[0]}")
        else:
            named[key] = path
    if not named:
        raise ManifestError(
            f"{folder}: none of its {len(surplus)} sounds is named by the id of a prompt, such as "
            f"{prompts.items[0].id}.wav"
        )
    order = {number: take for take, number in enumerate(sorted({take for _, take in named}))}
    files = {(id, order[number]): path for (id, number), path in named.items()}
    wanted = [(item.id, take) for item in prompts.items for take in range(len(order))]
    missing = tuple(key for key in wanted if key not in files)
    return FoundClips(files, len(order), missing, tuple(surplus))


def _match(stem: str, ids: Mapping[str, str]) -> ClipKey | None:
    for name in (stem, _plain(stem)):
        if name in ids:
            return ids[name], -1
        take = _TAKE.fullmatch(name)
        if take is not None and take["id"] in ids:
            return ids[take["id"]], int(take["take"])
    return None


def _plain(id: str) -> str:
    return id.removeprefix(_PREFIX)


def _check_same(there: System, now: System, path: Path) -> None:
    for name, before, after in _differences(there, now):
        raise ManifestError(
            f"{path}: {name} is {before!r} there and {after!r} now; choose another folder"
        )


def _differences(there: System, now: System) -> Iterable[tuple[str, str | None, str | None]]:
    for name in ("name", "source"):
        if getattr(there, name) != getattr(now, name):
            yield name, getattr(there, name), getattr(now, name)
    for before, after in ((there.protocol, now.protocol), (there.facts, now.facts)):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                yield name, before.get(name), after.get(name)


def _whole_lines(path: Path) -> list[str]:
    return read_text(path).split("\n")[:-1] if path.exists() else []


def _drop_half_line(path: Path) -> None:
    """What a killed process left of a line would run into the next one."""
    if path.exists():
        data = read_bytes(path)
        if not data.endswith(b"\n"):
            os.truncate(path, data.rfind(b"\n") + 1)
