"""The calculator counts what torch counts, and says what was published."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, BertModel, T5Config, T5EncoderModel

from resonate_audio.cli.main import run
from resonate_audio.cli.train_plan import make_tables, markdown_lines
from resonate_audio.core.types import TextFeatures
from resonate_audio.model import attention, blocks
from resonate_audio.model.flow_transformer import FlowTransformer, FlowTransformerConfig
from resonate_audio.model.presets import NANO, NANO_FLOW, RESONATE
from resonate_audio.training import plan

WIDE = FlowTransformerConfig(
    latent_channels=8,
    hidden=128,
    num_heads=2,
    num_joint_blocks=3,
    num_single_blocks=5,
    mlp_ratio=8.0,
    text_dim=48,
    pooled_dim=40,
    num_text_tokens=20,
)
H100 = plan.Machine()


def inputs(config: FlowTransformerConfig, rows: int, frames: int) -> tuple[Tensor, Tensor, Any]:
    tokens = torch.randn(rows, config.num_text_tokens, config.text_dim)
    features = TextFeatures(tokens, torch.randn(rows, config.pooled_dim))
    return torch.randn(rows, frames, config.latent_channels), torch.rand(rows), features


@pytest.mark.parametrize("config", [NANO_FLOW.transformer, WIDE], ids=["nano", "wide"])
def test_forward_work_is_what_torch_counts(config: FlowTransformerConfig) -> None:
    model, (z, t, features) = FlowTransformer(config), inputs(config, 2, 50)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(z, t, model.condition(features))
    assert 2 * plan.forward_flops(config, 50) == pytest.approx(counter.get_total_flops(), rel=1e-9)


@pytest.mark.parametrize("config", [NANO_FLOW.transformer, WIDE], ids=["nano", "wide"])
def test_training_work_is_what_torch_counts(config: FlowTransformerConfig) -> None:
    model, (z, t, features) = FlowTransformer(config), inputs(config, 1, 50)
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(z, t, model.condition(features)).square().mean().backward()
    assert plan.train_flops(config, 50) == pytest.approx(counter.get_total_flops(), rel=0.03)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_activations_are_what_autograd_keeps(
    precision: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the layers that a GPU runs: the calculator plans for GPUs, a CPU in bf16 keeps more."""
    for module in (attention, blocks):
        monkeypatch.setattr(module, "in_products", lambda _: False)
    kept = [kept_bytes(WIDE, rows, 100, precision == "bf16") for rows in (1, 2)]
    expected = plan.activation_bytes(WIDE, 100, precision)
    assert expected == pytest.approx(kept[1] - kept[0], rel=0.05)


def kept_bytes(config: FlowTransformerConfig, rows: int, frames: int, half: bool) -> int:
    """Bytes of all that the backward pass will need, but the weights."""
    model, (z, t, features) = FlowTransformer(config), inputs(config, rows, frames)
    weights = {value.untyped_storage().data_ptr() for value in model.parameters()}
    found: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in weights:
            found[place] = tensor
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
        torch.autocast("cpu", dtype=torch.bfloat16, enabled=half),
    ):
        model(z, t, model.condition(features))
    return sum(tensor.untyped_storage().nbytes() for tensor in found.values())


def test_the_published_model_has_the_published_size() -> None:
    assert plan.count_parameters(RESONATE.transformer) == pytest.approx(470e6, rel=0.01)


def test_the_published_pretraining_is_124_million_tflop() -> None:
    job = plan.PretrainJob()
    cost = plan.plan_pretraining(RESONATE, job, H100, 8)
    assert cost.tflop * job.num_steps == pytest.approx(1.24e8, rel=0.02)


def test_the_official_reinforcement_fits_its_ninety_gigabytes() -> None:
    """24 takes at once with guidance, float16 weights and moments there, float32 here."""
    official = plan.ReinforceJob(prompts_per_step=8)
    big = plan.Machine(memory_gb=141)
    cost = plan.plan_reinforcement(RESONATE, official, big, 8)
    assert cost.memory_gb == pytest.approx(90, rel=0.35)


def test_twice_the_gpus_are_never_more_than_twice_as_fast() -> None:
    job = plan.PretrainJob()
    costs = [plan.plan_pretraining(RESONATE, job, H100, 2**n) for n in range(11)]
    for slow, fast in itertools.pairwise(costs):
        assert fast.speed_up(slow) <= 2.0 + 1e-9


def test_gpus_without_a_row_do_not_help() -> None:
    job = plan.PretrainJob(batch=256)
    all_busy = plan.plan_pretraining(RESONATE, job, H100, 256)
    too_many = plan.plan_pretraining(RESONATE, job, H100, 1024)
    assert too_many.busy == 256
    assert too_many.limit == "more GPUs than rows"
    assert too_many.hours >= all_busy.hours


def test_a_ring_sends_nearly_twice_the_gradients() -> None:
    assert plan.reduce_bytes(100, 1) == 0
    assert plan.reduce_bytes(100, 2) == 400
    assert plan.reduce_bytes(100, 1024) == pytest.approx(800, rel=1e-2)


def test_a_window_of_two_steps_without_guidance_is_several_times_cheaper() -> None:
    full = plan.reinforcement_flops(RESONATE, plan.ReinforceJob())
    short = plan.reinforcement_flops(RESONATE, plan.ReinforceJob(trained_steps=2, guidance=False))
    assert full["update"] / short["update"] == pytest.approx(9.0)
    assert full["rollout"] / short["rollout"] == pytest.approx(2.0)


def test_latents_are_a_tenth_of_the_sound() -> None:
    sizes = plan.storage_gb(RESONATE, plan.PretrainJob())
    assert sizes["sound, 16 bits"] == pytest.approx(3175, rel=0.01)
    assert sizes["latents, mean and deviation"] < sizes["sound, 16 bits"] / 10


def test_text_encoders_have_the_parameters_that_are_counted() -> None:
    large = T5Config(
        d_model=1024,
        d_ff=2816,
        d_kv=64,
        num_heads=16,
        num_layers=24,
        feed_forward_proj="gated-gelu",
    )
    small = BertConfig(
        hidden_size=384, intermediate_size=1536, num_hidden_layers=6, num_attention_heads=12
    )
    with torch.device("meta"):
        layers = {"t5": T5EncoderModel(large).encoder.block, "minilm": BertModel(small).encoder}
    for kind, network in layers.items():
        matrices = [value for value in network.parameters() if min(value.shape) > 32]
        count = sum(value.numel() for value in matrices if value.ndim == 2)
        assert plan.TEXT_PARAMETERS[kind] == pytest.approx(count, rel=0.01)


def test_the_whole_way_is_that_of_its_parts() -> None:
    job, learn = plan.PretrainJob(num_steps=10), plan.ReinforceJob(num_steps=10)
    encode, train, reinforce = plan.list_stages(RESONATE, job, learn)
    one, taught = (
        plan.plan_pretraining(RESONATE, job, H100, 1),
        plan.plan_reinforcement(RESONATE, learn, H100, 1),
    )
    assert train.pflop == pytest.approx(10 * one.tflop / 1e3)
    assert reinforce.pflop == pytest.approx(10 * taught.tflop / 1e3)
    assert train.reads_gb == pytest.approx(
        10 * one.step_s * plan.reading_mb_s(RESONATE, job, one.step_s) / 1e3
    )
    assert encode.writes_gb < encode.reads_gb / 3


def test_the_tables_of_the_documentation_are_those_of_the_calculator() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    job, gpus = plan.PretrainJob(), [1, 8, 64, 1024]
    for table in make_tables(RESONATE, job, plan.ReinforceJob(), H100, gpus):
        assert "\n".join(markdown_lines(table)) in page, table.title


def test_hours_say_how_many_steps_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["train", "plan", "--preset", "nano", "--gpus", "1,8", "--hours", "2"]) == 0
    said = capsys.readouterr().out
    assert "steps in 2 h" in said
    cost = plan.plan_pretraining(NANO, plan.PretrainJob(), H100, 8)
    assert f"{plan.steps_within(cost, 2.0):,}" in said


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--gpus", "8,many", "--gpus 8,many: expected numbers of GPUs"),
        ("--gpus", "0", "--gpus 0: expected numbers of GPUs"),
        ("--preset", "huge", "--preset huge: expected one of resonate"),
        ("--utilisation", "1.5", "'--utilisation': Input should be less than or equal to 1"),
        ("--memory-gb", "0", "'--memory-gb': Input should be greater than"),
    ],
)
def test_options_that_make_no_sense_are_refused_in_one_line(
    option: str, value: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["train", "plan", option, value]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
