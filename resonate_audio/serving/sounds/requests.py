"""What clients may ask for, and the one form that the server works with."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from resonate_audio.core.noise import MAX_SEED
from resonate_audio.core.sampling import OpenSettings, Sampling
from resonate_audio.pipeline.request import RANDOM_SEEDS, Batch
from resonate_audio.serving.errors import ApiError

MAX_PROMPT, MAX_N, MAX_STEPS, MAX_GUIDANCE = 2000, 64, 200, 50.0
MAX_LENGTH_S = 3600.0
"""Nonsense beyond this; what a model really makes is checked when the model is known."""
INFLUENCE_TO_GUIDANCE = 15.0
"""ElevenLabs' prompt_influence of 0.3, its default, is our guidance scale of 4.5."""
ELEVENLABS = re.compile(r"eleven_[a-z0-9_]+")
"""Names of their models, which their clients may send by themselves."""
PCM = re.compile(r"(mp3|opus|pcm|wav)_(\d{4,6})(_\d{1,4})?")

ResponseFormat = Literal["wav", "flac", "mp3", "ogg", "opus"]
SampleRate = Literal[8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]


def _check_text(value: object) -> object:
    if isinstance(value, str):
        if any("\ud800" <= sign <= "\udfff" for sign in value):
            raise ValueError("holds half of a surrogate pair, which is no text")
        return value.strip()
    return value


Text = Annotated[str, BeforeValidator(_check_text)]
Seed = Annotated[int, Field(ge=0, le=MAX_SEED)]


class Body(BaseModel):
    """Base of request bodies: exact types, no unknown field, no NaN; null is as good as absent."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _leave_out_null(cls, values: Any) -> Any:
        """Clients that know a field often send it with nothing in it."""
        if not isinstance(values, dict):
            return values
        required = {name for name, field in cls.model_fields.items() if field.is_required()}
        return {name: one for name, one in values.items() if one is not None or name in required}


class JobRequest(OpenSettings, Body):
    """Sounds to make."""

    input: Text = Field(min_length=1, max_length=MAX_PROMPT, description="What to hear.")
    model: str | None = Field(None, max_length=200, description="As /v1/models lists it.")
    negative_prompt: Text | None = Field(
        None, max_length=MAX_PROMPT, description="What not to hear."
    )
    audio_length: float | None = Field(
        None, gt=0, le=MAX_LENGTH_S, description="Seconds; the model's own default if absent."
    )
    num_inference_steps: int | None = Field(  # type: ignore[assignment]
        None, ge=1, le=MAX_STEPS, description="Solver steps; the model's own number if absent."
    )
    guidance_scale: float | None = Field(  # type: ignore[assignment]
        None,
        ge=0,
        le=MAX_GUIDANCE,
        description="1 follows the model as it is; more, the prompt. The model's own if absent; "
        "a model that has its guidance inside takes none.",
    )
    n: int | None = Field(
        None, ge=1, le=MAX_N, description="Number of sounds; 1, or one a seed, if absent."
    )
    seed: Seed | None = Field(None, description="Of the first sound; the next have seed + 1, …")
    seeds: list[Seed] | None = Field(
        None, min_length=1, max_length=MAX_N, description="One for each sound instead."
    )

    @model_validator(mode="after")
    def _check_seeds(self) -> JobRequest:
        if self.seeds is not None:
            if self.seed is not None:
                raise ValueError("seed and seeds are both given; expected one of them")
            if self.n not in (None, len(self.seeds)):
                raise ValueError(f"n is {self.n}, but there are {len(self.seeds)} seeds")
        elif self.seed is not None and self.seed + self.num_sounds - 1 > MAX_SEED:
            raise ValueError(f"seed + n - 1 passes {MAX_SEED}")
        return self

    @property
    def num_sounds(self) -> int:
        """How many sounds are wanted."""
        return len(self.seeds) if self.seeds is not None else self.n or 1

    def chosen_seeds(self) -> tuple[int, ...]:
        """The seeds, drawn now where the client left them open."""
        if self.seeds is not None:
            return tuple(self.seeds)
        if self.seed is not None:
            return tuple(range(self.seed, self.seed + self.num_sounds))
        return tuple(secrets.randbelow(RANDOM_SEEDS) for _ in range(self.num_sounds))


class GenerateRequest(JobRequest):
    """Sounds to make, and how to send them."""

    model_config = ConfigDict(populate_by_name=True)

    response_format: ResponseFormat = "wav"
    sample_rate: SampleRate | None = Field(None, description="Hz; the model's own if absent.")
    answer: Literal["audio", "json", "zip"] | None = Field(
        None,
        alias="return",
        description="One sound as it is, JSON with base64, or a zip. By default audio for one "
        "sound and zip for more.",
    )

    @model_validator(mode="after")
    def _check_answer(self) -> GenerateRequest:
        if self.answer == "audio" and self.num_sounds > 1:
            raise ValueError(
                f"return: audio holds one sound, and {self.num_sounds} are wanted; "
                "expected zip or json"
            )
        return self

    @property
    def form(self) -> Literal["audio", "json", "zip"]:
        """How to send the sounds."""
        return self.answer or ("zip" if self.num_sounds > 1 else "audio")


class SoundGenerationRequest(Body):
    """ElevenLabs' and LocalAI's form of a request for one sound."""

    text: Text = Field(min_length=1, max_length=MAX_PROMPT)
    duration_seconds: float | None = Field(None, gt=0, le=MAX_LENGTH_S)
    prompt_influence: float | None = Field(
        None, ge=0, le=1, description="Guidance scale = 15 times this; the model's own if absent."
    )
    model_id: str | None = Field(
        None,
        max_length=200,
        description="As /v1/models lists it; ElevenLabs' own names mean the default one.",
    )
    loop: Literal[False] | None = Field(
        None, description="No model here makes sounds that loop: false, or absent."
    )
    seed: Seed | None = None

    def as_job(self) -> JobRequest:
        """The same in our words."""
        influence = self.prompt_influence
        return JobRequest(
            input=self.text,
            model=None if ELEVENLABS.fullmatch(self.model_id or "") else self.model_id,
            audio_length=self.duration_seconds,
            guidance_scale=(
                None if influence is None else round(INFLUENCE_TO_GUIDANCE * influence, 6)
            ),
            seed=self.seed,
        )


@dataclass(frozen=True)
class Wanted:
    """A request that was checked against its model: nothing is left open."""

    model: str
    batch: Batch
    sampling: Sampling

    @property
    def num_rows(self) -> int:
        """Sounds to make."""
        return len(self.batch.seeds)


@dataclass(frozen=True)
class OutputFormat:
    """A codec with its sample rate, as ElevenLabs writes them: ``mp3_44100_128``."""

    codec: str
    sample_rate_hz: int


def parse_output_format(text: str) -> OutputFormat:
    """Read ElevenLabs' ``output_format``; a bit rate is accepted, and ours is chosen by quality.

    Raises:
        ApiError: not one of mp3, opus, pcm or wav with a rate from 8000 to 48000.
    """
    found = PCM.fullmatch(text)
    if found is None or not 8000 <= int(found[2]) <= 48_000:
        raise ApiError(
            422,
            f"output_format: {text[:60]!r} is none of mp3_RATE, opus_RATE, pcm_RATE or wav_RATE "
            "with a rate from 8000 to 48000",
            "output_format",
        )
    return OutputFormat(found[1], int(found[2]))
