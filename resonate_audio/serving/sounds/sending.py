"""Made sounds as answers: a file, JSON or a zip, with their facts in the headers."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import time
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np
from fastapi import Response

from resonate_audio.audio.io import FORMATS, encode_audio, peak_safe, resample
from resonate_audio.core.types import Audio
from resonate_audio.serving.ranges import MEDIA_TYPES
from resonate_audio.serving.sounds.engine import Outcome, Task
from resonate_audio.serving.sounds.requests import GenerateRequest, OutputFormat
from resonate_audio.serving.sounds.store import Sound, new_id


def at_rate(audio: Audio, sample_rate_hz: int | None) -> Audio:
    """The sound at another rate, peak-safe."""
    if sample_rate_hz is None or sample_rate_hz == audio.sample_rate_hz:
        return audio
    samples = resample(audio.samples, audio.sample_rate_hz, sample_rate_hz)
    safe, gain = peak_safe(samples)
    recipe = audio.recipe and dataclasses.replace(audio.recipe, gain=audio.recipe.gain * gain)
    return Audio(safe, sample_rate_hz, recipe)


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
    return headers | ({"X-Resonate-Prompt-Cut": "true"} if outcome.is_cut else {})


def render(request: GenerateRequest, task: Task, outcome: Outcome) -> Response:
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


def to_library(task: Task, outcome: Outcome) -> list[tuple[Sound, bytes]]:
    """The sounds of a job with their settings and WAV files, to be kept."""
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
            duration_s=audio.duration_s,
            seed=wanted.batch.seeds[index],
            sample_rate=audio.sample_rate_hz,
            peak=peak_of(audio),
            prompt_cut=outcome.is_cut,
            **wanted.sampling.solver_settings(),
        )
        kept.append((sound, encode(audio, "wav")[0]))
    return kept
