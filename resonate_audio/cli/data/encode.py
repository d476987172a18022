"""`resonate data encode`: a manifest in, shards of latents and text features out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from resonate_audio.cli.console import print_text, say
from resonate_audio.cli.options import Ray, Workers
from resonate_audio.core.errors import InputError
from resonate_audio.core.paths import given_path

if TYPE_CHECKING:
    from resonate_audio.data.ray_map import RayConfig
    from resonate_audio.data.shards.write import ShardIndex

LISTED = 20
"""Clips left out that are named before the rest is only counted."""
SHORTEST_S = 0.1
"""Of a window: under it there is hardly a frame of latents to learn from."""

Manifest = Annotated[Path, typer.Argument(metavar="MANIFEST", help="JSONL file.")]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="Folder of the shards; gone on with if begun.")
]
ClipsPerShard = Annotated[int, typer.Option(min=1, max=10_000_000, help="Clips of one tar file.")]


def encode(
    manifest: Manifest,
    output: Output,
    model: Annotated[
        str, typer.Option("--model", "-m", help="Whose VAE and text encoder: name, folder, hub id.")
    ] = "nano",
    windows: Annotated[
        str,
        typer.Option(
            "--windows", help="Seconds that clips are padded to, the shortest that holds each."
        ),
    ] = "10",
    clips_per_shard: ClipsPerShard = 1000,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    threads: Annotated[int, typer.Option(min=1, max=4096, help="CPU threads of each process.")] = 1,
    ray: Ray = None,
    workers: Workers = None,
) -> None:
    """Encode every clip and caption once; training then reads latents only.

    The files are the same bytes with and without Ray, with any number of workers, and after any
    number of interruptions: the same command goes on where it stopped.

    [bold]Examples[/bold]

      resonate data encode clips.jsonl -o shards --model nano --windows 2,5

      resonate data encode clips.jsonl -o /share/shards --ray 10.0.0.5:6379 --workers 64
    """
    from resonate_audio.core.config import parse_config
    from resonate_audio.data.encode import encode_manifest
    from resonate_audio.data.shards.workers import EncodeConfig

    values = {
        "model": _recorded(model),
        "window_s": read_windows(windows),
        "clips_per_shard": clips_per_shard,
        "device": device,
        "num_threads": threads,
    }
    config = parse_config(EncodeConfig, values, "resonate data encode")
    where = ray_config(ray, workers, gpus=1.0 if device.startswith("cuda") else 0.0)
    report(encode_manifest(manifest, output, config, where, say), output)


def _recorded(model: str) -> str:
    """A model's folder in full, as workers elsewhere find it, or its name."""
    folder = given_path(model)
    return str(folder.resolve()) if os.path.isdir(folder) else model


def ray_config(address: str | None, workers: int | None, gpus: float = 0.0) -> RayConfig | None:
    """Where to work, as the options say.

    Raises:
        InputError: workers are asked for without Ray.
    """
    from resonate_audio.data.ray_map import RayConfig

    if address is None:
        if workers is not None:
            raise InputError("--workers: needs --ray local, or --ray HOST:PORT")
        return None
    return RayConfig(address=address, workers=workers or 1, gpus_per_worker=gpus)


def read_windows(text: str) -> tuple[float, ...]:
    """Numbers between commas.

    Raises:
        InputError: one is no length.
    """
    try:
        lengths = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--windows {text}: expected seconds such as 2.5,10") from error
    if not all(SHORTEST_S <= length < float("inf") for length in lengths):
        raise InputError(f"--windows {text}: expected {SHORTEST_S:g} s or more")
    return lengths


def report(index: ShardIndex, output: Path) -> None:
    """Say what was written and what was left out."""
    for name, reason in index.broken[:LISTED]:
        say(f"left out: {name}: {reason}")
    if len(index.broken) > LISTED:
        say(f"… and {len(index.broken) - LISTED} more, all in {output / 'index.json'}")
    size = sum(entry.num_bytes for entry in index.shards)
    say(
        f"{index.num_samples} samples, {index.seconds / 3600:.2f} h, {size / 1e6:.1f} MB in "
        f"{len(index.shards)} shards; {len(index.broken)} clips left out"
    )
    print_text(output)
