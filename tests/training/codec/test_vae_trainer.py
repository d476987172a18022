import numpy as np
import pytest
import torch
from learning import draw, learn
from tiny_corpus import tones

from resonate_audio.audio.mel import MEL_16K, MelFrontEnd
from resonate_audio.model.vae import MelVAE, VAEConfig
from resonate_audio.training.codec.crops import CropConfig, CropSource
from resonate_audio.training.codec.vae import (
    VAEObjective,
    VAETask,
    normalized_mel,
    set_mel_statistics,
)


def make_task() -> VAETask:
    source = CropSource(tones(), CropConfig(crop_s=0.25, rows_per_batch=3), 512, seed=0)
    config = VAEConfig(num_bands=80, latent_channels=4, hidden=8)
    model = MelVAE(config, torch.Generator().manual_seed(0))
    mel = MelFrontEnd(MEL_16K)
    set_mel_statistics(model, mel, source)
    return VAETask(model, mel, source, VAEObjective(kl_weight=1e-3))


def test_mels_of_the_corpus_are_normalised_band_by_band() -> None:
    task = make_task()
    mels = normalized_mel(task.model, task.mel(task.source.beginnings(3)))
    std, mean = torch.std_mean(mels, dim=(0, 2))
    torch.testing.assert_close(mean, torch.zeros(80), atol=1e-3, rtol=0)
    torch.testing.assert_close(std, torch.ones(80), atol=1e-3, rtol=0)


def test_the_reconstruction_improves() -> None:
    task = make_task()
    losses = [parts["reconstruction_loss"].item() for _, parts in learn(task, 20, 0.1)]
    assert np.mean(losses[-5:]) < 0.85 * losses[0]


def test_the_logged_parts_add_up_to_the_loss() -> None:
    loss, parts = make_task().loss("model", draw(0))
    total = parts["reconstruction_loss"] + 0.5 * parts["detail_loss"] + 1e-3 * parts["kl_loss"]
    assert loss.item() == pytest.approx(total.item(), rel=1e-5)


def test_crops_are_whole_latent_frames() -> None:
    assert make_task().source.num_samples % 512 == 0


def test_a_crop_is_a_function_of_its_number() -> None:
    source = make_task().source
    first, other, again = (source.crops(draw(index)) for index in (0, 1, 0))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
