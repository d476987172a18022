"""What a recipe says of any run: length, place, precision, optimiser, average."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from resonate_audio.core.config import FrozenConfig, WrittenPath
from resonate_audio.training.loop.distributed import Parallel
from resonate_audio.training.loop.ema import EmaConfig
from resonate_audio.training.loop.optim import OptimConfig
from resonate_audio.training.loop.track import TrackerName


class RunConfig(FrozenConfig):
    """Length, place and bookkeeping of a run."""

    output: WrittenPath
    """Folder of the run: checkpoints, metrics.jsonl, loss.png, recipe.yaml, samples."""
    num_steps: int = Field(500_000, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    """``auto`` takes cuda, then mps, then cpu."""
    num_threads: int | None = Field(None, ge=1, le=4_096)
    """CPU threads of torch; None leaves them as they are."""
    precision: Literal["auto", "float32", "bf16"] = "float32"
    """Arithmetic of the forward pass; weights, moments and averages stay float32. ``auto`` is bf16
    where the device multiplies at least twice as fast in it, and stays what a run began with."""
    compile: bool = False
    recompute_blocks: bool = False
    """Flow transformers only: a third more time, a fraction of the memory, the same gradients up to
    the order of their sums."""
    parallel: Parallel = "ddp"
    """With several processes: ``ddp`` gives each all weights, ``fsdp`` its part of each."""
    micro_batches: int = Field(1, ge=1, le=100_000)
    """Batches whose gradients are averaged in one update."""
    log_every: int = Field(50, ge=1)
    save_every: int = Field(1000, ge=1)
    keep_last: int = Field(2, ge=1)
    sample_every: int = Field(0, ge=0)
    """Updates between audio samples; 0 makes them only at the end."""
    plot_every: int = Field(1000, ge=1)
    track: TrackerName | None = None
    """Send the numbers of ``metrics.jsonl`` to a tracker, too; its library is an extra of that
    name."""
    max_hours: float | None = Field(None, gt=0)
    """Stop with a checkpoint after this long; the next start goes on."""
    max_cpu_hours: float | None = Field(None, gt=0)
    """The same for processor time, of all threads together: fair on a machine with other work."""


class TrainerConfig(FrozenConfig):
    """The part of a recipe that every trainer has."""

    run: RunConfig
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()
