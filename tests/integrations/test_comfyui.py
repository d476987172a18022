"""The folder is loaded as ComfyUI loads a custom node, and run by what its nodes say."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
RATE_HZ = 44_100


@pytest.fixture(scope="module")
def custom_node() -> Iterator[ModuleType]:
    """As ComfyUI's ``load_custom_node``: the folder's ``__init__`` under the folder's path."""
    name = str(FOLDER).replace(".", "_x_")
    spec = importlib.util.spec_from_file_location(name, FOLDER / "__init__.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    yield module
    for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
        del sys.modules[loaded]


def execute(custom_node: ModuleType, name: str, **given: Any) -> tuple[Any, ...]:
    """As ComfyUI's executor: required fields must be there, results match RETURN_TYPES."""
    node = custom_node.NODE_CLASS_MAPPINGS[name]
    fields = node.INPUT_TYPES()
    assert fields["required"].keys() <= given.keys()
    assert given.keys() <= fields["required"].keys() | fields.get("optional", {}).keys()
    result = getattr(node(), node.FUNCTION)(**given)
    assert isinstance(result, tuple)
    assert len(result) == len(node.RETURN_TYPES)
    return result


def is_audio(value: Any, rows: int, seconds: float) -> bool:
    waveform = value["waveform"]
    assert waveform.dtype == torch.float32
    assert float(waveform.abs().max()) <= 1.0
    return tuple(waveform.shape) == (rows, 1, round(seconds * value["sample_rate"]))


@pytest.fixture(scope="module")
def model(custom_node: ModuleType) -> Any:
    return execute(custom_node, "ResonateLoad", model="nano", device="cpu")[0]


@pytest.fixture(scope="module")
def takes(custom_node: ModuleType, model: Any) -> dict[str, Any]:
    made = execute(
        custom_node,
        "ResonateGenerate",
        model=model,
        prompt="a dog barks",
        seconds=1.5,
        takes=2,
        seed=5,
        steps=3,
    )[0]
    assert isinstance(made, dict)
    return made


def test_every_node_says_what_comfyui_asks(custom_node: ModuleType) -> None:
    names = custom_node.NODE_CLASS_MAPPINGS.keys()
    assert names == custom_node.NODE_DISPLAY_NAME_MAPPINGS.keys()
    for node in custom_node.NODE_CLASS_MAPPINGS.values():
        assert callable(getattr(node, node.FUNCTION))
        assert node.CATEGORY == "audio/resonate"
        fields = node.INPUT_TYPES()
        for kind, *options in [*fields["required"].values(), *fields.get("optional", {}).values()]:
            assert isinstance(kind, str | list)
            assert all(isinstance(one, dict) for one in options)


def test_generated_takes_are_a_batch_of_the_models_sounds(
    takes: dict[str, Any], model: Any
) -> None:
    assert is_audio(takes, 2, 1.5)
    [second] = model.generate("a dog barks", duration_s=1.5, seeds=6, num_inference_steps=3)
    torch.testing.assert_close(
        takes["waveform"][1, 0], torch.from_numpy(second.samples), atol=1e-4, rtol=0
    )


def test_two_channels_are_varied_as_their_mean(custom_node: ModuleType, model: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    noise = 0.2 * torch.randn(1, 2, 2 * RATE_HZ, generator=generator).clamp(-3, 3)
    given = {"model": model, "strength": 0.5, "prompt": "rain", "takes": 2, "seed": 1, "steps": 2}
    stereo, mono = (
        execute(
            custom_node, "ResonateVary", audio={"waveform": wave, "sample_rate": RATE_HZ}, **given
        )[0]
        for wave in (noise, noise.mean(dim=1, keepdim=True))
    )
    assert is_audio(stereo, 2, 2.0)
    assert torch.equal(stereo["waveform"], mono["waveform"])


def test_outside_the_stretch_nothing_changes(
    custom_node: ModuleType, model: Any, takes: dict[str, Any]
) -> None:
    mended = execute(
        custom_node,
        "ResonateReplace",
        model=model,
        audio=takes,
        start=0.5,
        stop=1.0,
        prompt="a door slams",
        seed=9,
        steps=2,
    )[0]
    assert is_audio(mended, 2, 1.5)
    rate = takes["sample_rate"]
    before, after = int(0.4 * rate), int(1.1 * rate)
    for part in (slice(None, before), slice(after, None)):
        assert torch.equal(mended["waveform"][..., part], takes["waveform"][..., part])
    middle = slice(int(0.6 * rate), int(0.9 * rate))
    assert not torch.equal(mended["waveform"][..., middle], takes["waveform"][..., middle])


def test_the_judge_hands_on_the_best_take(custom_node: ModuleType, takes: dict[str, Any]) -> None:
    best, score, report = execute(
        custom_node,
        "ResonateJudge",
        audio=takes,
        prompt="a dog barks",
        judge="nano-clap",
        device="cpu",
    )
    scores = [float(line.split()[2]) for line in report.splitlines()]
    assert len(scores) == 2
    assert score == pytest.approx(max(scores), abs=1e-4)
    number = scores.index(max(scores))
    assert torch.equal(best["waveform"], takes["waveform"][number : number + 1])
