"""How well copies are told from other recordings, and how fast among many.

    python benchmarks/fingerprint.py MANIFEST [--clips 600]
    python benchmarks/fingerprint.py --scale 1000000

With a manifest, every few of its clips are encoded and decoded again, and their codes compared:
with their own, and with those of all other clips of another ``group``. With a scale, copies that
differ in 26 and in 40 bits are planted among random codes and sought.
"""

from __future__ import annotations

import argparse
import io
import time
from pathlib import Path

import numpy as np
import soundfile

from resonate_audio.audio.io import resample
from resonate_audio.core.errors import AudioError
from resonate_audio.data.fingerprint import (
    MOST_DIFFERENT_BITS,
    NUM_BITS,
    fingerprint,
    same_sounds,
)
from resonate_audio.data.manifest import Clip, Manifest, decode_clips, read_manifest

RATE_HZ = 44_100
COPIES = {
    "Ogg Vorbis": ("OGG", "VORBIS", 44_100, 1.0),
    "MP3": ("MP3", "MPEG_LAYER_III", 44_100, 1.0),
    "Opus": ("OGG", "OPUS", 48_000, 1.0),
    "22.05 kHz": ("WAV", "PCM_16", 22_050, 1.0),
    "20 dB lower": ("WAV", "PCM_16", 44_100, 0.1),
}


def main() -> None:
    """Run one of the two."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("manifest", type=Path, nargs="?")
    parser.add_argument("--scale", type=int)
    parser.add_argument("--clips", type=int, default=600)
    options = parser.parse_args()
    if options.scale:
        seek_planted(options.scale)
    elif options.manifest:
        compare_copies(options.manifest, options.clips)
    else:
        parser.error("give a manifest or --scale")


def seek_planted(count: int, num_copies: int = 1000) -> None:
    """Print how many planted copies are found among random codes."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (count, NUM_BITS), dtype=np.uint8)
    copies = np.repeat(bits[:num_copies], 2, axis=0)
    for number, row in enumerate(copies):
        row[rng.choice(NUM_BITS, 40 if number % 2 else 26, replace=False)] ^= 1
    codes = [row.tobytes() for row in np.packbits(np.concatenate([bits, copies]), axis=1)]
    begin_s = time.process_time()
    groups = same_sounds(codes, [10.0] * len(codes))
    taken_s = time.process_time() - begin_s
    found = {index - count for group in groups for index in group if index >= count}
    for kind, differing in enumerate((26, 40)):
        share = sum(index % 2 == kind for index in found) / num_copies
        print(f"copies that differ in {differing} bits: {share:.1%} found")
    print(f"{len(codes)} codes, {taken_s:.1f} s of processor time")


def compare_copies(manifest: Path, count: int) -> None:
    """Print a table of the distances of copies, and the least of other recordings."""
    clips, sounds = choose(read_manifest(manifest), count)
    codes = [fingerprint(sound, RATE_HZ) for sound in sounds]
    print(f"{len(clips)} clips, {NUM_BITS} bits, copies differ in {MOST_DIFFERENT_BITS} at most\n")
    print("| copy | half of them | 95 of 100 | found |\n|---|---|---|---|")
    for name, way in COPIES.items():
        pairs = zip(codes, (copy_code(sound, *way) for sound in sounds), strict=True)
        far = np.array([distance(one, two) for one, two in pairs])
        half, most = np.percentile(far, [50, 95])
        print(f"| {name} | {half:.0f} | {most:.0f} | {np.mean(far <= MOST_DIFFERENT_BITS):.1%} |")
    others = [
        distance(codes[i], codes[j])
        for i in range(len(codes))
        for j in range(i)
        if clips[i].group != clips[j].group
    ]
    close = sum(far <= MOST_DIFFERENT_BITS for far in others)
    print(f"\nother recordings: least {min(others)}, half {np.median(others):.0f} bits;", end=" ")
    print(f"{close} of {len(others)} pairs are called the same")


def choose(manifest: Manifest, count: int) -> tuple[list[Clip], list[np.ndarray]]:
    """Clips from everywhere in the manifest that have a code, and their sounds."""
    step = max(1, len(manifest.clips) // count)
    found = [
        (clip, sound)
        for clip, sound in decode_clips(Manifest(manifest.path, manifest.clips[::step]), RATE_HZ)
        if not isinstance(sound, AudioError) and fingerprint(sound, RATE_HZ)
    ]
    return [clip for clip, _ in found], [sound for _, sound in found]


def copy_code(
    sound: np.ndarray, container: str, codec: str, rate_hz: int, gain: float
) -> bytes | None:
    """The code of a sound after a codec."""
    buffer = io.BytesIO()
    copy = resample(sound, RATE_HZ, rate_hz) * np.float32(gain)
    soundfile.write(buffer, copy, rate_hz, format=container, subtype=codec)
    buffer.seek(0)
    return fingerprint(soundfile.read(buffer, dtype="float32")[0], rate_hz)


def distance(one: bytes | None, two: bytes | None) -> int:
    """Bits that differ; all if there is no code."""
    if one is None or two is None:
        return NUM_BITS
    return (int.from_bytes(one, "big") ^ int.from_bytes(two, "big")).bit_count()


if __name__ == "__main__":
    main()
