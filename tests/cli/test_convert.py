from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from published_files import (
    BIGVGAN_16K,
    FLOW,
    VAE_16K,
    official_bigvgan_names,
    official_vae_names,
    published,
)
from tiny_model import write_text_encoder

from resonate_audio.audio.mel import MEL_16K
from resonate_audio.cli.convert import convert
from resonate_audio.cli.main import run
from resonate_audio.core.errors import ConfigError, InputError, OutputError
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.flow_transformer import FlowTransformer
from resonate_audio.model.folder import Networks, read_networks, write_networks
from resonate_audio.model.official.bigvgan import our_bigvgan_name
from resonate_audio.model.official.flow import to_official
from resonate_audio.model.official.folder import convert_files
from resonate_audio.model.official.vae import our_vae_name
from resonate_audio.model.presets import ModelConfig
from resonate_audio.model.text_encoder import TextEncoderConfig
from resonate_audio.model.vae import MelVAE
from resonate_audio.pipeline.path import Resonate

CONFIG = ModelConfig(
    name="tiny",
    text_encoder=TextEncoderConfig(kind="minilm", repo_id="nobody/tiny", num_tokens=5, dim=16),
    transformer=FLOW.model_copy(update={"num_text_tokens": 5}),
    vae=VAE_16K,
    vocoder=BIGVGAN_16K,
    mel=MEL_16K,
    default_duration_s=0.4,
    max_duration_s=2.0,
)
"""The published 16 kHz family, small."""


@pytest.fixture(scope="module")
def networks() -> Networks:
    torch.manual_seed(0)
    flow = FlowTransformer(CONFIG.transformer)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    assert isinstance(CONFIG.vocoder, BigVGANConfig)
    return Networks(CONFIG, flow.eval(), MelVAE(CONFIG.vae).eval(), BigVGAN(CONFIG.vocoder).eval())


@pytest.fixture(scope="module")
def sources(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The three files as they are published: raw VAE weights, a wrapped generator."""
    place = tmp_path_factory.mktemp("official")
    vae_names = {name: our_vae_name(name, CONFIG.vae) for name in official_vae_names()}
    assert isinstance(CONFIG.vocoder, BigVGANConfig)
    vocoder_names = {
        name: our_bigvgan_name(name, CONFIG.vocoder) for name in official_bigvgan_names()
    }
    torch.save(to_official(networks.transformer.state_dict()), place / "Resonate_PT.pth")
    torch.save(published(networks.vae, vae_names), place / "v1-16.pth")
    torch.save({"generator": published(networks.vocoder, vocoder_names)}, place / "g.pt")
    return [place / name for name in ("Resonate_PT.pth", "v1-16.pth", "g.pt")]


@pytest.fixture(scope="module")
def base(networks: Networks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An earlier model of the same family, with its text encoder."""
    place = tmp_path_factory.mktemp("base")
    write_text_encoder(place / "words")
    write_networks(place / "model", networks, place / "words")
    return place / "model"


def test_converted_weights_are_the_published_ones(
    networks: Networks, sources: list[Path], base: Path, tmp_path: Path
) -> None:
    reports = convert_files(sources, tmp_path / "m", base)
    assert [report.part for report in reports] == ["transformer", "vae", "vocoder"]
    assert [report.weight_error for report in reports] == [0.0, 0.0, 0.0]
    assert [report.output_error for report in reports] == [0.0, 0.0, 0.0]
    converted = read_networks(tmp_path / "m")
    assert converted.config == CONFIG
    for part in ("transformer", "vocoder"):
        expected = getattr(networks, part).state_dict()
        for name, value in getattr(converted, part).state_dict().items():
            assert torch.equal(value, expected[name]), name
    latents = torch.randn(1, 6, 4, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(converted.vae.decode(latents), networks.vae.decode(latents))


def test_a_converted_model_makes_a_sound(sources: list[Path], base: Path, tmp_path: Path) -> None:
    convert_files(sources, tmp_path / "m", base)
    model = Resonate.from_pretrained(tmp_path / "m", device="cpu")
    [audio] = model.generate("dog", num_inference_steps=1, seeds=1)
    assert len(audio.samples) == 6400
    assert np.isfinite(audio.samples).all()


def test_other_sources_come_from_the_base(sources: list[Path], base: Path, tmp_path: Path) -> None:
    reports = convert_files(sources[:1], tmp_path / "m", base)
    assert [report.source for report in reports] == ["Resonate_PT.pth", *["the base model"] * 2]
    assert (tmp_path / "m" / "text_encoder" / "tokenizer.json").is_file()


def test_half_precision_reports_what_it_costs(
    sources: list[Path], base: Path, tmp_path: Path
) -> None:
    reports = convert_files(sources, tmp_path / "m", base, "float16")
    for report in reports:
        assert 0 < report.weight_error < 2e-3
        assert 0 < report.output_error < 5e-2


def test_a_missing_network_is_named(sources: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no vae \(v1-44\.pth or v1-16\.pth\) among the sources"):
        convert_files([sources[0], sources[2]], tmp_path / "m")
    assert not (tmp_path / "m").exists()


def test_the_same_network_twice_is_refused(sources: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a second transformer"):
        convert_files([sources[0], sources[0]], tmp_path / "m")


def test_networks_that_do_not_fit_are_refused(sources: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"converted networks: .*text_dim is 16"):
        convert_files(sources, tmp_path / "m")


def test_an_output_that_exists_is_refused_before_any_work(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="exists already"):
        convert([tmp_path / "none.pth"], tmp_path)


def test_an_unknown_number_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--storage int8: expected one of float32"):
        convert([tmp_path / "none.pth"], tmp_path / "m", storage="int8")


def test_the_command_prints_the_report(
    sources: list[Path], base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = run(["convert", *map(str, sources), "-o", str(tmp_path / "m"), "--base", str(base)])
    printed = capsys.readouterr()
    assert code == 0
    assert re.search(r"transformer.*Resonate_PT\.pth", printed.out)
    assert re.search(r"vocoder.*g\.pt", printed.out)


def test_a_hostile_file_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"optimizer": {"step": 3}, "joint_blocks.0": "text"}, tmp_path / "bad.pth")
    assert run(["convert", str(tmp_path / "bad.pth"), "-o", str(tmp_path / "m")]) == 2
    assert "refused" in capsys.readouterr().err
