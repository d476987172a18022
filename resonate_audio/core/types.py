"""The stations of the straight path, one frozen dataclass each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Float32, Int
from torch import Tensor

from resonate_audio.core.edit import Edit, Finish
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import Sampling, with_settings


@dataclass(frozen=True)
class Prompts:
    """Texts and how many takes of each: row = prompt × takes + take."""

    texts: tuple[str, ...]
    takes: int = 1

    @property
    def num_rows(self) -> int:
        """Rows of every later station."""
        return len(self.texts) * self.takes

    def row_texts(self) -> list[str]:
        """The text of each row, prompt-major."""
        return [text for text in self.texts for _ in range(self.takes)]


@dataclass(frozen=True)
class TextFeatures:
    """What the text encoder says of each row."""

    tokens: Float[Tensor, "row token dim"]
    pooled: Float[Tensor, "row pooled_dim"]

    def rows(self, index: Int[Tensor, " chosen"]) -> TextFeatures:
        """Those of some rows, by number."""
        return TextFeatures(self.tokens[index], self.pooled[index])


@dataclass(frozen=True)
class Latents:
    """Un-normalised VAE latents with their frame rate."""

    values: Float[Tensor, "row frame channel"]
    frame_rate_hz: float


@dataclass(frozen=True)
class Mel:
    """Log-mel spectrogram with its hop rate."""

    values: Float[Tensor, "row band hop"]
    hop_rate_hz: float


@dataclass(frozen=True)
class Waveform:
    """Samples in [-1, 1] with the rate they are meant to be played at."""

    samples: Float[Tensor, "row sample"]
    sample_rate_hz: int


@dataclass(frozen=True)
class Rewards:
    """What a judge says of each row: more is better."""

    total: Float[Tensor, " row"]
    """One finite number a row; on the CPU, float64."""
    parts: Mapping[str, Float[Tensor, " row"]]
    """What the total is made of, by name; numbers that are only reported belong here too."""
    judge: str
    """Name of the judge, with its settings or weights where it has any."""
    weights: Mapping[str, float] = field(default_factory=dict)
    """Of the parts whose weighted sum the total is; empty if it is no such sum."""


@dataclass(frozen=True)
@with_settings
class Recipe:
    """How a sound was made: enough to make it again, bit for bit, on the same machine.

    Behind the fields below stands every further one of `SolverSettings`.

    ``batch_prompts`` and ``batch_seeds`` list the whole batch that ``row`` was computed in,
    because matrix kernels may round differently at another batch size.
    """

    prompt: str
    negative_prompt: str
    seed: int
    duration_s: float
    num_inference_steps: int
    guidance_scale: float
    model: str
    model_fingerprint: str
    device: str
    dtype: str
    version: str
    row: int = 0
    batch_prompts: tuple[str, ...] = ()
    batch_negative_prompts: tuple[str, ...] = ()
    batch_seeds: tuple[int, ...] = ()
    gain: float = 1.0
    """Factor at most 1 that brought the peak into [-1, 1]."""
    num_threads: int = 0
    """CPU threads it was computed with, which decide how sums are split; 0: not recorded."""
    in_blocks: bool = field(default=False, compare=False)
    """Whether the file was written block by block; recipes of older versions do not say so."""
    one_branch: bool = field(default=False, compare=False)
    """Whether a guidance scale of 1 left the empty prompt out; older versions computed it."""
    edit: Edit | None = None
    """What it was made of besides the prompt."""
    finish: Finish | None = None
    """What was done to it in the end."""
    adapters: tuple[str, ...] = ()
    """Files added to the model's weights, as ``FILE`` or ``FILE:weight``."""
    unknown_fields: tuple[str, ...] = ()
    """What another version wrote that this one does not know."""

    def sampling(self) -> Sampling:
        """The settings of the solver.

        Raises:
            InputError: a field is unknown or out of range; names the version that wrote it.
        """
        if self.unknown_fields:
            raise InputError(
                f"the recipe was written by version {self.version} and holds "
                f"{', '.join(self.unknown_fields)}, which this version does not know: "
                "replay it with that version"
            )
        return Sampling(**{name: getattr(self, name) for name in Sampling.model_fields})


@dataclass(frozen=True)
class Audio:
    """One mono sound with its sample rate and the recipe that made it (None if recorded)."""

    samples: Float32[np.ndarray, " sample"]
    sample_rate_hz: int
    recipe: Recipe | None = None

    @property
    def duration_s(self) -> float:
        """Length in seconds."""
        return len(self.samples) / self.sample_rate_hz
