"""Prompts to clips, by whatever makes sounds: a model of ours, a command, or a folder of files.

The noise of a clip depends on its prompt's id and its take alone. Clips are made in batches that
are cut from the whole list of takes, done or not, so that a run which is killed and started again
computes each clip among the same neighbours, and gives the same bits.
"""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from resonate_audio.audio.decoding import read_length
from resonate_audio.core.errors import AudioError, ConfigError, InputError, ManifestError
from resonate_audio.core.files import alone_in, atomic_path
from resonate_audio.core.sampling import Sampling
from resonate_audio.evaluation.clips.bulk import Bulk, Work, run_jobs
from resonate_audio.evaluation.clips.folder import (
    ClipKey,
    ClipLine,
    FoundClips,
    Manifest,
    System,
    file_sha256,
    find_clips,
    open_manifest,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet

if TYPE_CHECKING:
    from resonate_audio.core.types import Audio
    from resonate_audio.pipeline.path import Resonate

OnStep = Callable[[int, int], None]
"""Told (clips done, clips in all)."""
NOISE_SEEDS = 2**31
"""Small enough for any generator's seed; a rare collision shares noise between two prompts."""
_PLACEHOLDER = re.compile(r"\{(prompt|seed|file|id)\}")


@dataclass(frozen=True)
class Take:
    """One clip to make."""

    item: PromptItem
    seed: int
    """Number of the take, from 0."""
    noise_seed: int
    file: str
    """Name in the system's folder."""

    @property
    def key(self) -> ClipKey:
        """Which clip it is."""
        return self.item.id, self.seed


@runtime_checkable
class ClipMaker(Protocol):
    """Anything that makes sounds from prompts."""

    @property
    def source(self) -> str:
        """Where its sounds come from, as ``system.json`` says it."""
        ...

    @property
    def facts(self) -> Mapping[str, str]:
        """What a table should say of it, and what must stay the same within a folder."""
        ...

    @property
    def suffix(self) -> str:
        """Kind of file it makes, such as ``.flac``."""
        ...

    @property
    def batch_size(self) -> int:
        """Takes that are made together."""
        ...

    @property
    def nfe(self) -> int | None:
        """Steps of its solver, if it has one."""
        ...

    def make(self, takes: Sequence[Take], paths: Sequence[Path | None]) -> None:
        """Make a batch.

        Args:
            takes: what to make.
            paths: where each goes; None if it lies there already and only keeps the others company.

        Raises:
            ResonateError: a clip cannot be made.
        """
        ...


@dataclass(frozen=True)
class MakeJob:
    """A batch, and which of it is missing."""

    folder: Path
    takes: tuple[Take, ...]
    missing: frozenset[ClipKey]
    keep_going: bool

    @property
    def wanted(self) -> tuple[Take, ...]:
        """What is missing of the batch."""
        return tuple(take for take in self.takes if take.key in self.missing)


@dataclass(frozen=True)
class Made:
    """What came of a batch."""

    lines: tuple[ClipLine, ...] = ()
    failure: str = ""


@dataclass(frozen=True)
class Generated:
    """What came of a run."""

    manifest: Manifest
    num_made: int
    num_there: int
    """Clips that were done before."""
    failures: Mapping[ClipKey, str]
    """Why clips could not be made, where the run was told to go on."""


def noise_seed(id: str, take: int) -> int:
    """Seed of a clip's noise: a hash of its prompt's id and its take, from 0 to 2³¹ − 1."""
    digest = hashlib.sha256(f"{id}\n{take}".encode()).digest()
    return int.from_bytes(digest[:8], "big") % NOISE_SEEDS


def plan_takes(prompts: PromptSet, num_takes: int, suffix: str) -> list[Take]:
    """Every take of every prompt, prompt-major; take 0 is called as its prompt, others numbered.

    Raises:
        InputError: fewer than one take.
        ManifestError: a take would be called as another prompt.
    """
    if num_takes < 1:
        raise InputError(f"{num_takes} takes: expected 1 or more")
    takes = [
        Take(
            item,
            seed,
            noise_seed(item.id, seed),
            f"{item.id}_{seed}{suffix}" if seed else f"{item.id}{suffix}",
        )
        for item in prompts.items
        for seed in range(num_takes)
    ]
    seen: dict[str, str] = {}
    for take in takes:
        first = seen.setdefault(take.file.lower(), take.item.id)
        if first != take.item.id:
            raise ManifestError(
                f"{prompts.name}: {take.file} would hold both prompt {first} and prompt "
                f"{take.item.id}; rename one of the two ids"
            )
    return takes


def generate_clips(
    folder: Path,
    prompts: PromptSet,
    maker: ClipMaker,
    num_takes: int = 1,
    name: str = "",
    facts: Mapping[str, str] | None = None,
    keep_going: bool = False,
    on_step: OnStep | None = None,
    bulk: Bulk[ClipMaker] | None = None,
) -> Generated:
    """Make the clips that a folder lacks.

    Args:
        folder: the system's; made if need be.
        prompts: what to make.
        maker: what makes it.
        num_takes: clips per prompt.
        name: of the system in tables; the folder's if empty.
        facts: more that a table should say, such as ``params``.
        keep_going: list clips that cannot be made, instead of stopping at the first.
        on_step: told (clips done, clips in all) after each batch that had something to do.
        bulk: many processes that see the folder; the clips are the same as without.

    Raises:
        ManifestError: the folder holds clips of another system or protocol; names the field.
        ResonateError: a clip cannot be made; those made before are kept.
    """
    takes = plan_takes(prompts, num_takes, maker.suffix)
    system = _system(
        folder, prompts, num_takes, name, maker.source, {**maker.facts, **(facts or {})}
    )
    with alone_in(folder):
        manifest = open_manifest(folder, system, prompts)
        missing = frozenset(take.key for take in takes if not manifest.is_done(take.key))
        jobs = [
            MakeJob(folder.absolute(), tuple(batch), missing & {t.key for t in batch}, keep_going)
            for batch in _batches(takes, maker.batch_size)
            if any(take.key in missing for take in batch)
        ]
        failures: dict[ClipKey, str] = {}
        num_left = len(missing)
        work = Work(do=make_batch, identify=_identify)
        for job, made in run_jobs(jobs, work, maker, bulk):
            manifest.append(made.lines)
            if made.failure:
                failures |= {take.key: made.failure for take in job.wanted}
            num_left -= len(job.wanted)
            if on_step is not None:
                on_step(len(takes) - num_left, len(takes))
        num_made = len(missing) - len(failures)
        return Generated(manifest, num_made, len(takes) - len(missing), failures)


def list_clips(
    folder: Path,
    prompts: PromptSet,
    clips: Path,
    name: str = "",
    facts: Mapping[str, str] | None = None,
    on_step: OnStep | None = None,
) -> tuple[Manifest, FoundClips]:
    """Let a folder of somebody else's clips take part: hash them where they lie, copy nothing.

    Args:
        folder: for the manifest; may be the one of the clips.
        prompts: what they answer.
        clips: files named by prompt id, as `find_clips` takes them.
        name: of the system in tables; the folder's if empty.
        facts: what a table should say of it.
        on_step: told (clips done, clips in all).

    Returns:
        The manifest, and what was found, missing and left over.

    Raises:
        ManifestError: as of `find_clips` and `open_manifest`.
    """
    found = find_clips(clips, prompts)
    source = f"clips in {clips.resolve()}"
    system = _system(folder, prompts, found.num_takes, name, source, facts or {})
    manifest = open_manifest(folder, system, prompts)
    texts = {item.id: item.prompt for item in prompts.items}
    lines = []
    for done, (key, path) in enumerate(found.files.items(), 1):
        line = _line(folder, path, ClipLine(
            id=key[0], prompt=texts[key[0]], seed=key[1], file="", sha256="",
        ))  # fmt: skip
        if manifest.clips.get(key) != line:
            lines.append(line)
        if on_step is not None:
            on_step(done, len(found.files))
    manifest.append(lines)
    return manifest, found


@dataclass(frozen=True)
class ModelMaker:
    """A model of this package."""

    pipeline: Resonate
    sampling: Sampling
    batch_size: int = 8
    suffix: str = ".flac"
    """24 bits: at -40 dB, 16 bits move a log-mel by 0.03."""

    @property
    def source(self) -> str:
        """The model's name and weights."""
        return f"model {self.pipeline.name} {self.pipeline.fingerprint}"

    @property
    def nfe(self) -> int:
        """One a step, as the paper counts; guidance evaluates the network twice in each."""
        return self.sampling.num_inference_steps

    @property
    def facts(self) -> dict[str, str]:
        """Size and settings."""
        num_weights = count_weights(self.pipeline)
        adapters = [str(adapter) for adapter in self.pipeline.adapters]
        plain, ours = Sampling(self.sampling.duration_s), self.sampling
        newer = {
            name: str(value)
            for name, value in ours.solver_settings().items()
            if name not in ("num_inference_steps", "guidance_scale")
            and value != getattr(plain, name)
        }
        return {
            "model": self.pipeline.name,
            "params": f"{num_weights / 1e6:.1f}M",
            "nfe": str(self.nfe),
            "guidance": f"{ours.guidance_scale:g}",
            "duration_s": f"{ours.duration_s:g}",
            "dtype": str(self.pipeline.dtype).removeprefix("torch."),
            **({"adapters": " ".join(adapters)} if adapters else {}),
            **newer,
        }

    def make(self, takes: Sequence[Take], paths: Sequence[Path | None]) -> None:
        """Make a batch, each row from its own noise."""
        sounds = self.pipeline.generate(
            [take.item.prompt for take in takes],
            seeds=[take.noise_seed for take in takes],
            batch_size=len(takes),
            **self.sampling.model_dump(),
        )
        write_sounds(sounds, paths)


def count_weights(pipeline: Resonate) -> int:
    """Weights of a model's flow transformer, whatever form it computes in."""
    import torch

    from resonate_audio.model.flow_transformer import FlowTransformer

    with torch.device("meta"):
        transformer = FlowTransformer(pipeline.config.transformer)
    return sum(weight.numel() for weight in transformer.parameters())


def write_sounds(sounds: Sequence[Audio], paths: Sequence[Path | None]) -> None:
    """Write those that have a path, over what lies there."""
    from resonate_audio.audio.io import write_audio

    for sound, path in zip(sounds, paths, strict=True):
        if path is not None:
            write_audio(path, sound, overwrite=True)


@dataclass(frozen=True)
class CommandMaker:
    """A program that makes one file of one prompt, run without a shell.

    The template is split as a shell would, and ``{prompt}``, ``{seed}``, ``{id}`` and ``{file}``
    are put into the pieces afterwards, so no prompt can become another argument or a command.
    """

    template: str
    timeout_s: float = 600.0
    suffix: str = ".wav"
    facts: Mapping[str, str] = field(default_factory=dict)
    nfe: int | None = None
    batch_size: int = 1

    def __post_init__(self) -> None:
        if "{file}" not in self.template:
            raise ConfigError(
                f"command {self.template!r}: expected {{file}} where the output's name goes, and "
                "{prompt}, {seed} or {id} where the program wants them"
            )
        if shutil.which(self._pieces[0]) is None:
            raise ConfigError(f"command {self._pieces[0]}: there is no such program")

    @property
    def source(self) -> str:
        """The template."""
        return f"command {self.template}"

    @property
    def _pieces(self) -> list[str]:
        try:
            return shlex.split(self.template)
        except ValueError as error:
            raise ConfigError(f"command {self.template!r}: {error}") from error

    def make(self, takes: Sequence[Take], paths: Sequence[Path | None]) -> None:
        """Run the program once for each path."""
        for take, path in zip(takes, paths, strict=True):
            if path is not None:
                self._run(take, path)

    def _run(self, take: Take, path: Path) -> None:
        with atomic_path(path) as temporary:
            values = {
                "prompt": take.item.prompt,
                "seed": str(take.noise_seed),
                "id": take.item.id,
                "file": str(temporary.absolute()),
            }
            pieces = [_PLACEHOLDER.sub(lambda m: values[m[1]], piece) for piece in self._pieces]
            place = f"prompt {take.item.id}, take {take.seed}: {pieces[0]}"
            _run_program(pieces, self.timeout_s, place)
            if not temporary.is_file():
                raise InputError(f"{place} ended well but wrote no file where {{file}} stands")


def _run_program(pieces: Sequence[str], timeout_s: float, place: str) -> None:
    """Run to the end; a process that is given up goes with all that it started."""
    try:
        process = subprocess.Popen(
            pieces,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
    except OSError as error:
        raise InputError(f"{place} cannot be started ({error.strerror or error})") from error
    try:
        _, said = process.communicate(timeout=timeout_s)
    except BaseException as error:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            raise InputError(
                f"{place} gave nothing after {timeout_s:g} s; see --timeout"
            ) from error
        raise
    if process.returncode:
        lines = said.decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        raise InputError(f"{place} failed with exit code {process.returncode}: {last[:200]}")


def make_batch(maker: ClipMaker, job: MakeJob) -> Made:
    """Make what is missing of a batch, among its neighbours.

    Raises:
        ResonateError: it cannot be made, and the job is not told to go on.
    """
    try:
        return Made(_make_batch(maker, job))
    except (InputError, ManifestError) as error:
        if not job.keep_going:
            raise
        return Made(failure=str(error))


def _make_batch(maker: ClipMaker, job: MakeJob) -> tuple[ClipLine, ...]:
    start_s = time.perf_counter()
    places = {take.key: job.folder / take.file for take in job.wanted}
    maker.make(job.takes, [places.get(take.key) for take in job.takes])
    wall_s = (time.perf_counter() - start_s) / len(job.takes)
    return tuple(
        _made(_line(job.folder, places[take.key], ClipLine(
            id=take.item.id,
            prompt=take.item.prompt,
            seed=take.seed,
            noise_seed=take.noise_seed,
            file="",
            sha256="",
            nfe=maker.nfe,
            wall_s=round(wall_s, 4),
        )), places[take.key])
        for take in job.wanted
    )  # fmt: skip


def _identify(maker: ClipMaker) -> tuple[str, ...]:
    return maker.source, *(f"{name} {value}" for name, value in sorted(maker.facts.items()))


def _made(line: ClipLine, path: Path) -> ClipLine:
    if line.sample_rate_hz is None:
        path.unlink(missing_ok=True)
        raise InputError(f"prompt {line.id}, take {line.seed}: what was made is no audio file")
    return line


def _line(folder: Path, path: Path, line: ClipLine) -> ClipLine:
    """Say which file it is: its place, hash, rate and length."""
    rate_hz, num_samples = _read_header(path)
    sha256 = file_sha256(path)
    if sha256 is None:
        raise ManifestError(f"{path}: vanished while it was looked at")
    return line.model_copy(
        update={
            "file": os.path.relpath(path, folder),
            "sha256": sha256,
            "sample_rate_hz": rate_hz,
            "seconds": None if rate_hz is None else num_samples / rate_hz,
        }
    )


def _read_header(path: Path) -> tuple[int | None, int]:
    try:
        return read_length(path)
    except AudioError:
        return None, 0


def _system(
    folder: Path,
    prompts: PromptSet,
    num_takes: int,
    name: str,
    source: str,
    facts: Mapping[str, str],
) -> System:
    return System(
        name=name or folder.resolve().name,
        source=source,
        protocol={
            "prompt_set": prompts.name,
            "prompt_set_sha256": prompts.sha256,
            "takes": str(num_takes),
        },
        facts=dict(facts),
    )


def _batches(takes: Sequence[Take], size: int) -> Iterator[Sequence[Take]]:
    for start in range(0, len(takes), size):
        yield takes[start : start + size]
