"""Made sounds as answers: a file, JSON or a zip, with their facts in the headers."""

from __future__ import annotations

import base64
import io
import json
import re
import time
import zipfile
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from fastapi import Response

from resonate_audio.audio.finish import heard
from resonate_audio.audio.io import FORMATS, at_rate, decode_audio, encode_audio
from resonate_audio.audio.loudness import loudness_lufs
from resonate_audio.core.edit import Finish
from resonate_audio.core.sampling import SolverSettings
from resonate_audio.core.types import Audio, Recipe
from resonate_audio.pipeline.request import idle_negative
from resonate_audio.serving.ranges import MEDIA_TYPES
from resonate_audio.serving.sounds.engine import Outcome, Task
from resonate_audio.serving.sounds.requests import (
    AnswerSettings,
    FinishForm,
    FinishSettings,
    OutputFormat,
    ZipRequest,
)
from resonate_audio.serving.sounds.store import Sound, new_id

TAIL_DB = -50.0
"""Under the loudest moment: below it the end of a sound counts as silent."""


def encode(audio: Audio, format: str) -> tuple[bytes, int]:
    """A file's bytes and the rate it has: MP3 and Opus know only some."""
    chosen = FORMATS[f".{format}"]
    return encode_audio(audio, chosen), chosen.file_rate_hz(audio.sample_rate_hz)


def peak_of(audio: Audio) -> float:
    """The largest sample, full scale at 1."""
    return round(float(np.abs(audio.samples).max(initial=0.0)), 6)


def fact_headers(task: Task, outcome: Outcome, sounds: Sequence[Audio], rate_hz: int) -> Any:
    """The X-Resonate headers; several sounds have their seeds and peaks divided by commas."""
    headers = {
        "X-Resonate-Model": task.wanted.model,
        "X-Resonate-Seed": ",".join(map(str, task.wanted.batch.seeds)),
        "X-Resonate-Duration": f"{sounds[0].duration_s:.6g}",
        "X-Resonate-Sample-Rate": str(rate_hz),
        "X-Resonate-Peak": ",".join(f"{peak_of(sound):g}" for sound in sounds),
    }
    notes = {"Prompt-Cut": outcome.is_cut, "Negative-Idle": is_negative_idle(task)}
    return headers | {f"X-Resonate-{name}": "true" for name, holds in notes.items() if holds}


def is_negative_idle(task: Task) -> bool:
    """Whether a negative prompt was given that has no effect at the guidance scale."""
    wanted = task.wanted
    return idle_negative(wanted.batch.negatives, wanted.sampling.guidance_scale) is not None


def render(request: AnswerSettings, task: Task, outcome: Outcome) -> Response:
    """The answer to a request for sounds, in the form that it asks for."""
    sounds = [at_rate(sound, request.sample_rate) for sound in outcome.sounds]
    files = [encode(sound, request.response_format) for sound in sounds]
    headers = fact_headers(task, outcome, sounds, files[0][1])
    if request.form == "audio":
        media_type = MEDIA_TYPES[request.response_format]
        return Response(files[0][0], media_type=media_type, headers=headers)
    described = [
        describe_sound(task, outcome, index, sound, files[index][1])
        for index, sound in enumerate(sounds)
    ]
    if request.form == "zip":
        return _as_zip(request.response_format, [file for file, _ in files], described, headers)
    data = [
        facts | {"format": request.response_format, "b64_json": base64.b64encode(file).decode()}
        for facts, (file, _) in zip(described, files, strict=True)
    ]
    body = {"created": int(time.time()), "model": task.wanted.model, "data": data}
    return Response(json.dumps(body), media_type="application/json", headers=headers)


def describe_sound(
    task: Task, outcome: Outcome, index: int, sound: Audio, rate_hz: int
) -> dict[str, Any]:
    """What is said of one sound beside its bytes."""
    return {
        "seed": task.wanted.batch.seeds[index],
        "duration": sound.duration_s,
        "sample_rate": rate_hz,
        "peak": peak_of(sound),
        "prompt_cut": outcome.is_cut,
        "negative_idle": is_negative_idle(task),
    }


def _as_zip(
    format: str, files: Sequence[bytes], described: Sequence[dict[str, Any]], headers: Any
) -> Response:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, (file, facts) in enumerate(zip(files, described, strict=True), 1):
            archive.writestr(f"{number:02}-seed-{facts['seed']}.{format}", file)
        archive.writestr("sounds.json", json.dumps(described, indent=2) + "\n")
    headers = headers | {"Content-Disposition": 'attachment; filename="sounds.zip"'}
    return Response(buffer.getvalue(), media_type="application/zip", headers=headers)


def render_plain(format: OutputFormat, task: Task, outcome: Outcome) -> Response:
    """One sound in the form that ElevenLabs' clients expect."""
    sound = at_rate(outcome.sounds[0], format.sample_rate_hz)
    if format.codec == "pcm":
        data = np.round(sound.samples * 32767).astype("<i2").tobytes()
        rate_hz, media_type = sound.sample_rate_hz, "audio/pcm"
    else:
        (data, rate_hz), media_type = encode(sound, format.codec), MEDIA_TYPES[format.codec]
    headers = fact_headers(task, outcome, [sound], rate_hz)
    return Response(data, media_type=media_type, headers=headers)


def to_library(task: Task, outcome: Outcome, name: str = "") -> list[tuple[Sound, bytes]]:
    """The sounds of a job with their settings and WAV files, to be kept under a name."""
    wanted, now_s = task.wanted, time.time()
    kept = []
    for index, audio in enumerate(outcome.sounds):
        sound = Sound(
            id=new_id(),
            job=task.id,
            created=now_s,
            prompt=wanted.batch.prompts[index],
            negative_prompt=wanted.batch.negatives[index],
            model=wanted.model,
            seed=wanted.batch.seeds[index],
            prompt_cut=outcome.is_cut,
            made="generate" if wanted.edit is None else wanted.edit.kind,
            source=wanted.source_id,
            name=name,
            **made_facts(audio.recipe),
            **heard_facts(audio),
        )
        kept.append((sound, encode(audio, "wav")[0]))
    return kept


def made_facts(recipe: Recipe | None) -> dict[str, Any]:
    """How a model made a sound, as `Sound` has it: all of it stands in the recipe."""
    assert recipe is not None, "a model writes one beside every sound"
    settings = {name: getattr(recipe, name) for name in SolverSettings.model_fields}
    return settings | {"audio_length": recipe.duration_s, "finish": told_finish(recipe.finish)}


def told_finish(done: Finish | None) -> FinishSettings | None:
    """What was done to a sound in the end, as `Sound` has it."""
    return None if done is None else FinishSettings(**asdict(done))


def heard_facts(audio: Audio) -> dict[str, Any]:
    """What a listener of a sound would measure, as `Sound` has it."""
    rate_hz = audio.sample_rate_hz
    row = torch.from_numpy(np.ascontiguousarray(audio.samples))[None]
    stop = heard(audio.samples, rate_hz, TAIL_DB)[1] if audio.samples.any() else 0
    return {
        "duration_s": audio.duration_s,
        "sample_rate": rate_hz,
        "peak": peak_of(audio),
        "loudness_lufs": round(float(loudness_lufs(row, rate_hz)[0]), 1),
        "silent_tail_s": round((len(audio.samples) - stop) / rate_hz, 3),
    }


def is_wav(data: bytes) -> bool:
    """Whether a file is one that every browser takes as it is."""
    return data[:4] == b"RIFF" and data[8:12] == b"WAVE"


def as_zip(sounds: Sequence[tuple[Sound, bytes]], wanted: ZipRequest) -> bytes:
    """Sounds of the library in one file, called by their names, with what is known of them."""
    buffer, taken = io.BytesIO(), set[str]()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for sound, data in sounds:
            if wanted.response_format != "wav" or wanted.sample_rate or not is_wav(data):
                audio = at_rate(decode_audio(data, "sound"), wanted.sample_rate)
                data = encode(audio, wanted.response_format)[0]
            name = _free_name(sound.name or sound.prompt, taken)
            archive.writestr(f"{name}.{wanted.response_format}", data)
        facts = [sound.model_dump() for sound, _ in sounds]
        archive.writestr("sounds.json", json.dumps(facts, indent=2) + "\n")
    return buffer.getvalue()


def _free_name(text: str, taken: set[str]) -> str:
    """A file name that every system takes, and that no other sound has."""
    stem = re.sub(r"[^\w-]+", "-", text).strip("-_")[:60] or "sound"
    name, number = stem, 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name.casefold())
    return name


def render_finished(request: FinishForm, audio: Audio) -> Response:
    """A sound that came and goes, finished."""
    sound = at_rate(audio, request.sample_rate)
    data, rate_hz = encode(sound, request.response_format)
    headers = {
        "X-Resonate-Duration": f"{sound.duration_s:.6g}",
        "X-Resonate-Sample-Rate": str(rate_hz),
        "X-Resonate-Peak": f"{peak_of(sound):g}",
    }
    return Response(data, media_type=MEDIA_TYPES[request.response_format], headers=headers)
