"""PAM: does a sound come closer to "clear and clean" than to "noisy and with artifacts"?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import make_rewards
from resonate_audio.rewards.clap.microsoft import (
    TILED,
    Mode,
    MSClapJudge,
    MSClapModel,
    choose_windows,
)
from resonate_audio.rewards.clap.microsoft_network import SAMPLE_RATE_HZ, WINDOW_S
from resonate_audio.rewards.hearing import hear

ANTONYMS = ("the sound is clear and clean.", "the sound is noisy and with artifacts.")
"""As the authors publish them; the score is the probability of the first."""


class PAMReward(MSClapJudge):
    """Probability that a sound is clear and clean, whatever its text says; in [0, 1].

    PAM = softmax(s·cos(a, t₁), s·cos(a, t₂))₁ with MS-CLAP 2023, s its learnt scale
    [PAM, arXiv:2402.00282]

    Paper mode hears the first 7 s, as the authors' option to reproduce their numbers does.
    Deterministic mode is the mean over windows of 7 s, the last one ending with the sound, which
    is what their code does otherwise. A sound under 7 s is repeated.
    """

    default_name = "pam"
    windows: Mapping[Mode, str] = {"deterministic": TILED, "paper": "first 7 s"}

    def __init__(
        self, model: MSClapModel, mode: Mode = "deterministic", name: str | None = None
    ) -> None:
        """Take a model that is ready, as `MSClapJudge` does."""
        super().__init__(model, mode, name)
        self._antonyms = model.embed_texts(ANTONYMS, "paper")
        self._scale = float(model.network.logit_scale.detach().exp())

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        longest_s = float(WINDOW_S) if self.mode == "paper" else None
        samples = hear(audio, SAMPLE_RATE_HZ, longest_s)
        heard = self.model.embed_windows(choose_windows(samples, "deterministic"))
        clean = clean_probability(heard, self._antonyms, self._scale)
        return make_rewards(clean.mean(dim=1), self._judge, len(prompts))


def clean_probability(
    heard: Float[Tensor, "*row dim"], antonyms: Float[Tensor, "2 dim"], scale: float
) -> Float[Tensor, "*row"]:
    """Probability of the first of two texts, from unit vectors: a sigmoid of their difference."""
    cosines = heard.double() @ antonyms.double().T
    return torch.sigmoid(scale * (cosines[..., 0] - cosines[..., 1]))
