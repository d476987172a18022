"""From a recipe to a running trainer: device, seeds, processes, precision, compilation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

from resonate_audio.core.documents.yaml_text import read_yaml
from resonate_audio.core.errors import ConfigError
from resonate_audio.core.processor import preferred_dtype
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.training.loop.distributed import Ranks, copy_from_first, joined_ranks, shard
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.task import Task
from resonate_audio.training.loop.trainer import RunResult, Trainer

TaskT = TypeVar("TaskT", bound=Task)
ConfigT = TypeVar("ConfigT", bound=TrainerConfig)


def train(
    build: Callable[[torch.device], TaskT],
    config: TrainerConfig,
    trainer: Callable[[TaskT, TrainerConfig, torch.device], Trainer] = Trainer,
) -> RunResult:
    """Set up the machine, build the task from the run's seed, and run it."""
    if config.run.num_threads is not None:
        torch.set_num_threads(config.run.num_threads)
    with joined_ranks(config.run.device) as ranks:
        return _train_together(build, settle_precision(config, ranks), trainer, ranks)


def _train_together(
    build: Callable[[torch.device], TaskT],
    config: TrainerConfig,
    trainer: Callable[[TaskT, TrainerConfig, torch.device], Trainer],
    ranks: Ranks,
) -> RunResult:
    device = resolve_device(config.run.device)
    if device.type == "cuda":
        torch.backends.cuda.matmul.fp32_precision = "tf32"
        torch.backends.cudnn.conv.fp32_precision = "tf32"  # type: ignore[attr-defined]
    with seeded(config.run.seed, device):
        task = build(device)
    task.check_ranks(ranks)
    spread(task, config.run, ranks, device)
    if config.run.recompute_blocks:
        for module in task.phases.values():
            recompute_blocks(module)
    if config.run.compile:
        for module in task.phases.values():
            module.compile()
    with seeded(config.run.seed, device):
        return trainer(task, config, device).fit()


def settle_precision(config: ConfigT, ranks: Ranks) -> ConfigT:
    """Turn ``precision: auto`` into what the run began with, or what its device is fast in.

    All processes take what the first one finds.
    """
    run = config.run
    if run.precision != "auto":
        return config
    begun = run.output / "recipe.yaml"
    before = read_yaml(begun).get("run", {}).get("precision") if begun.is_file() else None
    half = before == "bf16"
    if before not in ("float32", "bf16"):
        half = preferred_dtype(resolve_device(run.device)) == torch.bfloat16
    half = ranks.any(ranks.first and half)
    settled = run.model_copy(update={"precision": "bf16" if half else "float32"})
    return config.model_copy(update={"run": settled})


def resolve_device(name: str) -> torch.device:
    """The device a recipe asks for.

    Raises:
        ConfigError: it does not exist on this machine.
    """
    if name == "auto":
        cuda, mps = torch.cuda.is_available(), torch.backends.mps.is_available()
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    try:
        torch.empty(0, device=name)
        return torch.device(name)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError(f"run.device {name}: not usable on this machine ({reason})") from error


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators for a while, then give the caller's states back.

    They start from chance in every process, and weights are initialised from them.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def spread(task: Task, config: RunConfig, ranks: Ranks, device: torch.device) -> None:
    """Bring the task's modules into every process, whole or in parts.

    Raises:
        ConfigError: ``fsdp`` with one process or together with ``compile``.
    """
    if config.parallel == "fsdp" and (ranks.world == 1 or config.compile):
        raise ConfigError(
            "run.parallel fsdp: needs run.compile false and several processes; start with "
            "torchrun --nproc-per-node N -m resonate_audio train …"
        )
    for module in task.phases.values():
        copy_from_first(module, ranks)
        if config.parallel == "fsdp":
            shard(module, ranks, device)


def recompute_blocks(module: nn.Module) -> None:
    """Make a module trade time for memory in its backward pass.

    Raises:
        ConfigError: it has no blocks to do that with.
    """
    if not isinstance(module, FlowTransformer):
        raise ConfigError("run.recompute_blocks: only the flow transformer can; set it to false")
    module.recompute_blocks = True
