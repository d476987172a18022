"""Values of a whole set of clips: FAD, KAD and IS, and KL to the recording of the same prompt.

They need what networks hear (`embeddings`) of a system's clips and of a reference, a folder of
real sounds. A clip that failed is left out of them, since a network cannot hear it; how many were
is told with every value.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float64

from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.paths import files_below
from resonate_audio.evaluation.clips.folder import (
    AUDIO_SUFFIXES,
    ClipKey,
    file_sha256,
    find_clips,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.evaluation.distances.embeddings import Listener, OnWork, hear_files
from resonate_audio.evaluation.distances.formulas import (
    IS_SPLITS,
    Extrapolated,
    frechet_audio_distance,
    inception_score,
    kernel_audio_distance,
    paired_kl,
    softmax,
    unbiased_fad,
)
from resonate_audio.evaluation.scores.scored import MetricCard, SystemScores
from resonate_audio.evaluation.scores.sounds import examine, failure_of
from resonate_audio.rewards.fingerprints import fingerprint

FEWEST_FAD_INF = 16
"""Clips from which on FAD is extrapolated."""


@dataclass(frozen=True)
class HeardSet:
    """What a listener heard of a set."""

    rows: Float64[np.ndarray, "row dim"]
    keys: tuple[ClipKey, ...]
    """Prompt's id and take of each row; of a plain folder, its number."""
    left_out: tuple[str, ...]
    """Sounds that could not be heard, and why."""


@dataclass(frozen=True)
class Reference:
    """Real sounds and what was heard of them."""

    name: str
    sha256: str
    """Of its files."""
    heard: HeardSet


@dataclass(frozen=True)
class SetValues:
    """New columns of a system."""

    scores: SystemScores
    """With the columns."""
    left_out: tuple[str, ...]
    fad_inf: Extrapolated | None = None
    """How FAD∞ was extrapolated."""


def hear_system(
    folder: Path, scores: SystemScores, listener: Listener, on_work: OnWork | None = None
) -> HeardSet:
    """Hear all clips of a system that did not fail.

    Raises:
        ManifestError: none is left.
        AudioError: a file is gone or broken since it was scored.
    """
    clips = [clip for clip in scores.clips if clip.failure is None and clip.file]
    if not clips:
        raise ManifestError(f"{folder}: no clip of {scores.system} can be heard")
    rows = hear_files(listener, [folder / str(clip.file) for clip in clips], on_work=on_work)
    left_out = tuple(
        f"{clip.id}, seed {clip.seed} ({clip.failure or 'no file'})"
        for clip in scores.clips
        if clip.failure is not None or not clip.file
    )
    return HeardSet(rows, tuple((clip.id, clip.seed) for clip in clips), left_out)


def hear_reference(
    folder: Path,
    listener: Listener,
    prompts: PromptSet | None = None,
    on_work: OnWork | None = None,
) -> Reference:
    """Hear a folder of real sounds.

    Args:
        folder: sounds, also in folders below it.
        listener: what hears.
        prompts: if given, files belong to prompts by their names, as KL needs; see `find_clips`.
        on_work: told how far it is.

    Raises:
        ManifestError: there is no such folder, or no sound in it can be heard.
    """
    if prompts is None:
        found = sorted(files_below(folder, AUDIO_SUFFIXES))
        files = {(path.relative_to(folder).as_posix(), 0): path for path in found}
    else:
        files = dict(find_clips(folder, prompts).files)
    failures = {key: failure_of(examine(path)) for key, path in files.items()}
    keys = tuple(key for key in files if failures[key] is None)
    if not keys:
        raise ManifestError(f"{folder}: none of its {len(files)} sounds can be heard")
    rows = hear_files(listener, [files[key] for key in keys], on_work=on_work)
    left_out = tuple(f"{files[key].name} ({why})" for key, why in failures.items() if why)
    hashes = sorted(str(file_sha256(files[key])) for key in keys)
    digest = hashlib.sha256("\n".join(hashes).encode()).hexdigest()
    return Reference(folder.resolve().name, digest[:16], HeardSet(rows, keys, left_out))


def add_distances(
    scores: SystemScores, heard: HeardSet, reference: Reference, listener: Listener, seed: int = 0
) -> SetValues:
    """Add FAD, FAD∞ (from 16 clips on) and KAD between a system and a reference.

    Raises:
        InputError: the listener gives no embeddings, or a set is too small.
    """
    _check_kind(listener, "embedding")
    real, made = reference.heard.rows, heard.rows
    values = {
        "fad": frechet_audio_distance(real, made),
        "kad": kernel_audio_distance(real, made),
    }
    extrapolated = unbiased_fad(real, made, seed) if len(made) >= FEWEST_FAD_INF else None
    if extrapolated is not None:
        values["fad-inf"] = extrapolated.value
    cards = [
        _card(name, listener, reference, f"{_TITLES[name]} {listener.name}") for name in values
    ]
    named = {f"{name}/{listener.name}": value for name, value in values.items()}
    return SetValues(_join(scores, cards, named), heard.left_out, extrapolated)


def add_inception(
    scores: SystemScores, heard: HeardSet, listener: Listener, seed: int = 0
) -> SetValues:
    """Add IS: mean over ten parts, of fewer where there are fewer than twenty clips.

    Raises:
        InputError: the listener tells no classes.
    """
    _check_kind(listener, "classes")
    splits = min(IS_SPLITS, max(1, len(heard.rows) // 2))
    mean, _ = inception_score(softmax(heard.rows), splits, seed)
    card = _card("is", listener, None, f"IS {listener.name}", higher_is_better=True)
    return SetValues(_join(scores, [card], {card.name: mean}), heard.left_out)


def add_paired_kl(
    scores: SystemScores, heard: HeardSet, reference: Reference, listener: Listener
) -> SetValues:
    """Add KL to the recording of the same prompt, softmax and sigmoid, as columns of clips.

    All takes of a prompt are held against take 0 of the reference where it has no other.

    Raises:
        InputError: the listener tells no classes, or a prompt has no recording; names it.
    """
    _check_kind(listener, "classes")
    known = {key: number for number, key in enumerate(reference.heard.keys)}
    numbers = [known.get(key, known.get((key[0], 0))) for key in heard.keys]
    missing = [key[0] for key, number in zip(heard.keys, numbers, strict=True) if number is None]
    if missing:
        raise InputError(
            f"{reference.name}: no recording of prompt {missing[0]} ({len(missing)} such); KL "
            "needs one named by the id of each prompt"
        )
    real = reference.heard.rows[[number for number in numbers if number is not None]]
    cards, columns = [], {}
    for form in ("softmax", "sigmoid"):
        card = _card(f"kl-{form}", listener, reference, f"KL {form}")
        cards.append(card)
        values = paired_kl(real, heard.rows, "softmax" if form == "softmax" else "sigmoid")
        columns[card.name] = dict(zip(heard.keys, values.tolist(), strict=True))
    return SetValues(_join_columns(scores, cards, columns), heard.left_out)


_TITLES = {"fad": "FAD", "fad-inf": "FAD∞", "kad": "KAD"}


def _card(
    name: str,
    listener: Listener,
    reference: Reference | None,
    title: str,
    higher_is_better: bool = False,
) -> MetricCard:
    details = {"value": name, **listener.details}
    if reference is not None:
        details["reference"] = f"{len(reference.heard.rows)} sounds {reference.sha256}"
    return MetricCard(
        name=f"{name}/{listener.name}",
        fingerprint=fingerprint(details),
        higher_is_better=higher_is_better,
        title=title,
        details=details,
    )


def _join(
    scores: SystemScores, cards: Sequence[MetricCard], values: dict[str, float]
) -> SystemScores:
    """With new columns of the set, in place of those of the same name."""
    return scores.model_copy(
        update={
            "cards": _replace(scores, cards),
            "set_values": {**scores.set_values, **values},
        }
    )


def _join_columns(
    scores: SystemScores, cards: Sequence[MetricCard], columns: dict[str, dict[ClipKey, float]]
) -> SystemScores:
    clips = tuple(
        clip.model_copy(
            update={
                "values": clip.values
                | {
                    name: column[clip.id, clip.seed]
                    for name, column in columns.items()
                    if (clip.id, clip.seed) in column
                }
            }
        )
        for clip in scores.clips
    )
    return scores.model_copy(update={"cards": _replace(scores, cards), "clips": clips})


def _replace(scores: SystemScores, cards: Sequence[MetricCard]) -> tuple[MetricCard, ...]:
    fresh = {card.name for card in cards}
    return (*(card for card in scores.cards if card.name not in fresh), *cards)


def _check_kind(listener: Listener, kind: str) -> None:
    if listener.kind != kind:
        raise InputError(f"{listener.name}: gives {listener.kind}, and this needs {kind}")


def prompts_of(scores: SystemScores) -> PromptSet:
    """The prompts of a system, as far as its clips tell them."""
    texts = {clip.id: clip.prompt for clip in scores.clips}
    items = tuple(PromptItem(id=prompt_id, prompt=text) for prompt_id, text in texts.items())
    return PromptSet(scores.system, items)
