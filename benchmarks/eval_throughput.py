"""How many clips a second does each metric score, and how long does a second run take?

    python benchmarks/eval_throughput.py [--metric nano-clap --metric nano-eval] [--clips 32]

Clips of noise are written, as a generator leaves them, and scored by `score_system` into a store of
their own: reading, resampling, judging and keeping are all in the time. Each metric is measured one
by one and batched, in turn, so that a busy moment hits both; the best of the repeats counts. Signs
of a gamed judge are measured once before, and are the row ``signs``.

The last table is the second run over finished work, of clips of one second: every value is known,
so no sound is read and their length does not matter. Metrics are open by then: starting the command
and loading its judges comes on top of it.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import soundfile
import torch

from resonate_audio.evaluation.clips.folder import ClipLine, System, file_sha256, open_manifest
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.evaluation.scores.metrics import Metric, open_metric
from resonate_audio.evaluation.scores.score import score_system
from resonate_audio.evaluation.scores.store import Store

SAMPLE_RATE_HZ = 44_100
TEXTS = ("a dog barks", "rain falling and a bell rings twice", "a cow moos, then a door slams")


def main() -> None:
    """Read the options, measure, print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--metric", action="append", help="as of resonate eval score")
    parser.add_argument("--clips", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--known-clips", type=int, default=1500, help="of the second run; 0: none")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    metrics = [open_metric(text) for text in options.metric or ("nano-clap", "nano-eval")]
    with tempfile.TemporaryDirectory() as place:
        folder = make_clips(Path(place) / "few", options.clips, options.seconds)
        print("| metric | one by one, clips/s | batched, clips/s | ratio |")
        print("| --- | --- | --- | --- |")
        signs_s = seconds_of(folder, [])
        print(f"| signs | {options.clips / signs_s:.1f} | | |", flush=True)
        for metric in metrics:
            one, many = measure(folder, metric, options.batch_size, options.repeats)
            print(
                f"| {metric.name} | {options.clips / one:.1f} | {options.clips / many:.1f} "
                f"| {one / many:.2f} |",
                flush=True,
            )
        if options.known_clips:
            report_second_run(Path(place) / "many", metrics, options.known_clips)


def make_clips(folder: Path, num_clips: int, seconds: float) -> Path:
    """A system's folder of noise, no two clips alike."""
    items = [PromptItem(id=f"{n:04d}", prompt=TEXTS[n % len(TEXTS)]) for n in range(num_clips)]
    prompts = PromptSet("noise", tuple(items))
    manifest = open_manifest(folder, System(name=folder.name, source="noise"), prompts)
    lines = []
    for number, item in enumerate(items):
        draw = np.random.default_rng(number)
        samples = 0.1 * draw.standard_normal(round(seconds * SAMPLE_RATE_HZ), dtype=np.float32)
        path = folder / f"{item.id}.wav"
        soundfile.write(path, samples, SAMPLE_RATE_HZ, subtype="PCM_16")
        sha256 = str(file_sha256(path))
        lines.append(ClipLine(id=item.id, prompt=item.prompt, file=path.name, sha256=sha256))
    manifest.append(lines)
    return folder


def measure(folder: Path, metric: Metric, batch_size: int, repeats: int) -> tuple[float, float]:
    """Best seconds one by one and batched; the first call of each is not counted."""
    best = {1: float("inf"), batch_size: float("inf")}
    for repeat in range(repeats + 1):
        for size, seconds in best.items():
            taken = seconds_of(folder, [replace(metric, batch_size=size)])
            best[size] = min(seconds, taken) if repeat else seconds
    return best[1], best[batch_size]


def seconds_of(folder: Path, metrics: Sequence[Metric]) -> float:
    """Seconds of scoring into a new store that knows the files and, with metrics, their signs."""
    with tempfile.TemporaryDirectory() as place, Store(Path(place) / "scores.db") as store:
        if metrics:
            score_system(folder, [], store)
        began = time.perf_counter()
        score_system(folder, metrics, store)
        return time.perf_counter() - began


def report_second_run(folder: Path, metrics: Sequence[Metric], num_clips: int) -> None:
    """Print the seconds of a first run over many short clips and of a second one."""
    make_clips(folder, num_clips, 1.0)
    print("\n| run | clips | metrics | seconds |")
    print("| --- | --- | --- | --- |")
    with Store(folder / "scores.db") as store:
        for run in ("first", "second"):
            began = time.perf_counter()
            score_system(folder, metrics, store)
            taken = time.perf_counter() - began
            print(f"| {run} | {num_clips} | {len(metrics)} | {taken:.2f} |", flush=True)


if __name__ == "__main__":
    main()
