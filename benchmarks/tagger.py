"""A sound tagger that judges a generator: trained on real recordings only, in minutes on a CPU.

The judge is an ensemble of ``NUM_FOLDS`` small residual networks on log-mel pictures. Fold k is
trained on the training clips that are not in fold k, so one round of training gives both

* the judge: the mean of the folds' probabilities, which has never met a val or test clip, and
* its cross-validation: each training clip tagged by the one network that has not met its group.

The **second ear** (``ear="second"``) is another network, a transformer over frames, that knows one
half of the training recordings; the other half is its cross-validation. Nothing is ever chosen by
what it says.

Neither shares anything with the generator: its own 16 kHz mel (64 bands, window 512, hop 256), its
own levels (dB below the clip's loudest cell, floor at -80 dB), so loudness cannot help a class. The
augmentation (equaliser, noise floor, low-pass, masks, small stretches) keeps it from reading the
fingerprint of a recording or of a vocoder instead of the event.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from resonate_audio.core.errors import ManifestError
from resonate_audio.core.files import atomic_path

SAMPLE_RATE_HZ = 16_000
N_FFT = 512
HOP_SAMPLES = 256
NUM_BANDS = 64
FLOOR_DB = -80.0
WINDOW_FRAMES = 160
"""2.56 s: longer clips are tagged by the mean over windows that cover them."""
MAX_JUDGED_S = 5.0
TRIM_DB = 40.0
NUM_FOLDS = 3
MIN_TRAIN_CLIPS = 8
MIN_TRAIN_GROUPS = 3
SEED = 2511

HOW_TO_REBUILD = "rebuild it with recipes/nano/prepare (docs/nano.md tells how)"


@dataclass(frozen=True)
class Clip:
    """One line of the corpus manifest, as far as a judge needs it."""

    id: str
    label: str
    captions: tuple[str, ...]
    split: str
    group: str
    shard: str
    start: int
    frames: int

    @property
    def held_out(self) -> bool:
        """Whether no training may touch it."""
        return self.split != "train"


@dataclass(frozen=True)
class Pictures:
    """Log-mel of every clip, one after the other: frames[offset[i] : offset[i + 1]] is clip i."""

    frames: np.ndarray
    offsets: np.ndarray

    def __getitem__(self, index: int) -> np.ndarray:
        """The picture of clip ``index``, (frame, band) in dB below its loudest cell."""
        return self.frames[self.offsets[index] : self.offsets[index + 1]]


# ---------------------------------------------------------------- corpus


def read_clips(corpus: Path) -> list[Clip]:
    """Read ``manifest.jsonl``.

    Raises:
        ManifestError: no corpus is there, or a line of it cannot be used.
    """
    path = corpus / "manifest.jsonl"
    if not path.is_file():
        raise ManifestError(f"{path}: no corpus there; {HOW_TO_REBUILD}, or pass --corpus FOLDER")
    clips = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
            clips.append(
                Clip(
                    captions=tuple(row["captions"]),
                    **{key: row[key] for key in Clip.__dataclass_fields__ if key != "captions"},
                )
            )
        except (ValueError, KeyError, TypeError) as error:
            raise ManifestError(f"{path}:{number}: not a clip ({error!r})") from error
    return clips


def decode_clips(corpus: Path, clips: Sequence[Clip]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (index, samples at 16 kHz), shard by shard.

    A shard is decoded from its beginning and sliced: seeking inside Vorbis is not sample-exact.

    Raises:
        ManifestError: a shard is missing or shorter than its manifest says.
    """
    import soundfile
    import soxr

    by_shard: dict[str, list[int]] = defaultdict(list)
    for index, clip in enumerate(clips):
        by_shard[clip.shard].append(index)
    for shard, indices in by_shard.items():
        path = corpus / "shards" / shard
        if not path.is_file():
            raise ManifestError(f"{path}: the shard is missing; {HOW_TO_REBUILD}")
        samples, rate_hz = soundfile.read(path, dtype="float32")
        for index in indices:
            start, frames = clips[index].start, clips[index].frames
            if start + frames > len(samples):
                raise ManifestError(f"{path}: ends before clip {clips[index].id} does")
            yield index, soxr.resample(samples[start : start + frames], rate_hz, SAMPLE_RATE_HZ)


# ---------------------------------------------------------------- pictures


def trim_silence(samples: np.ndarray) -> np.ndarray:
    """Cut what lies more than ``TRIM_DB`` below the loudest 10 ms off both ends."""
    hop = SAMPLE_RATE_HZ // 100
    num_frames = len(samples) // hop
    if num_frames < 2:
        return samples
    power = np.square(samples[: num_frames * hop].reshape(num_frames, hop)).mean(1)
    loud = np.flatnonzero(power > power.max() * 10 ** (-TRIM_DB / 10))
    if not len(loud):
        return samples
    return samples[max(0, loud[0] - 1) * hop : (loud[-1] + 3) * hop]


def mel_bank() -> Tensor:
    """Triangles of equal area on the HTK mel scale, (band, bin)."""

    def mel(hz: float) -> float:
        return 2595 * math.log10(1 + hz / 700)

    edges = 700 * (10 ** (np.linspace(mel(40), mel(7800), NUM_BANDS + 2) / 2595) - 1)
    bins = np.fft.rfftfreq(N_FFT, 1 / SAMPLE_RATE_HZ)
    low, middle, high = edges[:-2, None], edges[1:-1, None], edges[2:, None]
    bank = np.minimum((bins - low) / (middle - low), (high - bins) / (high - middle)).clip(0)
    bank /= bank.sum(1, keepdims=True).clip(1e-6)
    return torch.from_numpy(bank.astype(np.float32))


def picture(samples: np.ndarray, bank: Tensor) -> np.ndarray:
    """Log-mel of one sound, (frame, band), dB below its loudest cell, at least ``FLOOR_DB``."""
    wave = torch.from_numpy(np.ascontiguousarray(trim_silence(samples), dtype=np.float32))
    wave = functional.pad(wave, (0, max(0, N_FFT - len(wave))))
    window = torch.hann_window(N_FFT)
    spectrum = torch.stft(
        wave, N_FFT, HOP_SAMPLES, window=window, return_complex=True, pad_mode="constant"
    )
    level_db = 10 * torch.log10(bank @ spectrum.abs().square() + 1e-12)
    level_db = level_db - level_db.max()
    return level_db.clamp_min(FLOOR_DB).T.numpy().astype(np.float16)


def picture_corpus(
    corpus: Path, clips: Sequence[Clip], cache: Path
) -> tuple[Pictures, dict[int, np.ndarray]]:
    """Pictures of all clips, and the samples of the held-out ones; made once, kept in ``cache``."""
    listing = "".join(f"{clip.id}{clip.start}{clip.split}" for clip in clips)
    path = cache / f"corpus-{hashlib.sha1(listing.encode()).hexdigest()[:10]}.npz"
    if not path.is_file():
        _write_pictures(path, corpus, clips)
    stored = np.load(path)
    samples, ends = stored["held_samples"], stored["held_offsets"]
    held = {
        int(index): samples[ends[i] : ends[i + 1]] for i, index in enumerate(stored["held_index"])
    }
    return Pictures(stored["frames"], stored["offsets"]), held


def _write_pictures(path: Path, corpus: Path, clips: Sequence[Clip]) -> None:
    bank, pictures, held = mel_bank(), {}, {}
    for index, samples in decode_clips(corpus, clips):
        pictures[index] = picture(samples, bank)
        if clips[index].held_out:
            held[index] = samples[: int(MAX_JUDGED_S * SAMPLE_RATE_HZ)]
    lengths = [len(pictures[index]) for index in range(len(clips))]
    with atomic_path(path) as temporary:
        np.savez(
            temporary,
            frames=np.concatenate([pictures[index] for index in range(len(clips))]),
            offsets=np.cumsum([0, *lengths]),
            held_index=np.array(list(held)),
            held_samples=np.concatenate(list(held.values())),
            held_offsets=np.cumsum([0, *map(len, held.values())]),
        )


def window_at(picture_db: np.ndarray, start: int) -> np.ndarray:
    """``WINDOW_FRAMES`` frames from ``start`` (may be negative or run over: silence there)."""
    window = np.full((WINDOW_FRAMES, NUM_BANDS), FLOOR_DB, np.float32)
    first, last = max(0, start), min(len(picture_db), start + WINDOW_FRAMES)
    window[first - start : last - start] = picture_db[first:last]
    return window


def covering_windows(picture_db: np.ndarray) -> np.ndarray:
    """The windows a clip is judged by: one with the clip centred, or evenly spaced ones."""
    judged = picture_db[: int(MAX_JUDGED_S * SAMPLE_RATE_HZ / HOP_SAMPLES)]
    spare = len(judged) - WINDOW_FRAMES
    if spare <= 0:
        return window_at(judged, spare // 2)[None]
    num_windows = 1 + math.ceil(spare / (WINDOW_FRAMES // 2))
    starts = np.linspace(0, spare, num_windows).round().astype(int)
    return np.stack([window_at(judged, int(start)) for start in starts])


# ---------------------------------------------------------------- network


class Residual(nn.Module):
    """Two 3×3 convolutions beside a shortcut; ``stride`` halves both axes."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.branch = nn.Sequential(
            nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        self.shortcut = nn.Sequential(
            nn.AvgPool2d(stride, ceil_mode=True), nn.Conv2d(channels_in, channels, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """(row, channel, band, frame) to the same at the new width."""
        return torch.relu(self.branch(x) + self.shortcut(x))


class Tagger(nn.Module):
    """Window of dB, (row, frame, band), to class logits, (row, class). About 0.3 M parameters.

    The first layer looks at 7×7 cells and keeps every fourth on both axes. Twice the channels at
    twice the resolution took three times as long to train, most of it in the first block.
    """

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 32, 7, 4, 3, bias=False),
            nn.BatchNorm2d(32),
            nn.ReLU(),
            Residual(32, 64, 2),
            Residual(64, 128, 2),
        )
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * 128, num_classes))

    def forward(self, window_db: Tensor) -> Tensor:
        """Mean and maximum over the trunk's map, then one linear layer."""
        x = self.trunk((window_db.transpose(1, 2)[:, None] + 40) / 20)
        return self.head(torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))


class FrameTagger(nn.Module):
    """The second ear: four frames are a word of a transformer. About 0.6 M parameters."""

    PATCH_FRAMES = 4

    def __init__(self, num_classes: int, width: int = 128, num_layers: int = 4) -> None:
        super().__init__()
        self.read = nn.Linear(self.PATCH_FRAMES * NUM_BANDS, width)
        self.place = nn.Parameter(0.02 * torch.randn(WINDOW_FRAMES // self.PATCH_FRAMES, width))
        layer = nn.TransformerEncoderLayer(
            width, 4, 2 * width, 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.trunk = nn.TransformerEncoder(layer, num_layers, enable_nested_tensor=False)
        self.head = nn.Sequential(nn.Dropout(0.2), nn.Linear(2 * width, num_classes))

    def forward(self, window_db: Tensor) -> Tensor:
        """Window of dB, (row, frame, band), to class logits, (row, class)."""
        words = ((window_db + 40) / 20).unflatten(1, (-1, self.PATCH_FRAMES)).flatten(2)
        x = self.trunk(self.read(words) + self.place)
        return self.head(torch.cat([x.mean(1), x.amax(1)], 1))


# ---------------------------------------------------------------- augmentation


def augment(window_db: Tensor, generator: torch.Generator) -> Tensor:
    """Change what is not the event: stretch, equaliser, noise floor, low-pass, masks, gain."""
    x = _stretch(window_db, generator)
    x = x + _equaliser(len(x), generator)
    x = _noise_floor(x, generator)
    x = _mask(x, generator)
    return (x + _uniform((len(x), 1, 1), -8, 2, generator)).clamp_min(FLOOR_DB)


def _uniform(shape: tuple[int, ...], low: float, high: float, generator: torch.Generator) -> Tensor:
    return low + (high - low) * torch.rand(shape, generator=generator)


def _stretch(x: Tensor, generator: torch.Generator) -> Tensor:
    """Up to 12 % in time and up to 2 bands in pitch."""
    num_rows = len(x)
    theta = torch.zeros(num_rows, 2, 3)
    theta[:, 0, 0] = 1
    theta[:, 0, 2] = _uniform((num_rows,), -4 / NUM_BANDS, 4 / NUM_BANDS, generator)
    theta[:, 1, 1] = _uniform((num_rows,), 0.88, 1.12, generator)
    grid = functional.affine_grid(theta, [num_rows, 1, *x.shape[1:]], align_corners=False)
    moved = functional.grid_sample(x[:, None] - FLOOR_DB, grid, align_corners=False)
    return moved[:, 0] + FLOOR_DB


def _equaliser(num_rows: int, generator: torch.Generator) -> Tensor:
    points = 4 * torch.randn(num_rows, 1, 5, generator=generator)
    return functional.interpolate(points, NUM_BANDS, mode="linear", align_corners=True)


def _noise_floor(x: Tensor, generator: torch.Generator) -> Tensor:
    """Add coloured noise 75 to 35 dB below the loudest cell to half of the rows."""
    num_rows = len(x)
    level_db = _uniform((num_rows, 1, 1), -75, -35, generator) + _equaliser(num_rows, generator)
    quiet = torch.rand(num_rows, 1, 1, generator=generator) < 0.5
    level_db = torch.where(quiet, torch.full_like(level_db, -200.0), level_db)
    noise = torch.rand(x.shape, generator=generator).clamp_min(1e-3).log().neg()
    return 10 * torch.log10(10 ** (x / 10) + 10 ** (level_db / 10) * noise + 1e-12)


def _mask(x: Tensor, generator: torch.Generator) -> Tensor:
    """Silence a stripe of bands, a stripe of frames, and in one row of six the top bands."""
    num_rows, num_frames, num_bands = x.shape
    bands, frames = torch.arange(num_bands), torch.arange(num_frames)
    hole = torch.zeros(x.shape, dtype=torch.bool)
    for axis, size, widest in ((bands, num_bands, 10), (frames, num_frames, 24)):
        width = _uniform((num_rows, 1), 0, widest, generator)
        start = _uniform((num_rows, 1), 0, size, generator)
        stripe = (axis >= start) & (axis < start + width)
        hole |= stripe[:, None, :] if axis is bands else stripe[:, :, None]
    top = _uniform((num_rows, 1), 0.55, 3.2, generator) * num_bands
    hole |= (bands >= top)[:, None, :]
    return x.masked_fill(hole, FLOOR_DB)


# ---------------------------------------------------------------- training


Ear = Literal["first", "second"]


@dataclass(frozen=True)
class TaggerRun:
    """How long and how fast one fold is trained."""

    num_steps: int = 1200
    batch_clips: int = 48
    learning_rate: float = 3e-3
    weight_decay: float = 0.02
    mixup: float = 0.4
    label_smoothing: float = 0.05
    ear: Ear = field(default="first", repr=False)

    def network(self, num_classes: int) -> nn.Module:
        """One of the judge's networks, untrained."""
        return Tagger(num_classes) if self.ear == "first" else FrameTagger(num_classes)


RUNS: dict[Ear, TaggerRun] = {
    "first": TaggerRun(),
    "second": TaggerRun(num_steps=2400, learning_rate=1e-3, ear="second"),
}


def pick_classes(clips: Sequence[Clip]) -> list[str]:
    """Classes with enough training clips, from enough recordings, to be learnt at all."""
    counts, groups = Counter(), defaultdict(set)
    for clip in clips:
        if not clip.held_out:
            counts[clip.label] += 1
            groups[clip.label].add(clip.group)
    return sorted(
        label
        for label, count in counts.items()
        if count >= MIN_TRAIN_CLIPS and len(groups[label]) >= MIN_TRAIN_GROUPS
    )


def assign_folds(clips: Sequence[Clip], num_folds: int = NUM_FOLDS) -> dict[str, int]:
    """Fold of each group: large groups first, each where its classes are still rarest."""
    members: dict[str, list[Clip]] = defaultdict(list)
    for clip in clips:
        members[clip.group].append(clip)
    order = sorted(
        members, key=lambda group: (-len(members[group]), hashlib.sha1(group.encode()).hexdigest())
    )
    load: list[Counter[str]] = [Counter() for _ in range(num_folds)]
    folds = {}
    for group in order:
        labels = [clip.label for clip in members[group]]
        fold = min(
            range(num_folds), key=lambda k: (sum(load[k][label] for label in labels), load[k][""])
        )
        load[fold].update([*labels, *([""] * len(labels))])
        folds[group] = fold
    return folds


def train_tagger(
    pictures: Pictures,
    indices: Sequence[int],
    targets: Sequence[int],
    num_classes: int,
    seed: int,
    run: TaggerRun,
    on_step: Callable[[int, float], None],
) -> nn.Module:
    """Train one fold: AdamW, one cycle, mixup; classes are drawn by the root of their size."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = run.network(num_classes).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(
            model.parameters(), run.learning_rate, weight_decay=run.weight_decay
        )
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, run.learning_rate, run.num_steps, pct_start=0.15
        )
        batches = _batches(pictures, indices, targets, num_classes, seed, run)
        for step, (windows, soft) in enumerate(batches):
            loss = functional.cross_entropy(
                model(windows), soft, label_smoothing=run.label_smoothing
            )
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            on_step(step, loss.item())
    return model.eval()


def _batches(
    pictures: Pictures,
    indices: Sequence[int],
    targets: Sequence[int],
    num_classes: int,
    seed: int,
    run: TaggerRun,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Augmented, mixed windows with their soft classes, ``run.num_steps`` times."""
    chooser, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    weight = 1 / np.sqrt(np.bincount(targets, minlength=num_classes))[list(targets)]
    weight /= weight.sum()
    for _ in range(run.num_steps):
        rows = chooser.choice(len(indices), run.batch_clips, p=weight)
        windows = np.stack([_random_window(pictures[indices[row]], chooser) for row in rows])
        labels = torch.tensor([targets[row] for row in rows])
        soft = functional.one_hot(labels, num_classes).float()
        share = float(chooser.beta(run.mixup, run.mixup))
        yield _mix(augment(torch.from_numpy(windows), generator), soft, share)


def _random_window(picture_db: np.ndarray, chooser: np.random.Generator) -> np.ndarray:
    spare = len(picture_db) - WINDOW_FRAMES
    return window_at(picture_db, int(chooser.integers(min(0, spare), max(0, spare) + 1)))


def _mix(x: Tensor, soft: Tensor, share: float) -> tuple[Tensor, Tensor]:
    """Mixup with the batch turned by one row; half of the batch stays as it is."""
    half = len(x) // 2
    share = max(share, 1 - share)
    keep = torch.full((len(x), 1), share)
    keep[:half] = 1
    mixed = keep[:, :, None] * x + (1 - keep[:, :, None]) * x.roll(1, 0)
    return mixed, keep * soft + (1 - keep) * soft.roll(1, 0)


# ---------------------------------------------------------------- judge


@dataclass(frozen=True)
class Judge:
    """The folds' networks and the classes they name."""

    classes: tuple[str, ...]
    models: tuple[nn.Module, ...]

    @torch.inference_mode()
    def tag_pictures(self, pictures: Sequence[np.ndarray]) -> list[str]:
        """Most probable class of each picture, mean over its windows and over the networks."""
        names = []
        for picture_db in pictures:
            windows = torch.from_numpy(covering_windows(picture_db))
            votes = torch.stack([model(windows).log_softmax(1).mean(0) for model in self.models])
            names.append(self.classes[int(votes.exp().mean(0).argmax())])
        return names

    def tag_sounds(self, sounds: Sequence[np.ndarray]) -> list[str]:
        """Most probable class of each sound, samples at 16 kHz."""
        bank = mel_bank()
        return self.tag_pictures([picture(samples, bank) for samples in sounds])


def make_judge(
    clips: Sequence[Clip],
    pictures: Pictures,
    cache: Path,
    run: TaggerRun | None = None,
    say: Callable[[str], None] = print,
) -> tuple[Judge, dict[str, str]]:
    """Train the folds (or read them from ``cache``) and cross-validate; the second ear has one.

    Returns:
        The judge, and for each training clip (by id; half of them of the second ear) the class that
        its own fold's network, which never met the clip's group, gives it.
    """
    run = run or TaggerRun()
    num_folds, num_networks = (NUM_FOLDS, NUM_FOLDS) if run.ear == "first" else (2, 1)
    classes = pick_classes(clips)
    training = [i for i, c in enumerate(clips) if not c.held_out and c.label in set(classes)]
    folds = assign_folds([clips[i] for i in training], num_folds)
    models, tags = [], {}
    for fold in range(num_networks):
        mine = [i for i in training if folds[clips[i].group] == fold]
        others = [i for i in training if folds[clips[i].group] != fold]
        model = _load_or_train(clips, pictures, others, classes, fold, cache, run, say)
        names = Judge(tuple(classes), (model,)).tag_pictures([pictures[i] for i in mine])
        tags.update({clips[i].id: name for i, name in zip(mine, names, strict=True)})
        models.append(model)
    return Judge(tuple(classes), tuple(models)), tags


def _load_or_train(
    clips: Sequence[Clip],
    pictures: Pictures,
    indices: Sequence[int],
    classes: Sequence[str],
    fold: int,
    cache: Path,
    run: TaggerRun,
    say: Callable[[str], None],
) -> nn.Module:
    identity = json.dumps([repr(run), fold, SEED, classes, [clips[i].id for i in indices]])
    path = cache / f"tagger-{fold}-{hashlib.sha1(identity.encode()).hexdigest()[:10]}.pt"
    if path.is_file():
        model = run.network(len(classes))
        model.load_state_dict(torch.load(path, weights_only=True))
        return model.eval()
    say(f"judge {fold + 1}: {len(indices)} clips of {len(classes)} classes")
    targets = [classes.index(clips[i].label) for i in indices]
    on_step = _progress(run, say)
    model = train_tagger(pictures, indices, targets, len(classes), SEED + fold, run, on_step)
    with atomic_path(path) as temporary:
        torch.save(model.state_dict(), temporary)
    return model


def _progress(run: TaggerRun, say: Callable[[str], None]) -> Callable[[int, float], None]:
    recent: list[float] = []

    def on_step(step: int, loss: float) -> None:
        recent.append(loss)
        if (step + 1) % max(1, run.num_steps // 6) == 0:
            say(f"  step {step + 1} of {run.num_steps}, loss {np.mean(recent[-100:]):.3f}")

    return on_step
