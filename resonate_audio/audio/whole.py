"""Whether a sound file ends where it says it does, in formats whose decoder takes any end."""

from __future__ import annotations

import io
import struct

from resonate_audio.audio.tags import riff_chunks

STREAMED_BYTES = 0x7FF00000
"""Sizes from here on are written where none is known yet."""
_PAGE_HEAD, _MOST_PAGE_BYTES = 27, 65_307
"""Bytes of an Ogg page: of its head without the table, and at most [RFC 3533, sec. 6]."""
_FRAME_SEARCH_BYTES = 4_096
"""How far behind an ID3 tag the first frame of an MP3 is looked for."""
_SIDE_BYTES = {(True, False): 32, (True, True): 17, (False, False): 17, (False, True): 9}
"""Of an MP3's frame, by whether it is MPEG 1 and has one channel."""


def share_there(file: io.BufferedIOBase) -> float:
    """How much of the sound that a file announces is in it: 1, or less if it is cut off.

    WAV, AIFF and MP3 may say how many bytes they have; one that was written to a pipe announces
    no size, and what is there is all of it.
    """
    for name, size in riff_chunks(file):
        if name in (b"data", b"SSND") and 0 < size < STREAMED_BYTES:
            return _share(file, file.tell(), size)
    start, size = _mp3_bytes(file)
    return _share(file, start, size) if size else 1.0


def ends_within_page(file: io.BufferedIOBase) -> bool:
    """Whether the last page of an Ogg file is not there as a whole.

    A file that ends between two pages cannot be told from a recorded stream, which has no end.
    """
    file.seek(0)
    if file.read(4) != b"OggS":
        return False
    size = file.seek(0, io.SEEK_END)
    file.seek(max(0, size - _MOST_PAGE_BYTES - _PAGE_HEAD))
    rest = file.read()
    page = rest[max(0, rest.rfind(b"OggS\0")) :]
    table = page[_PAGE_HEAD : _PAGE_HEAD + page[_PAGE_HEAD - 1]] if len(page) >= _PAGE_HEAD else b""
    return len(page) < _PAGE_HEAD or len(page) < _PAGE_HEAD + page[_PAGE_HEAD - 1] + sum(table)


def _share(file: io.BufferedIOBase, start: int, size: int) -> float:
    return min(1.0, (file.seek(0, io.SEEK_END) - start) / size)


def _mp3_bytes(file: io.BufferedIOBase) -> tuple[int, int]:
    """Where the frames of an MP3 begin and how many bytes they have, as the first of them says.

    That is a frame of silence with a table, "Xing" or "Info"; 0 bytes if there is none.
    """
    file.seek(0)
    head = file.read(10)
    start = 0
    if head[:3] == b"ID3" and len(head) == 10:
        start = 10 + sum(
            (byte & 0x7F) << shift for byte, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
    file.seek(start)
    data = file.read(_FRAME_SEARCH_BYTES)
    at = data.find(b"\xff")
    frame = data[at:]
    if at < 0 or len(frame) < 4 or frame[1] & 0xE6 != 0xE2:  # layer III
        return 0, 0
    side = _SIDE_BYTES[frame[1] & 0x18 == 0x18, frame[3] >> 6 == 3]
    table = frame[4 + side :][:16]
    if table[:4] not in (b"Xing", b"Info") or len(table) < 16:
        return 0, 0
    has_frames, has_bytes = table[7] & 1, table[7] & 2
    place = 12 if has_frames else 8
    return start + at, struct.unpack(">I", table[place : place + 4])[0] if has_bytes else 0
