import numpy as np
import torch
from scipy.ndimage import median_filter
from scipy.signal import welch

from resonate_audio import Resonate
from resonate_audio.audio.mel import MelFrontEnd

WINDOW = 4096
NEIGHBOURS = 33


def ripple_db(samples: np.ndarray) -> float:
    """Deviation of the averaged spectrum's bins from the median of their neighbours."""
    levels = 10 * np.log10(welch(samples, nperseg=WINDOW)[1] + 1e-12)
    return float((levels - median_filter(levels, NEIGHBOURS))[20:1800].std())


@torch.no_grad()
def test_noise_comes_back_without_holes_or_lines() -> None:
    model = Resonate.from_pretrained("nano", device="cpu")
    rate = model.config.mel.sample_rate_hz
    noise = 0.05 * torch.randn(1, 4 * rate, generator=torch.Generator().manual_seed(0))
    latents = model.vae.encode(MelFrontEnd(model.config.mel)(noise)).mean
    [made] = model.vocoder(model.vae.decode(latents))
    assert ripple_db(noise[0].numpy()) < 1
    assert ripple_db(made.numpy()) < 2
