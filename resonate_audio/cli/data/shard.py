"""`resonate data shard` packs sound into shards; `resonate data shards` says what is there."""

from __future__ import annotations

from typing import Annotated

import typer

from resonate_audio.cli.console import print_table, print_text, say
from resonate_audio.cli.data.encode import (
    ClipsPerShard,
    Manifest,
    Output,
    ray_config,
    report,
)
from resonate_audio.cli.options import Ray, Workers
from resonate_audio.core.paths import given_path


def shard(
    manifest: Manifest,
    output: Output,
    rate: Annotated[int, typer.Option(min=1000, max=1_000_000, help="Sample rate in Hz.")] = 16_000,
    clips_per_shard: ClipsPerShard = 1000,
    ray: Ray = None,
    workers: Workers = None,
) -> None:
    """Pack every clip as FLAC of 16 bits, in one channel, into tar files that stream well.

    [bold]Examples[/bold]

      resonate data shard clips.jsonl -o shards --rate 44100
    """
    from resonate_audio.core.config import parse_config
    from resonate_audio.data.encode import encode_manifest
    from resonate_audio.data.shards.workers import AudioConfig

    values = {"sample_rate_hz": rate, "clips_per_shard": clips_per_shard}
    config = parse_config(AudioConfig, values, "resonate data shard")
    report(encode_manifest(manifest, output, config, ray_config(ray, workers), say), output)


def shards(
    location: Annotated[str, typer.Argument(help="Folder of shards, or its http or s3 address.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Read every byte and compare checksums.")
    ] = False,
) -> None:
    """Say what shards hold; exit 1 when a file is not what the index says.

    [bold]Examples[/bold]

      resonate data shards shards --verify
    """
    from resonate_audio.core.errors import InputError
    from resonate_audio.data.shards.read import Shards
    from resonate_audio.data.shards.write import verify_shards

    if verify:
        if "://" in location:
            raise InputError(f"--verify: {location} is no folder of this machine")
        found = list(verify_shards(given_path(location)))
        for line in found:
            print_text(line)
        say(f"{len(found)} files differ from the index")
        if found:
            raise typer.Exit(1)
    index = Shards(location).index
    rows = [
        [entry.name, str(entry.num_samples), f"{entry.seconds / 3600:.3f}", str(entry.num_bytes)]
        for entry in index.shards
    ]
    total = str(sum(entry.num_bytes for entry in index.shards))
    rows.append(["all", str(index.num_samples), f"{index.seconds / 3600:.3f}", total])
    print_table(("shard", "samples", "hours", "bytes"), rows, f"{index.settings.kind} shards")
