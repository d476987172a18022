"""PAM: does a sound come closer to "clear and clean" than to "noisy and with artifacts"?"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import in_thread, make_rewards
from resonate_audio.rewards.clap.microsoft import (
    DEFAULT_SOURCE,
    Mode,
    MSClapModel,
    choose_windows,
)
from resonate_audio.rewards.clap.microsoft_network import SAMPLE_RATE_HZ, WINDOW_S
from resonate_audio.rewards.hearing import check_rows, hear

ANTONYMS = ("the sound is clear and clean.", "the sound is noisy and with artifacts.")
"""As the authors publish them; the score is the probability of the first."""
WINDOWS = {
    "deterministic": "mean of 7 s windows, the last ending with the sound",
    "paper": "first 7 s",
}


class PAMReward:
    """Probability that a sound is clear and clean, whatever its text says; in [0, 1].

    PAM = softmax(s·cos(a, t₁), s·cos(a, t₂))₁ with MS-CLAP 2023, s its learnt scale
    [PAM, arXiv:2402.00282]

    Paper mode hears the first 7 s, as the authors' option to reproduce their numbers does.
    Deterministic mode is the mean over windows of 7 s, the last one ending with the sound, which
    is what their code does otherwise. A sound under 7 s is repeated.
    """

    def __init__(self, model: MSClapModel, mode: Mode = "deterministic", name: str = "pam") -> None:
        """Take a model that is ready.

        Args:
            model: MS-CLAP.
            mode: which windows are heard.
            name: for logs.
        """
        self.model, self.mode, self.name = model, mode, name
        self._judge = f"{name}[{model.source}@{model.fingerprint}, {WINDOWS[mode]}]"
        self._antonyms = model.embed_texts(ANTONYMS, "paper")
        self._scale = float(model.network.logit_scale.detach().exp())

    @classmethod
    def from_pretrained(
        cls,
        source: str = DEFAULT_SOURCE,
        device: str | torch.device = "cpu",
        mode: Mode = "deterministic",
        batch_size: int = 8,
    ) -> PAMReward:
        """Load as `MSClapModel.from_pretrained` does, with its errors."""
        return cls(MSClapModel.from_pretrained(source, device, batch_size), mode)

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Judge every row; the texts are not read.

        Raises:
            RewardError: a sound is not finite.
        """
        return await in_thread(lambda: self._score(audio, prompts))

    def _score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        check_rows(self.name, audio, prompts)
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
