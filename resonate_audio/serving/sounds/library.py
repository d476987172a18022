"""The routes of the library: sounds that were made or sent, and what people note of them."""

from __future__ import annotations

import asyncio
import functools
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, Field

from resonate_audio.audio.io import at_rate, decode_audio
from resonate_audio.core.text import one_line
from resonate_audio.serving.errors import ApiError, StrictRoute
from resonate_audio.serving.ranges import MEDIA_TYPES, send_sound
from resonate_audio.serving.sounds.answers import RANGED, REFUSALS, Id
from resonate_audio.serving.sounds.forms import form_schema, read_form
from resonate_audio.serving.sounds.requests import (
    MAX_NAME,
    Body,
    FinishSettings,
    ResponseFormat,
    SoundChanges,
    Text,
    ZipRequest,
)
from resonate_audio.serving.sounds.sending import as_zip, encode, is_wav
from resonate_audio.serving.sounds.service import Service, wanted_finish
from resonate_audio.serving.sounds.store import Sound

MAX_ZIP_BYTES = 200_000_000
ENCODED = 16
"""Files that are kept for the next range of theirs: a player asks for many, and the container
numbers of Ogg and Opus differ each time."""


class TakeIn(Body):
    """What is said of a sound that is sent."""

    name: Text | None = Field(
        None, max_length=MAX_NAME, description="What to call it; the file's name if absent."
    )


class SoundList(BaseModel):
    """A page of the library."""

    object: Literal["list"] = "list"
    data: list[Sound]
    total: int


def library_router(service: Service) -> APIRouter:
    """The sounds that are kept."""
    router = APIRouter(
        route_class=StrictRoute, prefix="/v1/library", tags=["library"], responses=REFUSALS
    )
    add_finding(router, service)
    add_changing(router, service)
    return router


def add_finding(router: APIRouter, service: Service) -> None:
    """What finds sounds and gives them out."""

    @functools.lru_cache(maxsize=ENCODED)
    def encoded(wav: bytes, response_format: str, sample_rate: int | None) -> bytes:
        return encode(at_rate(decode_audio(wav, "sound"), sample_rate), response_format)[0]

    @router.get("")
    def search(
        q: Annotated[str, Query(max_length=200)] = "",
        limit: Annotated[int, Query(ge=1, le=100)] = 20,
        offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
        favourite: Annotated[bool, Query(description="Only favourites.")] = False,
    ) -> SoundList:
        """Sounds whose settings, name and #tags hold every word of ``q``, the newest first."""
        found, total = service.store.search(q, limit, offset, favourite)
        return SoundList(data=found, total=total)

    @router.post(
        "/zip",
        response_class=Response,
        responses={200: {"content": {"application/zip": {}}, "description": "The sounds."}},
    )
    def pack(body: ZipRequest) -> Response:
        """Several sounds in one file."""
        sounds, room = [], MAX_ZIP_BYTES
        for place, id in enumerate(dict.fromkeys(body.ids)):
            sound, data = service.store.find_sound(id), service.store.read_sound(id)
            if sound is None or data is None:
                raise ApiError(404, f"ids.{place}: there is no such sound", "ids")
            room -= len(data)
            if room < 0:
                raise ApiError(413, f"ids: over {MAX_ZIP_BYTES:,} bytes of sound at once", "ids")
            sounds.append((sound, data))
        headers = {"Content-Disposition": 'attachment; filename="sounds.zip"'}
        return Response(as_zip(sounds, body), media_type="application/zip", headers=headers)

    @router.get("/{id}")
    def show(id: Id) -> Sound:
        """What is known of a sound."""
        sound = service.store.find_sound(id)
        if sound is None:
            raise _no_sound()
        return sound

    @router.get("/{id}/audio", response_class=Response, responses=RANGED)
    def hear(
        request: Request,
        id: Id,
        response_format: Annotated[ResponseFormat, Query()] = "wav",
        sample_rate: Annotated[int | None, Query(ge=8000, le=48_000)] = None,
    ) -> Response:
        """The sound itself."""
        data = service.store.read_sound(id)
        if data is None:
            raise _no_sound()
        if response_format != "wav" or sample_rate is not None or not is_wav(data):
            data = encoded(data, response_format, sample_rate)
        return send_sound(request, data, MEDIA_TYPES[response_format])


def add_changing(router: APIRouter, service: Service) -> None:
    """What takes sounds in, and changes what is kept."""

    @router.post("", status_code=201, openapi_extra=form_schema(TakeIn, "audio"))
    async def take_in(request: Request) -> Sound:
        """Keep a sound that is sent, as it came, to work with it."""
        sent = await read_form(request, TakeIn, "audio")
        stem = PurePosixPath(sent.file_name.replace("\\", "/")).stem
        name = one_line(sent.fields.name or stem, MAX_NAME)
        return await asyncio.to_thread(service.take_in, name, sent.data)

    @router.patch("/{id}")
    def note(id: Id, body: SoundChanges) -> Sound:
        """Name a sound, tag it, make it a favourite; what is absent stays."""
        changed = service.store.change_sound(id, body.model_dump(exclude_none=True))
        if changed is None:
            raise _no_sound()
        return changed

    @router.post("/{id}/finish", status_code=201)
    def finish(id: Id, body: FinishSettings) -> Sound:
        """Finish a sound; what comes of it lies beside it, and the sound stays."""
        return service.finish(id, wanted_finish(body, service.catalogue.longest_s))

    @router.delete("/{id}", status_code=204)
    def delete(id: Id) -> None:
        """Delete a sound."""
        if not service.store.delete_sound(id):
            raise _no_sound()


def _no_sound() -> ApiError:
    return ApiError(404, "id: there is no such sound", "id")
