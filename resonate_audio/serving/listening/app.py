"""Listening tests over HTTP: what raters may do, and what the owner of the tests may.

Raters send their token in the header ``X-Rater-Token`` and see their own pages, nothing else: no
system, no file name, no other rater.
"""

from __future__ import annotations

import asyncio
import io
import logging
import re
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Request, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import FormData, UploadFile

from resonate_audio.audio.decoding import SoundLimits, read_header
from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.errors import ConfigError, ManifestError, OutputError, ResonateError
from resonate_audio.core.text import one_line
from resonate_audio.serving.database import told_errors
from resonate_audio.serving.errors import (
    UNREADABLE,
    ApiError,
    StrictRoute,
    error_response,
    wants_type,
)
from resonate_audio.serving.listening.answers import AnswerError, Answers, Rater
from resonate_audio.serving.listening.results import (
    analyse,
    export_pairs,
    format_lines,
    rated_clip_lines,
    render_latex,
    to_ratings,
)
from resonate_audio.serving.listening.test import (
    PREFERENCE,
    SLUG,
    TEST_FILE,
    GivenClip,
    ListeningTest,
    clip_path,
    create_test,
    open_test,
    parse_design,
)
from resonate_audio.serving.ranges import send_sound

log = logging.getLogger("resonate.serve")
FORM = "multipart/form-data"
FIELDS, SYSTEM = ("name", "design", "prompts"), "system:"
MAX_UPLOADS, MAX_UPLOAD_BYTES, MAX_CLIP_S = 1000, 200_000_000, 120.0
MAX_SAMPLES = 100_000_000
"""Of all sounds of an upload, as many as its bytes hold in 16 bits: small files may be long."""
Token = Annotated[str, Header(alias="X-Rater-Token", max_length=200)]


class Answered(BaseModel):
    """The answers of one page."""

    model_config = ConfigDict(extra="forbid", strict=True)

    trial: int = Field(ge=0, description="Number of the page, from 0.")
    scores: dict[str, Any] = Field(default_factory=dict, description="By axis.")
    choice: str | None = Field(None, description="A, B or same, where a pair is compared.")
    ms: float = Field(ge=0, le=86_400_000, description="From the start of playing to the answer.")


class Invitations(BaseModel):
    """How many links to make."""

    model_config = ConfigDict(extra="forbid")

    count: int = Field(ge=1, le=500)


class ListeningTests:
    """The tests in a folder, opened when they are asked for."""

    def __init__(self, home: Path, only: str | None = None) -> None:
        """Look for tests in ``home``; ``only`` hides all others."""
        self.home, self.only = home, only
        self._opened: dict[str, tuple[tuple[int, int], ListeningTest, Answers]] = {}
        """With the file and the time of its design: one that was made anew is another test."""
        self._joined: Counter[tuple[str, str]] = Counter()

    def names(self) -> list[str]:
        """Names of all tests that can be opened."""
        if self.only is not None:
            return [self.only]
        found = self.home.glob("*/test.yaml")
        return sorted(path.parent.name for path in found if re.fullmatch(SLUG, path.parent.name))

    def open(self, name: str) -> tuple[ListeningTest, Answers]:
        """A test and its answers.

        Raises:
            AnswerError: there is none of that name.
        """
        if name not in self.names():
            raise AnswerError(404, "test", "there is no such listening test")
        folder = self.home / name
        with told_errors(folder):
            known = (folder / TEST_FILE).stat()
        made = known.st_ino, known.st_mtime_ns
        if name not in self._opened or self._opened[name][0] != made:
            test = open_test(folder)
            self._opened[name] = made, test, Answers(folder, test)
        _, test, answers = self._opened[name]
        return test, answers

    def join(self, name: str, address: str) -> str:
        """Take in a rater who came by the open link; gives the token.

        Raises:
            AnswerError: the test is by invitation or full, or many came from this address.
        """
        test, answers = self.open(name)
        if not test.is_open:
            raise AnswerError(403, "rater", "this test is by invitation; open the link you got")
        if self._joined[name, address] >= test.max_raters_per_address:
            most = test.max_raters_per_address
            message = f"{most} came from your address already; ask for a link of your own"
            raise AnswerError(429, "rater", message)
        token = f"{name}.{answers.join()}"
        self._joined[name, address] += 1
        return token

    def of_token(self, token: str) -> tuple[str, ListeningTest, Answers, str]:
        """Name, test, answers and the rater's own part of a token ``name.secret``.

        Raises:
            AnswerError: it is nobody's.
        """
        name, _, secret = token.partition(".")
        if name not in self.names():
            raise AnswerError(401, "token", "not one of ours; open the link you were sent")
        return name, *self.open(name), secret


def rater_router(tests: ListeningTests) -> APIRouter:
    """What raters may do."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1/listening", tags=["listening tests"])

    @router.get("/tests/{name}")
    def greet(name: str) -> dict[str, Any]:
        """What a test is about, before taking part."""
        test, _ = tests.open(name)
        return {"title": test.title, "instructions": test.instructions, "is_open": test.is_open}

    @router.post("/tests/{name}/raters", status_code=201)
    def join(name: str, request: Request) -> dict[str, str]:
        """Take part: gives a token, once."""
        address = request.client.host if request.client else ""
        return {"token": tests.join(name, address)}

    @router.get("/session")
    def session(token: Token) -> dict[str, Any]:
        """The page that a rater is at."""
        _, test, answers, secret = tests.of_token(token)
        return describe_page(test, answers.rater(secret))

    @router.get("/session/trials/{trial}/clips/{side}", response_class=Response)
    def hear(request: Request, trial: int, side: int, token: Token) -> Response:
        """A sound of the page that a rater is at, or of one before."""
        name, _, answers, secret = tests.of_token(token)
        clip = answers.hear(secret, trial, side)
        headers = {"Cache-Control": "no-store"}
        path = clip_path(tests.home / name, clip)
        return send_sound(request, path, "audio/wav", headers)

    @router.post("/session/answers", status_code=201)
    def answer(body: Answered, token: Token) -> dict[str, Any]:
        """Answer a page, once; gives the next one."""
        _, test, answers, secret = tests.of_token(token)
        answers.submit(secret, body.trial, body.scores, body.choice, body.ms)
        return describe_page(test, answers.rater(secret))

    return router


def describe_page(test: ListeningTest, rater: Rater) -> dict[str, Any]:
    """What a rater sees: progress, questions, how many sounds, and the text if it may be seen."""
    page: dict[str, Any] = {
        "title": test.title,
        "instructions": test.instructions,
        "total": len(rater.trials),
        "done": rater.num_done,
        "trial": None,
    }
    if rater.num_done == len(rater.trials):
        return page
    trial = rater.trials[rater.num_done]
    axes = [axis for axis in test.axes if axis.name in trial.axes]
    prompt = test.clip(trial.clips[0]).prompt
    page["trial"] = {
        "number": rater.num_done,
        "compares": test.compares,
        "num_clips": len(trial.clips),
        "axes": [axis.model_dump() for axis in axes],
        "prompt": prompt if any(axis.shows_prompt for axis in axes) else None,
    }
    return page


def owner_router(tests: ListeningTests) -> APIRouter:
    """What the owner of the tests may do."""
    router = APIRouter(route_class=StrictRoute, prefix="/v1/listening", tags=["listening tests"])

    @router.get("/tests")
    def list_tests() -> dict[str, Any]:
        """All tests and how far they are."""
        return {"data": [describe_or_problem(tests, name) for name in tests.names()]}

    @router.post("/tests", status_code=201)
    async def create(request: Request) -> dict[str, Any]:
        """Make a test from a form: ``name``, ``design`` and ``prompts`` (JSON), and sounds.

        A sound's field is called ``system:NAME``; sounds of one file name answer one prompt.
        """
        if not request.headers.get("content-type", "").startswith(FORM):
            raise wants_type(request, FORM)
        async with request.form(max_files=MAX_UPLOADS, max_fields=20) as form:
            name, design, given = await read_form(form)
        if (tests.home / name).exists():
            raise taken(name)
        try:
            await asyncio.to_thread(create_test, tests.home / name, design, given)
        except OutputError as error:
            if not (tests.home / name / TEST_FILE).exists():
                raise
            raise taken(name) from error  # by another one, meanwhile
        return describe_test(name, *tests.open(name))

    @router.post("/tests/{name}/invitations", status_code=201)
    def invite(name: str, body: Invitations) -> dict[str, list[str]]:
        """Tokens for raters, one each."""
        _, answers = tests.open(name)
        return {"tokens": [f"{name}.{token}" for token in answers.invite(body.count)]}

    @router.get("/tests/{name}/results")
    def results(name: str) -> Response:
        """Opinion scores, agreement and doubts so far."""
        test, answers = tests.open(name)
        found = analyse(test, answers.all(), answers.progress())
        return Response(found.model_dump_json(), media_type="application/json")

    @router.get("/tests/{name}/files/{file}")
    def download(name: str, file: str) -> Response:
        """Results as a file: ratings.csv, clips.jsonl, results.tex or pairs.zip."""
        test, answers = tests.open(name)
        if file not in DOWNLOADS:
            raise AnswerError(404, "file", f"expected one of {', '.join(DOWNLOADS)}")
        kind, write = DOWNLOADS[file]
        headers = {"Content-Disposition": f'attachment; filename="{name}-{file}"'}
        data = write(tests.home / name, test, answers)
        return Response(data, media_type=kind, headers=headers)

    return router


def taken(name: str) -> AnswerError:
    """The refusal of a name that another test has."""
    return AnswerError(409, "name", f"{name} is there already; choose another one")


def describe_or_problem(tests: ListeningTests, name: str) -> dict[str, Any]:
    """One line of the owner's list; a test that is broken hides no other."""
    try:
        return describe_test(name, *tests.open(name))
    except ResonateError as error:
        log.warning("%s", one_line(str(error)))
        return {"name": name, "title": name, "problem": UNREADABLE}


def describe_test(name: str, test: ListeningTest, answers: Answers) -> dict[str, Any]:
    """One line of the owner's list."""
    progress = answers.progress()
    return {
        "name": name,
        "title": test.title,
        "preset": test.preset,
        "is_open": test.is_open,
        "systems": list(test.systems),
        "num_clips": len(test.clips),
        "num_raters": len(progress),
        "num_finished": sum(done == total for done, total in progress.values()),
        "num_pages_done": sum(done for done, _ in progress.values()),
    }


async def read_form(form: FormData) -> tuple[str, Any, list[GivenClip]]:
    """Name, design and clips of a form.

    Raises:
        AnswerError: a field is missing, too big or of another form.
        ResonateError: a value of the design is wrong, or a sound is no sound.
    """
    _check_fields(form)
    given_name = form.get("name", "")
    name = given_name if isinstance(given_name, str) else ""
    if not re.fullmatch(SLUG, name):
        raise AnswerError(422, "name", "expected small letters, digits and hyphens, 64 at most")
    try:
        design = parse_design(_object(form, "design"), "design")
    except ConfigError as error:
        raise AnswerError(422, "design", str(error).removeprefix("design: ")) from error
    prompts = _object(form, "prompts")
    for clip, text in prompts.items():
        if not isinstance(text, str):
            raise AnswerError(422, f"prompts.{clip}"[:100], "expected a text")
    given, left, room = [], MAX_UPLOAD_BYTES, MAX_SAMPLES
    for field, value in form.multi_items():
        if field in FIELDS:
            continue
        system = field.removeprefix(SYSTEM).strip()
        if not isinstance(value, UploadFile) or not 0 < len(system) <= 100:
            raise AnswerError(422, field[:100], f"expected sounds in fields called {SYSTEM}NAME")
        data = await value.read(left + 1)
        left -= len(data)
        if left < 0:
            raise AnswerError(413, "body", f"expected {MAX_UPLOAD_BYTES:,} bytes of sound at most")
        stem = Path((value.filename or "").replace("\\", "/")).stem[:200]
        if not stem:
            raise AnswerError(422, field[:100], "a sound has no file name")
        room -= count_samples(data, stem)
        if room < 0:
            raise AnswerError(413, stem, f"expected {MAX_SAMPLES:,} samples in all at most")
        given.append(await asyncio.to_thread(_given_clip, system, stem, data, prompts))
    return name, design, given


def _check_fields(form: FormData) -> None:
    for field, times in Counter(field for field, _ in form.multi_items()).items():
        if field in FIELDS and times > 1:
            raise AnswerError(422, field, "given twice")
        if field not in FIELDS and not field.startswith(SYSTEM):
            known = ", ".join(FIELDS)
            raise AnswerError(422, field[:100], f"unknown field; known are {known}, {SYSTEM}NAME")


def _object(form: FormData, field: str) -> Mapping[str, Any]:
    given = form.get(field, "{}")
    if not isinstance(given, str):
        raise AnswerError(422, field, "expected JSON, got a file")
    try:
        return parse_object(given, field)
    except ManifestError as error:
        raise AnswerError(422, field, str(error).removeprefix(f"{field}: ")) from error


def count_samples(data: bytes, name: str) -> int:
    """Samples of all channels, from the head of a file: before anything is decoded.

    Raises:
        AnswerError: it is too long.
        AudioError: it is no audio file.
    """
    head = read_header(data, name)
    duration_s = (head.num_samples or 0) / head.sample_rate_hz
    if duration_s > MAX_CLIP_S:
        raise AnswerError(422, name, f"{duration_s:.0f} s; {MAX_CLIP_S:g} s at most")
    return (head.num_samples or 1) * head.num_channels


def _given_clip(system: str, name: str, data: bytes, prompts: Mapping[str, Any]) -> GivenClip:
    from resonate_audio.audio.io import decode_audio

    limits = SoundLimits(num_values=MAX_SAMPLES, seconds=MAX_CLIP_S)
    audio = decode_audio(data, name, limits=limits)
    own = audio.recipe.prompt if audio.recipe else ""
    return GivenClip(system, name, prompts.get(name, own), audio)


def _ratings_csv(folder: Path, test: ListeningTest, answers: Answers) -> bytes:
    from resonate_audio.evaluation.people.ratings import write_ratings

    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "ratings.csv"
        write_ratings(path, to_ratings(test, answers.all()))
        return path.read_bytes()


def _clips_jsonl(folder: Path, test: ListeningTest, answers: Answers) -> bytes:
    return format_lines(rated_clip_lines(to_ratings(test, answers.all()))).encode()


def _results_tex(folder: Path, test: ListeningTest, answers: Answers) -> bytes:
    return render_latex(analyse(test, answers.all(), answers.progress())).encode()


def _pairs_zip(folder: Path, test: ListeningTest, answers: Answers) -> bytes:
    axis = PREFERENCE if test.compares else test.axes[-1].name
    with tempfile.TemporaryDirectory() as place:
        export_pairs(folder, test, answers.all(), Path(place), axis)
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            for path in sorted(Path(place).rglob("*")):
                archive.write(path, path.relative_to(place))
        return buffer.getvalue()


DOWNLOADS: dict[str, tuple[str, Callable[[Path, ListeningTest, Answers], bytes]]] = {
    "ratings.csv": ("text/csv; charset=utf-8", _ratings_csv),
    "clips.jsonl": ("application/x-ndjson", _clips_jsonl),
    "results.tex": ("application/x-tex", _results_tex),
    "pairs.zip": ("application/zip", _pairs_zip),
}


def answer_refusals(app: FastAPI) -> None:
    """Make refused answers responses whose error names the field."""

    @app.exception_handler(AnswerError)
    def refuse(request: Request, error: AnswerError) -> JSONResponse:
        return error_response(ApiError(error.status, str(error), error.field))
