"""How much of a sound does nano's codec keep, and one that was trained since?

    python benchmarks/codec.py [--corpus ../shared/corpus] [--codec work/codec/weights]
                               [--tagger CACHE] [--pictures FILE.png]

Held-out clips of the corpus (val and test) go through vocoder, and through VAE and vocoder, of
nano's codec and of the one given, and are compared with the recording. Means over clips of

* **mel**: mean absolute difference of log-mels, dB, of what lies up to 70 dB below the clip's
  loudest cell (16 kHz front end for 0-8 kHz, 44.1 kHz front end for the full band);
* **stft**: the same of single STFT cells, mean over windows of 256, 512, 1024 and 2048 samples;
* **conv**: spectral convergence, norm of the difference of magnitudes over the norm, same windows;
* **s/s**: seconds of one core for a second of sound, VAE decoder and vocoder, best of three.

With ``--tagger`` a network that knows only real sounds (``tagger.py``, trained first if it is not
in that folder) names the class of each clip, and of what each codec makes of it.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr
import tagger
import torch
import torch.nn.functional as F
from torch import Tensor

from resonate_audio.audio.mel import MEL_16K, MEL_44K, MelConfig, MelFrontEnd
from resonate_audio.core.errors import ResonateError
from resonate_audio.model.checkpoint import load_strict, read_weights
from resonate_audio.model.folder import BUNDLED, Vocoder, build_vocoder
from resonate_audio.model.linear_vae import AnyVAE, build_vae
from resonate_audio.model.presets import NANO

ROOT = Path(__file__).resolve().parents[1]
CORPUS = ROOT.parent / "shared" / "corpus"
RATE_HZ, LOW_RATE_HZ = 44_100, 16_000
RANGE_DB = 70.0
SIZES = (256, 512, 1024, 2048)
SHORTEST = 4096
"""Samples that clips are padded to, so that every window fits."""
SHOWN = (
    "rain", "wind", "dog bark", "piano", "violin", "tubular bells", "snare drum", "gunshot",
    "female speech", "crash cymbal",
)  # fmt: skip
"""Classes of the ten pictures, where the held-out clips have them."""


@dataclass(frozen=True)
class Codec:
    """VAE and vocoder of nano's sizes."""

    vae: AnyVAE
    vocoder: Vocoder

    @torch.inference_mode()
    def pass_through(self, wave: Tensor, through_vae: bool) -> Tensor:
        """A recording at 44.1 kHz after (VAE and) vocoder, of the same length."""
        mel = MelFrontEnd(NANO.mel)(padded(wave, NANO.frame_samples)[None])
        if through_vae:
            mel = self.vae.decode(self.vae.encode(mel).mean)
        return fitted(self.vocoder(mel)[0], len(wave))

    @torch.inference_mode()
    def seconds_per_second(self) -> float:
        """What decoding ten seconds costs one core."""
        duration = NANO.max_duration_s
        latents = torch.randn(1, NANO.num_frames(duration), NANO.vae.latent_channels)
        times = []
        for _ in range(4):
            begun = time.perf_counter()
            self.vocoder(self.vae.decode(latents))
            times.append(time.perf_counter() - begun)
        return min(times[1:]) / duration


def load_codec(folder: Path) -> Codec:
    """Open the two parts in a folder of ``vae/`` and ``vocoder/``."""
    vae, vocoder = build_vae(NANO.vae), build_vocoder(NANO.vocoder)
    for name, part in (("vae", vae), ("vocoder", vocoder)):
        file = folder / name / "model.safetensors"
        load_strict(part, read_weights(file), str(file))
    return Codec(vae.eval(), vocoder.eval())


# ---------------------------------------------------------------- sounds


def resampled(wave: Tensor, from_hz: int, to_hz: int) -> Tensor:
    """The same sound at another rate."""
    if from_hz == to_hz:
        return wave
    return torch.from_numpy(np.asarray(soxr.resample(wave.numpy(), from_hz, to_hz), np.float32))


def padded(wave: Tensor, multiple: int) -> Tensor:
    """Silence at the end, to a whole number of frames and no less than the windows need."""
    length = max(SHORTEST, -(-len(wave) // multiple) * multiple)
    return F.pad(wave, (0, -(-length // multiple) * multiple - len(wave)))


def fitted(wave: Tensor, length: int) -> Tensor:
    """Cut or padded to a length: resampling twice may lose or win a sample."""
    return F.pad(wave, (0, max(0, length - len(wave))))[:length]


def held_out(corpus: Path, every: int) -> Iterator[tuple[tagger.Clip, Tensor]]:
    """Every so-many-th held-out clip of the corpus, at 44.1 kHz, shard by shard."""
    clips = [clip for clip in tagger.read_clips(corpus) if clip.held_out][::every]
    by_shard = defaultdict(list)
    for clip in clips:
        by_shard[clip.shard].append(clip)
    for shard, members in by_shard.items():
        samples, _ = soundfile.read(corpus / "shards" / shard, dtype="float32")
        for clip in members:
            yield clip, torch.from_numpy(samples[clip.start : clip.start + clip.frames].copy())


# ---------------------------------------------------------------- errors


def errors(made: Tensor, recorded: Tensor) -> dict[str, float]:
    """All distances of a sound from its recording, both at 44.1 kHz."""
    low = [resampled(wave, RATE_HZ, LOW_RATE_HZ) for wave in (made, recorded)]
    values = {}
    for band, pair, config in (("0-8 kHz", low, MEL_16K), ("full", [made, recorded], MEL_44K)):
        a, b = (padded(wave, 1)[None] for wave in pair)
        values[f"mel {band}"] = mel_error_db(a, b, config)
        values[f"stft {band}"], values[f"conv {band}"] = stft_errors(a, b)
    return values


def mel_error_db(made: Tensor, recorded: Tensor, config: MelConfig) -> float:
    """Mean absolute difference of audible log-mels, dB."""
    unit_db = 20.0 if config.log == "log10" else 20 / np.log(10)
    front_end = MelFrontEnd(config)
    a, b = (unit_db * front_end(wave) for wave in (made, recorded))
    return float((audible(a) - audible(b)).abs().mean())


def audible(levels_db: Tensor) -> Tensor:
    """Lift what lies far below the loudest cell, which nobody hears, to one floor."""
    return levels_db.clamp_min(levels_db.max() - RANGE_DB)


def stft_errors(made: Tensor, recorded: Tensor) -> tuple[float, float]:
    """Mean absolute difference of audible cells, dB, and spectral convergence."""
    logs, convergences = [], []
    for size in SIZES:
        window = torch.hann_window(size)
        a, b = (
            torch.stft(wave, size, size // 4, window=window, return_complex=True).abs()
            for wave in (made, recorded)
        )
        floor = b.max() * 10 ** (-RANGE_DB / 20) + 1e-9
        logs.append(20 * (a.maximum(floor).log10() - b.maximum(floor).log10()).abs().mean())
        convergences.append((a - b).norm() / (b.norm() + 1e-9))
    return float(torch.stack(logs).mean()), float(torch.stack(convergences).mean())


# ---------------------------------------------------------------- table


@dataclass
class Row:
    """One way a clip can go, and what it has done to the clips so far."""

    name: str
    way: Callable[[Tensor], Tensor]
    cost: float | None
    errors: list[dict[str, float]]
    sounds: dict[str, list[np.ndarray]]


def rows_of(codecs: dict[str, Codec]) -> list[Row]:
    """Both ways through each codec."""
    rows = []
    for name, codec in codecs.items():
        for stations, through_vae in (("vocoder", False), ("VAE + vocoder", True)):
            cost = codec.seconds_per_second() if through_vae else None
            way = _way(codec, through_vae)
            rows.append(Row(f"{name}: {stations}", way, cost, [], defaultdict(list)))
    return rows


def _way(codec: Codec, through_vae: bool) -> Callable[[Tensor], Tensor]:
    return lambda wave: codec.pass_through(wave, through_vae)


def table(rows: Sequence[Row]) -> list[str]:
    """Markdown: one line per row, means over clips."""
    names = list(rows[0].errors[0])
    lines = [f"| clips go through | {' | '.join(names)} | s/s |", "| --- " * (len(names) + 2) + "|"]
    for row in rows:
        means = [np.mean([values[name] for values in row.errors]) for name in names]
        cost = "" if row.cost is None else f"{row.cost:.3f}"
        lines.append(f"| {row.name} | {' | '.join(f'{mean:.2f}' for mean in means)} | {cost} |")
    return lines


def tagger_lines(
    corpus: Path, cache: Path, rows: Sequence[Row], recorded: dict[str, list[np.ndarray]]
) -> list[str]:
    """Share of clips whose class the tagger names, of recordings and after each way."""
    clips = tagger.read_clips(corpus)
    pictures, _ = tagger.picture_corpus(corpus, clips, cache)
    judge, _ = tagger.make_judge(clips, pictures, cache, say=lambda line: print(line, flush=True))
    known = sorted(set(recorded) & set(judge.classes))
    lines = [
        "| the tagger hears | clips | right class first | of the recordings' |",
        "| - " * 4 + "|",
    ]
    ceiling = None
    for name, sounds in [("recordings", recorded)] + [(row.name, row.sounds) for row in rows]:
        hits = [
            label == named for label in known for named in judge.tag_sounds(sounds[label])
        ]  # fmt: skip
        share = float(np.mean(hits))
        ceiling = ceiling or share
        lines.append(f"| {name} | {len(hits)} | {share:.1%} | {share / ceiling:.1%} |")
    return lines


# ---------------------------------------------------------------- pictures


def draw(path: Path, names: Sequence[str], clips: Sequence[tuple[str, list[Tensor]]]) -> None:
    """Spectrograms, a column per clip: recorded, and as each codec gives it back."""
    from matplotlib.figure import Figure

    from resonate_audio.audio.spectrogram import RANGE_DB as SHOWN_DB
    from resonate_audio.audio.spectrogram import levels_db

    figure = Figure(figsize=(3.2 * len(clips), 2.8 * len(names)), layout="constrained")
    axes = figure.subplots(len(names), len(clips), squeeze=False)
    for column, (title, waves) in enumerate(clips):
        for line, wave in enumerate(waves):
            axis = axes[line][column]
            levels = levels_db(wave.numpy(), RATE_HZ)
            axis.imshow(levels, origin="lower", aspect="auto", vmin=-SHOWN_DB, vmax=0, cmap="magma")
            axis.set(xticks=[], yticks=[])
            if line == 0:
                axis.set_title(title, fontsize=9)
    for line, name in enumerate(names):
        axes[line][0].set_ylabel(name)
    figure.savefig(path, dpi=110)


# ---------------------------------------------------------------- run


def read_options(arguments: Sequence[str]) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS, help="folder with manifest.jsonl")
    parser.add_argument("--codec", type=Path, help="folder of vae/ and vocoder/ to compare")
    parser.add_argument("--every", type=int, default=1, help="use every so-many-th clip")
    parser.add_argument("--tagger", type=Path, help="where the tagger is kept; left out: no tagger")
    parser.add_argument("--pictures", type=Path, help="write spectrograms of ten clips there")
    return parser.parse_args(arguments)


def measure(options: argparse.Namespace) -> list[str]:
    """Send every clip every way and put the table together."""
    nano = ROOT / "resonate_audio" / BUNDLED["nano"]
    codecs = {"nano": load_codec(nano)}
    if options.codec:
        codecs[str(options.codec)] = load_codec(options.codec)
    rows = rows_of(codecs)
    recorded: dict[str, list[np.ndarray]] = defaultdict(list)
    pictures: dict[str, tuple[str, list[Tensor]]] = {}
    for clip, wave in held_out(options.corpus, options.every):
        recorded[clip.label].append(resampled(wave, RATE_HZ, LOW_RATE_HZ).numpy())
        made = [row.way(wave) for row in rows]
        for row, sound in zip(rows, made, strict=True):
            row.errors.append(errors(sound, wave))
            row.sounds[clip.label].append(resampled(sound, RATE_HZ, LOW_RATE_HZ).numpy())
        if clip.label not in pictures and len(wave) > RATE_HZ // 4:
            pictures[clip.label] = (clip.captions[0], [wave, *made[1::2]])
    lines = [f"{len(rows[0].errors)} clips, torch {torch.__version__}", "", *table(rows)]
    if options.tagger:
        lines += ["", *tagger_lines(options.corpus, options.tagger, rows, recorded)]
    if options.pictures:
        draw(options.pictures, ["recorded", *codecs], chosen_pictures(pictures))
    return lines


def chosen_pictures(
    pictures: dict[str, tuple[str, list[Tensor]]],
) -> list[tuple[str, list[Tensor]]]:
    """Ten clips: the classes we want to see, then others."""
    order = [label for label in SHOWN if label in pictures]
    order += [label for label in sorted(pictures) if label not in order]
    return [pictures[label] for label in order[: len(SHOWN)]]


def main(arguments: Sequence[str]) -> int:
    """Print the table; exit 2 with one line on a mistake of the caller."""
    torch.set_num_threads(1)
    try:
        lines = measure(read_options(arguments))
    except ResonateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
