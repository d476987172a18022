"""The recipe inside a sound file: written so that it fits, read as anybody's input."""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from typing import Any

from pydantic import TypeAdapter, ValidationError

from resonate_audio.core.documents.json_text import parse_object
from resonate_audio.core.documents.text import one_line
from resonate_audio.core.edit import Edit
from resonate_audio.core.errors import AudioError, InputError
from resonate_audio.core.noise import MAX_SEED
from resonate_audio.core.sampling import MAX_ROWS
from resonate_audio.core.types import Recipe

RECIPE_KEY = "resonate_recipe"
PLAIN_RECIPE_BYTES = 16_000
"""Longer recipes (a big batch) are deflated."""
MAX_COMMENT_BYTES = 1 << 22
MAX_RECIPE_BYTES = 1 << 24
"""Once it is inflated."""
MAX_THREADS, MAX_TEXT, MAX_NAME = 1024, 100_000, 1_000


def format_recipe(recipe: Recipe) -> str:
    """A recipe as the one-line ASCII JSON that is embedded in files."""
    fields = dataclasses.asdict(recipe)
    del fields["unknown_fields"]
    for name in ("edit", "finish", "adapters"):
        if not fields[name]:  # most sounds have none, and older versions do not know them
            del fields[name]
    plain = json.dumps({RECIPE_KEY: fields})
    if len(plain) <= PLAIN_RECIPE_BYTES:
        return plain
    packed = base64.b64encode(zlib.compress(plain.encode("ascii"), 9)).decode("ascii")
    return json.dumps({RECIPE_KEY: packed})


def fitting_recipe(recipe: Recipe, max_bytes: int) -> str | None:
    """The recipe as text of limited length: without its batch where that is too much, or None."""
    alone = dataclasses.replace(
        recipe, row=0, batch_prompts=(), batch_negative_prompts=(), batch_seeds=()
    )
    for kept in (recipe, alone):
        text = format_recipe(kept)
        if len(text) <= max_bytes and _problem(kept) is None:
            return text
    return None


def parse_recipe(comment: str, source: str) -> Recipe | None:
    """Read a recipe back from a file's comment; None when the comment is something else.

    Fields that another version wrote do not keep the sound from being read: they are named in
    ``unknown_fields``, and ``Recipe.sampling`` refuses them.

    Raises:
        AudioError: it is a recipe of ours, and damaged, too large, or out of the range of what
            can be asked for.
    """
    if not comment.startswith(f'{{"{RECIPE_KEY}"'):
        return None
    place = f"{source}: the recipe in its metadata is damaged"
    fields: Any = _object(comment, place).get(RECIPE_KEY)
    if isinstance(fields, str):
        fields = _object(_inflated(fields, place), place).get(RECIPE_KEY)
    if not isinstance(fields, dict):
        raise AudioError(f"{place} (expected an object, got {type(fields).__name__})")
    unknown = sorted(set(fields) - {field.name for field in dataclasses.fields(Recipe)})
    try:
        recipe = TypeAdapter(Recipe).validate_python({**fields, "unknown_fields": unknown})
    except (ValidationError, InputError) as error:
        raise AudioError(f"{place} ({one_line(error)})") from error
    problem = _problem(recipe)
    if problem is not None:
        raise AudioError(f"{place} ({problem})")
    return recipe


def _object(text: str, place: str) -> dict[str, Any]:
    if len(text) > MAX_RECIPE_BYTES:
        raise AudioError(f"{place} (over {MAX_RECIPE_BYTES:,} letters)")
    return parse_object(text, place, AudioError)


def _inflated(packed: str, place: str) -> str:
    if len(packed) > MAX_COMMENT_BYTES:
        raise AudioError(f"{place} (over {MAX_COMMENT_BYTES:,} letters)")
    unpack = zlib.decompressobj()
    try:
        data = unpack.decompress(base64.b64decode(packed), MAX_RECIPE_BYTES)
        if not unpack.eof:
            raise AudioError(f"{place} (cut off, or over {MAX_RECIPE_BYTES:,} letters)")
        return data.decode("ascii")
    except (ValueError, zlib.error) as error:
        raise AudioError(f"{place} ({one_line(error)})") from error


def _problem(recipe: Recipe) -> str | None:
    """Why a recipe is none that anybody can have asked for; its settings are checked later."""
    rows = max(1, len(recipe.batch_prompts))
    texts = [recipe.prompt, recipe.negative_prompt]
    texts += recipe.batch_prompts + recipe.batch_negative_prompts
    edit = recipe.edit or Edit("loop")
    texts += [edit.source_prompt, *(part.prompt for part in edit.parts)]
    names = [recipe.model, recipe.model_fingerprint, recipe.device, recipe.dtype, recipe.version]
    names += recipe.adapters
    problems = {
        f"a batch of {rows:,}; {MAX_ROWS:,} at most": rows > MAX_ROWS,
        f"row {recipe.row} of a batch of {rows}": not 0 <= recipe.row < rows,
        f"a text of over {MAX_TEXT:,} letters": max(map(len, texts)) > MAX_TEXT,
        f"a name of over {MAX_NAME:,} letters": max(map(len, names)) > MAX_NAME,
        f"{recipe.num_threads} threads; {MAX_THREADS:,} at most": not (
            0 <= recipe.num_threads <= MAX_THREADS
        ),
        "negative prompts and seeds are not as many as prompts": bool(recipe.batch_prompts)
        and not len(recipe.batch_negative_prompts) == len(recipe.batch_seeds) == rows,
        f"a seed out of 0 to {MAX_SEED}": not all(
            0 <= seed <= MAX_SEED for seed in (recipe.seed, *recipe.batch_seeds)
        ),
        f"an edit of over {MAX_ROWS:,} stretches": len(edit.spans_s + edit.parts) > MAX_ROWS,
        "a gain out of 0 to 1": not 0 <= recipe.gain <= 1,
    }
    return next((text for text, is_so in problems.items() if is_so), None)
