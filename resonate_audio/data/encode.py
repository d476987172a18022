"""From a manifest to shards: of latents and text features, or of sound.

The work is cut into one job a shard. A job's bytes depend on the manifest's lines and the settings
alone, so they are the same in one process, on a cluster, and after any number of restarts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from resonate_audio.core.config import parse_config
from resonate_audio.core.documents.text import read_bytes, read_lines
from resonate_audio.core.documents.yaml_text import read_yaml
from resonate_audio.core.errors import ManifestError, ShardError
from resonate_audio.core.files import alone_in, atomic_path, open_regular
from resonate_audio.core.threads import cpu_threads
from resonate_audio.data.manifest import Clip, parse_line
from resonate_audio.data.ray_map import RayConfig, map_with_ray
from resonate_audio.data.shards.workers import (
    PARTS,
    AudioConfig,
    EncodeConfig,
    Job,
    JobRunner,
    LatentWorker,
    ShardPart,
    make_worker,
)
from resonate_audio.data.shards.write import (
    EMPTY,
    INDEX,
    SAMPLE,
    ShardIndex,
    ShardSettings,
    parse_index,
    write_index,
)
from resonate_audio.model.checkpoint import save_tensors

Say = Callable[[str], None]
BEGUN = "begun.yaml"
"""Settings of a folder that is not complete yet."""


def encode_manifest(
    manifest: Path,
    output: Path,
    config: EncodeConfig | AudioConfig,
    ray: RayConfig | None = None,
    say: Say = lambda text: None,
) -> ShardIndex:
    """Write a manifest's clips as shards, or go on where an earlier call was stopped.

    Args:
        manifest: JSONL file.
        output: folder of the shards.
        config: what they shall hold.
        ray: where to work; in this process if None.
        say: is told what was done.

    Raises:
        ManifestError: a line is broken; nothing has been encoded then.
        ShardError: ``output`` holds shards of other settings, or no clip can be used.
        OutputError: a file cannot be written or the disk is full; finished shards stay.
    """
    jobs, sha256 = plan_jobs(manifest, output, config.clips_per_shard)
    settings = describe_settings(config, sha256)
    with alone_in(output):
        return _encode(jobs, settings, output, config, ray, say)


def _encode(
    jobs: Sequence[Job],
    settings: ShardSettings,
    output: Path,
    config: EncodeConfig | AudioConfig,
    ray: RayConfig | None,
    say: Say,
) -> ShardIndex:
    if (output / INDEX).exists():
        return finished_before(output, settings, say)
    begin(output, settings)
    todo = [job for job in jobs if not is_done(job, say)]
    if len(todo) < len(jobs):
        say(f"{len(jobs) - len(todo)} of {len(jobs)} shards are there already")
    for done, (number, (samples, broken)) in enumerate(run_jobs(todo, config, ray), start=1):
        left_out = f", {broken} clips left out" if broken else ""
        say(f"shard {number} ({done} of {len(todo)}): {samples} samples{left_out}")
    return finish(output, settings, jobs, config)


def run_jobs(
    jobs: Sequence[Job], config: EncodeConfig | AudioConfig, ray: RayConfig | None
) -> Iterator[tuple[int, tuple[int, int]]]:
    """Run jobs here or with Ray; gives each job's number and result as it ends."""
    if not jobs:
        return
    if ray is None:
        runner = JobRunner(config)
        yield from ((job.number, runner(job)) for job in jobs)
        return
    for place, result in map_with_ray(jobs, lambda: JobRunner(config), ray):
        yield jobs[place].number, result


def plan_jobs(manifest: Path, output: Path, clips_per_shard: int) -> tuple[list[Job], str]:
    """Cut a manifest into jobs, looking at every line once.

    Returns:
        The jobs, and the SHA-256 of the manifest.

    Raises:
        ManifestError: a line is broken or repeats an ``audio_id``, or there is none.
    """
    manifest, output = manifest.absolute(), output.absolute()  # a link's own folder counts
    digest, known, jobs = hashlib.sha256(), set[int](), list[Job]()
    clips, start, first, position, number = 0, 0, 1, 0, 0
    for raw, number, text in manifest_lines(manifest):
        digest.update(raw)
        position += len(raw)
        if text.strip():
            add_name(known, parse_line(text, f"{manifest}:{number}"), f"{manifest}:{number}")
            clips += 1
        if clips == clips_per_shard:
            jobs.append(Job(len(jobs), manifest, start, first, number - first + 1, output))
            clips, start, first = 0, position, number + 1
    if clips:
        jobs.append(Job(len(jobs), manifest, start, first, number - first + 1, output))
    if not jobs:
        raise ManifestError(f"{manifest}: no clip in {number} lines")
    return jobs, digest.hexdigest()


def manifest_lines(manifest: Path) -> Iterator[tuple[bytes, int, str]]:
    """Each line as it is on disk, its number from 1, and its text.

    Raises:
        ManifestError: the file cannot be read, or is not UTF-8.
    """
    lines = read_lines(manifest)
    try:
        with open_regular(manifest) as file:
            for raw, (number, text) in zip(file, lines, strict=True):
                yield raw, number, text
    except OSError as error:
        raise ManifestError(f"{manifest}: cannot read it ({error.strerror or error})") from error


def add_name(known: set[int], clip: Clip, place: str) -> None:
    """Remember a clip's name by its hash: millions of names would take much more memory."""
    name = hash(clip.audio_id)
    if name in known:
        raise ManifestError(f"{place}: audio_id {clip.audio_id} was used before")
    known.add(name)


def describe_settings(config: EncodeConfig | AudioConfig, manifest_sha256: str) -> ShardSettings:
    """Everything that the shards' content depends on."""
    worker = make_worker(config)
    return ShardSettings(
        kind="latents" if isinstance(worker, LatentWorker) else "audio",
        sample_rate_hz=worker.sample_rate_hz,
        manifest=manifest_sha256,
        clips_per_shard=config.clips_per_shard,
        latents=worker.settings() if isinstance(worker, LatentWorker) else None,
    )


def begin(output: Path, settings: ShardSettings) -> None:
    """Write the settings down, or compare them with those the folder was begun with.

    Raises:
        ShardError: they differ; names the field.
        OutputError: the folder cannot be written.
    """
    path = output / BEGUN
    if path.exists():
        check_same(output, parse_config(ShardSettings, read_yaml(path), str(path)), settings)
    with atomic_path(path) as temporary:
        temporary.write_text(settings.model_dump_json(indent=1), encoding="utf-8")  # JSON is YAML
    for unfinished in [*output.glob(".*.part.tar"), *output.glob(f"{PARTS}/.*.part.json")]:
        unfinished.unlink(missing_ok=True)


def check_same(output: Path, old: ShardSettings, new: ShardSettings) -> None:
    """Refuse to mix shards of two settings.

    Raises:
        ShardError: names the first field that differs.
    """
    before, now = flat(old), flat(new)
    for name in sorted(before.keys() | now.keys()):
        if before.get(name) != now.get(name):
            raise ShardError(
                f"{output}: its shards were made with {name} {before.get(name)}, not "
                f"{now.get(name)}; choose another folder or remove this one"
            )


def flat(settings: ShardSettings) -> dict[str, object]:
    """Fields by name, those of the latents among them."""
    values: dict[str, object] = settings.model_dump()
    inner = values.pop("latents")
    return values | (inner if isinstance(inner, dict) else {})


def is_done(job: Job, say: Say) -> bool:
    """Whether a job's shard is there, with the size it was written with, and of these sounds.

    Sounds are read again only where their size or date is another; a shard of an older version
    does not say what it was made of.
    """
    if not (job.part.exists() and job.shard.exists()):
        return False
    part = read_part_file(job)
    if part.entry.num_bytes != job.shard.stat().st_size:
        return False
    manifest = job.part_of_manifest()
    if part.sounds in ("", manifest.fingerprint()) or part.content == manifest.content():
        return True
    say(f"{job}: sounds of it changed; it is made anew")
    return False


def read_part_file(job: Job) -> ShardPart:
    """What a job left for the index.

    Raises:
        ShardError: it is damaged.
    """
    try:
        return ShardPart.model_validate_json(read_bytes(job.part, ShardError))
    except ValueError as error:
        raise ShardError(f"{job.part}: damaged; remove it to encode the shard again") from error


def finished_before(output: Path, settings: ShardSettings, say: Say) -> ShardIndex:
    """The index of a folder that is complete.

    Raises:
        ShardError: it was made with other settings.
    """
    index = parse_index(read_bytes(output / INDEX, ShardError), str(output / INDEX))
    check_same(output, index.settings, settings)
    say(f"{output}: complete already, {index.num_samples} samples")
    return index


def finish(
    output: Path, settings: ShardSettings, jobs: Sequence[Job], config: EncodeConfig | AudioConfig
) -> ShardIndex:
    """Write the index of shards that are all there, then remove what was needed to go on.

    Raises:
        ShardError: not one clip can be used.
    """
    parts = [read_part_file(job) for job in jobs]
    broken = tuple(pair for part in parts for pair in part.broken)
    tables = [np.array([tuple(row) for row in part.samples], dtype=SAMPLE) for part in parts]
    if not any(len(table) for table in tables):
        name, reason = broken[0]
        raise ShardError(
            f"none of the {len(broken)} clips can be used; the first, {name}: {reason}"
        )
    mean, std = latent_moments(parts, sum(int(table["num_frames"].sum()) for table in tables))
    if isinstance(config, EncodeConfig):
        with atomic_path(output / EMPTY) as temporary, cpu_threads(config.num_threads):
            save_tensors(LatentWorker(config).empty_prompt(), temporary, {})
    index = write_index(
        output,
        ShardIndex(
            settings=settings,
            num_samples=sum(part.entry.num_samples for part in parts),
            seconds=sum(part.entry.seconds for part in parts),
            samples_sha256="",
            latent_mean=mean,
            latent_std=std,
            broken=broken,
            shards=tuple(part.entry for part in parts),
        ),
        tables,
    )
    for job in jobs:
        job.part.unlink()
    (output / PARTS).rmdir()
    (output / BEGUN).unlink()
    return index


def latent_moments(
    parts: Sequence[ShardPart], num_frames: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation per channel over all shards, nothing for sound."""
    sums = [(part.latent_sum, part.latent_square_sum) for part in parts if part.latent_sum]
    if not sums:
        return (), ()
    first = np.sum([pair[0] for pair in sums], axis=0) / num_frames
    second = np.sum([pair[1] for pair in sums], axis=0) / num_frames
    std = np.sqrt(np.maximum(second - first**2, 1e-12))
    return tuple(first.tolist()), tuple(std.tolist())
