"""What the small judges have in common: how their folders are read and how sounds come to them."""

from __future__ import annotations

from abc import abstractmethod
from importlib.resources import files
from pathlib import Path
from typing import Generic, TypeVar

import torch
from jaxtyping import Float32
from pydantic import BaseModel
from torch import Tensor, nn

from resonate_audio.core.config import parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, RewardError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.types import Waveform
from resonate_audio.model.checkpoint import (
    State,
    fingerprint_weights,
    load_strict,
    read_weights,
    write_weights,
)
from resonate_audio.model.text_encoder import TextEncoder, TextEncoderConfig
from resonate_audio.rewards.base import LocalJudge
from resonate_audio.rewards.hearing import hear

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
TEXT_WIDTH = 384
MAX_TOKENS = 48
"""Texts are cut there; the longest caption of a training scene has about 40 tokens."""
SHORTEST_S = 0.1

ConfigT = TypeVar("ConfigT", bound=BaseModel)
NetworkT = TypeVar("NetworkT", bound=nn.Module)


def load_minilm(folder: Path | None = None) -> TextEncoder:
    """MiniLM for short texts; the one in the package if no folder is given."""
    bundled = Path(str(files("resonate_audio"))) / "nano" / "weights" / "text_encoder"
    config = TextEncoderConfig(
        kind="minilm",
        repo_id="sentence-transformers/all-MiniLM-L6-v2",
        num_tokens=MAX_TOKENS,
        dim=TEXT_WIDTH,
    )
    return TextEncoder.from_folder(config, folder or bundled)


def read_judge_config(cls: type[ConfigT], folder: Path) -> ConfigT:
    """The sizes of a judge's network.

    Raises:
        CheckpointError: ``config.json`` is missing or not JSON.
        ConfigError: a field of it is wrong.
    """
    path = folder / CONFIG_NAME
    return parse_config(cls, read_object(path, CheckpointError), str(path))


def write_judge(folder: Path, config: BaseModel, state: State) -> None:
    """Write a judge's folder: ``config.json``, and weights in half precision.

    Raises:
        OutputError: the folder cannot be written.
    """
    small = {name: v.half() if v.is_floating_point() else v for name, v in state.items()}
    write_weights(folder / WEIGHTS_NAME, small, {"format": "pt"})
    with atomic_path(folder / CONFIG_NAME) as temporary:
        temporary.write_text(config.model_dump_json(indent=2) + "\n", encoding="utf-8")


def judge_samples(audio: Waveform, rate_hz: int) -> Float32[Tensor, "row sample"]:
    """A judge's own rate, on the CPU.

    Raises:
        RewardError: a row holds NaN or infinite samples, or is too short to be judged.
    """
    if audio.samples.shape[1] < SHORTEST_S * audio.sample_rate_hz:
        raise RewardError(
            f"a sound of {audio.samples.shape[1] / audio.sample_rate_hz:.3f} s is too short to be "
            f"judged; give at least {SHORTEST_S} s"
        )
    return hear(audio, rate_hz)


class SmallJudge(LocalJudge, Generic[NetworkT]):
    """A judge in a folder of its own: a network that hears, and MiniLM that reads."""

    default_name: str
    """How a judge is called that comes from no folder."""

    def __init__(
        self, network: NetworkT, text_encoder: TextEncoder, name: str | None = None
    ) -> None:
        self.network: NetworkT = network.eval().requires_grad_(False)
        self.text_encoder = text_encoder
        digest = fingerprint_weights([network.state_dict()])[:8]
        self.name = f"{name or self.default_name}@{digest}"
        """Folder and fingerprint of the weights."""

    @classmethod
    @abstractmethod
    def make_network(cls, folder: Path) -> NetworkT:
        """A fresh network of the sizes that the folder's ``config.json`` says."""

    @classmethod
    def from_folder(
        cls, folder: Path, text_encoder: Path | None = None, device: torch.device | str = "cpu"
    ) -> SmallJudge[NetworkT]:
        """Load ``config.json`` and ``model.safetensors``.

        Args:
            folder: where they are.
            text_encoder: folder of MiniLM; the one in the package if None.
            device: where to compute.

        Raises:
            CheckpointError: a file is missing or broken.
            ConfigError: the configuration is of another judge.
        """
        network = cls.make_network(folder)
        load_strict(network, read_weights(folder / WEIGHTS_NAME), str(folder / WEIGHTS_NAME))
        return cls(network.to(device), load_minilm(text_encoder).to(device), folder.resolve().name)
