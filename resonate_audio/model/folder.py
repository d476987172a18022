"""A whole model on disk.

::

    model_index.json                     format version and configuration
    transformer/model.safetensors
    vae/model.safetensors
    vocoder/model.safetensors
    text_encoder/                        only when it travels with the model
        config.json  tokenizer.json  model.safetensors

A model that was taught further may name a bundled model as its ``base`` and hold only the parts
that differ from it; of the transformer also ``adapter.safetensors`` alone, which is added to the
base's.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from resonate_audio.core.config import FrozenConfig, parse_config
from resonate_audio.core.documents.json_text import read_object
from resonate_audio.core.errors import CheckpointError, OutputError
from resonate_audio.core.files import output_error
from resonate_audio.core.room import refuse_too_large
from resonate_audio.model.adapter import ADAPTER_NAME, add_adapters, read_adapter
from resonate_audio.model.bigvgan import BigVGAN
from resonate_audio.model.checkpoint import (
    State,
    load_file_strict,
    read_weights,
    write_weights,
)
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.linear_vae import AnyVAE, build_vae
from resonate_audio.model.parts_vocoder import PartsVocoder, PartsVocoderConfig
from resonate_audio.model.presets import ModelConfig, VocoderConfig
from resonate_audio.model.text_encoder import ENCODER_FILES, POOLED_FOLDER, t5_encoder_only

INDEX_NAME = "model_index.json"
WEIGHTS_NAME = "model.safetensors"
TEXT_ENCODER = "text_encoder"
PARTS = ("transformer", "vae", "vocoder")
FORMAT_VERSION = 1
BUNDLED = {"nano": "nano/weights", "nano-grpo": "nano/grpo"}
"""Embedded models: name and folder inside this package."""

Vocoder = BigVGAN | PartsVocoder
Storage = Literal["float32", "float16", "bfloat16"]
"""Type of matrices on disk; vectors and statistics always keep their own."""


class ModelIndex(FrozenConfig):
    """Content of ``model_index.json``."""

    format: Literal["resonate-audio"] = "resonate-audio"
    format_version: int = Field(default=FORMAT_VERSION, ge=1)
    written_by: str = ""
    """Version of this package that wrote the folder."""
    config: ModelConfig
    base: str | None = None
    """Bundled model that has the parts which this folder lacks."""


@dataclass(frozen=True)
class Networks:
    """The trained networks of one model, text encoder apart."""

    config: ModelConfig
    transformer: FlowTransformer
    vae: AnyVAE
    vocoder: Vocoder

    def states(self) -> dict[str, State]:
        """Weights of each part by its name."""
        return {name: dict(getattr(self, name).state_dict()) for name in PARTS}


def build_networks(config: ModelConfig) -> Networks:
    """Make all networks with random weights, ready for inference."""
    return Networks(
        config,
        build_transformer(config.transformer).eval(),
        build_vae(config.vae).eval(),
        build_vocoder(config.vocoder).eval(),
    )


def build_vocoder(config: VocoderConfig) -> Vocoder:
    """Make the vocoder that a configuration names.

    Raises:
        ConfigError: this machine cannot hold it.
    """
    kind: Any = PartsVocoder if isinstance(config, PartsVocoderConfig) else BigVGAN
    refuse_too_large(lambda: kind(config), "vocoder")
    made: Vocoder = kind(config)
    return made


def build_transformer(config: FlowTransformerConfig) -> FlowTransformer:
    """Make a flow transformer.

    Raises:
        ConfigError: this machine cannot hold it.
    """
    refuse_too_large(lambda: FlowTransformer(config), "transformer")
    return FlowTransformer(config)


def is_model_folder(folder: Path) -> bool:
    """Whether a folder looks like a model: it has a ``model_index.json``."""
    return (folder / INDEX_NAME).is_file()


def read_config(folder: Path) -> ModelConfig:
    """Read the configuration of a model folder.

    Raises:
        CheckpointError: the index is missing, not ours, or of a later format.
        ConfigError: a size in it is missing or does not fit.
    """
    return read_index(folder).config


def part_folder(folder: Path, name: str) -> Path:
    """Where a part of a model lies: in its folder, or in that of its base.

    Raises:
        CheckpointError: the index is broken, or its base is no bundled model.
    """
    base = None if (folder / name).is_dir() else base_folder(folder)
    return folder / name if base is None else part_folder(base, name)


def base_folder(folder: Path) -> Path | None:
    """The folder of the model that has the parts which this one lacks; None without one.

    Raises:
        CheckpointError: the index is broken, or its base is no bundled model.
    """
    if not is_model_folder(folder):
        return None
    base = read_index(folder).base
    if base is None:
        return None
    place = Path(str(files("resonate_audio"))) / BUNDLED.get(base, "")
    if base not in BUNDLED or place.resolve() == folder.resolve():
        raise CheckpointError(
            f"{folder / INDEX_NAME}: base is {base!r}; expected one of {', '.join(BUNDLED)}"
        )
    return place


def own_adapter(folder: Path) -> Path | None:
    """The adapter that makes a model of its base; None where the folder has a whole transformer.

    Raises:
        CheckpointError: the index is broken, or the folder has neither, so it would be its base.
    """
    base = None if (folder / "transformer").is_dir() else base_folder(folder)
    if base is None:
        return None
    path = folder / ADAPTER_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: neither transformer/ nor {ADAPTER_NAME} is there")
    return path


def read_index(folder: Path) -> ModelIndex:
    """Read ``model_index.json``.

    Raises:
        CheckpointError: it is missing, not ours, or of a later format.
        ConfigError: a size in it is missing or does not fit.
    """
    path = folder / INDEX_NAME
    values = read_object(path, CheckpointError)
    if values.get("format") != "resonate-audio":
        raise CheckpointError(f"{path}: not the index of a Resonate Audio model")
    if values.get("format_version") != FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: format {values.get('format_version')}, this version reads {FORMAT_VERSION}; "
            "upgrade resonate-audio"
        )
    return parse_config(ModelIndex, values, str(path))


def read_networks(folder: Path) -> Networks:
    """Load every network of a model folder, in float32 on the CPU.

    Raises:
        CheckpointError: names the file and the first key that is missing, unexpected or misshapen.
        ConfigError: the index holds sizes that do not fit.
    """
    config = read_config(folder)
    return Networks(config, **{name: read_part(folder, config, name) for name in PARTS})


def read_part(folder: Path, config: ModelConfig, name: str) -> Any:
    """Load one of ``PARTS``, an adapter in the folder added to its base's transformer.

    Raises:
        CheckpointError: names the file and the first key that is missing, unexpected or misshapen;
            or an adapter is of another base.
    """
    adapter = own_adapter(folder) if name == "transformer" else None
    if adapter is not None:
        base = base_folder(folder)
        assert base is not None
        transformer: FlowTransformer = read_part(base, config, name)
        add_adapters(transformer, [read_adapter(adapter)], str(read_index(folder).base))
        return transformer
    builders: dict[str, Callable[[], nn.Module]] = {
        "transformer": lambda: build_transformer(config.transformer),
        "vae": lambda: build_vae(config.vae),
        "vocoder": lambda: build_vocoder(config.vocoder),
    }
    path = part_folder(folder, name) / WEIGHTS_NAME
    with skip_random_weights():
        network = builders[name]()
    load_file_strict(network, path)
    return network.eval()


@contextmanager
def skip_random_weights() -> Iterator[None]:
    """Leave new weights undrawn: at 470 M, drawing what a file then replaces takes seconds."""
    with _SkipRandom():
        yield


class _SkipRandom(TorchFunctionMode):
    """Fills with zeros what would be filled at random.

    Not with nothing: torch draws truncated normals again until what it finds is inside the range.
    """

    _SKIPPED = (
        Tensor.normal_,
        Tensor.uniform_,
        nn.init.normal_,
        nn.init.uniform_,
        nn.init.kaiming_uniform_,
    )

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if func in self._SKIPPED:
            tensor: Tensor = args[0] if args else kwargs["tensor"]
            with torch.no_grad():
                return tensor.zero_()
        return func(*args, **(kwargs or {}))


def write_networks(
    folder: Path,
    networks: Networks,
    text_encoder: Path | None = None,
    storage: Storage = "float32",
    overwrite: bool = False,
) -> None:
    """Write a model folder; it appears whole or not at all.

    Args:
        folder: where; must not exist unless ``overwrite``.
        networks: what to save.
        text_encoder: folder of the text encoder's three files, to travel with the model.
        storage: type of the matrices on disk.
        overwrite: replace a model that is there already.

    Raises:
        OutputError: the folder exists, holds something else, or cannot be written.
        CheckpointError: a weight does not fit into ``storage``.
    """
    with writing_model(folder, overwrite) as temporary:
        for name, state in networks.states().items():
            write_part(temporary, name, state, storage)
        if text_encoder is not None:
            write_text_encoder(temporary, text_encoder, networks.config.text_encoder.kind)
        write_index(temporary, networks.config)


def write_part(folder: Path, name: str, state: State, storage: Storage) -> None:
    """Write the weights of one network into an unfinished model folder.

    Raises:
        CheckpointError: a weight does not fit into ``storage``.
    """
    path = folder / name / WEIGHTS_NAME
    write_weights(path, stored(state, storage, name), {"format": "pt"})


def write_text_encoder(folder: Path, source: Path, kind: str) -> None:
    """Put a text encoder into an unfinished model folder; of a whole T5 its encoder alone.

    Raises:
        CheckpointError: one of its files is missing or broken.
    """
    target = folder / TEXT_ENCODER
    target.mkdir()
    for file in ENCODER_FILES:
        if not (source / file).is_file():
            raise CheckpointError(f"{source}: text encoder file {file} is missing")
        if file != WEIGHTS_NAME or kind != "t5":
            shutil.copyfile(source / file, target / file)
    if kind == "t5":
        state = t5_encoder_only(read_weights(source / WEIGHTS_NAME))
        write_weights(target / WEIGHTS_NAME, state, {"format": "pt"})
    if (source / POOLED_FOLDER / WEIGHTS_NAME).is_file():
        shutil.copytree(source / POOLED_FOLDER, target / POOLED_FOLDER)


def write_index(folder: Path, config: ModelConfig) -> None:
    """Write ``model_index.json``, the last file of a model folder."""
    (folder / INDEX_NAME).write_text(index_text(config), encoding="utf-8")


def index_text(config: ModelConfig, base: str | None = None) -> str:
    """Content of the ``model_index.json`` of a model."""
    index = ModelIndex(written_by=own_version(), config=config, base=base)
    return index.model_dump_json(indent=2, exclude=None if base else {"base"}) + "\n"


def stored(state: Mapping[str, Tensor], storage: Storage, source: str) -> State:
    """Cast matrices to the storage type; vectors, statistics and flags stay as they are.

    Raises:
        CheckpointError: a weight overflows the type.
    """
    dtype: torch.dtype = getattr(torch, storage)
    small: State = {}
    for name, value in state.items():
        is_matrix = sum(size > 1 for size in value.shape) > 1
        small[name] = value.to(dtype) if is_matrix and value.is_floating_point() else value
        if not small[name].isfinite().all():
            raise CheckpointError(f"{source}: {name} does not fit into {storage}")
    return small


KEPT_OF_NAME = 50
"""Characters of a folder's name in that of the temporary one, which has 255 bytes at most, too."""


@contextmanager
def writing_model(folder: Path, overwrite: bool = False, mark: str = INDEX_NAME) -> Iterator[Path]:
    """Yield a temporary folder beside ``folder`` that takes its place if the block succeeds.

    Args:
        folder: where.
        overwrite: replace a model that is there already.
        mark: file that tells a model of this form.

    Raises:
        OutputError: ``folder`` exists and is not a model that may be replaced, or the disk says no.
    """
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        if not overwrite:
            raise OutputError(f"{folder}: exists already; pass --overwrite to replace it")
        if not (folder / mark).is_file():
            raise OutputError(f"{folder}: not a model folder, so it is not replaced")
    if folder.exists() and folder.samefile("."):
        raise OutputError(f"{folder}: is the folder that you are in; name one inside it")
    mark = secrets.token_hex(4)
    folder = Path(os.path.realpath(folder))  # a link stays one
    temporary = folder.with_name(f".{folder.name[:KEPT_OF_NAME]}.{mark}.part")
    replaced = folder.with_name(f".{folder.name[:KEPT_OF_NAME]}.{mark}.old")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        if overwrite and folder.exists():
            folder.rename(replaced)
        temporary.rename(folder)
    except OSError as error:
        raise output_error(folder, error) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        shutil.rmtree(replaced, ignore_errors=True)


def own_version() -> str:
    """The version of this package, or ``unknown`` where it is not installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("resonate-audio")
    except PackageNotFoundError:
        return "unknown"
