"""From a corpus as it is published to a manifest, saying what was left out and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from resonate_audio.core.errors import ManifestError
from resonate_audio.data import corpora
from resonate_audio.data.corpora import Entry, Reader, video_of
from resonate_audio.data.manifest import Clip, write_manifest
from resonate_audio.data.sound_files import SoundFiles

NUM_EXAMPLES = 5


@dataclass(frozen=True)
class Corpus:
    """How one corpus is laid out."""

    read: Reader
    layout: str
    """What must lie in its folder, in words."""
    key: Callable[[str], str] = str
    """What of a file's name identifies it."""


CORPORA = {
    "audiocaps": Corpus(
        corpora.audiocaps, "train.csv, val.csv, test.csv with audiocap_id, youtube_id, …", video_of
    ),
    "audioset": Corpus(
        corpora.audioset, "a table of captions by video id, as AudioSetCaps_caption.csv", video_of
    ),
    "clotho": Corpus(corpora.clotho, "clotho_captions_development.csv and its like"),
    "vggsound": Corpus(corpora.vggsound, "vggsound.csv: video, start, label, split", video_of),
    "wavcaps": Corpus(corpora.wavcaps, "json_files/SOURCE/…_final.json"),
    "audiostock": Corpus(corpora.audiostock, "a CSV with id or file, description or title"),
    "esc50": Corpus(corpora.esc50, "meta/esc50.csv with filename, fold, target, category"),
    "classes": Corpus(corpora.classes, "a folder of sounds for each class"),
    "folder": Corpus(corpora.folder, "a .txt or .json beside each sound, or metadata.csv / .jsonl"),
}


@dataclass
class Left:
    """Things left out for one reason: how many, and the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count one more."""
        self.count += 1
        if len(self.examples) < NUM_EXAMPLES:
            self.examples.append(example)


@dataclass
class ImportReport:
    """What became of everything that was listed or found."""

    kept: int = 0
    absent: Left = field(default_factory=Left)
    """Listed, but no file is there."""
    unlisted: Left = field(default_factory=Left)
    """A file is there, but nothing lists it."""
    repeated: Left = field(default_factory=Left)
    """Listed before; the first time counts."""
    wordless: Left = field(default_factory=Left)
    """Listed without a caption."""
    unreadable: int = 0
    """Files of a kind that libsndfile cannot read."""

    def lines(self) -> list[str]:
        """The report, a line for each thing that happened."""
        told = [f"{self.kept} clips written"]
        for left, text in (
            (self.absent, "listed, but their sound is not there"),
            (self.unlisted, "sound files that nothing lists"),
            (self.repeated, "listed again; the first time counts"),
            (self.wordless, "listed without a caption"),
        ):
            if left.count:
                more = ", …" if left.count > len(left.examples) else ""
                told.append(f"{left.count} {text}: {', '.join(left.examples)}{more}")
        if self.unreadable:
            told.append(
                f"{self.unreadable} files of kinds that cannot be read (.m4a, .webm, …); convert "
                "them, for example with `ffmpeg -i IN OUT.flac`"
            )
        return told


def import_corpus(
    kind: str, root: Path, output: Path, licence: str | None = None, overwrite: bool = False
) -> ImportReport:
    """Write the manifest of a corpus; sounds stay where they are and are not opened.

    Args:
        kind: a key of ``CORPORA``.
        root: the corpus's folder.
        output: the manifest; its paths are relative to its folder.
        licence: of clips whose list names none.
        overwrite: replace an older manifest.

    Returns:
        What was written and what was left out.

    Raises:
        ManifestError: the kind is unknown, a list is broken, or no clip is found.
        OutputError: the manifest exists or cannot be written.
    """
    if kind not in CORPORA:
        raise ManifestError(f"{kind}: unknown kind of corpus; known are {', '.join(CORPORA)}")
    corpus = CORPORA[kind]
    files = SoundFiles(root, corpus.key)
    report = ImportReport(unreadable=files.num_unreadable)
    prefix = os.path.relpath(root.resolve(), output.parent.resolve())

    def clips() -> Iterator[Clip]:
        for entry, path in found_entries(corpus.read(files), files, report):
            yield make_clip(entry, Path(prefix, path).as_posix(), kind, licence)
        if not report.kept:
            raise ManifestError(f"{root}: {_why_empty(report, files, corpus)}")

    write_manifest(output, clips(), overwrite)
    for path in files.unlisted():
        report.unlisted.add(path)
    return report


def found_entries(
    entries: Iterator[Entry], files: SoundFiles, report: ImportReport
) -> Iterator[tuple[Entry, str]]:
    """Entries that have words and a file, each file once under its id; the others are counted.

    Where a list gives one id to two files, the later is called by its path, too.
    """
    seen: dict[str, str] = {}
    for entry in entries:
        path = files.find(entry.names, entry.folder, entry.path, entry.place)
        if not any(caption.strip() for caption in entry.captions):
            report.wordless.add(f"{entry.id} ({entry.place})")
        elif path is None:
            report.absent.add(f"{entry.id} ({entry.place})")
        else:
            name = entry.id if seen.get(entry.id, path) == path else f"{entry.id}/{path}"
            if name in seen:
                report.repeated.add(f"{entry.id} ({entry.place})")
                continue
            seen[name] = path
            report.kept += 1
            yield replace(entry, id=name), path


def make_clip(entry: Entry, path: str, source: str, licence: str | None) -> Clip:
    """A line of the manifest; ids carry the corpus's name, so that corpora can be mixed."""
    texts = tuple(dict.fromkeys(text for x in entry.captions if (text := " ".join(x.split()))))
    return Clip(
        audio_id=f"{source}-{entry.id}",
        audio_path=path,
        caption=texts[0],
        captions=texts[1:],
        duration=entry.duration,
        phrases=entry.phrases,
        split=entry.split,
        label=entry.label,
        source=source,
        group=entry.group,
        licence=entry.licence or licence,
    )


def _why_empty(report: ImportReport, files: SoundFiles, corpus: Corpus) -> str:
    if report.absent.count:
        first = report.absent.examples[0]
        return (
            f"none of {report.absent.count} listed clips has its sound among {len(files)} files; "
            f"the first is {first}"
        )
    if report.wordless.count:
        return f"none of {report.wordless.count} listed clips has a caption"
    if not files and report.unreadable:
        return f"no sound that can be read, {report.unreadable} such as .m4a; convert them first"
    return f"lists no clip; expected {corpus.layout}"
