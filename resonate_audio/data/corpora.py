"""What published corpora list: one reader for each, which yields clips before files are sought.

The readers hold one row at a time, but for AudioCaps and Clotho, which are small and whose rows
must be joined.
"""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from resonate_audio.core.documents.csv_text import csv_rows, header_of
from resonate_audio.core.documents.csv_text import read_csv as read_table_rows
from resonate_audio.core.documents.json_stream import JsonText
from resonate_audio.core.documents.json_text import parse_object, read_object
from resonate_audio.core.documents.text import listed, read_bytes, read_lines, read_text
from resonate_audio.core.errors import ManifestError
from resonate_audio.data.sound_files import SoundFiles

AUDIOCAPS_COLUMNS = ("audiocap_id", "youtube_id", "start_time", "caption")
ESC50_COLUMNS = ("filename", "fold", "target", "category")
CLOTHO_SPLITS = {"development": "train", "validation": "val", "evaluation": "test"}
SPLIT_FOLDERS = ("train", "val", "valid", "validation", "dev", "test", "eval")
FILE_FIELDS = ("file_name", "filename", "file", "audio_path", "path", "audio", "audio_file")
ID_FIELDS = ("id", "audio_id", "item_id", "youtube_id", "ytid", "video_id")
CAPTION_FIELDS = ("caption", "captions", "text", "description", "prompt", "title")
TAG_FIELDS = ("tags", "keywords", "phrases")
LICENCE_FIELDS = ("licence", "license")
VIDEO_NAME = re.compile(r"Y?([A-Za-z0-9_-]{11})(?:_.*)?")


@dataclass(frozen=True)
class Entry:
    """A clip that a corpus lists."""

    place: str
    """File and line that list it."""
    id: str
    names: tuple[str, ...]
    """Names that its file may go by, without suffix, the likeliest first."""
    captions: tuple[str, ...]
    path: str | None = None
    """Its file within the tree, where the list says so."""
    folder: str = ""
    """Tells files of one name apart."""
    split: str | None = None
    label: str | None = None
    phrases: tuple[str, ...] = ()
    group: str | None = None
    licence: str | None = None
    duration: float | None = None


@dataclass(frozen=True)
class Row:
    """A line of a table."""

    place: str
    fields: dict[str, Any]


Reader = Callable[[SoundFiles], Iterator[Entry]]


def audiocaps(files: SoundFiles) -> Iterator[Entry]:
    """``train.csv``, ``val.csv`` and ``test.csv``; rows of one video become one clip."""
    for path in tables_with(files, AUDIOCAPS_COLUMNS):
        rows: dict[tuple[str, str], list[Row]] = {}
        for row in read_csv(path):
            rows.setdefault((row.fields["youtube_id"], row.fields["start_time"]), []).append(row)
        for (video, start), alike in rows.items():
            numbers = [row.fields["audiocap_id"] for row in alike]
            yield Entry(
                alike[0].place,
                f"{video}_{start}",
                (f"{video}_{start}", f"Y{video}", video, *numbers),
                tuple(row.fields["caption"] for row in alike),
                folder=path.stem,
                split=path.stem,
                group=f"youtube:{video}",
            )


def audioset(files: SoundFiles) -> Iterator[Entry]:
    """Tables of captions by video id, such as AudioSetCaps; ``eval_segments.csv`` is the test set.

    A table is any CSV, TSV, JSON or JSONL whose rows have an id and a caption.
    """
    tests = set(_evaluation_videos(files))
    for path in [x for x in files.tables if not x.stem.endswith("_segments")]:
        for row, name, captions in captioned_rows(path, ID_FIELDS):
            stem = name.rsplit(".", 1)[0]
            video = video_of(stem)
            yield Entry(
                row.place,
                video,
                (stem, f"Y{stem}", video),
                captions,
                split="test" if video in tests else "train",
                group=f"youtube:{video}",
            )


def _evaluation_videos(files: SoundFiles) -> Iterator[str]:
    for path in files.tables:
        if path.name == "eval_segments.csv":
            for _, line in read_lines(path):
                if line.strip() and not line.startswith("#"):
                    yield line.split(",", 1)[0].strip()


def clotho(files: SoundFiles) -> Iterator[Entry]:
    """``clotho_captions_*.csv`` with five captions, licences from ``clotho_metadata_*.csv``."""
    for path in [x for x in files.tables if x.name.startswith("clotho_captions_")]:
        part = path.stem.removeprefix("clotho_captions_")
        facts = _clotho_facts(files, part)
        for row in read_csv(path):
            name = cell(row, "file_name")
            licence, sound = facts.get(name, (None, None))
            stem = PurePosixPath(name).stem
            yield Entry(
                row.place,
                f"{part}-{stem}",
                (stem,),
                tuple(cell(row, f"caption_{number}") for number in range(1, 6)),
                folder=part,
                split=CLOTHO_SPLITS.get(part, part),
                group=f"freesound:{sound}" if sound and sound.isdigit() else None,
                licence=licence,
            )


def _clotho_facts(files: SoundFiles, part: str) -> dict[str, tuple[str | None, str | None]]:
    """Licence and Freesound number by file name; these tables are published in Latin-1."""
    facts: dict[str, tuple[str | None, str | None]] = {}
    for path in [x for x in files.tables if x.name == f"clotho_metadata_{part}.csv"]:
        lines = io.StringIO(read_bytes(path).decode("latin-1"), newline="\n")
        for _, row in csv_rows(lines, path):
            facts[row.get("file_name") or ""] = (row.get("license"), row.get("sound_id"))
    return facts


def vggsound(files: SoundFiles) -> Iterator[Entry]:
    """``vggsound.csv``: video, start, label, split; VGGSound's AudioSetCaps are used if there."""
    captions = {
        name: texts
        for path in tables_with(files, ("id", "caption"))
        for row in read_csv(path)
        if (name := pick(row, ("id",))) and (texts := captions_of(row))
    }
    for path in [x for x in files.tables if x.name == "vggsound.csv"]:
        for row in read_csv(path, ("video", "start", "label", "split")):
            video, label = row.fields["video"], row.fields["label"]
            name = f"{video}_{_whole(row, 'start'):06d}"
            yield Entry(
                row.place,
                name,
                (name, video),
                captions.get(name, (label,)),
                split=row.fields["split"],
                label=label,
                phrases=(label,),
                group=f"youtube:{video}",
            )


def wavcaps(files: SoundFiles) -> Iterator[Entry]:
    """``json_files/SOURCE/*_final.json``: an object whose ``data`` lists clips."""
    for path in [x for x in files.tables if x.name.endswith("_final.json")]:
        source = path.parent.name
        for row in read_json(path):
            stem = PurePosixPath(cell(row, "id")).stem
            yield Entry(
                row.place,
                f"{source}-{stem}",
                (stem,),
                captions_of(row, ("caption",)) or (),
                folder=source,
                group=_wavcaps_group(source, stem),
                duration=_seconds(row, "duration") or None,
            )


def _wavcaps_group(source: str, stem: str) -> str:
    if source.startswith("AudioSet"):
        return f"youtube:{video_of(stem)}"
    return f"{source.split('_')[0].lower()}:{stem}"


def audiostock(files: SoundFiles) -> Iterator[Entry]:
    """Tables with a number or file, a description or title, and tags, as sound libraries sell."""
    for path in files.tables:
        for row, name, captions in captioned_rows(path, (*FILE_FIELDS, *ID_FIELDS)):
            stem = PurePosixPath(name).stem
            number = pick(row, ID_FIELDS) or stem
            yield Entry(row.place, number, (stem, number), captions, **_extras(row))


def esc50(files: SoundFiles) -> Iterator[Entry]:
    """``meta/esc50.csv``; a category is the caption, a fold is the split."""
    for path in tables_with(files, ESC50_COLUMNS):
        for row in read_csv(path):
            label = row.fields["category"].replace("_", " ")
            free = row.fields.get("esc10", "").lower() == "true"
            stem = PurePosixPath(row.fields["filename"]).stem
            yield Entry(
                row.place,
                stem,
                (stem,),
                (label,),
                split=f"fold{row.fields['fold']}",
                label=label,
                phrases=(label,),
                group=f"freesound:{row.fields.get('src_file', stem)}",
                licence="CC-BY-3.0" if free else "CC-BY-NC-3.0",
            )


def classes(files: SoundFiles) -> Iterator[Entry]:
    """A folder for each class, perhaps inside a folder for each split; its name is the caption."""
    for path in files.paths():
        folder = PurePosixPath(path).parent
        label = re.sub(r"[_\s]+", " ", folder.name).strip()
        split = next((part for part in folder.parts[:-1] if part in SPLIT_FOLDERS), None)
        name = files.id_of(path)
        yield Entry(path, name, (), (label,), path, split=split, label=label, phrases=(label,))


def folder(files: SoundFiles) -> Iterator[Entry]:
    """``metadata.csv`` or ``.jsonl`` that name files, and a ``.txt`` or ``.json`` beside a file."""
    told = [x for x in files.tables if x.stem == "metadata"]
    for path in told:
        inside = path.parent.relative_to(files.root)
        for row, name, captions in captioned_rows(path, FILE_FIELDS, sure=True):
            yield _in_folder(files, row, (inside / name).as_posix(), captions)
    for path in files.sidecars:
        stem = path.relative_to(files.root).with_suffix("").as_posix()
        row = _read_sidecar(path)
        for sound in files.beside(stem) or [stem]:
            yield _in_folder(files, row, sound, captions_of(row) or ())


def _in_folder(files: SoundFiles, row: Row, path: str, captions: tuple[str, ...]) -> Entry:
    return Entry(row.place, files.id_of(path), (), captions, path, **_extras(row))


def _read_sidecar(path: Path) -> Row:
    if path.suffix.lower() == ".txt":
        lines = (line.strip() for line in read_text(path).split("\n"))
        return Row(str(path), {"captions": [line for line in lines if line]})
    return Row(str(path), read_object(path))


def _extras(row: Row) -> dict[str, Any]:
    name = next((name for name in TAG_FIELDS if row.fields.get(name)), None)
    tags = row.fields[name] if name else ()
    parts = re.split(r"[,;|]", tags) if isinstance(tags, str) else tags
    if not isinstance(parts, list | tuple):
        raise ManifestError(f"{row.place}: {name} is {tags!r:.80}, expected a text or a list")
    return {
        "split": pick(row, ("split",)),
        "label": pick(row, ("label", "category")),
        "phrases": tuple(text for part in parts if (text := str(part).strip())),
        "group": pick(row, ("group",)),
        "licence": pick(row, LICENCE_FIELDS),
    }


def captioned_rows(
    path: Path, names: Sequence[str], sure: bool = False
) -> Iterator[tuple[Row, str, tuple[str, ...]]]:
    """Rows of a table with what they name and their texts.

    Nothing is given of a table whose first row has no such fields: it is of another kind, such as
    AudioSet's ``class_labels_indices.csv``.

    Args:
        path: the table.
        names: fields that may name a clip.
        sure: whether a table of another kind is an error.

    Raises:
        ManifestError: a row has no such fields; names the line.
    """
    for number, row in enumerate(read_table(path)):
        name, captions = pick(row, names), captions_of(row)
        if name is not None and captions is not None:
            yield row, name, captions
        elif number == 0 and not sure:
            return
        else:
            raise ManifestError(
                f"{row.place}: expected a name ({', '.join(names[:3])}, …) and a text "
                f"({', '.join(CAPTION_FIELDS[:3])}, …), got {listed(row.fields)}"
            )


def video_of(name: str) -> str:
    """The YouTube id in a file name such as ``Y7fmOlUlwoNg`` or ``7fmOlUlwoNg_20_30``."""
    found = VIDEO_NAME.fullmatch(name)
    return found[1] if found else name


def pick(row: Row, names: Sequence[str]) -> str | None:
    """The first of some fields that says something, as text."""
    found = (row.fields[name] for name in names if row.fields.get(name) not in (None, ""))
    return next((str(value).strip() for value in found if not isinstance(value, list | dict)), None)


def captions_of(row: Row, names: Sequence[str] = CAPTION_FIELDS) -> tuple[str, ...] | None:
    """All texts of the first field that says something: one or a list; None if no field is there.

    Raises:
        ManifestError: it holds something else; names the line and the field.
    """
    there = [name for name in names if name in row.fields]
    if not there:
        return None
    name = next((name for name in there if row.fields[name] is not None), there[0])
    value = row.fields[name]
    texts = value if isinstance(value, list) else [] if value is None else [value]
    for text in texts:
        if not isinstance(text, str):
            raise ManifestError(f"{row.place}: {name} is {text!r:.80}, expected a text or a list")
    return tuple(texts)


def cell(row: Row, name: str) -> str:
    """A field that must be there.

    Raises:
        ManifestError: it is not; names the line and what is there.
    """
    if name not in row.fields:
        raise ManifestError(f"{row.place}: no field {name}; found {listed(row.fields)}")
    return str(row.fields[name])


def _whole(row: Row, name: str) -> int:
    seconds = _seconds(row, name)
    if seconds is None:
        raise ManifestError(f"{row.place}: {name} is empty, expected a number of seconds")
    return int(seconds)


def _seconds(row: Row, name: str) -> float | None:
    """A number of seconds; None where there is none.

    Raises:
        ManifestError: it is no number, or below 0; names the line.
    """
    value = row.fields.get(name)
    if value is None or value == "":
        return None
    try:
        seconds = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise ManifestError(f"{row.place}: {name} is {value!r:.80}, expected a number of seconds")
    return seconds


def tables_with(files: SoundFiles, columns: Sequence[str]) -> list[Path]:
    """The CSV files whose first line names all of some columns."""
    return [
        path
        for path in files.tables
        if path.suffix.lower() == ".csv" and set(columns) <= set(header_of(path))
    ]


def read_table(path: Path) -> Iterator[Row]:
    """Rows of a ``.csv``, ``.tsv``, ``.jsonl`` or ``.json`` file.

    A JSON file is a list of objects, an object with ``data``, or texts by their ids.
    """
    kind = path.suffix.lower()
    if kind == ".jsonl":
        yield from _read_jsonl(path)
    elif kind == ".json":
        yield from read_json(path)
    else:
        yield from read_csv(path, delimiter="\t" if kind == ".tsv" else ",")


def read_csv(
    path: Path, columns: Sequence[str] | None = None, delimiter: str = ","
) -> Iterator[Row]:
    """Rows of a table, by its header or by the columns given; raises as `csv_text.read_csv`."""
    for number, cells in read_table_rows(path, columns or (), delimiter):
        yield Row(f"{path}:{number}", {name: cell.strip() for name, cell in cells.items()})


def _read_jsonl(path: Path) -> Iterator[Row]:
    for number, line in read_lines(path):
        if line.strip():
            place = f"{path}:{number}"
            yield Row(place, parse_object(line, place))


def _object(value: Any, place: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ManifestError(f"{place}: expected an object, got {type(value).__name__}")
    return value


def read_json(path: Path) -> Iterator[Row]:
    """Objects of a JSON file one by one, so that a file of 200 MB needs little memory.

    The file is a list of objects, an object whose ``data`` is one, or texts or objects by id.

    Raises:
        ManifestError: the file is not UTF-8, not JSON, or cut short; names the byte or the item.
    """
    with JsonText(path) as text:
        yield from _json_list(text) if text.take("[") else _json_fields(text)


def _json_fields(text: JsonText) -> Iterator[Row]:
    text.expect("{")
    while not text.take("}"):
        name = str(text.value())
        text.expect(":")
        if name == "data" and text.take("["):
            yield from _json_list(text)
        elif isinstance(value := text.value(), str | dict | list):
            fields = value if isinstance(value, dict) else {"caption": value}
            yield Row(f"{text.path}, {name}", {"id": name, **fields})
        text.separate("}")


def _json_list(text: JsonText) -> Iterator[Row]:
    number = 0
    while not text.take("]"):
        number += 1
        place = f"{text.path}, item {number}"
        yield Row(place, _object(text.value(), place))
        text.separate("]")
