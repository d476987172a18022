"""Listening in on a run: fixed prompts and seeds by the averaged weights, and single takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import Field, model_validator

from resonate_audio.audio.io import write_audio
from resonate_audio.core.config import FrozenConfig, GivenPath
from resonate_audio.core.progress import format_duration, told
from resonate_audio.core.sampling import OpenSettings
from resonate_audio.core.types import Audio, Waveform
from resonate_audio.pipeline.guests.guest import Guest
from resonate_audio.pipeline.path import Resonate
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.desk import score_now
from resonate_audio.training.loop.progress import append_metrics, keep_metrics_until
from resonate_audio.training.reinforce.experience import Experience, attenuate
from resonate_audio.training.reinforce.trainer import TAKES_LOG


class EvaluationConfig(OpenSettings, FrozenConfig):
    """What is generated and judged every ``run.sample_every`` steps, and before the first.

    Settings of the solver that are left open are those of the model that the run exports: its own
    steps, the guidance of ``sampler``.
    """

    prompts: GivenPath | None = None
    """File of prompts that are not trained on; None leaves evaluation out."""
    held_out: str | None = None
    """A judge that no training uses, beside the one that trains."""
    rows_per_batch: int = Field(16, ge=1, le=100_000)

    @model_validator(mode="after")
    def _judge_something(self) -> EvaluationConfig:
        """A judge needs prompts; ``prompts: null`` says that evaluation is left out as a whole."""
        if self.held_out is not None and "prompts" not in self.model_fields_set:
            raise ValueError(
                f"held_out {self.held_out}: judges nothing without evaluation.prompts; name a "
                "file of prompts, or write prompts: null to leave evaluation out"
            )
        return self


@dataclass
class Evaluator:
    """Generates every prompt with its own seed (its number in the file) and has it judged."""

    resonate: Resonate | Guest
    prompts: tuple[str, ...]
    judges: Mapping[str, Reward]
    """By the name under which their means are logged, such as ``held_out/nano-eval``."""
    config: EvaluationConfig
    duration_s: float
    log: Path
    """JSON lines: step, prompt, seed and every judge's score, for paired comparisons."""
    tell: Callable[[str], None] = lambda text: None
    """Is told what goes on: it may take longer than the steps do."""
    is_stopping: Callable[[], bool] = lambda: False
    """Whether to break off between two batches of sounds, or two judges."""

    def __call__(self, folder: Path, step: int) -> dict[str, float]:
        """Judge the model as it is; the sounds stay in ``folder``.

        Returns:
            Mean score by judge; nothing, and nothing is kept, if it was broken off.
        """
        began = time.monotonic()
        self.tell(
            f"evaluation at step {step}: {len(self.prompts)} prompts are made and judged "
            "(--set evaluation.prompts=null leaves it out)"
        )
        audio = self.generate()
        scores = {}
        for name, judge in self.judges.items():
            if audio is None or self.is_stopping():
                break
            self.tell(f"evaluation: {len(self.prompts)} sounds go to {judge.name}")
            scores[name] = score_now(judge, audio, self.prompts).total
        if audio is None or len(scores) < len(self.judges):
            self.tell(f"evaluation at step {step}: broken off; it is made when the run goes on")
            return {}
        self.tell(f"evaluation: {format_duration(time.monotonic() - began)} at step {step}")
        for row, samples in enumerate(audio.samples.numpy()):
            path = folder / f"step-{step:06d}-{row:03d}.flac"
            write_audio(path, Audio(samples, audio.sample_rate_hz), overwrite=True)
        keep_metrics_until(self.log, step - 1)  # a finished run that is started again says it once
        for row, prompt in enumerate(self.prompts):
            values = {name: float(total[row]) for name, total in scores.items()}
            append_metrics(
                self.log, {"step": step, "prompt": prompt, "seed": row, "scores": values}
            )
        return {name: float(total.mean()) for name, total in scores.items()}

    def generate(self) -> Waveform | None:
        """One sound a prompt, attenuated to a peak of 1 where it is louder; None: broken off."""
        sampling = self.resonate.config.sampling(self.duration_s, **self.config.asked())
        batches = torch.split(torch.arange(len(self.prompts)), self.config.rows_per_batch)
        made = list[Waveform]()
        for rows in told(batches, len(batches), lambda text: self.tell(f"evaluation:{text}")):
            if self.is_stopping():
                return None
            texts = [self.prompts[row] for row in rows]
            latents = self.resonate.sample_latents(
                self.resonate.encode_text(texts),
                self.resonate.encode_negative([""] * len(texts)),
                rows.tolist(),
                sampling,
            )
            made.append(self.resonate.to_waveform(latents))
        samples = torch.cat([wave.samples for wave in made])
        return attenuate(Waveform(samples, made[0].sample_rate_hz))


@dataclass
class TakeKeeper:
    """Keeps the best and the worst takes of some steps, to be heard on the run's page."""

    folder: Path
    every: int
    count: int = 2

    def keep(self, step: int, experience: Experience) -> None:
        """Write the takes of a step, if it is one of those to keep; steps are counted from 1."""
        if self.every < 1 or step % self.every:
            return
        step += 1
        order = experience.rewards.total.argsort(stable=True).tolist()
        chosen = [("worst", row) for row in order[: self.count]]
        chosen += [("best", row) for row in order[::-1][: self.count]]
        for number, (kind, row) in enumerate(chosen):
            self._write(step, kind, number, row, experience)

    def _write(self, step: int, kind: str, number: int, row: int, experience: Experience) -> None:
        prompts, rewards = experience.rollout.prompts, experience.rewards
        name = f"takes/{step:06d}-{kind}-{number}.flac"
        samples = experience.audio.samples[row].numpy()
        audio = Audio(samples, experience.audio.sample_rate_hz)
        write_audio(self.folder / name, audio, overwrite=True)
        line = {
            "step": step,
            "prompt": prompts.texts[row // prompts.takes],
            "take": row % prompts.takes,
            "reward": float(rewards.total[row]),
            "parts": {part: float(values[row]) for part, values in rewards.parts.items()},
            "kind": kind,
            "file": name,
        }
        append_metrics(self.folder / TAKES_LOG, line)
