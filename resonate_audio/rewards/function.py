"""A plain Python function as a judge, named by the place where it is written."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from resonate_audio.core.errors import ConfigError, RewardError
from resonate_audio.core.foreign import foreign_code
from resonate_audio.core.types import Rewards, Waveform
from resonate_audio.rewards.base import Reward, in_thread, make_rewards

Scores = Sequence[float] | np.ndarray | torch.Tensor
ScoreFunction = Callable[
    [Float32[np.ndarray, "row sample"], int, list[str]], Scores | Awaitable[Scores]
]
"""(samples, sample_rate_hz, prompts) -> one number a row, more is better; sync or async."""


NO_NUMBERS = "cmMSUV"
"""Kinds of NumPy's types that would be made into numbers: complex ones, times, texts, records."""


class FunctionReward:
    """Scores with a function of plain arrays.

    The function gets the sounds as they were generated, at their own rate and level, and may do
    with its arrays what it likes.
    """

    def __init__(self, function: ScoreFunction, name: str) -> None:
        self._function = function
        self.name = name

    async def score(self, audio: Waveform, prompts: Sequence[str]) -> Rewards:
        """Call the function; an async one works beside everything else.

        Raises:
            RewardError: it failed, or did not give one finite number a row.
        """
        samples = audio.samples.detach().cpu().float().numpy().copy()

        def call() -> Any:
            with foreign_code(self.name, RewardError):  # before an exit reaches the event loop
                return self._function(samples, audio.sample_rate_hz, list(prompts))

        given = await in_thread(call)
        if inspect.isawaitable(given):
            with foreign_code(self.name, RewardError):
                given = await given
        return make_rewards(self._numbers(given), self.name, len(prompts))

    def _numbers(self, given: Any) -> torch.Tensor:
        failure = RewardError(
            f"{self.name}: gave {type(given).__name__}; expected one number a row"
        )
        try:
            if isinstance(given, torch.Tensor):
                numbers = given
            else:
                plain = np.asarray(given)
                if plain.dtype.kind in NO_NUMBERS:
                    raise failure
                numbers = torch.from_numpy(plain.astype(np.float64))
        except Exception as error:  # an object of somebody else may raise anything
            raise failure from error
        if numbers.ndim != 1 or numbers.is_complex():
            raise failure
        return numbers.double()


def open_function(place: str) -> Reward:
    """Find a judge that somebody else wrote.

    Args:
        place: ``pkg.mod:name``; the module is looked for among the installed ones and in the
            current folder. ``name`` is a function like `ScoreFunction`, an object that is a
            `Reward`, or a class of such objects that takes no argument.

    Raises:
        ConfigError: there is no such module or name, or what is there cannot judge.
    """
    found = find_object(place, "judge")
    if inspect.isclass(found):
        with foreign_code(f"judge {place}: cannot be made", ConfigError):
            found = found()
    if isinstance(found, Reward):
        return found
    if not callable(found):
        raise _no_function("judge", place)
    return FunctionReward(found, place)


def find_object(place: str, what: str) -> Any:
    """What a module calls by a name.

    Args:
        place: ``pkg.mod:name``; the module is looked for among the installed ones and in the
            current folder.
        what: what it should be, for errors.

    Raises:
        ConfigError: there is no such module or name.
    """
    module_name, _, name = place.partition(":")
    with foreign_code(f"{what} {place}: cannot import {module_name}", ConfigError):
        if not all(part.isidentifier() for part in module_name.split(".")):
            raise ImportError("expected package.module:name")
        with _current_folder_on_path():
            module = importlib.import_module(module_name)
        found: Any = getattr(module, name, None)
    if found is None:
        raise _no_function(what, place)
    return found


def _no_function(what: str, place: str) -> ConfigError:
    module_name, _, name = place.partition(":")
    return ConfigError(f"{what} {place}: {module_name} has no function or {what} called {name}")


@contextmanager
def _current_folder_on_path() -> Iterator[None]:
    """Scripts installed by pip do not look for modules where they are called."""
    folder = os.getcwd()
    sys.path.append(folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
