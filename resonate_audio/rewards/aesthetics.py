"""Audiobox Aesthetics: how well made and how enjoyable a sound is, whatever its text says."""

from __future__ import annotations

import importlib
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Float32
from torch import Tensor, nn

from resonate_audio.core.errors import ConfigError
from resonate_audio.core.foreign import quiet_loading
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import LocalJudge, make_rewards
from resonate_audio.rewards.hearing import hear
from resonate_audio.rewards.pretrained import find_pretrained

DEFAULT_SOURCE = "facebook/audiobox-aesthetics"
SAMPLE_RATE_HZ = 16_000
WINDOW_SAMPLES = 10 * SAMPLE_RATE_HZ
SHORTEST_REST_S = 0.1
"""A shorter rest after the last whole window is not heard in deterministic mode."""
AXES = ("CE", "CU", "PC", "PQ")
"""Content enjoyment, content usefulness, production complexity, production quality: 1 to 10."""
Axis = Literal["mean", "CE", "CU", "PC", "PQ"]
Mode = Literal["deterministic", "paper"]


AxisPredictor = Callable[
    [Float32[Tensor, "window sample"], Bool[Tensor, "window sample"]],
    Mapping[str, Float[Tensor, " window"]],
]
"""Grades by axis of windows of ten seconds; the second argument says what is no padding."""


class AestheticsReward(LocalJudge):
    """Grades of the four axes, and as the score their mean or one of them.

    [Audiobox Aesthetics, arXiv:2502.05139]

    A sound is cut into windows of 10 s, the last one filled with masked zeros; its grade is the
    mean over windows, each weighted by the length of its sound. Differs from the published code:
    always float32 (there, too: its bfloat16 flag has no effect), soxr instead of torchaudio's
    resampler, and, but for paper mode, a rest under 0.1 s is left out. The last halves the cost of
    the official model's sounds, which are 10.008 s long; that rest weighs 0.0008.
    """

    def __init__(
        self,
        predictor: AxisPredictor,
        source: str,
        axis: Axis = "mean",
        name: str = "aesthetics",
        batch_size: int = 8,
        mode: Mode = "deterministic",
    ) -> None:
        """Take a predictor that is ready.

        Args:
            predictor: such as `AudioboxAxes`.
            source: where its weights come from, for the judge's id.
            axis: which grade is the score.
            name: for logs.
            batch_size: windows in one forward pass.
            mode: ``paper`` hears the shortest rest, too.
        """
        self.name, self._predictor = name, predictor
        self._axis, self._batch_size, self._mode = axis, batch_size, mode
        self._judge = f"{name}[{source}, {axis}{', every rest' if mode == 'paper' else ''}]"
        self._lock = threading.Lock()

    @classmethod
    def from_pretrained(
        cls,
        source: str = DEFAULT_SOURCE,
        device: str | torch.device = "cpu",
        axis: Axis = "mean",
        batch_size: int = 8,
        mode: Mode = "deterministic",
    ) -> AestheticsReward:
        """Load a folder or a hub repository of ``audiobox_aesthetics``.

        Raises:
            ConfigError: that package is not installed.
            ModelNotFoundError: there is no such folder, and the hub does not give it.
            CheckpointError: files are missing, broken, or of another kind of model.
        """
        model_class = _import_model_class()
        folder = find_pretrained(source)
        with quiet_loading(folder):
            model = model_class.from_pretrained(str(folder), strict=True)
        # For good, as this state is shared by all threads: the published code mixes mask types.
        warnings.filterwarnings("ignore", "Support for mismatched key_padding_mask")
        return cls(AudioboxAxes(model.to(device)), source, axis, batch_size=batch_size, mode=mode)

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        windows, heard = cut_windows(hear(audio, SAMPLE_RATE_HZ), self._mode)
        grades = self._grade(windows.flatten(0, 1), heard.repeat(len(windows), 1))
        weights = heard.sum(dim=1) / heard.sum()
        by_axis = {
            axis: grades[axis].cpu().double().view(len(windows), -1) @ weights.double()
            for axis in AXES
        }
        mean = torch.stack(list(by_axis.values())).mean(dim=0)
        total = mean if self._axis == "mean" else by_axis[self._axis]
        return make_rewards(total, self._judge, len(prompts), by_axis)

    @torch.inference_mode()
    def _grade(
        self, windows: Float32[Tensor, "window sample"], heard: Bool[Tensor, "window sample"]
    ) -> dict[str, Float[Tensor, " window"]]:
        with self._lock:
            given = [
                self._predictor(
                    windows[start : start + self._batch_size],
                    heard[start : start + self._batch_size],
                )
                for start in range(0, len(windows), self._batch_size)
            ]
        return {axis: torch.cat([grades[axis] for grades in given]) for axis in AXES}


class AudioboxAxes:
    """Meta's network as an `AxisPredictor`: grades on the scale of its raters."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model.float().eval()

    def __call__(
        self, windows: Float32[Tensor, "window sample"], heard: Bool[Tensor, "window sample"]
    ) -> Mapping[str, Float[Tensor, " window"]]:
        """Grades by axis; the network predicts them less their mean, over their spread."""
        device = next(self.model.parameters()).device
        batch = {"wav": windows[:, None].to(device), "mask": heard[:, None].to(device)}
        scales: Any = self.model.target_transform
        return {
            axis: grade * scales[axis]["std"] + scales[axis]["mean"]
            for axis, grade in self.model(batch).items()
        }


def cut_windows(
    samples: Float32[Tensor, "row sample"], mode: Mode = "deterministic"
) -> tuple[Float32[Tensor, "row window window_sample"], Bool[Tensor, "window window_sample"]]:
    """Windows of 10 s one after another, and where they hold sound.

    Args:
        samples: at 16 kHz.
        mode: ``deterministic`` leaves out a rest under 0.1 s.

    Returns:
        The windows, the last filled up with zeros, and their masks, alike for every row.
    """
    rest, shortest = samples.shape[1] % WINDOW_SAMPLES, SHORTEST_REST_S * SAMPLE_RATE_HZ
    if mode == "deterministic" and samples.shape[1] > WINDOW_SAMPLES and 0 < rest < shortest:
        samples = samples[:, :-rest]
    num_windows = -(-samples.shape[1] // WINDOW_SAMPLES)
    filled = samples.new_zeros(len(samples), num_windows * WINDOW_SAMPLES)
    filled[:, : samples.shape[1]] = samples
    heard = torch.arange(filled.shape[1]) < samples.shape[1]
    return filled.view(len(samples), num_windows, -1), heard.view(num_windows, -1)


def _import_model_class() -> Any:
    """The network's class; the rest of its package needs torchaudio and is left alone."""
    try:
        module = importlib.import_module("audiobox_aesthetics.model.aes")
    except ImportError as error:
        raise ConfigError(
            f"judge aesthetics: cannot import audiobox_aesthetics ({error}); "
            "pip install 'resonate-audio[aesthetics]', or with --no-deps audiobox_aesthetics alone"
        ) from error
    return module.AesMultiOutput
