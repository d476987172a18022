"""Models by name: described from their index, loaded when wanted, dropped when others need room."""

from __future__ import annotations

import dataclasses
import logging
import struct
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.documents.text import decode_line
from resonate_audio.core.edit import LONGEST_S
from resonate_audio.core.errors import ConfigError, InputError
from resonate_audio.core.files import open_regular
from resonate_audio.core.types import Audio
from resonate_audio.model.adapter import Adapter
from resonate_audio.model.folder import PARTS, WEIGHTS_NAME, part_folder, read_config
from resonate_audio.model.hub import find_model, find_text_encoder
from resonate_audio.model.presets import ModelConfig
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.request import Batch
from resonate_audio.serving.config import MEGABYTE, ServeConfig
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.sounds.adapters import (
    base_of,
    fitting_adapters,
    name_adapted,
    parse_adapted,
)
from resonate_audio.serving.sounds.edits import Bounds, subject_of
from resonate_audio.serving.sounds.requests import JobRequest, Wanted
from resonate_audio.serving.sounds.rowwise import can_batch

log = logging.getLogger("resonate.serve")
BYTES_PER_WEIGHT = 8
"""float32, and the Winograd form of a transformer takes twice that."""
NO_HEADER = (AttributeError, KeyError, OverflowError, TypeError, ValueError)
"""What a tensor without offsets, or with other things in their place, leads to."""


@dataclass(frozen=True)
class Described:
    """A model that can be loaded."""

    name: str
    source: str
    config: ModelConfig
    room_mb: float
    """Estimated memory when it is loaded."""
    adapters: tuple[Adapter, ...] = ()
    """Added to its weights."""


@dataclass(frozen=True)
class Loaded:
    """A model that is in memory."""

    model: Resonate
    max_rows: int
    """Rows that may be computed together; 1 where company would change bits."""
    room_mb: float


class Catalogue:
    """All models of a server; asks nothing of the network after it is made."""

    def __init__(self, config: ServeConfig) -> None:
        """Find every model.

        Raises:
            ModelNotFoundError: one is not there.
            ConfigError: one is larger than the memory budget.
            CheckpointError: an adapter is broken, or of none of the models.
        """
        self._max_duration_s, self._budget_mb = config.max_duration_s, config.memory_budget_mb
        self.models = {name: describe(name, source) for name, source in config.models.items()}
        self.default = next(iter(self.models))
        for found in self.models.values():
            if found.room_mb > config.memory_budget_mb:
                raise ConfigError(
                    f"model {found.name}: takes about {found.room_mb:.0f} MB, but "
                    f"memory_budget_mb is {config.memory_budget_mb:g}"
                )
        folders = {x.name: (find_model(x.source), x.config) for x in self.models.values()}
        self.adapters = fitting_adapters(config.adapters, folders)
        """Those that each model takes, by name."""

    def find(self, name: str | None, field: str = "model") -> Described:
        """The model of that name, or the default one; with the adapters that the name adds to it.

        Raises:
            ApiError: there is none, lists those that exist; or an adapter is not one of the model.
                Names ``field``, which the client's form of request has the name in.
        """
        try:
            return self._find(name)
        except ApiError as error:
            told = field + str(error).removeprefix("model")
            raise ApiError(error.status, told, field, error.code) from error

    def _find(self, name: str | None) -> Described:
        base = base_of(name or self.default)
        found = self.models.get(base)
        if found is None:
            names = ", ".join(self.models)
            message = f"model: {str(name)[:100]!r} is not served here; there is {names}"
            raise ApiError(404, message, "model", "model_not_found")
        chosen = parse_adapted(name or base, self.adapters)
        if not chosen:
            return found
        full_name, adapters = name_adapted(base, chosen), tuple(chosen.values())
        return dataclasses.replace(found, name=full_name, adapters=adapters)

    def fitting(self) -> list[str]:
        """Names of the default model and of as many others as stay in memory beside it."""
        chosen, taken_mb = [], 0.0
        for found in self.models.values():
            if taken_mb + found.room_mb <= self._budget_mb:
                chosen.append(found.name)
                taken_mb += found.room_mb
        return chosen

    @property
    def longest_s(self) -> float:
        """The longest sound that clients may ask for or send."""
        return min(LONGEST_S, self._max_duration_s)

    def check(
        self,
        request: JobRequest,
        fields: Mapping[str, str] | None = None,
        source: Audio | None = None,
    ) -> Wanted:
        """Fill in what a request leaves open, and refuse what its model cannot do.

        Args:
            request: what a client sent.
            fields: how the client's form of request calls our fields, where it differs.
            source: the sound that its edit is done with.

        Raises:
            ApiError: unknown model, or something that it does not make.
        """
        fields = fields or {}
        found = self.find(request.model, fields.get("model", "model"))
        bounds = Bounds(found.config, found.name, self.longest_s, fields)
        subject = subject_of(request, bounds, source)
        try:
            found.config.check_negative([request.negative_prompt or ""])
        except InputError as error:
            raise ApiError(422, str(error), "negative_prompt") from error
        steps = {} if source is None else {"num_inference_steps": found.config.edit_steps}
        sampling = bounds.sampling(subject.duration_s, steps, request.asked())
        seeds = request.chosen_seeds()
        batch = Batch(
            (subject.prompt,) * len(seeds), (request.negative_prompt or "",) * len(seeds), seeds
        )
        return Wanted(
            found.name,
            batch,
            sampling,
            subject.edit,
            source,
            None if request.edit is None else request.edit.source,
            request.finish,
            subject.edit is not None or subject.duration_s > found.config.max_duration_s,
        )


class Shelf:
    """The models that one device holds; the one that was used longest ago goes first."""

    def __init__(self, catalogue: Catalogue, device: str, config: ServeConfig) -> None:
        self._catalogue, self._device, self._config = catalogue, device, config
        self._loaded: OrderedDict[str, Loaded] = OrderedDict()
        self.proven: set[str] = set()
        """Every model that was in memory once, so it is known to be whole."""

    @property
    def names(self) -> list[str]:
        """What is loaded, the one to go first first."""
        return list(self._loaded)

    def get(self, name: str) -> Loaded:
        """Load a model, or take the one that is loaded.

        Raises:
            ResonateError: its files are broken.
        """
        if name not in self._loaded:
            described = self._catalogue.find(name)
            self._make_room(described.room_mb)
            self._loaded[name] = self._load(described)
            self.proven.add(name)
        self._loaded.move_to_end(name)
        return self._loaded[name]

    def _make_room(self, needed_mb: float) -> None:
        taken_mb = sum(loaded.room_mb for loaded in self._loaded.values())
        while self._loaded and taken_mb + needed_mb > self._config.memory_budget_mb:
            name, gone = self._loaded.popitem(last=False)
            taken_mb -= gone.room_mb
            log.info("model %s leaves %s", name, self._device)

    def _load(self, described: Described) -> Loaded:
        log.info("model %s loads on %s", described.name, self._device)
        model = Resonate.from_pretrained(
            described.source,
            self._device,
            self._config.dtype,
            local_files_only=True,
            adapters=[str(adapter) for adapter in described.adapters],
        )
        together = self._config.max_batch_rows > 1 and can_batch(model)
        if not together:
            log.info("model %s: one sound at a time, so that company changes none", described.name)
        max_rows = self._config.max_batch_rows if together else 1
        return Loaded(model, max_rows, described.room_mb)


def describe(name: str, source: str) -> Described:
    """Read a model's index and count its weights; fetches it from the hub if need be.

    Raises:
        ModelNotFoundError: there is no such model.
        CheckpointError: its files are broken.
    """
    folder = find_model(source)
    config = read_config(folder)
    encoder = find_text_encoder(config.text_encoder, folder, local_files_only=False)
    files = [part_folder(folder, part) / WEIGHTS_NAME for part in PARTS] + [encoder / WEIGHTS_NAME]
    room_mb = sum(map(count_weights, files)) * BYTES_PER_WEIGHT / MEGABYTE
    return Described(name, source, config, room_mb)


def count_weights(path: Path) -> int:
    """Numbers in a safetensors file, from its header alone.

    Raises:
        ConfigError: the file has no such header.
    """
    try:
        with open_regular(path) as file:
            (length,) = struct.unpack("<Q", file.read(8))
            text = file.read(min(length, 100 * MEGABYTE))
    except (OSError, ValueError, struct.error) as error:
        raise ConfigError(f"{path}: not a safetensors file ({error})") from error
    if len(text) < length:
        raise ConfigError(f"{path}: not a safetensors file (its header does not end)")
    place = f"{path}: its header"
    header = parse_object(decode_line(text, place, ConfigError), place, ConfigError)
    try:
        return sum(_count(item) for key, item in header.items() if key != "__metadata__")
    except NO_HEADER as error:
        raise ConfigError(f"{path}: not a safetensors file ({error})") from error


def _count(item: dict[str, Any]) -> int:
    """Numbers in one tensor of a header."""
    start, stop = item["data_offsets"]
    widths = {"F64": 8, "F32": 4, "BF16": 2, "F16": 2, "I8": 1, "U8": 1, "I64": 8, "I32": 4}
    return (int(stop) - int(start)) // widths.get(item["dtype"], 1)
