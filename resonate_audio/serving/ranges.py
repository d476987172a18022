"""Sounds as browsers ask for them: a part at a time, and only if they have changed.

Safari plays nothing that it cannot ask for by byte ranges, and no browser can seek without.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from fastapi import Request, Response

from resonate_audio.core.errors import AudioError
from resonate_audio.serving.errors import ApiError

MEDIA_TYPES = {
    "wav": "audio/wav",
    "flac": "audio/flac",
    "mp3": "audio/mpeg",
    "ogg": "audio/ogg",
    "opus": "audio/ogg; codecs=opus",
}
_RANGE = re.compile(r"\s*bytes\s*=\s*(\d*)\s*-\s*(\d*)\s*", re.IGNORECASE)
_DIGITS = 30
"""More digits than any size has."""


def send_sound(
    request: Request,
    sound: bytes | Path,
    media_type: str,
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A sound, or the range of it that is asked for    [RFC 9110, sec. 13 and 14].

    A range that is no single range of bytes is not honoured: the whole is sent, as it may be.

    Args:
        request: its headers Range, If-Range and If-None-Match count.
        sound: the file's bytes, or where they lie.
        media_type: of the file.
        headers: sent as well.

    Raises:
        ApiError: 416, the range lies outside of the file.
        AudioError: the file cannot be read.
    """
    try:
        size = len(sound) if isinstance(sound, bytes) else sound.stat().st_size
        tag = _tag(sound)
        told = {"Accept-Ranges": "bytes", "ETag": tag, "Cache-Control": "private, no-cache"}
        told |= dict(headers or {})
        if {tag, "*"} & _tags(request.headers.get("if-none-match", "")):
            return Response(None, 304, told)
        is_same = request.headers.get("if-range", tag) == tag
        span = find_span(request.headers.get("range", ""), size) if is_same else None
        if span is None:
            return Response(_part(sound, 0, size), 200, told, media_type)
        start, stop = span
        told["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        return Response(_part(sound, start, stop), 206, told, media_type)
    except OSError as error:
        raise AudioError("the sound is not there any more") from error


def find_span(header: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last of a Range header; None where the whole is meant.

    Raises:
        ApiError: 416, no byte of the file lies in it.
    """
    found = _RANGE.fullmatch(header)
    if found is None or not (found[1] or found[2]):
        return None
    first, last = (int(digits[:_DIGITS]) if digits else None for digits in found.groups())
    if first is None:
        start, stop = max(0, size - (last or 0)), size
    else:
        start, stop = first, size if last is None else min(size, last + 1)
        if last is not None and last < first:
            return None
    if start >= stop:
        raise ApiError(
            416,
            f"range: the sound has {size} bytes",
            "Range",
            headers={"Content-Range": f"bytes */{size}"},
        )
    return start, stop


def _tag(sound: bytes | Path) -> str:
    if isinstance(sound, bytes):
        return f'"{hashlib.sha256(sound).hexdigest()[:32]}"'
    known = sound.stat()
    return f'"{known.st_mtime_ns:x}-{known.st_size:x}"'


def _tags(header: str) -> set[str]:
    return {tag.strip().removeprefix("W/") for tag in header.split(",")}


def _part(sound: bytes | Path, start: int, stop: int) -> bytes:
    if isinstance(sound, bytes):
        return sound[start:stop]
    with sound.open("rb") as file:
        file.seek(start)
        return file.read(stop - start)
