"""The forms that trainers give the weights of one network: what is forgiven, and nothing more.

Wrappers around the weights, prefixes before every name in any order and number, averages beside
the weights they are of, numbers and words beside tensors. What is left is as strict as ever: the
loader names the first weight that is missing, unexpected or misshapen.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from resonate_audio.core.errors import CheckpointError

State = dict[str, Tensor]
AVERAGES = ("ema", "ema_model", "ema_state_dict", "ema_weights", "model_ema", "state_dict_ema")
"""Keys under which trainers nest the averaged weights."""
WRAPPERS = (
    *("state_dict", "model_state_dict", "model", "module", "net", "network", "weights"),
    *("generator", "params"),
)
"""Keys under which official and common trainers nest the weights."""
PREFIXES = (
    *("module.", "_orig_mod.", "_fsdp_wrapped_module.", "model.", "net.", "network."),
    *("state_dict.", "online_model.", "_forward_module."),
)
"""What distributed training, compilation and wrappers put before every name."""
AVERAGE_PREFIXES = ("ema_model.", "ema.", "model_ema.", "ema_module.")
"""The same for averaged weights."""
COMPILED = "_orig_mod."
"""What compilation of a part puts inside names."""
BESIDE = frozenset(
    {"initted", "step", "steps", "epoch", "global_step", "num_updates", "n_averaged", "decay"}
)
"""Numbers that averages and trainers keep as tensors."""
PLAIN = (int, float, str, bytes, bool, type(None))


class AverageTakenWarning(UserWarning):
    """A file holds averaged weights beside plain ones; the averaged ones were taken."""


def find_weights(content: object, source: str) -> State:
    """The named tensors of one network in whatever a file holds.

    Args:
        content: of the file: mappings of tensors, plain values, other mappings.
        source: what messages call the file.

    Raises:
        CheckpointError: there are none, or something else is beside them; names the first.
    """
    inner = _unwrap(content, source)
    if not isinstance(inner, Mapping) or not inner:
        raise CheckpointError(
            f"{source}: refused, expected named tensors but it holds a {type(inner).__name__}"
        )
    state: State = {}
    for key, value in inner.items():
        if isinstance(key, str) and isinstance(value, Tensor):
            state[key] = value
        elif not (isinstance(key, str) and isinstance(value, PLAIN)):
            raise CheckpointError(
                f"{source}: refused, {key!r} is a {type(value).__name__}, not a tensor"
            )
    if not state:
        raise CheckpointError(f"{source}: refused, it holds no tensor")
    return plain_names(state, source)


def _unwrap(content: object, source: str) -> object:
    """Follow wrappers down to where the tensors are."""
    while isinstance(content, Mapping) and not _has_weights(content):
        average = _first_mapping(content, AVERAGES)
        weights = _first_mapping(content, WRAPPERS)
        if average is None and weights is None:
            return content
        if average is not None and weights is not None:
            _say(source)
            return _join(_unwrap(content[weights], source), _unwrap(content[average], source))
        content = content[weights if average is None else average]
    return content


def _join(weights: object, average: object) -> object:
    """Averages, and from the weights what has none: buffers."""
    if not isinstance(weights, Mapping) or not isinstance(average, Mapping):
        return average
    plain = {k: v for k, v in weights.items() if isinstance(k, str) and isinstance(v, Tensor)}
    mean = {k: v for k, v in average.items() if isinstance(k, str) and isinstance(v, Tensor)}
    return _overlaid(plain, mean)


def _first_mapping(content: Mapping[Any, Any], names: Iterable[str]) -> str | None:
    """The first of some keys that leads to named tensors, however deep."""
    return next((name for name in names if _holds_weights(content.get(name))), None)


def _holds_weights(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    nested = (value.get(name) for name in (*AVERAGES, *WRAPPERS))
    return _has_weights(value) or any(map(_holds_weights, nested))


def _has_weights(content: Mapping[Any, Any]) -> bool:
    """Whether tensors lie here that are more than a number beside the weights."""
    return any(isinstance(v, Tensor) and not _is_beside(k, v) for k, v in content.items())


def _is_beside(name: object, value: Tensor) -> bool:
    return value.numel() == 1 and str(name).rsplit(".")[-1] in BESIDE


def plain_names(state: State, source: str) -> State:
    """Names without what wrappers put before them; averages in the place of what they are of.

    Raises:
        CheckpointError: two weights have the same name then.
    """
    shared = {_without_compiled(name): value for name, value in state.items()}
    if len(shared) < len(state):
        raise CheckpointError(f"{source}: two weights differ in {COMPILED!r} alone")
    kept = {name: value for name, value in shared.items() if not _is_beside(name, value)}
    average = {name: value for name, value in kept.items() if _is_average(name)}
    weights = {name: value for name, value in kept.items() if name not in average}
    if not average:
        return _without_common(weights or shared, PREFIXES)
    mean = _without_common(average, (*PREFIXES, *AVERAGE_PREFIXES))
    if not weights:
        return mean
    _say(source)
    return _overlaid(weights, mean)


def _overlaid(weights: State, average: State) -> State:
    prefixes = (*PREFIXES, *AVERAGE_PREFIXES)
    return _without_common(weights, prefixes) | _without_common(average, prefixes)


def _say(source: str) -> None:
    warnings.warn(
        f"{source}: holds averaged weights (EMA) beside plain ones; the averaged ones are taken",
        AverageTakenWarning,
        stacklevel=4,
    )


def _without_compiled(name: str) -> str:
    return name.replace(COMPILED, "")


def _is_average(name: str) -> bool:
    """Whether, behind other prefixes, a name begins as averages do."""
    while not name.startswith(AVERAGE_PREFIXES):
        rest = next((name.removeprefix(start) for start in PREFIXES if name.startswith(start)), "")
        if not rest:
            return False
        name = rest
    return True


def _without_common(state: State, prefixes: Iterable[str]) -> State:
    """Take off, again and again, a prefix that every name has."""
    known = tuple(prefixes)
    while state:
        shared = next((p for p in known if all(name.startswith(p) for name in state)), None)
        if shared is None:
            return state
        state = {name.removeprefix(shared): value for name, value in state.items()}
    return state
