"""What a request asks for besides following a prompt, checked and made."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from resonate_audio.core.edit import NO_ENDS, Edit, Part
from resonate_audio.core.errors import InputError
from resonate_audio.core.sampling import Sampling
from resonate_audio.core.types import Audio
from resonate_audio.model.presets import ModelConfig
from resonate_audio.pipeline.edit import (
    REWORD_STRENGTH,
    SEAM_S,
    check_edit,
    check_source,
    said_in_parts,
    said_of,
    source_sha256,
)
from resonate_audio.pipeline.path import Resonate
from resonate_audio.pipeline.remake import Work, remake
from resonate_audio.pipeline.request import Batch
from resonate_audio.serving.errors import ApiError
from resonate_audio.serving.sounds.requests import NEEDS, TAKES, EditRequest, JobRequest, Wanted


@dataclass(frozen=True, eq=False)
class Bounds:
    """What a model on this server makes, and how the client's form of request calls our fields."""

    config: ModelConfig
    name: str
    longest_s: float
    fields: Mapping[str, str]
    """Where they are called otherwise."""

    def refusal(self, field: str, message: str) -> ApiError:
        """422 that names a field as the client calls it."""
        named = self.fields.get(field, field)
        return ApiError(422, f"{named}: {message}", named)

    def sampling(
        self, duration_s: float, usual: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> Sampling:
        """Settings of the solver.

        Args:
            duration_s: seconds of a sound.
            usual: settings that count where they are not asked for.
            asked: those of the request.

        Raises:
            ApiError: the model does not take one, which is named where it is one alone.
        """
        try:
            return self.config.sampling(duration_s, **{**usual, **asked})
        except InputError as error:
            refused = str(error)
        for name, value in asked.items():
            try:
                self.config.sampling(duration_s, **{name: value})
            except InputError as error:
                raise ApiError(422, str(error), self.fields.get(name, name)) from error
        raise ApiError(422, refused)

    def check_length(self, field: str, duration_s: float) -> None:
        """Refuse a length that the model does not make.

        Raises:
            ApiError: names the range.
        """
        shortest_s = self.config.min_duration_s
        if not shortest_s <= duration_s <= self.longest_s:
            raise self.refusal(
                field,
                f"{duration_s:g} s; {self.name} makes {shortest_s:g} to {self.longest_s:g} s",
            )


@dataclass(frozen=True)
class Subject:
    """What shall be heard, for how long, made how."""

    prompt: str
    duration_s: float
    edit: Edit | None = None


def subject_of(request: JobRequest, bounds: Bounds, source: Audio | None) -> Subject:
    """Check what a request wants to hear.

    Args:
        request: as it came.
        bounds: of its model.
        source: the sound that its edit is done with.

    Raises:
        ApiError: names the field that is wrong.
    """
    if request.finish is not None and (request.length_s or 0) > bounds.longest_s:
        raise bounds.refusal("length_s", f"{request.length_s:g} s; {bounds.longest_s:g} s at most")
    if request.edit is not None:
        _refuse_beside(request, bounds, "edit", ("parts", "loop", "audio_length"))
        assert source is not None, "an edit without its source"
        if request.edit.kind == "loop":
            _refuse_ends(request, bounds)
        return _edited(request.edit, request.input, bounds, source)
    if request.parts is not None:
        _refuse_beside(request, bounds, "parts", ("input", "loop", "audio_length"))
        return _sequence(request, bounds)
    if not request.input:
        raise bounds.refusal("input", "expected a text that says what to hear")
    usual_s = min(bounds.config.default_duration_s, bounds.longest_s)
    duration_s = usual_s if request.audio_length is None else request.audio_length
    bounds.check_length("audio_length", duration_s)
    if request.loop:
        _refuse_ends(request, bounds)
    return Subject(request.input, duration_s, Edit("loop") if request.loop else None)


def _refuse_ends(request: JobRequest, bounds: Bounds) -> None:
    for name, value in (request.finish.at_ends() if request.finish else {}).items():
        raise bounds.refusal(name, f"{value:g}: {NO_ENDS}")


def _refuse_beside(
    request: JobRequest, bounds: Bounds, given: str, others: tuple[str, ...]
) -> None:
    for other in others:
        if getattr(request, other):
            raise bounds.refusal(other, f"cannot stand beside {given}; give one of them")


def _sequence(request: JobRequest, bounds: Bounds) -> Subject:
    parts = tuple(Part(part.start_s, part.stop_s, part.prompt) for part in request.parts or ())
    edit = Edit("sequence", parts=parts)
    _check(edit, None, bounds, "parts")
    bounds.check_length("parts", parts[-1].stop_s)
    return Subject(said_in_parts(parts), parts[-1].stop_s, edit)


def _edited(asked: EditRequest, prompt: str, bounds: Bounds, source: Audio) -> Subject:
    kind, given = asked.kind, asked.edit_values()
    for name in given:
        if name not in TAKES[kind]:
            known = ", ".join(TAKES[kind])
            raise bounds.refusal(f"edit.{name}", f"not for {kind}, which takes {known}")
    for name in NEEDS[kind]:
        if name not in given:
            raise bounds.refusal(f"edit.{name}", f"missing; {kind} needs it")
    if kind == "reword" and not prompt:
        raise bounds.refusal("input", "expected a text that says what the sound shall be")
    try:
        check_source(source, "it", bounds.config.min_duration_s, bounds.longest_s)
    except InputError as error:
        raise bounds.refusal("edit.source", str(error)) from error
    edit = Edit(
        kind,
        source_sha256(source),
        strength=given.get("strength", REWORD_STRENGTH if kind == "reword" else None),
        source_prompt=said_of(source, asked.source_prompt) if kind == "reword" else "",
        spans_s=tuple((start_s, stop_s) for start_s, stop_s in given.get("spans", ())),
        before_s=given.get("before_s", 0.0),
        after_s=given.get("after_s", 0.0),
        seam_s=given.get("seam_s", SEAM_S) if kind == "loop" else None,
    )
    named = f"edit.{next((name for name in TAKES[kind] if name in given), TAKES[kind][0])}"
    _check(edit, source, bounds, named)
    duration_s = edit.before_s + source.duration_s + edit.after_s
    bounds.check_length(named, duration_s)
    return Subject(said_of(source, prompt or None), duration_s, edit)


def _check(edit: Edit, source: Audio | None, bounds: Bounds, field: str) -> None:
    try:
        check_edit(edit, source)
    except InputError as error:
        raise bounds.refusal(field, str(error)) from error


def remade(
    model: Resonate, wanted: Wanted, batch: Batch, still_wanted: Callable[[int], bool]
) -> Audio:
    """Make one row of an edit.

    Args:
        model: in memory.
        wanted: the request.
        batch: its row alone, so that a seed's sound does not depend on its company.
        still_wanted: told how many of the request's steps are done; says whether to go on.

    Raises:
        Cancelled: it is no longer wanted.
    """
    assert wanted.edit is not None, "no edit"
    num_steps = wanted.sampling.num_inference_steps
    work = Work(
        wanted.edit,
        batch,
        wanted.sampling,
        # Steps are skipped, or made several times: they are told as a share of those asked for.
        lambda done, in_all: still_wanted(done * num_steps // max(1, in_all)),
    )
    return remake(model, work, wanted.source)[0]
