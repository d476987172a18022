"""What the trainer needs of a generator that is not ours.

A guest has a network that gives velocities under our time direction, text features, a decoder, and
a folder of its own form that it is read from and written to. Its network alone is taught.
"""

from __future__ import annotations

import logging
import os
import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from resonate_audio.core.config import DEEPEST, LARGEST_SIZE
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.noise import seeded_noise
from resonate_audio.core.paths import input_path
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Latents, TextFeatures, Waveform
from resonate_audio.flow.guidance import guided, needs_empty
from resonate_audio.flow.ode import solve
from resonate_audio.model.checkpoint import State

DEFAULT_DURATION_S = 10.0
EXTRA = "pip install 'resonate-audio[guests]'"


@dataclass(frozen=True)
class GuestConfig:
    """Sizes and habits of a guest, with the names that our own models have for them."""

    name: str
    """As a recipe names it."""
    sample_rate_hz: int
    frame_samples: int
    """Samples of one latent frame."""
    window_frames: int
    """Latent frames of a sound of any length: the network always computes its whole window."""
    max_duration_s: float
    default_steps: int
    default_guidance: float

    @property
    def frame_rate_hz(self) -> float:
        """Latent frames a second."""
        return self.sample_rate_hz / self.frame_samples

    def num_frames(self, duration_s: float) -> int:
        """Latent frames of a sound, whatever its length."""
        return self.window_frames

    def check_duration(self, duration_s: float) -> None:
        """Refuse a length that the model was not made for.

        Raises:
            InputError: names the length and the range.
        """
        if not 0 < duration_s <= self.max_duration_s:
            raise InputError(
                f"duration of {duration_s} s: {self.name} makes up to {self.max_duration_s:g} s"
            )

    def sampling(
        self,
        duration_s: float,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        **further: Any,
    ) -> Sampling:
        """Settings of a sound: what is asked for, and the publisher's choice for the rest.

        Raises:
            InputError: one is unknown or out of range.
        """
        steps = self.default_steps if num_inference_steps is None else num_inference_steps
        scale = self.default_guidance if guidance_scale is None else guidance_scale
        return Sampling(duration_s, steps, scale, **further)


@dataclass(frozen=True)
class GuestConditions:
    """What a guest's network is told of each row's prompt."""

    tokens: Float[Tensor, "row token dim"]
    pooled: Float[Tensor, "row pooled_dim"]
    heard: Bool[Tensor, "row token"]
    """Which tokens the network attends to."""

    def followed_by(self, other: GuestConditions) -> GuestConditions:
        """These rows, then those of the empty prompt, of which as many tokens are heard.

        Both publishers pad the empty prompt to the length of the prompt it is set against.
        """
        return GuestConditions(
            torch.cat([self.tokens, other.tokens]),
            torch.cat([self.pooled, other.pooled]),
            torch.cat([self.heard, self.heard]),
        )


@dataclass(frozen=True)
class GuestSizes:
    """The sizes of a guest's network that the trainer asks for."""

    latent_channels: int
    mean_velocity: bool = False


class GuestNetwork(nn.Module):
    """A foreign network with the methods of our flow transformer.

    Its weights are those of ``transformer`` and nothing else.
    """

    empty_tokens: Float[Tensor, "token dim"]
    empty_pooled: Float[Tensor, " pooled_dim"]

    def __init__(self, transformer: nn.Module, latent_channels: int, empty: TextFeatures) -> None:
        """Take a network of diffusers, and the features of no prompt (one row)."""
        super().__init__()
        self.transformer = transformer
        self.config = GuestSizes(latent_channels)
        self.register_buffer("empty_tokens", empty.tokens[0], persistent=False)
        self.register_buffer("empty_pooled", empty.pooled[0], persistent=False)

    def condition(self, features: TextFeatures) -> GuestConditions:
        """What the network is told; all tokens are heard unless a guest says otherwise."""
        heard = torch.ones(features.tokens.shape[:2], dtype=torch.bool)
        return GuestConditions(features.tokens, features.pooled, heard.to(features.tokens.device))

    def empty_features(self, num_rows: int) -> TextFeatures:
        """Give the features that stand for no prompt, once per row (a view, not copies)."""
        return TextFeatures(
            self.empty_tokens.expand(num_rows, -1, -1), self.empty_pooled.expand(num_rows, -1)
        )

    def normalize(
        self, z: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row frame channel"]:
        """Latents of the encoder are what flows."""
        return z

    def unnormalize(
        self, z: Float[Tensor, "row frame channel"]
    ) -> Float[Tensor, "row frame channel"]:
        """Flow latents are what the decoder takes."""
        return z

    def forward(
        self,
        z: Float[Tensor, "row frame channel"],
        t: Float[Tensor, " row"],
        conditions: GuestConditions,
    ) -> Float[Tensor, "row frame channel"]:
        """Predict the velocity noise − data on the path (1 − t)·data + t·noise."""
        raise NotImplementedError


class Guest(ABC):
    """A foreign generator around the network that is taught; all else of it stays as it is."""

    config: GuestConfig
    network: GuestNetwork

    def __init__(self, folder: Path, vae: Any, duration_s: float) -> None:
        """Take what every guest has; ``vae`` is diffusers' AutoencoderOobleck."""
        self.folder = folder
        self.vae = vae.eval().requires_grad_(False)
        self.duration_s = duration_s

    @abstractmethod
    def encode_text(self, texts: Sequence[str]) -> TextFeatures:
        """Features of each text and of the length of the sounds.

        Raises:
            InputError: there is no text.
        """

    @abstractmethod
    def frozen(self) -> list[nn.Module]:
        """Every network that is not taught."""

    @abstractmethod
    def write(self, folder: Path, weights: Mapping[str, Tensor]) -> None:
        """Write the model with other weights of ``network``, in the form it was read in.

        Raises:
            OutputError: the folder cannot be written, or holds something else.
        """

    def to(self, device: torch.device) -> None:
        """Move every network."""
        for part in (self.network, *self.frozen()):
            part.to(device)

    def states(self) -> list[State]:
        """Weights of all that is not taught."""
        return [dict(part.state_dict()) for part in self.frozen()]

    def encode_negative(self, texts: Sequence[str]) -> TextFeatures:
        """Features of no prompt; a guest is told of nothing else that is not to be heard."""
        assert not any(texts), texts
        return self.network.empty_features(len(texts))

    @torch.no_grad()
    def sample_latents(
        self,
        features: TextFeatures,
        negative: TextFeatures,
        seeds: Sequence[int],
        sampling: Sampling,
    ) -> Latents:
        """Noise of each seed, carried to data by a solver, with guidance."""
        scale, network = sampling.guidance_scale, self.network
        empty = network.condition(negative) if needs_empty(scale) else None
        velocity = guided(network, network.condition(features), empty, scale)
        channels = network.config.latent_channels
        noise = seeded_noise(seeds, self.config.window_frames, channels)
        z = solve(velocity, noise.to(features.tokens.device), sampling)
        return Latents(z, self.config.frame_rate_hz)

    @torch.no_grad()
    def to_waveform(self, latents: Latents) -> Waveform:
        """Decode row by row, cut to the length of the sounds; two channels become their mean.

        Returns:
            Samples on the CPU; a loud row may pass ±1.

        Raises:
            InputError: the samples of a row became NaN.
        """
        length = int(self.duration_s * self.config.sample_rate_hz)
        decoded = [self.vae.decode(row[None].mT).sample for row in latents.values.float()]
        samples = torch.cat([row.mean(dim=1)[:, :length].cpu() for row in decoded])
        if not samples.isfinite().all():
            raise InputError("the waveform became NaN or infinite: try a smaller guidance scale")
        return Waveform(samples, self.config.sample_rate_hz)


def guest_folder(model: str, marks: Sequence[str], source: str) -> Path:
    """The folder of a guest, as ``kind:FOLDER`` names it.

    Args:
        model: as a recipe names it.
        marks: files that such a folder has.
        source: repository that publishes it.

    Raises:
        ModelNotFoundError: no such folder; says how to get one.
        CheckpointError: it is another kind of folder.
    """
    kind, _, given = model.partition(":")
    folder = input_path(given)
    if not given or not os.path.isdir(folder):
        raise ModelNotFoundError(
            f"model {model}: no such folder; expected {kind}:FOLDER, made by "
            f"`hf download {source} --local-dir FOLDER`"
        )
    missing = next((mark for mark in marks if not os.path.isfile(folder / mark)), None)
    if missing is not None:
        raise CheckpointError(f"{folder}: {missing} is missing, which a {kind} folder has")
    return folder


def import_diffusers(model: str) -> Any:
    """The library that a guest's networks are classes of.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it comments on its own parts
            import diffusers
    except ImportError as error:
        raise ConfigError(f"model {model}: cannot import diffusers ({error}); {EXTRA}") from error
    library: Any = diffusers
    library.logging.set_verbosity(logging.CRITICAL)  # what fails is told once, by us
    library.logging.disable_progress_bar()
    return library


def choose_duration(duration_s: float | None, max_duration_s: float) -> float:
    """The length that is asked for, or ten seconds, or what the model can."""
    return min(DEFAULT_DURATION_S, max_duration_s) if duration_s is None else duration_s


def read_pretrained(kind: Any, folder: Path, part: str) -> nn.Module:
    """A part of a folder of diffusers, in float32; every weight of it, and no other.

    Raises:
        CheckpointError: it is missing, broken, or its weights are not those of its configuration.
    """
    place = folder / part
    if not os.path.isdir(place):
        raise CheckpointError(f"{place}: missing")
    check_sizes(place / "config.json")
    with quiet_loading(place):
        network, info = kind.from_pretrained(
            place, torch_dtype=torch.float32, use_safetensors=True, output_loading_info=True
        )
    for problem in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if info.get(problem):
            names = sorted(map(str, info[problem]))
            raise CheckpointError(
                f"{place}: {problem.replace('_', ' ')} of a {kind.__name__}: {names[0]}"
            )
    made: nn.Module = network.eval()
    return made


def check_sizes(path: Path) -> None:
    """Refuse a configuration of a network that no machine builds.

    Raises:
        CheckpointError: it cannot be read, or names the size.
    """
    for name, value in read_object(path, CheckpointError).items():
        most = DEEPEST if name.endswith("layers") else LARGEST_SIZE
        if isinstance(value, int) and value > most:
            raise CheckpointError(f"{path}: {name} {value} is too large; expected {most:,} at most")
