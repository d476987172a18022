import pytest
import torch
from learning import draw, learn
from tiny_corpus import tones
from torch import nn

from resonate_audio.audio.mel import MelFrontEnd
from resonate_audio.core.errors import ConfigError
from resonate_audio.model.bigvgan import BigVGAN, BigVGANConfig
from resonate_audio.model.parts_vocoder import PartsVocoder, PartsVocoderConfig
from resonate_audio.training.codec.crops import CropConfig, CropSource
from resonate_audio.training.codec.vocoder import (
    AdversaryConfig,
    VocoderObjective,
    VocoderTask,
    choose,
)

SMALL = PartsVocoderConfig(
    sample_rate_hz=16_000, num_bands=40, mel_n_fft=512, hop_samples=128, n_fft=256, dim=32,
    mlp_dim=32, dilations=(1,), num_sines=30,
)  # fmt: skip
PARTS = VocoderObjective(complex_weight=0, sine_weight=1.0, share_weight=1.0, variety=0.75)


def make_task(adversary: AdversaryConfig | None = None) -> VocoderTask:
    torch.manual_seed(0)
    source = CropSource(tones(), CropConfig(crop_s=0.256, rows_per_batch=3), 256, seed=0)
    objective = VocoderObjective(adversary=adversary)
    return VocoderTask(PartsVocoder(SMALL), MelFrontEnd(SMALL.mel_config()), source, objective)


def parts_task(objective: VocoderObjective) -> VocoderTask:
    torch.manual_seed(0)
    source = CropSource(tones(), CropConfig(crop_s=0.256, rows_per_batch=3), 256, seed=0)
    return VocoderTask(PartsVocoder(SMALL), MelFrontEnd(SMALL.mel_config()), source, objective)


def gradients(module: nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize("task", [make_task(), parts_task(PARTS)])
def test_the_spectra_come_closer(task: VocoderTask) -> None:
    losses = [loss for loss, _ in learn(task, 20, 3e-3)]
    assert sum(losses[-5:]) < 0.95 * sum(losses[:5])


def test_judges_learn_from_the_sounds_of_the_same_step() -> None:
    task = make_task(AdversaryConfig(sizes=(256,), width=2))
    assert list(task.phases) == ["model", "judges"]
    task.loss("model", draw(0))
    loss, _ = task.loss("judges", draw(0))
    loss.backward()
    assert gradients(task.phases["judges"]) > 0
    assert gradients(task.model) == 0


def test_judges_have_no_say_before_their_first_step() -> None:
    early = make_task(AdversaryConfig(sizes=(256,), width=2, start_step=5))
    alone = make_task()
    for task in (early, alone):
        task.model.eval()  # in which the vocoder's noise is drawn alike
    assert torch.equal(early.loss("model", draw(0))[0], alone.loss("model", draw(0))[0])
    assert "fooling_loss" in early.loss("model", draw(5))[1]


def test_sines_move_to_the_tones_of_the_recordings() -> None:
    nothing_else = dict.fromkeys(("magnitude", "convergence", "complex", "mel"), 0.0)
    weights = {f"{name}_weight": value for name, value in nothing_else.items()}
    task = parts_task(VocoderObjective(sine_weight=1.0, **weights))
    distances = [parts["sine_loss"].item() for _, parts in learn(task, 30, 3e-3)]
    assert sum(distances[-5:]) < 0.8 * sum(distances[:5])


def test_a_vocoder_without_sines_is_not_asked_for_them() -> None:
    task = make_task()
    config = BigVGANConfig(
        version=2, sample_rate_hz=16_000, num_bands=40, initial_channels=32,
        upsample_rates=(8, 4, 4), upsample_kernels=(16, 8, 8), block_kernels=(3,), dilations=(1,),
    )  # fmt: skip
    with pytest.raises(ConfigError, match=r"only a vocoder of kind parts has sines and"):
        VocoderTask(BigVGAN(config), task.mel, task.source, VocoderObjective(sine_weight=1.0))


def test_a_batch_is_compared_at_some_resolutions_and_the_next_at_others() -> None:
    drawn = [tuple(choose(5, 2, draw(index))) for index in range(30)]
    assert all(len(set(numbers)) == 2 for numbers in drawn)
    assert len(set(drawn)) > 5
    assert drawn == [tuple(choose(5, 2, draw(index))) for index in range(30)]
    assert choose(3, None, draw(0)) == [0, 1, 2]
