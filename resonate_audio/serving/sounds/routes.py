"""The routes of the API: sounds now, sounds as jobs, models."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from resonate_audio.audio.finish import finish_sound
from resonate_audio.serving.errors import StrictRoute, field_names
from resonate_audio.serving.metrics import METRICS_TYPE
from resonate_audio.serving.sounds.adapters import base_of
from resonate_audio.serving.sounds.answers import HEARD, MADE, REFUSALS, Id
from resonate_audio.serving.sounds.engine import Task
from resonate_audio.serving.sounds.forms import form_schema, read_form
from resonate_audio.serving.sounds.requests import (
    ELEVENLABS_FIELDS,
    MAX_N,
    MAX_STEPS,
    NEEDS,
    TAKES,
    EditFields,
    EditForm,
    FinishForm,
    GenerateRequest,
    JobRequest,
    SoundGenerationRequest,
    SourceKind,
    parse_output_format,
)
from resonate_audio.serving.sounds.sending import (
    render,
    render_finished,
    render_plain,
)
from resonate_audio.serving.sounds.service import JobView, Service, wanted_finish
from resonate_audio.serving.sounds.shelf import Described

POLL_S = 0.05
"""How often a stream of events looks for news."""
QUIET_S = 15.0
"""After so long without news a comment keeps the connection open."""
ENDED = ("succeeded", "failed", "cancelled")
EDITS: dict[SourceKind, str] = {
    "vary": "Make sounds like one that is sent.",
    "reword": "Carry a sound that is sent from what one text says to what another does.",
    "replace": "Make stretches of a sound anew; outside them its samples stay as they are.",
    "extend": "Let a sound that is sent begin earlier or go on longer.",
    "loop": "Close a sound that is sent to a loop.",
}


class AdapterView(BaseModel):
    """A small change of a model: ask for MODEL+ID, or MODEL+ID:WEIGHT."""

    id: str
    weight: float
    """How strongly it counts unless the request says so."""


class ModelView(BaseModel):
    """A model and what it makes."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "resonate"
    is_loaded: bool
    sample_rate: int
    min_duration_s: float
    max_duration_s: float
    window_s: float
    """What it hears at once; longer sounds are made in windows that overlap."""
    default_duration_s: float
    default_steps: int
    """Solver steps that a request gets which asks for none."""
    edit_steps: int
    """The same where a sound is changed."""
    max_steps: int
    default_guidance: float
    guidance_inside: bool
    """Whether the model takes neither a guidance scale nor a negative prompt."""
    max_sounds: int = MAX_N
    adapters: list[AdapterView]
    licence: str


class ModelList(BaseModel):
    """All models."""

    object: Literal["list"] = "list"
    data: list[ModelView]


class Health(BaseModel):
    """Whether the server is alive; one that is broken should be started again."""

    status: Literal["ok", "broken"]
    queued_sounds: int


class Readiness(BaseModel):
    """Whether the server can make a sound now; one that cannot should be sent no request yet."""

    status: Literal["ready", "loading", "broken"]
    model: str
    """The default one."""
    message: str | None = None


def audio_router(service: Service) -> APIRouter:
    """Sounds while the client waits."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1", tags=["sounds"], responses=REFUSALS)

    @router.post("/audio/generate", response_class=Response, responses=MADE)
    async def generate(body: GenerateRequest, request: Request) -> Response:
        """Make sounds from a text and wait for them."""
        task = Task(await asyncio.to_thread(service.wanted, body))
        outcome = await service.make(request, task)
        return await asyncio.to_thread(render, body, task, outcome)

    @router.post("/sound-generation", response_class=Response, responses=HEARD)
    async def sound_generation(
        body: SoundGenerationRequest,
        request: Request,
        output_format: Annotated[str, Query(max_length=100)] = "mp3_44100_128",
    ) -> Response:
        """Make one sound, asked for as ElevenLabs' and LocalAI's clients do."""
        format = parse_output_format(output_format)
        asked, names = body.as_job(), ELEVENLABS_FIELDS
        inside = service.catalogue.find(asked.model, names["model"]).config.guidance_inside
        is_idle = inside and asked.guidance_scale is not None
        if is_idle:  # clients of every model send it
            asked = asked.model_copy(update={"guidance_scale": None})
        task = Task(service.catalogue.check(asked, names))
        outcome = await service.make(request, task)
        answer = await asyncio.to_thread(render_plain, format, task, outcome)
        if is_idle:
            answer.headers["X-Resonate-Influence-Idle"] = "true"
        return answer

    for kind in EDITS:
        add_edit(router, service, kind)

    finish_form = form_schema(FinishForm, "source")

    @router.post(
        "/audio/finish", response_class=Response, responses=HEARD, openapi_extra=finish_form
    )
    async def finish(request: Request) -> Response:
        """Trim a sound that is sent, bring it to a length or a level, fade it."""
        sent = await read_form(request, FinishForm, "source")
        wanted = wanted_finish(sent.fields, service.catalogue.longest_s)

        def finished() -> Response:
            audio = service.decode(sent.data, "source")
            return render_finished(sent.fields, finish_sound(audio, wanted))

        return await asyncio.to_thread(finished)

    return router


def add_edit(router: APIRouter, service: Service, kind: SourceKind) -> None:
    """The route of one way of working with a sound that comes along."""
    names = {f"edit.{name}": name for name in ("source", *EditFields.model_fields)}
    others = [name for name in EditFields.model_fields if name not in TAKES[kind]]
    known = [name for name in field_names(EditForm) if name not in others]
    form = form_schema(EditForm, "source", others, NEEDS[kind])

    async def edit(request: Request) -> Response:
        sent = await read_form(request, EditForm, "source", known)

        def checked() -> Task:
            source = service.decode(sent.data, "source")
            return Task(service.catalogue.check(sent.fields.as_job(kind), names, source))

        task = await asyncio.to_thread(checked)
        outcome = await service.make(request, task)
        return await asyncio.to_thread(render, sent.fields, task, outcome)

    edit.__doc__ = EDITS[kind]
    router.post(
        f"/audio/{kind}",
        name=kind,
        response_class=Response,
        responses=MADE,
        openapi_extra=form,
    )(edit)


def jobs_router(service: Service) -> APIRouter:
    """Sounds that are asked for now and fetched later."""
    router = APIRouter(
        route_class=StrictRoute, prefix="/v1/jobs", tags=["jobs"], responses=REFUSALS
    )

    @router.post("", status_code=202)
    def create(body: JobRequest) -> JobView:
        """Accept a job; from here on it is made even if the server is restarted."""
        return service.add_job(body)

    @router.get("/{id}")
    def show(id: Id) -> JobView:
        """A job as it is now, with its sounds when they are made."""
        return service.view(id)

    @router.delete("/{id}")
    def cancel(id: Id) -> JobView:
        """Cancel a job; one that has ended stays as it is."""
        return service.cancel_job(id)

    @router.get(
        "/{id}/events",
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Progress."}},
    )
    async def events(id: Id) -> StreamingResponse:
        """Every step of a job as a server-sent event, until it ends."""
        first = await asyncio.to_thread(service.view, id)
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        told = tell_steps(service, first)
        return StreamingResponse(told, media_type="text/event-stream", headers=headers)

    return router


async def tell_steps(service: Service, job: JobView) -> AsyncIterator[str]:
    """Events of one job: one for each step, and one for each change of its status."""
    told_step, told_status, quiet_s = -1, "", 0.0
    while True:
        for step in range(told_step + 1, job.step + 1):
            if step < job.step:
                yield _event(job.model_copy(update={"step": step, "status": "running"}))
        if (job.step, job.status) != (told_step, told_status):
            yield _event(job)
            told_step, told_status, quiet_s = job.step, job.status, 0.0
        if job.status in ENDED:
            return
        if quiet_s >= QUIET_S:
            yield ": still here\n\n"
            quiet_s = 0.0
        await asyncio.sleep(POLL_S)
        quiet_s += POLL_S
        task = service.engine.find(job.id)
        if task is None or task.is_over:
            if task is not None:
                await asyncio.wrap_future(task.done)
            job = await asyncio.to_thread(service.view, job.id)
        else:
            job = job.model_copy(update={"step": task.step, "status": task.status})


def _event(job: JobView) -> str:
    data = job.model_dump(include={"status", "step", "total_steps", "error"})
    return f"data: {json.dumps(data)}\n\n"


def models_router(service: Service) -> APIRouter:
    """What is served, and how the server is."""
    router = APIRouter(route_class=StrictRoute, tags=["server"], responses=REFUSALS)

    def describe(found: Described) -> ModelView:
        return ModelView(
            id=found.name,
            is_loaded=found.name in service.engine.loaded,
            sample_rate=found.config.mel.sample_rate_hz,
            min_duration_s=found.config.min_duration_s,
            max_duration_s=service.catalogue.longest_s,
            window_s=found.config.max_duration_s,
            default_duration_s=min(found.config.default_duration_s, service.catalogue.longest_s),
            default_steps=found.config.default_steps,
            edit_steps=found.config.edit_steps,
            max_steps=min(found.config.max_steps, MAX_STEPS),
            default_guidance=found.config.default_guidance,
            guidance_inside=found.config.guidance_inside,
            adapters=adapters_of(found),
            licence=found.config.licence,
        )

    def adapters_of(found: Described) -> list[AdapterView]:
        fitting = service.catalogue.adapters[base_of(found.name)]
        return [AdapterView(id=name, weight=one.weight) for name, one in fitting.items()]

    @router.get("/v1/models")
    def list_models() -> ModelList:
        """All models, the default first."""
        return ModelList(data=[describe(found) for found in service.catalogue.models.values()])

    @router.get("/v1/models/{id:path}")
    def show_model(id: Id) -> ModelView:
        """One model."""
        return describe(service.catalogue.find(id))

    @router.get("/health")
    def health(response: Response) -> Health:
        """200 while every worker is at work, else 503."""
        is_alive = service.engine.is_alive
        response.status_code = 200 if is_alive else 503
        return Health(
            status="ok" if is_alive else "broken", queued_sounds=service.engine.queued_rows
        )

    @router.get("/ready")
    def ready(response: Response) -> Readiness:
        """200 while the default model is in memory and every worker at work, else 503.

        Asking begins to load it, as `--preload` does at the start.
        """
        engine, name = service.engine, service.catalogue.default
        if engine.is_ready(name):
            return Readiness(status="ready", model=name)
        if engine.problem is None:
            engine.preload([name])
        response.status_code, response.headers["Retry-After"] = 503, "1"
        is_loading = engine.is_alive and engine.problem is None
        return Readiness(
            status="loading" if is_loading else "broken", model=name, message=engine.problem
        )

    @router.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Counters in Prometheus' text form."""
        gauges = {
            "queued_sounds": service.engine.queued_rows,
            "loaded_models": len(service.engine.loaded),
        }
        return Response(service.metrics.render(gauges), media_type=METRICS_TYPE)

    return router
