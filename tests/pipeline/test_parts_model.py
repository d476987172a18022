"""The whole path with the vocoder of parts and a linear VAE, as nano has them."""

import numpy as np
import pytest
import torch
from tiny_model import TINY, write_text_encoder

from resonate_audio.model.folder import build_networks, write_networks
from resonate_audio.model.linear_vae import LinearVAEConfig
from resonate_audio.pipeline.path import Resonate

CONFIG = TINY.model_copy(
    update={"vae": LinearVAEConfig(num_bands=20, latent_channels=6, quiet_range=9.21)}
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Resonate:
    place = tmp_path_factory.mktemp("parts")
    torch.manual_seed(0)
    networks = build_networks(CONFIG)
    for parameter in networks.transformer.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    networks.vae.mean.fill_(-4.0)
    write_text_encoder(place / "words")
    write_networks(place / "model", networks, place / "words", storage="float16")
    return Resonate.from_pretrained(place / "model", device="cpu")


def test_a_sound_is_as_long_as_asked_and_not_silent(model: Resonate) -> None:
    [audio] = model.generate(["dog"], seeds=1, duration_s=0.7, num_inference_steps=3)
    assert len(audio.samples) == 5600
    assert np.abs(audio.samples).max() > 1e-3


def test_a_seed_sounds_the_same_alone_and_in_a_batch(model: Resonate) -> None:
    settings = {"duration_s": 0.7, "num_inference_steps": 3}
    together = model.generate(["dog", "rain", "bell"], seeds=[1, 2, 3], **settings)
    [alone] = model.generate(["rain"], seeds=2, **settings)
    np.testing.assert_allclose(alone.samples, together[1].samples, atol=1e-5)
