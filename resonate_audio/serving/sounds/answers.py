"""What routes answer with, as the description of the API has it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Path

from resonate_audio.serving.errors import ErrorEnvelope
from resonate_audio.serving.ranges import MEDIA_TYPES

Id = Annotated[str, Path(min_length=1, max_length=100)]
REFUSALS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": ErrorEnvelope, "description": "Refused; the message names the field."}
}
SOUND = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in MEDIA_TYPES.values()}
JSON_OR_ZIP: dict[str, Any] = {"application/json": {}, "application/zip": {}}
MADE: dict[int | str, dict[str, Any]] = {
    200: {"content": SOUND | JSON_OR_ZIP, "description": "The sounds."}
}
HEARD: dict[int | str, dict[str, Any]] = {200: {"content": SOUND, "description": "The sound."}}
RANGED = HEARD | {
    206: {"content": SOUND, "description": "The range that was asked for."},
    304: {"description": "Not changed."},
}
