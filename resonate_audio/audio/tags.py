"""The two tag formats that libsndfile cannot write whole: RIFF INFO and ID3v2.

libsndfile drops a WAV comment over about 2 kB and writes MP3 titles as Latin-1; FLAC, Ogg
Vorbis and Opus it tags well by itself. Mutagen would do all five, but it is GPL.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator

from resonate_audio.core.errors import AudioError

MAX_ID3_BYTES = 2**28 - 1
MAX_TAG_BYTES = 2**24
MAX_CHUNKS = 1_000


def append_wav_tags(data: bytes, title: str, comment: str) -> bytes:
    """Return a RIFF/WAVE file with a ``LIST INFO`` chunk (INAM, ICMT, UTF-8) at its end."""
    assert data[:4] == b"RIFF", data[:4]
    entries = _chunk(b"INAM", _terminated(title)) + _chunk(b"ICMT", _terminated(comment))
    tagged = data + b"\0" * (len(data) % 2) + _chunk(b"LIST", b"INFO" + entries)
    return tagged[:4] + struct.pack("<I", len(tagged) - 8) + tagged[8:]


def read_wav_comment(file: io.BufferedIOBase) -> str | None:
    """The ``ICMT`` text of a RIFF/WAVE file, or None when it has none."""
    for name, size in riff_chunks(file):
        body = file.read(min(size, MAX_TAG_BYTES)) if name == b"LIST" else b""
        if body[:4] == b"INFO":
            entries = io.BytesIO(body[4:])
            for entry, length in _chunks(entries, "<I"):
                if entry == b"ICMT":
                    text = entries.read(length)
                    return text.rstrip(b"\0").decode("utf-8", errors="replace")
    return None


def riff_chunks(file: io.BufferedIOBase) -> Iterator[tuple[bytes, int]]:
    """Names and sizes of the chunks of a RIFF or AIFF file, which stands at the body of each."""
    file.seek(0)
    order = {b"RIFF": "<I", b"FORM": ">I"}.get(file.read(12)[:4])
    if order is not None:
        yield from _chunks(file, order)


def _chunks(file: io.BufferedIOBase, order: str) -> Iterator[tuple[bytes, int]]:
    """Names and sizes of the chunks from where a file stands on; sizes in that byte order."""
    for _ in range(MAX_CHUNKS):
        head = file.read(8)
        if len(head) < 8:
            return
        (size,) = struct.unpack(order, head[4:])
        start = file.tell()
        yield head[:4], size
        file.seek(start + size + size % 2)


def prepend_id3_tags(data: bytes, title: str, comment: str) -> bytes:
    """Return an MP3 stream behind an ID3v2.4 tag (TIT2 and COMM frames, UTF-8).

    Raises:
        AudioError: the texts do not fit in the 28 bits that ID3 has for a size.
    """
    utf8, language = b"\x03", b"eng"
    frames = _id3_frame(b"TIT2", utf8 + title.encode()) + _id3_frame(
        b"COMM", utf8 + language + b"\0" + comment.encode()
    )
    return b"ID3\x04\x00\x00" + _syncsafe(len(frames)) + frames + data


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)


def _terminated(text: str) -> bytes:
    return text.replace("\0", " ").encode("utf-8") + b"\0"


def _id3_frame(name: bytes, body: bytes) -> bytes:
    return name + _syncsafe(len(body)) + b"\0\0" + body


def _syncsafe(size: int) -> bytes:
    """28-bit size in four bytes of seven bits, as ID3 wants it (ID3v2.4, sec. 6.2)."""
    if size > MAX_ID3_BYTES:
        raise AudioError(f"tag of {size} bytes: an MP3 tag holds at most {MAX_ID3_BYTES}")
    return bytes((size >> shift) & 0x7F for shift in (21, 14, 7, 0))
