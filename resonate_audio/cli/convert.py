"""`resonate convert`: published checkpoints become one of our model folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from resonate_audio.cli.console import print_table, say
from resonate_audio.core.errors import InputError, OutputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from resonate_audio.model.folder import Networks

PROBE_FRAMES = 12
"""Latent frames of the random input that both networks are run on."""
KNOWN_FILES = {
    "transformer": "Resonate_PT.pth or Resonate_GRPO.pth",
    "vae": "v1-44.pth or v1-16.pth",
    "vocoder": "the BigVGAN generator",
}


@dataclass(frozen=True)
class PartReport:
    """How one network came through the conversion."""

    part: str
    source: str
    num_tensors: int
    num_elements: int
    weight_error: float
    """Largest absolute difference of any weight, read back from the folder."""
    output_error: float
    """Largest difference of the outputs on random input, relative to the largest output."""


def convert(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE...", help="Published weights, one file a network."),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Model folder to write.")],
    base: Annotated[
        Path | None,
        typer.Option(
            help="Model folder that gives the networks not among the sources.", show_default="none"
        ),
    ] = None,
    storage: Annotated[
        str, typer.Option(help="Number format on disk: float32, float16 or bfloat16.")
    ] = "float32",
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a model folder that exists.")
    ] = False,
) -> None:
    """Turn published checkpoints into a model folder, and report what was preserved.

    [bold]Example[/bold]

      resonate convert Resonate_GRPO.pth v1-44.pth bigvgan_generator.pt -o resonate-grpo
    """
    from resonate_audio.model.folder import Storage, is_model_folder

    if storage not in get_args(Storage):
        raise InputError(f"--storage {storage}: expected one of {', '.join(get_args(Storage))}")
    if output.exists() and not (overwrite and is_model_folder(output)):
        raise OutputError(f"{output}: exists already; pass --overwrite to replace a model folder")
    reports = convert_files(sources, output, base, storage, overwrite)
    rows = [
        (
            report.part,
            report.source,
            str(report.num_tensors),
            f"{report.num_elements:,}",
            f"{report.weight_error:.3g}",
            f"{report.output_error:.3g}",
        )
        for report in reports
    ]
    print_table(("part", "source", "tensors", "elements", "weights differ", "output differs"), rows)
    say(f"wrote {output}; use it with --model {output}")


def convert_files(
    sources: Sequence[Path],
    output: Path,
    base: Path | None = None,
    storage: Any = "float32",
    overwrite: bool = False,
) -> list[PartReport]:
    """Load the sources, write the folder, read it back and compare.

    Raises:
        InputError: two sources are the same network, or one is missing.
        CheckpointError: names the first tensor that is missing, unexpected or misshapen.
        ConfigError: the networks do not fit each other.
        OutputError: the folder cannot be written.
    """
    from resonate_audio.model.folder import TEXT_ENCODER, part_folder, write_networks

    loaded: dict[str, nn.Module] = {}
    names: dict[str, str] = {}
    for path in sources:
        part, network = _load(path)
        if part in loaded:
            raise InputError(f"{path}: a second {part}; {names[part]} is one already")
        loaded[part], names[part] = network, path.name
    networks = assemble(loaded, base)
    inside = None if base is None else part_folder(base, TEXT_ENCODER)
    encoder = inside if inside is not None and inside.is_dir() else None
    write_networks(output, networks, encoder, storage, overwrite)
    return compare_folder(networks, output, names)


def _load(path: Path) -> tuple[str, nn.Module]:
    from resonate_audio.model.official.convert import load_official, read_official

    say(f"reading {path}")
    part, state = read_official(path)
    return part, load_official(part, state, str(path))


def assemble(loaded: dict[str, nn.Module], base: Path | None) -> Networks:
    """Put networks together, the missing ones from ``base``, and derive their configuration.

    Raises:
        InputError: a network is missing and there is no base.
        ConfigError: the networks do not fit each other.
    """
    from resonate_audio.core.config import parse_config
    from resonate_audio.model.folder import PARTS, Networks, read_networks
    from resonate_audio.model.presets import RESONATE, RESONATE_16K, ModelConfig

    missing = [part for part in PARTS if part not in loaded]
    if missing and base is None:
        wanted = " and ".join(f"{part} ({KNOWN_FILES[part]})" for part in missing)
        raise InputError(f"no {wanted} among the sources: add it, or give --base MODEL_FOLDER")
    others = read_networks(base) if base is not None else None
    parts: dict[str, Any] = {
        part: loaded[part] if part in loaded else getattr(others, part) for part in PARTS
    }
    wide_band = parts["vae"].config.num_bands == RESONATE.mel.num_bands
    family = others.config if others else RESONATE if wide_band else RESONATE_16K
    values = family.model_dump() | {part: parts[part].config.model_dump() for part in PARTS}
    return Networks(parse_config(ModelConfig, values, "the converted networks"), **parts)


def compare_folder(networks: Networks, folder: Path, names: dict[str, str]) -> list[PartReport]:
    """Read every part back and compare its weights and its output on random input."""
    from resonate_audio.model.folder import read_part

    reports = []
    for part, state in networks.states().items():
        before, after = getattr(networks, part), read_part(folder, networks.config, part)
        again = after.state_dict()
        reports.append(
            PartReport(
                part,
                names.get(part, "the base model"),
                len(state),
                sum(value.numel() for value in state.values()),
                max(_difference(state[name], again[name]) for name in state),
                relative_difference(probe(part, before), probe(part, after)),
            )
        )
    return reports


def probe(part: str, network: Any) -> Tensor:
    """Output of a network on random input that depends on its sizes only."""
    import torch

    generator = torch.Generator().manual_seed(0)
    config = network.config

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    with torch.no_grad():
        if part == "vae":
            return _tensor(network.decode(draw(1, PROBE_FRAMES, config.latent_channels)))
        if part == "vocoder":
            return _tensor(network(draw(1, config.num_bands, PROBE_FRAMES)))
        conditions = network.condition(network.empty_features(1))
        z = draw(1, PROBE_FRAMES, config.latent_channels)
        return _tensor(network(z, torch.full((1,), 0.5), conditions))


def _tensor(value: Any) -> Tensor:
    from torch import Tensor

    assert isinstance(value, Tensor), type(value)
    return value


def relative_difference(one: Tensor, other: Tensor) -> float:
    """Largest absolute difference over the largest absolute value."""
    largest = one.abs().max().item()
    return _difference(one, other) / largest if largest else _difference(one, other)


def _difference(one: Tensor, other: Tensor) -> float:
    return (one.double() - other.double()).abs().max().item() if one.numel() else 0.0
