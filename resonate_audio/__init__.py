"""Text in, sound out; and a generator that learns from feedback.

The names below are the public interface; each is imported when it is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resonate_audio.audio.io import read_audio, read_recipe, write_audio
    from resonate_audio.core.edit import Finish
    from resonate_audio.core.errors import ResonateError
    from resonate_audio.core.sampling import FAST
    from resonate_audio.core.types import Audio, Prompts, Recipe
    from resonate_audio.model.presets import PRESETS, ModelConfig
    from resonate_audio.pipeline.path import Resonate

_HOMES = {
    "Audio": "core.types",
    "FAST": "core.sampling",
    "Finish": "core.edit",
    "ModelConfig": "model.presets",
    "PRESETS": "model.presets",
    "Prompts": "core.types",
    "Recipe": "core.types",
    "Resonate": "pipeline.path",
    "ResonateError": "core.errors",
    "read_audio": "audio.io",
    "read_recipe": "audio.io",
    "write_audio": "audio.io",
}

__all__ = [
    "FAST",
    "PRESETS",
    "Audio",
    "Finish",
    "ModelConfig",
    "Prompts",
    "Recipe",
    "Resonate",
    "ResonateError",
    "read_audio",
    "read_recipe",
    "write_audio",
]


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
