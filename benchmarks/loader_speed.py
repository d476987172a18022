"""Does reading clips keep up with training nano, and with an index of 3.7 million entries?

    python benchmarks/loader_speed.py [--threads 1] [--seconds 5] [--entries 3700000]

Sixty-four made-up clips of five seconds are written as shards of sound and of latents, in a
temporary folder, so what is measured is unpacking and computing, not the disk. In turn, in one
process: latents read as training reads them, sound decoded, sound decoded and encoded by nano's VAE
and text encoder (what training on sound would have to do), and updates of nano's transformer with
everything already in memory. Processor time over all threads stands beside the time on the clock:
on a busy machine it is the one to compare.

Then an index is simulated: one shard of a thousand samples under as many names as it takes. A fresh
process opens it, shuffles it, and reads batches; its start-up and its peak memory are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from resonate_audio.data.encode import encode_manifest
from resonate_audio.data.shards.order import ShardPlan
from resonate_audio.data.shards.read import LatentShards, ReadAhead, Shards, decode_audio
from resonate_audio.data.shards.workers import AudioConfig, EncodeConfig, LatentWorker
from resonate_audio.data.shards.write import (
    EMPTY,
    SAMPLES,
    Sample,
    ShardIndex,
    unpack_sample,
    write_index,
    write_shard,
)
from resonate_audio.model.presets import NANO_FLOW
from resonate_audio.training.loop.optim import OptimConfig, make_optimizer
from resonate_audio.training.loop.task import Draw, generator_for
from resonate_audio.training.pretrain.shards import ShardPretrainTask
from resonate_audio.training.pretrain.task import FlowConfig, build_transformer

NUM_CLIPS, CLIP_S, RATE_HZ = 64, 5.0, 44_100
FRAMES_PER_BATCH = 3456
"""Of nano's own recipe: 32 clips of five seconds."""
SAMPLES_PER_SHARD = 1000
TIMES_TRAINING, TIMES_SOUND, START_S, MEMORY_MB = 5, 20, 10, 2000


@dataclass(frozen=True)
class Speed:
    """Clips per second of the clock and per second of a processor."""

    clock: float
    processor: float


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=5.0, help="of processor time, each row")
    parser.add_argument("--entries", type=int, default=3_700_000)
    parser.add_argument("--open", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.open:
        print(json.dumps(open_simulated(options.open, options.seconds)))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        manifest = write_clips(folder)
        latents = EncodeConfig(window_s=(CLIP_S,), clips_per_shard=NUM_CLIPS)
        encode_manifest(manifest, folder / "latents", latents)
        encode_manifest(manifest, folder / "audio", AudioConfig(clips_per_shard=NUM_CLIPS))
        print_speeds(folder, latents, options.seconds)
        simulate(folder, options.entries)
        print_simulated(folder / "many", options)


def write_clips(folder: Path) -> Path:
    """Coloured noise, which compresses about as badly as recordings do, with captions."""
    lines = []
    for number in range(NUM_CLIPS):
        noise = np.random.default_rng(number).normal(size=round(CLIP_S * RATE_HZ))
        soundfile.write(folder / f"{number}.wav", 0.02 * np.cumsum(noise) % 1 - 0.5, RATE_HZ)
        caption = f"a dog barks {number} times while rain falls on a roof"
        line = {"audio_id": str(number), "audio_path": f"{number}.wav", "caption": caption}
        lines.append(json.dumps(line) + "\n")
    (folder / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "manifest.jsonl"


def measure(work: Callable[[int], int], seconds: float) -> Speed:
    """Repeat some work for so much processor time; it says how many clips each call dealt with."""
    work(0)
    clips, calls = 0, 0
    clock, processor = time.perf_counter(), time.process_time()
    while time.process_time() - processor < seconds:
        calls += 1
        clips += work(calls)
    return Speed(clips / (time.perf_counter() - clock), clips / (time.process_time() - processor))


def print_speeds(folder: Path, config: EncodeConfig, seconds: float) -> None:
    """The table of what reads and what consumes."""
    latents, sound = LatentShards(folder / "latents"), Shards(folder / "audio")
    plan = ShardPlan(latents.shards.sizes, latents.shards.frames, FRAMES_PER_BATCH, seed=0)
    ahead = ReadAhead(lambda index: latents.read(plan.batch(index)))
    rows = {
        "latents, read": measure(lambda n: len(ahead(n)[0]), seconds),
        "sound, decoded": measure(lambda n: len(read_sound(sound, n)), seconds),
        "sound, decoded and encoded": measure(encode_sound(sound, config), seconds),
        "training, consumed": measure(train_step(folder), seconds),
    }
    ahead.close()
    print(f"{'clips of 5 s':<28}{'per s':>10}{'per processor s':>18}")
    for name, speed in rows.items():
        print(f"{name:<28}{speed.clock:>10.1f}{speed.processor:>18.1f}")
    read = rows["latents, read"].processor
    for name, least in (
        ("training, consumed", TIMES_TRAINING),
        ("sound, decoded and encoded", TIMES_SOUND),
        ("sound, decoded", 0),
    ):
        times = read / rows[name].processor
        target = f" (target: {least})" if least else ""
        print(f"latents are read {times:.1f} times as fast as: {name}{target}")


def read_sound(shards: Shards, number: int) -> list[np.ndarray]:
    """Thirty-two clips."""
    start = 32 * (number % 2)
    return shards.read(np.arange(start, start + 32), decode_audio)[1]


def encode_sound(shards: Shards, config: EncodeConfig) -> Callable[[int], int]:
    """What training on sound would have to do for each batch."""
    worker = LatentWorker(config)
    captions = [f"a dog barks {number} times while rain falls on a roof" for number in range(32)]

    @torch.no_grad()
    def encode(number: int) -> int:
        waves = torch.from_numpy(np.stack(read_sound(shards, number)))
        worker.vae.encode(worker.mel(waves))
        worker.encoder.encode(captions)
        return len(waves)

    return encode


def train_step(folder: Path) -> Callable[[int], int]:
    """One update of nano on one batch that stays in memory."""
    data = LatentShards(folder / "latents")
    model = build_transformer(NANO_FLOW.transformer, data)
    task = ShardPretrainTask(model, data, FlowConfig(frames_per_batch=FRAMES_PER_BATCH), 0)
    optimizer = make_optimizer(model.parameters(), OptimConfig())
    batch = task.draw_batch(Draw(0, 0, generator_for(0, 0, "cpu")))
    task.own_batch = lambda draw: batch  # type: ignore[method-assign]

    def update(number: int) -> int:
        optimizer.zero_grad()
        task.loss("model", Draw(number, number, generator_for(0, number, "cpu")))[0].backward()
        optimizer.step()
        return len(batch.data)

    return update


# --- an index of millions ----------------------------------------------------------------------


def simulate(folder: Path, entries: int) -> None:
    """One shard of a thousand samples under many names, and the index of all of them."""
    source, many = Shards(folder / "latents"), folder / "many"
    packed = source.place.ranges(
        [
            (source.index.shards[0].name, int(row["offset"]), int(row["num_bytes"]))
            for row in source.samples
        ]
    )
    samples = []
    for number in range(SAMPLES_PER_SHARD):
        _, members = unpack_sample(packed[number % len(packed)])
        frames = int(source.samples["num_frames"][number % len(packed)])
        samples.append(Sample(f"{number:06d}", members, frames, CLIP_S))
    entry, table = write_shard(many / "shard-000000.tar", samples)
    count = -(-entries // SAMPLES_PER_SHARD)
    names = [f"shard-{number:06d}.tar" for number in range(count)]
    for name in names[1:]:
        os.link(many / names[0], many / name)
    (many / EMPTY).write_bytes((folder / "latents" / EMPTY).read_bytes())
    shards = tuple(entry.model_copy(update={"name": name}) for name in names)
    changes = {"shards": shards, "num_samples": count * SAMPLES_PER_SHARD}
    index: ShardIndex = source.index.model_copy(update=changes)
    write_index(many, index, [table] * count)


def open_simulated(folder: Path, seconds: float) -> dict[str, float]:
    """What a training process would do; run in a process of its own."""
    before_mb = peak_mb()
    clock, processor = time.perf_counter(), time.process_time()
    shards = LatentShards(folder)
    plan = ShardPlan(shards.shards.sizes, shards.shards.frames, FRAMES_PER_BATCH, seed=0)
    ahead = ReadAhead(lambda index: shards.read(plan.batch(index)))
    ahead(0)
    start_s, start_processor_s = time.perf_counter() - clock, time.process_time() - processor
    speed = measure(lambda number: len(ahead(number + 1)[0]), seconds)
    ahead.close()
    return {
        "entries": len(shards.shards.samples),
        "start_s": start_s,
        "start_processor_s": start_processor_s,
        "peak_mb": peak_mb(),
        "imports_mb": before_mb,
        "clips_per_s": speed.clock,
        "clips_per_processor_s": speed.processor,
    }


def peak_mb() -> float:
    """Most memory that this process has had; getrusage would count its parent's too."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (line,) = [line for line in lines if line.startswith("VmHWM:")]
    return int(line.split()[1]) / 1000


def print_simulated(folder: Path, options: argparse.Namespace) -> None:
    """Start the process and print what it found."""
    script = [sys.executable, __file__, "--open", str(folder)]
    settings = ["--seconds", str(options.seconds), "--threads", str(options.threads)]
    done = subprocess.run([*script, *settings], capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    size_mb = (folder / SAMPLES).stat().st_size / 1e6
    print(f"\nindex of {found['entries']:,} entries ({size_mb:.0f} MB)")
    print(
        f"first batch after {found['start_s']:.1f} s, {found['start_processor_s']:.1f} s of a "
        f"processor (target: {START_S}); peak memory {found['peak_mb']:.0f} MB, of which "
        f"{found['imports_mb']:.0f} MB before it was opened (target: {MEMORY_MB})"
    )
    print(
        f"then {found['clips_per_s']:.0f} clips per s, "
        f"{found['clips_per_processor_s']:.0f} per processor s"
    )


if __name__ == "__main__":
    main()
