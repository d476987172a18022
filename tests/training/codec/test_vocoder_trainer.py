import torch
from learning import draw, learn
from tiny_corpus import tones
from torch import nn

from resonate_audio.audio.mel import MEL_16K, MelFrontEnd
from resonate_audio.model.istft_vocoder import ISTFTVocoder, ISTFTVocoderConfig
from resonate_audio.training.codec.crops import CropConfig, CropSource
from resonate_audio.training.codec.vocoder import AdversaryConfig, VocoderObjective, VocoderTask


def make_task(adversary: AdversaryConfig | None = None) -> VocoderTask:
    torch.manual_seed(0)
    source = CropSource(tones(), CropConfig(crop_s=0.256, rows_per_batch=3), 256, seed=0)
    model = ISTFTVocoder(ISTFTVocoderConfig(dim=32, num_layers=1, mlp_dim=32, num_refine=0))
    return VocoderTask(model, MelFrontEnd(MEL_16K), source, VocoderObjective(adversary=adversary))


def gradients(module: nn.Module) -> float:
    return sum(p.grad.abs().sum().item() for p in module.parameters() if p.grad is not None)


def test_the_spectra_come_closer() -> None:
    task = make_task()
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
    assert torch.equal(early.loss("model", draw(0))[0], alone.loss("model", draw(0))[0])
    assert "fooling_loss" in early.loss("model", draw(5))[1]
