"""Golden vectors of mel, VAE and vocoder: what our code gives beside what they expect.

Each check yields (label, got, expected) for every ``out.*`` tensor of one golden file; sizes come
from its ``config`` and from the tensors, so any seed and size works.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from resonate_audio.audio.mel import MEL_16K, MEL_44K, MelFrontEnd
from resonate_audio.model.antialiased_snake import (
    SNAKE_EPS,
    AntialiasedSnake,
    kaiser_sinc_filter,
    snake_,
    upsample_phases,
)
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig, Stage
from resonate_audio.model.official.bigvgan import convert_bigvgan_state, our_bigvgan_name
from resonate_audio.model.official.vae import convert_vae_state, our_vae_name
from resonate_audio.model.vae import MelVAE, VAEConfig, unit_filters
from resonate_audio.parity.comparison import (
    LOG_MEL,
    WAVE,
    Comparison,
    compare_outputs,
    expected_outputs,
    with_prefix,
)

FRONT_ENDS = {"16k": MEL_16K, "44k": MEL_44K}


def check_mel(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Log-mels of each wave, and the filterbanks, whole or by row, where the file has them."""
    got = {}
    for rate, mel_config in FRONT_ENDS.items():
        front_end = MelFrontEnd(mel_config)
        got[f"mel_basis_{rate}"] = front_end.basis
        rows = enumerate(front_end.basis)
        got |= {f"mel_basis_row{number}_{rate}": row for number, row in rows}
        if f"in.wave_{rate}" in tensors:
            got[f"mel_{rate}"] = front_end(tensors[f"in.wave_{rate}"])
    yield from compare_outputs(tensors, got, {f"mel_{rate}": LOG_MEL for rate in FRONT_ENDS})


@torch.no_grad()
def check_vae(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Encoding and decoding, with and without the band statistics, and weights folded twice."""
    sizes = VAEConfig(
        num_bands=config["data_dim"], latent_channels=config["embed"], hidden=config["hidden"]
    )
    weights = with_prefix(tensors, "weights.")
    vae = MelVAE(sizes)
    vae.load_state_dict(convert_vae_state(weights, sizes))
    given = with_prefix(tensors, "in.")
    got: dict[str, Tensor] = {}
    for odd in ("", "_odd"):
        if f"mel{odd}" in given:
            posterior = vae.encode(given[f"mel{odd}"])
            got[f"mean{odd}"] = posterior.mean.mT
            got[f"logvar{odd}"] = posterior.log_variance.mT
            got[f"std{odd}"] = posterior.std.mT
        if f"z{odd}" in given:
            got[f"dec{odd}"] = vae.decode(given[f"z{odd}"].mT)
    got["sample"] = got["mean"] + got["std"] * given["sample_noise"]
    got["mean_nonormalize"] = vae.encode_normalized(given["mel"]).mean.mT
    got["dec_nounnormalize"] = vae.decode_normalized(given["z"].mT)
    state = vae.state_dict()
    for name in weights:
        folded = state[our_vae_name(name, sizes)]
        got[f"normed.{name}"] = folded
        if folded.ndim == 3 and name.endswith(".weight"):
            got[f"normed_twice.{name}"] = unit_filters(folded)
    yield from compare_outputs(tensors, got)


@torch.no_grad()
def check_bigvgan(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """The waveform, the first layers on the way to it, and the folded weights."""
    sizes = BigVGANConfig(
        version=config["ver"],
        sample_rate_hz=16_000 if config["ver"] == 1 else 44_100,
        num_bands=config["mels"],
        initial_channels=config["ch"],
        upsample_rates=config["rates"],
        upsample_kernels=config["kernels"],
        block_kernels=config["rk"],
    )
    vocoder = BigVGAN(sizes)
    vocoder.load_state_dict(convert_bigvgan_state(with_prefix(tensors, "weights."), sizes))
    mel = tensors["in.mel"]
    first = vocoder.stages[0]
    assert isinstance(first, Stage)
    got = {"conv_pre": vocoder.conv_pre(mel), "wave": vocoder(mel)[:, None]}
    got["ups0"] = first.up(got["conv_pre"])
    got["resblock0"] = first.blocks[0](got["ups0"])
    state = vocoder.state_dict()
    for label in expected_outputs(tensors):
        if label.startswith("plain."):
            ours = our_bigvgan_name(label.removeprefix("plain."), sizes)
            if ours in state:
                got[label] = state[ours]
    yield from compare_outputs(tensors, got, {"wave": WAVE})


@torch.no_grad()
def check_antialiased_snakebeta(
    tensors: dict[str, Tensor], config: dict[str, Any], folder: Path
) -> Iterator[Comparison]:
    """Filters, the doubled signal, the activation alone and the whole."""
    given = with_prefix(tensors, "in.")
    alpha, beta = given.pop("alpha"), given.pop("beta")
    activation = AntialiasedSnake(len(alpha))
    activation.load_state_dict({"log_alpha": alpha, "log_beta": beta})
    taps = kaiser_sinc_filter()
    got = {"up_filter": taps.view(1, 1, -1), "down_filter": taps.view(1, 1, -1)}
    inverse_beta = 1 / (beta.exp()[:, None] + SNAKE_EPS)
    for name, x in given.items():
        length = name.removeprefix("x")
        got[f"up{length}"] = torch.stack(upsample_phases(x, taps.tolist()), dim=-1).flatten(2)
        got[f"snake{length}"] = snake_(x.clone(), alpha.exp()[:, None], inverse_beta)
        got[f"y{length}"] = activation(x)
    yield from compare_outputs(tensors, got)


CHECKS = {
    "mel": check_mel,
    "vae": check_vae,
    "bigvgan": check_bigvgan,
    "antialiased_snakebeta": check_antialiased_snakebeta,
}
"""Which check reads the golden files whose name starts so."""
