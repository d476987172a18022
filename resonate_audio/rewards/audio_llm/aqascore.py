"""AQAScore: how probable an audio LLM's "yes" is when asked whether a sound fits its text."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.audio_llm.model import SAMPLE_RATE_HZ, Answers, AudioLLM
from resonate_audio.rewards.base import LocalJudge, make_rewards
from resonate_audio.rewards.hearing import hear
from resonate_audio.rewards.pretrained import choose_judge_dtype, find_pretrained, short_name


class LowAnswerMassWarning(UserWarning):
    """A judge says neither yes nor no most of the time, so its scores compare leftovers."""


class AQAReward(LocalJudge):
    """Asks a model in this process whether each sound has what its text says.

    score = P(yes) / (P(yes) + P(no)) as the first answer token   [AQAScore, arXiv:2601.14728]

    Differs from the paper: every spelling of yes and no counts, not the last such token of a
    whole generated answer, where a clip without one scores 0. The parts report ``log_odds``, which
    does not saturate, and ``answer_mass`` = P(yes) + P(no).
    """

    def __init__(
        self,
        llm: AudioLLM,
        source: str,
        name: str | None = None,
        batch_size: int = 8,
        warn_below_mass: float = 0.5,
    ) -> None:
        """Take a model that is ready.

        Args:
            llm: the model and its question.
            source: where the weights come from, for the judge's id.
            name: for logs; by default ``aqa:`` and the last part of ``source``.
            batch_size: rows in one forward pass.
            warn_below_mass: warn when a batch's mean of P(yes) + P(no) is lower.
        """
        self.llm = llm
        self.name = name or f"aqa:{short_name(source)}"
        self._batch_size, self._warn_below_mass = batch_size, warn_below_mass
        question, weights = llm.question, next(llm.model.parameters())
        asked = f"{question.name} {question.fingerprint}"
        limit = "" if self._longest_s is None else f", first {self._longest_s:g} s"
        dtype = str(weights.dtype).removeprefix("torch.")
        self.id = f"{self.name}[{source}, {asked}, {dtype}{limit}]"
        """What results are signed with."""

    @classmethod
    def from_pretrained(
        cls,
        source: str,
        device: str | torch.device = "cpu",
        dtype: str | None = None,
        question: str = "paper",
        name: str | None = None,
        batch_size: int = 8,
    ) -> AQAReward:
        """Load Qwen2.5-Omni, Qwen3-Omni (thinkers) or Qwen2-Audio.

        Args:
            source: a folder, or a hub id such as ``Qwen/Qwen2.5-Omni-7B``.
            device: where to compute.
            dtype: float32, bfloat16 or float16; by default float32 on a CPU, else bfloat16.
            question: ``paper``, ``official``, or a text with ``{c}`` where the caption goes.
            name: as in the constructor.
            batch_size: rows in one forward pass.

        Raises:
            ModelNotFoundError: there is no such folder, and the hub does not give it.
            CheckpointError: files are missing or broken, or the model hears nothing.
            ConfigError: a bad dtype or question.
        """
        place = torch.device(device)
        weights_dtype = choose_judge_dtype(dtype, place)
        llm = AudioLLM.from_folder(find_pretrained(source), place, weights_dtype, question)
        return cls(llm, source, name, batch_size)

    @property
    def _longest_s(self) -> float | None:
        samples = self.llm.max_samples
        return None if samples is None else samples / SAMPLE_RATE_HZ

    def hear(self, audio: Waveform) -> Float[Tensor, "row sample"]:
        """Sounds as the model hears them: 16 kHz, no longer than it can."""
        return hear(audio, SAMPLE_RATE_HZ, self._longest_s)

    def answer(self, samples: Float[Tensor, "row sample"], texts: Sequence[str]) -> Answers:
        """Ask about one text for each sound.

        Args:
            samples: from `hear`.
            texts: one a row.
        """
        given: list[Answers] = []
        for start in range(0, len(samples), self._batch_size):
            rows = slice(start, start + self._batch_size)
            given.append(self.llm.answers(self.llm.prepare(samples[rows], texts[rows])))
        p_yes, log_odds, mass = (
            torch.cat([getattr(answers, name) for answers in given])
            for name in ("p_yes", "log_odds", "mass")
        )
        self._warn_of_low(float(mass.mean()))
        return Answers(p_yes, log_odds, mass)

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        answers = self.answer(self.hear(audio), prompts)
        parts = {"log_odds": answers.log_odds, "answer_mass": answers.mass}
        return make_rewards(answers.p_yes, self.id, len(prompts), parts)

    def _warn_of_low(self, mass: float) -> None:
        if mass < self._warn_below_mass:
            warnings.warn(
                f"{self.name}: P(yes) + P(no) is only {mass:.3f} on average; the model would "
                "rather say something else, so see its question and its weights",
                LowAnswerMassWarning,
                stacklevel=2,
            )
