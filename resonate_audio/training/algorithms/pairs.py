"""Pairs of sounds of which people want the first, as a listening test exports them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Float32, Int
from pydantic import Field
from torch import Tensor

from resonate_audio.audio.io import read_audio
from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.documents.text import read_lines
from resonate_audio.core.errors import AudioError, ManifestError
from resonate_audio.core.files import file_sha256
from resonate_audio.core.paths import listed_path
from resonate_audio.core.types import TextFeatures
from resonate_audio.model.linear_vae import AnyVAE
from resonate_audio.training.algorithms.dpo import PairedLatents

FILES_PER_CALL = 32


class PreferencePair(FrozenConfig):
    """Two sounds for one text, of which people want the first; a line of ``pairs.jsonl``."""

    prompt: str
    chosen: str
    """File, relative to the folder of the list."""
    rejected: str
    margin: float = Field(1.0, ge=0, le=1)
    """How much further up the scale the chosen one stands, 0 to 1."""
    num_raters: int = Field(1, ge=1)


@dataclass(frozen=True)
class PairList:
    """A list of pairs, each with sounds that exist."""

    path: Path
    pairs: tuple[PreferencePair, ...]

    def files(self) -> tuple[Path, ...]:
        """Every sound once, in the order of the list."""
        names = [name for pair in self.pairs for name in (pair.chosen, pair.rejected)]
        return tuple(listed_path(self.path, name) for name in dict.fromkeys(names))

    def fingerprint(self) -> int:
        """Hash of the list and of every sound; fits into a signed 64-bit integer."""
        digest = hashlib.sha256()
        for path in (self.path, *self.files()):
            digest.update(bytes.fromhex(file_sha256(path)))
        return int(digest.hexdigest()[:15], 16)


def read_pairs(path: Path) -> PairList:
    """Read a list of pairs; empty lines are skipped.

    Raises:
        ManifestError: the file cannot be read or holds no pair, a line is broken, or a sound is
            missing; names the line.
    """
    pairs = [
        parse_pair(text, f"{path}:{number}", path)
        for number, text in read_lines(path)
        if text.strip()
    ]
    if not pairs:
        raise ManifestError(f"{path}: no pair in it; `resonate listen export` writes them")
    return PairList(path, tuple(pairs))


def parse_pair(line: str, place: str, listing: Path) -> PreferencePair:
    """Read one line of a list of pairs.

    Raises:
        ManifestError: not JSON, a field is missing or wrong, no text, or a sound is not there.
    """
    pair = parse_config(PreferencePair, parse_object(line, place), place, ManifestError)
    if not pair.prompt.strip():
        raise ManifestError(f"{place}: prompt is empty; a pair needs the text of both its sounds")
    files = {name: listed_path(listing, getattr(pair, name)) for name in ("chosen", "rejected")}
    for name, file in files.items():
        if not os.path.isfile(file):
            raise ManifestError(f"{place}: {name}: there is no file {file}")
    refuse_one_sound(files["chosen"], files["rejected"], place)
    return pair


def refuse_one_sound(chosen: Path, rejected: Path, place: str) -> None:
    """Refuse two paths that lead to one file, or to two of the same content.

    Raises:
        ManifestError: nothing can be learnt from such a pair.
    """
    if os.path.samefile(chosen, rejected):
        raise ManifestError(f"{place}: chosen and rejected are the same file, {chosen}")
    is_alike = chosen.stat().st_size == rejected.stat().st_size
    if is_alike and file_sha256(chosen) == file_sha256(rejected):
        raise ManifestError(
            f"{place}: chosen and rejected are the same sound, in {chosen} and {rejected}"
        )


@dataclass(frozen=True)
class EncodedSounds:
    """Sounds as posteriors of the VAE, all of one length."""

    mean: Float[Tensor, "sound frame channel"]
    std: Float[Tensor, "sound frame channel"]
    num_cut: int
    """Sounds that are longer: only their beginning is there."""
    num_padded: int
    """Sounds that are shorter by a frame or more and followed by silence."""

    def sample(
        self, rows: Int[Tensor, " row"], generator: torch.Generator
    ) -> Float[Tensor, "row frame channel"]:
        """Latents of some sounds, drawn from their posteriors as in pre-training."""
        mean, std = self.mean[rows], self.std[rows]
        return mean + std * torch.randn(mean.shape, generator=generator, device=mean.device)


@torch.no_grad()
def encode_files(
    paths: Sequence[Path], vae: AnyVAE, mel: MelFrontEnd, num_frames: int
) -> EncodedSounds:
    """Encode sound files at the model's rate, each cut or padded to whole latent frames.

    What is too long loses its end; what is too short is followed by silence, which is encoded
    with it, as in pre-training.

    Raises:
        AudioError: a file is no sound, holds NaN or infinite samples, or is silent; names it.
    """
    frame_samples = vae.hops_per_frame * mel.config.hop_samples
    num_samples, device = num_frames * frame_samples, next(iter(vae.buffers())).device
    means, stds, lengths = list[Tensor](), list[Tensor](), list[int]()
    for start in range(0, len(paths), FILES_PER_CALL):
        sounds = [
            read_sound(path, mel.config.sample_rate_hz)
            for path in paths[start : start + FILES_PER_CALL]
        ]
        waves = torch.stack([fit_length(sound, num_samples) for sound in sounds])
        posterior = vae.encode(mel(waves.to(device)))
        means.append(posterior.mean)
        stds.append(posterior.std)
        lengths += [len(sound) for sound in sounds]
    return EncodedSounds(
        torch.cat(means),
        torch.cat(stds),
        num_cut=sum(length > num_samples for length in lengths),
        num_padded=sum(length <= num_samples - frame_samples for length in lengths),
    )


def read_sound(path: Path, sample_rate_hz: int) -> Float32[Tensor, " sample"]:
    """A sound file that one can hear.

    Raises:
        AudioError: it is no sound, holds NaN or infinite samples, or is silent; names it.
    """
    samples = read_audio(path, sample_rate_hz).samples
    if not samples.any():
        raise AudioError(f"{path}: is silent from end to end; leave its pair out")
    return torch.from_numpy(samples)


def fit_length(wave: Float32[Tensor, " sample"], num_samples: int) -> Float32[Tensor, " fitted"]:
    """The beginning of a sound, followed by silence where it is shorter."""
    kept = wave[:num_samples]
    return torch.nn.functional.pad(kept, (0, num_samples - len(kept)))


@dataclass(frozen=True)
class PairSet:
    """Pairs, ready to be learnt from."""

    sounds: EncodedSounds
    winners: Int[Tensor, " pair"]
    """Sound of each pair that people want."""
    losers: Int[Tensor, " pair"]
    texts: Int[Tensor, " pair"]
    """Row of ``features`` of each pair."""
    features: TextFeatures
    """One row a distinct text."""
    fingerprint: int

    def draw(
        self,
        pairs: Int[Tensor, " pair"],
        normalize: Callable[[Tensor], Tensor],
        generator: torch.Generator,
    ) -> PairedLatents:
        """Sample both latents of some pairs.

        Args:
            pairs: which.
            normalize: VAE latents to those that the flow knows.
            generator: on the device of the sounds.
        """
        winners, losers = (
            normalize(self.sounds.sample(sounds[pairs], generator))
            for sounds in (self.winners, self.losers)
        )
        return PairedLatents(winners, losers, self.features.rows(self.texts[pairs]))


def make_pair_set(
    listed: PairList, sounds: EncodedSounds, encode_text: Callable[[list[str]], TextFeatures]
) -> PairSet:
    """Join pairs with their encoded sounds and texts.

    Texts are encoded one by one: a text's features must not depend on its company.
    """
    device = sounds.mean.device
    numbers = {path: number for number, path in enumerate(listed.files())}
    texts = list(dict.fromkeys(pair.prompt for pair in listed.pairs))
    rows = [encode_text([text]) for text in texts]
    tokens = torch.cat([row.tokens for row in rows]).to(device)
    pooled = torch.cat([row.pooled for row in rows]).to(device)

    def column(values: Iterator[int]) -> Int[Tensor, " pair"]:
        return torch.tensor(list(values), device=device)

    return PairSet(
        sounds,
        winners=column(numbers[listed_path(listed.path, pair.chosen)] for pair in listed.pairs),
        losers=column(numbers[listed_path(listed.path, pair.rejected)] for pair in listed.pairs),
        texts=column(texts.index(pair.prompt) for pair in listed.pairs),
        features=TextFeatures(tokens, pooled),
        fingerprint=listed.fingerprint(),
    )
