"""What survives a kill: the state of a run, its folder, and the rule of who may go on from it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from resonate_audio.core.documents.yaml_text import format_yaml
from resonate_audio.core.files import atomic_path, make_folder
from resonate_audio.training.loop.checkpoint import (
    Checkpoint,
    drop_unfinished,
    load_latest,
    pack,
    pack_optimizer,
    save_checkpoint,
    unpack,
    unpack_optimizer,
)
from resonate_audio.training.loop.contents import check_same_run, contents_of
from resonate_audio.training.loop.distributed import current_ranks, like, load_whole, whole
from resonate_audio.training.loop.ema import start_average
from resonate_audio.training.loop.optim import make_optimizer
from resonate_audio.training.loop.progress import keep_metrics_until
from resonate_audio.training.loop.run_config import TrainerConfig
from resonate_audio.training.loop.task import Task


class RunState:
    """Everything the next step depends on, kept in checkpoints."""

    def __init__(self, task: Task, config: TrainerConfig, device: torch.device) -> None:
        self.task = task
        self.config = config
        self.run_config = config.run
        self.device = device
        self.ranks = current_ranks()
        self.step = 0
        self.optimizers = {
            name: make_optimizer(module.parameters(), config.optim)
            for name, module in task.phases.items()
        }
        self.model = next(iter(task.phases.values()))
        self.average = None if config.ema.kind == "off" else start_average(self.model)
        self.contents = contents_of(config) | dict(task.contents)

    @property
    def checkpoint_folder(self) -> Path:
        """Where this run keeps its checkpoints."""
        return self.run_config.output / "checkpoints"

    @property
    def metrics_path(self) -> Path:
        """The JSON lines this run writes."""
        return self.run_config.output / "metrics.jsonl"

    @property
    def logs(self) -> tuple[Path, ...]:
        """Files of JSON lines with a step each; what a resumed run will repeat is dropped."""
        return (self.metrics_path,)

    def open_folder(self) -> Checkpoint | None:
        """Make the run's folder, or go on from the checkpoint that is in it.

        Its recipe is written once the checkpoint is known to be of it: a start that is refused
        leaves everything as it was.
        """
        if self.ranks.first:
            make_folder(self.run_config.output)
            drop_unfinished(self.checkpoint_folder)
        self.ranks.wait()
        checkpoint = load_latest(self.checkpoint_folder)
        if checkpoint:
            self.restore(checkpoint)
        if self.ranks.first:
            prepare_folder(self.config)
        for log in self.logs if self.ranks.first else ():
            keep_metrics_until(log, self.step)
        return checkpoint

    def save(self) -> None:
        """Write a checkpoint of everything the next step depends on; all processes call it.

        It is the same file whatever the number of processes, so another number can go on.
        """
        tensors = {"rng.cpu": torch.get_rng_state()}
        if self.device.type == "cuda":
            tensors["rng.cuda"] = torch.cuda.get_rng_state(self.device)
        plain: dict[str, Any] = {}
        for name, module in self.task.phases.items():
            moments, plain[name] = pack_optimizer(self.optimizers[name])
            tensors |= pack(f"module.{name}", whole(module.state_dict()))
            tensors |= pack(f"optimizer.{name}", whole(moments))
        tensors |= pack("average", whole(self.average or {}))
        tensors |= pack("extra", whole(self.task.extra_state()))
        if not self.ranks.first:
            return
        config = self.config.model_dump(mode="json")
        checkpoint = Checkpoint(self.step, config, tensors, plain, self.contents)
        save_checkpoint(self.checkpoint_folder, checkpoint, self.run_config.keep_last)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            TrainingError: the recipe changed in something other than ``run``, or what it names did.
        """
        saved = with_new_fields(type(self.config), checkpoint.config)
        check_same_run(saved, self.config, checkpoint.contents, self.contents)
        tensors = checkpoint.tensors
        for name, module in self.task.phases.items():
            load_whole(module, unpack(f"module.{name}", tensors))
            moments = unpack(f"optimizer.{name}", tensors)
            unpack_optimizer(self.optimizers[name], moments, checkpoint.plain[name])
        if self.average is not None:
            saved = unpack("average", tensors)
            self.average = {name: like(saved[name], old) for name, old in self.average.items()}
        self.task.load_extra_state(unpack("extra", tensors))
        torch.set_rng_state(tensors["rng.cpu"])
        if self.device.type == "cuda" and "rng.cuda" in tensors:
            torch.cuda.set_rng_state(tensors["rng.cuda"], self.device)
        self.step = checkpoint.step


def prepare_folder(config: TrainerConfig) -> None:
    """Make the run's folder and write the resolved recipe into it.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    output = config.run.output
    make_folder(output)
    with atomic_path(output / "recipe.yaml") as temporary:
        text = format_yaml(config.model_dump(mode="json"))
        temporary.write_text(text, encoding="utf-8")


def with_new_fields(cls: type[TrainerConfig], saved: dict[str, Any]) -> dict[str, Any]:
    """A recipe of an older version with the defaults of what it did not know."""
    try:
        return cls.model_validate(saved).model_dump(mode="json")
    except ValidationError:
        return saved  # of a version that called things otherwise; the comparison names them
