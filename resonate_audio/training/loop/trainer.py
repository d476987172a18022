"""The loop every trainer shares: update, average, log, listen, save, until the last step."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from types import FrameType

import torch
from jaxtyping import Float
from torch import Tensor, nn

from resonate_audio.core.files import alone_in
from resonate_audio.core.processor import slower_than_float32
from resonate_audio.training.loop.distributed import GradientSum, unsharded, whole
from resonate_audio.training.loop.ema import averaged_state, ema_decay, update_average
from resonate_audio.training.loop.losses import PendingLosses
from resonate_audio.training.loop.optim import learning_rate_factor, set_learning_rate
from resonate_audio.training.loop.progress import (
    ProgressLine,
    Silence,
    append_metrics,
    plot_metrics,
    read_metrics,
)
from resonate_audio.training.loop.resume import RunState
from resonate_audio.training.loop.run_config import RunConfig, TrainerConfig
from resonate_audio.training.loop.task import Draw, Losses, Task, generator_for
from resonate_audio.training.loop.track import Tracking


@dataclass(frozen=True)
class RunResult:
    """How a run ended."""

    step: int
    finished: bool
    """False when it stopped at a time limit or a signal."""
    last_losses: dict[str, float] = field(default_factory=dict)


class Trainer(RunState):
    """Runs a task to its end, from its last checkpoint if there is one."""

    def __init__(self, task: Task, config: TrainerConfig, device: torch.device) -> None:
        super().__init__(task, config, device)
        self.sums = {name: GradientSum(module, self.ranks) for name, module in task.phases.items()}
        self.pending = PendingLosses()
        self.tracking = Tracking(lambda text: self.progress.say(text))
        self._stop = threading.Event()
        self._listening = False

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
        self.pending.add(self.step, logged)
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

    def join_losses(self, values: Float[Tensor, " step"]) -> Float[Tensor, " step"]:
        """Add up the shares of all processes."""
        return self.ranks.sum(values)

    def log(self, progress: ProgressLine) -> dict[str, float]:
        """Write one metrics line and move the progress line."""
        losses = self.pending.summary(self.join_losses)
        if losses:
            rate = self.optimizers[next(iter(self.optimizers))].param_groups[0]["lr"]
            elapsed = time.monotonic() - progress.started
            speed = (self.step - progress.start_step) / max(elapsed, 1e-9)
            line = {"step": self.step, **losses, "learning_rate": rate, "steps_per_s": speed}
            self.keep(line)
            progress.show(self.step, losses | {"steps/s": speed})
        return losses

    def keep(self, line: Mapping[str, float | int]) -> None:
        """Put a step's numbers where they stay; of several processes, the first does."""
        if self.ranks.first:
            append_metrics(self.metrics_path, dict(line))
            self.tracking.log(line)

    def open_progress(self) -> ProgressLine:
        """What follows the run on the terminal."""
        return ProgressLine(self.run_config.num_steps, self.step)

    def open_tracking(self) -> None:
        """Tell the recipe's tracker of the run."""
        if self.ranks.first:
            run = self.run_config
            self.tracking.open(run.track, run.output, self.step, self.config)

    def draw(self) -> None:
        """Draw what the metrics file holds."""
        if self.metrics_path.exists():
            plot_metrics(self.metrics_path, self.run_config.output / "loss.png")

    def _sample(self) -> None:
        self._listening = True
        with self.averaged_weights(), unsharded(self.model):
            if self.ranks.first:
                values = self.task.sample(self.run_config.output / "samples", self.step)
                if values and not self._is_kept(line := {"step": self.step, **values}):
                    self.keep(line)
            self.ranks.wait()
        self._listening = False

    def _is_kept(self, line: Mapping[str, float | int]) -> bool:
        """Whether a finished run that was started again has said so before."""
        return self.metrics_path.exists() and line in read_metrics(self.metrics_path)

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
        with alone_in(self.run_config.output) if self.ranks.first else nullcontext():
            return self._fit()

    def _fit(self) -> RunResult:
        checkpoint = self.open_folder()
        silent = ProgressLine(self.run_config.num_steps, self.step, Silence())
        self.progress = progress = self.open_progress() if self.ranks.first else silent
        if checkpoint:
            progress.say(f"resumed {self.run_config.output} at step {self.step}")
        note = emulation_note(self.run_config, self.device)
        progress.say(note) if note else None
        finished = False
        self.open_tracking()
        try:
            with stop_on_signal(self._stop, self._tell_stop):
                losses = self._loop(progress)
            if self.step >= self.run_config.num_steps and not self._told_to_stop():
                self._finish()
                finished = True
        finally:
            self.tracking.close(finished)
        progress.close()
        progress.say(f"{'finished' if finished else 'stopped'} at step {self.step}")
        return RunResult(self.step, finished, losses)

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
        run = self.run_config
        spent = (
            (run.max_hours, time.monotonic() - progress.started),
            (run.max_cpu_hours, time.process_time() - progress.started_cpu),
        )
        late = any(limit is not None and seconds > limit * 3600 for limit, seconds in spent)
        return self.ranks.any(late or self._stop.is_set())

    def _told_to_stop(self) -> bool:
        return self.ranks.any(self._stop.is_set())

    def _tell_stop(self) -> None:
        last = "the sounds that are being made" if self._listening else f"step {self.step + 1}"
        self.progress.say(f"stopping after {last}; the same command goes on")

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


def emulation_note(config: RunConfig, device: torch.device) -> str | None:
    """Say what bf16 costs on a CPU that is slower in it than in float32."""
    if config.precision != "bf16" or device.type != "cpu":
        return None
    factor = slower_than_float32("bfloat16")
    if factor == 1.0:
        return None
    return (
        f"run.precision bf16: products take {factor:.1f} times as long as in float32 on this "
        "processor; float32 would be faster"
    )


@contextmanager
def stop_on_signal(
    stop: threading.Event, tell: Callable[[], None] = lambda: None
) -> Iterator[None]:
    """Let SIGTERM and SIGINT end the run after its current step, with a checkpoint.

    Args:
        stop: is set by the first of them.
        tell: says so at once. A thread calls it: the one that was interrupted may be writing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            threading.Thread(target=tell, daemon=True).start()

    handled = (signal.SIGTERM, signal.SIGINT)
    old = {number: signal.signal(number, handle) for number in handled}
    try:
        yield
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
