"""Clips from diffusers pipelines: AudioLDM, MusicLDM, AudioLDM 2 and Stable Audio.

diffusers is not installed with this package (``pip install 'resonate-audio[eval-diffusers]'``): it
takes longer to import than a small model takes to make a sound.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from resonate_audio.core.errors import CheckpointError, ConfigError, ModelNotFoundError
from resonate_audio.core.types import Audio
from resonate_audio.evaluation.clips.generate import Take, write_sounds


@dataclass(frozen=True)
class PipelineKind:
    """How one class of pipelines is called."""

    duration: str
    """Argument that says how long a sound is, in seconds."""
    rate_of: tuple[str, str]
    """Part, and field of its configuration, that say the sample rate."""
    network: str
    """Part that is evaluated at every step."""


_MEL = PipelineKind("audio_length_in_s", ("vocoder", "sampling_rate"), "unet")
KINDS = {
    "AudioLDMPipeline": _MEL,
    "MusicLDMPipeline": _MEL,
    "AudioLDM2Pipeline": _MEL,
    "StableAudioPipeline": PipelineKind("audio_end_in_s", ("vae", "sampling_rate"), "transformer"),
}
"""By the name of the pipeline's class."""


@dataclass(frozen=True)
class DiffusersMaker:
    """A diffusers pipeline that makes sounds.

    Each row has a generator of its own on the CPU, so its noise depends on its seed alone. Stereo
    becomes the mean of its channels, which is what every judge hears.
    """

    pipeline: Any
    origin: str
    """Folder or hub id it was loaded from."""
    num_inference_steps: int = 200
    guidance_scale: float | None = None
    """None: the pipeline's own default."""
    duration_s: float = 10.0
    batch_size: int = 4
    suffix: str = ".flac"
    extra: Mapping[str, Any] = field(default_factory=dict)
    """More arguments of the call."""

    def __post_init__(self) -> None:
        _ = self._kind

    @classmethod
    def from_pretrained(
        cls, origin: str, device: torch.device, dtype: torch.dtype = torch.float32, **settings: Any
    ) -> DiffusersMaker:
        """Load a pipeline.

        Args:
            origin: a folder, or a hub id such as ``cvssp/audioldm2-large``.
            device: where to compute.
            dtype: number format of the networks.
            settings: fields of this class.

        Raises:
            ConfigError: diffusers is not installed, or the pipeline is of another kind.
            ModelNotFoundError: there is no such folder, and the hub does not give it.
            CheckpointError: files are missing or broken.
        """
        try:
            import diffusers
        except ImportError as error:
            raise ConfigError(
                f"--diffusers {origin}: cannot import diffusers ({error}); "
                "pip install 'resonate-audio[eval-diffusers]'"
            ) from error
        library: Any = diffusers
        library.logging.set_verbosity_error()
        library.logging.disable_progress_bar()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pipeline = library.DiffusionPipeline.from_pretrained(origin, torch_dtype=dtype)
        except OSError as error:
            raise ModelNotFoundError(f"{origin}: no such pipeline ({_one_line(error)})") from error
        except Exception as error:  # a folder of somebody else: anything may be in it
            raise CheckpointError(f"{origin}: cannot be loaded ({_one_line(error)})") from error
        pipeline.set_progress_bar_config(disable=True)
        return cls(pipeline.to(device), origin, **settings)

    @property
    def _kind(self) -> PipelineKind:
        name = type(self.pipeline).__name__
        if name not in KINDS:
            raise ConfigError(f"{self.origin}: a {name}; expected one of {', '.join(KINDS)}")
        return KINDS[name]

    @property
    def source(self) -> str:
        """The pipeline's class and where it comes from."""
        return f"diffusers {type(self.pipeline).__name__} {self.origin}"

    @property
    def nfe(self) -> int:
        """One a step, as the paper counts."""
        return self.num_inference_steps

    @property
    def sample_rate_hz(self) -> int:
        """Rate of its sounds, as its own parts say."""
        part, name = self._kind.rate_of
        return int(getattr(getattr(self.pipeline, part).config, name))

    @property
    def facts(self) -> dict[str, str]:
        """Size and settings."""
        network = getattr(self.pipeline, self._kind.network)
        num_weights = sum(weight.numel() for weight in network.parameters())
        guidance = "default" if self.guidance_scale is None else f"{self.guidance_scale:g}"
        return {
            "model": self.origin,
            "params": f"{num_weights / 1e6:.1f}M",
            "nfe": str(self.nfe),
            "guidance": guidance,
            "duration_s": f"{self.duration_s:g}",
            "dtype": str(network.dtype).removeprefix("torch."),
        }

    def make(self, takes: Sequence[Take], paths: Sequence[Path | None]) -> None:
        """Make a batch, each row from its own generator."""
        sounds = self.sounds([take.item.prompt for take in takes], [t.noise_seed for t in takes])
        write_sounds([Audio(samples, self.sample_rate_hz) for samples in sounds], paths)

    def sounds(
        self, prompts: Sequence[str], seeds: Sequence[int]
    ) -> Float32[np.ndarray, "row sample"]:
        """One sound a prompt, one channel."""
        settings = dict(self.extra)
        if self.guidance_scale is not None:
            settings["guidance_scale"] = self.guidance_scale
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            given = self.pipeline(
                prompt=list(prompts),
                num_inference_steps=self.num_inference_steps,
                generator=[torch.Generator("cpu").manual_seed(seed) for seed in seeds],
                num_waveforms_per_prompt=1,
                output_type="np",
                **{self._kind.duration: self.duration_s},
                **settings,
            )
        audios = np.asarray(given.audios, dtype=np.float32)
        assert len(audios) == len(prompts), f"{audios.shape} for {len(prompts)} prompts"
        channels = audios if audios.ndim == 3 else audios[:, None]
        return np.ascontiguousarray(channels.mean(axis=1, dtype=np.float32))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__
