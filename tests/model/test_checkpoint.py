from __future__ import annotations

import math
import pickle
from datetime import date
from pathlib import Path

import pytest
import torch
from torch import nn

from resonate_audio.core.errors import CheckpointError, OutputError
from resonate_audio.model.checkpoint import (
    TENSORS_AT_ONCE,
    MappedWeights,
    fingerprint_weights,
    load_file_strict,
    load_strict,
    read_weights,
    write_weights,
)

STATE = {"weight": torch.tensor([[1.0, 2.0]]), "bias": torch.tensor([0.5])}


class Exploit:
    """What a hostile pickle does: call something while it is opened."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("owned"),)


def test_safetensors_come_back_bit_equal(tmp_path: Path) -> None:
    write_weights(tmp_path / "model.safetensors", STATE, {})
    back = read_weights(tmp_path / "model.safetensors")
    assert all(torch.equal(back[name], value) for name, value in STATE.items())


def test_a_transposed_view_is_written_as_it_looks(tmp_path: Path) -> None:
    matrix = torch.arange(6.0).view(2, 3)
    write_weights(tmp_path / "model.safetensors", {"m": matrix.T}, {})
    assert torch.equal(read_weights(tmp_path / "model.safetensors")["m"], matrix.T)


@pytest.mark.parametrize("wrapper", ["generator", "state_dict", "weights", "model"])
def test_a_pickle_that_nests_its_weights_is_unwrapped(tmp_path: Path, wrapper: str) -> None:
    torch.save({wrapper: STATE}, tmp_path / "g.pth")
    assert torch.equal(read_weights(tmp_path / "g.pth")["weight"], STATE["weight"])


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_weights(tmp_path / "none.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 40, 90])
def test_a_truncated_safetensors_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.safetensors"
    write_weights(path, STATE, {})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="truncated") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("keep", [0, 10, 500, -30])
def test_a_truncated_pickle_is_one_line(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "model.pth"
    torch.save(STATE, path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match=r"truncated|refused") as caught:
        read_weights(path)
    assert "\n" not in str(caught.value)


def test_text_called_pth_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.pth").write_text("<html>please log in</html>")
    with pytest.raises(CheckpointError, match=r"truncated|refused"):
        read_weights(tmp_path / "model.pth")


def test_a_pickle_cannot_run_code(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, save in (("new.pth", torch.save), ("old.pth", save_plain_pickle)):
        save({"weight": Exploit()}, tmp_path / name)
        with pytest.raises(CheckpointError, match="refused"):
            read_weights(tmp_path / name)
    assert not (tmp_path / "owned").exists()


def save_plain_pickle(content: object, path: Path) -> None:
    path.write_bytes(pickle.dumps(content))


@pytest.mark.parametrize(
    "content", [[1, 2], {}, {"step": 3}, {"weight": [1.0]}, {1: torch.ones(1)}]
)
def test_a_pickle_that_is_not_weights_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match="refused"):
        read_weights(tmp_path / "model.pth")


def test_what_a_pickle_holds_besides_tensors_is_named(tmp_path: Path) -> None:
    torch.save({"a": torch.ones(2), "when": date(2026, 1, 1)}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"other than weights \(datetime\.date\)"):
        read_weights(tmp_path / "x.pth")


def test_a_mapped_pickle_holds_the_same(tmp_path: Path) -> None:
    torch.save({"a": torch.arange(5.0)}, tmp_path / "x.pth")
    torch.save({"a": torch.arange(5.0)}, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    for name in ("x.pth", "old.pth"):
        assert torch.equal(read_weights(tmp_path / name, mapped=True)["a"], torch.arange(5.0))


def test_a_file_is_loaded_in_groups_of_tensors(tmp_path: Path) -> None:
    layers = [nn.Linear(2, 2) for _ in range(TENSORS_AT_ONCE)]
    written, read = nn.Sequential(*layers), nn.Sequential(*[nn.Linear(2, 2) for _ in layers])
    write_weights(tmp_path / "x.safetensors", written.state_dict(), {})
    load_file_strict(read, tmp_path / "x.safetensors")
    for one, other in zip(written.parameters(), read.parameters(), strict=True):
        assert torch.equal(one, other)
    with pytest.raises(CheckpointError, match=r"x\.safetensors: weight is missing"):
        load_file_strict(nn.Linear(2, 2), tmp_path / "x.safetensors")


def test_assigned_weights_are_the_very_tensors() -> None:
    with torch.device("meta"):
        linear = nn.Linear(2, 1)
    state = {"weight": torch.ones(1, 2), "bias": torch.ones(1, dtype=torch.float16)}
    load_strict(linear, state, "here", assign=True)
    assert linear.weight.data_ptr() == state["weight"].data_ptr()
    assert linear.bias.dtype == torch.float32


def test_strict_loading_copies_every_weight() -> None:
    linear = nn.Linear(2, 1)
    load_strict(linear, STATE, "here")
    assert torch.equal(linear.weight, STATE["weight"])
    assert torch.equal(linear.bias, STATE["bias"])


def test_the_first_missing_weight_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"here: bias is missing"):
        load_strict(nn.Linear(2, 1), {"weight": STATE["weight"]}, "here")


def test_the_unexpected_weight_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"here: gain is not a weight of this model"):
        load_strict(nn.Linear(2, 1), {**STATE, "gain": torch.ones(1)}, "here")


def test_the_misshapen_weight_is_named_with_both_shapes() -> None:
    with pytest.raises(CheckpointError, match=r"weight has shape \(1, 2\), expected \(1, 3\)"):
        load_strict(nn.Linear(3, 1), STATE, "here")


def test_a_refused_state_changes_nothing() -> None:
    linear = nn.Linear(2, 1)
    before = linear.weight.detach().clone()
    with pytest.raises(CheckpointError):
        load_strict(linear, {**STATE, "gain": torch.ones(1)}, "here")
    assert torch.equal(linear.weight, before)


def test_a_weight_that_is_not_finite_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"here: bias holds NaN"):
        load_strict(nn.Linear(2, 1), {**STATE, "bias": torch.tensor([torch.nan])}, "here")


def test_writing_into_a_file_as_folder_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_weights(tmp_path / "file" / "model.safetensors", STATE, {})


def test_the_fingerprint_sees_values_names_and_not_the_storage_type() -> None:
    half = {name: value.half() for name, value in STATE.items()}
    other = {**STATE, "bias": STATE["bias"] + 1e-7}
    renamed = {"weight": STATE["weight"], "gain": STATE["bias"]}
    assert fingerprint_weights([STATE]) == fingerprint_weights([half])
    assert len({fingerprint_weights([state]) for state in (STATE, other, renamed)}) == 3


def test_mapped_weights_are_those_of_the_file_under_other_names(tmp_path: Path) -> None:
    path, values = tmp_path / "weights.safetensors", torch.arange(6.0).view(2, 3)
    write_weights(path, {"a": values, "b": values + 1}, {})
    mapped = MappedWeights.of(path, {"first": "a", "second": "b", "again": "a"})
    assert mapped is not None
    assert list(mapped) == ["first", "second", "again"]
    assert torch.equal(mapped["second"], values + 1)
    as_they_are = {"first": values, "second": values + 1, "again": values}
    assert fingerprint_weights([mapped]) == fingerprint_weights([as_they_are])
    assert MappedWeights.of(path, {"first": "c"}) is None
    assert MappedWeights.of(tmp_path / "none.safetensors", {}) is None


def test_numbers_may_be_looked_at_elsewhere_than_they_are_loaded_from() -> None:
    module = nn.Linear(2, 1, bias=False)
    broken = {"weight": torch.tensor([[1.0, math.nan]])}
    with pytest.raises(CheckpointError, match="weight holds NaN"):
        load_strict(module, {"weight": torch.ones(1, 2)}, "file", looked_at=broken)


@pytest.mark.parametrize("place", ["/", ".", "..", ""])
def test_a_folder_is_no_file_of_weights(place: str) -> None:
    with pytest.raises(CheckpointError, match="no such weights file"):
        read_weights(Path(place))
