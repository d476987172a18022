"""Several manifests as one, small corpora repeated so that they are heard more often.

A clip that is repeated is a line of its own, ``ID~2``: every reader of manifests then honours the
mixture, and nothing has to know of weights. The lines of all corpora are spread evenly, so that a
reader with a small shuffle buffer still sees all of them.
"""

from __future__ import annotations

import heapq
import os
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from resonate_audio.core.config import FrozenConfig
from resonate_audio.core.errors import InputError, ManifestError
from resonate_audio.core.paths import listed_path
from resonate_audio.data.manifest import Clip, stream_manifest, write_manifest

REPEATED = re.compile(r"~\d+$")
"""What is appended to the id of a repeated clip."""
MOST_TIMES = 10_000
"""Lines that a weight may make of one clip."""


class MixConfig(FrozenConfig):
    """How often the clips of each manifest occur."""

    weights: tuple[float, ...] | None = None
    """Times that each manifest occurs, in their order: 5 is five times, 0.5 a random half."""
    temperature: float = Field(1.0, ge=1.0, le=1000.0)
    """Without weights, a corpus of n clips is drawn in proportion to n^(1/temperature)."""
    seed: int = Field(0, ge=0, le=9_223_372_036_854_775_807)
    """Of the choice where a weight is no whole number."""


@dataclass(frozen=True)
class Share:
    """One manifest's part of a mixture."""

    path: Path
    num_clips: int
    num_lines: int

    @property
    def times(self) -> float:
        """How often each of its clips occurs on average."""
        return self.num_lines / self.num_clips


def mix_manifests(
    paths: Sequence[Path], output: Path, config: MixConfig, overwrite: bool = False
) -> list[Share]:
    """Write the mixture of some manifests.

    Raises:
        ManifestError: a manifest is broken or empty, or two clips share an ``audio_id``.
        InputError: there is not one positive weight for each manifest.
        OutputError: the mixture cannot be written, or exists and may not be replaced.
    """
    counts = count_clips(paths)
    times = weigh(counts, config)
    if max(times) > 1:
        _refuse_repeats(paths)
    shares = [
        Share(path, count, max(1, round(count * factor)))
        for path, count, factor in zip(paths, counts, times, strict=True)
    ]
    write_manifest(output, mixed_clips(shares, output, config.seed), overwrite)
    return shares


def count_clips(paths: Sequence[Path]) -> list[int]:
    """Clips of each manifest.

    Raises:
        ManifestError: an ``audio_id`` occurs twice, or a manifest is empty; names both files.
    """
    homes: dict[str, int] = {}
    counts: list[int] = []
    for number, path in enumerate(paths):
        for place, clip in stream_manifest(path):
            home = homes.get(clip.audio_id)
            if home is not None:
                where = "was used before" if home == number else f"is in {paths[home]}, too"
                raise ManifestError(f"{place}: audio_id {clip.audio_id} {where}")
            homes[clip.audio_id] = number
        counts.append(len(homes) - sum(counts))
        if not counts[-1]:
            raise ManifestError(f"{path}: no clip in it")
    return counts


def weigh(counts: Sequence[int], config: MixConfig) -> list[float]:
    """Times that each manifest occurs.

    With a temperature T, a corpus of n clips occurs (n_max / n)^(1 - 1/T) times: it is drawn in
    proportion to n^(1/T), and the largest corpus occurs once.

    Raises:
        InputError: there is not one positive weight for each manifest, or a temperature, too.
    """
    if config.weights is None:
        return [(max(counts) / count) ** (1 - 1 / config.temperature) for count in counts]
    if config.temperature != 1:
        raise InputError("both weights and a temperature are given; expected one of them")
    if len(config.weights) != len(counts):
        raise InputError(f"{len(config.weights)} weights for {len(counts)} manifests")
    if not all(0 < weight <= MOST_TIMES for weight in config.weights):
        raise InputError(
            f"weights {config.weights}: each must be positive, and {MOST_TIMES:,} at most: a clip "
            "stands there as often; leave a manifest out"
        )
    return list(config.weights)


def mixed_clips(shares: Sequence[Share], output: Path, seed: int) -> Iterator[Clip]:
    """The clips of all manifests, spread evenly, with paths as seen from ``output``."""
    streams = [_placed(share, output, seed) for share in shares]
    return (clip for _, clip in heapq.merge(*streams, key=lambda item: item[0]))


def _placed(share: Share, output: Path, seed: int) -> Iterator[tuple[float, Clip]]:
    """A manifest's lines and where each stands in the mixture, from 0 to 1."""
    here = output.parent.resolve()
    for number, clip in enumerate(_repeated(share, seed)):
        moved = {
            "audio_path": _moved(share.path, clip.audio_path, here),
            "source": clip.source or share.path.stem,
        }
        yield (number + 0.5) / share.num_lines, clip.model_copy(update=moved)


def _moved(manifest: Path, name: str, folder: Path) -> str:
    """What a manifest calls ``name``, as seen from a folder; full paths stay what they are.

    The sound of ``a/../x.wav`` lies where the link ``a`` leads to.
    """
    file = listed_path(manifest, name)
    if Path(name).is_absolute():
        return file.as_posix()
    return Path(os.path.relpath(file.parent.resolve(), folder), file.name).as_posix()


def _repeated(share: Share, seed: int) -> Iterator[Clip]:
    whole, rest = divmod(share.num_lines, share.num_clips)
    for again in range(whole + bool(rest)):
        wanted = range(share.num_clips) if again < whole else _choose(share, rest, seed)
        for number, (_, clip) in enumerate(stream_manifest(share.path)):
            if number in wanted:
                name = f"{clip.audio_id}~{again + 1}" if again else clip.audio_id
                yield clip.model_copy(update={"audio_id": name})


def _choose(share: Share, count: int, seed: int) -> frozenset[int]:
    drawn = random.Random(f"{seed}/{share.path.name}").sample(range(share.num_clips), count)
    return frozenset(drawn)


def _refuse_repeats(paths: Sequence[Path]) -> None:
    for path in paths:
        for place, clip in stream_manifest(path):
            if REPEATED.search(clip.audio_id):
                raise ManifestError(
                    f"{place}: audio_id {clip.audio_id} looks repeated already; mix the manifests "
                    "that this one was mixed from"
                )
