"""What networks hear in sounds, as arrays: embeddings of a space, or logits of classes.

A listener takes sounds and gives a row for each. Sets of rows are compared by `distances`.
``laion-clap:FOLDER`` · ``ms-clap`` · ``nano-clap`` · ``ast:FOLDER`` · ``my_module:function``
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64

from resonate_audio.core.errors import AudioError, ConfigError, RewardError
from resonate_audio.core.foreign import foreign_code, quiet_loading
from resonate_audio.core.paths import given_path
from resonate_audio.core.types import Waveform
from resonate_audio.evaluation.scores.sounds import read_samples
from resonate_audio.rewards.clap.laion import CLAPReward
from resonate_audio.rewards.clap.microsoft import MSClapModel, choose_windows
from resonate_audio.rewards.clap.microsoft_network import SAMPLE_RATE_HZ as MS_CLAP_RATE_HZ
from resonate_audio.rewards.fingerprints import fingerprint, hash_code, hash_weights
from resonate_audio.rewards.function import find_object
from resonate_audio.rewards.hearing import hear
from resonate_audio.rewards.pretrained import find_pretrained, load_complete
from resonate_audio.rewards.small.judge import judge_samples
from resonate_audio.rewards.small.two_tower import TwoTowerReward

WINDOW_S = 10.0
"""What is heard of a sound: its first ten seconds, as metrics of clips hear it."""
DEFAULT_AST = "MIT/ast-finetuned-audioset-10-10-0.4593"
BATCH_SIZE = 16

Kind = Literal["embedding", "classes"]
Rows = Float[np.ndarray, "row dim"]
Hear = Callable[[Waveform], Rows]
"""Sounds of one length and rate to a row each."""


@dataclass(frozen=True)
class Listener:
    """A network that hears, and what its rows depend on."""

    name: str
    """How columns call it: ``fad/nano-clap``."""
    kind: Kind
    hear: Hear
    source: str = ""
    labels: tuple[str, ...] = field(default=(), compare=False)
    """Names of the classes, if it tells them."""

    @cached_property
    def details(self) -> dict[str, str]:
        """What its rows depend on, in words and hashes; where files lie is no part of it."""
        return {
            "listener": self.name,
            "weights": hash_weights(self.hear) or "none that could be seen",
            "code": hash_code(self.hear),
            "window": f"first {WINDOW_S:g} s",
            "resampler": "soxr VHQ",
        }

    @property
    def fingerprint(self) -> str:
        """Changes with weights, code and what is heard."""
        return fingerprint(self.details)


class ClapHearing:
    """Unit vectors of a transformers CLAP, heard as `CLAPReward` hears."""

    def __init__(self, judge: CLAPReward) -> None:
        self.judge = judge
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, audio: Waveform) -> Rows:
        """Embed every row."""
        model: Any = self.judge.model
        samples = hear(audio, self.judge.sample_rate_hz, self.judge.longest_s)
        sounds = self.judge.processor.feature_extractor(
            list(samples.numpy()), sampling_rate=self.judge.sample_rate_hz, return_tensors="pt"
        )
        device = next(model.parameters()).device
        with self._lock:
            given = model.get_audio_features(
                sounds["input_features"].to(device, torch.float32),
                is_longer=torch.zeros(len(samples), 1, dtype=torch.bool, device=device),
            )
        rows: torch.Tensor = getattr(given, "pooler_output", given)
        return torch.nn.functional.normalize(rows, dim=1).cpu().numpy()


class MSClapHearing:
    """Unit vectors of MS-CLAP: mean over windows of 7 s, brought back to length 1."""

    def __init__(self, model: MSClapModel) -> None:
        self.model = model

    def __call__(self, audio: Waveform) -> Rows:
        """Embed every row."""
        windows = choose_windows(hear(audio, MS_CLAP_RATE_HZ), "deterministic")
        heard = self.model.embed_windows(windows).mean(dim=1)
        return torch.nn.functional.normalize(heard, dim=1).numpy()


class TwoTowerHearing:
    """Unit vectors of a small CLAP."""

    def __init__(self, judge: TwoTowerReward) -> None:
        self.judge = judge

    @torch.inference_mode()
    def __call__(self, audio: Waveform) -> Rows:
        """Embed every row."""
        network = self.judge.network
        waves = judge_samples(audio, network.config.mel.sample_rate_hz)
        device = next(network.parameters()).device
        return network.embed_pictures(network.pictures(waves.to(device))).cpu().numpy()


class ClassHearing:
    """Logits of an audio classifier of transformers, such as AST."""

    def __init__(self, model: Any, extractor: Any) -> None:
        self.model, self.extractor = model, extractor
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, audio: Waveform) -> Rows:
        """Logits of every row."""
        rate_hz = int(self.extractor.sampling_rate)
        samples = hear(audio, rate_hz)
        given = self.extractor(list(samples.numpy()), sampling_rate=rate_hz, return_tensors="pt")
        device = next(self.model.parameters()).device
        with self._lock:
            logits: torch.Tensor = self.model(**given.to(device)).logits
        return logits.float().cpu().numpy()


class FunctionHearing:
    """Somebody's function ``(samples, sample_rate_hz) -> rows`` of plain arrays."""

    def __init__(self, function: Callable[[np.ndarray, int], Any], place: str) -> None:
        self.function, self.place = function, place

    def __call__(self, audio: Waveform) -> Rows:
        """Call it on a copy of the samples.

        Raises:
            RewardError: it failed, or did not give a row of numbers for each sound.
        """
        samples = audio.samples.detach().cpu().float().numpy().copy()
        with foreign_code(self.place, RewardError):
            rows = np.asarray(self.function(samples, audio.sample_rate_hz), np.float64)
        if rows.ndim != 2 or len(rows) != len(samples):
            raise RewardError(
                f"{self.place}: gave an array of shape {rows.shape} for {len(samples)} sounds; "
                "expected one row each"
            )
        return rows


def open_embedder(text: str, device: str | torch.device = "cpu") -> Listener:
    """Open what embeds sounds.

    Args:
        text: ``nano-clap``, ``laion-clap``, ``ms-clap``, the last two with a folder or hub id
            behind ``:``, or a function as ``module:name``.
        device: where it computes.

    Raises:
        ConfigError: there is none of that name.
        ResonateError: as of its loading.
    """
    return _open(text, EMBEDDERS, "embedding", device)


def open_classifier(text: str, device: str | torch.device = "cpu") -> Listener:
    """Open what tells classes of sounds, as logits.

    Args:
        text: ``ast``, with the folder or hub id of any audio classifier behind ``:``, or a
            function as ``module:name``.
        device: where it computes.

    Raises:
        ConfigError: there is none of that name.
        ResonateError: as of its loading.
    """
    return _open(text, CLASSIFIERS, "classes", device)


def _open(text: str, known: dict[str, Opener], kind: Kind, device: str | torch.device) -> Listener:
    name, colon, source = text.strip().partition(":")
    if name in known:
        return known[name](source, torch.device(device))
    what = "embedder" if kind == "embedding" else "classifier"
    if not colon:
        raise ConfigError(
            f"{what} {text}: there is no such {what}; there are {', '.join(known)}, and your own "
            "function as module:name"
        )
    found = find_object(text.strip(), what)
    if not callable(found):
        raise ConfigError(f"{what} {text}: {source} of {name} is no function")
    return Listener(text.strip(), kind, FunctionHearing(found, text.strip()), text.strip())


Opener = Callable[[str, torch.device], Listener]


def _open_laion_clap(source: str, device: torch.device) -> Listener:
    from resonate_audio.rewards.clap.laion import DEFAULT_SOURCE

    judge = CLAPReward.from_pretrained(source or DEFAULT_SOURCE, device)
    return Listener("laion-clap", "embedding", ClapHearing(judge), source or DEFAULT_SOURCE)


def _open_ms_clap(source: str, device: torch.device) -> Listener:
    from resonate_audio.rewards.clap.microsoft import DEFAULT_SOURCE

    model = MSClapModel.from_pretrained(source or DEFAULT_SOURCE, device)
    return Listener("ms-clap", "embedding", MSClapHearing(model), source or DEFAULT_SOURCE)


def _open_nano_clap(source: str, device: torch.device) -> Listener:
    from resonate_audio.rewards.catalogue import open_judge, parse_spec

    if source:
        judge = TwoTowerReward.from_folder(given_path(source), device=device)
    else:
        opened = open_judge(parse_spec("nano-clap"), device)
        assert isinstance(opened, TwoTowerReward), f"nano-clap is a {type(opened)}"
        judge = opened
    assert isinstance(judge, TwoTowerReward), "from_folder gives its own class"
    return Listener("nano-clap", "embedding", TwoTowerHearing(judge), source or "bundled")


def _open_ast(source: str, device: torch.device) -> Listener:
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    folder = find_pretrained(source or DEFAULT_AST)
    with quiet_loading(folder):
        model = load_complete(AutoModelForAudioClassification, folder)
        extractor = AutoFeatureExtractor.from_pretrained(folder)
    model.to(device)
    labels = tuple(str(model.config.id2label[k]) for k in range(model.config.num_labels))
    return Listener("ast", "classes", ClassHearing(model, extractor), source or DEFAULT_AST, labels)


EMBEDDERS: dict[str, Opener] = {
    "nano-clap": _open_nano_clap,
    "laion-clap": _open_laion_clap,
    "ms-clap": _open_ms_clap,
}
CLASSIFIERS: dict[str, Opener] = {"ast": _open_ast}


OnWork = Callable[[int], None]
"""Told how many more sounds were heard."""


def hear_files(
    listener: Listener,
    paths: Sequence[Path],
    batch_size: int = BATCH_SIZE,
    on_work: OnWork | None = None,
) -> Float64[np.ndarray, "row dim"]:
    """Rows of files, in their order; sounds of one length and rate are heard together, unpadded.

    Args:
        listener: what hears.
        paths: files that can be heard; the first `WINDOW_S` of each are.
        batch_size: sounds given to it at once.
        on_work: told how far it is.

    Raises:
        AudioError: a file cannot be read.
        RewardError: a row is not finite; names the file.
    """
    rows: dict[int, Float[np.ndarray, " dim"]] = {}
    for numbers, audio in _batches(paths, batch_size):
        heard = listener.hear(audio)
        for number, row in zip(numbers, heard, strict=True):
            if not np.isfinite(row).all():
                raise RewardError(f"{listener.name}: NaN or infinite values for {paths[number]}")
            rows[number] = row
        if on_work is not None:
            on_work(len(numbers))
    if not rows:
        raise AudioError(f"{listener.name}: no sound to hear")
    return np.stack([rows[number] for number in range(len(paths))]).astype(np.float64)


def _batches(paths: Sequence[Path], batch_size: int) -> Iterator[tuple[list[int], Waveform]]:
    """Sounds of one kind, at most so many; what is waiting is never more than a batch a kind."""
    waiting: dict[tuple[int, int], list[tuple[int, np.ndarray]]] = {}
    for number, path in enumerate(paths):
        samples, rate_hz = read_samples(path)
        samples = samples[: round(WINDOW_S * rate_hz)]
        group = waiting.setdefault((rate_hz, len(samples)), [])
        group.append((number, samples))
        if len(group) == batch_size:
            yield _batch(group, rate_hz)
            group.clear()
    for (rate_hz, _), group in waiting.items():
        if group:
            yield _batch(group, rate_hz)


def _batch(group: Sequence[tuple[int, np.ndarray]], rate_hz: int) -> tuple[list[int], Waveform]:
    stacked = torch.from_numpy(np.stack([samples for _, samples in group]))
    return [number for number, _ in group], Waveform(stacked, rate_hz)
