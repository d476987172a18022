"""Sound files as evaluation sees them: what they are, and whether they can be scored."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float32

from resonate_audio.audio import loudness
from resonate_audio.audio.decoding import read_sound
from resonate_audio.core.errors import AudioError, ManifestError
from resonate_audio.core.types import Waveform
from resonate_audio.evaluation.clips.folder import ClipLine, Manifest, file_sha256
from resonate_audio.evaluation.scores.scored import Failure
from resonate_audio.evaluation.scores.store import Sound, Store, pcm_sha256
from resonate_audio.rewards import detectors
from resonate_audio.rewards.detectors import find_hack_signs
from resonate_audio.rewards.fingerprints import fingerprint

SILENT_PEAK = 1e-4
"""A sound whose largest sample is under this, -80 dB of full scale, counts as silent."""
SHORTEST_S = 0.1
"""Shorter ones are refused by some judges."""
FILES_AT_ONCE = 16
"""Files that are read before what they are is kept."""

OnWork = Callable[[int], None]
"""Told how many more pieces of work are done."""


def read_samples(path: Path) -> tuple[Float32[np.ndarray, " sample"], int]:
    """Samples as they are in the file, channels averaged, and their rate.

    Unlike `read_audio` it lets NaN samples through: they are counted, not refused.

    Raises:
        AudioError: the file is missing or is not audio.
    """
    found = read_sound(path, finite=False)
    return found.samples, found.sample_rate_hz


def examine(path: Path) -> Sound:
    """What a file is."""
    try:
        samples, rate_hz = read_samples(path)
    except AudioError as error:
        return Sound(problem=str(error))
    finite = np.isfinite(samples)
    return Sound(
        pcm_sha256=pcm_sha256(samples),
        sample_rate_hz=rate_hz,
        num_samples=len(samples),
        peak=float(np.abs(samples[finite]).max(initial=0.0)),
        is_finite=bool(finite.all()),
    )


def failure_of(sound: Sound | None) -> Failure | None:
    """Why a sound has no values; None if it can be scored."""
    if sound is None:
        return "missing"
    if sound.problem:
        return "unreadable"
    if sound.seconds < SHORTEST_S:
        return "too short"
    if not sound.is_finite:
        return "not finite"
    return "silent" if sound.peak < SILENT_PEAK else None


def know_sounds(
    manifest: Manifest, store: Store, on_work: OnWork | None = None
) -> dict[ClipLine, Sound | None]:
    """What each clip of a folder is; None if its file is not there.

    A file is read only if the store does not know it: a file of the same place, size and date has
    the hash it had, and a hash tells what is in it.

    Raises:
        ManifestError: files are not those that the manifest lists; counts them, names the first.
    """
    lines = list(manifest.clips.values())
    hashes = _know_hashes({line: manifest.file_of(line) for line in lines}, store)
    changed = [line for line in lines if hashes[line] not in (None, line.sha256)]
    if changed:
        raise ManifestError(
            f"{manifest.folder}: {len(changed)} of {len(lines)} files are not those that the "
            f"manifest lists, such as {changed[0].file}; run resonate eval generate again"
        )
    there = {line.sha256: line for line in lines if hashes[line] is not None}
    known = store.sounds(list(there))
    unknown = iter([sha256 for sha256 in there if sha256 not in known])
    while part := list(islice(unknown, FILES_AT_ONCE)):
        found = {sha256: examine(manifest.file_of(there[sha256])) for sha256 in part}
        store.put_sounds(found)
        known |= found
        if on_work is not None:
            on_work(len(part))
    return {line: None if hashes[line] is None else known[line.sha256] for line in lines}


def read_batch(paths: Sequence[Path], num_samples: int | None = None) -> Waveform:
    """Sounds of one rate, cut to one length.

    Args:
        paths: files that are at least as long.
        num_samples: of each from its start; None: all, of files of one length.

    Raises:
        AudioError: a file cannot be read any more.
    """
    given = [read_samples(path) for path in paths]
    rates = {rate_hz for _, rate_hz in given}
    assert len(rates) == 1, f"rates {rates}"
    rows = np.stack([samples[:num_samples] for samples, _ in given])
    return Waveform(torch.from_numpy(rows), rates.pop())


def signs_fingerprint() -> str:
    """Changes when the detectors do."""
    import inspect

    return "signs " + fingerprint(
        {module.__name__: inspect.getsource(module) for module in (detectors, loudness)}
    )


def measure_signs(path: Path) -> dict[str, float]:
    """What a gamed judge goes with: loudness, silence, clipping, energy where no judge listens."""
    signs = find_hack_signs(read_batch([path]))
    return {name: round(value, 6) for name, value in signs.means().items()}


def _know_hashes(files: Mapping[ClipLine, Path], store: Store) -> dict[ClipLine, str | None]:
    states = {}
    for path in files.values():
        state = _state(path)
        if state is not None:
            states[str(path.absolute())] = state
    known = store.hashes(states)
    fresh = {}
    for name in states.keys() - known.keys():
        sha256 = file_sha256(Path(name))
        if sha256 is not None:
            fresh[name] = sha256
    store.put_hashes(states, fresh)
    known |= fresh
    return {line: known.get(str(path.absolute())) for line, path in files.items()}


def _state(path: Path) -> str | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return f"{found.st_size} {found.st_mtime_ns}"
