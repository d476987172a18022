"""A recipe for a folder of sounds: what somebody has, taught to a model that exists."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from resonate_audio.core.config import parse_config
from resonate_audio.core.errors import InputError
from resonate_audio.data.corpora import folder as told_in
from resonate_audio.data.manifest import Clip, write_manifest
from resonate_audio.data.sound_files import SoundFiles
from resonate_audio.model.checkpoint import write_weights
from resonate_audio.model.folder import (
    PARTS,
    TEXT_ENCODER,
    WEIGHTS_NAME,
    own_adapter,
    part_folder,
    read_config,
    read_part,
)
from resonate_audio.model.hub import find_model
from resonate_audio.model.presets import PRESETS, ModelConfig
from resonate_audio.training.recipes.model import Say
from resonate_audio.training.recipes.pretrain import PretrainRecipe

WORDS = re.compile(r"[A-Za-z\u00c0-\uffff]+")
NUM_HEARD = 3
"""Captions of which sounds are made on the way."""
FRAMES_PER_BATCH = 2048
FULL_RATE, LORA_RATE = 2e-5, 2e-4
"""Learning rates; adapters begin at zero and take a larger one."""
NUM_STEPS = 500


def recipe_for(
    folder: Path, model: str, output: Path, lora: bool, num_steps: int, say: Say
) -> PretrainRecipe:
    """Fine-tuning of a model on a folder of sounds, with settings that suit a small folder.

    The list of clips is written into ``output``, and where the model is an adapter beside its base,
    the transformer to start from.

    Args:
        folder: sounds; a caption lies beside each (``.txt``, ``.json``), in a ``metadata.csv`` or
            ``.jsonl``, or is what the file is called.
        model: a name, a folder or a hub id.
        output: folder of the run.
        lora: train an adapter instead of every weight.
        num_steps: updates.
        say: told how many sounds there are.

    Raises:
        ManifestError: there is no such folder, or a caption in it is broken.
        InputError: there is no sound in it, or one without words in its name.
        ModelNotFoundError: there is no such model.
    """
    files = SoundFiles(folder)
    told = captions_told(files)
    clips = list(find_clips(files, told))
    if not clips:
        raise InputError(f"{folder}: no sound in it (.wav, .flac, .mp3, .ogg, .opus, …)")
    source = find_model(model)
    config = read_config(source)
    captions = list(dict.fromkeys(clip.caption for clip in clips))
    say(f"{folder}: {len(clips)} sounds, {len(captions)} captions, such as “{captions[0][:60]}”")
    named = [clip for clip in clips if clip.audio_id not in told]
    if named:
        first = f"{named[0].audio_id} is “{named[0].caption}”"
        say(f"note: {len(named)} of them have no text and are captioned by their name: {first}")
    if files.num_unreadable:
        say(f"note: left out as of a kind that cannot be read (.m4a, …): {files.num_unreadable}")
    manifest = output / "clips.jsonl"
    write_manifest(manifest, clips)
    inside = part_folder(source, TEXT_ENCODER)
    parts = {part: part_folder(source, part) / WEIGHTS_NAME for part in PARTS}
    if own_adapter(source) is not None:
        parts["transformer"] = output / "start" / WEIGHTS_NAME
        state = read_part(source, config, "transformer").state_dict()
        write_weights(parts["transformer"], state, {})
    weights = {part: str(file) for part, file in parts.items()}
    values: dict[str, Any] = {
        "preset": config.name if config.name in PRESETS else next(iter(PRESETS)),
        "model": config.model_dump(mode="json"),
        "data": {"manifest": str(manifest), "cache": str(output / "cache")},
        "weights": weights | ({"text_encoder": str(inside)} if inside.is_dir() else {}),
        "window_s": windows(config),
        "flow": {"frames_per_batch": FRAMES_PER_BATCH},
        "listen": {"prompts": captions[:NUM_HEARD], "duration_s": config.default_duration_s},
        "optim": {
            "learning_rate": LORA_RATE if lora else FULL_RATE,
            "schedule": "constant",
            "warmup_steps": min(20, num_steps),
        },
        "ema": {"kind": "constant", "decay": 0.99},
        "lora": {"rank": 16} if lora else None,
        "run": {
            "output": str(output),
            "num_steps": num_steps,
            "precision": "auto",
            "log_every": max(1, num_steps // 50),
            "save_every": max(1, num_steps // 5),
            "sample_every": max(1, num_steps // 5),
        },
    }
    return parse_config(PretrainRecipe, values, f"a recipe for {folder}")


def captions_told(files: SoundFiles) -> dict[str, tuple[str, ...]]:
    """Captions of the sounds that have a text, by path.

    Raises:
        ManifestError: one is broken.
    """
    return {entry.path: entry.captions for entry in told_in(files) if entry.path and entry.captions}


def find_clips(files: SoundFiles, told: Mapping[str, tuple[str, ...]]) -> Iterator[Clip]:
    """Every sound of a folder with its caption, by path.

    Args:
        files: in the folder.
        told: captions of those that have a text; another's is what its file is called.

    Raises:
        InputError: a sound has no caption and no word in its name.
    """
    folder = files.root
    for path in sorted(files.paths()):
        captions = told.get(path) or (words_of(path),)
        if not captions[0]:
            raise InputError(
                f"{folder / path}: no caption; write one into {PurePosixPath(path).stem}.txt "
                "beside it, or name the file after what is heard"
            )
        yield Clip(
            audio_id=path,
            audio_path=str((folder / path).resolve()),
            caption=captions[0],
            captions=tuple(captions[1:]),
        )


def words_of(path: str) -> str:
    """What a file's name says: ``dog_bark-02.wav`` is “dog bark”."""
    return " ".join(WORDS.findall(PurePosixPath(path).stem)).lower()


def windows(config: ModelConfig) -> list[float]:
    """Lengths that clips are padded to: the longest that the model takes, and parts of it."""
    longest = config.max_duration_s
    return [longest / 5, longest / 2, longest]
