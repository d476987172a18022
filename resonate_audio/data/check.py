"""Everything that is wrong with a manifest's clips, and what they are."""

from __future__ import annotations

import multiprocessing
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field
from itertools import chain, groupby
from pathlib import Path
from typing import Any

from resonate_audio.core.errors import ManifestError
from resonate_audio.data.fingerprint import same_sounds
from resonate_audio.data.inspection import (
    CheckConfig,
    ClipFacts,
    Problem,
    count_tokens,
    inspect_files,
    shorten,
)
from resonate_audio.data.manifest import Clip, stream_manifest
from resonate_audio.data.mix import REPEATED

KINDS = {
    "missing": "The file is not there.",
    "unreadable": "The file is there, but is no sound that can be decoded.",
    "outside": "The clip reaches past the end of its file.",
    "silent": "Nothing is heard.",
    "clipped": "Its tops are cut off at full scale.",
    "low-rate": "The file's rate is below the model's: the upper spectrum is empty.",
    "short": "Shorter than the least that was asked for.",
    "duration": "The manifest says another duration than the file has.",
    "duplicate": "Sounds like an earlier clip: re-encoded, resampled, louder, or simply copied.",
    "leak": "The same recording lies in two splits, so that a test hears what was trained on.",
    "caption-empty": "A caption says nothing.",
    "caption-marks": "A caption has marks only.",
    "caption-encoding": "A caption was read in a wrong encoding.",
    "caption-long": "A caption is longer than the text encoder sees; its end is lost.",
    "caption-repeated": "A caption, or its beginning, is the same in many clips.",
}
BATCH_CLIPS = 32
BATCHES_AHEAD = 4
"""Batches that wait for each worker, so that none idles and memory stays small."""
OPENING_WORDS = 4
REPEATED_AT_LEAST = 20
SAME_CAPTION_SHARE = 0.05
SAME_OPENING_SHARE = 0.2

StepReport = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem and whose it is."""

    kind: str
    audio_id: str | None
    """None: of many clips, which the detail counts."""
    detail: str
    num_clips: int = 1


@dataclass
class CheckReport:
    """What was found."""

    manifest: str
    config: dict[str, Any]
    num_clips: int = 0
    num_repeats: int = 0
    """Lines that repeat a clip on purpose, as ``resonate data mix`` writes them."""
    seconds: float = 0.0
    durations_s: list[float] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    rates_hz: Counter[int] = field(default_factory=Counter)

    def counts(self) -> dict[str, int]:
        """Clips with each kind of problem that occurs, in the order of ``KINDS``."""
        found: Counter[str] = Counter()
        seen: set[tuple[str, str]] = set()
        for finding in self.findings:
            whose = finding.kind, finding.audio_id or finding.detail
            if whose not in seen:
                seen.add(whose)
                found[finding.kind] += finding.num_clips
        return {kind: min(found[kind], self.num_clips) for kind in KINDS if found[kind]}

    def headline(self) -> str:
        """How many clips there are, and how many have a problem."""
        named = len({finding.audio_id for finding in self.findings if finding.audio_id})
        found = f"{named} clips have a problem, of {len(self.counts())} kinds"
        return (
            f"{self.num_clips} clips, {self.seconds / 3600:.2f} hours; "
            f"{found if self.findings else 'no problem was found'}"
        )

    def of_kind(self, kind: str) -> list[Finding]:
        """All findings of one kind."""
        return [finding for finding in self.findings if finding.kind == kind]

    def as_json(self) -> dict[str, Any]:
        """The report as plain values, without the list of durations."""
        return {
            "manifest": self.manifest,
            "num_clips": self.num_clips,
            "num_repeats": self.num_repeats,
            "seconds": self.seconds,
            "counts": self.counts(),
            "splits": dict(self.splits),
            "sources": dict(self.sources),
            "licences": dict(self.licences),
            "rates_hz": dict(self.rates_hz),
            "config": self.config,
            "findings": [asdict(finding) for finding in self.findings],
        }


def check_manifest(
    path: Path, config: CheckConfig, num_workers: int = 1, report: StepReport | None = None
) -> CheckReport:
    """Decode every clip of a manifest and compare them.

    Args:
        path: JSONL manifest.
        config: what counts as a problem.
        num_workers: processes that decode.
        report: called with clips done and in all.

    Raises:
        ManifestError: a line is broken, an ``audio_id`` occurs twice, there is no clip, or a
            worker died.
        CheckpointError: the tokenizer cannot be read.
    """
    if config.tokenizer:
        count_tokens(config.tokenizer, "")
    total = sum(1 for _ in stream_manifest(path)) if report else 0
    found = CheckReport(str(path), config.model_dump(mode="json"))
    tally = _Tally(found)
    batches = _batches(_fresh_clips(path, found))
    for facts in chain.from_iterable(_inspect(path, batches, config, num_workers)):
        tally.add(facts)
        if report:
            report(found.num_clips + found.num_repeats, total)
    if not found.num_clips:
        raise ManifestError(f"{path}: no clip in it")
    tally.compare()
    return found


def _fresh_clips(path: Path, found: CheckReport) -> Iterator[Clip]:
    """Clips but for the repeats of a mixture: of another's id and ``~2``, and else the same."""
    seen: dict[str, int] = {}
    for place, clip in stream_manifest(path):
        if clip.audio_id in seen:
            raise ManifestError(f"{place}: audio_id {clip.audio_id} was used before")
        seen[clip.audio_id] = said = hash(clip.model_dump_json(exclude={"audio_id"}))
        first = REPEATED.sub("", clip.audio_id)
        if first != clip.audio_id and seen.get(first) == said:
            found.num_repeats += 1
        else:
            yield clip


def _batches(clips: Iterable[Clip]) -> Iterator[list[list[Clip]]]:
    """Clips by file, some files at a time."""
    batch: list[list[Clip]] = []
    for _, alike in groupby(clips, key=lambda clip: clip.audio_path):
        batch.append(list(alike))
        if sum(map(len, batch)) >= BATCH_CLIPS:
            yield batch
            batch = []
    if batch:
        yield batch


def _inspect(
    manifest: Path, batches: Iterator[list[list[Clip]]], config: CheckConfig, num_workers: int
) -> Iterator[list[ClipFacts]]:
    if num_workers <= 1:
        yield from (inspect_files(manifest, batch, config) for batch in batches)
        return
    spawn = multiprocessing.get_context("spawn")  # forks of a threaded process may hang
    with ProcessPoolExecutor(num_workers, spawn) as pool:
        waiting: deque[Future[list[ClipFacts]]] = deque()
        try:
            for batch in batches:
                waiting.append(pool.submit(inspect_files, manifest, batch, config))
                if len(waiting) >= BATCHES_AHEAD * num_workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool as error:
            raise ManifestError(
                "a process that decodes was killed, perhaps for memory; try fewer --workers"
            ) from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Tally:
    """Collects facts; what only all clips together can tell is looked at in the end."""

    def __init__(self, found: CheckReport) -> None:
        self.found = found
        self.coded: list[tuple[str, str | None]] = []
        """Id and split of each clip that has a code."""
        self.codes: list[bytes] = []
        self.lengths_s: list[float] = []
        self.captions: Counter[str] = Counter()
        self.openings: Counter[str] = Counter()
        self.groups: dict[str, tuple[str, str]] = {}

    def add(self, facts: ClipFacts) -> None:
        found, clip = self.found, facts.clip
        found.num_clips += 1
        found.splits[clip.split or "none"] += 1
        found.sources[clip.source or "none"] += 1
        found.licences[clip.licence or "none stated"] += 1
        if facts.rate_hz:
            found.rates_hz[facts.rate_hz] += 1
        self._add_problems(clip, facts.problems)
        self._add_words(clip.caption)
        self._add_group(clip)
        if facts.duration_s is not None:
            found.seconds += facts.duration_s
            found.durations_s.append(facts.duration_s)
            if facts.code and not any(x.kind == "silent" for x in facts.problems):
                self.coded.append((clip.audio_id, clip.split))
                self.codes.append(facts.code)
                self.lengths_s.append(facts.duration_s)

    def _add_problems(self, clip: Clip, problems: Iterable[Problem]) -> None:
        self.found.findings += [Finding(x.kind, clip.audio_id, x.detail) for x in problems]

    def _add_words(self, caption: str) -> None:
        words = caption.casefold().split()
        self.captions[" ".join(words)] += 1
        if len(words) > OPENING_WORDS:
            self.openings[" ".join(words[:OPENING_WORDS])] += 1

    def _add_group(self, clip: Clip) -> None:
        if clip.group is None or clip.split is None:
            return
        first, split = self.groups.setdefault(clip.group, (clip.audio_id, clip.split))
        if split != clip.split:
            text = f"{clip.split}; {first} of {split} is of the same group, {clip.group}"
            self._add_problems(clip, [Problem("leak", text)])

    def compare(self) -> None:
        """Find what is the same in several clips."""
        for members in same_sounds(self.codes, self.lengths_s):
            alike = [self.coded[index] for index in members]
            for name, _ in alike[1:]:
                self._find("duplicate", name, f"sounds like {alike[0][0]}")
            placed = [(name, split) for name, split in alike if split]
            for name, split in placed[1:]:
                first, other = placed[0]
                if split != other:
                    self._find("leak", name, f"{split}; {first} of {other} sounds the same")
        self._repeated(self.captions, SAME_CAPTION_SHARE, "is the whole caption of")
        self._repeated(self.openings, SAME_OPENING_SHARE, "is the beginning of")

    def _repeated(self, texts: Counter[str], share: float, what: str) -> None:
        least = max(REPEATED_AT_LEAST, share * self.found.num_clips)
        for text, count in texts.most_common():
            if count < least:
                return
            detail = f"{shorten(text)!r} {what} {count} of {self.found.num_clips} clips"
            self._find("caption-repeated", None, detail, count)

    def _find(self, kind: str, name: str | None, detail: str, num_clips: int = 1) -> None:
        self.found.findings.append(Finding(kind, name, detail, num_clips))
