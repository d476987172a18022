"""What clients may ask for, and the one form that the server works with."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from resonate_audio.core.edit import LONGEST_S, Edit, Finish
from resonate_audio.core.noise import MAX_SEED
from resonate_audio.core.sampling import OpenSettings, Sampling
from resonate_audio.core.text import check_encodable, one_line
from resonate_audio.core.types import Audio
from resonate_audio.pipeline.request import RANDOM_SEEDS, Batch
from resonate_audio.serving.errors import ApiError

MAX_PROMPT, MAX_N, MAX_STEPS, MAX_GUIDANCE = 2000, 64, 200, 50.0
MAX_LENGTH_S = 3600.0
"""Nonsense beyond this; what a server really makes is checked when the model is known."""
MAX_PARTS, MAX_NAME = 64, 200
INFLUENCE_TO_GUIDANCE = 15.0
"""ElevenLabs' prompt_influence of 0.3, its default, is our guidance scale of 4.5."""
ELEVENLABS = re.compile(r"eleven_[a-z0-9_]+")
"""Names of their models, which their clients may send by themselves."""
ELEVENLABS_FIELDS = {
    "input": "text",
    "audio_length": "duration_seconds",
    "model": "model_id",
    "guidance_scale": "prompt_influence",
}
"""What their form of request calls our fields."""
PCM = re.compile(r"(mp3|opus|pcm|wav)_(\d{4,6})(_\d{1,4})?")

ResponseFormat = Literal["wav", "flac", "mp3", "ogg", "opus"]
SampleRate = Literal[8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000]


def _check_text(value: object) -> object:
    if isinstance(value, str):
        check_encodable(value)
        return value.strip()
    return value


def _check_line(value: object) -> object:
    return one_line(value, None) if isinstance(value, str) else value


def _check_tag(value: object) -> object:
    return value.lstrip("# ") if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_check_text)]
Line = Annotated[Text, AfterValidator(_check_line)]
"""A text without line breaks and controls."""
Tag = Annotated[Line, AfterValidator(_check_tag)]
"""What is found by #word is kept as the word."""
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


class FinishSettings(Body):
    """What is done to a sound in the end, in this order: trim, length, fade, level."""

    trim_db: float | None = Field(
        None,
        ge=-120,
        le=-6,
        description="Cut silence off both ends: what lies this much under the loudest moment, "
        "such as -50.",
    )
    length_s: float | None = Field(
        None, ge=0.001, le=LONGEST_S, description="Exactly this long: cut off, or silence follows."
    )
    fade_s: float | None = Field(None, ge=0, le=60, description="Seconds of fade at either end.")
    loudness_lufs: float | None = Field(
        None,
        ge=-60,
        le=-5,
        description="Integrated loudness, such as -16, under a true peak of -1 dB.",
    )
    normalize_db: float | None = Field(
        None, ge=-60, le=0, description="True peak against full scale, such as -1."
    )

    @model_validator(mode="after")
    def _check_levels(self) -> FinishSettings:
        if self.loudness_lufs is not None and self.normalize_db is not None:
            raise ValueError("loudness_lufs and normalize_db are both given; expected one level")
        return self

    @property
    def finish(self) -> Finish | None:
        """The same as the pipeline has it; None where nothing is wanted."""
        values = {name: getattr(self, name) for name in FinishSettings.model_fields}
        wanted = Finish(**values)
        return None if wanted == Finish() else wanted


class PartRequest(Body):
    """What shall be heard from one moment to another."""

    start_s: float = Field(ge=0, le=MAX_LENGTH_S)
    stop_s: float = Field(gt=0, le=MAX_LENGTH_S)
    prompt: Text = Field(min_length=1, max_length=MAX_PROMPT)


class SoundSettings(FinishSettings, OpenSettings):
    """How sounds are made, besides what they are made of."""

    model: str | None = Field(
        None,
        max_length=200,
        description="As /v1/models lists it; with adapters: nano+rain, nano+rain:0.5+wind.",
    )
    negative_prompt: Text | None = Field(
        None, max_length=MAX_PROMPT, description="What not to hear."
    )
    num_inference_steps: int | None = Field(
        None, ge=1, le=MAX_STEPS, description="Solver steps; the model's own number if absent."
    )
    guidance_scale: float | None = Field(
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
    def _check_seeds(self) -> SoundSettings:
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


class EditFields(Body):
    """What the ways of working with a sound take; each takes those of `TAKES`."""

    strength: float | None = Field(
        None,
        ge=0,
        le=1,
        description="0 keeps the sound, 1 is a free take. vary needs it; reword has 0.8.",
    )
    source_prompt: Text | None = Field(
        None,
        max_length=MAX_PROMPT,
        description="What the sound is; what its file says of it if absent.",
    )
    spans: list[Annotated[list[float], Field(min_length=2, max_length=2)]] | None = Field(
        None,
        min_length=1,
        max_length=MAX_PARTS,
        description="Start and end of each stretch to make anew, seconds.",
    )
    before_s: float | None = Field(
        None, ge=0, le=LONGEST_S, description="Seconds to put before the sound."
    )
    after_s: float | None = Field(
        None, ge=0, le=LONGEST_S, description="Seconds to put after the sound."
    )
    seam_s: float | None = Field(
        None, gt=0, le=LONGEST_S, description="Stretch around the ends that is made anew; 0.5."
    )

    def edit_values(self) -> dict[str, Any]:
        """What was given, by name."""
        names = EditFields.model_fields
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}


SourceKind = Literal["vary", "reword", "replace", "extend", "loop"]
TAKES: dict[SourceKind, tuple[str, ...]] = {
    "vary": ("strength",),
    "reword": ("strength", "source_prompt"),
    "replace": ("spans",),
    "extend": ("before_s", "after_s"),
    "loop": ("seam_s",),
}
NEEDS: dict[SourceKind, tuple[str, ...]] = {
    "vary": ("strength",),
    "reword": (),
    "replace": ("spans",),
    "extend": (),
    "loop": (),
}


class EditRequest(EditFields):
    """Something to do with a sound of the library."""

    kind: SourceKind
    source: str = Field(min_length=1, max_length=100, description="Id of a sound in the library.")


class JobRequest(SoundSettings):
    """Sounds to make, of a text or of another sound."""

    input: Text = Field(
        "",
        max_length=MAX_PROMPT,
        description="What to hear. Needed without parts and edit; an edit takes what its sound's "
        "file says if absent.",
    )
    audio_length: float | None = Field(
        None, gt=0, le=MAX_LENGTH_S, description="Seconds; the model's own default if absent."
    )
    loop: bool = Field(False, description="The end shall go on into the beginning.")
    parts: list[PartRequest] | None = Field(
        None,
        min_length=1,
        max_length=MAX_PARTS,
        description="Instead of input and audio_length: what is heard when, one after the other.",
    )
    edit: EditRequest | None = Field(None, description="What to do with a sound of the library.")


class AnswerSettings(SoundSettings):
    """How made sounds are sent."""

    model_config = ConfigDict(populate_by_name=True)

    response_format: ResponseFormat = "wav"
    sample_rate: SampleRate | None = Field(None, description="Hz; the sound's own if absent.")
    answer: Literal["audio", "json", "zip"] | None = Field(
        None,
        alias="return",
        description="One sound as it is, JSON with base64, or a zip. By default audio for one "
        "sound and zip for more.",
    )

    @model_validator(mode="after")
    def _check_answer(self) -> AnswerSettings:
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


class GenerateRequest(AnswerSettings, JobRequest):
    """Sounds to make, and how to send them."""


class EditForm(AnswerSettings, EditFields):
    """Something to do with a sound that comes with it, and how to send what is made."""

    input: Text = Field(
        "", max_length=MAX_PROMPT, description="What to hear; what the file says of it if absent."
    )

    def as_job(self, kind: SourceKind) -> JobRequest:
        """The same with a sound of the library; which one is not said."""
        shared = {name: getattr(self, name) for name in SoundSettings.model_fields}
        edit = EditRequest(kind=kind, source="sent", **self.edit_values())
        return JobRequest(input=self.input, edit=edit, **shared)


class FinishForm(FinishSettings):
    """What to do with a sound that comes with it, without any model."""

    response_format: ResponseFormat = "wav"
    sample_rate: SampleRate | None = Field(None, description="Hz; the sound's own if absent.")


class SoundGenerationRequest(Body):
    """ElevenLabs' and LocalAI's form of a request for one sound."""

    text: Text = Field(min_length=1, max_length=MAX_PROMPT)
    duration_seconds: float | None = Field(None, gt=0, le=MAX_LENGTH_S)
    prompt_influence: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Guidance scale = 15 times this; the model's own if absent. Does nothing to a "
        "model that has its guidance inside.",
    )
    model_id: str | None = Field(
        None,
        max_length=200,
        description="As /v1/models lists it; ElevenLabs' own names mean the default one.",
    )
    loop: bool = Field(False, description="The end shall go on into the beginning.")
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
            loop=self.loop,
            seed=self.seed,
        )


class SoundChanges(Body):
    """What people note about a sound of the library; what is absent stays."""

    name: Line | None = Field(
        None, max_length=MAX_NAME, description="Empty: the prompt stands for it."
    )
    tags: list[Annotated[Tag, Field(min_length=1, max_length=40)]] | None = Field(
        None, max_length=20, description="Words to find it by; q=#word finds them."
    )
    favourite: bool | None = None

    @field_validator("tags")
    @classmethod
    def _once(cls, tags: list[str] | None) -> list[str] | None:
        return None if tags is None else list(dict.fromkeys(tags))


class ZipRequest(Body):
    """Sounds of the library in one file."""

    ids: list[Annotated[str, Field(min_length=1, max_length=100)]] = Field(
        min_length=1, max_length=100
    )
    response_format: ResponseFormat = "wav"
    sample_rate: SampleRate | None = Field(None, description="Hz; each sound's own if absent.")


@dataclass(frozen=True, eq=False)
class Wanted:
    """A request that was checked against its model: nothing is left open."""

    model: str
    batch: Batch
    sampling: Sampling
    edit: Edit | None = None
    """What is done besides following a prompt."""
    source: Audio | None = None
    """What it is done with."""
    source_id: str | None = None
    """Its id, where it lies in the library."""
    finish: Finish | None = None
    is_alone: bool = False
    """Made row by row: an edit, or longer than the model takes at once."""

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
