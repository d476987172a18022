"""Weights on disk: read without trust, load strictly, write atomically."""

from __future__ import annotations

import errno
import hashlib
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from resonate_audio.core.documents.json_text import parse_object, read_object
from resonate_audio.core.documents.text import one_line, read_text
from resonate_audio.core.errors import CheckpointError
from resonate_audio.core.files import atomic_path
from resonate_audio.core.foreign import foreign_code
from resonate_audio.model.weight_forms import find_weights

if TYPE_CHECKING:
    from tokenizers import Tokenizer

State = dict[str, Tensor]
MAX_TOKENIZER_BYTES = 1 << 26
INDEX_SUFFIX = ".index.json"
"""What follows the name of a safetensors file that was cut in several: the list of its parts."""
TENSORS_AT_ONCE = 16
"""Tensors read through one mapping of a file: what was read of it stays in memory until then."""
_FOREIGN_OBJECT = re.compile(r"(?<=GLOBAL )[\w.]+")
"""How PyTorch names what a pickle holds besides tensors."""


def read_weights(path: Path, mapped: bool = False) -> State:
    """Read the tensors of a ``.safetensors`` file or of a ``.pth`` / ``.pt`` / ``.bin`` pickle.

    Pickles are opened with ``weights_only=True``, so no code in them can run. A safetensors file
    may be cut in several with an index (``model.safetensors.index.json``), which may be named
    itself. Wrappers, prefixes and averages are taken off as `weight_forms` says.

    Args:
        path: the file.
        mapped: leave what lies in a pickle on the disk until it is looked at, where its format
            allows that; a safetensors file always is.

    Raises:
        CheckpointError: the file is missing, truncated, or holds something other than weights.
    """
    if path.name.endswith(INDEX_SUFFIX):
        return find_weights(_read_shards(path), str(path))
    if not os.path.isfile(path):  # unlike Path.is_file, false for a name that is too long
        index = path.parent / (path.name + INDEX_SUFFIX)
        if path.suffix == ".safetensors" and os.path.isfile(index):
            return find_weights(_read_shards(index), str(index))
        raise CheckpointError(f"{path}: no such weights file")
    is_plain = path.suffix.lower() == ".safetensors"
    content = _read_safetensors(path) if is_plain else _read_pickle(path, mapped)
    return find_weights(content, str(path))


def _read_safetensors(path: Path) -> State:
    try:
        state: State = load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise CheckpointError(
            f"{path}: truncated or not a safetensors file ({one_line(error)})"
        ) from error
    return state


def _read_shards(index: Path) -> State:
    """The tensors of every file that an index names, each from the file that it says."""
    places = read_object(index, CheckpointError).get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{index}: weight_map is missing, which says where each tensor is")
    state: State = {}
    for name in sorted({str(place) for place in places.values()}):
        if "/" in name or "\\" in name or not name.endswith(".safetensors"):
            raise CheckpointError(f"{index}: {name!r} is not a safetensors file beside it")
        file = index.with_name(name)
        if not os.path.isfile(file):
            raise CheckpointError(f"{file}: missing, but {index.name} says that it has weights")
        state |= _read_safetensors(file)
    missing = next((name for name in places if name not in state), None)
    if missing is not None:
        raise CheckpointError(f"{index}: {missing} is in none of the files that it names")
    return state


def _read_pickle(path: Path, mapped: bool) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on the protocol of foreign pickles
            mapped = mapped and zipfile.is_zipfile(path)
            with torch.serialization.safe_globals(_numbers()):
                content: object = torch.load(
                    path, map_location="cpu", weights_only=True, mmap=mapped
                )
    except Exception as error:  # a broken pickle raises whatever its opcodes stumble over
        if not isinstance(error, OSError) and not _begins_as_weights(path):
            expected = "expected .safetensors, or a .pth, .pt or .bin of PyTorch"
            raise CheckpointError(f"{path}: truncated or not a weights file; {expected}") from error
        if isinstance(error, pickle.UnpicklingError):
            found = _FOREIGN_OBJECT.search(str(error))
            named = f" ({found[0]})" if found else ""
            raise CheckpointError(
                f"{path}: refused, because it is a pickle of something other than weights{named}"
            ) from error
        raise CheckpointError(
            f"{path}: truncated or not a weights file ({one_line(error)})"
        ) from error
    return content


def _begins_as_weights(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(2).startswith((b"PK", b"\x80"))


def _numbers() -> list[Any]:
    """NumPy's numbers, which trainers keep beside the weights; they can run no code."""
    scalar = np.float64(0).__reduce__()[0]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    kinds = [type(np.dtype(kind)) for kind in ("f2", "f4", "f8", "i4", "i8", "?")]
    return [*((scalar, f"{module}.scalar") for module in modules), np.dtype, *kinds]


def read_tokenizer(path: Path) -> Tokenizer:
    """Read a ``tokenizer.json``; its library panics at some broken ones.

    Raises:
        CheckpointError: it cannot be read, or is no tokenizer.
    """
    from tokenizers import Tokenizer

    text = read_text(path, CheckpointError, MAX_TOKENIZER_BYTES)
    parse_object(text, str(path), CheckpointError)
    with foreign_code(f"{path}: not a tokenizer", CheckpointError):
        tokenizer: Tokenizer = Tokenizer.from_str(text)
    return tokenizer


def load_strict(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    assign: bool = False,
    looked_at: Mapping[str, Tensor] | None = None,
) -> None:
    """Load every tensor of ``state`` into ``module``, in the module's own dtype.

    Args:
        module: takes the weights.
        state: named tensors.
        source: what messages call it.
        assign: let the module have these very tensors (it may be on the meta device); those of
            another dtype are copies.
        looked_at: the same tensors, where ``state`` is to stay on the disk until it is used.

    Raises:
        CheckpointError: names the first key that is missing, unexpected, of another shape, or
            not finite; the module is left as it was.
    """
    expected = module.state_dict()
    _check_shapes({key: tuple(value.shape) for key, value in state.items()}, expected, source)
    _check_finite(state if looked_at is None else looked_at, source)
    if assign:
        state = {key: value.to(expected[key].dtype) for key, value in state.items()}
    module.load_state_dict(state, assign=assign)


def load_file_strict(module: nn.Module, path: Path) -> None:
    """Load a safetensors file into a new module, a few tensors at a time.

    The file is never in memory as a whole: beside the module's own weights there are
    ``TENSORS_AT_ONCE`` tensors of it.

    Raises:
        CheckpointError: as for ``read_weights`` and ``load_strict``; the module may be half loaded.
    """
    expected = module.state_dict()
    shapes: dict[str, tuple[int, ...]] = {}
    if path.is_file():
        with _opened(path) as file:
            shapes = {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
    if shapes.keys() != expected.keys():  # in several files, or in a form that is forgiven
        load_strict(module, read_weights(path), str(path))
        return
    _check_shapes(shapes, expected, str(path))
    for group in stream_weights(path, expected):
        _check_finite(group, str(path))
        module.load_state_dict(group, strict=False)


def stream_weights(path: Path, names: Iterable[str]) -> Iterator[State]:
    """Tensors of a safetensors file by name, mapped in groups that are given back in between.

    Raises:
        CheckpointError: the file is broken.
    """
    wanted = list(names)
    for start in range(0, len(wanted), TENSORS_AT_ONCE):
        with _opened(path) as file:
            yield {name: file.get_tensor(name) for name in wanted[start : start + TENSORS_AT_ONCE]}


class MappedWeights(Mapping[str, Tensor]):
    """Tensors of a safetensors file, each in memory while it is looked at and no longer.

    What is looked at in a file that is mapped as a whole stays in memory as long as its mapping.
    """

    def __init__(self, path: Path, places: Mapping[str, str]) -> None:
        self._path, self._places = path, places

    @classmethod
    def of(cls, path: Path, places: Mapping[str, str]) -> MappedWeights | None:
        """Some tensors of a file; None where it is in several, or does not hold them all.

        Args:
            path: the file.
            places: name in the file of each.
        """
        if not path.is_file():
            return None
        with _opened(path) as file:
            held = set(file.keys())
        return cls(path, places) if held.issuperset(places.values()) else None

    def __getitem__(self, name: str) -> Tensor:
        place = self._places[name]
        with _opened(self._path) as file:
            tensor: Tensor = file.get_tensor(place)
        return tensor

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path}: truncated or not a safetensors file ({one_line(error)})"
        ) from error


def _check_finite(state: Mapping[str, Tensor], source: str) -> None:
    broken = next((key for key, value in state.items() if not value.isfinite().all()), None)
    if broken is not None:
        raise CheckpointError(f"{source}: {broken} holds NaN or infinite values")


def _check_shapes(
    found: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor], source: str
) -> None:
    for key, value in expected.items():
        if key not in found:
            raise CheckpointError(f"{source}: {key} is missing ({len(found)} tensors found)")
        if found[key] != tuple(value.shape):
            raise CheckpointError(
                f"{source}: {key} has shape {found[key]}, expected {tuple(value.shape)}"
            )
    unexpected = next((key for key in found if key not in expected), None)
    if unexpected is not None:
        raise CheckpointError(f"{source}: {unexpected} is not a weight of this model")


def read_metadata(path: Path) -> dict[str, str]:
    """What a safetensors file says of itself; nothing for another file.

    Raises:
        CheckpointError: it cannot be read.
    """
    if path.suffix != ".safetensors":
        return {}
    try:
        with safe_open(path, framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, OSError, ValueError) as error:
        raise CheckpointError(f"{path}: cannot read it ({one_line(error)})") from error


def write_weights(path: Path, state: Mapping[str, Tensor], metadata: dict[str, str]) -> None:
    """Write tensors to ``path`` as safetensors; a reader sees the old file or the whole new one.

    Raises:
        OutputError: the folder cannot be written or the disk is full.
    """
    tensors = {key: value.detach().cpu().contiguous() for key, value in state.items()}
    with atomic_path(path) as temporary:
        save_tensors(tensors, temporary, metadata)


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
    """Write a safetensors file in place; use inside ``atomic_path``.

    Raises:
        OSError: with the system's error number, which safetensors keeps in its text alone.
    """
    try:
        save_file(tensors, path, metadata=metadata)
    except SafetensorError as error:
        found = re.search(r"os error (\d+)", str(error))
        number = int(found[1]) if found else errno.EIO
        raise OSError(number, os.strerror(number)) from error
    os.chmod(path, 0o644)  # safetensors makes files only their owner can read


def fingerprint_weights(states: Iterable[Mapping[str, Tensor]]) -> str:
    """First 16 hex digits of the SHA-256 over names and values, as float32.

    The same weights give the same fingerprint in memory and on disk, in any storage type that
    holds them exactly.
    """
    digest = hashlib.sha256()
    for state in states:
        for name in sorted(state):
            values = state[name].detach().cpu().float().contiguous()
            digest.update(f"{name}{tuple(values.shape)}".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()[:16]
