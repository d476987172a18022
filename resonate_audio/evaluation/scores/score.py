"""Clips to scores: every clip of a system, every metric, each value measured once.

What is measured goes into the store batch by batch, so a run that was killed goes on where it was,
and a run over finished work reads no sound.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from resonate_audio.core.errors import ManifestError, RewardError
from resonate_audio.data.shards.workers import chunks
from resonate_audio.evaluation.clips.bulk import Bulk, Work, run_jobs
from resonate_audio.evaluation.clips.folder import (
    ClipLine,
    Manifest,
    read_manifest,
    read_system_prompts,
)
from resonate_audio.evaluation.clips.prompt_sets import PromptItem, PromptSet
from resonate_audio.evaluation.scores.metrics import HEARD, TOTAL, Metric, check_columns
from resonate_audio.evaluation.scores.scored import (
    SCORES,
    SUMMARY,
    ClipScore,
    MetricCard,
    SystemScores,
    read_scores,
)
from resonate_audio.evaluation.scores.sounds import (
    failure_of,
    know_sounds,
    measure_signs,
    read_batch,
    signs_fingerprint,
)
from resonate_audio.evaluation.scores.store import Sound, Store
from resonate_audio.rewards.audio_llm.rubric import items_of
from resonate_audio.rewards.base import make_rewards
from resonate_audio.rewards.desk import score_now

ValueT = TypeVar("ValueT")
OnStep = Callable[[int, int], None]
"""Told (pieces of work done, pieces in all)."""
SIGNS_AT_ONCE = 16
"""Files that are looked at before what they show is kept."""
TRAINED_ON = "trained_on"
"""Fact of a system: names of the metrics that were its training's rewards, divided by commas."""


@dataclass(frozen=True)
class Row:
    """One clip that should be there."""

    item: PromptItem
    seed: int
    line: ClipLine | None
    sound: Sound | None

    @property
    def is_scored(self) -> bool:
        """Whether it can have values."""
        return failure_of(self.sound) is None


@dataclass(frozen=True)
class Asked:
    """One sound and what is asked of it."""

    address: str
    path: Path
    sound: Sound
    prompt: str
    row: Row

    def kind(self, window_s: float | None) -> tuple[int, int]:
        """Rate and number of samples: sounds of one kind are judged together, unpadded."""
        rate_hz, length = self.sound.sample_rate_hz, self.sound.num_samples
        return rate_hz, length if window_s is None else min(length, round(window_s * rate_hz))


@dataclass(frozen=True)
class Piece:
    """One sound and one text, as a job names them."""

    address: str
    path: Path
    prompt: str
    id: str
    """Of the prompt, for messages."""


@dataclass(frozen=True)
class ScoreJob:
    """Sounds of one rate and heard length, for one metric."""

    metric: int | None
    """Its number; None: the signs of a gamed judge."""
    pieces: tuple[Piece, ...]
    num_samples: int = 0
    """Heard of each."""


def score_system(
    folder: Path,
    metrics: Sequence[Metric],
    store: Store,
    prompts: PromptSet | None = None,
    trained_on: Sequence[str] = (),
    on_step: OnStep | None = None,
    bulk: Bulk[Sequence[Metric]] | None = None,
) -> SystemScores:
    """Score all clips of a folder with all metrics.

    Args:
        folder: of `generate_clips` or `list_clips`.
        metrics: from `open_metric`.
        store: where values are kept.
        prompts: what the system was asked for; by default what its folder says.
        trained_on: names of metrics that were rewards of its training, besides those its facts say.
        on_step: told how far the work is; not called if there is none.
        bulk: many processes that see the folder; the values are the same as without.

    Returns:
        One row for each take of each prompt; those that cannot be scored have a ``failure``.

    Raises:
        ManifestError: the folder is of other prompts, has a clip of no prompt, or files that are
            not those of its manifest.
        RewardError: a judge failed; names the clips. What was measured before is kept.
    """
    check_columns(metrics)
    manifest = read_manifest(folder)
    prompts = _check_prompts(manifest, prompts)
    rows = _rows(manifest, prompts, know_sounds(manifest, store))
    lists = [(metric, _asked(metric, manifest, rows)) for metric in metrics]
    jobs = [
        job
        for number, (metric, asked) in enumerate(lists)
        for job in _score_jobs(number, metric, asked, store)
    ] + _sign_jobs(manifest, rows, store)
    done, total = 0, sum(len(job.pieces) for job in jobs)
    work = Work(do=do_job, identify=_identify)
    for job, found in run_jobs(jobs, work, metrics, bulk):
        store.put_scores(_kept_as(job, metrics), found)
        done += len(job.pieces)
        if on_step is not None:
            on_step(done, total)
    given = [_values(metric, asked, store) for metric, asked in lists]
    items = {m.name: _by_item(asked, store, m) for m, asked in lists if m.is_per_event}
    signs = store.scores(signs_fingerprint(), [_sign_address(row) for row in rows if row.sound])
    rewards = {*trained_on, *filter(None, manifest.system.facts.get(TRAINED_ON, "").split(","))}
    return SystemScores(
        system=manifest.system.name,
        protocol=manifest.system.protocol,
        facts={"source": manifest.system.source} | manifest.system.facts,
        cards=tuple(_cards(metrics, rewards)),
        clips=tuple(_clip(row, given, items, signs) for row in rows),
        clips_sha256=_hash_clips(rows),
    )


def join_earlier(folder: Path, scores: SystemScores) -> tuple[SystemScores, tuple[str, ...]]:
    """Put the columns of an earlier run beside the new ones, if the clips are still the same.

    Returns:
        All columns, and the names of those that were dropped since they are of other clips.

    Raises:
        ManifestError: the earlier files are broken.
    """
    if not (folder / SUMMARY).exists() or not (folder / SCORES).exists():
        return scores, ()
    earlier = read_scores(folder)
    fresh = {card.name for card in scores.cards}
    kept = tuple(card for card in earlier.cards if card.name not in fresh)
    if (earlier.clips_sha256, earlier.protocol) != (scores.clips_sha256, scores.protocol):
        return scores, tuple(card.name for card in kept)
    before = {(clip.id, clip.seed): clip for clip in earlier.clips}
    clips = tuple(
        clip.model_copy(
            update={
                "values": _only(old.values, kept) | clip.values,
                "items": _only(old.items, kept) | clip.items,
            }
        )
        for clip in scores.clips
        for old in [before.get((clip.id, clip.seed), clip)]
    )
    sets = _only(earlier.set_values, kept) | scores.set_values
    update = {"cards": kept + scores.cards, "clips": clips, "set_values": sets}
    return scores.model_copy(update=update), ()


def do_job(metrics: Sequence[Metric], job: ScoreJob) -> dict[str, dict[str, float]]:
    """Measure the sounds of a job; values by address.

    Raises:
        RewardError: the judge failed; names the clips.
        AudioError: a file cannot be read any more.
    """
    if job.metric is None:
        return {piece.address: measure_signs(piece.path) for piece in job.pieces}
    return _score_batch(metrics[job.metric], job)


def _identify(metrics: Sequence[Metric]) -> list[str]:
    return [f"{metric.name} {metric.fingerprint}" for metric in metrics]


def _kept_as(job: ScoreJob, metrics: Sequence[Metric]) -> str:
    return signs_fingerprint() if job.metric is None else metrics[job.metric].fingerprint


def _check_prompts(manifest: Manifest, prompts: PromptSet | None) -> PromptSet:
    own = read_system_prompts(manifest.folder)
    if prompts is not None and prompts.sha256 != own.sha256:
        raise ManifestError(
            f"{manifest.folder}: prompt_set is {own.name} ({own.sha256[:8]}) there, and "
            f"{prompts.name} ({prompts.sha256[:8]}) was given; score it with its own"
        )
    return prompts or own


def _rows(
    manifest: Manifest, prompts: PromptSet, sounds: Mapping[ClipLine, Sound | None]
) -> list[Row]:
    takes = manifest.system.protocol.get("takes", "1")
    if not takes.isdecimal() or takes == "0":
        raise ManifestError(f"{manifest.folder}: takes is {takes!r}; expected a number from 1")
    wanted = {(item.id, seed): item for item in prompts.items for seed in range(int(takes))}
    for key, line in manifest.clips.items():
        if key not in wanted:
            extra = sum(other not in wanted for other in manifest.clips)
            raise ManifestError(
                f"{manifest.folder}: {extra} clips are of no prompt and take of {prompts.name}, "
                f"such as {line.file}, prompt {line.id}, take {line.seed}"
            )
        if line.prompt != wanted[key].prompt:
            raise ManifestError(
                f"{manifest.folder}: {line.file} was made from {line.prompt!r}, but prompt "
                f"{line.id} of {prompts.name} is {wanted[key].prompt!r}"
            )
    lines = {key: manifest.clips.get(key) for key in wanted}
    return [
        Row(item, key[1], found, None if found is None else sounds[found])
        for key, item in wanted.items()
        for found in [lines[key]]
    ]


def _asked(metric: Metric, manifest: Manifest, rows: Sequence[Row]) -> list[Asked]:
    return [
        Asked(row.sound.address(text), manifest.file_of(row.line).absolute(), row.sound, text, row)
        for row in rows
        if row.is_scored and row.sound is not None and row.line is not None
        for text in _texts(metric, row.item)
    ]


def _texts(metric: Metric, item: PromptItem) -> list[str]:
    if not metric.is_per_event:
        return [item.prompt]
    fields = item.meta
    if not any(name in fields for name in metric.asks_about):
        raise ManifestError(
            f"prompt {item.id} has no {' or '.join(metric.asks_about)}, so {metric.name} cannot be "
            "asked; leave it out"
        )
    name = next(name for name in metric.asks_about if name in fields)
    return list(items_of(fields, f"prompt {item.id}", name))


def _score_jobs(
    number: int, metric: Metric, asked: Sequence[Asked], store: Store
) -> Iterator[ScoreJob]:
    """What is missing, in batches that are cut from everything, known or not.

    So a sound has the neighbours after an interruption that it would have had without.
    """
    known = store.scores(metric.fingerprint, [one.address for one in asked])
    for batch in _batches(metric, list({one.address: one for one in asked}.values())):
        pieces = tuple(
            Piece(one.address, one.path, one.prompt, one.row.item.id)
            for one in batch
            if one.address not in known
        )
        if pieces:
            yield ScoreJob(number, pieces, batch[0].kind(metric.window_s)[1])


def _batches(metric: Metric, asked: Sequence[Asked]) -> Iterator[Sequence[Asked]]:
    """Sounds of one rate and heard length, in the order of their prompts."""

    def kind(one: Asked) -> tuple[int, int]:
        return one.kind(metric.window_s)

    for _, alike in groupby(sorted(asked, key=kind), key=kind):
        group = list(alike)
        for start in range(0, len(group), metric.batch_size):
            yield group[start : start + metric.batch_size]


def _score_batch(metric: Metric, job: ScoreJob) -> dict[str, dict[str, float]]:
    paths = list(dict.fromkeys(piece.path for piece in job.pieces))
    read = metric.prepare(read_batch(paths, job.num_samples))
    rows = [paths.index(piece.path) for piece in job.pieces]
    audio = type(read)(read.samples[rows], read.sample_rate_hz)
    try:
        given = score_now(metric.judge, audio, [piece.prompt for piece in job.pieces])
        given = make_rewards(given.total, given.judge, len(rows), given.parts)
    except RewardError as error:
        first, last = job.pieces[0].id, job.pieces[-1].id
        raise RewardError(f"{metric.name}, clips {first} to {last}: {error}") from error
    parts = {**given.parts, TOTAL: given.total}
    return {
        piece.address: {name: float(part[row]) for name, part in parts.items()}
        for row, piece in enumerate(job.pieces)
    }


def _values(
    metric: Metric, asked: Sequence[Asked], store: Store
) -> dict[tuple[str, int], dict[str, float]]:
    """A metric's columns by clip."""
    known = store.scores(metric.fingerprint, [one.address for one in asked])
    answers: dict[tuple[str, int], list[dict[str, float]]] = {}
    for one in asked:
        answers.setdefault((one.row.item.id, one.row.seed), []).append(known[one.address])
    if metric.is_per_event:
        answers = {key: [over_items(answered)] for key, answered in answers.items()}
    return {
        key: {column.card.name: answer[column.part] for column in metric.columns}
        for key, (answer,) in answers.items()
    }


def _by_item(
    asked: Sequence[Asked], store: Store, metric: Metric
) -> dict[tuple[str, int], dict[str, float]]:
    """What was answered to each item, by clip."""
    known = store.scores(metric.fingerprint, [one.address for one in asked])
    found: dict[tuple[str, int], dict[str, float]] = {}
    for one in asked:
        own = found.setdefault((one.row.item.id, one.row.seed), {})
        own[one.prompt] = known[one.address][TOTAL]
    return found


def over_items(answered: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """What is said of a clip whose items were asked for one by one."""
    heard = [item[TOTAL] for item in answered]
    share = sum(value > HEARD for value in heard) / len(heard)
    return {"mean": sum(heard) / len(heard), "worst": min(heard), "share": share}


def _sign_jobs(manifest: Manifest, rows: Sequence[Row], store: Store) -> list[ScoreJob]:
    """Files whose signs are not known."""
    known = store.scores(signs_fingerprint(), [_sign_address(row) for row in rows if row.sound])
    missing = {
        address: Piece(address, manifest.file_of(row.line).absolute(), "", row.item.id)
        for row in rows
        if row.is_scored and row.line is not None and (address := _sign_address(row)) not in known
    }
    return [ScoreJob(None, tuple(part)) for part in chunks(missing.values(), SIGNS_AT_ONCE)]


def _sign_address(row: Row) -> str:
    return row.sound.address("") if row.sound is not None else ""


def _cards(metrics: Sequence[Metric], rewards: set[str]) -> Iterator[MetricCard]:
    for metric in metrics:
        was_reward = metric.name in rewards
        for column in metric.columns:
            marked = was_reward or column.card.name in rewards
            yield column.card.model_copy(update={"was_reward": marked})


def _clip(
    row: Row,
    given: Sequence[Mapping[tuple[str, int], Mapping[str, float]]],
    items: Mapping[str, Mapping[tuple[str, int], dict[str, float]]],
    signs: Mapping[str, Mapping[str, float]],
) -> ClipScore:
    line, failure = row.line, failure_of(row.sound)
    values = {
        name: value
        for columns in given
        for name, value in columns.get((row.item.id, row.seed), {}).items()
    }
    return ClipScore(
        id=row.item.id,
        prompt=row.item.prompt,
        seed=row.seed,
        file=None if line is None else line.file,
        sha256="" if line is None or row.sound is None else line.sha256,
        values=values,
        items={
            name: by_clip[row.item.id, row.seed]
            for name, by_clip in items.items()
            if (row.item.id, row.seed) in by_clip
        },
        failure=failure,
        wall_s=None if line is None else line.wall_s,
        seconds=None if row.sound is None or row.sound.problem else row.sound.seconds,
        signs=dict(signs.get(_sign_address(row), {})),
    )


def _hash_clips(rows: Sequence[Row]) -> str:
    digest = hashlib.sha256()
    for row in rows:
        there = "" if row.line is None or row.sound is None else row.line.sha256
        digest.update(f"{row.item.id} {row.seed} {there}\n".encode())
    return digest.hexdigest()


def _only(values: Mapping[str, ValueT], cards: Sequence[MetricCard]) -> dict[str, ValueT]:
    names = {card.name for card in cards}
    return {name: value for name, value in values.items() if name in names}
