"""The loop every trainer shares: order, precision, averaging, checkpoints, log.

A trainer brings a `Task`: its modules and a loss that is a function of the weights and of a
`Draw`. Everything random in a step comes from the draw, and the draw comes from (seed, step), so
a run that was killed and resumed does exactly what it would have done.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import torch
import yaml
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import ConfigError, OutputError, TrainingError
from resonate_audio.core.files import atomic_path
from resonate_audio.model.flow_transformer import FlowTransformer
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
from resonate_audio.training.loop.distributed import (
    ALONE,
    GradientSum,
    Parallel,
    Ranks,
    copy_from_first,
    current_ranks,
    joined_ranks,
    like,
    load_whole,
    shard,
    unsharded,
    whole,
)
from resonate_audio.training.loop.ema import (
    EmaConfig,
    averaged_state,
    ema_decay,
    start_average,
    update_average,
)
from resonate_audio.training.loop.optim import (
    OptimConfig,
    learning_rate_factor,
    make_optimizer,
    set_learning_rate,
)
from resonate_audio.training.loop.progress import (
    ProgressLine,
    Silence,
    append_metrics,
    keep_metrics_until,
    plot_metrics,
)

Losses = dict[str, Float[Tensor, ""]]


class RunConfig(FrozenConfig):
    """Length, place and bookkeeping of a run."""

    output: Path
    """Folder of the run: checkpoints, metrics.jsonl, loss.png, recipe.yaml, samples."""
    num_steps: int = Field(500_000, ge=1)
    seed: int = Field(0, ge=0)
    device: str = "auto"
    """``auto`` takes cuda, then mps, then cpu."""
    num_threads: int | None = Field(None, ge=1)
    """CPU threads of torch; None leaves them as they are."""
    precision: Literal["float32", "bf16"] = "float32"
    """Arithmetic of the forward pass; weights, moments and averages stay float32."""
    compile: bool = False
    recompute_blocks: bool = False
    """Flow transformers only: a third more time, a fraction of the memory, the same gradients up to
    the order of their sums."""
    parallel: Parallel = "ddp"
    """With several processes: ``ddp`` gives each all weights, ``fsdp`` its part of each."""
    micro_batches: int = Field(1, ge=1)
    """Batches whose gradients are averaged in one update."""
    log_every: int = Field(50, ge=1)
    save_every: int = Field(1000, ge=1)
    keep_last: int = Field(2, ge=1)
    sample_every: int = Field(0, ge=0)
    """Updates between audio samples; 0 makes them only at the end."""
    plot_every: int = Field(1000, ge=1)
    max_hours: float | None = Field(None, gt=0)
    """Stop with a checkpoint after this long; the next start goes on."""


class TrainerConfig(FrozenConfig):
    """The part of a recipe that every trainer has."""

    run: RunConfig
    optim: OptimConfig = OptimConfig()
    ema: EmaConfig = EmaConfig()


@dataclass(frozen=True)
class Draw:
    """What one forward pass may depend on beside the weights."""

    step: int
    index: int
    """Number of the batch since the run began: step · micro_batches + micro-batch."""
    generator: torch.Generator
    """On the training device, freshly seeded from the run's seed and ``index``."""
    ranks: Ranks = ALONE
    """Whose rows of the batch to compute: the losses of all processes add up to the batch's."""


class Task:
    """What a trainer brings to the loop.

    ``phases`` are trained one after the other within a step, each with an optimiser of its own;
    the first is the model, whose weights are averaged.
    """

    phases: dict[str, nn.Module]

    def loss(self, phase: str, draw: Draw) -> tuple[Float[Tensor, ""], Losses]:
        """Loss to minimise for one phase, and what to log beside it (detached)."""
        raise NotImplementedError

    def sample(self, folder: Path, step: int) -> Mapping[str, float] | None:
        """Make something to hear; called with the averaged weights in place.

        Returns:
            Numbers for the metrics, if it measured any.
        """

    def export(self, folder: Path) -> None:
        """Write what the run is for; called at its end with the averaged weights in place."""

    def check_ranks(self, ranks: Ranks) -> None:
        """Refuse a number of processes that the task cannot be split over.

        Raises:
            ConfigError: names what does not fit.
        """
        if ranks.world > 1:
            raise ConfigError(
                f"{ranks.world} processes: this part of a model is trained in one; start it "
                "without torchrun"
            )

    def extra_state(self) -> dict[str, Tensor]:
        """What the next step depends on besides the phases' weights; kept in checkpoints."""
        return {}

    def load_extra_state(self, state: dict[str, Tensor]) -> None:
        """Go back to what `extra_state` gave."""


TaskT = TypeVar("TaskT", bound=Task)


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when it stopped at a time limit or a signal."""
    last_losses: dict[str, float] = field(default_factory=dict)


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


def generator_for(
    seed: int, index: int, device: torch.device | str, purpose: str = "step"
) -> torch.Generator:
    """Random numbers that belong to (seed, index, purpose) and to nothing else.

    They are hashed: generators seeded with neighbouring integers would be related.
    """
    digest = hashlib.blake2b(f"{seed}/{index}/{purpose}".encode(), digest_size=8).digest()
    generator = torch.Generator(device)
    generator.manual_seed(int.from_bytes(digest, "big") >> 1)
    return generator


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's own generators for a while, then give the caller's states back.

    They start from chance in every process, and weights are initialised from them.
    """
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


class Trainer:
    """Runs a task to its end, from its last checkpoint if there is one."""

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
        self.sums = {name: GradientSum(module, self.ranks) for name, module in task.phases.items()}
        self.model = next(iter(task.phases.values()))
        self.average = None if config.ema.kind == "off" else start_average(self.model)
        self._pending: list[tuple[int, Losses]] = []
        self._stop = threading.Event()

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

    # --- one update ---------------------------------------------------------------------------

    def update(self) -> None:
        """One update of every phase, then of the average."""
        logged: Losses = {}
        for phase, module in self.task.phases.items():
            optimizer = self.optimizers[phase]
            self.set_rate(optimizer)
            optimizer.zero_grad(set_to_none=True)
            for micro in range(self.run_config.micro_batches):
                self.sums[phase].on_pass(micro + 1 == self.run_config.micro_batches)
                self._accumulate(phase, micro, logged)
            norm = self.clip_gradients(phase)
            optimizer.step()
            # what is logged here is summed over the processes later
            name = "grad_norm" if module is self.model else f"{phase}_grad_norm"
            logged[name] = norm / self.ranks.world
        self._pending.append((self.step, logged))
        self.advance()

    def clip_gradients(self, phase: str) -> Float[Tensor, ""]:
        """Sum a phase's gradients over the processes, limit their norm, say what it was."""
        self.sums[phase].finish()
        trained = [p for p in self.task.phases[phase].parameters() if p.grad is not None]
        norm = nn.utils.clip_grad_norm_(trained, self.config.optim.clip_norm).detach()
        return whole({"norm": norm})["norm"]

    def set_rate(self, optimizer: torch.optim.Optimizer) -> None:
        """Give an optimiser the learning rate of this step."""
        factor = learning_rate_factor(self.step, self.run_config.num_steps, self.config.optim)
        set_learning_rate(optimizer, self.config.optim.learning_rate * factor)

    def advance(self) -> None:
        """Count a step that is done, and let the average follow."""
        self.step += 1
        if self.average is not None:
            update_average(self.average, self.model, ema_decay(self.step, self.config.ema))

    def _accumulate(self, phase: str, micro: int, logged: Losses) -> None:
        parts = self.run_config.micro_batches
        index = self.step * parts + micro
        generator = generator_for(self.run_config.seed, index, self.device)
        draw = Draw(self.step, index, generator, self.ranks)
        amp = self.run_config.precision == "bf16"
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=amp):
            loss, extra = self.task.loss(phase, draw)
        (loss / parts).backward()  # type: ignore[no-untyped-call]
        name = "loss" if self.task.phases[phase] is self.model else f"{phase}_loss"
        for key, value in ({name: loss.detach()} | extra).items():
            logged[key] = logged.get(key, 0.0) + value.float() / parts

    # --- log ----------------------------------------------------------------------------------

    def flush_losses(self) -> dict[str, float]:
        """Bring the losses since the last call to the CPU, and return their means.

        They wait on the device until here, because reading one makes a GPU wait.

        Raises:
            TrainingError: one was not finite; names the first such step.
        """
        pending, self._pending = self._pending, []
        names = list(dict.fromkeys(name for _, losses in pending for name in losses))
        means = {}
        for name in names:
            steps = [step for step, losses in pending if name in losses]
            values = torch.stack([losses[name] for _, losses in pending if name in losses]).cpu()
            values = self.join_losses(values)
            check_finite(name, steps, values)
            means[name] = values.mean().item()
        return means

    def join_losses(self, values: Float[Tensor, " step"]) -> Float[Tensor, " step"]:
        """Add up the shares of all processes."""
        return self.ranks.sum(values)

    def log(self, progress: ProgressLine) -> dict[str, float]:
        """Write one metrics line and move the progress line."""
        losses = self.flush_losses()
        if losses:
            rate = self.optimizers[next(iter(self.optimizers))].param_groups[0]["lr"]
            elapsed = time.monotonic() - progress.started
            speed = (self.step - progress.start_step) / max(elapsed, 1e-9)
            line = {"step": self.step, **losses, "learning_rate": rate, "steps_per_s": speed}
            if self.ranks.first:
                append_metrics(self.metrics_path, line)
            progress.show(self.step, losses | {"steps/s": speed})
        return losses

    # --- checkpoint ---------------------------------------------------------------------------

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
        checkpoint = Checkpoint(self.step, config, tensors, plain)
        save_checkpoint(self.checkpoint_folder, checkpoint, self.run_config.keep_last)

    def restore(self, checkpoint: Checkpoint) -> None:
        """Go back to where a checkpoint was written.

        Raises:
            TrainingError: the recipe changed in something other than ``run``.
        """
        check_same_recipe(checkpoint.config, self.config.model_dump(mode="json"))
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

    def open_progress(self) -> ProgressLine:
        """What follows the run on the terminal."""
        return ProgressLine(self.run_config.num_steps, self.step)

    def draw(self) -> None:
        """Draw what the metrics file holds."""
        if self.metrics_path.exists():
            plot_metrics(self.metrics_path, self.run_config.output / "loss.png")

    def _sample(self) -> None:
        with self.averaged_weights(), unsharded(self.model):
            if self.ranks.first:
                values = self.task.sample(self.run_config.output / "samples", self.step)
                if values:
                    append_metrics(self.metrics_path, {"step": self.step, **values})
            self.ranks.wait()

    def _finish(self) -> None:
        self._sample()
        with self.averaged_weights(), unsharded(self.model):
            if self.ranks.first:
                self.task.export(self.run_config.output / "export")
                self.draw()
            self.ranks.wait()

    # --- the run ------------------------------------------------------------------------------

    def fit(self) -> RunResult:
        """Train to the last step, a time limit or a signal, with a checkpoint at the end.

        Raises:
            TrainingError: a loss was not finite, or the last checkpoint is of another recipe.
        """
        checkpoint = self._open_folder()
        silent = ProgressLine(self.run_config.num_steps, self.step, Silence())
        self.progress = progress = self.open_progress() if self.ranks.first else silent
        if checkpoint:
            progress.say(f"resumed {self.run_config.output} at step {self.step}")
        with stop_on_signal(self._stop):
            losses = self._loop(progress)
        finished = self.step >= self.run_config.num_steps
        if finished:
            self._finish()
        progress.close()
        progress.say(f"{'finished' if finished else 'stopped'} at step {self.step}")
        return RunResult(self.step, finished, losses)

    def _open_folder(self) -> Checkpoint | None:
        """Make the run's folder, or go on from the checkpoint that is in it."""
        if self.ranks.first:
            prepare_folder(self.config)
            drop_unfinished(self.checkpoint_folder)
        self.ranks.wait()
        checkpoint = load_latest(self.checkpoint_folder)
        if checkpoint:
            self.restore(checkpoint)
        for log in self.logs if self.ranks.first else ():
            keep_metrics_until(log, self.step)
        return checkpoint

    def _loop(self, progress: ProgressLine) -> dict[str, float]:
        run, losses, saved_at = self.run_config, {}, self.step
        for module in self.task.phases.values():
            module.train()
        while self.step < run.num_steps and not self._should_stop(progress):
            self.update()
            if self.step % run.log_every == 0:
                losses = self.log(progress)
            if run.sample_every and self.step % run.sample_every == 0 and self.step < run.num_steps:
                self._sample()  # before the checkpoint: what a resumed run repeats is dropped
            if self.step % run.save_every == 0:
                losses = self.log(progress) or losses
                self.save()
                saved_at = self.step
            if self.step % run.plot_every == 0 and self.ranks.first:
                self.draw()
        losses = self.log(progress) or losses
        if self.step > saved_at:
            self.save()
        if self.ranks.first:
            self.draw()
        return losses

    def _should_stop(self, progress: ProgressLine) -> bool:
        limit = self.run_config.max_hours
        late = limit is not None and time.monotonic() - progress.started > limit * 3600
        return self.ranks.any(late or self._stop.is_set())

    @contextmanager
    def averaged_weights(self) -> Iterator[None]:
        """Put the averaged weights into the model, in evaluation mode, for a while."""
        trained = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.model.load_state_dict(averaged_state(self.model, self.average))
        self.model.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.model.load_state_dict(trained)
            self.model.train()


def check_finite(name: str, steps: list[int], values: Float[Tensor, " step"]) -> None:
    """Stop at the first loss that is NaN or infinite.

    Raises:
        TrainingError: names the step and the loss.
    """
    bad = (~torch.isfinite(values)).nonzero()
    if len(bad):
        step, value = steps[int(bad[0])], values[int(bad[0])].item()
        raise TrainingError(
            f"step {step}: {name} is {value}; lower optim.learning_rate, or look for a broken "
            "clip in that batch"
        )


def full_precision(device: torch.device) -> torch.autocast:
    """A stretch of the forward pass in float32 whatever the run's precision: spectra need it."""
    return torch.autocast(device.type, enabled=False)


def prepare_folder(config: TrainerConfig) -> None:
    """Make the run's folder and write the resolved recipe into it.

    Raises:
        OutputError: the folder cannot be made or written.
    """
    output = config.run.output
    try:
        output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{output}: cannot make the run's folder ({error.strerror})") from error
    with atomic_path(output / "recipe.yaml") as temporary:
        text = yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)
        temporary.write_text(text, encoding="utf-8")


def check_same_recipe(saved: dict[str, Any], current: dict[str, Any]) -> None:
    """Refuse to resume under another recipe; only ``run`` may change, and not its seed.

    Raises:
        TrainingError: names the fields that differ.
    """
    before, after = flatten(saved), flatten(current)
    free = {name for name in before | after if name.startswith("run.") and name != "run.seed"}
    names = sorted((before.keys() | after.keys()) - free - {"run.micro_batches"})
    changed = [name for name in names if before.get(name) != after.get(name)]
    if before.get("run.micro_batches") != after.get("run.micro_batches"):
        changed.append("run.micro_batches")
    if changed:
        raise TrainingError(
            f"{', '.join(changed)} changed since the last checkpoint; choose another run.output, "
            "or set the old values again"
        )


def flatten(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested fields by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, dict):
            flat |= flatten(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value
    return flat


@contextmanager
def stop_on_signal(stop: threading.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the run after its current step, with a checkpoint."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, lambda *_: stop.set()) for number in handled}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def recompute_blocks(module: nn.Module) -> None:
    """Make a module trade time for memory in its backward pass.

    Raises:
        ConfigError: it has no blocks to do that with.
    """
    if not isinstance(module, FlowTransformer):
        raise ConfigError("run.recompute_blocks: only the flow transformer can; set it to false")
    module.recompute_blocks = True


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


def train(
    build: Callable[[torch.device], TaskT],
    config: TrainerConfig,
    trainer: Callable[[TaskT, TrainerConfig, torch.device], Trainer] = Trainer,
) -> RunResult:
    """Set up the machine, build the task from the run's seed, and run it."""
    if config.run.num_threads is not None:
        torch.set_num_threads(config.run.num_threads)
    with joined_ranks(config.run.device) as ranks:
        return _train_together(build, config, trainer, ranks)


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
