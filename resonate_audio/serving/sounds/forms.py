"""Requests that bring a sound along: forms of one file and the fields that JSON would have."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.datastructures import FormData, UploadFile

from resonate_audio.core.documents.json_text import parse_json
from resonate_audio.core.errors import ManifestError
from resonate_audio.core.text import visible
from resonate_audio.serving.errors import ApiError, describe_fields, field_names, wants_type

TYPE = "multipart/form-data"
MAX_FIELDS = 50
TEXTS = {
    "input", "negative_prompt", "source_prompt", "model", "solver", "name", "response_format",
    "return",
}  # fmt: skip
"""Fields that are taken as they stand; every other one is JSON: a number, true, [[1.5, 2.25]]."""

FormT = TypeVar("FormT", bound=BaseModel)


@dataclass(frozen=True)
class Sent(Generic[FormT]):
    """A form as it came."""

    fields: FormT
    data: bytes
    """Of the file."""
    file_name: str


async def read_form(
    request: Request, cls: type[FormT], file_field: str, known: Sequence[str] = ()
) -> Sent[FormT]:
    """Read a form.

    Args:
        request: whose body it is.
        cls: its fields.
        file_field: what the field of the file is called.
        known: fields that are told to those who mistype one; all by default.

    Raises:
        ApiError: another kind of body, no file, or a value that is wrong; names the field.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != TYPE:
        raise wants_type(request, TYPE)
    async with request.form(max_files=1, max_fields=MAX_FIELDS) as form:
        file, given = _fields(form, file_field)
        try:
            fields = cls.model_validate(given)
        except ValidationError as error:
            problems = [one | {"loc": ("form", *one["loc"])} for one in error.errors()]
            raise describe_fields(problems, known or field_names(cls)) from error
        if not isinstance(file, UploadFile):
            said = "missing" if file is None else "a text"
            raise ApiError(422, f"{file_field}: {said}; expected a sound file", file_field)
        return Sent(fields, await file.read(), file.filename or "")


def _fields(form: FormData, file_field: str) -> tuple[UploadFile | str | None, dict[str, Any]]:
    """The file, and every other field with the value that it stands for."""
    given: dict[str, Any] = {}
    file = form.get(file_field)
    for name, value in form.multi_items():
        if name in given or len(form.getlist(name)) > 1:
            raise ApiError(422, f"{visible(name)}: given twice", name)
        if name != file_field:
            given[name] = value if name in TEXTS else _value(name, value)
    return file, given


def _value(name: str, value: UploadFile | str) -> Any:
    if not isinstance(value, str):
        raise ApiError(422, f"{visible(name)}: a file; expected a value", name)
    try:
        return parse_json(value, name, ManifestError)
    except ManifestError:
        return value


def form_schema(
    cls: type[BaseModel], file_field: str, leave_out: Sequence[str] = (), needs: Sequence[str] = ()
) -> dict[str, Any]:
    """A form as the description of the API has it.

    Args:
        cls: its fields.
        file_field: what the field of the file is called.
        leave_out: fields that this route does not take.
        needs: fields that it cannot do without.
    """
    schema = cls.model_json_schema()
    fields = {name: one for name, one in schema["properties"].items() if name not in leave_out}
    file = {"type": "string", "format": "binary", "description": "The sound file."}
    properties = {file_field: file} | fields
    form = {"type": "object", "properties": properties, "required": [file_field, *needs]}
    return {"requestBody": {"required": True, "content": {TYPE: {"schema": form}}}}
