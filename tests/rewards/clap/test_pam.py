from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_ms_clap import make_model, write_published

from resonate_audio.core.types import Waveform
from resonate_audio.rewards.base import Reward
from resonate_audio.rewards.clap.microsoft import MSClapModel
from resonate_audio.rewards.clap.pam import ANTONYMS, PAMReward, clean_probability
from resonate_audio.rewards.desk import score_now

RATE_HZ = 44_100


def sounds(seconds: float) -> Waveform:
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(2, int(seconds * RATE_HZ), generator=generator)
    ramp = torch.linspace(0, 1, noise.shape[1])
    return Waveform(0.2 * noise * torch.stack([ramp, 1 - ramp]), RATE_HZ)


@pytest.fixture(scope="module")
def model() -> MSClapModel:
    return make_model()


def test_it_is_a_reward(model: MSClapModel) -> None:
    assert isinstance(PAMReward(model), Reward)


def test_equal_distance_from_both_texts_is_one_half() -> None:
    found = clean_probability(
        torch.tensor([0.6, 0.8]), torch.tensor([[0.6, 0.8], [0.6, 0.8]]), 20.0
    )
    assert found == 0.5


def test_the_probability_is_a_softmax_of_scaled_cosines() -> None:
    heard, antonyms = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    expected = math.exp(5 * 0.6) / (math.exp(5 * 0.6) + math.exp(0))
    assert clean_probability(heard, antonyms, 5.0).item() == pytest.approx(expected)


def test_it_is_the_softmax_over_the_networks_own_cosines(model: MSClapModel) -> None:
    audio = sounds(7.0)
    with torch.no_grad():
        heard = model.network.embed_windows(audio.samples)
        cosines = heard @ model.embed_texts(ANTONYMS, "paper").T
        expected = torch.softmax(model.network.logit_scale.exp() * cosines, dim=1)[:, 0].double()
    found = score_now(PAMReward(model), audio, ["", ""]).total
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_text_is_not_read(model: MSClapModel) -> None:
    judge, audio = PAMReward(model), sounds(1.0)
    first = score_now(judge, audio, ["rain", "a dog"]).total
    assert torch.equal(first, score_now(judge, audio, ["a car", "wind"]).total)


def test_paper_mode_hears_the_first_seven_seconds(model: MSClapModel) -> None:
    judge, audio = PAMReward(model, "paper"), sounds(10.0)
    start = Waveform(audio.samples[:, : 7 * RATE_HZ], RATE_HZ)
    assert torch.equal(
        score_now(judge, audio, ["", ""]).total, score_now(judge, start, ["", ""]).total
    )


def test_deterministic_mode_is_the_mean_over_all_of_the_sound(model: MSClapModel) -> None:
    judge, audio = PAMReward(model), sounds(10.0)
    parts = [audio.samples[:, : 7 * RATE_HZ], audio.samples[:, 3 * RATE_HZ :]]
    alone = [score_now(judge, Waveform(part, RATE_HZ), ["", ""]).total for part in parts]
    found = score_now(judge, audio, ["", ""]).total
    torch.testing.assert_close(found, torch.stack(alone).mean(dim=0), atol=1e-6, rtol=0)


@pytest.mark.parametrize("mode", ["deterministic", "paper"])
def test_a_batch_scores_as_its_rows_do_one_by_one(mode: Any, model: MSClapModel) -> None:
    judge, audio = PAMReward(model, mode), sounds(8.0)
    alone = [score_now(judge, Waveform(row[None], RATE_HZ), [""]).total for row in audio.samples]
    found = score_now(judge, audio, ["", ""]).total
    torch.testing.assert_close(found, torch.cat(alone), atol=1e-6, rtol=0)


def test_it_loads_the_published_file(tmp_path: Path, model: MSClapModel) -> None:
    loaded = PAMReward.from_pretrained(str(write_published(tmp_path)))
    found = score_now(loaded, sounds(1.0), ["", ""])
    assert torch.equal(found.total, score_now(PAMReward(model), sounds(1.0), ["", ""]).total)
    assert "mean of 7 s windows" in found.judge
