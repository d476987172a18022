"""Foreign generators speak our language: time, velocity, features, sound, folders."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

pytest.importorskip("diffusers", reason="needs the extra: pip install resonate-audio[guests]")

from resonate_audio.core.errors import CheckpointError, ConfigError, InputError, ModelNotFoundError
from resonate_audio.core.types import Latents, TextFeatures
from resonate_audio.flow.guidance import guided
from resonate_audio.flow.path import noised, velocity_target
from resonate_audio.pipeline.guests.guest import Guest, GuestConditions
from resonate_audio.pipeline.guests.stable_audio import StableAudioNetwork
from resonate_audio.training.recipes.reinforce import open_guest

pytestmark = pytest.mark.filterwarnings("ignore")  # what diffusers says of its own parts
KINDS = ("stable-audio", "tangoflux")
DURATION_S = 0.1


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    import tiny_guests  # here, where warnings of its imports are let through

    place = tmp_path_factory.mktemp("guests")
    return {kind: tiny_guests.write(kind, place / kind) for kind in KINDS}


def open_(model: str, duration_s: float = DURATION_S) -> Any:
    guest = open_guest(model, duration_s)
    assert guest is not None
    return guest


@pytest.fixture(params=KINDS)
def guest(request: pytest.FixtureRequest, folders: dict[str, str]) -> Any:
    return open_(folders[request.param])


def state_of(guest: Guest, rows: int) -> Tensor:
    frames, channels = guest.config.window_frames, guest.network.config.latent_channels
    return torch.randn(rows, frames, channels, generator=torch.Generator().manual_seed(5))


class Oracle(nn.Module):
    """Knows data and noise, and says v = α·noise − β·data at the angle that it is told."""

    def __init__(self, data: Tensor, noise: Tensor) -> None:
        super().__init__()
        self.config = type("Settings", (), {"attention_head_dim": 4})()
        self.data, self.noise = data, noise
        self.seen: list[Tensor] = []

    def forward(self, state: Tensor, angle: Tensor, **told: Any) -> tuple[Tensor]:
        cosine, sine = (f(angle * math.pi / 2)[:, None, None] for f in (torch.cos, torch.sin))
        self.seen.append((state.mT - cosine * self.data - sine * self.noise).abs().max())
        return ((cosine * self.noise - sine * self.data).mT,)


def test_the_angle_of_stable_audio_becomes_noise_minus_data_on_the_straight_path() -> None:
    generator = torch.Generator().manual_seed(0)
    data, noise = (torch.randn(5, 6, 3, generator=generator).double() for _ in range(2))
    oracle = Oracle(data, noise)
    told = torch.zeros(5, 2, 4), torch.zeros(5, 4)
    network = StableAudioNetwork(oracle, 3, TextFeatures(*told))
    t = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0]).double()
    conditions = GuestConditions(*told, torch.ones(5, 2, dtype=torch.bool))
    velocity = network(noised(data, noise, t), t, conditions)
    torch.testing.assert_close(velocity, velocity_target(data, noise), rtol=0, atol=1e-12)
    assert max(oracle.seen) < 1e-12, "the network sees its own path"


def test_stable_audio_sees_the_data_that_the_published_solver_sees(folders: dict[str, str]) -> None:
    """x − t·v is what diffusers' solver makes of the same prediction at σ = t / (1 − t)."""
    from diffusers import EDMDPMSolverMultistepScheduler

    guest = open_(folders["stable-audio"])
    scheduler = EDMDPMSolverMultistepScheduler(prediction_type="v_prediction", sigma_data=1.0)
    told = guest.network.condition(guest.encode_text(["rain"]))
    state, t = state_of(guest, 1), torch.tensor([0.7])
    sigma = t / (1 - t)
    sample = state / (1 - t)
    predicted = guest.network.transformer(
        scheduler.precondition_inputs(sample, sigma).mT,
        sigma.atan() * 2 / math.pi,
        encoder_hidden_states=told.tokens,
        global_hidden_states=told.pooled[:, None],
        rotary_embedding=guest.network._angles(state.shape[1] + 1, state.device),
    ).sample.mT
    expected = scheduler.precondition_outputs(sample, predicted, sigma)
    found = state - t * guest.network(state, t, told)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def published_flux(guest: Any, texts: list[str], state: Tensor, t: float) -> Tensor:
    """The transformer as the published sampler calls it: padded to the first text, no mask."""
    from resonate_audio.pipeline.guests.tangoflux import mean_heard

    guest.tokenizer.no_padding()
    length = len(guest.tokenizer.encode(texts[0]).ids)
    guest.tokenizer.enable_padding(length=length, pad_id=0, pad_token="<pad>")
    asked = guest.tokenizer.encode_batch(texts)
    ids, mask = (torch.tensor([getattr(a, n) for a in asked]) for n in ("ids", "attention_mask"))
    words = guest.text_encoder(input_ids=ids, attention_mask=mask)[0]
    seconds = guest.seconds(torch.full((len(texts),), guest.duration_s))
    return guest.network.transformer(
        hidden_states=state.expand(len(texts), -1, -1),
        timestep=torch.tensor([t]),
        pooled_projections=guest.fc(mean_heard(words, mask.bool())),
        encoder_hidden_states=torch.cat([words, seconds], 1),
        txt_ids=torch.zeros(length + 1, 3),
        img_ids=torch.arange(state.shape[1])[:, None].expand(-1, 3),
    ).sample


def test_tangoflux_in_a_batch_is_what_is_published_for_a_prompt_alone(
    folders: dict[str, str],
) -> None:
    guest, texts = open_(folders["tangoflux"]), ["a dog barks", "rain"]
    network, state = guest.network, state_of(guest, 1)
    features = guest.encode_text(texts)
    both, t = state.expand(2, -1, -1), torch.full((2,), 0.6)
    plain = network(both, t, network.condition(features))
    empty = network.condition(network.empty_features(2))
    steered = guided(network, network.condition(features), empty, 3.0)(both, t)
    for row, text in enumerate(texts):
        alone, none = published_flux(guest, [text, ""], state, 0.6)
        torch.testing.assert_close(plain[row], alone, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(steered[row], none + 3 * (alone - none), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_finite_differences(guest: Any) -> None:
    network = guest.network.double()
    features = guest.encode_text(["a dog", "rain"])
    told = network.condition(TextFeatures(features.tokens.double(), features.pooled.double()))
    state, t = state_of(guest, 2).double(), torch.tensor([0.3, 0.8]).double()
    weights = torch.randn(state.shape, generator=torch.Generator().manual_seed(1)).double()

    def value() -> Tensor:
        return (network(state, t, told) * weights).sum()

    value().backward()
    taught = [parameter for parameter in network.parameters() if parameter.requires_grad]
    for index, parameter in enumerate(taught):
        generator = torch.Generator().manual_seed(index)
        direction = torch.randn(parameter.shape, generator=generator).double()
        assert parameter.grad is not None
        slope, step = float((parameter.grad * direction).sum()), 1e-4
        with torch.no_grad():
            parameter += step * direction
            above = float(value())
            parameter -= 2 * step * direction
            below = float(value())
            parameter += step * direction
        assert slope == pytest.approx((above - below) / (2 * step), rel=1e-3, abs=1e-3)


def test_a_text_has_the_same_features_alone_and_with_others(guest: Any) -> None:
    both, alone = guest.encode_text(["a dog barks", "rain"]), guest.encode_text(["rain"])
    torch.testing.assert_close(both.tokens[1:], alone.tokens)
    torch.testing.assert_close(both.pooled[1:], alone.pooled)
    with pytest.raises(InputError, match="no prompt"):
        guest.encode_text([])


def test_a_sound_is_one_channel_of_the_length_that_was_asked_for(guest: Any) -> None:
    wave = guest.to_waveform(Latents(state_of(guest, 2), guest.config.frame_rate_hz))
    rate_hz = guest.config.sample_rate_hz
    assert (wave.sample_rate_hz, wave.samples.shape) == (rate_hz, (2, int(DURATION_S * rate_hz)))


def test_sounds_follow_prompt_seed_and_guidance(guest: Any) -> None:
    def latents(text: str, seed: int, scale: float) -> Tensor:
        sampling = guest.config.sampling(DURATION_S, 2, scale)
        features, negative = guest.encode_text([text]), guest.encode_negative([""])
        return guest.sample_latents(features, negative, [seed], sampling).values

    first = latents("rain", 3, 1.0)
    assert torch.equal(first, latents("rain", 3, 1.0))
    others = [latents("a dog", 3, 1.0), latents("rain", 4, 1.0), latents("rain", 3, 4.0)]
    assert all((first - other).abs().max() > 1e-6 for other in others)


def test_what_is_written_is_read_back_with_its_new_weights(guest: Any, tmp_path: Path) -> None:
    changed = {name: value + 0.5 for name, value in guest.network.state_dict().items()}
    for _ in range(2):  # a second export takes the place of the first
        guest.write(tmp_path / "out", changed)
    kind = guest.config.name.partition(":")[0]
    again = open_(f"{kind}:{tmp_path / 'out'}")
    found = again.network.state_dict()
    assert found.keys() == changed.keys()
    assert all(torch.equal(found[name], changed[name]) for name in changed)
    assert torch.equal(again.encode_text(["rain"]).tokens, guest.encode_text(["rain"]).tokens)


def test_a_length_beyond_the_window_is_refused(folders: dict[str, str]) -> None:
    for model in folders.values():
        with pytest.raises(InputError, match=r"duration of 3.0 s: .* makes up to 0\.\d+ s"):
            open_(model, 3.0)


def without(file: str) -> Any:
    return lambda folder: (folder / file).unlink()


def with_text(file: str, text: str) -> Any:
    return lambda folder: (folder / file).write_text(text)


def set_field(file: str, **values: Any) -> Any:
    def change(folder: Path) -> None:
        path = folder / file
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


SCHEDULER = "scheduler/scheduler_config.json"
TRANSFORMER = "transformer/diffusion_pytorch_model.safetensors"
BROKEN = {
    "no index": ("stable-audio", without("model_index.json"), "model_index.json is missing"),
    "no weights": ("stable-audio", without(TRANSFORMER), "transformer: cannot be loaded"),
    "broken weights": ("stable-audio", with_text(TRANSFORMER, "x"), "transformer: cannot be"),
    "other sizes": (
        "stable-audio",
        set_field("transformer/config.json", num_layers=2),
        "transformer: missing keys .*: transformer_blocks.1",
    ),
    "other form": (
        "stable-audio",
        set_field(SCHEDULER, prediction_type="epsilon"),
        "prediction_type is 'epsilon'; expected 'v_prediction'",
    ),
    "no JSON": ("stable-audio", with_text(SCHEDULER, "[" * 5000), "scheduler_config.json"),
    "no tokenizer": ("stable-audio", without("tokenizer/tokenizer.json"), "tokenizer"),
    "no vae": ("tangoflux", without("vae.safetensors"), "vae.safetensors is missing"),
    "cut weights": ("tangoflux", with_text("tangoflux.safetensors", "x"), "tangoflux.safetensors"),
    "text for a size": ("tangoflux", set_field("config.json", num_layers="six"), "num_layers"),
    "too many layers": ("tangoflux", set_field("config.json", num_layers=10**9), "too large"),
    "too wide": ("tangoflux", set_field("config.json", num_attention_heads=10**6), "would need"),
    "endless layers": (
        "stable-audio",
        set_field("transformer/config.json", num_layers=10**9),
        "num_layers 1000000000 is too large",
    ),
    "more layers": ("tangoflux", set_field("config.json", num_layers=2), "transformer_blocks.1"),
    "wide heads": (
        "tangoflux",
        set_field("config.json", attention_head_dim=64),
        "tangoflux.safetensors",
    ),
    "odd vae": ("tangoflux", set_field("config.json", vae={"x": 1}), "config.json"),
    "a wide vae": (
        "tangoflux",
        set_field("config.json", vae={"decoder_channels": 10**6}),
        "would need",
    ),
    "a list as vae": ("tangoflux", set_field("config.json", vae=[1]), "config.json"),
    "no T5": ("tangoflux", set_field("text_encoder/config.json", num_heads="x"), "config.json"),
    "half encoder": (
        "tangoflux",
        without("text_encoder/tokenizer.json"),
        "text encoder file tokenizer.json is missing",
    ),
    "odd tokens": ("tangoflux", with_text("text_encoder/tokenizer.json", "{}"), "tokenizer.json"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_folder_is_one_line_that_names_it(tmp_path: Path, case: str) -> None:
    import tiny_guests

    kind, damage, expected = BROKEN[case]
    model = tiny_guests.write(kind, tmp_path / "guest")
    damage(tmp_path / "guest")
    with pytest.raises((CheckpointError, ConfigError), match=expected) as caught:
        open_(model)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "guest") in str(caught.value)


@pytest.mark.parametrize("model", ["tangoflux:", "stable-audio:/nowhere/at/all"])
def test_no_folder_says_how_to_get_one(model: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no such folder; .*hf download"):
        open_(model)
