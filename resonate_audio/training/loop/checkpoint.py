"""A training checkpoint is one safetensors file: written whole or not at all."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ConfigDict, Field
from safetensors import SafetensorError, safe_open
from torch import Tensor

from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.errors import TrainingError
from resonate_audio.core.files import atomic_path, check_regular
from resonate_audio.model.checkpoint import save_tensors
from resonate_audio.training.loop.distributed import like


@dataclass(frozen=True)
class Checkpoint:
    """Everything a run needs to go on as if it had never stopped."""

    step: int
    """Updates done; also the schedule's and the data's position, which are functions of it."""
    config: dict[str, Any]
    """The resolved recipe."""
    tensors: dict[str, Tensor]
    """Modules, average, optimiser moments and generator states, by dotted prefix."""
    plain: dict[str, Any]
    """What is not a tensor, such as the optimisers' groups."""
    contents: dict[str, str] = field(default_factory=dict)
    """Hashes of what the recipe names, by field."""


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after ``step`` updates lies."""
    return folder / f"step-{step:08d}.safetensors"


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoints of a run, oldest first."""
    return sorted(folder.glob("step-*.safetensors"))


class CheckpointHeader(FrozenConfig):
    """What a checkpoint says besides its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=True)

    step: int = Field(ge=0)
    config: dict[str, Any]
    plain: dict[str, Any]
    contents: dict[str, str] = Field(default_factory=dict)


def save_checkpoint(folder: Path, checkpoint: Checkpoint, keep_last: int) -> Path:
    """Write the checkpoint under a temporary name, rename it, then drop the oldest ones.

    Raises:
        OutputError: the folder cannot be written or the disk is full; older files stay.
    """
    header = {
        "step": checkpoint.step,
        "config": checkpoint.config,
        "plain": checkpoint.plain,
        "contents": checkpoint.contents,
    }
    tensors = {
        name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()
    }
    path = checkpoint_path(folder, checkpoint.step)
    with atomic_path(path) as temporary:
        save_tensors(tensors, temporary, {"checkpoint": json.dumps(header)})
    for old in list_checkpoints(folder)[:-keep_last]:
        old.unlink()
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU.

    Raises:
        TrainingError: the file is truncated or not one of ours.
    """
    try:
        check_regular(path)
        with safe_open(path, framework="pt") as file:
            text = (file.metadata() or {})["checkpoint"]
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise TrainingError(f"{path}: not a whole training checkpoint ({error})") from error
    place = f"{path}: its header"
    values = parse_object(text, place, TrainingError, finite=False)
    header = parse_config(CheckpointHeader, values, place, TrainingError)
    return Checkpoint(header.step, header.config, tensors, header.plain, header.contents)


def drop_unfinished(folder: Path) -> None:
    """Remove what a run that was killed while saving left behind."""
    for pattern in (".step-*.part.safetensors", ".tmp*"):  # ours, and what safetensors writes
        for part in folder.glob(pattern):
            part.unlink()


def load_latest(folder: Path) -> Checkpoint | None:
    """The newest checkpoint of a run, or None when it has none."""
    found = list_checkpoints(folder)
    return load_checkpoint(found[-1]) if found else None


def pack(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Put ``prefix.`` before each name."""
    return {f"{prefix}.{name}": value for name, value in state.items()}


def unpack(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The entries under ``prefix.``, without it."""
    start = f"{prefix}."
    return {name[len(start) :]: v for name, v in tensors.items() if name.startswith(start)}


def pack_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], list[Any]]:
    """Split an optimiser's state into tensors named ``index.field`` and its plain groups."""
    state = optimizer.state_dict()
    tensors = {
        f"{index}.{field}": value
        for index, fields in state["state"].items()
        for field, value in fields.items()
    }
    return tensors, state["param_groups"]


def unpack_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], groups: list[Any]
) -> None:
    """Put the state made by `pack_optimizer` back."""
    state: dict[int, dict[str, Tensor]] = {}
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for name, value in tensors.items():
        index, _, field = name.partition(".")
        parameter = parameters[int(index)]
        moment = like(value, parameter) if value.shape == parameter.shape else value
        state.setdefault(int(index), {})[field] = moment
    optimizer.load_state_dict({"state": state, "param_groups": groups})
