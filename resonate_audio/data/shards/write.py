"""Shards: many clips in one tar file, and an index that says where each of them lies.

::

    index.json          version, settings, statistics; name, clips, bytes, SHA-256 of each shard
    samples.npy         one row a clip: offset, bytes, frames, seconds, checksum (`SAMPLE`)
    empty.safetensors   text features of the empty prompt (shards of latents only)
    shard-000000.tar    KEY.latents.safetensors  KEY.text.safetensors  KEY.json   or
                        KEY.flac  KEY.json

The tar files are plain ones that any WebDataset reader takes; ours jumps to a clip by its offset.
``index.json`` is written last: a folder without it is unfinished.
"""

from __future__ import annotations

import hashlib
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Shaped
from pydantic import Field

from resonate_audio.core.config import FrozenConfig, NameInside, parse_config
from resonate_audio.core.documents.json_text import parse_json
from resonate_audio.core.documents.text import decode_line, read_bytes
from resonate_audio.core.errors import ShardError
from resonate_audio.core.files import atomic_path, file_sha256

INDEX, SAMPLES, EMPTY = "index.json", "samples.npy", "empty.safetensors"
VERSION = 1
BLOCK = 512
"""A tar file is made of blocks of this many bytes."""
END_OF_TAR = bytes(2 * BLOCK)
SAMPLE = np.dtype(
    [
        ("offset", "<i8"),
        ("num_bytes", "<i8"),
        ("num_frames", "<i4"),
        ("seconds", "<f4"),
        ("crc", "<u4"),
    ]
)
"""Where a clip's members lie in its shard, how long it is, and their CRC-32."""

Members = dict[str, bytes]
"""Content of each of a clip's files by its extension."""
SampleTable = Shaped[np.ndarray, "_"]
"""Rows of type `SAMPLE`."""


@dataclass(frozen=True)
class Sample:
    """One clip, ready to be written."""

    key: str
    """Without a dot: WebDataset takes the name up to the first one for the key."""
    members: Members
    num_frames: int
    """Latent frames of the window, or samples of the sound."""
    seconds: float


class LatentSettings(FrozenConfig):
    """What latents and text features were made with."""

    model: str
    vae: str
    """Fingerprint of its weights."""
    text_encoder: str
    window_frames: tuple[int, ...]
    frame_samples: int
    channels: int
    num_tokens: int
    text_dim: int


class ShardSettings(FrozenConfig):
    """Everything that the content of shards depends on."""

    kind: Literal["audio", "latents"]
    sample_rate_hz: int
    manifest: str
    """SHA-256 of the manifest's lines."""
    clips_per_shard: int = Field(ge=1)
    latents: LatentSettings | None = None


class ShardEntry(FrozenConfig):
    """One tar file."""

    name: NameInside
    num_samples: int
    num_bytes: int
    sha256: str
    seconds: float


class ShardIndex(FrozenConfig):
    """Content of ``index.json``."""

    format: Literal["resonate-shards"] = "resonate-shards"
    version: int = VERSION
    settings: ShardSettings
    num_samples: int
    seconds: float
    samples_sha256: str
    """Of ``samples.npy``."""
    latent_mean: tuple[float, ...] = ()
    """Per channel, over every frame of every clip."""
    latent_std: tuple[float, ...] = ()
    broken: tuple[tuple[str, str], ...] = ()
    """Clips left out, and why."""
    shards: tuple[ShardEntry, ...]


def pack_sample(key: str, members: Mapping[str, bytes]) -> bytes:
    """A clip's files as a stretch of a tar file: the same bytes whoever writes it, and when."""
    parts = []
    for extension, data in members.items():
        header = tarfile.TarInfo(f"{key}.{extension}")
        header.size = len(data)
        parts += [header.tobuf(tarfile.USTAR_FORMAT), data, bytes(-len(data) % BLOCK)]
    return b"".join(parts)


def unpack_sample(packed: bytes | memoryview) -> tuple[str, Members]:
    """Key and files of a clip that `pack_sample` packed.

    Raises:
        ValueError: it is no such stretch.
    """
    members: Members = {}
    position, key = 0, ""
    view = memoryview(packed)
    while position < len(view):
        header = bytes(view[position : position + BLOCK])
        name = header[:100].rstrip(b"\0").decode()
        size = int(header[124:136].rstrip(b"\0 "), 8)
        if size < 0:
            raise ValueError(f"a member of {size} bytes")
        start = position + BLOCK
        key, _, extension = name.partition(".")
        members[extension] = bytes(view[start : start + size])
        position = start + size + -size % BLOCK
    return key, members


def write_shard(path: Path, samples: Iterable[Sample]) -> tuple[ShardEntry, SampleTable]:
    """Write one tar file, whole or not at all.

    Raises:
        OutputError: it cannot be written, or the disk is full.
    """
    digest, rows, position = hashlib.sha256(), [], 0
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        for sample in samples:
            packed = pack_sample(sample.key, sample.members)
            size, crc = len(packed), zlib.crc32(packed)
            rows.append((position, size, sample.num_frames, sample.seconds, crc))
            file.write(packed)
            digest.update(packed)
            position += len(packed)
        file.write(END_OF_TAR)
        digest.update(END_OF_TAR)
    table = np.array(rows, dtype=SAMPLE)
    seconds = float(table["seconds"].sum(dtype=np.float64))
    size = position + len(END_OF_TAR)
    return ShardEntry(
        name=path.name, num_samples=len(table), num_bytes=size, sha256=digest.hexdigest(),
        seconds=seconds,
    ), table  # fmt: skip


def write_index(folder: Path, index: ShardIndex, tables: Sequence[SampleTable]) -> ShardIndex:
    """Write ``samples.npy`` and then ``index.json``, which makes the folder readable.

    Raises:
        OutputError: one of them cannot be written.
    """
    with atomic_path(folder / SAMPLES) as temporary, temporary.open("wb") as file:
        np.save(file, np.concatenate([np.zeros(0, SAMPLE), *tables]))
    complete = index.model_copy(update={"samples_sha256": file_sha256(folder / SAMPLES)})
    with atomic_path(folder / INDEX) as temporary:
        temporary.write_text(complete.model_dump_json(indent=1) + "\n", encoding="utf-8")
    return complete


def parse_index(text: str | bytes, place: str) -> ShardIndex:
    """Read ``index.json``.

    Raises:
        ShardError: it is not such an index, or one of another version.
        ConfigError: a field is missing or wrong.
    """
    if isinstance(text, bytes):
        text = decode_line(text, place, ShardError)
    values = parse_json(text, place, ShardError)
    if not isinstance(values, dict) or values.get("format") != "resonate-shards":
        raise ShardError(f"{place}: not the index of shards; `resonate data encode` writes one")
    if values.get("version") != VERSION:
        raise ShardError(
            f"{place}: version {values.get('version')}, this program reads version {VERSION}; "
            "write the shards again, or install the program that wrote them"
        )
    return parse_config(ShardIndex, values, place)


def verify_shards(folder: Path) -> Iterator[str]:
    """Read every byte and compare it with the index.

    Yields:
        One line for each file that differs.

    Raises:
        ShardError: there is no index, or one that cannot be read.
    """
    index = parse_index(read_bytes(folder / INDEX, ShardError), str(folder / INDEX))
    expected = [(entry.name, entry.sha256) for entry in index.shards]
    for name, sha256 in [(SAMPLES, index.samples_sha256), *expected]:
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            yield f"{folder / name}: cannot read it ({error.strerror})"
            continue
        if found != sha256:
            yield f"{folder / name}: its SHA-256 is {found[:16]}…, the index says {sha256[:16]}…"
