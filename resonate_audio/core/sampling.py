"""How a sound is made besides its words and its seed: each setting is declared here and only here.

A field of `SolverSettings` is an option of every command that generates, a field of every request
over HTTP and of every recipe file that has sounds made, a keyword of `Resonate.generate`, and part
of the recipe in each sound. Its default is what recipes written before it meant.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypedDict, TypeVar, cast

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticCustomError

from resonate_audio.core.errors import InputError

SolverName = Literal["euler", "heun", "midpoint", "ab2"]
MAX_STEPS, MAX_GUIDANCE = 10_000, 1000.0
NO_GUIDANCE = 1.0
"""The guidance scale that adds nothing to what a network predicts."""
EVERYWHERE = (0.0, 1.0)
"""Noise levels from the sound to noise."""
MAX_SHIFT = 20.0
INTERVAL = "interval"
NOISE_LEVEL = "a number from 0 (the sound) to 1 (noise)"
MAX_ROWS = 1024
"""Sounds that are computed together at most: a recipe lists them all."""


@dataclass(frozen=True)
class Shown:
    """How people meet a setting."""

    option: str
    """On the command line."""
    message: str
    """Its value in an error message."""
    expected: str


def whole_number(value: object) -> int:
    """A whole number of any library: Python's, NumPy's, torch's; not a bool, float or text."""
    if isinstance(value, bool):
        raise ValueError("expected a whole number")
    try:
        return operator.index(cast(Any, value))
    except TypeError:
        raise ValueError("expected a whole number") from None


def real_number(value: object) -> float:
    """A number of any library as a float; not a bool, text or nothing."""
    if isinstance(value, bool | str | bytes) or not hasattr(value, "__float__"):
        raise ValueError("expected a number")
    try:
        return float(cast(Any, value))
    except OverflowError:
        raise ValueError("expected a number that a float can hold") from None


def _noise_level(default: float, description: str) -> Any:
    return Field(default, ge=0, le=1, allow_inf_nan=False, description=description)


class SolverSettings(BaseModel):
    """What shapes a sound besides its words, its seed and its length."""

    model_config = ConfigDict(validate_default=True)

    num_inference_steps: Annotated[
        int,
        BeforeValidator(whole_number),
        Shown("--steps", "{} inference steps", f"a whole number from 1 to {MAX_STEPS}"),
    ] = Field(25, ge=1, le=MAX_STEPS, description="Solver steps: more is finer and slower.")
    guidance_scale: Annotated[
        float,
        BeforeValidator(real_number),
        Shown("--guidance", "guidance scale {}", f"a number from 0 to {MAX_GUIDANCE:g}, say 4.5"),
    ] = Field(
        4.5,
        ge=0,
        le=MAX_GUIDANCE,
        allow_inf_nan=False,
        description="How hard to follow the prompt; 1 adds nothing to the model.",
    )
    solver: Annotated[
        SolverName, Shown("--solver", "solver {}", "euler, heun, midpoint or ab2")
    ] = Field(
        "euler",
        description="Rule of one step: euler; heun and midpoint evaluate the model twice; ab2 "
        "goes on from the step before.",
    )
    guidance_low: Annotated[
        float,
        BeforeValidator(real_number),
        Shown("--guidance-low", "guidance from noise level {}", NOISE_LEVEL),
    ] = _noise_level(0.0, "Guide at this noise level and above; below, one evaluation is enough.")
    guidance_high: Annotated[
        float,
        BeforeValidator(real_number),
        Shown("--guidance-high", "guidance to noise level {}", NOISE_LEVEL),
    ] = _noise_level(1.0, "Guide at this noise level and below; 1 is pure noise.")
    time_shift: Annotated[
        float,
        BeforeValidator(real_number),
        Shown("--time-shift", "time shift {}", f"a number from {1 / MAX_SHIFT:g} to {MAX_SHIFT:g}"),
    ] = Field(
        1.0,
        ge=1 / MAX_SHIFT,
        le=MAX_SHIFT,
        allow_inf_nan=False,
        description="Above 1, more of the steps are spent near the noise; 1 spaces them equally.",
    )

    @field_validator("guidance_high")
    @classmethod
    def _check_interval(cls, value: float, info: Any) -> float:
        low = info.data.get("guidance_low", 0.0)
        if value < low:
            raise PydanticCustomError(INTERVAL, f"expected {low:g}, where guidance begins, or more")
        return value

    @property
    def guidance_interval(self) -> tuple[float, float]:
        """Lowest and highest noise level where guidance counts."""
        return self.guidance_low, self.guidance_high

    def solver_settings(self) -> dict[str, Any]:
        """The settings by name, to be handed on."""
        return {name: getattr(self, name) for name in SolverSettings.model_fields}


FAST: dict[str, Any] = {"num_inference_steps": 8, "solver": "ab2"}
"""Settings of `--fast`, a third of the evaluations: see benchmarks/fewer_evaluations.py."""


class OpenSettings(SolverSettings):
    """Settings of which some may be left open: then the model chooses, as its folder says."""

    num_inference_steps: Annotated[
        int | None,
        BeforeValidator(lambda value: None if value is None else whole_number(value)),
    ] = Field(  # type: ignore[assignment]
        None, ge=1, le=MAX_STEPS, description="Solver steps; the model's own if absent."
    )
    guidance_scale: Annotated[
        float | None,
        BeforeValidator(lambda value: None if value is None else real_number(value)),
    ] = Field(  # type: ignore[assignment]
        None,
        ge=0,
        le=MAX_GUIDANCE,
        allow_inf_nan=False,
        description="How hard to follow the prompt; the model's own if absent.",
    )

    def asked(self) -> dict[str, Any]:
        """The settings that are not left open, by name."""
        return {k: v for k, v in self.solver_settings().items() if v is not None}


class FurtherSettings(TypedDict, total=False):
    """Settings that callers in Python give by name; for editors and type checkers."""

    solver: SolverName
    guidance_low: float
    guidance_high: float
    time_shift: float


class Sampling(SolverSettings):
    """What shapes a sound besides its prompt and seed; checked when it is made."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    duration_s: Annotated[
        float, BeforeValidator(real_number), Shown("--duration", "duration of {} s", "seconds")
    ] = Field(description="Seconds per sound; each model has its own range.")

    def __init__(
        self,
        duration_s: float,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        **further: Any,
    ) -> None:
        """Take the settings; None stands for the default.

        Raises:
            InputError: one is unknown, no number or out of range; says what is expected.
        """
        given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale}
        given = {name: value for name, value in (given | further).items() if value is not None}
        try:
            super().__init__(duration_s=duration_s, **given)
        except ValidationError as error:
            raise _as_input_error(error) from error


def shown_as(field: FieldInfo) -> Shown:
    """How people meet a setting."""
    return next(item for item in field.metadata if isinstance(item, Shown))


def _as_input_error(error: ValidationError) -> InputError:
    first = error.errors()[0]
    name, value = str(first["loc"][0]), first["input"]
    field = Sampling.model_fields.get(name)
    if field is None:
        known = ", ".join(Sampling.model_fields)
        return InputError(f"{name}: no such setting; settings are {known}")
    shown = shown_as(field)
    expected = first["msg"] if first["type"] == INTERVAL else f"expected {shown.expected}"
    return InputError(f"{shown.message.format(value)}: {expected}")


ClassT = TypeVar("ClassT", bound=type)


def with_settings(cls: ClassT) -> ClassT:
    """Append the settings that a dataclass does not name itself, so that it holds every one.

    Their types are plain ones: what a recipe of another version says can be read, and is checked
    when it is used.
    """
    for name, field in SolverSettings.model_fields.items():
        if name not in cls.__annotations__:
            cls.__annotations__[name] = type(field.default).__name__
            setattr(cls, name, field.default)
    return cls
