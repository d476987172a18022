"""Reading clips of shards by their number, from a folder, over http or from s3."""

from __future__ import annotations

import hashlib
import os
import time
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64
from safetensors.torch import load
from torch import Tensor

from resonate_audio.audio.decoding import decode_sound
from resonate_audio.core.documents.arrays import read_array
from resonate_audio.core.documents.text import one_line
from resonate_audio.core.errors import ShardError
from resonate_audio.core.files import open_regular
from resonate_audio.core.paths import given_path
from resonate_audio.core.types import TextFeatures
from resonate_audio.data.latents import CaptionTable, LatentBucket, LatentSet
from resonate_audio.data.shards.write import (
    EMPTY,
    INDEX,
    SAMPLE,
    SAMPLES,
    Members,
    SampleTable,
    ShardIndex,
    parse_index,
    unpack_sample,
)

TRIES, PAUSE_S = 3, 0.5
MAX_BAD = 0.01
"""Share of bad clips that stops a run."""
JUDGED_FROM = 1000
"""Clips that must have been read before fewer than all decide over that share."""

ItemT = TypeVar("ItemT")
Decode = Callable[[Members], ItemT]
Say = Callable[[str], None]


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = str(path)

    def read(self, name: str) -> bytes:
        """A whole file."""
        with open_regular(self.path / name) as file:
            return file.read()

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return (self.path / name).stat().st_size

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Stretches of files (name, first byte, bytes); what is beyond their end comes short."""
        opened: dict[str, int] = {}
        try:
            for name, _, _ in wanted:
                if name not in opened:
                    opened[name] = os.open(self.path / name, os.O_RDONLY)
            return [os.pread(opened[name], size, start) for name, start, size in wanted]
        finally:
            for handle in opened.values():
                os.close(handle)


class Remote:
    """Any place that fsspec knows: ``https://…``, ``s3://…``."""

    def __init__(self, address: str) -> None:
        self.name = address.rstrip("/")
        try:
            from fsspec.core import url_to_fs

            self._files, self._root = url_to_fs(self.name)
        except (ImportError, ValueError) as error:
            raise ShardError(
                f"{address}: {error}; `pip install 'resonate-audio[data]'` brings what http needs, "
                "s3 needs `pip install s3fs` besides"
            ) from error

    def read(self, name: str) -> bytes:
        """A whole file."""
        content: bytes = self._files.cat_file(f"{self._root}/{name}")
        return content

    def size(self, name: str) -> int:
        """Bytes of a file."""
        return int(self._files.size(f"{self._root}/{name}"))

    def ranges(self, wanted: Sequence[tuple[str, int, int]]) -> list[bytes]:
        """Stretches of files, asked for at the same time."""
        names = [f"{self._root}/{name}" for name, _, _ in wanted]
        starts = [start for _, start, _ in wanted]
        ends = [start + size for _, start, size in wanted]
        found: list[bytes] = self._files.cat_ranges(names, starts, ends, on_error="raise")
        return found


@dataclass
class BadSamples:
    """Counts the clips that cannot be used, names them, and stops when they are too many."""

    num_samples: int
    say: Say
    found: dict[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._seen = np.zeros(self.num_samples, dtype=bool)
        self._num_seen = 0

    def note(self, number: int, reason: str | None) -> None:
        """Count one clip, which is good where there is no reason against it.

        Raises:
            ShardError: more than 1 % of the clips are bad.
        """
        if not self._seen[number]:
            self._seen[number] = True
            self._num_seen += 1
        if reason is None or number in self.found:
            return
        self.found[number] = reason
        self.say(f"clip {number} cannot be used and is left out: {reason}")
        among = max(self._num_seen, min(self.num_samples, JUDGED_FROM))
        if len(self.found) > MAX_BAD * among:
            raise ShardError(
                f"{len(self.found)} of {self._num_seen} clips read cannot be used, which is more "
                f"than 1 %; the last: {reason}; `resonate data shards --verify` compares checksums"
            )


class Shards:
    """The clips of an index, by their number."""

    def __init__(self, location: str | Path, say: Say = lambda text: None) -> None:
        """Open what `data.encode` wrote.

        Raises:
            ShardError: the index is missing, broken or of another version, or a shard of a folder
                does not have the size that it says.
        """
        self.place = open_place(location)
        self.index = self._read_index()
        self.samples = self._read_samples()
        sizes = [entry.num_samples for entry in self.index.shards]
        self.sizes = sizes
        self._ends = np.cumsum(sizes, dtype=np.int64)
        self.bad = BadSamples(len(self.samples), say)
        if isinstance(self.place, Folder):
            for number in range(len(sizes)):
                self._check_size(number)

    @property
    def frames(self) -> Int64[np.ndarray, " sample"]:
        """Length of each clip, in the frames or samples of its kind."""
        return self.samples["num_frames"].astype(np.int64)

    def content(self) -> str:
        """Changes with any clip, since the index has a hash of each file."""
        return hashlib.sha256(self.index.model_dump_json().encode()).hexdigest()[:16]

    def read(
        self, numbers: Int64[np.ndarray, " row"], decode: Decode[ItemT]
    ) -> tuple[list[int], list[ItemT]]:
        """Read some clips.

        Returns:
            Which of the numbers, counted from 0, could be used, and their clips.

        Raises:
            ShardError: a shard is missing or truncated, or more than 1 % of the clips are bad.
        """
        rows, items = [], []
        for row, (number, packed) in enumerate(zip(numbers, self._fetch(numbers), strict=True)):
            result = self._decode(int(number), packed, decode)
            if isinstance(result, _Bad):
                self.bad.note(int(number), result.reason)
                continue
            self.bad.note(int(number), None)
            rows.append(row)
            items.append(result)
        return rows, items

    def _decode(self, number: int, packed: bytes, decode: Decode[ItemT]) -> ItemT | _Bad:
        sample = self.samples[number]
        place = f"{self.place.name}/{self._entry(number).name}, byte {sample['offset']}"
        if zlib.crc32(packed) != sample["crc"]:
            return _Bad(f"{place}: damaged, its checksum differs")
        try:
            return decode(unpack_sample(packed)[1])
        except Exception as error:  # noqa: BLE001 - its members may be anything
            return _Bad(f"{place}: {type(error).__name__}: {one_line(error)}")

    def _fetch(self, numbers: Int64[np.ndarray, " row"]) -> list[bytes]:
        samples = self.samples[numbers]
        shards = np.searchsorted(self._ends, numbers, side="right")
        spans = zip(shards, samples["offset"].tolist(), samples["num_bytes"].tolist(), strict=True)
        wanted = [(self.index.shards[shard].name, start, size) for shard, start, size in spans]
        found = self._with_patience(lambda: self.place.ranges(wanted), shards)
        for number, packed, size in zip(shards, found, samples["num_bytes"], strict=True):
            if len(packed) != size:
                self._check_size(int(number))
                raise ShardError(
                    f"{self.place.name}/{self.index.shards[number].name}: {len(packed)} bytes came "
                    f"where {size} were asked for; the server must answer range requests"
                )
        return found

    def _with_patience(
        self, ask: Callable[[], list[bytes]], shards: Int64[np.ndarray, " row"]
    ) -> list[bytes]:
        for attempt in range(1, TRIES + 1):
            try:
                return ask()
            except Exception as error:
                if attempt < TRIES:
                    time.sleep(PAUSE_S * attempt)
                    continue
                for shard in np.unique(shards):
                    self._check_size(int(shard))
                raise ShardError(
                    f"{self.place.name}: cannot read from it after {TRIES} tries ({_reason(error)})"
                ) from error
        raise AssertionError(TRIES)

    def _entry(self, number: int) -> Any:
        return self.index.shards[int(np.searchsorted(self._ends, number, side="right"))]

    def _check_size(self, shard: int) -> None:
        entry = self.index.shards[shard]
        place = f"{self.place.name}/{entry.name}"
        try:
            size = self.place.size(entry.name)
        except Exception as error:
            raise ShardError(f"{place}: cannot read it ({_reason(error)})") from error
        if size != entry.num_bytes:
            raise ShardError(
                f"{place}: truncated or replaced, {size} bytes where the index says "
                f"{entry.num_bytes}; write it again or fetch it again"
            )

    def _read_index(self) -> ShardIndex:
        return parse_index(self._read_file(INDEX), f"{self.place.name}/{INDEX}")

    def _read_file(self, name: str) -> bytes:
        try:
            return self.place.read(name)
        except Exception as error:  # each protocol has errors of its own
            raise ShardError(
                f"{self.place.name}/{name}: cannot read it ({_reason(error)}); a folder is "
                "complete when `resonate data encode` has ended"
            ) from error

    def _read_samples(self) -> SampleTable:
        name = f"{self.place.name}/{SAMPLES}"
        source = (
            self.place.path / SAMPLES
            if isinstance(self.place, Folder)
            else self._read_file(SAMPLES)
        )
        table: SampleTable = read_array(source, name, ShardError)
        if table.dtype != SAMPLE or table.ndim != 1:
            raise ShardError(f"{name}: not the table of samples that the index speaks of")
        if len(table) != self.index.num_samples:
            raise ShardError(f"{name}: {len(table)} rows, the index says {self.index.num_samples}")
        return table


@dataclass(frozen=True)
class _Bad:
    reason: str


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def open_place(location: str | Path) -> Folder | Remote:
    """A folder, or an address with ``://``."""
    return Remote(str(location)) if "://" in str(location) else Folder(given_path(str(location)))


# --- what is in a clip -------------------------------------------------------------------------


@dataclass(frozen=True)
class LatentSample:
    """A clip as posterior of the VAE, and features of all its captions."""

    mean: Float[Tensor, "frame channel"]
    std: Float[Tensor, "frame channel"]
    num_real_frames: int
    tokens: Float[Tensor, "position dim"]
    lengths: Int64[Tensor, " caption"]
    pooled: Float[Tensor, "caption dim"]


def decode_latents(members: Members) -> LatentSample:
    """Read a clip of shards of latents."""
    latents, text = load(members["latents.safetensors"]), load(members["text.safetensors"])
    return LatentSample(
        latents["mean"], latents["std"], int(latents["num_real_frames"]),
        text["tokens"], text["lengths"], text["pooled"],
    )  # fmt: skip


def decode_audio(members: Members) -> Float32[np.ndarray, " sample"]:
    """Read a clip of shards of audio."""
    return decode_sound(members["flac"], "flac").samples


class LatentShards:
    """Shards of latents: whole batches, read ahead."""

    def __init__(self, location: str | Path, say: Say = lambda text: None) -> None:
        """Open them.

        Raises:
            ShardError: they cannot be read, or hold audio.
        """
        self.shards = Shards(location, say)
        if self.shards.index.settings.latents is None:
            raise ShardError(
                f"{location}: holds audio; `resonate data encode` writes shards of latents"
            )
        self.settings = self.shards.index.settings.latents
        self._empty = self._read_empty()

    def _read_empty(self) -> dict[str, Tensor]:
        name = f"{self.shards.place.name}/{EMPTY}"
        data = self.shards._read_file(EMPTY)
        try:
            found: dict[str, Tensor] = load(data)
            return {part: found[part] for part in ("tokens", "lengths", "pooled")}
        except Exception as error:  # a broken header raises whatever its fields stumble over
            raise ShardError(f"{name}: no features of a text ({one_line(error)})") from error

    def statistics(self) -> tuple[Float[Tensor, " channel"], Float[Tensor, " channel"]]:
        """Mean and standard deviation per channel of sampled latents."""
        index = self.shards.index
        return torch.tensor(index.latent_mean), torch.tensor(index.latent_std)

    def empty_prompt(self) -> TextFeatures:
        """Features of the empty prompt."""
        return self._table([]).features(torch.zeros(1, dtype=torch.long))

    def read(self, numbers: Int64[np.ndarray, " row"]) -> tuple[list[int], LatentSet | None]:
        """Clips of one length as a set of one bucket; None where not one of them can be used.

        Returns:
            Which of the numbers, counted from 0, could be used, and the set.
        """
        rows, samples = self.shards.read(numbers, decode_latents)
        if not samples:
            return [], None
        if len({(sample.mean.shape, sample.std.shape) for sample in samples}) > 1:
            raise ShardError(f"{self.shards.place.name}: clips of one length differ in their shape")
        counts = torch.tensor([len(sample.lengths) for sample in samples])
        first = 1 + counts.cumsum(0) - counts
        places = torch.arange(int(counts.max()))
        bucket = LatentBucket(
            torch.stack([sample.mean for sample in samples]),
            torch.stack([sample.std for sample in samples]),
            torch.tensor([sample.num_real_frames for sample in samples]),
            (first[:, None] + places) * (places < counts[:, None]),
            counts,
        )
        return rows, LatentSet((bucket,), self._table(samples))

    def _table(self, samples: Sequence[LatentSample]) -> CaptionTable:
        parts = [self._empty, *({"tokens": s.tokens, "lengths": s.lengths, "pooled": s.pooled}
                                for s in samples)]  # fmt: skip
        lengths = torch.cat([part["lengths"] for part in parts])
        return CaptionTable(
            torch.cat([part["tokens"] for part in parts]),
            lengths.cumsum(0) - lengths,
            lengths,
            torch.cat([part["pooled"] for part in parts]),
            self.settings.num_tokens,
        )


class ReadAhead(Generic[ItemT]):
    """Calls ``read(n)`` for the next few n in a thread, one after the other, while n is in use."""

    def __init__(self, read: Callable[[int], ItemT], ahead: int = 4) -> None:
        self._read = read
        self._ahead = ahead
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="shards")
        self._coming: dict[int, Future[ItemT]] = {}

    def __call__(self, index: int) -> ItemT:
        """What ``read(index)`` gives; calls in rising order find it ready."""
        wanted = range(index, index + 1 + self._ahead)
        for number in [number for number in self._coming if number not in wanted]:
            self._coming.pop(number).cancel()
        for number in wanted:
            if number not in self._coming:
                self._coming[number] = self._pool.submit(self._read, number)
        return self._coming.pop(index).result()

    def close(self) -> None:
        """Stop reading."""
        self._pool.shutdown(wait=True, cancel_futures=True)
